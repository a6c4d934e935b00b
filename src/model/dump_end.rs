//! Whether a dump that is one text came to its end: mysqldump and mariadb-dump say so in its last line.
//!
//! `-- MySQL dump 10.13 …` or `-- MariaDB dump 10.19 …` is among the first lines, `-- Dump completed …` the last one;
//! both are comments, and `--skip-comments` and `--compact` leave both away.

use super::file_name::FileName;

/// As many bytes at the beginning have the first lines.
const HEAD: usize = 256;
/// As many bytes at the end have the last line.
const TAIL: usize = 256;
const BEGINNINGS: [&[u8]; 2] = [b"-- MySQL dump ", b"-- MariaDB dump "];
const LAST_LINE: &[u8] = b"-- Dump completed";

/// When the last line must be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EndWanted {
    /// However the text begins: nothing else tells that it is whole.
    Always,
    /// Where the first lines are of a dump with comments.
    #[default]
    WherePromised,
    /// The text may end as it likes.
    Never,
}

/// Takes a text in order.
#[derive(Debug, Clone, Default)]
pub struct DumpEnd {
    wanted: EndWanted,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl DumpEnd {
    /// Of a text that has not begun.
    pub fn new(wanted: EndWanted) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let wanted = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..wanted]);
        if let Some(last) = bytes.len().checked_sub(TAIL) {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[last..]);
        } else {
            self.tail.extend_from_slice(bytes);
            let surplus = self.tail.len().saturating_sub(TAIL);
            self.tail.drain(..surplus);
        }
    }

    /// Why the text is not whole, if it is not.
    pub fn why_broken(&self) -> Option<&'static str> {
        let begins = |line: &[u8]| BEGINNINGS.iter().any(|beginning| line.starts_with(beginning));
        let is_promised = self.head.split(|byte| *byte == b'\n').any(begins);
        let last = self.tail.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let is_there = last.starts_with(LAST_LINE);
        let is_wanted = match self.wanted {
            EndWanted::Always => true,
            EndWanted::WherePromised => is_promised,
            EndWanted::Never => false,
        };
        (is_wanted && !is_there)
            .then_some("its last line is not '-- Dump completed', as it is of a dump that came to its end")
    }
}

/// What the name of a stream promises of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promised {
    /// Whole frames of zstd, or members of gzip.
    pub is_compressed: bool,
    /// SQL text.
    pub is_sql: bool,
}

impl Promised {
    /// By that name; `.sql` may stand before `.zst` or `.gz`.
    pub fn by(name: &FileName) -> Self {
        let name = name.as_str();
        let plain = name.strip_suffix(".zst").or_else(|| name.strip_suffix(".gz"));
        Self { is_compressed: plain.is_some(), is_sql: plain.unwrap_or(name).ends_with(".sql") }
    }

    /// Whether the content tells by itself that it is whole.
    pub fn tells_end(self) -> bool {
        self.is_compressed || self.is_sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn why_broken(text: &str, wanted: EndWanted) -> Option<&'static str> {
        let of = |piece: usize| {
            let mut end = DumpEnd::new(wanted);
            text.as_bytes().chunks(piece).for_each(|bytes| end.update(bytes));
            end.why_broken()
        };
        assert_eq!((of(1), of(100)), (of(7), of(10_000)), "{text}");
        of(7)
    }

    /// The ends of what mariadb-dump 10.11 and mysqldump 8.0 wrote.
    #[test]
    fn a_dump_that_came_to_its_end_says_so() {
        let rows = "INSERT INTO `t` VALUES (1);\n".repeat(100);
        for begin in [
            "-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)\n",
            "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB\n",
        ] {
            for end in ["-- Dump completed on 2026-11-22  2:00:01\n", "-- Dump completed\n", "-- Dump completed"] {
                assert_eq!(why_broken(&format!("{begin}{rows}{end}"), EndWanted::WherePromised), None);
                assert_eq!(why_broken(&format!("{begin}{rows}{end}"), EndWanted::Always), None);
            }
            for end in ["", "\n", "-- Dump compl", "-- Dump completed\nINSERT INTO `t` VALUES (2);\n"] {
                assert!(why_broken(&format!("{begin}{rows}{end}"), EndWanted::WherePromised).is_some(), "{end}");
            }
        }
    }

    #[test]
    fn a_dump_without_comments_promises_no_last_line() {
        let text = "CREATE TABLE `t` (`id` int);\nINSERT INTO `t` VALUES (1);\n";
        assert_eq!(why_broken(text, EndWanted::WherePromised), None);
        assert!(why_broken(text, EndWanted::Always).is_some());
        assert!(why_broken("", EndWanted::Always).is_some());
        assert_eq!(why_broken("", EndWanted::WherePromised), None);
        assert_eq!(why_broken("-- MariaDB dump 10.19\n", EndWanted::Never), None);
    }

    #[test]
    fn the_name_says_what_is_in_it() {
        let by = |name: &str| Promised::by(&name.parse().expect("a name"));
        assert_eq!(by("shop.sql"), Promised { is_compressed: false, is_sql: true });
        assert_eq!(by("shop.sql.zst"), Promised { is_compressed: true, is_sql: true });
        assert_eq!(by("shop.xb.gz"), Promised { is_compressed: true, is_sql: false });
        assert!(!by("shop.xbstream").tells_end() && !by("shop.sql.xz").tells_end());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), piece in 1_usize..700) {
            let mut end = DumpEnd::new(EndWanted::Always);
            bytes.chunks(piece).for_each(|bytes| end.update(bytes));
            end.why_broken();
        }
    }
}
