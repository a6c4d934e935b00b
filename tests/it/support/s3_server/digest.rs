//! Receiving a body: it is hashed while it is written to a blob, and everything that the request claims about it is
//! checked before anybody can see it. Shares no code with the program under test.

use std::io;
use std::sync::Arc;

use aws_smithy_types::base64;
use futures_util::StreamExt;
use hyper::HeaderMap;
use md5::{Digest, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, TrailingHeaders, s3_error};

use super::blob::{Blob, BlobDir};

pub type Md5Digest = [u8; 16];

const CHECKSUM_HEADERS: [&str; 5] = [
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
];

/// What a request says about its body.
pub struct Claims {
    content_length: Option<i64>,
    content_md5: Option<Md5Digest>,
    /// The checksum headers that have come, or are announced for after the body.
    checksums: Vec<&'static str>,
    headers: HeaderMap,
    trailers: Option<TrailingHeaders>,
}

impl Claims {
    pub fn new(headers: HeaderMap, content_length: Option<i64>, trailers: Option<TrailingHeaders>) -> S3Result<Self> {
        let content_md5 = headers.get("content-md5").map(|value| parse_content_md5(value.as_bytes())).transpose()?;
        let announced = headers.get_all("x-amz-trailer").iter().filter_map(|value| value.to_str().ok());
        let announced = announced.collect::<Vec<_>>().join(",").to_ascii_lowercase();
        let checksums = CHECKSUM_HEADERS
            .into_iter()
            .filter(|name| headers.contains_key(*name) || announced.split(',').any(|each| each.trim() == *name))
            .collect();
        Ok(Self { content_length, content_md5, checksums, headers, trailers })
    }

    /// As a store takes them that does not look at Content-MD5.
    pub fn without_content_md5(self, is_without: bool) -> Self {
        Self { content_md5: self.content_md5.filter(|_| !is_without), ..self }
    }

    fn hasher(&self) -> ChecksumHasher {
        let wanted = |name| self.checksums.contains(&name);
        ChecksumHasher {
            crc32: wanted("x-amz-checksum-crc32").then(Crc32::new),
            crc32c: wanted("x-amz-checksum-crc32c").then(Crc32c::new),
            crc64nvme: wanted("x-amz-checksum-crc64nvme").then(Crc64Nvme::new),
            sha1: wanted("x-amz-checksum-sha1").then(Sha1::new),
            sha256: wanted("x-amz-checksum-sha256").then(Sha256::new),
        }
    }

    fn check(&self, size: u64, md5: &Md5Digest, checksum: &Checksum) -> S3Result {
        if self.content_length.is_some_and(|length| u64::try_from(length) != Ok(size)) {
            return Err(s3_error!(IncompleteBody, "the body is shorter or longer than it says"));
        }
        if self.content_md5.is_some_and(|claimed| claimed != *md5) {
            return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
        for name in &self.checksums {
            if self.claimed(name)? != *computed(checksum, name) {
                return Err(s3_error!(BadDigest, "The {name} you specified did not match what we received."));
            }
        }
        Ok(())
    }

    fn claimed(&self, name: &str) -> S3Result<Option<String>> {
        let text = |headers: &HeaderMap| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let trailer = || self.trailers.as_ref().and_then(|trailers| trailers.read(text)).flatten();
        match text(&self.headers).or_else(trailer) {
            Some(value) => Ok(Some(value)),
            None => Err(s3_error!(InvalidRequest, "the announced trailer {name} has not come")),
        }
    }
}

/// Content-MD5 is the base64 of the 16 bytes, not of their hexadecimal form.
fn parse_content_md5(value: &[u8]) -> S3Result<Md5Digest> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| base64::decode(text).ok())
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified was invalid."))
}

fn computed<'a>(checksum: &'a Checksum, name: &str) -> &'a Option<String> {
    match name {
        "x-amz-checksum-crc32" => &checksum.checksum_crc32,
        "x-amz-checksum-crc32c" => &checksum.checksum_crc32c,
        "x-amz-checksum-crc64nvme" => &checksum.checksum_crc64nvme,
        "x-amz-checksum-sha1" => &checksum.checksum_sha1,
        _ => &checksum.checksum_sha256,
    }
}

/// Bytes that are what their sender said they are.
pub struct Received {
    pub blob: Arc<Blob>,
    pub md5: Md5Digest,
    pub checksum: Checksum,
}

pub async fn receive(body: Option<StreamingBlob>, claims: Claims, blobs: &Arc<BlobDir>) -> S3Result<Received> {
    let mut writer = blobs.create().map_err(S3Error::internal_error)?;
    let mut md5 = Md5::new();
    let mut hasher = claims.hasher();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(body_error)?;
            md5.update(&chunk);
            hasher.update(&chunk);
            writer.write(&chunk).map_err(S3Error::internal_error)?;
        }
    }
    let md5: Md5Digest = md5.finalize().into();
    let checksum = hasher.finalize();
    claims.check(writer.size(), &md5, &checksum)?;
    Ok(Received { blob: writer.finish(), md5, checksum })
}

/// Bytes that came from the test itself.
pub fn received(bytes: &[u8], blobs: &Arc<BlobDir>) -> io::Result<Received> {
    let mut writer = blobs.create()?;
    writer.write(bytes)?;
    Ok(Received { blob: writer.finish(), md5: md5_of(bytes), checksum: Checksum::default() })
}

/// `s3s` keeps the types of these errors to itself, so that only their texts tell them apart.
fn body_error(error: StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        let mut error = S3Error::new(S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()));
        error.set_status_code(hyper::StatusCode::BAD_REQUEST);
        error
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "{text}")
    } else {
        s3_error!(IncompleteBody, "{text}")
    }
}

pub fn md5_of(bytes: &[u8]) -> Md5Digest {
    Md5::digest(bytes).into()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ETag of a multipart object: the MD5 of the joined binary part digests, and the number of parts.
pub fn composite_etag<'a>(digests: impl ExactSizeIterator<Item = &'a Md5Digest>) -> String {
    let count = digests.len();
    let joined: Vec<u8> = digests.flatten().copied().collect();
    format!("{}-{count}", hex(&md5_of(&joined)))
}
