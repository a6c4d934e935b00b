//! The page cache belongs to the database beside us: what we alone brought into it is taken out again.
//!
//! A file that mydumper has just written is in the cache, and reading it leaves no trace. One that was not, because it
//! is older or memory is short, would push out what the database reads.

use std::fs::File;
use std::sync::Arc;

use crate::platform;

/// Where a file is looked at for being cached: at so many places, evenly spread.
const LOOKS: u64 = 8;

/// What our reading of a file leaves in the page cache. Dropped, it takes all of the file out, if we brought it in.
#[derive(Debug)]
pub struct Footprint {
    file: Arc<File>,
    size: u64,
    is_ours: bool,
}

impl Footprint {
    /// Before the first byte of a file of `size` bytes is read: most of what is looked at is not cached, so what will be
    /// is by us.
    pub fn begin(file: Arc<File>, size: u64) -> Self {
        let looks = LOOKS.min(size.div_ceil(64 * 1024));
        let is_missing = |look| platform::read_cached(&file, &mut [0], size / looks * look) == Some(0);
        let missing = (0..looks).filter(|look| is_missing(*look)).count() as u64;
        Self { file, size, is_ours: missing > looks / 2 }
    }

    /// Its size in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// A stretch that need not stay in the cache, while others still must.
    pub fn leave(&self, offset: u64, length: u64) {
        if self.is_ours && length > 0 {
            platform::drop_cached(&self.file, offset, length);
        }
    }
}

impl Drop for Footprint {
    fn drop(&mut self) {
        if self.is_ours {
            platform::drop_cached(&self.file, 0, 0);
        }
    }
}
