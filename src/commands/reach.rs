//! How the commands for a dump in the bucket reach it.

use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::cli::ConnectionArgs;
use crate::exit_status::{Failure, Status};
use crate::hint::{find, hinted};
use crate::model::destination::BucketName;
use crate::s3::{ConnectionSettings, ObjectSettings, Store, StoreError};

/// How long an outage is waited out, once the store has answered.
const PATIENCE: Duration = Duration::from_secs(600);

/// Finds the way to a bucket.
pub async fn reach(connection: &ConnectionArgs, bucket: &BucketName) -> Result<Store, Failure> {
    let settings = ConnectionSettings::from(connection);
    let connected = Store::connect(settings, bucket.as_str(), ObjectSettings::default(), None, 1).await;
    let store = connected.map_err(Failure::usage)?;
    store.find_credentials().await.map_err(usage_or_outage)?;
    Ok(store)
}

/// An outage is never a wrong setting.
pub fn usage_or_outage(error: anyhow::Error) -> Failure {
    match find::<StoreError>(&error).is_some_and(StoreError::is_outage) {
        true => Failure::failed(error),
        false => Failure::usage(error),
    }
}

/// The answer to the first request shows whether the settings are right; from then on outages are waited out.
pub fn first_answer<T>(store: &Store, answer: Result<T, StoreError>) -> Result<T, Failure> {
    match answer {
        Ok(answer) => {
            store.settings_are_right();
            store.wait_for(Instant::now(), PATIENCE);
            Ok(answer)
        }
        Err(error) if error.is_about_rights() => Err(Failure::usage(error)),
        Err(error) => Err(Failure::failed(error)),
    }
}

/// The end of a command that a signal stopped.
pub fn stopped(signal: i32, hint: &str) -> Failure {
    let error = hinted(anyhow!("stopped by signal {signal}"), hint);
    Failure { status: Status::Signal(signal), error }
}
