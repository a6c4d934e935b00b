//! From the fields of a request to the terms of the store, refusing what S3 refuses.

use std::collections::BTreeMap;
use std::ops::Range as ByteRange;

use s3s::dto::*;
use s3s::{S3Error, S3Result, s3_error};

use super::object::{Attributes, Encryption, StoredObject};
use super::uploads::NamedPart;

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>
const MAX_METADATA_BYTES: usize = 2048;

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>
const MAX_TAGS: usize = 10;

const STORAGE_CLASSES: [&str; 9] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "GLACIER_IR",
    "DEEP_ARCHIVE",
    "EXPRESS_ONEZONE",
];

pub fn attributes_of_put(input: &PutObjectInput) -> S3Result<Attributes> {
    Ok(Attributes {
        content_type: input.content_type.clone(),
        content_encoding: input.content_encoding.clone(),
        metadata: metadata(input.metadata.as_ref())?,
        storage_class: storage_class(input.storage_class.as_ref())?,
        encryption: encryption(
            input.server_side_encryption.as_ref(),
            input.ssekms_key_id.as_ref(),
            input.sse_customer_key_md5.as_ref(),
        )?,
        tags: tags(input.tagging.as_deref())?,
    })
}

pub fn attributes_of_upload(input: &CreateMultipartUploadInput) -> S3Result<Attributes> {
    Ok(Attributes {
        content_type: input.content_type.clone(),
        content_encoding: input.content_encoding.clone(),
        metadata: metadata(input.metadata.as_ref())?,
        storage_class: storage_class(input.storage_class.as_ref())?,
        encryption: encryption(
            input.server_side_encryption.as_ref(),
            input.ssekms_key_id.as_ref(),
            input.sse_customer_key_md5.as_ref(),
        )?,
        tags: tags(input.tagging.as_deref())?,
    })
}

fn metadata(metadata: Option<&Metadata>) -> S3Result<BTreeMap<String, String>> {
    let metadata: BTreeMap<_, _> =
        metadata.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_METADATA_BYTES {
        return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size"));
    }
    Ok(metadata)
}

fn storage_class(class: Option<&StorageClass>) -> S3Result<Option<String>> {
    match class.map(StorageClass::as_str) {
        Some(class) if !STORAGE_CLASSES.contains(&class) => Err(s3_error!(InvalidStorageClass)),
        class => Ok(class.map(str::to_owned)),
    }
}

fn encryption(
    asked: Option<&ServerSideEncryption>,
    kms_key_id: Option<&String>,
    customer_key_md5: Option<&String>,
) -> S3Result<Encryption> {
    match (asked.map(ServerSideEncryption::as_str), customer_key_md5) {
        (None, None) => Ok(Encryption::None),
        (Some("AES256"), None) => Ok(Encryption::StoreKey),
        (Some("aws:kms" | "aws:kms:dsse"), None) => {
            let key_id = kms_key_id.cloned().unwrap_or_else(|| "aws/s3".to_owned());
            Ok(Encryption::Kms { key_id })
        }
        (None, Some(key_md5)) => Ok(Encryption::CustomerKey { key_md5: key_md5.clone() }),
        _ => Err(s3_error!(
            InvalidEncryptionAlgorithmError,
            "the encryption headers are unknown or contradict each other"
        )),
    }
}

/// `name=value&name=value`, percent-encoded.
fn tags(header: Option<&str>) -> S3Result<BTreeMap<String, String>> {
    let pairs = header.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let tags = pairs.map(tag).collect::<S3Result<Vec<_>>>()?;
    let count = tags.len();
    let tags: BTreeMap<_, _> = tags.into_iter().collect();
    if count > MAX_TAGS || tags.len() < count {
        return Err(s3_error!(InvalidTag, "at most 10 tags, each name once"));
    }
    Ok(tags)
}

fn tag(pair: &str) -> S3Result<(String, String)> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        urlencoding::decode(&text).map(|text| text.into_owned()).map_err(|_| s3_error!(InvalidTag))
    };
    Ok((decoded(name)?, decoded(value)?))
}

pub fn part_named(part: CompletedPart) -> S3Result<NamedPart> {
    let number = part.part_number.and_then(|number| u32::try_from(number).ok());
    match (number, part.e_tag) {
        (Some(number), Some(etag)) => Ok(NamedPart { number, etag: etag.into_value() }),
        _ => Err(s3_error!(MalformedXML, "a part needs its number and its ETag")),
    }
}

/// The bytes that are asked for, if not all of them.
pub fn selected(
    object: &StoredObject,
    range: Option<Range>,
    part: Option<PartNumber>,
) -> S3Result<Option<ByteRange<u64>>> {
    match (range, part) {
        (None, None) => Ok(None),
        (Some(range), None) => range.check(object.size).map(Some).map_err(S3Error::from),
        (None, Some(number)) => {
            let range = usize::try_from(number).ok().and_then(|number| object.part_range(number));
            range.map(Some).ok_or_else(|| s3_error!(InvalidRange, "the object has no part {number}"))
        }
        (Some(_), Some(_)) => {
            Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query parameter"))
        }
    }
}

impl Encryption {
    /// An object under a customer's key is read, and its parts are written, only with that key.
    pub fn check_reader(&self, key_md5: Option<&str>) -> S3Result {
        match (self, key_md5) {
            (Self::CustomerKey { key_md5: wanted }, Some(key_md5)) if wanted == key_md5 => Ok(()),
            (Self::CustomerKey { .. }, Some(_)) => Err(s3_error!(AccessDenied, "another key than the object's")),
            (Self::CustomerKey { .. }, None) | (_, Some(_)) => {
                Err(s3_error!(InvalidRequest, "the encryption of the object and that of the request differ"))
            }
            (_, None) => Ok(()),
        }
    }
}

/// How an answer tells the encryption.
#[derive(Default)]
pub struct EncryptionHeaders {
    pub server_side_encryption: Option<ServerSideEncryption>,
    pub kms_key_id: Option<String>,
    pub customer_algorithm: Option<String>,
    pub customer_key_md5: Option<String>,
}

impl EncryptionHeaders {
    pub fn of(encryption: &Encryption) -> Self {
        let named = |name| Some(ServerSideEncryption::from_static(name));
        match encryption {
            Encryption::None => Self::default(),
            Encryption::StoreKey => {
                Self { server_side_encryption: named(ServerSideEncryption::AES256), ..Self::default() }
            }
            Encryption::Kms { key_id } => Self {
                server_side_encryption: named(ServerSideEncryption::AWS_KMS),
                kms_key_id: Some(key_id.clone()),
                ..Self::default()
            },
            Encryption::CustomerKey { key_md5 } => Self {
                customer_algorithm: Some("AES256".to_owned()),
                customer_key_md5: Some(key_md5.clone()),
                ..Self::default()
            },
        }
    }
}
