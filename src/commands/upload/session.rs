//! The upload of one dump, from its claim to its end.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::claim::{self, Claim};
use super::finish::obstructed;
use super::follow::{End, Job, Shared, Watcher};
use super::start::Found;
use super::{Totals, stopped};
use crate::cli::UploadArgs;
use crate::dump_dir::DumpDir;
use crate::dumper::{Child, LivingDump};
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::dump_metadata::DumpMetadata;
use crate::model::etag::ETag;
use crate::model::manifest::{DumpStateWord, DumperExit, FORMAT, ManifestHeader};
use crate::model::object_key::Prefix;
use crate::model::state::Phase;
use crate::model::units::human_duration;
use crate::model::verdict::Ending;
use crate::pool::Pool;
use crate::s3::Store;
use crate::scan::{Look, Strangers};
use crate::stop::Stop;
use crate::transfer::Transfer;

/// How long unfinished multipart uploads may take to be aborted when we are told to stop.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a dump whose kept files changed is gone over again before that counts as a failure.
const REOPENINGS_MAX: u32 = 5;

/// One dump on its way.
pub struct Session<'a> {
    pub(super) args: &'a UploadArgs,
    pub(super) store: Store,
    pub(super) child: Option<&'a Child>,
    pub(super) stop: &'a Stop,
    pub(super) totals: &'a mut Totals,
    pub(super) directory: Arc<DumpDir>,
    pub(super) dump: LivingDump,
    pub(super) seen_alive: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) header: ManifestHeader,
    pub(super) claim_etag: Option<ETag>,
    pub(super) is_complete: bool,
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
        let Found { directory, dump, seen_alive } = found;
        let started = started_at(&dump);
        let prefix = args.destination.prefix.expand(&dump.sighted.identity.host, started).map_err(Failure::usage)?;
        let header = header(&dump, &directory, started, seen_alive);
        totals.destination = Some(store.uri(&prefix.directory()));
        let Claim { etag, earlier, header: before, is_complete } =
            claim::claim(store, &args.destination, &prefix, &header).await?;
        let seen_alive = seen_alive || before.as_ref().is_some_and(|before| before.seen_alive);
        abort_leftovers(store, &prefix).await;
        store.settings_are_right();
        store.wait_for_ever();
        let transfer = transfer(args, store, &directory, prefix, &header, earlier, is_complete);
        let header = ManifestHeader { seen_alive, ..header };
        Ok(Self {
            args,
            store: store.clone(),
            child,
            stop,
            totals,
            directory,
            dump,
            seen_alive,
            shared: Arc::new(Shared::new(args.dump.settle, transfer)),
            header,
            claim_etag: etag,
            is_complete,
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
        if !alive {
            self.store.wait_for(Instant::now(), self.args.transfer.retry_for);
        }
        let phase = if alive { Phase::Writing } else { Phase::Ended };
        let ending = self.follow(phase).await?;
        let exit = self.dumper_exit(!alive).await;
        self.totals.dumper_exit = Some(exit);
        let text = self.dump.sighted.read_again().context("cannot read the dump's metadata")?;
        let metadata = DumpMetadata::parse(&text);
        if self.is_complete {
            return self.conclude_complete(&metadata).await;
        }
        for _ in 0..REOPENINGS_MAX {
            if self.reopen_changed() == 0 {
                return self.judge_and_commit(ending, exit, &metadata, text).await;
            }
            self.follow(Phase::Ended).await?;
        }
        Err(Failure::failure(anyhow!("files of the dump are changed again and again after mydumper's end")))
    }

    /// Follows the dump until nothing is left to do, or until something else ends it.
    async fn follow(&mut self, phase: Phase) -> Result<Ending, Failure> {
        let shared = Arc::clone(&self.shared);
        let pool = Pool::start(self.args.transfer.workers, move |job: Job| {
            let shared = Arc::clone(&shared);
            async move { shared.work(job).await }
        });
        let end = self.watch(&pool, phase).await;
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
                Err(Failure::failure(anyhow::Error::new(error).context("the store is out of reach, and time is up")))
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

    async fn watch(&mut self, pool: &Pool<Job>, phase: Phase) -> End {
        let identity = &self.dump.sighted.identity;
        let not_before = (self.seen_alive && !self.args.dump.include_older)
            .then(|| identity.born.unwrap_or_else(|| self.header.started.as_nanosecond()));
        let look = Look {
            phase,
            closed_by: self.dump.closed_by,
            lead: self.dump.sighted.inode,
            not_before,
            prefix: self.shared.transfer.prefix.clone(),
        };
        let (totals, store) = (&mut *self.totals, &self.store);
        let mut watcher = Watcher {
            args: self.args,
            directory: Arc::clone(&self.directory),
            dump: &mut self.dump,
            shared: Arc::clone(&self.shared),
            child: self.child,
            stop: self.stop,
            look,
            strangers: std::mem::take(&mut self.strangers),
            seen: &mut |phase, state| {
                let note = store.down_for().map(|down| format!("store down for {}", human_duration(down)));
                totals.show(phase, state.counts(), state.local_bytes(), note);
            },
        };
        let end = watcher.follow(pool).await;
        self.strangers = watcher.strangers;
        end
    }

    /// The directory is not this dump's any more.
    async fn lost(&mut self, why: &str) -> Failure {
        let metadata = DumpMetadata::default();
        let text = self.dump.sighted.read_again().unwrap_or_default();
        self.conclude_incomplete(why.to_owned(), DumperExit::NOT_SEEN, &metadata, text).await
    }

    async fn judge_and_commit(
        &mut self,
        ending: Ending,
        exit: DumperExit,
        metadata: &DumpMetadata,
        text: Vec<u8>,
    ) -> Result<(), Failure> {
        let obstacles = self.obstacles();
        if let Some(reason) = self.why_incomplete(ending, exit, metadata) {
            let failure = self.conclude_incomplete(reason, exit, metadata, text).await;
            let mut left = obstacles;
            // While files could not be brought to safety, the dump's lead stays, so that a restart finds it.
            if left.is_empty() {
                left = self.remove_leftovers();
                left.extend(self.remove_lead());
            }
            // Status 1 stands before 3 when both hold.
            return Err(if left.is_empty() {
                failure
            } else {
                let mut one = obstructed(&left);
                one.error = one.error.context(failure.error.to_string());
                one
            });
        }
        if !obstacles.is_empty() {
            return Err(obstructed(&obstacles));
        }
        self.check_bucket().await.map_err(not_committed)?;
        let commit = self.foresee_metadata().await?;
        let header = self.final_header(DumpStateWord::Complete, exit, metadata);
        self.manifest_sha256 = Some(self.write_manifest(header, metadata, Some(commit)).await.map_err(not_committed)?);
        self.follow(Phase::Committing).await?;
        if !self.shared.state().uploaded().keys().any(|name| name.is_metadata()) {
            return Err(not_committed(anyhow!("metadata could not be uploaded")));
        }
        info!("committed {}", self.destination());
        self.leave_clean()
    }

    /// The bucket has had this dump as a whole before: what is left of it here is proved and removed.
    async fn conclude_complete(&mut self, _metadata: &DumpMetadata) -> Result<(), Failure> {
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            return Err(obstructed(&obstacles));
        }
        self.follow(Phase::Committing).await?;
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            return Err(obstructed(&obstacles));
        }
        info!("{} has this dump already", self.destination());
        self.leave_clean()
    }

    fn leave_clean(&mut self) -> Result<(), Failure> {
        let left = self.remove_leftovers();
        if left.is_empty() { Ok(()) } else { Err(obstructed(&left)) }
    }

    /// Takes no new files, gives running requests their time, aborts what is not done.
    async fn stop_orderly(&self, pool: Pool<Job>) {
        info!("stopping: running uploads have {} s to end", self.args.dump.stop_timeout.as_secs());
        let child = async {
            match self.child {
                Some(child) => child.stop(self.args.dump.stop_timeout).await,
                None => {}
            }
        };
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

fn not_committed(error: anyhow::Error) -> Failure {
    Failure::failure(error.context("the dump is not committed"))
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
        dumper_version: None,
        dumper_exit: DumperExit::NOT_SEEN,
        directory: std::path::absolute(directory.path()).unwrap_or_default().display().to_string(),
        closed_by: dump.closed_by,
        seen_alive,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        total_files: 0,
        total_bytes: 0,
        sources: Vec::new(),
        metadata_text: None,
    }
}

fn transfer(
    args: &UploadArgs,
    store: &Store,
    directory: &Arc<DumpDir>,
    prefix: Prefix,
    header: &ManifestHeader,
    earlier: HashMap<crate::model::file_name::FileName, crate::s3::ListedObject>,
    prove_only: bool,
) -> Transfer {
    Transfer {
        store: store.clone(),
        directory: Arc::clone(directory),
        prefix,
        dump_id: header.dump_id.clone(),
        part_size: args.transfer.part_size.0,
        max_parts: args.transfer.max_parts,
        keep: args.dump.keep,
        prove_only,
        earlier,
        requests: Semaphore::new(args.transfer.workers),
        workers: args.transfer.workers,
        sent: AtomicU64::new(0),
        open_uploads: Mutex::default(),
    }
}

/// Multipart uploads that an earlier run left under the prefix.
async fn abort_leftovers(store: &Store, prefix: &Prefix) {
    let directory = prefix.directory();
    let uploads = match store.open_uploads(&directory).await {
        Ok(uploads) => uploads,
        Err(error) => {
            info!("multipart uploads cannot be listed, so those that a killed run left behind stay: {error}");
            return;
        }
    };
    // Only keys directly under the prefix are ours.
    for upload in
        uploads.iter().filter(|upload| upload.key.strip_prefix(&directory).is_some_and(|name| !name.contains('/')))
    {
        match store.abort_upload(upload).await {
            Ok(()) => info!("aborted an unfinished upload of {}", store.uri(&upload.key)),
            Err(error) => warn!("{error}"),
        }
    }
}
