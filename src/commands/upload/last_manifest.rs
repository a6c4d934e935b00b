//! The last manifest: everything that is known of the dump and of each of its objects.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Seek, Write};

use anyhow::Context;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::session::Session;
use crate::model::dump_metadata::{DumpMetadata, TableSection};
use crate::model::file_kind::{FileKind, KnownNames, NameParts, has_masked_part};
use crate::model::file_name::{FileName, METADATA};
use crate::model::manifest::{self, DumpStateWord, DumperExit, ManifestFile, ManifestHeader, ObjectRecord};
use crate::platform;
use crate::real_names::RealNames;

impl Session<'_> {
    /// Writes the manifest with everything in it.
    pub(super) async fn write_manifest(
        &mut self,
        header: ManifestHeader,
        metadata: &DumpMetadata,
        commit: Option<ObjectRecord>,
    ) -> anyhow::Result<()> {
        let mut real_names = RealNames::of_metadata(Some(metadata));
        if commit.is_some() && !self.args.destination.write_only {
            let masked: Vec<_> = self
                .shared
                .state()
                .uploaded()
                .map(|(name, _)| name.clone())
                .filter(|name| has_masked_part(name.as_str()))
                .collect();
            real_names.complete(&self.store, &self.shared.transfer.writer.prefix, masked.iter()).await;
        }
        let file = self.manifest_file(header, metadata, &real_names, commit).context("cannot write the manifest")?;
        let mut copy = file.try_clone().context("cannot read the manifest back")?;
        copy.rewind()?;
        let mut hasher = HashWriter(Sha256::new());
        std::io::copy(&mut copy, &mut hasher)?;
        let writer = &self.shared.transfer.writer;
        let put = async |key: &str, file: File, condition, is_checked| {
            Box::pin(writer.put_own(key, file, condition, is_checked)).await
        };
        self.claim.lock().await.finish(file, put).await?;
        self.manifest_sha256 = Some(HEXLOWER.encode(&hasher.0.finalize()));
        Ok(())
    }

    fn manifest_file(
        &self,
        mut header: ManifestHeader,
        metadata: &DumpMetadata,
        real_names: &RealNames,
        commit: Option<ObjectRecord>,
    ) -> std::io::Result<File> {
        let state = self.shared.state();
        let mut objects: Vec<(&FileName, &ObjectRecord)> =
            state.uploaded().map(|(name, uploaded)| (name, &uploaded.object)).collect();
        let metadata_name: Option<FileName> = METADATA.parse().ok();
        if let (Some(name), Some(object)) = (&metadata_name, &commit) {
            objects.push((name, object));
        }
        objects.sort_by_key(|(name, _)| *name);
        let withdrawn = self.shared.transfer.withdrawn.lock();
        header.withdrawn =
            withdrawn.iter().filter(|name| state.find_uploaded(name.as_str()).is_none()).cloned().collect();
        header.format = objects.iter().map(|(_, object)| object.hash.format()).fold(header.format, u32::max);
        header.total_files = objects.len() as u64;
        header.total_bytes = objects.iter().map(|(_, object)| object.size).sum();
        let describe = Describe::new(metadata, real_names, objects.iter().map(|(name, _)| name.as_str()));
        let file = platform::memory_file("manifest")?;
        let files = objects.iter().map(|(name, object)| describe.file(name, object));
        manifest::write(BufWriter::new(&file), &header, files)?;
        Ok(file)
    }

    /// The manifest's header as it is at the end.
    pub fn final_header(&self, state: DumpStateWord, exit: DumperExit, metadata: &DumpMetadata) -> ManifestHeader {
        let mut header = self.header.clone();
        header.state = state;
        header.finished = Some(Timestamp::now());
        header.dumper_exit = exit;
        header.full_disk = self.full_disk();
        header.dumper_finished = metadata.finished.clone();
        header.sources = metadata.sources.clone();
        header
    }
}

/// Says what a file is, from its name and from `metadata`.
struct Describe<'a> {
    real_names: &'a RealNames,
    known: KnownNames,
    tables: HashMap<(&'a str, &'a str), &'a TableSection>,
}

impl<'a> Describe<'a> {
    fn new(metadata: &'a DumpMetadata, real_names: &'a RealNames, names: impl Iterator<Item = &'a str>) -> Self {
        let tables = metadata.tables.iter();
        Self {
            real_names,
            known: KnownNames::new(Some(metadata), names),
            tables: tables.map(|table| ((table.database.as_str(), table.file_table.as_str()), table)).collect(),
        }
    }

    fn file(&self, name: &FileName, object: &ObjectRecord) -> ManifestFile {
        let parts = NameParts::parse(name.as_str(), &self.known);
        let database = parts.database.map(|database| self.real_names.database(database));
        let section_in = |database| self.tables.get(&(database, parts.file_table?)).copied();
        let section = parts.database.and_then(section_in).or_else(|| database.and_then(section_in));
        let names = parts.database.zip(parts.file_table);
        ManifestFile {
            name: name.clone(),
            kind: kind_name(parts.kind),
            database: database.map(str::to_owned),
            table: names.map(|(database, table)| self.real_names.table(database, table).to_owned()),
            rows: section.and_then(|section| section.rows),
            object: object.clone(),
        }
    }
}

/// The kind's name as it is written into the manifest.
fn kind_name(kind: FileKind) -> String {
    serde_json::to_value(kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

struct HashWriter(Sha256);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
