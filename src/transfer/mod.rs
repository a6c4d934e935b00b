//! One file's life: found ready, opened, looked at, made an object, given up here.

mod giving_back;
mod growing;
mod release;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use self::giving_back::Earlier;
pub use self::giving_back::GivingBack;
pub use self::growing::{Followed, Growing};
pub use self::release::Disposal;
use crate::aside::{Reply, Trips, aside};
use crate::bucket_dump::Listed;
use crate::claim::ClaimError;
use crate::content::{self, Closeness, Found, Wanted};
use crate::dump_dir::DumpDir;
use crate::hasher::{SHORT_MAX, hash_short};
use crate::model::etag::Md5Digest;
use crate::model::file_name::{FileName, METADATA};
use crate::model::identity::FileIdentity;
use crate::model::manifest::{ContentHash, ObjectRecord};
use crate::model::part_plan::CutInto;
use crate::model::part_sizes::PartSizes;
use crate::model::state::{UploadJob, Uploaded};
use crate::model::user_metadata::{BROKEN, DUMP_ID, MTIME, ROWS, SHA256, UserMetadata, told_part_sizes};
use crate::object_writer::{Begun, ObjectWriter, Source, Trouble, proof_by_etag};
use crate::page_cache::Footprint;
use crate::s3::{Condition, StoreError};

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
    /// Makes the objects.
    pub writer: ObjectWriter,
    /// The dump directory.
    pub directory: Arc<DumpDir>,
    /// How files' content is looked at.
    pub looks: Looks,
    /// Gives local files up.
    pub disposal: Disposal,
    /// The bucket holds this dump as a whole already: prove and remove what is left of it, upload nothing.
    pub prove_only: bool,
    /// Where nothing may be deleted: objects of files that mydumper took back.
    pub withdrawn: Mutex<BTreeSet<FileName>>,
    /// What `metadata` must be when it goes up: the text that the dump was judged by.
    pub commit: Mutex<Option<Commit>>,
    /// What an earlier run left under the prefix.
    pub earlier: HashMap<FileName, Listed>,
    /// Files that go up while they are being written.
    pub followed: Mutex<HashMap<FileName, Followed>>,
    /// Whether blocks of these are given back, and what came of it.
    pub giving_back: GivingBack,
}

/// How files' content is looked at.
#[derive(Debug)]
pub struct Looks {
    /// How closely at least; with [`Closeness::Whole`] rows are counted.
    pub least: Closeness,
    /// Whether mydumper is known to come through a moment without disk space.
    pub survives_full_disk: bool,
    /// Make the SHA-256 of each file, too: one more serial pass over its bytes.
    pub sha256: bool,
    /// Files that are looked at, beside their MD5, at a time.
    pub at_a_time: Semaphore,
    /// Long files on their way at a time: those that are sent, and as many again as are hashed side by side.
    pub long: Semaphore,
    /// Short files are opened, looked at and hashed together.
    pub short: Trips<Ready, io::Result<Looked>>,
}

/// A file that was found ready, and what is looked for in it.
#[derive(Debug)]
pub struct Ready {
    name: FileName,
    identity: FileIdentity,
    wanted: Wanted,
}

/// A file that was opened; what was found in it; and its MD5 and bytes, where it is short.
pub type Looked = (Footprint, Found, Option<Short>);

/// The last file, as it was judged and stands in the manifest.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Its content.
    pub hash: ContentHash,
    /// When the store is to take it.
    pub condition: Condition,
}

/// A file as it was found ready, opened and looked at.
struct Opened {
    source: Source,
    found: Found,
    /// Its upload, where that was begun while it grew.
    begun: Option<Begun>,
    /// Its object, where that was made and is proved already.
    object: Option<ObjectRecord>,
    /// Whether all of its content was looked at, as far as that was wanted.
    is_seen: bool,
}

/// Why a file could not be opened.
enum NotOpened {
    /// What is here.
    Here(io::Error),
    /// What there was of it before.
    There(Trouble),
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> Self {
        Self::Here(error)
    }
}

impl Outcome {
    fn of(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Local(why) => Self::Failed(why),
            Trouble::Lost(error) => Self::GaveUp(error),
            Trouble::Store(error) if error.is_outage() || error.is_about_rights() => Self::GaveUp(error.into()),
            Trouble::Store(error) => Self::Failed(error.to_string()),
        }
    }
}

impl Transfer {
    /// Uploads, proves and removes one file.
    pub async fn upload(&self, job: &UploadJob) -> Outcome {
        let name = job.name();
        let _long = match job.identity().size {
            0..=SHORT_MAX => None,
            // It is never closed.
            _ => self.looks.long.acquire().await.ok(),
        };
        let Opened { source, found, begun, object, is_seen } = match self.open(job).await {
            Ok(opened) => opened,
            Err(NotOpened::Here(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Outcome::Gone { object_left: self.earlier.contains_key(name) };
            }
            Err(NotOpened::Here(error)) => return Outcome::Failed(format!("cannot read it: {error}")),
            Err(NotOpened::There(trouble)) => return Outcome::of(trouble),
        };
        let brought = match object {
            Some(object) => Ok(object),
            None => self.bring(job, &source, &found, begun).await,
        };
        let object = match brought {
            Ok(object) => ObjectRecord { sha256: found.sha256.clone(), ..object },
            Err(trouble) => return Outcome::of(trouble),
        };
        if is_seen && found.broken.is_none() {
            self.disposal.recorder.end_only_copy(name);
        }
        self.dispose(job, source.file(), object, found).await
    }

    /// Opens the file that was found ready, or none, and looks whether its content is broken; it is uploaded all the same.
    async fn open(&self, job: &UploadJob) -> Result<Opened, NotOpened> {
        let opened = match self.end_following(job).await.map_err(NotOpened::There)? {
            Some(opened) => opened,
            None => self.open_closed(job).await?,
        };
        if let Some(why) = &opened.found.broken {
            warn!(file = %job.name(), "its content is broken, so the dump will not be committed: {why}");
        }
        Ok(opened)
    }

    async fn open_closed(&self, job: &UploadJob) -> Result<Opened, NotOpened> {
        let directory = Arc::clone(&self.directory);
        let ready = Ready { name: job.name().clone(), identity: *job.identity(), wanted: self.wanted() };
        let identity = ready.identity;
        // Whatever this run is asked for: an earlier one may have given some of it back. Never of what is as short.
        let may_be_resumed = identity.size > SHORT_MAX;
        let (footprint, found, short) = if may_be_resumed {
            let _permit = self.looks.at_a_time.acquire().await.map_err(io::Error::other)?;
            aside(move || open(&directory, &ready)).await?
        } else {
            let open_all = move |all: Vec<(Ready, Reply<_>)>| {
                // Nobody waits for it any more where it cannot be told.
                all.into_iter().for_each(|(ready, reply)| drop(reply.send(open(&directory, &ready))));
            };
            self.looks.short.ask(ready, open_all).await?
        };
        let source = self.writer.source(footprint, identity, short);
        let earlier = match may_be_resumed {
            true => self.earlier_copy(job.name(), &source).await.map_err(NotOpened::There)?,
            false => None,
        };
        let (begun, object) = match earlier {
            None => return Ok(Opened { source, found, begun: None, object: None, is_seen: true }),
            // What is left of it goes up, and says so.
            Some(Earlier::Lost(why)) => {
                let found = Found { broken: Some(why), ..found };
                return Ok(Opened { source, found, begun: None, object: None, is_seen: true });
            }
            Some(Earlier::Underway(begun, given)) => (Some((begun, given)), None),
            Some(Earlier::There(object)) => (None, Some(object)),
        };
        let (begun, given) = begun.map_or((None, 0), |(begun, given)| (Some(begun), given));
        Ok(Opened { source: source.given_back(given), found: Found::default(), begun, object, is_seen: false })
    }

    /// What is looked for in a file.
    fn wanted(&self) -> Wanted {
        Wanted { closeness: self.closeness(), sha256: self.looks.sha256 }
    }

    /// How closely content is looked at: once the disk may have been full, so closely that it proves what was written.
    pub fn closeness(&self) -> Closeness {
        let is_in_doubt = !self.looks.survives_full_disk && self.directory.full_disk().is_some();
        if is_in_doubt { Closeness::Whole } else { self.looks.least }
    }

    /// Brings the file into the bucket, unless it is there.
    async fn bring(
        &self,
        job: &UploadJob,
        source: &Source,
        found: &Found,
        begun: Option<Begun>,
    ) -> Result<ObjectRecord, Trouble> {
        let name = job.name();
        let key = self.writer.prefix.key(name).map_err(|error| Trouble::Local(error.to_string()))?;
        if let Some(object) = self.already_there(&key, job, source).await? {
            debug!(file = %name, "the bucket has it already");
            return Ok(object);
        }
        if self.prove_only {
            let why = "the bucket has this dump already, and this file is not as it is there; it was left alone";
            return Err(Trouble::Local(why.to_owned()));
        }
        let metadata = user_metadata(&self.writer.dump_id, job, found);
        let mut passage = self.writer.passage(&key, source, metadata)?;
        if name.is_metadata() {
            let commit = self.commit.lock().clone();
            if let Some(Commit { hash, condition }) = commit {
                (passage.expected, passage.condition) = (Some(hash), condition);
            }
        }
        self.writer.put(&passage, begun).await
    }

    /// What `metadata` must be when it goes up.
    pub fn expect_commit(&self, commit: Commit) {
        *self.commit.lock() = Some(commit);
    }

    /// The record that the object of a file will have, made without uploading it.
    pub async fn foresee(&self, name: &FileName) -> io::Result<ObjectRecord> {
        let (directory, name) = (Arc::clone(&self.directory), name.clone());
        let footprint = aside(move || {
            let (file, identity) = directory.open_identified(name.as_str())?;
            io::Result::Ok(Footprint::begin(Arc::new(file), identity.size))
        });
        let footprint = footprint.await?;
        let object = self.writer.foresee(&footprint).await?;
        let (file, wanted) = (Arc::clone(footprint.file()), Wanted { closeness: Closeness::Ends, ..self.wanted() });
        let found = aside(move || content::look(METADATA, &file, footprint.size(), wanted)).await?;
        Ok(ObjectRecord { sha256: found.sha256, ..object })
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
                let head = self.writer.store.head(key).await?;
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
            _ => self.writer.hasher.hash_file(&source.footprint, cut).await?,
        };
        if hash.etag().as_ref() != Some(&etag) {
            return Ok(None);
        }
        let proof = proof_by_etag(&hash);
        let (etag, version_id, sha256) = (Some(etag), None, None);
        Ok(Some(ObjectRecord { size, hash, etag, version_id, sha256, proof, is_read_back: false }))
    }

    /// Deletes the object of a file that mydumper took back; where that is not allowed, notes it for the manifest.
    pub async fn withdraw(&self, name: &FileName) -> Result<(), StoreError> {
        if self.writer.write_only {
            self.withdrawn.lock().insert(name.clone());
            return Ok(());
        }
        match self.writer.prefix.key(name) {
            Ok(key) => self.writer.store.delete(&key).await,
            Err(_) => Ok(()),
        }
    }
}

/// The MD5 and the bytes of a short file.
pub type Short = (Md5Digest, Bytes);

/// Opens a file that was found ready, if it is still the one that it was; what is short is hashed at once. Blocks.
fn open(directory: &DumpDir, ready: &Ready) -> io::Result<Looked> {
    let (name, wanted) = (&ready.name, ready.wanted);
    let (file, identity) = directory.open_identified(name.as_str())?;
    if identity != ready.identity {
        return Err(io::Error::other("it changed since it was found closed"));
    }
    let footprint = Footprint::begin(Arc::new(file), identity.size);
    let found = content::look(name.as_str(), footprint.file(), identity.size, wanted)?;
    let is_short = identity.size <= SHORT_MAX;
    let short = is_short.then(|| hash_short(footprint.file(), 0, identity.size)).transpose()?;
    Ok((footprint, found, short))
}

fn user_metadata(dump_id: &str, job: &UploadJob, found: &Found) -> UserMetadata {
    let mut metadata = HashMap::from([
        (DUMP_ID.to_owned(), dump_id.to_owned()),
        (MTIME.to_owned(), (job.identity().modified / 1_000_000_000).to_string()),
    ]);
    if let Some(sha256) = &found.sha256 {
        metadata.insert(SHA256.to_owned(), sha256.clone());
    }
    if let Some(rows) = &found.rows {
        metadata.insert(ROWS.to_owned(), rows.to_string());
    }
    if let Some(why) = &found.broken {
        // Headers are ASCII; the reasons of a library need not be.
        let why: String = why.chars().filter(|c| matches!(c, ' '..='~')).collect();
        metadata.insert(BROKEN.to_owned(), why);
    }
    metadata
}
