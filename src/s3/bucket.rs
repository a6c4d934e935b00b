//! What holds for a bucket as a whole, and what keeps an object from being deleted: versions, retention, emptiness.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{BucketVersioningStatus, ExpirationStatus, ObjectLockLegalHoldStatus};
use jiff::Timestamp;
use tracing::debug;

use super::error::{ErrorKind, StoreError};
use super::store::Store;

/// What keeps an object from being deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Until then.
    pub until: Option<Timestamp>,
    /// As long as nobody lifts a legal hold.
    pub legal_hold: bool,
}

impl Store {
    /// Whether a deletion leaves the bytes there as an old version. `None` if the store does not say, or not to us.
    pub async fn keeps_old_versions(&self) -> Option<bool> {
        let request = async |client: Client| client.get_bucket_versioning().bucket(self.bucket()).send().await;
        let answer = self.persist("GetBucketVersioning", &self.uri(""), request).await.ok()?;
        // With suspended versioning the versions that there are stay, and a new deletion adds a marker.
        let keeping = [BucketVersioningStatus::Enabled, BucketVersioningStatus::Suspended];
        Some(answer.status().is_some_and(|status| keeping.contains(status)))
    }

    /// After how many days the store aborts unfinished uploads under a prefix by itself. `None` if it has no such rule, does
    /// not say, or not to us.
    pub async fn aborts_uploads_after(&self, prefix: &str) -> Option<i32> {
        let request =
            async |client: Client| client.get_bucket_lifecycle_configuration().bucket(self.bucket()).send().await;
        let answer = self.persist("GetBucketLifecycleConfiguration", &self.uri(""), request).await;
        let rules = answer.inspect_err(|error| debug!("{error}")).ok()?.rules.unwrap_or_default();
        let days = rules.into_iter().filter_map(|rule| {
            let filter = rule.filter.as_ref();
            // What is tagged or of some size no unfinished upload is.
            let of_and = filter.and_then(|filter| filter.and()).and_then(|and| and.prefix());
            #[allow(deprecated, reason = "old rules have their prefix there")]
            let of_rule = rule.prefix();
            let of = filter.and_then(|filter| filter.prefix()).or(of_and).or(of_rule).unwrap_or_default();
            let is_meant =
                rule.status == ExpirationStatus::Enabled && (of.starts_with(prefix) || prefix.starts_with(of));
            rule.abort_incomplete_multipart_upload?.days_after_initiation.filter(|_| is_meant)
        });
        days.min()
    }

    /// What keeps an object, as far as the store says: for a message, so no error is worth one of its own.
    pub async fn retention(&self, key: &str) -> Retention {
        let request = async |client: Client| client.head_object().bucket(self.bucket()).key(key).send().await;
        let Ok(answer) = self.persist("HeadObject", &self.uri(key), request).await else {
            return Retention::default();
        };
        let until = answer.object_lock_retain_until_date();
        Retention {
            until: until.and_then(|until| Timestamp::from_nanosecond(until.as_nanos()).ok()),
            legal_hold: answer.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On),
        }
    }

    /// Whether nothing at all is in the bucket: no object, no old version, no upload under way.
    ///
    /// To be asked before [`Store::delete_bucket`]: S3 refuses to delete a bucket that holds something, but SeaweedFS
    /// deletes it with everything in it, unless it was started with another setting.
    pub async fn bucket_is_empty(&self) -> Result<bool, StoreError> {
        let request = async |client: Client| client.list_objects_v2().bucket(self.bucket()).max_keys(1).send().await;
        let page = self.persist("ListObjectsV2", &self.uri(""), request).await?;
        if !page.contents().is_empty() || page.is_truncated() == Some(true) {
            return Ok(false);
        }
        let request =
            async |client: Client| client.list_object_versions().bucket(self.bucket()).max_keys(1).send().await;
        match self.persist("ListObjectVersions", &self.uri(""), request).await {
            Ok(page) if !page.versions().is_empty() || !page.delete_markers().is_empty() => return Ok(false),
            Ok(_) => {}
            // A store without versions has no old ones.
            Err(error) if matches!(error.kind, ErrorKind::NotImplemented | ErrorKind::Invalid) => {}
            Err(error) => return Err(error),
        }
        let request =
            async |client: Client| client.list_multipart_uploads().bucket(self.bucket()).max_uploads(1).send().await;
        let page = self.persist("ListMultipartUploads", &self.uri(""), request).await?;
        Ok(page.uploads().is_empty() && page.is_truncated() != Some(true))
    }

    /// Deletes the bucket. See [`Store::bucket_is_empty`].
    pub async fn delete_bucket(&self) -> Result<(), StoreError> {
        let request = async |client: Client| client.delete_bucket().bucket(self.bucket()).send().await;
        self.persist("DeleteBucket", &self.uri(""), request).await.map(drop)
    }
}
