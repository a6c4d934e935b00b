//! Which request is what, and what it does.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::answer::Answer;
use crate::body::{self, Received};
use crate::counters::Counters;
use crate::request::{Incoming, Request};
use crate::store::{Object, Piece, Store};
use crate::transport::Transport;
use crate::{listing, uploads, xml};

pub struct Sink {
    pub store: Store,
    counters: Counters,
    latency: Duration,
    pub hashes: bool,
    pub dir: Option<PathBuf>,
}

impl Sink {
    pub fn new(latency: Duration, hashes: bool, dir: Option<PathBuf>) -> Self {
        Self { store: Store::default(), counters: Counters::default(), latency, hashes, dir }
    }

    /// One request after the other, until the client closes the connection.
    pub fn converse(&self, transport: Transport) -> io::Result<()> {
        let mut incoming = Incoming::new(transport);
        let mut is_counted = false;
        let result = self.answer_all(&mut incoming, &mut is_counted);
        if is_counted {
            self.counters.connection_closed();
        }
        result
    }

    fn answer_all(&self, incoming: &mut Incoming, is_counted: &mut bool) -> io::Result<()> {
        while let Some(request) = incoming.request()? {
            if request.path.starts_with('_') {
                self.about_ourselves(&request).send(&mut incoming.transport)?;
                continue;
            }
            if !std::mem::replace(is_counted, true) {
                self.counters.connection_opened();
            }
            let operation = name(&request);
            self.counters.request(operation);
            let received = body::receive(self, &request, incoming)?;
            let bytes = received.bytes;
            let answer = self.carry_out(operation, &request, received);
            std::thread::sleep(self.latency);
            self.counters.answered(answer.status, bytes);
            let answer = if request.method == "HEAD" { answer.without_body() } else { answer };
            answer.send(&mut incoming.transport)?;
            if request.closes() {
                break;
            }
        }
        Ok(())
    }

    /// Not S3: what was counted. These requests are not.
    fn about_ourselves(&self, request: &Request) -> Answer {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "_counters") => match serde_json::to_vec(&self.counters.now()) {
                Ok(json) => Answer::bytes("application/json", json),
                Err(error) => Answer::error(500, &error.to_string()),
            },
            ("GET", "_objects") => Answer::bytes("text/plain", self.store.lines().into_bytes()),
            ("POST", "_reset") => {
                self.store.reset();
                self.counters.reset();
                Answer::empty(204)
            }
            _ => Answer::error(404, "NotFound"),
        }
    }

    fn carry_out(&self, operation: &str, request: &Request, received: Received) -> Answer {
        if received.is_damaged {
            return Answer::error(400, "BadDigest");
        }
        match operation {
            "PutObject" => self.put(request, received),
            "UploadPart" => uploads::put_part(self, request, received),
            "CreateMultipartUpload" => uploads::create(self, request),
            "CompleteMultipartUpload" => uploads::complete(self, request, &text(&received)),
            "AbortMultipartUpload" => uploads::abort(self, request),
            "ListParts" => uploads::list_parts(self, request),
            "ListMultipartUploads" => uploads::list_uploads(self, request),
            "HeadObject" => self.found(request, |object| Answer::head(&object)),
            "GetObject" => self.get(request),
            "DeleteObject" => {
                self.store.remove(&request.path);
                Answer::empty(204)
            }
            "DeleteObjects" => self.delete(request, &text(&received)),
            "ListObjects" | "ListObjectsV2" => listing::list(self, request),
            "HeadBucket" | "CreateBucket" => Answer::empty(200).header("x-amz-bucket-region", "us-east-1"),
            "GetBucketLocation" => Answer::xml("LocationConstraint", ""),
            "GetBucketVersioning" => Answer::xml("VersioningConfiguration", ""),
            "ListBuckets" => Answer::xml("ListAllMyBucketsResult", "<Buckets></Buckets>"),
            _ => Answer::error(501, "NotImplemented"),
        }
    }

    fn put(&self, request: &Request, received: Received) -> Answer {
        let is_there = || self.store.lock().objects.contains_key(&request.path);
        if request.header("if-none-match") == Some("*") && is_there() {
            return Answer::error(412, "PreconditionFailed");
        }
        let etag = body::hex(&received.md5);
        let object = Object {
            etag: etag.clone(),
            size: received.piece.length(),
            modified: Timestamp::now(),
            metadata: request.user_metadata(),
            pieces: vec![received.piece],
        };
        self.store.insert(request.path.clone(), object);
        Answer::empty(200).header("ETag", format!("\"{etag}\""))
    }

    fn found(&self, request: &Request, answer: impl FnOnce(Object) -> Answer) -> Answer {
        self.store.get(&request.path).map_or_else(|| Answer::error(404, "NoSuchKey"), answer)
    }

    fn get(&self, request: &Request) -> Answer {
        self.found(request, |object| {
            if object.pieces.iter().any(|piece| matches!(piece, Piece::Dropped { length: 1.. })) {
                return Answer::error(501, "NotImplemented");
            }
            let range = request.header("range").map(|range| parse_range(range, object.size));
            match range {
                Some(None) => Answer::error(416, "InvalidRange"),
                range => Answer::content(object, range.flatten()),
            }
        })
    }

    fn delete(&self, request: &Request, body: &str) -> Answer {
        let keys = xml::texts(body, "Key");
        for key in &keys {
            self.store.remove(&format!("{}/{key}", request.bucket()));
        }
        let deleted = keys.iter().map(|key| format!("<Deleted><Key>{}</Key></Deleted>", xml::escape(key)));
        Answer::xml("DeleteResult", &deleted.collect::<String>())
    }
}

fn text(received: &Received) -> String {
    match &received.piece {
        Piece::Memory(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

/// The operation's name in the S3 API.
fn name(request: &Request) -> &'static str {
    let is_bucket = request.key().is_empty();
    match request.method.as_str() {
        _ if request.path.is_empty() => "ListBuckets",
        "HEAD" if is_bucket => "HeadBucket",
        "HEAD" => "HeadObject",
        "GET" if is_bucket => of_bucket(request),
        "GET" if request.has("uploadId") => "ListParts",
        "GET" if ["acl", "tagging", "retention", "legal-hold", "attributes"].iter().any(|what| request.has(what)) => {
            "other"
        }
        "GET" => "GetObject",
        "PUT" if is_bucket => "CreateBucket",
        "PUT" if request.header("x-amz-copy-source").is_some() => "other",
        "PUT" if request.has("uploadId") => "UploadPart",
        "PUT" => "PutObject",
        "POST" if request.has("delete") => "DeleteObjects",
        "POST" if request.has("uploads") => "CreateMultipartUpload",
        "POST" if request.has("uploadId") => "CompleteMultipartUpload",
        "DELETE" if request.has("uploadId") => "AbortMultipartUpload",
        "DELETE" if !is_bucket => "DeleteObject",
        _ => "other",
    }
}

fn of_bucket(request: &Request) -> &'static str {
    let known =
        [("location", "GetBucketLocation"), ("versioning", "GetBucketVersioning"), ("uploads", "ListMultipartUploads")];
    let of_bucket = known.into_iter().find(|(parameter, _)| request.has(parameter));
    let listing = if request.parameter("list-type") == "2" { "ListObjectsV2" } else { "ListObjects" };
    of_bucket.map_or(listing, |(_, operation)| operation)
}

/// `bytes=5-9`, `bytes=5-` and `bytes=-5`; `None` if there is no such stretch.
fn parse_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => first..last.checked_add(1)?.min(size),
        (Ok(first), Err(_)) => first..size,
        (Err(_), Ok(length)) => size.saturating_sub(length)..size,
        (Err(_), Err(_)) => return None,
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        for (text, range) in [
            ("bytes=0-3", Some(0..4)),
            ("bytes=8-99", Some(8..10)),
            ("bytes=4-", Some(4..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=10-", None),
            ("bytes=x-y", None),
            ("lines=0-3", None),
        ] {
            assert_eq!(parse_range(text, 10), range, "{text}");
        }
    }
}
