//! Objects: their names, sizes and ETags, and their bytes where those are kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::uploads::Upload;

/// A stretch of an object, as it came with one request.
#[derive(Clone)]
pub enum Piece {
    Memory(Vec<u8>),
    File {
        path: PathBuf,
        length: u64,
    },
    /// Only its length is known.
    Dropped {
        length: u64,
    },
}

impl Piece {
    pub fn length(&self) -> u64 {
        match self {
            Piece::Memory(bytes) => bytes.len() as u64,
            Piece::File { length, .. } | Piece::Dropped { length } => *length,
        }
    }

    /// Its file is of no use any more; that it is gone already is fine.
    fn remove(self) {
        if let Piece::File { path, .. } = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[derive(Clone)]
pub struct Object {
    pub etag: String,
    pub size: u64,
    pub modified: Timestamp,
    pub metadata: Vec<(String, String)>,
    pub pieces: Vec<Piece>,
}

#[derive(Default)]
pub struct Store {
    inner: Mutex<Inner>,
    numbers: AtomicU64,
}

#[derive(Default)]
pub struct Inner {
    /// By `bucket/key`.
    pub objects: BTreeMap<String, Object>,
    /// By upload id.
    pub uploads: BTreeMap<String, Upload>,
}

impl Store {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that nobody had before.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub fn insert(&self, path: String, object: Object) {
        let before = self.lock().objects.insert(path, object);
        before.into_iter().flat_map(|object| object.pieces).for_each(Piece::remove);
    }

    pub fn remove(&self, path: &str) {
        let before = self.lock().objects.remove(path);
        before.into_iter().flat_map(|object| object.pieces).for_each(Piece::remove);
    }

    pub fn get(&self, path: &str) -> Option<Object> {
        self.lock().objects.get(path).cloned()
    }

    pub fn reset(&self) {
        let (objects, uploads) = {
            let mut inner = self.lock();
            (std::mem::take(&mut inner.objects), std::mem::take(&mut inner.uploads))
        };
        objects.into_values().flat_map(|object| object.pieces).for_each(Piece::remove);
        let parts = uploads.into_values().flat_map(|upload| upload.parts.into_values());
        parts.for_each(|part| part.piece.remove());
    }

    /// A line for each object: its size and its path.
    pub fn lines(&self) -> String {
        let inner = self.lock();
        inner.objects.iter().map(|(path, object)| format!("{} {path}\n", object.size)).collect()
    }

    pub fn remove_upload(&self, id: &str) -> bool {
        let before = self.lock().uploads.remove(id);
        let found = before.is_some();
        before.into_iter().flat_map(|upload| upload.parts.into_values()).for_each(|part| part.piece.remove());
        found
    }
}
