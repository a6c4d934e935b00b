//! An object's bytes, piece by piece and in order, each proved before it is given out; the next ones are fetched meanwhile.
//!
//! Where the hash of each part is known, each piece is a part, and is proved by itself. Where only that of the whole is, the
//! last piece is given out when the whole is proved: a reader that never gets it has no whole file.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};

use md5::{Digest, Md5};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::warn;

use super::memory::{Held, Memory};
use crate::fetch::{FetchError, Taker, fetch};
use crate::model::content_check::ContentCheck;
use crate::model::etag::{ETag, Md5Digest};
use crate::model::manifest::ContentHash;
use crate::model::part_plan::{MIB, PARTS_MAX, Part, PartPlan};
use crate::model::part_sizes::PartSizes;
use crate::model::row_count::FileRows;
use crate::object_hash::KnownHash;
use crate::s3::{ObjectRef, Store, StoreError};

/// How often a piece that is not right is fetched again: over http a byte may change on its way.
const TRIES: u32 = 3;
/// Bytes of a piece where the object has no parts that could be proved alone.
const PIECE: u64 = 16 * MIB;
/// Pieces of one object that are fetched ahead, at most.
const AHEAD_MAX: usize = 8;

/// What all objects share.
#[derive(Debug)]
pub struct Supply {
    /// The bucket.
    pub store: Store,
    /// For pieces.
    pub memory: Arc<Memory>,
    /// Requests at a time.
    pub requests: Semaphore,
}

/// A piece that is proved as far as it can be by now.
#[derive(Debug)]
pub struct Piece {
    /// Its bytes.
    pub bytes: Vec<u8>,
    _held: Held,
}

/// Why a piece cannot be given out.
#[derive(Debug)]
pub enum NoPiece {
    /// The store did not give it.
    Store(StoreError),
    /// The bytes in the bucket are not those that were uploaded.
    Different,
    /// They have another hash than the object's ETag, which may be none of theirs: whether they differ is not known.
    Unknown,
    /// Nothing here failed but memory or a thread.
    Local(io::Error),
}

/// What is compared, and when.
#[derive(Debug)]
enum Check {
    /// Each part, by itself.
    Parts(Vec<Md5Digest>),
    /// The ETag of all parts, before the last is given out.
    Composite(Vec<Md5Digest>, ETag),
    /// The MD5 of all bytes, before the last are given out.
    Whole(Md5, Md5Digest),
    /// Nothing: that was allowed.
    Nothing,
}

/// The pieces of one object.
pub struct Pieces {
    supply: Arc<Supply>,
    object: Arc<ObjectRef>,
    plan: PartPlan,
    check: Check,
    /// Whether another hash means other bytes.
    is_certain: bool,
    /// The number of the piece that is fetched next, and of the one that is given out next.
    fetched: u32,
    given: u32,
    coming: VecDeque<Coming>,
    /// The next one, where it is in hand already.
    in_hand: Option<Option<Piece>>,
    /// Counts the rows that pass, where that is wished.
    count: Option<(ContentCheck, RowsOfFile)>,
}

/// The rows of a file, once its last piece was given out; `None` in it where they cannot be told.
pub type RowsOfFile = Arc<OnceLock<Option<FileRows>>>;

/// A piece on its way. Dropped, it is not fetched any more.
struct Coming(JoinHandle<Result<(Piece, Md5Digest), NoPiece>>);

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pieces {
    /// Of that object, by what is known of its hash; `None` where nothing is, so that it cannot be proved.
    pub fn of(supply: &Arc<Supply>, object: ObjectRef, known: &KnownHash, unproved: bool) -> Option<Self> {
        let size = object.size;
        let in_pieces = || PartPlan::of_object(size, PartSizes::equal(PIECE.max(size.div_ceil(PARTS_MAX.into()))));
        let (plan, check) = match &known.hash {
            _ if unproved && !known.is_certain => (in_pieces(), Check::Nothing),
            ContentHash::Parts { sizes, part_md5s } if !part_md5s.is_empty() => {
                (PartPlan::of_object(size, *sizes), Check::Parts(part_md5s.clone()))
            }
            ContentHash::Parts { sizes, .. } if known.etag.is_some() => {
                (PartPlan::of_object(size, *sizes), Check::Composite(Vec::new(), known.etag.clone()?))
            }
            ContentHash::Whole { md5 } if size <= PIECE => (in_pieces(), Check::Parts(vec![*md5])),
            ContentHash::Whole { md5 } => (in_pieces(), Check::Whole(Md5::new(), *md5)),
            _ => return None,
        };
        let (supply, object) = (Arc::clone(supply), Arc::new(object));
        let is_certain = known.is_certain;
        Some(Self {
            supply,
            object,
            plan: plan?,
            check,
            is_certain,
            fetched: 1,
            given: 1,
            coming: VecDeque::new(),
            in_hand: None,
            count: None,
        })
    }

    /// How many bytes they are together.
    pub fn size(&self) -> u64 {
        self.object.size
    }

    /// Whether they can be fetched long before they are needed, and leave room to others.
    pub fn leave_room(&self) -> bool {
        self.supply.memory.leaves_half(self.object.size)
    }

    /// From now on rows are counted. `name` is the file's.
    pub fn count_rows(&mut self, name: &str) -> RowsOfFile {
        let rows = RowsOfFile::default();
        match ContentCheck::of(name) {
            Some(check) => self.count = Some((check, Arc::clone(&rows))),
            None => drop(rows.set(None)),
        }
        rows
    }

    /// Begins to fetch what will be needed, as far as there is room.
    pub fn fetch_ahead(&mut self) {
        while self.coming.len() < AHEAD_MAX
            && let Some(part) = self.plan.part(self.fetched)
        {
            // The one that is needed next never waits.
            let held = match self.coming.is_empty() {
                true => Some(self.supply.memory.take(part.length)),
                false => self.supply.memory.take_ahead(part.length),
            };
            let Some(held) = held else { return };
            let expected = match &self.check {
                Check::Parts(md5s) => md5s.get(part.number as usize - 1).copied(),
                _ => None,
            };
            let piece = piece(Arc::clone(&self.supply), Arc::clone(&self.object), part, expected, held);
            self.coming.push_back(Coming(tokio::task::spawn_local(piece)));
            self.fetched += 1;
        }
    }

    /// Waits until the next piece is in hand.
    pub async fn prime(&mut self) -> Result<(), NoPiece> {
        if self.in_hand.is_none() {
            self.in_hand = Some(self.next().await?);
        }
        Ok(())
    }

    /// The next piece; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<Piece>, NoPiece> {
        if let Some(in_hand) = self.in_hand.take() {
            return Ok(in_hand);
        }
        self.fetch_next().await.map_err(|error| match error {
            NoPiece::Different if !self.is_certain => NoPiece::Unknown,
            error => error,
        })
    }

    async fn fetch_next(&mut self) -> Result<Option<Piece>, NoPiece> {
        self.fetch_ahead();
        let Some(mut coming) = self.coming.pop_front() else { return Ok(None) };
        let (mut piece, md5) = (&mut coming.0).await.map_err(|error| NoPiece::Local(io::Error::other(error)))??;
        self.fetch_ahead();
        let is_last = self.given == self.plan.count();
        self.given += 1;
        let is_right = match &mut self.check {
            Check::Parts(md5s) => md5s.len() == self.plan.count() as usize,
            Check::Composite(md5s, etag) => {
                md5s.push(md5);
                !is_last || ETag::of_parts(md5s) == *etag
            }
            Check::Whole(hasher, whole) => {
                let mut hash = std::mem::take(hasher);
                let hashed = tokio::task::spawn_blocking(move || {
                    hash.update(&piece.bytes);
                    (hash, piece)
                });
                (*hasher, piece) = hashed.await.map_err(|error| NoPiece::Local(io::Error::other(error)))?;
                !is_last || Md5Digest(hasher.clone().finalize().into()) == *whole
            }
            Check::Nothing => true,
        };
        if !is_right {
            return Err(NoPiece::Different);
        }
        let Some((mut check, rows)) = self.count.take() else { return Ok(Some(piece)) };
        // It decodes what is compressed, which takes its time.
        let counted = tokio::task::spawn_blocking(move || {
            check.update(&piece.bytes);
            (check, piece)
        });
        let (check, piece) = counted.await.map_err(|error| NoPiece::Local(io::Error::other(error)))?;
        if is_last {
            let _ = rows.set(check.finish().ok().and_then(|content| content.rows));
        } else {
            self.count = Some((check, rows));
        }
        Ok(Some(piece))
    }
}

/// Fetches one piece. Where its hash is known, a wrong one is fetched again.
async fn piece(
    supply: Arc<Supply>,
    object: Arc<ObjectRef>,
    part: Part,
    expected: Option<Md5Digest>,
    held: Held,
) -> Result<(Piece, Md5Digest), NoPiece> {
    let mut tries = 1;
    loop {
        let permit = supply.requests.acquire().await.map_err(|error| NoPiece::Local(io::Error::other(error)))?;
        let kept = Kept { bytes: Vec::with_capacity(part.length as usize), md5: Md5::new() };
        let range = part.offset..part.offset + part.length;
        let fetched = match part.length {
            0 => Ok(kept),
            _ => fetch(&supply.store, &object, range, kept, |_| ()).await,
        };
        drop(permit);
        let Kept { bytes, md5 } = fetched.map_err(|error| match error {
            FetchError::Store(error) => NoPiece::Store(error),
            FetchError::Local(error) => NoPiece::Local(error),
        })?;
        let md5 = Md5Digest(md5.finalize().into());
        if expected.is_none_or(|expected| expected == md5) {
            return Ok((Piece { bytes, _held: held }, md5));
        }
        if tries == TRIES {
            return Err(NoPiece::Different);
        }
        let uri = supply.store.uri(&object.key);
        warn!(part = part.number, "a part of {uri} is not right (will be fetched again)");
        tries += 1;
    }
}

/// Keeps what comes, and hashes it.
struct Kept {
    bytes: Vec<u8>,
    md5: Md5,
}

impl Taker for Kept {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.md5.update(bytes);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}
