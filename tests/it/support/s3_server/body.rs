//! Bodies on their way in and out: counted, slowed down, damaged, cut.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use s3s::{Body, StdError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::lock;
use super::log::Record;

/// One limit for all bytes of the server, in and out.
#[derive(Default)]
pub struct Pace(Mutex<PaceState>);

#[derive(Default)]
struct PaceState {
    bytes_per_second: Option<u64>,
    /// When the bytes that were let through so far have taken their time.
    free_at: Option<Instant>,
}

impl Pace {
    pub fn set(&self, bytes_per_second: Option<u64>) {
        *lock(&self.0) = PaceState { bytes_per_second, free_at: None };
    }

    pub async fn pass(&self, bytes: usize) {
        if let Some(until) = self.reserve(bytes) {
            sleep_until(until).await;
        }
    }

    fn reserve(&self, bytes: usize) -> Option<Instant> {
        let mut state = lock(&self.0);
        let rate = state.bytes_per_second?;
        let start = state.free_at.map_or_else(Instant::now, |free_at| free_at.max(Instant::now()));
        let end = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        state.free_at = Some(end);
        Some(end)
    }
}

type Chunk = Result<Bytes, io::Error>;

/// A body for `s3s`, and the end into which [`pump`] puts what comes over the wire.
pub fn channel(incoming: &Incoming) -> (mpsc::Sender<Chunk>, Body) {
    let (sender, receiver) = mpsc::channel::<Chunk>(1);
    if incoming.is_end_stream() {
        // `s3s` wants the length of a body that may not be empty.
        return (sender, Body::empty());
    }
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk.map(Frame::data), receiver))
    });
    (sender, Body::http_body_unsync(StreamBody::new(stream)))
}

/// Reads the whole body, also when nobody wants it any more: an answer that comes while the client still sends would
/// reach it as a broken connection, now and then. Returns the number of bytes.
pub async fn pump(mut incoming: Incoming, sender: mpsc::Sender<Chunk>, pace: &Pace, damage: bool) -> u64 {
    let mut position = 0;
    let damaged_at = damage.then(|| incoming.size_hint().lower() / 2);
    while let Some(frame) = incoming.frame().await {
        let chunk = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(_trailers)) => continue,
            Err(error) => Err(io::Error::other(error)),
        };
        let Ok(data) = chunk else {
            // The client went away. Whoever reads the body must not take this for its end.
            let _ = sender.send(chunk).await;
            break;
        };
        pace.pass(data.len()).await;
        let end = position + data.len() as u64;
        let data = match damaged_at {
            Some(at) if (position..end).contains(&at) => flipped(&data, (at - position) as usize),
            _ => data,
        };
        position = end;
        // Nobody wants it any more: see above.
        let _ = sender.send(Ok(data)).await;
    }
    position
}

fn flipped(data: &Bytes, index: usize) -> Bytes {
    let mut data = data.to_vec();
    data[index] = !data[index];
    data.into()
}

/// Reads half of the body that was announced.
pub async fn read_half(mut incoming: Incoming) -> u64 {
    let half = incoming.size_hint().lower() / 2;
    let mut position = 0;
    while position < half {
        match incoming.frame().await {
            Some(Ok(frame)) => position += frame.data_ref().map_or(0, Bytes::len) as u64,
            _ => break,
        }
    }
    position
}

pub async fn drain(incoming: Incoming, pace: &Pace) -> u64 {
    let (sender, _) = mpsc::channel(1);
    pump(incoming, sender, pace, false).await
}

/// What happens to the body of an answer in its middle.
#[derive(Clone, Copy, Debug)]
pub enum Middle {
    Damage,
    Cut,
    Hang,
}

/// `length` is what the answer announces, so the client notices a cut but not a damage.
pub fn with_fault(body: Body, length: u64, fault: Middle) -> Body {
    let faulty = Faulty { body, position: 0, middle: length / 2, fault, struck: false };
    streamed(futures_util::stream::unfold(faulty, |mut faulty| async {
        faulty.next_chunk().await.map(|chunk| (chunk, faulty))
    }))
}

struct Faulty {
    body: Body,
    position: u64,
    middle: u64,
    fault: Middle,
    struck: bool,
}

impl Faulty {
    async fn next_chunk(&mut self) -> Option<Result<Bytes, StdError>> {
        match self.fault {
            Middle::Cut if self.struck => return Some(Err("cut by the test".into())),
            Middle::Hang if self.struck => return std::future::pending().await,
            _ => {}
        }
        let chunk = self.body.next().await?;
        Some(chunk.map(|data| self.strike(data)))
    }

    fn strike(&mut self, data: Bytes) -> Bytes {
        let start = self.position;
        self.position += data.len() as u64;
        if !(start..self.position).contains(&self.middle) {
            return data;
        }
        self.struck = true;
        let index = (self.middle - start) as usize;
        match self.fault {
            Middle::Damage => flipped(&data, index),
            Middle::Cut | Middle::Hang => data.slice(..index),
        }
    }
}

/// The body of an answer at the server's pace. The request is in flight until the last byte of `length` is handed out:
/// the client may ask for the next thing as soon as it has that byte.
pub fn outgoing(body: Body, length: u64, pace: Arc<Pace>, record: Record) -> Body {
    let outgoing = Outgoing { body, remaining: length, pace, record: Some(record) };
    streamed(futures_util::stream::unfold(outgoing, |mut outgoing| async {
        outgoing.next_chunk().await.map(|chunk| (chunk, outgoing))
    }))
}

struct Outgoing {
    body: Body,
    remaining: u64,
    pace: Arc<Pace>,
    record: Option<Record>,
}

impl Outgoing {
    async fn next_chunk(&mut self) -> Option<Result<Bytes, StdError>> {
        let chunk = self.body.next().await?;
        let length = chunk.as_ref().map_or(0, Bytes::len);
        self.pace.pass(length).await;
        self.remaining = self.remaining.saturating_sub(length as u64);
        if self.remaining == 0 {
            self.record = None;
        }
        Some(chunk)
    }
}

fn streamed(stream: impl Stream<Item = Result<Bytes, StdError>> + Send + 'static) -> Body {
    Body::http_body_unsync(StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))))
}
