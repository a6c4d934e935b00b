//! The main job: a running dump goes to the bucket while it is written, verified, and the disk is freed.

mod claim;
mod finish;
mod follow;
mod session;
mod start;

use std::time::Instant;

use anyhow::anyhow;
use jiff::Timestamp;
use tracing::{info, warn};

use self::session::Session;
use self::start::Search;
use crate::cli::UploadArgs;
use crate::dumper::Child;
use crate::exit_status::{Failure, Status};
use crate::hint::hinted;
use crate::model::identity::DumpIdentity;
use crate::model::manifest::DumperExit;
use crate::model::state::Counts;
use crate::platform::{self, Exit};
use crate::s3::Store;
use crate::stop::Stop;

/// What the run came to, for the summary. Filled in as it becomes known.
pub struct Totals {
    /// Verified files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The most bytes of the dump that were local at a time, as far as scans saw it.
    pub peak_local: u64,
    /// mydumper's end.
    pub dumper_exit: Option<DumperExit>,
    /// Where the dump went.
    pub destination: Option<String>,
    /// When the dump began.
    pub started: Option<Timestamp>,
    /// Proves later that the manifest is the one of this night.
    pub manifest_sha256: Option<String>,
    /// What could not be uploaded, each with why.
    pub failed: Vec<(String, String)>,
    /// Shows where things stand.
    pub show: Box<dyn FnMut(Counts, u64)>,
}

impl Totals {
    /// Nothing yet; `show` is called after each scan.
    pub fn new(show: Box<dyn FnMut(Counts, u64)>) -> Self {
        Self {
            files: 0,
            bytes: 0,
            peak_local: 0,
            dumper_exit: None,
            destination: None,
            started: None,
            manifest_sha256: None,
            failed: Vec::new(),
            show,
        }
    }
}

/// Uploads a dump.
pub async fn run(args: &UploadArgs, stop: &Stop, totals: &mut Totals) -> Result<(), Failure> {
    let store = start::connect(args).await.map_err(Failure::usage)?;
    let child = start::start_child(args, &store).await?;
    let result = upload_dumps(args, &store, child.as_ref(), stop, totals).await;
    if let Some(child) = &child {
        see_off(child, args, stop).await;
        totals.dumper_exit.get_or_insert_with(|| exit_of_child(child));
    }
    result
}

/// Uploads the dump that is found. One that the bucket has already is tidied up, and then the next one is waited for.
async fn upload_dumps(
    args: &UploadArgs,
    store: &Store,
    child: Option<&Child>,
    stop: &Stop,
    totals: &mut Totals,
) -> Result<(), Failure> {
    let host = platform::host_name();
    let deadline = Instant::now() + args.dump.wait;
    let mut done: Option<DumpIdentity> = None;
    loop {
        let search = Search { args, host: &host, child, stop, done: done.clone(), deadline };
        let Some(found) = search.run().await? else {
            return if done.is_some() { Ok(()) } else { Err(no_dump(args, child)) };
        };
        let (alive, identity) = (found.seen_alive, found.dump.sighted.identity.clone());
        let mut session = Session::begin(args, store, child, stop, totals, found).await?;
        session.run(alive).await?;
        if !session.is_complete {
            return Ok(());
        }
        done = Some(identity);
    }
}

fn no_dump(args: &UploadArgs, child: Option<&Child>) -> Failure {
    let directory = args.dump.dir.display();
    match child.and_then(Child::exit) {
        Some(Exit::Status(status)) => {
            let error = anyhow!("mydumper ended with status {status} and left no dump in '{directory}'");
            Failure::incomplete(hinted(error, "its own messages above say why"))
        }
        Some(Exit::Signal(signal)) => {
            Failure::incomplete(anyhow!("mydumper was ended by signal {signal} and left no dump in '{directory}'"))
        }
        None => {
            let error = anyhow!("no dump found in '{directory}' within {} s", args.dump.wait.as_secs_f64());
            Failure::incomplete(hinted(error, "check --dir, start mydumper, or wait longer with --wait"))
        }
    }
}

fn exit_of_child(child: &Child) -> DumperExit {
    let seen = crate::model::manifest::ExitSeen::Child;
    match child.exit() {
        Some(Exit::Status(status)) => DumperExit { status: Some(status), signal: None, seen },
        Some(Exit::Signal(signal)) => DumperExit { status: None, signal: Some(signal), seen },
        None => DumperExit::NOT_SEEN,
    }
}

/// We never exit before mydumper: whatever went wrong here, it is left to finish, unless we were told to stop.
async fn see_off(child: &Child, args: &UploadArgs, stop: &Stop) {
    if child.exit().is_some() {
        return;
    }
    if stop.asked().is_none() {
        warn!("mydumper is left to finish; its files stay local");
    }
    tokio::select! {
        _ = child.wait() => {}
        _ = stop.wait() => child.stop(args.dump.stop_timeout).await,
    }
    info!("mydumper has ended");
}

/// The failure that an orderly stop ends with.
pub(crate) fn stopped(signal: i32) -> Failure {
    let error = hinted(
        anyhow!("stopped by signal {signal} before the dump was committed"),
        "run the same command again (without '--' and what follows): it goes on where it was",
    );
    Failure { status: Status::Signal(signal), error }
}
