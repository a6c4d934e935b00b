//! How many files have bytes on their way: the others in the queue are hashed, or wait for their turn.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Files that are being sent.
#[derive(Debug, Default)]
pub struct Sending(AtomicUsize);

impl Sending {
    /// How many it is now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One file more, as long as the result lives.
    pub fn begin(&self) -> impl Drop + '_ {
        self.0.fetch_add(1, Ordering::Relaxed);
        Begun(&self.0)
    }
}

struct Begun<'a>(&'a AtomicUsize);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
