//! How mydumper ended: from our child, from a process handle, from a file that a script wrote, or not at all.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::model::manifest::{DumperExit, ExitSeen};
use crate::platform::{Exit, ProcessHandle};

/// Everything that may tell.
#[derive(Debug)]
pub struct ExitSources<'a> {
    /// How our child ended, if mydumper is our child.
    pub child: Option<Exit>,
    /// A handle on a process that is not ours.
    pub handle: Option<&'a ProcessHandle>,
    /// A file into which a script writes `$?`.
    pub file: Option<&'a ExitStatusFile>,
}

impl ExitSources<'_> {
    /// What is known now; `None` while one of them may still tell.
    pub fn known(&self) -> Option<DumperExit> {
        if let Some(exit) = self.child {
            return Some(dumper_exit(exit, ExitSeen::Child));
        }
        if let Some(exit) = self.handle.and_then(ProcessHandle::exit) {
            let seen = dumper_exit(exit, ExitSeen::Pidfd);
            // A script that writes a status has the last word: nothing is committed before its file holds 0.
            if self.file.is_none() || seen.is_failure() {
                return Some(seen);
            }
        }
        self.file.and_then(ExitStatusFile::read).map(|status| DumperExit {
            status: Some(status),
            signal: None,
            seen: ExitSeen::File,
        })
    }

    /// Whether the process runs, so that its end may still tell.
    pub fn is_running(&self) -> bool {
        self.handle.is_some_and(|handle| !handle.has_ended())
    }
}

fn dumper_exit(exit: Exit, seen: ExitSeen) -> DumperExit {
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
