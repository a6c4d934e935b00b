//! A dump's life: is it still being written, and if not, how did it end?

use std::time::{Duration, Instant};

use super::writer::{Role, Writer};
use super::{Child, Sighted};
use crate::dump_dir::{DumpDir, identity_of};
use crate::model::dump_metadata::DumpMetadata;
use crate::model::file_name::{METADATA, METADATA_PARTIAL};
use crate::model::left_out::LeftOut;
use crate::model::manifest::ClosedBy;
use crate::model::verdict::Ending;
use crate::platform::{self, Lease};
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
    /// What we started, if we started anything.
    child: Option<Child>,
    /// Who writes it, where that could be found.
    writer: Option<Writer>,
    /// mydumper's version, where it is known.
    pub dumper_version: Option<String>,
    /// What mydumper was not asked for, where its command line tells.
    pub left_out: Option<Vec<LeftOut>>,
    silent_since: Option<Instant>,
    /// Size and time of the lead when its text was last found to be of this dump.
    vouched: Option<(u64, i64)>,
}

impl LivingDump {
    /// Starts to follow a dump. `child` is what we started, `pid` what the user says of mydumper's process.
    ///
    /// Goes through all of `/proc` in the worst case.
    pub fn follow(sighted: Sighted, directory: &DumpDir, child: Option<&Child>, pid: Option<i32>) -> Self {
        let writer = find_writer(&sighted, directory, child, pid);
        let visible = writer.as_ref().is_some_and(Writer::is_proved);
        let (closed_by, closed_by_reason) = writers::choose(&sighted.lead, visible);
        let dumper_version = writer.as_ref().and_then(Writer::version);
        let left_out = writer.as_ref().and_then(|writer| writer.left_out(dumper_version.as_deref()));
        Self {
            sighted,
            closed_by,
            closed_by_reason,
            child: child.cloned(),
            dumper_version,
            left_out,
            writer,
            silent_since: None,
            vouched: None,
        }
    }

    /// Who writes it, where that could be found.
    pub fn writer(&self) -> Option<&Writer> {
        self.writer.as_ref()
    }

    /// Our child, if it writes it.
    pub fn child(&self) -> Option<&Child> {
        self.child.as_ref()
    }

    /// Whether it looked ended at the last look.
    pub fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// One look at the dump's life.
    pub fn probe(&mut self, directory: &DumpDir, now: Instant) -> Life {
        if self.is_overwritten(directory) {
            return Life::Ended(Ending::Overwritten);
        }
        // Asked before the names are looked at: who has ended after its rename is not taken for one that died before.
        let child_runs = self.child.as_ref().map(|child| child.exit().is_none());
        let is_over = self.child.as_ref().is_none_or(Child::is_over);
        let writer_runs = self.writer.as_ref().is_some_and(|writer| writer.is_proved() && !writer.has_ended());
        let is_open = self.is_open();
        let stands_as =
            |name| directory.identity(name).is_ok_and(|there| (there.device, there.inode) == self.sighted.inode);
        if stands_as(METADATA) {
            // Renamed, and the process exits about a millisecond later.
            let running = child_runs == Some(true) || is_open == Some(true);
            return if running { Life::Alive { known: true } } else { Life::Ended(Ending::Renamed) };
        }
        if stands_as(METADATA_PARTIAL) {
            let child_wrote = self.writer.as_ref().is_some_and(|writer| writer.role == Role::Child);
            return match is_open {
                // Who is known to live has not died, however long it takes from its last line to the rename.
                _ if child_runs == Some(true) || writer_runs || is_open == Some(true) => self.alive(true),
                // Our child wrote it and is gone, and no compressor of its is left.
                _ if child_wrote => Life::Ended(Ending::Died),
                _ if !is_over => self.alive(true),
                None if self.child.is_none() => self.alive(false),
                _ => self.silent(now, Ending::Died),
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

    /// Whether somebody has the lead open for writing; `None` where nothing tells.
    fn is_open(&self) -> Option<bool> {
        if self.closed_by == ClosedBy::Lease {
            match platform::probe_lease(&self.sighted.lead) {
                Lease::Writer => return Some(true),
                Lease::NoWriter => return Some(false),
                Lease::NotPermitted | Lease::Unsupported => {}
            }
        }
        // Its process may have ended and its number be used again; the handle knows.
        self.writer.as_ref().map(|writer| !writer.has_ended())
    }
}

/// Who writes a dump. What was seen from our child's first moment on comes first: now that one may be gone.
fn find_writer(sighted: &Sighted, directory: &DumpDir, child: Option<&Child>, pid: Option<i32>) -> Option<Writer> {
    let seen = child.and_then(|child| child.writer_of(sighted.inode));
    if seen.as_ref().is_some_and(|writer| !writer.has_ended()) {
        return seen;
    }
    let living_child = child.filter(|child| child.exit().is_none()).map(Child::pid);
    let found = Writer::find(directory, sighted.inode, living_child, pid);
    // One that is only called mydumper does not take the place of one that had the lead open.
    found.filter(|found| seen.is_none() || found.is_proved()).or(seen)
}
