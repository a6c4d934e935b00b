//! A file that goes up while it is being written, so that the end of a large one is soon after mydumper's.
//!
//! mydumper writes strictly forward (traced in 42 dumps of nine versions: no byte is written twice, none read again), so a
//! part that lies wholly below the file's size is what it will be. It is looked at all the same: a file that is not the
//! one, is shorter than what went up, or whose parts begin otherwise at its end, is sent anew.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{debug, warn};

use super::{Opened, Transfer};
use crate::aside::aside;
use crate::claim::ClaimError;
use crate::content::ContentLook;
use crate::dump_dir::{DumpDir, identity_of};
use crate::model::etag::Md5Digest;
use crate::model::file_name::FileName;
use crate::model::identity::FileIdentity;
use crate::model::part_plan::{Part, PartPlan};
use crate::model::state::{Grown, GrowthJob, UploadJob};
use crate::model::user_metadata::{DUMP_ID, UserMetadata};
use crate::object_writer::{Begun, Source, Stretch, Trouble};
use crate::page_cache::Footprint;

/// So many bytes at the beginning of each part are looked at once more when its file has ended.
const HEAD: u64 = 4096;

/// A file that goes up while it is being written.
#[derive(Debug)]
pub struct Followed {
    source: Source,
    /// Its upload.
    begun: Option<Begun>,
    seen: Arc<Mutex<Seen>>,
}

/// What was seen of a file on its way.
#[derive(Debug)]
struct Seen {
    look: ContentLook,
    /// Where each part begins, and the MD5 of its first bytes.
    heads: Vec<(u64, Md5Digest)>,
}

/// Why following ended.
#[derive(Debug)]
pub enum Growing {
    /// For the state.
    Grown(Grown),
    /// The store cannot be had, or the prefix is another's: nothing will succeed any more.
    GaveUp(ClaimError),
}

impl Transfer {
    /// Sends what there is by now of a file that is being written.
    pub async fn follow(&self, job: &GrowthJob) -> Growing {
        let failed = |why: String| Growing::Grown(Grown::Failed(why));
        let followed = match self.take_followed(job.name(), job.identity()).await {
            Some(followed) => Ok(followed),
            None => self.begin_following(job).await,
        };
        let mut followed = match followed {
            Ok(followed) => followed,
            Err(error) => return failed(format!("cannot read it: {error}")),
        };
        match self.send_grown(job, &mut followed).await {
            Ok(taken) => {
                self.followed().insert(job.name().clone(), followed);
                Growing::Grown(Grown::Taken(taken))
            }
            Err(trouble) => {
                if let Some(begun) = followed.begun.take() {
                    self.writer.give_up(begun, &trouble).await;
                }
                match trouble {
                    Trouble::Store(error) if error.is_outage() || error.is_about_rights() => {
                        Growing::GaveUp(error.into())
                    }
                    Trouble::Lost(error) => Growing::GaveUp(error),
                    Trouble::Store(error) => failed(error.to_string()),
                    Trouble::Local(why) => failed(why),
                }
            }
        }
    }

    async fn begin_following(&self, job: &GrowthJob) -> io::Result<Followed> {
        let (directory, name, found) = (Arc::clone(&self.directory), job.name().clone(), *job.identity());
        let footprint = aside(move || open_growing(&directory, &name, &found)).await?;
        let look = ContentLook::new(job.name().as_str(), self.wanted());
        debug!(file = %job.name(), "it goes up while it is being written");
        let source = self.writer.source(footprint, *job.identity(), None).growing();
        Ok(Followed { source, begun: None, seen: Arc::new(Mutex::new(Seen { look, heads: Vec::new() })) })
    }

    /// Sends the whole parts that there are; returns how many bytes of the file are there then.
    async fn send_grown(&self, job: &GrowthJob, followed: &mut Followed) -> Result<u64, Trouble> {
        let key = self.writer.prefix.key(job.name()).map_err(|error| Trouble::Local(error.to_string()))?;
        let size = followed.look_again().await?;
        if followed.begun.is_none()
            && let Some(plan) = PartPlan::of_object(size, self.writer.cut.growing())
        {
            followed.begun = self.writer.continue_left(&key, &[plan]).await;
        }
        let next = followed.begun.as_ref().map_or(1, Begun::next);
        let sizes = followed.begun.as_ref().map_or(self.writer.cut.growing(), Begun::sizes);
        let is_whole = |part: &Part| part.offset + part.length < size;
        let parts: Vec<Part> = (next..).map_while(|number| sizes.part(number).filter(is_whole)).collect();
        let Some(last) = parts.last() else { return Ok(followed.begun.as_ref().map_or(0, Begun::end)) };
        let end = last.offset + last.length;
        let metadata = UserMetadata::from([(DUMP_ID.to_owned(), self.writer.dump_id.clone())]);
        let stretch = Stretch { key: &key, source: &followed.source, metadata: &metadata, sizes };
        self.writer.advance(&stretch, &mut followed.begun, parts.iter().copied()).await?;
        let _permit = self.looks.at_a_time.acquire().await.map_err(|error| Trouble::Local(error.to_string()))?;
        followed.see(parts).await?;
        Ok(end)
    }

    /// A file that was followed has ended: what is there of it, if it is still the one. What is broken is sent anew, since
    /// only a new object can say so.
    pub(super) async fn end_following(&self, job: &UploadJob) -> io::Result<Option<Opened>> {
        let Some(followed) = self.take_followed(job.name(), job.identity()).await else { return Ok(None) };
        let Followed { source, begun, seen } = followed;
        let _permit = self.looks.at_a_time.acquire().await.map_err(io::Error::other)?;
        let (file, identity, closeness) = (Arc::clone(source.file()), *job.identity(), self.closeness());
        let ended = aside(move || {
            let Seen { look, heads } = Arc::into_inner(seen).map(into_inner).ok_or(io::ErrorKind::Other)?;
            if identity_of(&file)? != identity {
                return Err(io::Error::other("it changed since it was found closed"));
            }
            let is_same = |(at, head): &(u64, Md5Digest)| head_of(&file, *at).is_ok_and(|now| now == *head);
            let is_same = heads.iter().all(is_same);
            io::Result::Ok((is_same, look.finish(&file, identity.size, closeness)?))
        });
        let found = match ended.await {
            Ok((true, found)) if found.broken.is_none() => found,
            ended => {
                if let Ok((false, _)) = &ended {
                    warn!(file = %job.name(), "it was written over while it went up; it is sent anew");
                }
                self.abandon(begun).await;
                return ended.map(|_| None);
            }
        };
        Ok(Some(Opened { source: source.ended(*job.identity()), found, begun }))
    }

    /// A file that was followed is gone: what there is of it goes.
    pub async fn forsake(&self, name: &FileName) {
        let followed = self.followed().remove(name);
        if let Some(followed) = followed {
            self.abandon(followed.begun).await;
        }
    }

    /// What is known of a file that is followed, if it is this one.
    async fn take_followed(&self, name: &FileName, identity: &FileIdentity) -> Option<Followed> {
        let followed = self.followed().remove(name)?;
        let there = followed.source.identity;
        if (there.device, there.inode) == (identity.device, identity.inode) {
            return Some(followed);
        }
        self.abandon(followed.begun).await;
        None
    }

    async fn abandon(&self, begun: Option<Begun>) {
        if let Some(begun) = begun {
            self.writer.give_up(begun, &Trouble::Local(String::new())).await;
        }
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<FileName, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Followed {
    /// Its size by now. It may only have grown.
    async fn look_again(&mut self) -> Result<u64, Trouble> {
        let file = Arc::clone(self.source.file());
        let size = aside(move || identity_of(&file)).await?.size;
        if size < self.source.identity.size {
            return Err(Trouble::Local("it became shorter while it was written".to_owned()));
        }
        self.source.identity.size = size;
        Ok(size)
    }

    /// Looks at parts that went up.
    async fn see(&self, parts: Vec<Part>) -> io::Result<()> {
        let (file, seen) = (Arc::clone(self.source.file()), Arc::clone(&self.seen));
        aside(move || {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            for part in parts {
                seen.look.advance(&file, part.offset + part.length)?;
                seen.heads.push((part.offset, head_of(&file, part.offset)?));
            }
            Ok(())
        })
        .await
    }
}

fn into_inner(seen: Mutex<Seen>) -> Seen {
    seen.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The MD5 of the first bytes of a part. Blocks.
fn head_of(file: &File, at: u64) -> io::Result<Md5Digest> {
    let mut head = [0; HEAD as usize];
    file.read_exact_at(&mut head, at)?;
    Ok(Md5Digest::of(&head))
}

/// Opens a file that is being written, if it is still the one that was looked at. Blocks.
fn open_growing(directory: &DumpDir, name: &FileName, found: &FileIdentity) -> io::Result<Footprint> {
    let (file, there) = directory.open_identified(name.as_str())?;
    if (there.device, there.inode) != (found.device, found.inode) {
        return Err(io::Error::other("another file has its name by now"));
    }
    Ok(Footprint::begin(Arc::new(file), there.size))
}
