//! A dump's life: is it still being written, and if not, how did it end?

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::writer::{Role, Writer};
use super::{Child, Lead, Sighted};
use crate::aside::aside;
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

/// What tells of a dump's life: all that is asked in one look, on a thread that may wait for the filesystem.
#[derive(Debug, Clone)]
pub struct Signs {
    lead: Arc<Lead>,
    started: String,
    closed_by: ClosedBy,
    child: Option<Child>,
    writer: Option<Writer>,
    vouched: Option<(u64, i64)>,
}

/// What one look at the directory saw.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The directory's path leads to another one by now, or nowhere.
    is_elsewhere: bool,
    /// Another dump has begun in the directory.
    is_overwritten: bool,
    vouched: Option<(u64, i64)>,
}

/// What one look at a dump's life saw.
#[derive(Debug, Clone, Copy)]
pub struct Vitals {
    begun: Instant,
    done: Instant,
    standing: Standing,
    child_runs: Option<bool>,
    /// Nobody is left of all that our child started.
    is_over: bool,
    writer_runs: bool,
    /// Whether somebody has the lead open for writing; `None` where nothing tells.
    is_open: Option<bool>,
    is_final: bool,
    is_partial: bool,
}

impl Standing {
    /// Why the directory is not this dump's any more.
    pub fn lost(self) -> Option<Ending> {
        match self {
            Self { is_elsewhere: true, .. } => Some(Ending::Vanished),
            Self { is_overwritten: true, .. } => Some(Ending::Overwritten),
            _ => None,
        }
    }
}

impl Signs {
    /// One look at whether the directory is still this dump's. Blocks.
    pub fn standing(&self, directory: &DumpDir) -> Standing {
        // Another `metadata.partial` stands there; or it is the same file, begun anew, for 0.10.1 truncates a dead one and
        // 1.x with `--dirty` appends to it.
        let partial = directory.identity(METADATA_PARTIAL);
        let is_another = partial.is_ok_and(|there| (there.device, there.inode) != self.lead.inode);
        let (is_begun_anew, vouched) = self.is_begun_anew();
        let is_elsewhere = !directory.is_current();
        Standing { is_elsewhere, is_overwritten: is_another || is_begun_anew, vouched }
    }

    /// One look at the dump's life. Blocks.
    pub fn vitals(&self, directory: &DumpDir) -> Vitals {
        let begun = Instant::now();
        let standing = self.standing(directory);
        // Asked before the names are looked at: who has ended after its rename is not taken for one that died before.
        let child_runs = self.child.as_ref().map(|child| child.exit().is_none());
        let is_over = self.child.as_ref().is_none_or(Child::is_over);
        let writer_runs = self.writer.as_ref().is_some_and(|writer| writer.is_proved() && !writer.has_ended());
        let is_open = self.is_open();
        let stands_as =
            |name| directory.identity(name).is_ok_and(|there| (there.device, there.inode) == self.lead.inode);
        let is_final = stands_as(METADATA);
        let is_partial = !is_final && stands_as(METADATA_PARTIAL);
        let done = Instant::now();
        Vitals { begun, done, standing, child_runs, is_over, writer_runs, is_open, is_final, is_partial }
    }

    /// Whether the lead tells of another start than the one that was sighted. It is read only when it has changed.
    fn is_begun_anew(&self) -> (bool, Option<(u64, i64)>) {
        let Ok(identity) = identity_of(&self.lead.file) else { return (false, self.vouched) };
        let version = Some((identity.size, identity.modified));
        if self.vouched == version {
            return (false, version);
        }
        let Ok(text) = self.lead.read_again() else { return (false, self.vouched) };
        let is_another = DumpMetadata::parse(&text).started.as_ref() != Some(&self.started);
        (is_another, if is_another { self.vouched } else { version })
    }

    fn is_open(&self) -> Option<bool> {
        if self.closed_by == ClosedBy::Lease {
            match platform::probe_lease(&self.lead.file) {
                Lease::Writer => return Some(true),
                Lease::NoWriter => return Some(false),
                Lease::NotPermitted | Lease::Unsupported => {}
            }
        }
        // Its process may have ended and its number be used again; the handle knows.
        self.writer.as_ref().map(|writer| !writer.has_ended())
    }
}

impl LivingDump {
    /// Starts to follow a dump. `child` is what we started, `pid` what the user says of mydumper's process.
    ///
    /// Goes through all of `/proc` in the worst case.
    pub fn follow(sighted: Sighted, directory: &DumpDir, child: Option<&Child>, pid: Option<i32>) -> Self {
        let writer = find_writer(&sighted, directory, child, pid);
        let visible = writer.as_ref().is_some_and(Writer::is_proved);
        let (closed_by, closed_by_reason) = writers::choose(&sighted.lead.file, visible);
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

    /// What a look needs.
    pub fn signs(&self) -> Signs {
        Signs {
            lead: Arc::clone(&self.sighted.lead),
            started: self.sighted.identity.started.clone(),
            closed_by: self.closed_by,
            child: self.child.clone(),
            writer: self.writer.clone(),
            vouched: self.vouched,
        }
    }

    /// One look at the dump's life.
    pub async fn probe(&mut self, directory: &Arc<DumpDir>) -> Life {
        let (signs, directory) = (self.signs(), Arc::clone(directory));
        let vitals = aside(move || signs.vitals(&directory)).await;
        self.judge(vitals)
    }

    /// One look at whether the directory is still this dump's: why not, if it is not.
    pub async fn lost(&mut self, directory: &Arc<DumpDir>) -> Option<Ending> {
        let (signs, directory) = (self.signs(), Arc::clone(directory));
        let standing = aside(move || signs.standing(&directory)).await;
        self.take_in(standing)
    }

    /// Reads the lead again: it has grown since.
    pub async fn read_again(&self) -> io::Result<Vec<u8>> {
        let lead = Arc::clone(&self.sighted.lead);
        aside(move || lead.read_again()).await
    }

    /// Remembers what a look saw of the lead: it need not be read again until it changes.
    pub fn take_in(&mut self, standing: Standing) -> Option<Ending> {
        self.vouched = standing.vouched;
        standing.lost()
    }

    /// What a look says of the dump's life.
    fn judge(&mut self, vitals: Vitals) -> Life {
        let Vitals { standing, child_runs, is_over, writer_runs, is_open, is_final, is_partial, .. } = vitals;
        if let Some(lost) = self.take_in(standing) {
            return Life::Ended(lost);
        }
        if is_final {
            // Renamed, and the process exits about a millisecond later.
            let running = child_runs == Some(true) || is_open == Some(true);
            return if running { Life::Alive { known: true } } else { Life::Ended(Ending::Renamed) };
        }
        if is_partial {
            let child_wrote = self.writer.as_ref().is_some_and(|writer| writer.role == Role::Child);
            return match is_open {
                // Who is known to live has not died, however long it takes from its last line to the rename.
                _ if child_runs == Some(true) || writer_runs || is_open == Some(true) => self.alive(true),
                // Our child wrote it and is gone, and no compressor of its is left.
                _ if child_wrote => Life::Ended(Ending::Died),
                _ if !is_over => self.alive(true),
                None if self.child.is_none() => self.alive(false),
                _ => self.silent(vitals, Ending::Died),
            };
        }
        self.silent(vitals, Ending::Vanished)
    }

    fn alive(&mut self, known: bool) -> Life {
        self.silent_since = None;
        Life::Alive { known }
    }

    /// It looks as if it had ended; it counts when a look that begins [`SILENCE`] later still says so.
    fn silent(&mut self, vitals: Vitals, ending: Ending) -> Life {
        let since = *self.silent_since.get_or_insert(vitals.done);
        let is_long = vitals.begun.saturating_duration_since(since) >= SILENCE;
        if is_long { Life::Ended(ending) } else { Life::Silent }
    }
}

/// Who writes a dump. What was seen from our child's first moment on comes first: now that one may be gone.
fn find_writer(sighted: &Sighted, directory: &DumpDir, child: Option<&Child>, pid: Option<i32>) -> Option<Writer> {
    let seen = child.and_then(|child| child.writer_of(sighted.lead.inode));
    if seen.as_ref().is_some_and(|writer| !writer.has_ended()) {
        return seen;
    }
    let living_child = child.filter(|child| child.exit().is_none()).map(Child::pid);
    let found = Writer::find(directory, sighted.lead.inode, living_child, pid);
    // One that is only called mydumper does not take the place of one that had the lead open.
    found.filter(|found| seen.is_none() || found.is_proved()).or(seen)
}
