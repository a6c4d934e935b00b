//! What an error of the store means: mend the settings, wait, try again, or start the file anew.

use std::error::Error as StdError;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::answer::AnswerTooLarge;
use super::credentials::Away;

/// What is to be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The credentials may not do this.
    AccessDenied,
    /// The credentials are wrong or are none.
    Credentials,
    /// The credentials were right once: they expired.
    Expired,
    /// There is no such bucket.
    NoSuchBucket,
    /// The bucket lives in another region, or the endpoint is wrong.
    WrongRegion,
    /// The server's certificate is not trusted.
    Certificate,
    /// The endpoint is https, and the server speaks http.
    NoTls,
    /// There is no such object.
    NoSuchKey,
    /// The multipart upload is gone: the file must start anew.
    NoSuchUpload,
    /// The bytes that arrived are not those that were hashed: read and send again.
    BadDigest,
    /// A condition of the request does not hold: somebody else was there first.
    Precondition,
    /// The store does not know this operation.
    NotImplemented,
    /// The store is busy, broken or out of reach: wait.
    Unavailable,
    /// Who tells the credentials is: wait, too.
    CredentialsAway,
    /// What was asked for cannot be done: waiting will not help.
    Invalid,
    /// There is more of it than this program takes.
    TooLarge,
    /// The local file could not be read; it says nothing about the store.
    Unreadable,
}

/// An error of the store: what was tried, on what, and why it failed.
#[derive(Debug)]
pub struct StoreError {
    /// What to do about it.
    pub kind: ErrorKind,
    operation: &'static str,
    object: String,
    detail: String,
    /// The region that the store named as the bucket's.
    region: Option<String>,
}

impl StoreError {
    /// An error that we found ourselves in the store's answer.
    pub fn of_answer(kind: ErrorKind, operation: &'static str, object: &str, detail: impl Into<String>) -> Self {
        Self { kind, operation, object: object.to_owned(), detail: detail.into(), region: None }
    }

    /// Sorts what kept credentials from being found.
    pub(super) fn of_credentials(error: &CredentialsError) -> Self {
        let away = find_cause::<Away>(error);
        let kind = if away.is_some() { ErrorKind::CredentialsAway } else { ErrorKind::Credentials };
        let detail = away.map_or_else(|| chain(Some(error)), ToString::to_string);
        Self::of_answer(kind, "the request", "credentials", detail)
    }

    /// Sorts an error of the SDK.
    pub(super) fn of_sdk<E>(operation: &'static str, object: &str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let kind = classify(&error);
        let region = named_region(&error).filter(|_| kind == ErrorKind::WrongRegion);
        Self { kind, operation, object: object.to_owned(), detail: describe(&error), region }
    }

    /// Whether waiting may help by itself: the store, or who tells the credentials for it, is busy, broken or out of reach.
    pub fn is_outage(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::CredentialsAway)
    }

    /// Whether new credentials or rights may help.
    pub fn is_about_rights(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::AccessDenied
                | ErrorKind::Credentials
                | ErrorKind::Expired
                | ErrorKind::NoSuchBucket
                | ErrorKind::WrongRegion
                | ErrorKind::Certificate
                | ErrorKind::NoTls
        )
    }

    /// Whether the bucket takes no ACL, as one whose owner has all objects (AWS, "Disabling ACLs").
    pub fn is_about_acl(&self) -> bool {
        self.detail.starts_with("AccessControlListNotSupported")
    }

    /// Whether it happened in an upload itself, whose rights were proved at the start.
    pub fn is_of_upload(&self) -> bool {
        matches!(self.operation, "PutObject" | "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload")
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self.kind {
            ErrorKind::AccessDenied => format!("the credentials need the permission {}", permission(self.operation)),
            ErrorKind::Credentials => {
                "check the access key and its secret (environment, --profile, or the role of this machine)".to_owned()
            }
            ErrorKind::Expired => "the credentials have expired; renew them".to_owned(),
            ErrorKind::NoSuchBucket => {
                "check --bucket and --endpoint-url, or create it with --create-bucket".to_owned()
            }
            ErrorKind::WrongRegion => match &self.region {
                Some(region) => format!("the bucket is in another region: set --region {region}"),
                None => "the bucket is in another region; set --region".to_owned(),
            },
            ErrorKind::NoTls => "nothing there speaks TLS: is the endpoint an http:// one?".to_owned(),
            ErrorKind::Certificate => certificate_hint(&self.detail).to_owned(),
            _ => return None,
        };
        Some(hint)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} failed: {}", self.operation, self.object, self.detail)
    }
}

impl StdError for StoreError {}

/// rustls says in its own words what is wrong with a certificate (`CertificateError`).
fn certificate_hint(detail: &str) -> &'static str {
    let detail = detail.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    match () {
        () if says(&["not valid for name", "notvalidforname"]) => {
            "the store's certificate is for another host: use the name that it is for in --endpoint-url; where a bucket's \
             host name is not covered, --path-style"
        }
        () if says(&["notvalidyet", "not valid yet"]) => {
            "the store's certificate is not valid yet: is this machine's clock right?"
        }
        () if says(&["expired"]) => "the store's certificate has expired, or this machine's clock is wrong",
        () => {
            "the store's certificate is not trusted; give its authority, or itself where it is self-signed, with --ca-bundle"
        }
    }
}

/// The region that an answer names as the bucket's: in a header, or `expecting 'eu-central-1'`.
fn named_region<E>(error: &SdkError<E, HttpResponse>) -> Option<String>
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let SdkError::ServiceError(service) = error else { return None };
    let of_header = service.raw().headers().get("x-amz-bucket-region");
    let of_message = || service.err().message()?.split_once("expecting '")?.1.split('\'').next();
    let is_region = |region: &&str| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=40).contains(&region.len()) && region.bytes().all(fits)
    };
    of_header.or_else(of_message).filter(is_region).map(str::to_owned)
}

/// The permission that an operation needs; source: AWS, "Required permissions for Amazon S3 API operations".
fn permission(operation: &str) -> &'static str {
    match operation {
        "ListObjectsV2" | "HeadBucket" => "s3:ListBucket",
        "GetObject" | "HeadObject" => "s3:GetObject",
        "DeleteObject" | "DeleteObjects" => "s3:DeleteObject",
        "AbortMultipartUpload" => "s3:AbortMultipartUpload",
        "ListMultipartUploads" => "s3:ListBucketMultipartUploads",
        "ListParts" => "s3:ListMultipartUploadParts",
        "ListObjectVersions" => "s3:ListBucketVersions",
        "CreateBucket" => "s3:CreateBucket",
        "DeleteBucket" => "s3:DeleteBucket",
        _ => "s3:PutObject",
    }
}

fn classify<E>(error: &SdkError<E, HttpResponse>) -> ErrorKind
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let kind = classify_answer(status, service.err().code().unwrap_or_default());
            match service.err().message().unwrap_or_default() {
                message if kind == ErrorKind::AccessDenied && is_about_the_key(message) => ErrorKind::Credentials,
                _ => kind,
            }
        }
        SdkError::ResponseError(_) if find_cause::<AnswerTooLarge>(error).is_some() => ErrorKind::Invalid,
        SdkError::ResponseError(_) | SdkError::TimeoutError(_) => ErrorKind::Unavailable,
        SdkError::DispatchFailure(_) if find_cause::<Away>(error).is_some() => ErrorKind::CredentialsAway,
        SdkError::DispatchFailure(_) if find_cause::<CredentialsError>(error).is_some() => ErrorKind::Credentials,
        SdkError::DispatchFailure(failure) => {
            let text = chain(failure.as_connector_error().map(|error| error as &dyn StdError));
            classify_dispatch(&text)
        }
        SdkError::ConstructionFailure(_) => classify_construction(&chain(error.source())),
        _ => ErrorKind::Unavailable,
    }
}

/// Garage says so with the code `AccessDenied`: "Forbidden: Invalid signature", "Forbidden: No such key: …".
fn is_about_the_key(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("invalid signature") || message.contains("no such key:")
}

/// By the code first; answers to HEAD have no body, so none. Then by the status.
fn classify_answer(status: u16, code: &str) -> ErrorKind {
    match code {
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => ErrorKind::AccessDenied,
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" => ErrorKind::Credentials,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired" => ErrorKind::Expired,
        "NoSuchBucket" => ErrorKind::NoSuchBucket,
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            ErrorKind::WrongRegion
        }
        "NoSuchKey" | "NotFound" => ErrorKind::NoSuchKey,
        "NoSuchUpload" => ErrorKind::NoSuchUpload,
        "BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch" | "InvalidPart" => ErrorKind::BadDigest,
        "PreconditionFailed" => ErrorKind::Precondition,
        // 409, but no waiting empties a bucket.
        "BucketNotEmpty" => ErrorKind::Invalid,
        "NotImplemented" | "MethodNotAllowed" => ErrorKind::NotImplemented,
        // Archived: 403, but no permission would help.
        "InvalidObjectState" => ErrorKind::Invalid,
        "RequestTimeout"
        | "RequestTimeTooSkewed"
        | "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "InternalError"
        | "ServiceUnavailable" => ErrorKind::Unavailable,
        _ => classify_status(status),
    }
}

pub(super) fn classify_status(status: u16) -> ErrorKind {
    match status {
        301 | 307 | 308 => ErrorKind::WrongRegion,
        401 | 403 => ErrorKind::AccessDenied,
        404 => ErrorKind::NoSuchKey,
        412 => ErrorKind::Precondition,
        405 | 501 => ErrorKind::NotImplemented,
        // 200 with an error inside comes here with an unknown code.
        200..=299 | 408 | 409 | 425 | 429 | 500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    }
}

/// The SDK has no type for a certificate that is not trusted: its connector's text must do.
pub(super) fn classify_dispatch(text: &str) -> ErrorKind {
    let lower = text.to_ascii_lowercase();
    if lower.contains("certificate") {
        ErrorKind::Certificate
    } else if lower.contains("invalidcontenttype") {
        // What is no TLS at all: the server speaks http.
        ErrorKind::NoTls
    } else if lower.contains("credential") {
        ErrorKind::Credentials
    } else {
        ErrorKind::Unavailable
    }
}

/// A request that could not even be built: mostly because credentials could not be loaded.
fn classify_construction(text: &str) -> ErrorKind {
    if text.to_ascii_lowercase().contains("credential") { ErrorKind::Credentials } else { ErrorKind::Invalid }
}

fn describe<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    if let Some(away) = find_cause::<Away>(error) {
        return format!("no credentials for the moment: {away}");
    }
    match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let code = service.err().code().unwrap_or_default();
            let message = service.err().message().unwrap_or_default();
            match (code, message) {
                ("", "") if (200..300).contains(&status) => {
                    format!("the answer cannot be read: {} (HTTP status {status})", chain(Some(service.err())))
                }
                ("", "") => format!("HTTP status {status}"),
                (code, "") => format!("{code} (HTTP status {status})"),
                (code, message) => format!("{code}: {message} (HTTP status {status})"),
            }
        }
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        SdkError::DispatchFailure(failure) => chain(failure.as_connector_error().map(|error| error as &dyn StdError)),
        _ => chain(error.source()),
    }
}

fn find_cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    error.downcast_ref::<T>().or_else(|| find_cause(error.source()?))
}

/// An error and its causes in one line, each said once.
pub(super) fn chain(error: Option<&dyn StdError>) -> String {
    let mut text = String::new();
    let mut next = error;
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = error.source();
    }
    if text.is_empty() { "unknown error".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_more_than_the_status() {
        assert_eq!(classify_answer(403, "SignatureDoesNotMatch"), ErrorKind::Credentials);
        assert_eq!(classify_answer(403, "RequestTimeTooSkewed"), ErrorKind::Unavailable);
        assert_eq!(classify_answer(400, "ExpiredToken"), ErrorKind::Expired);
        assert_eq!(classify_answer(400, "BadDigest"), ErrorKind::BadDigest);
        assert_eq!(classify_answer(404, "NoSuchBucket"), ErrorKind::NoSuchBucket);
        assert_eq!(classify_answer(404, "NoSuchUpload"), ErrorKind::NoSuchUpload);
        assert_eq!(classify_answer(409, "OperationAborted"), ErrorKind::Unavailable);
    }

    #[test]
    fn certificates_have_a_hint_by_what_is_wrong() {
        for (detail, hint) in [
            (
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is only valid for b",
                "another host",
            ),
            ("invalid peer certificate: NotValidForName", "another host"),
            ("invalid peer certificate: certificate expired: verification time 5", "has expired"),
            ("invalid peer certificate: certificate not valid yet: 3", "not valid yet"),
            ("invalid peer certificate: UnknownIssuer", "--ca-bundle"),
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "self-signed"),
        ] {
            assert!(certificate_hint(detail).contains(hint), "{detail}");
        }
    }

    #[test]
    fn a_store_that_calls_a_wrong_key_denied_is_understood() {
        assert!(is_about_the_key("Forbidden: Invalid signature") && is_about_the_key("Forbidden: No such key: GK1"));
        assert!(
            !is_about_the_key("Access Denied")
                && !is_about_the_key("Forbidden: Operation is not allowed for this key.")
        );
    }

    #[test]
    fn without_a_code_the_status_tells() {
        for (status, kind) in [
            (200, ErrorKind::Unavailable),
            (301, ErrorKind::WrongRegion),
            (403, ErrorKind::AccessDenied),
            (404, ErrorKind::NoSuchKey),
            (429, ErrorKind::Unavailable),
            (503, ErrorKind::Unavailable),
            (400, ErrorKind::Invalid),
        ] {
            assert_eq!(classify_answer(status, ""), kind, "{status}");
        }
    }
}
