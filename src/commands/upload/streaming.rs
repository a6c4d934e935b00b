//! A dump without files while it is made: what mydumper hands over goes up, and in the end each name that is left must have
//! been handed over.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::advice::Standing;
use super::follow::{End, Shared};
use super::no_disk::NoDisk;
use super::session::{ABORT_TIMEOUT, Session};
use crate::aside::aside;
use crate::cli::UploadArgs;
use crate::dump_dir::{DumpDir, Removal};
use crate::exit_status::Failure;
use crate::hand_over::{Caller, Reception};
use crate::hint::hinted;
use crate::model::brake::HeldTooLong;
use crate::model::dumper_version::raises_net_write_timeout;
use crate::model::file_name::FileName;
use crate::model::record::Kind;
use crate::model::state::StreamJob;
use crate::object_writer::{PartMemory, Trouble};
use crate::pool::caught;
use crate::s3::Store;
use crate::streams::{Brought, OfNothing, Opened, Streams, Treatment};

/// Who is there to hand rows over says so at once.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// After a call that could not be taken: the system may be short of something.
const PAUSE: Duration = Duration::from_millis(100);
/// mydumper hands a file's rows over as soon as it has made the file. One of which nobody hears for so long was not handed
/// over, and mydumper waits for ever.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(10);
/// The same once mydumper has ended.
const LAST_CALLS: Duration = Duration::from_secs(2);
/// After so long the server is about to give mydumper up, where that did not ask for more.
const MENTIONED_AFTER: Duration = Duration::from_secs(20);

/// Said of a name that was never handed over.
const NOT_HANDED_OVER: &str = "mydumper left its name, and its rows were never handed over";
/// Said of the names of a dump that cannot be gone on with.
const RUN_IS_GONE: &str = "its rows were handed over to a run that is gone";
/// Why the dump of a run that was interrupted is not whole.
const INTERRUPTED: &str = "it was made with --no-disk, and the run that took its rows was interrupted: such a dump cannot be \
                           gone on with";

/// What takes rows while mydumper makes them.
#[derive(Debug)]
pub struct Streaming {
    reception: Arc<Reception>,
    streams: Streams,
    /// Nobody is there with rows that were not taken yet.
    is_quiet: AtomicBool,
    looks: Mutex<Looks>,
    /// Whether mydumper's server waits for it only as long as it is set up to.
    is_impatient: bool,
}

/// What looks at the streams remember.
#[derive(Debug, Default)]
struct Looks {
    /// A name of which no rows came, and since when.
    missing: Option<(FileName, Instant)>,
    /// Since when streams wait without a byte going up, and how many had gone up by then.
    stalled: Option<(Instant, u64)>,
    is_stall_said: bool,
}

impl Streaming {
    /// For a dump that is about to begin.
    pub fn new(no_disk: &NoDisk, args: &UploadArgs, dumper_version: Option<&str>) -> Self {
        let memory = &no_disk.memory;
        let treatment = Treatment { packing: args.without.packing(), sha256: args.destination.sha256 };
        let parts = PartMemory::new(memory.streams, memory.part_size, memory.bytes());
        Self {
            reception: Arc::clone(&no_disk.reception),
            streams: Streams::new(parts, treatment),
            is_quiet: AtomicBool::new(true),
            looks: Mutex::default(),
            is_impatient: !raises_net_write_timeout(dumper_version),
        }
    }

    /// Bytes of rows that came so far.
    pub fn taken(&self) -> u64 {
        self.streams.taken()
    }

    /// Whether mydumper was kept waiting for too long without a byte going up.
    fn stalled(&self, store: &Store, most: Duration) -> Option<HeldTooLong> {
        let now = Instant::now();
        let mut looks = self.looks.lock();
        // What is sent to a store that answers with errors does not go up.
        let sent = if store.down_for().is_none() { Some(store.sent_bytes()) } else { None };
        let goes_on = |then: u64| sent.is_some_and(|sent| sent != then);
        match looks.stalled {
            _ if self.streams.waiting() == 0 => {
                (looks.stalled, looks.is_stall_said) = (None, false);
                None
            }
            Some((since, then)) if !goes_on(then) => {
                let stalled = now.saturating_duration_since(since);
                if stalled >= MENTIONED_AFTER && self.is_impatient && !std::mem::replace(&mut looks.is_stall_said, true)
                {
                    warn!(
                        "mydumper waits, and nothing goes up: its server gives a client up that takes nothing for as long as \
                         its net_write_timeout says (60 s by default), and this mydumper does not raise that"
                    );
                }
                (stalled >= most).then_some(HeldTooLong::InVain(stalled))
            }
            _ => {
                looks.stalled = Some((now, store.sent_bytes()));
                None
            }
        }
    }

    /// A name that stands there for so long without its rows.
    fn missing_for(&self, names: Vec<FileName>) -> Option<(FileName, Duration)> {
        let mut looks = self.looks.lock();
        if !self.is_quiet.load(Ordering::Relaxed) {
            // It may be the next one.
            looks.missing = None;
            return None;
        }
        let known = looks.missing.take().filter(|(name, _)| names.contains(name));
        looks.missing = known.or_else(|| Some((names.into_iter().next()?, Instant::now())));
        looks.missing.as_ref().map(|(name, since)| (name.clone(), since.elapsed()))
    }

    /// Takes rows for as long as it is asked.
    async fn receive(&self, shared: &Arc<Shared>) {
        let mut streams: JoinSet<()> = JoinSet::new();
        loop {
            self.is_quiet.store(true, Ordering::Relaxed);
            let caller = tokio::select! {
                caller = self.reception.next() => caller,
                Some(_) = streams.join_next() => continue,
            };
            self.is_quiet.store(false, Ordering::Relaxed);
            let called = match caller {
                Ok(caller) => self.take(caller, shared).await,
                Err(error) => {
                    warn!("a hand-over cannot be taken yet: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            match called {
                Ok(Some(stream)) => drop(streams.spawn_local(bring_watched(Arc::clone(shared), stream))),
                Ok(None) => {}
                Err(why) => shared.end(End::Rows(why)),
            }
        }
    }

    /// One after the other, in the order in which they came: mydumper waits for each, and none may overtake another for the
    /// room there is.
    async fn take(&self, caller: Caller, shared: &Shared) -> Result<Option<Stream>, String> {
        let handed = match tokio::time::timeout(CALL_TIMEOUT, caller.hand_over()).await {
            Ok(Ok(handed)) => handed,
            // It was killed, or it is somebody else. A name without rows tells.
            Ok(Err(error)) => {
                debug!("nothing was handed over: {error}");
                return Ok(None);
            }
            Err(_) => return Ok(None),
        };
        let directory = Arc::clone(&shared.transfer.directory);
        let (name, handed) = aside(move || (handed.name(&directory), handed)).await;
        let name = name.map_err(|why| format!("mydumper handed rows over, and {why}"))?;
        let job = shared.state().begin_stream(&name);
        let job = job.ok_or_else(|| format!("mydumper handed the rows of '{name}' over twice"))?;
        let opened = self.streams.open(&shared.transfer.writer).await;
        let opened = opened.map_err(|error| format!("there is no memory for the rows of '{name}': {error}"))?;
        debug!(file = %name, "its rows are handed over");
        Ok(Some(Stream { job, rows: handed.taken(), opened, of_nothing: OfNothing::Waits }))
    }

    /// Makes the objects of those whose names stayed though they had no byte.
    async fn bring_empty(&self, shared: &Arc<Shared>, jobs: Vec<StreamJob>) {
        let at_a_time = shared.transfer.writer.gate.width();
        let bring = async |job: StreamJob| {
            let rows = std::io::pipe().map(|(rows, _)| OwnedFd::from(rows).into());
            match (rows, self.streams.open(&shared.transfer.writer).await) {
                (Ok(rows), Ok(opened)) => {
                    let stream = Stream { job, rows, opened, of_nothing: OfNothing::Object };
                    bring_watched(Arc::clone(shared), stream).await;
                }
                (Err(error), _) | (_, Err(error)) => {
                    shared.end(End::Rows(format!("cannot make the object of '{}': {error}", job.name())));
                }
            }
        };
        futures_util::stream::iter(jobs).for_each_concurrent(at_a_time, bring).await;
    }
}

/// Rows that are taken.
struct Stream {
    job: StreamJob,
    rows: std::fs::File,
    opened: Opened,
    of_nothing: OfNothing,
}

/// A stream to its end. Where it panics nobody else would know.
async fn bring_watched(shared: Arc<Shared>, stream: Stream) {
    if let Err(why) = caught(bring(&shared, stream)).await {
        shared.end(End::Panicked(why));
    }
}

async fn bring(shared: &Shared, stream: Stream) {
    let Stream { job, rows, opened, of_nothing } = stream;
    let Some(streaming) = &shared.streaming else { return };
    let (transfer, name) = (&shared.transfer, job.name().clone());
    let brought = streaming.streams.bring(&transfer.writer, &transfer.directory, &name, rows, opened, of_nothing).await;
    match brought {
        Ok(Brought::Object(uploaded)) => {
            debug!(file = %name, bytes = uploaded.object.size, "uploaded and verified");
            if let Some(why) = &uploaded.broken {
                warn!(file = %name, "its content is broken, so the dump will not be committed: {why}");
            }
            shared.state().end_stream(job, uploaded);
            shared.one_completed();
        }
        Ok(Brought::Empty) => {
            debug!(file = %name, "it has no row");
            shared.state().end_empty_stream(job);
        }
        Err(Trouble::Lost(error)) => shared.give_up(error),
        Err(Trouble::Store(error)) if error.is_outage() || error.is_about_rights() => shared.give_up(error.into()),
        Err(Trouble::Store(error)) => shared.end(End::Rows(format!("the rows of '{name}' are lost: {error}"))),
        Err(Trouble::Local(why)) => shared.end(End::Rows(format!("the rows of '{name}' are lost: {why}"))),
    }
    shared.one_ended();
}

impl Shared {
    /// Looks at the streams while mydumper lives.
    pub fn look_at_streams(&self, store: &Store, max_stall: Duration) -> Option<End> {
        let streaming = self.streaming.as_ref()?;
        if let Some(held) = streaming.stalled(store, max_stall) {
            return Some(End::Held(held));
        }
        let names = self.state().without_rows();
        let (name, so_long) = streaming.missing_for(names)?;
        (so_long >= HAND_OVER_TIMEOUT)
            .then(|| End::Rows(format!("mydumper made '{name}' and did not hand its rows over")))
    }

    /// Judges all names once mydumper has ended and nothing more comes; called after each look.
    pub async fn settle_streams(self: &Arc<Self>) {
        let (names, underway) = {
            let state = self.state();
            (state.without_rows(), state.streams_underway())
        };
        let Some(streaming) = &self.streaming else {
            self.state().settle_streams(RUN_IS_GONE);
            return;
        };
        if underway > 0 || !streaming.is_quiet.load(Ordering::Relaxed) {
            return;
        }
        if streaming.missing_for(names).is_some_and(|(_, so_long)| so_long < LAST_CALLS) {
            return;
        }
        let empty = self.state().settle_streams(NOT_HANDED_OVER);
        streaming.bring_empty(self, empty).await;
    }
}

/// What kind of dump it is.
pub(super) fn kind_of(no_disk: Option<&NoDisk>) -> Kind {
    if no_disk.is_some() { Kind::Streams } else { Kind::Directory }
}

/// A dump without files that lives, and we are not those who take its rows.
pub(super) fn nobody_takes(directory: &DumpDir) -> Failure {
    let error = anyhow!(
        "the dump in '{}' is made with --no-disk, and the run that took its rows is gone",
        directory.path().display()
    );
    Failure::failed(hinted(error, "end its mydumper, which waits for ever, and make a new dump"))
}

/// The next run could not know that the names here are no files.
pub(super) fn cannot_be_noted(directory: &DumpDir) -> Failure {
    let error = anyhow!(
        "it cannot be written down beside the dump in '{}' that its files hold nothing",
        directory.path().display()
    );
    let hint =
        "--no-disk needs a --dir on a filesystem with extended attributes, as ext4, xfs, btrfs and overlayfs are";
    Failure::failed(hinted(error, hint))
}

impl Session<'_> {
    /// Takes rows from now on, until the session ends.
    pub(super) fn begin_receiving(&mut self) {
        let shared = Arc::clone(&self.shared);
        if shared.streaming.is_none() {
            return;
        }
        let watched = Arc::clone(&shared);
        let receiving = async move {
            if let Some(streaming) = &shared.streaming {
                streaming.receive(&shared).await;
            }
        };
        self.receiving.spawn_local(async move {
            if let Err(why) = caught(receiving).await {
                watched.end(End::Panicked(why));
            }
        });
    }

    /// Takes no rows any more, and lets all go that are on their way.
    pub(super) async fn end_receiving(&mut self) {
        self.receiving.shutdown().await;
    }

    /// Nothing becomes of the rows any more: what has begun with them is given up, and who makes more is ended.
    pub(super) async fn forsake_rows(&mut self) {
        if self.shared.streaming.is_none() {
            return;
        }
        self.end_receiving().await;
        if let Some(child) = self.child.filter(|child| !child.is_over()) {
            self.totals.standing = Standing::Stopped;
            child.kill();
        }
        let abort = self.shared.transfer.writer.abort_all();
        if self.store.down_for().is_some() || tokio::time::timeout(ABORT_TIMEOUT, abort).await.is_err() {
            warn!("unfinished uploads could not be aborted; the next run does it");
        }
    }

    /// Why a dump cannot become whole whose rows went to a run that is gone.
    pub(super) fn why_interrupted(&self) -> Option<String> {
        let is_of_streams = self.shared.transfer.disposal.recorder.kind() == Kind::Streams;
        (is_of_streams && self.shared.streaming.is_none()).then(|| INTERRUPTED.to_owned())
    }

    /// Removes what is left of the names of a dump without files: there is no byte in them.
    pub(super) async fn remove_names(&self) -> Vec<(String, String)> {
        if !self.shared.state().has_streams() {
            return Vec::new();
        }
        let (directory, shared) = (Arc::clone(&self.directory), Arc::clone(&self.shared));
        aside(move || {
            let mut left = Vec::new();
            for name in shared.state().names() {
                let Ok(identity) = directory.identity(name.as_str()) else { continue };
                let removed = match identity.size {
                    0 => directory.remove_verified(name.as_str(), &identity).map_err(|error| error.to_string()),
                    bytes => Err(format!("it has {bytes} bytes, where only its name was expected")),
                };
                match removed {
                    Ok(Removal::Removed | Removal::Absent) => {}
                    Ok(Removal::Changed) => left.push((name.to_string(), "it changed meanwhile".to_owned())),
                    Err(why) => left.push((name.to_string(), why)),
                }
            }
            left
        })
        .await
    }
}
