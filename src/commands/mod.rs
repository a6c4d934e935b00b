//! One file a subcommand.

pub mod reach;
pub mod upload;
pub mod verify;

use crate::cli::Command;
use crate::exit_status::Status;
use crate::report::Report;
use crate::stop::Stop;

/// Does what was asked for.
pub async fn run(command: &Command, report: &Report, stop: &Stop) -> Status {
    match command {
        Command::Upload(args) => upload::run(args, report, stop).await,
        Command::Verify(args) => verify::run(args, report, stop).await,
        _ => {
            report.fatal(&anyhow::anyhow!("this command is not there yet"));
            Status::Usage
        }
    }
}
