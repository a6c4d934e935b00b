//! What a table is made of, by the names in its `CREATE TABLE`: as a schema file has it, and as a server shows it.
//!
//! `SHOW CREATE TABLE` writes a column, a key or a constraint a line. Types and options are not compared: servers of other
//! versions write them otherwise.

use std::collections::BTreeSet;

/// The names of a table's parts, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableShape {
    /// Its columns.
    pub columns: BTreeSet<String>,
    /// Its indexes, the primary key as `PRIMARY`.
    pub indexes: BTreeSet<String>,
    /// Its foreign keys.
    pub foreign_keys: BTreeSet<String>,
    /// Its checks; that of a column is called like the column.
    pub checks: BTreeSet<String>,
}

/// A kind of part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKind {
    Column,
    Index,
    ForeignKey,
    Check,
}

impl PartKind {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Column, Self::Index, Self::ForeignKey, Self::Check];

    /// In the words of a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Column => "column",
            Self::Index => "index",
            Self::ForeignKey => "foreign key",
            Self::Check => "check",
        }
    }

    /// One of them.
    pub fn with_article(self) -> &'static str {
        match self {
            Self::Column => "a column",
            Self::Index => "an index",
            Self::ForeignKey => "a foreign key",
            Self::Check => "a check",
        }
    }

    /// More of them.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Column => "columns",
            Self::Index => "indexes",
            Self::ForeignKey => "foreign keys",
            Self::Check => "checks",
        }
    }
}

impl TableShape {
    /// Of a text with a `CREATE TABLE` statement; `None` where there is none that ends.
    pub fn of(text: &str) -> Option<Self> {
        let mut lines = text.lines().skip_while(|line| !line.starts_with("CREATE ") || !bare(line).contains(" TABLE "));
        lines.next()?;
        let mut shape = Self::default();
        for line in lines {
            let line = line.trim_start();
            if line.starts_with(')') {
                return Some(shape);
            }
            shape.take(line);
        }
        None
    }

    fn take(&mut self, line: &str) {
        let words = bare(line);
        let name = first_name(line);
        match name {
            Some(name) if line.starts_with(['`', '"']) => {
                // A constraint's own keyword stands alone: no type and no option of a column is called so.
                if words.split([' ', '(']).any(|word| word == "CHECK") {
                    self.checks.insert(name.clone());
                }
                self.columns.insert(name);
            }
            _ if words.starts_with("PRIMARY KEY") => drop(self.indexes.insert("PRIMARY".to_owned())),
            Some(name) if words.contains("FOREIGN KEY") => drop(self.foreign_keys.insert(name)),
            Some(name) if words.starts_with("CONSTRAINT") && words.contains("CHECK") => drop(self.checks.insert(name)),
            Some(name) if words.split_whitespace().any(|word| matches!(word, "KEY" | "INDEX")) => {
                self.indexes.insert(name);
            }
            _ => {}
        }
    }

    /// The parts of one kind.
    pub fn parts(&self, kind: PartKind) -> &BTreeSet<String> {
        match kind {
            PartKind::Column => &self.columns,
            PartKind::Index => &self.indexes,
            PartKind::ForeignKey => &self.foreign_keys,
            PartKind::Check => &self.checks,
        }
    }
}

/// The first quoted name of a line.
fn first_name(line: &str) -> Option<String> {
    let at = line.find(['`', '"'])?;
    let quote = line[at..].chars().next()?;
    super::schema_name::until_quote(&line[at + 1..], quote).map(|(name, _)| name)
}

/// The line without what stands between quotes.
fn bare(line: &str) -> String {
    let mut words = String::with_capacity(line.len());
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        if !matches!(letter, '`' | '"' | '\'') {
            words.push(letter);
            continue;
        }
        // A quote that is doubled closes and opens again, which leaves nothing either.
        while let Some(within) = letters.next() {
            match within {
                '\\' if letter == '\'' => drop(letters.next()),
                within if within == letter => break,
                _ => {}
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "/*!40101 SET NAMES binary*/;\nCREATE TABLE `orders` (\n  \
        `id` int(11) NOT NULL AUTO_INCREMENT COMMENT 'CHECK (it''s) KEY \\'',\n  \
        `k` int(11) DEFAULT NULL CHECK (`k` >= 0),\n  \
        `odd``KEY` text DEFAULT NULL,\n  \
        PRIMARY KEY (`id`),\n  \
        UNIQUE KEY `u` (`k`,`id`),\n  \
        KEY `CHECK` (`k`),\n  \
        FULLTEXT KEY `ft` (`v`),\n  \
        CONSTRAINT `FOREIGN KEY` CHECK (`k` > -5),\n  \
        CONSTRAINT `f` FOREIGN KEY (`o`) REFERENCES `people` (`id`) ON DELETE CASCADE\n\
        ) ENGINE=InnoDB COMMENT='a; b'\n PARTITION BY HASH (`id`)\nPARTITIONS 4;\n";

    fn names(shape: &TableShape, kind: PartKind) -> Vec<&str> {
        shape.parts(kind).iter().map(String::as_str).collect()
    }

    #[test]
    fn parts_are_known_by_what_stands_outside_of_quotes() {
        let shape = TableShape::of(TEXT).expect("a table");
        assert_eq!(names(&shape, PartKind::Column), ["id", "k", "odd`KEY"]);
        assert_eq!(names(&shape, PartKind::Index), ["CHECK", "PRIMARY", "ft", "u"]);
        assert_eq!(names(&shape, PartKind::ForeignKey), ["f"]);
        assert_eq!(names(&shape, PartKind::Check), ["FOREIGN KEY", "k"]);
    }

    #[test]
    fn what_has_no_end_is_no_table() {
        for text in ["", "CREATE TABLE", "CREATE TABLE `t` (\n  `id` int\n", "CREATE VIEW `t` AS\n)"] {
            assert_eq!(TableShape::of(text), None, "{text}");
        }
        let quoted = TableShape::of("CREATE TABLE IF NOT EXISTS \"t\" (\n  \"id\" int,\n  KEY \"k\" (\"id\")\n)");
        assert_eq!(names(&quoted.expect("a table"), PartKind::Index), ["k"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(CREATE TABLE |`|\"|'|\\\\|KEY |CHECK |\\n|\\)|ä)*") {
            TableShape::of(&text);
        }
    }
}
