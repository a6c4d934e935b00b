//! Questions to the filesystem, off the thread that serves the network and the signals: a filesystem may take its time to
//! answer, and one on a network that is away never does.

use std::future::pending;
use std::panic::resume_unwind;

/// Asks on a thread of its own, and waits for the answer. Whoever stops waiting leaves the question to itself.
pub async fn aside<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(ask).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The program is at its end.
            Err(_) => pending().await,
        },
    }
}
