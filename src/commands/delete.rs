//! `delete`: one dump goes, after its owner has seen what that is.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use jiff::Timestamp;
use tracing::{info, warn};

use crate::bucket_dump::no_dump;
use crate::cli::DeleteArgs;
use crate::commands::reach::{first_answer, reach};
use crate::exit_status::{Failure, Status};
use crate::hint::hinted;
use crate::model::units::ByteSize;
use crate::removal::{Removal, Removed};
use crate::report::Report;
use crate::s3::{Store, StoreError};
use crate::stop::Stop;

/// How long an outage in the middle of a deletion is waited out.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Deletes a dump.
pub async fn run(args: &DeleteArgs, report: &Report, stop: &Stop) -> Status {
    delete(args, report, stop).await.unwrap_or_else(|failure| super::fail(report, &failure))
}

async fn delete(args: &DeleteArgs, report: &Report, stop: &Stop) -> Result<Status, Failure> {
    let store = reach(&args.connection, &args.bucket).await?;
    let place = store.uri(&args.prefix.directory());
    let removal = tokio::select! {
        removal = Removal::plan(&store, &args.prefix) => first_answer(&store, removal)?,
        signal = stop.wait() => return Ok(Status::Signal(signal)),
    };
    if removal.is_empty() && !args.with_bucket {
        say_strangers(&removal);
        return Err(Failure::incomplete(no_dump(&store, &args.prefix)));
    }
    show(&removal, &store, &place).await;
    if args.yes && removal.may_be_alive(Timestamp::now()) {
        let error = anyhow!("an upload may be at work on {place}: it gave a sign of life within the last hour");
        let hint = "stop it first; without --yes it is asked whether to delete this dump all the same";
        return Err(Failure::failed(hinted(error, hint)));
    }
    if !args.yes && !is_confirmed(&question(&removal, &place, args), report, stop).await? {
        info!("nothing was deleted");
        return Ok(Status::Failure);
    }
    store.wait_for(Instant::now(), PATIENCE);
    let removed = removal.carry_out(&store, || stop.asked()).await.map_err(|error| broken_off(error, &place))?;
    outcome(&removed, &place)?;
    if args.with_bucket {
        delete_bucket(&store).await?;
    }
    Ok(Status::Success)
}

/// What is there and what becomes of it, before anything is asked.
async fn show(removal: &Removal, store: &Store, place: &str) {
    if removal.objects() > 0 {
        info!("{place} holds {} of a dump: {}", amount(removal), removal.names());
    }
    if removal.uploads() > 0 {
        info!("{place} has {} unfinished uploads of a dump's files", removal.uploads());
    }
    if removal.may_be_alive(Timestamp::now()) {
        warn!("an upload may be at work on this dump: make sure that there is none");
    }
    say_strangers(removal);
    if removal.objects() > 0 && keeps_old_versions(store, removal).await {
        warn!(
            "the bucket keeps old versions: they stay, and so do their bytes, until a lifecycle rule or you remove them"
        );
    }
}

fn say_strangers(removal: &Removal) {
    if removal.strangers.count > 0 {
        warn!("these are no files of a dump and stay: {}", removal.stranger_names());
    }
}

/// Who may not ask for the bucket's versioning sees it from an object that has a version.
pub(super) async fn keeps_old_versions(store: &Store, removal: &Removal) -> bool {
    if let Some(answer) = store.keeps_old_versions().await {
        return answer;
    }
    let Some(key) = removal.some_key() else { return false };
    let head = store.head(key).await.ok().flatten();
    head.and_then(|head| head.version_id).is_some_and(|version| version != "null")
}

pub(super) fn amount(removal: &Removal) -> String {
    let objects = if removal.objects() == 1 { "object" } else { "objects" };
    format!("{} {objects} ({})", removal.objects(), ByteSize(removal.bytes).human())
}

fn question(removal: &Removal, place: &str, args: &DeleteArgs) -> String {
    let bucket = if args.with_bucket { ", and the bucket if it is empty then" } else { "" };
    format!("Delete {} in {place}{bucket}?", amount(removal))
}

/// Asks on the terminal. Where there is none, `--yes` is a must.
async fn is_confirmed(question: &str, report: &Report, stop: &Stop) -> Result<bool, Failure> {
    if !report.can_ask() {
        let error = anyhow!("nobody is there to answer: {question}");
        return Err(Failure::usage(hinted(error, "--yes deletes without asking")));
    }
    let (question, asking) = (question.to_owned(), report.clone());
    let answer = tokio::task::spawn_blocking(move || asking.confirm(&question));
    tokio::select! {
        answer = answer => Ok(answer.unwrap_or(false)),
        signal = stop.wait() => {
            Err(Failure { status: Status::Signal(signal), error: anyhow!("nothing was deleted") })
        }
    }
}

/// Says what was removed, and what the store keeps.
pub(super) fn outcome(removed: &Removed, place: &str) -> Result<(), Failure> {
    info!("deleted {} objects in {place}", removed.objects);
    if let Some(signal) = removed.stopped {
        let error = anyhow!("stopped by signal {signal} before all of {place} was deleted");
        let error = hinted(error, "the same command deletes the rest");
        return Err(Failure { status: Status::Signal(signal), error });
    }
    match removed.what_is_left() {
        None => Ok(()),
        Some(left) => {
            let error = anyhow!("not all of {place} could be deleted: {left}");
            Err(Failure::failed(hinted(
                error,
                "the credentials need s3:DeleteObject and s3:AbortMultipartUpload; what a retention keeps can be \
                 deleted when its time is over",
            )))
        }
    }
}

/// The store failed in the middle: `metadata` is gone by then, or nothing is.
pub(super) fn broken_off(error: StoreError, place: &str) -> Failure {
    let error = anyhow::Error::new(error).context(format!("not all of {place} could be deleted"));
    Failure::failed(error)
}

/// Deletes the bucket only if it is seen to be empty: not every store would refuse otherwise.
async fn delete_bucket(store: &Store) -> Result<(), Failure> {
    if !store.bucket_is_empty().await.map_err(Failure::failed)? {
        warn!("the bucket '{}' is not empty (old versions and unfinished uploads count) and stays", store.bucket());
        return Ok(());
    }
    store.delete_bucket().await.map_err(Failure::failed)?;
    info!("deleted the bucket '{}'", store.bucket());
    Ok(())
}
