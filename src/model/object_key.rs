//! Where a dump lives in the bucket: the prefix, and the keys under it.

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::file_name::{BadName, FileName, MANIFEST};
use super::series::Series;

/// S3's limit for a key, in bytes of UTF-8.
pub const KEY_LENGTH_MAX: usize = 1024;

/// The default: one directory a host, and in it one a dump, so that a nightly job needs no `--prefix`.
pub const DEFAULT_PREFIX: &str = "{host}/%Y-%m-%dT%H%M%SZ";

/// Where a store is tried, below a dump's place or what the series has in common.
const TRIAL: &str = "mydumper2s3-trial/object";

/// What was typed as `--prefix`: text with `{host}` and strftime fields, checked but not yet expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixTemplate(String);

/// A prefix with everything filled in: a directory in the bucket, without its last `/`. Empty is the bucket's root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(String);

/// A prefix that cannot be one, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPrefix {
    text: String,
    why: String,
}

impl fmt::Display for BadPrefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "prefix '{}' {}", self.text.escape_default(), self.why)
    }
}

impl std::error::Error for BadPrefix {}

impl PrefixTemplate {
    /// Whether it holds nothing to fill in, so that every dump would go to the same place.
    pub fn is_fixed(&self) -> bool {
        !self.0.contains(['%', '{'])
    }

    /// Fills in host and time. Characters of the host name that have a meaning in a key become `-`.
    pub fn expand(&self, host: &str, started: Timestamp) -> Result<Prefix, BadPrefix> {
        let time = started.to_zoned_datetime(TimeZone::UTC);
        let with_time = jiff::fmt::strtime::format(&self.0, &time)
            .map_err(|error| self.bad(format!("has a time field that cannot be filled in: {error}")))?;
        // The host comes second: a % in its name is not a time field.
        with_time.replace("{host}", &host_segment(host)).parse()
    }

    /// Whether a dump that begins a second later goes to another place.
    pub fn tells_seconds(&self) -> bool {
        let at = |second| self.expand("host", Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second));
        at(0) != at(1)
    }

    /// The key of an object that a store may be tried with: where the series begins, in a directory of its own, so that it
    /// is in no dump's way, should it stay.
    pub fn trial_key(&self, host: &str) -> String {
        self.fixed_directory(host) + TRIAL
    }

    /// What the keys of all its dumps begin with, up to a `/`.
    pub fn fixed_directory(&self, host: &str) -> String {
        let segments = self.0.trim_matches('/').split('/').take_while(|segment| !segment.is_empty());
        let fixed = segments.take_while(|segment| !segment.replace("%%", "").contains('%'));
        let fixed = fixed.map(|segment| segment.replace("%%", "%").replace("{host}", &host_segment(host)) + "/");
        fixed.collect()
    }

    /// The series of the dumps that go there, where a time field tells the one from the other.
    pub fn series(&self, host: &str) -> Option<Series> {
        // `%%` is a percent sign. No text has this character: control characters are refused.
        let plain = self.0.replace("%%", "\u{1}");
        if !plain.contains('%') {
            return None;
        }
        let host = host_segment(host);
        let fixed = |text: &str| text.replace('\u{1}', "%").replace("{host}", &host);
        let cut = |segment: &str| match (segment.find('%'), segment.rfind('%')) {
            (Some(first), Some(last)) => (fixed(&segment[..first]), fixed(behind_field(&segment[last..]))),
            _ => (fixed(segment), String::new()),
        };
        let segments: Vec<_> = plain.trim_matches('/').split('/').map(cut).collect();
        Some(Series::of_segments(segments.iter().map(|(before, behind)| (before.as_str(), behind.as_str()))))
    }

    fn bad(&self, why: String) -> BadPrefix {
        BadPrefix { text: self.0.clone(), why }
    }
}

/// A host's name as a part of a key.
fn host_segment(host: &str) -> String {
    host.chars().map(|c| if c == '/' || c.is_control() { '-' } else { c }).collect()
}

/// What follows a time field: `%`, flags and a width, and the letter.
fn behind_field(field: &str) -> &str {
    let end = field.char_indices().skip(1).find(|(_, c)| c.is_ascii_alphabetic()).map(|(at, c)| at + c.len_utf8());
    &field[end.unwrap_or(field.len())..]
}

impl std::str::FromStr for PrefixTemplate {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let template = Self(text.to_owned());
        let rest = text.replace("{host}", "");
        if rest.contains(['{', '}']) {
            return Err(template.bad("has a field in braces that is not {host}".into()));
        }
        // Filling it in once shows bad fields and bad characters now, not when the dump starts.
        template.expand("host", Timestamp::UNIX_EPOCH)?;
        Ok(template)
    }
}

impl fmt::Display for PrefixTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Prefix {
    /// The key of a file of the dump.
    pub fn key(&self, name: &FileName) -> Result<String, BadName> {
        self.check(name.as_str())?;
        Ok(self.join(name.as_str()))
    }

    /// Whether a file of that name has a key here.
    pub fn check(&self, name: &str) -> Result<(), BadName> {
        if name == MANIFEST {
            return Err(BadName::Reserved);
        }
        let directory_length = if self.0.is_empty() { 0 } else { self.0.len() + 1 };
        if directory_length + name.len() > KEY_LENGTH_MAX {
            return Err(BadName::TooLong);
        }
        Ok(())
    }

    /// The key of the manifest.
    pub fn manifest_key(&self) -> String {
        self.join(MANIFEST)
    }

    /// What every key of the dump starts with: the prefix and a `/`, or nothing for the bucket's root.
    pub fn directory(&self) -> String {
        self.join("")
    }

    /// The key of an object that a store may be tried with in a dump's place: deeper than its files, so it is none of them.
    pub fn trial_key(&self) -> String {
        self.join(TRIAL)
    }

    /// The place of the `n`th dump of one second, from 2 on.
    pub fn beside(&self, n: u32) -> Result<Self, BadPrefix> {
        format!("{self}-{n}").parse()
    }

    /// The prefix as text, without its last `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn join(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { format!("{}/{name}", self.0) }
    }
}

impl std::str::FromStr for Prefix {
    type Err = BadPrefix;

    /// Slashes at both ends are dropped. Empty, `.` and `..` segments are refused: stores and tools differ in what
    /// they make of them.
    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let bad = |why: &str| Err(BadPrefix { text: text.to_owned(), why: why.to_owned() });
        let trimmed = text.trim_matches('/');
        if trimmed.is_empty() {
            return Ok(Self(String::new()));
        }
        if trimmed.chars().any(char::is_control) {
            return bad("has a control character");
        }
        if trimmed.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return bad("has an empty, '.' or '..' segment");
        }
        if trimmed.len() + 1 + MANIFEST.len() > KEY_LENGTH_MAX {
            return bad("leaves no room for a file name within the 1,024 bytes of an S3 key");
        }
        Ok(Self(trimmed.to_owned()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(template: &str) -> Result<String, BadPrefix> {
        let started = "2026-11-22T02:03:04Z".parse().expect("a time");
        let template: PrefixTemplate = template.parse()?;
        template.expand("db1", started).map(|prefix| prefix.to_string())
    }

    #[test]
    fn host_and_time_are_filled_in() {
        assert_eq!(expand(DEFAULT_PREFIX), Ok("db1/2026-11-22T020304Z".into()));
        assert_eq!(expand("/nightly/%Y/"), Ok("nightly/2026".into()));
        assert_eq!(expand("100%%"), Ok("100%".into()));
        assert_eq!(expand(""), Ok(String::new()));
    }

    #[test]
    fn the_series_is_what_is_fixed_in_a_template() {
        let series = |template: &str| {
            let template: PrefixTemplate = template.parse().expect("a template");
            template.series("db1").map(|series| series.as_str().to_owned())
        };
        for (template, expected) in [
            (DEFAULT_PREFIX, Some("db1")),
            ("nightly/shop-%Y-%m-%d", Some("nightly/shop")),
            ("nightly/%Y-%m-%dT%H%M%SZ-shop", Some("nightly/shop")),
            ("/%Y/%m/%d/crm/", Some("crm")),
            ("{host}-%-d/100%%", Some("db1/100%")),
            ("%Y-%m-%d", Some("")),
            ("weekly/%A", Some("weekly")),
            ("{host}/latest", None),
            ("100%%", None),
        ] {
            assert_eq!(series(template).as_deref(), expected, "{template}");
        }
    }

    #[test]
    fn dumps_of_one_second_stand_side_by_side_in_one_series() {
        for (template, tells) in
            [(DEFAULT_PREFIX, true), ("nightly/%s", true), ("nightly/%Y-%m-%dT%H%MZ", false), ("{host}/latest", false)]
        {
            let template: PrefixTemplate = template.parse().expect("a template");
            assert_eq!(template.tells_seconds(), tells, "{template}");
        }
        let template: PrefixTemplate = DEFAULT_PREFIX.parse().expect("a template");
        let first = template.expand("db1", "2026-11-22T02:03:04Z".parse().expect("a time")).expect("a prefix");
        let second = first.beside(2).expect("a prefix");
        assert_eq!(second.as_str(), "db1/2026-11-22T020304Z-2");
        assert_eq!(Series::of_place(&second), Series::of_place(&first));
        assert!(Prefix("x".repeat(KEY_LENGTH_MAX - MANIFEST.len() - 1)).beside(2).is_err(), "no room");
    }

    #[test]
    fn what_a_store_is_tried_with_is_in_no_dumps_way() {
        for (template, key) in [
            ("", "mydumper2s3-trial/object"),
            ("%Y-%m-%d", "mydumper2s3-trial/object"),
            ("{host}/%Y-%m-%d", "db1/mydumper2s3-trial/object"),
            ("backups/50%%/{host}-%Y", "backups/50%/mydumper2s3-trial/object"),
            ("/backups/last/", "backups/last/mydumper2s3-trial/object"),
        ] {
            let template: PrefixTemplate = template.parse().expect("a template");
            assert_eq!(template.trial_key("db1"), key, "{template}");
        }
    }

    #[test]
    fn the_series_of_a_template_is_that_of_its_places() {
        for text in [DEFAULT_PREFIX, "nightly/shop-%Y-%m-%d", "nightly/%Y-%m-%dT%H%M%SZ-shop", "%Y/%m/%d/crm"] {
            let template: PrefixTemplate = text.parse().expect("a template");
            let prefix = template.expand("db1", "2026-11-22T02:03:04Z".parse().expect("a time")).expect("a prefix");
            assert_eq!(template.series("db1"), Some(Series::of_place(&prefix)), "{text}");
        }
    }

    #[test]
    fn bad_templates_are_refused_when_they_are_typed() {
        for template in ["a//b", "a/../b", "{hots}/x", "a\nb", "%", "%!", &"x".repeat(1020)] {
            assert!(expand(template).is_err(), "{template}");
        }
    }

    #[test]
    fn a_host_name_cannot_leave_its_segment() {
        let template: PrefixTemplate = "{host}/x".parse().expect("a template");
        let prefix = template.expand("../a%Yb", Timestamp::UNIX_EPOCH).expect("a prefix");
        assert_eq!(prefix.as_str(), "..-a%Yb/x");
    }

    #[test]
    fn keys_lie_directly_under_the_prefix() {
        let name = "db.t.sql".parse().expect("a name");
        let prefix: Prefix = "a/b".parse().expect("a prefix");
        assert_eq!(prefix.key(&name), Ok("a/b/db.t.sql".into()));
        let root: Prefix = "".parse().expect("a prefix");
        assert_eq!(root.key(&name), Ok("db.t.sql".into()));
        assert_eq!(root.directory(), "");
        assert_eq!(root.key(&MANIFEST.parse().expect("a name")), Err(BadName::Reserved));
        let long: Prefix = "p".repeat(1000).parse().expect("a prefix");
        assert_eq!(long.key(&"x".repeat(30).parse().expect("a name")), Err(BadName::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".*") {
            let _ = text.parse::<Prefix>();
            let _ = text.parse::<PrefixTemplate>();
        }
    }
}
