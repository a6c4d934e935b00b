//! After the last file: how did mydumper end, is the dump whole, does the bucket hold exactly it? Then manifest, then
//! `metadata`, the commit.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use tracing::{info, warn};

use super::advice::Standing;
use super::bucket_check::BucketCheck;
use super::follow::Shared;
use super::session::Session;
use super::start::ending_of;
use crate::aside::aside;
use crate::content::Closeness;
use crate::dump_dir::Removal;
use crate::exit_status::Failure;
use crate::hint::{find, hinted};
use crate::model::dump_metadata::DumpMetadata;
use crate::model::file_kind::is_never_data;
use crate::model::file_name::{FileName, METADATA, METADATA_PARTIAL};
use crate::model::full_disk::FullDisk;
use crate::model::manifest::{DumpStateWord, DumperExit, ManifestHeader, ObjectRecord};
use crate::model::row_proof::RowProof;
use crate::model::state::{DumpState, Local, Phase};
use crate::model::units::first_few_of;
use crate::model::verdict::{Ending, Evidence, doubt, why_incomplete, wrongly_empty};
use crate::s3::StoreError;
use crate::transfer::Commit;

/// Files that are named in a message at most.
const NAMED_MAX: usize = 5;
/// What helps where the disk was full.
const NEXT_TIME: &str = "the disk was full: let mydumper write smaller files, which go up and free the disk while it \
                         writes (--chunk-filesize), or let it be paused in time (--max-local, --min-free)";
/// How often a dump whose kept files changed is gone over again before that counts as a failure.
const REOPENINGS_MAX: u32 = 5;

/// What going over the dump came to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is committed.
    Done,
    /// It was changed meanwhile: once more.
    Again,
}

impl Session<'_> {
    /// Why the dump is not whole, if it is not; and what doubt a full disk leaves all the same.
    fn judge(&self, ending: Ending, exit: DumperExit, metadata: &DumpMetadata) -> (Option<String>, Option<FullDisk>) {
        let (broken, unaccounted) = (self.broken(metadata), self.why_unaccounted());
        let state = self.shared.state();
        let uploaded = state.uploaded().map(|(name, _)| name);
        let names: Vec<&str> = uploaded.chain(state.waiting()).map(FileName::as_str).collect();
        let (lost, rows) = (state.lost(), self.row_proof(&state, metadata));
        if let Some(why) = self.why_interrupted() {
            return (Some(why), None);
        }
        let evidence = Evidence {
            ending,
            metadata,
            exit,
            exit_is_required: self.args.dump.require_exit_status || self.args.dump.exit_status_file.is_some(),
            wrapper_exit_is_enough: self.args.dump.accept_wrapper_exit,
            stopped_by_us: self.header.told_to_stop,
            allow_empty: self.args.dump.allow_empty,
            names: &names,
            broken: &broken,
            lost: &lost,
            rows: &rows,
            full_disk: self.full_disk(),
            survives_full_disk: self.shared.transfer.looks.survives_full_disk,
            unaccounted: unaccounted.as_deref(),
        };
        (why_incomplete(&evidence), doubt(&evidence))
    }

    /// How full the disk was at its fullest while mydumper wrote, as far as any run saw it.
    pub fn full_disk(&self) -> Option<FullDisk> {
        self.header.full_disk.max(self.directory.full_disk())
    }

    /// The rows in the files, where they were counted, beside those that mydumper counted.
    fn row_proof(&self, state: &DumpState, metadata: &DumpMetadata) -> RowProof {
        let is_counted = self.shared.streaming.is_some() || self.shared.transfer.closeness() == Closeness::Whole;
        if !is_counted {
            return RowProof::default();
        }
        let proof = RowProof::of(metadata, state.uploaded().map(|(name, uploaded)| (name.as_str(), uploaded.rows)));
        info!("{}", proof.in_words());
        proof
    }

    /// Files whose content is broken: those that were found so when they were read, and empty ones that cannot be right.
    fn broken(&self, metadata: &DumpMetadata) -> Vec<(String, String)> {
        let state = self.shared.state();
        let sizes = state.uploaded().map(|(name, uploaded)| (name.as_str(), uploaded.object.size));
        let empty = wrongly_empty(metadata, sizes).into_iter().map(|(name, why)| (name.to_owned(), why.to_owned()));
        let found = state
            .uploaded()
            .filter_map(|(name, uploaded)| uploaded.broken.as_ref().map(|why| (name.to_string(), why.to_string())));
        let mut broken: Vec<_> = found.chain(empty).collect();
        broken.sort_unstable();
        broken
    }

    /// What went wrong beside the dump itself: each is a reason for status 1 and no commit.
    pub fn obstacles(&self) -> Vec<(String, String)> {
        let failed = self.shared.state().failed();
        let failed = failed.into_iter().map(|(name, why)| (name.to_string(), why));
        let strangers = self.strangers.iter().map(|(name, why)| (name.to_string_lossy().into_owned(), why.clone()));
        failed.chain(strangers).collect()
    }

    /// Every kept file is looked at once more; what changed since it was read counts as not uploaded.
    pub async fn reopen_changed(&self) -> usize {
        let (mut kept, directory) = (self.shared.state().kept(), Arc::clone(&self.directory));
        let changed = aside(move || {
            kept.retain(|(name, read)| directory.identity(name.as_str()).is_ok_and(|there| there != *read));
            kept
        })
        .await;
        for (name, _) in &changed {
            warn!(file = %name, "it changed after its upload (will be uploaded again)");
            self.shared.state().reopen(name);
        }
        changed.len()
    }

    /// The dump is gone over: what stands in the way, is it whole, does the bucket hold it? Then the commit.
    pub async fn conclude(&mut self, ending: Ending) -> Result<(), Failure> {
        let exit = self.dumper_exit().await?;
        if self.is_complete {
            return self.conclude_complete().await;
        }
        for _ in 0..REOPENINGS_MAX {
            // First once more: mydumper may have written while its exit was waited for. On a full disk 1.0.1 closes files
            // after its last rename.
            self.follow(Phase::Ended).await?;
            if self.reopen_changed().await == 0 && self.judge_and_commit(ending, exit).await? == Step::Done {
                return self.leave_clean().await;
            }
        }
        Err(Failure::failed(anyhow!("files of the dump are changed again and again after mydumper's end")))
    }

    async fn judge_and_commit(&mut self, ending: Ending, exit: DumperExit) -> Result<Step, Failure> {
        let text = self.dump.read_again().await.context("cannot read the dump's metadata")?;
        let metadata = &DumpMetadata::parse(&text);
        self.shared.transfer.writer.abort_left_and_name_others().await;
        // What an earlier run left belongs to what is judged.
        self.adopt_earlier().await.map_err(not_committed)?;
        self.count_in_the_bucket(metadata).await.map_err(|error| not_committed(error.into()))?;
        // Once more: a mydumper of which nothing tells may have been slow with its last rename.
        let ending = if ending == Ending::Died { ending_of(&self.dump, &self.directory).await } else { ending };
        let (why_incomplete, doubt) = self.judge(ending, exit, metadata);
        if let Some(reason) = why_incomplete {
            return Err(self.conclude_incomplete(reason, exit, metadata, text).await);
        }
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            return Err(not_committed(obstructed(&obstacles).error));
        }
        self.believe_claim().await?;
        if !self.args.destination.write_only {
            self.check_bucket().await.map_err(not_committed)?;
        }
        let commit = self.foresee_metadata().await?;
        // What was judged is what goes up, or it is judged anew.
        if self.dump.read_again().await.ok().as_ref() != Some(&text) {
            return Ok(Step::Again);
        }
        self.shared
            .transfer
            .expect_commit(Commit { hash: commit.hash.clone(), condition: self.claim.lock().await.commit_condition() });
        let header = ManifestHeader { full_disk: doubt, ..self.final_header(DumpStateWord::Complete, exit, metadata) };
        self.totals.full_disk = doubt;
        self.write_manifest(header, metadata, Some(commit)).await.map_err(not_committed)?;
        self.follow(Phase::Committing).await?;
        if self.shared.state().find_uploaded(METADATA).is_none() {
            if self.dump.read_again().await.ok().as_ref() == Some(&text) {
                return Err(not_committed(anyhow!("metadata could not be uploaded")));
            }
            // What failed was what it is not any more.
            self.shared.state().reopen(&METADATA.parse().map_err(anyhow::Error::from)?);
            return Ok(Step::Again);
        }
        self.totals.standing = Standing::Committed;
        self.check_commit().await?;
        let late = self.came_late().await;
        if let Some(first) = late.first() {
            warn!("files came or changed while the dump was being committed, '{first}' among them");
            return self.take_back_for(late).await;
        }
        info!("committed {}", self.destination());
        Ok(Step::Done)
    }

    /// Files that turned up or changed while the dump was being committed: it was judged without them.
    async fn came_late(&mut self) -> Vec<FileName> {
        // Of another dump that has begun there meanwhile nothing is ours.
        if self.dump.lost(&self.directory).await.is_some() {
            return Vec::new();
        }
        let (shared, directory, strangers) =
            (Arc::clone(&self.shared), Arc::clone(&self.directory), self.strangers.clone());
        aside(move || {
            let known = |name: &str| {
                let local = shared.state().find_uploaded(name).map(|uploaded| uploaded.local.clone());
                match local {
                    Some(Local::Kept(kept)) => directory.identity(name).is_ok_and(|there| there == *kept),
                    Some(Local::Removed) | None => false,
                }
            };
            let names = directory.names().unwrap_or_default();
            let names = names.iter().filter(|name| !strangers.contains_key(*name)).filter_map(|name| name.to_str());
            let is_file = |name: &&str| directory.open_file(name).is_ok();
            let late = names.filter(|name| !is_never_data(name) && !known(name)).filter(is_file);
            late.filter_map(|name| name.parse().ok()).collect()
        })
        .await
    }

    /// The commit does not hold what is there now: it is taken back, and the dump gone over once more.
    async fn take_back_for(&mut self, late: Vec<FileName>) -> Result<Step, Failure> {
        if self.args.destination.write_only {
            let why = "it came after the commit, and nothing may be deleted from the store".to_owned();
            return Err(obstructed(&late.into_iter().map(|name| (name.to_string(), why.clone())).collect::<Vec<_>>()));
        }
        self.take_back_commit().await.map_err(not_committed)?;
        Ok(Step::Again)
    }

    /// Deletes the `metadata` that this run put, if it is still ours.
    async fn take_back_commit(&mut self) -> anyhow::Result<()> {
        self.totals.standing = Standing::Underway;
        let key = format!("{}{METADATA}", self.shared.transfer.writer.prefix.directory());
        let ours = self.shared.state().find_uploaded(METADATA).and_then(|uploaded| uploaded.object.etag.clone());
        let there = self.store.head(&key).await?;
        // Another one's stays.
        if there.is_some_and(|there| there.etag == ours) {
            self.store.delete(&key).await?;
        }
        let name: FileName = METADATA.parse()?;
        self.shared.state().reopen(&name);
        Ok(())
    }

    /// Looks at the bucket once more. Somebody may have cleared the prefix between the last look and the commit; then
    /// the commit is taken back, unless the prefix is another's by now: what stands there is not ours to touch.
    async fn check_commit(&mut self) -> Result<(), Failure> {
        if self.args.destination.write_only {
            return Ok(());
        }
        let Err(error) = self.check_bucket().await else { return Ok(()) };
        if find::<StoreError>(&error).is_some() {
            return Err(Failure::failed(
                error.context("the dump is committed, but the bucket cannot be looked at again"),
            ));
        }
        if !self.claim.lock().await.is_lost() {
            self.take_back_commit().await.map_err(not_committed)?;
        }
        Err(not_committed(error))
    }

    /// The bucket has had this dump as a whole before: what is left of it here is proved and removed.
    async fn conclude_complete(&mut self) -> Result<(), Failure> {
        self.totals.standing = Standing::Committed;
        if self.obstacles().is_empty() {
            self.follow(Phase::Committing).await?;
        }
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            return Err(obstructed(&obstacles));
        }
        info!("{} has this dump already", self.destination());
        self.leave_clean().await
    }

    async fn leave_clean(&mut self) -> Result<(), Failure> {
        let (directory, recorder) = (Arc::clone(&self.directory), Arc::clone(&self.shared.transfer.disposal.recorder));
        let keep = self.args.dump.keep;
        let names = aside(move || {
            // From now on what is left here only waits for its removal, and a later run must know that. What is kept is
            // all of the dump, and may go up again.
            if !keep {
                recorder.note(|record| record.committed = true);
            }
            directory.names().unwrap_or_default()
        });
        for name in names.await {
            let name = name.to_string_lossy();
            if is_never_data(&name) {
                warn!(file = %name, "it is mydumper's own and stays: mydumper 1.x refuses a directory that is not empty");
            }
        }
        let mut left = self.remove_names().await;
        left.extend(self.remove_leftovers().await);
        if left.is_empty() { Ok(()) } else { Err(obstructed(&left)) }
    }

    /// Whether the bucket holds exactly this dump: names, sizes and ETags, and our claim.
    pub async fn check_bucket(&self) -> anyhow::Result<()> {
        let check = BucketCheck::make(&self.store, &self.shared).await?;
        let mut claim = self.claim.lock().await;
        let listed = check.manifest.as_ref().and_then(|manifest| manifest.etag.as_ref());
        if listed.is_none() || listed != claim.etag() {
            // Some listings lag: the object itself tells.
            claim.check().await?;
        }
        drop(claim);
        match check.differences(NAMED_MAX) {
            None => Ok(()),
            Some(wrong) => Err(anyhow!("{} does not hold exactly this dump: {wrong}", self.destination())),
        }
    }

    /// Removes what is left: kept files that could not be removed before, and at the very end the dump's lead.
    pub async fn remove_leftovers(&self) -> Vec<(String, String)> {
        if self.args.dump.keep {
            return Vec::new();
        }
        let shared = Arc::clone(&self.shared);
        aside(move || remove_kept(&shared)).await
    }

    /// Removes `metadata.partial` or `metadata` of a dump that is not committed: its text is in the manifest, and the
    /// next night must find an empty directory.
    ///
    /// `judged` is how the dump ended by its verdict: where mydumper renames its lead after all, that verdict is wrong.
    pub async fn remove_lead(&self, judged: Ending) -> Vec<(String, String)> {
        if self.args.dump.keep {
            return Vec::new();
        }
        let (directory, lead) = (Arc::clone(&self.directory), self.dump.sighted.lead.inode);
        let remove = move || {
            let mut failed = Vec::new();
            for name in [METADATA_PARTIAL, METADATA] {
                let Ok(identity) = directory.identity(name) else { continue };
                if (identity.device, identity.inode) != lead {
                    continue;
                }
                if judged == Ending::Died && name == METADATA {
                    failed.push((name.to_owned(), "mydumper has just finished it, though it seemed dead".to_owned()));
                } else if let Err(error) = directory.remove_verified(name, &identity) {
                    failed.push((name.to_owned(), format!("it cannot be removed: {error}")));
                }
            }
            failed
        };
        aside(remove).await
    }

    /// The dump is not whole: what there is stays in the bucket without `metadata`, and the manifest says why.
    pub async fn conclude_incomplete(
        &mut self,
        reason: String,
        exit: DumperExit,
        metadata: &DumpMetadata,
        text: Vec<u8>,
    ) -> Failure {
        let judged = ending_of(&self.dump, &self.directory).await;
        let mut header = self.final_header(DumpStateWord::Incomplete, exit, metadata);
        header.reason = Some(reason.clone());
        self.totals.standing = Standing::Broken;
        header.metadata_text = Some(String::from_utf8_lossy(&text).into_owned());
        let why = format!("the dump is incomplete: {reason}");
        if let Err(failure) = self.believe_claim().await {
            return Failure { error: failure.error.context(why), ..failure };
        }
        if let Err(error) = self.adopt_earlier().await {
            return Failure::failed(error.context(format!("{why}; and its manifest cannot be written")));
        }
        if let Err(error) = self.write_manifest(header, metadata, None).await {
            return Failure::failed(error.context(format!("{why}; and its manifest cannot be written")));
        }
        let mut left = self.obstacles();
        // While files could not be brought to safety the dump's lead stays, so that a restart finds the dump.
        if left.is_empty() && !self.is_lost {
            // The lead last, or first, for the same reasons as `metadata` in `remove_leftovers`.
            left = if self.args.destination.write_only { self.remove_lead(judged).await } else { Vec::new() };
            left.extend(self.remove_names().await);
            left.extend(self.remove_leftovers().await);
            left.extend(self.remove_lead(judged).await);
        }
        if left.is_empty() || self.is_lost {
            return Failure::incomplete(match self.full_disk() {
                Some(FullDisk::Was) => hinted(anyhow!(why), NEXT_TIME),
                _ => anyhow!(why),
            });
        }
        // Status 1 stands before 3 when both hold.
        let mut failure = obstructed(&left);
        failure.error = failure.error.context(why);
        failure
    }

    /// The record that `metadata` will have; in the manifest before it is uploaded, because the manifest goes first.
    pub async fn foresee_metadata(&self) -> anyhow::Result<ObjectRecord> {
        let name: FileName = METADATA.parse().map_err(|error| anyhow!("{METADATA}: {error}"))?;
        self.shared.transfer.foresee(&name).await.with_context(|| format!("cannot read '{METADATA}'"))
    }
}

/// Removes all that was uploaded and kept. Blocks.
fn remove_kept(shared: &Shared) -> Vec<(String, String)> {
    let mut left = shared.state().kept();
    // `metadata` last: while it is there, a restart finds the dump.
    left.sort_by_key(|(name, _)| name.is_metadata());
    let mut failed = Vec::new();
    for (name, identity) in left {
        let Some(object) = shared.state().find_uploaded(name.as_str()).map(|there| there.object.clone()) else {
            continue;
        };
        match shared.transfer.giving_up().release(&name, &identity, &object) {
            Ok(Removal::Removed | Removal::Absent) => shared.state().removed(&name),
            Ok(Removal::Changed) => failed.push((name.to_string(), "it changed after its upload".to_owned())),
            Err(error) => failed.push((name.to_string(), format!("it is uploaded, but cannot be removed: {error}"))),
        }
    }
    failed
}

fn not_committed(error: anyhow::Error) -> Failure {
    Failure::failed(error.context("the dump is not committed"))
}

/// Status 1: what could not be done, each file with its reason.
pub fn obstructed(obstacles: &[(String, String)]) -> Failure {
    let shown: Vec<_> = obstacles.iter().take(NAMED_MAX).map(|(name, why)| format!("'{name}': {why}")).collect();
    let shown = first_few_of(&shown, obstacles.len(), NAMED_MAX, "; ");
    let error = anyhow!("{} files stand in the way: {shown}", obstacles.len());
    Failure::failed(hinted(error, "mend what stands in the way of each file"))
}
