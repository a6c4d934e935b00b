//! The bytes of objects and parts: one file each, so that large data does not fill the memory,
//! and so that a test can change a byte of what is stored.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The directory of all blobs. It lives as long as any of them.
pub struct BlobDir {
    dir: TempDir,
    next: AtomicU64,
}

impl BlobDir {
    /// A fresh directory below `parent` (or the system's temporary one): a run never meets the leftovers of another.
    pub fn new(parent: Option<PathBuf>) -> io::Result<Arc<Self>> {
        let parent = parent.unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new().prefix("s3-server-").tempdir_in(parent)?;
        Ok(Arc::new(Self { dir, next: AtomicU64::new(1) }))
    }

    pub fn create(self: &Arc<Self>) -> io::Result<BlobWriter> {
        let path = self.dir.path().join(format!("{:08}", self.next.fetch_add(1, Ordering::Relaxed)));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let blob = Blob { path, size: 0, _dir: Arc::clone(self) };
        Ok(BlobWriter { file, blob })
    }
}

/// Bytes that nobody can see yet. Dropped without `finish`, they leave nothing behind.
pub struct BlobWriter {
    file: File,
    blob: Blob,
}

impl BlobWriter {
    /// Blocks, which is fine: it writes into the page cache, on a runtime that serves nothing but this server.
    /// Zeros become a hole, so that an object of many gigabytes can be had for nothing.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(ZEROS.len()) {
            let end = self.blob.size + piece.len() as u64;
            if *piece == ZEROS[..piece.len()] {
                self.file.set_len(end)?;
            } else {
                self.file.write_all_at(piece, self.blob.size)?;
            }
            self.blob.size = end;
        }
        Ok(())
    }

    pub fn size(&self) -> u64 {
        self.blob.size
    }

    pub fn finish(self) -> Arc<Blob> {
        Arc::new(self.blob)
    }
}

/// One file of bytes, removed with its last owner.
#[derive(Debug)]
pub struct Blob {
    pub path: PathBuf,
    pub size: u64,
    _dir: Arc<BlobDir>,
}

impl Drop for Blob {
    fn drop(&mut self) {
        // The whole directory goes with its last blob; a file that somebody removed before is no reason to panic.
        let _ = fs::remove_file(&self.path);
    }
}

impl std::fmt::Debug for BlobDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.dir.fmt(f)
    }
}

impl Blob {
    /// Changes the byte in the middle. Size, ETag and everything else the server says about it stay.
    pub fn flip_byte(&self) -> io::Result<()> {
        self.flip_byte_at(self.size / 2)
    }

    pub fn flip_byte_at(&self, offset: u64) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[!byte[0]], offset)
    }

    pub fn open_at(&self, offset: u64, length: u64) -> io::Result<io::Take<File>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.take(length))
    }
}
