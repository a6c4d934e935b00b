//! One file: what the manifest, the listing, the local file and the object's bytes say of it.

use std::io;
use std::sync::Arc;

use crate::bucket_dump::Listed;
use crate::dump_dir::DumpDir;
use crate::fetch::{FetchError, Taker, fetch};
use crate::hasher::Hasher;
use crate::model::comparison::{By, Judgement, Verdict, name_of};
use crate::model::content_check::{self, ContentCheck};
use crate::model::content_hash::{Agreement, ComputedHash, ContentHasher};
use crate::model::etag::ETag;
use crate::model::file_name::FileName;
use crate::model::manifest::{ContentHash, ObjectRecord};
use crate::model::object_key::Prefix;
use crate::model::row_count::FileRows;
use crate::object_hash::{KnownHash, hash_local};
use crate::report::Progress;
use crate::s3::{ErrorKind, ObjectRef, Store, StoreError};

/// Where a listing cannot prove an object because its ETag is no MD5, one up to this size is read: where the store gives
/// such ETags that is `metadata`, whose ETag is not in the manifest, since the manifest is written first.
const READ_INSTEAD_MAX: u64 = 16 * 1024 * 1024;

/// A file that somebody names: the manifest, the bucket or the directory.
#[derive(Debug)]
pub struct Entry {
    pub name: FileName,
    pub record: Option<ObjectRecord>,
    pub listed: Option<Listed>,
    pub is_local: bool,
}

/// The verdict on a file.
#[derive(Debug)]
pub struct Finding {
    pub name: FileName,
    pub judgement: Judgement,
    pub record: Option<ObjectRecord>,
    pub size: u64,
    pub etag: Option<ETag>,
    /// The rows in it, where it is a data file and all of it was read.
    pub rows: Option<FileRows>,
}

/// The verdict on an object's bytes, and the rows in them.
type ByContent = (Judgement, Option<FileRows>);

/// What all judgements share.
pub struct Judge<'a> {
    pub store: &'a Store,
    pub prefix: &'a Prefix,
    pub directory: Option<Arc<DumpDir>>,
    pub is_deep: bool,
    pub has_manifest: bool,
    pub hasher: Hasher,
    pub progress: Progress,
}

impl Judge<'_> {
    /// Judges a file. Fails only where the store cannot be asked at all.
    pub async fn judge(&self, entry: Entry) -> Result<Finding, StoreError> {
        let (judgement, rows) = self.judgement(&entry).await?;
        self.progress.advance(1, 0);
        let Entry { name, record, listed, .. } = entry;
        let size = listed.as_ref().map(|listed| listed.size).or_else(|| record.as_ref().map(|record| record.size));
        let etag = listed.and_then(|listed| listed.etag);
        Ok(Finding { name, judgement, record, size: size.unwrap_or_default(), etag, rows })
    }

    async fn judgement(&self, entry: &Entry) -> Result<ByContent, StoreError> {
        let Some(listed) = &entry.listed else {
            let named = if entry.record.is_some() { "the manifest names it" } else { "it is in the directory" };
            return Ok((Judgement::of(Verdict::Missing, format!("{named}, and it is not in the bucket")), None));
        };
        let mut rows = None;
        let mut judgement = match &entry.record {
            Some(record) => self.by_listing(listed, record).await?,
            None if self.has_manifest => Judgement::of(Verdict::Extra, "the manifest does not name it"),
            None if self.directory.is_some() && !entry.is_local => {
                Judgement::of(Verdict::Extra, "it is not in the directory, and there is no manifest that names it")
            }
            None => Judgement::of(Verdict::Unproved, "there is no manifest to compare it with"),
        };
        if let Some(directory) = self.directory.as_ref().filter(|_| entry.is_local) {
            judgement = judgement.and(self.by_local_file(directory, listed, entry.record.as_ref()).await?);
        }
        let is_named = entry.record.is_some() || !self.has_manifest;
        let has_size = entry.record.as_ref().is_none_or(|record| record.size == listed.size);
        if self.is_deep && is_named && has_size {
            let by_content;
            (by_content, rows) = self.by_content(listed, entry.record.as_ref()).await?;
            // Copied from elsewhere in other parts it has another ETag: its bytes count for more.
            let is_outdone = by_content.verdict == Verdict::Match && entry.record.is_some() && !entry.is_local;
            judgement = if is_outdone { by_content } else { judgement.and(by_content) };
        }
        Ok((judgement, rows))
    }

    /// Is the object the one that the upload proved?
    async fn by_listing(&self, listed: &Listed, record: &ObjectRecord) -> Result<Judgement, StoreError> {
        if listed.size != record.size {
            let why = format!("it has {} bytes, and had {} at its upload", listed.size, record.size);
            return Ok(Judgement::of(Verdict::Mismatch, why));
        }
        // Of `metadata` the manifest, which is written before it, can only tell what its ETag is to be.
        let expected = record.etag.clone().or_else(|| record.hash.etag());
        if listed.etag.is_some() && listed.etag == expected {
            let proof = format!("size and ETag are as proved at its upload ({})", name_of(record));
            return Ok(Judgement::matches(By::Etag, proof));
        }
        let key = self.key(&listed.name);
        let Some(head) = self.store.head(&key).await? else {
            return Ok(Judgement::of(Verdict::Missing, "it is gone since it was listed"));
        };
        let etag = listed.etag.clone().or_else(|| head.etag.clone());
        match (&etag, &expected) {
            (Some(etag), Some(expected)) if etag == expected => {
                return Ok(Judgement::matches(
                    By::Etag,
                    format!("ETag is as proved at its upload ({})", name_of(record)),
                ));
            }
            _ => {}
        }
        let is_opaque = head.etag_is_no_md5 || self.store.has_no_md5_etags();
        let Some((etag, expected)) = etag.zip(expected).filter(|_| !is_opaque) else {
            return self.without_etag(listed, record, "its ETag proves nothing").await;
        };
        if self.are_other_parts(&key, &etag, &expected, record).await? {
            let why =
                format!("it was stored again in other parts: its ETag is {etag}, and was {expected} at its upload");
            return self.without_etag(listed, record, &why).await;
        }
        let version = match (&head.version_id, &record.version_id) {
            (Some(there), Some(then)) if there != then => format!(" (version {there}; at its upload {then})"),
            _ => String::new(),
        };
        if record.etag.is_none() {
            // What the manifest foresaw. Its store may give ETags that are no MD5s, and say nothing of it.
            return self.without_etag(listed, record, &format!("its ETag is {etag}, and not {expected}")).await;
        }
        let why = format!("its ETag is {etag}, and was {expected} at its upload{version}");
        Ok(Judgement::of(Verdict::Mismatch, why))
    }

    /// Whether two ETags differ because the object was copied by a program that cuts it in another way: then they tell
    /// nothing of its bytes.
    async fn are_other_parts(
        &self,
        key: &str,
        there: &ETag,
        then: &ETag,
        record: &ObjectRecord,
    ) -> Result<bool, StoreError> {
        if (there.as_md5().is_some(), there.part_count()) != (then.as_md5().is_some(), then.part_count()) {
            return Ok(true);
        }
        let ContentHash::Parts { sizes, .. } = record.hash else { return Ok(false) };
        // As many parts may still be other ones. Where nothing tells their size, nothing is known.
        Ok(self.store.first_part_size(key).await? != Some(sizes.first().min(record.size)))
    }

    /// Where its ETag proves nothing its bytes do.
    async fn without_etag(&self, listed: &Listed, record: &ObjectRecord, why: &str) -> Result<Judgement, StoreError> {
        match () {
            () if self.is_deep => Ok(Judgement::of(Verdict::Unproved, why)),
            () if KnownHash::of_record(record, listed.size).is_some() && listed.size <= READ_INSTEAD_MAX => {
                Ok(self.by_content(listed, Some(record)).await?.0)
            }
            () => Ok(Judgement::of(Verdict::Unproved, format!("{why}; --deep reads it"))),
        }
    }

    /// Has the local file the bytes of the object as it stands now?
    async fn by_local_file(
        &self,
        directory: &DumpDir,
        listed: &Listed,
        record: Option<&ObjectRecord>,
    ) -> Result<Judgement, StoreError> {
        let key = self.key(&listed.name);
        let is_as_uploaded = |record: &&ObjectRecord| {
            listed.etag.is_some() && listed.etag == record.etag.clone().or_else(|| record.hash.etag())
        };
        let known = match record.filter(is_as_uploaded).and_then(|record| KnownHash::of_record(record, listed.size)) {
            Some(known) => known,
            None => KnownHash::of_object(self.store, &key, listed).await?,
        };
        let computed = match self.hash_local(directory, listed, &known.hash).await {
            Ok(Ok(computed)) => computed,
            Ok(Err(other_size)) => {
                let why = format!("the local file has {other_size} bytes, the object {}", listed.size);
                return Ok(Judgement::of(Verdict::Mismatch, why));
            }
            Err(error) => {
                let why = format!("the local file cannot be read: {error}");
                return Ok(Judgement::of(Verdict::Unproved, why));
            }
        };
        match computed.agrees_with(&known.hash, None, known.etag.as_ref()) {
            Agreement::Same(proof) => {
                Ok(Judgement::matches(By::LocalFile, format!("the local file has the object's {}", proof.as_str())))
            }
            Agreement::Different if known.is_refuted(self.store, &key).await? => {
                Ok(Judgement::of(Verdict::Mismatch, "the local file has other bytes than the object"))
            }
            _ => {
                let why =
                    "the object's ETag is no MD5, or its part size is not known: the local file cannot be compared";
                Ok(Judgement::of(Verdict::Unproved, why))
            }
        }
    }

    /// The local file's hash, or its size where that is another one.
    async fn hash_local(
        &self,
        directory: &DumpDir,
        listed: &Listed,
        like: &ContentHash,
    ) -> io::Result<Result<ComputedHash, u64>> {
        let file = directory.open_file(listed.name.as_str())?;
        let size = file.metadata()?.len();
        if size != listed.size {
            return Ok(Err(size));
        }
        let computed = hash_local(&self.hasher, file, like).await?;
        self.progress.advance(0, size);
        Ok(Ok(computed))
    }

    /// Are the object's bytes those that went up, and is compressed content whole?
    async fn by_content(&self, listed: &Listed, record: Option<&ObjectRecord>) -> Result<ByContent, StoreError> {
        let key = self.key(&listed.name);
        let known = match record.and_then(|record| KnownHash::of_record(record, listed.size)) {
            Some(known) => known,
            None => KnownHash::of_object(self.store, &key, listed).await?,
        };
        let sha256 = record.and_then(|record| record.sha256.as_deref());
        let mut tries_left = 1;
        loop {
            let content = match self.read(&key, listed, &known.hash, sha256.is_some()).await {
                Ok(content) => content,
                Err(error) => return Ok((unreadable(error)?, None)),
            };
            let whole = content.check.map_or(Ok(Default::default()), ContentCheck::finish);
            match content.hasher.finish().agrees_with(&known.hash, sha256, known.etag.as_ref()) {
                // On its way a byte may change, too: over http nothing else would notice.
                Agreement::Different if tries_left > 0 => tries_left -= 1,
                Agreement::Different if known.is_refuted(self.store, &key).await? => {
                    let why = "its bytes are not those that were uploaded";
                    return Ok((Judgement::of(Verdict::Mismatch, why), None));
                }
                agreement => {
                    let rows = whole.as_ref().ok().and_then(|content| content.rows);
                    return Ok((content_judgement(agreement, whole), rows));
                }
            }
        }
    }

    async fn read(
        &self,
        key: &str,
        listed: &Listed,
        like: &ContentHash,
        with_sha256: bool,
    ) -> Result<Content, FetchError> {
        let object = ObjectRef { key: key.to_owned(), size: listed.size, etag: listed.etag.clone() };
        let content =
            Content { hasher: ContentHasher::like(like, with_sha256), check: ContentCheck::of(listed.name.as_str()) };
        fetch(self.store, &object, 0..listed.size, content, |bytes| self.progress.advance(0, bytes)).await
    }

    fn key(&self, name: &FileName) -> String {
        format!("{}{name}", self.prefix.directory())
    }
}

struct Content {
    hasher: ContentHasher,
    check: Option<ContentCheck>,
}

impl Taker for Content {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        if let Some(check) = &mut self.check {
            check.update(bytes);
        }
        Ok(())
    }
}

/// `whole`: whether compressed content was decoded to its end; an error says how it is broken.
fn content_judgement(agreement: Agreement, whole: Result<content_check::Content, String>) -> Judgement {
    let decoded = match whole {
        Err(why) => return Judgement::of(Verdict::Mismatch, format!("broken: {why}")),
        Ok(content) if content.is_decoded => ", decoded to its end",
        Ok(_) => "",
    };
    match agreement {
        Agreement::Same(proof) => {
            Judgement::matches(By::Bytes, format!("its bytes were read: {}{decoded}", proof.as_str()))
        }
        _ => Judgement::of(Verdict::Unproved, format!("no hash of its bytes is known{decoded}")),
    }
}

/// What an object that cannot be read is. An outage is no property of it.
fn unreadable(error: FetchError) -> Result<Judgement, StoreError> {
    match error {
        FetchError::Store(error) => match error.kind {
            ErrorKind::NoSuchKey => Ok(Judgement::of(Verdict::Missing, "it is gone since it was listed")),
            ErrorKind::Precondition => Ok(Judgement::of(Verdict::Mismatch, "it was replaced while it was read")),
            ErrorKind::Invalid | ErrorKind::NotImplemented => {
                Ok(Judgement::of(Verdict::Unproved, format!("it cannot be read: {error}")))
            }
            _ => Err(error),
        },
        FetchError::Local(error) => Ok(Judgement::of(Verdict::Unproved, format!("it cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::content_hash::HashProof;

    #[test]
    fn broken_content_is_no_match_whatever_its_hash() {
        let same = Agreement::Same(HashProof::Md5);
        let plain = content_check::Content::default();
        assert_eq!(content_judgement(same, Ok(plain)), Judgement::matches(By::Bytes, "its bytes were read: md5"));
        let cut = content_judgement(same, Err("its content was cut short".into()));
        assert_eq!((cut.verdict, cut.why.as_str()), (Verdict::Mismatch, "broken: its content was cut short"));
        assert_eq!(content_judgement(Agreement::Unknown, Ok(plain)).verdict, Verdict::Unproved);
    }
}
