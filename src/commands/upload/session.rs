//! The upload of one dump, from its claim to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{info, warn};

use super::account::EarlierRuns;
use super::advice::Standing;
use super::disk::DiskWatch;
use super::equip::Ours;
use super::fault::{fault, joined};
use super::follow::{End, Job, Shared, Watcher};
use super::meanwhile::{Deadline, Meanwhile, end_held};
use super::place::{Claiming, exits_not_before, look_at, place, place_of, recorder_of, settled};
use super::start::Found;
use super::streaming::{Streaming, cannot_be_noted, kind_of, nobody_takes};
use super::{Notes, Sent, Started, Totals, stop_child, stopped, unless_stopped};
use crate::aside::{TOGETHER, aside};
use crate::claim::{ClaimError, Claimed, SharedClaim};
use crate::cli::UploadArgs;
use crate::dump_dir::DumpDir;
use crate::dumper::{Child, ExitSources, ExitStatusFile, LivingDump};
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::brake::HeldTooLong;
use crate::model::dump_metadata::DumpMetadata;
use crate::model::manifest::{ClosedBy, DumperExit, ManifestHeader};
use crate::model::record::Kind;
use crate::model::state::Phase;
use crate::model::units::human_duration;
use crate::model::verdict::Ending;
use crate::pool::Pool;
use crate::s3::Store;
use crate::scan::Strangers;
use crate::stop::Stop;

/// Bytes of two notes that a status line has room for.
const NOTES_MAX: usize = 44;
/// How long unfinished multipart uploads may take to be aborted when we are told to stop.
pub(super) const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

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
    pub(super) claim: SharedClaim,
    pub(super) is_complete: bool,
    pub(super) earlier: EarlierRuns,
    /// Watches the disk while the dump is being written.
    disk: Option<DiskWatch>,
    /// When it was found.
    began: Instant,
    /// The directory is not this dump's any more.
    pub(super) is_lost: bool,
    /// Learns mydumper's exit status.
    exit: Option<JoinHandle<DumperExit>>,
    /// Told when the dump has ended.
    ended: Option<Arc<Notify>>,
    pub(super) strangers: Strangers,
    /// Takes rows, where there are no files.
    pub(super) receiving: JoinSet<()>,
    pub(super) manifest_sha256: Option<String>,
}

impl<'a> Session<'a> {
    /// Claims the dump's prefix.
    pub async fn begin(
        args: &'a UploadArgs,
        store: &Store,
        started: Started<'a>,
        stop: &'a Stop,
        totals: &'a mut Totals,
        found: Found,
    ) -> Result<Self, Failure> {
        let Started { child, no_disk } = started;
        let began = Instant::now();
        let (prefix, header) = place(args, store, &found)?;
        totals.destination = Some(store.uri(&prefix.directory()));
        totals.standing = Standing::Underway;
        if no_disk.is_none() {
            store.has_files();
        }
        let Found { directory, mut dump, seen_alive } = found;
        let here = place_of(store, &prefix);
        let recorder = Arc::new(recorder_of(kind_of(no_disk), &dump, &header, here.clone()).map_err(Failure::failed)?);
        let record = unless_stopped(stop, settled(&recorder, &directory, &here)).await??;
        if recorder.kind() == Kind::Streams && no_disk.is_none() && seen_alive {
            return Err(nobody_takes(&directory));
        }
        let mut disk = match seen_alive && recorder.kind() == Kind::Directory {
            true => Some(unless_stopped(stop, DiskWatch::begin(args, child, &dump, &directory, &recorder)).await??),
            false => None,
        };
        let phase = if seen_alive { Phase::Writing } else { Phase::Ended };
        let look = unless_stopped(stop, look_at(args, &dump, &header, &prefix, phase)).await?;
        let (there, interval) = (Arc::clone(&directory), args.dump.interval);
        let deadline = no_disk.map(|_| Deadline { since: began, most: args.dump.max_stall });
        let mut meanwhile = Meanwhile { stop, disk: disk.as_mut(), look, directory: there, interval, store, deadline };
        let given_up = record.as_ref().map_or(0, |record| record.given.files);
        let claimed = match &record {
            // Nothing may be asked of the store, but the record knows.
            Some(record) if record.committed && args.destination.write_only => {
                Claimed::committed(store, &prefix, &header)
            }
            _ => {
                let (is_original, prefix) = (seen_alive || child.is_some(), prefix.clone());
                let claiming = Claiming { args, store, prefix, header: &header, given_up, is_original };
                match meanwhile.wait(claiming.claim(&mut dump, &directory)).await {
                    Ok(claimed) => claimed?,
                    Err(interruption) => return Err(interruption.failure(args, child, store, totals).await),
                }
            }
        };
        let Claimed { claim, earlier, before, is_complete } = claimed;
        let is_new = before.is_none() && !is_complete;
        let (prefix, header) = (claim.prefix().clone(), claim.header().clone());
        totals.destination = Some(store.uri(&prefix.directory()));
        recorder.claimed(&place_of(store, &prefix));
        // Where the claim is pruned, or may not be read, nothing else tells the next run what only this one can see.
        let (notes, facts) = (Arc::clone(&recorder), header.clone());
        let is_noted = aside(move || notes.note(|record| record.dumper.take_in(&facts)));
        if !unless_stopped(stop, is_noted).await? && no_disk.is_some() {
            return Err(cannot_be_noted(&directory));
        }
        claim.check_asked()?;
        totals.left_out.clone_from(&header.left_out);
        // Where all is there nothing is sent.
        let wait = claim.wait_before_use().filter(|_| !is_complete);
        let claim = SharedClaim::new(claim);
        totals.notes = Some(Notes { recorder: Arc::clone(&recorder), claim: Some(claim.clone()) });
        let (claim_of, is_to_wait, kind) = (claim.clone(), wait.is_some(), recorder.kind());
        let memory = no_disk.map(|no_disk| no_disk.memory);
        let ours = Ours { args, prefix, claim: claim_of, header: &header, recorder, is_to_wait, is_complete, memory };
        let transfer = ours.transfer(store, &directory, &dump, earlier);
        let find_left = async {
            transfer.writer.find_left_uploads().await;
            if is_new {
                // What was begun under a prefix that nobody had claimed is of no dump that could be continued.
                transfer.writer.abort_left().await;
            }
        };
        if let Err(interruption) = meanwhile.wait(find_left).await {
            return Err(interruption.failure(args, child, store, totals).await);
        }
        let streaming = no_disk.map(|no_disk| Streaming::new(no_disk, args, header.dumper_version.as_deref()));
        let shared = Arc::new(Shared::new(args.dump.settle, transfer, streaming));
        if kind == Kind::Streams {
            shared.state().take_streams();
        } else if !args.destination.write_only && !is_complete && seen_alive {
            let begun = begin_following(args, &shared, &directory, dump.closed_by);
            unless_stopped(stop, begun).await?;
        }
        shared.state().remember(record.as_ref().map(|record| record.seen).unwrap_or_default());
        Ok(Self {
            args,
            store: store.clone(),
            child,
            stop,
            totals,
            directory,
            dump,
            shared,
            header,
            claim,
            is_complete,
            earlier: EarlierRuns::of(record.as_ref(), is_new),
            disk,
            began,
            is_lost: false,
            exit: None,
            ended: None,
            strangers: Strangers::new(),
            receiving: JoinSet::new(),
            manifest_sha256: None,
        })
    }

    /// Where the dump goes, for messages.
    pub(super) fn destination(&self) -> String {
        self.store.uri(&self.shared.transfer.writer.prefix.directory())
    }

    /// Uploads the dump and commits it.
    pub async fn run(&mut self, alive: bool) -> Result<(), Failure> {
        self.begin_receiving();
        let result = Box::pin(self.upload_and_commit(alive)).await;
        if result.is_err() {
            self.forsake_rows().await;
        }
        let counts = self.shared.state().counts();
        self.totals.files = counts.uploaded;
        self.totals.bytes = counts.uploaded_bytes;
        self.totals.failed = self.obstacles();
        self.totals.manifest_sha256 = self.manifest_sha256.take();
        result
    }

    async fn upload_and_commit(&mut self, alive: bool) -> Result<(), Failure> {
        let ended = self.watch_exit(alive).await;
        let phase = if alive { Phase::Writing } else { Phase::Ended };
        if alive {
            self.store.wait_for_ever();
        } else {
            self.dump_was_ended(&ended);
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

    /// Of a dump that was found ended patience counts from when it was found: what was waited for the store before that
    /// is not waited for twice.
    fn dump_was_ended(&self, ended: &Notify) {
        self.store.wait_for(self.began, self.args.transfer.retry_for);
        ended.notify_one();
    }

    /// Learns mydumper's exit status as soon as the dump has ended, and writes it into the claim: if we are killed
    /// before the last file is uploaded, the next run knows what this one saw.
    async fn watch_exit(&mut self, alive: bool) -> Arc<Notify> {
        let not_before = exits_not_before(&self.dump, &self.header).await;
        let sources = ExitSources {
            child: self.child.cloned(),
            writer: self.dump.writer().cloned(),
            file: self.args.dump.exit_status_file.clone().map(|path| ExitStatusFile::new(path, not_before)),
        };
        let (known, claim) = (self.header.dumper_exit, self.claim.clone());
        let recorder = Arc::clone(&self.shared.transfer.disposal.recorder);
        // A dump that had ended before we came has no process left, but a script may still write its file.
        let patience = if alive || sources.file.is_some() { self.args.dump.wait } else { Duration::ZERO };
        let ended = Arc::new(Notify::new());
        let has_ended = Arc::clone(&ended);
        self.exit = Some(tokio::task::spawn_local(async move {
            has_ended.notified().await;
            let exit = sources.wait(patience).await;
            // What an earlier run saw of mydumper itself tells more than a wrapper's success.
            let tells_less = exit.is_unseen() && !exit.is_failure() && !known.is_unseen();
            if exit == DumperExit::NOT_SEEN || tells_less {
                return known;
            }
            aside(move || recorder.note(|record| record.dumper.exit = Some(exit))).await;
            if let Err(error) = claim.note(move |header| header.dumper_exit = exit).await {
                warn!("mydumper's exit status cannot be written into the claim: {error}");
            }
            exit
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
            self.header.dumper_exit = joined(seen)?;
        }
        self.totals.dumper_exit = Some(self.header.dumper_exit);
        Ok(self.header.dumper_exit)
    }

    /// Follows the dump until nothing is left to do, or until something else ends it.
    pub(super) async fn follow(&mut self, phase: Phase) -> Result<Ending, Failure> {
        let shared = Arc::clone(&self.shared);
        // Files that are hashed, and short ones that are opened and given up together, beside those that are sent.
        let beside = self.shared.transfer.writer.hasher.side_by_side() + 4 * TOGETHER;
        let files = self.args.transfer.workers + beside;
        let watched = Arc::clone(&self.shared);
        let work = move |job: Job| {
            let shared = Arc::clone(&shared);
            async move { shared.work(job).await }
        };
        let pool = Pool::start(files, work, move |why| watched.end(End::Panicked(why)));
        let disk = match self.disk.take() {
            Some(disk) => disk,
            None => DiskWatch::idle(),
        };
        let guard = self.guard_claim(disk.found_full());
        let end = self.watch(&pool, phase, disk).await;
        guard.abort();
        match end {
            End::Drained(ending) => {
                pool.finish().await;
                Ok(ending)
            }
            End::Lost(ending) => {
                // Dropped with its workers: nothing more may be touched.
                drop(pool);
                let (why, standing) = match ending {
                    Ending::Overwritten => ("another dump has begun in the directory", Standing::Overwritten),
                    _ if self.is_current().await => ("metadata.partial was removed", Standing::Broken),
                    _ => ("the directory was moved or removed", Standing::Moved),
                };
                Err(self.lost(why, standing).await)
            }
            End::GaveUp(ClaimError::Store(error)) => {
                drop(pool);
                let what = if error.is_outage() {
                    "the store is out of reach, and time is up"
                } else {
                    "the store refuses it, and time is up"
                };
                Err(Failure::failed(anyhow::Error::new(error).context(what)))
            }
            End::GaveUp(error @ ClaimError::Lost(_)) => {
                drop(pool);
                self.totals.standing = Standing::Taken;
                let hint = "nothing more was sent or removed here; give each dump a prefix of its own, with {host} and \
                            the time in it";
                Err(Failure::failed(hinted(error, hint)))
            }
            End::Panicked(why) => {
                drop(pool);
                Err(fault(why))
            }
            End::Held(held) => {
                drop(pool);
                Err(self.end_held(held).await)
            }
            End::Rows(why) => {
                drop(pool);
                Err(Failure::failed(anyhow!(why)))
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

    async fn is_current(&self) -> bool {
        let directory = Arc::clone(&self.directory);
        aside(move || directory.is_current()).await
    }

    async fn watch(&mut self, pool: &Pool<Job>, phase: Phase, disk: DiskWatch) -> End {
        let look = look_at(self.args, &self.dump, &self.header, &self.shared.transfer.writer.prefix, phase);
        let look = match unless_stopped(self.stop, look).await {
            Ok(look) => look,
            Err(_) => return End::Stopped(self.stop.wait().await),
        };
        let (totals, store, retry_for) = (&mut *self.totals, &self.store, self.args.transfer.retry_for);
        let (shared, prove_only) = (Arc::clone(&self.shared), self.shared.transfer.prove_only);
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
                // While the store is down the disk is of interest before all else, and a line has room for one forecast.
                let note = match (note, down) {
                    (Some(note), Some(down)) if note.len() + down.len() < NOTES_MAX => Some(format!("{note} · {down}")),
                    (note, down) => note.or(down),
                };
                let (files, given_back) = (shared.transfer.writer.gate.sending(), shared.transfer.giving_back.bytes());
                let sent = Sent { files, bytes: store.sent_bytes(), given_back };
                totals.show(if prove_only { "comparing with the bucket" } else { word(phase) }, state, sent, note);
            },
        };
        let end = watcher.follow(pool).await;
        self.strangers = watcher.strangers;
        let held = watcher.disk.held();
        self.totals.held += held;
        end
    }

    /// The directory is not this dump's any more.
    async fn lost(&mut self, why: &str, standing: Standing) -> Failure {
        self.is_lost = true;
        if let Some(exit) = self.exit.take() {
            // It would write the claim anew, over the verdict.
            exit.abort();
        }
        let metadata = DumpMetadata::default();
        let text = self.dump.read_again().await.unwrap_or_default();
        let failure = self.conclude_incomplete(why.to_owned(), DumperExit::NOT_SEEN, &metadata, text).await;
        self.totals.standing = standing;
        failure
    }

    /// mydumper was held for too long: its snapshot stays open, and its locks may. Only ours is ended by us.
    async fn end_held(&mut self, held: HeldTooLong) -> Failure {
        if self.child.is_some()
            && let Some(exit) = self.exit.take()
        {
            // It would write the claim anew, without the mark.
            exit.abort();
        }
        end_held(held, self.args, self.child, &self.store, self.totals).await
    }

    /// Takes no new files, gives running requests their time, aborts what is not done.
    async fn stop_orderly(&mut self, pool: Pool<Job>) {
        info!("stopping: running uploads have {} s to end", self.args.dump.stop_timeout.as_secs());
        if let Some(exit) = self.exit.take() {
            // It would write the claim anew, without the mark.
            exit.abort();
        }
        self.end_receiving().await;
        let child = async {
            if let Some(child) = self.child {
                stop_child(child, self.args, &self.store, self.totals).await;
            }
        };
        self.shared.transfer.writer.gate.stop();
        let uploads = tokio::time::timeout(self.args.dump.stop_timeout, pool.stop());
        let (_, ended) = tokio::join!(child, uploads);
        if ended.is_err() {
            warn!("some uploads did not end in time; their files are still local");
        }
        let aborted = tokio::time::timeout(ABORT_TIMEOUT, self.shared.transfer.writer.abort_all()).await;
        if aborted.is_err() {
            warn!("unfinished uploads could not be aborted in time; the next run does it");
        }
    }
}

/// Files that are being written go up meanwhile, where it can be known which are.
async fn begin_following(args: &UploadArgs, shared: &Shared, directory: &Arc<DumpDir>, closed_by: ClosedBy) {
    let can_be_followed = closed_by != ClosedBy::End;
    if can_be_followed {
        shared.state().follow_growing(shared.transfer.writer.cut.growing());
    }
    let Some(most) = args.dump.max_local.filter(|_| args.dump.give_back) else { return };
    let there = Arc::clone(directory);
    let why_not = match can_be_followed {
        true => aside(move || there.why_not_given_back()).await,
        false => Some("it cannot be known which files are closed".to_owned()),
    };
    match why_not {
        Some(why) => warn!("no blocks of files that are still being written are given back: {why}"),
        None => shared.state().give_back_above(most.0 / 2),
    }
}

/// The phase as the status line has it.
fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Writing => "dump running",
        Phase::Ended => "dump ended",
        Phase::Committing => "committing",
    }
}
