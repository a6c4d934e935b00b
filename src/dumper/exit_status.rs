//! How mydumper ended: from our child, from a process handle, from a file that a script wrote, or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Child;
use crate::model::manifest::{DumperExit, ExitSeen};
use crate::platform::{Exit, ProcessHandle};

/// A process is gone about a millisecond after its last file, at most 80 ms were seen.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a process's parent may take to fetch its status: the kernel tells only then.
const REAP_WAIT: Duration = Duration::from_millis(300);

/// Everything that may tell.
#[derive(Debug, Clone)]
pub struct ExitSources {
    /// mydumper, if it is our child.
    pub child: Option<Child>,
    /// A handle on a process that is not ours.
    pub handle: Option<Arc<ProcessHandle>>,
    /// A file into which a script writes `$?`.
    pub file: Option<ExitStatusFile>,
}

impl ExitSources {
    /// Waits for whatever may tell, after the dump's end: for a child as long as it takes, for others up to `patience`.
    pub async fn wait(&self, patience: Duration) -> DumperExit {
        if let Some(child) = &self.child {
            return dumper_exit(child.wait().await, ExitSeen::Child);
        }
        let deadline = Instant::now() + patience;
        let mut ended_at = None;
        loop {
            if let Some(exit) = self.known() {
                return exit;
            }
            let now = Instant::now();
            let is_running = self.handle.as_ref().is_some_and(|handle| !handle.has_ended());
            let may_tell = is_running || {
                let ended_at = *ended_at.get_or_insert(now);
                self.file.is_some() || (self.handle.is_some() && now < ended_at + REAP_WAIT)
            };
            if !may_tell || now >= deadline {
                return DumperExit::NOT_SEEN;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What a process that is not ours has told by now.
    fn known(&self) -> Option<DumperExit> {
        if let Some(exit) = self.handle.as_ref().and_then(|handle| handle.exit()) {
            let seen = dumper_exit(exit, ExitSeen::Pidfd);
            // A script that writes a status has the last word: nothing is committed before its file holds 0.
            if self.file.is_none() || seen.is_failure() {
                return Some(seen);
            }
        }
        let status = self.file.as_ref().and_then(ExitStatusFile::read)?;
        Some(DumperExit { status: Some(status), signal: None, seen: ExitSeen::File })
    }
}

pub(super) fn dumper_exit(exit: Exit, seen: ExitSeen) -> DumperExit {
    match exit {
        Exit::Status(status) => DumperExit { status: Some(status), signal: None, seen },
        Exit::Signal(signal) => DumperExit { status: None, signal: Some(signal), seen },
    }
}

/// The file of `--exit-status-file`.
#[derive(Debug, Clone)]
pub struct ExitStatusFile {
    path: PathBuf,
    /// What is older than the dump is of an earlier night.
    not_before: SystemTime,
}

impl ExitStatusFile {
    /// The file, of which only what was written since `dump_started` counts.
    pub fn new(path: PathBuf, dump_started: SystemTime) -> Self {
        Self { path, not_before: dump_started }
    }

    /// The status in it; `None` while it is missing, old, empty or half written. Anything that is no number counts as
    /// a failure.
    fn read(&self) -> Option<i32> {
        let modified = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok()?;
        if modified < self.not_before {
            return None;
        }
        let text = std::fs::read_to_string(&self.path).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.parse().unwrap_or(255))
    }
}
