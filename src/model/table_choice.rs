//! Which files of a dump belong to the tables that somebody asked for.

use std::collections::HashSet;

use super::file_kind::FileKind;
use super::selection::TablePattern;

/// The patterns, and what they have met in a dump.
#[derive(Debug)]
pub struct TableChoice<'a> {
    patterns: &'a [TablePattern],
    /// Databases of which at least one table is wanted.
    databases: HashSet<String>,
    /// Whether each pattern has met a table.
    met: Vec<bool>,
}

impl<'a> TableChoice<'a> {
    /// Nothing has been seen of the dump yet.
    pub fn new(patterns: &'a [TablePattern]) -> Self {
        Self { patterns, databases: HashSet::new(), met: vec![false; patterns.len()] }
    }

    /// Takes note of a file's real names. All files first; then [`TableChoice::takes`] tells.
    pub fn see(&mut self, kind: FileKind, database: Option<&str>, table: Option<&str>) {
        let Some(database) = database else { return };
        for (pattern, met) in self.patterns.iter().zip(&mut self.met) {
            let is_met = match table {
                Some(table) => pattern.matches(database, table),
                // A database without a table is wanted where all of its tables are.
                None => kind == FileKind::SchemaCreate && pattern.is_whole_database(database),
            };
            if is_met {
                *met = true;
                self.databases.insert(database.to_owned());
            }
        }
    }

    /// The first pattern that has met nothing.
    pub fn unmet(&self) -> Option<&TablePattern> {
        self.patterns.iter().zip(&self.met).find(|(_, met)| !**met).map(|(pattern, _)| pattern)
    }

    /// Whether a file is wanted: it is of a table that is, or such a table needs it.
    ///
    /// Routines and events come only with a whole database: no table needs one, and they may need tables that are not
    /// here.
    pub fn takes(&self, kind: FileKind, database: Option<&str>, table: Option<&str>) -> bool {
        match (kind, database, table) {
            _ if self.patterns.is_empty() => true,
            (FileKind::Metadata | FileKind::MetadataHeader | FileKind::Tablespace, ..) => true,
            (_, Some(database), Some(table)) => self.patterns.iter().any(|pattern| pattern.matches(database, table)),
            (FileKind::SchemaCreate | FileKind::SchemaTriggers | FileKind::Checksum, Some(database), None) => {
                self.databases.contains(database)
            }
            (_, Some(database), None) => self.patterns.iter().any(|pattern| pattern.is_whole_database(database)),
            (_, None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILES: [(FileKind, Option<&str>, Option<&str>); 10] = [
        (FileKind::Metadata, None, None),
        (FileKind::SchemaCreate, Some("shop"), None),
        (FileKind::Schema, Some("shop"), Some("orders")),
        (FileKind::Data, Some("shop"), Some("orders")),
        (FileKind::SchemaTriggers, Some("shop"), Some("orders")),
        (FileKind::SchemaPost, Some("shop"), None),
        (FileKind::Data, Some("shop"), Some("a.b")),
        (FileKind::SchemaCreate, Some("crm"), None),
        (FileKind::SchemaView, Some("crm"), Some("people")),
        (FileKind::Other, None, None),
    ];

    fn taken(patterns: &[&str]) -> (Vec<usize>, bool) {
        let patterns: Vec<TablePattern> = patterns.iter().map(|text| text.parse().expect("a pattern")).collect();
        let mut choice = TableChoice::new(&patterns);
        FILES.iter().for_each(|(kind, database, table)| choice.see(*kind, *database, *table));
        let takes = |at: &usize| choice.takes(FILES[*at].0, FILES[*at].1, FILES[*at].2);
        ((0..FILES.len()).filter(takes).collect(), choice.unmet().is_none())
    }

    #[test]
    fn a_table_brings_what_it_needs_and_nothing_else() {
        assert_eq!(taken(&["shop.orders"]), (vec![0, 1, 2, 3, 4], true));
        assert_eq!(taken(&["shop.a.b"]), (vec![0, 1, 6], true));
        assert_eq!(taken(&["crm.*"]), (vec![0, 7, 8], true));
    }

    #[test]
    fn a_whole_database_brings_its_routines() {
        assert_eq!(taken(&["shop.*"]), (vec![0, 1, 2, 3, 4, 5, 6], true));
    }

    #[test]
    fn without_patterns_all_is_taken() {
        assert_eq!(taken(&[]).0.len(), FILES.len());
    }

    #[test]
    fn a_pattern_that_meets_nothing_is_found() {
        assert_eq!(taken(&["shop.orders", "shop.order"]), (vec![0, 1, 2, 3, 4], false));
    }

    proptest! {
        #[test]
        fn more_patterns_never_take_less(one in "(shop|crm|x)\\.(orders|people|\\*)", other in "(shop|crm|x)\\.(orders|people|\\*)") {
            let (few, _) = taken(&[&one]);
            let (more, _) = taken(&[&one, &other]);
            prop_assert!(few.iter().all(|at| more.contains(at)));
        }
    }
}
