//! One file a subcommand.

pub mod delete;
pub mod etag;
pub mod list;
pub mod prune;
pub mod upload;

use tracing::warn;

use crate::cli::{Command, ConnectionArgs};
use crate::exit_status::{Failure, Status};
use crate::model::destination::BucketName;
use crate::report::Report;
use crate::s3::{ConnectionSettings, ObjectSettings, Store, StoreError};
use crate::stop::Stop;

/// Does what was asked for.
pub async fn run(command: &Command, report: &Report, stop: &Stop) -> Status {
    match command {
        Command::Upload(args) => upload::run(args, report, stop).await,
        Command::List(args) => list::run(args, report, stop).await,
        Command::Delete(args) => delete::run(args, report, stop).await,
        Command::Prune(args) => prune::run(args, report, stop).await,
        Command::Etag(args) => etag::run(args, report, stop).await,
        _ => {
            report.fatal(&anyhow::anyhow!("this command is not there yet"));
            Status::Usage
        }
    }
}

/// Says what ended a command, and with which status.
fn fail(report: &Report, failure: &Failure) -> Status {
    report.fatal(&failure.error);
    failure.status
}

/// Finds the way to a bucket, for a command that stores nothing there.
async fn connect(connection: &ConnectionArgs, bucket: &BucketName) -> Result<Store, Failure> {
    if connection.endpoint_url.as_ref().is_some_and(|url| url.is_unencrypted_remote()) {
        warn!("the endpoint is http://: keys and contents cross the network unencrypted; use https://");
    }
    let settings = ConnectionSettings::from(connection);
    Store::connect(settings, bucket.as_str(), ObjectSettings::default(), None, 1).await.map_err(Failure::usage)
}

/// What a store's error means before anything was touched: mostly a wrong setting.
fn refused(error: StoreError) -> Failure {
    if error.is_about_rights() { Failure::usage(error) } else { Failure::failed(error) }
}
