//! Which dump this is, and which file.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde::{Deserialize, Serialize};

use super::etag::Md5Digest;

/// What tells one state of one file from any other: another file under the same name, or the same file written again,
/// differs in at least one of these. Times are nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The filesystem.
    pub device: u64,
    /// The inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// `mtime`.
    pub modified: i64,
    /// `ctime`: also moves when `mtime` is set back by hand.
    pub changed: i64,
}

/// Which dump this is: two dumps never have the same identity, and a restart finds the same again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpIdentity {
    /// The host's name.
    pub host: String,
    /// What mydumper wrote behind `Started dump at:`; its local time.
    pub started: String,
    /// The inode of `metadata.partial`, which the final rename keeps.
    pub inode: u64,
    /// When that inode was born, in nanoseconds since 1970; absent where the filesystem does not say.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "birth")]
    pub born: Option<i128>,
}

/// Birth times travel as text: JSON numbers lose digits beyond 2^53 in many readers.
mod birth {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(born: &Option<i128>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&born.unwrap_or_default())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i128>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

impl DumpIdentity {
    /// A short form for user metadata of objects and for logs.
    pub fn id(&self) -> String {
        let Self { host, started, inode, born } = self;
        Md5Digest::of(format!("{host}\n{started}\n{inode}\n{born:?}").as_bytes()).to_string()
    }

    /// When the dump began, in UTC, as well as it can be told.
    ///
    /// mydumper writes its local time without a zone, and its zone need not be ours (another container, another TZ).
    /// The birth of `metadata.partial` is the same moment in UTC, so their difference, a whole number of quarters of
    /// an hour, is mydumper's offset. Where that does not fit (a copied directory, no birth time) our own zone is
    /// taken; where the line cannot be read, the birth time; `now` is the last resort.
    pub fn started_at(&self, local: Option<civil::DateTime>, zone: &TimeZone, now: Timestamp) -> Timestamp {
        let born = self.born.and_then(|born| Timestamp::from_nanosecond(born).ok());
        let Some(local) = local else {
            return born.unwrap_or(now);
        };
        let as_utc = local.to_zoned_datetime(TimeZone::UTC).map(|zoned| zoned.timestamp()).ok();
        if let (Some(born), Some(as_utc)) = (born, as_utc)
            && let Some(offset) = quarter_hour_offset(as_utc.as_second() - born.as_second())
            && let Ok(started) = Timestamp::from_second(as_utc.as_second() - offset)
        {
            return started;
        }
        local.to_zoned_datetime(zone.clone()).map(|zoned| zoned.timestamp()).ok().or(born).unwrap_or(now)
    }
}

/// How far a local time may be from UTC, in nanoseconds.
pub const WIDEST_ZONE: i128 = 14 * 3600 * 1_000_000_000;
/// `Started dump at:` is written within a second of the file's birth, and to the second.
const SAME_MOMENT: i128 = 2 * 1_000_000_000;

fn in_zone(local: Option<civil::DateTime>, zone: TimeZone) -> Option<i128> {
    local?.to_zoned_datetime(zone).ok().map(|zoned| zoned.timestamp().as_nanosecond())
}

impl DumpIdentity {
    /// Since when files are this dump's, if nobody saw it alive; nanoseconds since 1970.
    ///
    /// The birth of its lead tells exactly, if it is the dump's own: the lead was changed after it, and it is the moment
    /// that its first line tells, in our zone or in UTC. The birth of a copy (`cp -a`, at once or much later) is not;
    /// then the line tells, less the widest zone, since which one it is written in is not known.
    pub fn began_at_rest(&self, local: Option<civil::DateTime>, zone: &TimeZone, lead_changed: i128) -> Option<i128> {
        let utc = in_zone(local, TimeZone::UTC)?;
        Some(self.own_birth(local, zone, lead_changed).unwrap_or(utc - WIDEST_ZONE))
    }

    /// Since when an exit status of such a dump may have been written down, likewise. Where its birth is a copy's: since
    /// the last change of its lead, which a copy keeps or makes later, and after which mydumper ends.
    pub fn exits_at_rest(&self, local: Option<civil::DateTime>, zone: &TimeZone, lead_changed: i128) -> i128 {
        self.own_birth(local, zone, lead_changed).unwrap_or(lead_changed - SAME_MOMENT)
    }

    fn own_birth(&self, local: Option<civil::DateTime>, zone: &TimeZone, lead_changed: i128) -> Option<i128> {
        let (utc, ours) = (in_zone(local, TimeZone::UTC)?, in_zone(local, zone.clone()));
        self.born.filter(|born| {
            let is_then = |moment: i128| (*born - moment).abs() <= SAME_MOMENT;
            *born < lead_changed && (is_then(utc) || ours.is_some_and(is_then))
        })
    }
}

/// The offset from UTC that a difference of clocks amounts to, in seconds: the nearest quarter of an hour, if the
/// difference lies within five minutes of it and it is one that exists on Earth (-12 h to +14 h).
fn quarter_hour_offset(difference: i64) -> Option<i64> {
    const QUARTER: i64 = 15 * 60;
    const TOLERANCE: i64 = 5 * 60;
    let offset = (difference + QUARTER / 2).div_euclid(QUARTER) * QUARTER;
    let exists = (-12 * 3600..=14 * 3600).contains(&offset);
    (exists && (difference - offset).abs() <= TOLERANCE).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(born: Option<&str>) -> DumpIdentity {
        let born = born.map(|born| born.parse::<Timestamp>().expect("a time").as_nanosecond());
        DumpIdentity { host: "db1".into(), started: "2026-11-22 02:00:01".into(), inode: 7, born }
    }

    fn started_at(born: Option<&str>, local: Option<civil::DateTime>) -> String {
        let now = "2026-12-24T00:00:00Z".parse().expect("a time");
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        identity(born).started_at(local, &zone, now).to_string()
    }

    #[test]
    fn the_start_in_utc_comes_from_line_and_birth_together() {
        let line = Some(civil::date(2026, 11, 22).at(2, 0, 1, 0));
        // mydumper in India, we elsewhere
        assert_eq!(started_at(Some("2026-11-21T20:30:00.9Z"), line), "2026-11-21T20:30:01Z");
        assert_eq!(started_at(Some("2026-11-22T02:00:01Z"), line), "2026-11-22T02:00:01Z");
        // a copied directory, or no birth time: our zone
        assert_eq!(started_at(Some("2026-11-29T02:07:01Z"), line), "2026-11-22T01:00:01Z");
        assert_eq!(started_at(None, line), "2026-11-22T01:00:01Z");
        // an unreadable line
        assert_eq!(started_at(Some("2026-11-22T02:00:01Z"), None), "2026-11-22T02:00:01Z");
        assert_eq!(started_at(None, None), "2026-12-24T00:00:00Z");
    }

    #[test]
    fn a_dump_at_rest_began_at_its_birth_or_a_day_before_a_copys() {
        let line = Some(civil::date(2026, 11, 22).at(2, 0, 1, 0));
        let at = |time: &str| time.parse::<Timestamp>().expect("a time").as_nanosecond();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let began = |born: Option<&str>, changed: &str| identity(born).began_at_rest(line, &zone, at(changed));
        let careful = Some(at("2026-11-21T12:00:01Z"));
        for born in ["2026-11-22T02:00:01.5Z", "2026-11-22T01:00:02.9Z"] {
            assert_eq!(began(Some(born), "2026-11-22T02:07:00Z"), Some(at(born)), "{born}");
            assert_eq!(began(Some(born), born), careful, "a copy made in the dump's first second");
        }
        // `cp -a` keeps the time of the change and not that of the birth.
        assert_eq!(began(Some("2026-11-22T02:07:05Z"), "2026-11-22T02:07:00Z"), careful);
        assert_eq!(began(Some("2026-11-22T05:00:00Z"), "2026-11-22T02:07:00Z"), careful);
        // another copy, that keeps no time; a dump from another zone; no birth
        assert_eq!(began(Some("2026-11-22T05:00:00Z"), "2026-11-22T05:00:01Z"), careful);
        assert_eq!(began(Some("2026-11-21T20:30:01Z"), "2026-11-22T02:07:00Z"), careful);
        assert_eq!(began(None, "2026-11-22T02:07:00Z"), careful);
        assert_eq!(identity(None).began_at_rest(None, &zone, 0), None);
    }

    #[test]
    fn the_identity_survives_json_and_each_of_its_parts_counts() {
        let one = identity(Some("2026-11-22T02:00:01.123456789Z"));
        let text = serde_json::to_string(&one).expect("json");
        assert_eq!(serde_json::from_str::<DumpIdentity>(&text).expect("an identity"), one);
        let other = DumpIdentity { inode: 8, ..one.clone() };
        assert_ne!(one.id(), other.id());
        assert_ne!(one.id(), identity(None).id());
        let text = serde_json::to_string(&identity(None)).expect("json");
        assert_eq!(serde_json::from_str::<DumpIdentity>(&text).expect("an identity"), identity(None));
    }
}
