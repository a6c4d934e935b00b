//! Open multipart uploads, and what S3 asks of their parts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use s3s::dto::Checksum;
use s3s::{S3Result, s3_error};

use super::blob::Blob;
use super::condition::Condition;
use super::digest::{Md5Digest, Received};
use super::object::{Attributes, StoredObject};
use super::store::{Bucket, Store};

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

impl Store {
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
            let upload =
                Upload { key: key.to_owned(), attributes: attributes.clone(), initiated: now, parts: BTreeMap::new() };
            bucket.uploads.insert(id.clone(), upload);
            Ok((id, attributes))
        })
    }

    pub fn check_part_number(&self, number: i32) -> S3Result<u32> {
        u32::try_from(number).ok().filter(|number| (1..=self.limits.max_parts).contains(number)).ok_or_else(|| {
            let max = self.limits.max_parts;
            s3_error!(InvalidArgument, "Part number must be an integer between 1 and {max}, inclusive")
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
            let (etag, md5) = self.part_etag(&received.md5, &upload.attributes.encryption);
            let part = UploadedPart { etag, md5, blob: received.blob, checksum: received.checksum, last_modified: now };
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
            let upload = bucket.uploads.remove(upload_id).expect("the upload was there a moment ago");
            let object = StoredObject {
                etag: self.etag_of_parts(parts.iter().map(|part| &part.md5)),
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
}

impl Bucket {
    pub fn upload(&mut self, key: &str, upload_id: &str) -> S3Result<&mut Upload> {
        let upload = self.uploads.get_mut(upload_id).filter(|upload| upload.key == key);
        upload.ok_or_else(|| {
            s3_error!(NoSuchUpload, "The specified upload does not exist. It may have been aborted or completed.")
        })
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
        let parts = named.iter().map(|part| self.named_part(part)).collect::<S3Result<Vec<_>>>()?;
        let all_but_the_last = &parts[..parts.len() - 1];
        if all_but_the_last.iter().any(|part| part.blob.size < min_part_size) {
            return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"));
        }
        Ok(parts)
    }

    fn named_part(&self, named: &NamedPart) -> S3Result<UploadedPart> {
        let part = self.parts.get(&named.number).filter(|part| part.etag == named.etag);
        part.cloned().ok_or_else(|| {
            let number = named.number;
            s3_error!(InvalidPart, "part {number} was not uploaded, or has another ETag")
        })
    }
}
