//! Metrics, written at the end of a run.

use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use crate::aside::aside;

/// How long they may take to be written.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes them; that they cannot be written is a warning. The file may lie on a filesystem that does not answer: we do not
/// wait for it for ever.
pub async fn write(path: &Path, write: impl FnOnce(&Path, Timestamp) -> io::Result<()> + Send + 'static) {
    let to = path.to_owned();
    let write = aside(move || write(&to, Timestamp::now()));
    let why = match tokio::time::timeout(TIMEOUT, write).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it takes longer than {} s", TIMEOUT.as_secs()),
    };
    warn!("cannot write the metrics to '{}': {why}", path.display());
}
