//! The real names behind those that mydumper made up for files.
//!
//! A 1.x `metadata` tells those of tables in databases with plain names. All others stand in the schema files alone, so
//! these are read: only the files with such a name, and no more than their beginning counts.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use futures_util::StreamExt;
use tracing::debug;

use crate::model::dump_metadata::DumpMetadata;
use crate::model::file_kind::{Compression, FileKind, KnownNames, NameParts, is_masked};
use crate::model::file_name::FileName;
use crate::model::object_key::Prefix;
use crate::model::schema_name::created_name;
use crate::s3::Store;

/// A schema file that is larger is not read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// So much of its text is looked at, in bytes.
const TEXT_MAX: u64 = 256 * 1024;
/// Files that are read at once.
const AT_ONCE: usize = 16;

/// By the name in files: a database, or a database and what lies in it.
type Masked = (String, Option<String>);

/// What is known. Every other name is the real one.
#[derive(Debug, Default)]
pub struct RealNames(HashMap<Masked, String>);

impl RealNames {
    /// What `metadata` tells.
    pub fn of_metadata(metadata: Option<&DumpMetadata>) -> Self {
        let tables = metadata.into_iter().flat_map(|metadata| &metadata.tables);
        let mapped = tables.filter(|table| table.table != table.file_table);
        Self(
            mapped
                .map(|table| ((table.database.clone(), Some(table.file_table.clone())), table.table.clone()))
                .collect(),
        )
    }

    /// Reads the schema files of those names that were made up and that nothing is known of. What cannot be read stays
    /// as it is: the names are for people, and for choosing tables by them.
    pub async fn complete<'a>(&mut self, store: &Store, prefix: &Prefix, names: impl Iterator<Item = &'a FileName>) {
        let names: Vec<_> = names.collect();
        let known = KnownNames::new(None, names.iter().map(|name| name.as_str()));
        let mut to_read = BTreeMap::new();
        for name in names {
            let parts = NameParts::parse(name.as_str(), &known);
            if let Some(masked) = made_up(&parts)
                && !self.0.contains_key(&masked)
                && !matches!(parts.compression, Compression::Other(_))
            {
                to_read.entry(masked).or_insert(name);
            }
        }
        let read =
            to_read.into_iter().map(async |(masked, name)| Some((masked, created_by(store, prefix, name).await?)));
        let found = futures_util::stream::iter(read).buffer_unordered(AT_ONCE);
        self.0.extend(found.filter_map(async |found| found).collect::<Vec<_>>().await);
    }

    /// The real name of a database.
    pub fn database<'a>(&'a self, in_files: &'a str) -> &'a str {
        self.0.get(&(in_files.to_owned(), None)).map_or(in_files, String::as_str)
    }

    /// The real name of a table, view or sequence.
    pub fn table<'a>(&'a self, database_in_files: &str, in_files: &'a str) -> &'a str {
        let find = |database: &str| self.0.get(&(database.to_owned(), Some(in_files.to_owned())));
        // `metadata` names it below the database's real name.
        find(database_in_files).or_else(|| find(self.database(database_in_files))).map_or(in_files, String::as_str)
    }
}

/// What a schema file tells the name of, where that was made up.
fn made_up(parts: &NameParts<'_>) -> Option<Masked> {
    let database = parts.database?;
    match (parts.kind, parts.file_table) {
        (FileKind::SchemaCreate, _) if is_masked(database) => Some((database.to_owned(), None)),
        (FileKind::Schema | FileKind::SchemaSequence, Some(table)) if is_masked(table) => {
            Some((database.to_owned(), Some(table.to_owned())))
        }
        _ => None,
    }
}

async fn created_by(store: &Store, prefix: &Prefix, name: &FileName) -> Option<String> {
    let key = format!("{}{name}", prefix.directory());
    let bytes = match store.read(&key, FILE_MAX).await {
        Ok(bytes) => bytes?,
        Err(error) => {
            debug!("what '{name}' is really called stays unknown: {error}");
            return None;
        }
    };
    let text = text_of(name.as_str(), &bytes, TEXT_MAX)
        .inspect_err(|error| debug!("what '{name}' is really called stays unknown: {error}"))
        .ok()?;
    created_name(&text)
}

/// The beginning of a schema file's text, at most so many bytes of it.
pub fn text_of(name: &str, bytes: &[u8], limit: u64) -> io::Result<String> {
    let mut text = Vec::new();
    match NameParts::parse(name, &KnownNames::default()).compression {
        Compression::Gzip => flate2::read::MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut text)?,
        Compression::Zstd => zstd::stream::read::Decoder::new(bytes)?.take(limit).read_to_end(&mut text)?,
        _ => bytes.take(limit).read_to_end(&mut text)?,
    };
    Ok(String::from_utf8_lossy(&text).into_owned())
}
