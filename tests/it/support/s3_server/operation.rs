//! What a request asks for, read from its method, path, query and headers.
//!
//! `s3s` finds this out as well, but tells it only to the storage behind it.
//! The request log and the faults need it for requests that never get that far.

use hyper::{HeaderMap, Method, Uri};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    GetBucketLocation,
    GetBucketVersioning,
    PutBucketVersioning,
    GetBucketLifecycle,
    ListObjects,
    ListObjectsV2,
    ListObjectVersions,
    ListMultipartUploads,
    PutObject,
    CopyObject,
    GetObject,
    HeadObject,
    DeleteObject,
    DeleteObjects,
    GetObjectTagging,
    PutObjectTagging,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    ListParts,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    Other,
}

/// The operation and what it is about.
#[derive(Clone, Debug)]
pub struct Target {
    pub operation: Operation,
    pub bucket: String,
    /// Empty when the request is about a bucket.
    pub key: String,
    pub part: Option<u32>,
    pub upload_id: Option<String>,
}

impl Target {
    pub fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let path = decoded(uri.path());
        let path = path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let query = Query::of(uri);
        Self {
            operation: operation(method, bucket, key, &query, headers),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            part: query.get("partNumber").and_then(|number| number.parse().ok()),
            upload_id: query.get("uploadId"),
        }
    }
}

fn operation(method: &Method, bucket: &str, key: &str, query: &Query, headers: &HeaderMap) -> Operation {
    if bucket.is_empty() {
        Operation::ListBuckets
    } else if key.is_empty() {
        bucket_operation(method, query)
    } else {
        object_operation(method, query, headers.contains_key("x-amz-copy-source"))
    }
}

fn bucket_operation(method: &Method, query: &Query) -> Operation {
    match *method {
        Method::PUT if query.has("versioning") => Operation::PutBucketVersioning,
        Method::PUT => Operation::CreateBucket,
        Method::HEAD => Operation::HeadBucket,
        Method::DELETE => Operation::DeleteBucket,
        Method::POST if query.has("delete") => Operation::DeleteObjects,
        Method::GET if query.has("list-type") => Operation::ListObjectsV2,
        Method::GET if query.has("uploads") => Operation::ListMultipartUploads,
        Method::GET if query.has("versions") => Operation::ListObjectVersions,
        Method::GET if query.has("versioning") => Operation::GetBucketVersioning,
        Method::GET if query.has("lifecycle") => Operation::GetBucketLifecycle,
        Method::GET if query.has("location") => Operation::GetBucketLocation,
        Method::GET => Operation::ListObjects,
        _ => Operation::Other,
    }
}

fn object_operation(method: &Method, query: &Query, copies: bool) -> Operation {
    match *method {
        Method::PUT if query.has("uploadId") && copies => Operation::UploadPartCopy,
        Method::PUT if query.has("uploadId") => Operation::UploadPart,
        Method::PUT if query.has("tagging") => Operation::PutObjectTagging,
        Method::PUT if copies => Operation::CopyObject,
        Method::PUT => Operation::PutObject,
        Method::GET if query.has("uploadId") => Operation::ListParts,
        Method::GET if query.has("tagging") => Operation::GetObjectTagging,
        Method::GET => Operation::GetObject,
        Method::HEAD => Operation::HeadObject,
        Method::DELETE if query.has("uploadId") => Operation::AbortMultipartUpload,
        Method::DELETE => Operation::DeleteObject,
        Method::POST if query.has("uploads") => Operation::CreateMultipartUpload,
        Method::POST if query.has("uploadId") => Operation::CompleteMultipartUpload,
        _ => Operation::Other,
    }
}

struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        Self(pairs.collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(each, _)| each == name)
    }

    fn get(&self, name: &str) -> Option<String> {
        let pair = self.0.iter().find(|(each, _)| each == name)?;
        Some(pair.1.clone())
    }
}

/// A text that is not properly percent-encoded stays as it is: refusing it is the work of `s3s`.
fn decoded(text: &str) -> String {
    urlencoding::decode(text).map_or_else(|_| text.to_owned(), |decoded| decoded.into_owned())
}
