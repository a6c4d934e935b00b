//! Sizes, rates and durations as a person writes and reads them: `16MiB`, `50MiB/s`, `1h30m`.
//!
//! Reading sizes is `bytesize`'s work, reading durations `jiff`'s, behind types and error texts of our own:
//! - `bytesize` cuts what is too large to the largest `u64` without a word; here that is an error.
//! - `humantime` was looked at for durations and not taken: it panics on `18446744073709551615s 1000000000ns`,
//!   reads `1M` as a month, and refuses the plain `0.2` that `--interval` takes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const BINARY_UNITS: [(u64, &str); 6] =
    [(1 << 60, "EiB"), (1 << 50, "PiB"), (1 << 40, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];

/// A number of bytes.
///
/// `Display` is exact and can be read back (`16MiB`, `5000001B`); [`ByteSize::human`] is for people (`1.4 GiB`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    pub const fn kib(count: u64) -> Self {
        Self(count * KIB)
    }

    pub const fn mib(count: u64) -> Self {
        Self(count * MIB)
    }

    pub const fn gib(count: u64) -> Self {
        Self(count * GIB)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Rounded, with the unit that keeps the number short: `0 B`, `999 B`, `1.4 GiB`, `128 MiB`.
    pub fn human(self) -> String {
        let Self(bytes) = self;
        // 1,023.7 MiB would be printed as "1024 MiB": a unit is taken from half a step below it on.
        let unit = BINARY_UNITS.iter().find(|(unit, _)| bytes >= unit - unit / 2048);
        let Some((unit, name)) = unit else {
            return format!("{bytes} B");
        };
        let value = bytes as f64 / *unit as f64;
        if value < 99.95 { format!("{value:.1} {name}") } else { format!("{value:.0} {name}") }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BINARY_UNITS.iter().find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error =
            |problem| UnitError { text: text.into(), problem, remedy: "write a size like 16MiB, 500MB or 1.5GiB" };
        match text.trim().parse::<bytesize::ByteSize>() {
            // Where bytesize says "the largest", the number was cut. Nobody means 16 EiB less one byte.
            Ok(size) if size.as_u64() == u64::MAX => Err(error("too large")),
            Ok(size) => Ok(Self(size.as_u64())),
            Err(_) if text.trim().is_empty() => Err(error("empty")),
            Err(_) if text.trim_start().starts_with('-') => Err(error("negative")),
            Err(_) => Err(error("not a size")),
        }
    }
}

/// Bytes a second. Reads `50MiB` and `50MiB/s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

impl Rate {
    pub const fn bytes_per_second(self) -> u64 {
        self.0
    }

    pub fn human(self) -> String {
        format!("{}/s", ByteSize(self.0).human())
    }

    /// What `bytes` in `duration` come to. No time at all is no rate, not an infinite one.
    pub fn of(bytes: u64, duration: Duration) -> Self {
        let seconds = duration.as_secs_f64();
        // `as` saturates, and a rate is for reading only.
        if seconds > 0.0 { Self((bytes as f64 / seconds) as u64) } else { Self(0) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", ByteSize(self.0))
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let size = text.trim().trim_end_matches("/s");
        let remedy = "write bytes a second, like 50MiB or 50MiB/s";
        size.parse::<ByteSize>().map(|ByteSize(bytes)| Self(bytes)).map_err(|error| UnitError {
            text: text.into(),
            remedy,
            ..error
        })
    }
}

/// Reads `90s`, `1h30m`, `30d`, `250ms`, and a plain number, which is in seconds: `60`, `0.2`.
///
/// A day has 24 hours. Months and years have no fixed length and are refused.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error =
        |problem| UnitError { text: text.into(), problem, remedy: "write a duration like 0.2, 90s, 1h30m or 30d" };
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(error("empty"));
    }
    let is_plain_number = trimmed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    // The 0 is for `.5`.
    let span = if is_plain_number { format!("0{trimmed}s").parse::<Span>() } else { trimmed.parse::<Span>() };
    let span = span.map_err(|_| error("not a duration"))?;
    if span.is_negative() {
        return Err(error("negative"));
    }
    let duration =
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| error("of no fixed length, or too long"))?;
    Duration::try_from(duration).map_err(|_| error("not a duration"))
}

/// The two largest units, for people: `0.8s`, `45s`, `2m 13s`, `1h 5m`, `2d 3h`.
pub fn human_duration(duration: Duration) -> String {
    // Rounded first: 59.96 s would read "60.0s".
    if duration < Duration::from_millis(9_950) {
        return format!("{:.1}s", duration.as_secs_f64());
    }
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_millis() >= 500));
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit} {small}{small_unit}"),
    };
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3_600 => two(minutes, "m", seconds % 60, "s"),
        3_600..86_400 => two(hours, "h", minutes, "m"),
        _ => two(days, "d", hours, "h"),
    }
}

/// What was written is no size, rate or duration, and what would be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError {
    text: String,
    problem: &'static str,
    remedy: &'static str,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is {}; {}", self.text, self.problem, self.remedy)
    }
}

impl std::error::Error for UnitError {}

/// The first of many names, and how many more there are: `a, b, and 7 more`.
pub fn first_few(names: &[impl AsRef<str>], most: usize) -> String {
    first_few_of(names, names.len(), most, ", ")
}

/// The same where only the first of `count` are at hand, or where commas would mislead: `a; b; and 7 more`.
pub fn first_few_of(names: &[impl AsRef<str>], count: usize, most: usize, separator: &str) -> String {
    let shown = names.iter().take(most).map(AsRef::as_ref).collect::<Vec<_>>().join(separator);
    match count.saturating_sub(most) {
        0 => shown,
        more => format!("{shown}{separator}and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(text: &str) -> Result<u64, String> {
        text.parse::<ByteSize>().map(ByteSize::bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_take_binary_and_decimal_units_fractions_and_plain_bytes() {
        assert_eq!(size("16MiB"), Ok(16 << 20));
        assert_eq!(size("500MB"), Ok(500_000_000));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert_eq!(size(" 7 KiB "), Ok(7 << 10));
        assert_eq!(size("123"), Ok(123));
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("9007199254740993B"), Ok(9_007_199_254_740_993), "no detour over f64");
    }

    #[test]
    fn a_wrong_size_names_the_remedy() {
        let remedy = "write a size like 16MiB, 500MB or 1.5GiB";
        assert_eq!(size(""), Err(format!(r#""" is empty; {remedy}"#)));
        assert_eq!(size("16 apples"), Err(format!(r#""16 apples" is not a size; {remedy}"#)));
        assert_eq!(size("-1MiB"), Err(format!(r#""-1MiB" is negative; {remedy}"#)));
        assert_eq!(size("99999999EiB"), Err(format!(r#""99999999EiB" is too large; {remedy}"#)));
        assert_eq!(size("1.2.3MiB"), Err(format!(r#""1.2.3MiB" is not a size; {remedy}"#)));
    }

    #[test]
    fn sizes_are_printed_exactly_and_for_people() {
        assert_eq!(ByteSize::mib(16).to_string(), "16MiB");
        assert_eq!(ByteSize(0).to_string(), "0B");
        assert_eq!(ByteSize(5_000_001).to_string(), "5000001B");
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (999, "999 B"),
            (1536, "1.5 KiB"),
            (1_503_238_554, "1.4 GiB"),
            (128 << 20, "128 MiB"),
            (GIB - 1, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(ByteSize(bytes).human(), text, "{bytes}");
        }
    }

    #[test]
    fn rates_may_say_a_second() {
        assert_eq!("50MiB".parse(), Ok(Rate(50 << 20)));
        assert_eq!("50MiB/s".parse(), Ok(Rate(50 << 20)));
        assert_eq!(Rate(50 << 20).to_string(), "50MiB/s");
        assert_eq!(Rate(140 << 20).human(), "140 MiB/s");
        assert_eq!(Rate::of(100, Duration::ZERO), Rate(0));
        assert_eq!(Rate::of(300, Duration::from_secs(2)), Rate(150));
        let error = "fast".parse::<Rate>().expect_err("no rate");
        assert_eq!(error.to_string(), r#""fast" is not a size; write bytes a second, like 50MiB or 50MiB/s"#);
    }

    #[test]
    fn durations_take_units_and_plain_seconds() {
        for (text, milliseconds) in [
            ("90s", 90_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("0.2", 200),
            ("0.2s", 200),
            (".5", 500),
            ("1", 1_000),
            ("60", 60_000),
            ("250ms", 250),
            ("30d", 30 * 86_400_000),
            ("2w", 14 * 86_400_000),
            ("1.5h", 5_400_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn a_wrong_duration_names_the_remedy() {
        for (text, problem) in [
            ("", "empty"),
            ("soon", "not a duration"),
            ("1.2.3", "not a duration"),
            ("-5s", "negative"),
            ("5s ago", "negative"),
            ("1 month", "of no fixed length, or too long"),
            ("99999999999999999999", "not a duration"),
        ] {
            let error = parse_duration(text).expect_err(text).to_string();
            assert_eq!(error, format!("{text:?} is {problem}; write a duration like 0.2, 90s, 1h30m or 30d"));
        }
    }

    #[test]
    fn durations_are_printed_in_two_units() {
        for (milliseconds, text) in [
            (0, "0.0s"),
            (800, "0.8s"),
            (9_949, "9.9s"),
            (9_950, "10s"),
            (59_499, "59s"),
            (59_500, "1m"),
            (133_000, "2m 13s"),
            (3_900_000, "1h 5m"),
            (3_600_000, "1h"),
            (183_600_000, "2d 3h"),
        ] {
            assert_eq!(human_duration(Duration::from_millis(milliseconds)), text, "{milliseconds}");
        }
        assert_eq!(human_duration(Duration::MAX), "213503982334601d 7h");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".*", near in "[0-9.]{0,25} ?[a-zA-Zµ/]{0,5}[0-9]{0,12}[a-z]{0,3}") {
            for text in [text, near] {
                let _ = text.parse::<ByteSize>();
                let _ = text.parse::<Rate>();
                let _ = parse_duration(&text);
            }
        }

        #[test]
        fn a_printed_size_reads_back(bytes in 0..u64::MAX) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
            prop_assert_eq!(Rate(bytes).to_string().parse(), Ok(Rate(bytes)));
        }

        #[test]
        fn whole_milliseconds_read_back(milliseconds in 0..10_000_000_000_u64) {
            let expected = Ok(Duration::from_millis(milliseconds));
            prop_assert_eq!(parse_duration(&format!("{milliseconds}ms")), expected.clone());
            prop_assert_eq!(parse_duration(&format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)), expected);
        }

        #[test]
        fn formatters_never_panic(bytes: u64, seconds: u64, nanoseconds in 0..1_000_000_000_u32) {
            let _ = ByteSize(bytes).human();
            let _ = human_duration(Duration::new(seconds, nanoseconds));
        }
    }
}
