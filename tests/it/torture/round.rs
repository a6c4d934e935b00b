//! One round: a dump, from its beginning to what must stand in the bucket in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Count, Dice, MIB, Tally};
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, FaultHandle, Operation};
use crate::support::sandbox::{Finished, Program, Run};
use crate::support::stage::{MANIFEST, Stage};

/// How the dump ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Good,
    /// SIGKILL to the dumper.
    Killed,
    /// A final `metadata`, but mydumper's exit status was 1, and a script says so.
    Failed,
}

/// A dump's files with their bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What became of the dump itself.
pub struct Fate {
    ending: Ending,
    pub has_ended: bool,
    /// mydumper was told to stop through us before its end.
    pub was_stopped: bool,
    /// Names that the dumper took back.
    withdrawn: BTreeSet<String>,
    /// A run ended with status 3, as it may: `metadata` is in the manifest.
    is_given_up: bool,
}

/// What others did to its bytes.
#[derive(Default)]
pub struct Damage {
    /// Files of which the last copy is destroyed.
    pub destroyed: BTreeSet<String>,
    /// Files that a stranger removed here while they were on their way.
    pub at_risk: BTreeSet<String>,
    /// All bytes may be there, but the program cannot know: not to commit is right, too.
    pub is_doubtful: bool,
    /// Dumps that had been committed before somebody spoiled them.
    pub spoiled: BTreeSet<String>,
}

pub struct Round<'a> {
    pub dice: Dice,
    pub stage: Stage,
    pub dumper: FakeDumper,
    pub fate: Fate,
    pub damage: Damage,
    /// The host's name, if it is not its own.
    pub host: Option<&'static str>,
    /// The run that goes on.
    pub run: Option<Run>,
    /// It has the dumper as its child.
    pub is_parent: bool,
    was_killed: bool,
    /// A stop came while the store was away.
    pub was_cut: bool,
    faults: Vec<FaultHandle>,
    /// What happened, for whoever must find out why it failed.
    story: Vec<String>,
    pub tally: &'a Tally,
}

/// The main job, in a hurry.
fn upload<'a>(stage: &'a Stage, ending: Ending, dice: &mut Dice) -> Program<'a> {
    let workers = dice.of(&["1", "2", "4", "8"]);
    let settings = ["--interval", "0.05", "--settle", "0.1", "--wait", "0", "--part-size", "5MiB"];
    let program = stage.upload_with_defaults().args(settings).args(["--workers", workers, "--prefix", "{host}/dump"]);
    let program = program.time_limit(Duration::from_secs(180));
    // More than half of that is seldom local.
    let gives_back: &[&str] = if dice.one_in(2) { &["--give-back", "--max-local", "20MiB"] } else { &[] };
    let program = program.args(gives_back);
    if ending == Ending::Failed { program.arg("--exit-status-file").arg(status_file(stage)) } else { program }
}

/// The file that a script writes the exit status to.
fn status_file(stage: &Stage) -> PathBuf {
    stage.sandbox.path("status")
}

impl<'a> Round<'a> {
    pub fn new(seed: u64, tally: &'a Tally) -> Self {
        let mut dice = Dice(seed);
        let stage = Stage::new();
        let generation = dice.of(&Generation::ALL);
        let ending = dice.of(&[Ending::Good, Ending::Good, Ending::Good, Ending::Killed, Ending::Failed]);
        // A child has no status file, and after a kill of its parent nobody may see how it ends.
        let is_parent = ending != Ending::Failed && dice.one_in(3);
        let (run, dumper) = if is_parent {
            let program = upload(&stage, ending, &mut dice).args(["--stop-timeout", "1"]);
            let run = program.args(["--", "mydumper", "-B", "shop"]).start();
            let mut dumper = FakeDumper::accept(&stage.sandbox);
            dumper.begin(generation);
            if dice.one_in(2) {
                // As 1.0.1 does: what it has looks whole then.
                dumper.finish_on_sigterm();
            }
            tally.add(Count::Runs, 1);
            tally.add(Count::AsAChild, 1);
            (Some(run), dumper)
        } else {
            (None, FakeDumper::start(&stage.sandbox, generation))
        };
        let withdrawn = BTreeSet::new();
        let fate = Fate { ending, has_ended: false, was_stopped: false, withdrawn, is_given_up: false };
        Self {
            dice,
            stage,
            dumper,
            fate,
            damage: Damage::default(),
            host: None,
            run,
            is_parent,
            was_killed: false,
            was_cut: false,
            faults: Vec::new(),
            story: Vec::new(),
            tally,
        }
    }

    pub fn start(&mut self) {
        if self.run.is_some() {
            return;
        }
        self.between_runs();
        self.happened(Count::Runs, self.host.unwrap_or("here"));
        let mut program = upload(&self.stage, self.fate.ending, &mut self.dice);
        if let Some(host) = self.host {
            let script = format!("hostname {host} && exec \"$@\"");
            program = program.wrapped_in(["unshare", "--uts", "sh", "-c", &script, "sh"]);
            self.tally.add(Count::AnotherHost, 1);
        }
        self.run = Some(program.start());
    }

    pub fn happened(&mut self, what: Count, detail: &str) {
        self.tally.add(what, 1);
        let local = self.stage.sandbox.local_names();
        self.story
            .push(format!("{what:?}: {detail}\n    local {local:?}\n    there {:?}", self.stage.server.keys(BUCKET)));
    }

    /// Kills the program, if it runs, and looks whether all is there.
    pub fn kill(&mut self) {
        let Some(run) = self.run.take() else { return };
        let finished = run.kill();
        self.is_parent = false;
        match finished.status.code() {
            None => {
                self.was_killed = true;
                self.happened(Count::Kills, &finished.text());
                self.assert_nothing_lost();
            }
            Some(_) => self.judge(&finished),
        }
    }

    /// Whether the dump can still come to a whole one: by what happened to its bytes, and how it ended.
    pub fn can_be_whole(&self) -> bool {
        self.fate.ending == Ending::Good && !self.fate.was_stopped && self.damage.destroyed.is_empty()
    }

    /// A run that ended by itself.
    pub fn judge(&mut self, finished: &Finished) {
        assert!(self.fate.has_ended, "it ended before the dump: {finished:?}");
        self.take_stock();
        let status = finished.status.code();
        let rightly = match status {
            Some(0) => self.can_be_whole() && self.is_whole_somewhere(),
            Some(3) => !self.can_be_whole() || self.damage.is_doubtful,
            _ => false,
        };
        let (destroyed, at_risk) = (&self.damage.destroyed, &self.damage.at_risk);
        assert!(
            rightly,
            "{:?}, stopped {}, destroyed {destroyed:?}, at risk {at_risk:?}: {finished:?}",
            self.fate.ending, self.fate.was_stopped
        );
        self.fate.is_given_up |= status == Some(3);
        self.assert_nothing_lost();
    }

    /// Lets some time pass, so that the next kill strikes another moment; or so many requests.
    pub fn linger(&mut self) {
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

    /// The dumps in the bucket, by prefix: a run under another host name may have begun anew at its own.
    pub fn dumps(&self) -> BTreeMap<String, Files> {
        let keys = self.stage.server.keys(BUCKET);
        let prefixes: BTreeSet<&str> = keys.iter().filter_map(|key| Some(key.rsplit_once('/')?.0)).collect();
        prefixes.into_iter().map(|prefix| (prefix.to_owned(), self.files_at(prefix))).collect()
    }

    /// What the bucket holds of the dump.
    fn files_at(&self, prefix: &str) -> Files {
        let (mut there, files) = (self.stage.files(prefix), self.dumper.files());
        there.retain(|name, _| !self.was_killed || files.contains_key(name) || !self.fate.withdrawn.contains(name));
        there
    }

    fn is_whole_somewhere(&self) -> bool {
        let files = self.dumper.files();
        self.dumps().values().any(|there| *there == files)
    }

    /// The files of which the very bytes are neither here nor there.
    pub fn nowhere(&self) -> BTreeSet<String> {
        let (local, dumps) = (self.stage.sandbox.local_files(), self.dumps());
        let underway = self.stage.server.open_upload_bytes(BUCKET);
        // Some of it is a hole here, and in an unfinished upload.
        let is_in_both = |name: &String, bytes: &Vec<u8>, here: &Vec<u8>| {
            let hole = here.iter().take_while(|byte| **byte == 0).count();
            let end = format!("/{name}");
            let mut uploads = underway.iter().filter(|(key, _)| key.ends_with(&end));
            here.len() == bytes.len()
                && here[hole..] == bytes[hole..]
                && uploads.any(|(_, there)| there.len() >= hole && there[..hole] == bytes[..hole])
        };
        let is_safe = |name: &String, bytes: &Vec<u8>| {
            local.get(name) == Some(bytes)
                || dumps.values().any(|there| there.get(name) == Some(bytes))
                || local.get(name).is_some_and(|here| is_in_both(name, bytes, here))
        };
        let files = self.dumper.files().into_iter().filter(|(name, bytes)| !is_safe(name, bytes));
        files.map(|(name, _)| name).collect()
    }

    /// What a stranger removed while it was on its way is either in the bucket by now, or it is destroyed.
    fn take_stock(&mut self) {
        let nowhere = self.nowhere();
        self.damage
            .destroyed
            .extend(std::mem::take(&mut self.damage.at_risk).into_iter().filter(|name| nowhere.contains(name)));
    }

    /// "Every byte that the dumper wrote is either in the bucket, verified, or still local", but for what somebody else
    /// destroyed.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        let is_in_manifest = self.fate.is_given_up || (self.fate.has_ended && !self.can_be_whole());
        let is_excused = |name: &String| {
            self.damage.destroyed.contains(name)
                || self.damage.at_risk.contains(name)
                || (is_in_manifest && name.starts_with("metadata"))
        };
        let lost: Vec<_> = self.nowhere().into_iter().filter(|name| !is_excused(name)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}, local {:?}", self.stage.sandbox.local_names());
        for (prefix, there) in self.dumps() {
            if there.contains_key("metadata") && !self.damage.spoiled.contains(&prefix) {
                assert!(self.fate.has_ended && self.can_be_whole(), "committed: {:?}", self.fate.ending);
                assert!(there == self.dumper.files(), "committed, and not whole: {:?}", there.keys());
            }
        }
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
        let kind = self.dice.below(9);
        let is_damage = kind == 5;
        let fault = match kind {
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
        // Four times in a row the same bytes are not damaged.
        let times = if is_damage { 1 } else { 1 + self.dice.below(2) as usize };
        let fault = fault.after(self.dice.below(6) as usize).times(times);
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
            self.fate.withdrawn.insert(name);
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
            if self.fate.has_ended {
                return;
            }
            let name = format!("shop.t{index}.00000.sql");
            match self.dice.below(15) {
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
                9 | 10 if !open.is_empty() => {
                    let name = open[self.dice.below(open.len() as u64) as usize].clone();
                    let bytes = self.dice.of(&[MIB, 5 * MIB, 6 * MIB, 11 * MIB]);
                    self.dumper.write(&name, bytes);
                }
                8 if self.dice.one_in(3) => self.mishap_while_it_runs(&name),
                _ => {
                    let bytes = self.size();
                    self.dumper.file(&name, bytes);
                }
            }
        }
        if !self.fate.has_ended {
            open.iter().for_each(|name| self.dumper.close(name));
            self.dumper.file_of("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
        }
    }

    fn end(&mut self) {
        if self.fate.has_ended {
            return;
        }
        match self.fate.ending {
            Ending::Killed => self.dumper.kill(),
            Ending::Good => self.dumper.finish_and_exit(),
            Ending::Failed => {
                self.dumper.finish();
                self.dumper.exit(1);
            }
        }
        self.fate.has_ended = true;
        std::fs::write(status_file(&self.stage), "1\n").expect("the status file");
    }

    pub fn play(&mut self) {
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
        if self.run.is_none() && !self.stage.sandbox.local_names().is_empty() {
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
        self.assert_nothing_lost();
        self.stage.sandbox.assert_local_names([] as [&str; 0]);
        let (files, dumps) = (self.dumper.files(), self.dumps());
        let committed: Vec<&String> = dumps.keys().filter(|prefix| self.is_committed(prefix)).collect();
        if self.can_be_whole() && !self.fate.is_given_up {
            assert_eq!(committed.len(), 1, "{:?}", dumps.keys());
            let (prefix, there) = (committed[0], &dumps[committed[0]]);
            assert!(*there == files, "in the bucket {:?}, dumped {:?}", there.keys(), files.keys());
            self.assert_manifest_lists(prefix);
            self.tally.add(Count::Committed, 1);
        } else {
            assert_eq!(committed, [] as [&str; 0]);
            self.assert_given_up(&dumps);
        }
        // Nobody can know the id of an upload whose answer a kill or a fault has cut off.
        let left = self.stage.server.open_multipart_uploads(BUCKET);
        let is_cut_off = self.was_killed || self.faults.iter().any(|fault| fault.hits() > 0);
        let is_excused = is_cut_off || dumps.len() > 1 || self.was_cut;
        assert!(left.is_empty() || is_excused, "{left:?}");
        self.tally.add(Count::UploadsLeft, left.len() as u64);
        let taken_back = dumps.iter().map(|(prefix, there)| self.stage.files(prefix).len() - there.len());
        self.tally.add(Count::TakenBack, taken_back.sum::<usize>() as u64);
        self.tally.add(Count::Rounds, 1);
        self.tally.add(Count::Files, files.len() as u64);
        self.tally.add(Count::Bytes, files.values().map(|bytes| bytes.len() as u64).sum());
        self.tally.add(Count::Faults, self.faults.iter().map(|fault| fault.hits() as u64).sum());
        let is_doomed = self.fate.was_stopped || !self.damage.destroyed.is_empty();
        self.tally.add(Count::Destroyed, u64::from(is_doomed));
        self.tally.add(Count::Doubted, u64::from(self.can_be_whole() && self.fate.is_given_up));
    }

    fn is_committed(&self, prefix: &str) -> bool {
        let manifest = format!("{prefix}/{MANIFEST}");
        let has = |key: &str| self.stage.server.object(BUCKET, key).is_some();
        let is_complete = has(&manifest) && self.stage.manifest_of(prefix)["state"] == "complete";
        is_complete && has(&format!("{prefix}/metadata")) && !self.damage.spoiled.contains(prefix)
    }

    fn assert_manifest_lists(&self, prefix: &str) {
        let (manifest, all) = (self.stage.manifest_of(prefix), self.stage.files(prefix));
        let listed = manifest["files"].as_array().expect("files in the manifest").iter();
        let listed: Vec<_> = listed.filter_map(|file| file["name"].as_str()).collect();
        assert_eq!(listed, all.keys().collect::<Vec<_>>(), "the manifest's files");
    }

    /// What was not destroyed is in the bucket, and the manifest says that it is no whole dump, with mydumper's text.
    fn assert_given_up(&self, dumps: &BTreeMap<String, Files>) {
        let claimed = |prefix: &&String| self.stage.server.object(BUCKET, &format!("{prefix}/{MANIFEST}")).is_some();
        let manifests: Vec<_> = dumps.keys().filter(claimed).map(|prefix| self.stage.manifest_of(prefix)).collect();
        let given_up: Vec<_> = manifests.iter().filter(|manifest| manifest["state"] == "incomplete").collect();
        assert!(!given_up.is_empty(), "{manifests:?}");
        let files = self.dumper.files();
        if !self.fate.was_stopped {
            let metadata = files.iter().find(|(name, _)| name.starts_with("metadata")).expect("it began");
            let text = String::from_utf8_lossy(metadata.1);
            assert!(given_up.iter().any(|manifest| manifest["metadata_text"] == text.as_ref()), "{given_up:?}");
        }
        // Nobody did anything: exactly what was dumped, and listed.
        if self.damage.destroyed.is_empty() && dumps.len() == 1 {
            let (prefix, there) = dumps.first_key_value().expect("one dump");
            let mut wanted = files.clone();
            wanted.retain(|name, _| !name.starts_with("metadata"));
            assert!(*there == wanted, "in the bucket: {:?}", there.keys());
            self.assert_manifest_lists(prefix);
        }
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the story of the round that failed:\n{}", self.story.join("\n"));
        }
    }
}
