//! What others do: to the bucket between two runs, to the directory and to us while we run.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::round::Round;
use super::{Count, MIB};
use crate::support::s3_server::{BUCKET, Fault, FaultHandle, Operation};
use crate::support::stage::MANIFEST;

impl Round<'_> {
    /// Nothing of us runs: somebody has the bucket, or the host's name, for himself.
    pub fn between_runs(&mut self) {
        if self.dice.one_in(4) && rustix::process::geteuid().is_root() {
            self.host = if self.host.is_none() { Some("elsewhere") } else { None };
        }
        if !self.dice.one_in(3) {
            return;
        }
        let keys = self.stage.server.keys(BUCKET);
        if keys.is_empty() {
            return;
        }
        // A finished dump is spoiled, and not committed any more by whoever still has something to remove.
        let committed = self.dumps().into_iter().filter(|(_, there)| there.contains_key("metadata"));
        let committed: Vec<String> = committed.map(|(prefix, _)| prefix).collect();
        // The claim alone is taken by nobody: what stands there without one is another's, and status 2.
        let files: Vec<&String> = keys.iter().filter(|key| !key.ends_with(MANIFEST)).collect();
        match self.dice.below(5) {
            1 | 2 if !files.is_empty() => {
                let key = self.dice.of(&files);
                self.stage.server.remove_directly(BUCKET, key);
                self.happened(Count::Gone, key);
            }
            3 | 4 if !files.is_empty() => {
                let key = self.dice.of(&files);
                let name = key.rsplit('/').next().unwrap_or_default();
                // Where the file is a hole here nobody can know which is right: neither is touched, and no end is reached.
                let local = self.stage.sandbox.local_files();
                if local.get(name).is_none_or(|here| here.first() != Some(&0)) {
                    self.replace(key);
                    self.happened(Count::Replaced, key);
                }
            }
            _ => {
                keys.iter().for_each(|key| self.stage.server.remove_directly(BUCKET, key));
                self.happened(Count::Pruned, "");
            }
        }
        self.damage.spoiled.extend(committed);
        let nowhere = self.nowhere();
        self.damage.destroyed.extend(nowhere);
    }

    /// Other bytes, of the same size more often than not, and the dump's id kept.
    fn replace(&mut self, key: &str) {
        let size = self.stage.server.object(BUCKET, key).expect("it was listed").bytes().len();
        let size = if self.dice.one_in(3) { size + 1 } else { size };
        self.stage.server.replace_directly(BUCKET, key, &vec![b'x'; size]);
    }

    pub fn mishap_while_it_runs(&mut self, name: &str) {
        if self.run.is_none() {
            self.start();
        }
        if self.dice.one_in(2) { self.stop() } else { self.stranger(name) }
    }

    /// SIGTERM to us, and where mydumper is our child, its end: more often than not while the store is down.
    fn stop(&mut self) {
        let Some(run) = self.run.take() else { return };
        let is_down = !self.dice.one_in(3);
        let cut = is_down.then(|| self.stage.server.inject(Fault::cut_before_body()));
        self.was_cut |= is_down;
        run.signal(Signal::TERM);
        let finished = run.finish();
        cut.iter().for_each(FaultHandle::clear);
        self.happened(if is_down { Count::StopsWhileDown } else { Count::Stops }, &finished.text());
        if self.is_parent {
            self.fate.was_stopped = true;
            self.fate.has_ended = true;
            self.dumper.wait_for_end();
        }
        self.is_parent = false;
        let term = Signal::TERM.as_raw();
        // By the signal itself where it came before anybody listened; and it may have been about to say that it cannot
        // reach the store.
        let is_stopped = finished.status.signal() == Some(term) || finished.status.code() == Some(128 + term);
        let is_away = is_down && matches!(finished.status.code(), Some(1 | 2));
        if !is_stopped && !is_away {
            self.judge(&finished);
        }
        self.assert_nothing_lost();
    }

    /// A file is removed by somebody else while its upload is held; we may be killed before or after that.
    fn stranger(&mut self, name: &str) {
        let end = format!("/{name}");
        let held = if self.dice.one_in(2) { Fault::hold() } else { Fault::store_then_hold() };
        let begins = [Operation::PutObject, Operation::CreateMultipartUpload];
        let held = self.stage.server.inject(held.on_any_of(begins).key_where(move |key| key.ends_with(&end)));
        let size = if self.dice.one_in(5) { 6 * MIB } else { 1 + self.dice.below(5_000) };
        self.dumper.file(name, size);
        // Only what a run has seen can be missed.
        let deadline = Instant::now() + Duration::from_secs(5);
        while held.hits() == 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let local = self.stage.sandbox.dump_dir().join(name);
        let when = self.dice.below(3);
        if when == 0 {
            self.kill();
        }
        if held.hits() > 0 && std::fs::remove_file(local).is_ok() {
            self.damage.at_risk.insert(name.to_owned());
            // Its object may be there all the same, and a run that did not put it cannot tell.
            self.damage.is_doubtful = true;
            self.happened(Count::RemovedByAStranger, name);
        }
        if when == 1 {
            self.kill();
        }
        held.clear();
    }
}
