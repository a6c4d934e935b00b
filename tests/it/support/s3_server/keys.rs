//! Who may ask for what: access keys with permissions, session tokens and an end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{Credentials, S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use super::lock;

/// The actions of an IAM policy, which are not the operations of the API: an upload in parts needs only `PutObject`,
/// HeadObject needs `GetObject`, HeadBucket needs `ListBucket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    PutObject,
    PutObjectTagging,
    GetObject,
    GetObjectTagging,
    DeleteObject,
    AbortMultipartUpload,
    ListBucket,
    ListBucketVersions,
    ListBucketMultipartUploads,
    ListMultipartUploadParts,
    GetBucketLocation,
    /// Everything about buckets themselves.
    Administration,
}

impl Permission {
    /// What an operation of `s3s` needs; `None` where the answer is given for each key.
    fn needed_for(operation: &str) -> Option<Self> {
        Some(match operation {
            "PutObject" | "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" => Self::PutObject,
            "GetObject" | "HeadObject" => Self::GetObject,
            "GetObjectTagging" => Self::GetObjectTagging,
            "PutObjectTagging" => Self::PutObjectTagging,
            "DeleteObject" => Self::DeleteObject,
            "DeleteObjects" => return None,
            "AbortMultipartUpload" => Self::AbortMultipartUpload,
            "ListObjects" | "ListObjectsV2" | "HeadBucket" => Self::ListBucket,
            "ListObjectVersions" => Self::ListBucketVersions,
            "ListMultipartUploads" => Self::ListBucketMultipartUploads,
            "ListParts" => Self::ListMultipartUploadParts,
            "GetBucketLocation" => Self::GetBucketLocation,
            _ => Self::Administration,
        })
    }
}

/// An access key, as the server knows it.
#[derive(Clone, Debug)]
pub struct AccessKey {
    id: String,
    secret: String,
    session_token: Option<String>,
    expires: Option<SystemTime>,
    allowed: Option<Vec<Permission>>,
    denied: Vec<Permission>,
}

impl AccessKey {
    /// A key that may do everything, for ever.
    pub fn new(id: &str, secret: &str) -> Self {
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            session_token: None,
            expires: None,
            allowed: None,
            denied: Vec::new(),
        }
    }

    /// Requests must carry this `x-amz-security-token`, as those of temporary credentials do.
    pub fn with_session_token(mut self, token: &str) -> Self {
        self.session_token = Some(token.to_owned());
        self
    }

    /// From then on the answer is 400 ExpiredToken.
    pub fn expiring_at(mut self, end: SystemTime) -> Self {
        self.expires = Some(end);
        self
    }

    pub fn only(mut self, permissions: impl IntoIterator<Item = Permission>) -> Self {
        self.allowed = Some(permissions.into_iter().collect());
        self
    }

    pub fn without(mut self, permissions: impl IntoIterator<Item = Permission>) -> Self {
        self.denied.extend(permissions);
        self
    }

    fn may(&self, permission: Permission) -> bool {
        let allowed = self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&permission));
        allowed && !self.denied.contains(&permission)
    }
}

/// The keys that exist now. A test may change them at any time.
#[derive(Clone, Default)]
pub struct Keys(Arc<Mutex<BTreeMap<String, AccessKey>>>);

impl Keys {
    /// Adds a key, or replaces the one with the same id.
    pub fn set(&self, key: AccessKey) {
        lock(&self.0).insert(key.id.clone(), key);
    }

    pub fn remove(&self, id: &str) {
        lock(&self.0).remove(id);
    }

    pub fn may(&self, credentials: Option<&Credentials>, permission: Permission) -> bool {
        let key = credentials.and_then(|credentials| lock(&self.0).get(&credentials.access_key).cloned());
        key.is_some_and(|key| key.may(permission))
    }

    fn get(&self, id: &str) -> S3Result<AccessKey> {
        let key = lock(&self.0).get(id).cloned();
        key.ok_or_else(|| {
            s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records.")
        })
    }
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let key = self.get(access_key)?;
        if key.expires.is_some_and(|end| end <= SystemTime::now()) {
            return Err(s3_error!(ExpiredToken, "The provided token has expired."));
        }
        Ok(SecretKey::from(key.secret))
    }
}

#[async_trait::async_trait]
impl S3Access for Keys {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let credentials = context.credentials().ok_or_else(|| s3_error!(AccessDenied, "the request is not signed"))?;
        let key = self.get(&credentials.access_key)?;
        let token = context.headers().get("x-amz-security-token").and_then(|token| token.to_str().ok());
        if key.session_token.as_deref() != token {
            return Err(s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid."));
        }
        let tags = context.s3_op().name() == "PutObject" || context.s3_op().name() == "CreateMultipartUpload";
        let tags = tags && context.headers().contains_key("x-amz-tagging");
        let needed = Permission::needed_for(context.s3_op().name())
            .into_iter()
            .chain(tags.then_some(Permission::PutObjectTagging));
        for permission in needed {
            if !key.may(permission) {
                let id = &key.id;
                return Err(s3_error!(AccessDenied, "key {id} is not authorized to perform: s3:{permission:?}"));
            }
        }
        Ok(())
    }
}
