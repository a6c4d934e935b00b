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
pub const HEADER_MAX: u64 = 18;
const BLOCK_HEADER: usize = 3;
const CUT: &str = "it ends in the middle of a frame";

/// A walk through a file, as far as there is one. `read_at` fills a buffer from an offset, below what is there.
#[derive(Debug, Default)]
pub struct Walk {
    /// So many bytes were walked past; a block may end behind what is there.
    at: u64,
    /// Within a frame: bytes after its last block.
    checksum: Option<u64>,
    broken: Option<&'static str>,
}

impl Walk {
    /// Bytes below this are not asked for any more.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Walks on as far as headers lie wholly below `there`, in bytes.
    pub fn advance(&mut self, there: u64, mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<()>) -> io::Result<()> {
        while self.broken.is_none() && self.at + HEADER_MAX <= there {
            self.step(there, &mut read_at)?;
        }
        Ok(())
    }

    /// Walks to the end of a file of that size: why it is broken, if it is.
    pub fn finish(
        mut self,
        size: u64,
        mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<Option<&'static str>> {
        if size == 0 {
            return Ok(Some("it is empty, and not even an empty frame"));
        }
        while self.broken.is_none() && self.at < size {
            self.step(size, &mut read_at)?;
        }
        let is_cut = self.at > size || self.checksum.is_some();
        Ok(self.broken.or_else(|| is_cut.then_some(CUT)))
    }

    /// One header: of a frame, or of a block.
    fn step(&mut self, size: u64, read_at: &mut impl FnMut(&mut [u8], u64) -> io::Result<()>) -> io::Result<()> {
        let mut header = [0; HEADER_MAX as usize];
        let there = (size - self.at).min(HEADER_MAX) as usize;
        let Some(checksum) = self.checksum else {
            let header = &mut header[..there];
            read_at(header, self.at)?;
            match Frame::parse(header) {
                Ok(Frame { header, skip: Some(skip), .. }) => self.at += header + skip,
                Ok(frame) => {
                    self.at += frame.header;
                    self.checksum = Some(frame.checksum);
                }
                Err(Bad::Cut) => self.broken = Some(CUT),
                Err(Bad::Foreign) => self.broken = Some("it holds something that is no zstd frame"),
            }
            return Ok(());
        };
        if there < BLOCK_HEADER {
            self.broken = Some(CUT);
            return Ok(());
        }
        read_at(&mut header[..BLOCK_HEADER], self.at)?;
        let block = Block(u32::from_le_bytes([header[0], header[1], header[2], 0]));
        match block.length() {
            None => self.broken = Some("it has a block of a reserved type"),
            Some(length) if block.is_last() => {
                self.at += BLOCK_HEADER as u64 + length + checksum;
                self.checksum = None;
            }
            Some(length) => self.at += BLOCK_HEADER as u64 + length,
        }
        Ok(())
    }
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
        let found = Walk::default().finish(bytes.len() as u64, read_at).expect("no i/o error");
        // Walked along while it grows it is the same, and what was walked past is not asked for again.
        let mut along = Walk::default();
        for there in (0..=bytes.len() as u64).step_by(7) {
            let before = along.at();
            let read_on = |buffer: &mut [u8], at: u64| {
                assert!(before <= at && at + buffer.len() as u64 <= there);
                read_at(buffer, at)
            };
            along.advance(there, read_on).expect("no i/o error");
        }
        assert_eq!(along.finish(bytes.len() as u64, read_at).expect("no i/o error"), found);
        found
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
