//! A file that goes up while it is being written, so that the end of a large one is soon after mydumper's.
//!
//! mydumper writes strictly forward (traced in 42 dumps of nine versions: no byte is written twice, none read again), so a
//! part that lies wholly below the file's size is what it will be. It is looked at all the same: a file that is not the
//! one, is shorter than what went up, or whose parts begin otherwise at its end, is sent anew.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures_util::stream;
use parking_lot::{Mutex, MutexGuard};
use tracing::{debug, warn};

use super::giving_back::{Earlier, is_given_back};
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
    pub(super) source: Source,
    /// Its upload.
    pub(super) begun: Option<Begun>,
    /// What was seen of it. `None`: an earlier run gave some of it back, and nobody saw all of it.
    pub(super) seen: Option<Arc<Mutex<Seen>>>,
}

/// What was seen of a file on its way.
#[derive(Debug)]
pub(super) struct Seen {
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

impl Growing {
    fn of(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Store(error) if error.is_outage() || error.is_about_rights() => Self::GaveUp(error.into()),
            Trouble::Lost(error) => Self::GaveUp(error),
            Trouble::Store(error) => Self::Grown(Grown::Failed(error.to_string())),
            Trouble::Local(why) => Self::Grown(Grown::Failed(why)),
        }
    }
}

impl Transfer {
    /// Sends what there is by now of a file that is being written.
    pub async fn follow(&self, job: &GrowthJob) -> Growing {
        let followed = match self.take_followed(job.name(), job.identity()).await {
            Some(followed) => Ok(followed),
            None => self.begin_following(job).await,
        };
        let mut followed = match followed {
            Ok(followed) => followed,
            Err(trouble) => return Growing::of(trouble),
        };
        match self.send_grown(job, &mut followed).await {
            Ok(taken) => {
                if job.gives_back() {
                    self.give_back(job.name(), &mut followed, taken).await;
                }
                let given = followed.source.given;
                self.followed().insert(job.name().clone(), followed);
                Growing::Grown(Grown::Taken { taken, given })
            }
            Err(trouble) => {
                if let Some(begun) = followed.begun.take() {
                    self.writer.give_up(begun, &trouble).await;
                }
                Growing::of(trouble)
            }
        }
    }

    async fn begin_following(&self, job: &GrowthJob) -> Result<Followed, Trouble> {
        let (directory, name, found) = (Arc::clone(&self.directory), job.name().clone(), *job.identity());
        let footprint = aside(move || open_growing(&directory, &name, &found)).await?;
        debug!(file = %job.name(), "it goes up while it is being written");
        let source = self.writer.source(footprint, *job.identity(), None).growing();
        match self.earlier_copy(job.name(), &source).await? {
            None => {}
            Some(Earlier::Underway(begun, given)) => {
                return Ok(Followed { source: source.given_back(given), begun: Some(begun), seen: None });
            }
            Some(Earlier::There(_)) => {
                return Err(Trouble::Local("its object is there, and it still grows".to_owned()));
            }
            Some(Earlier::Lost(why)) => return Err(Trouble::Local(why)),
        }
        let look = ContentLook::new(job.name().as_str(), self.wanted());
        let seen = Arc::new(Mutex::new(Seen { look, heads: Vec::new() }));
        Ok(Followed { source, begun: None, seen: Some(seen) })
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
        let now = stream::iter(parts.iter().copied());
        self.writer.advance(&stretch, &mut followed.begun, now).await?;
        let _permit = self.looks.at_a_time.acquire().await.map_err(|error| Trouble::Local(error.to_string()))?;
        followed.see(parts).await?;
        Ok(end)
    }

    /// A file that was followed has ended: what is there of it, if it is still the one. What is broken is sent anew, since
    /// only a new object can say so; but not where some of it is there alone.
    pub(super) async fn end_following(&self, job: &UploadJob) -> Result<Option<Opened>, Trouble> {
        let Some(followed) = self.take_followed(job.name(), job.identity()).await else { return Ok(None) };
        let Followed { source, begun, seen } = followed;
        let _permit = self.looks.at_a_time.acquire().await.map_err(io::Error::other)?;
        let (file, identity, closeness) = (Arc::clone(source.file()), *job.identity(), self.closeness());
        let given = source.given;
        let ended = aside(move || {
            if identity_of(&file)? != identity {
                return Err(io::Error::other("it changed since it was found closed"));
            }
            let Some(seen) = seen else { return Ok((is_given_back(&file, given)?, None)) };
            let Seen { look, heads } = Arc::into_inner(seen).map(Mutex::into_inner).ok_or(io::ErrorKind::Other)?;
            let is_same =
                |(at, head): &(u64, Md5Digest)| *at < given || head_of(&file, *at).is_ok_and(|now| now == *head);
            let is_same = heads.iter().all(is_same) && is_given_back(&file, given)?;
            io::Result::Ok((is_same, Some(look.finish(&file, identity.size, closeness)?)))
        });
        let is_lost = "it was written over after some of it was given up here";
        let found = match ended.await {
            Ok((true, None)) => None,
            Ok((true, Some(found))) if found.broken.is_none() || given > 0 => Some(found),
            // Its upload stays as it is: the next try finds it by what stands beside the file.
            Ok((false, _)) if given > 0 => return Err(Trouble::Local(is_lost.to_owned())),
            Err(error) if given > 0 => return Err(error.into()),
            ended => {
                if let Ok((false, _)) = &ended {
                    warn!(file = %job.name(), "it was written over while it went up; it is sent anew");
                }
                self.abandon(begun).await;
                ended?;
                return Ok(None);
            }
        };
        let (is_seen, found) = (found.is_some(), found.unwrap_or_default());
        Ok(Some(Opened { source: source.ended(*job.identity()), found, begun, object: None, is_seen }))
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
        match begun {
            Some(begun) if self.writer.is_only_copy(&begun) => self.writer.end_as_it_is(begun).await,
            Some(begun) => self.writer.give_up(begun, &Trouble::Local(String::new())).await,
            None => {}
        }
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<FileName, Followed>> {
        self.followed.lock()
    }
}

impl Followed {
    /// Its size by now. It may only have grown, and what was given back of it is still a hole.
    async fn look_again(&mut self) -> Result<u64, Trouble> {
        let (file, given) = (Arc::clone(self.source.file()), self.source.given);
        let (size, is_same) =
            aside(move || io::Result::Ok((identity_of(&file)?.size, is_given_back(&file, given)?))).await?;
        if size < self.source.identity.size || !is_same {
            return Err(Trouble::Local("it became shorter, or was written over, while it was written".to_owned()));
        }
        self.source.identity.size = size;
        Ok(size)
    }

    /// Looks at parts that went up.
    async fn see(&self, parts: Vec<Part>) -> io::Result<()> {
        let Some(seen) = self.seen.clone() else { return Ok(()) };
        let file = Arc::clone(self.source.file());
        aside(move || {
            let mut seen = seen.lock();
            for part in parts {
                seen.look.advance(&file, part.offset + part.length)?;
                seen.heads.push((part.offset, head_of(&file, part.offset)?));
            }
            Ok(())
        })
        .await
    }
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
