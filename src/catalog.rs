//! The dumps in a bucket: found by walking its directories, each judged by its manifest and its listing.
//!
//! Reading the manifest as a whole, not its header alone, is on purpose: only so it is known that every file is there,
//! and what the databases are really called.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use tracing::{debug, warn};

use crate::bucket_dump::{Contents, contents, read_manifest};
use crate::model::file_kind::{KnownNames, NameParts, could_be_dump_file};
use crate::model::file_name::{MANIFEST, METADATA};
use crate::model::manifest::{ManifestFile, ManifestHeader};
use crate::model::object_key::Prefix;
use crate::model::standing::{Seen, Standing, standing};
use crate::s3::{Store, StoreError};

/// Directories that are looked into at a time. A manifest is held in memory for each.
const LOOKS: usize = 8;
/// How deep the walk goes below where it began: dumps lie two or three directories deep.
const DEPTH_MAX: usize = 16;

/// A dump whose newest object is younger may have been committed a moment ago.
const YOUNG: SignedDuration = SignedDuration::from_mins(10);

/// The dump in a directory, and the directories below it.
pub type Look = (Option<FoundDump>, Vec<String>);

/// A dump in the bucket.
#[derive(Debug)]
pub struct FoundDump {
    /// Its directory.
    pub prefix: Prefix,
    /// Where it stands.
    pub standing: Standing,
    /// The manifest without its files, where it could be read.
    pub header: Option<ManifestHeader>,
    /// Its files that are there, without the manifest.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When its oldest object was stored.
    pub oldest: Option<Timestamp>,
    /// When its newest object was stored.
    pub newest: Option<Timestamp>,
    /// Real names where the manifest has them, else those of the file names.
    pub databases: BTreeSet<String>,
}

impl FoundDump {
    /// When the dump began. Without a manifest the oldest object's time comes near: the local time in `metadata` has
    /// no zone.
    pub fn started(&self) -> Option<Timestamp> {
        self.header.as_ref().map(|header| header.started).or(self.oldest)
    }

    /// From the dump's start until its last file was verified, where that is known.
    pub fn duration(&self) -> Option<Duration> {
        let header = self.header.as_ref()?;
        header.finished?.duration_since(header.started).try_into().ok()
    }
}

/// Finds the dumps at and under a directory, the oldest first.
pub async fn find(store: &Store, under: &Prefix, now: Timestamp) -> Result<Vec<FoundDump>, StoreError> {
    let mut found = Vec::new();
    let mut level = vec![under.clone()];
    for _ in 0..DEPTH_MAX {
        let looks = futures_util::stream::iter(level).map(|prefix| look(store, prefix, now));
        let looked: Vec<_> = looks.buffer_unordered(LOOKS).try_collect().await?;
        level = Vec::new();
        for (dump, directories) in looked {
            found.extend(dump);
            level.extend(directories.iter().filter_map(|directory| below(store, directory)));
        }
        if level.is_empty() {
            break;
        }
    }
    if let Some(prefix) = level.first() {
        warn!("directories as deep as {} are not looked into", store.uri(&prefix.directory()));
    }
    found.sort_by(|one, other| (one.started(), &one.prefix).cmp(&(other.started(), &other.prefix)));
    Ok(found)
}

/// A directory of a listing as a prefix. Those that no dump can have, such as `a//`, are left out.
fn below(store: &Store, directory: &str) -> Option<Prefix> {
    let prefix: Option<Prefix> = directory.parse().ok();
    let prefix = prefix.filter(|prefix| prefix.directory() == directory);
    if prefix.is_none() {
        debug!("{} is not looked into: no dump of ours can be there", store.uri(directory));
    }
    prefix
}

/// The dump that lies directly in a directory, if there is one, and the directories below it.
///
/// Listing and manifest are two requests. A dump that was committed between them would look as if objects were gone,
/// so one that is young and seems damaged is looked at again.
pub async fn look(store: &Store, prefix: Prefix, now: Timestamp) -> Result<Look, StoreError> {
    let looked = look_once(store, prefix.clone(), now).await?;
    let is_young = |time: Timestamp| now.duration_since(time) < YOUNG;
    match &looked {
        (Some(dump), _) if matches!(dump.standing, Standing::Damaged(_)) && dump.newest.is_some_and(is_young) => {
            look_once(store, prefix, now).await
        }
        _ => Ok(looked),
    }
}

async fn look_once(store: &Store, prefix: Prefix, now: Timestamp) -> Result<Look, StoreError> {
    let mut contents = contents(store, &prefix).await?;
    let directories = std::mem::take(&mut contents.directories);
    let is_dump = contents.objects.keys().any(|name| could_be_dump_file(name.as_str()));
    if !is_dump {
        return Ok((None, directories));
    }
    judge(store, prefix, contents, now).await.map(|dump| (Some(dump), directories))
}

async fn judge(store: &Store, prefix: Prefix, mut contents: Contents, now: Timestamp) -> Result<FoundDump, StoreError> {
    let times = || contents.objects.values().filter_map(|object| object.modified);
    let (oldest, newest) = (times().min(), times().max());
    let mut seen = Seen { has_metadata: contents.has(METADATA), newest, ..Seen::default() };
    let has_manifest = contents.has(MANIFEST);
    contents.objects.retain(|name, _| name.as_str() != MANIFEST);
    let mut tally = Tally::default();
    let mut manifest = None;
    if has_manifest {
        let each = |file: ManifestFile| {
            match contents.objects.remove(&file.name) {
                None => seen.missing += 1,
                Some(there) => {
                    seen.resized += u64::from(there.size != file.object.size);
                    tally.add(there.size);
                }
            }
            tally.databases.extend(file.database);
        };
        manifest = read_manifest(store, &prefix, each).await?;
    }
    tally.add_unlisted(&contents);
    let standing = standing(manifest.as_ref(), seen, now);
    let header = manifest.and_then(Result::ok);
    let Tally { files, bytes, databases } = tally;
    Ok(FoundDump { prefix, standing, header, files, bytes, oldest, newest, databases })
}

/// What is counted of a dump.
#[derive(Default)]
struct Tally {
    files: u64,
    bytes: u64,
    databases: BTreeSet<String>,
}

impl Tally {
    fn add(&mut self, size: u64) {
        self.files += 1;
        self.bytes += size;
    }

    /// Objects that the manifest does not name: files on their way, or all of a dump without one. Their names tell
    /// databases only where no manifest does.
    fn add_unlisted(&mut self, contents: &Contents) {
        let is_named = !self.databases.is_empty();
        let names = || contents.objects.keys().map(|name| name.as_str()).filter(|name| could_be_dump_file(name));
        let known = KnownNames::new(None, if is_named { Vec::new() } else { names().collect() });
        for (name, object) in &contents.objects {
            if could_be_dump_file(name.as_str()) {
                self.add(object.size);
                let database = NameParts::parse(name.as_str(), &known).database.filter(|_| !is_named);
                if let Some(database) = database.filter(|database| !self.databases.contains(*database)) {
                    self.databases.insert(database.to_owned());
                }
            }
        }
    }
}
