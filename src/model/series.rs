//! A series is what is dumped again and again: retention and age are judged by it, never by what a dump holds.
//!
//! Its name is `--series`, or what is fixed in the prefix: of each segment what stands before the first time field and
//! behind the last one. `nightly/shop-%Y-%m-%d` is the series `nightly/shop`, `%Y/%m/%d/crm` is `crm`.
//! A prefix without a time field is cut at what looks like a date in it. Without one its directory is the series, as far
//! as it has one: what lies side by side is what is dumped again and again, unless `--series` says otherwise.

use std::fmt;
use std::str::FromStr;

use super::object_key::Prefix;

/// The most bytes of a name.
const LENGTH_MAX: usize = 255;
/// What parts fixed text from time.
const SEPARATORS: [char; 5] = ['-', '_', '.', ':', ' '];

/// The name of a series. Empty: the dumps of a bucket's root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series(String);

impl Series {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From a manifest, which may say anything.
    pub fn of_manifest(name: &str) -> Self {
        Self(name.chars().filter(|c| !c.is_control()).take(LENGTH_MAX).collect())
    }

    /// From the segments of a prefix, each cut into what is fixed before and behind its time fields.
    pub fn of_segments<'a>(segments: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let fixed = segments.map(|(before, behind)| {
            let behind = behind
                .strip_prefix('Z')
                .filter(|rest| rest.is_empty() || rest.starts_with(SEPARATORS))
                .unwrap_or(behind);
            let parts = [before.trim_end_matches(SEPARATORS), behind.trim_matches(SEPARATORS)];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
        });
        Self(fixed.filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("/"))
    }

    /// By the place of a dump alone: what is known of one that an earlier version uploaded.
    pub fn of_place(prefix: &Prefix) -> Self {
        let segments: Vec<&str> = prefix.as_str().split('/').collect();
        let mut fixed = Vec::new();
        let mut has_time = false;
        let mut at = 0;
        while at < segments.len() {
            let in_date = date_segments(&segments[at..]);
            has_time |= in_date > 0;
            if in_date == 0 {
                let time = time_in(segments[at]);
                has_time |= time.is_some();
                fixed.push(time.map_or((segments[at], ""), |(at_time, length)| {
                    (&segments[at][..at_time], &segments[at][at_time + length..])
                }));
            }
            at += in_date.max(1);
        }
        match prefix.as_str().rsplit_once('/') {
            Some((directory, _)) if !has_time => Self(directory.to_owned()),
            _ => Self::of_segments(fixed.into_iter()),
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSeries;

impl fmt::Display for BadSeries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a series has a name of 1 to {LENGTH_MAX} bytes without control characters")
    }
}

impl std::error::Error for BadSeries {}

impl FromStr for Series {
    type Err = BadSeries;

    fn from_str(text: &str) -> Result<Self, BadSeries> {
        let is_name = (1..=LENGTH_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if is_name { Ok(Self(text.to_owned())) } else { Err(BadSeries) }
    }
}

/// How many segments from here are a date: a year alone, a month, and then days, hours or minutes.
fn date_segments(segments: &[&str]) -> usize {
    let is_year = |text: &str| text.len() == 4 && is_year_and_more(text);
    let is_small = |text: &&&str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    match segments {
        [year, rest @ ..] if is_year(year) => match rest.iter().take_while(is_small).count() {
            0 => 0,
            more => more + 1,
        },
        _ => 0,
    }
}

/// Whether it begins with a year of this century. A year alone may be anything; a month must follow somehow.
fn is_year_and_more(text: &str) -> bool {
    text.starts_with("20") && text.len() >= 4 && text.as_bytes()[..4].iter().all(u8::is_ascii_digit)
}

/// Where in a segment the first thing stands that looks like a time, and its bytes.
fn time_in(segment: &str) -> Option<(usize, usize)> {
    segment.char_indices().find_map(|(at, _)| Some((at, time_length(segment, at)?)))
}

/// The bytes of what looks like a time at this place: `2026-11-22T0203Z`, `20261122`, `22.11.2026`, or seconds since 1970.
///
/// Host names are full of digits (`ip-10-0-12-34`, `i-0123456789abcdef`), and a host must not be cut.
fn time_length(segment: &str, at: usize) -> Option<usize> {
    let (before, rest) = segment.split_at(at);
    if before.ends_with(|c: char| c.is_ascii_digit()) || !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let run = rest.find(|c: char| !(c.is_ascii_digit() || SEPARATORS.contains(&c) || matches!(c, 'T' | 'Z' | '+')));
    let run = rest[..run.unwrap_or(rest.len())].trim_end_matches(SEPARATORS).trim_end_matches(['T', '+']);
    let run = run.trim_end_matches(SEPARATORS);
    let behind = &rest[run.len()..];
    if behind.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let is_alone = !before.ends_with(|c: char| c.is_ascii_alphanumeric());
    (is_date(run) || is_alone && is_seconds(run)).then_some(run.len())
}

fn is_date(run: &str) -> bool {
    let groups: Vec<&str> = run.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).collect();
    let is_month = |text: &str| matches!(text.parse(), Ok(1..=12_u8)) && text.len() == 2;
    match groups.as_slice() {
        [together, ..] if together.len() >= 6 => {
            is_year_and_more(together) && together.get(4..6).is_some_and(is_month) && together.len() <= 14
        }
        [year, month, ..] if year.len() == 4 => is_year_and_more(year) && month.get(..2).is_some_and(is_month),
        [day, month, year, ..] => day.len() == 2 && is_month(month) && year.len() == 4 && is_year_and_more(year),
        _ => false,
    }
}

/// Seconds or milliseconds since 1970, of the years 2001 to 2033.
fn is_seconds(run: &str) -> bool {
    matches!(run.len(), 10 | 13) && run.starts_with('1') && run.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_place(prefix: &str) -> String {
        Series::of_place(&prefix.parse().expect("a prefix")).0
    }

    #[test]
    fn a_date_in_the_place_is_no_part_of_the_series() {
        for (place, series) in [
            ("db1/2026-11-22T020304Z", "db1"),
            ("nightly/shop-2026-11-22", "nightly/shop"),
            ("nightly/shop-20261122", "nightly/shop"),
            ("nightly/2026-11-22-shop", "nightly/shop"),
            ("nightly/2026-11-22T020304Z.shop", "nightly/shop"),
            ("nightly/shop2026-11", "nightly/shop"),
            ("nightly/22.11.2026", "nightly"),
            ("2026/11/22/crm", "crm"),
            ("db1/2026/11/shop-22", "db1/shop-22"),
            ("dumps/1795123456", "dumps"),
            ("2026-11-22", ""),
        ] {
            assert_eq!(of_place(place), series, "{place}");
        }
    }

    #[test]
    fn without_a_date_it_is_the_directory() {
        for (place, series) in [
            ("manual/before-migration", "manual"),
            ("a/b/latest", "a/b"),
            ("nightly/Monday", "nightly"),
            ("shop", "shop"),
            ("", ""),
        ] {
            assert_eq!(of_place(place), series, "{place}");
        }
    }

    #[test]
    fn what_only_has_digits_is_not_cut() {
        for name in [
            "ip-10-0-12-34",
            "ip-10-20-26-11",
            "i-0123456789abcdef",
            "a202611ff",
            "192.168.20.26",
            "2026",
            "db-2099-13-01",
            "€2026",
            "x-12345678901234567890",
        ] {
            assert_eq!(of_place(name), name);
            assert_eq!(of_place(&format!("{name}/2026-11-22T020304Z")), name);
        }
    }

    #[test]
    fn names_that_are_typed_or_found_are_plain_text() {
        assert_eq!("shop".parse(), Ok(Series("shop".into())));
        assert!("".parse::<Series>().is_err() && "a\nb".parse::<Series>().is_err());
        assert!("x".repeat(256).parse::<Series>().is_err());
        assert_eq!(Series::of_manifest("a\u{1b}[2Jb").as_str(), "a[2Jb");
    }

    proptest::proptest! {
        #[test]
        fn no_place_makes_it_panic(place in "[0-9a-zäT:/._-]{0,40}") {
            if let Ok(prefix) = place.parse::<Prefix>() {
                let _ = Series::of_place(&prefix);
            }
        }
    }
}
