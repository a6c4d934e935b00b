//! The verdict on an object: does the store hold the bytes that were read here?
//!
//! By its ETag where that is an MD5. Else by the Content-MD5 of each request, where the store is known to refuse a wrong
//! one and its answer is about the object that is there. Else the object is read back: nothing is taken on trust.

use std::io;
use std::sync::atomic::Ordering;

use super::{ContentMd5, DUMP_ID, ObjectWriter, Passage, Source, Trouble};
use crate::fetch::{FetchError, Taker, fetch};
use crate::model::content_hash::{Agreement, ComputedHash, ContentHasher};
use crate::model::etag::ETag;
use crate::model::given_back::GivenBack;
use crate::model::manifest::{ContentHash, ObjectRecord, Proof};
use crate::model::part_plan::PartPlan;
use crate::s3::{ErrorKind, ObjectHead, ObjectRef, PutAnswer, StoreError};

/// What an upload knows at its end.
pub(super) struct Evidence {
    /// Of the bytes that were read here.
    pub(super) hash: ContentHash,
    /// The store's last answer.
    pub(super) answer: PutAnswer,
    /// Whether no part had another MD5 as ETag.
    pub(super) are_parts_proved: bool,
}

impl ObjectWriter {
    /// Proves an object that was just put.
    pub(super) async fn prove(&self, passage: &Passage<'_>, evidence: Evidence) -> Result<ObjectRecord, Trouble> {
        let Evidence { hash, answer, are_parts_proved } = evidence;
        let (key, size) = (passage.key, passage.plan.size());
        let expected = hash.etag();
        let by_etag = proof_by_etag(&hash);
        let record = |hash, etag, version_id, proof| {
            Ok(ObjectRecord { size, hash, etag, version_id, sha256: None, proof, is_read_back: false })
        };
        if !answer.etag_is_no_md5 && answer.etag.is_some() && answer.etag == expected {
            return record(hash, answer.etag, answer.version_id, by_etag);
        }
        // No ETag, or one that is no MD5, or a wrong one: what does the store say when it is asked again?
        let there = if self.write_only { ObjectHead::default() } else { self.look_at(key, size).await? };
        let says_no_md5 = answer.etag_is_no_md5 || there.etag_is_no_md5 || self.store.has_no_md5_etags();
        if !says_no_md5 && there.etag.is_some() && there.etag == expected {
            return record(hash, there.etag, answer.version_id.or(there.version_id), by_etag);
        }
        let is_one = |put: &ETag| there.etag.as_ref().is_none_or(|there| there == put);
        let is_about_it = answer.etag.as_ref().is_none_or(is_one);
        let etag = there.etag.or(answer.etag);
        let version_id = answer.version_id.or(there.version_id);
        let is_opaque = says_no_md5 || !has_form_of(etag.as_ref(), &hash);
        if is_opaque && is_about_it && are_parts_proved && self.is_content_md5_checked(passage).await? {
            return record(hash, etag, version_id, Proof::ContentMd5);
        }
        if self.write_only && is_opaque {
            let why = "the store's ETags are no MD5s, and it takes bytes that are not those of their Content-MD5: \
                       nothing proves what it holds; without --write-only each object would be read back";
            return Err(Trouble::Local(why.to_owned()));
        }
        let text = |etag: Option<&ETag>| etag.map_or("none".to_owned(), ToString::to_string);
        let detail = format!("its ETag is {}, and must be {}", text(etag.as_ref()), text(expected.as_ref()));
        let wrong = |detail| StoreError::of_answer(ErrorKind::BadDigest, "PutObject", &self.store.uri(key), detail);
        if self.write_only {
            return Err(wrong(detail).into());
        }
        match self.read_back(key, size, etag.clone(), &hash).await {
            Ok(true) => {}
            Ok(false) => return Err(wrong("its bytes are not those that were sent".to_owned()).into()),
            // No object has this ETag.
            Err(Trouble::Store(error)) if matches!(error.kind, ErrorKind::Precondition | ErrorKind::NoSuchKey) => {
                return Err(wrong(detail).into());
            }
            Err(trouble) => return Err(trouble),
        }
        if !are_parts_proved {
            self.has_opaque_parts.store(true, Ordering::Relaxed);
        }
        let (sha256, proof) = (None, Proof::ContentMd5);
        Ok(ObjectRecord { size, hash, etag, version_id, sha256, proof, is_read_back: true })
    }

    /// What the store answered to a put whose condition does not hold any more, if it was this very put that changed that:
    /// its answer was lost, and what stands there has our mark and these bytes.
    pub(super) async fn lost_answer(
        &self,
        passage: &Passage<'_>,
        hash: &ContentHash,
    ) -> Result<Option<PutAnswer>, Trouble> {
        let (key, size) = (passage.key, passage.plan.size());
        let there = self.store.head(key).await?.unwrap_or_default();
        let has_our_mark = there.metadata.get(DUMP_ID) == Some(&self.dump_id);
        if !has_our_mark || there.size != size {
            return Ok(None);
        }
        let is_opaque =
            there.etag_is_no_md5 || self.store.has_no_md5_etags() || !has_form_of(there.etag.as_ref(), hash);
        let is_ours =
            there.etag == hash.etag() || (is_opaque && self.read_back(key, size, there.etag.clone(), hash).await?);
        let ObjectHead { etag, version_id, etag_is_no_md5, .. } = there;
        Ok(is_ours.then_some(PutAnswer { etag, version_id, etag_is_no_md5, otherwise: Vec::new() }))
    }

    async fn look_at(&self, key: &str, size: u64) -> Result<ObjectHead, Trouble> {
        let wrong = |kind, detail| StoreError::of_answer(kind, "HeadObject", &self.store.uri(key), detail);
        let head = self
            .store
            .head(key)
            .await?
            .ok_or_else(|| wrong(ErrorKind::NoSuchUpload, "the object is not there after its upload".to_owned()))?;
        if head.size != size {
            let detail = format!("{} bytes are there, {size} were sent", head.size);
            return Err(wrong(ErrorKind::BadDigest, detail).into());
        }
        Ok(head)
    }

    async fn is_content_md5_checked(&self, passage: &Passage<'_>) -> Result<bool, Trouble> {
        let is_checked = match passage.content_md5 {
            ContentMd5::AskClaim => self.claim.lock().await.refuses_wrong_md5().await?,
            ContentMd5::IsChecked(is_checked) => is_checked,
        };
        Ok(is_checked == Some(true))
    }

    /// The object of a file of which an earlier run gave some back, where that run made it and came no further: it is read,
    /// and must be what was given back and what is here. `None`: no object of ours is there.
    pub async fn recognize(
        &self,
        key: &str,
        given: &GivenBack,
        source: &Source,
    ) -> Result<Option<ObjectRecord>, Trouble> {
        let size = source.identity.size;
        let Some(there) = self.store.head(key).await? else { return Ok(None) };
        if there.metadata.get(DUMP_ID) != Some(&self.dump_id) {
            return Ok(None);
        }
        let hash = ContentHash::Parts { sizes: given.sizes.of_object(size), part_md5s: Vec::new() };
        let computed = self.read(key, size, there.etag.clone(), &hash).await?;
        let ContentHash::Parts { part_md5s, .. } = &computed.hash else { return Ok(None) };
        let (first, rest) = part_md5s.split_at(part_md5s.len().min(given.parts as usize));
        let mut is_it = there.size == size && computed.size == size && given.are_the_parts(first);
        for (number, md5) in (given.parts + 1..).zip(rest) {
            let Some(part) = PartPlan::of_object(size, given.sizes).and_then(|plan| plan.part(number)) else {
                continue;
            };
            is_it &= self.hasher.hash_again(&source.range(part.offset, part.length)).await?.md5 == *md5;
        }
        if !is_it {
            let why = "its object is there and is not what was given back of it; neither is touched";
            return Err(Trouble::Local(why.to_owned()));
        }
        let (etag, version_id, hash) = (there.etag, there.version_id, computed.hash);
        let proof = if etag == hash.etag() { Proof::EtagComposite } else { Proof::ContentMd5 };
        Ok(Some(ObjectRecord { size, hash, etag, version_id, sha256: None, proof, is_read_back: true }))
    }

    /// Hashes an object as something with that hash was hashed: all of it is read.
    async fn read(
        &self,
        key: &str,
        size: u64,
        etag: Option<ETag>,
        hash: &ContentHash,
    ) -> Result<ComputedHash, Trouble> {
        let object = ObjectRef { key: key.to_owned(), size, etag };
        let hasher = Reading(ContentHasher::like(hash, false));
        let read = fetch(&self.store, &object, 0..size, hasher, |_| {}).await.map_err(|error| match error {
            FetchError::Store(error) => Trouble::Store(error),
            FetchError::Local(error) => Trouble::Local(format!("it cannot be read back: {error}")),
        })?;
        Ok(read.0.finish())
    }

    /// Whether an object has the bytes of that hash: all of them are read.
    async fn read_back(&self, key: &str, size: u64, etag: Option<ETag>, hash: &ContentHash) -> Result<bool, Trouble> {
        let computed = self.read(key, size, etag, hash).await?;
        Ok(computed.size == size && matches!(computed.agrees_with(hash, None, None), Agreement::Same(_)))
    }
}

struct Reading(ContentHasher);

impl Taker for Reading {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.update(bytes);
        Ok(())
    }
}

/// How an ETag proves bytes that were hashed so.
pub fn proof_by_etag(hash: &ContentHash) -> Proof {
    if matches!(hash, ContentHash::Whole { .. }) { Proof::EtagMd5 } else { Proof::EtagComposite }
}

/// Whether an ETag looks like the MD5, or the composite of as many MD5s, of an object that was hashed so: if it is
/// another one all the same, the object may be, too.
fn has_form_of(etag: Option<&ETag>, hash: &ContentHash) -> bool {
    let Some(etag) = etag else { return false };
    match hash {
        ContentHash::Whole { .. } => etag.as_md5().is_some(),
        ContentHash::Parts { part_md5s, .. } => {
            etag.part_count().is_some_and(|count| u64::from(count) == part_md5s.len() as u64)
        }
        ContentHash::Unknown {} => false,
    }
}
