//! Memory for the parts of streams: bounded, shared by all streams of a run, and none of them ever waits for one that
//! cannot go on.
//!
//! The bytes of a stream stand in one file in memory, each at its own offset; what is proved is punched out of it. So a
//! part in memory is sent, and sent again, like a part of any other file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::part_plan::Part;
use crate::platform;

/// As many parts are held back for being hashed side by side, at most: the widest registers have so many lanes.
const BATCH_MAX: u64 = 16;

/// Memory for the parts of streams.
///
/// One part of its own is always there for each stream that is open, whatever the others hold: a producer that fills two
/// streams in turn would else wait for the one while we wait for the other. What is beyond these is taken by whoever is
/// first. A part that is longer than the first ones takes what it has more from there too; if it is a stream's only part
/// it is given all the same.
#[derive(Debug)]
pub struct PartMemory {
    /// Bytes of a part that each stream has for its own.
    own: u64,
    /// Bytes for all beside that.
    common: u64,
    /// Bytes of these that are in use.
    used: Mutex<u64>,
    freed: Condvar,
    /// A stream that is open has one of these.
    streams: Arc<Semaphore>,
}

impl PartMemory {
    /// For so many streams at a time, whose parts have `part_size` bytes to begin with: `limit` bytes in all, or one part
    /// for each stream, if that is more.
    pub fn new(streams: usize, part_size: u64, limit: u64) -> Arc<Self> {
        let common = limit.saturating_sub(part_size.saturating_mul(streams as u64));
        let streams = Arc::new(Semaphore::new(streams));
        Arc::new(Self { own: part_size, common, used: Mutex::new(0), freed: Condvar::new(), streams })
    }

    /// How many parts of a stream are held back to be hashed side by side, which costs little more than hashing one. One
    /// part of what may be in memory is being filled meanwhile.
    pub fn batch(&self) -> usize {
        (self.common / self.own.max(1)).clamp(1, BATCH_MAX) as usize
    }

    /// Room for one stream more; waits for one that was opened before to end.
    pub(super) async fn room(self: &Arc<Self>) -> io::Result<Arc<Room>> {
        let permit = Arc::clone(&self.streams).acquire_owned().await.map_err(io::Error::other)?;
        let file = Arc::new(platform::memory_file("stream")?);
        let (parts, is_over) = (Mutex::default(), AtomicBool::new(false));
        Ok(Arc::new(Room { file, memory: Arc::clone(self), parts, is_over, _permit: permit }))
    }

    pub(super) fn used(&self) -> MutexGuard<'_, u64> {
        self.used.lock()
    }
}

/// What one stream holds of the memory. When it is dropped all of that is free again.
#[derive(Debug)]
pub struct Room {
    file: Arc<File>,
    memory: Arc<PartMemory>,
    /// Its mutex is taken within that of the memory, never the other way.
    parts: Mutex<Parts>,
    /// Nobody takes what is written any more.
    is_over: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

/// The parts that are held, by their offsets.
#[derive(Debug, Default)]
struct Parts {
    /// Bytes of the common memory that each takes.
    shares: BTreeMap<u64, u64>,
    /// The one that has the stream's own part.
    own: Option<u64>,
}

impl Room {
    /// The stream's bytes, each at its own offset.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Takes memory for a part. Blocks until there is some; `starved` is called each time that there is none.
    pub(super) fn take(&self, part: Part, starved: impl Fn()) -> io::Result<()> {
        let mut used = self.memory.used();
        loop {
            if self.is_over.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "what is written is not wanted any more"));
            }
            let mut parts = self.parts();
            let is_own = parts.own.is_none();
            let share = if is_own { part.length.saturating_sub(self.memory.own) } else { part.length };
            if parts.shares.is_empty() || used.saturating_add(share) <= self.memory.common {
                *used += share;
                parts.shares.insert(part.offset, share);
                if is_own {
                    parts.own = Some(part.offset);
                }
                return Ok(());
            }
            drop(parts);
            starved();
            self.memory.freed.wait(&mut used);
        }
    }

    /// A part is not needed any more. Blocks for about as long as it takes to clear as much memory.
    pub(in crate::object_writer) fn leave(&self, part: Part) {
        // What cannot be punched goes with the stream.
        let _ = platform::punch(&self.file, part.offset, part.length);
        let mut used = self.memory.used();
        let mut parts = self.parts();
        if let Some(share) = parts.shares.remove(&part.offset) {
            *used -= share;
        }
        parts.own = parts.own.filter(|own| *own != part.offset);
        drop(parts);
        self.memory.freed.notify_all();
    }

    /// How many parts are held.
    pub(super) fn held(&self) -> usize {
        self.parts().shares.len()
    }

    /// Whoever writes is told at its next byte that nobody takes it any more.
    pub(super) fn close(&self) {
        let _used = self.memory.used();
        self.is_over.store(true, Ordering::Relaxed);
        self.memory.freed.notify_all();
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut used = self.memory.used();
        *used -= self.parts().shares.values().sum::<u64>();
        self.memory.freed.notify_all();
    }
}
