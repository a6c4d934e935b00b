//! A dump's life: is it still being written, and if not, how did it end?

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Sighted;
use crate::dump_dir::{DumpDir, identity_of};
use crate::model::dump_metadata::DumpMetadata;
use crate::model::file_name::{METADATA, METADATA_PARTIAL};
use crate::model::manifest::ClosedBy;
use crate::model::verdict::Ending;
use crate::platform::{self, Lease, Process, ProcessHandle};
use crate::writers;

/// How long `metadata.partial` must be seen without a writer before its dump counts as dead: mydumper closes it some
/// microseconds before it renames it, so one look proves nothing.
const SILENCE: Duration = Duration::from_secs(2);

/// Whether a dump is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Its writer lives, as far as can be known. `known` is false where nothing at all tells.
    Alive {
        /// Whether anything tells that it lives.
        known: bool,
    },
    /// It looks as if it had ended, but that may be the moment before the final rename.
    Silent,
    /// Nobody writes it any more.
    Ended(Ending),
}

/// A dump that is followed.
#[derive(Debug)]
pub struct LivingDump {
    /// What was found.
    pub sighted: Sighted,
    /// How closed files are known.
    pub closed_by: ClosedBy,
    /// Why not by a better method.
    pub closed_by_reason: &'static str,
    /// mydumper's process, where it could be found.
    process: Option<Process>,
    /// A handle on it, which outlives it.
    handle: Option<Arc<ProcessHandle>>,
    silent_since: Option<Instant>,
    /// Size and time of the lead when its text was last found to be of this dump.
    vouched: Option<(u64, i64)>,
}

impl LivingDump {
    /// Starts to follow a dump. `pid` is what the user says of mydumper's process.
    pub fn follow(sighted: Sighted, directory: &DumpDir, pid: Option<i32>) -> Self {
        let process = find_process(&sighted, directory, pid);
        let visible = process.as_ref().is_some_and(|process| writes(process, sighted.inode));
        let (closed_by, closed_by_reason) = writers::choose(&sighted.lead, visible);
        let handle = process.as_ref().and_then(|process| ProcessHandle::open(process.pid).ok()).map(Arc::new);
        Self { sighted, closed_by, closed_by_reason, process, handle, silent_since: None, vouched: None }
    }

    /// mydumper's process, where it could be found.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// A handle on mydumper's process, where it could be found.
    pub fn handle(&self) -> Option<Arc<ProcessHandle>> {
        self.handle.clone()
    }

    /// Whether it looked ended at the last look.
    pub fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// One look at the dump's life. `child` says whether mydumper is our child, and then whether it has exited.
    pub fn probe(&mut self, directory: &DumpDir, child: Option<bool>, now: Instant) -> Life {
        if self.is_overwritten(directory) {
            return Life::Ended(Ending::Overwritten);
        }
        let stands_as =
            |name| directory.identity(name).is_ok_and(|there| (there.device, there.inode) == self.sighted.inode);
        if stands_as(METADATA) {
            // Renamed, and the process exits about a millisecond later.
            let running = child == Some(false) || self.writer() == Some(true);
            return if running { Life::Alive { known: true } } else { Life::Ended(Ending::Renamed) };
        }
        if stands_as(METADATA_PARTIAL) {
            return match (child, self.writer()) {
                (Some(false), _) | (_, Some(true)) => self.alive(true),
                // Our child is gone, and no compressor of its is left.
                (Some(true), _) => Life::Ended(Ending::Died),
                (None, Some(false)) => self.silent(now, Ending::Died),
                (None, None) => self.alive(false),
            };
        }
        self.silent(now, Ending::Vanished)
    }

    /// Whether another dump has begun in the directory: another `metadata.partial` stands there; or it is the same file,
    /// begun anew, for 0.10.1 truncates a dead one and 1.x with `--dirty` appends to it.
    pub fn is_overwritten(&mut self, directory: &DumpDir) -> bool {
        let partial = directory.identity(METADATA_PARTIAL);
        partial.is_ok_and(|there| (there.device, there.inode) != self.sighted.inode) || self.is_begun_anew()
    }

    /// Whether the lead tells of another start than the one that was sighted. It is read only when it has changed.
    fn is_begun_anew(&mut self) -> bool {
        let Ok(identity) = identity_of(&self.sighted.lead) else { return false };
        let version = (identity.size, identity.modified);
        if self.vouched == Some(version) {
            return false;
        }
        let Ok(text) = self.sighted.read_again() else { return false };
        if DumpMetadata::parse(&text).started.as_ref() != Some(&self.sighted.identity.started) {
            return true;
        }
        self.vouched = Some(version);
        false
    }

    fn alive(&mut self, known: bool) -> Life {
        self.silent_since = None;
        Life::Alive { known }
    }

    /// It looks as if it had ended; it counts when it still does after [`SILENCE`].
    fn silent(&mut self, now: Instant, ending: Ending) -> Life {
        let since = *self.silent_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= SILENCE { Life::Ended(ending) } else { Life::Silent }
    }

    /// Whether somebody has `metadata.partial` open for writing; `None` where nothing tells.
    fn writer(&self) -> Option<bool> {
        if self.closed_by == ClosedBy::Lease {
            match platform::probe_lease(&self.sighted.lead) {
                Lease::Writer => return Some(true),
                Lease::NoWriter => return Some(false),
                Lease::NotPermitted | Lease::Unsupported => {}
            }
        }
        // Its process may have ended and its number be used again; the handle knows.
        self.handle.as_ref().map(|handle| !handle.has_ended())
    }
}

fn writes(process: &Process, inode: (u64, u64)) -> bool {
    process.written_files().is_ok_and(|written| written.contains(&inode))
}

/// mydumper's process: the one that was named; else one called mydumper that writes this dump's `metadata.partial`;
/// else, where we may not look into it, one called mydumper whose output directory is ours.
fn find_process(sighted: &Sighted, directory: &DumpDir, pid: Option<i32>) -> Option<Process> {
    if let Some(pid) = pid {
        return Process::find(pid);
    }
    let mut candidates = platform::processes();
    // `mydumper2s3` begins so too, and names the directory.
    candidates.retain(|process| process.name.starts_with("mydumper") && !process.name.starts_with("mydumper2s3"));
    let writer = candidates.iter().find(|process| writes(process, sighted.inode));
    writer.or_else(|| candidates.iter().find(|process| dumps_into(process, directory))).cloned()
}

/// Whether a process's command line names this directory as its output directory.
fn dumps_into(process: &Process, directory: &DumpDir) -> bool {
    let arguments = process.arguments();
    let named = arguments.iter().enumerate().find_map(|(index, argument)| {
        let argument = argument.to_str()?;
        match argument {
            "-o" | "--outputdir" => arguments.get(index + 1)?.to_str().map(str::to_owned),
            _ => argument.strip_prefix("--outputdir=").map(str::to_owned),
        }
    });
    let Some(named) = named else {
        return false;
    };
    let path = process.working_directory().unwrap_or_default().join(named);
    path.is_absolute() && DumpDir::open(&path).is_ok_and(|other| directory.is_same(&other))
}
