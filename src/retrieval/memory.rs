//! How much of a dump may lie in memory on its way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A limit on bytes. What is needed at once is always given, so that nobody waits for memory that others hold; what is
/// fetched ahead is given only below the limit.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    held: AtomicU64,
}

/// Bytes that are held; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Memory {
    /// A limit of so many bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicU64::new(0) })
    }

    /// For what is needed now.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Held {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Held { memory: Arc::clone(self), bytes }
    }

    /// Whether half of the limit stays for others, if so many bytes more are held.
    pub fn leaves_half(&self, bytes: u64) -> bool {
        self.held.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit / 2
    }

    /// For what will be needed, if there is room.
    pub fn take_ahead(self: &Arc<Self>, bytes: u64) -> Option<Held> {
        let fits = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.is_ok().then(|| Held { memory: Arc::clone(self), bytes })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_what_others_hold_and_nothing_is_fetched_ahead_beyond_the_limit() {
        let memory = Memory::new(10);
        let ahead = memory.take_ahead(6).expect("there is room");
        assert!(memory.take_ahead(5).is_none());
        assert!(!memory.leaves_half(0) && Memory::new(10).leaves_half(5) && !Memory::new(10).leaves_half(6));
        let needed = memory.take(16);
        assert!(memory.take_ahead(0).is_none(), "above the limit nothing is fetched ahead");
        drop(needed);
        assert!(memory.take_ahead(4).is_some());
        drop(ahead);
        assert!(memory.take_ahead(10).is_some());
    }
}
