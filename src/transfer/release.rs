//! The end of a file's life here: it is given up, now that its object is proved.
//!
//! What is given up is written down beside the dump before it is gone, so that a later run knows what must be in the
//! bucket. And before the first file goes, the claim is looked at once more: where it is another's by now, nothing goes.

use std::io;
use std::sync::Arc;

use super::{Outcome, Transfer};
use crate::claim::ClaimError;
use crate::content::Found;
use crate::dump_dir::Removal;
use crate::model::file_name::FileName;
use crate::model::identity::FileIdentity;
use crate::model::manifest::ObjectRecord;
use crate::model::record::Objects;
use crate::model::state::{Local, UploadJob, Uploaded};
use crate::model::taken_back::renamed_to;

/// A file of so many bytes may take its time to be removed: then not on the network's thread.
const LARGE: u64 = 64 * 1024 * 1024;

impl Transfer {
    /// Removes the local file, now that its object is proved, if it is still the file that was read.
    pub(super) async fn dispose(&self, job: &UploadJob, object: ObjectRecord, found: Found) -> Outcome {
        let name = job.name().as_str();
        let kept = Local::Kept(Box::new(*job.identity()));
        let broken = found.broken.map(String::into_boxed_str);
        let uploaded = |local| Uploaded { object: object.clone(), local, broken, rows: found.rows };
        // `metadata` goes last, when the commit is known to stand.
        // Without a record what is removed is better still here; after mydumper's end the disk does not fill any more.
        let keep = self.keep || job.name().is_metadata() || (job.after_end() && !self.recorder.is_possible());
        let removal = if keep {
            match self.directory.identity(name) {
                Ok(there) if there == *job.identity() => {
                    return Outcome::Uploaded { uploaded: uploaded(kept), removal: None };
                }
                Ok(_) => Ok(Removal::Changed),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Removal::Absent),
                Err(error) => return Outcome::Failed(format!("cannot look at it again: {error}")),
            }
        } else {
            match self.claim_is_ours().await {
                Ok(()) => self.release(job.name(), job.identity(), &object).await,
                Err(ClaimError::Store(error)) if error.is_outage() || error.is_about_rights() => {
                    return Outcome::GaveUp(error.into());
                }
                Err(ClaimError::Store(error)) => return Outcome::Failed(error.to_string()),
                Err(error @ ClaimError::Lost(_)) => return Outcome::GaveUp(error),
            }
        };
        match removal {
            Ok(Removal::Absent) if self.was_renamed(job.name(), job.identity()) => Outcome::Renamed,
            // Gone by whatever hand: its object is proved.
            Ok(Removal::Removed | Removal::Absent) => {
                Outcome::Uploaded { uploaded: uploaded(Local::Removed), removal: None }
            }
            Ok(Removal::Changed) => Outcome::Failed("it changed while it was uploaded".to_owned()),
            Err(error) => Outcome::Uploaded { uploaded: uploaded(kept), removal: Some(error.to_string()) },
        }
    }

    /// Looks, before the first file is given up, whether the prefix is still ours.
    async fn claim_is_ours(&self) -> Result<(), ClaimError> {
        let look = async || self.claim.lock().await.check().await;
        self.is_trusted.get_or_try_init(look).await?;
        Ok(())
    }

    async fn release(&self, name: &FileName, identity: &FileIdentity, object: &ObjectRecord) -> io::Result<Removal> {
        if identity.size < LARGE {
            return self.release_now(name, identity, object);
        }
        // One at a time: what is being removed must fit into the record.
        let _turn = self.large_removals.lock().await;
        self.recorder.begin_removal(name, Objects::of(name, object));
        let (directory, there, read) = (Arc::clone(&self.directory), name.clone(), *identity);
        let removal = tokio::task::spawn_blocking(move || directory.remove_verified(there.as_str(), &read)).await;
        let removal = removal.map_err(io::Error::other).flatten();
        self.end_release(name, identity, &removal);
        removal
    }

    /// Gives one file up. Blocks for as long as the filesystem takes.
    pub fn release_now(&self, name: &FileName, identity: &FileIdentity, object: &ObjectRecord) -> io::Result<Removal> {
        self.recorder.begin_removal(name, Objects::of(name, object));
        let removal = self.directory.remove_verified(name.as_str(), identity);
        self.end_release(name, identity, &removal);
        removal
    }

    /// Gone by whatever hand, its object is all that there is of it; but not where it stands there under another name.
    fn end_release(&self, name: &FileName, identity: &FileIdentity, removal: &io::Result<Removal>) {
        let is_given_up = match removal {
            Ok(Removal::Removed) => true,
            Ok(Removal::Absent) => !self.was_renamed(name, identity),
            Ok(Removal::Changed) | Err(_) => false,
        };
        self.recorder.end_removal(name, is_given_up);
    }

    /// Whether the file stands there under the name that 0.10 gives a table's only file.
    fn was_renamed(&self, name: &FileName, identity: &FileIdentity) -> bool {
        let now = renamed_to(name.as_str()).and_then(|name| self.directory.identity(name).ok());
        now.is_some_and(|there| (there.device, there.inode) == (identity.device, identity.inode))
    }
}
