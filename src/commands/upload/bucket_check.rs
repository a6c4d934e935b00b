//! Whether the bucket holds exactly the dump: its listing is compared as it comes, page by page.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::follow::Shared;
use crate::bucket_dump::{Found, Listed, walk};
use crate::model::file_name::FileName;
use crate::model::units::first_few_of;
use crate::s3::{ListedObject, Store, StoreError};

/// Differences that are kept to be named; the others are counted.
const KEPT_MAX: usize = 1_000;

/// What a listing shows beside what was proved.
pub struct BucketCheck<'a> {
    shared: &'a Shared,
    missing: HashSet<FileName>,
    wrong: Vec<String>,
    wrong_count: usize,
    /// The manifest, if it is there.
    pub manifest: Option<ListedObject>,
}

impl<'a> BucketCheck<'a> {
    /// Lists the dump's prefix and compares.
    pub async fn make(store: &Store, shared: &'a Shared) -> Result<Self, StoreError> {
        // `metadata` has just been committed: some stores list what is new a moment later.
        let missing =
            shared.state().uploaded().map(|(name, _)| name).filter(|name| !name.is_metadata()).cloned().collect();
        let (wrong, wrong_count) = (Vec::new(), 0);
        let mut check = Self { shared, missing, wrong, wrong_count, manifest: None };
        let compare = |found| {
            match found {
                Found::Manifest(object) => check.manifest = Some(object),
                Found::File(object) => check.see(object),
                Found::Stranger(key) => check.note(format!("'{}' is not of this dump", key.escape_debug())),
            }
            ControlFlow::Continue(())
        };
        walk(store, &shared.transfer.writer.prefix, compare).await?;
        Ok(check)
    }

    fn see(&mut self, object: Listed) {
        let name = &object.name;
        self.missing.remove(name);
        let difference = match self.shared.state().find_uploaded(name.as_str()).map(|uploaded| &uploaded.object) {
            None => Some(format!("'{name}' is not of this dump")),
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
        (!self.wrong.is_empty()).then(|| first_few_of(&self.wrong, self.wrong_count, named_max, ", "))
    }
}
