//! A stream becomes one object: its size is known when it ends, and nobody can read it a second time.
//!
//! What is written to the [`Sink`] stays in memory until the store has it, part by part; the parts are sent as they fill,
//! and sent again where that is needed. The object comes into being when [`ObjectWriter::complete`] is called and not
//! before: the end of a stream does not say that it is whole. What fits into one part is one PUT, at that very moment.
//!
//! A stream that broke off, or whose upload the store lost, can only be begun anew by whoever makes it.

mod memory;
mod sink;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures_util::stream;
use tokio::sync::mpsc::UnboundedReceiver;

pub use self::memory::{PartMemory, Room};
use self::sink::Told;
pub use self::sink::{Broken, Sink};
use super::{Begun, ContentMd5, ObjectWriter, Passage, Source, Stretch, Trouble};
use crate::dump_dir::identity_of;
use crate::model::manifest::ObjectRecord;
use crate::model::part_plan::{Part, PartPlan};
use crate::model::part_sizes::PartSizes;
use crate::model::user_metadata::UserMetadata;
use crate::page_cache::Footprint;
use crate::s3::Condition;

/// The other end of a [`Sink`]. Dropped, it refuses what is still written.
#[derive(Debug)]
pub struct Incoming {
    told: UnboundedReceiver<Told>,
    room: Arc<Room>,
    sizes: PartSizes,
    /// So many parts are held back to be hashed together.
    batch: usize,
    /// Parts that are full and were not given out yet.
    ready: VecDeque<Part>,
    /// So many of them may be given out now.
    due: usize,
    /// Where the parts end that are ready or were given out.
    parts_end: u64,
    /// How many bytes it has, once that is known.
    size: Option<u64>,
    /// How often there was no memory for its next part. For tests.
    starved: u32,
}

/// A stream all of which is here or in the store, and of which no object is made yet.
#[derive(Debug)]
pub struct Pending {
    key: String,
    metadata: UserMetadata,
    source: Source,
    plan: PartPlan,
    /// Its upload, where it takes more than one part.
    begun: Option<Begun>,
}

impl Pending {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.plan.size()
    }
}

impl ObjectWriter {
    /// Opens a stream, once there is room for one more. The sink is for a thread that may wait.
    pub async fn open_stream(&self, memory: &Arc<PartMemory>) -> io::Result<(Sink, Incoming)> {
        Ok(Incoming::open(memory.room().await?, self.cut.growing(), memory.batch()))
    }

    /// Sends the parts of a stream as they come, to its end. `metadata` goes with the object. Where it fails nothing of it
    /// is left in the store, unless that is out of reach.
    pub async fn receive(&self, key: &str, metadata: UserMetadata, mut incoming: Incoming) -> Result<Pending, Trouble> {
        let source = self.source_in_memory(&incoming.room)?;
        let mut begun = None;
        if let Some(first) = incoming.next().await {
            let sizes = incoming.sizes;
            let stretch = Stretch { key, source: &source, metadata: &metadata, sizes };
            let rest = stream::unfold(&mut incoming, async |incoming| Some((incoming.next().await?, incoming)));
            let parts = futures_util::StreamExt::chain(stream::iter([first]), rest);
            self.advance(&stretch, &mut begun, parts).await?;
        }
        let broken_off = || Trouble::Local("its stream broke off before its end".to_owned());
        let ended = incoming.size.ok_or_else(broken_off).and_then(|size| {
            // It has no whole parts, or the sink would have refused what does not fit.
            let plan = PartPlan::of_object(size, incoming.sizes).ok_or_else(broken_off)?;
            let identity = identity_of(source.file())?;
            Ok((plan, identity))
        });
        match (ended, begun) {
            (Ok((plan, identity)), begun) => {
                let (key, source) = (key.to_owned(), source.ended(identity));
                Ok(Pending { key, metadata, source, plan, begun })
            }
            (Err(trouble), begun) => {
                if let Some(begun) = begun {
                    self.give_up(begun, &trouble).await;
                }
                Err(trouble)
            }
        }
    }

    /// Makes the object of a stream that is known to be whole, and proves it.
    pub async fn complete(&self, pending: Pending) -> Result<ObjectRecord, Trouble> {
        let Pending { key, metadata, source, plan, begun } = pending;
        let (condition, content_md5) = (Condition::None, ContentMd5::AskClaim);
        let passage = Passage { key: &key, source: &source, metadata, plan, condition, expected: None, content_md5 };
        match begun {
            Some(begun) => self.end_parts(&passage, begun).await,
            None => self.put(&passage, None).await,
        }
    }

    /// Gives a stream up that is not whole: no object comes of it.
    pub async fn abandon(&self, pending: Pending) {
        if let Some(begun) = pending.begun {
            self.abort(begun.as_open()).await;
        }
    }

    fn source_in_memory(&self, room: &Arc<Room>) -> io::Result<Source> {
        let file = Arc::clone(room.file());
        let identity = identity_of(&file)?;
        let source = self.source(Footprint::begin(file, 0), identity, None).growing();
        Ok(Source { room: Some(Arc::clone(room)), ..source })
    }
}

impl Incoming {
    fn open(room: Arc<Room>, sizes: PartSizes, batch: usize) -> (Sink, Self) {
        let (sink, told) = Sink::new(Arc::clone(&room), sizes);
        let (ready, due, parts_end, size, starved) = (VecDeque::new(), 0, 0, None, 0);
        (sink, Self { told, room, sizes, batch, ready, due, parts_end, size, starved })
    }

    /// The next part that is to be sent; `None` at the end, and where the stream broke off. Of a stream that fits into one
    /// part there is none.
    ///
    /// Parts come several at a time: to hash them side by side costs little more than to hash one. They come sooner where
    /// nothing of the stream is on its way, and there is no memory for more of it.
    async fn next(&mut self) -> Option<Part> {
        loop {
            if self.due > 0 {
                self.due -= 1;
                return self.ready.pop_front();
            }
            if self.size.is_some() {
                return None;
            }
            match self.told.recv().await? {
                Told::Part(part) => {
                    self.hold(part);
                    if self.ready.len() >= self.batch {
                        self.due = self.ready.len();
                    }
                }
                Told::Starved => {
                    self.starved += 1;
                    if self.room.held() <= self.ready.len() {
                        self.due = self.ready.len();
                    }
                }
                Told::End(size) => self.end(size),
            }
        }
    }

    fn hold(&mut self, part: Part) {
        self.parts_end = part.offset + part.length;
        self.ready.push_back(part);
    }

    /// What is behind the last full part is a part as well, unless it is all that there is.
    fn end(&mut self, size: u64) {
        self.size = Some(size);
        if self.parts_end > 0
            && let Some(last) = PartPlan::of_object(size, self.sizes).and_then(|plan| plan.part(plan.count()))
        {
            self.hold(last);
        }
        self.due = self.ready.len();
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.room.close();
    }
}
