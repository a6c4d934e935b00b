//! A thread that hashes: it reads a piece of each of its stretches, takes a step with all of them, and so on.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use md5_lanes::{BLOCK, Message};
use tokio::sync::oneshot;

use super::{Hashed, InHand, Shared};
use crate::model::etag::Md5Digest;
use crate::platform;

/// How much is read at a time, of each stretch: sixteen of them fit into a core's cache.
const PIECE: usize = 64 * 1024;
const _: () = assert!(PIECE.is_multiple_of(BLOCK), "only a stretch's end may be less than a block");

/// A stretch that is to be hashed.
#[derive(Debug)]
pub struct Job {
    /// The file.
    pub file: Arc<File>,
    /// Where what is left of the stretch starts.
    pub offset: u64,
    /// Bytes that are left.
    pub left: u64,
    /// Who waits for the digest.
    pub reply: oneshot::Sender<io::Result<Hashed>>,
}

struct Lane {
    job: Job,
    message: Message,
    piece: Vec<u8>,
    /// The disk has been asked for all of the stretch.
    is_fetched: bool,
}

/// Hashes until nothing is left to hash.
pub fn run(shared: &Arc<Shared>) {
    let mut lanes: Vec<Lane> = Vec::with_capacity(shared.lanes.width());
    while let Some(jobs) = shared.take(shared.lanes.width() - lanes.len()) {
        lanes.extend(jobs.into_iter().map(Lane::new));
        lanes = lanes.into_iter().filter_map(|lane| lane.read(shared)).collect();
        let mut steps: Vec<_> = lanes.iter_mut().map(|lane| (&mut lane.message, lane.piece.as_chunks().0)).collect();
        shared.lanes.update(&mut steps);
        lanes = lanes.into_iter().filter_map(|lane| lane.finish(shared)).collect();
    }
}

impl Lane {
    fn new(job: Job) -> Self {
        Self { job, message: Message::default(), piece: Vec::new(), is_fetched: false }
    }

    /// Reads the next piece; `None` if that failed, or nobody waits for the digest any more.
    fn read(mut self, shared: &Shared) -> Option<Self> {
        if self.job.reply.is_closed() {
            shared.left_lane();
            return None;
        }
        let length = self.job.left.min(PIECE as u64);
        self.piece.resize(length as usize, 0);
        if let Err(error) = self.read_piece() {
            shared.left_lane();
            // Nobody may be waiting any more.
            let _ = self.job.reply.send(Err(error));
            return None;
        }
        self.job.offset += length;
        self.job.left -= length;
        Some(self)
    }

    /// A stretch that is not in the page cache is asked for as a whole, so that the disk reads it in one go although its
    /// pieces are hashed in turn with others'.
    fn read_piece(&mut self) -> io::Result<()> {
        let Job { file, offset, left, .. } = &self.job;
        let cached = if self.is_fetched { None } else { platform::read_cached(file, &mut self.piece, *offset) };
        let done = cached.unwrap_or(0);
        if cached.is_some() && done < self.piece.len() {
            platform::read_ahead(file, *offset, *left);
            self.is_fetched = true;
        }
        file.read_exact_at(&mut self.piece[done..], offset + done as u64)
    }

    /// Answers, if the stretch is at its end.
    fn finish(self, shared: &Arc<Shared>) -> Option<Self> {
        if self.job.left > 0 {
            return Some(self);
        }
        let md5 = Md5Digest(self.message.finish(self.piece.as_chunks::<BLOCK>().1));
        // In hand before it leaves its lane, so that it is always counted.
        let hashed = Hashed { md5, _in_hand: Some(InHand::new(shared)) };
        shared.left_lane();
        let _ = self.job.reply.send(Ok(hashed));
        None
    }
}

/// The MD5 of a short stretch, here and now; `None` if the disk would have to be waited for.
pub fn hash_now(file: &File, offset: u64, length: u64) -> io::Result<Option<Md5Digest>> {
    let mut bytes = vec![0; length as usize];
    match platform::read_cached(file, &mut bytes, offset) {
        Some(cached) if cached < bytes.len() => return Ok(None),
        Some(_) => {}
        None => file.read_exact_at(&mut bytes, offset)?,
    }
    Ok(Some(Md5Digest(Message::default().finish(&bytes))))
}
