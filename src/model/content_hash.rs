//! The hashes of a stream of bytes, and whether they are those of a file.

use data_encoding::HEXLOWER;
use md5::{Digest, Md5};
use sha2::Sha256;

use super::etag::{ETag, Md5Digest};
use super::manifest::ContentHash;
use super::part_sizes::PartSizes;

/// Hashes bytes as they come: whole or in parts, and SHA-256 beside it where it is wanted.
#[derive(Debug, Clone)]
pub struct ContentHasher {
    sizes: Option<PartSizes>,
    left_in_part: u64,
    part: Md5,
    parts: Vec<Md5Digest>,
    sha256: Option<Sha256>,
    size: u64,
}

/// What [`ContentHasher`] made of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputedHash {
    /// Bytes.
    pub size: u64,
    /// MD5 of all bytes, or of each part.
    pub hash: ContentHash,
    /// In hexadecimal, if it was wanted.
    pub sha256: Option<String>,
}

impl ContentHasher {
    /// Hashes as a file with that hash was hashed.
    pub fn like(hash: &ContentHash, with_sha256: bool) -> Self {
        let sizes = match hash {
            ContentHash::Parts { sizes, .. } => Some(*sizes),
            ContentHash::Whole { .. } | ContentHash::Unknown {} => None,
        };
        Self {
            sizes,
            left_in_part: length_of(sizes, 1),
            part: Md5::new(),
            parts: Vec::new(),
            sha256: with_sha256.then(Sha256::new),
            size: 0,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        while !bytes.is_empty() {
            // Closed here and not when it is full: so the last part is never an empty one.
            if self.left_in_part == 0 {
                self.close_part();
            }
            let length = usize::try_from(self.left_in_part).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(length);
            self.part.update(now);
            self.left_in_part -= length as u64;
            bytes = rest;
        }
    }

    fn close_part(&mut self) {
        let part = std::mem::replace(&mut self.part, Md5::new());
        self.parts.push(Md5Digest(part.finalize().into()));
        self.left_in_part = length_of(self.sizes, self.parts.len() as u32 + 1);
    }

    /// The hashes of all that came.
    pub fn finish(mut self) -> ComputedHash {
        self.close_part();
        let hash = match self.sizes {
            Some(sizes) => ContentHash::Parts { sizes, part_md5s: self.parts },
            None => ContentHash::Whole { md5: self.parts[0] },
        };
        let sha256 = self.sha256.map(|sha256| HEXLOWER.encode(&sha256.finalize()));
        ComputedHash { size: self.size, hash, sha256 }
    }
}

/// How long a part is; what goes beyond all parts that there may be is one more, and no such object exists.
fn length_of(sizes: Option<PartSizes>, number: u32) -> u64 {
    sizes.and_then(|sizes| sizes.part(number)).map_or(u64::MAX, |part| part.length.max(1))
}

/// What hashes say of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// They are the same bytes.
    Same(HashProof),
    /// They are other bytes.
    Different,
    /// Nothing is known to compare with.
    Unknown,
}

/// Which hash agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashProof {
    /// MD5 of the whole content.
    Md5,
    /// The MD5 of every part.
    PartMd5s,
    /// The composite ETag.
    Composite,
    /// SHA-256.
    Sha256,
}

impl HashProof {
    /// As reports have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::PartMd5s => "part-md5s",
            Self::Composite => "composite-etag",
            Self::Sha256 => "sha256",
        }
    }
}

impl ComputedHash {
    /// Compares with what is known of the file: its hash and SHA-256, and the ETag that its object has, for a file of
    /// which no more is known. All that can be compared must agree; the strongest hash is named.
    pub fn agrees_with(&self, hash: &ContentHash, sha256: Option<&str>, etag: Option<&ETag>) -> Agreement {
        let by_md5 = match (hash, &self.hash) {
            (ContentHash::Whole { md5 }, ContentHash::Whole { md5: computed }) => {
                Some((md5 == computed, HashProof::Md5))
            }
            (ContentHash::Parts { part_md5s, .. }, ContentHash::Parts { part_md5s: computed, .. })
                if !part_md5s.is_empty() =>
            {
                Some((part_md5s == computed, HashProof::PartMd5s))
            }
            _ => self.against_etag(etag),
        };
        let by_sha256 =
            self.sha256.as_deref().zip(sha256).map(|(computed, known)| computed.eq_ignore_ascii_case(known));
        match (by_md5, by_sha256) {
            (Some((false, _)), _) | (_, Some(false)) => Agreement::Different,
            (_, Some(true)) => Agreement::Same(HashProof::Sha256),
            (Some((true, proof)), None) => Agreement::Same(proof),
            (None, None) => Agreement::Unknown,
        }
    }

    fn against_etag(&self, etag: Option<&ETag>) -> Option<(bool, HashProof)> {
        let etag = etag?;
        let computed = self.hash.etag()?;
        match (&self.hash, etag.as_md5(), etag.part_count()) {
            (ContentHash::Whole { .. }, Some(_), _) => Some((computed == *etag, HashProof::Md5)),
            (ContentHash::Parts { .. }, _, Some(_)) => Some((computed == *etag, HashProof::Composite)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(part_size: u64, part_md5s: Vec<Md5Digest>) -> ContentHash {
        ContentHash::Parts { sizes: PartSizes::equal(part_size), part_md5s }
    }

    fn computed(hash: &ContentHash, bytes: &[u8]) -> ComputedHash {
        let mut hasher = ContentHasher::like(hash, true);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn parts_are_cut_at_their_size() {
        let md5 = Md5Digest::of;
        for (bytes, expected) in [
            (&b""[..], vec![md5(b"")]),
            (b"ab", vec![md5(b"ab")]),
            (b"abc", vec![md5(b"abc")]),
            (b"abcd", vec![md5(b"abc"), md5(b"d")]),
            (b"abcdef", vec![md5(b"abc"), md5(b"def")]),
        ] {
            assert_eq!(computed(&parts(3, Vec::new()), bytes).hash, parts(3, expected));
        }
    }

    #[test]
    fn all_that_is_known_must_agree() {
        let whole = ContentHash::Whole { md5: Md5Digest::of(b"hello") };
        // printf hello | sha256sum
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let hello = computed(&whole, b"hello");
        assert_eq!(hello.agrees_with(&whole, None, None), Agreement::Same(HashProof::Md5));
        assert_eq!(hello.agrees_with(&whole, Some(sha256), None), Agreement::Same(HashProof::Sha256));
        assert_eq!(hello.agrees_with(&whole, Some(&"0".repeat(64)), None), Agreement::Different);
        assert_eq!(computed(&whole, b"hellO").agrees_with(&whole, None, None), Agreement::Different);
    }

    #[test]
    fn where_the_parts_are_forgotten_the_composite_tells() {
        let known = parts(3, Vec::new());
        let etag = ETag::of_parts(&[Md5Digest::of(b"abc"), Md5Digest::of(b"d")]);
        let right = computed(&known, b"abcd");
        assert_eq!(right.agrees_with(&known, None, Some(&etag)), Agreement::Same(HashProof::Composite));
        assert_eq!(computed(&known, b"abce").agrees_with(&known, None, Some(&etag)), Agreement::Different);
    }

    #[test]
    fn an_etag_that_is_no_md5_says_nothing() {
        let unknown = ContentHash::Unknown {};
        let etag = ETag::from_store("opaque");
        assert_eq!(computed(&unknown, b"x").agrees_with(&unknown, None, etag.as_ref()), Agreement::Unknown);
        assert_eq!(computed(&unknown, b"x").agrees_with(&unknown, None, None), Agreement::Unknown);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..200), part in 1_u64..70, piece in 1_usize..90) {
            let like = parts(part, Vec::new());
            let mut hasher = ContentHasher::like(&like, false);
            bytes.chunks(piece).for_each(|piece| hasher.update(piece));
            let expected: Vec<_> = bytes.chunks(part as usize).map(Md5Digest::of).collect();
            let expected = if expected.is_empty() { vec![Md5Digest::of(b"")] } else { expected };
            prop_assert_eq!(hasher.finish().hash, parts(part, expected));
        }
    }
}
