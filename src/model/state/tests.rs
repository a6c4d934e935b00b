use super::known::ATTEMPTS_MAX;
use super::*;
use crate::model::etag::Md5Digest;
use crate::model::manifest::{ContentHash, ObjectRecord, Proof};

const SETTLE: Duration = Duration::from_secs(1);

/// A directory and a clock, from which scans are made.
pub(super) struct World {
    pub(super) state: DumpState,
    pub(super) now: Instant,
    pub(super) files: std::collections::BTreeMap<String, (FileIdentity, bool)>,
    inodes: u64,
    vanished: Vec<(FileName, FileIdentity)>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            state: DumpState::new(SETTLE),
            now: Instant::now(),
            files: Default::default(),
            inodes: 0,
            vanished: Vec::new(),
        }
    }

    pub(super) fn put(&mut self, name: &str, closed: bool) {
        self.inodes += 1;
        let identity = FileIdentity { device: 1, inode: self.inodes, size: 10, modified: 0, changed: 0 };
        self.files.insert(name.to_owned(), (identity, closed));
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing::default();
        for (name, (identity, _)) in &self.files {
            listing.push(name, identity.inode).expect("a name");
        }
        listing
    }

    pub(super) fn resize(&mut self, name: &str, size: u64) {
        self.files.get_mut(name).expect("the file").0.size = size;
    }

    pub(super) fn close(&mut self, name: &str) {
        self.files.get_mut(name).expect("the file").1 = true;
    }

    pub(super) fn scan(&mut self, phase: Phase, seconds: u64) -> Vec<UploadJob> {
        self.look(phase, seconds).jobs
    }

    /// Uploads the only file that is there, and leaves it there.
    fn upload_and_keep(&mut self, name: &str) -> FileIdentity {
        let mut jobs = self.scan(Phase::Writing, 0);
        jobs.extend(self.scan(Phase::Writing, 1));
        assert_eq!(names(&jobs), [name]);
        let job = jobs.pop().expect("a job");
        let identity = *job.identity();
        self.state.complete(job, uploaded(Local::Kept(Box::new(identity))));
        identity
    }

    pub(super) fn look(&mut self, phase: Phase, seconds: u64) -> Observed {
        self.now += Duration::from_secs(seconds);
        let listing = self.listing();
        let unfinished = self.state.unfinished(&listing);
        let probe = |name: FileName| {
            let (identity, closed) = self.files[name.as_str()];
            (
                name,
                Probe {
                    identity,
                    born: Some(identity.inode.cast_signed()),
                    writers: if closed { Writers::None } else { Writers::Some },
                },
            )
        };
        let probes = unfinished.into_iter().map(probe).collect();
        let vanished = std::mem::take(&mut self.vanished);
        self.state.observe(Scan { now: self.now, phase, listing, probes, vanished })
    }
}

fn names(jobs: &[UploadJob]) -> Vec<&str> {
    jobs.iter().map(|job| job.name().as_str()).collect()
}

pub(super) fn uploaded(local: Local) -> Uploaded {
    let object = ObjectRecord {
        size: 10,
        hash: ContentHash::Whole { md5: Md5Digest::of(b"") },
        etag: None,
        version_id: None,
        sha256: None,
        proof: Proof::EtagMd5,
        is_read_back: false,
    };
    Uploaded { object, local, broken: None, rows: None }
}

/// Promise 1: "A file that may still be written is never uploaded. Where we cannot tell, nothing is ready."
#[test]
fn an_open_file_is_never_ready() {
    let mut world = World::new();
    world.put("a.sql", false);
    for phase in [Phase::Writing, Phase::Ended, Phase::Committing] {
        assert_eq!(names(&world.scan(phase, 100)), [""; 0]);
    }
}

#[test]
fn a_closed_file_is_ready_when_it_stayed_the_same() {
    let mut world = World::new();
    world.put("a.sql", true);
    assert!(world.scan(Phase::Writing, 0).is_empty());
    world.put("a.sql", true); // written anew
    assert!(world.scan(Phase::Writing, 1).is_empty());
    assert_eq!(names(&world.scan(Phase::Writing, 1)), ["a.sql"]);
}

#[test]
fn opened_again_it_settles_again() {
    let mut world = World::new();
    world.put("a.sql", true);
    assert!(world.scan(Phase::Writing, 0).is_empty());
    world.files.get_mut("a.sql").expect("the file").1 = false;
    assert!(world.scan(Phase::Writing, 1).is_empty());
    world.files.get_mut("a.sql").expect("the file").1 = true;
    assert!(world.scan(Phase::Writing, 1).is_empty());
    assert_eq!(names(&world.scan(Phase::Writing, 1)), ["a.sql"]);
}

/// Promise 3: "A file is in the queue at most once".
#[test]
fn a_file_on_its_way_is_not_found_again() {
    let mut world = World::new();
    world.put("a.sql", true);
    let jobs = world.scan(Phase::Ended, 0);
    assert_eq!(names(&jobs), ["a.sql"]);
    assert!(world.scan(Phase::Ended, 9).is_empty());
    assert_eq!(world.state.counts().uploading, 1);
}

/// Promise 4: "`metadata` is uploaded last, only when everything else is verified".
#[test]
fn metadata_waits_for_the_commit() {
    let mut world = World::new();
    world.put("metadata", true);
    assert!(world.scan(Phase::Writing, 9).is_empty());
    assert!(world.scan(Phase::Ended, 9).is_empty());
    assert_eq!(world.state.outstanding(), 0);
    assert_eq!(names(&world.scan(Phase::Committing, 9)), ["metadata"]);
}

#[test]
fn a_failed_file_comes_back_later_and_later() {
    let mut world = World::new();
    world.put("a.sql", true);
    let job = world.scan(Phase::Ended, 0).pop().expect("a job");
    world.state.fail(job, world.now, "refused".into());
    assert!(world.scan(Phase::Ended, 0).is_empty());
    let job = world.scan(Phase::Ended, 1).pop().expect("a job again");
    world.state.fail(job, world.now, "refused".into());
    assert!(world.scan(Phase::Ended, 1).is_empty());
    assert_eq!(world.scan(Phase::Ended, 1).len(), 1);
}

#[test]
fn after_the_end_a_file_fails_for_good() {
    let mut world = World::new();
    world.put("a.sql", true);
    for _ in 0..ATTEMPTS_MAX {
        let job = world.scan(Phase::Ended, 60).pop().expect("a job");
        assert!(world.state.outstanding() > 0);
        world.state.fail(job, world.now, "refused".into());
    }
    assert!(world.scan(Phase::Ended, 600).is_empty());
    assert_eq!(world.state.outstanding(), 0);
    assert_eq!(world.state.failed(), [("a.sql".parse().expect("a name"), "refused".to_owned())]);
}

#[test]
fn a_kept_file_is_done_until_another_takes_its_name() {
    let mut world = World::new();
    world.put("a.sql", true);
    let job = world.scan(Phase::Ended, 0).pop().expect("a job");
    let identity = *job.identity();
    world.state.complete(job, uploaded(Local::Kept(Box::new(identity))));
    assert!(world.state.unfinished(&world.listing()).is_empty());
    assert!(world.scan(Phase::Ended, 9).is_empty());
    world.put("a.sql", true);
    assert_eq!(names(&world.scan(Phase::Ended, 9)), ["a.sql"]);
    assert_eq!(world.state.counts().uploaded, 0);
}

/// "Up to 0.10.5 it renames `t.00001.sql`": the object of the old name must go, or its rows would be there twice.
#[test]
fn a_kept_file_that_mydumper_renamed_is_withdrawn() {
    let mut world = World::new();
    world.put("s.t.00001.sql", true);
    let identity = world.upload_and_keep("s.t.00001.sql");
    world.files.clear();
    world.files.insert("s.t.sql".to_owned(), (identity, true));
    let observed = world.look(Phase::Writing, 1);
    let name: FileName = "s.t.00001.sql".parse().expect("a name");
    assert_eq!(observed.withdrawn, std::slice::from_ref(&name));
    assert_eq!(world.state.outstanding(), 2, "the object, and the file of the new name");
    world.state.withdrawal_done(&name);
    assert_eq!(world.state.outstanding(), 1);
    assert_eq!(world.state.lost(), []);
}

/// Somebody tidied up; the object is proved. mydumper takes back only what has no row.
#[test]
fn a_kept_file_that_vanishes_stays_in_the_bucket() {
    for phase in [Phase::Writing, Phase::Ended] {
        let mut world = World::new();
        world.put("a.sql", true);
        world.upload_and_keep("a.sql");
        world.files.clear();
        assert_eq!(world.look(phase, 1).withdrawn, []);
        assert_eq!((world.state.counts().uploaded, world.state.outstanding()), (1, 0));
        assert_eq!(world.state.local_bytes(), 0);
        assert_eq!(world.state.lost(), []);
    }
}

fn lost(world: &World) -> Vec<String> {
    world.state.lost().into_iter().map(|(name, _)| name.to_string()).collect()
}

#[test]
fn after_the_end_a_file_that_vanishes_before_its_upload_is_lost() {
    let mut world = World::new();
    world.put("a.sql", false);
    world.put("s.empty.sql", true);
    world.resize("s.empty.sql", 0);
    let job = world.scan(Phase::Ended, 0).pop().expect("a job");
    world.files.clear();
    world.scan(Phase::Ended, 1);
    world.state.gone(job, false);
    assert_eq!(lost(&world), ["a.sql", "s.empty.sql"]);
    assert_eq!(world.state.outstanding(), 0);
}

/// "Any other file that goes away before it is proved was removed by somebody else: not whole."
#[test]
fn while_the_dump_lives_only_what_has_no_row_is_taken_back() {
    assert_eq!(lost_of(&[("s.t.00000.sql", 10), ("s.t-schema.sql", 300)]), ["s.t-schema.sql", "s.t.00000.sql"]);
    let lost = lost_of(&[
        ("s.e.00000.sql", 0),
        ("s.e.00000.sql.gz", 20),
        ("s.e.00000.sql.zst", 13),
        ("s.l.00000.dat", 0),
        ("s.l.00000.sql", 300),
        ("s.m.00000.dat", 7),
        ("s.m.00000.sql", 300),
        ("s.t-schema.sql", 0),
    ]);
    assert_eq!(lost, ["s.m.00000.dat", "s.m.00000.sql", "s.t-schema.sql"]);
}

/// What is lost of these files, when they vanish while the dump lives.
fn lost_of(files: &[(&str, u64)]) -> Vec<String> {
    let mut world = World::new();
    for (name, size) in files {
        world.put(name, false);
        world.resize(name, *size);
    }
    world.scan(Phase::Writing, 0);
    world.files.clear();
    world.scan(Phase::Writing, 1);
    lost(&world)
}

/// A look may fall between the creation of a `.sql` and that of its `.dat`, and the next one after both are gone.
/// What a look saw is missed in the next run, however many files came since.
#[test]
fn a_file_that_came_later_does_not_stand_for_one_that_is_gone() {
    let mut first = World::new();
    first.put("s.a.sql", true);
    first.put("s.b.sql", true);
    first.look(Phase::Writing, 0);
    let seen = first.state.seen();
    assert_eq!(seen, Seen { files: 2, last_born: Some(2) });
    let run = |names: &[&str], earlier| {
        let mut world = World::new();
        world.state.remember(earlier);
        for name in ["s.a.sql", "s.b.sql", "s.c.sql", "s.d.sql"] {
            world.put(name, true);
        }
        world.files.retain(|name, _| names.contains(&name.as_str()));
        world.look(Phase::Writing, 0);
        (world.state.missing(), world.state.seen())
    };
    assert_eq!(run(&["s.a.sql", "s.b.sql"], seen), (0, seen));
    let four = Seen { files: 4, last_born: Some(4) };
    assert_eq!(run(&["s.a.sql", "s.b.sql", "s.c.sql", "s.d.sql"], seen), (0, four));
    // And it is missed in the run after that.
    assert_eq!(run(&["s.a.sql", "s.c.sql", "s.d.sql"], seen), (1, four));
    assert_eq!(run(&["s.a.sql", "s.c.sql", "s.d.sql"], four), (1, four));
    // Nor does one that was empty then and goes up in the end.
    let mut third = World::new();
    third.state.remember(Seen { files: 2, last_born: Some(3) });
    for name in ["s.a.sql", "s.empty.sql"] {
        third.put(name, true);
    }
    third.resize("s.empty.sql", 0);
    for job in third.scan(Phase::Ended, 0) {
        third.state.complete(job, uploaded(Local::Removed));
    }
    assert_eq!(third.state.missing(), 1);
    // Where no birth is told, only their number can count.
    assert_eq!(run(&["s.a.sql", "s.c.sql"], Seen { files: 2, last_born: None }).0, 0);
}

#[test]
fn a_statement_whose_rows_were_never_seen_is_taken_back_in_a_dump_with_rows_beside() {
    let mut world = World::new();
    world.put("s.l.00000.sql", false);
    world.scan(Phase::Writing, 0);
    world.files.clear();
    world.scan(Phase::Writing, 1);
    assert_eq!(lost(&world), ["s.l.00000.sql"]);
    world.put("s.m.00000.dat", false);
    world.scan(Phase::Writing, 1);
    assert_eq!(lost(&world), [""; 0]);
}

/// The size that a look saw is a lower bound: a file that was empty then may have had rows when it was removed.
#[test]
fn what_was_held_open_tells_more_than_the_last_look() {
    let mut world = World::new();
    world.put("s.t.00000.sql", false);
    world.resize("s.t.00000.sql", 0);
    world.scan(Phase::Writing, 0);
    let (identity, _) = world.files.remove("s.t.00000.sql").expect("the file");
    world.vanished.push(("s.t.00000.sql".parse().expect("a name"), FileIdentity { size: 4096, ..identity }));
    world.scan(Phase::Writing, 1);
    assert_eq!(lost(&world), ["s.t.00000.sql"]);
}

#[test]
fn a_lost_file_that_comes_back_is_uploaded() {
    let mut world = World::new();
    world.put("s.t.00000.sql", true);
    world.scan(Phase::Writing, 0);
    let file = world.files.remove("s.t.00000.sql").expect("the file");
    world.scan(Phase::Writing, 1);
    assert_eq!(lost(&world), ["s.t.00000.sql"]);
    world.files.insert("s.t.00000.sql".to_owned(), file);
    assert_eq!(names(&world.scan(Phase::Ended, 1)), ["s.t.00000.sql"]);
    assert_eq!(lost(&world), [""; 0]);
}

/// "Such empty files wait for the dump's end, so none is uploaded in vain."
#[test]
fn a_file_that_mydumper_may_take_back_waits_for_the_end() {
    let mut world = World::new();
    for (name, size) in [("s.e.00000.sql", 0), ("s.l.00000.dat", 0), ("s.l.00000.sql", 300), ("s.e-schema.sql", 0)] {
        world.put(name, true);
        world.resize(name, size);
    }
    world.scan(Phase::Writing, 0);
    assert_eq!(names(&world.scan(Phase::Writing, 9)), ["s.e-schema.sql"]);
    assert_eq!(world.scan(Phase::Ended, 0).len(), 3);
}

/// A failed attempt while the dump lives says nothing of those after its end.
#[test]
fn attempts_count_from_the_dumps_end_on() {
    let mut world = World::new();
    world.put("a.sql", true);
    world.scan(Phase::Writing, 0);
    for _ in 0..2 * ATTEMPTS_MAX {
        let job = loop {
            if let Some(job) = world.scan(Phase::Writing, 60).pop() {
                break job;
            }
        };
        world.state.fail(job, world.now, "refused".into());
    }
    for _ in 0..ATTEMPTS_MAX {
        assert_eq!(world.state.failed(), []);
        let job = world.scan(Phase::Ended, 60).pop().expect("a job");
        world.state.fail(job, world.now, "refused".into());
    }
    assert_eq!(world.state.failed().len(), 1);
}

/// A broken file that mydumper took back, or that was written anew, condemns nothing.
#[test]
fn what_was_broken_counts_as_long_as_it_is_the_object() {
    let mut world = World::new();
    world.put("s.t.00001.sql", true);
    let identity = world.upload_and_keep("s.t.00001.sql");
    let broken = |world: &World| world.state.uploaded().filter(|(_, uploaded)| uploaded.broken.is_some()).count();
    let name: FileName = "s.t.00001.sql".parse().expect("a name");
    let local = Local::Kept(Box::new(identity));
    world.state.adopt(name, Uploaded { broken: Some("cut short".into()), ..uploaded(local) });
    assert_eq!(broken(&world), 1);
    world.files.clear();
    world.files.insert("s.t.sql".to_owned(), (identity, true));
    world.scan(Phase::Writing, 1);
    assert_eq!(broken(&world), 0);
}

#[test]
fn a_stale_look_at_a_finished_file_changes_nothing() {
    let mut world = World::new();
    world.put("a.sql", true);
    let listing = world.listing();
    let job = world.scan(Phase::Ended, 0).pop().expect("a job");
    let stale = (job.name().clone(), Probe { identity: *job.identity(), born: None, writers: Writers::None });
    world.state.complete(job, uploaded(Local::Kept(Box::new(stale.1.identity))));
    let observed = world.state.observe(Scan {
        now: world.now,
        phase: Phase::Ended,
        listing,
        probes: vec![stale],
        vanished: Vec::new(),
    });
    assert_eq!(observed.jobs, []);
    assert_eq!(world.state.counts().uploaded, 1);
}

/// Random histories against a plain reference: no file twice in the queue, none lost, sets disjoint where they must be.
#[test]
fn random_histories_keep_the_sets_right() {
    for seed in 0..300_u64 {
        random_history(seed);
    }
}

fn random_history(seed: u64) {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut world = World::new();
    let mut running: Vec<UploadJob> = Vec::new();
    for _ in 0..60 {
        let name = format!("t{}.sql", next(6));
        match next(7) {
            0 | 1 => world.put(&name, next(2) == 0),
            2 => {
                if let Some(file) = world.files.get_mut(&name) {
                    file.1 = true;
                }
            }
            3 | 4 => {
                let seconds = next(3);
                running.extend(world.scan(Phase::Writing, seconds));
            }
            _ => finish_one(&mut world, &mut running, next(4), next(100) as usize),
        }
        check(&world, &running, seed);
    }
    // Whatever happened: once all are closed, every file ends up uploaded.
    world.files.values_mut().for_each(|file| file.1 = true);
    for _ in 0..200 {
        running.extend(world.scan(Phase::Writing, 60));
        while !running.is_empty() {
            finish_one(&mut world, &mut running, 0, 0);
        }
    }
    for name in world.files.keys() {
        let name: FileName = name.parse().expect("a name");
        assert!(world.state.find_uploaded(name.as_str()).is_some(), "seed {seed}: {name} was lost");
    }
}

fn finish_one(world: &mut World, running: &mut Vec<UploadJob>, how: u64, which: usize) {
    if running.is_empty() {
        return;
    }
    let job = running.swap_remove(which % running.len());
    let there = world.files.get(job.name().as_str()).is_some_and(|file| file.0 == *job.identity());
    let identity = *job.identity();
    match how {
        _ if !there => world.state.fail(job, world.now, "it changed".into()),
        0 => world.state.complete(job, uploaded(Local::Kept(Box::new(identity)))),
        1 => {
            world.files.remove(job.name().as_str());
            world.state.complete(job, uploaded(Local::Removed));
        }
        2 => world.state.fail(job, world.now, "refused".into()),
        _ => {
            world.files.remove(job.name().as_str());
            world.state.gone(job, false);
        }
    }
}

fn check(world: &World, running: &[UploadJob], seed: u64) {
    let counts = world.state.counts();
    assert_eq!(counts.uploading, running.len(), "seed {seed}");
    for job in running {
        let stage = &world.state.files[job.name()].stage;
        assert!(matches!(stage, Stage::Uploading(_)), "seed {seed}: {} is on its way, and {stage:?}", job.name());
    }
    let mut sums = Sums::default();
    world.state.files.iter().for_each(|(name, known)| sums.add(Sums::of(name, known)));
    assert_eq!(world.state.sums, sums, "seed {seed}");
}
