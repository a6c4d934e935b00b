//! The dump directory's disk: mydumper is paused while it is about to fill, a forecast says when it will be full, and
//! whether it ever was is found out by looks at the free space, each of which costs a microsecond or two.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::{Notify, oneshot};
use tracing::{debug, warn};

use crate::aside::aside;
use crate::cli::UploadArgs;
use crate::dump_dir::DumpDir;
use crate::dumper::{Child, LivingDump, Reins, Team};
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::brake::{Brake, Disk, HeldTooLong, Marks, Order, default_min_free};
use crate::model::disk_forecast::{Flow, MEASURED, Space, forecast};
use crate::model::dumper_version::survives_full_disk;
use crate::model::file_kind::{FileKind, KnownNames, NameParts};
use crate::model::file_name::METADATA_PARTIAL;
use crate::model::full_disk::FullDisk;
use crate::model::state::{DumpState, Scan};
use crate::model::units::ByteSize;
use crate::recorder::Recorder;
use crate::report::RateMeter;
use crate::s3::Store;

/// How often free space is looked at, and while a mark is set the directory, too.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Against a full disk.
const WHAT_HELPS: &str = "smaller files go up sooner (mydumper's --chunk-filesize), and --max-local pauses it earlier";
/// How often a forecast is logged at most.
const FORECAST_EVERY: Duration = Duration::from_secs(60);

/// Watches the disk of a running dump.
#[derive(Debug)]
pub struct DiskWatch {
    looks: Option<SpaceLooks>,
    steering: Option<Steering>,
    /// How long mydumper was held before it ended.
    held: Duration,
    /// Bytes that had gone up when the store last took any.
    sent: u64,
    has_data: bool,
    /// Since when data comes, as the status saw it.
    flows_since: Option<Instant>,
    incoming: RateMeter,
    outgoing: RateMeter,
    logged: Option<Instant>,
}

impl DiskWatch {
    /// Takes the reins if a mark is given; then mydumper must be ours, or visible and signallable. Without one the default
    /// mark is in force where it can be, and the reins are taken when they are needed first.
    pub async fn begin(
        args: &UploadArgs,
        child: Option<&Child>,
        dump: &LivingDump,
        directory: &Arc<DumpDir>,
        recorder: &Arc<Recorder>,
    ) -> Result<Self, Failure> {
        let given = Marks {
            max_local: args.dump.max_local.map(|size| size.0),
            min_free: args.dump.min_free.map(|size| size.0).filter(|size| *size > 0),
            max_pause: args.dump.max_pause,
            max_stall: args.dump.max_stall,
            max_held: args.dump.max_held,
        };
        let team = team(child, dump);
        // Where uploads free nothing a pause would not end.
        let frees = !args.dump.keep && !args.destination.write_only;
        let wants_default = frees && args.dump.min_free.is_none();
        let there = Arc::clone(directory);
        let space = if wants_default { aside(move || there.space()).await.ok() } else { None };
        let default = space.and_then(|space| default_min_free(space.free, space.total));
        let marks = Marks { min_free: given.min_free.or(default), ..given };
        let can_pause = team.is_ok();
        let steering = match (team, given.max_local.or(given.min_free), default) {
            (team, Some(_), _) => Some(Steering::given(team?, marks)?),
            (Ok(team), None, Some(_)) => {
                Some(Steering { brake: Brake::new(marks), reins: None, team, marks, is_given: false })
            }
            _ => None,
        };
        let (directory, recorder) = (Arc::clone(directory), Arc::clone(recorder));
        let looks = SpaceLooks::begin(SpaceWatch {
            directory,
            recorder,
            survives: survives_full_disk(dump.dumper_version.as_deref()),
            tight_below: default.map_or(0, |mark| 2 * mark),
            can_pause,
        });
        Ok(Self { looks: Some(looks), steering, ..Self::idle() })
    }

    /// For a dump that has ended: there is nobody to pause.
    pub fn idle() -> Self {
        let (incoming, outgoing) = (RateMeter::over(MEASURED), RateMeter::over(MEASURED));
        let (looks, steering, held, sent) = (None, None, Duration::ZERO, 0);
        Self { looks, steering, held, sent, has_data: false, flows_since: None, incoming, outgoing, logged: None }
    }

    /// mydumper has ended, and wrote until just now: waits for the last look at the free space.
    pub async fn let_go(&mut self) {
        let ended = std::mem::replace(self, Self { held: self.held(), ..Self::idle() });
        if let Some(looks) = ended.looks {
            looks.end().await;
        }
    }

    /// How long mydumper was held in all.
    pub fn held(&self) -> Duration {
        self.held + self.steering.as_ref().map_or(Duration::ZERO, |steering| steering.brake.held(Instant::now()))
    }

    /// Whether mydumper is paused at any mark.
    pub fn has_marks(&self) -> bool {
        self.steering.is_some()
    }

    /// Whether the directory must be looked at as often as the free space: a mark is given, or the default one is near.
    pub fn is_close(&self) -> bool {
        let is_tight = || self.looks.as_ref().is_some_and(|looks| looks.seen.is_tight.load(Ordering::Relaxed));
        self.steering.as_ref().is_some_and(|steering| steering.is_given || steering.brake.is_paused() || is_tight())
    }

    /// Resolves when the default mark comes near.
    pub async fn comes_close(&self) {
        match &self.looks {
            Some(looks) => looks.seen.comes_close.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the thread that looks at the free space ended before it was to.
    pub fn has_died(&self) -> bool {
        has_ended(self.looks.as_ref().and_then(|looks| looks.thread.as_ref()))
    }

    /// Whether mydumper is held by us just now.
    pub fn is_paused(&self) -> bool {
        self.steering.as_ref().is_some_and(|steering| steering.brake.is_paused())
    }

    /// Told when the disk is found fuller than ever before.
    pub fn found_full(&self) -> Option<Arc<Notify>> {
        self.looks.as_ref().map(|looks| Arc::clone(&looks.seen.found_full))
    }

    /// Takes a look at the directory in, before the state does.
    pub fn notice(&mut self, scan: &Scan) {
        if !self.has_data {
            let known = KnownNames::default();
            let is_data =
                |name: &str| matches!(NameParts::parse(name, &known).kind, FileKind::Data | FileKind::DataText);
            self.has_data = scan.listing.iter().any(|(name, _)| is_data(name));
        }
    }

    /// Pauses mydumper or lets it go on, by what a look at the directory saw; says if it was held for too long.
    pub fn steer(&mut self, waiting: u64, space: Option<Space>, store: &Store) -> Option<HeldTooLong> {
        let steering = self.steering.as_mut()?;
        if let Some(reins) = &steering.reins {
            // A busy machine may take its time: a run counts from its real start.
            steering.brake.carried_out(reins.carried_out()?);
        }
        // What is sent to a store that answers with errors does not go up.
        if store.down_for().is_none() {
            self.sent = store.sent_bytes();
        }
        let free = space.map(|space| space.free);
        let disk = Disk { waiting, free, sent: self.sent, has_data: self.has_data };
        let words = |what: &str| format!("mydumper {what}: {} wait for their upload", ByteSize(disk.waiting).human());
        match steering.brake.decide(disk, Instant::now()) {
            Order::Keep => None,
            Order::GiveUp(held) => Some(held),
            Order::Pause => {
                match steering.reins() {
                    Ok(reins) => reins.pause(words("is paused")),
                    Err(error) => {
                        warn!("mydumper cannot be paused: {error:#}");
                        self.steering = None;
                    }
                }
                None
            }
            Order::Resume => {
                if let Some(reins) = &steering.reins {
                    reins.resume(words("goes on"));
                }
                None
            }
        }
    }

    /// What is worth knowing of the disk now.
    pub fn note(&mut self, state: &DumpState, space: Option<Space>) -> Option<String> {
        let now = Instant::now();
        let (uploaded, local) = (state.counts().uploaded_bytes, state.local_bytes());
        if !self.has_data {
            return None;
        }
        let measured = now.saturating_duration_since(*self.flows_since.get_or_insert(now));
        let incoming = self.incoming.observe(now, uploaded + local);
        let outgoing = self.outgoing.observe(now, uploaded);
        if self.is_paused() {
            return Some("mydumper paused".to_owned());
        }
        let forecast = forecast(space?, Flow { incoming, outgoing, measured })?;
        if self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= FORECAST_EVERY) {
            self.logged = Some(now);
            warn!("the disk is {forecast}");
        }
        Some(forecast)
    }
}

/// Who decides, and who is held.
#[derive(Debug)]
struct Steering {
    brake: Brake,
    /// Taken when they are needed first.
    reins: Option<Reins>,
    team: Team,
    marks: Marks,
    /// Whether the user gave a mark.
    is_given: bool,
}

impl Steering {
    fn given(team: Team, marks: Marks) -> Result<Self, Failure> {
        let mut steering = Self { brake: Brake::new(marks), reins: None, team, marks, is_given: true };
        steering.reins().map_err(Failure::failed)?;
        Ok(steering)
    }

    fn reins(&mut self) -> anyhow::Result<&Reins> {
        let reins = match self.reins.take() {
            Some(reins) => reins,
            None => Reins::take(self.team.clone(), self.marks.max_pause)?,
        };
        Ok(self.reins.insert(reins))
    }
}

/// Looks at the free space for as long as it lives, on a thread of its own: a filesystem may take its time to answer.
#[derive(Debug)]
struct SpaceLooks {
    seen: Arc<SpaceSeen>,
    thread: Option<JoinHandle<()>>,
    /// Dropped, it ends the thread.
    ends: mpsc::Sender<()>,
    /// The thread has ended.
    ended: oneshot::Receiver<()>,
}

/// What the looks saw.
#[derive(Debug, Default)]
struct SpaceSeen {
    /// Told when the disk is fuller than ever before.
    found_full: Arc<Notify>,
    /// Told when the default mark comes near.
    comes_close: Notify,
    is_tight: AtomicBool,
}

/// What the thread needs.
struct SpaceWatch {
    directory: Arc<DumpDir>,
    recorder: Arc<Recorder>,
    /// Whether mydumper does the right thing on a full disk.
    survives: bool,
    /// Below so many free bytes it gets tight.
    tight_below: u64,
    can_pause: bool,
}

impl SpaceLooks {
    fn begin(watch: SpaceWatch) -> Self {
        let (ends, is_to_end) = mpsc::channel();
        let (says_end, ended) = oneshot::channel();
        let seen = Arc::new(SpaceSeen::default());
        let (told, mut known, mut is_begun) = (Arc::clone(&seen), None, false);
        let end = LooksEnd { directory: Arc::clone(&watch.directory), _told_by_its_drop: says_end };
        let thread = keep_looking(is_to_end, move || {
            if !std::mem::replace(&mut is_begun, true) {
                end.directory.begin_looks(METADATA_PARTIAL);
            }
            watch.look(&mut known, &told);
        });
        let thread = thread.inspect_err(|error| warn!("free space is not looked at: {error}")).ok();
        Self { seen, thread, ends, ended }
    }

    /// Waits for one more look, the last.
    async fn end(self) {
        drop(self.ends);
        // Where the thread is gone there is none.
        let _ = self.ended.await;
    }
}

/// Dropped with the thread that looks: it has ended, and nothing is looked at any more.
struct LooksEnd {
    directory: Arc<DumpDir>,
    _told_by_its_drop: oneshot::Sender<()>,
}

impl Drop for LooksEnd {
    fn drop(&mut self) {
        self.directory.end_looks();
    }
}

/// Looks again and again, and once more when the other end of `ended` is dropped: mydumper wrote until just now.
fn keep_looking(ended: mpsc::Receiver<()>, mut look: impl FnMut() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("disk".to_owned()).spawn(move || {
        look();
        let mut is_last = false;
        while !is_last {
            is_last = ended.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout);
            look();
        }
    })
}

/// Whether a thread that is to run has ended.
fn has_ended(thread: Option<&JoinHandle<()>>) -> bool {
    thread.is_some_and(JoinHandle::is_finished)
}

impl SpaceWatch {
    fn look(&self, known: &mut Option<FullDisk>, seen: &SpaceSeen) {
        let worst = self.directory.look_at_space();
        if let Some(worst) = worst.filter(|worst| *known < Some(*worst)) {
            *known = Some(worst);
            // Noted before it is said: whoever reads it and kills us finds it remembered.
            self.recorder.note(|record| record.dumper.full_disk = record.dumper.full_disk.max(Some(worst)));
            say_full(worst, self.survives);
            seen.found_full.notify_one();
        }
        let Ok(space) = self.directory.space() else { return };
        let is_tight = space.free < self.tight_below;
        if is_tight && !seen.is_tight.swap(is_tight, Ordering::Relaxed) {
            seen.comes_close.notify_one();
            if !self.can_pause {
                let free = ByteSize(space.free).human();
                warn!("{free} are free on the dump's disk, and mydumper cannot be paused from here");
            }
        }
        seen.is_tight.store(is_tight, Ordering::Relaxed);
    }
}

fn say_full(full: FullDisk, survives: bool) {
    match (full, survives) {
        (FullDisk::Was, true) => warn!("{full} while mydumper wrote: {WHAT_HELPS}"),
        (FullDisk::MayHaveBeen, true) => debug!("{full} for a moment"),
        (_, false) => warn!(
            "{full} while mydumper wrote, and one before 0.20.1 then writes garbage and says nothing: the rows of what \
             it writes are counted before the dump is committed; {WHAT_HELPS}"
        ),
    }
}

fn team(child: Option<&Child>, dump: &LivingDump) -> Result<Team, Failure> {
    let stranger = || dump.writer().cloned().map(Team::Stranger);
    let team = child.cloned().map(Team::Child).or_else(stranger).filter(Team::is_signallable);
    team.ok_or_else(|| {
        let error =
            anyhow!("--max-local and --min-free must pause mydumper, but it cannot be seen or signalled from here");
        let hint = "start it with '-- mydumper …', or run as the same user in the same PID namespace, or give --pid";
        Failure::usage(hinted(error, hint))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_the_disk_that_panics_is_seen_to_have_ended() {
        let (ends, ended) = mpsc::channel();
        let (looks, looked) = mpsc::channel();
        let thread = keep_looking(ended, move || looks.send(()).expect("the test looks on")).expect("a thread");
        for _ in 0..3 {
            looked.recv().expect("a look");
        }
        assert!(!has_ended(Some(&thread)));
        drop(ends);
        thread.join().expect("its end");

        let (_ends, ended) = mpsc::channel();
        let thread = keep_looking(ended, || panic!("a look that fails")).expect("a thread");
        while !has_ended(Some(&thread)) {
            std::thread::yield_now();
        }
        assert!(thread.join().is_err());
    }
}
