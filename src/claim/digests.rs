//! What a store's answers prove of the bytes that it took, tried out with the claim's own object.

use tracing::{debug, warn};

use super::writing::{Text, is_another};
use super::{Claim, ClaimError};
use crate::model::etag::{ETag, Md5Digest};
use crate::s3::{ErrorKind, PutAnswer};

/// What is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Digests {
    /// Whether the ETag of an object that went up in one request is the MD5 of its bytes.
    are_etags: Option<bool>,
    /// Whether a request is refused whose bytes are not those of its Content-MD5.
    are_checked: Option<bool>,
    /// How the last object is encrypted, in words, if not as asked.
    pub otherwise: Vec<String>,
}

impl Digests {
    /// Takes in what the store said of bytes whose ETag must be `sent`.
    pub(super) fn observe(&mut self, answer: &PutAnswer, sent: &ETag) {
        self.otherwise.clone_from(&answer.otherwise);
        if let Some(etag) = &answer.etag {
            self.are_etags = Some(!answer.etag_is_no_md5 && etag == sent);
        }
    }
}

impl Claim {
    /// Whether the store gives ETags that are no MD5s, as its answers to the claim showed.
    pub fn has_opaque_etags(&self) -> bool {
        self.digests.are_etags == Some(false)
    }

    /// Whether the store refuses bytes that are not those of their Content-MD5; where it does not, that it took them
    /// proves nothing. Tried once, by putting the claim with a wrong one: what is there is the same text either way.
    /// `None` where it was never tried and cannot be any more, because the last manifest is written.
    pub async fn refuses_wrong_md5(&mut self) -> Result<Option<bool>, ClaimError> {
        if self.is_lost {
            return Err(self.lost());
        }
        if self.digests.are_checked.is_some() || self.is_closed {
            return Ok(self.digests.are_checked);
        }
        let text = Text::of(&self.header).map_err(|error| self.unwritable(error))?;
        let sent = ETag::of_single_put(text.md5);
        let wrong = Text { md5: Md5Digest::of(b"bytes that nobody sends"), ..text };
        let condition = self.condition().await?;
        self.unanswered.add(&sent);
        let is_refused = match self.put_once(&wrong, &condition).await {
            // The same request with the right one was taken: it is the MD5 that is refused.
            Err(error) if matches!(error.kind, ErrorKind::BadDigest | ErrorKind::Invalid) => {
                debug!("the store's ETags are no MD5s, and it refuses a wrong Content-MD5: {error}");
                true
            }
            // That somebody else took the prefix, or that an answer was lost, is found out as ever.
            Err(error) if !is_another(&error) => return Err(error.into()),
            answer => {
                if !self.take_in(answer, &sent).await? {
                    return Ok(None);
                }
                warn!(
                    "the store's ETags are no MD5s, and it takes bytes that are not those of their Content-MD5: each \
                     object is read back before its file is given up"
                );
                false
            }
        };
        self.digests.are_checked = Some(is_refused);
        Ok(self.digests.are_checked)
    }
}
