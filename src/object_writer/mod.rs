//! Bytes that are held here become an object: hashed, sent, proved. What they are of, and what becomes of them here, is
//! others' business.
//!
//! They are read twice: once to be hashed, once to be sent with that hash, so that the store refuses a damaged body before
//! it replaces anything. The second time they come from the page cache. What is short is kept in between.

mod gate;
mod parts;
mod proof;
mod stream;
mod uploads;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use tracing::warn;

pub use self::gate::Gate;
pub use self::parts::{Begun, Stretch};
use self::proof::Evidence;
pub use self::proof::proof_by_etag;
use self::stream::Room;
pub use self::stream::{Broken, Incoming, PartMemory, Pending, Sink};
pub use self::uploads::Uploads;
use crate::aside::aside;
use crate::claim::{ClaimError, SharedClaim, is_another};
use crate::dump_dir::identity_of;
use crate::hasher::{Hashed, Hasher, Turn};
use crate::model::etag::Md5Digest;
use crate::model::identity::FileIdentity;
use crate::model::manifest::{ContentHash, ObjectRecord, Proof};
use crate::model::object_key::Prefix;
use crate::model::part_plan::{Part, PartPlan, TooLarge};
use crate::model::part_sizes::PartSizes;
use crate::model::user_metadata::{DUMP_ID, UserMetadata};
use crate::page_cache::Footprint;
use crate::s3::{Condition, ErrorKind, FileRange, Store, StoreError, TRIES};

/// What makes objects of one dump.
#[derive(Debug)]
pub struct ObjectWriter {
    /// The bucket.
    pub store: Store,
    /// Where the dump goes.
    pub prefix: Prefix,
    /// Goes into each object's user metadata.
    pub dump_id: String,
    /// How files are cut.
    pub cut: Cut,
    /// Nothing but putting is allowed: no HEAD, no delete, no abort.
    pub write_only: bool,
    /// The prefix, as long as it is ours.
    pub claim: SharedClaim,
    /// Hashes ahead of the requests.
    pub hasher: Hasher,
    /// What may be sent, and how much of it at a time.
    pub gate: Gate,
    /// Multipart uploads that have not ended.
    pub uploads: Uploads,
    /// Whether the ETags of parts turned out to be no MD5s, and an object of such parts to be right.
    pub has_opaque_parts: AtomicBool,
}

/// How files are cut into parts.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Bytes of a part, before it grows for large files.
    pub part_size: u64,
    /// The most parts of one file.
    pub max_parts: u32,
}

/// Bytes that are held open and read.
#[derive(Debug)]
pub struct Source {
    /// The file.
    pub footprint: Footprint,
    /// Those that began earlier are hashed first.
    pub turn: Turn,
    /// Their MD5 and they themselves, where they are few.
    pub short: Option<(Md5Digest, Bytes)>,
    /// What the file was when it was found.
    pub identity: FileIdentity,
    /// It is still being written.
    grows: bool,
    /// So many of its first bytes were given back: only its upload has them.
    pub given: u64,
    /// Where they stand, of a stream: the file is then empty.
    room: Option<Arc<Room>>,
}

/// A file on its way into an object.
#[derive(Debug)]
pub struct Passage<'a> {
    /// Where it goes.
    pub key: &'a str,
    /// What it is read from.
    pub source: &'a Source,
    /// Goes with the object.
    pub metadata: UserMetadata,
    /// How it is cut.
    pub plan: PartPlan,
    /// When the store is to take it.
    pub condition: Condition,
    /// What it must hold, where that is known before.
    pub expected: Option<ContentHash>,
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

/// Why something did not get into the bucket.
#[derive(Debug)]
pub enum Trouble {
    /// What is here.
    Local(String),
    /// The store.
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

impl Source {
    /// The file.
    pub fn file(&self) -> &Arc<File> {
        self.footprint.file()
    }

    /// The same, where so many of its first bytes were given back.
    pub fn given_back(self, given: u64) -> Self {
        Self { given, ..self }
    }

    /// The same of a file that is still being written.
    pub fn growing(self) -> Self {
        Self { grows: true, ..self }
    }

    /// The file has ended, and is this.
    pub fn ended(self, identity: FileIdentity) -> Self {
        Self { identity, grows: false, ..self }
    }

    /// A stretch of them: of a stream one of its parts.
    fn range(&self, offset: u64, length: u64) -> FileRange {
        let content = self.room.as_ref().and_then(|room| room.part(offset));
        FileRange { content, ..FileRange::of(self.file(), offset, length) }
    }

    /// A part is in the store, and need not stay in memory.
    fn leave(&self, part: Part) {
        match &self.room {
            None => self.footprint.leave(part.offset, part.length),
            Some(room) => room.leave(part),
        }
    }

    /// A request whose body could not be read looks like one that the network broke: the file tells which it was.
    async fn unless_changed(&self, error: StoreError) -> Trouble {
        let file = Arc::clone(self.file());
        match aside(move || identity_of(&file)).await {
            Ok(now) if self.grows && now.size >= self.identity.size => Trouble::Store(error),
            Ok(now) if same_content(&now, &self.identity) => Trouble::Store(error),
            _ => Trouble::Local("it changed while it was read".to_owned()),
        }
    }
}

impl Passage<'_> {
    /// The last file must be what the dump was judged by.
    fn check_expected(&self, hash: &ContentHash) -> Result<(), Trouble> {
        if self.expected.as_ref().is_some_and(|expected| expected != hash) {
            return Err(Trouble::Local("it changed since the dump was judged by it".to_owned()));
        }
        Ok(())
    }
}

impl ObjectWriter {
    /// A file that is held open, as it was when it was found.
    pub fn source(&self, footprint: Footprint, identity: FileIdentity, short: Option<(Md5Digest, Bytes)>) -> Source {
        Source { footprint, turn: self.hasher.turn(), short, identity, grows: false, given: 0, room: None }
    }

    /// A file's way under a key.
    pub fn passage<'a>(
        &self,
        key: &'a str,
        source: &'a Source,
        metadata: UserMetadata,
    ) -> Result<Passage<'a>, Trouble> {
        let plan = self.cut.plan(source.identity.size).map_err(|error| Trouble::Local(error.to_string()))?;
        let (condition, content_md5) = (Condition::None, ContentMd5::AskClaim);
        Ok(Passage { key, source, metadata, plan, condition, expected: None, content_md5 })
    }

    /// Puts a file under a key and proves it. Damaged bytes, a wrong ETag and a lost upload id begin it anew a few times.
    /// `begun`: its upload, where that was begun while it grew.
    pub async fn put(&self, passage: &Passage<'_>, begun: Option<Begun>) -> Result<ObjectRecord, Trouble> {
        let (mut tries, mut begun) = (1, begun);
        loop {
            if passage.source.given > 0 && begun.is_none() {
                let why = "what was given up of it here is in an unfinished upload, which did not become its object";
                return Err(Trouble::Local(why.to_owned()));
            }
            let is_in_parts = begun.is_some() || passage.plan.is_multipart();
            let result = match is_in_parts {
                true => Box::pin(self.put_parts(passage, begun.take())).await,
                false => self.put_whole(passage).await,
            };
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
        let source = self.source(Footprint::begin(Arc::new(file), identity.size), identity, None);
        let put = async {
            let passage = self.passage(key, &source, metadata)?;
            let content_md5 = ContentMd5::IsChecked(is_checked);
            self.put(&Passage { condition, content_md5, ..passage }, None).await
        };
        match put.await {
            Ok(object) => Ok(object),
            Err(Trouble::Store(error)) => Err(error.into()),
            Err(Trouble::Lost(error)) => Err(error.into()),
            Err(Trouble::Local(why)) => Err(anyhow::anyhow!("cannot upload {}: {why}", self.store.uri(key))),
        }
    }

    /// The record that the object of a file will have, made without uploading it.
    pub async fn foresee(&self, footprint: &Footprint) -> io::Result<ObjectRecord> {
        let size = footprint.size();
        let plan = self.cut.plan(size).map_err(io::Error::other)?;
        let hash = self.hasher.hash_file(footprint, plan.cut()).await?;
        let has_opaque_etags = self.claim.lock().await.has_opaque_etags();
        let proof = if has_opaque_etags { Proof::ContentMd5 } else { proof_by_etag(&hash) };
        Ok(ObjectRecord { size, hash, etag: None, version_id: None, sha256: None, proof, is_read_back: false })
    }

    async fn put_whole(&self, passage: &Passage<'_>) -> Result<ObjectRecord, Trouble> {
        let (source, size) = (passage.source, passage.plan.size());
        let hashed = match &source.short {
            Some((md5, content)) => Hashed::short(*md5, content.clone()),
            None => self.hasher.hash(source.turn, &source.range(0, size)).await?,
        };
        passage.check_expected(&ContentHash::Whole { md5: hashed.md5 })?;
        let _permit = self.gate.permit().await?;
        let _sending = self.gate.begin()?;
        let range = source.range(0, size).with(hashed.content.clone());
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
            Err(error) => return Err(source.unless_changed(error).await),
        };
        self.prove(passage, Evidence { hash, answer, are_parts_proved: true }).await
    }
}

impl Cut {
    /// How a file of that size is cut.
    pub fn plan(self, size: u64) -> Result<PartPlan, TooLarge> {
        PartPlan::new(size, self.part_size, self.max_parts)
    }

    /// How a file is cut whose size is not known yet.
    pub fn growing(self) -> PartSizes {
        PartSizes::growing(self.part_size, self.max_parts)
    }
}

/// Whether a file that is held open still has the content it had. A rename or a removal under way moves `ctime` only:
/// the name is judged by the removal.
pub fn same_content(now: &FileIdentity, then: &FileIdentity) -> bool {
    (now.size, now.modified) == (then.size, then.modified)
}
