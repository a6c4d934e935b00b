//! Where objects go and what they are to be: bucket, endpoint, storage class, encryption, tags.
//!
//! Checked as far as it can be without asking the store, and no further: S3-compatible stores have rules of their own.

use std::fmt;
use std::str::FromStr;

/// A value that cannot be one. The text says what would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue(pub(super) String);

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadValue {}

pub(super) fn bad<T>(text: impl Into<String>) -> Result<T, BadValue> {
    Err(BadValue(text.into()))
}

/// Text newtypes that are made by `FromStr` only and read as `&str`.
macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(super) use text_type;

/// A bucket's name, or the ARN of an access point.
///
/// S3 asks for 3 to 63 characters of `a-z0-9.-`; old buckets and other stores also have upper case, `_`, one letter, and up to 255.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketName(String);
text_type!(BucketName);

impl FromStr for BucketName {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if let Some((bucket, prefix)) =
            text.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        {
            let prefix =
                if prefix.is_empty() { String::new() } else { format!(" --prefix {}", prefix.escape_default()) };
            return bad(format!("write it without s3://: --bucket {}{prefix}", bucket.escape_default()));
        }
        let is_arn = text.starts_with("arn:");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c) || is_arn && ":/".contains(c);
        if !text.chars().all(allowed) {
            return bad(
                "a bucket name has only letters, digits, '.', '-' and '_'; what follows a '/' belongs into --prefix",
            );
        }
        if !is_arn && !(1..=255).contains(&text.len()) {
            return bad("a bucket name has 1 to 255 characters");
        }
        Ok(Self(text.into()))
    }
}

/// The address of an S3-compatible store: scheme and host, without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl(String);
text_type!(EndpointUrl);

impl EndpointUrl {
    /// Whether dump and signatures would cross a network in the clear.
    pub fn is_unencrypted_remote(&self) -> bool {
        let Some(rest) = self.0.strip_prefix("http://") else {
            return false;
        };
        let host = host_of(rest);
        let is_loopback = host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        !is_loopback
    }
}

/// The host in `host:port/path`, an IPv6 address without its brackets.
fn host_of(authority_and_path: &str) -> &str {
    let authority = authority_and_path.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

impl FromStr for EndpointUrl {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let example = "write it like https://s3.example.com or http://127.0.0.1:9000";
        // The scheme is case-insensitive; the SDK and the check above are not asked to know that.
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return bad(format!("the scheme is missing; {example}"));
        }
        // Credentials there would be seen by everybody who may list processes. The value is not repeated.
        if rest.split(['/', '?', '#']).next().unwrap_or_default().contains('@') {
            return bad("no user name or password in the URL; the usual AWS credential sources are used");
        }
        if host_of(rest).is_empty() || rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return bad(format!("the host is missing or has a space; {example}"));
        }
        Ok(Self(format!("{scheme}://{}", rest.trim_end_matches('/'))))
    }
}

/// `STANDARD_IA`, `GLACIER_IR`, or what another store calls its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageClass(String);
text_type!(StorageClass);

/// Whether objects of that class must be brought back before they can be read.
///
/// Glacier Instant Retrieval is read at once (AWS, "Understanding S3 Glacier storage classes").
pub fn is_archive(storage_class: &str) -> bool {
    matches!(storage_class, "GLACIER" | "DEEP_ARCHIVE")
}

impl FromStr for StorageClass {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text.is_empty()
            || !text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
        {
            return bad("write the storage class in capitals, like STANDARD_IA, INTELLIGENT_TIERING or GLACIER_IR");
        }
        Ok(Self(text.into()))
    }
}

/// Encryption by the store. With the KMS kinds an ETag is no MD5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerSideEncryption {
    Aes256,
    AwsKms,
    AwsKmsDsse,
}

impl ServerSideEncryption {
    /// As S3's header has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::AwsKms => "aws:kms",
            Self::AwsKmsDsse => "aws:kms:dsse",
        }
    }

    pub fn is_kms(self) -> bool {
        matches!(self, Self::AwsKms | Self::AwsKmsDsse)
    }
}

impl fmt::Display for ServerSideEncryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ServerSideEncryption {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        [Self::Aes256, Self::AwsKms, Self::AwsKmsDsse]
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(text))
            .map_or_else(|| bad("write AES256, aws:kms or aws:kms:dsse"), Ok)
    }
}

/// Who besides the uploader's account may read an object. Those of S3's canned ACLs that fit a backup: none that opens it
/// to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectAcl {
    Private,
    BucketOwnerRead,
    BucketOwnerFullControl,
}

impl ObjectAcl {
    /// As S3's header has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::BucketOwnerRead => "bucket-owner-read",
            Self::BucketOwnerFullControl => "bucket-owner-full-control",
        }
    }
}

impl FromStr for ObjectAcl {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        [Self::Private, Self::BucketOwnerRead, Self::BucketOwnerFullControl]
            .into_iter()
            .find(|acl| acl.as_str() == text)
            .map_or_else(|| bad("write private, bucket-owner-read or bucket-owner-full-control"), Ok)
    }
}

/// S3's limit of tags for an object.
pub const TAGS_MAX: usize = 10;

/// One tag of an object, `key=value`. S3's limits: a key of 1 to 128 and a value of up to 256 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

impl FromStr for Tag {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let Some((key, value)) = text.split_once('=') else {
            return bad("write a tag as key=value");
        };
        if !(1..=128).contains(&key.chars().count()) || value.chars().count() > 256 {
            return bad("a tag's key has 1 to 128 characters, its value at most 256");
        }
        if key.starts_with("aws:") {
            return bad("keys that begin with 'aws:' are reserved");
        }
        let allowed = |c: char| c.is_alphanumeric() || " +-=._:/@".contains(c);
        if !text.chars().all(allowed) {
            return bad("a tag has only letters, digits, spaces and + - = . _ : / @");
        }
        Ok(Self { key: key.into(), value: value.into() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error<T: FromStr<Err = BadValue> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().expect_err(text).to_string()
    }

    #[test]
    fn bucket_names() {
        for good in ["b-1", "my.bucket", "Old_Bucket", "arn:aws:s3:eu-central-1:1234:accesspoint/dumps"] {
            assert_eq!(good.parse::<BucketName>().map(|bucket| bucket.to_string()), Ok(good.into()));
        }
        assert_eq!(error::<BucketName>("s3://b/a/c"), "write it without s3://: --bucket b --prefix a/c");
        assert_eq!(error::<BucketName>("s3://b"), "write it without s3://: --bucket b");
        for bad in ["", "b/c", "a b c", "büc", "abc\n"] {
            assert!(bad.parse::<BucketName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn endpoints() {
        for (url, is_unencrypted_remote) in [
            ("https://s3.example.com", false),
            ("http://127.0.0.1:9000", false),
            ("http://[::1]:9000", false),
            ("http://localhost:9000/", false),
            ("http://localhost.example.com", true),
            ("http://10.0.0.1", true),
            ("HTTP://10.0.0.1", true),
        ] {
            let endpoint: EndpointUrl = url.parse().expect(url);
            assert_eq!(endpoint.is_unencrypted_remote(), is_unencrypted_remote, "{url}");
        }
        for bad in ["", "s3.example.com", "ftp://x", "https://", "https://:80", "https://a b"] {
            assert!(bad.parse::<EndpointUrl>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_in_an_endpoint_is_refused_and_not_repeated() {
        assert!(!error::<EndpointUrl>("https://user:hunter2@host").contains("hunter2"));
    }

    #[test]
    fn encryption_classes_and_tags() {
        assert_eq!("aes256".parse(), Ok(ServerSideEncryption::Aes256));
        assert_eq!("aws:kms".parse(), Ok(ServerSideEncryption::AwsKms));
        assert_eq!(error::<ServerSideEncryption>("kms"), "write AES256, aws:kms or aws:kms:dsse");
        assert!(error::<StorageClass>("standard_ia").contains("capitals"));
        assert_eq!("a=b=c".parse(), Ok(Tag { key: "a".into(), value: "b=c".into() }));
        assert_eq!(error::<Tag>("novalue"), "write a tag as key=value");
        assert!("a,b=c".parse::<Tag>().is_err(), "a comma parts tags in the environment");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".*", url in "https?://[\\[\\]:@/a-z0-9.]*") {
            let _ = text.parse::<BucketName>();
            let _ = text.parse::<Tag>();
            let _ = text.parse::<EndpointUrl>();
            let _ = url.parse::<EndpointUrl>().map(|endpoint| endpoint.is_unencrypted_remote());
        }
    }
}
