//! The upload of one dump, from its claim to its end.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::anyhow;
use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::claim::{self, Claim};
use super::disk::DiskWatch;
use super::follow::{End, Job, Shared, Watcher};
use super::start::Found;
use super::{Totals, stop_child, stopped};
use crate::cli::UploadArgs;
use crate::content::Closeness;
use crate::dump_dir::DumpDir;
use crate::dumper::{Child, ExitSources, ExitStatusFile, Life, LivingDump, Role};
use crate::exit_status::Failure;
use crate::hasher::Hasher;
use crate::hint::{find, hinted};
use crate::model::dump_metadata::DumpMetadata;
use crate::model::etag::ETag;
use crate::model::manifest::{DumpStateWord, DumperExit, FORMAT, ManifestHeader};
use crate::model::object_key::Prefix;
use crate::model::state::Phase;
use crate::model::units::human_duration;
use crate::model::verdict::Ending;
use crate::pool::Pool;
use crate::s3::{Store, StoreError};
use crate::scan::{Held, Look, Strangers};
use crate::stop::Stop;
use crate::transfer::Transfer;

/// How far mydumper's local time may be from what we take it for, in nanoseconds.
const ZONE_MAX: i128 = 14 * 3600 * 1_000_000_000;
/// So much older than its first line (in nanoseconds) a `metadata.partial` is of an earlier dump.
const TAKEN_OVER: i128 = 300 * 1_000_000_000;
/// How long unfinished multipart uploads may take to be aborted when we are told to stop.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// One dump on its way.
pub struct Session<'a> {
    pub(super) args: &'a UploadArgs,
    pub(super) store: Store,
    pub(super) child: Option<&'a Child>,
    pub(super) stop: &'a Stop,
    pub(super) totals: &'a mut Totals,
    pub(super) directory: Arc<DumpDir>,
    pub(super) dump: LivingDump,
    pub(super) shared: Arc<Shared>,
    pub(super) header: ManifestHeader,
    pub(super) claim_etag: Option<ETag>,
    pub(super) is_complete: bool,
    /// Watches the disk while the dump is being written.
    disk: Option<DiskWatch>,
    /// The directory is not this dump's any more.
    pub(super) is_lost: bool,
    /// Learns mydumper's exit status, and the claim's ETag after it was written there.
    exit: Option<JoinHandle<(DumperExit, Option<ETag>)>>,
    /// Told when the dump has ended.
    ended: Option<Arc<Notify>>,
    pub(super) strangers: Strangers,
    pub(super) manifest_sha256: Option<String>,
}

impl<'a> Session<'a> {
    /// Claims the dump's prefix.
    pub async fn begin(
        args: &'a UploadArgs,
        store: &Store,
        child: Option<&'a Child>,
        stop: &'a Stop,
        totals: &'a mut Totals,
        found: Found,
    ) -> Result<Self, Failure> {
        let (prefix, header) = place(args, &found)?;
        totals.destination = Some(store.uri(&prefix.directory()));
        let Found { directory, mut dump, seen_alive } = found;
        let disk = if seen_alive { Some(DiskWatch::begin(args, child, &dump)?) } else { None };
        let Claim { etag, earlier, header: before, is_complete } = tokio::select! {
            claim = claim_patiently(args, store, &prefix, &header, &mut dump, &directory) => claim?,
            signal = stop.wait() => return Err(stopped(signal)),
        };
        let is_new = before.is_none();
        let header = match before {
            // What an earlier run saw of the dump's life still holds.
            Some(before) => ManifestHeader {
                seen_alive: seen_alive || before.seen_alive,
                told_to_stop: before.told_to_stop,
                dumper_exit: before.dumper_exit,
                ..header
            },
            None => header,
        };
        totals.claimed = Some((prefix.clone(), header.clone()));
        let left = tokio::select! {
            left = claim::left_uploads(args, store, &prefix) => left,
            signal = stop.wait() => return Err(stopped(signal)),
        };
        // Where the exit status will be seen, it tells of a compressor that failed; inflating everything costs CPU.
        let closeness = match will_be_seen(args, &dump) {
            _ if args.dump.content_check => Closeness::Whole,
            true => Closeness::Ends,
            false => Closeness::Inflated,
        };
        let transfer = transfer(args, store, &directory, prefix, &header, earlier, is_complete, closeness);
        transfer.left_uploads.lock().unwrap_or_else(PoisonError::into_inner).extend(left);
        if is_new {
            // What was begun under a prefix that nobody had claimed is of no dump that could be continued.
            tokio::select! {
                () = transfer.abort_left() => {}
                signal = stop.wait() => return Err(stopped(signal)),
            }
        }
        Ok(Self {
            args,
            store: store.clone(),
            child,
            stop,
            totals,
            directory,
            dump,
            shared: Arc::new(Shared::new(args.dump.settle, transfer)),
            header,
            claim_etag: etag,
            is_complete,
            disk,
            is_lost: false,
            exit: None,
            ended: None,
            strangers: Strangers::new(),
            manifest_sha256: None,
        })
    }

    /// Where the dump goes, for messages.
    pub(super) fn destination(&self) -> String {
        self.store.uri(&self.shared.transfer.prefix.directory())
    }

    /// Uploads the dump and commits it.
    pub async fn run(&mut self, alive: bool) -> Result<(), Failure> {
        let result = self.upload_and_commit(alive).await;
        let counts = self.shared.state().counts();
        self.totals.files = counts.uploaded;
        self.totals.bytes = counts.uploaded_bytes;
        self.totals.failed = self.obstacles();
        self.totals.manifest_sha256 = self.manifest_sha256.take();
        result
    }

    async fn upload_and_commit(&mut self, alive: bool) -> Result<(), Failure> {
        let ended = self.watch_exit(alive);
        let phase = if alive { Phase::Writing } else { Phase::Ended };
        if alive {
            self.store.wait_for_ever();
        } else {
            self.dump_ended(&ended);
        }
        self.ended = Some(ended);
        let ending = self.follow(phase).await?;
        let (stop, patience) = (self.stop, self.args.dump.stop_timeout);
        let stopped_in_vain = async {
            let signal = stop.wait().await;
            tokio::time::sleep(patience).await;
            signal
        };
        tokio::select! {
            result = self.conclude(ending) => result,
            signal = stopped_in_vain => Err(stopped(signal)),
        }
    }

    fn dump_ended(&self, ended: &Notify) {
        self.store.wait_for(Instant::now(), self.args.transfer.retry_for);
        ended.notify_one();
    }

    /// Learns mydumper's exit status as soon as the dump has ended, and writes it into the claim: if we are killed
    /// before the last file is uploaded, the next run knows what this one saw.
    fn watch_exit(&mut self, alive: bool) -> Arc<Notify> {
        let born = self.header.identity.born.and_then(|born| u64::try_from(born).ok());
        let started = u64::try_from(self.header.started.as_nanosecond()).unwrap_or_default();
        let not_before = SystemTime::UNIX_EPOCH + Duration::from_nanos(born.unwrap_or(started));
        let sources = ExitSources {
            child: self.child.cloned(),
            writer: self.dump.writer().cloned(),
            file: self.args.dump.exit_status_file.clone().map(|path| ExitStatusFile::new(path, not_before)),
        };
        let (store, prefix) = (self.store.clone(), self.shared.transfer.prefix.clone());
        let (mut header, is_complete) = (self.header.clone(), self.is_complete);
        let (claim_etag, write_only) = (self.claim_etag.clone(), self.args.destination.write_only);
        // A dump that had ended before we came has no process left, but a script may still write its file.
        let patience = if alive || sources.file.is_some() { self.args.dump.wait } else { Duration::ZERO };
        let ended = Arc::new(Notify::new());
        let has_ended = Arc::clone(&ended);
        self.exit = Some(tokio::task::spawn_local(async move {
            has_ended.notified().await;
            let exit = sources.wait(patience).await;
            // What an earlier run saw of mydumper itself tells more than a wrapper's success.
            let tells_less = exit.is_unseen() && !exit.is_failure() && !header.dumper_exit.is_unseen();
            if exit == DumperExit::NOT_SEEN || tells_less {
                return (header.dumper_exit, None);
            }
            header.dumper_exit = exit;
            let is_ours = write_only || claim::is_ours(&store, &prefix, claim_etag.as_ref()).await;
            let written = if is_complete || !is_ours {
                Ok(None)
            } else {
                claim::write_claim(&store, &prefix, &header, false).await
            };
            let etag = written.unwrap_or_else(|error| {
                warn!("mydumper's exit status cannot be written into the claim: {error}");
                None
            });
            (exit, etag)
        }));
        ended
    }

    /// mydumper's end, once the dump has ended. It may be long in coming: a stop is not kept waiting for it.
    pub(super) async fn dumper_exit(&mut self) -> Result<DumperExit, Failure> {
        if let Some(task) = &mut self.exit {
            let seen = tokio::select! {
                seen = &mut *task => seen,
                signal = self.stop.wait() => {
                    // It would write the claim anew, without the mark.
                    task.abort();
                    return Err(stopped(signal));
                }
            };
            self.exit = None;
            if let Ok((exit, etag)) = seen {
                self.claim_etag = etag.or(self.claim_etag.take());
                self.header.dumper_exit = exit;
            }
        }
        self.totals.dumper_exit = Some(self.header.dumper_exit);
        Ok(self.header.dumper_exit)
    }

    /// Follows the dump until nothing is left to do, or until something else ends it.
    pub(super) async fn follow(&mut self, phase: Phase) -> Result<Ending, Failure> {
        let shared = Arc::clone(&self.shared);
        // As many files again as are hashed side by side, so that there are files to hash beside those that are sent.
        let files = self.args.transfer.workers + self.shared.transfer.hasher.side_by_side();
        let pool = Pool::start(files, move |job: Job| {
            let shared = Arc::clone(&shared);
            async move { shared.work(job).await }
        });
        let disk = match self.disk.take() {
            Some(disk) => disk,
            None => DiskWatch::idle(),
        };
        let end = self.watch(&pool, phase, disk).await;
        match end {
            End::Drained(ending) => {
                pool.finish().await;
                Ok(ending)
            }
            End::Lost(ending) => {
                // Dropped with its workers: nothing more may be touched.
                drop(pool);
                let why = match ending {
                    Ending::Overwritten => "another dump has begun in the directory",
                    _ => "the directory or its metadata.partial was removed",
                };
                Err(self.lost(why).await)
            }
            End::GaveUp(error) => {
                drop(pool);
                Err(Failure::failed(anyhow::Error::new(error).context("the store is out of reach, and time is up")))
            }
            End::Idle(limit) => {
                drop(pool);
                let why = format!("nothing has changed for {} s, so mydumper may have died", limit.as_secs());
                let hint = "nothing was uploaded or removed on that guess; run as mydumper's user, or give --pid";
                Err(Failure::incomplete(hinted(anyhow!(why), hint)))
            }
            End::Stopped(signal) => {
                self.stop_orderly(pool).await;
                Err(stopped(signal))
            }
        }
    }

    async fn watch(&mut self, pool: &Pool<Job>, phase: Phase, disk: DiskWatch) -> End {
        let not_before = not_before(self.args, &self.header);
        let look = Look {
            phase,
            closed_by: self.dump.closed_by,
            lead: self.dump.sighted.inode,
            not_before,
            prefix: self.shared.transfer.prefix.clone(),
            held: Held::default(),
        };
        let (totals, store, retry_for) = (&mut *self.totals, &self.store, self.args.transfer.retry_for);
        let ended = self.ended.clone();
        let mut watcher = Watcher {
            args: self.args,
            directory: Arc::clone(&self.directory),
            dump: &mut self.dump,
            shared: Arc::clone(&self.shared),
            stop: self.stop,
            look,
            strangers: std::mem::take(&mut self.strangers),
            ended: &mut || {
                store.wait_for(Instant::now(), retry_for);
                if let Some(ended) = &ended {
                    ended.notify_one();
                }
            },
            disk,
            shown: None,
            seen: &mut |phase, state, note| {
                let down = store.down_for().map(|down| format!("store down for {}", human_duration(down)));
                totals.show(phase, state.counts(), state.local_bytes(), down.or(note));
            },
        };
        let end = watcher.follow(pool).await;
        self.strangers = watcher.strangers;
        end
    }

    /// The directory is not this dump's any more.
    async fn lost(&mut self, why: &str) -> Failure {
        self.is_lost = true;
        if let Some(exit) = self.exit.take() {
            // It would write the claim anew, over the verdict.
            exit.abort();
        }
        let metadata = DumpMetadata::default();
        let text = self.dump.sighted.read_again().unwrap_or_default();
        self.conclude_incomplete(why.to_owned(), DumperExit::NOT_SEEN, &metadata, text).await
    }

    /// Takes no new files, gives running requests their time, aborts what is not done.
    async fn stop_orderly(&mut self, pool: Pool<Job>) {
        info!("stopping: running uploads have {} s to end", self.args.dump.stop_timeout.as_secs());
        if let Some(exit) = self.exit.take() {
            // It would write the claim anew, without the mark.
            exit.abort();
        }
        let child = async {
            if let Some(child) = self.child {
                stop_child(child, self.args, &self.store, self.totals).await;
            }
        };
        self.shared.transfer.stop();
        let uploads = tokio::time::timeout(self.args.dump.stop_timeout, pool.stop());
        let (_, ended) = tokio::join!(child, uploads);
        if ended.is_err() {
            warn!("some uploads did not end in time; their files are still local");
        }
        let aborted = tokio::time::timeout(ABORT_TIMEOUT, self.shared.transfer.abort_all()).await;
        if aborted.is_err() {
            warn!("unfinished uploads could not be aborted in time; the next run does it");
        }
    }
}

/// Where a dump goes, and what its claim says.
pub fn place(args: &UploadArgs, found: &Found) -> Result<(Prefix, ManifestHeader), Failure> {
    let started = started_at(&found.dump);
    let prefix = args.destination.prefix.expand(&found.dump.sighted.identity.host, started).map_err(Failure::usage)?;
    Ok((prefix, header(&found.dump, &found.directory, started, found.seen_alive)))
}

/// Files that were last changed before this belong to something else than a dump that was seen alive: before the birth of
/// `metadata.partial`, or, where 1.x with `--dirty` took an old one over, before the start that its last line tells.
pub fn not_before(args: &UploadArgs, header: &ManifestHeader) -> Option<i128> {
    let line = header.started.as_nanosecond();
    let began = match header.identity.born {
        Some(born) if line - born > TAKEN_OVER => line,
        Some(born) => born,
        // Without a birth mydumper's zone is a guess, too; a file of last night is older still.
        None => line - ZONE_MAX,
    };
    (header.seen_alive && !args.dump.include_older).then_some(began)
}

/// Claims the prefix. While the dump lives an outage is waited out; after its end as long as any other.
async fn claim_patiently(
    args: &UploadArgs,
    store: &Store,
    prefix: &Prefix,
    header: &ManifestHeader,
    dump: &mut LivingDump,
    directory: &DumpDir,
) -> Result<Claim, Failure> {
    loop {
        store.wait_for(Instant::now(), args.transfer.retry_for);
        let failure = match claim::claim(store, &args.destination, prefix, header).await {
            Ok(claim) => return Ok(claim),
            Err(failure) => failure,
        };
        let is_outage = find::<StoreError>(&failure.error).is_some_and(StoreError::is_outage);
        let lives = matches!(dump.probe(directory, Instant::now()), Life::Alive { known: true });
        if !is_outage || !lives {
            return Err(failure);
        }
    }
}

/// Whether mydumper's exit status can be expected to become known.
fn will_be_seen(args: &UploadArgs, dump: &LivingDump) -> bool {
    let of_writer = dump.writer().is_some_and(|writer| match writer.role {
        Role::Child => true,
        Role::Holder | Role::Named => !writer.has_ended() || writer.exit().is_some(),
        Role::Launcher => false,
    });
    of_writer || args.dump.exit_status_file.is_some()
}

fn started_at(dump: &LivingDump) -> Timestamp {
    let local = dump.sighted.metadata.started_local().and_then(|local| {
        let date =
            civil::Date::new(local.year.cast_signed(), local.month.cast_signed(), local.day.cast_signed()).ok()?;
        let time =
            civil::Time::new(local.hour.cast_signed(), local.minute.cast_signed(), local.second.cast_signed(), 0);
        Some(date.to_datetime(time.ok()?))
    });
    dump.sighted.identity.started_at(local, &TimeZone::system(), Timestamp::now())
}

fn header(dump: &LivingDump, directory: &DumpDir, started: Timestamp, seen_alive: bool) -> ManifestHeader {
    let identity = dump.sighted.identity.clone();
    ManifestHeader {
        format: FORMAT,
        state: DumpStateWord::Uploading,
        reason: None,
        dump_id: identity.id(),
        identity,
        started,
        finished: None,
        dumper_finished: None,
        dumper_version: dump.dumper_version.clone(),
        dumper_exit: DumperExit::NOT_SEEN,
        directory: std::path::absolute(directory.path()).unwrap_or_default().display().to_string(),
        closed_by: dump.closed_by,
        seen_alive,
        told_to_stop: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        total_files: 0,
        total_bytes: 0,
        sources: Vec::new(),
        metadata_text: None,
        withdrawn: Vec::new(),
    }
}

#[allow(clippy::too_many_arguments, reason = "the fields of one struct, each from another source")]
fn transfer(
    args: &UploadArgs,
    store: &Store,
    directory: &Arc<DumpDir>,
    prefix: Prefix,
    header: &ManifestHeader,
    earlier: HashMap<crate::model::file_name::FileName, crate::s3::ListedObject>,
    prove_only: bool,
    closeness: Closeness,
) -> Transfer {
    Transfer {
        store: store.clone(),
        directory: Arc::clone(directory),
        prefix,
        dump_id: header.dump_id.clone(),
        part_size: args.transfer.part_size.0,
        max_parts: args.transfer.max_parts,
        sha256: args.destination.sha256,
        closeness,
        write_only: args.destination.write_only,
        withdrawn: Mutex::default(),
        // Nothing in such a store tells a restart what was there: it must find all of it here.
        keep: args.dump.keep || args.destination.write_only,
        prove_only,
        earlier,
        hasher: Hasher::new(args.transfer.workers),
        looks: Semaphore::new(args.transfer.workers),
        requests: Semaphore::new(args.transfer.workers),
        is_stopping: AtomicBool::new(false),
        workers: args.transfer.workers,
        open_uploads: Mutex::default(),
        left_uploads: Mutex::default(),
    }
}
