//! What a person picks out of the bucket: tables, a time, a manifest by its hash.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use super::destination::{BadValue, bad, text_type};
use super::schema_name::until_quote;

/// `shop.orders` or `crm.*`: real names, with `*` for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePattern {
    pub database: String,
    pub table: String,
}

impl TablePattern {
    pub fn matches(&self, database: &str, table: &str) -> bool {
        glob(&self.database, database) && glob(&self.table, table)
    }

    /// Whether it means all tables of a database: then what belongs to no table is meant, too.
    pub fn is_whole_database(&self, database: &str) -> bool {
        self.table == "*" && glob(&self.database, database)
    }
}

/// `*` stands for any text. Each literal piece is taken where it is found first, which is right for `*` alone.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(found) = text.find(piece) else {
            return false;
        };
        text = &text[found + piece.len()..];
    }
    text.ends_with(end)
}

impl FromStr for TablePattern {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        // MySQL allows a dot in both names; a database with one is rare, a table with one less so.
        let text = text.trim();
        let parts = match text.strip_prefix('`') {
            Some(quoted) => until_quote(quoted, '`').and_then(|(name, rest)| Some((name, rest.strip_prefix('.')?))),
            None => text.split_once('.').map(|(database, table)| (database.to_owned(), table)),
        };
        match parts.map(|(database, table)| (database, without_quotes(table))) {
            Some((database, table)) if !database.is_empty() && !table.is_empty() => Ok(Self { database, table }),
            _ => bad("write tables as database.table, like shop.orders, crm.* or `odd.db`.orders"),
        }
    }
}

fn without_quotes(name: &str) -> String {
    match name.strip_prefix('`').and_then(|quoted| until_quote(quoted, '`')) {
        Some((unquoted, "")) => unquoted,
        _ => name.to_owned(),
    }
}

/// A SHA-256 in hexadecimal, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sha256Hex(String);
text_type!(Sha256Hex);

impl FromStr for Sha256Hex {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.trim() {
            hex if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(Self(hex.to_ascii_lowercase())),
            _ => bad("a SHA-256 has 64 hexadecimal digits; it was printed at the end of the upload"),
        }
    }
}

/// Reads a moment: `2026-11-22T03:00:00Z`, `2026-11-22 03:00` or `2026-11-22`, in UTC where no offset is given,
/// as prefixes and lists are.
pub fn parse_time(text: &str) -> Result<Timestamp, BadValue> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse() {
        return Ok(timestamp);
    }
    let in_utc = text.parse::<civil::DateTime>().ok().and_then(|time| time.to_zoned_datetime(TimeZone::UTC).ok());
    match in_utc {
        Some(time) => Ok(time.timestamp()),
        None => bad("write a time like 2026-11-22, 2026-11-22T03:00 (UTC) or 2026-11-22T03:00:00+01:00"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tables_are_matched_by_both_names() {
        let matches =
            |pattern: &str, database, table| pattern.parse::<TablePattern>().expect(pattern).matches(database, table);
        assert!(matches("shop.orders", "shop", "orders"));
        assert!(!matches("shop.orders", "shop", "orders2"));
        assert!(matches("crm.*", "crm", "a.b"));
        assert!(matches("*.log_*_old", "x", "log_2026_old"));
        assert!(!matches("*.log_*_old", "x", "log_old"));
        assert!(matches("a.b.c", "a", "b.c"));
        for bad in ["shop", "", ".", "shop.", ".orders"] {
            assert!(bad.parse::<TablePattern>().is_err(), "{bad:?}");
        }
        assert!(matches("`odd.db`.a.b", "odd.db", "a.b") && matches("`odd.db`.*", "odd.db", "x"));
        assert!(matches("`a``b`.`c``d`", "a`b", "c`d") && matches("shop.`a.b`", "shop", "a.b"));
        for bad in ["`odd.db`", "`odd.db`orders", "`odd.db.orders", "``.orders", "`a`."] {
            assert!(bad.parse::<TablePattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_in_utc_unless_they_say_otherwise() {
        for (text, expected) in [
            ("2026-11-22", "2026-11-22T00:00:00Z"),
            ("2026-11-22T03:00", "2026-11-22T03:00:00Z"),
            ("2026-11-22 03:00:05", "2026-11-22T03:00:05Z"),
            ("2026-11-22T03:00:00+01:00", "2026-11-22T02:00:00Z"),
        ] {
            assert_eq!(parse_time(text).map(|time| time.to_string()), Ok(expected.into()), "{text}");
        }
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn a_hash_has_64_digits() {
        let hash = "AB".repeat(32);
        assert_eq!(hash.parse::<Sha256Hex>().expect("a hash").as_str(), "ab".repeat(32));
        assert!("ab".parse::<Sha256Hex>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".*", pattern in "[a*]{0,6}\\.[a*ä]{0,6}") {
            let _ = parse_time(&text);
            let _ = text.parse::<TablePattern>();
            let _ = pattern.parse::<TablePattern>().map(|pattern| pattern.matches(&text, "aäa"));
        }
    }
}
