//! A name that a file of the dump may have, here and in the bucket.

use std::borrow::Borrow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The dump's last file: it is committed by uploading it.
pub const METADATA: &str = "metadata";
/// What mydumper holds open for writing from the start of a dump to its end.
pub const METADATA_PARTIAL: &str = "metadata.partial";
/// Our own object beside the dump's: claim first, record in the end.
pub const MANIFEST: &str = "mydumper2s3.json";

/// The name of one file directly in the dump directory: valid UTF-8, not empty, no `/`, neither `.` nor `..`,
/// and no control character.
///
/// Control characters are refused because XML 1.0, in which S3 lists keys, cannot hold most of them,
/// so that a file of such a name could be uploaded but never be found again by a listing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(Arc<str>);

/// Why a name cannot be the name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadName {
    /// Not UTF-8: S3 keys are UTF-8.
    NotUtf8,
    /// A control character, such as a newline.
    ControlCharacter,
    /// Empty, `.`, `..`, or with a `/`.
    NotAFileName,
    /// With the prefix it is longer than S3's 1,024 bytes for a key.
    TooLong,
    /// The manifest's own name.
    Reserved,
}

impl fmt::Display for BadName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotUtf8 => "the name is not UTF-8, as S3 keys must be; rename it",
            Self::ControlCharacter => "the name has a control character, which S3 listings cannot show; rename it",
            Self::NotAFileName => "this is no file name",
            Self::TooLong => "prefix and name together are longer than the 1,024 bytes of an S3 key; shorten --prefix",
            Self::Reserved => "this name is kept for the manifest; move the file away",
        })
    }
}

impl std::error::Error for BadName {}

impl FileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this can be a name.
    pub fn check(name: &str) -> Result<(), BadName> {
        if name.is_empty() || name == "." || name == ".." || name.contains('/') {
            return Err(BadName::NotAFileName);
        }
        // Nearly all names are of such characters alone, and a hundred thousand are checked at each look.
        let is_plain = name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_plain && name.chars().any(char::is_control) {
            return Err(BadName::ControlCharacter);
        }
        Ok(())
    }

    /// Checks a name that came from the filesystem.
    pub fn from_os(name: &OsStr) -> Result<Self, BadName> {
        name.to_str().ok_or(BadName::NotUtf8)?.parse()
    }

    /// Whether this is `metadata`, the commit.
    pub fn is_metadata(&self) -> bool {
        self.as_str() == METADATA
    }
}

/// Maps are asked for names that are not owned.
impl Borrow<str> for FileName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for FileName {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        Self::check(name)?;
        Ok(Self(name.into()))
    }
}

impl TryFrom<String> for FileName {
    type Error = BadName;

    fn try_from(name: String) -> Result<Self, BadName> {
        name.parse()
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.as_str().to_owned()
    }
}

impl From<&FileName> for OsString {
    fn from(name: &FileName) -> Self {
        name.as_str().into()
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn odd_but_valid_names_are_taken() {
        for name in ["db.t.sql", "a b#c%d.sql", "Größe.表.sql.zst", "'quoted\".sql"] {
            assert_eq!(name.parse::<FileName>().map(String::from), Ok(name.to_owned()));
        }
    }

    #[test]
    fn names_that_make_no_key_are_refused() {
        assert_eq!("a\nb.sql".parse::<FileName>(), Err(BadName::ControlCharacter));
        assert_eq!("a/b".parse::<FileName>(), Err(BadName::NotAFileName));
        assert_eq!("..".parse::<FileName>(), Err(BadName::NotAFileName));
        assert_eq!("".parse::<FileName>(), Err(BadName::NotAFileName));
        assert_eq!(FileName::from_os(OsStr::from_bytes(b"a\xff.sql")), Err(BadName::NotUtf8));
    }
}
