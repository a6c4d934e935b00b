//! One stream's life: rows that mydumper hands over, looked at, compressed, and made an object without a file.

mod flow;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::oneshot;

pub use self::flow::Treatment;
use self::flow::{Flowed, flow};
use crate::aside::aside;
use crate::dump_dir::DumpDir;
use crate::model::file_name::FileName;
use crate::model::state::{Local, Uploaded, may_be_taken_back};
use crate::model::user_metadata::{DUMP_ID, UserMetadata};
use crate::object_writer::{Incoming, ObjectWriter, PartMemory, Pending, Sink, Trouble};

/// What all streams of a dump share.
#[derive(Debug)]
pub struct Streams {
    /// Where their bytes stand until the store has them.
    memory: Arc<PartMemory>,
    treatment: Treatment,
    seen: Arc<Seen>,
}

/// How they get on.
#[derive(Debug, Default)]
struct Seen {
    /// Bytes of rows that came.
    taken: AtomicU64,
    /// How many wait for memory.
    waiting: AtomicUsize,
}

/// A stream that there is room for.
#[derive(Debug)]
pub struct Opened {
    sink: Sink,
    incoming: Incoming,
}

/// What became of a stream.
#[derive(Debug)]
pub enum Brought {
    /// Its object is proved.
    Object(Uploaded),
    /// It had no byte, and mydumper may take its file back.
    Empty,
}

/// Whether an object is made of no byte at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfNothing {
    /// An empty file of the format: its name stayed.
    Object,
    /// None, where mydumper may take the file back.
    Waits,
}

impl Streams {
    /// None yet.
    pub fn new(memory: Arc<PartMemory>, treatment: Treatment) -> Self {
        Self { memory, treatment, seen: Arc::default() }
    }

    /// Bytes of rows that came so far.
    pub fn taken(&self) -> u64 {
        self.seen.taken.load(Ordering::Relaxed)
    }

    /// How many streams wait for memory just now, those among them that there is no room for.
    pub fn waiting(&self) -> usize {
        self.seen.waiting.load(Ordering::Relaxed)
    }

    /// Makes room for one more, which may have to wait for another to end.
    pub async fn open(&self, writer: &ObjectWriter) -> io::Result<Opened> {
        let _waits = Waits::begin(&self.seen);
        let (sink, incoming) = writer.open_stream(&self.memory).await?;
        Ok(Opened { sink, incoming })
    }

    /// Takes rows to their end, and makes an object of them, proved. The end of a pipe does not say that the rows are whole:
    /// whether the dump is, mydumper's end tells.
    pub async fn bring(
        &self,
        writer: &ObjectWriter,
        directory: &Arc<DumpDir>,
        name: &FileName,
        rows: File,
        opened: Opened,
        of_nothing: OfNothing,
    ) -> Result<Brought, Trouble> {
        let key = writer.prefix.key(name).map_err(|error| Trouble::Local(error.to_string()))?;
        let even_empty = of_nothing == OfNothing::Object || !may_be_taken_back(name);
        let Opened { sink, incoming } = opened;
        let flowed = self.begin_flow(name, rows, even_empty, sink)?;
        let metadata: UserMetadata = HashMap::from([(DUMP_ID.to_owned(), writer.dump_id.clone())]);
        let received = Box::pin(writer.receive(&key, metadata, incoming)).await;
        let (pending, flowed) = ended(writer, received, flowed).await?;
        if flowed.bytes == 0 && !even_empty {
            writer.abandon(pending).await;
            return Ok(Brought::Empty);
        }
        let object = Box::pin(writer.complete(pending)).await?;
        let (there, of) = (Arc::clone(directory), name.clone());
        let local = match aside(move || there.identity(of.as_str())).await {
            Ok(identity) => Local::Kept(Box::new(identity)),
            // mydumper took it back. Whether it may have, its names tell in the end.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Local::Removed,
            Err(error) => return Err(Trouble::Local(format!("cannot look at its name: {error}"))),
        };
        let found = flowed.found;
        let object = crate::model::manifest::ObjectRecord { sha256: found.sha256, ..object };
        let broken = found.broken.map(String::into_boxed_str);
        Ok(Brought::Object(Uploaded { object, local, broken, rows: found.rows }))
    }

    /// Begins to read, on a thread of its own; the answer comes when all was read and is in memory or beyond.
    fn begin_flow(
        &self,
        name: &FileName,
        rows: File,
        even_empty: bool,
        sink: Sink,
    ) -> io::Result<oneshot::Receiver<io::Result<Flowed>>> {
        let (tell, told) = oneshot::channel();
        let (name, treatment, seen) = (name.clone(), self.treatment, Arc::clone(&self.seen));
        let work = move || {
            let sink = Watched { sink, seen: Arc::clone(&seen) };
            let flowed = flow(rows, &name, treatment, even_empty, &seen.taken, sink).map(|(flowed, watched)| {
                watched.sink.end();
                flowed
            });
            // Nobody waits for it any more: the run has ended.
            let _ = tell.send(flowed);
        };
        std::thread::Builder::new().name("rows".to_owned()).spawn(work)?;
        Ok(told)
    }
}

/// What a stream came to at both of its ends. Where both failed, the reader's reason is the cause.
async fn ended(
    writer: &ObjectWriter,
    received: Result<Pending, Trouble>,
    flowed: oneshot::Receiver<io::Result<Flowed>>,
) -> Result<(Pending, Flowed), Trouble> {
    let pending = match received {
        Err(trouble @ (Trouble::Store(_) | Trouble::Lost(_))) => return Err(trouble),
        received => received,
    };
    let flowed = match flowed.await {
        Ok(flowed) => flowed.map_err(|error| Trouble::Local(format!("cannot take its rows: {error}"))),
        Err(_) => Err(Trouble::Local("the thread that takes its rows has died".to_owned())),
    };
    match (pending, flowed) {
        (Ok(pending), Ok(flowed)) => Ok((pending, flowed)),
        (Ok(pending), Err(trouble)) => {
            writer.abandon(pending).await;
            Err(trouble)
        }
        (Err(_), Err(trouble)) | (Err(trouble), Ok(_)) => Err(trouble),
    }
}

/// Counts as one that waits, as long as it lives.
struct Waits<'a>(&'a Seen);

impl<'a> Waits<'a> {
    fn begin(seen: &'a Seen) -> Self {
        seen.waiting.fetch_add(1, Ordering::Relaxed);
        Self(seen)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells while it waits: writing to memory takes no time where there is any.
struct Watched {
    sink: Sink,
    seen: Arc<Seen>,
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _waits = Waits::begin(&self.seen);
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
