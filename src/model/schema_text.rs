//! The text of a table's schema file: `SHOW CREATE TABLE` as the server writes it, one part a line.

use std::collections::BTreeSet;

/// The text without foreign keys to tables that `is_there` does not know: those that name another database, and those to a
/// table that is not loaded beside this one. What is no foreign key stays byte for byte.
pub fn without_foreign_keys(text: &str, is_there: impl Fn(&str) -> bool) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let leaves = |line: &str| referenced(line).is_some_and(|(is_elsewhere, table)| is_elsewhere || !is_there(&table));
    lines.retain(|line| !leaves(line));
    let mut kept = String::with_capacity(text.len());
    for (at, line) in lines.iter().enumerate() {
        let closes = lines.get(at + 1).is_some_and(|next| next.starts_with(')'));
        match line.strip_suffix('\n').and_then(|line| line.strip_suffix(',')) {
            // It was not the last one before.
            Some(line) if closes => kept.extend([line, "\n"]),
            _ => kept.push_str(line),
        }
    }
    kept
}

/// The collations that a text names, in lower case; what stands in quotes names none.
pub fn collations(text: &str) -> BTreeSet<String> {
    let mut bare = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if !matches!(c, '\'' | '"' | '`') {
            bare.push(c.to_ascii_lowercase());
            continue;
        }
        while let Some(inner) = rest.next() {
            match inner {
                '\\' if c != '`' => drop(rest.next()),
                // Twice is once, and in it.
                _ if inner == c && rest.next_if_eq(&c).is_none() => break,
                _ => {}
            }
        }
        // So that what stands on both sides does not become a word.
        bare.push('\'');
    }
    let mut words =
        bare.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '\'')).filter(|word| !word.is_empty());
    let mut collations = BTreeSet::new();
    while let Some(word) = words.next() {
        if word == "collate" {
            collations.extend(words.next().filter(|name| !name.contains('\'')).map(str::to_owned));
        }
    }
    collations
}

/// Of a line that is a foreign key: whether it leads into another database, and to which table.
fn referenced(line: &str) -> Option<(bool, String)> {
    let line = line.trim_start();
    if !line.starts_with("CONSTRAINT ") && !line.starts_with("FOREIGN KEY ") {
        return None;
    }
    // Names may hold anything, so they are stepped over: the words that count stand between them.
    let (mut rest, mut is_key) = (line, false);
    loop {
        let at = rest.find(['`', '"'])?;
        let words = &rest[..at];
        is_key |= words.contains("FOREIGN KEY");
        let is_target = is_key && words.contains("REFERENCES");
        let (name, behind) = identifier(&rest[at..])?;
        if is_target {
            return match behind.strip_prefix('.') {
                Some(table) => Some((true, identifier(table)?.0)),
                None => Some((false, name)),
            };
        }
        rest = behind;
    }
}

/// The quoted name that a text begins with, and what stands behind it.
fn identifier(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '`' | '"'))?;
    let mut name = String::new();
    let mut rest = text[1..].char_indices();
    while let Some((at, c)) = rest.next() {
        if c != quote {
            name.push(c);
        } else if text[at + 2..].starts_with(quote) {
            name.push(c);
            rest.next();
        } else {
            return Some((name, &text[at + 2..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "/*!40101 SET NAMES binary*/;\nCREATE TABLE `orders` (\n  `id` int(11) NOT NULL COMMENT 'x REFERENCES `y`',\n  \
        PRIMARY KEY (`id`),\n  \
        CONSTRAINT `a` FOREIGN KEY (`id`) REFERENCES `people` (`id`) ON DELETE CASCADE,\n  \
        CONSTRAINT `odd``FOREIGN KEY` CHECK (`id` > 0),\n  \
        CONSTRAINT `b` FOREIGN KEY (`id`) REFERENCES `crm`.`orders` (`id`),\n  \
        CONSTRAINT `c` FOREIGN KEY (`id`, `x`) REFERENCES `orders` (`id`, `x`)\n) ENGINE=InnoDB;\n";

    #[test]
    fn collations_are_read_where_they_count() {
        let text = "CREATE TABLE `a` (\n `collate x` text COLLATE utf8mb4_bin COMMENT 'it''s \\' COLLATE no',\n \
                    `v` enum(\"a\") COLLATE 'quoted') CHARSET=utf8mb4 COLLATE=utf8mb4_0900_AI_ci /*!40100 COLLATE latin1_bin */;";
        assert_eq!(Vec::from_iter(collations(text)), ["latin1_bin", "utf8mb4_0900_ai_ci", "utf8mb4_bin"]);
        assert!(collations("COLLATE").is_empty() && collations("'").is_empty() && collations("\\`'").is_empty());
    }

    #[test]
    fn foreign_keys_that_leave_the_set_are_left_out() {
        let both = without_foreign_keys(TEXT, |_| true);
        assert_eq!(both, TEXT.replace("  CONSTRAINT `b` FOREIGN KEY (`id`) REFERENCES `crm`.`orders` (`id`),\n", ""));
        let own = without_foreign_keys(TEXT, |table| table == "orders");
        assert!(!own.contains("people") && own.contains("CONSTRAINT `c`") && own.contains("odd``FOREIGN KEY"), "{own}");
        let none = without_foreign_keys(TEXT, |_| false);
        assert!(none.contains("CHECK (`id` > 0)\n) ENGINE"), "{none}");
    }

    #[test]
    fn what_has_none_stays_as_it_is() {
        for text in ["", "CREATE TABLE `t` (\n  `id` int\n);\n", "CONSTRAINT", "  CONSTRAINT `a"] {
            assert_eq!(without_foreign_keys(text, |_| false), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(CONSTRAINT |FOREIGN KEY |REFERENCES |[`\".,()\\nä])*") {
            without_foreign_keys(&text, |_| false);
        }
    }
}
