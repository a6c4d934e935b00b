//! Putting bytes into the bucket: one PUT, or a multipart upload.
//!
//! Every request carries Content-MD5, so the store refuses a damaged body before it replaces anything. The payload is
//! not signed: it is proved by that header, which is signed, and by the ETag; signing would hash every byte once more.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::ServerSideEncryption;

use super::body::{FileRange, Progress};
use super::error::{ErrorKind, StoreError};
use super::objects::OpenUpload;
use super::store::Store;
use crate::model::etag::{ETag, Md5Digest};
use crate::model::part_plan::Part;
use crate::model::user_metadata::UserMetadata;

/// What the store says of an object that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAnswer {
    /// Its ETag; some stores give none at the end of a multipart upload.
    pub etag: Option<ETag>,
    /// Its version, on a versioned bucket.
    pub version_id: Option<String>,
    /// Whether the store said that it encrypts in a way that makes the ETag no MD5.
    pub etag_is_no_md5: bool,
    /// What the answer to a PUT shows of the encryption, in words, where it is not what was asked for.
    pub otherwise: Vec<String>,
}

/// What the store says of a part that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartAnswer {
    /// Its ETag as the store gave it, for the end of the upload.
    pub given_etag: String,
    /// Whether the store said that it encrypts in a way that makes the ETag no MD5.
    pub etag_is_no_md5: bool,
}

impl PartAnswer {
    /// The ETag, where it is an MD5 and not this one. One of any other form says nothing, like those of SSE-KMS.
    pub fn unlike(&self, md5: Md5Digest) -> Option<Md5Digest> {
        let given = ETag::from_store(&self.given_etag).filter(|_| !self.etag_is_no_md5)?.as_md5()?;
        (given != md5).then_some(given)
    }
}

/// When the store is to take an object. A help on stores that know conditions, never the guard: some ignore them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Condition {
    /// In any case.
    #[default]
    None,
    /// Only where the key does not exist.
    Absent,
    /// Only over the object that has this ETag.
    Is(ETag),
}

impl Condition {
    pub(super) fn if_none_match(&self) -> Option<String> {
        (*self == Self::Absent).then(|| "*".to_owned())
    }

    pub(super) fn if_match(&self) -> Option<String> {
        match self {
            Self::Is(etag) => Some(format!("\"{etag}\"")),
            Self::None | Self::Absent => None,
        }
    }
}

/// A multipart upload.
#[derive(Debug, Clone)]
pub struct Upload {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) etag_is_no_md5: bool,
}

impl Store {
    /// Puts an object in one request.
    pub async fn put(
        &self,
        key: &str,
        range: FileRange,
        md5: Md5Digest,
        metadata: &UserMetadata,
        condition: &Condition,
    ) -> Result<PutAnswer, StoreError> {
        let request = async |client: Client, progress: Progress| {
            let objects = &self.0.objects;
            client
                .put_object()
                .bucket(self.bucket())
                .key(key)
                .content_length(range.length.cast_signed())
                .content_md5(md5.content_md5())
                .set_metadata(Some(metadata.clone()))
                .set_storage_class(objects.storage_class(key))
                .set_server_side_encryption(objects.encryption())
                .set_ssekms_key_id(objects.kms_key_id.clone())
                .set_acl(objects.acl())
                .set_tagging(objects.tagging())
                .set_if_none_match(condition.if_none_match())
                .set_if_match(condition.if_match())
                .body(self.0.bodies.stream(range.clone(), progress))
                .customize()
                .disable_payload_signing()
                .send()
                .await
        };
        let answer = self.persist_sending("PutObject", &self.uri(key), range.length, request).await?;
        Ok(PutAnswer {
            etag: answer.e_tag().and_then(ETag::from_store),
            version_id: answer.version_id().map(str::to_owned),
            etag_is_no_md5: is_no_md5(answer.server_side_encryption(), answer.sse_customer_algorithm()),
            otherwise: self.0.objects.compare_encryption(
                answer.server_side_encryption().map(ServerSideEncryption::as_str),
                answer.ssekms_key_id(),
            ),
        })
    }

    /// Begins a multipart upload.
    pub async fn begin_upload(&self, key: &str, metadata: &UserMetadata) -> Result<Upload, StoreError> {
        let objects = &self.0.objects;
        let request = async |client: Client| {
            client
                .create_multipart_upload()
                .bucket(self.bucket())
                .key(key)
                .set_metadata(Some(metadata.clone()))
                .set_storage_class(objects.storage_class(key))
                .set_server_side_encryption(objects.encryption())
                .set_ssekms_key_id(objects.kms_key_id.clone())
                .set_acl(objects.acl())
                .set_tagging(objects.tagging())
                .send()
                .await
        };
        let answer = self.persist("CreateMultipartUpload", &self.uri(key), request).await?;
        let id = answer.upload_id().filter(|id| !id.is_empty()).ok_or_else(|| {
            StoreError::of_answer(
                ErrorKind::Unavailable,
                "CreateMultipartUpload",
                &self.uri(key),
                "no upload id came back",
            )
        })?;
        let etag_is_no_md5 = is_no_md5(answer.server_side_encryption(), answer.sse_customer_algorithm());
        Ok(Upload { key: key.to_owned(), id: id.to_owned(), etag_is_no_md5 })
    }

    /// Sends one part.
    pub async fn put_part(
        &self,
        upload: &Upload,
        part: Part,
        range: FileRange,
        md5: Md5Digest,
    ) -> Result<PartAnswer, StoreError> {
        let request = async |client: Client, progress: Progress| {
            client
                .upload_part()
                .bucket(self.bucket())
                .key(&upload.key)
                .upload_id(&upload.id)
                .part_number(part.number.cast_signed())
                .content_length(range.length.cast_signed())
                .content_md5(md5.content_md5())
                .body(self.0.bodies.stream(range.clone(), progress))
                .customize()
                .disable_payload_signing()
                .send()
                .await
        };
        let uri = self.uri(&upload.key);
        let answer = self.persist_sending("UploadPart", &uri, range.length, request).await?;
        let etag_is_no_md5 =
            upload.etag_is_no_md5 || is_no_md5(answer.server_side_encryption(), answer.sse_customer_algorithm());
        Ok(PartAnswer { given_etag: answer.e_tag().unwrap_or_default().to_owned(), etag_is_no_md5 })
    }

    /// Gives a multipart upload up, so that its parts take no space; that it is gone is fine.
    pub async fn abort_upload(&self, upload: &OpenUpload) -> Result<(), StoreError> {
        let request = async |client: Client| {
            client.abort_multipart_upload().bucket(self.bucket()).key(&upload.key).upload_id(&upload.id).send().await
        };
        match self.persist("AbortMultipartUpload", &self.uri(&upload.key), request).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind, ErrorKind::NoSuchUpload | ErrorKind::NoSuchKey) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Upload {
    /// An upload that an earlier run began. What the store says of its encryption comes with each part.
    pub fn of_open(open: OpenUpload) -> Self {
        Self { key: open.key, id: open.id, etag_is_no_md5: false }
    }

    /// As something that can be aborted.
    pub fn as_open(&self) -> OpenUpload {
        OpenUpload { key: self.key.clone(), id: self.id.clone() }
    }
}

pub(super) fn is_no_md5(encryption: Option<&ServerSideEncryption>, customer: Option<&str>) -> bool {
    customer.is_some() || encryption.is_some_and(|kind| kind.as_str().starts_with("aws:kms"))
}
