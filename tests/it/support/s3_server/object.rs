//! What is stored under a key: bytes, ETag, and everything the request said about them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::Stream;
use s3s::dto::Checksum;

use super::blob::Blob;

/// Bytes are handed out in pieces of this size, so that a download holds no whole object in memory.
const CHUNK: u64 = 128 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    #[default]
    None,
    /// `AES256`: the store's own key. The ETag stays an MD5.
    StoreKey,
    /// `aws:kms`: the ETag is not an MD5.
    Kms { key_id: String },
    /// SSE-C: the ETag is not an MD5, and nobody reads the object without the key.
    CustomerKey { key_md5: String },
}

impl Encryption {
    pub fn has_md5_etag(&self) -> bool {
        matches!(self, Self::None | Self::StoreKey)
    }
}

/// What a PutObject or CreateMultipartUpload says about an object, apart from its bytes.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub storage_class: Option<String>,
    pub encryption: Encryption,
    pub tags: BTreeMap<String, String>,
}

impl Attributes {
    /// As a store keeps them that knows neither storage classes, encryption nor tags.
    pub fn without_settings(self) -> Self {
        let Self { content_type, content_encoding, metadata, .. } = self;
        Self { content_type, content_encoding, metadata, ..Self::default() }
    }
}

/// One version of an object.
#[derive(Clone, Debug)]
pub struct StoredObject {
    pub etag: String,
    pub size: u64,
    pub attributes: Attributes,
    pub last_modified: SystemTime,
    /// Only in a bucket with versioning.
    pub version_id: Option<String>,
    /// How many parts a multipart upload had; `None` for an object of one PUT.
    pub parts_count: Option<usize>,
    /// The checksums that came with the PUT.
    pub checksum: Checksum,
    pub(super) blobs: Vec<Arc<Blob>>,
}

impl StoredObject {
    /// The bytes as they are in the storage now, changed ones too.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for blob in &self.blobs {
            let mut file = File::open(&blob.path).expect("the bytes of a stored object are there");
            file.read_to_end(&mut bytes).expect("the bytes of a stored object can be read");
        }
        bytes
    }

    /// The bytes of one part. An object of one PUT counts as its own part 1.
    pub fn part_range(&self, number: usize) -> Option<Range<u64>> {
        let index = number.checked_sub(1)?;
        let blob = self.blobs.get(index)?;
        let start = self.blobs[..index].iter().map(|blob| blob.size).sum();
        Some(start..start + blob.size)
    }

    /// A damage that the store does not know about: a byte changes, the ETag stays.
    pub fn flip_byte(&self) {
        let blob = self.blobs.iter().max_by_key(|blob| blob.size).filter(|blob| blob.size > 0);
        let blob = blob.expect("an empty object has no byte to damage");
        blob.flip_byte().expect("the bytes of a stored object can be changed");
    }

    /// The same of a certain byte.
    pub fn flip_byte_at(&self, offset: u64) {
        let (mut start, mut blobs) = (0, self.blobs.iter());
        let blob = blobs.find(|blob| {
            start += blob.size;
            offset < start
        });
        let blob = blob.expect("an object has such a byte");
        blob.flip_byte_at(offset + blob.size - start).expect("the bytes of a stored object can be changed");
    }

    pub fn stream(&self, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static + use<> {
        let reader = ObjectReader { pieces: self.pieces(range), open: None };
        futures_util::stream::try_unfold(reader, |mut reader| async move {
            let chunk = reader.next_chunk()?;
            Ok(chunk.map(|chunk| (chunk, reader)))
        })
    }

    /// The blobs that hold `range`, last first, each with its offset and length.
    fn pieces(&self, range: Range<u64>) -> Vec<(Arc<Blob>, u64, u64)> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for blob in &self.blobs {
            let end = start + blob.size;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                pieces.push((Arc::clone(blob), from - start, to - from));
            }
            start = end;
        }
        pieces.reverse();
        pieces
    }
}

struct ObjectReader {
    pieces: Vec<(Arc<Blob>, u64, u64)>,
    open: Option<io::Take<File>>,
}

impl ObjectReader {
    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(file) = &mut self.open {
                let mut chunk = Vec::with_capacity(CHUNK.min(file.limit()) as usize);
                if file.take(CHUNK).read_to_end(&mut chunk)? > 0 {
                    return Ok(Some(chunk.into()));
                }
            }
            match self.pieces.pop() {
                Some((blob, offset, length)) => self.open = Some(blob.open_at(offset, length)?),
                None => return Ok(None),
            }
        }
    }
}
