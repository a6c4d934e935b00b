//! Whether a compressed file can be decoded to its end.
//!
//! mydumper 1.x does not look at its compressor's exit status: a full disk or a compressor that was killed leaves files
//! that end in the middle, in a dump that looks whole. Only decoding finds them.
//!
//! A file may hold several gzip members or zstd frames one after the other (RFC 1952, section 2.2; RFC 8878, section
//! 3.1); what follows the last one must be another one.

use std::fmt;
use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// How much decoded content is held at a time; it is thrown away at once.
const PIECE: usize = 128 * 1024;

/// Takes a file's bytes in order and says at the end whether its content is whole.
pub struct ContentCheck {
    format: Format,
    broken: Option<String>,
}

enum Format {
    Gzip(Box<MultiGzDecoder<io::Sink>>),
    Zstd(Box<Zstd>),
}

struct Zstd {
    decoder: Decoder<'static>,
    decoded: Vec<u8>,
    /// At the end of a frame; false as long as there was none.
    at_end: bool,
}

impl ContentCheck {
    /// For a file of that name; `None` where the name promises no format that is known here.
    pub fn of(name: &str) -> Option<Self> {
        let format = if name.ends_with(".gz") {
            Format::Gzip(Box::new(MultiGzDecoder::new(io::sink())))
        } else if name.ends_with(".zst") {
            // Fails only where there is no memory.
            let decoder = Decoder::new().ok()?;
            Format::Zstd(Box::new(Zstd { decoder, decoded: vec![0; PIECE], at_end: false }))
        } else {
            return None;
        };
        Some(Self { format, broken: None })
    }

    /// Takes the next bytes. What comes after the first fault is not looked at.
    pub fn update(&mut self, bytes: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        let result = match &mut self.format {
            Format::Gzip(decoder) => decoder.write_all(bytes),
            Format::Zstd(zstd) => zstd.update(bytes),
        };
        self.broken = result.err().map(|error| error.to_string());
    }

    /// Why the content is not whole, if it is not.
    pub fn finish(mut self) -> Result<(), String> {
        if let Some(why) = self.broken {
            return Err(format!("it cannot be decoded: {why}"));
        }
        let whole = match &mut self.format {
            // A file without any byte has no member either.
            Format::Gzip(decoder) => decoder.try_finish().is_ok(),
            Format::Zstd(zstd) => zstd.at_end,
        };
        if whole { Ok(()) } else { Err("its content was cut short".to_owned()) }
    }
}

impl Zstd {
    fn update(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut input = InBuffer::around(bytes);
        loop {
            let mut output = OutBuffer::around(self.decoded.as_mut_slice());
            let consumed_before = input.pos();
            // Bytes that are still wanted; 0 at the end of a frame. Called again, it begins the next one.
            let wanted = self.decoder.run(&mut input, &mut output)?;
            let (produced, capacity) = (output.pos(), output.capacity());
            if input.pos() > consumed_before || produced > 0 {
                self.at_end = wanted == 0;
            }
            // With room left in the output, all that could be decoded is decoded.
            if input.pos() == bytes.len() && produced < capacity {
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for ContentCheck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ContentCheck").field("broken", &self.broken).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("into memory");
        encoder.finish().expect("into memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).expect("into memory")
    }

    fn check(name: &str, bytes: &[u8], piece: usize) -> Result<(), String> {
        let mut check = ContentCheck::of(name).expect("a format");
        bytes.chunks(piece.max(1)).for_each(|bytes| check.update(bytes));
        check.finish()
    }

    /// Compresses badly, so that a cut is not always in the header.
    fn rows(count: u32) -> Vec<u8> {
        (0..count).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    }

    #[test]
    fn whole_files_are_whole_also_in_several_members_or_frames() {
        for count in [0, 1, 100, 100_000] {
            let rows = rows(count);
            for (name, one) in [("a.sql.gz", gzip(&rows)), ("a.sql.zst", zstd(&rows))] {
                for piece in [1, 1000, 1 << 20] {
                    if piece > 1 || count < 1000 {
                        assert_eq!(check(name, &one, piece), Ok(()), "{name} {count} {piece}");
                        let several = [one.clone(), one.clone(), one.clone()].concat();
                        assert_eq!(check(name, &several, piece), Ok(()), "{name} {count} {piece}");
                    }
                }
            }
        }
        assert!(ContentCheck::of("a.sql").is_none());
    }

    #[test]
    fn content_that_decodes_to_much_more_is_no_trouble() {
        let zeros = vec![0; 10 << 20];
        assert_eq!(check("a.gz", &gzip(&zeros), 100), Ok(()));
        assert_eq!(check("a.zst", &zstd(&zeros), 100), Ok(()));
    }

    #[test]
    fn what_is_cut_short_is_named_so() {
        let rows = rows(1000);
        for (name, whole) in [("a.gz", gzip(&rows)), ("a.zst", zstd(&rows))] {
            for end in 0..whole.len() {
                let cut = check(name, &whole[..end], 77);
                assert_eq!(cut, Err("its content was cut short".to_owned()), "{name} {end}");
                if end > 0 {
                    let second = [&whole, &whole[..end]].concat();
                    assert!(check(name, &second, 77).is_err(), "{name}: the second cut at {end}");
                }
            }
        }
    }

    #[test]
    fn garbage_is_no_content() {
        for name in ["a.gz", "a.zst"] {
            assert!(check(name, b"CREATE TABLE t (id INT);", 5).is_err());
        }
        assert!(check("a.gz", &[gzip(b"x"), b"rubbish".to_vec()].concat(), 5).is_err());
        assert!(check("a.zst", &[zstd(b"x"), b"rubbish".to_vec()].concat(), 5).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
            let _ = check("a.gz", &bytes, piece);
            let _ = check("a.zst", &bytes, piece);
            let damaged = |mut whole: Vec<u8>| {
                for (at, byte) in bytes.iter().enumerate().take(3) {
                    let length = whole.len();
                    whole[(at * 7 + usize::from(*byte)) % length] ^= 1;
                }
                whole
            };
            let _ = check("a.gz", &damaged(gzip(&bytes)), piece);
            let _ = check("a.zst", &damaged(zstd(&bytes)), piece);
        }
    }
}
