//! Whether a `.zst` file ends in whole frames, told from its headers alone.
//!
//! Source: RFC 8878, section 3. A frame is a header, blocks that each say their length, and perhaps a checksum. So a file
//! is walked by a few bytes per 128 KiB and nothing is decompressed. What this finds: a file that was cut short, such as a
//! full disk or a killed compressor leaves. What it does not find: damage inside of a block.

use std::io;

const MAGIC: u32 = 0xFD2F_B528;
/// Sixteen numbers in a row mark frames that hold anything but data.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;
/// The longest frame header: magic, descriptor, window, dictionary id, content size.
const HEADER_MAX: u64 = 18;
const BLOCK_HEADER: u64 = 3;

/// Why a file is broken, if it is. `read_at` fills a buffer from an offset below `size`.
pub fn why_broken(
    size: u64,
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<Option<&'static str>> {
    const CUT: io::Result<Option<&str>> = Ok(Some("it ends in the middle of a frame"));
    if size == 0 {
        return Ok(Some("it is empty, and not even an empty frame"));
    }
    let mut at = 0;
    while at < size {
        let mut header = [0; HEADER_MAX as usize];
        let there = (size - at).min(HEADER_MAX) as usize;
        read_at(&mut header[..there], at)?;
        let frame = match Frame::parse(&header[..there]) {
            Ok(frame) => frame,
            Err(Bad::Cut) => return CUT,
            Err(Bad::Foreign) => return Ok(Some("it holds something that is no zstd frame")),
        };
        at += frame.header;
        if let Some(skip) = frame.skip {
            at += skip;
            if at > size {
                return CUT;
            }
            continue;
        }
        loop {
            if at + BLOCK_HEADER > size {
                return CUT;
            }
            let mut block = [0; 4];
            read_at(&mut block[..BLOCK_HEADER as usize], at)?;
            let block = Block(u32::from_le_bytes(block));
            let Some(length) = block.length() else {
                return Ok(Some("it has a block of a reserved type"));
            };
            at += BLOCK_HEADER + length;
            if at > size {
                return CUT;
            }
            if block.is_last() {
                break;
            }
        }
        at += frame.checksum;
        if at > size {
            return CUT;
        }
    }
    Ok(None)
}

enum Bad {
    Cut,
    Foreign,
}

/// What a frame's header says.
struct Frame {
    /// Bytes of the header.
    header: u64,
    /// Bytes that follow, of a frame without blocks.
    skip: Option<u64>,
    /// Bytes after the last block.
    checksum: u64,
}

impl Frame {
    fn parse(bytes: &[u8]) -> Result<Self, Bad> {
        let word =
            |at: usize| bytes.get(at..at + 4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let magic = word(0).ok_or(Bad::Cut)?;
        if magic & !0xF == SKIPPABLE_MAGIC {
            return Ok(Self { header: 8, skip: Some(word(4).ok_or(Bad::Cut)?.into()), checksum: 0 });
        }
        if magic != MAGIC {
            return Err(Bad::Foreign);
        }
        let descriptor = *bytes.get(4).ok_or(Bad::Cut)?;
        let single_segment = descriptor & 0x20 != 0;
        let window = u64::from(!single_segment);
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_size = match descriptor >> 6 {
            0 => u64::from(single_segment),
            flag => 1 << flag,
        };
        let header = 5 + window + dictionary + content_size;
        if header > bytes.len() as u64 {
            return Err(Bad::Cut);
        }
        Ok(Self { header, skip: None, checksum: if descriptor & 4 != 0 { 4 } else { 0 } })
    }
}

/// A block's header: last block, type, size.
struct Block(u32);

impl Block {
    fn is_last(&self) -> bool {
        self.0 & 1 != 0
    }

    /// Bytes in the file: one for a block that repeats a byte. `None` for the reserved type.
    fn length(&self) -> Option<u64> {
        match (self.0 >> 1) & 3 {
            0 | 2 => Some(u64::from(self.0 >> 3)),
            1 => Some(1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8]) -> Option<&'static str> {
        let read_at = |buffer: &mut [u8], at: u64| {
            let at = at as usize;
            buffer.copy_from_slice(bytes.get(at..at + buffer.len()).expect("reads stay within the file"));
            Ok(())
        };
        why_broken(bytes.len() as u64, read_at).expect("no i/o error")
    }

    /// printf 'hello hello hello' | zstd | od -An -tx1
    const HELLO: &[u8] = &[
        0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58, 0x65, 0x00, 0x00, 0x30, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x20, 0x01, 0x00,
        0x31, 0x4a, 0x11, 0xa2, 0xed, 0x1e, 0x0c,
    ];

    #[test]
    fn whole_frames_are_whole() {
        assert_eq!(check(HELLO), None);
        assert_eq!(check(&[HELLO, HELLO].concat()), None);
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2];
        assert_eq!(check(&[HELLO, &skippable].concat()), None);
    }

    #[test]
    fn every_shorter_file_is_broken() {
        for length in 0..HELLO.len() {
            assert!(check(&HELLO[..length]).is_some(), "{length}");
        }
        assert!(check(&[HELLO, b"x"].concat()).is_some());
        assert!(check(b"-- plain text, not zstd").is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..=25) {
            check(&bytes);
            check(&[&HELLO[..cut], &bytes].concat());
        }
    }
}
