//! Which files `metadata` promises and a dump has not: schema files of what it names, data files of what it counted rows of.
//!
//! Both findings map sections to files by the same rules ([`Bases`]), for odd names, and every name under
//! `--masquerade-filename`, become `mydumper_N`, and some versions do not write which is which: files of that form that
//! no section names are counted for the sections whose files are not known.

use std::collections::HashSet;

use serde::Serialize;

use super::dump_metadata::{DumpMetadata, Generation, TableSection};
use super::file_kind::{Extension, FileKind, data_bases, has_masked_part, is_masked, schema_suffix};

/// What a dump lacks of what its `metadata` speaks of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingFiles {
    /// Tables and views without a schema file.
    pub schemas: Vec<MissingSchema>,
    /// Tables with rows and without a data file.
    pub data: Vec<MissingData>,
}

/// A table or view that `metadata` names and whose schema file is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingSchema {
    pub database: String,
    pub table: String,
    /// The file that a table has; a view has it too, and a sequence one that ends in `-schema-sequence.sql`.
    pub expected: String,
    /// `metadata` holds the checksum of the schema, so mydumper did write the file.
    pub proven: bool,
}

/// A table of which `metadata` counted rows, and of which there is no data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingData {
    pub database: String,
    pub table: String,
    /// The first data file of such a table.
    pub expected: String,
    /// As many rows as mydumper dumped.
    pub rows: u64,
}

/// What a 0.13+ `metadata` promises and is not among `names`, which must be all of the dump's names, uploaded ones too.
pub fn missing_files<'a>(metadata: &DumpMetadata, names: impl IntoIterator<Item = &'a str>) -> MissingFiles {
    // Free text names no tables.
    if metadata.generation != Some(Generation::Ini) {
        return MissingFiles::default();
    }
    let (mut schemas, mut data) = (Bases::default(), Bases::default());
    for name in names {
        match Extension::split(name) {
            Some(Extension { stem, .. }) => match schema_suffix(stem) {
                Some((base, FileKind::Schema | FileKind::SchemaView | FileKind::SchemaSequence)) => {
                    schemas.add(base);
                }
                Some(_) => {}
                None => data.add_of_data(stem),
            },
            None => before_unknown_extension(name).into_iter().for_each(|stem| data.add_of_data(stem)),
        }
    }
    MissingFiles { schemas: missing_schemas(metadata, &schemas, &data), data: missing_data(metadata, &data) }
}

/// mydumper stopped by SIGTERM writes a final `metadata` and exits with 0, but leaves the queue of views and sequences
/// (`post_data_queue`) as it is: this is the trace. `-schema`, `-schema-view` and `-schema-sequence` all count, since
/// a view has the first two and a sequence the first or third, by version; not every version writes `is_view`.
///
/// Silent where a good dump looks the same:
/// - no table schema at all is `--no-schemas`;
/// - a table with rows and no schema is `object_to_export=DATA` of a configuration file, for schemas are written
///   before the first row (`working_thread`), and then an empty table may be without files by the same option.
///
/// One case stays: `object_to_export` that leaves out the schema of empty tables only, or both schema and data, and no
/// schema of a table with rows, looks like a dump that was stopped.
fn missing_schemas(metadata: &DumpMetadata, schemas: &Bases, data: &Bases) -> Vec<MissingSchema> {
    if schemas.all.is_empty() {
        return Vec::new();
    }
    let absent = Absent::of(&metadata.tables, schemas);
    let is_proven = |table: &TableSection| table.schema_checksum.is_some();
    let has_rows = |table: &TableSection| table.rows.is_some_and(|rows| rows > 0);
    let is_chosen = |(table, base): &(&TableSection, String)| {
        !is_proven(table) && (has_rows(table) || data.all.contains(base.as_str()))
    };
    let schemas_were_chosen = absent.named.iter().any(is_chosen);
    let (named, masked, unclaimed) = (absent.named, absent.masked, absent.unclaimed);
    let missing: Vec<_> = named
        .into_iter()
        .filter(|(table, _)| is_proven(table) || !schemas_were_chosen)
        .map(|(table, base)| MissingSchema {
            database: table.database.clone(),
            table: table.table.clone(),
            expected: format!("{base}-schema.sql"),
            proven: is_proven(table),
        })
        .collect();
    if missing.len() + masked <= unclaimed { Vec::new() } else { missing }
}

/// mydumper counts the rows that it has written, so rows without a file are rows that are gone: `--no-data`, a schema
/// alone and a view have 0 (seen in 0.16.9, 0.21.4 and 1.0.1).
fn missing_data(metadata: &DumpMetadata, data: &Bases) -> Vec<MissingData> {
    let with_rows = metadata.tables.iter().filter(|table| table.rows.is_some_and(|rows| rows > 0));
    let absent = Absent::of(with_rows, data);
    if absent.named.len() + absent.masked <= absent.unclaimed {
        return Vec::new();
    }
    let describe = |(table, base): (&TableSection, String)| MissingData {
        database: table.database.clone(),
        table: table.table.clone(),
        expected: format!("{base}.00000.sql"),
        rows: table.rows.unwrap_or_default(),
    };
    absent.named.into_iter().map(describe).collect()
}

/// What stands before the kind, the number and the extension of file names: `shop.orders`.
#[derive(Debug, Default)]
struct Bases<'a> {
    /// A data file has up to three readings: with both its numbers, with one, with none.
    all: HashSet<&'a str>,
    /// The readings that mydumper made up, each file once.
    masked: HashSet<&'a str>,
}

impl<'a> Bases<'a> {
    fn add(&mut self, base: &'a str) {
        self.all.insert(base);
        if has_masked_part(base) {
            self.masked.insert(base);
        }
    }

    fn add_of_data(&mut self, stem: &'a str) {
        let [all, once, twice] = data_bases(stem);
        self.all.extend([all, once]);
        self.add(twice);
    }
}

/// The sections of which there is no file.
struct Absent<'a> {
    /// Those whose file names are known, with their base.
    named: Vec<(&'a TableSection, String)>,
    /// How many have a file name that is not known.
    masked: usize,
    /// Masked names of files that no section has.
    unclaimed: usize,
}

impl<'a> Absent<'a> {
    fn of(tables: impl IntoIterator<Item = &'a TableSection>, files: &Bases) -> Self {
        let mut unclaimed = files.masked.clone();
        let (mut named, mut masked) = (Vec::new(), 0);
        for table in tables {
            let base = table.base_name();
            if files.all.contains(base.as_str()) {
                unclaimed.remove(base.as_str());
            } else if has_plain_name(table) {
                named.push((table, base));
            } else {
                masked += 1;
            }
        }
        Self { named, masked, unclaimed: unclaimed.len() }
    }
}

/// `shop.t.00000` of `shop.t.00000.sqlenc`: `--exec-per-thread-extension` may have no dot, and the rows are there.
pub(super) fn before_unknown_extension(name: &str) -> Option<&str> {
    let at = name.rfind(".sql").or_else(|| name.rfind(".dat"))?;
    name.get(..at)
}

/// Whether a section's names are those of its files. The rule of `determine_filename`: letters of ASCII, digits, `_`,
/// `-` and space stay; others, and what begins with `mydumper_`, are replaced.
fn has_plain_name(table: &TableSection) -> bool {
    let plain = |name: &str| {
        let kept = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b' ');
        !name.is_empty() && name.bytes().all(kept) && !name.starts_with("mydumper_")
    };
    // `mydumper_3` with another real name is a mapping; with the same name it is a table that is called so.
    let mapped = is_masked(&table.file_table) && table.table != table.file_table;
    (plain(&table.database) || is_masked(&table.database)) && (plain(&table.file_table) || mapped)
}

#[cfg(test)]
#[path = "missing_files_tests.rs"]
mod tests;
