//! What a program writes into a pipe goes to the bucket as one object, which comes into being only when all of it is known
//! to be whole.

mod place;
mod pump;
mod session;
mod source;

use std::time::Instant;

use self::place::{claim_place, header_and_place};
use self::session::Session;
use self::source::Source;
use super::upload::store_check::Demands;
use super::upload::unless_stopped;
use crate::cli::PipeArgs;
use crate::exit_status::{Failure, Status};
use crate::hint::hint_of;
use crate::report::{Report, Summary};
use crate::stop::Stop;

/// What a run came to.
#[derive(Debug, Default)]
struct Told {
    /// Where the stream went, once that was claimed.
    destination: Option<String>,
    /// Bytes of the object, once that is proved.
    bytes: Option<u64>,
    /// Bytes that went to the store.
    sent: u64,
    /// Of the last manifest.
    manifest_sha256: Option<String>,
}

/// Uploads a stream, and says how it went.
pub async fn run(args: &PipeArgs, report: &Report, stop: &Stop) -> Status {
    let (began, mut told) = (Instant::now(), Told::default());
    let result = pipe(args, report, stop, &mut told).await;
    let failure = result.err();
    let status = failure.as_ref().map_or(Status::Success, |failure| failure.status);
    match failure {
        // Nothing was touched, so there is nothing to sum up.
        Some(failure) if told.destination.is_none() => report.fatal(&failure.error),
        failure => report.summary(&summary(failure.as_ref(), told, began)),
    }
    status
}

async fn pipe(args: &PipeArgs, report: &Report, stop: &Stop, told: &mut Told) -> Result<(), Failure> {
    source::refuse_terminal(args)?;
    let demands = Demands {
        destination: &args.destination,
        transfer: &args.transfer,
        connection: &args.connection,
        is_dry_run: false,
        needs_object: !args.destination.write_only,
        gives_back: false,
    };
    let (store, _) = unless_stopped(stop, Box::pin(demands.connect())).await??;
    let (header, prefix) = header_and_place(args)?;
    let claimed = unless_stopped(stop, Box::pin(claim_place(args, &store, &header, prefix))).await??;
    let uri = store.uri(&claimed.claim.prefix().directory());
    let (source, input) = match Source::open(args, report) {
        Ok(opened) => opened,
        Err(error) => {
            // Nothing of a stream is there; the prefix is left as it was found.
            let manifest = claimed.claim.prefix().manifest_key();
            if !args.destination.write_only
                && let Err(error) = store.delete(&manifest).await
            {
                tracing::warn!("the claim stays: {error}");
            }
            return Err(Failure::usage(error));
        }
    };
    told.destination = Some(uri);
    let mut session = Session::new(args, &store, stop, claimed, source).map_err(Failure::failed)?;
    let result = Box::pin(session.run(input, report, told)).await;
    told.sent = store.sent_bytes();
    result
}

fn summary(failure: Option<&Failure>, told: Told, began: Instant) -> Summary {
    let outcome = match failure.map(|failure| failure.status) {
        None => "the stream is whole, and its object is in the bucket, verified",
        Some(Status::Incomplete) => "no whole stream",
        Some(Status::Signal(_)) => "no commit",
        Some(_) => "failed",
    };
    Summary {
        status: failure.map_or(Status::Success, |failure| failure.status).code(),
        outcome: outcome.to_owned(),
        reason: failure.map(|failure| format!("{:#}", failure.error)),
        hint: failure.and_then(|failure| hint_of(&failure.error)),
        full_disk: None,
        files: usize::from(told.bytes.is_some()),
        bytes: told.bytes.unwrap_or_default(),
        sent_bytes: told.sent,
        duration: began.elapsed(),
        peak_local_bytes: None,
        given_back_bytes: 0,
        local: None,
        dumper: None,
        destination: told.destination,
        manifest_sha256: told.manifest_sha256,
        failed: Vec::new(),
    }
}
