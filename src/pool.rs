//! A bounded queue and the workers that empty it. Knows jobs and a function, nothing else.
//!
//! The workers are tasks of the network's one thread (a `LocalSet`): they mostly wait, and what takes long has threads of its own.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// Jobs that wait in the queue, for each worker: enough that none waits for the watcher's next turn.
const QUEUE_PER_WORKER: usize = 4;

/// A running pool. Dropped, it stops its workers where they are.
#[derive(Debug)]
pub struct Pool<J> {
    queue: mpsc::Sender<J>,
    workers: JoinSet<()>,
    stopping: Arc<AtomicBool>,
}

impl<J: 'static> Pool<J> {
    /// Starts `workers` tasks that give each job to `work`.
    pub fn start<F, W>(workers: usize, work: F) -> Self
    where
        F: Fn(J) -> W + Clone + 'static,
        W: Future<Output = ()> + 'static,
    {
        let (queue, jobs) = mpsc::channel(workers * QUEUE_PER_WORKER);
        let jobs = Arc::new(Mutex::new(jobs));
        let stopping = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            tasks.spawn_local(run(Arc::clone(&jobs), Arc::clone(&stopping), work.clone()));
        }
        Self { queue, workers: tasks, stopping }
    }

    /// The queue's end where jobs go in; it holds its sender back when the queue is full.
    pub fn queue(&self) -> &mpsc::Sender<J> {
        &self.queue
    }

    /// Takes no more jobs, drops those that wait in the queue, and waits until those that run have ended.
    pub async fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.finish().await;
    }

    /// Takes no more jobs, and waits until those that are in the queue have ended.
    pub async fn finish(self) {
        let Self { queue, mut workers, .. } = self;
        drop(queue);
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

async fn run<J, F, W>(jobs: Arc<Mutex<mpsc::Receiver<J>>>, stopping: Arc<AtomicBool>, work: F)
where
    F: Fn(J) -> W,
    W: Future<Output = ()>,
{
    loop {
        let job = jobs.lock().await.recv().await;
        match job {
            Some(job) if !stopping.load(Ordering::Relaxed) => work(job).await,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[tokio::test]
    async fn every_job_is_done_once_and_never_more_at_a_time_than_workers() {
        tokio::task::LocalSet::new().run_until(a_hundred_jobs()).await;
    }

    async fn a_hundred_jobs() {
        static DONE: AtomicUsize = AtomicUsize::new(0);
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let pool = Pool::start(3, |_: usize| async {
            assert!(RUNNING.fetch_add(1, Ordering::SeqCst) < 3);
            tokio::task::yield_now().await;
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            DONE.fetch_add(1, Ordering::SeqCst);
        });
        for job in 0..100 {
            pool.queue().send(job).await.expect("the pool runs");
        }
        pool.finish().await;
        assert_eq!(DONE.load(Ordering::SeqCst), 100);
    }
}
