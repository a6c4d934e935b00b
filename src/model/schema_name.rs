//! The name of what a schema file makes, by its first `CREATE` statement.
//!
//! mydumper makes names up for files where the real one is odd: `mydumper_0-schema-create.sql` holds a database,
//! `shop.mydumper_3-schema.sql` a table, a sequence, or the table that stands in for a view. Only the file itself, and in
//! some versions `metadata`, say what it is called. Seen in 0.12.7 to 1.0.1:
//! ``CREATE DATABASE /*!32312 IF NOT EXISTS*/ `odd db` …``, ``CREATE TABLE IF NOT EXISTS `a.b`(``.

/// What can be between `CREATE` and the name, beside comments.
const WORDS: [&str; 9] = ["DATABASE", "TABLE", "VIEW", "SEQUENCE", "OR", "REPLACE", "IF", "NOT", "EXISTS"];

/// The name that the first `CREATE` statement of a schema file makes, without its quotes; where it is `a`.`b`, `b`.
pub fn created_name(text: &str) -> Option<String> {
    let mut rest = statement(text)?;
    loop {
        rest = without_comments(rest);
        match rest.chars().next()? {
            quote @ ('`' | '"') => {
                let (name, after) = until_quote(&rest[1..], quote)?;
                match without_comments(after).strip_prefix('.') {
                    Some(qualified) => rest = qualified,
                    None => return Some(name),
                }
            }
            _ => {
                let (word, after) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_alphabetic())?);
                // A name without quotes is one that no file name needs to hide.
                WORDS.iter().find(|known| known.eq_ignore_ascii_case(word))?;
                rest = after;
            }
        }
    }
}

/// What follows the first `CREATE` that begins a line.
fn statement(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        if let Some(("CREATE", after)) = rest.split_at_checked("CREATE".len()) {
            return Some(after);
        }
        rest = &rest[rest.find('\n')? + 1..];
    }
}

/// Without spaces and comments at the start, `/*!32312 IF NOT EXISTS*/` among them.
fn without_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    while let Some(comment) = rest.strip_prefix("/*") {
        let Some(end) = comment.find("*/") else { return "" };
        rest = comment[end + 2..].trim_start();
    }
    rest
}

/// A name up to its quote, which is doubled within it; and what follows.
pub(super) fn until_quote(text: &str, quote: char) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find(quote)?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(quote) {
            Some(after) => {
                name.push(quote);
                rest = after;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_found_as_mydumper_writes_them() {
        for (text, name) in [
            (
                "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `odd.db` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;\n",
                "odd.db",
            ),
            ("CREATE DATABASE IF NOT EXISTS `a b`;\n", "a b"),
            (
                "/*!40101 SET NAMES binary*/;\n/*!40014 SET FOREIGN_KEY_CHECKS=0*/;\n\nCREATE TABLE `x/y` (\n  `id` int\n);",
                "x/y",
            ),
            ("/*!40101 SET NAMES binary*/;\nCREATE TABLE IF NOT EXISTS `v``1`(\n`n` int\n) ENGINE=MEMORY;\n", "v`1"),
            ("CREATE SEQUENCE `s.1` start with 1;", "s.1"),
            ("CREATE TABLE \"qu\"\"ote\" (\"a\" int);", "qu\"ote"),
            ("CREATE OR REPLACE TABLE `shop`.`a.b` (", "a.b"),
            ("CREATE TABLE `ü` (", "ü"),
        ] {
            assert_eq!(created_name(text).as_deref(), Some(name), "{text}");
        }
    }

    #[test]
    fn what_makes_nothing_has_no_name() {
        for text in [
            "",
            "CREATE",
            "CREATE TABLE `",
            "CREATE TABLE t (",
            "DROP TABLE IF EXISTS `a`;\n",
            "-- CREATE TABLE `a` (",
            "CREATE DEFINER=`root`@`localhost` TRIGGER `a`",
            "CREATE TABLE /* `a`",
        ] {
            assert_eq!(created_name(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_name_comes_out_as_it_went_in(name in "\\PC{1,40}") {
            let text = format!("/*!40101 SET NAMES binary*/;\nCREATE TABLE `{}` (\n", name.replace('`', "``"));
            prop_assert_eq!(created_name(&text), Some(name));
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC*") {
            created_name(&text);
        }
    }
}
