//! MD5 of stretches of files: most of the CPU that an upload takes, so it is done for many of them side by side.
//!
//! Stretches wait in a queue until somebody who could send has nothing that is hashed; then an engine takes as many as it
//! has lanes. So a file's parts, and files, are hashed a dozen at a time, and never further ahead of their sending than
//! that: what was read to be hashed is still in the page cache when it is read to be sent.
//!
//! Whoever holds a digest must be able to get on without the queue, or all wait for each other: see
//! [`Hasher::hash_again`].

mod engine;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use md5_lanes::{Implementation, Lanes};
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::warn;

use self::engine::Job;
pub use self::engine::hash_short;
use crate::aside::aside;
use crate::model::etag::Md5Digest;
use crate::model::manifest::ContentHash;
use crate::model::part_plan::{CutInto, PartPlan};
use crate::page_cache::Footprint;
use crate::s3::FileRange;

/// Stretches up to this size are hashed past the queue, and kept in memory until they are sent.
pub const SHORT_MAX: u64 = 64 * 1024;
/// What may be hashed ahead of its sending, in bytes, beside one stretch for each sender: more would not stay in the page
/// cache until it is sent.
const AHEAD_MAX: u64 = 512 * 1024 * 1024;
/// Names an implementation of MD5 instead of the fastest: for measurements, and for a processor that lies.
const VARIABLE: &str = "MYDUMPER2S3_MD5";

/// Hashes for all who share it.
#[derive(Debug, Clone)]
pub struct Hasher(Arc<Shared>);

/// Who goes first: a file that began earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn(u64);

/// A digest. As long as it is held, its bytes count as hashed and not sent.
#[derive(Debug)]
pub struct Hashed {
    /// The MD5 of the stretch.
    pub md5: Md5Digest,
    /// The stretch itself, where it is short.
    pub content: Option<Bytes>,
    _in_hand: Option<InHand>,
}

impl Hashed {
    /// Of a stretch of up to [`SHORT_MAX`] bytes, by [`hash_short`].
    pub fn short(md5: Md5Digest, content: Bytes) -> Self {
        Self { md5, content: Some(content), _in_hand: None }
    }
}

#[derive(Debug)]
struct Shared {
    lanes: Lanes,
    /// Stretches that are sent at a time.
    senders: usize,
    engines_max: usize,
    runtime: Handle,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<Place, Job>,
    turns: u64,
    numbers: u64,
    /// Engines that run.
    engines: usize,
    /// Stretches in their lanes.
    in_lanes: usize,
    /// Stretches that are hashed and not sent.
    in_hand: usize,
    /// The bytes of both.
    ahead: u64,
}

/// A place in the queue: first by turn, then by number.
type Place = (Turn, u64);

impl Hasher {
    /// For `senders` who send at a time. Must be called within a runtime: its threads for blocking work do the hashing.
    pub fn new(senders: usize) -> Self {
        Self::with(chosen_lanes(), senders)
    }

    fn with(lanes: Lanes, senders: usize) -> Self {
        // Sixteen lanes keep one core busy at the speed of any network. Where there are fewer, more cores must help.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let engines_max = cores.min(16 / lanes.width());
        Self(Arc::new(Shared { lanes, senders, engines_max, runtime: Handle::current(), queue: Mutex::default() }))
    }

    /// How many stretches can be hashed side by side.
    pub fn side_by_side(&self) -> usize {
        self.0.lanes.width() * self.0.engines_max
    }

    /// A turn behind all those that were taken before.
    pub fn turn(&self) -> Turn {
        let mut queue = self.0.queue();
        queue.turns += 1;
        Turn(queue.turns)
    }

    /// Hashes a stretch.
    pub async fn hash(&self, turn: Turn, range: &FileRange) -> io::Result<Hashed> {
        let FileRange { file, offset, length, content } = range.clone();
        if length <= SHORT_MAX {
            let short = move || match content {
                Some(content) => Ok((Md5Digest::of(&content), content)),
                None => hash_short(&file, offset, length),
            };
            let (md5, content) = aside(short).await?;
            return Ok(Hashed::short(md5, content));
        }
        if content.as_ref().is_some_and(|content| content.len() as u64 != length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (reply, hashed) = oneshot::channel();
        let job = Job { file, content, offset, left: length, length, reply };
        let _queued = Queued::enter(&self.0, turn, job);
        self.0.start_engine_if_due();
        hashed.await.map_err(|_| io::Error::other("the thread that hashes it has died"))?
    }

    /// Hashes a stretch once more, for somebody who was about to send it. Past the queue: it stands still until those
    /// get on who hold what is hashed, and they may wait for this one.
    pub async fn hash_again(&self, range: &FileRange) -> io::Result<Hashed> {
        let FileRange { file, offset, length, content } = range.clone();
        let again = move || match content {
            Some(content) => Ok(Md5Digest::of(&content)),
            None => engine::hash_alone(&file, offset, length),
        };
        let md5 = aside(again).await?;
        Ok(Hashed { md5, content: None, _in_hand: None })
    }

    /// Hashes a whole file as an object is that was uploaded so; it is not going to be sent.
    pub async fn hash_file(&self, source: &Footprint, cut: CutInto) -> io::Result<ContentHash> {
        let turn = self.turn();
        let CutInto::Parts(sizes) = cut else {
            let hashed = self.hash(turn, &FileRange::of(source.file(), 0, source.size())).await?;
            return Ok(ContentHash::Whole { md5: hashed.md5 });
        };
        let Some(plan) = PartPlan::of_object(source.size(), sizes) else {
            // A manifest may say anything, and each part's hash is kept.
            let why = format!("it was cut into parts of {} bytes, which no upload does", sizes.first());
            return Err(io::Error::other(why));
        };
        let hashes = futures_util::stream::iter(plan.parts()).map(async |part| {
            let hashed = self.hash(turn, &FileRange::of(source.file(), part.offset, part.length)).await?;
            source.leave(part.offset, part.length);
            io::Result::Ok(hashed.md5)
        });
        let part_md5s = hashes.buffered(self.side_by_side()).try_collect().await?;
        Ok(ContentHash::Parts { sizes, part_md5s })
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// An engine is started when a sender has nothing to send, and those that run are full.
    fn start_engine_if_due(self: &Arc<Self>) {
        {
            let mut queue = self.queue();
            let is_wanted = !queue.waiting.is_empty() && queue.in_hand <= self.senders;
            let are_full = queue.in_lanes >= queue.engines * self.lanes.width();
            if !is_wanted || !are_full || queue.engines == self.engines_max {
                return;
            }
            queue.engines += 1;
        }
        let shared = Arc::clone(self);
        self.runtime.spawn_blocking(move || engine::run(&shared));
    }

    /// Takes the next jobs for an engine's free lanes. `None`: its lanes are empty and stay so, and it ends.
    fn take(&self, free: usize) -> Option<Vec<Job>> {
        let mut queue = self.queue();
        let ahead_max = self.senders + self.lanes.width() * self.engines_max;
        let mut jobs = Vec::new();
        while jobs.len() < free
            && queue.in_hand + queue.in_lanes < ahead_max
            && (queue.ahead < AHEAD_MAX || queue.in_hand + queue.in_lanes < self.senders)
            && let Some((_, job)) = queue.waiting.pop_first()
        {
            queue.in_lanes += 1;
            queue.ahead += job.length;
            jobs.push(job);
        }
        if jobs.is_empty() && free == self.lanes.width() {
            queue.engines -= 1;
            return None;
        }
        Some(jobs)
    }

    /// A stretch has left its lane: hashed, and then it is in hand, or not.
    fn left_lane(&self, length: u64, is_hashed: bool) {
        let mut queue = self.queue();
        queue.in_lanes -= 1;
        if is_hashed {
            queue.in_hand += 1;
        } else {
            queue.ahead -= length;
        }
    }

    /// An engine has died with so many lanes, of so many bytes. Those who wait for them are told by their channels.
    fn engine_died(self: &Arc<Self>, lanes: usize, bytes: u64) {
        {
            let mut queue = self.queue();
            queue.engines -= 1;
            queue.in_lanes -= lanes;
            queue.ahead -= bytes;
        }
        self.start_engine_if_due();
    }
}

/// A job that waits in the queue; when nobody waits for it any more it is taken out.
struct Queued {
    shared: Arc<Shared>,
    place: Place,
}

impl Queued {
    fn enter(shared: &Arc<Shared>, turn: Turn, job: Job) -> Self {
        let mut queue = shared.queue();
        queue.numbers += 1;
        let place = (turn, queue.numbers);
        queue.waiting.insert(place, job);
        Self { shared: Arc::clone(shared), place }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.shared.queue().waiting.remove(&self.place);
    }
}

/// Counts a digest as in hand as long as it lives.
#[derive(Debug)]
struct InHand {
    shared: Arc<Shared>,
    length: u64,
}

impl Drop for InHand {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.queue();
            queue.in_hand -= 1;
            queue.ahead -= self.length;
        }
        self.shared.start_engine_if_due();
    }
}

fn chosen_lanes() -> Lanes {
    let Some(name) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
        return Lanes::best();
    };
    let chosen = Implementation::ALL.into_iter().find(|implementation| name == implementation.name());
    chosen.and_then(Lanes::new).unwrap_or_else(|| {
        let names = Implementation::ALL.map(Implementation::name).join(", ");
        warn!("{VARIABLE} names none of {names} that this processor has; the fastest is taken");
        Lanes::best()
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use futures_util::FutureExt;
    use md5::{Digest, Md5};

    use super::*;
    use crate::model::part_sizes::PartSizes;

    fn file(bytes: &[u8]) -> Arc<File> {
        let mut file = crate::platform::memory_file("test").expect("a file");
        file.write_all(bytes).expect("written");
        Arc::new(file)
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 + (at >> 8)) as u8).collect()
    }

    fn md5(bytes: &[u8]) -> Md5Digest {
        Md5Digest(Md5::digest(bytes).into())
    }

    fn hashers(senders: usize) -> Vec<Hasher> {
        Implementation::ALL.into_iter().filter_map(Lanes::new).map(|lanes| Hasher::with(lanes, senders)).collect()
    }

    #[tokio::test]
    async fn parts_of_any_number_and_size_are_hashed() {
        let bytes = bytes(3_000_017);
        let source = Footprint::begin(file(&bytes), 3_000_017);
        for hasher in hashers(4) {
            for part_size in [70_000, 131_072, 1_000_000, 3_000_017] {
                let sizes = PartSizes::equal(part_size as u64);
                let made = hasher.hash_file(&source, CutInto::Parts(sizes)).await.expect("hashed");
                let part_md5s: Vec<_> = bytes.chunks(part_size as usize).map(md5).collect();
                assert_eq!(made, ContentHash::Parts { sizes, part_md5s }, "{hasher:?}");
            }
            for length in [1, 65_536, 65_537, 131_072, 300_001] {
                let made = hasher.hash_again(&FileRange::of(source.file(), 5, length)).await.expect("hashed");
                assert_eq!(made.md5, md5(&bytes[5..5 + length as usize]), "{hasher:?}");
            }
            let made = hasher.hash_file(&source, CutInto::OnePut).await.expect("hashed");
            assert_eq!(made, ContentHash::Whole { md5: md5(&bytes) }, "{hasher:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_shorter_than_it_was_fails_alone() {
        let bytes = bytes(400_000);
        let of = |bytes: &[u8]| FileRange::of(&file(bytes), 0, 400_000);
        let (short, whole) = (of(&bytes[..300_000]), of(&bytes));
        for hasher in hashers(4) {
            let turn = hasher.turn();
            let (short, whole) = tokio::join!(hasher.hash(turn, &short), hasher.hash(turn, &whole));
            assert_eq!(short.expect_err("too short").kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(whole.expect("hashed").md5, md5(&bytes));
        }
    }

    /// Holds the engines back: as if more were hashed than can be sent.
    fn hold(hasher: &Hasher) {
        hasher.0.queue().in_hand += hasher.0.senders + 1;
    }

    /// Lets them go, all at once.
    fn release(hasher: &Hasher) {
        hasher.0.queue().in_hand -= hasher.0.senders + 1;
        hasher.0.start_engine_if_due();
    }

    fn counts(hasher: &Hasher) -> (usize, usize, u64) {
        let queue = hasher.0.queue();
        (queue.in_hand, queue.in_lanes, queue.ahead)
    }

    /// As many as can be hashed side by side are ahead of the senders, and no more; and earlier turns go first.
    #[tokio::test]
    async fn hashing_runs_ahead_of_sending_and_not_away() {
        let range = FileRange::of(&file(&bytes(100_000)), 0, 100_000);
        for hasher in hashers(2) {
            let ahead_max = 2 + hasher.side_by_side();
            let (early, late) = (hasher.turn(), hasher.turn());
            hold(&hasher);
            let hash = async |turn| (turn, hasher.hash(turn, &range).await.expect("hashed"));
            let turns = [[late, early, late]].into_iter().cycle().take(ahead_max).flatten();
            let mut hashes: futures_util::stream::FuturesUnordered<_> = turns.map(hash).collect();
            while hasher.0.queue().waiting.len() < 3 * ahead_max {
                assert!(hashes.next().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            release(&hasher);
            // Nothing is sent: all that may be ahead is, and then nothing moves.
            let mut in_hand = Vec::new();
            while in_hand.len() < ahead_max {
                let (turn, hashed) = hashes.next().await.expect("one more");
                assert_eq!(turn, early, "{hasher:?}");
                in_hand.push(hashed);
            }
            assert_eq!(counts(&hasher), (ahead_max, 0, 100_000 * ahead_max as u64), "{hasher:?}");
            // What is sent makes room.
            in_hand.clear();
            while let Some((turn, hashed)) = hashes.next().await {
                assert_eq!(turn, late, "{hasher:?}");
                let (hashed_now, in_lanes, _) = counts(&hasher);
                assert!(hashed_now + in_lanes <= ahead_max, "{hasher:?}");
                in_hand.push(hashed);
                if in_hand.len() > 2 {
                    in_hand.remove(0);
                }
            }
            drop(in_hand);
            assert_eq!(counts(&hasher), (0, 0, 0), "{hasher:?}");
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_hashed() {
        let range = FileRange::of(&file(&bytes(100_000)), 0, 100_000);
        for hasher in hashers(2) {
            hold(&hasher);
            let mut hash = Box::pin(hasher.hash(hasher.turn(), &range));
            assert!((&mut hash).now_or_never().is_none());
            assert_eq!(hasher.0.queue().waiting.len(), 1);
            drop(hash);
            assert_eq!(hasher.0.queue().waiting.len(), 0);
        }
    }
}
