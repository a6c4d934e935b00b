//! The end of a multipart upload: a store may take minutes for it, and its answer may be lost.

use std::cell::Cell;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use tokio::time::Instant;

use super::body::Progress;
use super::connect::TRIES;
use super::error::StoreError;
use super::objects::ObjectHead;
use super::store::Store;
use super::upload::{Condition, PutAnswer, Upload, is_no_md5};
use crate::model::etag::ETag;

/// How long a store may put an object together. AWS: "could take several minutes", meanwhile it sends white space; others
/// send nothing.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Between two looks, meanwhile, at whether the store lives and the object is there.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// The wait before it is asked again, within one try; it doubles.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How a multipart upload ended.
#[derive(Debug)]
pub enum Completed {
    /// The store said so.
    Answered(PutAnswer),
    /// It did not, but the object is there.
    Found(PutAnswer),
}

impl Store {
    /// Ends a multipart upload. `parts` are numbers and ETags in order.
    ///
    /// The answer may be lost although the object was made, and then a repetition finds no such upload. So before it is
    /// asked again, and while no answer comes, the object is looked at; `is_it` tells whether what stands there is what
    /// was sent. Without it nothing may be looked at.
    pub async fn end_upload(
        &self,
        upload: &Upload,
        parts: &[(u32, String)],
        condition: &Condition,
        is_it: Option<&dyn Fn(&ObjectHead) -> bool>,
    ) -> Result<Completed, StoreError> {
        let completed = |(number, etag): &(u32, String)| {
            CompletedPart::builder().part_number(number.cast_signed()).e_tag(etag).build()
        };
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(completed).collect())).build();
        let is_first = Cell::new(true);
        let request = async |client: Client, _: Progress| {
            let mut tries = 0;
            loop {
                if !is_first.replace(false)
                    && let Some(found) = self.find(&upload.key, is_it).await?
                {
                    return Ok(found);
                }
                tries += 1;
                match self.complete(&client, upload, list.clone(), condition).await {
                    Err(error) if error.is_outage() && tries < TRIES => {
                        tokio::time::sleep(AGAIN_AFTER * 2_u32.pow(tries)).await;
                    }
                    answer => return answer,
                }
            }
        };
        let give_up = async |_: &Progress| self.watch(&upload.key, is_it).await;
        self.persist_until(OPERATION, &self.uri(&upload.key), give_up, request).await
    }

    /// Asks once. The SDK would ask again without a look.
    async fn complete(
        &self,
        client: &Client,
        upload: &Upload,
        list: CompletedMultipartUpload,
        condition: &Condition,
    ) -> Result<Completed, StoreError> {
        let request = client
            .complete_multipart_upload()
            .bucket(self.bucket())
            .key(&upload.key)
            .upload_id(&upload.id)
            .multipart_upload(list)
            .set_if_none_match(condition.if_none_match())
            .set_if_match(condition.if_match())
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().retry_config(RetryConfig::disabled()));
        let answer = request.send().await;
        let answer = answer.map_err(|error| StoreError::of_sdk(OPERATION, &self.uri(&upload.key), error))?;
        Ok(Completed::Answered(PutAnswer {
            etag: answer.e_tag().and_then(ETag::from_store),
            version_id: answer.version_id().map(str::to_owned),
            etag_is_no_md5: upload.etag_is_no_md5 || is_no_md5(answer.server_side_encryption(), None),
            otherwise: Vec::new(),
        }))
    }

    /// The object, if it is there. Who may not look at it does without.
    async fn find(
        &self,
        key: &str,
        is_it: Option<&dyn Fn(&ObjectHead) -> bool>,
    ) -> Result<Option<Completed>, StoreError> {
        let Some(is_it) = is_it else { return Ok(None) };
        match self.head_at_once(key).await {
            Ok(head) => Ok(head.filter(is_it).map(|head| {
                let ObjectHead { etag, version_id, etag_is_no_md5, .. } = head;
                Completed::Found(PutAnswer { etag, version_id, etag_is_no_md5, otherwise: Vec::new() })
            })),
            Err(error) if error.is_outage() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// While no answer comes: a store that answers others is at work, and one that does not is down.
    async fn watch(&self, key: &str, is_it: Option<&dyn Fn(&ObjectHead) -> bool>) -> Result<Completed, String> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
            match tokio::time::timeout(LOOK_TIMEOUT, self.find(key, is_it)).await {
                _ if is_it.is_none() => {}
                Ok(Ok(Some(found))) => return Ok(found),
                Ok(Ok(None)) => self.has_answered(),
                Ok(Err(error)) => return Err(format!("no answer, and {error}")),
                Err(_) => return Err(format!("no answer, nor to HeadObject within {} s", LOOK_TIMEOUT.as_secs())),
            }
        }
        Err(format!("no answer within {} s", LIMIT.as_secs()))
    }
}

const OPERATION: &str = "CompleteMultipartUpload";
