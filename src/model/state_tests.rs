use super::*;
use crate::model::etag::Md5Digest;
use crate::model::manifest::{ContentHash, Proof};

const SETTLE: Duration = Duration::from_secs(1);

/// A directory and a clock, from which scans are made.
struct World {
    state: DumpState,
    now: Instant,
    files: std::collections::BTreeMap<String, (FileIdentity, bool)>,
    inodes: u64,
}

impl World {
    fn new() -> Self {
        Self { state: DumpState::new(SETTLE), now: Instant::now(), files: Default::default(), inodes: 0 }
    }

    fn put(&mut self, name: &str, closed: bool) {
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

    fn scan(&mut self, phase: Phase, seconds: u64) -> Vec<UploadJob> {
        self.now += Duration::from_secs(seconds);
        let listing = self.listing();
        let unfinished = self.state.unfinished(&listing);
        let probe = |name: FileName| {
            let (identity, closed) = self.files[name.as_str()];
            (name, Probe { identity, writers: if closed { Writers::None } else { Writers::Some } })
        };
        let probes = unfinished.into_iter().map(probe).collect();
        let observed = self.state.observe(Scan { now: self.now, phase, listing, probes });
        observed.jobs
    }
}

fn names(jobs: &[UploadJob]) -> Vec<&str> {
    jobs.iter().map(|job| job.name().as_str()).collect()
}

fn uploaded(local: Local) -> Uploaded {
    let object = ObjectRecord {
        size: 10,
        hash: ContentHash::Whole { md5: Md5Digest::of(b"") },
        etag: None,
        version_id: None,
        sha256: None,
        proof: Proof::EtagMd5,
    };
    Uploaded { object, local }
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

#[test]
fn a_kept_file_that_vanishes_was_withdrawn() {
    let mut world = World::new();
    world.put("a.sql", true);
    world.scan(Phase::Writing, 0);
    let job = world.scan(Phase::Writing, 1).pop().expect("a job");
    let identity = *job.identity();
    world.state.complete(job, uploaded(Local::Kept(Box::new(identity))));
    world.files.clear();
    world.scan(Phase::Writing, 1);
    let name: FileName = "a.sql".parse().expect("a name");
    assert_eq!(world.state.withdrawn().collect::<Vec<_>>(), [&name]);
    assert_eq!(world.state.outstanding(), 1);
    world.state.withdrawal_done(&name);
    assert_eq!(world.state.outstanding(), 0);
}

#[test]
fn after_the_end_a_kept_file_that_vanishes_was_tidied_up() {
    let mut world = World::new();
    world.put("a.sql", true);
    let job = world.scan(Phase::Ended, 0).pop().expect("a job");
    let identity = *job.identity();
    world.state.complete(job, uploaded(Local::Kept(Box::new(identity))));
    world.files.clear();
    world.scan(Phase::Ended, 1);
    assert_eq!(world.state.withdrawn().count(), 0);
    assert_eq!(world.state.counts().uploaded, 1);
}

#[test]
fn after_the_end_a_file_that_vanishes_before_its_upload_is_lost() {
    let mut world = World::new();
    world.put("a.sql", false);
    world.put("b.sql", true);
    let job = world.scan(Phase::Ended, 0).pop().expect("a job");
    world.files.clear();
    world.scan(Phase::Ended, 1);
    world.state.withdraw(job, false);
    let mut lost: Vec<_> = world.state.failed().into_iter().map(|(name, _)| name.to_string()).collect();
    lost.sort();
    assert_eq!(lost, ["a.sql", "b.sql"]);
}

#[test]
fn a_stale_look_at_a_finished_file_changes_nothing() {
    let mut world = World::new();
    world.put("a.sql", true);
    let listing = world.listing();
    let job = world.scan(Phase::Ended, 0).pop().expect("a job");
    let stale = (job.name().clone(), Probe { identity: *job.identity(), writers: Writers::None });
    world.state.complete(job, uploaded(Local::Kept(Box::new(stale.1.identity))));
    let observed = world.state.observe(Scan { now: world.now, phase: Phase::Ended, listing, probes: vec![stale] });
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
                withdraw_all(&mut world);
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
        withdraw_all(&mut world);
        running.extend(world.scan(Phase::Writing, 60));
        while !running.is_empty() {
            finish_one(&mut world, &mut running, 0, 0);
        }
    }
    for name in world.files.keys() {
        let name: FileName = name.parse().expect("a name");
        assert!(world.state.uploaded().contains_key(&name), "seed {seed}: {name} was lost");
    }
}

fn withdraw_all(world: &mut World) {
    let names: Vec<_> = world.state.withdrawn().cloned().collect();
    names.iter().for_each(|name| world.state.withdrawal_done(name));
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
            world.state.withdraw(job, false);
        }
    }
}

fn check(world: &World, running: &[UploadJob], seed: u64) {
    let counts = world.state.counts();
    assert_eq!(counts.uploading, running.len(), "seed {seed}");
    for job in running {
        assert!(!world.state.uploaded.contains_key(job.name()), "seed {seed}: {} is done and on its way", job.name());
        assert!(!world.state.open.contains_key(job.name()), "seed {seed}: {} waits and is on its way", job.name());
    }
    for name in world.state.uploaded.keys() {
        let waits_again = world.state.open.get(name);
        assert!(
            waits_again.is_none_or(|waiting| waiting.closed_since.is_none() || world.files.contains_key(name.as_str())),
            "seed {seed}: {name}"
        );
    }
}
