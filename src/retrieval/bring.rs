//! One file on its way back: fetched, proved, and only then there.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use futures_util::{StreamExt, TryStreamExt};
use md5::{Digest, Md5};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::directory::{Local, RestoreDir, Temporary};
use super::plan::Wanted;
use crate::fetch::{FetchError, Taker, fetch};
use crate::hasher::Hasher;
use crate::hint::find;
use crate::model::content_hash::{Agreement, ComputedHash, ContentHasher};
use crate::model::etag::Md5Digest;
use crate::model::manifest::ContentHash;
use crate::model::object_key::Prefix;
use crate::model::part_plan::{MIB, PARTS_MAX, Part, PartPlan};
use crate::model::part_sizes::PartSizes;
use crate::object_hash::{KnownHash, hash_local};
use crate::report::Progress;
use crate::s3::{ObjectRef, Store, StoreError};

/// How often bytes that are not right are fetched again: over http a byte may change on its way.
const TRIES: u32 = 3;
/// What is fetched at a time of a large object whose parts are not known.
const RANGE: u64 = 16 * MIB;

/// What all files share.
pub struct Bring<'a> {
    pub store: &'a Store,
    pub prefix: &'a Prefix,
    pub directory: &'a RestoreDir,
    pub workers: usize,
    pub hasher: Hasher,
    /// Requests that bring bytes at a time, whether of one file or of many.
    pub requests: Semaphore,
    pub progress: Option<Progress>,
}

/// What a file that is there now rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proved {
    /// Its bytes have the hash that they must have.
    ByHash,
    /// No hash of it is known anywhere.
    BySizeOnly,
}

/// Whether no other file will have more luck: the store is out of reach, or the disk is full.
pub fn is_hopeless(error: &anyhow::Error) -> bool {
    let store = find::<StoreError>(error).is_some_and(|error| error.is_outage() || error.is_about_rights());
    let disk = find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::StorageFull);
    store || disk
}

impl Bring<'_> {
    /// What stands in the directory where a file is wanted.
    pub async fn look(&self, wanted: &Wanted) -> Result<Local, StoreError> {
        let listed = &wanted.listed;
        let unreadable = |error: io::Error| Local::Unfit(format!("cannot be read: {error}"));
        let file = match self.directory.look(&listed.name) {
            Ok(Ok(file)) => file,
            Ok(Err(local)) => return Ok(local),
            Err(error) => return Ok(unreadable(error)),
        };
        match file.metadata().map(|metadata| metadata.len()) {
            Ok(size) if size == listed.size => {}
            Ok(size) => return Ok(Local::Different(format!("has {size} bytes, and must have {}", listed.size))),
            Err(error) => return Ok(unreadable(error)),
        }
        let known = self.known(wanted).await?;
        match hash_local(&self.hasher, file, &known.hash).await {
            Ok(computed) => Ok(match computed.agrees_with(&known.hash, None, known.etag.as_ref()) {
                Agreement::Same(_) => Local::Right,
                Agreement::Different => Local::Different("has other bytes".to_owned()),
                Agreement::Unknown => Local::Different("cannot be compared".to_owned()),
            }),
            Err(error) => Ok(unreadable(error)),
        }
    }

    /// Fetches a file. It is there when it is proved, or not at all.
    pub async fn bring(&self, wanted: &Wanted) -> anyhow::Result<Proved> {
        let known = self.known(wanted).await?;
        let sha256 = wanted.record.as_ref().and_then(|record| record.sha256.as_deref());
        let name = &wanted.listed.name;
        let mut tries = 1;
        loop {
            let temporary = self.directory.create().context("cannot make a file")?;
            let computed = self.fetch(wanted, &known, &temporary, sha256.is_some()).await?;
            let proved = match computed.agrees_with(&known.hash, sha256, known.etag.as_ref()) {
                Agreement::Same(_) => Proved::ByHash,
                Agreement::Different if tries < TRIES => {
                    warn!(file = %name, "its bytes are not right (will be fetched again)");
                    tries += 1;
                    continue;
                }
                Agreement::Different if known.is_refuted(self.store, &self.key(wanted)).await? => {
                    return Err(anyhow!("its bytes in the bucket are not those that were uploaded"));
                }
                _ => Proved::BySizeOnly,
            };
            // What may be replaced was decided before the first byte, so nothing new is.
            let accepted = self.directory.accept(temporary, name, self.may_replace(wanted)?).await;
            accepted.with_context(|| format!("cannot give the file its name '{name}'"))?;
            debug!(file = %name, "restored");
            if let Some(progress) = &self.progress {
                progress.advance(1, 0);
            }
            return Ok(proved);
        }
    }

    /// Only a regular file is ever replaced, and it stood there before anything was fetched.
    fn may_replace(&self, wanted: &Wanted) -> anyhow::Result<bool> {
        match self.directory.look(&wanted.listed.name)? {
            Ok(_) => Ok(true),
            Err(Local::Absent) => Ok(false),
            Err(_) => Err(anyhow!("something that is no file stands in its place")),
        }
    }

    async fn known(&self, wanted: &Wanted) -> Result<KnownHash, StoreError> {
        match wanted.record.as_ref().and_then(|record| KnownHash::of_record(record, wanted.listed.size)) {
            Some(known) => Ok(known),
            None => KnownHash::of_object(self.store, &self.key(wanted), &wanted.listed).await,
        }
    }

    async fn fetch(
        &self,
        wanted: &Wanted,
        known: &KnownHash,
        temporary: &Temporary,
        with_sha256: bool,
    ) -> anyhow::Result<ComputedHash> {
        let listed = &wanted.listed;
        let object = ObjectRef { key: self.key(wanted), size: listed.size, etag: listed.etag.clone() };
        let file = temporary.file();
        let sizes = match &known.hash {
            // SHA-256 is over the whole, and in order.
            _ if with_sha256 => None,
            ContentHash::Parts { sizes, .. } => Some(*sizes),
            // No upload need have cut it so: what is made of it is compared with nothing.
            ContentHash::Unknown {} => Some(PartSizes::equal(RANGE.max(listed.size.div_ceil(PARTS_MAX.into())))),
            ContentHash::Whole { .. } => None,
        };
        let plan = sizes.and_then(|sizes| PartPlan::of_object(listed.size, sizes));
        let Some(plan) = plan.filter(PartPlan::is_multipart) else {
            let hasher = ContentHasher::like(&known.hash, with_sha256);
            let whole = Whole { file: Arc::clone(file), at: 0, hasher };
            return Ok(self.stretch(&object, 0..listed.size, whole).await?.hasher.finish());
        };
        let expected = match &known.hash {
            ContentHash::Parts { part_md5s, .. } => part_md5s.as_slice(),
            _ => &[],
        };
        let parts = futures_util::stream::iter(plan.parts()).map(async |part| {
            let expected = expected.get(part.number as usize - 1);
            self.part(&object, file, part, expected).await
        });
        let part_md5s = parts.buffered(self.workers).try_collect().await?;
        Ok(ComputedHash {
            size: listed.size,
            hash: ContentHash::Parts { sizes: plan.sizes(), part_md5s },
            sha256: None,
        })
    }

    /// Fetches one part to its place in the file. Where its hash is known, a wrong one is fetched again by itself.
    async fn part(
        &self,
        object: &ObjectRef,
        file: &Arc<File>,
        part: Part,
        expected: Option<&Md5Digest>,
    ) -> anyhow::Result<Md5Digest> {
        let mut tries = 1;
        loop {
            let range = part.offset..part.offset + part.length;
            let stretch = Stretch { file: Arc::clone(file), at: part.offset, md5: Md5::new() };
            let md5 = Md5Digest(self.stretch(object, range, stretch).await?.md5.finalize().into());
            if expected.is_none_or(|expected| *expected == md5) || tries == TRIES {
                return Ok(md5);
            }
            warn!(part = part.number, "a part of {} is not right (will be fetched again)", self.store.uri(&object.key));
            tries += 1;
        }
    }

    async fn stretch<T: Taker>(&self, object: &ObjectRef, range: Range<u64>, taker: T) -> anyhow::Result<T> {
        let _permit = self.requests.acquire().await?;
        let advance = |bytes| {
            if let Some(progress) = &self.progress {
                progress.advance(0, bytes);
            }
        };
        fetch(self.store, object, range, taker, advance).await.map_err(|error| match error {
            FetchError::Store(error) => anyhow!(error),
            FetchError::Local(error) => anyhow!(error).context("cannot write the file"),
        })
    }

    fn key(&self, wanted: &Wanted) -> String {
        format!("{}{}", self.prefix.directory(), wanted.listed.name)
    }
}

/// Writes a file from its start.
struct Whole {
    file: Arc<File>,
    at: u64,
    hasher: ContentHasher,
}

impl Taker for Whole {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(())
    }
}

/// Writes a stretch of a file.
struct Stretch {
    file: Arc<File>,
    at: u64,
    md5: Md5,
}

impl Taker for Stretch {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.md5.update(bytes);
        Ok(())
    }
}
