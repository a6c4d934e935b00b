//! How fast it goes, seen over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::units::Rate;

/// Long enough that a large file, whose bytes count when it ends, does not make the rate jump.
const WINDOW: Duration = Duration::from_secs(10);

/// A moving average over a total that only grows.
#[derive(Debug)]
pub struct RateMeter {
    window: Duration,
    /// The last one that is older than the window, and all that are younger.
    seen: VecDeque<(Instant, u64)>,
}

impl Default for RateMeter {
    fn default() -> Self {
        Self::over(WINDOW)
    }
}

impl RateMeter {
    /// Averages over the last `window`.
    pub fn over(window: Duration) -> Self {
        Self { window, seen: VecDeque::new() }
    }

    /// Takes the total of bytes as it is now, and gives the rate.
    pub fn observe(&mut self, now: Instant, total: u64) -> Rate {
        self.seen.push_back((now, total));
        while self.seen.get(1).is_some_and(|(time, _)| now.saturating_duration_since(*time) >= self.window) {
            self.seen.pop_front();
        }
        match self.seen.front() {
            Some((first, before)) => Rate::of(total.saturating_sub(*before), now.saturating_duration_since(*first)),
            None => Rate(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn rates(totals: impl IntoIterator<Item = (u64, u64)>) -> Vec<u64> {
        let (mut meter, start) = (RateMeter::default(), Instant::now());
        totals
            .into_iter()
            .map(|(second, mib)| meter.observe(start + Duration::from_secs(second), mib * MIB).0 / MIB)
            .collect()
    }

    #[test]
    fn the_first_look_has_no_rate() {
        assert_eq!(rates([(0, 500)]), [0]);
    }

    #[test]
    fn a_steady_flow_has_a_steady_rate() {
        assert!(rates((0..60).map(|second| (second, second * 7))).iter().skip(1).all(|rate| *rate == 7));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        assert_eq!(rates([(0, 0), (1, 100), (2, 100), (11, 100), (12, 100)]), [0, 100, 50, 0, 0]);
    }

    #[test]
    fn after_a_long_silence_the_rate_is_that_of_the_silence() {
        assert_eq!(rates([(0, 0), (100, 200)]), [0, 2]);
    }

    #[test]
    fn a_total_that_shrinks_is_no_rate() {
        assert_eq!(rates([(0, 100), (1, 50)]), [0, 0]);
    }

    #[test]
    fn few_are_remembered() {
        let (mut meter, start) = (RateMeter::default(), Instant::now());
        for second in 0..1_000 {
            meter.observe(start + Duration::from_secs(second), second);
        }
        assert!(meter.seen.len() <= 12);
    }
}
