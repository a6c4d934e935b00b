//! The four sets: what is there, what may still be written, what is on its way, what is safe.
//!
//! [`DumpState::observe`] is the only place that decides what is ready, and the only maker of [`UploadJob`]s.
//! A job is a token: it is made once, and [`DumpState::complete`], [`DumpState::fail`] or [`DumpState::withdraw`]
//! takes it back by value. So "marked before it is queued" is not a rule to remember but the only way to get a job.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::file_name::FileName;
use super::identity::FileIdentity;
use super::listing::Listing;
use super::manifest::ObjectRecord;

/// What is known of a file's writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Somebody has it open for writing, or nobody can tell.
    Some,
    /// The kernel says that nobody has it open for writing.
    None,
    /// Nobody can tell, but the dump has ended, and its writers with it. Such a file must settle all the same.
    Ended,
}

/// What a closer look at a file said: first who writes it, then its identity, in this order.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// The file's identity.
    pub identity: FileIdentity,
    /// Who writes it.
    pub writers: Writers,
}

/// Where the dump is in its life; it decides what a closed file has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// mydumper writes, renames and deletes: a closed file must settle first. `metadata` is not ours to take.
    Writing,
    /// mydumper has ended: a closed file is ready at once. `metadata` waits for everything else.
    Ended,
    /// Everything else is verified: `metadata` is ready too.
    Committing,
}

/// One look at the dump directory.
#[derive(Debug)]
pub struct Scan {
    /// When it was made.
    pub now: Instant,
    /// Where the dump is.
    pub phase: Phase,
    /// Every file of the dump that is there.
    pub listing: Listing,
    /// A closer look at those that [`DumpState::unfinished`] named.
    pub probes: Vec<(FileName, Probe)>,
}

/// The right and the duty to upload one file once.
#[derive(Debug, PartialEq, Eq)]
pub struct UploadJob {
    name: FileName,
    identity: FileIdentity,
    after_end: bool,
}

impl UploadJob {
    /// The file's name.
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// Whether mydumper had ended when the file was found ready. Then nobody takes a file back any more, and one that
    /// vanishes is lost.
    pub fn after_end(&self) -> bool {
        self.after_end
    }

    /// What the file was when it was found ready; any other file under this name is not meant.
    pub fn identity(&self) -> &FileIdentity {
        &self.identity
    }
}

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
}

impl Uploaded {
    fn is_kept(&self) -> bool {
        matches!(self.local, Local::Kept(_))
    }

    fn kept_bytes(&self) -> u64 {
        if self.is_kept() { self.object.size } else { 0 }
    }
}

/// What a scan led to.
#[derive(Debug, Default)]
pub struct Observed {
    /// To be pushed to the queue; they are in `uploading` already.
    pub jobs: Vec<UploadJob>,
    /// Files that were uploaded and then taken away by mydumper: their objects must go too.
    pub withdrawn: Vec<FileName>,
}

/// A file that waits: it may still be written, has not settled, or failed and will be tried again.
#[derive(Debug)]
struct Waiting {
    identity: FileIdentity,
    /// The first scan that saw it closed with this identity.
    closed_since: Option<Instant>,
}

/// How often and why a file failed.
#[derive(Debug)]
struct Setback {
    attempts: u32,
    not_before: Instant,
    reason: String,
}

/// How often a file is tried after the dump's end before it counts as failed. While the dump lives it is tried for ever:
/// its owner has time to mend it. Outages of the store do not count: they are waited out below.
const ATTEMPTS_MAX: u32 = 5;
/// The longest wait between two attempts at one file.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

/// The state of one dump. It lives behind one mutex that is never held across an `.await`: a scan or a job's end
/// changes it in one step, and nobody sees it in between.
#[derive(Debug)]
pub struct DumpState {
    /// How long a file must stay the same after it was first seen closed.
    settle: Duration,
    /// Names in the directory at the last scan, and when each was last seen. Changed by `observe`.
    present: HashMap<FileName, u64>,
    /// Those that may still be written or have not settled, with what is known of them. Filled by `observe` and `fail`.
    open: HashMap<FileName, Waiting>,
    /// Those handed to the pool and not yet ended, with their bytes. `observe` adds; `complete`, `fail` and `withdraw` take out.
    uploading: HashMap<FileName, u64>,
    /// Those verified in the bucket; boxed, because a map of large values takes twice their room when it grows. `complete` and `adopt` add; `observe` takes out what was withdrawn.
    uploaded: HashMap<FileName, Box<Uploaded>>,
    /// What went wrong with a file, until it is uploaded.
    setbacks: HashMap<FileName, Setback>,
    /// Objects that must go because mydumper took the file back, and how often that failed.
    withdrawn: HashMap<FileName, u32>,
    /// Files that vanished after mydumper's end before they were uploaded: the dump lacks them.
    lost: HashSet<FileName>,
    /// Whether a scan has been made after mydumper's end: what is missing since then was not taken back by mydumper.
    ended: bool,
    scans: u64,
    /// Sums over `uploaded`, kept with it, because a sum at each look would cost more than the look.
    uploaded_bytes: u64,
    kept_bytes: u64,
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

impl DumpState {
    /// An empty state; a closed file counts as ready when it stayed the same for `settle`.
    pub fn new(settle: Duration) -> Self {
        Self {
            settle,
            present: HashMap::new(),
            open: HashMap::new(),
            uploading: HashMap::new(),
            uploaded: HashMap::new(),
            setbacks: HashMap::new(),
            withdrawn: HashMap::new(),
            lost: HashSet::new(),
            ended: false,
            scans: 0,
            uploaded_bytes: 0,
            kept_bytes: 0,
        }
    }

    /// The listed files that need a closer look: all that are neither on their way nor done.
    pub fn unfinished(&self, listing: &Listing) -> Vec<FileName> {
        let is_unfinished = |name: &str, inode| match self.uploaded.get(name).map(|uploaded| &uploaded.local) {
            Some(Local::Kept(identity)) => identity.inode != inode,
            Some(Local::Removed) => true,
            None => !self.uploading.contains_key(name),
        };
        let names = listing.iter().filter(|(name, inode)| is_unfinished(name, *inode));
        names.filter_map(|(name, _)| name.parse().ok()).collect()
    }

    /// Takes one look at the directory in: marks what is ready as uploading and returns it as jobs.
    pub fn observe(&mut self, scan: Scan) -> Observed {
        self.scans += 1;
        for (name, _) in scan.listing.iter() {
            match self.present.get_mut(name) {
                Some(seen) => *seen = self.scans,
                None => {
                    // The listing holds none that is no name.
                    self.present.extend(name.parse().ok().map(|name: FileName| (name, self.scans)));
                }
            }
        }
        let gone = self.forget_absent();
        let withdrawn = self.take_withdrawn(gone);
        self.ended = scan.phase != Phase::Writing;
        let mut jobs = Vec::with_capacity(scan.probes.len());
        for (name, probe) in scan.probes {
            // A worker may have ended with it between the look and now; then the look is stale.
            if self.uploading.contains_key(&name) || !self.present.contains_key(&name) {
                continue;
            }
            if let Some(Local::Kept(identity)) = self.uploaded.get(&name).map(|uploaded| &uploaded.local)
                && **identity == probe.identity
            {
                continue;
            }
            if let Some(job) = self.consider(name, probe, scan.now, scan.phase) {
                jobs.push(job);
            }
        }
        Observed { jobs, withdrawn }
    }

    /// The heart: is this file ready?
    fn consider(&mut self, name: FileName, probe: Probe, now: Instant, phase: Phase) -> Option<UploadJob> {
        let same = self.open.get(&name).filter(|waiting| waiting.identity == probe.identity);
        let closed_since = match (probe.writers, same.and_then(|waiting| waiting.closed_since)) {
            (Writers::Some, _) => None,
            (_, Some(since)) => Some(since),
            (_, None) => Some(now),
        };
        let at_once = phase != Phase::Writing && probe.writers == Writers::None;
        let settled = closed_since.is_some_and(|since| at_once || now.saturating_duration_since(since) >= self.settle);
        // The old object of a withdrawn name goes before a new one comes, or its deletion would hit the new one.
        let turn = !self.withdrawn.contains_key(&name) && (!name.is_metadata() || phase == Phase::Committing);
        if settled && turn && !self.held_back(&name, now, phase) {
            self.open.remove(&name);
            self.forget_uploaded(&name);
            self.uploading.insert(name.clone(), probe.identity.size);
            return Some(UploadJob { name, identity: probe.identity, after_end: phase != Phase::Writing });
        }
        self.open.insert(name, Waiting { identity: probe.identity, closed_since });
        None
    }

    /// Whether an earlier failure says: not yet, or never.
    fn held_back(&self, name: &FileName, now: Instant, phase: Phase) -> bool {
        self.setbacks.get(name).is_some_and(|setback| {
            now < setback.not_before || (phase != Phase::Writing && setback.attempts >= ATTEMPTS_MAX)
        })
    }

    /// What was there at the look before, and is not any more.
    fn forget_absent(&mut self) -> Vec<FileName> {
        let scans = self.scans;
        let gone = self.present.extract_if(|_, seen| *seen != scans).map(|(name, _)| name).collect();
        let (present, lost, ended) = (&self.present, &mut self.lost, self.ended);
        self.open.retain(|name, _| {
            let there = present.contains_key(name);
            if !there && ended && !name.is_metadata() {
                lost.insert(name.clone());
            }
            there
        });
        let uploading = &self.uploading;
        self.setbacks.retain(|name, _| present.contains_key(name) || uploading.contains_key(name));
        gone
    }

    /// Uploaded files that vanished although we did not remove them: while it lives, mydumper took them back.
    fn take_withdrawn(&mut self, gone: Vec<FileName>) -> Vec<FileName> {
        let was_kept = |name: &FileName| self.uploaded.get(name).is_some_and(|uploaded| uploaded.is_kept());
        let gone: Vec<_> = gone.into_iter().filter(was_kept).collect();
        for name in gone {
            if self.ended {
                // Somebody tidied up; the object is proved.
                self.removed(&name);
            } else {
                self.forget_uploaded(&name);
                self.withdrawn.insert(name, 0);
            }
        }
        let due = |(name, attempts): (&FileName, &u32)| (*attempts < ATTEMPTS_MAX).then(|| name.clone());
        self.withdrawn.iter().filter_map(due).collect()
    }

    fn forget_uploaded(&mut self, name: &FileName) {
        if let Some(uploaded) = self.uploaded.remove(name) {
            self.uploaded_bytes -= uploaded.object.size;
            self.kept_bytes -= uploaded.kept_bytes();
        }
    }

    /// The job ended well: its object is proved.
    pub fn complete(&mut self, job: UploadJob, uploaded: Uploaded) {
        self.uploading.remove(&job.name);
        self.setbacks.remove(&job.name);
        self.adopt(job.name, uploaded);
    }

    /// Takes in what an earlier run uploaded and proved.
    pub fn adopt(&mut self, name: FileName, uploaded: Uploaded) {
        self.forget_uploaded(&name);
        self.lost.remove(&name);
        self.uploaded_bytes += uploaded.object.size;
        self.kept_bytes += uploaded.kept_bytes();
        if uploaded.is_kept() {
            // It was there a moment ago. Absent at the next look, it must be missed.
            self.present.entry(name.clone()).or_insert(self.scans);
        }
        self.uploaded.insert(name, Box::new(uploaded));
    }

    /// The job failed: the file becomes ready again after a delay that doubles from one second.
    pub fn fail(&mut self, job: UploadJob, now: Instant, reason: String) {
        self.uploading.remove(&job.name);
        let attempts = self.setbacks.get(&job.name).map_or(0, |setback| setback.attempts) + 1;
        let delay = Duration::from_secs(1 << (attempts - 1).min(6)).min(RETRY_DELAY_MAX);
        self.open.insert(job.name.clone(), Waiting { identity: job.identity, closed_since: None });
        self.setbacks.insert(job.name, Setback { attempts, not_before: now + delay, reason });
    }

    /// The file was gone when the job came to it: mydumper withdrew it. `object_left` says whether an object of it may
    /// be in the bucket; that must go then.
    pub fn withdraw(&mut self, job: UploadJob, object_left: bool) {
        self.uploading.remove(&job.name);
        self.setbacks.remove(&job.name);
        self.forget_uploaded(&job.name);
        if job.after_end {
            // An object that an earlier run left may be all that there is of it.
            self.lost.insert(job.name);
        } else if object_left {
            self.withdrawn.insert(job.name, 0);
        }
    }

    /// The object of a withdrawn file is gone from the bucket.
    pub fn withdrawal_done(&mut self, name: &FileName) {
        self.withdrawn.remove(name);
    }

    /// The object of a withdrawn file could not be deleted this time.
    pub fn withdrawal_failed(&mut self, name: &FileName) {
        if let Some(attempts) = self.withdrawn.get_mut(name) {
            *attempts += 1;
        }
    }

    /// A kept file turned out to have changed since it was uploaded: it counts as not uploaded.
    pub fn reopen(&mut self, name: &FileName) {
        self.forget_uploaded(name);
    }

    /// A kept file was removed after all.
    pub fn removed(&mut self, name: &FileName) {
        if let Some(uploaded) = self.uploaded.get_mut(name) {
            self.kept_bytes -= uploaded.kept_bytes();
            uploaded.local = Local::Removed;
        }
    }

    /// What was tried often enough, each with the last reason.
    pub fn failed(&self) -> Vec<(FileName, String)> {
        let uploads = self.setbacks.iter().filter(|(_, setback)| setback.attempts >= ATTEMPTS_MAX);
        let uploads = uploads.map(|(name, setback)| (name.clone(), setback.reason.clone()));
        let withdrawals = self.withdrawn.iter().filter(|(_, attempts)| **attempts >= ATTEMPTS_MAX);
        let why = "mydumper took it back, and its object cannot be deleted";
        let lost = self.lost.iter().map(|name| (name.clone(), "it vanished after mydumper's end".to_owned()));
        uploads.chain(lost).chain(withdrawals.map(|(name, _)| (name.clone(), why.to_owned()))).collect()
    }

    /// What keeps the dump from being done: files that wait (other than `metadata` and those that failed for good),
    /// that are on their way, and objects that must still go.
    pub fn outstanding(&self) -> usize {
        let exhausted =
            |name: &FileName| self.setbacks.get(name).is_some_and(|setback| setback.attempts >= ATTEMPTS_MAX);
        let waiting = self.open.keys().filter(|name| !name.is_metadata() && !exhausted(name)).count();
        let withdrawn = self.withdrawn.values().filter(|attempts| **attempts < ATTEMPTS_MAX).count();
        waiting + self.uploading.len() + withdrawn
    }

    /// The files that wait, for messages.
    pub fn waiting(&self) -> impl Iterator<Item = &FileName> {
        self.open.keys()
    }

    /// Objects that must go and have not gone yet.
    pub fn withdrawn(&self) -> impl Iterator<Item = &FileName> {
        self.withdrawn.keys()
    }

    /// The verified files.
    pub fn uploaded(&self) -> &HashMap<FileName, Box<Uploaded>> {
        &self.uploaded
    }

    /// Bytes of the dump's files that are on the local disk, as far as they were looked at.
    pub fn local_bytes(&self) -> u64 {
        let waiting = self.open.values().map(|waiting| waiting.identity.size);
        let uploading = self.uploading.values().copied();
        waiting.chain(uploading).sum::<u64>() + self.kept_bytes
    }

    /// Bytes of closed files that are not in the bucket yet.
    pub fn waiting_bytes(&self) -> u64 {
        let closed = self.open.values().filter(|waiting| waiting.closed_since.is_some());
        let uploading = self.uploading.values().copied();
        closed.map(|waiting| waiting.identity.size).chain(uploading).sum()
    }

    /// The kept files and what they were when they were read.
    pub fn kept(&self) -> Vec<(FileName, FileIdentity)> {
        let kept = self.uploaded.iter().filter_map(|(name, uploaded)| match &uploaded.local {
            Local::Kept(identity) => Some((name.clone(), **identity)),
            Local::Removed => None,
        });
        kept.collect()
    }

    /// The sizes of the sets.
    pub fn counts(&self) -> Counts {
        Counts {
            present: self.present.len(),
            open: self.open.len(),
            uploading: self.uploading.len(),
            uploaded: self.uploaded.len(),
            uploaded_bytes: self.uploaded_bytes,
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
