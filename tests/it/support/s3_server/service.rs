//! The S3 operations: from the requests of `s3s` to the [`Store`] and back.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::condition::Condition;
use super::digest::{Claims, receive};
use super::front::Clock;
use super::keys::{Keys, Permission};
use super::object::StoredObject;
use super::request::{EncryptionHeaders, attributes_of_put, attributes_of_upload, part_named, selected};
use super::store::Store;
use super::{answers, listing};

pub struct Service {
    pub store: Arc<Store>,
    pub keys: Keys,
    pub clock: Arc<Clock>,
    pub region: Option<String>,
}

fn ok<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

impl Service {
    /// Who may not list a bucket is not told either whether a key is in it: S3 answers 403 instead of 404.
    fn find<T>(
        &self,
        request: &S3Request<T>,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> S3Result<Arc<StoredObject>> {
        self.store.get(bucket, key, version).map_err(|error| {
            let may_know = self.keys.may(request.credentials.as_ref(), Permission::ListBucket);
            if may_know || *error.code() != s3s::S3ErrorCode::NoSuchKey { error } else { s3_error!(AccessDenied) }
        })
    }

    fn region(&self) -> String {
        self.region.clone().unwrap_or_else(|| "us-east-1".to_owned())
    }
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let bucket = |name| Bucket {
            name: Some(name),
            // Nobody asks for it, but the AWS CLI fails without one.
            creation_date: Some(Timestamp::default()),
            ..Bucket::default()
        };
        let buckets = self.store.bucket_names().into_iter().map(bucket).collect();
        ok(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() })
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.store.create_bucket(&request.input.bucket)?;
        ok(CreateBucketOutput::default())
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.store.delete_bucket(&request.input.bucket)?;
        ok(DeleteBucketOutput::default())
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.store.check_bucket(&request.input.bucket)?;
        ok(HeadBucketOutput { bucket_region: Some(self.region()), ..HeadBucketOutput::default() })
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.store.check_bucket(&request.input.bucket)?;
        // us-east-1 is the region that S3 does not name.
        let location_constraint = self.region.clone().filter(|region| region != "us-east-1").map(Into::into);
        ok(GetBucketLocationOutput { location_constraint })
    }

    async fn put_bucket_versioning(
        &self,
        request: S3Request<PutBucketVersioningInput>,
    ) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        let status = request.input.versioning_configuration.status;
        let versioned = status.is_some_and(|status| status.as_str() == BucketVersioningStatus::ENABLED);
        self.store.with_bucket(&request.input.bucket, |bucket| {
            bucket.versioned = versioned;
            ok(PutBucketVersioningOutput::default())
        })
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        request: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        let rule = self.store.with_bucket(&request.input.bucket, |bucket| Ok(bucket.aborts_after.clone()))?;
        let Some((prefix, days)) = rule else {
            return Err(s3_error!(NoSuchLifecycleConfiguration, "the bucket has no lifecycle configuration"));
        };
        let rule = LifecycleRule {
            abort_incomplete_multipart_upload: Some(AbortIncompleteMultipartUpload {
                days_after_initiation: Some(days),
            }),
            filter: Some(LifecycleRuleFilter { prefix: Some(prefix), ..Default::default() }),
            status: ExpirationStatus::from_static(ExpirationStatus::ENABLED),
            expiration: None,
            id: None,
            noncurrent_version_expiration: None,
            noncurrent_version_transitions: None,
            prefix: None,
            transitions: None,
        };
        ok(GetBucketLifecycleConfigurationOutput { rules: Some(vec![rule]), ..Default::default() })
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let versioned = self.store.with_bucket(&request.input.bucket, |bucket| Ok(bucket.versioned))?;
        let status = versioned.then(|| BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED));
        ok(GetBucketVersioningOutput { status, ..GetBucketVersioningOutput::default() })
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        self.store.check_bucket(&input.bucket)?;
        let attributes = attributes_of_put(&input)?;
        let limits = self.store.limits;
        let attributes = if limits.ignores_settings { attributes.without_settings() } else { attributes };
        let exists = || self.store.with_bucket(&input.bucket, |bucket| Ok(bucket.current(&input.key).is_some()));
        if !limits.overwrites && exists()? {
            return Err(s3_error!(AccessDenied));
        }
        let condition = Condition { if_match: input.if_match, if_none_match: input.if_none_match };
        let condition = if limits.knows_conditions { condition } else { Condition::default() };
        let claims = Claims::new(request.headers, input.content_length, request.trailing_headers)?;
        let claims = claims.without_content_md5(!self.store.limits.checks_content_md5);
        let received = receive(input.body, claims, &self.store.blobs).await?;
        let object = self.store.put(&input.bucket, &input.key, attributes, received, &condition, self.clock.now())?;
        ok(answers::put_object(&object))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = &request.input;
        let object = self.find(&request, &input.bucket, &input.key, input.version_id.as_deref())?;
        Condition { if_match: input.if_match.clone(), if_none_match: input.if_none_match.clone() }
            .check_read(&object)?;
        object.attributes.encryption.check_reader(input.sse_customer_key_md5.as_deref())?;
        if matches!(object.attributes.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE")) {
            return Err(s3_error!(InvalidObjectState, "The operation is not valid for the object's storage class"));
        }
        let range = selected(&object, input.range, input.part_number)?;
        let mut output = answers::get_object(&object, range, input.checksum_mode.is_some());
        output.parts_count = input.part_number.and(object.parts_count.map(|count| count as i32));
        ok(output)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = &request.input;
        let object = self.find(&request, &input.bucket, &input.key, input.version_id.as_deref())?;
        Condition { if_match: input.if_match.clone(), if_none_match: input.if_none_match.clone() }
            .check_read(&object)?;
        object.attributes.encryption.check_reader(input.sse_customer_key_md5.as_deref())?;
        let range = selected(&object, input.range, input.part_number)?;
        let mut output = answers::head_object(&object, range, input.checksum_mode.is_some());
        output.parts_count = input.part_number.and(object.parts_count.map(|count| count as i32));
        let until = self.store.with_bucket(&input.bucket, |bucket| Ok(bucket.retained.get(&input.key).copied()))?;
        output.object_lock_retain_until_date = until.map(Into::into);
        ok(output)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let deleted = self.store.delete(&input.bucket, &input.key, input.version_id.as_deref(), self.clock.now())?;
        ok(DeleteObjectOutput {
            delete_marker: deleted.delete_marker.then_some(true),
            version_id: deleted.version_id,
            ..DeleteObjectOutput::default()
        })
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = request.input;
        self.store.check_bucket(&input.bucket)?;
        if input.delete.objects.len() > listing::MAX_PAGE {
            return Err(s3_error!(MalformedXML, "at most 1000 keys can be deleted by one request"));
        }
        let allowed = self.keys.may(request.credentials.as_ref(), Permission::DeleteObject);
        let mut output = DeleteObjectsOutput {
            deleted: Some(Vec::new()),
            errors: Some(Vec::new()),
            ..DeleteObjectsOutput::default()
        };
        for object in input.delete.objects {
            if !allowed {
                output.errors.get_or_insert_default().push(answers::delete_denied(object));
                continue;
            }
            let version = object.version_id.as_deref();
            let Ok(deleted) = self.store.delete(&input.bucket, &object.key, version, self.clock.now()) else {
                output.errors.get_or_insert_default().push(answers::delete_denied(object));
                continue;
            };
            if input.delete.quiet != Some(true) {
                output.deleted.get_or_insert_default().push(answers::deleted_object(object, deleted));
            }
        }
        ok(output)
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let input = request.input;
        let object = self.store.get(&input.bucket, &input.key, input.version_id.as_deref())?;
        let tag = |(key, value): (&String, &String)| Tag { key: Some(key.clone()), value: Some(value.clone()) };
        let tag_set = object.attributes.tags.iter().map(tag).collect();
        ok(GetObjectTaggingOutput { tag_set, version_id: object.version_id.clone() })
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        self.store.with_bucket(&input.bucket.clone(), |bucket| listing::objects(bucket, input).and_then(ok))
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = request.input;
        self.store.with_bucket(&input.bucket.clone(), |bucket| listing::versions(bucket, input).and_then(ok))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        self.store.with_bucket(&input.bucket.clone(), |bucket| listing::uploads(bucket, input).and_then(ok))
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        self.store.with_bucket(&input.bucket.clone(), |bucket| listing::parts(bucket, input).and_then(ok))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let attributes = attributes_of_upload(&input)?;
        let ignores_settings = self.store.limits.ignores_settings;
        let attributes = if ignores_settings { attributes.without_settings() } else { attributes };
        let (upload_id, attributes) =
            self.store.create_upload(&input.bucket, &input.key, attributes, self.clock.now())?;
        let encryption = EncryptionHeaders::of(&attributes.encryption);
        ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id),
            server_side_encryption: encryption.server_side_encryption,
            ssekms_key_id: encryption.kms_key_id,
            sse_customer_algorithm: encryption.customer_algorithm,
            sse_customer_key_md5: encryption.customer_key_md5,
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let (bucket, key, upload_id) = (&input.bucket, &input.key, &input.upload_id);
        let number = self.store.check_part_number(input.part_number)?;
        // Before the body is read: that there is no such upload needs no gigabyte to find out.
        let encryption = self
            .store
            .with_bucket(bucket, |bucket| Ok(bucket.upload(key, upload_id)?.attributes.encryption.clone()))?;
        encryption.check_reader(input.sse_customer_key_md5.as_deref())?;
        let claims = Claims::new(request.headers, input.content_length, request.trailing_headers)?;
        let claims = claims.without_content_md5(!self.store.limits.checks_content_md5);
        let received = receive(input.body, claims, &self.store.blobs).await?;
        let part = self.store.put_part(bucket, key, upload_id, number, received, self.clock.now())?;
        ok(answers::upload_part(&part, &encryption))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let condition = Condition { if_match: input.if_match, if_none_match: input.if_none_match };
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let parts = parts.into_iter().map(part_named).collect::<S3Result<Vec<_>>>()?;
        let object = self.store.complete_upload(
            &input.bucket,
            &input.key,
            &input.upload_id,
            &parts,
            &condition,
            self.clock.now(),
        )?;
        ok(answers::complete_upload(&object, input.bucket, input.key))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.store.abort_upload(&input.bucket, &input.key, &input.upload_id)?;
        ok(AbortMultipartUploadOutput::default())
    }
}
