//! What may be sent, and how much of it at a time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Trouble;

/// Requests wait here for their turn.
#[derive(Debug)]
pub struct Gate {
    /// Requests at a time, whether of one file or of many.
    requests: Semaphore,
    /// How many of them there may be.
    width: usize,
    /// Whether any may be made: not before the claim can be believed.
    is_open: AtomicBool,
    /// Nothing more is begun.
    is_stopping: AtomicBool,
    /// Files that are being sent.
    sending: AtomicUsize,
}

impl Gate {
    /// For so many requests at a time, open or not yet.
    pub fn new(width: usize, is_open: bool) -> Self {
        Self {
            requests: Semaphore::new(if is_open { width } else { 0 }),
            width,
            is_open: AtomicBool::new(is_open),
            is_stopping: AtomicBool::new(false),
            sending: AtomicUsize::new(0),
        }
    }

    /// Requests at a time.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether anything may be sent.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// From now on requests may be made.
    pub fn open(&self) {
        if !self.is_open.swap(true, Ordering::Relaxed) {
            self.requests.add_permits(self.width);
        }
    }

    /// Begins nothing more: what has something in the store already goes on to its end.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// How many files have bytes on their way: the others in the queue are hashed, or wait for their turn.
    pub fn sending(&self) -> usize {
        self.sending.load(Ordering::Relaxed)
    }

    /// To make a request.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, Trouble> {
        self.requests.acquire().await.map_err(|error| Trouble::Local(error.to_string()))
    }

    /// One file more is sent, as long as the result lives, unless nothing more is to be begun.
    pub(super) fn begin(&self) -> Result<impl Drop + '_, Trouble> {
        if self.is_stopping.load(Ordering::Relaxed) {
            return Err(Trouble::Local("a stop was asked for before it was begun".to_owned()));
        }
        self.sending.fetch_add(1, Ordering::Relaxed);
        Ok(Begun(&self.sending))
    }
}

struct Begun<'a>(&'a AtomicUsize);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
