//! One shared state "the store is down", so that many workers do not hammer a store that is, and how long to wait.
//!
//! The SDK's own retries bridge a hiccup; their tokens are shared by the process, so they cannot bridge an outage.
//! This does: while the store is down, one request at a time tries it, after 1 s to 60 s with jitter, and all others
//! wait. The first that succeeds lets everybody go on.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The first wait; it doubles with each try that fails.
const DELAY_MIN: Duration = Duration::from_secs(1);
/// The longest wait.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// How long outages are waited out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: settings are being tried.
    None,
    /// For ever: the dump lives, and its files wait locally.
    Endless,
    /// From the later of the outage's start and the dump's end, this long.
    Since(Instant, Duration),
}

impl Patience {
    /// When a request that first failed at `failing_since` is to be given up.
    fn deadline(self, failing_since: Instant) -> Option<Instant> {
        match self {
            Self::None => Some(failing_since),
            Self::Endless => None,
            Self::Since(ended, patience) => Some(failing_since.max(ended) + patience),
        }
    }
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    tries: u32,
    next_try: Instant,
    /// Whether a request is trying the store just now.
    trying: bool,
}

#[derive(Debug)]
struct State {
    patience: Patience,
    outage: Option<Outage>,
}

/// The shared state. Its mutex is never held across an `.await`.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

/// The right to make a request. Dropped without a word (the request was cancelled) it lets the next one try.
#[derive(Debug)]
pub struct Pass<'a> {
    gate: &'a Gate,
    trying: bool,
}

/// What the end of a request did to the outage, for the log: one line when it starts and one when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing to say.
    None,
    /// The store has just gone down.
    Down,
    /// The store is back, after this time.
    Up(Duration),
}

impl Gate {
    /// The store counts as up. While settings are tried nothing is waited for.
    pub fn new() -> Self {
        Self { state: Mutex::new(State { patience: Patience::None, outage: None }), changed: Notify::new() }
    }

    /// Changes how long outages are waited out; those that wait now look at it at once.
    pub fn set_patience(&self, patience: Patience) {
        self.lock().patience = patience;
        self.changed.notify_waiters();
    }

    /// How long the store has been down, if it is.
    pub fn down_for(&self, now: Instant) -> Option<Duration> {
        self.lock().outage.as_ref().map(|outage| now.saturating_duration_since(outage.since))
    }

    /// Waits until a request may be made; `None` when patience ends first. `failing_since` is when this request first failed.
    pub async fn enter(&self, failing_since: Option<Instant>) -> Option<Pass<'_>> {
        loop {
            // Made before the look, so that no change between look and wait is missed.
            let changed = self.changed.notified();
            let now = Instant::now();
            let wait = {
                let mut state = self.lock();
                let Some(since) = state.outage.as_ref().map(|outage| outage.since) else {
                    return Some(Pass { gate: self, trying: false });
                };
                let deadline = state.patience.deadline(failing_since.unwrap_or(since));
                if deadline.is_some_and(|deadline| deadline <= now) {
                    return None;
                }
                let outage = state.outage.as_mut()?;
                if !outage.trying && outage.next_try <= now {
                    outage.trying = true;
                    return Some(Pass { gate: self, trying: true });
                }
                let turn = (!outage.trying).then_some(outage.next_try);
                turn.into_iter().chain(deadline).min()
            };
            match wait {
                Some(until) => {
                    let _ = tokio::time::timeout_at(until.into(), changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// The store answered somebody.
    pub fn answered(&self) -> Change {
        let Some(outage) = self.lock().outage.take() else {
            return Change::None;
        };
        self.changed.notify_waiters();
        Change::Up(outage.since.elapsed())
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, State> {
        // A panic while it is held leaves plain values; they stay usable.
        self.state.lock()
    }
}

impl Pass<'_> {
    /// The store answered: it is up.
    pub fn succeeded(mut self) -> Change {
        self.trying = false;
        self.gate.answered()
    }

    /// The store did not answer, or not as a healthy one does.
    pub fn failed(mut self) -> Change {
        let now = Instant::now();
        let mut state = self.gate.lock();
        let change = match state.outage.as_mut() {
            Some(outage) => {
                if self.trying {
                    outage.tries += 1;
                    outage.trying = false;
                    outage.next_try = now + delay(outage.tries);
                }
                Change::None
            }
            None => {
                state.outage = Some(Outage { since: now, tries: 0, next_try: now + delay(0), trying: false });
                Change::Down
            }
        };
        drop(state);
        self.trying = false;
        self.gate.changed.notify_waiters();
        change
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.trying {
            return;
        }
        if let Some(outage) = self.gate.lock().outage.as_mut() {
            outage.trying = false;
        }
        self.gate.changed.notify_waiters();
    }
}

/// From half of the doubled delay to all of it, so that many programs on one store do not come back together.
fn delay(tries: u32) -> Duration {
    let whole = DELAY_MIN.saturating_mul(1 << tries.min(6)).min(DELAY_MAX);
    let random = RandomState::new().hash_one(tries) % 1000;
    whole / 2 + whole.mul_f64(random as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_request_tries_a_store_that_is_down_and_all_go_on_when_it_is_back() {
        let gate = Gate::new();
        gate.set_patience(Patience::Endless);
        let first = gate.enter(None).await.expect("a pass");
        assert_eq!(first.failed(), Change::Down);
        let (one, two) = tokio::join!(biased; async {
            let pass = gate.enter(None).await.expect("a pass");
            assert!(pass.trying);
            tokio::time::sleep(Duration::from_secs(5)).await;
            matches!(pass.succeeded(), Change::Up(_))
        }, async {
            let pass = gate.enter(None).await.expect("a pass");
            assert!(!pass.trying, "waited for the one that tried");
            pass.succeeded() == Change::None
        });
        assert!(one && two);
        assert_eq!(gate.down_for(Instant::now()), None);
    }

    #[tokio::test]
    async fn without_patience_a_store_that_is_down_is_given_up_at_once() {
        let gate = Gate::new();
        let pass = gate.enter(None).await.expect("a pass");
        pass.failed();
        assert!(gate.enter(Some(Instant::now())).await.is_none());
    }

    #[tokio::test]
    async fn patience_counts_from_the_later_of_the_failure_and_the_end() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(Patience::Since(now, second).deadline(now + second * 5), Some(now + second * 6));
        assert_eq!(Patience::Since(now + second * 5, second).deadline(now), Some(now + second * 6));
        assert_eq!(Patience::Endless.deadline(now), None);
    }

    #[tokio::test]
    async fn a_cancelled_try_lets_another_one_try() {
        let gate = Gate::new();
        gate.set_patience(Patience::Endless);
        gate.enter(None).await.expect("a pass").failed();
        let pass = gate.enter(None).await.expect("a pass");
        assert!(pass.trying);
        drop(pass);
        assert!(gate.enter(None).await.expect("a pass").trying);
    }

    #[test]
    fn delays_double_with_jitter_up_to_a_minute() {
        for tries in 0..40 {
            let whole = DELAY_MIN.saturating_mul(1 << tries.min(6)).min(DELAY_MAX);
            let delay = delay(tries);
            assert!(delay >= whole / 2 && delay <= whole, "{tries}: {delay:?}");
        }
    }
}
