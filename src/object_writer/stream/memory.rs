//! Memory for the parts of streams: bounded, shared by all streams of a run, and none of them ever waits for one that
//! cannot go on.
//!
//! What a part came into is what it is hashed and sent from, and sent again: its bytes are moved once, into here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
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
    /// Buffers of the first parts' length that are not in use: memory that comes from the system anew must be cleared by
    /// it first. There are never more than were in use at once.
    spare: Mutex<Vec<Box<[u8]>>>,
}

impl PartMemory {
    /// For so many streams at a time, whose parts have `part_size` bytes to begin with: `limit` bytes in all, or one part
    /// for each stream, if that is more.
    pub fn new(streams: usize, part_size: u64, limit: u64) -> Arc<Self> {
        let common = limit.saturating_sub(part_size.saturating_mul(streams as u64));
        let (used, freed, spare) = (Mutex::new(0), Condvar::new(), Mutex::default());
        Arc::new(Self { own: part_size, common, used, freed, streams: Arc::new(Semaphore::new(streams)), spare })
    }

    /// How many parts of a stream are held back to be hashed side by side, which costs little more than hashing one. One
    /// part of what may be in memory is being filled meanwhile.
    pub fn batch(&self) -> usize {
        (self.common / self.own.max(1)).clamp(1, BATCH_MAX) as usize
    }

    /// Room for one stream more; waits for one that was opened before to end.
    pub(super) async fn room(self: &Arc<Self>) -> io::Result<Arc<Room>> {
        let permit = Arc::clone(&self.streams).acquire_owned().await.map_err(io::Error::other)?;
        let (memory, held, is_over) = (Arc::clone(self), Mutex::default(), AtomicBool::new(false));
        let account = Arc::new(Account { memory, held, is_over, _permit: permit });
        Ok(Arc::new(Room { file: Arc::new(platform::memory_file("stream")?), account, parts: Mutex::default() }))
    }

    /// Bytes for a part; those of the first parts' length are used again.
    fn bytes(&self, length: u64) -> io::Result<Box<[u8]>> {
        let mut spare = self.spare.lock();
        if length != self.own {
            // Parts have begun to grow, and none is as short any more.
            spare.clear();
        }
        if let Some(bytes) = spare.pop() {
            return Ok(bytes);
        }
        drop(spare);
        let length = usize::try_from(length).map_err(io::Error::other)?;
        // Cleared by the system as far as it is written to, and no further.
        Ok(vec![0; length].into_boxed_slice())
    }

    pub(super) fn used(&self) -> MutexGuard<'_, u64> {
        self.used.lock()
    }
}

/// What one stream holds of the memory.
#[derive(Debug)]
struct Account {
    memory: Arc<PartMemory>,
    /// Its mutex is taken within that of the memory, never the other way.
    held: Mutex<Held>,
    /// Nobody takes what is written any more.
    is_over: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Held {
    parts: usize,
    /// Whether one of them has the stream's own part.
    has_own: bool,
}

/// A part that is being filled, or is full. When it is dropped its memory is free again.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
    /// Bytes of the common memory that it takes.
    share: u64,
    /// Whether it has the stream's own part.
    is_own: bool,
    account: Arc<Account>,
}

impl Buffer {
    /// What is not filled yet.
    pub(super) fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// So many bytes more are filled.
    pub(super) fn advance(&mut self, length: usize) {
        self.filled = (self.filled + length).min(self.bytes.len());
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = &self.account.memory;
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.len() as u64 == memory.own {
            memory.spare.lock().push(bytes);
        }
        let mut used = memory.used();
        let mut held = self.account.held.lock();
        *used -= self.share;
        held.parts -= 1;
        held.has_own &= !self.is_own;
        drop(held);
        memory.freed.notify_all();
    }
}

/// One stream's place in the memory.
#[derive(Debug)]
pub struct Room {
    /// An empty file: it stands for the stream where a file is asked for.
    file: Arc<File>,
    account: Arc<Account>,
    /// Those that are full and were not left, by their offsets.
    parts: Mutex<BTreeMap<u64, Bytes>>,
}

impl Room {
    /// What stands for the stream where a file is asked for.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Takes memory for a part. Blocks until there is some; `starved` is called each time that there is none.
    pub(super) fn take(&self, part: Part, starved: impl Fn()) -> io::Result<Buffer> {
        let (account, memory) = (&self.account, &self.account.memory);
        let mut used = memory.used();
        loop {
            if account.is_over.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "what is written is not wanted any more"));
            }
            let mut held = account.held.lock();
            let is_own = !held.has_own;
            let share = if is_own { part.length.saturating_sub(memory.own) } else { part.length };
            if held.parts == 0 || used.saturating_add(share) <= memory.common {
                // A buffer that fails here gives nothing back.
                let bytes = memory.bytes(part.length)?;
                *used += share;
                held.parts += 1;
                held.has_own |= is_own;
                return Ok(Buffer { bytes, filled: 0, share, is_own, account: Arc::clone(account) });
            }
            drop(held);
            starved();
            memory.freed.wait(&mut used);
        }
    }

    /// A part is full, or all of it that there is.
    pub(super) fn keep(&self, part: Part, buffer: Buffer) {
        self.parts.lock().insert(part.offset, Bytes::from_owner(buffer));
    }

    /// The bytes of a part that is kept.
    pub(in crate::object_writer) fn part(&self, offset: u64) -> Option<Bytes> {
        self.parts.lock().get(&offset).cloned()
    }

    /// A part is not needed any more: its memory is free when nobody has its bytes.
    pub(in crate::object_writer) fn leave(&self, part: Part) {
        let left = self.parts.lock().remove(&part.offset);
        drop(left);
    }

    /// How many parts are held.
    pub(super) fn held(&self) -> usize {
        self.account.held.lock().parts
    }

    /// Whoever writes is told at its next byte that nobody takes it any more.
    pub(super) fn close(&self) {
        let _used = self.account.memory.used();
        self.account.is_over.store(true, Ordering::Relaxed);
        self.account.memory.freed.notify_all();
    }
}
