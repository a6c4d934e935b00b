//! The dumps in a bucket: found by walking its directories, each judged by its manifest and its listing.
//!
//! Reading the manifest as a whole, not its header alone, is on purpose: only so it is known that every file is there,
//! and what the databases are really called.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tracing::{debug, warn};

use crate::bucket_dump::{Listed, Listing};
use crate::bucket_manifest::read_manifest;
use crate::model::file_kind::{KnownNames, NameParts, could_be_dump_file};
use crate::model::file_name::METADATA;
use crate::model::manifest::{ManifestFile, ManifestHeader};
use crate::model::object_key::Prefix;
use crate::model::series::Series;
use crate::model::standing::{FUTURE_AFTER, Seen, Standing, standing};
use crate::s3::{ErrorKind, Store, StoreError};

/// Directories that are looked into at a time.
const LOOKS: usize = 8;
/// How deep the walk goes below where it began: dumps lie two or three directories deep.
const DEPTH_MAX: usize = 16;
/// Files that a listing lacks and that are asked for one by one.
const ASKED_MAX: usize = 1_000;

/// The dump in a directory, and the directories below it.
pub type Look = (Option<FoundDump>, Vec<String>);

/// A dump in the bucket.
#[derive(Debug)]
pub struct FoundDump {
    /// Its directory.
    pub prefix: Prefix,
    /// Where it stands.
    pub standing: Standing,
    /// What it is one of.
    pub series: Series,
    /// Whether it begins later than now: then a clock was wrong, and its age is not known.
    pub is_future: bool,
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
    /// Keys of files that the manifest names and the listing has not, some of them.
    missing: Vec<String>,
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

    /// Whether it is one of that series, where one was named.
    pub fn is_of(&self, series: Option<&Series>) -> bool {
        series.is_none_or(|series| *series == self.series)
    }

    /// Whether it is whole and its age is known: what may count as the newest.
    pub fn counts(&self) -> bool {
        self.standing.is_complete() && !self.is_future && self.started().is_some()
    }

    /// Where it stands, and whether its start can be believed.
    pub fn state(&self) -> String {
        let future = if self.is_future { ", its start lies in the future" } else { "" };
        format!("{}{future}", self.standing)
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
/// Who calls a dump damaged gets it removed. So one that seems to be is looked at again: listing and manifest are two
/// requests, and it may have been committed between them. Then what the listing lacks is asked for file by file.
pub async fn look(store: &Store, prefix: Prefix, now: Timestamp) -> Result<Look, StoreError> {
    let looked = look_once(store, prefix.clone(), now).await?;
    let is_damaged = |look: &Look| look.0.as_ref().is_some_and(|dump| matches!(dump.standing, Standing::Damaged(_)));
    if !is_damaged(&looked) {
        return Ok(looked);
    }
    let mut again = look_once(store, prefix, now).await?;
    if is_damaged(&again)
        && let Some(dump) = &mut again.0
        && let Some(key) = one_that_is_there(store, &dump.missing).await?
    {
        dump.standing = Standing::Unknown(format!("a listing leaves out {key}, which is there"));
    }
    Ok(again)
}

/// The first of those keys that has an object.
async fn one_that_is_there(store: &Store, keys: &[String]) -> Result<Option<String>, StoreError> {
    let ask = async |key: &String| Ok(store.head(key).await?.map(|_| key.clone()));
    let mut asked = Box::pin(futures_util::stream::iter(keys).map(ask).buffer_unordered(LOOKS));
    while let Some(there) = asked.next().await {
        match there {
            Ok(None) => {}
            answer => return answer,
        }
    }
    Ok(None)
}

async fn look_once(store: &Store, prefix: Prefix, now: Timestamp) -> Result<Look, StoreError> {
    let mut listing = match Listing::of(store, &prefix).await {
        Ok(listing) => listing,
        // No dump of ours, and no reason to see none at all.
        Err(error) if error.kind == ErrorKind::TooLarge => {
            warn!("not looked into: {error}");
            return Ok((None, Vec::new()));
        }
        Err(error) => return Err(error),
    };
    let directories = std::mem::take(&mut listing.directories);
    if !listing.could_be_dump() {
        return Ok((None, directories));
    }
    judge(store, prefix, listing, now).await.map(|dump| (Some(dump), directories))
}

async fn judge(store: &Store, prefix: Prefix, mut listing: Listing, now: Timestamp) -> Result<FoundDump, StoreError> {
    let (oldest, newest) = (listing.times().min(), listing.times().max());
    let mut seen = Seen { has_metadata: listing.has_metadata(), newest, ..Seen::default() };
    let mut tally = Tally::default();
    let mut missing = Vec::new();
    let directory = prefix.directory();
    let manifest = listing.manifest.clone();
    let each = |file: ManifestFile| {
        match listing.take(&file.name) {
            None => {
                seen.missing += 1;
                if missing.len() < ASKED_MAX {
                    missing.push(format!("{directory}{}", file.name));
                }
            }
            Some(there) => {
                seen.resized += u64::from(there.size != file.object.size);
                tally.add(there.size);
            }
        }
        tally.databases.extend(file.database);
    };
    let manifest = read_manifest(store, manifest.as_ref(), each).await?;
    if !seen.has_metadata {
        missing.push(format!("{directory}{METADATA}"));
    }
    tally.add_unlisted(&listing);
    let standing = standing(manifest.as_ref(), seen, now);
    let header = manifest.and_then(Result::ok);
    let series = header.as_ref().and_then(|header| header.series.as_deref()).map(Series::of_manifest);
    let series = series.unwrap_or_else(|| Series::of_place(&prefix));
    let is_future = |started: Timestamp| started.duration_since(now) > FUTURE_AFTER;
    let is_future = header.as_ref().map(|header| header.started).or(oldest).is_some_and(is_future);
    let Tally { files, bytes, databases } = tally;
    Ok(FoundDump { prefix, standing, series, is_future, header, files, bytes, oldest, newest, databases, missing })
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
    fn add_unlisted(&mut self, listing: &Listing) {
        let is_named = !self.databases.is_empty();
        let is_ours = |object: &&Listed| could_be_dump_file(object.name.as_str());
        let names = listing.rest().filter(is_ours).map(|object| object.name.as_str());
        let known = KnownNames::new(None, if is_named { Vec::new() } else { names.collect() });
        for object in listing.rest().filter(is_ours) {
            self.add(object.size);
            let database = NameParts::parse(object.name.as_str(), &known).database.filter(|_| !is_named);
            if let Some(database) = database.filter(|database| !self.databases.contains(*database)) {
                self.databases.insert(database.to_owned());
            }
        }
    }
}
