//! Whether a file's content is whole: what mydumper itself cut short is found before it counts as a backup.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::model::content_check::{ContentCheck, is_sql};
use crate::model::file_kind::{Compression, KnownNames, NameParts};
use crate::model::row_count::FileRows;
use crate::model::sql_end::{HEAD, SqlEnd, TAIL};
use crate::model::zstd_frames::{HEADER_MAX, Walk};

/// How much is read at a time.
const PIECE: usize = 128 * 1024;

/// Up to this size, in bytes, a file is never longer than what is given back at a time.
const SHORT: u64 = 64 * 1024;

/// How closely a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closeness {
    /// Frames of zstd are walked by their headers, and of SQL the two ends are read, which costs next to nothing.
    Ends,
    /// `.gz`, too, is decoded to its end: it has no lengths to walk by.
    Inflated,
    /// Everything is read and decoded, and the rows are counted.
    Whole,
}

/// What a look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Why the content is broken, if it is.
    pub broken: Option<String>,
    /// The rows in it, where all of it was read.
    pub rows: Option<FileRows>,
    /// Its SHA-256 in hexadecimal, where that is wanted.
    pub sha256: Option<String>,
}

/// What is looked for in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// How closely its content is looked at.
    pub closeness: Closeness,
    /// Whether its SHA-256 is made.
    pub sha256: bool,
}

/// A look at a file's content, from its first byte on, that can go along with it while it grows. What has to be read is
/// read once, for all that is wanted.
pub struct ContentLook {
    name: String,
    /// So many bytes were read.
    at: u64,
    check: Option<ContentCheck>,
    sha256: Option<Sha256>,
    /// Where not all of it is read.
    ends: Ends,
}

impl fmt::Debug for ContentLook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ContentLook").field("name", &self.name).field("at", &self.at).finish_non_exhaustive()
    }
}

impl ContentLook {
    /// For a file of that name. Files of kinds that are not known are not looked at.
    pub fn new(name: &str, wanted: Wanted) -> Self {
        let check = if is_read(name, wanted.closeness) { ContentCheck::of(name) } else { None };
        let ends = if check.is_some() { Ends::Unknown } else { Ends::of(name) };
        Self { name: name.to_owned(), at: 0, check, sha256: wanted.sha256.then(Sha256::new), ends }
    }

    /// Looks at what there is up to that place, in bytes. Blocks.
    pub fn advance(&mut self, file: &File, to: u64) -> io::Result<()> {
        self.ends.advance(file, to)?;
        self.read_on(file, to)
    }

    fn read_on(&mut self, file: &File, to: u64) -> io::Result<()> {
        if self.check.is_none() && self.sha256.is_none() {
            return Ok(());
        }
        let mut piece = vec![0; PIECE];
        while self.at < to {
            let wanted = (to - self.at).min(PIECE as u64) as usize;
            let length = match file.read_at(&mut piece[..wanted], self.at)? {
                0 => break,
                length => length,
            };
            if let Some(check) = &mut self.check {
                check.update(&piece[..length]);
            }
            if let Some(sha256) = &mut self.sha256 {
                sha256.update(&piece[..length]);
            }
            self.at += length as u64;
        }
        Ok(())
    }

    /// Looks at the rest of a file of that size, and says what was found. `closeness` may have risen meanwhile. Blocks.
    pub fn finish(mut self, file: &File, size: u64, closeness: Closeness) -> io::Result<Found> {
        self.read_on(file, size)?;
        if self.check.is_none() {
            let mut late = Self::new(&self.name, Wanted { closeness, sha256: false });
            late.read_on(file, size)?;
            self.check = late.check;
        }
        let (broken, rows) = match self.check.map(ContentCheck::finish) {
            Some(Ok(content)) => (None, content.rows),
            Some(Err(why)) => (Some(why), None),
            None => (self.ends.finish(file, size)?.map(str::to_owned), None),
        };
        let sha256 = self.sha256.map(|sha256| HEXLOWER.encode(&sha256.finalize()));
        Ok(Found { broken, rows, sha256 })
    }
}

/// Looks at the whole of a file's content. Blocks.
pub fn look(name: &str, file: &File, size: u64, wanted: Wanted) -> io::Result<Found> {
    ContentLook::new(name, wanted).finish(file, size, wanted.closeness)
}

/// Whether all of a file is read, or else only its ends.
fn is_read(name: &str, closeness: Closeness) -> bool {
    match NameParts::parse(name, &KnownNames::default()).compression {
        Compression::Gzip => closeness != Closeness::Ends,
        _ => closeness == Closeness::Whole,
    }
}

/// What is read of a file of which not everything is.
#[derive(Debug)]
enum Ends {
    /// Nothing.
    Unknown,
    /// Of gzip: whether it is there at all.
    Gzip,
    /// The headers of the frames. Of what was looked at so many bytes were the last that there were.
    Zstd { walk: Walk, last: Vec<u8>, at: u64 },
    /// The beginning, and the end so far.
    Sql { end: SqlEnd, at: u64 },
}

impl Ends {
    fn of(name: &str) -> Self {
        let parts = NameParts::parse(name, &KnownNames::default());
        match parts.compression {
            Compression::Zstd => Self::Zstd { walk: Walk::default(), last: Vec::new(), at: 0 },
            Compression::Gzip => Self::Gzip,
            Compression::None if is_sql(parts.kind) => Self::Sql { end: SqlEnd::default(), at: 0 },
            _ => Self::Unknown,
        }
    }

    /// What lies below `to` is not asked for any more.
    fn advance(&mut self, file: &File, to: u64) -> io::Result<()> {
        match self {
            Self::Sql { end, at } if to > *at => {
                if *at == 0 {
                    end.update(&read(file, 0, to.min(HEAD as u64))?);
                }
                let from = to.saturating_sub(TAIL as u64).max(*at);
                end.update(&read(file, from, to)?);
                *at = to;
            }
            Self::Zstd { walk, last, at } if to > *at => {
                walk.advance(to, |buffer, from| read_behind(file, last, *at, buffer, from))?;
                let from = to.saturating_sub(HEADER_MAX);
                let mut now = vec![0; (to - from) as usize];
                read_behind(file, last, *at, &mut now, from)?;
                (*last, *at) = (now, to);
            }
            _ => {}
        }
        Ok(())
    }

    /// Why a file of that size is broken, if it is.
    fn finish(self, file: &File, size: u64) -> io::Result<Option<&'static str>> {
        match self {
            Self::Zstd { walk, last, at } => {
                walk.finish(size, |buffer, from| read_behind(file, &last, at, buffer, from))
            }
            Self::Gzip if size > SHORT => {
                let is_zero = |bytes: Vec<u8>| bytes.iter().all(|byte| *byte == 0);
                let is_cut = is_zero(read(file, 0, HEAD as u64)?) && !is_zero(read(file, size - HEAD as u64, size)?);
                Ok(is_cut.then_some("it begins with zeros, as a file does of which some was given back"))
            }
            Self::Gzip if size == 0 => Ok(Some("it is empty, and not even an empty stream")),
            Self::Sql { mut end, at } => {
                let tail = read(file, size.saturating_sub(TAIL as u64).max(at), size)?;
                end.update(&tail);
                // Of short files nothing was ever given back, and the end alone tells.
                if at > 0 || tail.is_empty() || (end.is_at_end() && size <= SHORT) {
                    return Ok(end.why_broken());
                }
                let mut both = SqlEnd::default();
                both.update(&read(file, 0, size.min(HEAD as u64))?);
                both.update(&tail);
                Ok(both.why_broken())
            }
            Self::Gzip | Self::Unknown => Ok(None),
        }
    }
}

/// The bytes between two places.
fn read(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; to.saturating_sub(from) as usize];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Fills a buffer with what stands from `from` on. `last` are the last bytes before `at`: they are not read again.
fn read_behind(file: &File, last: &[u8], at: u64, buffer: &mut [u8], from: u64) -> io::Result<()> {
    let kept_from = at - last.len() as u64;
    let kept = match from.checked_sub(kept_from) {
        Some(skipped) => last.get(skipped as usize..).unwrap_or_default(),
        None => &[],
    };
    let kept = &kept[..kept.len().min(buffer.len())];
    let (before, behind) = buffer.split_at_mut(kept.len());
    before.copy_from_slice(kept);
    if behind.is_empty() { Ok(()) } else { file.read_exact_at(behind, from + before.len() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = crate::platform::memory_file("test").expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("finished")
    }

    fn broken(name: &str, bytes: &[u8], closeness: Closeness) -> bool {
        let found = |wanted| look(name, &file(bytes), bytes.len() as u64, wanted).expect("looked at");
        let looked = found(Wanted { closeness, sha256: false });
        // Looked at while it grows, in pieces of any length, it is the same; and so are the bytes.
        let wanted = Wanted { closeness, sha256: true };
        let (file, mut along) = (file(bytes), ContentLook::new(name, wanted));
        for end in (0..bytes.len() as u64).step_by(999) {
            along.advance(&file, end).expect("looked at");
        }
        let along = along.finish(&file, bytes.len() as u64, closeness).expect("looked at");
        assert_eq!(along, Found { sha256: along.sha256.clone(), ..looked.clone() }, "{name}");
        assert_eq!(along, found(wanted), "{name}");
        looked.broken.is_some()
    }

    #[test]
    fn a_gzip_file_that_was_cut_short_is_broken() {
        let whole = [gzip(b"INSERT INTO t VALUES (1);"), gzip(b"INSERT INTO t VALUES (2);")].concat();
        assert!(!broken("s.t.sql.gz", &whole, Closeness::Inflated));
        for length in [0, 1, 10, whole.len() / 2 - 1, whole.len() - 1] {
            assert!(broken("s.t.sql.gz", &whole[..length], Closeness::Inflated), "{length}");
        }
        assert!(!broken("s.t.sql.gz", &whole[..30], Closeness::Ends));
    }

    #[test]
    fn sql_that_ends_in_the_middle_of_a_statement_is_broken() {
        for rows in [1, 100, 100_000] {
            let text = format!("INSERT INTO `t` VALUES(1)\n{};\n", ",(2)\n".repeat(rows));
            let bytes = text.as_bytes();
            for closeness in [Closeness::Ends, Closeness::Whole] {
                assert!(!broken("s.t.00000.sql", bytes, closeness), "{rows}");
                assert!(broken("s.t.00000.sql", &bytes[..bytes.len() - 2], closeness), "{rows}");
                assert!(!broken("s.t.00000.dat", &bytes[..bytes.len() - 2], closeness), "{rows}");
            }
            let wanted = Wanted { closeness: Closeness::Whole, sha256: false };
            let found = look("s.t.00000.sql", &file(bytes), bytes.len() as u64, wanted).expect("looked at");
            // The disk may have been full after its first part went up.
            let (file, wanted) = (file(bytes), Wanted { closeness: Closeness::Ends, sha256: true });
            let late = ContentLook::new("s.t.00000.sql", wanted).finish(&file, bytes.len() as u64, Closeness::Whole);
            assert_eq!(late.expect("looked at").rows, found.rows);
            assert_eq!(found.rows, Some(FileRows::Rows(1 + rows as u64)));
        }
        assert!(broken("s.t-schema.sql", b"CREATE TABLE `t` (", Closeness::Ends));
        assert!(!broken("all-schema-create-tablespace.sql", b"", Closeness::Ends));
    }

    #[test]
    fn files_of_other_kinds_are_not_looked_at() {
        for name in ["s.t.sql.enc", "notes.sql", "metadata"] {
            let found = look(name, &file(b"INSERT INTO"), 11, Wanted { closeness: Closeness::Whole, sha256: false });
            assert_eq!(found.expect("looked at"), Found::default(), "{name}");
        }
    }
}
