//! What mydumper itself takes out of its directory again, so that all else that goes away was removed by somebody else.
//!
//! Traced with nine versions (0.10.1 to 1.0.1; plain, `-c`, `-r`, `-F`, LOAD_DATA, CSV):
//! - a data file into which nothing was written: no byte, or an empty frame of its compressor;
//! - the `.sql` beside such a `.dat`, whatever its size;
//! - up to 0.10.5 `t.00001.sql` is renamed to `t.sql` when the table fits one file: the same inode under another name.

use super::file_kind::{Compression, FileKind, KnownNames, NameParts};

/// What an empty stream takes as gzip: 20 bytes by `gzip`, 10 to 20 where zlib writes it in-process.
const EMPTY_GZIP_MAX: u64 = 20;
/// What an empty stream takes as zstd: 9 bytes without a checksum (0.11 to 0.14), 13 with one.
const EMPTY_ZSTD: [u64; 2] = [9, 13];
/// What nothing may become by a program of the user's own (`--exec-per-thread`): a cipher's header.
const EMPTY_OTHER_MAX: u64 = 1024;

/// Whether a file of this name and size may hold no row, so that mydumper may still delete it.
pub fn may_be_empty(name: &str, size: u64) -> bool {
    if size > EMPTY_OTHER_MAX {
        return false;
    }
    let parts = NameParts::parse(name, &KnownNames::default());
    let is_empty = match parts.compression {
        Compression::None => size == 0,
        Compression::Gzip => size <= EMPTY_GZIP_MAX,
        Compression::Zstd => size == 0 || EMPTY_ZSTD.contains(&size),
        Compression::Other(_) => size <= EMPTY_OTHER_MAX,
    };
    is_empty && matches!(parts.kind, FileKind::Data | FileKind::DataText)
}

/// The `.dat` that a `.sql` of LOAD_DATA and CSV belongs to.
pub fn rows_beside(name: &str) -> Option<String> {
    let at = name.rfind(".sql")?;
    let (stem, rest) = (name.get(..at)?, name.get(at + ".sql".len()..)?);
    if NameParts::parse(name, &KnownNames::default()).kind != FileKind::Data {
        return None;
    }
    (rest.is_empty() || rest.starts_with('.')).then(|| format!("{stem}.dat{rest}"))
}

/// The name that 0.10 gives the first file of a table at its end, if the table has no second one.
pub fn renamed_to(name: &str) -> Option<String> {
    let at = name.rfind(".00001.sql")?;
    let (stem, rest) = (name.get(..at)?, name.get(at + ".00001".len()..)?);
    matches!(rest, ".sql" | ".sql.gz").then(|| format!("{stem}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_files_without_a_row_are_taken_back() {
        for (name, size) in [
            ("s.t.sql", 0),
            ("s.t.00000.sql", 0),
            ("s.t.00000.dat", 0),
            ("s.t.sql.gz", 10),
            ("s.t.00000.sql.gz", 20),
            ("s.t.00000.sql.zst", 9),
            ("s.t.00000.dat.zst", 13),
            ("s.t.00000.sql.enc", 100),
        ] {
            assert!(may_be_empty(name, size), "{name} {size}");
        }
        for (name, size) in [
            ("s.t.sql", 1),
            ("s.t.00000.sql.gz", 21),
            ("s.t.00000.sql.zst", 10),
            ("s.t.00000.sql.zst", 14),
            ("s.t-schema.sql", 0),
            ("s-schema-create.sql.gz", 20),
            ("metadata", 0),
            ("notes", 0),
        ] {
            assert!(!may_be_empty(name, size), "{name} {size}");
        }
    }

    #[test]
    fn a_statement_belongs_to_the_rows_beside_it() {
        assert_eq!(rows_beside("s.t.00000.sql").as_deref(), Some("s.t.00000.dat"));
        assert_eq!(rows_beside("s.t.00000.sql.zst").as_deref(), Some("s.t.00000.dat.zst"));
        assert_eq!(rows_beside("s.t.00000.dat"), None);
        assert_eq!(rows_beside("s.t.sqlite"), None);
        assert_eq!(rows_beside("s.t-schema.sql"), None);
    }

    #[test]
    fn the_first_file_of_a_table_may_become_its_only_one() {
        assert_eq!(renamed_to("s.t.00001.sql").as_deref(), Some("s.t.sql"));
        assert_eq!(renamed_to("s.t.00001.sql.gz").as_deref(), Some("s.t.sql.gz"));
        for name in ["s.t.00002.sql", "s.t.sql", "s.t.00001.dat", "s.t.00001.sql.zst", "s.t.00000.00001.sqlx"] {
            assert_eq!(renamed_to(name), None, "{name}");
        }
    }
}
