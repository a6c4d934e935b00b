//! Whether a dump's files hold the rows that mydumper counted: its content proved, row by row, without a server.
//!
//! `rows` of a `metadata` since 0.13 is as many as mydumper wrote, exactly; what stands in the text of a table's files
//! must be as many. Whoever has a [`FileRows`] of each data file asks [`RowProof::of`].

use std::collections::HashMap;

use serde::Serialize;

use super::dump_metadata::{DumpMetadata, Generation, TableSection};
use super::file_kind::has_masked_part;
use super::file_kind::{Extension, data_bases, schema_suffix};
use super::missing_files::before_unknown_extension;
use super::row_count::FileRows;

/// What the files say of each table that `metadata` names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowProof {
    /// Every table of `metadata`; none where it counts nothing.
    pub tables: Vec<TableRows>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableRows {
    /// Its real database, as far as `metadata` tells.
    pub database: String,
    /// Its real name.
    pub table: String,
    /// As many rows as mydumper counted.
    #[serde(rename = "rows", skip_serializing_if = "Option::is_none")]
    pub told: Option<u64>,
    /// What its files hold.
    #[serde(flatten)]
    pub found: FoundRows,
}

/// What the files of a table hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "counted")]
pub enum FoundRows {
    /// As many as mydumper counted.
    Agree,
    /// Another number of them.
    Differ {
        /// So many.
        found: u64,
    },
    /// That cannot be told.
    NotCounted {
        /// Why.
        because: &'static str,
    },
}

const NO_COUNT: &str = "metadata has no count of its rows";
const NOT_SEEN: &str = "not all of its files were counted";
const NOT_CLEAR: &str = "its files do not look as mydumper writes rows, or their lines end otherwise";
const NO_NAME: &str = "metadata does not say what its files are called";

impl RowProof {
    /// Compares. `files` are all files of the dump, by name; `None` is one that nobody counted. Files that hold no rows
    /// make no difference.
    pub fn of<'a>(metadata: &DumpMetadata, files: impl IntoIterator<Item = (&'a str, Option<FileRows>)>) -> Self {
        if metadata.generation != Some(Generation::Ini) {
            return Self::default();
        }
        let sections: HashMap<String, usize> =
            metadata.tables.iter().enumerate().map(|(index, table)| (table.base_name(), index)).collect();
        let mut sums = vec![Sum::default(); metadata.tables.len()];
        let mut has_unclaimed = false;
        for (stem, chunk) in chunks(files) {
            match data_bases(stem).into_iter().find_map(|base| sections.get(base)) {
                Some(index) => sums[*index].add(chunk.rows()),
                None => has_unclaimed |= has_masked_part(stem),
            }
        }
        let tables = metadata.tables.iter().zip(sums);
        Self { tables: tables.map(|(table, sum)| sum.compare(table, has_unclaimed)).collect() }
    }

    /// Whether `metadata` counted any rows: mydumper before 0.13 writes no counts into it.
    pub fn has_counts(&self) -> bool {
        self.tables.iter().any(|table| table.told.is_some())
    }

    /// Whether the rows of every table are proved: the content of the dump is what mydumper read.
    pub fn is_proved(&self) -> bool {
        self.has_counts() && self.tables.iter().all(|table| table.found == FoundRows::Agree)
    }

    /// The tables whose files hold another number of rows.
    pub fn differing(&self) -> impl Iterator<Item = &TableRows> {
        self.tables.iter().filter(|table| matches!(table.found, FoundRows::Differ { .. }))
    }

    /// The tables whose rows could not be counted, with why.
    pub fn not_counted(&self) -> impl Iterator<Item = (&TableRows, &'static str)> {
        self.tables.iter().filter_map(|table| match table.found {
            FoundRows::NotCounted { because } => Some((table, because)),
            _ => None,
        })
    }

    /// One line for a person: how many tables agree, differ, and were not counted.
    pub fn in_words(&self) -> String {
        if !self.has_counts() {
            return "rows not counted: metadata has no counts (mydumper before 0.13 writes none)".to_owned();
        }
        let (differing, not_counted) = (self.differing().count(), self.not_counted().count());
        let agreeing = self.tables.len() - differing - not_counted;
        let mut words = format!("rows counted: {agreeing} of {} tables are as metadata says", self.tables.len());
        if differing > 0 {
            words += &format!(", {differing} differ");
        }
        if let Some((table, because)) = self.not_counted().next() {
            words += &format!(", {not_counted} not counted ({}.{}: {because})", table.database, table.table);
        }
        words
    }
}

impl TableRows {
    /// What differs, in words.
    pub fn difference(&self) -> Option<String> {
        match (self.found, self.told) {
            (FoundRows::Differ { found }, Some(told)) => Some(format!(
                "metadata counts {told} rows of '{}.{}', its files hold {found}",
                self.database, self.table
            )),
            _ => None,
        }
    }
}

/// The files of one stem: `shop.t.00000.sql`, or that and the `shop.t.00000.dat` that it loads.
#[derive(Debug, Default, Clone, Copy)]
struct ChunkFiles {
    statement: Option<Option<FileRows>>,
    text: Option<Option<FileRows>>,
}

impl ChunkFiles {
    fn rows(self) -> Result<u64, &'static str> {
        match (self.statement, self.text) {
            (Some(None), _) | (_, Some(None)) => Err(NOT_SEEN),
            (Some(Some(FileRows::Rows(rows))), None) => Ok(rows),
            // What it loads is gone, and its rows with it.
            (Some(Some(FileRows::Loads { .. })), None) => Ok(0),
            (Some(Some(FileRows::Loads { skipped })), Some(Some(FileRows::Lines(lines)))) => {
                lines.checked_sub(skipped).ok_or(NOT_CLEAR)
            }
            _ => Err(NOT_CLEAR),
        }
    }
}

/// The data files by what stands before their extension.
fn chunks<'a>(files: impl IntoIterator<Item = (&'a str, Option<FileRows>)>) -> HashMap<&'a str, ChunkFiles> {
    let mut chunks: HashMap<&str, ChunkFiles> = HashMap::new();
    for (name, rows) in files {
        let (stem, is_text) = match Extension::split(name) {
            Some(Extension { stem, text, .. }) => (stem, text),
            None => match before_unknown_extension(name) {
                Some(stem) => (stem, false),
                None => continue,
            },
        };
        if schema_suffix(stem).is_some() || stem == "all-schema-create-tablespace" {
            continue;
        }
        let chunk = chunks.entry(stem).or_default();
        *if is_text { &mut chunk.text } else { &mut chunk.statement } = Some(rows);
    }
    chunks
}

/// The rows in the files of one table, or why they cannot be told. Files that hold no rows make no difference.
pub fn rows_in_files<'a>(files: impl IntoIterator<Item = (&'a str, Option<FileRows>)>) -> Result<u64, &'static str> {
    let mut sum = Sum::default();
    chunks(files).into_values().for_each(|chunk| sum.add(chunk.rows()));
    sum.0
}

/// The rows of a table so far, or why they cannot be told.
#[derive(Debug, Clone, Copy)]
struct Sum(Result<u64, &'static str>);

impl Default for Sum {
    fn default() -> Self {
        Self(Ok(0))
    }
}

impl Sum {
    fn add(&mut self, rows: Result<u64, &'static str>) {
        self.0 = match (self.0, rows) {
            (Ok(sum), Ok(rows)) => sum.checked_add(rows).ok_or(NOT_CLEAR),
            (Err(because), _) | (_, Err(because)) => Err(because),
        };
    }

    fn compare(self, table: &TableSection, has_unclaimed: bool) -> TableRows {
        let not_counted = |because| FoundRows::NotCounted { because };
        let found = match (table.rows, self.0) {
            (None, _) => not_counted(NO_COUNT),
            (Some(told), Ok(found)) if told == found => FoundRows::Agree,
            // Its rows may be in a file whose name nobody explains.
            (_, Ok(0)) if has_unclaimed => not_counted(NO_NAME),
            (_, Ok(found)) => FoundRows::Differ { found },
            (_, Err(because)) => not_counted(because),
        };
        let (database, name) = (table.database.clone(), table.table.clone());
        TableRows { database, table: name, told: table.rows, found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Started dump at: 2026-11-22 02:00:01\n\
        [`shop`.`t`]\nreal_table_name=t\nrows = 5\n\
        [`shop`.`e`]\nreal_table_name=e\nrows = 0\n\
        [`shop`.`mydumper_0`]\nreal_table_name=a.b\nrows = 2\n\
        [`shop`.`v`]\nreal_table_name=v\nrows = 0\nis_view = 1\n\
        # Finished dump at: 2026-11-22 02:00:09\n";

    fn proof(text: &str, files: &[(&str, Option<FileRows>)]) -> RowProof {
        RowProof::of(&DumpMetadata::parse(text.as_bytes()), files.iter().copied())
    }

    fn rows(rows: u64) -> Option<FileRows> {
        Some(FileRows::Rows(rows))
    }

    fn found(proof: &RowProof, table: &str) -> FoundRows {
        proof.tables.iter().find(|found| found.table == table).expect("a table").found
    }

    #[test]
    fn the_rows_of_all_tables_are_proved() {
        let files = [
            ("metadata", None),
            ("shop-schema-create.sql", None),
            ("shop.t-schema.sql", None),
            ("shop.t.00000.sql.zst", rows(3)),
            ("shop.t.00001.00002.sql.gz", rows(2)),
            ("shop.mydumper_0.00000.sql", rows(2)),
            ("shop.v-schema-view.sql", None),
        ];
        let proof = proof(TEXT, &files);
        assert!(proof.is_proved(), "{proof:?}");
        assert_eq!(proof.in_words(), "rows counted: 4 of 4 tables are as metadata says");
    }

    #[test]
    fn a_row_too_few_or_too_many_is_named() {
        for (counted, table) in [(1, 4), (3, 6)] {
            let files = [("shop.t.00000.sql", rows(3)), ("shop.t.00001.sql", rows(counted))];
            let proof = proof(TEXT, &files);
            assert_eq!(found(&proof, "t"), FoundRows::Differ { found: table });
            assert_eq!(found(&proof, "a.b"), FoundRows::Differ { found: 0 });
            assert!(!proof.is_proved());
            let words: Vec<_> = proof.differing().filter_map(TableRows::difference).collect();
            assert_eq!(words[0], format!("metadata counts 5 rows of 'shop.t', its files hold {table}"));
            assert_eq!(proof.in_words(), "rows counted: 2 of 4 tables are as metadata says, 2 differ");
        }
        let proof = proof(TEXT, &[("shop.e.00000.sql", rows(1))]);
        assert_eq!(found(&proof, "e"), FoundRows::Differ { found: 1 });
    }

    #[test]
    fn what_cannot_be_counted_is_said_and_proves_nothing() {
        let mydumper_0 = ("shop.mydumper_0.00000.sql", rows(2));
        for (files, because) in [
            (&[("shop.t.00000.sql", rows(5)), ("shop.t.00001.sql", None)][..], NOT_SEEN),
            (&[("shop.t.00000.sql", Some(FileRows::Unknown))], NOT_CLEAR),
            (&[("shop.t.00000.sql.enc", None)], NOT_SEEN),
            (&[("shop.t.00000.sqlenc", None)], NOT_SEEN),
            (&[("shop.t.00000.dat", Some(FileRows::Lines(5)))], NOT_CLEAR),
        ] {
            let files: Vec<_> = files.iter().copied().chain([mydumper_0]).collect();
            let proof = proof(TEXT, &files);
            assert_eq!(found(&proof, "t"), FoundRows::NotCounted { because }, "{files:?}");
            assert!(!proof.is_proved() && proof.differing().count() == 0, "{files:?}");
            assert!(proof.in_words().contains(because), "{}", proof.in_words());
        }
        let no_mapping = TEXT.replace("[`shop`.`mydumper_0`]", "[`shop`.`a.b`]");
        let proof = proof(&no_mapping, &[("shop.t.00000.sql", rows(5)), mydumper_0]);
        assert_eq!(found(&proof, "a.b"), FoundRows::NotCounted { because: NO_NAME });
    }

    #[test]
    fn the_lines_of_a_text_file_are_its_rows() {
        let text = "[`shop`.`t`]\nrows = 5\n";
        let lines = |lines| Some(FileRows::Lines(lines));
        let loads = |skipped| Some(FileRows::Loads { skipped });
        for (files, wanted) in [
            (&[("shop.t.00000.dat", lines(5)), ("shop.t.00000.sql", loads(0))][..], FoundRows::Agree),
            (&[("shop.t.00000.sql.gz", loads(1)), ("shop.t.00000.dat.gz", lines(6))], FoundRows::Agree),
            (&[("shop.t.00000.dat", lines(4)), ("shop.t.00000.sql", loads(0))], FoundRows::Differ { found: 4 }),
            (&[("shop.t.00000.sql", loads(0))], FoundRows::Differ { found: 0 }),
        ] {
            assert_eq!(found(&proof(text, files), "t"), wanted, "{files:?}");
        }
    }

    #[test]
    fn the_rows_of_one_table_are_summed_up() {
        let files = |second| [("shop.t.00000.sql", rows(5)), ("shop.t-schema.sql", None), ("shop.t.00001.sql", second)];
        assert_eq!(rows_in_files(files(rows(2))), Ok(7));
        assert_eq!(rows_in_files(files(None)), Err(NOT_SEEN));
        assert_eq!(rows_in_files([]), Ok(0));
    }

    #[test]
    fn a_dump_without_counts_proves_nothing() {
        let proof = proof("Started dump at: 2026-11-22 02:00:01\n", &[("shop.t.sql", rows(5))]);
        assert!(!proof.has_counts() && !proof.is_proved());
        assert!(proof.in_words().starts_with("rows not counted"));
    }
}
