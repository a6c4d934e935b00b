//! The rules, against dumps whose dates were counted by hand, and what must hold for any.

use super::*;
use proptest::prelude::*;

const DAY: u64 = 86_400;

fn at(time: &str) -> Timestamp {
    time.parse().expect("a time")
}

fn now() -> Timestamp {
    at("2026-12-01T00:00:00Z")
}

/// The dumps that stay, as days of `dates` with their reasons.
fn kept(dates: &[&str], rules: Rules) -> Vec<String> {
    let starts: Vec<_> = dates.iter().map(|date| at(&format!("{date}:00:00Z"))).collect();
    let reasons = reasons_to_keep(&starts, rules, now());
    let shown = dates.iter().zip(reasons).filter(|(_, reasons)| !reasons.is_empty()).map(|(date, reasons)| {
        format!("{date} {}", reasons.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(","))
    });
    shown.collect()
}

const DATES: [&str; 8] = [
    "2026-09-30T02", // Wednesday
    "2026-10-31T02", // Saturday
    "2026-11-15T02", // Sunday, the last day of week 46
    "2026-11-16T02", // Monday, the first of week 47
    "2026-11-21T02",
    "2026-11-22T02", // Sunday
    "2026-11-22T14",
    "2026-11-23T02", // Monday
];

#[test]
fn the_last_n_stay() {
    let rules = Rules { last: 2, ..Rules::default() };
    assert_eq!(kept(&DATES, rules), ["2026-11-22T14 last", "2026-11-23T02 last"]);
}

#[test]
fn of_each_day_the_newest_stays_and_days_without_a_dump_do_not_count() {
    let rules = Rules { daily: 4, ..Rules::default() };
    assert_eq!(
        kept(&DATES, rules),
        ["2026-11-16T02 daily", "2026-11-21T02 daily", "2026-11-22T14 daily", "2026-11-23T02 daily"]
    );
}

#[test]
fn weeks_begin_on_monday() {
    let rules = Rules { weekly: 3, ..Rules::default() };
    assert_eq!(kept(&DATES, rules), ["2026-11-15T02 weekly", "2026-11-22T14 weekly", "2026-11-23T02 weekly"]);
}

#[test]
fn an_iso_week_belongs_to_one_year() {
    // Monday 2024-12-30 to Sunday 2025-01-05 are week 1 of 2025.
    let dates = ["2024-12-29T02", "2024-12-30T02", "2025-01-05T02"];
    let rules = Rules { weekly: 2, ..Rules::default() };
    assert_eq!(kept(&dates, rules), ["2024-12-29T02 weekly", "2025-01-05T02 weekly"]);
}

#[test]
fn a_rule_with_some_left_keeps_the_oldest() {
    let rules = Rules { monthly: 12, ..Rules::default() };
    let dates = ["2026-10-01T02", "2026-10-02T02", "2026-11-01T02", "2026-11-02T02"];
    assert_eq!(kept(&dates, rules), ["2026-10-01T02 oldest", "2026-10-02T02 monthly", "2026-11-02T02 monthly"]);
    let exhausted = Rules { monthly: 2, ..Rules::default() };
    assert_eq!(kept(&dates, exhausted), ["2026-10-02T02 monthly", "2026-11-02T02 monthly"]);
}

#[test]
fn within_counts_from_the_newest_dump_not_from_today() {
    let rules = Rules { within: Some(Duration::from_secs(DAY)), ..Rules::default() };
    // A day exactly is not within a day.
    assert_eq!(kept(&DATES, rules), ["2026-11-22T14 within", "2026-11-23T02 within"]);
}

#[test]
fn a_start_in_the_future_takes_no_place_in_any_rule() {
    let dates = ["2026-11-21T02", "2026-11-22T02", "2036-01-01T02"];
    let future = "2036-01-01T02 its start lies in the future";
    let within = Rules { within: Some(Duration::from_secs(DAY)), ..Rules::default() };
    assert_eq!(kept(&dates, within), ["2026-11-22T02 within", future]);
    assert_eq!(kept(&dates, Rules { last: 1, ..Rules::default() }), ["2026-11-22T02 last", future]);
    let monthly = Rules { monthly: 1, ..Rules::default() };
    assert_eq!(kept(&dates, monthly), ["2026-11-22T02 monthly", future]);
    assert_eq!(kept(&dates[2..], monthly), [future]);
}

#[test]
fn rules_are_joined_by_or() {
    let rules = Rules { last: 1, weekly: 2, ..Rules::default() };
    assert_eq!(kept(&DATES, rules), ["2026-11-22T14 weekly", "2026-11-23T02 last,weekly"]);
}

#[test]
fn without_a_rule_everything_stays() {
    assert_eq!(kept(&DATES, Rules::default()).len(), DATES.len());
    assert!(reasons_to_keep(&[], Rules::default(), now()).is_empty());
}

/// As many hours as three years have, so that days, weeks, months and years are crossed, and some dumps start together.
fn any_starts() -> impl Strategy<Value = Vec<Timestamp>> {
    let start = |hours: i64| Timestamp::from_second(1_640_000_000 + hours * 3600).expect("a time");
    proptest::collection::vec((0..3 * 8766_i64).prop_map(start), 1..60)
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let within = proptest::option::of((0..400_u64).prop_map(|days| Duration::from_secs(days * DAY)));
    (0..9_u32, 0..9_u32, 0..9_u32, 0..9_u32, within).prop_map(|(last, daily, weekly, monthly, within)| Rules {
        last,
        daily,
        weekly,
        monthly,
        within,
    })
}

fn survivors(starts: &[Timestamp], rules: Rules) -> Vec<Timestamp> {
    let reasons = reasons_to_keep(starts, rules, now());
    starts.iter().zip(reasons).filter(|(_, reasons)| !reasons.is_empty()).map(|(start, _)| *start).collect()
}

proptest! {
    #[test]
    fn the_newest_always_stays(starts in any_starts(), rules in any_rules()) {
        let kept = survivors(&starts, rules);
        prop_assert_eq!(kept.iter().max(), starts.iter().max());
    }

    #[test]
    fn keep_last_keeps_as_many_as_it_says(starts in any_starts(), last in 1..70_u32) {
        let kept = survivors(&starts, Rules { last, ..Rules::default() });
        prop_assert_eq!(kept.len(), starts.len().min(last as usize));
    }

    #[test]
    fn a_second_prune_finds_nothing_to_do(starts in any_starts(), rules in any_rules()) {
        let kept = survivors(&starts, rules);
        prop_assert_eq!(survivors(&kept, rules), kept);
    }

    #[test]
    fn another_rule_never_removes_more(starts in any_starts(), rules in any_rules(), daily in 0..20_u32) {
        prop_assume!(rules != Rules::default());
        let fewer = survivors(&starts, Rules { daily: 0, ..rules });
        let more = survivors(&starts, Rules { daily, ..rules });
        prop_assume!(Rules { daily: 0, ..rules } != Rules::default());
        prop_assert!(fewer.iter().all(|start| more.contains(start)));
    }
}
