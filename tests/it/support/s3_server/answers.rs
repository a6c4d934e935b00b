//! From what is stored to the fields of an answer.

use std::ops::Range;

use s3s::dto::*;

use super::object::{Encryption, StoredObject};
use super::request::EncryptionHeaders;
use super::store::Deleted;
use super::uploads::UploadedPart;

fn etag(value: &str) -> Option<ETag> {
    Some(ETag::Strong(value.to_owned()))
}

pub fn put_object(object: &StoredObject) -> PutObjectOutput {
    let encryption = EncryptionHeaders::of(&object.attributes.encryption);
    let checksum = object.checksum.clone();
    PutObjectOutput {
        e_tag: etag(&object.etag),
        version_id: object.version_id.clone(),
        checksum_crc32: checksum.checksum_crc32,
        checksum_crc32c: checksum.checksum_crc32c,
        checksum_crc64nvme: checksum.checksum_crc64nvme,
        checksum_sha1: checksum.checksum_sha1,
        checksum_sha256: checksum.checksum_sha256,
        server_side_encryption: encryption.server_side_encryption,
        ssekms_key_id: encryption.kms_key_id,
        sse_customer_algorithm: encryption.customer_algorithm,
        sse_customer_key_md5: encryption.customer_key_md5,
        ..PutObjectOutput::default()
    }
}

pub fn upload_part(part: &UploadedPart, encryption: &Encryption) -> UploadPartOutput {
    let encryption = EncryptionHeaders::of(encryption);
    let checksum = part.checksum.clone();
    UploadPartOutput {
        e_tag: etag(&part.etag),
        checksum_crc32: checksum.checksum_crc32,
        checksum_crc32c: checksum.checksum_crc32c,
        checksum_crc64nvme: checksum.checksum_crc64nvme,
        checksum_sha1: checksum.checksum_sha1,
        checksum_sha256: checksum.checksum_sha256,
        server_side_encryption: encryption.server_side_encryption,
        ssekms_key_id: encryption.kms_key_id,
        sse_customer_algorithm: encryption.customer_algorithm,
        sse_customer_key_md5: encryption.customer_key_md5,
        ..UploadPartOutput::default()
    }
}

pub fn complete_upload(object: &StoredObject, bucket: String, key: String) -> CompleteMultipartUploadOutput {
    let encryption = EncryptionHeaders::of(&object.attributes.encryption);
    CompleteMultipartUploadOutput {
        location: Some(format!("/{bucket}/{key}")),
        bucket: Some(bucket),
        key: Some(key),
        e_tag: etag(&object.etag),
        version_id: object.version_id.clone(),
        server_side_encryption: encryption.server_side_encryption,
        ssekms_key_id: encryption.kms_key_id,
        ..CompleteMultipartUploadOutput::default()
    }
}

/// Without its body the answer of HeadObject, which S3 defines field by field the same.
pub fn get_object(object: &StoredObject, range: Option<Range<u64>>, with_checksum: bool) -> GetObjectOutput {
    let head = head_object(object, range.clone(), with_checksum);
    let tag_count = object.attributes.tags.len() as i32;
    GetObjectOutput {
        body: Some(StreamingBlob::wrap(object.stream(range.unwrap_or(0..object.size)))),
        accept_ranges: head.accept_ranges,
        content_length: head.content_length,
        content_range: head.content_range,
        content_type: head.content_type,
        content_encoding: head.content_encoding,
        e_tag: head.e_tag,
        last_modified: head.last_modified,
        metadata: head.metadata,
        storage_class: head.storage_class,
        version_id: head.version_id,
        checksum_crc32: head.checksum_crc32,
        checksum_crc32c: head.checksum_crc32c,
        checksum_crc64nvme: head.checksum_crc64nvme,
        checksum_sha1: head.checksum_sha1,
        checksum_sha256: head.checksum_sha256,
        server_side_encryption: head.server_side_encryption,
        ssekms_key_id: head.ssekms_key_id,
        sse_customer_algorithm: head.sse_customer_algorithm,
        sse_customer_key_md5: head.sse_customer_key_md5,
        tag_count: (tag_count > 0).then_some(tag_count),
        ..GetObjectOutput::default()
    }
}

pub fn head_object(object: &StoredObject, range: Option<Range<u64>>, with_checksum: bool) -> HeadObjectOutput {
    let attributes = &object.attributes;
    let encryption = EncryptionHeaders::of(&attributes.encryption);
    // A checksum is that of the whole object.
    let checksum = if with_checksum && range.is_none() { object.checksum.clone() } else { Checksum::default() };
    let (length, content_range) = match &range {
        Some(range) => (range.end - range.start, Some(content_range(range, object.size))),
        None => (object.size, None),
    };
    HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: Some(length as i64),
        content_range,
        content_type: attributes.content_type.clone().or_else(|| Some("binary/octet-stream".to_owned())),
        content_encoding: attributes.content_encoding.clone(),
        e_tag: etag(&object.etag),
        last_modified: Some(object.last_modified.into()),
        metadata: Some(attributes.metadata.clone().into_iter().collect()),
        // S3 leaves the default class out here.
        storage_class: attributes.storage_class.clone().filter(|class| class != "STANDARD").map(Into::into),
        version_id: object.version_id.clone(),
        checksum_crc32: checksum.checksum_crc32,
        checksum_crc32c: checksum.checksum_crc32c,
        checksum_crc64nvme: checksum.checksum_crc64nvme,
        checksum_sha1: checksum.checksum_sha1,
        checksum_sha256: checksum.checksum_sha256,
        server_side_encryption: encryption.server_side_encryption,
        ssekms_key_id: encryption.kms_key_id,
        sse_customer_algorithm: encryption.customer_algorithm,
        sse_customer_key_md5: encryption.customer_key_md5,
        ..HeadObjectOutput::default()
    }
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

pub fn deleted_object(asked: ObjectIdentifier, deleted: Deleted) -> DeletedObject {
    let marker = deleted.delete_marker;
    DeletedObject {
        key: Some(asked.key),
        version_id: asked.version_id,
        delete_marker: marker.then_some(true),
        delete_marker_version_id: deleted.version_id.filter(|_| marker),
    }
}

pub fn delete_denied(asked: ObjectIdentifier) -> Error {
    Error {
        code: Some("AccessDenied".to_owned()),
        key: Some(asked.key),
        message: Some("Access Denied".to_owned()),
        version_id: asked.version_id,
    }
}
