//! The end of a file's life here: it is given up, now that its object is proved.
//!
//! What is given up is written down beside the dump before it is gone, so that a later run knows what must be in the
//! bucket. And before the first file goes, the claim is looked at once more: where it is another's by now, nothing goes.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::{Outcome, Transfer};
use crate::aside::{Reply, Trips};
use crate::claim::ClaimError;
use crate::content::Found;
use crate::dump_dir::{DumpDir, Removal, identity_of};
use crate::model::file_name::FileName;
use crate::model::identity::FileIdentity;
use crate::model::manifest::ObjectRecord;
use crate::model::record::Objects;
use crate::model::state::{Local, UploadJob, Uploaded};
use crate::model::taken_back::renamed_to;
use crate::object_writer::same_content;
use crate::recorder::Recorder;

/// A file of so many bytes may take its time to be removed: the others do not wait for it.
const LARGE: u64 = 64 * 1024 * 1024;

/// What became of a local file whose object is proved.
#[derive(Debug)]
enum Left {
    /// It stays, as it was read.
    Kept,
    /// mydumper gave it another name.
    Renamed,
    /// It was to go.
    Removal(io::Result<Removal>),
}

/// How local files are given up.
#[derive(Debug)]
pub struct Disposal {
    /// Writes down what is given up.
    pub recorder: Arc<Recorder>,
    /// Leave local files in place.
    pub keep: bool,
    /// Whether the claim was looked at before the first local file was given up.
    is_trusted: OnceCell<()>,
    /// Files leave together, and large ones one at a time beside them.
    small: Trips<Leaving, Result<Left, String>>,
    large: Trips<Leaving, Result<Left, String>>,
}

impl Disposal {
    /// Nothing is given up yet.
    pub fn new(recorder: Arc<Recorder>, keep: bool) -> Self {
        Self { recorder, keep, is_trusted: OnceCell::new(), small: Trips::default(), large: Trips::default() }
    }
}

/// A file whose object is proved.
#[derive(Debug)]
struct Leaving {
    name: FileName,
    /// What it was when it was read.
    read: FileIdentity,
    file: Arc<File>,
    object: Objects,
    keep: bool,
}

/// What gives local files up. Its calls block.
#[derive(Clone)]
pub struct GivingUp {
    directory: Arc<DumpDir>,
    recorder: Arc<Recorder>,
}

impl Transfer {
    /// Removes the local file, now that its object is proved, if it is still the file that was read.
    pub(super) async fn dispose(
        &self,
        job: &UploadJob,
        file: &Arc<File>,
        object: ObjectRecord,
        found: Found,
    ) -> Outcome {
        let kept = Local::Kept(Box::new(*job.identity()));
        let broken = found.broken.map(String::into_boxed_str);
        let uploaded = |local| Uploaded { object: object.clone(), local, broken, rows: found.rows };
        // `metadata` goes last, when the commit is known to stand.
        // Without a record what is removed is better still here; after mydumper's end the disk does not fill any more.
        let keep = self.disposal.keep
            || job.name().is_metadata()
            || (job.after_end() && !self.disposal.recorder.is_possible());
        if !keep {
            match self.claim_is_ours().await {
                Ok(()) => {}
                Err(ClaimError::Store(error)) if error.is_outage() || error.is_about_rights() => {
                    return Outcome::GaveUp(error.into());
                }
                Err(ClaimError::Store(error)) => return Outcome::Failed(error.to_string()),
                Err(error @ ClaimError::Lost(_)) => return Outcome::GaveUp(error),
            }
        }
        match self.end_local(job, file, &object, keep).await {
            Ok(Left::Kept) => Outcome::Uploaded { uploaded: uploaded(kept), removal: None },
            Ok(Left::Renamed) => Outcome::Renamed,
            // Gone by whatever hand: its object is proved.
            Ok(Left::Removal(Ok(Removal::Removed | Removal::Absent))) => {
                Outcome::Uploaded { uploaded: uploaded(Local::Removed), removal: None }
            }
            Ok(Left::Removal(Ok(Removal::Changed))) => Outcome::Failed("it changed while it was uploaded".to_owned()),
            Ok(Left::Removal(Err(error))) => {
                Outcome::Uploaded { uploaded: uploaded(kept), removal: Some(error.to_string()) }
            }
            Err(why) => Outcome::Failed(why),
        }
    }

    async fn end_local(
        &self,
        job: &UploadJob,
        file: &Arc<File>,
        object: &ObjectRecord,
        keep: bool,
    ) -> Result<Left, String> {
        let (name, read, file) = (job.name().clone(), *job.identity(), Arc::clone(file));
        let object = Objects::of(&name, object);
        let leaving = Leaving { name, read, file, object, keep };
        let trips = if read.size >= LARGE { &self.disposal.large } else { &self.disposal.small };
        let gives_up = self.giving_up();
        trips.ask(leaving, move |all| gives_up.see_off(all)).await
    }

    /// What gives local files up, on a thread that may wait for the filesystem.
    pub fn giving_up(&self) -> GivingUp {
        GivingUp { directory: Arc::clone(&self.directory), recorder: Arc::clone(&self.disposal.recorder) }
    }

    /// Looks, before the first file is given up, whether the prefix is still ours.
    async fn claim_is_ours(&self) -> Result<(), ClaimError> {
        let look = async || self.writer.claim.lock().await.check().await;
        self.disposal.is_trusted.get_or_try_init(look).await?;
        Ok(())
    }
}

impl GivingUp {
    /// Gives one file up.
    pub fn release(&self, name: &FileName, identity: &FileIdentity, object: &ObjectRecord) -> io::Result<Removal> {
        self.recorder.begin_removals(&[(name.clone(), Objects::of(name, object))]);
        self.remove(name, identity)
    }

    /// What becomes of files, each of which is answered for. What goes is written down before, some at a time.
    fn see_off(&self, all: Vec<(Leaving, Reply<Result<Left, String>>)>) {
        let mut going = Vec::new();
        for (leaving, reply) in all {
            match self.stays(&leaving) {
                // Nobody waits for it any more where this cannot be told; so below.
                Some(left) => drop(reply.send(left)),
                None => going.push((leaving, reply)),
            }
        }
        let names: Vec<_> = going.iter().map(|(leaving, _)| (leaving.name.clone(), leaving.object)).collect();
        let mut going = going.into_iter();
        let mut rest = &names[..];
        while !rest.is_empty() {
            let begun = self.recorder.begin_removals(rest);
            for (Leaving { name, read, .. }, reply) in going.by_ref().take(begun) {
                let removal = self.remove(&name, &read);
                let is_renamed = matches!(removal, Ok(Removal::Absent)) && self.was_renamed(&name, &read);
                let _ = reply.send(Ok(if is_renamed { Left::Renamed } else { Left::Removal(removal) }));
            }
            rest = &rest[begun..];
        }
    }

    /// What becomes of a file that is not to be removed: the ETag proves the transfer, not that it stayed the same meanwhile.
    fn stays(&self, leaving: &Leaving) -> Option<Result<Left, String>> {
        let Leaving { name, read, file, keep, .. } = leaving;
        match identity_of(file) {
            Ok(now) if same_content(&now, read) => {}
            Ok(_) => return Some(Err("it changed while it was read".to_owned())),
            Err(error) => return Some(Err(format!("cannot look at it again: {error}"))),
        }
        if !keep {
            return None;
        }
        let removal = match self.directory.identity(name.as_str()) {
            Ok(there) if there == *read => return Some(Ok(Left::Kept)),
            Ok(_) => Removal::Changed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Removal::Absent,
            Err(error) => return Some(Err(format!("cannot look at it again: {error}"))),
        };
        let is_renamed = removal == Removal::Absent && self.was_renamed(name, read);
        Some(Ok(if is_renamed { Left::Renamed } else { Left::Removal(Ok(removal)) }))
    }

    /// Removes one file whose removal is written down.
    fn remove(&self, name: &FileName, identity: &FileIdentity) -> io::Result<Removal> {
        let removal = self.directory.remove_verified(name.as_str(), identity);
        // Gone by whatever hand, its object is all that there is of it; but not where it stands there under another name.
        let is_given_up = match removal {
            Ok(Removal::Removed) => true,
            Ok(Removal::Absent) => !self.was_renamed(name, identity),
            Ok(Removal::Changed) | Err(_) => false,
        };
        self.recorder.end_removal(name, is_given_up);
        removal
    }

    /// Whether the file stands there under the name that 0.10 gives a table's only file.
    fn was_renamed(&self, name: &FileName, identity: &FileIdentity) -> bool {
        let now = renamed_to(name.as_str()).and_then(|name| self.directory.identity(name).ok());
        now.is_some_and(|there| (there.device, there.inode) == (identity.device, identity.inode))
    }
}
