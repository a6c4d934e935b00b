//! Which dumps stay: restic's rules (`restic forget`; `ApplyPolicy` in its `snapshot_policy.go`), in UTC.
//!
//! - A dump stays if one rule keeps it.
//! - `--keep-last n` keeps the newest n. `--keep-daily n` goes from the newest to the oldest and keeps the newest of each
//!   day that has a dump, until n are kept; weeks are ISO weeks. A day without a dump does not count.
//! - While such a rule has some left, it keeps the oldest dump, too, so that the history becomes as long as was asked for.
//! - `--keep-within d` keeps what is less than d older than the newest. So an old set of dumps does not melt away when
//!   no new ones come.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::standing::FUTURE_AFTER;

/// What was asked for. A rule of 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// The newest so many.
    pub last: u32,
    /// The newest of so many days.
    pub daily: u32,
    /// The newest of so many weeks.
    pub weekly: u32,
    /// The newest of so many months.
    pub monthly: u32,
    /// What is so near to the newest.
    pub within: Option<Duration>,
}

/// Why a dump stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Last,
    Daily,
    Weekly,
    Monthly,
    Within,
    /// The oldest, kept by a rule that has some left.
    Oldest,
    /// There is no rule.
    NoRule,
    /// The newest, whatever the rules say.
    Newest,
    /// It begins in the future, so its age is not known.
    Future,
}

impl Reason {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Within => "within",
            Self::Oldest => "oldest",
            Self::NoRule => "no rule",
            Self::Newest => "newest",
            Self::Future => "its start lies in the future",
        }
    }
}

/// One rule that counts, on its way from the newest dump to the oldest.
struct Counter {
    reason: Reason,
    left: u32,
    period: fn(Timestamp) -> Option<(i16, i16)>,
    /// The period of the dump that it kept last.
    last: Option<(i16, i16)>,
}

impl Counter {
    /// Whether this rule keeps the dump; counts it in the same step.
    fn keeps(&mut self, start: Timestamp, is_oldest: bool) -> Option<Reason> {
        if self.left == 0 {
            return None;
        }
        let period = (self.period)(start);
        let is_new = period.is_none() || period != self.last;
        if !is_new && !is_oldest {
            return None;
        }
        self.left -= 1;
        self.last = period;
        Some(if is_new { self.reason } else { Reason::Oldest })
    }
}

/// Why each dump stays: nothing for those that are to go. `starts` in any order; the answer is in the same. A start that
/// lies in the future by `now` is a wrong clock's: such a dump stays, and takes no place in any rule.
pub fn reasons_to_keep(starts: &[Timestamp], rules: Rules, now: Timestamp) -> Vec<Vec<Reason>> {
    let is_future = |start: Timestamp| start.duration_since(now) > FUTURE_AFTER;
    let mut newest_first: Vec<usize> = (0..starts.len()).filter(|at| !is_future(starts[*at])).collect();
    newest_first.sort_by_key(|at| std::cmp::Reverse(starts[*at]));
    let latest = newest_first.first().map(|at| starts[*at]);
    let mut counters = counters(rules);
    let mut reasons: Vec<_> =
        starts.iter().map(|start| if is_future(*start) { vec![Reason::Future] } else { Vec::new() }).collect();
    for (rank, at) in newest_first.iter().enumerate() {
        let (start, is_oldest) = (starts[*at], rank + 1 == newest_first.len());
        let kept = &mut reasons[*at];
        if rules == Rules::default() {
            kept.push(Reason::NoRule);
        }
        if is_within(start, latest, rules.within) {
            kept.push(Reason::Within);
        }
        kept.extend(counters.iter_mut().filter_map(|counter| counter.keeps(start, is_oldest)));
        if rank == 0 && kept.is_empty() {
            kept.push(Reason::Newest);
        }
    }
    reasons
}

fn counters(rules: Rules) -> [Counter; 4] {
    let counter = |reason, left, period| Counter { reason, left, period, last: None };
    [
        counter(Reason::Last, rules.last, |_| None),
        counter(Reason::Daily, rules.daily, |start| {
            let date = date(start);
            Some((date.year(), date.day_of_year()))
        }),
        counter(Reason::Weekly, rules.weekly, |start| {
            let week = date(start).iso_week_date();
            Some((week.year(), week.week().into()))
        }),
        counter(Reason::Monthly, rules.monthly, |start| {
            let date = date(start);
            Some((date.year(), date.month().into()))
        }),
    ]
}

fn date(start: Timestamp) -> jiff::civil::Date {
    start.to_zoned_datetime(TimeZone::UTC).date()
}

fn is_within(start: Timestamp, latest: Option<Timestamp>, within: Option<Duration>) -> bool {
    let Some(within) = within else { return false };
    let within = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
    latest.is_some_and(|latest| latest.duration_since(start) < within)
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
