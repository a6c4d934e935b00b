//! The claim while files go up: believed, and renewed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::fault::spawn_watched;
use super::follow::End;
use super::session::Session;
use super::stopped;
use crate::claim::{ClaimError, SharedClaim};
use crate::exit_status::Failure;
use crate::object_writer::Gate;

/// How often it is looked whether the claim is to be renewed.
pub(crate) const LOOK_AT_CLAIM: Duration = Duration::from_secs(60);

impl Session<'_> {
    /// Waits until the claim may be believed, before the last manifest is written over it.
    pub(super) async fn believe_claim(&self) -> Result<(), Failure> {
        tokio::select! {
            believed = believe(&self.claim, &self.shared.transfer.writer.gate) => {
                believed.map_err(|error| Failure::failed(anyhow::Error::new(error)))
            }
            signal = self.stop.wait() => Err(stopped(signal)),
        }
    }

    /// Lets files be sent once the claim may be believed; and renews it while nothing is completed, or when the disk is
    /// found full: a run after this one must know.
    pub(super) fn guard_claim(&self, found_full: Option<Arc<Notify>>) -> JoinHandle<()> {
        let (claim, shared) = (self.claim.clone(), Arc::clone(&self.shared));
        let watched = Arc::clone(&self.shared);
        let guard = async move {
            if let Err(error) = believe(&claim, &shared.transfer.writer.gate).await {
                return shared.give_up(error);
            }
            loop {
                let is_full = async {
                    match &found_full {
                        Some(found_full) => found_full.notified().await,
                        None => std::future::pending().await,
                    }
                };
                let is_full = tokio::time::timeout(LOOK_AT_CLAIM, is_full).await.is_ok();
                if !is_full && !claim.lock().await.is_due(shared.last_completed()) {
                    continue;
                }
                let full_disk = shared.transfer.directory.full_disk();
                match claim.note(move |header| header.full_disk = header.full_disk.max(full_disk)).await {
                    Ok(()) => {}
                    Err(error @ ClaimError::Lost(_)) => return shared.give_up(error),
                    Err(error) => warn!("the claim cannot be renewed (will be retried): {error}"),
                }
            }
        };
        spawn_watched(guard, move |why| watched.end(End::Panicked(why)))
    }
}

/// Where the store knows no conditions a new claim may be believed only when no other can be under way any more. Nothing
/// is sent before that.
pub(crate) async fn believe(claim: &SharedClaim, gate: &Gate) -> Result<(), ClaimError> {
    if gate.is_open() {
        return Ok(());
    }
    let wait = claim.lock().await.wait_before_use().unwrap_or_default();
    if !wait.is_zero() {
        info!(
            "the store knows no conditional writes: nothing is sent for {} s, in case another program claims the same \
             prefix",
            wait.as_secs()
        );
    }
    tokio::time::sleep(wait).await;
    claim.lock().await.check().await?;
    gate.open();
    Ok(())
}
