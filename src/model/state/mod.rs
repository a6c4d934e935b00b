//! The four sets: what is there, what may still be written, what is on its way, what is safe.
//!
//! [`DumpState::observe`] is the only place that decides what is ready, and the only maker of [`UploadJob`]s.
//! A job is a token: it is made once, and [`DumpState::complete`], [`DumpState::fail`] or [`DumpState::gone`]
//! takes it back by value. So "marked before it is queued" is not a rule to remember but the only way to get a job.
//!
//! What goes away before it is proved is judged here too: mydumper took it back (`taken_back`), or the dump lacks it.

mod gone;
mod growing;
mod known;
mod streams;

use std::collections::HashMap;
use std::time::{Duration, Instant};

pub use self::growing::{Grown, GrowthJob};
pub use self::known::{Counts, Local, Uploaded};
use self::known::{Known, Setback, Stage, Sums, Waiting};
use self::streams::Streams;
pub use self::streams::{StreamJob, may_be_taken_back};
use super::file_name::FileName;
use super::identity::FileIdentity;
use super::listing::Listing;
use super::part_sizes::PartSizes;
use super::record::Seen;
use super::taken_back::may_be_empty;

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
    /// When the file was born, in nanoseconds since 1970, where the filesystem says.
    pub born: Option<i64>,
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
    /// Files that an earlier look held open and whose names are gone, with their last identity: exact, where the
    /// identity that a look saw is only what the file was then.
    pub vanished: Vec<(FileName, FileIdentity)>,
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

    /// Whether mydumper had ended when the file was found ready.
    pub fn after_end(&self) -> bool {
        self.after_end
    }

    /// What the file was when it was found ready; any other file under this name is not meant.
    pub fn identity(&self) -> &FileIdentity {
        &self.identity
    }
}

/// What a scan led to.
#[derive(Debug, Default)]
pub struct Observed {
    /// To be pushed to the queue; they are in `uploading` already.
    pub jobs: Vec<UploadJob>,
    /// Files that were uploaded and then taken away by mydumper: their objects must go too.
    pub withdrawn: Vec<FileName>,
    /// Files that are still being written and of which there are whole parts.
    pub growing: Vec<GrowthJob>,
    /// Files that went up while they were written, and are gone before they were done: what there is of them must go.
    pub forsaken: Vec<FileName>,
}

/// The state of one dump. It lives behind one mutex that is never held across an `.await`: a scan or a job's end
/// changes it in one step, and nobody sees it in between.
#[derive(Debug)]
pub struct DumpState {
    /// How long a file must stay the same after it was first seen closed.
    settle: Duration,
    /// Every file that was ever seen, and what it is: *open*, *uploading*, *uploaded*, or none of the dump any more.
    files: HashMap<FileName, Known>,
    /// The set *present*: the names that the last scan found. Changed by `observe`, and by `adopt` for kept files.
    present: Vec<FileName>,
    /// Over `files`.
    sums: Sums,
    /// Whether a scan has been made after mydumper's end: what is missing since then was not taken back by mydumper.
    ended: bool,
    /// Whether the dump has `.dat` files.
    has_rows_beside: bool,
    scans: u64,
    /// What earlier runs saw.
    earlier: Seen,
    /// The latest birth that a look of this run found.
    last_born: Option<i64>,
    /// How files are cut that go up while they are being written, if any do.
    growing: Option<PartSizes>,
    /// Above so many local bytes what went up of these is given back, if it is at all.
    give_back_above: Option<u64>,
    /// Where rows come as streams, and files here are only names.
    streams: Option<Streams>,
}

impl DumpState {
    /// An empty state; a closed file counts as ready when it stayed the same for `settle`.
    pub fn new(settle: Duration) -> Self {
        Self {
            settle,
            files: HashMap::new(),
            present: Vec::new(),
            sums: Sums::default(),
            ended: false,
            has_rows_beside: false,
            scans: 0,
            earlier: Seen::default(),
            last_born: None,
            growing: None,
            give_back_above: None,
            streams: None,
        }
    }

    /// What earlier runs saw of this dump: told before the first look.
    pub fn remember(&mut self, earlier: Seen) {
        self.earlier = earlier;
    }

    /// The listed files that need a closer look: all that are neither on their way nor done.
    pub fn unfinished(&self, listing: &Listing) -> Vec<FileName> {
        let is_unfinished = |name: &str, inode| match self.files.get(name).map(|known| &known.stage) {
            Some(Stage::Uploading(_)) => false,
            Some(Stage::Uploaded(uploaded)) => match &uploaded.local {
                Local::Kept(identity) => identity.inode != inode,
                Local::Removed => true,
            },
            _ => true,
        };
        let names = listing.iter().filter(|(name, inode)| is_unfinished(name, *inode));
        names.filter_map(|(name, _)| name.parse().ok()).collect()
    }

    /// Takes one look at the directory in: marks what is ready as uploading and returns it as jobs.
    pub fn observe(&mut self, scan: Scan) -> Observed {
        self.scans += 1;
        // While nobody knows it from elsewhere, a name is as new as its first look.
        let is_found = |known: &Known, scans: u64| known.seen + 1 == scans;
        let mut fresh = Vec::new();
        let mut found = 0;
        for (name, _) in scan.listing.iter() {
            match self.files.get_mut(name) {
                Some(known) => {
                    if is_found(known, self.scans) {
                        found += 1
                    } else {
                        fresh.extend(name.parse().ok())
                    }
                    known.seen = self.scans;
                }
                // The listing holds none that is no name. What it is the closer look tells.
                None => fresh.extend(name.parse().ok()),
            }
        }
        let forsaken = self.forget_absent(&scan, found);
        self.present.extend(fresh);
        let names: Vec<_> =
            scan.probes.into_iter().filter_map(|(name, probe)| self.note(name, probe, scan.now)).collect();
        self.ended = scan.phase != Phase::Writing;
        let mut growing = Vec::new();
        for (name, probe) in &names {
            growing.extend(self.consider_growing(name, probe, scan.now, scan.phase));
        }
        let jobs = names.into_iter().filter_map(|probed| self.consider(probed, scan.now, scan.phase)).collect();
        Observed { jobs, withdrawn: self.due_withdrawals(), growing, forsaken }
    }

    /// Notes what a closer look saw of a file that waits; `None` where it does not wait.
    fn note(&mut self, name: FileName, probe: Probe, now: Instant) -> Option<(FileName, Probe)> {
        self.has_rows_beside |= name.as_str().contains(".dat");
        let same_since = match self.files.get(&name).map(|known| &known.stage) {
            // A worker may have ended with it between the look and now; then the look is stale.
            Some(Stage::Uploading(_)) => return None,
            Some(Stage::Uploaded(uploaded)) if uploaded.local == Local::Kept(Box::new(probe.identity)) => return None,
            Some(Stage::Uploaded(_)) if self.streams.is_some() && !name.is_metadata() => {
                return self.found_again(&name, probe.identity);
            }
            // The old object goes before a new one comes, or its deletion would hit the new one.
            Some(Stage::TakenBack(Some(_))) => return None,
            Some(Stage::Open(waiting)) if waiting.identity == probe.identity => waiting.closed_since,
            _ => None,
        };
        let closed_since = match probe.writers {
            Writers::Some => None,
            Writers::None | Writers::Ended => Some(same_since.unwrap_or(now)),
        };
        let scans = self.scans;
        self.last_born = self.last_born.max(probe.born);
        let is_new = self.earlier.last_born.is_some() && probe.born > self.earlier.last_born;
        self.change(&name, |known| {
            known.seen = scans;
            known.is_new = is_new;
            known.stage = Stage::Open(Box::new(Waiting { identity: probe.identity, closed_since }));
        });
        Some((name, probe))
    }

    /// The heart: is this file ready?
    fn consider(&mut self, (name, probe): (FileName, Probe), now: Instant, phase: Phase) -> Option<UploadJob> {
        let may_be_taken_back = self.may_be_taken_back(&name, &probe.identity);
        if self.files.get(&name).is_some_and(|known| known.is_needed == may_be_taken_back) {
            self.change(&name, |known| known.is_needed = !may_be_taken_back);
        }
        let known = self.files.get(&name)?;
        let Stage::Open(waiting) = &known.stage else { return None };
        let at_once = phase != Phase::Writing && probe.writers == Writers::None;
        let settled =
            waiting.closed_since.is_some_and(|since| at_once || now.saturating_duration_since(since) >= self.settle);
        let turn = !name.is_metadata() || phase == Phase::Committing;
        let held_back = known
            .setback
            .as_ref()
            .is_some_and(|setback| now < setback.not_before || (phase != Phase::Writing && setback.is_final()));
        if self.streams.is_some() && !name.is_metadata() {
            return None;
        }
        if !settled || !turn || held_back || known.is_growing_up() || (phase == Phase::Writing && may_be_taken_back) {
            return None;
        }
        self.change(&name, |known| {
            known.stage = Stage::Uploading(probe.identity.size.saturating_sub(known.given()));
            // The job takes over what went up before.
            known.growth = None;
        });
        Some(UploadJob { name, identity: probe.identity, after_end: phase != Phase::Writing })
    }

    /// Changes what is known of a file, and the sums with it.
    fn change(&mut self, name: &FileName, change: impl FnOnce(&mut Known)) {
        let known = match self.files.get_mut(name) {
            Some(known) => {
                self.sums.subtract(Sums::of(name, known));
                known
            }
            None => {
                let unknown = Known {
                    seen: self.scans,
                    stage: Stage::TakenBack(None),
                    is_new: false,
                    is_needed: true,
                    setback: None,
                    growth: None,
                };
                self.files.entry(name.clone()).or_insert(unknown)
            }
        };
        change(known);
        self.sums.add(Sums::of(name, known));
    }

    /// The job ended well: its object is proved.
    pub fn complete(&mut self, job: UploadJob, uploaded: Uploaded) {
        self.adopt(job.name, uploaded);
    }

    /// Takes in what an earlier run uploaded and proved.
    pub fn adopt(&mut self, name: FileName, uploaded: Uploaded) {
        let is_kept = uploaded.is_kept();
        let may_be_empty = may_be_empty(name.as_str(), uploaded.object.size);
        self.change(&name, |known| {
            known.is_needed &= !may_be_empty;
            known.stage = Stage::Uploaded(Box::new(uploaded));
            known.setback = None;
            known.growth = None;
        });
        // It was there a moment ago. Absent at the next look, it must be missed.
        let scans = self.scans;
        if is_kept && self.files.get(&name).is_some_and(|known| known.seen != scans) {
            self.change(&name, |known| known.seen = scans);
            self.present.push(name);
        }
    }

    /// The job failed: the file becomes ready again after a delay that doubles from one second.
    pub fn fail(&mut self, job: UploadJob, now: Instant, reason: String) {
        self.change(&job.name, |known| {
            known.stage = Stage::Open(Box::new(Waiting { identity: job.identity, closed_since: None }));
            known.setback = Some(Setback::after(known.setback.take(), now, job.after_end, reason));
        });
    }

    /// The file was gone when the job came to it: mydumper took it back, or the dump lacks it. `object_left` says
    /// whether an object of it may be in the bucket.
    pub fn gone(&mut self, job: UploadJob, object_left: bool) {
        // Of an object whose file was lost nobody knows whether it is the same; but it may be all that there is.
        let stage = self.stage_of_gone(&job.name, &job.identity, None, object_left);
        self.change(&job.name, |known| {
            known.stage = stage;
            known.setback = None;
        });
    }

    /// The file was renamed by mydumper while it went up: the object of the old name must go.
    pub fn renamed(&mut self, job: UploadJob) {
        self.change(&job.name, |known| {
            known.stage = Stage::TakenBack(Some(0));
            known.setback = None;
        });
    }

    /// The object of a withdrawn file is gone from the bucket.
    pub fn withdrawal_done(&mut self, name: &FileName) {
        self.change(name, |known| {
            if matches!(known.stage, Stage::TakenBack(_)) {
                known.stage = Stage::TakenBack(None);
            }
        });
    }

    /// The object of a withdrawn file could not be deleted this time.
    pub fn withdrawal_failed(&mut self, name: &FileName) {
        self.change(name, |known| {
            if let Stage::TakenBack(Some(attempts)) = &mut known.stage {
                *attempts += 1;
            }
        });
    }

    /// A file turned out to have changed since it was uploaded, or since that was tried: it counts as not seen yet.
    pub fn reopen(&mut self, name: &FileName) {
        self.change(name, |known| {
            known.stage = Stage::TakenBack(None);
            known.setback = None;
        });
    }

    /// A kept file was removed after all.
    pub fn removed(&mut self, name: &FileName) {
        self.change(name, |known| {
            if let Stage::Uploaded(uploaded) = &mut known.stage {
                uploaded.local = Local::Removed;
            }
        });
    }

    /// What was tried often enough, each with the last reason.
    pub fn failed(&self) -> Vec<(FileName, String)> {
        let failed = |(name, known): (&FileName, &Known)| Some((name.clone(), known.failure()?.to_owned()));
        self.files.iter().filter_map(failed).collect()
    }

    /// What went away before it was proved, and not by mydumper's hand: the dump is not whole.
    pub fn lost(&self) -> Vec<(FileName, String)> {
        let lost = |(name, known): (&FileName, &Known)| match &known.stage {
            Stage::Lost(lost) if !(lost.unless_rows_are_beside && self.has_rows_beside) => {
                Some((name.clone(), lost.why.clone()))
            }
            _ => None,
        };
        let mut lost: Vec<_> = self.files.iter().filter_map(lost).collect();
        lost.sort_unstable();
        lost
    }

    /// What keeps the dump from being done: files that wait (other than `metadata` and those that failed for good),
    /// that are on their way, and objects that must still go.
    pub fn outstanding(&self) -> usize {
        self.sums.outstanding
    }

    /// What was seen of the files that mydumper does not take back, in this run and earlier ones. It never goes down
    /// while nothing is lost, and what was lost between two runs still counts.
    pub fn seen(&self) -> Seen {
        let new = self.sums.seen_new as u64;
        let old = self.sums.seen as u64 - new;
        Seen { files: old.max(self.earlier.files) + new, last_born: self.last_born.max(self.earlier.last_born) }
    }

    /// How many of the files that earlier runs saw are not known to this one: neither there nor in the bucket, once what
    /// these uploaded was taken in. A file that was born since does not stand for one of them.
    pub fn missing(&self) -> u64 {
        self.earlier.files.saturating_sub((self.sums.seen - self.sums.seen_new) as u64)
    }

    /// All names that were ever seen, but for `metadata`.
    pub fn names(&self) -> Vec<FileName> {
        self.files.keys().filter(|name| !name.is_metadata()).cloned().collect()
    }

    /// Names of the files that wait.
    pub fn waiting(&self) -> impl Iterator<Item = &FileName> {
        self.files.iter().filter(|(_, known)| matches!(known.stage, Stage::Open(_))).map(|(name, _)| name)
    }

    /// The verified files.
    pub fn uploaded(&self) -> impl Iterator<Item = (&FileName, &Uploaded)> {
        self.files.iter().filter_map(|(name, known)| match &known.stage {
            Stage::Uploaded(uploaded) => Some((name, uploaded.as_ref())),
            _ => None,
        })
    }

    /// A verified file.
    pub fn find_uploaded(&self, name: &str) -> Option<&Uploaded> {
        match &self.files.get(name)?.stage {
            Stage::Uploaded(uploaded) => Some(uploaded),
            _ => None,
        }
    }

    /// Bytes of the dump's files that are on the local disk, as far as they were looked at.
    pub fn local_bytes(&self) -> u64 {
        self.sums.open_bytes + self.sums.uploading_bytes + self.sums.kept_bytes
    }

    /// Bytes of closed files that are not in the bucket yet.
    pub fn waiting_bytes(&self) -> u64 {
        self.sums.waiting_bytes
    }

    /// The kept files and what they were when they were read.
    pub fn kept(&self) -> Vec<(FileName, FileIdentity)> {
        let kept = |(name, uploaded): (&FileName, &Uploaded)| match &uploaded.local {
            Local::Kept(identity) => Some((name.clone(), **identity)),
            Local::Removed => None,
        };
        self.uploaded().filter_map(kept).collect()
    }

    /// The sizes of the sets.
    pub fn counts(&self) -> Counts {
        let Sums { open, uploading, uploaded, uploaded_bytes, .. } = self.sums;
        Counts { present: self.present.len(), open, uploading, uploaded, uploaded_bytes }
    }
}

#[cfg(test)]
mod tests;
