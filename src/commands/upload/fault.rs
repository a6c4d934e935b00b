//! What becomes of a run when a part of this program panics: it ends with status 1 and says so, and never hangs or goes on
//! without that part.

use std::fmt::Display;

use anyhow::anyhow;
use tokio::task::{JoinError, JoinHandle};

use crate::exit_status::Failure;
use crate::pool::caught;

/// The end of a run of which a part panicked.
pub fn fault(why: impl Display) -> Failure {
    Failure::failed(anyhow!("a fault of this program ended the run: {why}"))
}

/// What a task found out, once it has ended.
pub fn joined<T>(found: Result<T, JoinError>) -> Result<T, Failure> {
    found.map_err(fault)
}

/// Begins a task whose end nobody waits for; where it panics, `panicked` is told why.
pub fn spawn_watched(
    work: impl Future<Output = ()> + 'static,
    panicked: impl FnOnce(String) + 'static,
) -> JoinHandle<()> {
    tokio::task::spawn_local(async move {
        if let Err(why) = caught(work).await {
            panicked(why);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::task::LocalSet;

    use super::*;
    use crate::exit_status::Status;

    async fn breaks() -> u32 {
        panic!("a wrong turn")
    }

    #[tokio::test]
    async fn a_task_that_panics_instead_of_finding_out_is_status_1() {
        LocalSet::new()
            .run_until(async {
                let failure = joined(tokio::task::spawn_local(breaks()).await).expect_err("a panic");
                assert_eq!(failure.status, Status::Failure);
                assert!(failure.to_string().contains("a fault of this program ended the run: "), "{failure}");
                assert!(failure.to_string().contains("a wrong turn"), "{failure}");
                assert_eq!(joined(tokio::task::spawn_local(async { 7 }).await).ok(), Some(7));
            })
            .await;
    }

    #[tokio::test]
    async fn a_task_that_nobody_waits_for_tells_of_its_panic() {
        LocalSet::new()
            .run_until(async {
                let (tells, told) = mpsc::channel();
                let panicked = |tells: mpsc::Sender<String>| move |why| tells.send(why).expect("the test listens");
                spawn_watched(async { assert_eq!(breaks().await, 0) }, panicked(tells.clone())).await.expect("caught");
                assert_eq!(told.recv().as_deref(), Ok("a wrong turn"));
                spawn_watched(async {}, panicked(tells)).await.expect("its end");
                assert!(told.recv().is_err(), "nothing to tell");
            })
            .await;
    }
}
