//! When mydumper is to be paused and when it is to go on, so that the disk does not fill while the store is slow.

use std::fmt;
use std::time::{Duration, Instant};

use super::units::human_duration;

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
    /// How long it may be held, with its runs between two pauses, without a byte going up.
    pub max_stall: Duration,
    /// How long it may be held in all its pauses.
    pub max_held: Option<Duration>,
}

/// Of the least free space where nobody says one.
const DEFAULT_MIN_FREE: u64 = 2 * 1024 * 1024 * 1024;

/// The least free space where nobody says one: 2 GiB, or the twentieth part of a small filesystem. None where there is
/// less from the start: somebody lives with that.
pub fn default_min_free(free: u64, total: u64) -> Option<u64> {
    let mark = DEFAULT_MIN_FREE.min(total / 20);
    (free >= mark && mark > 0).then_some(mark)
}

/// What a look at the disk showed.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    /// Bytes of closed files that are not in the bucket yet.
    pub waiting: u64,
    /// Free space in bytes, where it could be told.
    pub free: Option<u64>,
    /// Bytes that went to the store since the start.
    pub sent: u64,
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
    /// Hold it no longer: it was held for too long.
    GiveUp(HeldTooLong),
}

/// How it was held for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldTooLong {
    /// For so long, and not a byte went up.
    InVain(Duration),
    /// For so long in all its pauses.
    InAll(Duration),
}

impl fmt::Display for HeldTooLong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InVain(held) => {
                let held = human_duration(*held);
                write!(formatter, "mydumper was held for {held} and not a byte went up (--max-stall)")
            }
            Self::InAll(held) => write!(formatter, "mydumper was held for {} (--max-held)", human_duration(*held)),
        }
    }
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
    /// How long the pauses were that are over.
    held: Duration,
    /// Since when it has been held again and again, and what had gone up by then.
    stalled: Option<(Instant, u64)>,
}

impl Brake {
    /// mydumper runs.
    pub fn new(marks: Marks) -> Self {
        Self { marks, first_data: None, state: State::Running { since: None }, held: Duration::ZERO, stalled: None }
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        matches!(self.state, State::Paused { .. })
    }

    /// How long it was held in all.
    pub fn held(&self, now: Instant) -> Duration {
        match self.state {
            State::Paused { since, .. } => self.held + now.saturating_duration_since(since),
            State::Running { .. } => self.held,
        }
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
                    if ran {
                        self.stalled = None;
                    }
                    return Order::Keep;
                }
                self.stalled.get_or_insert((now, disk.sent));
                self.state = State::Paused { since: now, waiting: disk.waiting };
                Order::Pause
            }
            State::Paused { since, waiting } => {
                if let Some(held) = self.held_too_long(disk, now) {
                    return Order::GiveUp(held);
                }
                let relieved = disk.waiting <= waiting / 2;
                if !relieved && now.saturating_duration_since(since) < self.marks.max_pause {
                    return Order::Keep;
                }
                self.held = self.held(now);
                self.state = State::Running { since: Some(now) };
                Order::Resume
            }
        }
    }

    fn held_too_long(&mut self, disk: Disk, now: Instant) -> Option<HeldTooLong> {
        // With a store that is slower than mydumper it is held most of the time: what goes up makes that right.
        let (since, sent) = self.stalled.get_or_insert((now, disk.sent));
        if *sent != disk.sent {
            (*since, *sent) = (now, disk.sent);
        }
        let stalled = now.saturating_duration_since(*since);
        let held = self.held(now);
        match self.marks.max_held {
            _ if stalled >= self.marks.max_stall => Some(HeldTooLong::InVain(stalled)),
            Some(most) if held >= most => Some(HeldTooLong::InAll(held)),
            _ => None,
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

    const MARKS: Marks = Marks {
        max_local: Some(100),
        min_free: Some(1000),
        max_pause: Duration::from_secs(45),
        max_stall: Duration::from_secs(100),
        max_held: None,
    };

    fn disk(waiting: u64) -> Disk {
        Disk { waiting, free: Some(5000), sent: 0, has_data: true }
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
        let tight = |waiting| Disk { waiting, free: Some(999), sent: 0, has_data: true };
        brake.decide(disk(0), start);
        let later = start + Duration::from_secs(3);
        assert_eq!(brake.decide(tight(0), later), Order::Keep);
        assert_eq!(brake.decide(Disk { free: None, ..tight(9) }, later), Order::Keep);
        assert_eq!(brake.decide(tight(9), later), Order::Pause);
    }

    /// What a store does that is slower than mydumper is no stall; a pause with its runs is one where nothing goes up.
    #[test]
    fn it_is_not_held_for_ever_while_nothing_goes_up() {
        let (mut brake, start) = (Brake::new(MARKS), Instant::now());
        let look = |brake: &mut Brake, seconds, sent| {
            brake.decide(Disk { sent, ..disk(500) }, start + Duration::from_secs(seconds))
        };
        assert_eq!(look(&mut brake, 0, 7), Order::Keep);
        assert_eq!(look(&mut brake, 2, 7), Order::Pause);
        assert_eq!(look(&mut brake, 47, 7), Order::Resume);
        assert_eq!(look(&mut brake, 48, 7), Order::Pause);
        assert_eq!(look(&mut brake, 80, 8), Order::Keep);
        assert_eq!(look(&mut brake, 93, 8), Order::Resume);
        assert_eq!(look(&mut brake, 94, 8), Order::Pause);
        assert_eq!(look(&mut brake, 139, 8), Order::Resume);
        assert_eq!(look(&mut brake, 140, 8), Order::Pause);
        assert_eq!(look(&mut brake, 179, 8), Order::Keep);
        assert_eq!(look(&mut brake, 180, 8), Order::GiveUp(HeldTooLong::InVain(Duration::from_secs(100))));
        assert_eq!(brake.held(start + Duration::from_secs(180)), Duration::from_secs(45 + 45 + 45 + 40));
    }

    #[test]
    fn a_run_that_needs_no_pause_ends_a_stall() {
        let (mut brake, start) = (Brake::new(MARKS), Instant::now());
        let look =
            |brake: &mut Brake, seconds, waiting| brake.decide(disk(waiting), start + Duration::from_secs(seconds));
        look(&mut brake, 0, 0);
        assert_eq!(look(&mut brake, 2, 500), Order::Pause);
        assert_eq!(look(&mut brake, 40, 0), Order::Resume);
        assert_eq!(look(&mut brake, 90, 0), Order::Keep);
        assert_eq!(look(&mut brake, 91, 500), Order::Pause);
        assert_eq!(look(&mut brake, 120, 500), Order::Keep);
    }

    #[test]
    fn all_pauses_together_have_a_limit_where_one_is_given() {
        let marks = Marks { max_held: Some(Duration::from_secs(60)), ..MARKS };
        let (mut brake, start) = (Brake::new(marks), Instant::now());
        let look = |brake: &mut Brake, seconds| {
            brake.decide(Disk { sent: seconds, ..disk(500) }, start + Duration::from_secs(seconds))
        };
        look(&mut brake, 0);
        assert_eq!(look(&mut brake, 2), Order::Pause);
        assert_eq!(look(&mut brake, 47), Order::Resume);
        assert_eq!(look(&mut brake, 48), Order::Pause);
        assert_eq!(look(&mut brake, 62), Order::Keep);
        assert_eq!(look(&mut brake, 63), Order::GiveUp(HeldTooLong::InAll(Duration::from_secs(60))));
    }

    #[test]
    fn the_default_mark_is_small_and_not_in_force_where_less_is_free() {
        const GIB: u64 = 1 << 30;
        assert_eq!(default_min_free(500 * GIB, 1_000 * GIB), Some(2 * GIB));
        assert_eq!(default_min_free(10 * GIB, 20 * GIB), Some(GIB));
        assert_eq!(default_min_free(GIB - 1, 20 * GIB), None);
        assert_eq!(default_min_free(0, 0), None);
    }
}
