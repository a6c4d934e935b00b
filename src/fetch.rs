//! Objects on their way back: bytes come on the network's thread and are hashed, decoded or written on another.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::s3::{Interest, ObjectRef, Store, StoreError};

/// Stretches up to this size are taken where they come: a hand-over to another thread costs more.
const INLINE_MAX: u64 = 64 * 1024;
/// Pieces on their way to the other thread, each of at most some hundred KiB.
const PIECES_AHEAD: usize = 4;

/// Takes bytes in order.
pub trait Taker: Send + 'static {
    /// Takes the next bytes.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Why bytes did not arrive.
#[derive(Debug)]
pub enum FetchError {
    /// The store did not give them.
    Store(StoreError),
    /// They could not be taken here.
    Local(io::Error),
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        Self::Local(error)
    }
}

/// Streams a stretch of an object into `taker` and gives it back. `progress` gets the bytes that have come.
pub async fn fetch<T: Taker>(
    store: &Store,
    object: &ObjectRef,
    range: Range<u64>,
    mut taker: T,
    progress: impl Fn(u64),
) -> Result<T, FetchError> {
    if range.end - range.start <= INLINE_MAX {
        let mut taken = Ok(());
        let each = async |bytes: Bytes| {
            progress(bytes.len() as u64);
            taken = taker.take(&bytes);
            interest(taken.is_ok())
        };
        store.download(object, range, each).await?;
        taken?;
        return Ok(taker);
    }
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES_AHEAD);
    let thread = tokio::task::spawn_blocking(move || -> io::Result<T> {
        while let Some(bytes) = receiver.blocking_recv() {
            taker.take(&bytes)?;
        }
        Ok(taker)
    });
    let each = async |bytes: Bytes| {
        progress(bytes.len() as u64);
        // Fails where the thread has ended, which says why.
        interest(sender.send(bytes).await.is_ok())
    };
    let downloaded = store.download(object, range, each).await;
    drop(sender);
    let taker = thread.await.map_err(io::Error::other)??;
    downloaded?;
    Ok(taker)
}

fn interest(is_taken: bool) -> Interest {
    if is_taken { Interest::More } else { Interest::Lost }
}
