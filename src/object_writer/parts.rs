//! A file in parts: begun, or continued where a killed run left off; sent several at a time; ended or given up.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering;

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tracing::{debug, info, trace, warn};

use super::proof::Evidence;
use super::{ObjectWriter, Passage, Source, TRIES, Trouble};
use crate::hasher::Hashed;
use crate::model::etag::{ETag, Md5Digest};
use crate::model::given_back::GivenBack;
use crate::model::manifest::{ContentHash, ObjectRecord};
use crate::model::part_plan::{Part, PartPlan};
use crate::model::part_sizes::PartSizes;
use crate::model::record::UploadMark;
use crate::model::user_metadata::{BROKEN, DUMP_ID, UserMetadata, tell_part_sizes};
use crate::s3::{Completed, Condition, ErrorKind, ObjectHead, OpenUpload, PutAnswer, StoreError, StoredPart, Upload};

/// A part that the store took.
#[derive(Debug)]
pub struct SentPart {
    number: u32,
    /// Of the bytes that were read here.
    md5: Md5Digest,
    /// As the store gave it.
    given_etag: String,
    /// Whether its ETag is that MD5, or none at all.
    is_proved: bool,
}

/// Bytes that are to be sent in parts.
#[derive(Debug)]
pub struct Stretch<'a> {
    /// Where they go.
    pub key: &'a str,
    /// What they are read from.
    pub source: &'a Source,
    /// Goes with the object, if its upload is begun with these.
    pub metadata: &'a UserMetadata,
    /// How the object is cut.
    pub sizes: PartSizes,
}

/// A multipart upload that was begun and has not ended.
#[derive(Debug)]
pub struct Begun {
    upload: Upload,
    /// How its object is cut.
    sizes: PartSizes,
    /// What an earlier run sent; compared with the bytes here part by part.
    stored: HashMap<u32, StoredPart>,
    /// The parts that are there, in order, from the first on.
    sent: Vec<SentPart>,
}

impl Begun {
    /// The number of the next part.
    pub fn next(&self) -> u32 {
        self.sent.len() as u32 + 1
    }

    /// So many bytes are there.
    pub fn end(&self) -> u64 {
        self.sent.last().and_then(|sent| self.sizes.part(sent.number)).map_or(0, |part| part.offset + part.length)
    }

    /// How its object is cut.
    pub fn sizes(&self) -> PartSizes {
        self.sizes
    }

    /// By what it is known again.
    pub fn mark(&self) -> UploadMark {
        self.as_open().mark()
    }

    /// As it is found again.
    pub(super) fn as_open(&self) -> OpenUpload {
        self.upload.as_open()
    }

    /// What is to stand beside the file before blocks of its first `parts` parts are given back. `None` where a restart
    /// could not tell from the store that they are right: their ETags are no MD5s.
    pub fn given_back(&self, dump_id: &str, parts: u32) -> Option<GivenBack> {
        let sent = self.sent.get(..parts as usize)?;
        let tells = |sent: &SentPart| ETag::from_store(&sent.given_etag) == Some(ETag::of_single_put(sent.md5));
        let part_md5s: Vec<_> = sent.iter().map(|sent| sent.md5).collect();
        sent.iter().all(tells).then(|| GivenBack::new(dump_id, &self.as_open().id, self.sizes, &part_md5s))
    }

    fn is_continued(&self) -> bool {
        !self.stored.is_empty()
    }
}

impl ObjectWriter {
    /// Uploads a file in parts, several at once; where that was begun while it grew, the rest of it.
    pub(super) async fn put_parts(&self, passage: &Passage<'_>, begun: Option<Begun>) -> Result<ObjectRecord, Trouble> {
        let Passage { key, source, .. } = *passage;
        let size = passage.plan.size();
        let mut begun = match begun {
            // It was begun when nobody knew that its content is broken, and its object could not say so.
            None if passage.metadata.contains_key(BROKEN) => None,
            None => {
                // Where an earlier run followed it while it grew, it was cut by that rule.
                let grown = PartPlan::of_object(size, self.cut.growing()).into_iter();
                let plans: Vec<_> = [passage.plan].into_iter().chain(grown).collect();
                self.continue_left(key, &plans).await
            }
            begun => begun,
        };
        let plan = match &begun {
            Some(begun) => PartPlan::of_object(size, begun.sizes),
            None => Some(passage.plan),
        };
        let next = begun.as_ref().map_or(1, Begun::next);
        let parts = plan.into_iter().flat_map(PartPlan::parts).skip_while(|part| part.number < next);
        let stretch = Stretch { key, source, metadata: &passage.metadata, sizes: passage.plan.sizes() };
        let advanced = match plan {
            Some(_) => self.advance(&stretch, &mut begun, stream::iter(parts)).await,
            None => Err(Trouble::Local("it has grown beyond what its parts can hold".to_owned())),
        };
        match (advanced, begun) {
            (Ok(()), Some(begun)) => self.end_parts(passage, begun).await,
            (Ok(()), None) => Err(Trouble::Local("it has no parts".to_owned())),
            (Err(trouble), None) => Err(trouble),
            (Err(trouble), Some(begun)) => {
                self.give_up(begun, &trouble).await;
                Err(trouble)
            }
        }
    }

    /// Sends the next parts. An upload begins when its first part is hashed: files that wait for that have nothing in the
    /// store yet. Where it fails for good it is aborted, and none is begun any more.
    pub async fn advance(
        &self,
        stretch: &Stretch<'_>,
        begun: &mut Option<Begun>,
        parts: impl Stream<Item = Part>,
    ) -> Result<(), Trouble> {
        let source = stretch.source;
        let hash = async |part: Part| -> io::Result<_> {
            Ok((part, self.hasher.hash(source.turn, &source.range(part.offset, part.length)).await?))
        };
        let ahead = self.gate.width() + self.hasher.side_by_side();
        let mut hashes = pin!(parts.map(hash).buffered(ahead));
        let first = hashes.try_next().await?;
        let permit = self.gate.permit().await?;
        let _sending = self.gate.begin()?;
        let upload = match begun {
            Some(upload) => upload,
            None => begun.insert(self.begin(stretch).await?),
        };
        drop(permit);
        let (there, stored) = (&upload.upload, &upload.stored);
        // In whatever order they arrive: one that is slow holds up no other.
        let sent: Result<Vec<_>, Trouble> = stream::iter(first.map(Ok))
            .chain(hashes)
            .map(async |hashed| {
                let (part, hashed) = hashed?;
                self.put_part(stretch, there, part, hashed, stored.get(&part.number)).await
            })
            .buffer_unordered(self.gate.width())
            .try_collect()
            .await;
        match sent {
            Ok(mut sent) => {
                sent.sort_unstable_by_key(|sent| sent.number);
                upload.sent.append(&mut sent);
                Ok(())
            }
            Err(trouble) => {
                if let Some(begun) = begun.take() {
                    self.give_up(begun, &trouble).await;
                }
                Err(trouble)
            }
        }
    }

    /// Goes on with an upload that has what was given back here. What the store lists must be those parts.
    pub async fn resume(&self, key: &str, given: &GivenBack) -> Result<Begun, Trouble> {
        let upload = OpenUpload { key: key.to_owned(), id: given.upload.clone() };
        let mut stored = self.store.list_parts(&upload).await?;
        stored.sort_unstable_by_key(|part| part.number);
        let of_part = |(index, there): (usize, &StoredPart)| {
            let part = given.sizes.part(there.number)?;
            let is_it = there.number as usize == index + 1 && there.size == part.length;
            let md5 = there.etag()?.as_md5().filter(|_| is_it)?;
            Some(SentPart { number: there.number, md5, given_etag: there.given_etag.clone(), is_proved: true })
        };
        let first: Option<Vec<_>> = stored.iter().take(given.parts as usize).enumerate().map(of_part).collect();
        let md5s: Vec<_> = first.iter().flatten().map(|sent| sent.md5).collect();
        let Some(sent) = first.filter(|_| given.are_the_parts(&md5s)) else {
            return Err(Trouble::Local(format!(
                "the store does not list the {} parts of its unfinished upload that were given up here",
                given.parts
            )));
        };
        info!("going on with the upload of {}: {} parts of it are there alone", self.store.uri(key), given.parts);
        let stored = stored.into_iter().map(|part| (part.number, part)).collect();
        self.remember(upload.clone()).await;
        Ok(Begun { upload: Upload::of_open(upload), sizes: given.sizes, stored, sent })
    }

    /// Makes an object of what there is of a file that is gone or cannot be ended: all that is left of it.
    pub async fn end_as_it_is(&self, begun: Begun) {
        let (key, parts) = (begun.as_open().key, begun.sent.len());
        let etags: Vec<_> = begun.sent.iter().map(|sent| (sent.number, sent.given_etag.clone())).collect();
        match self.store.end_upload(&begun.upload, &etags, &Condition::None, None).await {
            Ok(_) => {
                self.forget(&begun.as_open());
                warn!(
                    "{} has the first {parts} parts of a file that is gone: all that is left of it",
                    self.store.uri(&key)
                );
            }
            Err(error) => warn!("what is left of a file that is gone stays in an unfinished upload: {error}"),
        }
    }

    /// Nothing more comes of an upload. Where the store is out of reach its parts must stay: they may still be continued.
    pub async fn give_up(&self, begun: Begun, trouble: &Trouble) {
        if !matches!(trouble, Trouble::Store(error) if error.is_outage() || error.is_about_rights()) {
            self.abort(begun.upload.as_open()).await;
        }
    }

    async fn begin(&self, stretch: &Stretch<'_>) -> Result<Begun, StoreError> {
        let Stretch { key, sizes, .. } = *stretch;
        let mut metadata = stretch.metadata.clone();
        tell_part_sizes(&mut metadata, sizes);
        let upload = self.store.begin_upload(key, &metadata).await?;
        self.remember(upload.as_open()).await;
        Ok(Begun { upload, sizes, stored: HashMap::new(), sent: Vec::new() })
    }

    /// Makes the object of the parts, and proves it.
    pub(super) async fn end_parts(&self, passage: &Passage<'_>, begun: Begun) -> Result<ObjectRecord, Trouble> {
        let (key, size, is_continued) = (passage.key, passage.plan.size(), begun.is_continued());
        let Begun { upload, sizes, sent, .. } = begun;
        let upload = &upload;
        let part_md5s: Vec<_> = sent.iter().map(|sent| sent.md5).collect();
        let are_parts_proved = sent.iter().all(|sent| sent.is_proved);
        let etags: Vec<_> = sent.into_iter().map(|sent| (sent.number, sent.given_etag)).collect();
        let hash = ContentHash::Parts { sizes: sizes.of_object(size), part_md5s };
        if let Err(trouble) = passage.check_expected(&hash) {
            self.abort(upload.as_open()).await;
            return Err(trouble);
        }
        let _permit = self.gate.permit().await?;
        let expected = hash.etag();
        let is_it = |head: &ObjectHead| {
            let is_ours = head.metadata.get(DUMP_ID) == Some(&self.dump_id);
            is_ours && head.size == size && head.etag.is_some() && head.etag == expected
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
        stretch: &Stretch<'_>,
        upload: &Upload,
        part: Part,
        mut hashed: Hashed,
        stored: Option<&StoredPart>,
    ) -> Result<SentPart, Trouble> {
        let Stretch { key, source, .. } = *stretch;
        let mut tries = 1;
        let (given_etag, is_proved) = loop {
            if let Some(stored) = stored
                && stored.etag() == Some(ETag::of_single_put(hashed.md5))
            {
                trace!(part = part.number, "an earlier run sent this part");
                break (stored.given_etag.clone(), true);
            }
            let range = source.range(part.offset, part.length).with(hashed.content.clone());
            let permit = self.gate.permit().await?;
            let answer = self.store.put_part(upload, part, range, hashed.md5).await;
            drop(permit);
            let answer = match answer {
                Ok(answer) => Ok(answer),
                Err(error) => Err(source.unless_changed(error).await),
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
                            self.store.uri(key),
                            answer.given_etag,
                            hashed.md5
                        );
                        tries += 1;
                        hashed = self.hasher.hash_again(&source.range(part.offset, part.length)).await?;
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
                    hashed = self.hasher.hash_again(&source.range(part.offset, part.length)).await?;
                }
                // It was tried often enough; its file need not begin anew for it.
                Err(Trouble::Store(error)) if error.kind == ErrorKind::BadDigest => {
                    return Err(Trouble::Local(error.to_string()));
                }
                Err(trouble) => return Err(trouble),
            }
        };
        source.leave(part);
        trace!(part = part.number, bytes = part.length, "part uploaded");
        Ok(SentPart { number: part.number, md5: hashed.md5, given_etag, is_proved })
    }

    /// An upload of this key that an earlier run left behind, with the parts that it has; `None` if there is none that
    /// was cut in one of these ways. Its parts are compared with the local bytes one by one.
    pub async fn continue_left(&self, key: &str, plans: &[PartPlan]) -> Option<Begun> {
        let left = self.take_left(key)?;
        let stored = match self.store.list_parts(&left).await {
            Ok(stored) => stored,
            Err(error) => {
                debug!("{error}; the upload begins anew");
                Vec::new()
            }
        };
        let fits = |plan: &&PartPlan| {
            let fits = |there: &StoredPart| plan.part(there.number).is_some_and(|part| part.length == there.size);
            stored.iter().all(fits)
        };
        // Without any part nothing shows how it was meant to be cut, and its user metadata says it for good.
        let Some(plan) = plans.iter().find(fits).filter(|_| !stored.is_empty()) else {
            self.abort(left).await;
            return None;
        };
        info!("continuing the upload of {} with {} parts", self.store.uri(key), stored.len());
        let stored = stored.into_iter().map(|part| (part.number, part)).collect();
        self.remember(left.clone()).await;
        Some(Begun { upload: Upload::of_open(left), sizes: plan.sizes(), stored, sent: Vec::new() })
    }
}
