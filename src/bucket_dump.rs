//! A dump as it lies in the bucket: its objects and its manifest. What every command reads first.

use std::collections::HashMap;

use crate::model::file_name::FileName;
use crate::model::manifest::{self, BadManifest, ManifestFile, ManifestHeader};
use crate::model::object_key::Prefix;
use crate::s3::{ListedObject, Store, StoreError};

/// The largest manifest that is read, in bytes; 100,000 files need some 20 MB.
const MANIFEST_SIZE_MAX: u64 = 512 * 1024 * 1024;

/// What lies directly under a prefix.
#[derive(Debug, Default)]
pub struct Contents {
    /// Objects that may be files of a dump, the manifest among them.
    pub objects: HashMap<FileName, ListedObject>,
    /// Keys that no file of a dump can have.
    pub strangers: Vec<String>,
    /// Directories below, each with its `/`. What is in them belongs to others.
    pub directories: Vec<String>,
}

impl Contents {
    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.strangers.is_empty()
    }

    /// Whether there is an object of that name.
    pub fn has(&self, name: &str) -> bool {
        self.objects.keys().any(|there| there.as_str() == name)
    }
}

/// Lists what lies directly under a prefix.
pub async fn contents(store: &Store, prefix: &Prefix) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    let directory = prefix.directory();
    let directories = store
        .list(&directory, |object| match object.key.strip_prefix(&directory).unwrap_or_default().parse::<FileName>() {
            Ok(name) => {
                contents.objects.insert(name, object);
            }
            // Consoles make an empty object of the directory's own name; it is no file.
            Err(_) if object.key == directory => {}
            Err(_) => contents.strangers.push(object.key),
        })
        .await?;
    contents.directories = directories;
    Ok(contents)
}

/// Reads a dump's manifest: `each` gets every file. `None` if there is no manifest.
pub async fn read_manifest(
    store: &Store,
    prefix: &Prefix,
    each: impl FnMut(ManifestFile),
) -> Result<Option<Result<ManifestHeader, BadManifest>>, StoreError> {
    let bytes = store.read(&prefix.manifest_key(), MANIFEST_SIZE_MAX).await?;
    Ok(bytes.map(|bytes| manifest::read(bytes.as_slice(), each)))
}
