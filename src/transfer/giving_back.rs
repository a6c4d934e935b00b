//! Blocks of a file that is still being written are given back, part by part, where that was asked for. From then on an
//! unfinished upload has the only copy of these bytes, so before that it stands beside the file which upload that is, and
//! beside the dump that nobody may abort it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::OnceCell;
use tracing::{debug, info, warn};

use super::Transfer;
use super::growing::Followed;
use crate::aside::aside;
use crate::dump_dir::{GivenBack as Given, hole_at_start};
use crate::model::file_name::FileName;
use crate::model::manifest::ObjectRecord;
use crate::object_writer::{Begun, Source, Trouble};
use crate::recorder::{read_given_back, write_given_back};
use crate::s3::ErrorKind;
use crate::trial::takes_unequal_parts;

/// Blocks are given back in multiples of this, in bytes: filesystems have blocks of up to 64 KiB.
const BLOCK: u64 = 64 * 1024;

/// Whether blocks are given back, and what came of it.
#[derive(Debug, Default)]
pub struct GivingBack {
    /// Why not, or not any more; said once.
    is_over: AtomicBool,
    /// Bytes that were given back before their files were whole in the bucket.
    bytes: AtomicU64,
    /// Whether the store was seen to take parts of unequal sizes.
    takes_unequal: OnceCell<bool>,
}

impl GivingBack {
    /// Bytes that were given back before their files were whole in the bucket.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn end(&self, why: &str) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            warn!("no blocks of files that are still being written are given back: {why}");
        }
    }
}

/// What became of what an earlier run gave back of a file.
pub(super) enum Earlier {
    /// So many bytes of it are in this unfinished upload.
    Underway(Begun, u64),
    /// It is whole there.
    There(ObjectRecord),
    /// It cannot be had any more.
    Lost(String),
}

impl Transfer {
    /// Gives back what went up of a file, up to `taken` bytes of it. Where it cannot be, it stays.
    pub(super) async fn give_back(&self, name: &FileName, followed: &mut Followed, taken: u64) {
        if self.giving_back.is_over.load(Ordering::Relaxed) {
            return;
        }
        let Some(begun) = &followed.begun else { return };
        let (mut parts, mut end) = (begun.next() - 1, taken);
        let equal = begun.sizes().max_parts().map_or(parts, |most| most / 2);
        if parts > equal && !self.takes_unequal_parts().await {
            // Some stores find out only at the end that parts are not equal; then all would be lost.
            parts = equal;
            end = begun.sizes().part(parts).map_or(0, |part| part.offset + part.length);
        }
        let to = end / BLOCK * BLOCK;
        if to <= followed.source.given {
            return;
        }
        let Some(given) = begun.given_back(&self.writer.dump_id, parts) else {
            return self.giving_back.end("the store's ETags are no MD5s, so that a restart could not tell what it has");
        };
        let (directory, recorder) = (Arc::clone(&self.directory), Arc::clone(&self.disposal.recorder));
        let (file, of, mark, before) =
            (Arc::clone(followed.source.file()), name.clone(), begun.mark(), followed.source.given);
        let outcome = aside(move || {
            if !recorder.keep_upload(&of, mark) {
                return Err("it cannot be written down beside the dump".to_owned());
            }
            write_given_back(&file, &given)
                .map_err(|error| format!("it cannot be written down beside the file: {error}"))?;
            match directory.give_back(of.as_str(), &file, to) {
                Ok(Given::Given) => Ok(to),
                Ok(Given::NotNow) => Ok(before),
                Ok(Given::Unsupported) => Err("the filesystem cannot".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        });
        match outcome.await {
            Err(why) => self.giving_back.end(&why),
            Ok(to) => {
                if self.giving_back.bytes.fetch_add(to - before, Ordering::Relaxed) == 0 && to > before {
                    info!(
                        "blocks of files that are still being written are given back: from now on unfinished uploads hold \
                         the only copy of some bytes, and nothing else may abort them"
                    );
                }
                debug!(file = %name, bytes = to, "given back so far");
                followed.source.given = to;
            }
        }
    }

    async fn takes_unequal_parts(&self) -> bool {
        let key = self.writer.prefix.trial_key();
        *self.giving_back.takes_unequal.get_or_init(async || takes_unequal_parts(&self.writer.store, &key).await).await
    }

    /// What an earlier run gave back of a file, if it did.
    pub(super) async fn earlier_copy(&self, name: &FileName, source: &Source) -> Result<Option<Earlier>, Trouble> {
        let there = Arc::clone(source.file());
        let (given, hole) = aside(move || (read_given_back(&there), hole_at_start(&there))).await;
        let given = given.map_err(|why| Trouble::Local(format!("what stands beside it cannot be read: {why}")))?;
        let hole = hole?;
        // Written down before anything was given back: where nothing was, all of it is still here.
        if hole == 0 {
            return Ok(None);
        }
        let Some(given) = given else {
            let is_known = self.disposal.recorder.unseen().contains(name);
            let lost = || Earlier::Lost(format!("nothing beside it tells any more where its first {hole} bytes are"));
            return Ok(is_known.then(lost));
        };
        if given.dump != self.writer.dump_id || given.bytes().is_none_or(|bytes| hole > bytes) {
            return Err(Trouble::Local("what was given back of it does not fit to what stands beside it".to_owned()));
        }
        let key = self.writer.prefix.key(name).map_err(|error| Trouble::Local(error.to_string()))?;
        let why = match self.writer.resume(&key, &given).await {
            Ok(begun) => return Ok(Some(Earlier::Underway(begun, hole))),
            Err(Trouble::Store(error)) if error.kind == ErrorKind::NoSuchUpload => error.to_string(),
            Err(Trouble::Local(why)) => why,
            Err(trouble) => return Err(trouble),
        };
        match self.writer.recognize(&key, &given, source).await? {
            Some(object) => Ok(Some(Earlier::There(object))),
            None => Ok(Some(Earlier::Lost(format!("its first {hole} bytes were given back, and are lost: {why}")))),
        }
    }
}

/// Whether so much of a file is a hole as was given back of it. Blocks.
pub(super) fn is_given_back(file: &File, given: u64) -> io::Result<bool> {
    Ok(given == 0 || hole_at_start(file)? == given)
}
