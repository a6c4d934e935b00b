//! Promise 6 under torture: "A crash, a kill or an outage at any moment loses nothing." Random dumps, random faults of
//! the store, and the program killed with SIGKILL at random moments.
//!
//! After every kill, every byte that the dumper wrote is in the bucket or still here; in the end the bucket holds exactly
//! the dump, and one that ended badly is not committed. One thing is let pass, and counted: the object of a file that
//! mydumper took back between its upload and a kill may stay; a restart cannot tell it from one whose file we removed.
//!
//!     MYDUMPER2S3_TORTURE_ROUNDS=5000 cargo test --test it torture -- --nocapture
//!     MYDUMPER2S3_TORTURE_SEED=12345 MYDUMPER2S3_TORTURE_ROUNDS=1 cargo test --test it torture

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, FaultHandle, Operation};
use crate::support::sandbox::{Finished, Program, Run};
use crate::support::stage::Stage;

/// What fits into the suite's time.
const ROUNDS: u64 = 200;
/// Rounds mostly wait: for processes, for the store's faults to pass.
const AT_ONCE: u64 = 8;
const PREFIX: &str = "nightly/dump";
const MIB: u64 = 1024 * 1024;

/// All that is random in a round comes from its seed, but for the scheduling of processes. (SplitMix64.)
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// What all rounds came to.
#[derive(Default)]
struct Tally {
    rounds: AtomicU64,
    runs: AtomicU64,
    kills: AtomicU64,
    faults: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    committed: AtomicU64,
    taken_back: AtomicU64,
    uploads_left: AtomicU64,
}

impl Tally {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// How the dump ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Good,
    /// SIGKILL to the dumper.
    Killed,
    /// A final `metadata`, but a script says that the exit status was 1.
    Failed,
}

struct Round<'a> {
    dice: Dice,
    stage: Stage,
    dumper: FakeDumper,
    ending: Ending,
    /// The file that a script writes the exit status to.
    status_file: PathBuf,
    has_ended: bool,
    /// Names that the dumper took back.
    withdrawn: BTreeSet<String>,
    was_killed: bool,
    faults: Vec<FaultHandle>,
    run: Option<Run>,
    tally: &'a Tally,
}

impl<'a> Round<'a> {
    fn new(seed: u64, tally: &'a Tally) -> Self {
        let mut dice = Dice(seed);
        let stage = Stage::new();
        let generation = dice.of(&Generation::ALL);
        let dumper = FakeDumper::start(&stage.sandbox, generation);
        let ending = dice.of(&[Ending::Good, Ending::Good, Ending::Good, Ending::Killed, Ending::Failed]);
        let status_file = stage.sandbox.path("status");
        Self {
            dice,
            stage,
            dumper,
            ending,
            status_file,
            has_ended: false,
            withdrawn: BTreeSet::new(),
            was_killed: false,
            faults: Vec::new(),
            run: None,
            tally,
        }
    }

    fn upload(&mut self) -> Program<'_> {
        let workers = self.dice.of(&["1", "2", "4", "8"]);
        let settings = ["--interval", "0.05", "--settle", "0.1", "--wait", "0", "--part-size", "5MiB"];
        let program = self.stage.upload_with_defaults().args(settings).args(["--workers", workers, "--prefix", PREFIX]);
        let program = program.time_limit(Duration::from_secs(180));
        if self.ending == Ending::Failed { program.arg("--exit-status-file").arg(&self.status_file) } else { program }
    }

    fn start(&mut self) {
        if self.run.is_none() {
            self.run = Some(self.upload().start());
            Tally::add(&self.tally.runs, 1);
        }
    }

    /// Kills the program, if it runs, and looks whether all is there.
    fn kill(&mut self) {
        let Some(run) = self.run.take() else { return };
        let finished = run.kill();
        match finished.status.code() {
            None => {
                self.was_killed = true;
                Tally::add(&self.tally.kills, 1);
            }
            Some(_) => self.judge(&finished),
        }
        self.assert_nothing_lost();
    }

    /// A run that ended by itself.
    fn judge(&self, finished: &Finished) {
        assert!(self.has_ended, "it ended before the dump: {finished:?}");
        let expected = if self.ending == Ending::Good { 0 } else { 3 };
        assert_eq!(finished.status.code(), Some(expected), "{:?}: {finished:?}", self.ending);
    }

    /// Lets some time pass, so that the next kill strikes another moment; or so many requests.
    fn linger(&mut self) {
        if self.dice.one_in(2) {
            std::thread::sleep(Duration::from_millis(self.dice.below(200)));
            return;
        }
        let wanted = self.stage.server.requests().len() + self.dice.below(12) as usize;
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.stage.server.requests().len() < wanted && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// "Every byte that the dumper wrote is either in the bucket, verified, or still local."
    #[track_caller]
    fn assert_nothing_lost(&self) {
        let (local, there) = (self.stage.sandbox.local_files(), self.there());
        for (name, bytes) in self.dumper.files() {
            let is_safe = local.get(&name) == Some(&bytes) || there.get(&name) == Some(&bytes);
            let is_in_manifest = self.has_ended && self.ending != Ending::Good && name.starts_with("metadata");
            assert!(is_safe || is_in_manifest, "'{name}' is lost: local {:?}", local.keys());
        }
        if there.contains_key("metadata") {
            assert!(self.has_ended && self.ending == Ending::Good, "committed: {:?}", self.ending);
            assert!(there == self.dumper.files(), "committed, and not whole: {:?}", there.keys());
        }
    }

    /// What the bucket holds of the dump.
    fn there(&self) -> BTreeMap<String, Vec<u8>> {
        let (mut there, files) = (self.stage.files(PREFIX), self.dumper.files());
        there.retain(|name, _| !self.was_killed || files.contains_key(name) || !self.withdrawn.contains(name));
        there
    }

    fn size(&mut self) -> u64 {
        match self.dice.below(20) {
            0 => 0,
            1 => self.dice.of(&[5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 10 * MIB, 10 * MIB + 1, 12 * MIB]),
            2..6 => self.dice.below(200_000),
            _ => 1 + self.dice.below(5_000),
        }
    }

    /// Something goes wrong in the store, a few times.
    fn inject(&mut self) {
        let (put, part, complete) = (Operation::PutObject, Operation::UploadPart, Operation::CompleteMultipartUpload);
        let fault = match self.dice.below(9) {
            0 => Fault::answer(500, "InternalError").on_any_of([put, part, complete]),
            1 => Fault::answer(503, "SlowDown").on_any_of([put, part]),
            2 => Fault::cut_before_body().on_any_of([put, part, complete]),
            3 => Fault::cut_in_body().on_any_of([put, part]),
            4 => Fault::lose_answer().on_any_of([put, part, complete]),
            5 => Fault::damage_in_transit().on_any_of([put, part]),
            6 => Fault::store_then_answer(500, "InternalError").on_any_of([put, part, complete]),
            7 => Fault::error_inside_ok("InternalError").on(complete),
            _ => Fault::delay(Duration::from_millis(50)).on_any_of([put, part, complete]),
        };
        let fault = fault.after(self.dice.below(6) as usize).times(1 + self.dice.below(2) as usize);
        self.faults.push(self.stage.server.inject(fault));
    }

    /// A file without a row, which mydumper takes back; or the only one of its table, which 0.10 renames, while its
    /// upload is held at whatever point of it.
    fn fickle_file(&mut self, table: &str) {
        if self.dice.one_in(2) {
            let name = format!("{table}.00000.sql");
            self.dumper.file(&name, 0);
            self.linger();
            return self.dumper.delete(name);
        }
        let name = format!("{table}.00001.sql");
        let end = format!("/{name}");
        let held = if self.dice.one_in(2) { Fault::hold() } else { Fault::store_then_hold() };
        let held = self.stage.server.inject(held.on(Operation::PutObject).key_where(move |key| key.ends_with(&end)));
        let bytes = 1 + self.dice.below(1_000);
        self.dumper.file(&name, bytes);
        self.linger();
        // It may be uploaded and removed by now; then 0.10 would find nothing to rename.
        if self.stage.sandbox.dump_dir().join(&name).exists() && held.hits() > 0 {
            self.dumper.rename(&name, format!("{table}.sql"));
            self.withdrawn.insert(name);
        }
        if self.dice.one_in(3) {
            self.kill();
            self.start();
        }
        held.clear();
    }

    fn dump(&mut self) {
        let mut open: Vec<String> = Vec::new();
        for index in 0..3 + self.dice.below(15) {
            let name = format!("shop.t{index}.00000.sql");
            match self.dice.below(12) {
                0 => self.start(),
                1 => self.kill(),
                2 => self.inject(),
                3 => self.linger(),
                4 if self.run.is_some() => self.fickle_file(&format!("shop.t{index}")),
                5 | 6 => {
                    let bytes = self.size();
                    self.dumper.open(&name);
                    self.dumper.write(&name, bytes);
                    open.push(name);
                }
                7 if !open.is_empty() => {
                    let name = open.swap_remove(self.dice.below(open.len() as u64) as usize);
                    self.dumper.write(&name, 10);
                    self.dumper.close(&name);
                }
                _ => {
                    let bytes = self.size();
                    self.dumper.file(&name, bytes);
                }
            }
        }
        open.iter().for_each(|name| self.dumper.close(name));
        self.dumper.file_of("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    }

    fn end(&mut self) {
        match self.ending {
            Ending::Killed => self.dumper.kill(),
            Ending::Good | Ending::Failed => self.dumper.finish_and_exit(),
        }
        self.has_ended = true;
        std::fs::write(&self.status_file, "1\n").expect("the status file");
    }

    fn play(&mut self) {
        if self.dice.one_in(2) {
            self.start();
        }
        self.dump();
        self.end();
        for _ in 0..self.dice.below(4) {
            self.start();
            self.linger();
            self.kill();
            if self.stage.sandbox.local_names().is_empty() {
                break;
            }
        }
        if !self.stage.sandbox.local_names().is_empty() {
            self.start();
        }
        if let Some(run) = self.run.take() {
            let finished = run.finish();
            self.judge(&finished);
        }
        self.assert_end();
    }

    /// "The final bucket equals the dump."
    fn assert_end(&self) {
        let (files, there) = (self.dumper.files(), self.there());
        let all = self.stage.files(PREFIX);
        let manifest = self.stage.manifest_of(PREFIX);
        let listed = manifest["files"].as_array().expect("files in the manifest").iter();
        let listed: Vec<_> = listed.filter_map(|file| file["name"].as_str()).collect();
        assert_eq!(listed, all.keys().collect::<Vec<_>>(), "the manifest's files");
        if self.ending == Ending::Good {
            assert!(there == files, "in the bucket {:?}, dumped {:?}", there.keys(), files.keys());
            assert_eq!(manifest["state"], "complete", "{manifest}");
            Tally::add(&self.tally.committed, 1);
        } else {
            let mut wanted = files.clone();
            wanted.retain(|name, _| !name.starts_with("metadata"));
            assert!(there == wanted, "in the bucket: {:?}", there.keys());
            assert_eq!(manifest["state"], "incomplete", "{manifest}");
            let metadata = files.iter().find(|(name, _)| name.starts_with("metadata")).expect("it began");
            assert_eq!(manifest["metadata_text"], String::from_utf8_lossy(metadata.1).as_ref());
        }
        self.stage.sandbox.assert_local_names([] as [&str; 0]);
        // Nobody can know the id of an upload whose answer a kill or a fault has cut off.
        let left = self.stage.server.open_multipart_uploads(BUCKET);
        let is_cut_off = self.was_killed || self.faults.iter().any(|fault| fault.hits() > 0);
        assert!(left.is_empty() || is_cut_off, "{left:?}");
        Tally::add(&self.tally.uploads_left, left.len() as u64);
        Tally::add(&self.tally.rounds, 1);
        Tally::add(&self.tally.taken_back, (all.len() - there.len()) as u64);
        Tally::add(&self.tally.files, files.len() as u64);
        Tally::add(&self.tally.bytes, files.values().map(|bytes| bytes.len() as u64).sum());
        Tally::add(&self.tally.faults, self.faults.iter().map(|fault| fault.hits() as u64).sum());
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn torture() {
    let clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_micros() as u64);
    let seed = setting("MYDUMPER2S3_TORTURE_SEED").unwrap_or_else(clock);
    let rounds = setting("MYDUMPER2S3_TORTURE_ROUNDS").unwrap_or(ROUNDS);
    let (begun, tally, next) = (Instant::now(), Tally::default(), AtomicU64::new(0));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= rounds {
                return;
            }
            let seed = seed.wrapping_add(number);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| Round::new(seed, &tally).play())) {
                // The others need not go on.
                next.store(rounds, Ordering::Relaxed);
                eprintln!("again: MYDUMPER2S3_TORTURE_SEED={seed} MYDUMPER2S3_TORTURE_ROUNDS=1");
                resume_unwind(panic);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(rounds) {
            scope.spawn(work);
        }
    });
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "torture from seed {seed}: {} rounds in {:.0} s, {} runs, {} kills, {} faults struck, {} dumps committed, \
         {} files with {} MiB; nothing lost, {} that were taken back left, {} uploads of an unknown id left",
        of(&tally.rounds),
        begun.elapsed().as_secs_f64(),
        of(&tally.runs),
        of(&tally.kills),
        of(&tally.faults),
        of(&tally.committed),
        of(&tally.files),
        of(&tally.bytes) / MIB,
        of(&tally.taken_back),
        of(&tally.uploads_left),
    );
    assert_eq!(of(&tally.rounds), rounds);
}
