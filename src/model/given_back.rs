//! What stands beside a file of which blocks were given back while it was being written: its bytes are in an unfinished
//! upload alone, and only this tells which.
//!
//! JSON in an extended attribute of the file itself, so it is as small as it can be: ext4 keeps 960 bytes where blocks have
//! 1 KiB.

use serde::{Deserialize, Serialize};

use super::etag::{ETag, Md5Digest};
use super::part_sizes::PartSizes;

/// The newest form that is read.
const VERSION: u32 = 1;

/// The text of the attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {
    version: u32,
    /// Which dump: [`super::identity::DumpIdentity::id`].
    pub dump: String,
    /// The upload's id, as the store gave it.
    pub upload: String,
    /// How it is cut.
    #[serde(flatten)]
    pub sizes: PartSizes,
    /// So many parts, from the first on, may be there alone.
    pub parts: u32,
    /// The composite ETag of these parts: what the store lists must come to it.
    pub etag: ETag,
}

impl GivenBack {
    /// Of parts with those MD5s.
    pub fn new(dump: &str, upload: &str, sizes: PartSizes, part_md5s: &[Md5Digest]) -> Self {
        Self {
            version: VERSION,
            dump: dump.to_owned(),
            upload: upload.to_owned(),
            sizes,
            parts: part_md5s.len() as u32,
            etag: ETag::of_parts(part_md5s),
        }
    }

    /// As text.
    pub fn to_text(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From a text, which may be anything.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let given: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match given.version {
            VERSION => Ok(given),
            other => Err(format!("it has form {other}, this program reads {VERSION}")),
        }
    }

    /// So many bytes may be there alone.
    pub fn bytes(&self) -> Option<u64> {
        self.sizes.part(self.parts).map(|last| last.offset + last.length)
    }

    /// Whether these are the parts.
    pub fn are_the_parts(&self, part_md5s: &[Md5Digest]) -> bool {
        part_md5s.len() == self.parts as usize && ETag::of_parts(part_md5s) == self.etag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::part_plan::MIB;
    use proptest::prelude::*;

    #[test]
    fn it_comes_back_as_it_was_written_and_fits_beside_any_file() {
        let md5s: Vec<_> = (0..10_000_u32).map(|n| Md5Digest::of(&n.to_be_bytes())).collect();
        let sizes = PartSizes::growing(16 * MIB, 10_000);
        let given = GivenBack::new(&"d".repeat(32), &"u".repeat(256), sizes, &md5s);
        let text = given.to_text();
        assert!(text.len() < 600, "{}", text.len());
        assert_eq!(GivenBack::read(&text), Ok(given.clone()));
        assert!(given.are_the_parts(&md5s) && !given.are_the_parts(&md5s[1..]));
        let few = GivenBack::new("d", "u", sizes, &md5s[..3]);
        assert_eq!(few.bytes(), Some(48 * MIB));
        let newer = String::from_utf8(few.to_text()).expect("text").replace("\"version\":1", "\"version\":2");
        assert!(GivenBack::read(newer.as_bytes()).is_err_and(|why| why.contains("form 2")));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: Vec<u8>, parts: u32, part_size: u64) {
            let _ = GivenBack::read(&text);
            let given = GivenBack { parts, sizes: PartSizes::equal(part_size), ..GivenBack::new("d", "u", PartSizes::equal(1), &[]) };
            let _ = given.bytes();
        }
    }
}
