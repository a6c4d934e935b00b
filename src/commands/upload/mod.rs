//! The main job: a running dump goes to the bucket while it is written, verified, and the disk is freed.

mod account;
mod advice;
mod bucket_check;
mod disk;
mod dry_run;
mod equip;
mod fault;
mod finish;
mod follow;
pub(super) mod guard;
mod last_manifest;
mod meanwhile;
mod no_disk;
pub(super) mod place;
mod session;
mod start;
pub(super) mod store_check;
mod streaming;
mod uncounted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tracing::{error, info, warn};

use self::advice::Standing;
use self::no_disk::NoDisk;
use self::session::Session;
use self::start::Search;
use crate::aside::aside;
use crate::claim::SharedClaim;
use crate::cli::UploadArgs;
use crate::dump_dir::DumpDir;
use crate::dumper::Child;
use crate::exit_status::{Failure, Status};
use crate::hint::{hint_of, hinted};
use crate::model::full_disk::FullDisk;
use crate::model::identity::DumpIdentity;
use crate::model::left_out::LeftOut;
use crate::model::manifest::DumperExit;
use crate::model::record::Kind;
use crate::model::state::DumpState;
use crate::platform::{self, Exit};
use crate::recorder::Recorder;
use crate::report::{DumperSummary, LocalFiles, RateMeter, Report, RunMetrics, Status as StatusLine, Summary};
use crate::s3::Store;
use crate::stop::Stop;

/// How long the last look at the directory may take.
const LAST_LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// What the run came to. Filled in as it becomes known, shown at the end.
pub(crate) struct Totals {
    report: Report,
    meter: RateMeter,
    files: usize,
    bytes: u64,
    /// Bytes that went to the store.
    sent: u64,
    /// The most bytes of the dump that were local at a time, as far as scans saw it.
    peak_local: u64,
    /// What was given back of files before they were whole in the bucket.
    given_back: u64,
    /// How long mydumper was paused, in all.
    held: Duration,
    /// How far it came with its dump.
    standing: Standing,
    dumper_exit: Option<DumperExit>,
    /// What mydumper left out, where that is known.
    left_out: Option<Vec<LeftOut>>,
    /// The doubt that a full disk leaves in a committed dump.
    full_disk: Option<FullDisk>,
    /// Where the dump went.
    destination: Option<String>,
    /// Proves later that the manifest is the one of this night.
    manifest_sha256: Option<String>,
    /// What could not be uploaded, each with why.
    failed: Vec<(String, String)>,
    /// Where is noted what the next run must know, once the prefix is claimed.
    notes: Option<Notes>,
}

/// What is on its way, and what went.
struct Sent {
    /// Files that are being sent.
    files: usize,
    /// Bytes of bodies that went to the store since the start.
    bytes: u64,
    /// What was given back of files before they were whole in the bucket.
    given_back: u64,
}

impl Totals {
    fn new(report: &Report) -> Self {
        Self {
            report: report.clone(),
            meter: RateMeter::default(),
            files: 0,
            bytes: 0,
            sent: 0,
            peak_local: 0,
            given_back: 0,
            held: Duration::ZERO,
            standing: Standing::Nothing,
            dumper_exit: None,
            full_disk: None,
            left_out: None,
            destination: None,
            manifest_sha256: None,
            failed: Vec::new(),
            notes: None,
        }
    }

    /// Shows where things stand after a look at the directory.
    fn show(&mut self, phase: &'static str, state: &DumpState, sent: Sent, note: Option<String>) {
        let (counts, local_bytes) = (state.counts(), state.local_bytes());
        self.peak_local = self.peak_local.max(local_bytes);
        (self.sent, self.given_back) = (sent.bytes, sent.given_back);
        let uploading = counts.uploading.min(sent.files);
        self.report.status(&StatusLine {
            phase,
            present: counts.present,
            open: counts.open,
            queued: counts.uploading - uploading,
            uploading,
            uploaded: counts.uploaded,
            uploaded_bytes: counts.uploaded_bytes,
            rate: self.meter.observe(Instant::now(), sent.bytes),
            local_bytes,
            given_back_bytes: sent.given_back,
            note,
        });
    }

    /// The end of a run that got as far as touching something.
    fn summary(
        &self,
        args: &UploadArgs,
        result: &Result<(), Failure>,
        duration: Duration,
        local: Option<LocalFiles>,
    ) -> Summary {
        let failure = result.as_ref().err();
        let advice = |failure: &Failure| {
            advice::End {
                status: failure.status,
                standing: self.standing,
                own: hint_of(&failure.error),
                starts_mydumper: args.starts_mydumper(),
                directory: &args.dump.dir,
            }
            .advice()
        };
        Summary {
            status: failure.map_or(Status::Success, |failure| failure.status).code(),
            outcome: self.outcome(failure).to_owned(),
            reason: failure.map(|failure| format!("{:#}", failure.error)),
            hint: failure.map(advice),
            full_disk: self.full_disk,
            files: self.files,
            bytes: self.bytes,
            sent_bytes: self.sent,
            duration,
            peak_local_bytes: Some(self.peak_local),
            given_back_bytes: self.given_back,
            local,
            dumper: self.dumper_exit.map(|exit| DumperSummary {
                exit,
                held: self.held,
                left_out: self.left_out.clone(),
            }),
            destination: self.destination.clone(),
            manifest_sha256: self.manifest_sha256.clone(),
            failed: self.failed.clone(),
        }
    }

    fn outcome(&self, failure: Option<&Failure>) -> &'static str {
        match failure.map(|failure| failure.status) {
            None if self.destination.is_none() => "nothing to do",
            None if self.full_disk.is_some() => {
                "every file is in the bucket, verified; but the disk may have been full, and mydumper may have written garbage"
            }
            None => "the dump is whole, and every file of it is in the bucket, verified",
            Some(Status::Incomplete) => "no whole dump",
            Some(Status::Signal(_)) => "no commit",
            Some(_) => "failed",
        }
    }
}

/// Uploads a dump, and says how it went.
pub async fn run(args: &UploadArgs, report: &Report, stop: &Stop) -> Status {
    if args.dry_run {
        let shown = tokio::select! {
            shown = dry_run::run(args, report) => shown,
            signal = stop.wait() => return Status::Signal(signal),
        };
        return shown.map_or_else(|failure| super::fail(report, &failure), |()| Status::Success);
    }
    let began = Instant::now();
    let mut totals = Totals::new(report);
    let result = upload(args, stop, &mut totals).await;
    let status = result.as_ref().err().map_or(Status::Success, |failure| failure.status);
    match &result {
        // Nothing was touched, so there is nothing to sum up.
        Err(failure) if status == Status::Usage => report.fatal(&failure.error),
        Ok(()) => report.summary(&totals.summary(args, &result, began.elapsed(), None)),
        Err(_) => {
            let duration = began.elapsed();
            report.summary(&totals.summary(args, &result, duration, look_at_rest(args).await));
        }
    }
    if status == Status::Success {
        say_what_was_not_seen(args, &totals);
    }
    write_metrics(args, &totals, status, began.elapsed()).await;
    status
}

/// What is left in the dump directory, which may lie on a filesystem that does not answer.
async fn look_at_rest(args: &UploadArgs) -> Option<LocalFiles> {
    let directory = args.dump.dir.clone();
    tokio::time::timeout(LAST_LOOK_TIMEOUT, aside(move || advice::local_files(&directory))).await.ok()?
}

/// A dump whose end nobody saw is not like the others, and with `--quiet` nothing else would say so.
fn say_what_was_not_seen(args: &UploadArgs, totals: &Totals) {
    say_doubt(totals);
    let (Some(exit), Some(destination)) = (totals.dumper_exit, &totals.destination) else { return };
    let is_accepted = args.dump.accept_unseen_exit || (exit.through && args.dump.accept_wrapper_exit);
    if !exit.is_unseen() || is_accepted {
        return;
    }
    let (what, option) = match exit.through {
        true => ("only the exit status of the program that started mydumper was seen", "--accept-wrapper-exit"),
        false => ("mydumper's exit status was not seen", "--accept-unseen-exit"),
    };
    totals.report.notice(&format!("{destination} is committed, but {what} ({option} takes that in silence)"));
}

/// Nor is one that a mydumper wrote that a full disk may have made write garbage.
fn say_doubt(totals: &Totals) {
    if let (Some(full), Some(destination)) = (totals.full_disk, &totals.destination) {
        totals.report.notice(&format!(
            "{destination} is committed, but {full} while mydumper wrote, and one before 0.20.1 then writes garbage: load \
             it somewhere to be sure"
        ));
    }
}

async fn write_metrics(args: &UploadArgs, totals: &Totals, status: Status, duration: Duration) {
    let Some(path) = &args.metrics_file else { return };
    let metrics = RunMetrics {
        dir: args.dump.dir.clone(),
        bucket: args.destination.bucket.to_string(),
        exit_status: status.code(),
        files: totals.files,
        bytes: totals.bytes,
        duration,
        peak_local_bytes: totals.peak_local,
    };
    super::metrics::write(path, move |path, now| metrics.write(path, now)).await;
}

async fn upload(args: &UploadArgs, stop: &Stop, totals: &mut Totals) -> Result<(), Failure> {
    let (store, _) = tokio::select! {
        connected = Box::pin(store_check::connect(args)) => connected?,
        signal = stop.wait() => return Err(stopped(signal)),
    };
    if args.starts_mydumper() {
        finish_earlier(args, &store, stop, totals).await?;
    }
    let no_disk = unless_stopped(stop, NoDisk::prepare(args)).await??;
    let started = start::start_child(args, no_disk.as_ref(), &store, &totals.report);
    let (child, held) = unless_stopped(stop, started).await??.unzip();
    let deadline = Instant::now() + args.dump.wait;
    let started = Started { child: child.as_ref(), no_disk: no_disk.as_ref() };
    let result = upload_dumps(args, &store, started, held.flatten(), stop, totals, deadline).await;
    totals.sent = store.sent_bytes();
    if let (Some(child), Err(_), true) = (&child, &result, args.without.no_disk) {
        end_without_taker(child).await;
    }
    if let Some(child) = &child {
        see_off(child, args, &store, stop, totals).await;
        totals.dumper_exit = totals.dumper_exit.or(child.dumper_exit());
    }
    if let Some(no_disk) = no_disk {
        no_disk.end().await;
    }
    result
}

/// What was started.
#[derive(Clone, Copy, Default)]
struct Started<'a> {
    /// mydumper.
    child: Option<&'a Child>,
    /// Takes its rows, where no files are wanted.
    no_disk: Option<&'a NoDisk>,
}

/// Without files nobody takes the rows of a mydumper that goes on after us: it would wait for ever.
async fn end_without_taker(child: &Child) {
    if !child.is_over() {
        info!("mydumper is ended: nobody takes its rows any more");
        child.kill();
        child.wait_until_over().await;
    }
}

/// How long an earlier dump that stands in the directory is looked at before it counts as dead.
const LOOK_AT_EARLIER: Duration = Duration::from_secs(3);

/// A failed night must not stop the nights that follow: what an earlier mydumper or an earlier run of ours left in the
/// directory is finished, or cleared as far as it is safe, before tonight's mydumper starts. How that went is said, and
/// does not keep tonight's dump back unless the directory cannot be had.
async fn finish_earlier(args: &UploadArgs, store: &Store, stop: &Stop, tonight: &mut Totals) -> Result<(), Failure> {
    // Whatever cannot be opened or listed is named when mydumper is to be started.
    let path = args.dump.dir.clone();
    let opened = unless_stopped(stop, aside(move || DumpDir::open(&path))).await?;
    let Ok(directory) = opened.map(Arc::new) else { return Ok(()) };
    if let Err(failure) = unless_stopped(stop, start::clear_failed_start(args, &directory)).await? {
        return if failure.status == Status::Incomplete && !args.dump.keep {
            let said = format!("{failure}; it was removed");
            warn!("{said}");
            // Also with --quiet: nobody may have said it in the night that failed.
            tonight.report.notice(&said);
            Ok(())
        } else {
            Err(failure)
        };
    }
    if args.dump.keep || !unless_stopped(stop, start::has_earlier_dump(args, &directory)).await?? {
        return Ok(());
    }
    warn!("an earlier dump stands in '{}': it is finished first", args.dump.dir.display());
    drop(directory);
    let mut totals = Totals::new(&tonight.report);
    let deadline = Instant::now() + LOOK_AT_EARLIER;
    match upload_dumps(args, store, Started::default(), None, stop, &mut totals, deadline).await {
        Ok(()) => info!("the earlier dump is in the bucket: {}", totals.destination.unwrap_or_default()),
        Err(failure) if failure.status == Status::Incomplete => {
            let said =
                format!("the earlier dump is not whole ({failure}); what there was is in the bucket, without metadata");
            warn!("{said}");
            tonight.report.notice(&said);
        }
        // Its files are still here, so there is no room for another dump.
        Err(failure) => {
            (tonight.destination, tonight.standing) = (totals.destination, totals.standing);
            return Err(Failure { error: failure.error.context("an earlier dump stands in the way"), ..failure });
        }
    }
    Ok(())
}

/// Uploads the dump that is found. One that the bucket has already is tidied up, and then the next one is waited for.
async fn upload_dumps(
    args: &UploadArgs,
    store: &Store,
    started: Started<'_>,
    mut held: Option<Arc<DumpDir>>,
    stop: &Stop,
    totals: &mut Totals,
    deadline: Instant,
) -> Result<(), Failure> {
    let (host, child) = (platform::host_name(), started.child);
    let mut done: Option<DumpIdentity> = None;
    loop {
        totals.standing = Standing::Nothing;
        let search = Search { args, host: &host, child, stop, done: done.clone(), deadline };
        let Some(found) = search.run(held.take()).await? else {
            return if done.is_some() { Ok(()) } else { Err(no_dump(args, child)) };
        };
        let (alive, identity) = (found.seen_alive, found.dump.sighted.identity.clone());
        let mut session = Session::begin(args, store, started, stop, totals, found).await?;
        Box::pin(session.run(alive)).await?;
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

/// We never exit before mydumper: whatever went wrong here, it is left to finish, unless we were told to stop.
async fn see_off(child: &Child, args: &UploadArgs, store: &Store, stop: &Stop, totals: &mut Totals) {
    if child.is_over() {
        return;
    }
    if stop.asked().is_none() {
        let directory = args.dump.dir.display();
        warn!(
            "mydumper is left to finish, and its files stay in '{directory}': when the cause is mended, the same command \
             without '--' and what follows uploads them"
        );
    }
    tokio::select! {
        () = child.wait_until_over() => {}
        _ = stop.wait() => stop_child(child, args, store, totals).await,
    }
    info!("mydumper has ended");
}

/// How long the claim may take to be marked before mydumper is stopped.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a run notes what the next one must know: beside the dump, and in the claim.
#[derive(Clone)]
pub(crate) struct Notes {
    recorder: Arc<Recorder>,
    claim: Option<SharedClaim>,
}

impl Notes {
    /// Notes that mydumper was told to stop. Beside the dump first: that needs no network.
    async fn told_to_stop(&self, write_only: bool) {
        let recorder = Arc::clone(&self.recorder);
        let record = aside(move || recorder.note(|record| record.dumper.told_to_stop = true));
        let is_recorded = tokio::time::timeout(MARK_TIMEOUT, record).await.unwrap_or(false);
        let note = async {
            match &self.claim {
                Some(claim) => claim.note(|header| header.told_to_stop = true).await.is_ok(),
                None => false,
            }
        };
        let is_claimed = tokio::time::timeout(MARK_TIMEOUT, note).await.unwrap_or(false);
        // With --write-only the next run cannot read the claim.
        if !is_recorded && (!is_claimed || write_only) {
            error!(
                "the next run cannot be told that this dump was stopped: empty the dump directory, and do not upload \
                 what mydumper leaves there, even if it looks whole"
            );
        }
    }
}

/// Stops mydumper. First it is noted: mydumper 1.0.1 makes its part of a dump look whole when it is stopped, and the next
/// run must know better.
async fn stop_child(child: &Child, args: &UploadArgs, store: &Store, totals: &mut Totals) {
    if !child.may_still_write().await {
        return;
    }
    totals.standing = Standing::Stopped;
    let write_only = args.destination.write_only;
    let before = match &totals.notes {
        Some(notes) => Some(notes.clone()),
        None => notes_of_unclaimed(args, store).await,
    };
    if let Some(notes) = &before {
        notes.told_to_stop(write_only).await;
    }
    if args.without.no_disk {
        // Whoever waits for its rows to be taken does not look at signals.
        child.kill();
        child.wait().await;
    } else {
        child.stop(args.dump.stop_timeout).await;
    }
    if before.is_none()
        && let Some(notes) = notes_of_unclaimed(args, store).await
    {
        // It began meanwhile a dump that nobody has claimed.
        notes.told_to_stop(write_only).await;
    }
}

/// For the dump that stands in the directory and that nobody claimed: its lead can be written to, the bucket not.
async fn notes_of_unclaimed(args: &UploadArgs, store: &Store) -> Option<Notes> {
    let found = tokio::time::timeout(MARK_TIMEOUT, start::find_now(args)).await.ok()?.ok()??;
    let (prefix, header) = place::place(args, store, &found).ok()?;
    let kind = if args.without.no_disk { Kind::Streams } else { Kind::Directory };
    let recorder = place::recorder_of(kind, &found.dump, &header, place::place_of(store, &prefix)).ok()?;
    Some(Notes { recorder: Arc::new(recorder), claim: None })
}

/// An answer, unless a stop is asked for before it comes.
pub(crate) async fn unless_stopped<T>(stop: &Stop, answer: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        answer = answer => Ok(answer),
        signal = stop.wait() => Err(stopped(signal)),
    }
}

/// The failure that an orderly stop ends with.
pub(crate) fn stopped(signal: i32) -> Failure {
    let error = anyhow!("stopped by signal {signal} before the dump was committed");
    Failure { status: Status::Signal(signal), error }
}
