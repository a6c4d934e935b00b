//! What is in the bucket: list, look at, read small ones, delete.

use std::time::Duration;

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration, Delete, EncodingType, ObjectIdentifier};
use jiff::Timestamp;

use super::error::{ErrorKind, StoreError};
use super::store::Store;
use crate::model::etag::ETag;

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

/// A multipart upload that was begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpenUpload {
    /// The key that it would make.
    pub key: String,
    /// Its id.
    pub id: String,
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
    pub async fn list(&self, directory: &str, mut each: impl FnMut(ListedObject)) -> Result<Vec<String>, StoreError> {
        let mut directories = Vec::new();
        let mut token: Option<String> = None;
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
            let decode = |text: &str| {
                if encoded { url_decode(text) } else { text.to_owned() }
            };
            for object in page.contents() {
                each(listed(object, decode(object.key().unwrap_or_default())));
            }
            directories.extend(page.common_prefixes().iter().filter_map(|prefix| prefix.prefix()).map(decode));
            let next = page.next_continuation_token().map(str::to_owned);
            // A store that repeats its token would keep us here for ever.
            if page.is_truncated() != Some(true) || next.is_none() || next == token {
                return Ok(directories);
            }
            token = next;
        }
    }

    /// Looks at an object; `None` if there is none.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectHead>, StoreError> {
        let request =
            async |client: aws_sdk_s3::Client| client.head_object().bucket(self.bucket()).key(key).send().await;
        let answer = match self.persist("HeadObject", &self.uri(key), request).await {
            Ok(answer) => answer,
            Err(error) if error.kind == ErrorKind::NoSuchKey => return Ok(None),
            Err(error) => return Err(error),
        };
        let kms = answer.server_side_encryption().is_some_and(|kind| kind.as_str().starts_with("aws:kms"));
        Ok(Some(ObjectHead {
            size: answer.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            etag: answer.e_tag().and_then(ETag::from_store),
            version_id: answer.version_id().map(str::to_owned),
            etag_is_no_md5: kms || answer.sse_customer_algorithm().is_some(),
            metadata: answer.metadata().cloned().unwrap_or_default(),
            storage_class: answer.storage_class().map(|class| class.as_str().to_owned()),
            // `ongoing-request="false", expiry-date="…"` (AWS, "HeadObject", x-amz-restore).
            is_restored: answer.restore().is_some_and(|restore| restore.contains("ongoing-request=\"false\"")),
        }))
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
            let mut bytes = Vec::new();
            let broken = loop {
                match tokio::time::timeout(Duration::from_secs(60), answer.body.next()).await {
                    Ok(Some(Ok(piece))) => bytes.extend_from_slice(&piece),
                    Ok(None) => return Ok(Some(bytes)),
                    Ok(Some(Err(error))) => break error.to_string(),
                    Err(_) => break "no bytes for 60 s".to_owned(),
                }
                if bytes.len() as u64 > limit {
                    let detail = format!("it is larger than {limit} bytes");
                    return Err(StoreError::of_answer(ErrorKind::Invalid, "GetObject", &self.uri(key), detail));
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
        let mut parts = Vec::new();
        let mut marker: Option<String> = None;
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
            let next = page.next_part_number_marker().map(str::to_owned);
            if page.is_truncated() != Some(true) || next.is_none() || next == marker {
                return Ok(parts);
            }
            marker = next;
        }
    }

    /// Multipart uploads that were begun under a prefix and not ended.
    pub async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>, StoreError> {
        let mut uploads = Vec::new();
        let (mut key_marker, mut id_marker): (Option<String>, Option<String>) = (None, None);
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
            uploads.extend(page.uploads().iter().filter_map(|upload| {
                Some(OpenUpload { key: upload.key()?.to_owned(), id: upload.upload_id()?.to_owned() })
            }));
            let next = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
            if page.is_truncated() != Some(true) || next.0.is_none() || next == (key_marker.clone(), id_marker.clone())
            {
                return Ok(uploads);
            }
            (key_marker, id_marker) = next;
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

/// Undoes the encoding of `encoding-type=url`: `%XX`, and `+` for a space.
///
/// Asked for because XML cannot hold every character of a key.
fn url_decode(text: &str) -> String {
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
            (b'+', ..) => {
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
        assert_eq!(url_decode("a%20b+c%2Fd%E2%82%AC%.sql"), "a b c/d€%.sql");
    }
}
