//! Signals: the first SIGTERM or SIGINT asks for an orderly stop, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit_status::Status;

/// Tells whether a stop was asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Option<i32>>);

impl Stop {
    /// Starts to listen. `at_once` runs on the second signal, before the program ends.
    pub fn listen(at_once: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            let first = either(&mut interrupt, &mut terminate).await;
            let _ = sender.send(Some(first));
            let second = either(&mut interrupt, &mut terminate).await;
            at_once();
            std::process::exit(Status::Signal(second).code().into());
        });
        Ok(Self(receiver))
    }

    /// The signal that asked for a stop, if one did.
    pub fn asked(&self) -> Option<i32> {
        *self.0.borrow()
    }

    /// Waits until a stop is asked for.
    pub async fn wait(&self) -> i32 {
        let mut receiver = self.0.clone();
        match receiver.wait_for(Option::is_some).await.map(|signal| *signal) {
            Ok(Some(signal)) => signal,
            // The listener is gone only when the program ends.
            _ => std::future::pending().await,
        }
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
    }
}
