//! What is known of one file of the dump, and what it adds to the sums.

use std::time::{Duration, Instant};

use super::DumpState;
use super::growing::Growth;
use crate::model::file_name::FileName;
use crate::model::identity::FileIdentity;
use crate::model::manifest::ObjectRecord;
use crate::model::row_count::FileRows;

/// How often a file is tried after the dump's end before it counts as failed. While the dump lives it is tried for ever:
/// its owner has time to mend it. Outages of the store do not count: they are waited out below.
pub(super) const ATTEMPTS_MAX: u32 = 5;
/// The longest wait between two attempts at one file.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

/// What became of the local file after its object was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// Still there, with this identity: wished so, or it could not be removed.
    Kept(Box<FileIdentity>),
    /// Removed by us, in this run or an earlier one.
    Removed,
}

/// A file whose object is proved to hold the same bytes.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// What is in the bucket.
    pub object: ObjectRecord,
    /// What became of the local file.
    pub local: Local,
    /// Why its content is broken, if it is: then its dump is not whole.
    pub broken: Option<Box<str>>,
    /// The rows in it, where it is a data file and they were counted.
    pub rows: Option<FileRows>,
}

impl DumpState {
    /// What became known of an uploaded file's content afterwards.
    pub fn learn(&mut self, name: &FileName, rows: Option<FileRows>, broken: Option<Box<str>>) {
        self.change(name, |known| {
            if let Stage::Uploaded(uploaded) = &mut known.stage {
                uploaded.rows = rows;
                uploaded.broken = uploaded.broken.take().or(broken);
            }
        });
    }
}

impl Uploaded {
    /// Whether the local file is still there.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.local, Local::Kept(_))
    }

    /// Its bytes that are still here: none of a name whose rows came as a stream.
    fn kept_bytes(&self) -> u64 {
        match &self.local {
            Local::Kept(identity) => identity.size,
            Local::Removed => 0,
        }
    }
}

/// A file that waits: it may still be written, has not settled, or failed and will be tried again.
#[derive(Debug)]
pub(super) struct Waiting {
    pub identity: FileIdentity,
    /// The first scan that saw it closed with this identity.
    pub closed_since: Option<Instant>,
}

/// What a file is. Each file is exactly one of these.
#[derive(Debug)]
pub(super) enum Stage {
    /// Of the set *open*: it may still be written, or has not settled.
    Open(Box<Waiting>),
    /// Of the set *uploading*: a job of so many bytes is in the queue or on its way.
    Uploading(u64),
    /// Of the set *uploaded*: proved in the bucket.
    Uploaded(Box<Uploaded>),
    /// mydumper took it back. `Some`: an object of it must go, and how often that failed.
    TakenBack(Option<u32>),
    /// It went away before it was proved, and not by mydumper's hand: the dump lacks it.
    Lost(Box<Lost>),
}

/// A file that the dump lacks.
#[derive(Debug)]
pub(super) struct Lost {
    /// What was seen of it.
    pub why: String,
    /// Whether it would be mydumper's doing in a dump of `.dat` files: a `.sql` whose `.dat` no look ever saw.
    pub unless_rows_are_beside: bool,
}

/// How often and why a file failed.
#[derive(Debug)]
pub(super) struct Setback {
    /// All tries, which make the waits longer.
    tries: u32,
    /// Those since the dump's end.
    attempts: u32,
    pub not_before: Instant,
    pub reason: String,
}

impl Setback {
    /// One failure more; the wait doubles from one second.
    pub fn after(before: Option<Box<Self>>, now: Instant, is_after_end: bool, reason: String) -> Box<Self> {
        let (tries, attempts) = before.map_or((0, 0), |before| (before.tries, before.attempts));
        let delay = Duration::from_secs(1 << tries.min(6)).min(RETRY_DELAY_MAX);
        let attempts = attempts + u32::from(is_after_end);
        Box::new(Self { tries: tries + 1, attempts, not_before: now + delay, reason })
    }

    /// Whether it was tried often enough.
    pub fn is_final(&self) -> bool {
        self.attempts >= ATTEMPTS_MAX
    }
}

/// All that is known of a file.
#[derive(Debug)]
pub(super) struct Known {
    /// The last scan that saw it in the directory.
    pub seen: u64,
    pub stage: Stage,
    /// It was born after all that earlier runs saw.
    pub is_new: bool,
    /// By the last look at it mydumper does not take it back: it must be in the bucket in the end.
    pub is_needed: bool,
    /// What went wrong with it, until it is uploaded.
    pub setback: Option<Box<Setback>>,
    /// How far it went up while it is being written.
    pub growth: Option<Growth>,
}

impl Known {
    /// Why it failed for good.
    pub fn failure(&self) -> Option<&str> {
        match (&self.stage, &self.setback) {
            (Stage::TakenBack(Some(ATTEMPTS_MAX..)), _) => {
                Some("mydumper took it back, and its object cannot be deleted")
            }
            (_, Some(setback)) if setback.is_final() => Some(&setback.reason),
            _ => None,
        }
    }

    /// Whether it must be in the bucket in the end.
    fn must_be_kept(&self, name: &FileName) -> bool {
        self.is_needed && !matches!(self.stage, Stage::TakenBack(_)) && !name.is_metadata()
    }

    /// Whether something must still happen to it before the dump is done. `metadata` waits for all others.
    pub fn is_outstanding(&self, name: &FileName) -> bool {
        match &self.stage {
            Stage::Open(_) => !name.is_metadata() && self.failure().is_none(),
            Stage::Uploading(_) => true,
            Stage::TakenBack(Some(_)) => self.failure().is_none(),
            Stage::TakenBack(None) | Stage::Uploaded(_) | Stage::Lost(_) => false,
        }
    }
}

/// Sizes of the four sets, for the status line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files in the directory.
    pub present: usize,
    /// Files that may still be written or have not settled.
    pub open: usize,
    /// Files in the queue or on their way.
    pub uploading: usize,
    /// Files verified in the bucket.
    pub uploaded: usize,
    /// Their bytes.
    pub uploaded_bytes: u64,
}

/// Sums over all files, kept with every change: to add them up at each look would cost more than the look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub open: usize,
    pub uploading: usize,
    pub uploaded: usize,
    pub outstanding: usize,
    /// Files that mydumper does not take back: seen once, each must be in the bucket in the end.
    pub seen: usize,
    /// Those of them that no earlier run can have seen.
    pub seen_new: usize,
    /// Files of which an object must go.
    pub withdrawn: usize,
    /// Files that go up while they are being written.
    pub followed: usize,
    pub open_bytes: u64,
    /// Bytes of closed files that are not in the bucket yet.
    pub waiting_bytes: u64,
    pub uploading_bytes: u64,
    pub uploaded_bytes: u64,
    pub kept_bytes: u64,
}

impl Sums {
    /// What one file adds.
    pub fn of(name: &FileName, known: &Known) -> Self {
        let outstanding = usize::from(known.is_outstanding(name));
        let seen = usize::from(known.must_be_kept(name));
        let seen_new = if known.is_new { seen } else { 0 };
        let followed = usize::from(known.growth.is_some());
        let mut sums = Self { outstanding, seen, seen_new, followed, ..Self::default() };
        match &known.stage {
            Stage::Open(waiting) => {
                sums.open = 1;
                let here = waiting.identity.size.saturating_sub(known.given());
                let waits = waiting.closed_since.is_some() || known.counts_while_it_grows();
                sums.open_bytes = here;
                sums.waiting_bytes = if waits { here } else { 0 };
            }
            Stage::Uploading(bytes) => {
                sums.uploading = 1;
                sums.uploading_bytes = *bytes;
                sums.waiting_bytes = *bytes;
            }
            Stage::Uploaded(uploaded) => {
                sums.uploaded = 1;
                sums.uploaded_bytes = uploaded.object.size;
                sums.kept_bytes = uploaded.kept_bytes();
            }
            Stage::TakenBack(object) => sums.withdrawn = usize::from(object.is_some()),
            Stage::Lost(_) => {}
        }
        sums
    }

    pub fn add(&mut self, other: Self) {
        self.each(other, |sum, part| *sum += part, |sum, part| *sum += part);
    }

    pub fn subtract(&mut self, other: Self) {
        self.each(other, |sum, part| *sum -= part, |sum, part| *sum -= part);
    }

    fn each(&mut self, other: Self, counts: fn(&mut usize, usize), bytes: fn(&mut u64, u64)) {
        counts(&mut self.open, other.open);
        counts(&mut self.uploading, other.uploading);
        counts(&mut self.uploaded, other.uploaded);
        counts(&mut self.outstanding, other.outstanding);
        counts(&mut self.seen, other.seen);
        counts(&mut self.seen_new, other.seen_new);
        counts(&mut self.withdrawn, other.withdrawn);
        counts(&mut self.followed, other.followed);
        bytes(&mut self.open_bytes, other.open_bytes);
        bytes(&mut self.waiting_bytes, other.waiting_bytes);
        bytes(&mut self.uploading_bytes, other.uploading_bytes);
        bytes(&mut self.uploaded_bytes, other.uploaded_bytes);
        bytes(&mut self.kept_bytes, other.kept_bytes);
    }
}
