//! Buckets, object versions and open multipart uploads: what the server knows. Bytes are in [`super::blob`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use s3s::dto::{Checksum, ETagCondition};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::blob::{Blob, BlobDir};
use super::digest::{Md5Digest, Received, composite_etag, hex, md5_of};
use super::lock;
use super::object::{Attributes, Encryption, StoredObject};
use super::operation::Target;

const MIB: u64 = 1024 * 1024;

/// The limits of Amazon S3. Some stores have lower ones; a test may want that too.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of every part but the last.
    pub min_part_size: u64,
    /// The largest body of one request, PutObject or UploadPart.
    pub max_part_size: u64,
    pub max_parts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_part_size: 5 * MIB,
            max_part_size: 5 * 1024 * MIB,
            max_parts: 10_000,
        }
    }
}

pub struct Store {
    pub blobs: Arc<BlobDir>,
    pub limits: Limits,
    /// Never held across an `.await`: every request changes the state in one step or not at all.
    buckets: Mutex<BTreeMap<String, Bucket>>,
    next_id: AtomicU64,
}

#[derive(Default)]
pub struct Bucket {
    pub versioned: bool,
    pub default_encryption: Encryption,
    /// Versions of a key, latest last. Without versioning at most one.
    pub objects: BTreeMap<String, Vec<Version>>,
    /// By upload id.
    pub uploads: BTreeMap<String, Upload>,
}

#[derive(Clone, Debug)]
pub enum Version {
    Object(Arc<StoredObject>),
    DeleteMarker {
        version_id: String,
        last_modified: SystemTime,
    },
}

impl Version {
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Object(object) => object.version_id.as_deref(),
            Self::DeleteMarker { version_id, .. } => Some(version_id),
        }
    }

    pub fn object(&self) -> Option<&Arc<StoredObject>> {
        match self {
            Self::Object(object) => Some(object),
            Self::DeleteMarker { .. } => None,
        }
    }
}

pub struct Upload {
    pub key: String,
    pub attributes: Attributes,
    pub initiated: SystemTime,
    pub parts: BTreeMap<u32, UploadedPart>,
}

#[derive(Clone)]
pub struct UploadedPart {
    pub etag: String,
    pub md5: Md5Digest,
    pub blob: Arc<Blob>,
    pub checksum: Checksum,
    pub last_modified: SystemTime,
}

/// A part as CompleteMultipartUpload names it.
pub struct NamedPart {
    pub number: u32,
    pub etag: String,
}

/// `If-Match` and `If-None-Match`.
#[derive(Default)]
pub struct Condition {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
}

/// What a DELETE did.
#[derive(Default)]
pub struct Deleted {
    pub version_id: Option<String>,
    pub delete_marker: bool,
}

impl Store {
    pub fn new(blobs: Arc<BlobDir>, limits: Limits) -> Self {
        Self {
            blobs,
            limits,
            buckets: Mutex::default(),
            next_id: AtomicU64::new(1),
        }
    }

    pub fn create_bucket(&self, name: &str) -> S3Result {
        let mut buckets = lock(&self.buckets);
        if buckets.contains_key(name) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        buckets.insert(name.to_owned(), Bucket::default());
        Ok(())
    }

    pub fn delete_bucket(&self, name: &str) -> S3Result {
        if !self.with_bucket(name, |bucket| Ok(bucket.objects.is_empty()))? {
            return Err(s3_error!(BucketNotEmpty));
        }
        lock(&self.buckets).remove(name);
        Ok(())
    }

    pub fn bucket_names(&self) -> Vec<String> {
        lock(&self.buckets).keys().cloned().collect()
    }

    pub fn check_bucket(&self, name: &str) -> S3Result {
        self.with_bucket(name, |_| Ok(()))
    }

    /// One step on a bucket, seen by others as a whole or not at all.
    pub fn with_bucket<T>(
        &self,
        name: &str,
        step: impl FnOnce(&mut Bucket) -> S3Result<T>,
    ) -> S3Result<T> {
        let mut buckets: MutexGuard<'_, _> = lock(&self.buckets);
        step(
            buckets
                .get_mut(name)
                .ok_or_else(|| s3_error!(NoSuchBucket))?,
        )
    }

    /// Ids that tell what they are, in case one turns up in the wrong place.
    fn fresh_id(&self, kind: &str) -> String {
        format!("{kind}-{:08}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// The ETag of bytes whose MD5 is `md5`. Encrypted under a key that is not the store's own, it is another value.
    fn etag(&self, md5: &Md5Digest, encryption: &Encryption) -> (String, Md5Digest) {
        let digest = if encryption.has_md5_etag() {
            *md5
        } else {
            md5_of(self.fresh_id("ciphertext").as_bytes())
        };
        (hex(&digest), digest)
    }

    pub fn put(
        &self,
        bucket: &str,
        key: &str,
        mut attributes: Attributes,
        received: Received,
        condition: &Condition,
        now: SystemTime,
    ) -> S3Result<Arc<StoredObject>> {
        self.check_size(&received)?;
        self.with_bucket(bucket, |bucket| {
            bucket.apply_default_encryption(&mut attributes);
            condition.check_write(bucket.current(key))?;
            let object = StoredObject {
                etag: self.etag(&received.md5, &attributes.encryption).0,
                size: received.blob.size,
                attributes,
                last_modified: now,
                version_id: bucket.versioned.then(|| self.fresh_id("version")),
                parts_count: None,
                checksum: received.checksum,
                blobs: vec![received.blob],
            };
            Ok(bucket.insert(key, object))
        })
    }

    fn check_size(&self, received: &Received) -> S3Result {
        if received.blob.size > self.limits.max_part_size {
            return Err(s3_error!(EntityTooLarge));
        }
        Ok(())
    }

    pub fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        mut attributes: Attributes,
        now: SystemTime,
    ) -> S3Result<(String, Attributes)> {
        self.with_bucket(bucket, |bucket| {
            bucket.apply_default_encryption(&mut attributes);
            let id = self.fresh_id("upload");
            let upload = Upload {
                key: key.to_owned(),
                attributes: attributes.clone(),
                initiated: now,
                parts: BTreeMap::new(),
            };
            bucket.uploads.insert(id.clone(), upload);
            Ok((id, attributes))
        })
    }

    pub fn check_part_number(&self, number: i32) -> S3Result<u32> {
        u32::try_from(number)
            .ok()
            .filter(|number| (1..=self.limits.max_parts).contains(number))
            .ok_or_else(|| {
                let max = self.limits.max_parts;
                s3_error!(
                    InvalidArgument,
                    "Part number must be an integer between 1 and {max}, inclusive"
                )
            })
    }

    pub fn put_part(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        number: u32,
        received: Received,
        now: SystemTime,
    ) -> S3Result<UploadedPart> {
        self.check_size(&received)?;
        self.with_bucket(bucket, |bucket| {
            let upload = bucket.upload(key, upload_id)?;
            let (etag, md5) = self.etag(&received.md5, &upload.attributes.encryption);
            let part = UploadedPart {
                etag,
                md5,
                blob: received.blob,
                checksum: received.checksum,
                last_modified: now,
            };
            upload.parts.insert(number, part.clone());
            Ok(part)
        })
    }

    pub fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        named: &[NamedPart],
        condition: &Condition,
        now: SystemTime,
    ) -> S3Result<Arc<StoredObject>> {
        self.with_bucket(bucket, |bucket| {
            let upload = bucket.upload(key, upload_id)?;
            let parts = upload.named_parts(named, self.limits.min_part_size)?;
            condition.check_write(bucket.current(key))?;
            let upload = bucket
                .uploads
                .remove(upload_id)
                .expect("the upload was there a moment ago");
            let object = StoredObject {
                etag: composite_etag(parts.iter().map(|part| &part.md5)),
                size: parts.iter().map(|part| part.blob.size).sum(),
                attributes: upload.attributes,
                last_modified: now,
                version_id: bucket.versioned.then(|| self.fresh_id("version")),
                parts_count: Some(parts.len()),
                checksum: Checksum::default(),
                blobs: parts.into_iter().map(|part| part.blob).collect(),
            };
            Ok(bucket.insert(key, object))
        })
    }

    pub fn abort_upload(&self, bucket: &str, key: &str, upload_id: &str) -> S3Result {
        self.with_bucket(bucket, |bucket| {
            bucket.upload(key, upload_id)?;
            bucket.uploads.remove(upload_id);
            Ok(())
        })
    }

    /// Deleting what is not there succeeds, as on S3.
    pub fn delete(
        &self,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
        now: SystemTime,
    ) -> S3Result<Deleted> {
        self.with_bucket(bucket, |bucket| match version_id {
            Some(version_id) => Ok(bucket.remove_version(key, version_id)),
            None if bucket.versioned => {
                let version_id = self.fresh_id("version");
                let marker = Version::DeleteMarker {
                    version_id: version_id.clone(),
                    last_modified: now,
                };
                bucket
                    .objects
                    .entry(key.to_owned())
                    .or_default()
                    .push(marker);
                Ok(Deleted {
                    version_id: Some(version_id),
                    delete_marker: true,
                })
            }
            None => {
                bucket.objects.remove(key);
                Ok(Deleted::default())
            }
        })
    }

    /// Changes a byte of the object or part that a request has just stored.
    pub fn damage(&self, target: &Target) {
        let damaged = self.with_bucket(&target.bucket, |bucket| {
            match (&target.upload_id, target.part) {
                (Some(upload_id), Some(number)) => {
                    let part = bucket
                        .upload(&target.key, upload_id)?
                        .parts
                        .get(&number)
                        .ok_or_else(|| s3_error!(InvalidPart))?;
                    part.blob.flip_byte().map_err(S3Error::internal_error)
                }
                _ => {
                    bucket
                        .current(&target.key)
                        .ok_or_else(|| s3_error!(NoSuchKey))?
                        .flip_byte();
                    Ok(())
                }
            }
        });
        damaged.expect("only what was stored can be damaged in the storage");
    }

    pub fn get(
        &self,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
    ) -> S3Result<Arc<StoredObject>> {
        self.with_bucket(bucket, |bucket| match version_id {
            None => bucket
                .current(key)
                .cloned()
                .ok_or_else(|| s3_error!(NoSuchKey)),
            Some(version_id) => bucket
                .version(key, version_id)?
                .object()
                .cloned()
                .ok_or_else(|| s3_error!(MethodNotAllowed)),
        })
    }
}

impl Bucket {
    pub fn current(&self, key: &str) -> Option<&Arc<StoredObject>> {
        self.objects.get(key)?.last()?.object()
    }

    pub fn upload(&mut self, key: &str, upload_id: &str) -> S3Result<&mut Upload> {
        let upload = self
            .uploads
            .get_mut(upload_id)
            .filter(|upload| upload.key == key);
        upload.ok_or_else(|| {
            s3_error!(
                NoSuchUpload,
                "The specified upload does not exist. It may have been aborted or completed."
            )
        })
    }

    fn version(&self, key: &str, version_id: &str) -> S3Result<&Version> {
        let versions = self.objects.get(key).map(Vec::as_slice).unwrap_or_default();
        versions
            .iter()
            .find(|version| version.id() == Some(version_id))
            .ok_or_else(|| s3_error!(NoSuchVersion))
    }

    fn insert(&mut self, key: &str, object: StoredObject) -> Arc<StoredObject> {
        let object = Arc::new(object);
        let versions = self.objects.entry(key.to_owned()).or_default();
        if !self.versioned {
            versions.clear();
        }
        versions.push(Version::Object(Arc::clone(&object)));
        object
    }

    fn remove_version(&mut self, key: &str, version_id: &str) -> Deleted {
        let Some(versions) = self.objects.get_mut(key) else {
            return Deleted::default();
        };
        let Some(index) = versions
            .iter()
            .position(|version| version.id() == Some(version_id))
        else {
            return Deleted::default();
        };
        let removed = versions.remove(index);
        if versions.is_empty() {
            self.objects.remove(key);
        }
        Deleted {
            version_id: Some(version_id.to_owned()),
            delete_marker: removed.object().is_none(),
        }
    }

    fn apply_default_encryption(&self, attributes: &mut Attributes) {
        if attributes.encryption == Encryption::None {
            attributes.encryption = self.default_encryption.clone();
        }
    }
}

impl Upload {
    /// The parts that make the object, if they are all there, in order, and large enough.
    fn named_parts(&self, named: &[NamedPart], min_part_size: u64) -> S3Result<Vec<UploadedPart>> {
        if named.is_empty() {
            return Err(s3_error!(MalformedXML, "an upload needs at least one part"));
        }
        if !named.is_sorted_by(|a, b| a.number < b.number) {
            return Err(s3_error!(InvalidPartOrder));
        }
        let parts = named
            .iter()
            .map(|part| self.named_part(part))
            .collect::<S3Result<Vec<_>>>()?;
        let all_but_the_last = &parts[..parts.len() - 1];
        if all_but_the_last
            .iter()
            .any(|part| part.blob.size < min_part_size)
        {
            return Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size"
            ));
        }
        Ok(parts)
    }

    fn named_part(&self, named: &NamedPart) -> S3Result<UploadedPart> {
        let part = self
            .parts
            .get(&named.number)
            .filter(|part| part.etag == named.etag);
        part.cloned().ok_or_else(|| {
            let number = named.number;
            s3_error!(
                InvalidPart,
                "part {number} was not uploaded, or has another ETag"
            )
        })
    }
}

impl Condition {
    fn check_write(&self, current: Option<&Arc<StoredObject>>) -> S3Result {
        let matches = |condition: &ETagCondition| {
            current.is_some_and(|object| names(condition, &object.etag))
        };
        if self.if_match.is_some() && current.is_none() {
            return Err(s3_error!(NoSuchKey));
        }
        let refused = self.if_none_match.as_ref().is_some_and(matches)
            || !self.if_match.as_ref().is_none_or(matches);
        if refused {
            Err(S3Error::new(S3ErrorCode::PreconditionFailed))
        } else {
            Ok(())
        }
    }
}

/// Whether a condition (`*` or an ETag) holds for an object with this ETag.
pub fn names(condition: &ETagCondition, etag: &str) -> bool {
    condition
        .as_etag()
        .is_none_or(|wanted| wanted.value() == etag)
}
