//! While the claim waits for the store mydumper writes all the same: it is held at the marks then, too.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use parking_lot::Mutex;

use super::disk::{DiskWatch, LOOK_EVERY};
use super::{Totals, stop_child, stopped};
use crate::aside::aside;
use crate::cli::UploadArgs;
use crate::dump_dir::DumpDir;
use crate::dumper::Child;
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::brake::HeldTooLong;
use crate::model::state::{DumpState, Scan, Writers};
use crate::s3::Store;
use crate::scan::Look;
use crate::stop::Stop;

/// Looks after the disk while something else is waited for. Nothing is known of the bucket yet, so each closed file counts
/// as one that waits.
pub struct Meanwhile<'a> {
    /// A stop that was asked for ends the wait.
    pub stop: &'a Stop,
    /// The disk of a dump that is being written.
    pub disk: Option<&'a mut DiskWatch>,
    /// How the directory is looked at.
    pub look: Look,
    /// The directory.
    pub directory: Arc<DumpDir>,
    /// Between two looks, unless a mark is near.
    pub interval: Duration,
    /// Tells what went up.
    pub store: &'a Store,
    /// A mydumper that waits for us all the while waits no longer than until then.
    pub deadline: Option<Deadline>,
}

/// Until when a mydumper waits that has nowhere to write to.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// When it began to wait.
    pub since: Instant,
    /// For how long.
    pub most: Duration,
}

impl Deadline {
    async fn passed(self) -> HeldTooLong {
        tokio::time::sleep_until((self.since + self.most).into()).await;
        HeldTooLong::InVain(self.since.elapsed())
    }
}

/// Why something was not waited for any longer.
pub enum Interruption {
    /// A stop was asked for.
    Stopped(i32),
    /// mydumper was held for too long.
    Held(HeldTooLong),
}

impl Interruption {
    /// What the run ends with.
    pub async fn failure(
        self,
        args: &UploadArgs,
        child: Option<&Child>,
        store: &Store,
        totals: &mut Totals,
    ) -> Failure {
        match self {
            Self::Stopped(signal) => stopped(signal),
            Self::Held(held) => end_held(held, args, child, store, totals).await,
        }
    }
}

/// mydumper was held for too long: its snapshot stays open, and its locks may. Only ours is ended by us.
pub(super) async fn end_held(
    held: HeldTooLong,
    args: &UploadArgs,
    child: Option<&Child>,
    store: &Store,
    totals: &mut Totals,
) -> Failure {
    let Some(child) = child else {
        let hint = "it goes on by itself now, and nobody looks after the disk; what is local is still there: when the store \
                    takes files again, run the same command";
        return Failure::failed(hinted(anyhow!("{held}"), hint));
    };
    stop_child(child, args, store, totals).await;
    Failure::failed(anyhow!("{held}, so it was ended"))
}

impl Meanwhile<'_> {
    /// Waits for an answer.
    pub async fn wait<T>(&mut self, answer: impl Future<Output = T>) -> Result<T, Interruption> {
        let stop = self.stop;
        tokio::select! {
            answer = answer => Ok(answer),
            signal = stop.wait() => Err(Interruption::Stopped(signal)),
            held = passed(self.deadline) => Err(Interruption::Held(held)),
            held = self.steer() => Err(Interruption::Held(held)),
        }
    }

    async fn steer(&mut self) -> HeldTooLong {
        let Some(disk) = self.disk.as_mut().filter(|disk| disk.has_marks()) else { return pending().await };
        loop {
            let begun = Instant::now();
            let (look, directory) = (self.look.clone(), Arc::clone(&self.directory));
            let (scanned, space) = aside(move || {
                let nothing_is_done = Mutex::new(DumpState::new(Duration::ZERO));
                (look.at(&directory, &nothing_is_done), directory.space().ok())
            })
            .await;
            // Whatever is wrong with the directory the watcher will say.
            if let Ok((scan, _)) = scanned {
                disk.notice(&scan);
                if let Some(held) = disk.steer(closed_bytes(&scan), space, self.store) {
                    return held;
                }
            }
            let interval = if disk.is_close() { self.interval.min(LOOK_EVERY) } else { self.interval };
            // Where there are very many files, a tenth of a processor at most goes into looking at them.
            tokio::select! {
                () = tokio::time::sleep(interval.max(begun.elapsed() * 9)) => {}
                () = disk.comes_close() => {}
            }
        }
    }
}

async fn passed(deadline: Option<Deadline>) -> HeldTooLong {
    match deadline {
        Some(deadline) => deadline.passed().await,
        None => pending().await,
    }
}

/// Bytes of all files that nobody writes.
fn closed_bytes(scan: &Scan) -> u64 {
    let closed = scan.probes.iter().filter(|(_, probe)| probe.writers != Writers::Some);
    closed.map(|(_, probe)| probe.identity.size).sum()
}
