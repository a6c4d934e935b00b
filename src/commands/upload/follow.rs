//! Following a dump: scan, enqueue what is ready, until it has ended and everything is on its way's end.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::disk::{self, DiskWatch};
use super::streaming::Streaming;
use crate::aside::aside;
use crate::claim::ClaimError;
use crate::cli::UploadArgs;
use crate::dump_dir::DumpDir;
use crate::dumper::{Child, Life, LivingDump};
use crate::model::brake::HeldTooLong;
use crate::model::disk_forecast::Space;
use crate::model::file_name::FileName;
use crate::model::reminder::Reminder;
use crate::model::state::{DumpState, Grown, GrowthJob, Phase, Scan, UploadJob};
use crate::model::units::human_duration;
use crate::model::verdict::Ending;
use crate::pool::Pool;
use crate::scan::{Look, Strangers};
use crate::stop::Stop;
use crate::transfer::{Growing, Outcome, Transfer};

/// How often the directory is looked at when nothing but time is missing: the silence of a dead dump, a file's settling.
const IMPATIENT: Duration = Duration::from_millis(200);

/// How often the status is shown at most.
const SHOW_EVERY: Duration = Duration::from_millis(200);
/// How long a mydumper that lives may write nothing before that is said.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// What goes through the queue.
#[derive(Debug)]
pub enum Job {
    /// Upload a file.
    Upload(UploadJob),
    /// Upload what there is of a file that is still being written.
    Grow(GrowthJob),
    /// Delete the object of a file that mydumper took back.
    Withdraw(FileName),
    /// Give up what there is of a file that was followed and is gone.
    Forsake(FileName),
}

/// What watcher and workers share.
#[derive(Debug)]
pub struct Shared {
    /// The four sets.
    state: Mutex<DumpState>,
    /// One file's life.
    pub transfer: Transfer,
    /// Takes rows, where there are no files.
    pub streaming: Option<Streaming>,
    /// Why nothing will succeed any more.
    gave_up: Mutex<Option<End>>,
    /// When a job last ended well.
    completed: Mutex<Instant>,
    /// Objects that are being deleted just now.
    withdrawing: Mutex<HashSet<FileName>>,
    /// A job has ended.
    ended: Notify,
}

impl Shared {
    /// For one dump.
    pub fn new(settle: Duration, transfer: Transfer, streaming: Option<Streaming>) -> Self {
        Self {
            state: Mutex::new(DumpState::new(settle)),
            transfer,
            streaming,
            gave_up: Mutex::new(None),
            completed: Mutex::new(Instant::now()),
            withdrawing: Mutex::new(HashSet::new()),
            ended: Notify::new(),
        }
    }

    /// The four sets, locked.
    pub fn state(&self) -> MutexGuard<'_, DumpState> {
        locked(&self.state)
    }

    /// When a job last ended well.
    pub fn last_completed(&self) -> Instant {
        *locked(&self.completed)
    }

    /// Nothing will succeed any more.
    pub fn give_up(&self, error: ClaimError) {
        self.end(End::GaveUp(error));
    }

    /// Following ends with the first that is said here.
    pub fn end(&self, end: End) {
        locked(&self.gave_up).get_or_insert(end);
        self.ended.notify_one();
    }

    /// An object more is proved.
    pub fn one_completed(&self) {
        *locked(&self.completed) = Instant::now();
    }

    /// Something has ended that was waited for.
    pub fn one_ended(&self) {
        self.ended.notify_one();
    }

    /// Does one job.
    pub async fn work(&self, job: Job) {
        match job {
            Job::Upload(job) => self.upload(job).await,
            Job::Grow(job) => self.grow(job).await,
            Job::Withdraw(name) => self.withdraw(&name).await,
            Job::Forsake(name) => self.transfer.forsake(&name).await,
        }
        self.ended.notify_one();
    }

    async fn upload(&self, job: UploadJob) {
        let outcome = Box::pin(self.transfer.upload(&job)).await;
        let name = job.name().clone();
        let mut state = self.state();
        match outcome {
            Outcome::Uploaded { uploaded, removal } => {
                debug!(file = %name, bytes = uploaded.object.size, "uploaded and verified");
                state.complete(job, uploaded);
                self.one_completed();
                if let Some(why) = removal {
                    warn!(file = %name, "it is in the bucket, but cannot be removed here (will be retried): {why}");
                }
            }
            Outcome::Gone { object_left } => {
                debug!(file = %name, "it was gone before it was read");
                state.gone(job, object_left);
            }
            Outcome::Renamed => {
                debug!(file = %name, "mydumper gave it another name");
                state.renamed(job);
            }
            Outcome::Failed(why) => {
                warn!(file = %name, "cannot upload it (will be retried): {why}");
                state.fail(job, Instant::now(), why);
            }
            Outcome::GaveUp(error) => {
                state.fail(job, Instant::now(), error.to_string());
                drop(state);
                self.give_up(error);
            }
        }
    }

    async fn grow(&self, job: GrowthJob) {
        let name = job.name().clone();
        let grown = match Box::pin(self.transfer.follow(&job)).await {
            Growing::Grown(grown) => grown,
            Growing::GaveUp(error) => {
                self.give_up(error);
                Grown::Failed("the store cannot be had".to_owned())
            }
        };
        match &grown {
            Grown::Taken { taken, given } => {
                debug!(file = %name, taken, given, "uploaded so far; it is still being written")
            }
            Grown::Failed(why) => {
                warn!(file = %name, "what there is of it cannot be uploaded (will be retried): {why}")
            }
        }
        let is_wanted = self.state().grown(job, Instant::now(), grown);
        if !is_wanted {
            self.transfer.forsake(&name).await;
        }
    }

    async fn withdraw(&self, name: &FileName) {
        match self.transfer.withdraw(name).await {
            Ok(()) => self.state().withdrawal_done(name),
            Err(error) => {
                warn!(file = %name, "mydumper took it back, but its object cannot be deleted: {error}");
                self.state().withdrawal_failed(name);
            }
        }
        locked(&self.withdrawing).remove(name);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the sets as they were: they change in single steps.
    mutex.lock()
}

/// Why following came to its end.
#[derive(Debug)]
pub enum End {
    /// The dump has ended, and every file of it is uploaded or has failed for good.
    Drained(Ending),
    /// The directory is not this dump's any more: nothing more may be touched.
    Lost(Ending),
    /// The store cannot be had any more, or the prefix is another's.
    GaveUp(ClaimError),
    /// A part of this program panicked: what it had at hand will never end.
    Panicked(String),
    /// mydumper was held for too long.
    Held(HeldTooLong),
    /// Rows that mydumper handed over, or should have, cannot be had any more; and why.
    Rows(String),
    /// Nothing has changed for so long that mydumper may have died unseen.
    Idle(Duration),
    /// A stop was asked for.
    Stopped(i32),
}

/// The watcher.
pub struct Watcher<'a> {
    /// The settings.
    pub args: &'a UploadArgs,
    /// The directory.
    pub directory: Arc<DumpDir>,
    /// The dump.
    pub dump: &'a mut LivingDump,
    /// What it shares with the workers.
    pub shared: Arc<Shared>,
    /// A stop that was asked for.
    pub stop: &'a Stop,
    /// How a look is to be made; its phase moves on with the dump.
    pub look: Look,
    /// Names that are not the dump's, as of the last look.
    pub strangers: Strangers,
    /// The directory's disk.
    pub disk: DiskWatch,
    /// Called when the dump has ended.
    pub ended: &'a mut dyn FnMut(),
    /// When the status was last shown.
    pub shown: Option<Instant>,
    /// Called after a look, with what there is to say of the disk.
    pub seen: &'a mut dyn FnMut(Phase, &DumpState, Option<String>),
}

impl Watcher<'_> {
    /// Follows the dump to its end.
    pub async fn follow(&mut self, pool: &Pool<Job>) -> End {
        match self.follow_on(pool).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn follow_on(&mut self, pool: &Pool<Job>) -> Result<End, End> {
        let mut backlog: VecDeque<Job> = VecDeque::new();
        let mut idle = Idle::new(Instant::now());
        let stop = self.stop;
        let mut ending = match self.look.phase {
            Phase::Writing => None,
            _ => Some(or_stop(stop, super::start::ending_of(self.dump, &self.directory)).await?),
        };
        loop {
            // Asked before the look: what ends later is worth another one.
            let ends = self.dump.child().map_or(0, Child::ends);
            if ending.is_none() {
                match or_stop(stop, self.dump.probe(&self.directory)).await? {
                    Life::Ended(end @ (Ending::Overwritten | Ending::Vanished)) => return Ok(End::Lost(end)),
                    Life::Ended(end) => {
                        info!("the dump has ended");
                        (self.ended)();
                        // Nobody is left to be paused.
                        or_stop(stop, self.disk.let_go()).await?;
                        self.look.phase = Phase::Ended;
                        ending = Some(end);
                    }
                    Life::Alive { known: false } if idle.for_long(self.args.dump.idle_timeout) => {
                        return Ok(End::Idle(self.args.dump.idle_timeout));
                    }
                    Life::Alive { .. } | Life::Silent => {}
                }
            }
            let Glance { scanned, space } = or_stop(stop, self.glance()).await??;
            match scanned {
                Ok(scan) => {
                    self.look_idle(&mut idle, &scan, ending);
                    or_stop(stop, self.observe(scan, space, &mut backlog)).await??;
                    if self.disk.has_died() {
                        let why = "the thread that looks at the free space has ended";
                        return Ok(End::Panicked(why.to_owned()));
                    }
                }
                Err(error) => {
                    warn!("cannot look at '{}' (will be retried): {error}", self.directory.path().display())
                }
            }
            or_stop(stop, self.look_at_streams(ending)).await??;
            if let Some(ending) = ending
                && self.is_drained(&backlog)
            {
                return Ok(End::Drained(ending));
            }
            let ends = ending.is_none().then_some(ends);
            if let Some(end) = self.enqueue_until_next_look(pool, &mut backlog, ends).await {
                return Ok(end);
            }
        }
    }

    async fn look_at_streams(&self, ending: Option<Ending>) -> Result<(), End> {
        if !self.shared.state().has_streams() {
            return Ok(());
        }
        if ending.is_some() {
            self.shared.settle_streams().await;
            return Ok(());
        }
        let look = self.shared.look_at_streams(&self.shared.transfer.writer.store, self.args.dump.max_stall);
        look.map_or(Ok(()), Err)
    }

    fn look_idle(&self, idle: &mut Idle, scan: &Scan, ending: Option<Ending>) {
        let now = Instant::now();
        if self.disk.is_paused() {
            // By us, so it is no wonder.
            *idle = Idle::new(now);
        }
        let taken = self.shared.streaming.as_ref().map_or(0, Streaming::taken);
        idle.compare(scan, taken, now);
        if ending.is_none()
            && let Some(warning) = idle.warning(self.dump.dumper_version.as_deref(), now)
        {
            warn!("{warning}");
        }
    }

    async fn child_ends(&self, before: Option<usize>) {
        match before.zip(self.dump.child()) {
            Some((before, child)) => child.next_end(before).await,
            None => std::future::pending().await,
        }
    }

    /// One look at the directory and its disk. It is this dump's still: else what was listed may be the next one's already.
    /// Not asked when this one is being committed: then only `metadata` is looked at, and a replaced one is known by its
    /// inode.
    async fn glance(&mut self) -> Result<Glance, End> {
        let (look, directory, shared) = (self.look.clone(), Arc::clone(&self.directory), Arc::clone(&self.shared));
        let signs = (look.phase != Phase::Committing).then(|| self.dump.signs());
        let (scanned, standing, space) = aside(move || {
            let scanned = look.at(&directory, &shared.state);
            (scanned, signs.map(|signs| signs.standing(&directory)), directory.space().ok())
        })
        .await;
        if let Some(lost) = standing.and_then(|standing| self.dump.take_in(standing)) {
            return Err(End::Lost(lost));
        }
        let scanned = scanned.map(|(scan, strangers)| {
            for (name, why) in &strangers {
                if self.strangers.get(name) != Some(why) {
                    warn!(file = %name.to_string_lossy(), "not uploaded: {why}");
                }
            }
            self.strangers = strangers;
            scan
        });
        Ok(Glance { scanned, space })
    }

    async fn observe(&mut self, scan: Scan, space: Option<Space>, backlog: &mut VecDeque<Job>) -> Result<(), End> {
        self.disk.notice(&scan);
        let (observed, seen, waiting) = {
            let mut state = self.shared.state();
            let observed = state.observe(scan);
            (observed, state.seen(), state.waiting_bytes())
        };
        let is_new = |name: &FileName| locked(&self.shared.withdrawing).insert(name.clone());
        backlog.extend(observed.withdrawn.into_iter().filter(is_new).map(Job::Withdraw));
        backlog.extend(observed.forsaken.into_iter().map(Job::Forsake));
        backlog.extend(observed.growing.into_iter().map(Job::Grow));
        let mut jobs = VecDeque::from(observed.jobs.into_iter().map(Job::Upload).collect::<Vec<_>>());
        if backlog.is_empty() {
            // Their own memory, where they may be all files of a dump that has ended.
            *backlog = jobs;
        } else {
            backlog.append(&mut jobs);
        }
        // Written down before any of them is on its way.
        let recorder = Arc::clone(&self.shared.transfer.disposal.recorder);
        if !recorder.has_seen(seen) {
            aside(move || recorder.note_seen(seen)).await;
        }
        if self.look.phase == Phase::Writing
            && let Some(held) = self.disk.steer(waiting, space, &self.shared.transfer.writer.store)
        {
            return Err(End::Held(held));
        }
        if self.shown.is_none_or(|shown| shown.elapsed() >= SHOW_EVERY) {
            self.shown = Some(Instant::now());
            let state = self.shared.state();
            let note = self.disk.note(&state, space);
            (self.seen)(self.look.phase, &state, note);
        }
        Ok(())
    }

    fn is_drained(&self, backlog: &VecDeque<Job>) -> bool {
        backlog.is_empty() && self.shared.state().outstanding() == 0
    }

    /// Pushes jobs to the queue as it takes them, until it is time for the next look. While the dump lives: how many ends
    /// of our child the last one saw.
    async fn enqueue_until_next_look(
        &self,
        pool: &Pool<Job>,
        backlog: &mut VecDeque<Job>,
        ends: Option<usize>,
    ) -> Option<End> {
        let ended = ends.is_none();
        let interval = self.args.dump.interval;
        let interval = if self.disk.is_close() && !ended { interval.min(disk::LOOK_EVERY) } else { interval };
        let settling = ended && {
            let state = self.shared.state();
            state.outstanding() > state.counts().uploading
        };
        let wait = if settling || self.dump.is_silent() { interval.min(IMPATIENT) } else { interval };
        let next_look = tokio::time::sleep(wait);
        tokio::pin!(next_look);
        loop {
            tokio::select! {
                permit = pool.queue().reserve(), if !backlog.is_empty() => {
                    if let (Ok(permit), Some(job)) = (permit, backlog.pop_front()) {
                        permit.send(job);
                    }
                    if backlog.len() < backlog.capacity() / 4 {
                        // A dump that has ended comes as a whole, and its room is wanted for what is done.
                        backlog.shrink_to_fit();
                    }
                }
                () = self.shared.ended.notified() => {
                    if let Some(end) = locked(&self.shared.gave_up).take() {
                        return Some(end);
                    }
                    // The last job of a dump that has ended: nothing to wait for.
                    if ended && self.is_drained(backlog) {
                        return None;
                    }
                }
                () = &mut next_look => return None,
                () = self.child_ends(ends) => return None,
                () = self.disk.comes_close() => return None,
                signal = self.stop.wait() => return Some(End::Stopped(signal)),
            }
        }
    }
}

/// What one look at the directory saw, and the room on its disk.
struct Glance {
    scanned: io::Result<Scan>,
    space: Option<Space>,
}

/// An answer, unless a stop is asked for before it comes: a filesystem need not answer.
async fn or_stop<T>(stop: &Stop, answer: impl Future<Output = T>) -> Result<T, End> {
    tokio::select! {
        answer = answer => Ok(answer),
        signal = stop.wait() => Err(End::Stopped(signal)),
    }
}

/// Watches for any change in the directory: where nothing else tells whether mydumper lives; and where it does, and may
/// hang.
struct Idle {
    fingerprint: u64,
    since: Instant,
    said: Reminder,
}

impl Idle {
    fn new(now: Instant) -> Self {
        Self { fingerprint: 0, since: now, said: Reminder::new(now, SILENCE) }
    }

    fn compare(&mut self, scan: &Scan, taken: u64, now: Instant) {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::hash::DefaultHasher::new();
        for (name, probe) in &scan.probes {
            (name, probe.identity).hash(&mut hasher);
        }
        (scan.listing.len(), taken).hash(&mut hasher);
        let fingerprint = hasher.finish();
        if fingerprint != self.fingerprint {
            *self = Self { fingerprint, ..Self::new(now) };
        }
    }

    fn for_long(&self, limit: Duration) -> bool {
        self.since.elapsed() >= limit
    }

    /// What there is to say of a mydumper that lives and writes nothing.
    fn warning(&mut self, dumper_version: Option<&str>, now: Instant) -> Option<String> {
        let so_long = human_duration(self.said.is_due(now)?);
        let hangs = match dumper_version {
            Some(version) if version.starts_with("0.10.") => {
                format!("; {version} sometimes hangs by itself with several threads: then end it")
            }
            _ => String::new(),
        };
        Some(format!(
            "mydumper lives, but nothing has changed in its directory for {so_long}: look at what it waits for in the \
             server (SHOW FULL PROCESSLIST), at the free space, and at its own messages{hangs}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::listing::Listing;

    fn scan_of(names: &[&str]) -> Scan {
        let mut listing = Listing::default();
        for (inode, name) in names.iter().enumerate() {
            listing.push(name, inode as u64).expect("a name");
        }
        let (probes, vanished) = (Vec::new(), Vec::new());
        Scan { now: Instant::now(), phase: Phase::Writing, listing, probes, vanished }
    }

    #[test]
    fn a_mydumper_that_writes_nothing_is_mentioned_after_ten_minutes() {
        let (began, minute) = (Instant::now(), Duration::from_secs(60));
        let mut idle = Idle::new(began);
        let mut said = Vec::new();
        for minutes in 0..90 {
            // It goes on after five minutes, and then never again.
            let names: &[&str] = if minutes < 5 { &["shop.a.sql"] } else { &["shop.a.sql", "shop.b.sql"] };
            let now = began + minute * minutes;
            idle.compare(&scan_of(names), 0, now);
            said.extend(idle.warning(Some("0.10.1"), now).map(|text| (minutes, text)));
        }
        assert_eq!(said.iter().map(|(minutes, _)| *minutes).collect::<Vec<_>>(), [15, 75]);
        assert!(said[0].1.contains("for 10m") && said[0].1.contains("0.10.1 sometimes hangs"), "{said:?}");
        assert!(!Idle::new(began).warning(None, began + minute * 10).expect("a line").contains("hangs"));
    }
}
