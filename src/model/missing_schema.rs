//! Which schema files a dump lacks: the one trace that a stopped mydumper leaves in a dump that looks finished.

use std::collections::HashSet;

use serde::Serialize;

use super::dump_metadata::{DumpMetadata, Generation, TableSection};
use super::file_kind::{Extension, FileKind, schema_suffix, without_number};

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

/// The tables and views of a 0.13+ `metadata` that have no schema file among `names`, which must be all of the dump's
/// names, uploaded ones too.
///
/// mydumper stopped by SIGTERM writes a final `metadata` and exits with 0, but leaves the queue of views and sequences
/// (`post_data_queue`) as it is: this is the trace. `-schema`, `-schema-view` and `-schema-sequence` all count, since
/// a view has the first two and a sequence the first or third, by version; `is_view` is never written.
///
/// Silent where a good dump looks the same:
/// - free text names no tables;
/// - no table schema at all is `--no-schemas`;
/// - a table with rows and no schema is `object_to_export=DATA` of a configuration file, for schemas are written
///   before the first row (`working_thread`), and then an empty table may be without files by the same option;
/// - odd names, and every name under `--masquerade-filename`, become `mydumper_N`, and some versions do not write which
///   is which: files of that form that no section names are counted for them.
///
/// One case stays: `object_to_export` that leaves out the schema of empty tables only, or both schema and data, and no
/// schema of a table with rows, looks like a dump that was stopped.
pub fn missing_schema<'a>(metadata: &DumpMetadata, names: impl IntoIterator<Item = &'a str>) -> Vec<MissingSchema> {
    if metadata.generation != Some(Generation::Ini) {
        return Vec::new();
    }
    let (mut schemas, mut data) = (HashSet::new(), HashSet::new());
    for Extension { stem, .. } in names.into_iter().filter_map(Extension::split) {
        match schema_suffix(stem) {
            Some((base, FileKind::Schema | FileKind::SchemaView | FileKind::SchemaSequence)) => {
                schemas.insert(base);
            }
            Some(_) => {}
            None => {
                let once = without_number(stem).map_or(stem, |(rest, _)| rest);
                data.extend([once, without_number(once).map_or(once, |(rest, _)| rest)]);
            }
        }
    }
    if schemas.is_empty() {
        return Vec::new();
    }

    let mut missing = Vec::new();
    let mut unclaimed: HashSet<&str> = schemas.iter().copied().filter(|base| has_masked_part(base)).collect();
    let mut without_known_name = 0;
    let mut schemas_were_chosen = false;
    for table in &metadata.tables {
        let base = table.base_name();
        if schemas.contains(base.as_str()) {
            unclaimed.remove(base.as_str());
        } else if !has_plain_name(table) {
            without_known_name += 1;
        } else if table.schema_checksum.is_some() {
            missing.push((table, base, true));
        } else if table.rows.is_some_and(|rows| rows > 0) || data.contains(base.as_str()) {
            schemas_were_chosen = true;
        } else {
            missing.push((table, base, false));
        }
    }
    missing.retain(|(_, _, proven)| *proven || !schemas_were_chosen);
    if missing.len() + without_known_name <= unclaimed.len() {
        return Vec::new();
    }
    let describe = |(table, base, proven): (&TableSection, String, bool)| MissingSchema {
        database: table.database.clone(),
        table: table.table.clone(),
        expected: format!("{base}-schema.sql"),
        proven,
    };
    missing.into_iter().map(describe).collect()
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

fn has_masked_part(base: &str) -> bool {
    base.split('.').any(is_masked)
}

fn is_masked(name: &str) -> bool {
    name.strip_prefix("mydumper_")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
#[path = "missing_schema_tests.rs"]
mod tests;
