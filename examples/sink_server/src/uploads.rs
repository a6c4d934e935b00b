//! Multipart uploads.

use std::collections::BTreeMap;

use jiff::Timestamp;
use md5::{Digest, Md5};

use crate::answer::Answer;
use crate::body::Received;
use crate::operations::Sink;
use crate::request::Request;
use crate::store::{Object, Piece};
use crate::xml;

pub struct Upload {
    /// `bucket/key`.
    path: String,
    metadata: Vec<(String, String)>,
    pub parts: BTreeMap<u32, Part>,
}

pub struct Part {
    md5: [u8; 16],
    pub piece: Piece,
}

pub fn create(sink: &Sink, request: &Request) -> Answer {
    let id = format!("{:016x}", sink.store.number());
    let upload = Upload { path: request.path.clone(), metadata: request.user_metadata(), parts: BTreeMap::new() };
    sink.store.lock().uploads.insert(id.clone(), upload);
    Answer::xml("InitiateMultipartUploadResult", &format!("{}<UploadId>{id}</UploadId>", names(request)))
}

fn names(request: &Request) -> String {
    format!("<Bucket>{}</Bucket><Key>{}</Key>", xml::escape(request.bucket()), xml::escape(request.key()))
}

pub fn put_part(sink: &Sink, request: &Request, received: Received) -> Answer {
    let Ok(number) = request.parameter("partNumber").parse::<u32>() else {
        return Answer::error(400, "InvalidArgument");
    };
    let etag = crate::body::hex(&received.md5);
    let part = Part { md5: received.md5, piece: received.piece };
    match sink.store.lock().uploads.get_mut(request.parameter("uploadId")) {
        Some(upload) => drop(upload.parts.insert(number, part)),
        None => return Answer::error(404, "NoSuchUpload"),
    }
    Answer::empty(200).header("ETag", format!("\"{etag}\""))
}

/// All parts that came, in order: whether the client names the same is not looked at, but how many it names is.
pub fn complete(sink: &Sink, request: &Request, body: &str) -> Answer {
    let id = request.parameter("uploadId");
    let Some(upload) = sink.store.lock().uploads.remove(id) else {
        return Answer::error(404, "NoSuchUpload");
    };
    let named = xml::texts(body, "PartNumber").len();
    if named != upload.parts.len() {
        sink.store.lock().uploads.insert(id.to_owned(), upload);
        return Answer::error(400, "InvalidPart");
    }
    let mut digests = Md5::new();
    for part in upload.parts.values() {
        digests.update(part.md5);
    }
    let etag = format!("{}-{named}", crate::body::hex(&digests.finalize().into()));
    let pieces: Vec<_> = upload.parts.into_values().map(|part| part.piece).collect();
    let object = Object {
        etag: etag.clone(),
        size: pieces.iter().map(Piece::length).sum(),
        modified: Timestamp::now(),
        metadata: upload.metadata,
        pieces,
    };
    sink.store.insert(upload.path, object);
    let inner = format!("{}<ETag>&quot;{etag}&quot;</ETag>", names(request));
    Answer::xml("CompleteMultipartUploadResult", &inner)
}

pub fn abort(sink: &Sink, request: &Request) -> Answer {
    if sink.store.remove_upload(request.parameter("uploadId")) {
        Answer::empty(204)
    } else {
        Answer::error(404, "NoSuchUpload")
    }
}

pub fn list_parts(sink: &Sink, request: &Request) -> Answer {
    let id = request.parameter("uploadId");
    let inner = sink.store.lock();
    let Some(upload) = inner.uploads.get(id) else {
        return Answer::error(404, "NoSuchUpload");
    };
    let mut list = format!("{}<UploadId>{id}</UploadId><IsTruncated>false</IsTruncated>", names(request));
    for (number, part) in &upload.parts {
        let (etag, size) = (crate::body::hex(&part.md5), part.piece.length());
        list += &format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size></Part>"
        );
    }
    Answer::xml("ListPartsResult", &list)
}

pub fn list_uploads(sink: &Sink, request: &Request) -> Answer {
    let mut list = format!("<Bucket>{}</Bucket><IsTruncated>false</IsTruncated>", xml::escape(request.bucket()));
    let beginning = format!("{}/{}", request.bucket(), request.parameter("prefix"));
    for (id, upload) in &sink.store.lock().uploads {
        if upload.path.starts_with(&beginning) {
            let key = xml::escape(&upload.path[request.bucket().len() + 1..]);
            list += &format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>");
        }
    }
    Answer::xml("ListMultipartUploadsResult", &list)
}
