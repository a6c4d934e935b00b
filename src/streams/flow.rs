//! Rows on their way out of a pipe: looked at, compressed, and written where they are to go. On a thread of its own, since
//! mydumper waits for each of its pipes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::HEXLOWER;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::content::Found;
use crate::model::content_check::ContentCheck;
use crate::model::file_name::FileName;
use crate::model::packing::Packing;

/// How much is read at a time: as much as a pipe holds.
const PIECE: usize = 64 * 1024;

/// How rows are treated.
#[derive(Debug, Clone, Copy)]
pub struct Treatment {
    /// How they are compressed.
    pub packing: Packing,
    /// Whether the SHA-256 of the object is made.
    pub sha256: bool,
}

/// What came out of a pipe.
#[derive(Debug, PartialEq, Eq)]
pub struct Flowed {
    /// Bytes of rows.
    pub bytes: u64,
    /// What was found in them.
    pub found: Found,
}

/// Reads rows to their end and writes them compressed. Every row is counted on the way. `taken` grows by what is read.
/// Where there is no byte at all, nothing is written unless `even_empty`: then it is an empty file of that format. Blocks.
pub fn flow<W: Write>(
    mut rows: File,
    name: &FileName,
    treatment: Treatment,
    even_empty: bool,
    taken: &AtomicU64,
    sink: W,
) -> io::Result<(Flowed, W)> {
    let mut look = Look::new(name, treatment.packing);
    let mut piece = vec![0; PIECE];
    let mut length = read(&mut rows, &mut piece)?;
    if length == 0 && !even_empty {
        return Ok((Flowed { bytes: 0, found: Found::default() }, sink));
    }
    let mut packer = Packer::new(treatment, sink)?;
    let mut bytes = 0;
    while length > 0 {
        bytes += length as u64;
        taken.fetch_add(length as u64, Ordering::Relaxed);
        look.update(&piece[..length]);
        packer.write_all(&piece[..length])?;
        length = read(&mut rows, &mut piece)?;
    }
    let (sink, sha256) = packer.finish()?;
    Ok((Flowed { bytes, found: Found { sha256, ..look.finish() } }, sink))
}

fn read(rows: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        match rows.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// A look at rows before they are compressed.
struct Look(Option<ContentCheck>);

impl Look {
    fn new(name: &FileName, packing: Packing) -> Self {
        let name = name.as_str();
        Self(ContentCheck::of(name.strip_suffix(packing.extension()).unwrap_or(name)))
    }

    fn update(&mut self, bytes: &[u8]) {
        if let Some(check) = &mut self.0 {
            check.update(bytes);
        }
    }

    fn finish(self) -> Found {
        match self.0.map(ContentCheck::finish) {
            None => Found::default(),
            Some(Ok(content)) => Found { rows: content.rows, ..Found::default() },
            Some(Err(why)) => Found { broken: Some(why), ..Found::default() },
        }
    }
}

/// Compresses as `zstd -c` and `gzip -c` do, which mydumper's own `-c` starts.
enum Packer<W: Write> {
    Zstd(zstd::stream::write::Encoder<'static, Hashed<W>>),
    Gzip(GzEncoder<Hashed<W>>),
    None(Hashed<W>),
}

impl<W: Write> Packer<W> {
    fn new(treatment: Treatment, sink: W) -> io::Result<Self> {
        let sink = Hashed { sink, sha256: treatment.sha256.then(Sha256::new) };
        Ok(match treatment.packing {
            Packing::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, level)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
            Packing::Gzip => Self::Gzip(GzEncoder::new(sink, flate2::Compression::default())),
            Packing::None => Self::None(sink),
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::None(sink) => sink.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<(W, Option<String>)> {
        let Hashed { sink, sha256 } = match self {
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::None(sink) => sink,
        };
        Ok((sink, sha256.map(|sha256| HEXLOWER.encode(&sha256.finalize()))))
    }
}

/// Hashes what is written, where that is wanted.
struct Hashed<W> {
    sink: W,
    sha256: Option<Sha256>,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(&bytes[..written]);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::row_count::FileRows;
    use std::os::fd::OwnedFd;

    fn flowed(name: &str, packing: Packing, rows: &[u8], even_empty: bool) -> (Flowed, Vec<u8>) {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let text = rows.to_vec();
        let writes = std::thread::spawn(move || writer.write_all(&text).expect("written"));
        let name = name.parse().expect("a name");
        let (reader, taken) = (File::from(OwnedFd::from(reader)), AtomicU64::new(0));
        let treatment = Treatment { packing, sha256: true };
        let flowed = flow(reader, &name, treatment, even_empty, &taken, Vec::new()).expect("read to its end");
        writes.join().expect("written");
        assert_eq!(taken.into_inner(), rows.len() as u64);
        flowed
    }

    fn unpacked(packing: Packing, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        match packing {
            Packing::Zstd(_) => zstd::stream::copy_decode(bytes, &mut text).expect("whole frames"),
            Packing::Gzip => _ = flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text).expect("a stream"),
            Packing::None => text.extend_from_slice(bytes),
        }
        text
    }

    #[test]
    fn rows_come_out_as_they_went_in_and_are_counted() {
        let rows = format!("INSERT INTO `t` VALUES(1,\"a\")\n{};\n", ",(2,\"b\")\n".repeat(50_000));
        for packing in [Packing::default(), Packing::Zstd(1), Packing::Gzip, Packing::None] {
            let name = format!("s.t.00000.sql{}", packing.extension());
            let (flowed, bytes) = flowed(&name, packing, rows.as_bytes(), false);
            assert_eq!(unpacked(packing, &bytes), rows.as_bytes(), "{packing}");
            assert_eq!((flowed.bytes, flowed.found.broken), (rows.len() as u64, None));
            assert_eq!(flowed.found.rows, Some(FileRows::Rows(50_001)));
            assert_eq!(flowed.found.sha256, Some(HEXLOWER.encode(&Sha256::digest(&bytes))));
        }
    }

    #[test]
    fn rows_that_end_in_the_middle_of_a_statement_are_broken() {
        let (flowed, bytes) = flowed("s.t.00000.sql.zst", Packing::default(), b"INSERT INTO `t` VALUES(1", false);
        assert!(flowed.found.broken.is_some_and(|why| why.contains("in the middle of a statement")));
        assert_eq!(unpacked(Packing::default(), &bytes), b"INSERT INTO `t` VALUES(1");
        let (flowed, _) = self::flowed("s.t.00000.dat.zst", Packing::default(), b"1\n2\n3", false);
        assert_eq!(flowed.found.rows, Some(FileRows::Unknown));
    }

    /// As `zstd -c` and `gzip -c` leave it: what mydumper's own compressor makes of nothing, but for gzip's name of a system.
    #[test]
    fn nothing_is_nothing_unless_a_file_is_wanted() {
        for (packing, length) in [(Packing::default(), 13), (Packing::Gzip, 20), (Packing::None, 0)] {
            assert_eq!(flowed("s.t.sql", packing, b"", false), (Flowed { bytes: 0, found: Found::default() }, vec![]));
            let (empty, bytes) = flowed("s.t.sql", packing, b"", true);
            assert_eq!((empty.bytes, bytes.len()), (0, length), "{packing}");
            assert_eq!(unpacked(packing, &bytes), b"");
        }
    }
}
