//! A stretch of a file as the body of a request: read in small pieces as the network takes them, and read anew when the
//! request is tried again. So memory does not depend on the size of files or parts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};

/// How much is read at a time: larger pieces cost more memory and no less CPU.
pub const PIECE: usize = 256 * 1024;

/// A stretch of an open file.
#[derive(Debug, Clone)]
pub struct FileRange {
    /// The file; held open, so that no other file under its name is ever sent.
    pub file: Arc<File>,
    /// Where the stretch starts, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// What it holds, where that is in memory: then it is not read, or not again.
    pub content: Option<Bytes>,
}

impl FileRange {
    /// A stretch that is in no memory of ours.
    pub fn of(file: &Arc<File>, offset: u64, length: u64) -> Self {
        Self { file: Arc::clone(file), offset, length, content: None }
    }

    /// The same, where its bytes are in memory.
    pub fn with(self, content: Option<Bytes>) -> Self {
        Self { content: content.or(self.content), ..self }
    }

    /// All of a few bytes of ours, in a file in memory of that name.
    pub fn in_memory(name: &str, bytes: &[u8]) -> io::Result<Self> {
        let mut file = crate::platform::memory_file(name)?;
        io::Write::write_all(&mut file, bytes)?;
        Ok(Self { file: file.into(), offset: 0, length: bytes.len() as u64, content: None })
    }
}

/// What all bodies to a store share.
#[derive(Debug)]
pub(super) struct Bodies {
    pub limiter: Option<Arc<RateLimiter>>,
    /// Pieces that are not in use: memory that comes from the system anew must be cleared by it first. There are never
    /// more than were on their way at once.
    spare: Mutex<Vec<Box<[u8]>>>,
    /// Bytes that the network took, those that were sent again among them.
    sent: AtomicU64,
}

impl Bodies {
    pub fn new(limiter: Option<Arc<RateLimiter>>) -> Self {
        Self { limiter, spare: Mutex::default(), sent: AtomicU64::new(0) }
    }

    /// Bytes that the network took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The body of a request. It has a known length, so no chunked encoding, which several stores refuse.
    pub fn stream(self: &Arc<Self>, range: FileRange, progress: Progress) -> ByteStream {
        let shared = Arc::clone(self);
        let body = SdkBody::retryable(move || {
            let (range, shared, progress) = (range.clone(), Arc::clone(&shared), progress.clone());
            SdkBody::from_body_1_x(FileBody { range, shared, progress, pause: None })
        });
        ByteStream::new(body)
    }

    /// Reads a piece of a file.
    fn read(self: &Arc<Self>, file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
        let spare = self.spare().pop();
        let mut bytes = spare.unwrap_or_else(|| vec![0; PIECE].into());
        let read = file.read_exact_at(&mut bytes[..length], offset);
        // Given back when the network has taken it, or now.
        let piece = Piece { bytes, length, home: Arc::clone(self) };
        read.map(|()| Bytes::from_owner(piece))
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        self.spare.lock()
    }
}

/// A piece of a file on its way.
struct Piece {
    bytes: Box<[u8]>,
    length: usize,
    home: Arc<Bodies>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.home.spare().push(std::mem::take(&mut self.bytes));
    }
}

/// How a request with a body gets on.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// When it began, or the network last took a piece of its body.
    moved: Instant,
    /// Why the file could not be read. The SDK tells such an error as one of the network.
    unreadable: Option<io::Error>,
}

impl Progress {
    /// A request that begins now.
    pub fn begin() -> Self {
        Self(Arc::new(Mutex::new(State { moved: Instant::now(), unreadable: None })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Why its body could not be read, if that is why it failed.
    pub fn unreadable(&self) -> Option<io::Error> {
        self.state().unreadable.take()
    }

    /// Waits until nothing has moved for `limit`.
    pub async fn stalled(&self, limit: Duration) {
        loop {
            let until = self.state().moved + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

struct FileBody {
    range: FileRange,
    shared: Arc<Bodies>,
    progress: Progress,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    /// Reads on the network's own thread: the bytes were hashed a moment ago, so they come from the page cache.
    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.range.length == 0 {
            return Poll::Ready(None);
        }
        let length = self.range.length.min(PIECE as u64) as usize;
        // A piece is paid for before it goes, so that the last one is, too.
        if self.pause.is_none()
            && let Some(wait) =
                self.shared.limiter.as_ref().and_then(|limiter| limiter.take(length as u64, Instant::now()))
        {
            self.pause = Some(Box::pin(tokio::time::sleep(wait)));
        }
        if let Some(pause) = self.pause.as_mut() {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        self.progress.state().moved = Instant::now();
        let piece = match &mut self.range.content {
            Some(content) => Ok(content.split_to(length)),
            None => self.shared.read(&self.range.file, self.range.offset, length),
        };
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                let told = io::Error::new(error.kind(), "the file cannot be read");
                self.progress.state().unreadable = Some(error);
                return Poll::Ready(Some(Err(told)));
            }
        };
        self.shared.sent.fetch_add(length as u64, Ordering::Relaxed);
        self.range.offset += length as u64;
        self.range.length -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.range.length == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.range.length)
    }
}

/// `--limit-rate`: all requests together send no more than so many bytes a second.
#[derive(Debug)]
pub struct RateLimiter {
    bytes_per_second: u64,
    /// When all that was sent so far is paid for.
    paid: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// A limit for all bodies that share it.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid: Mutex::new(None) }
    }

    /// Takes `bytes` and says how long to wait before the next are taken.
    fn take(&self, bytes: u64, now: Instant) -> Option<Duration> {
        let mut paid = self.paid.lock();
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let until = paid.filter(|paid| *paid > now).unwrap_or(now) + cost;
        *paid = Some(until);
        Some(until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// The limit in bytes a second.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limiter_spreads_bytes_over_time() {
        let limiter = RateLimiter::new(1000);
        let now = Instant::now();
        assert_eq!(limiter.take(500, now), Some(Duration::from_millis(500)));
        assert_eq!(limiter.take(1000, now), Some(Duration::from_millis(1500)));
        let later = now + Duration::from_secs(9);
        assert_eq!(limiter.take(100, later), Some(Duration::from_millis(100)));
    }
}
