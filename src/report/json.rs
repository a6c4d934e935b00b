//! One object a line, its names in the order in which they were given: the time first, as a person reads it.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Names and values of a flat object.
pub type Fields = Vec<(&'static str, Value)>;

/// The object as a line, with the time. A name that is given twice counts the first time.
pub fn line(now: Timestamp, fields: Fields) -> String {
    let mut all: Fields = vec![("timestamp", timestamp(now, 3).into())];
    for (name, value) in fields {
        if all.iter().all(|(other, _)| *other != name) {
            all.push((name, value));
        }
    }
    // Text, numbers and lists of text always have a JSON form.
    serde_json::to_string(&Ordered(all)).unwrap_or_default()
}

struct Ordered(Fields);

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// RFC 3339 in UTC.
pub fn timestamp(now: Timestamp, digits: usize) -> String {
    format!("{now:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_order_and_are_there_once() {
        let now = Timestamp::from_second(1_795_340_000).expect("a time");
        let fields = vec![("b", 1.into()), ("a", Value::Null), ("b", 2.into()), ("timestamp", "forged".into())];
        assert_eq!(line(now, fields), r#"{"timestamp":"2026-11-22T09:33:20.000Z","b":1,"a":null}"#);
    }
}
