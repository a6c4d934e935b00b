//! What a dump is in the bucket, and by what it is committed.

use serde::{Deserialize, Serialize};

use super::manifest::{DumpStateWord, FORMAT_OF_EQUAL_PARTS, ManifestHeader};

/// What a dump is in the bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpKind {
    /// mydumper's directory. `metadata` is its commit.
    #[default]
    Directory,
    /// One object that came through a pipe. The manifest in state [`DumpStateWord::Complete`] is its commit.
    Stream,
}

impl DumpKind {
    pub(super) fn is_directory(&self) -> bool {
        *self == Self::Directory
    }

    /// The least format that can say this: an older program would look for a `metadata`.
    pub fn format(self) -> u32 {
        match self {
            Self::Directory => FORMAT_OF_EQUAL_PARTS,
            Self::Stream => 2,
        }
    }
}

impl ManifestHeader {
    /// Whether it is one object that came through a pipe.
    pub fn is_stream(&self) -> bool {
        self.kind == DumpKind::Stream
    }

    /// Whether the dump is committed. `has_metadata`: whether that is there.
    pub fn is_committed(&self, has_metadata: bool) -> bool {
        self.state == DumpStateWord::Complete && (has_metadata || self.is_stream())
    }
}
