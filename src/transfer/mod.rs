//! One file's life: open, hash, upload, prove, remove.
//!
//! A file is read twice: once to hash it, once to send it with that hash, so that the store refuses a damaged body
//! before it replaces anything. The second time it comes from the page cache. What is short is kept in between.

mod left_uploads;
mod parts;
mod proof;
mod release;
mod sending;
mod sha256;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tracing::{debug, warn};

use self::proof::{Evidence, proof_by_etag};
pub use self::sending::Sending;
use self::sha256::sha256;
use crate::aside::aside;
use crate::bucket_dump::Listed;
use crate::claim::{ClaimError, SharedClaim, is_another};
use crate::content::{self, Closeness, Found};
use crate::dump_dir::{DumpDir, identity_of};
use crate::hasher::{Hashed, Hasher, SHORT_MAX, Turn, hash_short};
use crate::model::etag::Md5Digest;
use crate::model::file_name::FileName;
use crate::model::identity::FileIdentity;
use crate::model::manifest::{ContentHash, ObjectRecord, Proof};
use crate::model::object_key::Prefix;
use crate::model::part_plan::{CutInto, PartPlan};
use crate::model::part_sizes::PartSizes;
use crate::model::state::{UploadJob, Uploaded};
use crate::model::user_metadata::{BROKEN, DUMP_ID, MTIME, ROWS, SHA256, UserMetadata, told_part_sizes};
use crate::page_cache::Footprint;
use crate::recorder::Recorder;
use crate::s3::{Condition, ErrorKind, FileRange, OpenUpload, Store, StoreError};

/// How often damaged bytes, a wrong ETag or a lost upload id make one job begin its file anew.
pub const TRIES: u32 = 4;

/// What became of a job.
#[derive(Debug)]
pub enum Outcome {
    /// The object is proved. `removal` says why the local file could not be removed.
    Uploaded {
        /// For the state.
        uploaded: Uploaded,
        /// Why the local file is still there although it should not.
        removal: Option<String>,
    },
    /// The file was gone before it was read.
    Gone {
        /// Whether the bucket may hold an object of it.
        object_left: bool,
    },
    /// mydumper gave the file another name while it went up: the object of the old name must go.
    Renamed,
    /// Not this time; the file is as it was.
    Failed(String),
    /// The store cannot be had, or the prefix is another's: nothing will succeed any more.
    GaveUp(ClaimError),
}

/// What all transfers of a dump share.
#[derive(Debug)]
pub struct Transfer {
    /// The bucket.
    pub store: Store,
    /// The dump directory.
    pub directory: Arc<DumpDir>,
    /// Where the dump goes.
    pub prefix: Prefix,
    /// Goes into each object's user metadata.
    pub dump_id: String,
    /// Bytes of a part, before it grows for large files.
    pub part_size: u64,
    /// The most parts of one file.
    pub max_parts: u32,
    /// Make the SHA-256 of each file, too: one more serial pass over its bytes.
    pub sha256: bool,
    /// How closely each file's content is looked at; with [`Closeness::Whole`] its rows are counted.
    pub least_closeness: Closeness,
    /// Whether mydumper is known to come through a moment without disk space.
    pub survives_full_disk: bool,
    /// Nothing but putting is allowed: no HEAD, no delete, no abort.
    pub write_only: bool,
    /// Where nothing may be deleted: objects of files that mydumper took back.
    pub withdrawn: Mutex<BTreeSet<FileName>>,
    /// Leave local files in place.
    pub keep: bool,
    /// The bucket holds this dump as a whole already: prove and remove what is left of it, upload nothing.
    pub prove_only: bool,
    /// The prefix, as long as it is ours.
    pub claim: SharedClaim,
    /// Whether the claim was looked at before the first local file was given up.
    pub is_trusted: OnceCell<()>,
    /// Writes down what is given up.
    pub recorder: Arc<Recorder>,
    /// Files are removed one at a time, and beside them a large one: what is being removed must fit into the record.
    pub removals: [tokio::sync::Mutex<()>; 2],
    /// What `metadata` must be when it goes up: the text that the dump was judged by.
    pub commit: Mutex<Option<Commit>>,
    /// What an earlier run left under the prefix.
    pub earlier: HashMap<FileName, Listed>,
    /// Hashes ahead of the requests.
    pub hasher: Hasher,
    /// Files whose content is looked at, beside their MD5, at a time.
    pub looks: Semaphore,
    /// Requests at a time, whether of one file or of many.
    pub requests: Semaphore,
    /// Whether any may be made: not before the claim can be believed.
    pub may_send: AtomicBool,
    /// Files that are being sent.
    pub sending: Sending,
    /// Nothing more is begun.
    pub is_stopping: AtomicBool,
    /// How many of them there may be.
    pub workers: usize,
    /// Whether the ETags of parts turned out to be no MD5s, and an object of such parts to be right.
    pub has_opaque_parts: AtomicBool,
    /// Multipart uploads that were begun here and not ended.
    pub open_uploads: Mutex<HashSet<OpenUpload>>,
    /// Multipart uploads of this dump's files that an earlier run began: continued, or aborted in the end.
    pub left_uploads: Mutex<Vec<OpenUpload>>,
}

/// The last file, as it was judged and stands in the manifest.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its content.
    pub hash: ContentHash,
    /// When the store is to take it.
    pub condition: Condition,
}

/// A file that is held open and read.
struct Source {
    footprint: Footprint,
    /// Files that began earlier are hashed first.
    turn: Turn,
    /// Its MD5 and its bytes, where it is short.
    short: Option<(Md5Digest, Bytes)>,
}

impl Source {
    fn file(&self) -> &Arc<File> {
        self.footprint.file()
    }
}

/// What a look at a file's content found.
struct Content {
    found: Found,
    /// Its SHA-256, where that is wanted.
    sha256: Option<String>,
}

/// A file as it was found ready, opened and looked at.
struct Opened {
    footprint: Footprint,
    found: Found,
    short: Option<(Md5Digest, Bytes)>,
}

/// A file on its way into an object.
struct Passage<'a> {
    key: &'a str,
    source: &'a Source,
    /// What the file was when it was found ready.
    identity: &'a FileIdentity,
    metadata: UserMetadata,
    plan: PartPlan,
    /// When the store is to take it.
    condition: Condition,
    /// What it must hold, where that is known before.
    expected: Option<ContentHash>,
    /// What it counts for that the store took each request with its Content-MD5.
    content_md5: ContentMd5,
}

/// Whether the store is known to refuse bytes that are not those of their Content-MD5.
#[derive(Debug, Clone, Copy)]
enum ContentMd5 {
    /// The claim knows, or tries.
    AskClaim,
    /// The claim itself asks for this to be sent, and knows so much.
    IsChecked(Option<bool>),
}

/// Why a file did not get into the bucket.
enum Trouble {
    Local(String),
    Store(StoreError),
    /// The prefix is another's.
    Lost(ClaimError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ClaimError> for Trouble {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Store(error) => Self::Store(error),
            ClaimError::Lost(_) => Self::Lost(error),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Local(format!("cannot read it: {error}"))
    }
}

impl Transfer {
    /// Uploads, proves and removes one file.
    pub async fn upload(&self, job: &UploadJob) -> Outcome {
        let name = job.name();
        let (source, content) = match self.open(job).await {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Outcome::Gone { object_left: self.earlier.contains_key(name) };
            }
            Err(error) => return Outcome::Failed(format!("cannot read it: {error}")),
        };
        let object = match self.bring(job, &source, &content).await {
            Ok(object) => ObjectRecord { sha256: content.sha256, ..object },
            Err(Trouble::Local(why)) => return Outcome::Failed(why),
            Err(Trouble::Lost(error)) => return Outcome::GaveUp(error),
            Err(Trouble::Store(error)) if error.is_outage() || error.is_about_rights() => {
                return Outcome::GaveUp(error.into());
            }
            Err(Trouble::Store(error)) => return Outcome::Failed(error.to_string()),
        };
        self.dispose(job, source.file(), object, content.found).await
    }

    /// Opens the file that was found ready, or none, and looks whether its content is broken; it is uploaded all the same.
    /// Makes its SHA-256, if that is wanted.
    async fn open(&self, job: &UploadJob) -> io::Result<(Source, Content)> {
        let _permit = self.looks.acquire().await.map_err(io::Error::other)?;
        let (directory, closeness) = (Arc::clone(&self.directory), self.closeness());
        let (name, identity) = (job.name().clone(), *job.identity());
        let Opened { footprint, found, short } = aside(move || open(&directory, &name, &identity, closeness)).await?;
        if let Some(why) = &found.broken {
            warn!(file = %job.name(), "its content is broken, so the dump will not be committed: {why}");
        }
        let sha256 = self.sha256_of(footprint.file()).await?;
        Ok((Source { footprint, turn: self.hasher.turn(), short }, Content { found, sha256 }))
    }

    /// How closely content is looked at: once the disk may have been full, so closely that it proves what was written.
    pub fn closeness(&self) -> Closeness {
        let is_in_doubt = !self.survives_full_disk && self.directory.full_disk().is_some();
        if is_in_doubt { Closeness::Whole } else { self.least_closeness }
    }

    /// Brings the file into the bucket, unless it is there.
    async fn bring(&self, job: &UploadJob, source: &Source, content: &Content) -> Result<ObjectRecord, Trouble> {
        let name = job.name();
        let key = self.prefix.key(name).map_err(|error| Trouble::Local(error.to_string()))?;
        if let Some(object) = self.already_there(&key, job, source).await? {
            debug!(file = %name, "the bucket has it already");
            return Ok(object);
        }
        if self.prove_only {
            let why = "the bucket has this dump already, and this file is not as it is there; it was left alone";
            return Err(Trouble::Local(why.to_owned()));
        }
        let mut passage = self.passage(&key, source, job.identity(), user_metadata(&self.dump_id, job, content))?;
        if name.is_metadata() {
            let commit = self.commit.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(Commit { hash, condition }) = commit {
                (passage.expected, passage.condition) = (Some(hash), condition);
            }
        }
        self.put_file(&passage).await
    }

    fn passage<'a>(
        &self,
        key: &'a str,
        source: &'a Source,
        identity: &'a FileIdentity,
        metadata: UserMetadata,
    ) -> Result<Passage<'a>, Trouble> {
        let plan = PartPlan::new(identity.size, self.part_size, self.max_parts);
        let plan = plan.map_err(|error| Trouble::Local(error.to_string()))?;
        let (condition, content_md5) = (Condition::None, ContentMd5::AskClaim);
        Ok(Passage { key, source, identity, metadata, plan, condition, expected: None, content_md5 })
    }

    /// Puts a file that is held open under a key and proves it. Damaged bytes, a wrong ETag and a lost upload id begin
    /// it anew a few times.
    async fn put_file(&self, passage: &Passage<'_>) -> Result<ObjectRecord, Trouble> {
        let mut tries = 1;
        loop {
            let result =
                if passage.plan.is_multipart() { self.put_parts(passage).await } else { self.put_whole(passage).await };
            match result {
                Err(Trouble::Store(error))
                    if tries < TRIES && matches!(error.kind, ErrorKind::BadDigest | ErrorKind::NoSuchUpload) =>
                {
                    warn!("{error} (will be retried)");
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    /// Puts a file of ours, the manifest, under a key and proves it. `is_checked`: whether the store is known to check
    /// Content-MD5.
    pub async fn put_own(
        &self,
        key: &str,
        file: File,
        condition: Condition,
        is_checked: Option<bool>,
    ) -> anyhow::Result<ObjectRecord> {
        let identity = identity_of(&file)?;
        let metadata = HashMap::from([(DUMP_ID.to_owned(), self.dump_id.clone())]);
        let footprint = Footprint::begin(Arc::new(file), identity.size);
        let source = Source { footprint, turn: self.hasher.turn(), short: None };
        let put = async {
            let passage = self.passage(key, &source, &identity, metadata)?;
            let content_md5 = ContentMd5::IsChecked(is_checked);
            self.put_file(&Passage { condition, content_md5, ..passage }).await
        };
        match put.await {
            Ok(object) => Ok(object),
            Err(Trouble::Store(error)) => Err(error.into()),
            Err(Trouble::Lost(error)) => Err(error.into()),
            Err(Trouble::Local(why)) => Err(anyhow::anyhow!("cannot upload {}: {why}", self.store.uri(key))),
        }
    }

    /// What `metadata` must be when it goes up.
    pub fn expect_commit(&self, commit: Commit) {
        *self.commit.lock().unwrap_or_else(PoisonError::into_inner) = Some(commit);
    }

    /// The record that the object of a file will have, made without uploading it.
    pub async fn foresee(&self, name: &FileName) -> io::Result<ObjectRecord> {
        let (directory, name) = (Arc::clone(&self.directory), name.clone());
        let footprint = aside(move || {
            let (file, identity) = directory.open_identified(name.as_str())?;
            io::Result::Ok(Footprint::begin(Arc::new(file), identity.size))
        });
        let footprint = footprint.await?;
        let size = footprint.size();
        let plan = PartPlan::new(size, self.part_size, self.max_parts).map_err(io::Error::other)?;
        let hash = self.hasher.hash_file(&footprint, plan.cut()).await?;
        let has_opaque_etags = self.claim.lock().await.has_opaque_etags();
        let proof = if has_opaque_etags { Proof::ContentMd5 } else { proof_by_etag(&hash) };
        let sha256 = self.sha256_of(footprint.file()).await?;
        Ok(ObjectRecord { size, hash, etag: None, version_id: None, sha256, proof, is_read_back: false })
    }

    /// Whether an earlier run uploaded these very bytes: same size, and the ETag that they must have with the part
    /// size that the object says it was cut by.
    async fn already_there(
        &self,
        key: &str,
        job: &UploadJob,
        source: &Source,
    ) -> Result<Option<ObjectRecord>, Trouble> {
        let size = job.identity().size;
        let Some(listed) = self.earlier.get(job.name()).filter(|listed| listed.size == size) else {
            return Ok(None);
        };
        let Some(etag) = listed.etag.clone() else {
            return Ok(None);
        };
        let cut = match etag.part_count() {
            None if etag.as_md5().is_some() => CutInto::OnePut,
            None => return Ok(None),
            Some(count) => {
                let head = self.store.head(key).await?;
                let told = head.and_then(|head| told_part_sizes(&head.metadata));
                let fits = |sizes: &PartSizes| sizes.is_possible(size) && sizes.count(size) == Some(count);
                match told.filter(fits) {
                    Some(sizes) => CutInto::Parts(sizes),
                    None => return Ok(None),
                }
            }
        };
        let hash = match &source.short {
            Some((md5, _)) if cut == CutInto::OnePut => ContentHash::Whole { md5: *md5 },
            _ => self.hasher.hash_file(&source.footprint, cut).await?,
        };
        if hash.etag().as_ref() != Some(&etag) {
            return Ok(None);
        }
        let proof = proof_by_etag(&hash);
        let (etag, version_id, sha256) = (Some(etag), None, None);
        Ok(Some(ObjectRecord { size, hash, etag, version_id, sha256, proof, is_read_back: false }))
    }

    async fn put_whole(&self, passage: &Passage<'_>) -> Result<ObjectRecord, Trouble> {
        let size = passage.plan.size();
        let file = passage.source.file();
        let hashed = match &passage.source.short {
            Some((md5, content)) => Hashed::short(*md5, content.clone()),
            None => self.hasher.hash(passage.source.turn, file, 0, size).await?,
        };
        passage.check_expected(&ContentHash::Whole { md5: hashed.md5 })?;
        let _permit = self.permit().await?;
        let _sending = self.sending.begin();
        self.check_not_stopping()?;
        let range = FileRange { file: Arc::clone(file), offset: 0, length: size, content: hashed.content.clone() };
        let answer = self.store.put(passage.key, range, hashed.md5, &passage.metadata, &passage.condition).await;
        let hash = ContentHash::Whole { md5: hashed.md5 };
        let answer = match answer {
            Err(error) if passage.condition != Condition::None && is_another(&error) => {
                self.lost_answer(passage, &hash).await?.ok_or(error)
            }
            answer => answer,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(passage.unless_changed(error).await),
        };
        self.prove(passage, Evidence { hash, answer, are_parts_proved: true }).await
    }

    /// Begins nothing more: what has something in the store already goes on to its end.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    fn check_not_stopping(&self) -> Result<(), Trouble> {
        if self.is_stopping.load(Ordering::Relaxed) {
            return Err(Trouble::Local("a stop was asked for before it was begun".to_owned()));
        }
        Ok(())
    }

    /// To make a request.
    async fn permit(&self) -> Result<SemaphorePermit<'_>, Trouble> {
        self.requests.acquire().await.map_err(|error| Trouble::Local(error.to_string()))
    }

    async fn sha256_of(&self, file: &Arc<File>) -> io::Result<Option<String>> {
        if self.sha256 { sha256(file).await.map(Some) } else { Ok(None) }
    }

    /// Deletes the object of a file that mydumper took back; where that is not allowed, notes it for the manifest.
    pub async fn withdraw(&self, name: &FileName) -> Result<(), StoreError> {
        if self.write_only {
            self.withdrawn.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
            return Ok(());
        }
        match self.prefix.key(name) {
            Ok(key) => self.store.delete(&key).await,
            Err(_) => Ok(()),
        }
    }
}

/// Opens a file that was found ready, if it is still the one that it was. Blocks.
fn open(directory: &DumpDir, name: &FileName, found: &FileIdentity, closeness: Closeness) -> io::Result<Opened> {
    let (file, identity) = directory.open_identified(name.as_str())?;
    if identity != *found {
        return Err(io::Error::other("it changed since it was found closed"));
    }
    let footprint = Footprint::begin(Arc::new(file), identity.size);
    let found = content::look(name.as_str(), footprint.file(), identity.size, closeness)?;
    let is_short = identity.size <= SHORT_MAX;
    let short = is_short.then(|| hash_short(footprint.file(), 0, identity.size)).transpose()?;
    Ok(Opened { footprint, found, short })
}

fn user_metadata(dump_id: &str, job: &UploadJob, content: &Content) -> UserMetadata {
    let mut metadata = HashMap::from([
        (DUMP_ID.to_owned(), dump_id.to_owned()),
        (MTIME.to_owned(), (job.identity().modified / 1_000_000_000).to_string()),
    ]);
    if let Some(sha256) = &content.sha256 {
        metadata.insert(SHA256.to_owned(), sha256.clone());
    }
    if let Some(rows) = &content.found.rows {
        metadata.insert(ROWS.to_owned(), rows.to_string());
    }
    if let Some(why) = &content.found.broken {
        // Headers are ASCII; the reasons of a library need not be.
        let why: String = why.chars().filter(|c| matches!(c, ' '..='~')).collect();
        metadata.insert(BROKEN.to_owned(), why);
    }
    metadata
}

impl Passage<'_> {
    /// The last file must be what the dump was judged by.
    fn check_expected(&self, hash: &ContentHash) -> Result<(), Trouble> {
        if self.expected.as_ref().is_some_and(|expected| expected != hash) {
            return Err(Trouble::Local("it changed since the dump was judged by it".to_owned()));
        }
        Ok(())
    }

    /// A request whose body could not be read looks like one that the network broke: the file tells which it was.
    async fn unless_changed(&self, error: StoreError) -> Trouble {
        let file = Arc::clone(self.source.file());
        match aside(move || identity_of(&file)).await {
            Ok(now) if same_content(&now, self.identity) => Trouble::Store(error),
            _ => Trouble::Local("it changed while it was read".to_owned()),
        }
    }
}

/// Whether a file that is held open still has the content it had. A rename or a removal under way moves `ctime` only:
/// the name is judged by the removal.
fn same_content(now: &FileIdentity, then: &FileIdentity) -> bool {
    (now.size, now.modified) == (then.size, then.modified)
}
