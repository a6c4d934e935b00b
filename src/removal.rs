//! Takes one dump out of the bucket: its objects and unfinished uploads, and nothing else.
//!
//! `metadata` goes first: without it nobody takes what is left for a whole dump. The manifest goes last: while anything
//! is left it says what.

use std::fmt;

use futures_util::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::bucket_dump::{Listed, Listing, Strangers};
use crate::bucket_manifest::read_manifest;
use crate::model::file_kind::could_be_dump_file;
use crate::model::file_name::{FileName, METADATA};
use crate::model::manifest::ManifestHeader;
use crate::model::object_key::Prefix;
use crate::model::standing::may_be_alive;
use crate::model::units::first_few_of;
use crate::model::user_metadata::DUMP_ID;
use crate::report::escape;
use crate::s3::{DELETE_BATCH, ErrorKind, ListedUpload, OpenUpload, Store, StoreError};

/// Names that a message has at most.
const NAMED_MAX: usize = 5;
/// Requests at a time, where each is for one key.
const REQUESTS: usize = 8;
/// Objects of odd names that are asked whose they are; more are left alone.
const ASKED_MAX: usize = 10_000;

/// How far the clocks of a store and of a dump's host are apart at most: with more the store refuses signatures (AWS,
/// `RequestTimeTooSkewed`).
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(15);

/// What is to be removed.
#[derive(Debug)]
pub struct Removal {
    prefix: Prefix,
    /// The manifest without its files, where it could be read.
    pub header: Option<ManifestHeader>,
    /// The key of `metadata`, if it is there.
    commit: Option<String>,
    /// All other keys, without the manifest's.
    keys: Vec<String>,
    /// The manifest's key, if it is there.
    manifest: Option<String>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// When the newest object was stored.
    pub newest: Option<Timestamp>,
    /// Keys directly under the prefix that mydumper does not make. They stay.
    pub strangers: Strangers,
    /// Multipart uploads of the dump's files that were not ended.
    uploads: Vec<OpenUpload>,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Removed {
    /// Objects that are gone.
    pub objects: usize,
    /// Objects that the store keeps.
    pub refused: Vec<Refused>,
    /// Unfinished uploads that could not be aborted.
    pub uploads_left: Vec<StoreError>,
    /// The signal that ended it before its end.
    pub stopped: Option<i32>,
}

/// An object that the store does not delete.
#[derive(Debug)]
pub struct Refused {
    key: String,
    why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "'{}': {}", escape(&self.key), self.why)
    }
}

impl Removal {
    /// Looks at what is there. Changes nothing.
    ///
    /// What belongs to the dump is told by its name, or by the dump's id on the object: whoever writes a manifest may
    /// name anything in it.
    pub async fn plan(store: &Store, prefix: &Prefix) -> Result<Self, StoreError> {
        let listing = Listing::of(store, prefix).await?;
        let header = match read_manifest(store, listing.manifest.as_ref(), drop).await? {
            Some(Ok(read)) => Some(read),
            // Then the names alone tell what belongs to the dump.
            Some(Err(error)) => {
                warn!("{}: {error}", store.uri(&prefix.manifest_key()));
                None
            }
            None => None,
        };
        let mut removal = Self {
            prefix: prefix.clone(),
            header,
            commit: None,
            keys: Vec::new(),
            bytes: listing.manifest.as_ref().map_or(0, |manifest| manifest.size),
            manifest: listing.manifest.as_ref().map(|manifest| manifest.key.clone()),
            newest: listing.times().max(),
            strangers: Strangers::default(),
            uploads: Vec::new(),
        };
        removal.uploads = open_uploads(store, prefix, removal.header.as_ref()).await;
        let (ours, others): (Vec<_>, Vec<_>) =
            listing.objects().iter().partition(|object| could_be_dump_file(object.name.as_str()));
        ours.into_iter().for_each(|object| removal.take(object));
        removal.take_marked(store, &others).await?;
        removal.find_commit(store).await?;
        removal.strangers.add_all(listing.strangers);
        Ok(removal)
    }

    fn take(&mut self, object: &Listed) {
        self.bytes += object.size;
        let key = self.key(object);
        if object.name.is_metadata() { self.commit = Some(key) } else { self.keys.push(key) }
    }

    /// Left behind because a listing leaves it out, `metadata` would call a whole dump what is none any more.
    async fn find_commit(&mut self, store: &Store) -> Result<(), StoreError> {
        let key = format!("{}{METADATA}", self.prefix.directory());
        if self.commit.is_none()
            && !self.is_empty()
            && let Some(head) = store.head(&key).await?
        {
            self.bytes += head.size;
            self.commit = Some(key);
        }
        Ok(())
    }

    fn key(&self, object: &Listed) -> String {
        format!("{}{}", self.prefix.directory(), object.name)
    }

    /// Files of odd names carry the dump's id.
    async fn take_marked(&mut self, store: &Store, others: &[&Listed]) -> Result<(), StoreError> {
        let dump_id = self.header.as_ref().map(|header| header.dump_id.clone());
        let asked = if dump_id.is_some() { others.len().min(ASKED_MAX) } else { 0 };
        let directory = self.prefix.directory();
        let look = async |object: &&Listed| {
            let head = store.head(&format!("{directory}{}", object.name)).await?;
            Ok::<_, StoreError>(head.is_some_and(|head| head.metadata.get(DUMP_ID) == dump_id.as_ref()))
        };
        let marked: Vec<_> =
            futures_util::stream::iter(&others[..asked]).map(look).buffered(REQUESTS).try_collect().await?;
        for (object, is_marked) in others.iter().zip(marked.into_iter().chain(std::iter::repeat(false))) {
            if is_marked {
                self.take(object);
            } else {
                self.strangers.add(self.key(object));
            }
        }
        Ok(())
    }

    /// Whether an upload may be at work on it.
    pub fn may_be_alive(&self, now: Timestamp) -> bool {
        self.header.as_ref().is_some_and(|header| may_be_alive(header, self.newest, now))
    }

    /// How many objects it is.
    pub fn objects(&self) -> usize {
        self.keys.len() + usize::from(self.commit.is_some()) + usize::from(self.manifest.is_some())
    }

    /// How many unfinished uploads it is.
    pub fn uploads(&self) -> usize {
        self.uploads.len()
    }

    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.objects() == 0 && self.uploads.is_empty()
    }

    /// A key that would be removed.
    pub fn some_key(&self) -> Option<&str> {
        self.commit.as_ref().or(self.manifest.as_ref()).or(self.keys.first()).map(String::as_str)
    }

    /// Some of the names.
    pub fn names(&self) -> String {
        let keys: Vec<_> = self.commit.iter().chain(&self.keys).chain(&self.manifest).map(String::as_str).collect();
        self.named(&keys, keys.len())
    }

    /// Some of the names that stay.
    pub fn stranger_names(&self) -> String {
        self.named(&self.strangers.named.iter().map(String::as_str).collect::<Vec<_>>(), self.strangers.count)
    }

    fn named(&self, keys: &[&str], count: usize) -> String {
        let directory = self.prefix.directory();
        let names: Vec<_> =
            keys.iter().take(NAMED_MAX).map(|key| escape(key.strip_prefix(&directory).unwrap_or(key))).collect();
        first_few_of(&names, count, NAMED_MAX, ", ")
    }

    /// Does it. `asked` tells the signal that asks for a stop. An error is one of the store as a whole; what it refuses key by key is in the result.
    pub async fn carry_out(&self, store: &Store, asked: impl Fn() -> Option<i32>) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        self.remove_in_order(store, asked, &mut removed).await?;
        for refused in removed.refused.iter_mut().take(NAMED_MAX) {
            let retention = store.retention(&refused.key).await;
            if let Some(until) = retention.until {
                refused.why =
                    format!("kept until {} by its retention ({})", until.strftime("%Y-%m-%d %H:%M UTC"), refused.why);
            } else if retention.legal_hold {
                refused.why = format!("kept by a legal hold ({})", refused.why);
            }
        }
        Ok(removed)
    }

    async fn remove_in_order(
        &self,
        store: &Store,
        asked: impl Fn() -> Option<i32>,
        removed: &mut Removed,
    ) -> Result<(), StoreError> {
        let commit = self.commit.as_slice();
        removed.take(commit.len(), one_by_one(store, commit).await?);
        // While `metadata` stays, all of the dump does.
        if !removed.refused.is_empty() {
            return Ok(());
        }
        for batch in self.keys.chunks(DELETE_BATCH) {
            removed.stopped = asked();
            if removed.stopped.is_some() {
                return Ok(());
            }
            removed.take(batch.len(), delete(store, batch).await?);
        }
        // Before the manifest: by that they are known to be of the dump.
        for upload in &self.uploads {
            if let Err(error) = store.abort_upload(upload).await {
                removed.uploads_left.push(error);
            }
        }
        if removed.refused.is_empty() {
            let manifest = self.manifest.as_slice();
            removed.take(manifest.len(), one_by_one(store, manifest).await?);
        }
        Ok(())
    }
}

impl Removed {
    fn take(&mut self, asked: usize, refused: Vec<Refused>) {
        self.objects += asked - refused.len().min(asked);
        self.refused.extend(refused);
    }

    /// What the store keeps, some of it in words; `None` if it keeps nothing.
    pub fn what_is_left(&self) -> Option<String> {
        let uploads = self.uploads_left.iter().map(ToString::to_string);
        let left: Vec<_> = self.refused.iter().map(ToString::to_string).chain(uploads).collect();
        (!left.is_empty()).then(|| first_few_of(&left, left.len(), NAMED_MAX, "; "))
    }
}

/// Unfinished uploads of the dump's files, begun while the prefix was claimed for it: any others are somebody else's. Where
/// they cannot be listed, that is no reason to keep the dump.
async fn open_uploads(store: &Store, prefix: &Prefix, header: Option<&ManifestHeader>) -> Vec<OpenUpload> {
    let directory = prefix.directory();
    // A stream has whatever name it was given.
    let of_stream = header.and_then(|header| header.name.as_ref());
    let could_be_ours = |listed: &ListedUpload| {
        let name = listed.upload.key.strip_prefix(&directory).and_then(|name| name.parse::<FileName>().ok());
        name.is_some_and(|name| could_be_dump_file(name.as_str()) || Some(&name) == of_stream)
    };
    let listed = match store.open_uploads(&directory, could_be_ours).await {
        Ok(uploads) => uploads,
        Err(error) => {
            info!("unfinished uploads are not looked for: {error}");
            return Vec::new();
        }
    };
    let is_ours = |listed: &ListedUpload| {
        header.zip(listed.begun).is_some_and(|(header, begun)| {
            begun >= header.started - CLOCK_SKEW && header.finished.is_none_or(|end| begun <= end + CLOCK_SKEW)
        })
    };
    let (ours, others): (Vec<_>, Vec<_>) = listed.into_iter().partition(is_ours);
    if !others.is_empty() {
        let uri = store.uri(&directory);
        let count = others.len();
        warn!("{uri} has unfinished uploads that were not begun while this dump was made ({count}): they stay");
    }
    ours.into_iter().map(|listed| listed.upload).collect()
}

/// Deletes up to a batch of objects; returns those that the store keeps.
async fn delete(store: &Store, keys: &[String]) -> Result<Vec<Refused>, StoreError> {
    let refused = match store.delete_batch(keys).await {
        Ok(refused) => refused,
        // Some stores do not know this request, or want a checksum in it that we do not send; some policies allow single
        // deletions and not this request.
        Err(error)
            if matches!(
                error.kind,
                ErrorKind::NotImplemented | ErrorKind::Invalid | ErrorKind::BadDigest | ErrorKind::AccessDenied
            ) =>
        {
            return one_by_one(store, keys).await;
        }
        Err(error) => return Err(error),
    };
    let (denied, kept): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(_, why)| why.starts_with("AccessDenied"));
    let denied: Vec<_> = denied.into_iter().map(|(key, _)| key).filter(|key| keys.contains(key)).collect();
    let mut refused = one_by_one(store, &denied).await?;
    refused.extend(kept.into_iter().map(|(key, why)| Refused { key, why }));
    Ok(refused)
}

async fn one_by_one(store: &Store, keys: &[String]) -> Result<Vec<Refused>, StoreError> {
    let delete = async |key: &String| match store.delete(key).await {
        Ok(()) => Ok(None),
        // Of this key, or of all: that shows when the others are tried.
        Err(error) if error.kind == ErrorKind::AccessDenied => {
            Ok(Some(Refused { key: key.clone(), why: error.to_string() }))
        }
        Err(error) => Err(error),
    };
    let deleted: Vec<_> = futures_util::stream::iter(keys).map(delete).buffer_unordered(REQUESTS).try_collect().await?;
    Ok(deleted.into_iter().flatten().collect())
}
