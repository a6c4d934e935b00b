//! ETags: what S3 says of the bytes it holds, and what it must say of ours.
//!
//! Sources: AWS, "Checking object integrity" and the API reference of `PutObject` and `CompleteMultipartUpload`.
//! A single PUT without encryption, or with SSE-S3, has the MD5 of its bytes as ETag; a multipart upload has the MD5
//! of its parts' binary MD5s, then `-` and the number of parts. With SSE-KMS, SSE-C and directory buckets it is
//! neither.

use std::fmt;
use std::num::NonZeroU32;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

/// The MD5 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Md5Digest(pub [u8; 16]);

impl Md5Digest {
    /// The MD5 of bytes that are in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Md5::digest(bytes).into())
    }

    /// As S3's `Content-MD5` header wants it: base64 of the sixteen bytes.
    pub fn content_md5(self) -> String {
        BASE64.encode(&self.0)
    }

    /// Reads 32 hexadecimal digits; `None` for all else.
    pub fn from_hex(text: &str) -> Option<Self> {
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Md5Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_write(&self.0, formatter)
    }
}

impl fmt::Debug for Md5Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<Md5Digest> for String {
    fn from(digest: Md5Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Md5Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::from_hex(&text).ok_or_else(|| format!("'{text}' is no MD5 in 32 hexadecimal digits"))
    }
}

/// An ETag without its quotes, as a store gave it or as it must be.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ETag(Form);

/// Digests in binary: a dump has as many ETags as files, and all of them are in memory.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    Md5(Md5Digest),
    Composite(Md5Digest, NonZeroU32),
    Other(Box<str>),
}

impl From<String> for ETag {
    fn from(text: String) -> Self {
        if let Some(md5) = Md5Digest::from_hex(&text) {
            return Self(Form::Md5(md5));
        }
        let composite = || {
            let (digest, count) = text.split_once('-')?;
            // Anything but the usual way to write the number is another ETag.
            let number = count.parse().ok().filter(|number: &NonZeroU32| number.to_string() == count)?;
            Some(Form::Composite(Md5Digest::from_hex(digest)?, number))
        };
        Self(composite().unwrap_or_else(|| Form::Other(text.into())))
    }
}

impl From<ETag> for String {
    fn from(etag: ETag) -> Self {
        etag.to_string()
    }
}

impl ETag {
    /// Takes an ETag as it came from a store: quotes and a weakness mark are dropped, hexadecimal digits made small.
    /// `None` if nothing is left: some stores answer the end of a multipart upload with an empty one.
    pub fn from_store(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        (!text.is_empty()).then(|| text.to_ascii_lowercase().into())
    }

    /// The ETag of an object that went up in one PUT.
    pub fn of_single_put(digest: Md5Digest) -> Self {
        Self(Form::Md5(digest))
    }

    /// The ETag of an object that went up in these parts.
    pub fn of_parts(parts: &[Md5Digest]) -> Self {
        let mut hasher = Md5::new();
        for part in parts {
            hasher.update(part.0);
        }
        let md5 = Md5Digest(hasher.finalize().into());
        match u32::try_from(parts.len()).ok().and_then(NonZeroU32::new) {
            Some(count) => Self(Form::Composite(md5, count)),
            // No store makes an object of no parts.
            None => Self(Form::Other(format!("{md5}-{}", parts.len()).into())),
        }
    }

    /// The MD5 of the whole object, where the ETag has the form of one.
    pub fn as_md5(&self) -> Option<Md5Digest> {
        if let Form::Md5(md5) = self.0 { Some(md5) } else { None }
    }

    /// The number of parts, where the ETag has the form of a composite.
    pub fn part_count(&self) -> Option<u32> {
        if let Form::Composite(_, count) = self.0 { Some(count.get()) } else { None }
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Md5(md5) => md5.fmt(formatter),
            Form::Composite(md5, count) => write!(formatter, "{md5}-{count}"),
            Form::Other(text) => formatter.write_str(text),
        }
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn content_md5_is_base64_of_the_binary_digest() {
        // printf '' | openssl md5 -binary | base64
        assert_eq!(Md5Digest::of(b"").content_md5(), "1B2M2Y8AsgTpgAmY7PhCfg==");
        // printf 'hello' | openssl md5 -binary | base64
        assert_eq!(Md5Digest::of(b"hello").content_md5(), "XUFAKrxLKna5cZ2REBfFkg==");
    }

    #[test]
    fn etags_lose_their_quotes_and_an_empty_one_is_none() {
        let tag = ETag::from_store("\"5D41402ABC4B2A76B9719D911017C592\"").expect("an etag");
        assert_eq!(tag, ETag::of_single_put(Md5Digest::of(b"hello")));
        assert_eq!(tag.as_md5(), Some(Md5Digest::of(b"hello")));
        assert_eq!(ETag::from_store("\"\""), None);
        assert_eq!(ETag::from_store(" "), None);
    }

    #[test]
    fn the_composite_is_the_md5_of_the_binary_md5s() {
        // (printf a | openssl md5 -binary; printf b | openssl md5 -binary) | md5sum
        let tag = ETag::of_parts(&[Md5Digest::of(b"a"), Md5Digest::of(b"b")]);
        assert_eq!(tag.to_string(), "96e024ba2074fe77e8e965ba43a704be-2");
        assert_eq!(tag.part_count(), Some(2));
        assert_eq!(tag.as_md5(), None);
    }

    #[test]
    fn other_etags_are_neither() {
        for text in [
            "abc",
            "0123456789abcdef0123456789abcdef-",
            "0123456789abcdef0123456789abcdef-0",
            "x-3",
            "-",
            "0123456789abcdef0123456789abcdef-03",
        ] {
            let tag = ETag::from_store(text).expect("an etag");
            assert_eq!(tag.to_string(), text);
            assert_eq!((tag.as_md5(), tag.part_count()), (None, None), "{text}");
        }
    }

    proptest! {
        /// What a store answers, or somebody wrote into a manifest.
        #[test]
        fn no_text_makes_the_readers_panic(text in ".*", near in "(W/)?\"?[0-9a-fA-Fü]{30,33}\"?(-[0-9]{0,11})?\"?") {
            for text in [text, near] {
                let _ = Md5Digest::from_hex(&text);
                if let Some(etag) = ETag::from_store(&text) {
                    prop_assert!(etag.as_md5().is_none() || etag.part_count().is_none());
                }
            }
        }

        #[test]
        fn an_etag_tells_what_it_was_made_of(digests in proptest::collection::vec(any::<[u8; 16]>(), 1..5)) {
            let digests: Vec<Md5Digest> = digests.into_iter().map(Md5Digest).collect();
            let single = ETag::of_single_put(digests[0]);
            prop_assert_eq!(ETag::from_store(&format!("\"{single}\"")), Some(single.clone()));
            prop_assert_eq!((single.as_md5(), single.part_count()), (Some(digests[0]), None));
            let composite = ETag::of_parts(&digests);
            prop_assert_eq!((composite.as_md5(), composite.part_count()), (None, Some(digests.len() as u32)));
        }
    }
}
