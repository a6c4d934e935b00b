//! The dump directory's disk: mydumper is paused while it is about to fill, a forecast says when it will be full, and
//! whether it ever was is found out by looks at the free space, each of which costs a microsecond or two.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::cli::UploadArgs;
use crate::dump_dir::DumpDir;
use crate::dumper::{Child, LivingDump, Reins, Team};
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::brake::{Brake, Disk, Marks, Order};
use crate::model::disk_forecast::{Flow, MEASURED, forecast};
use crate::model::dumper_version::survives_full_disk;
use crate::model::file_kind::{FileKind, KnownNames, NameParts};
use crate::model::file_name::METADATA_PARTIAL;
use crate::model::full_disk::FullDisk;
use crate::model::state::{DumpState, Scan};
use crate::model::units::ByteSize;
use crate::recorder::Recorder;
use crate::report::RateMeter;

/// How often free space is looked at, and while a mark is set the directory, too.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often a forecast is logged at most.
const FORECAST_EVERY: Duration = Duration::from_secs(60);

/// Watches the disk of a running dump.
#[derive(Debug)]
pub struct DiskWatch {
    looks: Option<SpaceLooks>,
    brake: Option<(Brake, Reins)>,
    has_data: bool,
    /// Since when data comes, as the status saw it.
    flows_since: Option<Instant>,
    incoming: RateMeter,
    outgoing: RateMeter,
    logged: Option<Instant>,
}

impl DiskWatch {
    /// Takes the reins if a mark is set; then mydumper must be ours, or visible and signallable.
    pub fn begin(
        args: &UploadArgs,
        child: Option<&Child>,
        dump: &LivingDump,
        directory: &Arc<DumpDir>,
        recorder: &Arc<Recorder>,
    ) -> Result<Self, Failure> {
        let marks = Marks {
            max_local: args.dump.max_local.map(|size| size.0),
            min_free: args.dump.min_free.map(|size| size.0),
            max_pause: args.dump.max_pause,
        };
        let wanted = marks.max_local.is_some() || marks.min_free.is_some();
        let brake = if wanted {
            let reins = Reins::take(team(child, dump)?, marks.max_pause).map_err(Failure::failed)?;
            Some((Brake::new(marks), reins))
        } else {
            None
        };
        let survives = survives_full_disk(dump.dumper_version.as_deref());
        let looks = SpaceLooks::begin(Arc::clone(directory), Arc::clone(recorder), survives);
        Ok(Self { looks: Some(looks), brake, ..Self::idle() })
    }

    /// For a dump that has ended: there is nobody to pause.
    pub fn idle() -> Self {
        let (incoming, outgoing) = (RateMeter::over(MEASURED), RateMeter::over(MEASURED));
        Self { looks: None, brake: None, has_data: false, flows_since: None, incoming, outgoing, logged: None }
    }

    /// Whether a mark is set.
    pub fn has_marks(&self) -> bool {
        self.brake.is_some()
    }

    /// Whether mydumper is held by us just now.
    pub fn is_paused(&self) -> bool {
        self.brake.as_ref().is_some_and(|(brake, _)| brake.is_paused())
    }

    /// Told when the disk is found fuller than ever before.
    pub fn found_full(&self) -> Option<Arc<Notify>> {
        self.looks.as_ref().map(|looks| Arc::clone(&looks.found_full))
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

    /// Pauses mydumper or lets it go on.
    pub fn steer(&mut self, state: &DumpState, directory: &DumpDir) {
        let Some((brake, reins)) = &mut self.brake else { return };
        // A busy machine may take its time: a run counts from its real start.
        let Some(carried_out) = reins.carried_out() else { return };
        brake.carried_out(carried_out);
        let disk = Disk {
            waiting: state.waiting_bytes(),
            free: directory.space().ok().map(|space| space.free),
            has_data: self.has_data,
        };
        match brake.decide(disk, Instant::now()) {
            Order::Keep => {}
            Order::Pause => {
                reins.pause(format!("mydumper is paused: {} wait for their upload", ByteSize(disk.waiting).human()));
            }
            Order::Resume => {
                reins.resume(format!("mydumper goes on: {} wait for their upload", ByteSize(disk.waiting).human()));
            }
        }
    }

    /// What is worth knowing of the disk now.
    pub fn note(&mut self, state: &DumpState, directory: &DumpDir) -> Option<String> {
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
        let forecast = forecast(directory.space().ok()?, Flow { incoming, outgoing, measured })?;
        if self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= FORECAST_EVERY) {
            self.logged = Some(now);
            warn!("the disk is {forecast}");
        }
        Some(forecast)
    }
}

/// Looks at the free space for as long as it lives, on a thread of its own: a filesystem may take its time to answer.
#[derive(Debug)]
struct SpaceLooks {
    directory: Arc<DumpDir>,
    found_full: Arc<Notify>,
    /// Dropped with this value, which ends the thread.
    _ends: mpsc::Sender<()>,
}

impl SpaceLooks {
    fn begin(directory: Arc<DumpDir>, recorder: Arc<Recorder>, survives: bool) -> Self {
        directory.begin_looks(METADATA_PARTIAL);
        let (ends, ended) = mpsc::channel();
        let found_full = Arc::new(Notify::new());
        let (there, found) = (Arc::clone(&directory), Arc::clone(&found_full));
        let look = move || {
            let mut known = None;
            loop {
                let worst = there.look_at_space();
                if let Some(worst) = worst.filter(|worst| known < Some(*worst)) {
                    known = Some(worst);
                    // Noted before it is said: whoever reads it and kills us finds it remembered.
                    recorder.note(|record| record.full_disk = record.full_disk.max(Some(worst)));
                    say_full(worst, survives);
                    found.notify_one();
                }
                if ended.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("disk".to_owned()).spawn(look) {
            warn!("free space is not looked at: {error}");
        }
        Self { directory, found_full, _ends: ends }
    }
}

impl Drop for SpaceLooks {
    fn drop(&mut self) {
        // Once more: mydumper wrote until just now.
        self.directory.look_at_space();
        self.directory.end_looks();
    }
}

fn say_full(full: FullDisk, survives: bool) {
    match (full, survives) {
        (FullDisk::Was, true) => warn!("{full} while mydumper wrote"),
        (FullDisk::MayHaveBeen, true) => debug!("{full} for a moment"),
        (_, false) => warn!(
            "{full} while mydumper wrote, and one before 0.20.1 then writes garbage and says nothing: the rows of what \
             it writes are counted before the dump is committed"
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
