//! The dump directory's disk: mydumper is paused while it is about to fill, and a forecast says when it will be full.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use tracing::{info, warn};

use crate::cli::UploadArgs;
use crate::dump_dir::DumpDir;
use crate::dumper::{Child, LivingDump, Reins, Team};
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::brake::{Brake, Disk, Marks, Order};
use crate::model::disk_forecast::{Flow, MEASURED, forecast};
use crate::model::file_kind::{FileKind, KnownNames, NameParts};
use crate::model::state::{DumpState, Scan};
use crate::model::units::ByteSize;
use crate::report::RateMeter;

/// While a mark is set, how often space is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often a forecast is logged at most.
const FORECAST_EVERY: Duration = Duration::from_secs(60);

/// Watches the disk of a running dump.
#[derive(Debug)]
pub struct DiskWatch {
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
    pub fn begin(args: &UploadArgs, child: Option<&Child>, dump: &LivingDump) -> Result<Self, Failure> {
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
        Ok(Self { brake, ..Self::idle() })
    }

    /// For a dump that has ended: there is nobody to pause.
    pub fn idle() -> Self {
        let (incoming, outgoing) = (RateMeter::over(MEASURED), RateMeter::over(MEASURED));
        Self { brake: None, has_data: false, flows_since: None, incoming, outgoing, logged: None }
    }

    /// Whether a mark is set.
    pub fn has_marks(&self) -> bool {
        self.brake.is_some()
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
        let disk = Disk {
            waiting: state.waiting_bytes(),
            free: directory.space().ok().map(|space| space.free),
            has_data: self.has_data,
        };
        match brake.decide(disk, Instant::now()) {
            Order::Keep if brake.is_paused() => reins.pause(),
            Order::Keep => {}
            Order::Pause => {
                reins.pause();
                info!("mydumper is paused: {} wait for their upload", ByteSize(disk.waiting).human());
            }
            Order::Resume => {
                reins.resume();
                brake.carried_out(Instant::now());
                info!("mydumper goes on: {} wait for their upload", ByteSize(disk.waiting).human());
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
        if self.brake.as_ref().is_some_and(|(brake, _)| brake.is_paused()) {
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
