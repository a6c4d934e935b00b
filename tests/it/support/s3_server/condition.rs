//! Conditional requests: `If-Match` and `If-None-Match`.

use std::sync::Arc;

use s3s::dto::ETagCondition;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::object::StoredObject;

#[derive(Default)]
pub struct Condition {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
}

impl Condition {
    pub fn check_write(&self, current: Option<&Arc<StoredObject>>) -> S3Result {
        let matches = |condition: &ETagCondition| current.is_some_and(|object| names(condition, &object.etag));
        if self.if_match.is_some() && current.is_none() {
            return Err(s3_error!(NoSuchKey));
        }
        let refused = self.if_none_match.as_ref().is_some_and(matches) || !self.if_match.as_ref().is_none_or(matches);
        if refused { Err(S3Error::new(S3ErrorCode::PreconditionFailed)) } else { Ok(()) }
    }

    pub fn check_read(&self, object: &StoredObject) -> S3Result {
        if self.if_match.as_ref().is_some_and(|condition| !names(condition, &object.etag)) {
            return Err(s3_error!(PreconditionFailed));
        }
        if self.if_none_match.as_ref().is_some_and(|condition| names(condition, &object.etag)) {
            return Err(s3_error!(NotModified));
        }
        Ok(())
    }
}

/// Whether a condition (`*` or an ETag) holds for an object with this ETag.
fn names(condition: &ETagCondition, etag: &str) -> bool {
    condition.as_etag().is_none_or(|wanted| wanted.value() == etag)
}
