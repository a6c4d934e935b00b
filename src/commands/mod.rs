//! One file a subcommand.

pub mod choose;
pub mod delete;
pub mod drill;
pub mod etag;
pub mod list;
pub mod load;
mod metrics;
pub mod pipe;
pub mod prune;
pub mod reach;
pub mod restore;
pub mod upload;
pub mod verify;

use crate::cli::Command;
use crate::exit_status::{Failure, Status};
use crate::report::Report;
use crate::stop::Stop;

/// Does what was asked for.
pub async fn run(command: &Command, report: &Report, stop: &Stop) -> Status {
    match command {
        // In a place of its own: it is by far the largest.
        Command::Upload(args) => Box::pin(upload::run(args, report, stop)).await,
        Command::Pipe(args) => Box::pin(pipe::run(args, report, stop)).await,
        Command::Verify(args) => verify::run(args, report, stop).await,
        Command::List(args) => list::run(args, report, stop).await,
        Command::Delete(args) => delete::run(args, report, stop).await,
        Command::Prune(args) => prune::run(args, report, stop).await,
        Command::Etag(args) => etag::run(args, report, stop).await,
        Command::Load(args) => Box::pin(load::run(args, report, stop)).await,
        Command::Drill(args) => Box::pin(drill::run(args, report, stop)).await,
        Command::Restore(args) => restore::run(args, report, stop).await,
    }
}

/// Says what ended a command, and with which status.
fn fail(report: &Report, failure: &Failure) -> Status {
    report.fatal(&failure.error);
    failure.status
}
