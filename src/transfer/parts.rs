//! A file in parts: begun, or continued where a killed run left off; sent several at a time; ended or given up.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::{debug, info, trace, warn};

use super::proof::Evidence;
use super::{Passage, Source, TRIES, Transfer, Trouble};
use crate::hasher::Hashed;
use crate::model::etag::{ETag, Md5Digest};
use crate::model::manifest::{ContentHash, ObjectRecord};
use crate::model::part_plan::{Part, PartPlan};
use crate::model::user_metadata::{DUMP_ID, tell_part_sizes};
use crate::s3::{Completed, ErrorKind, FileRange, ObjectHead, PutAnswer, StoreError, StoredPart, Upload};

/// A part that the store took.
struct SentPart {
    number: u32,
    /// Of the bytes that were read here.
    md5: Md5Digest,
    /// As the store gave it.
    given_etag: String,
    /// Whether its ETag is that MD5, or none at all.
    is_proved: bool,
}

impl Transfer {
    /// Uploads a file in parts, several at once. It begins when its first part is hashed: files that wait for that have
    /// nothing in the store yet.
    pub(super) async fn put_parts(&self, passage: &Passage<'_>) -> Result<ObjectRecord, Trouble> {
        let Passage { key, plan, source: Source { footprint, turn, .. }, .. } = *passage;
        let hash = async |part: Part| -> io::Result<_> {
            Ok((part, self.hasher.hash(*turn, footprint.file(), part.offset, part.length).await?))
        };
        let ahead = self.workers + self.hasher.side_by_side();
        let mut hashes = pin!(stream::iter(plan.parts()).map(hash).buffered(ahead));
        let first = hashes.try_next().await?;
        let permit = self.permit().await?;
        let _sending = self.sending.begin();
        self.check_not_stopping()?;
        let left = self.continue_upload(key, plan).await;
        let is_continued = left.is_some();
        let (upload, stored) = match left {
            Some(left) => left,
            None => {
                let mut metadata = passage.metadata.clone();
                tell_part_sizes(&mut metadata, plan.sizes());
                (self.store.begin_upload(key, &metadata).await?, HashMap::new())
            }
        };
        drop(permit);
        self.remember(upload.as_open()).await;
        let (upload, stored) = (&upload, &stored);
        // In whatever order they arrive: one that is slow holds up no other.
        let sent: Result<Vec<_>, Trouble> = stream::iter(first.map(Ok))
            .chain(hashes)
            .map(async |hashed| {
                let (part, hashed) = hashed?;
                self.put_part(passage, upload, part, hashed, stored.get(&part.number)).await
            })
            .buffer_unordered(self.workers)
            .try_collect()
            .await;
        let mut sent = match sent {
            Ok(sent) => sent,
            Err(trouble) => {
                // Where the store is out of reach the parts must stay: they may still be continued.
                if !matches!(&trouble, Trouble::Store(error) if error.is_outage() || error.is_about_rights()) {
                    self.abort(upload.as_open()).await;
                }
                return Err(trouble);
            }
        };
        sent.sort_unstable_by_key(|sent| sent.number);
        let part_md5s: Vec<_> = sent.iter().map(|sent| sent.md5).collect();
        let are_parts_proved = sent.iter().all(|sent| sent.is_proved);
        let etags: Vec<_> = sent.into_iter().map(|sent| (sent.number, sent.given_etag)).collect();
        let hash = ContentHash::Parts { sizes: plan.sizes(), part_md5s };
        if let Err(trouble) = passage.check_expected(&hash) {
            self.abort(upload.as_open()).await;
            return Err(trouble);
        }
        let _permit = self.permit().await?;
        let expected = hash.etag();
        let is_it = |head: &ObjectHead| {
            let is_ours = head.metadata.get(DUMP_ID) == Some(&self.dump_id);
            is_ours && head.size == plan.size() && head.etag.is_some() && head.etag == expected
        };
        let is_it: Option<&dyn Fn(&ObjectHead) -> bool> = if self.write_only { None } else { Some(&is_it) };
        let answer = match self.store.end_upload(upload, &etags, &passage.condition, is_it).await {
            Ok(Completed::Answered(answer)) => {
                self.forget(&upload.as_open());
                answer
            }
            // It may be of an earlier upload of the same bytes; then this one has not ended.
            Ok(Completed::Found(answer)) => {
                self.abort(upload.as_open()).await;
                answer
            }
            // The answer to an earlier try may have been lost after the object was made: HEAD decides.
            Err(error) if !self.write_only && matches!(error.kind, ErrorKind::NoSuchUpload | ErrorKind::NoSuchKey) => {
                self.leave(&upload.as_open());
                PutAnswer { etag: None, version_id: None, etag_is_no_md5: false, otherwise: Vec::new() }
            }
            Err(error) => {
                if !error.is_outage() && !error.is_about_rights() {
                    self.abort(upload.as_open()).await;
                }
                return Err(error.into());
            }
        };
        let object = self.prove(passage, Evidence { hash, answer, are_parts_proved }).await?;
        if is_continued {
            self.check_owner(key).await?;
        }
        Ok(object)
    }

    /// An object says whose it is. Where a continued upload made one that says another, it is sent anew.
    async fn check_owner(&self, key: &str) -> Result<(), StoreError> {
        let head = self.store.head(key).await?.unwrap_or_default();
        if head.metadata.get(DUMP_ID) == Some(&self.dump_id) {
            return Ok(());
        }
        let detail = "the upload that was continued made an object of another dump";
        Err(StoreError::of_answer(ErrorKind::NoSuchUpload, "CompleteMultipartUpload", &self.store.uri(key), detail))
    }

    /// Sends a part, and again where its bytes were damaged on the way: it alone, not the file.
    async fn put_part(
        &self,
        passage: &Passage<'_>,
        upload: &Upload,
        part: Part,
        mut hashed: Hashed,
        stored: Option<&StoredPart>,
    ) -> Result<SentPart, Trouble> {
        let footprint = &passage.source.footprint;
        let mut tries = 1;
        let (given_etag, is_proved) = loop {
            if let Some(stored) = stored
                && stored.etag() == Some(ETag::of_single_put(hashed.md5))
            {
                trace!(part = part.number, "an earlier run sent this part");
                break (stored.given_etag.clone(), true);
            }
            let file = Arc::clone(footprint.file());
            let content = hashed.content.clone();
            let range = FileRange { file, offset: part.offset, length: part.length, content };
            let permit = self.permit().await?;
            let answer = self.store.put_part(upload, part, range, hashed.md5).await;
            drop(permit);
            let answer = match answer {
                Ok(answer) => Ok(answer),
                Err(error) => Err(passage.unless_changed(error).await),
            };
            match answer {
                Ok(answer) => match answer.unlike(hashed.md5) {
                    None => break (answer.given_etag, true),
                    // Twice another one is the store's way: then the whole object is read back.
                    Some(_) if !self.write_only && (tries > 1 || self.has_opaque_parts.load(Ordering::Relaxed)) => {
                        break (answer.given_etag, false);
                    }
                    Some(_) if tries < TRIES => {
                        warn!(
                            "part {} of {} has the ETag {} there, and the MD5 {} here (will be retried)",
                            part.number,
                            self.store.uri(passage.key),
                            answer.given_etag,
                            hashed.md5
                        );
                        tries += 1;
                        hashed = self.hasher.hash_again(footprint.file(), part.offset, part.length).await?;
                    }
                    Some(etag) => {
                        let (number, md5) = (part.number, hashed.md5);
                        return Err(Trouble::Local(format!(
                            "part {number} has the ETag {etag} there, and must have {md5}"
                        )));
                    }
                },
                Err(Trouble::Store(error)) if error.kind == ErrorKind::BadDigest && tries < TRIES => {
                    warn!("{error} (will be retried)");
                    tries += 1;
                    hashed = self.hasher.hash_again(footprint.file(), part.offset, part.length).await?;
                }
                // It was tried often enough; its file need not begin anew for it.
                Err(Trouble::Store(error)) if error.kind == ErrorKind::BadDigest => {
                    return Err(Trouble::Local(error.to_string()));
                }
                Err(trouble) => return Err(trouble),
            }
        };
        footprint.leave(part.offset, part.length);
        trace!(part = part.number, bytes = part.length, "part uploaded");
        Ok(SentPart { number: part.number, md5: hashed.md5, given_etag, is_proved })
    }

    /// An upload of this key that an earlier run left behind, with the parts that it has; `None` if there is none that
    /// was cut in the same way. Its parts are compared with the local bytes one by one.
    async fn continue_upload(&self, key: &str, plan: PartPlan) -> Option<(Upload, HashMap<u32, StoredPart>)> {
        let left = self.take_left(key)?;
        let stored = match self.store.list_parts(&left).await {
            Ok(stored) => stored,
            Err(error) => {
                debug!("{error}; the upload begins anew");
                Vec::new()
            }
        };
        let fits = |stored: &StoredPart| plan.part(stored.number).is_some_and(|part| part.length == stored.size);
        // Without any part nothing shows how it was meant to be cut, and its user metadata says it for good.
        if stored.is_empty() || !stored.iter().all(fits) {
            self.abort(left).await;
            return None;
        }
        info!("continuing the upload of {} with {} parts", self.store.uri(key), stored.len());
        Some((Upload::of_open(left), stored.into_iter().map(|part| (part.number, part)).collect()))
    }
}
