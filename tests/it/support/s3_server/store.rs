//! Buckets and object versions: what the server knows. Bytes are in [`super::blob`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use s3s::{S3Error, S3Result, s3_error};

use super::blob::BlobDir;
use super::condition::Condition;
use super::digest::{Md5Digest, Received, composite_etag, hex, md5_of};
use super::listing::Oddity;
use super::lock;
use super::object::{Attributes, Encryption, StoredObject};
use super::operation::Target;
use super::uploads::Upload;

const MIB: u64 = 1024 * 1024;

/// The limits of Amazon S3. Some stores have lower ones; a test may want that too.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of every part but the last.
    pub min_part_size: u64,
    /// The largest body of one request, PutObject or UploadPart.
    pub max_part_size: u64,
    pub max_parts: u32,
    /// Whether `If-Match` and `If-None-Match` of a PUT are looked at.
    pub knows_conditions: bool,
    /// Whether a key may be written over.
    pub overwrites: bool,
    /// Whether bytes that are not those of their Content-MD5 are refused.
    pub checks_content_md5: bool,
    /// Whether headers for storage class, encryption and tags are taken and nothing is done of it.
    pub ignores_settings: bool,
    /// Whose ETags are no MD5s, though nothing in the answers says so.
    pub opaque_etags: OpaqueEtags,
}

/// Objects whose ETags are no MD5s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpaqueEtags {
    None,
    /// Those in parts: they have the form of an MD5 where others have a composite.
    Multipart,
    /// Those in parts and their parts: the form is right, the value is not.
    MultipartAndParts,
    /// All: digits of no form that an MD5 has.
    All,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_part_size: 5 * MIB,
            max_part_size: 5 * 1024 * MIB,
            max_parts: 10_000,
            knows_conditions: true,
            overwrites: true,
            checks_content_md5: true,
            ignores_settings: false,
            opaque_etags: OpaqueEtags::None,
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
    /// Keys that nobody may delete before that time, as stores without versions do it.
    pub retained: BTreeMap<String, SystemTime>,
    /// Keys that listings leave out, as a store that lists what is new a moment later does.
    pub hidden: BTreeSet<String>,
    /// What its listings do wrong.
    pub oddity: Option<Oddity>,
    /// A lifecycle rule: under that prefix unfinished uploads are aborted after so many days.
    pub aborts_after: Option<(String, i32)>,
}

#[derive(Clone, Debug)]
pub enum Version {
    Object(Arc<StoredObject>),
    DeleteMarker { version_id: String, last_modified: SystemTime },
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

/// What a DELETE did.
#[derive(Default)]
pub struct Deleted {
    pub version_id: Option<String>,
    pub delete_marker: bool,
}

impl Store {
    pub fn new(blobs: Arc<BlobDir>, limits: Limits) -> Self {
        Self { blobs, limits, buckets: Mutex::default(), next_id: AtomicU64::new(1) }
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
        let mut buckets = lock(&self.buckets);
        let bucket = buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket))?;
        if !bucket.objects.is_empty() {
            return Err(s3_error!(BucketNotEmpty));
        }
        buckets.remove(name);
        Ok(())
    }

    pub fn bucket_names(&self) -> Vec<String> {
        lock(&self.buckets).keys().cloned().collect()
    }

    pub fn check_bucket(&self, name: &str) -> S3Result {
        self.with_bucket(name, |_| Ok(()))
    }

    /// One step on a bucket, seen by others as a whole or not at all.
    pub fn with_bucket<T>(&self, name: &str, step: impl FnOnce(&mut Bucket) -> S3Result<T>) -> S3Result<T> {
        let mut buckets: MutexGuard<'_, _> = lock(&self.buckets);
        step(buckets.get_mut(name).ok_or_else(|| s3_error!(NoSuchBucket))?)
    }

    /// Ids that tell what they are, in case one turns up in the wrong place.
    pub(super) fn fresh_id(&self, kind: &str) -> String {
        format!("{kind}-{:08}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// The ETag of bytes whose MD5 is `md5`. Encrypted under a key that is not the store's own, it is another value.
    pub(super) fn etag(&self, md5: &Md5Digest, encryption: &Encryption) -> (String, Md5Digest) {
        let digest = if encryption.has_md5_etag() { *md5 } else { md5_of(self.fresh_id("ciphertext").as_bytes()) };
        if self.limits.opaque_etags == OpaqueEtags::All {
            return (self.fresh_id("etag"), digest);
        }
        (hex(&digest), digest)
    }

    /// The same of a part.
    pub(super) fn part_etag(&self, md5: &Md5Digest, encryption: &Encryption) -> (String, Md5Digest) {
        match self.limits.opaque_etags {
            OpaqueEtags::MultipartAndParts => {
                let digest = md5_of(self.fresh_id("part").as_bytes());
                (hex(&digest), digest)
            }
            _ => self.etag(md5, encryption),
        }
    }

    /// The ETag of an object in these parts.
    pub(super) fn etag_of_parts<'a>(&self, digests: impl ExactSizeIterator<Item = &'a Md5Digest>) -> String {
        match self.limits.opaque_etags {
            OpaqueEtags::Multipart => hex(&md5_of(self.fresh_id("object").as_bytes())),
            OpaqueEtags::All => self.fresh_id("etag"),
            OpaqueEtags::None | OpaqueEtags::MultipartAndParts => composite_etag(digests),
        }
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

    pub(super) fn check_size(&self, received: &Received) -> S3Result {
        if received.blob.size > self.limits.max_part_size {
            return Err(s3_error!(EntityTooLarge));
        }
        Ok(())
    }

    /// Deleting what is not there succeeds, as on S3.
    pub fn delete(&self, bucket: &str, key: &str, version_id: Option<&str>, now: SystemTime) -> S3Result<Deleted> {
        self.with_bucket(bucket, |bucket| match version_id {
            _ if bucket.retained.get(key).is_some_and(|until| *until > now) => Err(s3_error!(AccessDenied)),
            Some(version_id) => Ok(bucket.remove_version(key, version_id)),
            None if bucket.versioned => {
                let version_id = self.fresh_id("version");
                let marker = Version::DeleteMarker { version_id: version_id.clone(), last_modified: now };
                bucket.objects.entry(key.to_owned()).or_default().push(marker);
                Ok(Deleted { version_id: Some(version_id), delete_marker: true })
            }
            None => {
                bucket.objects.remove(key);
                Ok(Deleted::default())
            }
        })
    }

    /// Changes a byte of the object or part that a request has just stored.
    pub fn damage(&self, target: &Target) {
        let damaged = self.with_bucket(&target.bucket, |bucket| match (&target.upload_id, target.part) {
            (Some(upload_id), Some(number)) => {
                let part =
                    bucket.upload(&target.key, upload_id)?.parts.get(&number).ok_or_else(|| s3_error!(InvalidPart))?;
                part.blob.flip_byte().map_err(S3Error::internal_error)
            }
            _ => {
                bucket.current(&target.key).ok_or_else(|| s3_error!(NoSuchKey))?.flip_byte();
                Ok(())
            }
        });
        damaged.expect("only what was stored can be damaged in the storage");
    }

    pub fn get(&self, bucket: &str, key: &str, version_id: Option<&str>) -> S3Result<Arc<StoredObject>> {
        self.with_bucket(bucket, |bucket| match version_id {
            None => bucket.current(key).cloned().ok_or_else(|| s3_error!(NoSuchKey)),
            Some(version_id) => {
                bucket.version(key, version_id)?.object().cloned().ok_or_else(|| s3_error!(MethodNotAllowed))
            }
        })
    }
}

impl Bucket {
    pub fn current(&self, key: &str) -> Option<&Arc<StoredObject>> {
        self.objects.get(key)?.last()?.object()
    }

    fn version(&self, key: &str, version_id: &str) -> S3Result<&Version> {
        let versions = self.objects.get(key).map(Vec::as_slice).unwrap_or_default();
        versions.iter().find(|version| version.id() == Some(version_id)).ok_or_else(|| s3_error!(NoSuchVersion))
    }

    pub(super) fn insert(&mut self, key: &str, object: StoredObject) -> Arc<StoredObject> {
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
        let Some(index) = versions.iter().position(|version| version.id() == Some(version_id)) else {
            return Deleted::default();
        };
        let removed = versions.remove(index);
        if versions.is_empty() {
            self.objects.remove(key);
        }
        Deleted { version_id: Some(version_id.to_owned()), delete_marker: removed.object().is_none() }
    }

    pub(super) fn apply_default_encryption(&self, attributes: &mut Attributes) {
        if attributes.encryption == Encryption::None {
            attributes.encryption = self.default_encryption.clone();
        }
    }
}
