//! Questions to the filesystem, off the thread that serves the network and the signals: a filesystem may take its time to
//! answer, and one on a network that is away never does.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

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

/// A trip waits for others to come along, unless there are so many; of a file alone nobody notices it.
const LINGER: Duration = Duration::from_millis(1);
pub const TOGETHER: usize = 8;

/// Where an answer goes.
pub type Reply<A> = oneshot::Sender<A>;

/// Questions that are asked together: a trip to another thread costs more than most answers. Whoever comes while one is under
/// way goes with the next; there is never more than one.
#[derive(Debug)]
pub struct Trips<Q, A> {
    waiting: Mutex<Vec<(Q, Reply<A>)>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<Q, A> Default for Trips<Q, A> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: Arc::default() }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Trips<Q, A> {
    /// Asks, and waits for the answer. `answer_all` answers all questions of a trip; it blocks. Whoever stops waiting leaves
    /// the question to itself.
    pub async fn ask(&self, question: Q, answer_all: impl FnOnce(Vec<(Q, Reply<A>)>) + Send + 'static) -> A {
        let (reply, mut answered) = oneshot::channel();
        self.waiting.lock().push((question, reply));
        let turn = tokio::select! {
            biased;
            Ok(answer) = &mut answered => return answer,
            turn = Arc::clone(&self.turn).lock_owned() => turn,
        };
        if self.waiting.lock().len() < TOGETHER {
            tokio::time::sleep(LINGER).await;
        }
        let together = std::mem::take(&mut *self.waiting.lock());
        if !together.is_empty() {
            aside(move || {
                let _turn = turn;
                answer_all(together);
            })
            .await;
        }
        match answered.await {
            Ok(answer) => answer,
            // Whoever was to answer panicked, and the program is at its end.
            Err(_) => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_comes_while_a_trip_is_under_way_goes_with_the_next() {
        let trips: Trips<u32, usize> = Trips::default();
        let (let_go, held) = mpsc::channel();
        let (has_begun, begun) = oneshot::channel();
        let how_many = |all: Vec<(u32, Reply<usize>)>| {
            let count = all.len();
            all.into_iter().for_each(|(_, reply)| reply.send(count).expect("it is waited for"));
        };
        let first = trips.ask(0, move |all| {
            has_begun.send(()).expect("the others wait");
            held.recv().expect("the others let go");
            how_many(all);
        });
        let others = async {
            begun.await.expect("a trip");
            let let_go_later = async {
                tokio::task::yield_now().await;
                let_go.send(()).expect("the first one waits");
            };
            tokio::join!(trips.ask(1, how_many), trips.ask(2, how_many), trips.ask(3, how_many), let_go_later)
        };
        let (first, (one, two, three, ())) = tokio::join!(first, others);
        assert_eq!((first, one, two, three), (1, 3, 3, 3));
    }

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_holds_nobody_up() {
        let trips: Trips<u32, u32> = Trips::default();
        let echo = |all: Vec<(u32, Reply<u32>)>| {
            for (number, reply) in all {
                let _ = reply.send(number);
            }
        };
        let (let_go, held) = mpsc::channel::<()>();
        let (has_begun, begun) = oneshot::channel();
        let dropped = trips.ask(1, move |all| {
            has_begun.send(()).expect("it is waited for");
            let _ = held.recv();
            echo(all);
        });
        tokio::select! { biased; _ = dropped => unreachable!("it is held"), begun = begun => begun.expect("a trip") }
        drop(let_go);
        assert_eq!(trips.ask(2, echo).await, 2);
    }
}
