//! What is to be fetched, decided before the first byte: is the dump whole, which files, can they be read at all.

use std::collections::{HashMap, HashSet};

use anyhow::anyhow;
use futures_util::StreamExt;
use tracing::{info, warn};

use super::NAMED_MAX;
use super::directory::is_temporary;
use crate::bucket_dump::{Listed, Listing, no_dump};
use crate::bucket_manifest::{Fetched, Spooled};
use crate::exit_status::{Failure, Status};
use crate::hint::hinted;
use crate::model::dump_metadata::{DumpMetadata, Generation, ReplicationSource, TableSection};
use crate::model::file_kind::{FileKind, KnownNames, NameParts, could_be_dump_file, is_masked, is_never_data};
use crate::model::file_name::{FileName, MANIFEST, METADATA};
use crate::model::left_out::LeftOut;
use crate::model::manifest::{DumpStateWord, ManifestFile, ManifestHeader, ObjectRecord};
use crate::model::object_key::Prefix;
use crate::model::selection::TablePattern;
use crate::model::table_choice::TableChoice;
use crate::model::units::first_few;
use crate::real_names::RealNames;
use crate::s3::Store;

/// The largest `metadata` that is read into memory: some 200 bytes a table.
const METADATA_SIZE_MAX: u64 = 256 * 1024 * 1024;

/// A file to be fetched.
#[derive(Debug)]
pub struct Wanted {
    /// The object as it stands.
    pub listed: Listed,
    /// What the manifest says of it.
    pub record: Option<ObjectRecord>,
    /// What it holds.
    pub kind: FileKind,
    /// Of which database and table, by their real names as far as these are known.
    pub of: (Option<String>, Option<String>),
    /// How many rows its table has, as mydumper counted them; free text does not say it.
    pub rows: Option<u64>,
}

impl Wanted {
    /// Whether it holds rows: then its place may be taken by a pipe.
    pub fn is_data(&self) -> bool {
        matches!(self.kind, FileKind::Data | FileKind::DataText)
    }

    /// `shop.orders`, or the file's own name where that is not known.
    pub fn table(&self) -> String {
        match &self.of {
            (Some(database), Some(table)) => format!("{database}.{table}"),
            _ => self.listed.name.to_string(),
        }
    }
}

/// A file of the dump, with its real names.
struct DumpFile {
    name: FileName,
    kind: FileKind,
    database: Option<String>,
    table: Option<String>,
    record: Option<ObjectRecord>,
}

impl DumpFile {
    fn has_masked_name(&self) -> bool {
        [&self.database, &self.table].into_iter().flatten().any(|name| is_masked(name))
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// Only these; all, where there are none.
    pub tables: &'a [TablePattern],
    /// Also of a dump that is not whole.
    pub incomplete: bool,
    /// Real names are needed also where nothing is chosen by them.
    pub by_real_names: bool,
}

/// What is to be fetched of which dump.
#[derive(Debug)]
pub struct Plan {
    /// The files.
    pub wanted: Vec<Wanted>,
    /// All files of the dump, wanted or not.
    pub of_dump: HashSet<FileName>,
    header: Option<ManifestHeader>,
    metadata: Option<DumpMetadata>,
    /// Why the dump is not whole, if it is not.
    incomplete: Option<String>,
}

impl Plan {
    /// Looks at the dump, of which this is the listing, and chooses.
    pub async fn make(
        selection: &Selection<'_>,
        store: &Store,
        prefix: &Prefix,
        mut listing: Listing,
    ) -> Result<Self, Failure> {
        let manifest = match Spooled::fetch(store, listing.manifest.as_ref()).await.map_err(Failure::failed)? {
            Fetched::Read(manifest) => Some(manifest),
            Fetched::Absent => None,
            Fetched::Bad(bad) => {
                let uri = store.uri(&prefix.manifest_key());
                return Err(Failure::failed(anyhow!(bad).context(format!("cannot restore by {uri}"))));
            }
        };
        let metadata = metadata(store, prefix, &listing).await?;
        let header = manifest.as_ref().map(|manifest| manifest.header.clone());
        let files = match &manifest {
            Some(manifest) if manifest.header.state != DumpStateWord::Uploading => by_manifest(manifest).await,
            _ => by_listing(&listing, metadata.as_ref()),
        };
        if files.is_empty() {
            return Err(Failure::incomplete(no_dump(store, prefix)));
        }
        let incomplete = why_incomplete(header.as_ref(), &listing, metadata.as_ref());
        if let Some(why) = incomplete.as_ref().filter(|_| !selection.incomplete) {
            let error = anyhow!("{} is no whole dump: {why}", store.uri(&prefix.directory()));
            return Err(Failure::incomplete(hinted(error, "--incomplete takes what there is")));
        }
        let of_dump = files.iter().map(|file| file.name.clone()).collect();
        let mut files = files;
        if !selection.tables.is_empty() || selection.by_real_names {
            name_really(&mut files, store, prefix, metadata.as_ref()).await;
        }
        let chosen = choose(selection.tables, files)?;
        let mut plan = Self { wanted: Vec::new(), of_dump, header, metadata, incomplete };
        let damage = plan.take(chosen, &mut listing);
        plan.check_damage(selection.incomplete, store, prefix, damage)?;
        Ok(plan)
    }

    /// Finds the chosen files among the objects; returns what is wrong with those that cannot be had.
    fn take(&mut self, chosen: Vec<DumpFile>, listing: &mut Listing) -> Vec<String> {
        let mut damage = Vec::new();
        let counted = rows(self.metadata.as_ref());
        for DumpFile { name, kind, database, table, record } in chosen {
            match listing.take(&name) {
                // Of an incomplete dump there is none, and that was said already.
                None if name.is_metadata() && self.incomplete.is_some() => {}
                None => damage.push(format!("'{name}' is missing")),
                Some(listed) if record.as_ref().is_some_and(|record| record.size != listed.size) => {
                    damage.push(format!("'{name}' has another size than at its upload"));
                }
                Some(listed) => {
                    let rows = database.as_ref().zip(table.as_ref());
                    let rows = rows.and_then(|(database, table)| counted.get(database)?.get(table).copied());
                    self.wanted.push(Wanted { listed, record, kind, of: (database, table), rows });
                }
            }
        }
        damage.sort();
        damage
    }

    fn check_damage(
        &mut self,
        incomplete: bool,
        store: &Store,
        prefix: &Prefix,
        damage: Vec<String>,
    ) -> Result<(), Failure> {
        if damage.is_empty() {
            return Ok(());
        }
        let why = format!("{} of its files are missing or changed: {}", damage.len(), first_few(&damage, NAMED_MAX));
        if !incomplete {
            let error = anyhow!("{} is damaged: {why}", store.uri(&prefix.directory()));
            let error = hinted(error, "`mydumper2s3 verify` names all of them; --incomplete takes the others");
            return Err(Failure { status: Status::Difference, error });
        }
        self.incomplete.get_or_insert(why);
        Ok(())
    }

    /// Objects in an archive must be brought back before they can be read, which takes hours: found out now.
    pub async fn check_archived(
        &self,
        store: &Store,
        prefix: &Prefix,
        fetch: &[&Wanted],
        at_once: usize,
    ) -> Result<(), Failure> {
        let archived: Vec<_> = fetch.iter().filter(|wanted| wanted.listed.is_archived()).collect();
        let heads = futures_util::stream::iter(&archived).map(async |wanted| {
            let key = format!("{}{}", prefix.directory(), wanted.listed.name);
            (&wanted.listed.name, store.head(&key).await)
        });
        let mut heads = Box::pin(heads.buffer_unordered(at_once));
        while let Some((name, head)) = heads.next().await {
            let head = head.map_err(Failure::failed)?.unwrap_or_default();
            if !head.is_restored {
                let (count, class) = (archived.len(), head.storage_class.unwrap_or_default());
                let error =
                    anyhow!("{count} objects are archived, such as '{name}' in {class}: they cannot be read now");
                let hint =
                    "ask the store to restore them (aws s3api restore-object), and run this again when it is done";
                return Err(Failure::failed(hinted(error, hint)));
            }
        }
        Ok(())
    }

    /// Whether it is one object that came through a pipe, and no directory.
    pub fn is_stream(&self) -> bool {
        self.header.as_ref().is_some_and(ManifestHeader::is_stream)
    }

    /// myloader takes directories alone.
    pub fn refuse_stream(&self) -> Result<(), Failure> {
        if !self.is_stream() {
            return Ok(());
        }
        let error = anyhow!("it is a stream, and myloader loads directories");
        let hint =
            "`mydumper2s3 restore --stdout` writes it into a pipe: `| zstd -d | mysql`, or whatever made it can read";
        Err(Failure::usage(hinted(error, hint)))
    }

    /// Which mydumper made the dump.
    pub fn generation(&self) -> Option<Generation> {
        let salvaged = || self.header.as_ref()?.metadata_text.as_ref().map(|text| DumpMetadata::parse(text.as_bytes()));
        self.metadata.clone().or_else(salvaged)?.generation
    }

    /// Where the dumped server stood in binary logs.
    pub fn sources(&self) -> &[ReplicationSource] {
        self.metadata.as_ref().map_or(&[], |metadata| &metadata.sources)
    }

    /// What `metadata` tells of each table.
    pub fn tables(&self) -> &[TableSection] {
        self.metadata.as_ref().map_or(&[], |metadata| &metadata.tables)
    }

    /// What mydumper left out, as the manifest has it; `None` where that is not known.
    pub fn left_out(&self) -> Option<&[LeftOut]> {
        self.header.as_ref()?.left_out.as_deref()
    }

    /// The sections of `metadata` that are of something wanted, by real names and by those in file names: versions differ.
    /// A database's has no table, and is wanted where nothing of it is left out: it holds sums over all of it.
    pub fn sections(&self) -> HashSet<(String, Option<String>)> {
        let known = KnownNames::new(self.metadata.as_ref(), self.of_dump.iter().map(FileName::as_str));
        let mut sections = HashSet::new();
        let is_wanted: HashSet<&FileName> = self.wanted.iter().map(|wanted| &wanted.listed.name).collect();
        let left_out = self.of_dump.iter().filter(|name| !is_wanted.contains(name));
        let in_part: HashSet<_> =
            left_out.filter_map(|name| NameParts::parse(name.as_str(), &known).database).collect();
        for wanted in &self.wanted {
            let parts = NameParts::parse(wanted.listed.name.as_str(), &known);
            let (database, table) = &wanted.of;
            for (database, table) in [(database.as_deref(), table.as_deref()), (parts.database, parts.file_table)] {
                let Some(database) = database else { continue };
                if parts.database.is_some_and(|database| !in_part.contains(database)) {
                    sections.insert((database.to_owned(), None));
                }
                sections.extend(table.map(|table| (database.to_owned(), Some(table.to_owned()))));
            }
        }
        sections
    }

    /// Of an incomplete dump: what its `metadata` would have been. myloader loads nothing without one.
    pub fn salvaged_metadata(&self) -> Option<&str> {
        let has_metadata = self.wanted.iter().any(|wanted| wanted.listed.name.is_metadata());
        self.incomplete.as_ref().filter(|_| !has_metadata)?;
        self.header.as_ref()?.metadata_text.as_deref()
    }

    /// The end, when everything is there: an incomplete dump stays one.
    pub fn conclude(self) -> Result<Status, Failure> {
        match self.incomplete {
            None => Ok(Status::Success),
            Some(why) => {
                Err(Failure::incomplete(anyhow!("what there is was fetched, but this is no whole dump: {why}")))
            }
        }
    }
}

/// The rows of each database and table, by real names and by those in file names.
fn rows(metadata: Option<&DumpMetadata>) -> HashMap<String, HashMap<String, u64>> {
    let mut all: HashMap<String, HashMap<String, u64>> = HashMap::new();
    for section in metadata.map_or(&[] as &[_], |metadata| &metadata.tables) {
        let Some(rows) = section.rows else { continue };
        let of_database = all.entry(section.database.clone()).or_default();
        of_database.extend([(section.file_table.clone(), rows), (section.table.clone(), rows)]);
    }
    all
}

async fn metadata(store: &Store, prefix: &Prefix, listing: &Listing) -> Result<Option<DumpMetadata>, Failure> {
    let Some(listed) = listing.find(METADATA).filter(|listed| !listed.is_archived()) else {
        return Ok(None);
    };
    let key = format!("{}{}", prefix.directory(), listed.name);
    let text = store.read(&key, METADATA_SIZE_MAX).await.map_err(Failure::failed)?;
    Ok(text.map(|text| DumpMetadata::parse(&text)))
}

fn why_incomplete(
    header: Option<&ManifestHeader>,
    listing: &Listing,
    metadata: Option<&DumpMetadata>,
) -> Option<String> {
    if header.is_some_and(|header| header.is_committed(listing.has_metadata())) {
        return None;
    }
    match header.map(|header| (header.state, &header.reason)) {
        Some((DumpStateWord::Complete, _)) => Some("it was not committed, there is no metadata".to_owned()),
        Some((DumpStateWord::Uploading, _)) => Some("it is still being uploaded, or its upload died".to_owned()),
        Some((DumpStateWord::Incomplete, reason)) => Some(reason.clone().unwrap_or_else(|| "it failed".to_owned())),
        None if !listing.has_metadata() => Some("there is neither a manifest nor metadata".to_owned()),
        None => match metadata {
            Some(metadata) if metadata.finished.is_none() => Some("metadata has no line 'Finished dump at'".to_owned()),
            _ => None,
        },
    }
}

/// The files that the manifest names.
async fn by_manifest(manifest: &Spooled) -> Vec<DumpFile> {
    let mut files = Vec::new();
    let mut named = manifest.files();
    while let Some(ManifestFile { name, kind, database, table, object, .. }) = named.recv().await {
        if is_refused(&name) {
            warn!(file = %name, "the manifest names a file that no dump has; it is left out");
            continue;
        }
        // Kinds that a newer program knows are none to us.
        let kind = serde_json::from_value(kind.into()).unwrap_or(FileKind::Other);
        files.push(DumpFile { name, kind, database, table, record: Some(object) });
    }
    files
}

/// Without a manifest: what looks like a dump's file. At the root of a bucket all kinds of things may lie.
fn by_listing(listing: &Listing, metadata: Option<&DumpMetadata>) -> Vec<DumpFile> {
    let is_taken = |name: &&FileName| could_be_dump_file(name.as_str()) && !is_refused(name);
    let (taken, others): (Vec<_>, Vec<_>) = listing.names().partition(is_taken);
    if !taken.is_empty() && !others.is_empty() {
        let names: Vec<_> = others.iter().map(|name| format!("'{name}'")).collect();
        info!("objects with names that no dump has are left out: {}", first_few(&names, NAMED_MAX));
    }
    let known = KnownNames::new(metadata, taken.iter().map(|name| name.as_str()));
    let describe = |name: &FileName| {
        let parts = NameParts::parse(name.as_str(), &known);
        DumpFile {
            name: name.clone(),
            kind: parts.kind,
            database: parts.database.map(str::to_owned),
            table: parts.file_table.map(str::to_owned),
            record: None,
        }
    };
    taken.into_iter().map(describe).collect()
}

/// Puts real names in place of those that mydumper made up.
async fn name_really(files: &mut [DumpFile], store: &Store, prefix: &Prefix, metadata: Option<&DumpMetadata>) {
    let mut real_names = RealNames::of_metadata(metadata);
    real_names.complete(store, prefix, files.iter().filter(|file| file.has_masked_name()).map(|file| &file.name)).await;
    for file in files {
        if let (Some(database), Some(table)) = (&file.database, &file.table) {
            file.table = Some(real_names.table(database, table).to_owned());
        }
        file.database = file.database.take().map(|database| real_names.database(&database).to_owned());
    }
}

/// Names that would do harm in a directory that myloader reads, or that mean something to us.
fn is_refused(name: &FileName) -> bool {
    is_never_data(name.as_str()) || name.as_str() == MANIFEST || is_temporary(name.as_str())
}

fn choose(tables: &[TablePattern], files: Vec<DumpFile>) -> Result<Vec<DumpFile>, Failure> {
    let mut choice = TableChoice::new(tables);
    files.iter().for_each(|file| choice.see(file.kind, file.database.as_deref(), file.table.as_deref()));
    if let Some(pattern) = choice.unmet() {
        let error = anyhow!("the dump has no table '{}.{}'", pattern.database, pattern.table);
        return Err(Failure::usage(hinted(
            error,
            "`mydumper2s3 list --files` shows what it has; names are real names",
        )));
    }
    let takes = |file: &DumpFile| choice.takes(file.kind, file.database.as_deref(), file.table.as_deref());
    Ok(files.into_iter().filter(takes).collect())
}
