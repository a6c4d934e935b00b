//! When something is to be said again that does not change.

use std::time::{Duration, Instant};

/// Between two times that it is said.
const AGAIN: Duration = Duration::from_secs(3600);

/// Due after a while, and then every hour.
#[derive(Debug, Clone, Copy)]
pub struct Reminder {
    since: Instant,
    next: Duration,
}

impl Reminder {
    /// It is so since then, and to be said `first` later.
    pub fn new(since: Instant, first: Duration) -> Self {
        Self { since, next: first }
    }

    /// How long it has been so, if it is time to say it.
    pub fn is_due(&mut self, now: Instant) -> Option<Duration> {
        let so_long = now.saturating_duration_since(self.since);
        (so_long >= self.next).then(|| {
            self.next = so_long + AGAIN;
            so_long
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_change_is_said_after_a_while_and_then_every_hour() {
        let (began, minute) = (Instant::now(), Duration::from_secs(60));
        let mut reminder = Reminder::new(began, minute);
        let said: Vec<_> = (0..=130).filter(|at| reminder.is_due(began + minute * *at).is_some()).collect();
        assert_eq!(said, [1, 61, 121]);
    }
}
