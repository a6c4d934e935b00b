//! When mydumper is to be paused and when it is to go on, so that the disk does not fill while the store is slow.

use std::time::{Duration, Instant};

/// Locks may be held until some time after the first data file: a pause then would keep the whole server read-only.
const GRACE: Duration = Duration::from_secs(2);
/// How long it runs between two pauses at least: its connections must see some life.
const RUN_MIN: Duration = Duration::from_millis(500);

/// The marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The most bytes that may wait for their upload; files that are still being written do not count.
    pub max_local: Option<u64>,
    /// The least free space, as an unprivileged writer sees it, in bytes.
    pub min_free: Option<u64>,
    /// The longest pause: the server gives a client up that does not read for its `net_write_timeout`.
    pub max_pause: Duration,
}

/// What a look at the disk showed.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    /// Bytes of closed files that are not in the bucket yet.
    pub waiting: u64,
    /// Free space in bytes, where it could be told.
    pub free: Option<u64>,
    /// Whether the dump has a data file.
    pub has_data: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    Keep,
    /// Pause mydumper.
    Pause,
    /// Let it go on.
    Resume,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Running { since: Option<Instant> },
    Paused { since: Instant, waiting: u64 },
}

/// Decides. Time is passed in.
#[derive(Debug)]
pub struct Brake {
    marks: Marks,
    first_data: Option<Instant>,
    state: State,
}

impl Brake {
    /// mydumper runs.
    pub fn new(marks: Marks) -> Self {
        Self { marks, first_data: None, state: State::Running { since: None } }
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        matches!(self.state, State::Paused { .. })
    }

    /// Takes a look in and decides.
    pub fn decide(&mut self, disk: Disk, now: Instant) -> Order {
        if disk.has_data {
            self.first_data.get_or_insert(now);
        }
        match self.state {
            State::Running { since } => {
                let ran = since.is_none_or(|since| now.saturating_duration_since(since) >= RUN_MIN);
                let unlocked = self.first_data.is_some_and(|first| now.saturating_duration_since(first) >= GRACE);
                if !(ran && unlocked && self.is_over(disk)) {
                    return Order::Keep;
                }
                self.state = State::Paused { since: now, waiting: disk.waiting };
                Order::Pause
            }
            State::Paused { since, waiting } => {
                let relieved = disk.waiting <= waiting / 2;
                if !relieved && now.saturating_duration_since(since) < self.marks.max_pause {
                    return Order::Keep;
                }
                self.state = State::Running { since: Some(now) };
                Order::Resume
            }
        }
    }

    /// The last order was carried out only then: a busy machine may take its time, and a run counts from its real start.
    pub fn carried_out(&mut self, then: Instant) {
        if let State::Running { since: Some(since) } = &mut self.state {
            *since = then;
        }
    }

    fn is_over(&self, disk: Disk) -> bool {
        let crowded = self.marks.max_local.is_some_and(|most| disk.waiting >= most);
        // Without anything to upload a pause frees nothing: then the disk is full of something else.
        let tight =
            disk.waiting > 0 && self.marks.min_free.is_some_and(|least| disk.free.is_some_and(|free| free < least));
        crowded || tight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { max_local: Some(100), min_free: Some(1000), max_pause: Duration::from_secs(45) };

    fn disk(waiting: u64) -> Disk {
        Disk { waiting, free: Some(5000), has_data: true }
    }

    #[test]
    fn never_before_the_first_data_file_and_two_seconds_after_it() {
        let (mut brake, start) = (Brake::new(MARKS), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(brake.decide(Disk { has_data: false, ..disk(500) }, start), Order::Keep);
        assert_eq!(brake.decide(disk(500), later(10)), Order::Keep);
        assert_eq!(brake.decide(disk(500), later(11)), Order::Keep);
        assert_eq!(brake.decide(disk(500), later(12)), Order::Pause);
        assert!(brake.is_paused());
    }

    #[test]
    fn it_goes_on_when_half_is_gone_or_the_pause_was_long() {
        let (mut brake, start) = (Brake::new(MARKS), Instant::now());
        let later = |millis| start + Duration::from_millis(millis);
        brake.decide(disk(0), start);
        assert_eq!(brake.decide(disk(99), later(2_000)), Order::Keep);
        assert_eq!(brake.decide(disk(120), later(2_050)), Order::Pause);
        assert_eq!(brake.decide(disk(61), later(2_100)), Order::Keep);
        assert_eq!(brake.decide(disk(60), later(2_150)), Order::Resume);
        // At least half a second of running.
        assert_eq!(brake.decide(disk(200), later(2_600)), Order::Keep);
        assert_eq!(brake.decide(disk(200), later(2_650)), Order::Pause);
        assert_eq!(brake.decide(disk(200), later(47_600)), Order::Keep);
        assert_eq!(brake.decide(disk(200), later(47_650)), Order::Resume);
    }

    #[test]
    fn little_free_space_pauses_only_where_uploads_can_free_some() {
        let (mut brake, start) = (Brake::new(MARKS), Instant::now());
        let tight = |waiting| Disk { waiting, free: Some(999), has_data: true };
        brake.decide(disk(0), start);
        let later = start + Duration::from_secs(3);
        assert_eq!(brake.decide(tight(0), later), Order::Keep);
        assert_eq!(brake.decide(Disk { free: None, ..tight(9) }, later), Order::Keep);
        assert_eq!(brake.decide(tight(9), later), Order::Pause);
    }
}
