//! A dump in the bucket as verify and restore need it, with memory that stays small for 100,000 files.
//!
//! The listing is kept, a name, size and ETag for each object; the manifest, several times its size, is fetched into a
//! file without a name and read from there as a stream. Neither needs the other's order, which not all stores keep.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::hint::hinted;
use crate::model::etag::ETag;
use crate::model::file_name::{FileName, MANIFEST, METADATA};
use crate::model::manifest::{self, BadManifest, ManifestFile, ManifestHeader};
use crate::model::object_key::Prefix;
use crate::platform;
use crate::s3::{Interest, ListedObject, ObjectRef, Store, StoreError};

/// Files of the manifest that are read ahead.
const READ_AHEAD: usize = 256;

/// An object that may be a file of a dump, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name under the prefix.
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    /// Its ETag, where the listing has one.
    pub etag: Option<ETag>,
    /// Whether it is in a storage class that must be brought back before it can be read.
    pub is_archived: bool,
}

/// What lies directly under a prefix.
#[derive(Debug, Default)]
pub struct Listing {
    /// By name.
    objects: Vec<Listed>,
    /// Those that [`Listing::take`] has given out.
    taken: Vec<bool>,
    /// The manifest.
    pub manifest: Option<ListedObject>,
    /// Keys that no file of a dump can have.
    pub strangers: Vec<String>,
}

impl Listing {
    /// Lists what lies directly under a prefix: one request for 1,000 objects.
    pub async fn of(store: &Store, prefix: &Prefix) -> Result<Self, StoreError> {
        let mut listing = Self::default();
        let directory = prefix.directory();
        store
            .list(&directory, |object| match object.key.strip_prefix(&directory).map(str::parse::<FileName>) {
                Some(Ok(name)) if name.as_str() == MANIFEST => listing.manifest = Some(object),
                Some(Ok(name)) => listing.objects.push(listed(name, object)),
                // Consoles make an empty object of the directory's own name; it is no file.
                _ if object.key == directory => {}
                _ => listing.strangers.push(object.key),
            })
            .await?;
        listing.objects.sort_unstable_by(|one, two| one.name.cmp(&two.name));
        listing.taken = vec![false; listing.objects.len()];
        Ok(listing)
    }

    /// The object of that name.
    pub fn find(&self, name: &str) -> Option<&Listed> {
        self.position(name).map(|at| &self.objects[at])
    }

    /// The object of that name, which then counts as named.
    pub fn take(&mut self, name: &FileName) -> Option<Listed> {
        let at = self.position(name.as_str())?;
        self.taken[at] = true;
        Some(self.objects[at].clone())
    }

    /// Those that nobody took, by name.
    pub fn rest(self) -> impl Iterator<Item = Listed> {
        self.objects.into_iter().zip(self.taken).filter(|(_, taken)| !taken).map(|(object, _)| object)
    }

    /// Whether `metadata`, the commit, is there.
    pub fn has_metadata(&self) -> bool {
        self.find(METADATA).is_some()
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &FileName> {
        self.objects.iter().map(|object| &object.name)
    }

    /// The number of objects, without the manifest.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing at all is there.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.manifest.is_none() && self.strangers.is_empty()
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.objects.binary_search_by(|object| object.name.as_str().cmp(name)).ok()
    }
}

fn listed(name: FileName, object: ListedObject) -> Listed {
    // Glacier Instant Retrieval is read at once (AWS, "Understanding S3 Glacier storage classes"). What Intelligent-
    // Tiering has archived no listing shows; such a download fails and says so.
    let is_archived = matches!(object.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE"));
    Listed { name, size: object.size, etag: object.etag, is_archived }
}

/// A manifest, fetched and found to be one.
#[derive(Debug)]
pub struct Spooled {
    /// Everything but the files.
    pub header: ManifestHeader,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    file: Arc<File>,
}

/// What became of fetching a manifest.
#[derive(Debug)]
pub enum Fetched {
    /// It can be read.
    Read(Box<Spooled>),
    /// It is there, and cannot be used.
    Bad(BadManifest),
    /// There is none.
    Absent,
}

impl Spooled {
    /// Fetches the manifest that a listing shows.
    pub async fn fetch(store: &Store, manifest: Option<&ListedObject>) -> anyhow::Result<Fetched> {
        let Some(manifest) = manifest else {
            return Ok(Fetched::Absent);
        };
        let file = platform::memory_file("manifest").context("no memory for the manifest")?;
        let mut sha256 = Sha256::new();
        let mut written = Ok(());
        let object = ObjectRef { key: manifest.key.clone(), size: manifest.size, etag: manifest.etag.clone() };
        let taken = store.download(&object, 0..manifest.size, async |bytes| {
            sha256.update(&bytes);
            written = (&file).write_all(&bytes);
            if written.is_ok() { Interest::More } else { Interest::Lost }
        });
        taken.await?;
        written.context("no memory for the manifest")?;
        let sha256 = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let file = Arc::new(file);
        let reader = reader(&file);
        // Read to its end once, so that a damaged one is known before anything is said of a file.
        let read = tokio::task::spawn_blocking(move || manifest::read(reader, drop)).await?;
        Ok(match read {
            Ok(header) => Fetched::Read(Box::new(Self { header, sha256, file })),
            Err(bad) => Fetched::Bad(bad),
        })
    }

    /// Its files, in the manifest's order.
    pub fn files(&self) -> mpsc::Receiver<ManifestFile> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let reader = reader(&self.file);
        tokio::task::spawn_blocking(move || {
            // It was read before, so it can be read now; and where nobody listens any more nothing is lost.
            let _ = manifest::read(reader, |file| drop(sender.blocking_send(file)));
        });
        receiver
    }
}

/// Reads from the start, whatever others do with the same file.
fn reader(file: &Arc<File>) -> impl Read + Send + 'static {
    struct FromStart {
        file: Arc<File>,
        at: u64,
    }
    impl Read for FromStart {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let count = self.file.read_at(bytes, self.at)?;
            self.at += count as u64;
            Ok(count)
        }
    }
    BufReader::with_capacity(64 * 1024, FromStart { file: Arc::clone(file), at: 0 })
}

/// The error for a prefix with nothing of a dump under it.
pub fn no_dump(store: &Store, prefix: &Prefix) -> anyhow::Error {
    hinted(
        anyhow!("there is no dump at {}", store.uri(&prefix.directory())),
        "check --bucket and --prefix; `mydumper2s3 list` shows the dumps",
    )
}
