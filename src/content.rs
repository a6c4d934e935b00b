//! Whether a file's content is whole: what mydumper itself cut short is found before it counts as a backup.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::model::content_check::{ContentCheck, is_sql};
use crate::model::file_kind::{Compression, KnownNames, NameParts};
use crate::model::row_count::FileRows;
use crate::model::sql_end::{HEAD, SqlEnd, TAIL};
use crate::model::zstd_frames;

/// How much is read at a time.
const PIECE: usize = 64 * 1024;

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
}

/// Looks at a file's content; files of kinds that are not known are not looked at. Blocks.
pub fn look(name: &str, file: &File, size: u64, closeness: Closeness) -> io::Result<Found> {
    let parts = NameParts::parse(name, &KnownNames::default());
    let is_read = match parts.compression {
        Compression::Gzip => closeness != Closeness::Ends,
        _ => closeness == Closeness::Whole,
    };
    if is_read && let Some(check) = ContentCheck::of(name) {
        return read_whole(file, check);
    }
    let broken = match parts.compression {
        Compression::Zstd => walk_zstd(file, size)?,
        Compression::Gzip if size == 0 => Some("it is empty, and not even an empty stream"),
        Compression::None if is_sql(parts.kind) => why_end_is_broken(file, size)?,
        _ => None,
    };
    Ok(Found { broken: broken.map(str::to_owned), rows: None })
}

fn walk_zstd(file: &File, size: u64) -> io::Result<Option<&'static str>> {
    zstd_frames::why_broken(size, |buffer, at| file.read_exact_at(buffer, at))
}

fn why_end_is_broken(file: &File, size: u64) -> io::Result<Option<&'static str>> {
    let (mut head, mut tail) = ([0; HEAD], [0; TAIL]);
    let head = &mut head[..size.min(HEAD as u64) as usize];
    let tail = &mut tail[..size.min(TAIL as u64) as usize];
    let mut end = SqlEnd::default();
    file.read_exact_at(tail, size - tail.len() as u64)?;
    end.update(tail);
    if tail.is_empty() || end.is_at_end() {
        return Ok(None);
    }
    file.read_exact_at(head, 0)?;
    let mut both = SqlEnd::default();
    both.update(head);
    both.update(tail);
    Ok(both.why_broken())
}

fn read_whole(file: &File, mut check: ContentCheck) -> io::Result<Found> {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        match file.read_at(&mut piece, at)? {
            0 => break,
            length => {
                check.update(&piece[..length]);
                at += length as u64;
            }
        }
    }
    Ok(match check.finish() {
        Ok(content) => Found { broken: None, rows: content.rows },
        Err(why) => Found { broken: Some(why), rows: None },
    })
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
        look(name, &file(bytes), bytes.len() as u64, closeness).expect("looked at").broken.is_some()
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
            let found = look("s.t.00000.sql", &file(bytes), bytes.len() as u64, Closeness::Whole).expect("looked at");
            assert_eq!(found.rows, Some(FileRows::Rows(1 + rows as u64)));
        }
        assert!(broken("s.t-schema.sql", b"CREATE TABLE `t` (", Closeness::Ends));
        assert!(!broken("all-schema-create-tablespace.sql", b"", Closeness::Ends));
    }

    #[test]
    fn files_of_other_kinds_are_not_looked_at() {
        for name in ["s.t.sql.enc", "notes.sql", "metadata"] {
            let found = look(name, &file(b"INSERT INTO"), 11, Closeness::Whole);
            assert_eq!(found.expect("looked at"), Found::default(), "{name}");
        }
    }
}
