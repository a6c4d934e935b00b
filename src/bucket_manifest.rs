//! The one reader of manifests: fetched, hashed and parsed as a stream, with the limits of [`manifest::read`].
//!
//! The parser runs in a thread of its own; pieces go to it and files come back through short queues. So a manifest takes
//! no memory but a few pieces. Who must know that it is whole before the first file is looked at spools it.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::Context;
use bytes::{Buf, Bytes};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::model::manifest::{self, BadManifest, ManifestFile, ManifestHeader};
use crate::platform;
use crate::s3::{ErrorKind, Interest, ListedObject, ObjectRef, Store, StoreError};

/// Files that are read ahead.
const READ_AHEAD: usize = 256;
/// Pieces on their way to the parser.
const PIECES: usize = 4;
/// How often it is begun anew where it was written again just before: a living upload does that.
const TRIES: u32 = 3;

/// What came of reading a manifest that is there.
pub type ReadManifest = Result<ManifestHeader, BadManifest>;

/// Reads the manifest that a listing shows; `each` gets every file. `None` if there is none, or none any more.
pub async fn read_manifest(
    store: &Store,
    listed: Option<&ListedObject>,
    each: impl FnMut(ManifestFile),
) -> Result<Option<ReadManifest>, StoreError> {
    match listed {
        Some(listed) => read_pieces(store, &mut listed.clone(), each, |_| Interest::More).await,
        None => Ok(None),
    }
}

/// The same; afterwards `listed` tells size and ETag of what was read, where the listing lagged behind.
pub async fn read_current(
    store: &Store,
    listed: &mut ListedObject,
    each: impl FnMut(ManifestFile),
) -> Result<Option<ReadManifest>, StoreError> {
    read_pieces(store, listed, each, |_| Interest::More).await
}

async fn read_pieces(
    store: &Store,
    listed: &mut ListedObject,
    mut each: impl FnMut(ManifestFile),
    mut piece: impl FnMut(&Bytes) -> Interest,
) -> Result<Option<ReadManifest>, StoreError> {
    let mut tries = 1;
    loop {
        if listed.size > manifest::SIZE_MAX {
            return Ok(Some(Err(BadManifest::TooLarge("the whole of it"))));
        }
        let object = ObjectRef { key: listed.key.clone(), size: listed.size, etag: listed.etag.clone() };
        let mut has_begun = false;
        let seen = |bytes: &Bytes| {
            has_begun = true;
            piece(bytes)
        };
        match read_object(store, &object, &mut each, seen).await {
            // Written again since it was listed. Nothing of it was given out yet, so it is read as it is now.
            Err(error) if error.kind == ErrorKind::Precondition && !has_begun && tries < TRIES => tries += 1,
            Err(error) if error.kind == ErrorKind::NoSuchKey => return Ok(None),
            read => return read.map(Some),
        }
        let Some(head) = store.head(&listed.key).await? else { return Ok(None) };
        (listed.size, listed.etag) = (head.size, head.etag);
    }
}

async fn read_object(
    store: &Store,
    object: &ObjectRef,
    each: &mut impl FnMut(ManifestFile),
    mut piece: impl FnMut(&Bytes) -> Interest,
) -> Result<ReadManifest, StoreError> {
    let (pieces, received) = mpsc::channel(PIECES);
    let (files, mut parsed) = mpsc::channel(READ_AHEAD);
    let parser = tokio::task::spawn_blocking(move || {
        let reader = BufReader::with_capacity(64 * 1024, Pieces { received, at_hand: Bytes::new() });
        manifest::read(reader, |file| drop(files.blocking_send(file)))
    });
    // The queue of pieces goes with it: its end is the parser's end of file.
    let feed = async move {
        let take = async |bytes: Bytes| match piece(&bytes) {
            // A parser that has seen enough takes no more.
            Interest::More if pieces.send(bytes).await.is_ok() => Interest::More,
            _ => Interest::Lost,
        };
        store.download(object, 0..object.size, take).await
    };
    let drain = async {
        while let Some(file) = parsed.recv().await {
            each(file);
        }
    };
    let (fed, ()) = tokio::join!(feed, drain);
    // First, since the parser takes a manifest that broke off for a damaged one.
    fed?;
    parser.await.map_err(|error| {
        StoreError::of_answer(ErrorKind::Invalid, "GetObject", &store.uri(&object.key), error.to_string())
    })
}

/// Pieces of a body as something that can be read.
struct Pieces {
    received: mpsc::Receiver<Bytes>,
    at_hand: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.at_hand.is_empty() {
            match self.received.blocking_recv() {
                Some(piece) => self.at_hand = piece,
                None => return Ok(0),
            }
        }
        let count = bytes.len().min(self.at_hand.len());
        self.at_hand.copy_to_slice(&mut bytes[..count]);
        Ok(count)
    }
}

/// A manifest, fetched and found to be one.
#[derive(Debug)]
pub struct Spooled {
    /// Everything but the files.
    pub header: ManifestHeader,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    file: Arc<File>,
}

/// What became of fetching a manifest.
#[derive(Debug)]
pub enum Fetched {
    /// It can be read.
    Read(Box<Spooled>),
    /// It is there, and cannot be used.
    Bad(BadManifest),
    /// There is none.
    Absent,
}

impl Spooled {
    /// Fetches the manifest that a listing shows into a file without a name, and reads it to its end once, so that a
    /// damaged one is known before anything is said of a file.
    pub async fn fetch(store: &Store, listed: Option<&ListedObject>) -> anyhow::Result<Fetched> {
        let file = platform::memory_file("manifest").context("no memory for the manifest")?;
        let mut sha256 = Sha256::new();
        let mut written = Ok(());
        let keep = |bytes: &Bytes| {
            sha256.update(bytes);
            written = (&file).write_all(bytes);
            if written.is_ok() { Interest::More } else { Interest::Lost }
        };
        let read = match listed {
            Some(listed) => read_pieces(store, &mut listed.clone(), drop, keep).await?,
            None => None,
        };
        written.context("no memory for the manifest")?;
        Ok(match read {
            None => Fetched::Absent,
            Some(Err(bad)) => Fetched::Bad(bad),
            Some(Ok(header)) => {
                let sha256 = HEXLOWER.encode(&sha256.finalize());
                Fetched::Read(Box::new(Self { header, sha256, file: Arc::new(file) }))
            }
        })
    }

    /// Its files, in the manifest's order.
    pub fn files(&self) -> mpsc::Receiver<ManifestFile> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let reader = BufReader::with_capacity(64 * 1024, FromStart { file: Arc::clone(&self.file), at: 0 });
        tokio::task::spawn_blocking(move || {
            // It was read before, so it can be read now; and where nobody listens any more nothing is lost.
            let _ = manifest::read(reader, |file| drop(sender.blocking_send(file)));
        });
        receiver
    }
}

/// Reads from the start, whatever others do with the same file.
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
