//! A thread that hashes: it reads a piece of each of its stretches, takes a step with all of them, and so on.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use md5_lanes::{BLOCK, Message};
use tokio::sync::oneshot;

use super::{Hashed, InHand, Shared};
use crate::model::etag::Md5Digest;
use crate::platform;

/// How much is read at a time, of each stretch: sixteen of them fit into a core's cache.
const PIECE: usize = 64 * 1024;
/// How much of a stretch the disk is asked for at a time.
const WINDOW: u64 = 16 * 1024 * 1024;
const _: () = assert!(PIECE.is_multiple_of(BLOCK), "only a stretch's end may be less than a block");

/// A stretch that is to be hashed.
#[derive(Debug)]
pub struct Job {
    /// The file.
    pub file: Arc<File>,
    /// All of the stretch, where that is in memory.
    pub content: Option<Bytes>,
    /// Where what is left of the stretch starts.
    pub offset: u64,
    /// Bytes that are left.
    pub left: u64,
    /// Bytes of all of it.
    pub length: u64,
    /// Who waits for the digest.
    pub reply: oneshot::Sender<io::Result<Hashed>>,
}

struct Lane {
    job: Job,
    message: Message,
    piece: Vec<u8>,
    /// Bytes of the last piece.
    last: usize,
    /// Up to here the disk has been asked for it.
    fetched_to: u64,
}

/// Hashes until nothing is left to hash.
pub fn run(shared: &Arc<Shared>) {
    let mut engine = Engine { shared, lanes: Vec::with_capacity(shared.lanes.width()), has_ended: false };
    while let Some(jobs) = shared.take(shared.lanes.width() - engine.lanes.len()) {
        engine.lanes.extend(jobs.into_iter().map(Lane::new));
        engine.step();
    }
    engine.has_ended = true;
}

struct Engine<'a> {
    shared: &'a Arc<Shared>,
    lanes: Vec<Lane>,
    /// It was counted out of the queue when it was found to have nothing left to do.
    has_ended: bool,
}

impl Engine<'_> {
    /// A piece of each stretch.
    fn step(&mut self) {
        let Self { shared, lanes, .. } = self;
        let mut at = 0;
        while at < lanes.len() {
            match lanes[at].read() {
                Ok(true) => at += 1,
                Ok(false) => lanes.swap_remove(at).leave(shared, None),
                Err(error) => lanes.swap_remove(at).leave(shared, Some(error)),
            }
        }
        let mut steps: Vec<_> = lanes.iter_mut().map(Lane::step).collect();
        shared.lanes.update(&mut steps);
        let mut at = 0;
        while at < lanes.len() {
            if lanes[at].job.left > 0 {
                at += 1;
            } else {
                lanes.swap_remove(at).finish(shared);
            }
        }
    }
}

/// An engine that dies must not be waited for.
impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let lanes = std::mem::take(&mut self.lanes);
            self.shared.engine_died(lanes.len(), lanes.iter().map(|lane| lane.job.length).sum());
        }
    }
}

impl Lane {
    fn new(job: Job) -> Self {
        Self { job, message: Message::default(), piece: Vec::new(), last: 0, fetched_to: 0 }
    }

    /// Reads the next piece; false if nobody waits for the digest any more.
    fn read(&mut self) -> io::Result<bool> {
        if self.job.reply.is_closed() {
            return Ok(false);
        }
        let length = self.job.left.min(PIECE as u64);
        self.last = length as usize;
        if self.job.content.is_none() {
            self.piece.resize(length as usize, 0);
            self.read_piece()?;
        }
        self.job.offset += length;
        self.job.left -= length;
        Ok(true)
    }

    /// The last piece.
    fn last(&self) -> &[u8] {
        last(&self.job, &self.piece, self.last)
    }

    /// What the next step takes: all but an end that is no whole block.
    fn step(&mut self) -> (&mut Message, &[[u8; BLOCK]]) {
        (&mut self.message, last(&self.job, &self.piece, self.last).as_chunks().0)
    }

    /// What is not in the page cache is asked for in large windows, so that the disk reads each in one go although the
    /// pieces are hashed in turn with others'.
    fn read_piece(&mut self) -> io::Result<()> {
        let Job { file, offset, left, .. } = &self.job;
        let is_asked_for = *offset < self.fetched_to;
        let cached = if is_asked_for { None } else { platform::read_cached(file, &mut self.piece, *offset) };
        let done = cached.unwrap_or(0);
        if cached.is_some() && done < self.piece.len() {
            let window = WINDOW.min(*left);
            platform::read_ahead(file, *offset, window);
            self.fetched_to = offset + window;
        }
        file.read_exact_at(&mut self.piece[done..], offset + done as u64)
    }

    /// Leaves without a digest.
    fn leave(self, shared: &Shared, error: Option<io::Error>) {
        shared.left_lane(self.job.length, false);
        if let Some(error) = error {
            // Nobody may be waiting any more.
            let _ = self.job.reply.send(Err(error));
        }
    }

    /// Answers with the digest, now that the stretch is at its end.
    fn finish(self, shared: &Arc<Shared>) {
        let rest = self.last().as_chunks::<BLOCK>().1.to_vec();
        let Job { length, reply, .. } = self.job;
        let md5 = Md5Digest(self.message.finish(&rest));
        shared.left_lane(length, true);
        let in_hand = InHand { shared: Arc::clone(shared), length };
        let _ = reply.send(Ok(Hashed { md5, content: None, _in_hand: Some(in_hand) }));
    }
}

/// The piece that was taken last, in memory or as it was read.
fn last<'a>(job: &'a Job, piece: &'a [u8], length: usize) -> &'a [u8] {
    match &job.content {
        None => piece,
        Some(content) => {
            let end = content.len() - job.left as usize;
            &content[end - length..end]
        }
    }
}

/// The MD5 of a stretch without company.
pub fn hash_alone(file: &File, offset: u64, length: u64) -> io::Result<Md5Digest> {
    let (mut message, mut piece) = (Message::default(), vec![0; PIECE]);
    let mut left = length;
    while left > PIECE as u64 {
        file.read_exact_at(&mut piece, offset + length - left)?;
        md5_lanes::Lanes::best().update(&mut [(&mut message, piece.as_chunks().0)]);
        left -= PIECE as u64;
    }
    let rest = &mut piece[..left as usize];
    file.read_exact_at(rest, offset + length - left)?;
    Ok(Md5Digest(message.finish(rest)))
}

/// The MD5 of a short stretch, and its bytes. Blocks.
pub fn hash_short(file: &File, offset: u64, length: u64) -> io::Result<(Md5Digest, Bytes)> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok((Md5Digest(Message::default().finish(&bytes)), bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hasher::Hasher;

    /// What an engine that panicked had in its lanes is told to those who wait, and hashing goes on.
    #[tokio::test]
    async fn an_engine_that_dies_is_not_waited_for() {
        let Hasher(shared) = Hasher::new(1);
        let file = Arc::new(crate::platform::memory_file("test").expect("a file"));
        let (reply, hashed) = oneshot::channel();
        {
            let mut queue = shared.queue();
            (queue.engines, queue.in_lanes, queue.ahead) = (1, 1, 100_000);
        }
        let job = Job { file: Arc::clone(&file), content: None, offset: 0, left: 100_000, length: 100_000, reply };
        drop(Engine { shared: &shared, lanes: vec![Lane::new(job)], has_ended: false });
        hashed.await.expect_err("nobody hashes it");
        let queue = shared.queue();
        assert_eq!((queue.engines, queue.in_lanes, queue.ahead), (0, 0, 0));
    }
}
