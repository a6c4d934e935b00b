//! How an object's bytes were hashed when it went up: what a copy of them must be hashed like to be compared.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::bucket_dump::Listed;
use crate::hasher::Hasher;
use crate::model::content_hash::ComputedHash;
use crate::model::etag::ETag;
use crate::model::manifest::{ContentHash, ObjectRecord};
use crate::model::part_plan::CutInto;
use crate::model::part_size_guess::part_sizes_of;
use crate::model::part_sizes::PartSizes;
use crate::model::user_metadata::told_part_sizes;
use crate::page_cache::Footprint;
use crate::s3::{Store, StoreError};

/// What is known of an object's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHash {
    /// The hash, as far as it is known.
    pub hash: ContentHash,
    /// The ETag that it goes with.
    pub etag: Option<ETag>,
    /// Whether other bytes are proved by a difference: not where the part size is a guess, or the ETag may be no MD5.
    pub is_certain: bool,
}

impl KnownHash {
    /// From the manifest, where it knows the hash of an object of that size.
    pub fn of_record(record: &ObjectRecord, size: u64) -> Option<Self> {
        let is_known = match &record.hash {
            ContentHash::Whole { .. } => true,
            ContentHash::Parts { sizes, .. } if !sizes.is_possible(size) => false,
            ContentHash::Parts { part_md5s, .. } => !part_md5s.is_empty() || record.etag.is_some(),
            ContentHash::Unknown {} => false,
        };
        is_known.then(|| Self { hash: record.hash.clone(), etag: record.etag.clone(), is_certain: true })
    }

    /// Whether bytes with another hash are other bytes.
    pub async fn is_refuted(&self, store: &Store, key: &str) -> Result<bool, StoreError> {
        if self.is_certain {
            return Ok(true);
        }
        let is_md5 = matches!(self.hash, ContentHash::Whole { .. });
        let head = store.head(key).await?.unwrap_or_default();
        Ok(is_md5 && !head.etag_is_no_md5 && !store.has_no_md5_etags())
    }

    /// From the object itself. An object in one part needs no request, one in several parts needs one or two.
    pub async fn of_object(store: &Store, key: &str, listed: &Listed) -> Result<Self, StoreError> {
        let etag = listed.etag.clone();
        let known = |hash, is_certain| Self { hash, etag: etag.clone(), is_certain };
        let Some(tag) = &listed.etag else {
            return Ok(known(ContentHash::Unknown {}, false));
        };
        if let Some(md5) = tag.as_md5() {
            // With SSE-KMS an ETag has the form of an MD5 and is none: whoever finds a difference looks closer.
            return Ok(known(ContentHash::Whole { md5 }, false));
        }
        let Some(count) = tag.part_count() else {
            return Ok(known(ContentHash::Unknown {}, false));
        };
        let fits = |sizes: &PartSizes| sizes.is_possible(listed.size) && sizes.count(listed.size) == Some(count);
        let parts = |sizes: PartSizes| ContentHash::Parts { sizes, part_md5s: Vec::new() };
        let head = store.head(key).await?.unwrap_or_default();
        if let Some(sizes) = told_part_sizes(&head.metadata).filter(fits) {
            return Ok(known(parts(sizes), !head.etag_is_no_md5));
        }
        if let Some(sizes) = store.first_part_size(key).await?.map(PartSizes::equal).filter(fits) {
            return Ok(known(parts(sizes), !head.etag_is_no_md5));
        }
        let guess = part_sizes_of(listed.size, tag).into_iter().find_map(|cut| match cut {
            CutInto::Parts(sizes) => Some(sizes).filter(fits),
            CutInto::OnePut => None,
        });
        Ok(known(guess.map_or(ContentHash::Unknown {}, parts), false))
    }
}

/// Hashes a local file like its object: parts side by side, and nothing of it in memory.
pub async fn hash_local(hasher: &Hasher, file: File, like: &ContentHash) -> io::Result<ComputedHash> {
    let size = file.metadata()?.len();
    let cut = match like {
        ContentHash::Parts { sizes, .. } => CutInto::Parts(*sizes),
        ContentHash::Whole { .. } | ContentHash::Unknown {} => CutInto::OnePut,
    };
    let hash = hasher.hash_file(&Footprint::begin(Arc::new(file), size), cut).await?;
    Ok(ComputedHash { size, hash, sha256: None })
}
