//! Whether a file's content is whole: compressed content is decoded to its end, SQL text ends where a statement ends.
//! What is decoded on the way has its rows counted.
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
use zstd::zstd_safe::get_error_name;

use super::dump_end::{DumpEnd, EndWanted, Promised};
use super::file_kind::{Compression, FileKind, KnownNames, NameParts};
use super::file_name::FileName;
use super::row_count::{FileRows, RowCounter};
use super::sql_end::SqlEnd;

/// How much decoded content is held at a time; it is thrown away at once.
const PIECE: usize = 128 * 1024;
/// `ZSTD_error_frameParameter_windowTooLarge`: the frame asks for a window of more than 128 MiB
/// (`ZSTD_WINDOWLOG_LIMIT_DEFAULT`), as `zstd --long=28` makes it. libzstd refuses it, so that memory stays bounded.
const WINDOW_TOO_LARGE: usize = 16;

/// Takes a file's bytes in order and says at the end whether its content is whole.
pub struct ContentCheck {
    format: Format,
    broken: Option<String>,
    /// It may be whole, but not for us.
    cannot_tell: bool,
}

/// What a look at all of a file's content found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Content {
    /// Whether all of it could be looked at.
    pub is_seen: bool,
    /// Whether it was compressed and is decoded to its end.
    pub is_decoded: bool,
    /// The rows in it, where it is a data file.
    pub rows: Option<FileRows>,
}

enum Format {
    Plain(Text),
    Gzip(Box<MultiGzDecoder<Text>>),
    Zstd(Box<Zstd>),
}

struct Zstd {
    decoder: Decoder<'static>,
    decoded: Vec<u8>,
    text: Text,
    /// At the end of a frame; false as long as there was none.
    at_end: bool,
}

/// What is looked at of decoded content.
#[derive(Debug, Default)]
struct Text {
    end: Option<SqlEnd>,
    rows: Option<RowCounter>,
    /// Of a stream that is SQL.
    dump_end: Option<DumpEnd>,
}

impl ContentCheck {
    /// For a file of that name; `None` where the name promises nothing that is known here.
    pub fn of(name: &str) -> Option<Self> {
        let parts = NameParts::parse(name, &KnownNames::default());
        let end = is_sql(parts.kind).then(SqlEnd::default);
        let text = Text { end, rows: RowCounter::of(name), dump_end: None };
        let is_plain = parts.compression == Compression::None && (text.end.is_some() || text.rows.is_some());
        let format = Format::of(name, text)?;
        if matches!(format, Format::Plain(_)) && !is_plain {
            return None;
        }
        Some(Self { format, broken: None, cannot_tell: false })
    }

    /// For a stream of that name; `wanted` is how SQL in it must end.
    pub fn of_stream(name: &FileName, wanted: EndWanted) -> Option<Self> {
        let promised = Promised::by(name);
        let dump_end = promised.is_sql.then(|| DumpEnd::new(wanted));
        let format = Format::of(name.as_str(), Text { end: None, rows: None, dump_end })?;
        promised.tells_end().then_some(Self { format, broken: None, cannot_tell: false })
    }

    /// Takes the next bytes. What comes after the first fault is not looked at.
    pub fn update(&mut self, bytes: &[u8]) {
        if self.broken.is_some() || self.cannot_tell {
            return;
        }
        let result = match &mut self.format {
            Format::Plain(text) => text.write_all(bytes),
            Format::Gzip(decoder) => decoder.write_all(bytes),
            Format::Zstd(zstd) => zstd.update(bytes),
        };
        match result.map_err(|error| error.to_string()) {
            Ok(()) => {}
            Err(why) if why == get_error_name(0_usize.wrapping_sub(WINDOW_TOO_LARGE)) => self.cannot_tell = true,
            Err(why) => self.broken = Some(why),
        }
    }

    /// Why the content is not whole, if it is not.
    pub fn finish(mut self) -> Result<Content, String> {
        if self.cannot_tell {
            return Ok(Content::default());
        }
        if let Some(why) = self.broken {
            return Err(format!("it cannot be decoded: {why}"));
        }
        let is_decoded = !matches!(self.format, Format::Plain(_));
        let (is_whole, text) = match &mut self.format {
            Format::Plain(text) => (true, std::mem::take(text)),
            // A file without any byte has no member either.
            Format::Gzip(decoder) => (decoder.try_finish().is_ok(), std::mem::take(decoder.get_mut())),
            Format::Zstd(zstd) => (zstd.at_end, std::mem::take(&mut zstd.text)),
        };
        if !is_whole {
            return Err("its content was cut short".to_owned());
        }
        let of_stream = text.dump_end.as_ref().and_then(DumpEnd::why_broken);
        match text.end.as_ref().and_then(SqlEnd::why_broken).or(of_stream) {
            Some(why) => Err(why.to_owned()),
            None => Ok(Content { is_seen: true, is_decoded, rows: text.rows.map(RowCounter::finish) }),
        }
    }
}

impl Format {
    /// By the end of a name.
    fn of(name: &str, text: Text) -> Option<Self> {
        if name.ends_with(".gz") {
            return Some(Self::Gzip(Box::new(MultiGzDecoder::new(text))));
        }
        if !name.ends_with(".zst") {
            return Some(Self::Plain(text));
        }
        // Fails only where there is no memory.
        let decoder = Decoder::new().ok()?;
        Some(Self::Zstd(Box::new(Zstd { decoder, decoded: vec![0; PIECE], text, at_end: false })))
    }
}

/// Whether files of that kind hold SQL statements.
pub fn is_sql(kind: FileKind) -> bool {
    use FileKind::{Data, Schema, SchemaCreate, SchemaPost, SchemaSequence, SchemaTriggers, SchemaView, Tablespace};
    matches!(
        kind,
        Data | Schema | SchemaCreate | SchemaPost | SchemaSequence | SchemaTriggers | SchemaView | Tablespace
    )
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(end) = &mut self.end {
            end.update(bytes);
        }
        if let Some(rows) = &mut self.rows {
            rows.update(bytes);
        }
        if let Some(dump_end) = &mut self.dump_end {
            dump_end.update(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
            self.text.write_all(self.decoded.get(..produced).unwrap_or_default())?;
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
        check.finish().map(drop)
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
        assert!(ContentCheck::of("metadata").is_none() && ContentCheck::of("s.t.00000.sql.age").is_none());
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
    fn sql_that_ends_in_the_middle_of_a_statement_is_broken_however_it_is_compressed() {
        let text = b"INSERT INTO `t` VALUES(1)\n,(2)\n;\n";
        let found = |name: &str, bytes: &[u8]| {
            let mut check = ContentCheck::of(name).expect("a format");
            check.update(bytes);
            check.finish()
        };
        for end in [text.len(), text.len() - 1, 20, 0] {
            let cut = &text[..end];
            for (name, bytes) in
                [("s.t.00000.sql", cut.to_vec()), ("s.t.00000.sql.gz", gzip(cut)), ("s.t.00000.sql.zst", zstd(cut))]
            {
                let is_decoded = name != "s.t.00000.sql";
                match end {
                    20 => assert_eq!(found(name, &bytes), Err("its text ends in the middle of a statement".to_owned())),
                    0 => assert_eq!(
                        found(name, &bytes),
                        Ok(Content { is_seen: true, is_decoded, rows: Some(FileRows::Rows(0)) })
                    ),
                    _ => assert_eq!(
                        found(name, &bytes),
                        Ok(Content { is_seen: true, is_decoded, rows: Some(FileRows::Rows(2)) })
                    ),
                }
            }
        }
        // Text that is no SQL ends as it likes.
        assert_eq!(
            found("s.t.00000.dat", b"1\t2\n"),
            Ok(Content { is_seen: true, is_decoded: false, rows: Some(FileRows::Lines(1)) })
        );
    }

    /// `zstd --long=28` and more: whole, and only refused here, so that memory stays bounded.
    #[test]
    fn a_window_that_is_too_large_tells_nothing() {
        let rows = rows(1000);
        for (window_log, is_decoded) in [(27, true), (28, false), (30, false)] {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
            encoder.window_log(window_log).expect("a parameter");
            encoder.write_all(&rows).expect("into memory");
            let bytes = encoder.finish().expect("into memory");
            let mut check = ContentCheck::of("a.zst").expect("a format");
            bytes.chunks(100).for_each(|bytes| check.update(bytes));
            assert_eq!(check.finish(), Ok(Content { is_seen: is_decoded, is_decoded, rows: None }), "{window_log}");
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
