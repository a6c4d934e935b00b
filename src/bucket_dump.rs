//! A dump as it lies in the bucket: what every command reads first. The listing is here, the manifest in
//! [`crate::bucket_manifest`]; neither needs the other's order, which not all stores keep.

use std::ops::ControlFlow;

use anyhow::anyhow;
use jiff::Timestamp;

use crate::hint::hinted;
use crate::model::destination::is_archive;
use crate::model::etag::ETag;
use crate::model::file_kind::could_be_dump_file;
use crate::model::file_name::{FileName, MANIFEST, METADATA};
use crate::model::object_key::Prefix;
use crate::s3::{ErrorKind, ListedObject, Store, StoreError};

/// The most objects of one directory that are held in memory, some 150 bytes each. mydumper makes a million files of a
/// terabyte where it cuts it into pieces of 1 MB.
const OBJECTS_MAX: usize = 4_000_000;
/// Strangers that are kept by name; the others are counted.
const STRANGERS_NAMED_MAX: usize = 1_000;

/// An object that may be a file of a dump, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name under the prefix.
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    /// Its ETag, where the listing has one.
    pub etag: Option<ETag>,
    /// When it was stored.
    pub modified: Option<Timestamp>,
    /// Its storage class, where it is not the usual one.
    pub storage_class: Option<Box<str>>,
}

impl Listed {
    /// The object of that name.
    pub fn new(name: FileName, object: ListedObject) -> Self {
        let ListedObject { size, etag, modified, storage_class, .. } = object;
        let storage_class = storage_class.filter(|class| class != "STANDARD").map(String::into_boxed_str);
        Self { name, size, etag, modified, storage_class }
    }

    /// Whether it must be brought back before it can be read. What Intelligent-Tiering has archived no listing shows;
    /// such a download fails and says so.
    pub fn is_archived(&self) -> bool {
        self.storage_class.as_deref().is_some_and(is_archive)
    }
}

/// Keys that no file of a dump can have.
#[derive(Debug, Default)]
pub struct Strangers {
    /// The first of them.
    pub named: Vec<String>,
    /// All of them.
    pub count: usize,
}

impl Strangers {
    /// One more.
    pub fn add(&mut self, key: String) {
        self.count += 1;
        if self.named.len() < STRANGERS_NAMED_MAX {
            self.named.push(key);
        }
    }

    /// All of those, too.
    pub fn add_all(&mut self, others: Self) {
        self.count += others.count;
        let room = STRANGERS_NAMED_MAX - self.named.len();
        self.named.extend(others.named.into_iter().take(room));
    }
}

/// What lies directly under a prefix.
#[derive(Debug, Default)]
pub struct Listing {
    /// By name, without the manifest.
    objects: Vec<Listed>,
    /// Those that [`Listing::take`] has given out.
    taken: Vec<bool>,
    /// The manifest.
    pub manifest: Option<ListedObject>,
    /// What belongs to others.
    pub strangers: Strangers,
    /// Directories below, each with its `/`. What is in them belongs to others.
    pub directories: Vec<String>,
}

/// What an object directly under a prefix is, by its key.
pub enum Found {
    /// The manifest.
    Manifest(ListedObject),
    /// It may be a file of a dump.
    File(Listed),
    /// It cannot.
    Stranger(String),
}

/// Lists what lies directly under a prefix, page by page, and returns the directories below. One request for 1,000
/// objects; nothing is held.
pub async fn walk(
    store: &Store,
    prefix: &Prefix,
    mut each: impl FnMut(Found) -> ControlFlow<()>,
) -> Result<Vec<String>, StoreError> {
    let directory = prefix.directory();
    let sort = |object: ListedObject| match object.key.strip_prefix(&directory).map(str::parse::<FileName>) {
        Some(Ok(name)) if name.as_str() == MANIFEST => each(Found::Manifest(object)),
        Some(Ok(name)) => each(Found::File(Listed::new(name, object))),
        // Consoles make an empty object of the directory's own name; it is no file.
        _ if object.key == directory => ControlFlow::Continue(()),
        _ => each(Found::Stranger(object.key)),
    };
    store.list(&directory, sort).await
}

impl Listing {
    /// Lists what lies directly under a prefix.
    pub async fn of(store: &Store, prefix: &Prefix) -> Result<Self, StoreError> {
        let mut listing = Self::default();
        let keep = |found| {
            match found {
                Found::Manifest(object) => listing.manifest = Some(object),
                Found::File(object) => listing.objects.push(object),
                Found::Stranger(key) => listing.strangers.add(key),
            }
            if listing.objects.len() > OBJECTS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let directories = walk(store, prefix, keep).await?;
        if listing.objects.len() > OBJECTS_MAX {
            let detail = format!("more than {OBJECTS_MAX} objects lie directly in it");
            let uri = store.uri(&prefix.directory());
            return Err(StoreError::of_answer(ErrorKind::TooLarge, "ListObjectsV2", &uri, detail));
        }
        listing.directories = directories;
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
    pub fn rest(&self) -> impl Iterator<Item = &Listed> {
        self.objects.iter().zip(&self.taken).filter(|(_, taken)| !**taken).map(|(object, _)| object)
    }

    /// The same, as values.
    pub fn into_rest(self) -> impl Iterator<Item = Listed> {
        self.objects.into_iter().zip(self.taken).filter(|(_, taken)| !taken).map(|(object, _)| object)
    }

    /// Whether `metadata`, the commit, is there.
    pub fn has_metadata(&self) -> bool {
        self.find(METADATA).is_some()
    }

    /// Whether something there has the name of a dump's file.
    pub fn could_be_dump(&self) -> bool {
        self.manifest.is_some() || self.names().any(|name| could_be_dump_file(name.as_str()))
    }

    /// All objects but the manifest, by name.
    pub fn objects(&self) -> &[Listed] {
        &self.objects
    }

    /// All names but the manifest's.
    pub fn names(&self) -> impl Iterator<Item = &FileName> {
        self.objects.iter().map(|object| &object.name)
    }

    /// The number of objects, without the manifest.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing at all is there.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.manifest.is_none() && self.strangers.count == 0
    }

    /// When each object was stored.
    pub fn times(&self) -> impl Iterator<Item = Timestamp> {
        let manifest = self.manifest.iter().filter_map(|manifest| manifest.modified);
        self.objects.iter().filter_map(|object| object.modified).chain(manifest)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.objects.binary_search_by(|object| object.name.as_str().cmp(name)).ok()
    }
}

/// The error for a prefix with nothing of a dump under it.
pub fn no_dump(store: &Store, prefix: &Prefix) -> anyhow::Error {
    hinted(
        anyhow!("there is no dump directly in {}", store.uri(&prefix.directory())),
        "check --bucket and --prefix; `mydumper2s3 list` shows the dumps",
    )
}
