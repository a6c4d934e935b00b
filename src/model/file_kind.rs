//! What a file of a dump is, by its name alone.
//!
//! Names are made in `build_filename`, `build_schema_table_filename`, `build_schema_filename`, `build_meta_filename` and
//! `build_tablespace_filename` of mydumper. From 0.11 on a data file always has a chunk number of at least five digits
//! and an odd name becomes `mydumper_N` (`determine_filename`), so a name can be read without knowing more. 0.10.1
//! keeps every name as it is and has no number on a table in one file: `shop.t.00001.sql` is then chunk 1 of `t` or
//! all of `t.00001`, and `shop.x-schema.sql` the schema of `x` or the rows of `x-schema`. [`KnownNames`] decides.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::dump_metadata::DumpMetadata;
use super::file_name::MANIFEST;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// `metadata`, the dump's commit.
    Metadata,
    /// `metadata.header`, of dumps made with `--stream`; part of the dump.
    MetadataHeader,
    /// What mydumper and myloader keep for themselves; never data. See [`is_never_data`].
    Private,
    /// The manifest, [`MANIFEST`].
    Manifest,
    /// `not_updated_tables`, of `--updated-since`.
    NotUpdatedTables,
    /// `all-schema-create-tablespace.sql`.
    Tablespace,
    /// `db-schema-create.sql`: the database.
    SchemaCreate,
    /// `db.t-schema.sql`: a table, and for a view the table that stands in for it until all views are loaded.
    Schema,
    /// `db.t-schema-view.sql`.
    SchemaView,
    /// `db.t-schema-sequence.sql`.
    SchemaSequence,
    /// `db.t-schema-triggers.sql`, or `db-schema-triggers.sql` for all tables at once.
    SchemaTriggers,
    /// `db-schema-post.sql`: routines and events; since late 1.x `-schema-routines` and `-schema-events`.
    SchemaPost,
    /// `…-checksum`, to 0.12: a file for each checksum.
    Checksum,
    /// `db.t-metadata`, to 0.12: the number of rows of one table.
    TableMetadata,
    /// Rows as SQL, or the `LOAD DATA` statement that belongs to a `.dat`.
    Data,
    /// Rows as text, `.dat`, in every format other than SQL (`rows_file_extension`).
    DataText,
    /// Nothing that mydumper is known to make.
    Other,
}

/// What follows `.sql` or `.dat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression<'a> {
    None,
    Gzip,
    Zstd,
    /// The text of `--exec-per-thread-extension` without its dot, such as `enc` or `gz.gpg`.
    Other(&'a str),
}

/// `db.t.00002.sql`, or `db.t.00002.00001.sql` where `--chunk-filesize` cut a chunk once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chunk {
    pub part: u64,
    pub sub_part: Option<u64>,
}

/// A file name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameParts<'a> {
    pub kind: FileKind,
    pub compression: Compression<'a>,
    /// As the name has it: `mydumper_0` for an odd database since 0.11.
    pub database: Option<&'a str>,
    /// As the name has it; `TableSection::file_table` leads to the real name.
    pub file_table: Option<&'a str>,
    pub chunk: Option<Chunk>,
}

const SCHEMA_SUFFIXES: [(&str, FileKind); 8] = [
    ("-schema-create", FileKind::SchemaCreate),
    ("-schema-view", FileKind::SchemaView),
    ("-schema-sequence", FileKind::SchemaSequence),
    ("-schema-triggers", FileKind::SchemaTriggers),
    ("-schema-post", FileKind::SchemaPost),
    ("-schema-routines", FileKind::SchemaPost),
    ("-schema-events", FileKind::SchemaPost),
    ("-schema", FileKind::Schema),
];

impl<'a> NameParts<'a> {
    /// Takes a name apart. Without the help of `known` a dot ends the database, as myloader reads it.
    pub fn parse(name: &'a str, known: &KnownNames) -> Self {
        let whole = |kind| Self { kind, compression: Compression::None, database: None, file_table: None, chunk: None };
        match name {
            "metadata" => return whole(FileKind::Metadata),
            "metadata.header" => return whole(FileKind::MetadataHeader),
            "not_updated_tables" => return whole(FileKind::NotUpdatedTables),
            MANIFEST => return whole(FileKind::Manifest),
            _ if is_never_data(name) => return whole(FileKind::Private),
            // A dump's files are the keys directly under its prefix.
            _ if name.contains('/') => return whole(FileKind::Other),
            _ => {}
        }
        let (stem, text, compression) = match Extension::split(name) {
            Some(Extension { stem, text, compression }) => (stem, text, compression),
            None => return Self::without_extension(name, known).unwrap_or(whole(FileKind::Other)),
        };
        if !text && stem == "all-schema-create-tablespace" {
            return Self { compression, ..whole(FileKind::Tablespace) };
        }
        let schema = if text { None } else { Self::schema(stem, known) };
        schema
            .or_else(|| Self::data(stem, text, known))
            .map_or(whole(FileKind::Other), |file| Self { compression, ..file })
    }

    fn schema(stem: &'a str, known: &KnownNames) -> Option<Self> {
        let (base, kind) = schema_suffix(stem)?;
        // 0.10.1: the rows of a table whose own name ends like a schema file's.
        if known.is_table(stem) && !known.is_table(base) {
            return None;
        }
        let (database, file_table) = match kind {
            FileKind::SchemaCreate | FileKind::SchemaPost => (base, None),
            FileKind::SchemaTriggers if known.databases.contains(base) => (base, None),
            _ => match known.split(base) {
                Some((database, table)) => (database, Some(table)),
                None if kind == FileKind::SchemaTriggers => (base, None),
                None => return None,
            },
        };
        (!database.is_empty()).then_some(Self {
            kind,
            compression: Compression::None,
            database: Some(database),
            file_table,
            chunk: None,
        })
    }

    fn data(stem: &'a str, text: bool, known: &KnownNames) -> Option<Self> {
        // The longest table that is known wins: all of the stem, or without one number, or without two.
        let (once, last) = without_number(stem).unzip();
        let (twice, first) = once.and_then(without_number).unzip();
        let part = last.map(|part| Chunk { part, sub_part: None });
        let parts = first.map(|part| Chunk { part, sub_part: last });
        let readings = [(Some(stem), None), (once, part), (twice, parts)];
        let readings = || readings.iter().filter_map(|(table, chunk)| Some(((*table)?, *chunk)));
        // Of unknown tables, the one with the most numbers that still has a table's name.
        let (table, chunk) = readings()
            .find(|(table, _)| known.is_table(table))
            .or_else(|| readings().rev().find(|(table, _)| known.split(table).is_some()))?;
        let (database, file_table) = known.split(table)?;
        Some(Self {
            kind: if text { FileKind::DataText } else { FileKind::Data },
            compression: Compression::None,
            database: Some(database),
            file_table: Some(file_table),
            chunk,
        })
    }

    /// `db.t-metadata`, `db.t-checksum`, `db.t-schema-checksum`, `db-schema-create-checksum`: never compressed.
    fn without_extension(name: &'a str, known: &KnownNames) -> Option<Self> {
        let (base, kind) = name
            .strip_suffix("-metadata")
            .map(|base| (base, FileKind::TableMetadata))
            .or_else(|| Some((name.strip_suffix("-checksum")?, FileKind::Checksum)))?;
        let of_schema = schema_suffix(base).filter(|_| kind == FileKind::Checksum);
        let (database, file_table) = match (known.split(of_schema.map_or(base, |(base, _)| base)), of_schema) {
            (Some((database, table)), _) => (database, Some(table)),
            (None, Some((database, _))) if !database.is_empty() => (database, None),
            _ => return None,
        };
        Some(Self { kind, compression: Compression::None, database: Some(database), file_table, chunk: None })
    }
}

/// Directories that filesystems keep at the top, or in every directory: ext4's, those of snapshots of NetApp and Ceph,
/// of snapper on btrfs, and of ZFS. What is in them is nobody's dump, and nobody can remove them.
pub fn is_of_the_filesystem(directory: &str) -> bool {
    matches!(directory, "lost+found" | ".snapshot" | ".snap" | ".snapshots" | ".zfs")
}

/// Files that mydumper (`metadata.partial`, and `metadata.partial.N` with a temporary `.XXXXXX` while it streams) and
/// myloader (`resume`, which makes the next myloader stop) keep for themselves. Not one of them is part of a dump.
pub fn is_never_data(name: &str) -> bool {
    if matches!(name, "metadata.partial" | "resume" | "resume.partial") {
        return true;
    }
    let Some(rest) = name.strip_prefix("metadata.partial.") else {
        return false;
    };
    let (number, temporary) = rest.split_once('.').unwrap_or((rest, "XXXXXX"));
    let all_digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    all_digits && temporary.len() == 6 && temporary.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a key under a dump's prefix can be mydumper's or ours, so that `delete` may remove it without a manifest.
///
/// Strict, since a stranger's file cannot be brought back: text rows and unknown extensions count only with the chunk
/// number or the schema suffix that mydumper always gives them, `notes.sql` names no table, and `resume` may be
/// anybody's. `metadata.partial` counts: the Python tool uploads it.
pub fn could_be_dump_file(name: &str) -> bool {
    let file = NameParts::parse(name, &KnownNames::default());
    match file.kind {
        FileKind::Other => false,
        FileKind::Private => name.starts_with("metadata."),
        FileKind::DataText => file.chunk.is_some(),
        FileKind::Data => file.chunk.is_some() || !matches!(file.compression, Compression::Other(_)),
        _ => true,
    }
}

/// The databases and tables that a dump is known to have, to read names with dots in them.
#[derive(Debug, Clone, Default)]
pub struct KnownNames {
    databases: HashSet<String>,
    /// `db.t` as it stands in file names, and how many bytes of it are the database.
    tables: HashMap<String, usize>,
}

impl KnownNames {
    /// Learns from the sections of a 1.x `metadata` and from the schema files: `odd.db-schema-create.sql` names a
    /// database, `shop.t.00001-schema.sql` a table of the longest database that fits.
    pub fn new<'a>(metadata: Option<&DumpMetadata>, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = Self::default();
        for table in metadata.into_iter().flat_map(|metadata| &metadata.tables) {
            known.databases.insert(table.database.clone());
            known.tables.insert(table.base_name(), table.database.len());
        }
        let mut bases = HashSet::new();
        let mut table_stems = Vec::new();
        for stem in names.into_iter().filter_map(Extension::split).filter(|name| !name.text).map(|name| name.stem) {
            match schema_suffix(stem) {
                Some((database, FileKind::SchemaCreate)) => {
                    known.databases.insert(database.to_owned());
                }
                Some((base, FileKind::Schema | FileKind::SchemaView | FileKind::SchemaSequence)) => {
                    bases.insert(base);
                    table_stems.push((stem, base));
                }
                _ => {}
            }
        }
        for (stem, base) in table_stems {
            // With `shop.x-schema-schema.sql` beside it, `shop.x-schema.sql` is rows: it says nothing of a table `x`.
            if !bases.contains(stem)
                && let Some((database, _)) = known.split(base)
            {
                let length = database.len();
                known.tables.insert(base.to_owned(), length);
            }
        }
        known
    }

    fn is_table(&self, base: &str) -> bool {
        self.tables.contains_key(base)
    }

    /// Database and table of `db.t`: as known, else by the longest known database, else at the first dot.
    fn split<'a>(&self, base: &'a str) -> Option<(&'a str, &'a str)> {
        let dots = || base.match_indices('.').map(|(at, _)| at);
        let at = self
            .tables
            .get(base)
            .copied()
            .or_else(|| dots().rev().find(|at| self.databases.contains(&base[..*at])))
            .or_else(|| dots().next())?;
        let (database, table) = (base.get(..at)?, base.get(at + 1..)?);
        (!database.is_empty() && !table.is_empty()).then_some((database, table))
    }
}

/// Whether mydumper made this up for files, because the real name is an odd one.
pub fn is_masked(name: &str) -> bool {
    name.strip_prefix("mydumper_")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a file's name or the beginning of it has such a part.
pub fn has_masked_part(name: &str) -> bool {
    name.split(['.', '-']).any(is_masked)
}

pub(super) fn schema_suffix(stem: &str) -> Option<(&str, FileKind)> {
    SCHEMA_SUFFIXES.iter().find_map(|(suffix, kind)| Some((stem.strip_suffix(suffix)?, *kind)))
}

/// The stem without the number at its end, of at least five digits as `%05d` writes it, and the number.
pub(super) fn without_number(stem: &str) -> Option<(&str, u64)> {
    let (rest, number) = stem.rsplit_once('.')?;
    let digits = number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((rest, digits.then(|| number.parse().ok()).flatten()?))
}

/// What may stand before the numbers of a data file: all of the stem, or without one number, or without two.
pub(super) fn data_bases(stem: &str) -> [&str; 3] {
    let once = without_number(stem).map_or(stem, |(rest, _)| rest);
    let twice = without_number(once).map_or(once, |(rest, _)| rest);
    [stem, once, twice]
}

pub(super) struct Extension<'a> {
    pub(super) stem: &'a str,
    /// `.dat`, not `.sql`.
    pub(super) text: bool,
    compression: Compression<'a>,
}

impl<'a> Extension<'a> {
    /// The last `.sql` or `.dat` that ends the name or is followed by a dot. An `--exec-per-thread-extension` without
    /// a dot, `t.sqlenc`, cannot be told from `t.sqlite` and is not taken.
    pub(super) fn split(name: &'a str) -> Option<Self> {
        for (dot, _) in name.rmatch_indices('.') {
            let (stem, rest) = name.split_at(dot);
            let (text, tail) = match (rest.strip_prefix(".sql"), rest.strip_prefix(".dat")) {
                (Some(tail), _) => (false, tail),
                (_, Some(tail)) => (true, tail),
                _ => continue,
            };
            let compression = match (tail, tail.strip_prefix('.')) {
                ("", _) => Compression::None,
                (_, Some("gz")) => Compression::Gzip,
                (_, Some("zst")) => Compression::Zstd,
                (_, Some(other)) if !other.is_empty() => Compression::Other(other),
                _ => continue,
            };
            return Some(Self { stem, text, compression });
        }
        None
    }
}

#[cfg(test)]
#[path = "file_kind_tests.rs"]
mod tests;
