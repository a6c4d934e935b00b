//! What is in the bucket: list, look at, read small ones, delete.

use std::ops::ControlFlow;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration, Delete, EncodingType, ObjectIdentifier};
use jiff::Timestamp;

use super::download::Pace;
use super::error::{ErrorKind, StoreError};
use super::pages::Pages;
use super::store::Store;
use crate::model::etag::ETag;
use crate::model::part_plan::PARTS_MAX;
use crate::model::record::UploadMark;

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Its ETag, where the listing has one.
    pub etag: Option<ETag>,
    /// When it was stored.
    pub modified: Option<Timestamp>,
    /// Its storage class, such as `GLACIER`.
    pub storage_class: Option<String>,
}

impl ListedObject {
    /// An object that a listing leaves out.
    pub fn of_head(key: String, head: ObjectHead) -> Self {
        Self { key, size: head.size, etag: head.etag, modified: None, storage_class: head.storage_class }
    }
}

/// An object as HEAD shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectHead {
    /// Bytes.
    pub size: u64,
    /// Its ETag.
    pub etag: Option<ETag>,
    /// Its version, on a versioned bucket.
    pub version_id: Option<String>,
    /// Whether it is encrypted in a way that makes the ETag no MD5.
    pub etag_is_no_md5: bool,
    /// User metadata, with small names.
    pub metadata: std::collections::HashMap<String, String>,
    /// Its storage class; absent for `STANDARD`.
    pub storage_class: Option<String>,
    /// Of an archived object: whether a copy that can be read has been made of it.
    pub is_restored: bool,
}

impl ObjectHead {
    fn of_answer(answer: HeadObjectOutput) -> Self {
        let kms = answer.server_side_encryption().is_some_and(|kind| kind.as_str().starts_with("aws:kms"));
        Self {
            size: answer.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            etag: answer.e_tag().and_then(ETag::from_store),
            version_id: answer.version_id().map(str::to_owned),
            etag_is_no_md5: kms || answer.sse_customer_algorithm().is_some(),
            metadata: answer.metadata().cloned().unwrap_or_default(),
            storage_class: answer.storage_class().map(|class| class.as_str().to_owned()),
            // `ongoing-request="false", expiry-date="…"` (AWS, "HeadObject", x-amz-restore).
            is_restored: answer.restore().is_some_and(|restore| restore.contains("ongoing-request=\"false\"")),
        }
    }
}

pub(super) fn unless_absent<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind == ErrorKind::NoSuchKey => Ok(None),
        Err(error) => Err(error),
    }
}

/// A multipart upload that was begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpenUpload {
    /// The key that it would make.
    pub key: String,
    /// Its id.
    pub id: String,
}

impl OpenUpload {
    /// By what it is known again.
    pub fn mark(&self) -> UploadMark {
        UploadMark::of(&self.key, &self.id)
    }
}

/// The same as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUpload {
    /// The upload.
    pub upload: OpenUpload,
    /// When it was begun, where the store tells.
    pub begun: Option<Timestamp>,
}

/// A part of a multipart upload that is not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Its number, from 1.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// Its ETag as the store gave it, for the end of the upload.
    pub given_etag: String,
}

impl StoredPart {
    /// Its ETag, for comparing.
    pub fn etag(&self) -> Option<ETag> {
        ETag::from_store(&self.given_etag)
    }
}

/// Directories of one listing, which are held in memory.
const DIRECTORIES_MAX: usize = 1_000_000;
/// Unfinished uploads that are listed at most: a hundred requests. A program has as many as it has connections; more are
/// somebody's heap of years.
const UPLOADS_MAX: usize = 100_000;

/// Keys that one `DeleteObjects` takes.
pub const DELETE_BATCH: usize = 1000;

impl Store {
    /// Whether the bucket answers. `Ok(false)`: there is no such bucket.
    pub async fn bucket_exists(&self) -> Result<bool, StoreError> {
        let bucket = self.bucket().to_owned();
        // A listing of one key: HEAD has no body, so no error code, and would hide what is wrong.
        let request =
            async |client: aws_sdk_s3::Client| client.list_objects_v2().bucket(&bucket).max_keys(1).send().await;
        match self.persist("ListObjectsV2", &self.uri(""), request).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::NoSuchBucket => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates the bucket, in the client's region.
    pub async fn create_bucket(&self) -> Result<(), StoreError> {
        let bucket = self.bucket().to_owned();
        let request = async |client: aws_sdk_s3::Client| {
            let region = client.config().region().map(|region| region.as_ref().to_owned());
            // The first region must not be named.
            let place = region.filter(|region| region != "us-east-1").map(|region| {
                let place = BucketLocationConstraint::from(region.as_str());
                CreateBucketConfiguration::builder().location_constraint(place).build()
            });
            client.create_bucket().bucket(&bucket).set_create_bucket_configuration(place).send().await
        };
        self.persist("CreateBucket", &self.uri(""), request).await.map(drop)
    }

    /// Lists the keys that lie directly under `directory` (a prefix with its `/`, or nothing), page by page, and
    /// returns the sub-directories, each with its `/`.
    ///
    /// An answer that may leave something out is an error, never a shorter listing: what is not listed looks like what
    /// is not there, and would be called damaged, or left behind by a removal. It ends early only where
    /// `each` breaks off.
    pub async fn list(
        &self,
        directory: &str,
        mut each: impl FnMut(ListedObject) -> ControlFlow<()>,
    ) -> Result<Vec<String>, StoreError> {
        let mut directories = Vec::new();
        let mut token: Option<String> = None;
        let mut pages = Pages::of("ListObjectsV2", self.uri(directory));
        loop {
            let request = async |client: aws_sdk_s3::Client| {
                client
                    .list_objects_v2()
                    .bucket(self.bucket())
                    .prefix(directory)
                    .delimiter("/")
                    .encoding_type(EncodingType::Url)
                    .set_continuation_token(token.clone())
                    .send()
                    .await
            };
            let page = self.persist("ListObjectsV2", &self.uri(directory), request).await?;
            let encoded = page.encoding_type() == Some(&EncodingType::Url);
            for object in page.contents() {
                let key = self.decoded(object.key().unwrap_or_default(), encoded).await?;
                match key.strip_prefix(directory) {
                    Some(rest) if !rest.contains('/') => {
                        if each(listed(object, key)).is_break() {
                            return Ok(directories);
                        }
                    }
                    _ => return Err(pages.wrong(format!("it lists '{}'", key.escape_debug()))),
                }
            }
            for prefix in page.common_prefixes().iter().filter_map(|prefix| prefix.prefix()) {
                let prefix = self.decoded(prefix, encoded).await?;
                match prefix.strip_prefix(directory).and_then(|rest| rest.strip_suffix('/')) {
                    Some(rest) if !rest.contains('/') => directories.push(prefix),
                    _ => return Err(pages.wrong(format!("it lists the directory '{}'", prefix.escape_debug()))),
                }
            }
            if directories.len() > DIRECTORIES_MAX {
                return Err(pages.too_many(format!("more than {DIRECTORIES_MAX} directories lie in it")));
            }
            let is_empty = page.contents().is_empty() && page.common_prefixes().is_empty();
            token = pages.next(page.is_truncated(), page.next_continuation_token().map(str::to_owned), is_empty)?;
            if token.is_none() {
                return Ok(directories);
            }
        }
    }

    /// A key of a listing as it is. With `encoding-type=url` a `+` stands for a space at Amazon's and most; some stores
    /// leave a `+` of the key as it is. The first one that comes is looked at, and tells for all.
    async fn decoded(&self, text: &str, is_encoded: bool) -> Result<String, StoreError> {
        if !is_encoded {
            return Ok(text.to_owned());
        }
        if !text.contains('+') {
            // Who writes a space as %20 means the plus itself, and who writes that as %2B does not.
            if let Some(is_literal) = what_plus_means(text) {
                let _ = self.0.plus_is_literal.set(is_literal);
            }
            return Ok(url_decode(text, false));
        }
        if let Some(is_literal) = self.0.plus_is_literal.get() {
            return Ok(url_decode(text, *is_literal));
        }
        let literal = url_decode(text, true);
        // Of a directory nothing can be asked; the next key will tell.
        if literal.ends_with('/') {
            return Ok(url_decode(text, false));
        }
        let spaced = url_decode(text, false);
        let is_spaced = self.head(&spaced).await?.is_some();
        let is_literal = self.head(&literal).await?.is_some();
        // Where both are there, this one tells nothing; Amazon means the space.
        if is_spaced != is_literal {
            let _ = self.0.plus_is_literal.set(is_literal);
        }
        Ok(if is_literal && !is_spaced { literal } else { spaced })
    }

    /// Looks at an object; `None` if there is none.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectHead>, StoreError> {
        let request =
            async |client: aws_sdk_s3::Client| client.head_object().bucket(self.bucket()).key(key).send().await;
        unless_absent(self.persist("HeadObject", &self.uri(key), request).await.map(ObjectHead::of_answer))
    }

    /// The same, asked once, whatever else is known of the store.
    pub(super) async fn head_at_once(&self, key: &str) -> Result<Option<ObjectHead>, StoreError> {
        let answer = self.client().head_object().bucket(self.bucket()).key(key).send().await;
        let answer = answer.map_err(|error| StoreError::of_sdk("HeadObject", &self.uri(key), error));
        unless_absent(answer.map(ObjectHead::of_answer))
    }

    /// Reads a whole object into memory, if it is no larger than `limit` bytes; `None` if there is none.
    pub async fn read(&self, key: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let mut attempts = 0;
        loop {
            let request =
                async |client: aws_sdk_s3::Client| client.get_object().bucket(self.bucket()).key(key).send().await;
            let mut answer = match self.persist("GetObject", &self.uri(key), request).await {
                Ok(answer) => answer,
                Err(error) if error.kind == ErrorKind::NoSuchKey => return Ok(None),
                Err(error) => return Err(error),
            };
            let (mut bytes, mut pace) = (Vec::new(), Pace::begin());
            let broken = loop {
                match pace.next(&mut answer.body).await {
                    Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                    Ok(None) => return Ok(Some(bytes)),
                    Err(why) => break why,
                }
                if bytes.len() as u64 > limit {
                    let detail = format!("it is larger than {limit} bytes");
                    return Err(StoreError::of_answer(ErrorKind::TooLarge, "GetObject", &self.uri(key), detail));
                }
            };
            attempts += 1;
            if attempts == 3 {
                return Err(StoreError::of_answer(ErrorKind::Unavailable, "GetObject", &self.uri(key), broken));
            }
        }
    }

    /// Deletes an object; that it is not there is fine.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let request =
            async |client: aws_sdk_s3::Client| client.delete_object().bucket(self.bucket()).key(key).send().await;
        match self.persist("DeleteObject", &self.uri(key), request).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::NoSuchKey => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes up to [`DELETE_BATCH`] objects; returns those that the store refused, with its reason.
    pub async fn delete_batch(&self, keys: &[String]) -> Result<Vec<(String, String)>, StoreError> {
        let identifiers: Result<Vec<_>, _> =
            keys.iter().map(|key| ObjectIdentifier::builder().key(key).build()).collect();
        let delete =
            identifiers.and_then(|identifiers| Delete::builder().set_objects(Some(identifiers)).quiet(true).build());
        let delete = delete.map_err(|error| {
            StoreError::of_answer(ErrorKind::Invalid, "DeleteObjects", &self.uri(""), error.to_string())
        })?;
        let request = async |client: aws_sdk_s3::Client| {
            client.delete_objects().bucket(self.bucket()).delete(delete.clone()).send().await
        };
        let answer = self.persist("DeleteObjects", &self.uri(""), request).await?;
        let refused = answer.errors().iter().map(|error| {
            let why = format!("{}: {}", error.code().unwrap_or_default(), error.message().unwrap_or_default());
            (error.key().unwrap_or_default().to_owned(), why)
        });
        Ok(refused.collect())
    }

    /// The parts that a multipart upload has.
    pub async fn list_parts(&self, upload: &OpenUpload) -> Result<Vec<StoredPart>, StoreError> {
        let (mut parts, mut count) = (Vec::new(), 0);
        let mut marker: Option<String> = None;
        let mut pages = Pages::of("ListParts", self.uri(&upload.key));
        loop {
            let request = async |client: aws_sdk_s3::Client| {
                client
                    .list_parts()
                    .bucket(self.bucket())
                    .key(&upload.key)
                    .upload_id(&upload.id)
                    .set_part_number_marker(marker.clone())
                    .send()
                    .await
            };
            let page = self.persist("ListParts", &self.uri(&upload.key), request).await?;
            parts.extend(page.parts().iter().filter_map(|part| {
                Some(StoredPart {
                    number: u32::try_from(part.part_number()?).ok()?,
                    size: u64::try_from(part.size()?).ok()?,
                    given_etag: part.e_tag()?.to_owned(),
                })
            }));
            count += page.parts().len();
            if count > PARTS_MAX as usize {
                return Err(pages.wrong(format!("it lists more than {PARTS_MAX} parts")));
            }
            let next = page.next_part_number_marker().map(str::to_owned);
            marker = pages.next(page.is_truncated(), next, page.parts().is_empty())?;
            if marker.is_none() {
                return Ok(parts);
            }
        }
    }

    /// Multipart uploads that were begun under a prefix and not ended, as far as they are wanted.
    pub async fn open_uploads(
        &self,
        prefix: &str,
        is_wanted: impl Fn(&ListedUpload) -> bool,
    ) -> Result<Vec<ListedUpload>, StoreError> {
        let (mut uploads, mut count) = (Vec::new(), 0);
        let (mut key_marker, mut id_marker): (Option<String>, Option<String>) = (None, None);
        let mut pages = Pages::of("ListMultipartUploads", self.uri(prefix));
        loop {
            let request = async |client: aws_sdk_s3::Client| {
                client
                    .list_multipart_uploads()
                    .bucket(self.bucket())
                    .prefix(prefix)
                    .set_key_marker(key_marker.clone())
                    .set_upload_id_marker(id_marker.clone())
                    .send()
                    .await
            };
            let page = self.persist("ListMultipartUploads", &self.uri(prefix), request).await?;
            let listed = page.uploads().iter().filter_map(|upload| {
                let open = OpenUpload { key: upload.key()?.to_owned(), id: upload.upload_id()?.to_owned() };
                let begun = upload.initiated().and_then(|time| Timestamp::from_second(time.secs()).ok());
                Some(ListedUpload { upload: open, begun })
            });
            uploads.extend(listed.filter(&is_wanted));
            count += page.uploads().len();
            if count > UPLOADS_MAX {
                return Err(pages.too_many(format!("more than {UPLOADS_MAX} unfinished uploads lie in it")));
            }
            if let Some(other) =
                page.uploads().iter().filter_map(|upload| upload.key()).find(|key| !key.starts_with(prefix))
            {
                return Err(pages.wrong(format!("it lists '{}'", other.escape_debug())));
            }
            let (key, id) =
                (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
            let place = key.as_ref().map(|key| format!("{key}\n{}", id.as_deref().unwrap_or_default()));
            if pages.next(page.is_truncated(), place, page.uploads().is_empty())?.is_none() {
                return Ok(uploads);
            }
            (key_marker, id_marker) = (key, id);
        }
    }
}

fn listed(object: &aws_sdk_s3::types::Object, key: String) -> ListedObject {
    ListedObject {
        key,
        size: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        etag: object.e_tag().and_then(ETag::from_store),
        modified: object.last_modified().and_then(|time| Timestamp::from_nanosecond(time.as_nanos()).ok()),
        storage_class: object.storage_class().map(|class| class.as_str().to_owned()),
    }
}

/// Whether a plus stands for itself where such a text comes from, if it shows that.
fn what_plus_means(text: &str) -> Option<bool> {
    match (text.contains("%20"), text.contains("%2B") || text.contains("%2b")) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

/// Undoes the encoding of `encoding-type=url`: `%XX`, and `+` for a space unless it stands for itself.
///
/// Asked for because XML cannot hold every character of a key.
fn url_decode(text: &str, plus_is_literal: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', ..) if !plus_is_literal => {
                decoded.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_listing_are_decoded() {
        assert_eq!(url_decode("a%20b+c%2Fd%E2%82%AC%.sql", false), "a b c/d€%.sql");
        assert_eq!(url_decode("a%20b+c%2B.sql", true), "a b+c+.sql");
    }
}
