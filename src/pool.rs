//! A bounded queue and the workers that empty it. Knows jobs and a function, nothing else.
//!
//! The workers are tasks of the network's one thread (a `LocalSet`): they mostly wait, and what takes long has threads of its own.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
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
    /// Starts `workers` tasks that give each job to `work`. Where that panics, `panicked` is told why: nobody else would
    /// know that the job never ends.
    pub fn start<F, W>(workers: usize, work: F, panicked: impl Fn(String) + 'static) -> Self
    where
        F: Fn(J) -> W + Clone + 'static,
        W: Future<Output = ()> + 'static,
    {
        let (queue, jobs) = mpsc::channel(workers * QUEUE_PER_WORKER);
        let jobs = Arc::new(Mutex::new(jobs));
        let stopping = Arc::new(AtomicBool::new(false));
        let panicked = Rc::new(panicked);
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let (jobs, stopping, work, panicked) =
                (Arc::clone(&jobs), Arc::clone(&stopping), work.clone(), Rc::clone(&panicked));
            tasks.spawn_local(async move {
                // Nothing of a job that panicked is looked at again.
                if let Err(why) = caught(run(jobs, stopping, work)).await {
                    panicked(why);
                }
            });
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
        while workers.join_next().await.is_some() {}
    }
}

/// Does a task's work; where it panics, what it says. Nobody else would notice that it is gone.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| words_of(panic.as_ref()))
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
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
        let work = |_: usize| async {
            assert!(RUNNING.fetch_add(1, Ordering::SeqCst) < 3);
            tokio::task::yield_now().await;
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            DONE.fetch_add(1, Ordering::SeqCst);
        };
        let pool = Pool::start(3, work, |why| panic!("{why}"));
        for job in 0..100 {
            pool.queue().send(job).await.expect("the pool runs");
        }
        pool.finish().await;
        assert_eq!(DONE.load(Ordering::SeqCst), 100);
    }

    #[tokio::test]
    async fn a_worker_that_panics_is_told_of_and_the_others_go_on() {
        tokio::task::LocalSet::new().run_until(a_panic_among_jobs()).await;
    }

    async fn a_panic_among_jobs() {
        let (told, mut panics) = mpsc::unbounded_channel();
        let (done, mut jobs_done) = mpsc::unbounded_channel();
        let work = move |job: usize| {
            let done = done.clone();
            async move {
                assert!(job != 3, "job {job} cannot be done");
                done.send(job).expect("the test listens");
            }
        };
        let pool = Pool::start(2, work, move |why| told.send(why).expect("the test listens"));
        for job in 0..10 {
            pool.queue().send(job).await.expect("the pool runs");
        }
        pool.finish().await;
        assert_eq!(panics.recv().await.as_deref(), Some("job 3 cannot be done"));
        let mut done: Vec<_> = std::iter::from_fn(|| jobs_done.try_recv().ok()).collect();
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    }
}
