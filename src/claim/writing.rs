//! How a manifest gets under its key, and how it is found out whose the one is that stands there.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Instant;

use super::{Claim, ClaimError};
use crate::model::etag::{ETag, Md5Digest};
use crate::model::manifest::{self, ManifestHeader};
use crate::model::user_metadata::DUMP_ID;
use crate::s3::{Condition, ErrorKind, FileRange, ObjectHead, PutAnswer, StoreError, TRIES};

/// A claim is no larger, in bytes: it names no file.
const CLAIM_MAX: u64 = 1 << 20;
/// So many are remembered; each took a request that failed or was given up.
const UNANSWERED_MAX: usize = 16;

/// Texts of ours that were sent and not answered: an attempt that ran out of time, or an outage. Any of them may stand
/// there, and is no sign of another program.
#[derive(Debug, Default)]
pub(super) struct Unanswered(VecDeque<ETag>);

impl Unanswered {
    /// One is about to be sent.
    pub fn add(&mut self, sent: &ETag) {
        self.answered(sent);
        if self.0.len() == UNANSWERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(sent.clone());
    }

    /// That one was answered.
    fn answered(&mut self, sent: &ETag) {
        self.0.retain(|unanswered| unanswered != sent);
    }

    fn find(&self, etag: &ETag) -> Option<ETag> {
        self.0.iter().find(|unanswered| *unanswered == etag).cloned()
    }
}

/// A manifest without files, ready to be put.
pub(super) struct Text {
    pub(super) range: FileRange,
    /// Of its bytes.
    pub md5: Md5Digest,
}

impl Text {
    /// The claim with that header.
    pub fn of(header: &ManifestHeader) -> std::io::Result<Self> {
        let mut text = Vec::new();
        manifest::write(&mut text, header, std::iter::empty())?;
        Ok(Self { range: FileRange::in_memory("manifest", &text)?, md5: Md5Digest::of(&text) })
    }
}

impl Claim {
    /// Looks whether the claim is still what we wrote. An error of the store says nothing.
    pub async fn check(&mut self) -> Result<(), ClaimError> {
        if self.write_only {
            return Ok(());
        }
        if self.is_lost {
            return Err(self.lost());
        }
        self.recognized().await.map(drop)
    }

    /// Looks at what stands there. If it is ours, a write may go by its ETag from now on; what is returned is the ETag of
    /// its text: of an unanswered one, or else what is known to stand there.
    async fn recognized(&mut self) -> Result<Option<ETag>, ClaimError> {
        let Some(there) = self.store.head(&self.prefix.manifest_key()).await? else { return Err(self.lost()) };
        match (&self.etag, &there.etag) {
            (Some(ours), Some(etag)) if ours == etag => return Ok(Some(ours.clone())),
            // A store that tells no ETag: the dump's id has to do.
            (None, _) if there.metadata.get(DUMP_ID) == Some(&self.header.dump_id) => return Ok(None),
            _ => {}
        }
        match self.unanswered(&there).await? {
            Some(text) => {
                self.etag = there.etag.or_else(|| Some(text.clone()));
                Ok(Some(text))
            }
            None => Err(self.lost()),
        }
    }

    /// Which of the unanswered texts that object is.
    async fn unanswered(&self, there: &ObjectHead) -> Result<Option<ETag>, ClaimError> {
        let by_etag = there.etag.as_ref().and_then(|etag| self.unanswered.find(etag));
        let is_opaque = there.etag_is_no_md5 || self.has_opaque_etags();
        if by_etag.is_some() || !is_opaque || self.unanswered.0.is_empty() {
            return Ok(by_etag);
        }
        // Where the store gives another ETag its bytes tell.
        let text = self.store.read(&self.prefix.manifest_key(), CLAIM_MAX).await?;
        Ok(text.and_then(|text| self.unanswered.find(&ETag::of_single_put(Md5Digest::of(&text)))))
    }

    /// Writes that text over what is ours.
    pub(super) async fn write(&mut self, text: &Text) -> Result<(), ClaimError> {
        let sent = ETag::of_single_put(text.md5);
        for _ in 0..TRIES {
            let condition = self.condition().await?;
            let answer = self.put(text, &condition).await;
            if self.take_in(answer, &sent).await? {
                return Ok(());
            }
        }
        Err(self.lost())
    }

    /// How the next manifest is to be put. Where the store knows no condition it is looked at just before.
    pub(super) async fn condition(&mut self) -> Result<Condition, ClaimError> {
        match &self.etag {
            Some(etag) if self.conditions.same => Ok(Condition::Is(etag.clone())),
            _ => self.check().await.map(|()| Condition::None),
        }
    }

    pub(super) async fn put(&mut self, text: &Text, condition: &Condition) -> Result<PutAnswer, StoreError> {
        self.unanswered.add(&ETag::of_single_put(text.md5));
        let mut tries = 1;
        loop {
            match self.put_once(text, condition).await {
                // Damaged on its way: once more, as for any file.
                Err(error) if error.kind == ErrorKind::BadDigest && tries < TRIES => tries += 1,
                answer => return answer,
            }
        }
    }

    pub(super) async fn put_once(&self, text: &Text, condition: &Condition) -> Result<PutAnswer, StoreError> {
        let metadata = HashMap::from([(DUMP_ID.to_owned(), self.header.dump_id.clone())]);
        self.store.put(&self.prefix.manifest_key(), text.range.clone(), text.md5, &metadata, condition).await
    }

    /// Takes in what the store said of a manifest that has this ETag: whether it stands there now. If not, an earlier text
    /// of ours does.
    pub(super) async fn take_in(
        &mut self,
        answer: Result<PutAnswer, StoreError>,
        sent: &ETag,
    ) -> Result<bool, ClaimError> {
        match answer {
            // Where the answer has none, the ETag is known all the same.
            Ok(answer) => {
                self.digests.observe(&answer, sent);
                self.etag = Some(answer.etag.unwrap_or_else(|| sent.clone()));
            }
            // Equal bytes are ours: an answer was lost.
            Err(error) if is_another(&error) => {
                if self.recognized().await?.as_ref() != Some(sent) {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.unanswered.answered(sent);
        self.written = Instant::now();
        Ok(true)
    }

    pub(super) fn lost(&mut self) -> ClaimError {
        (self.is_lost, self.is_closed) = (true, true);
        ClaimError::Lost(self.store.uri(&self.prefix.manifest_key()))
    }

    pub(super) fn unwritable(&self, error: impl fmt::Display) -> ClaimError {
        let uri = self.store.uri(&self.prefix.manifest_key());
        StoreError::of_answer(ErrorKind::Invalid, "PutObject", &uri, error.to_string()).into()
    }
}

/// What a condition is refused with where another object stands there, or none any more.
pub fn is_another(error: &StoreError) -> bool {
    matches!(error.kind, ErrorKind::Precondition | ErrorKind::NoSuchKey)
}
