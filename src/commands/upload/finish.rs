//! After the last file: how did mydumper end, is the dump whole, does the bucket hold exactly it? Then manifest, then
//! `metadata`, the commit.

use std::collections::HashMap;
use std::io::{BufWriter, Seek, Write};
use std::sync::PoisonError;

use anyhow::{Context, anyhow};
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::bucket_check::BucketCheck;
use super::claim;
use super::session::Session;
use super::start::ending_of;
use crate::content::Closeness;
use crate::dump_dir::Removal;
use crate::exit_status::{Failure, Status};
use crate::hint::{find, hinted};
use crate::model::dump_metadata::DumpMetadata;
use crate::model::etag::ETag;
use crate::model::file_kind::{FileKind, KnownNames, NameParts, is_never_data};
use crate::model::file_name::{FileName, METADATA, METADATA_PARTIAL};
use crate::model::manifest::{
    self, ContentHash, DumpStateWord, DumperExit, ManifestFile, ManifestHeader, ObjectRecord, Proof,
};
use crate::model::row_proof::RowProof;
use crate::model::state::{DumpState, Local, Phase, Uploaded};
use crate::model::verdict::{Ending, Evidence, why_incomplete, wrongly_empty};
use crate::platform;
use crate::s3::{ObjectHead, StoreError};
use crate::transfer::{BROKEN, DUMP_ID, PART_SIZE, ROWS, SHA256};

/// Files that are named in a message at most.
const NAMED_MAX: usize = 5;
/// How often a dump whose kept files changed is gone over again before that counts as a failure.
const REOPENINGS_MAX: u32 = 5;

impl Session<'_> {
    /// Why the dump is not whole, if it is not.
    pub fn why_incomplete(&self, ending: Ending, exit: DumperExit, metadata: &DumpMetadata) -> Option<String> {
        let broken = self.broken(metadata);
        let state = self.shared.state();
        let uploaded = state.uploaded().map(|(name, _)| name);
        let names: Vec<&str> = uploaded.chain(state.waiting()).map(FileName::as_str).collect();
        let (lost, rows) = (state.lost(), self.row_proof(&state, metadata));
        why_incomplete(&Evidence {
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
        })
    }

    /// The rows in the files, where they were counted, beside those that mydumper counted.
    fn row_proof(&self, state: &DumpState, metadata: &DumpMetadata) -> RowProof {
        if self.shared.transfer.closeness != Closeness::Whole {
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
    pub fn reopen_changed(&self) -> usize {
        let mut state = self.shared.state();
        let changed: Vec<_> = state
            .kept()
            .into_iter()
            .filter(|(name, identity)| self.directory.identity(name.as_str()).is_ok_and(|there| there != *identity))
            .collect();
        for (name, _) in &changed {
            warn!(file = %name, "it changed after its upload (will be uploaded again)");
            state.reopen(name);
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
            if self.reopen_changed() == 0 {
                let text = self.dump.sighted.read_again().context("cannot read the dump's metadata")?;
                let metadata = DumpMetadata::parse(&text);
                return self.judge_and_commit(ending, exit, &metadata, text).await;
            }
        }
        Err(Failure::failed(anyhow!("files of the dump are changed again and again after mydumper's end")))
    }

    async fn judge_and_commit(
        &mut self,
        ending: Ending,
        exit: DumperExit,
        metadata: &DumpMetadata,
        text: Vec<u8>,
    ) -> Result<(), Failure> {
        self.abort_left().await;
        // What an earlier run left belongs to what is judged.
        self.adopt_earlier().await.map_err(not_committed)?;
        // Once more: a mydumper of which nothing tells may have been slow with its last rename.
        let ending = if ending == Ending::Died { ending_of(&self.dump, &self.directory) } else { ending };
        if let Some(reason) = self.why_incomplete(ending, exit, metadata) {
            return Err(self.conclude_incomplete(reason, exit, metadata, text).await);
        }
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            return Err(obstructed(&obstacles));
        }
        if !self.args.destination.write_only {
            self.check_bucket().await.map_err(not_committed)?;
        }
        let commit = self.foresee_metadata().await?;
        let header = self.final_header(DumpStateWord::Complete, exit, metadata);
        self.write_manifest(header, metadata, Some(commit)).await.map_err(not_committed)?;
        self.follow(Phase::Committing).await?;
        if self.shared.state().find_uploaded(METADATA).is_none() {
            return Err(not_committed(anyhow!("metadata could not be uploaded")));
        }
        self.check_commit().await?;
        info!("committed {}", self.destination());
        self.leave_clean()
    }

    /// Aborts uploads that an earlier run began, and those whose id never reached us: the answer was lost.
    async fn abort_left(&self) {
        let transfer = &self.shared.transfer;
        let left = claim::left_uploads(self.args, &self.store, &transfer.prefix).await;
        *transfer.left_uploads.lock().unwrap_or_else(PoisonError::into_inner) = left;
        transfer.abort_left().await;
    }

    /// Looks at the bucket once more. Somebody may have cleared the prefix between the last look and the commit; then
    /// the commit is taken back.
    async fn check_commit(&self) -> Result<(), Failure> {
        if self.args.destination.write_only {
            return Ok(());
        }
        let Err(error) = self.check_bucket().await else { return Ok(()) };
        if find::<StoreError>(&error).is_some() {
            return Err(Failure::failed(
                error.context("the dump is committed, but the bucket cannot be looked at again"),
            ));
        }
        let name: FileName = METADATA.parse().map_err(|error| not_committed(anyhow!("{METADATA}: {error}")))?;
        let key = self.shared.transfer.prefix.key(&name).map_err(|error| not_committed(error.into()))?;
        let ours = self.shared.state().find_uploaded(METADATA).and_then(|uploaded| uploaded.object.etag.clone());
        let there = self.store.head(&key).await.map_err(|error| not_committed(error.into()))?;
        // Another one's stays.
        if there.is_some_and(|there| there.etag == ours) {
            self.store.delete(&key).await.map_err(|error| not_committed(error.into()))?;
        }
        Err(not_committed(error))
    }

    /// The bucket has had this dump as a whole before: what is left of it here is proved and removed.
    async fn conclude_complete(&mut self) -> Result<(), Failure> {
        if self.obstacles().is_empty() {
            self.follow(Phase::Committing).await?;
        }
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            return Err(obstructed(&obstacles));
        }
        info!("{} has this dump already", self.destination());
        self.leave_clean()
    }

    fn leave_clean(&mut self) -> Result<(), Failure> {
        for name in self.directory.names().unwrap_or_default() {
            let name = name.to_string_lossy();
            if is_never_data(&name) {
                warn!(file = %name, "it is mydumper's own and stays: mydumper 1.x refuses a directory that is not empty");
            }
        }
        let left = self.remove_leftovers();
        if left.is_empty() { Ok(()) } else { Err(obstructed(&left)) }
    }

    /// Whether the bucket holds exactly this dump: names, sizes and ETags, and our claim.
    pub async fn check_bucket(&self) -> anyhow::Result<()> {
        let check = BucketCheck::make(&self.store, &self.shared).await?;
        let manifest = check.manifest.as_ref();
        if manifest.is_none_or(|manifest| manifest.etag.is_some() && manifest.etag != self.claim_etag) {
            return Err(anyhow!("another program has claimed {} meanwhile", self.destination()));
        }
        match check.differences(NAMED_MAX) {
            None => Ok(()),
            Some(wrong) => Err(anyhow!("{} does not hold exactly this dump: {wrong}", self.destination())),
        }
    }

    /// Takes in what an earlier run uploaded and removed here. The object itself says that it is of this dump.
    async fn adopt_earlier(&self) -> anyhow::Result<()> {
        let transfer = &self.shared.transfer;
        let unknown = |name: &&FileName| {
            let known = self.shared.state().find_uploaded(name.as_str()).is_some();
            !known && !name.is_metadata() && self.directory.identity(name.as_str()).is_err()
        };
        futures_util::stream::iter(transfer.earlier.keys().filter(unknown))
            .map(Ok::<_, anyhow::Error>)
            .try_for_each_concurrent(transfer.workers, |name| self.adopt(name))
            .await
    }

    async fn adopt(&self, name: &FileName) -> anyhow::Result<()> {
        let transfer = &self.shared.transfer;
        let head = self.store.head(&transfer.prefix.key(name)?).await?;
        let Some(head) = head.filter(|head| head.metadata.get(DUMP_ID) == Some(&transfer.dump_id)) else {
            return Ok(());
        };
        let broken = head.metadata.get(BROKEN).map(|why| why.as_str().into());
        let rows = head.metadata.get(ROWS).and_then(|rows| rows.parse().ok());
        self.shared
            .state()
            .adopt(name.clone(), Uploaded { object: record_of(head), local: Local::Removed, broken, rows });
        Ok(())
    }

    /// Writes the manifest with everything in it.
    async fn write_manifest(
        &mut self,
        header: ManifestHeader,
        metadata: &DumpMetadata,
        commit: Option<ObjectRecord>,
    ) -> anyhow::Result<()> {
        let file = self.manifest_file(header, metadata, commit).context("cannot write the manifest")?;
        let mut copy = file.try_clone().context("cannot read the manifest back")?;
        copy.rewind()?;
        let mut hasher = HashWriter(Sha256::new());
        std::io::copy(&mut copy, &mut hasher)?;
        let object = self.shared.transfer.put_own(&self.shared.transfer.prefix.manifest_key(), file).await?;
        self.claim_etag = object.etag;
        let sha256 = hasher.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.manifest_sha256 = Some(sha256);
        Ok(())
    }

    fn manifest_file(
        &self,
        mut header: ManifestHeader,
        metadata: &DumpMetadata,
        commit: Option<ObjectRecord>,
    ) -> std::io::Result<std::fs::File> {
        let state = self.shared.state();
        let mut objects: Vec<(&FileName, &ObjectRecord)> =
            state.uploaded().map(|(name, uploaded)| (name, &uploaded.object)).collect();
        let metadata_name: Option<FileName> = METADATA.parse().ok();
        if let (Some(name), Some(object)) = (&metadata_name, &commit) {
            objects.push((name, object));
        }
        objects.sort_by_key(|(name, _)| *name);
        let withdrawn = self.shared.transfer.withdrawn.lock().unwrap_or_else(PoisonError::into_inner);
        header.withdrawn =
            withdrawn.iter().filter(|name| state.find_uploaded(name.as_str()).is_none()).cloned().collect();
        header.total_files = objects.len() as u64;
        header.total_bytes = objects.iter().map(|(_, object)| object.size).sum();
        let describe = Describe::new(metadata, objects.iter().map(|(name, _)| name.as_str()));
        let file = platform::memory_file("manifest")?;
        let files = objects.iter().map(|(name, object)| describe.file(name, object));
        manifest::write(BufWriter::new(&file), &header, files)?;
        Ok(file)
    }

    /// Removes what is left: kept files that could not be removed before, and at the very end the dump's lead.
    pub fn remove_leftovers(&self) -> Vec<(String, String)> {
        if self.args.dump.keep {
            return Vec::new();
        }
        let mut state = self.shared.state();
        let mut left = state.kept();
        // `metadata` last: while it is there, a restart finds the dump. But where the bucket cannot be asked a restart
        // would take what is left of the dump for all of it: then `metadata` goes first.
        left.sort_by_key(|(name, _)| name.is_metadata() != self.args.destination.write_only);
        let mut failed = Vec::new();
        for (name, identity) in left {
            match self.directory.remove_verified(name.as_str(), &identity) {
                Ok(Removal::Removed | Removal::Absent) => state.removed(&name),
                Ok(Removal::Changed) => failed.push((name.to_string(), "it changed after its upload".to_owned())),
                Err(error) => {
                    failed.push((name.to_string(), format!("it is uploaded, but cannot be removed: {error}")))
                }
            }
        }
        failed
    }

    /// Removes `metadata.partial` or `metadata` of a dump that is not committed: its text is in the manifest, and the
    /// next night must find an empty directory.
    ///
    /// `judged` is how the dump ended by its verdict: where mydumper renames its lead after all, that verdict is wrong.
    pub fn remove_lead(&self, judged: Ending) -> Vec<(String, String)> {
        let mut failed = Vec::new();
        if self.args.dump.keep {
            return failed;
        }
        for name in [METADATA_PARTIAL, METADATA] {
            let Ok(identity) = self.directory.identity(name) else { continue };
            if (identity.device, identity.inode) != self.dump.sighted.inode {
                continue;
            }
            if judged == Ending::Died && name == METADATA {
                failed.push((name.to_owned(), "mydumper has just finished it, though it seemed dead".to_owned()));
            } else if let Err(error) = self.directory.remove_verified(name, &identity) {
                failed.push((name.to_owned(), format!("it cannot be removed: {error}")));
            }
        }
        failed
    }

    /// The dump is not whole: what there is stays in the bucket without `metadata`, and the manifest says why.
    pub async fn conclude_incomplete(
        &mut self,
        reason: String,
        exit: DumperExit,
        metadata: &DumpMetadata,
        text: Vec<u8>,
    ) -> Failure {
        let judged = ending_of(&self.dump, &self.directory);
        let mut header = self.final_header(DumpStateWord::Incomplete, exit, metadata);
        header.reason = Some(reason.clone());
        header.metadata_text = Some(String::from_utf8_lossy(&text).into_owned());
        let why = format!("the dump is incomplete: {reason}");
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
            left = if self.args.destination.write_only { self.remove_lead(judged) } else { Vec::new() };
            left.extend(self.remove_leftovers());
            left.extend(self.remove_lead(judged));
        }
        if left.is_empty() || self.is_lost {
            return Failure::incomplete(anyhow!(why));
        }
        // Status 1 stands before 3 when both hold.
        let mut failure = obstructed(&left);
        failure.error = failure.error.context(why);
        failure
    }

    /// The manifest's header as it is at the end.
    pub fn final_header(&self, state: DumpStateWord, exit: DumperExit, metadata: &DumpMetadata) -> ManifestHeader {
        let mut header = self.header.clone();
        header.state = state;
        header.finished = Some(Timestamp::now());
        header.dumper_exit = exit;
        header.dumper_finished = metadata.finished.clone();
        header.sources = metadata.sources.clone();
        header
    }

    /// The record that `metadata` will have; in the manifest before it is uploaded, because the manifest goes first.
    pub async fn foresee_metadata(&self) -> anyhow::Result<ObjectRecord> {
        let name: FileName = METADATA.parse().map_err(|error| anyhow!("{METADATA}: {error}"))?;
        self.shared.transfer.foresee(&name).await.with_context(|| format!("cannot read '{METADATA}'"))
    }
}

/// What is known of an object that an earlier run proved. Its parts' hashes are gone, but ETag and part size are not.
fn record_of(head: ObjectHead) -> ObjectRecord {
    let part_size = head.metadata.get(PART_SIZE).and_then(|text| text.parse().ok());
    let (hash, proof) = match (head.etag.as_ref().and_then(ETag::as_md5), part_size) {
        _ if head.etag_is_no_md5 => (ContentHash::Unknown {}, Proof::ContentMd5),
        (Some(md5), _) => (ContentHash::Whole { md5 }, Proof::EtagMd5),
        (None, Some(part_size)) => (ContentHash::Parts { part_size, part_md5s: Vec::new() }, Proof::EtagComposite),
        (None, None) => (ContentHash::Unknown {}, Proof::ContentMd5),
    };
    let sha256 = head.metadata.get(SHA256).cloned();
    ObjectRecord { size: head.size, hash, etag: head.etag, version_id: head.version_id, sha256, proof }
}

fn not_committed(error: anyhow::Error) -> Failure {
    Failure::failed(error.context("the dump is not committed"))
}

/// Says what a file is, from its name and from `metadata`.
struct Describe<'a> {
    known: KnownNames,
    tables: HashMap<(&'a str, &'a str), &'a crate::model::dump_metadata::TableSection>,
}

impl<'a> Describe<'a> {
    fn new(metadata: &'a DumpMetadata, names: impl Iterator<Item = &'a str>) -> Self {
        let tables = metadata.tables.iter();
        Self {
            known: KnownNames::new(Some(metadata), names),
            tables: tables.map(|table| ((table.database.as_str(), table.file_table.as_str()), table)).collect(),
        }
    }

    fn file(&self, name: &FileName, object: &ObjectRecord) -> ManifestFile {
        let parts = NameParts::parse(name.as_str(), &self.known);
        let section = parts.database.zip(parts.file_table).and_then(|names| self.tables.get(&names));
        ManifestFile {
            name: name.clone(),
            kind: kind_name(parts.kind),
            database: section.map(|section| section.database.clone()).or(parts.database.map(str::to_owned)),
            table: section.map(|section| section.table.clone()).or(parts.file_table.map(str::to_owned)),
            rows: section.and_then(|section| section.rows),
            object: object.clone(),
        }
    }
}

/// The kind's name as it is written into the manifest.
fn kind_name(kind: FileKind) -> String {
    serde_json::to_value(kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

struct HashWriter(Sha256);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Status 1: what could not be done, each file with its reason.
pub fn obstructed(obstacles: &[(String, String)]) -> Failure {
    let shown: Vec<_> = obstacles.iter().take(NAMED_MAX).map(|(name, why)| format!("'{name}': {why}")).collect();
    let more = obstacles.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let error = anyhow!("{} files stand in the way: {}{more}", obstacles.len(), shown.join("; "));
    info!("the dump is not committed");
    Failure {
        status: Status::Failure,
        error: hinted(error, "mend it, and run the same command again (without '--' and what follows)"),
    }
}
