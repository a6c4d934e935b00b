//! Whether a file's content is whole: what mydumper itself cut short is found before it counts as a backup.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::model::content_check::{ContentCheck, is_sql};
use crate::model::file_kind::{Compression, KnownNames, NameParts};
use crate::model::row_count::FileRows;
use crate::model::sql_end::{HEAD, SqlEnd, TAIL};
use crate::model::zstd_frames;

/// How much is read at a time.
const PIECE: usize = 64 * 1024;
/// The two ends of a file up to this size are read at once, on the thread that asks: it is read as a whole soon.
const SHORT: u64 = 256 * 1024;

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

/// Looks at a file's content; files of kinds that are not known are not looked at.
pub async fn look(name: &str, file: &Arc<File>, size: u64, closeness: Closeness) -> io::Result<Found> {
    let parts = NameParts::parse(name, &KnownNames::default());
    let is_read = match parts.compression {
        Compression::Gzip => closeness != Closeness::Ends,
        _ => closeness == Closeness::Whole,
    };
    if is_read && let Some(check) = ContentCheck::of(name) {
        return aside(file, move |file| read_whole(file, check)).await;
    }
    let found = |broken: Option<&str>| Found { broken: broken.map(str::to_owned), rows: None };
    match parts.compression {
        Compression::Zstd => Ok(found(aside(file, move |file| walk_zstd(file, size)).await?)),
        Compression::Gzip if size == 0 => Ok(found(Some("it is empty, and not even an empty stream"))),
        Compression::None if is_sql(parts.kind) => {
            let ends = move |file: &File| why_end_is_broken(file, size);
            Ok(found(if size <= SHORT { ends(file)? } else { aside(file, ends).await? }))
        }
        _ => Ok(Found::default()),
    }
}

/// On a thread that may wait for the disk.
async fn aside<T: Send + 'static>(
    file: &Arc<File>,
    look: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || look(&file)).await.map_err(io::Error::other)?
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

    fn file(bytes: &[u8]) -> Arc<File> {
        let mut file = crate::platform::memory_file("test").expect("a file");
        file.write_all(bytes).expect("written");
        Arc::new(file)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("finished")
    }

    async fn broken(name: &str, bytes: &[u8], closeness: Closeness) -> bool {
        look(name, &file(bytes), bytes.len() as u64, closeness).await.expect("looked at").broken.is_some()
    }

    #[tokio::test]
    async fn a_gzip_file_that_was_cut_short_is_broken() {
        let whole = [gzip(b"INSERT INTO t VALUES (1);"), gzip(b"INSERT INTO t VALUES (2);")].concat();
        assert!(!broken("s.t.sql.gz", &whole, Closeness::Inflated).await);
        for length in [0, 1, 10, whole.len() / 2 - 1, whole.len() - 1] {
            assert!(broken("s.t.sql.gz", &whole[..length], Closeness::Inflated).await, "{length}");
        }
        assert!(!broken("s.t.sql.gz", &whole[..30], Closeness::Ends).await);
    }

    #[tokio::test]
    async fn sql_that_ends_in_the_middle_of_a_statement_is_broken() {
        for rows in [1, 100, 100_000] {
            let text = format!("INSERT INTO `t` VALUES(1)\n{};\n", ",(2)\n".repeat(rows));
            let bytes = text.as_bytes();
            for closeness in [Closeness::Ends, Closeness::Whole] {
                assert!(!broken("s.t.00000.sql", bytes, closeness).await, "{rows}");
                assert!(broken("s.t.00000.sql", &bytes[..bytes.len() - 2], closeness).await, "{rows}");
                assert!(!broken("s.t.00000.dat", &bytes[..bytes.len() - 2], closeness).await, "{rows}");
            }
            let found =
                look("s.t.00000.sql", &file(bytes), bytes.len() as u64, Closeness::Whole).await.expect("looked at");
            assert_eq!(found.rows, Some(FileRows::Rows(1 + rows as u64)));
        }
        assert!(broken("s.t-schema.sql", b"CREATE TABLE `t` (", Closeness::Ends).await);
        assert!(!broken("all-schema-create-tablespace.sql", b"", Closeness::Ends).await);
    }

    #[tokio::test]
    async fn files_of_other_kinds_are_not_looked_at() {
        for name in ["s.t.sql.enc", "notes.sql", "metadata"] {
            let found = look(name, &file(b"INSERT INTO"), 11, Closeness::Whole).await;
            assert_eq!(found.expect("looked at"), Found::default(), "{name}");
        }
    }
}
