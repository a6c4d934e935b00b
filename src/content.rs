//! Whether a file's content is whole: what mydumper itself cut short is found before it counts as a backup.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::model::content_check::ContentCheck;
use crate::model::file_kind::{Compression, KnownNames, NameParts};
use crate::model::zstd_frames;

/// How much is read at a time.
const PIECE: usize = 64 * 1024;

/// Why the content of a compressed file is broken, if it is; files of other kinds are not looked at.
///
/// Frames of zstd are walked by their headers, which costs next to nothing. gzip has no lengths to walk by: it is
/// inflated to its end, if `inflate` asks for it.
pub async fn why_broken(name: &str, file: &Arc<File>, inflate: bool) -> io::Result<Option<String>> {
    let check: fn(&File) -> io::Result<Option<String>> =
        match NameParts::parse(name, &KnownNames::default()).compression {
            Compression::Zstd => walk_zstd,
            Compression::Gzip if inflate => inflate_gzip,
            Compression::Gzip if file.metadata()?.len() == 0 => {
                |_| Ok(Some("it is empty, and not even an empty stream".to_owned()))
            }
            _ => return Ok(None),
        };
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || check(&file)).await.map_err(io::Error::other)?
}

fn walk_zstd(file: &File) -> io::Result<Option<String>> {
    let size = file.metadata()?.len();
    let broken = zstd_frames::why_broken(size, |buffer, at| file.read_exact_at(buffer, at))?;
    Ok(broken.map(str::to_owned))
}

fn inflate_gzip(file: &File) -> io::Result<Option<String>> {
    let Some(mut check) = ContentCheck::of(".gz") else { return Ok(None) };
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        match file.read_at(&mut piece, at)? {
            0 => return Ok(check.finish().err()),
            length => {
                check.update(&piece[..length]);
                at += length as u64;
            }
        }
    }
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

    #[tokio::test]
    async fn a_gzip_file_that_was_cut_short_is_broken() {
        let whole = [gzip(b"INSERT INTO t VALUES (1);"), gzip(b"INSERT INTO t VALUES (2);")].concat();
        assert_eq!(why_broken("s.t.sql.gz", &file(&whole), true).await.expect("checked"), None);
        for length in [0, 1, 10, whole.len() / 2 - 1, whole.len() - 1] {
            let broken = why_broken("s.t.sql.gz", &file(&whole[..length]), true).await.expect("checked");
            assert!(broken.is_some(), "{length}");
        }
        assert_eq!(why_broken("s.t.sql.gz", &file(&whole[..30]), false).await.expect("checked"), None);
    }

    #[tokio::test]
    async fn files_that_are_not_compressed_are_not_looked_at() {
        assert_eq!(why_broken("s.t.sql", &file(b""), true).await.expect("checked"), None);
        assert_eq!(why_broken("s.t.sql.enc", &file(b"x"), true).await.expect("checked"), None);
    }
}
