//! Whether the bucket holds exactly the dump: its listing is compared as it comes, page by page.

use std::collections::HashSet;

use super::follow::Shared;
use crate::model::file_name::{FileName, MANIFEST};
use crate::s3::{ListedObject, Store, StoreError};

/// Differences that are kept to be named; the others are counted.
const KEPT_MAX: usize = 1_000;

/// What a listing shows beside what was proved.
pub struct BucketCheck<'a> {
    shared: &'a Shared,
    directory: String,
    missing: HashSet<FileName>,
    wrong: Vec<String>,
    wrong_count: usize,
    /// The manifest, if it is there.
    pub manifest: Option<ListedObject>,
}

impl<'a> BucketCheck<'a> {
    /// Lists the dump's prefix and compares.
    pub async fn make(store: &Store, shared: &'a Shared) -> Result<Self, StoreError> {
        let directory = shared.transfer.prefix.directory();
        // `metadata` has just been committed: some stores list what is new a moment later.
        let missing =
            shared.state().uploaded().map(|(name, _)| name).filter(|name| !name.is_metadata()).cloned().collect();
        let (wrong, wrong_count) = (Vec::new(), 0);
        let mut check = Self { shared, directory: directory.clone(), missing, wrong, wrong_count, manifest: None };
        store.list(&directory, |object| check.see(object)).await?;
        Ok(check)
    }

    fn see(&mut self, object: ListedObject) {
        let Some(name) = object.key.strip_prefix(&self.directory) else {
            return self.note(format!("'{}' is not of this dump", object.key.escape_debug()));
        };
        if name == MANIFEST {
            self.manifest = Some(object);
            return;
        }
        self.missing.remove(name);
        let difference = match self.shared.state().find_uploaded(name).map(|uploaded| &uploaded.object) {
            // The directory itself, as some tools make it.
            None if name.is_empty() => None,
            None => Some(format!("'{}' is not of this dump", object.key.escape_debug())),
            Some(ours) if object.size != ours.size => Some(format!("'{name}' has another size")),
            Some(ours) if object.etag.is_some() && object.etag != ours.etag => {
                Some(format!("'{name}' has another ETag"))
            }
            Some(_) => None,
        };
        if let Some(difference) = difference {
            self.note(difference);
        }
    }

    fn note(&mut self, difference: String) {
        self.wrong_count += 1;
        if self.wrong.len() < KEPT_MAX {
            self.wrong.push(difference);
        }
    }

    /// Where bucket and state differ, in words: the first few, and how many more there are.
    pub fn differences(mut self, named_max: usize) -> Option<String> {
        for name in std::mem::take(&mut self.missing) {
            self.note(format!("'{name}' is missing"));
        }
        self.wrong.sort();
        let more = self.wrong_count.saturating_sub(named_max);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let named: Vec<_> = self.wrong.iter().take(named_max).map(String::as_str).collect();
        (!named.is_empty()).then(|| format!("{}{more}", named.join(", ")))
    }
}
