//! Whether SQL text ends where a statement ends.
//!
//! All that mydumper 0.10.1 and 1.0.1 write as SQL, schemas, triggers and routines too, ends in `;` and perhaps
//! whitespace; neither writes `DELIMITER`. What was cut short, by a full disk for one, ends anywhere.

/// What mydumper's SQL begins with. Text that begins otherwise, encrypted by an `--exec-per-thread` that keeps the name,
/// is not judged.
const BEGINNINGS: [&[u8]; 8] =
    [b"/*!", b"SET ", b"CREATE ", b"DROP ", b"INSERT ", b"REPLACE ", b"LOAD DATA ", b"ALTER "];
/// As many bytes of a text are enough to know how it begins.
pub const HEAD: usize = 16;
/// As many bytes of a text are enough to know how it ends: mydumper ends with `;` or with `;` and a newline.
pub const TAIL: usize = 64;

/// Takes a text in order, or its first [`HEAD`] bytes and its last [`TAIL`] bytes.
#[derive(Debug, Clone, Default)]
pub struct SqlEnd {
    head: Vec<u8>,
    /// The last byte that is not whitespace.
    last: Option<u8>,
}

impl SqlEnd {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let wanted = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..wanted]);
        self.last = bytes.iter().rev().find(|byte| !byte.is_ascii_whitespace()).copied().or(self.last);
    }

    /// Whether a statement ends here; then how the text begins makes no difference.
    pub fn is_at_end(&self) -> bool {
        self.last == Some(b';')
    }

    /// Why the text is not whole, if it is not. Text without anything is: `--all-tablespaces` leaves some.
    pub fn why_broken(&self) -> Option<&'static str> {
        let has_hole = self.head.len() >= HEAD && self.head.iter().all(|byte| *byte == 0);
        if has_hole && self.is_at_end() {
            // A hole before SQL, or what a copy made of it. Nothing but zeros is not judged.
            return Some("it begins with zeros, as a file does of which some was given back");
        }
        let is_sql = BEGINNINGS.iter().any(|beginning| self.head.starts_with(beginning));
        (is_sql && !self.is_at_end()).then_some("its text ends in the middle of a statement")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why_broken(text: &str) -> Option<&'static str> {
        let whole = |piece: usize| {
            let mut end = SqlEnd::default();
            text.as_bytes().chunks(piece).for_each(|bytes| end.update(bytes));
            end.why_broken()
        };
        let mut ends = SqlEnd::default();
        ends.update(&text.as_bytes()[..text.len().min(HEAD)]);
        ends.update(&text.as_bytes()[text.len().saturating_sub(TAIL)..]);
        assert_eq!((whole(1), whole(7)), (ends.why_broken(), ends.why_broken()), "{text}");
        ends.why_broken()
    }

    /// The ends of what 0.10.1 and 1.0.1 wrote: all kinds of files.
    #[test]
    fn what_mydumper_writes_ends_in_a_statements_end() {
        for text in [
            "",
            "\n",
            "/*!40101 SET NAMES binary*/;\n/*!40103 SET TIME_ZONE='+00:00' */;\n",
            "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop` /*!40100 DEFAULT CHARACTER SET latin1 */;\n",
            "/*!40101 SET NAMES binary*/;\nCREATE TABLE `t` (\n  `id` int(11)\n) ENGINE=InnoDB\n PARTITION BY HASH (`id`)\nPARTITIONS 4;\n",
            "/*!40101 SET NAMES binary*/;\nCREATE TABLE `v`(\n`id` int\n)ENGINE=MyISAM;\n",
            "SET @PREV=@@X;\nCREATE TRIGGER tr BEFORE INSERT ON big FOR EACH ROW BEGIN SET NEW.k=1; END;\nSET x = @PREV;\n",
            "INSERT INTO `t` VALUES\n(1),\n(2);\n",
            "INSERT INTO `t` VALUES(1)\n,(2)\n;\n",
            "/*!40101 SET NAMES binary*/;\nLOAD DATA LOCAL INFILE 'shop.t.00000.dat' INTO TABLE `t` LINES TERMINATED BY '\\n' (`id`);\n",
            "/*!40101 SET NAMES binary*/;\nINSERT INTO `t` FROM INFILE 'shop.t.00000.dat' FORMAT MySQLDump;",
        ] {
            assert_eq!(why_broken(text), None, "{text}");
        }
    }

    #[test]
    fn no_sql_begins_with_zeros() {
        let text = format!("{}INSERT INTO `t` VALUES(1);\n", "\0".repeat(100));
        assert!(why_broken(&text).is_some_and(|why| why.contains("zeros")));
    }

    #[test]
    fn what_is_cut_short_ends_anywhere() {
        let text = "/*!40101 SET NAMES binary*/;\nINSERT INTO `t` VALUES(1,\"a\")\n,(2,\"b\")\n;\n";
        let statement = text.find("INSERT").expect("a statement");
        for end in statement + 1..text.len() - 2 {
            assert!(why_broken(&text[..end]).is_some(), "{}", &text[..end]);
        }
        assert!(why_broken("CREATE TABLE `t` (id INT)\n\n\n").is_some());
        assert!(why_broken("INSERT INTO `t` VALUES\n(1),\n\0\0\0\0").is_some());
    }

    #[test]
    fn other_text_is_not_judged() {
        for text in ["Salted__\u{1}\u{2}", "age-encryption.org/v1", "1\t2\n"] {
            assert_eq!(why_broken(text), None);
        }
    }
}
