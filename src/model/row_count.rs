//! How many rows a data file holds, counted from its text alone.
//!
//! mydumper escapes newlines in values (`mysql_real_escape_string`; from 0.13 on also on a server with
//! `NO_BACKSLASH_ESCAPES`, which its own session leaves out), so each row begins a line. From 0.11 on the first row
//! follows `VALUES` on the line of its `INSERT INTO`, and the others begin with `,(`; in 0.10 all begin with `(`. The
//! lines of a `.dat` are rows where the `LOAD DATA` in the `.sql` beside it says so.
//!
//! What does not look so to the last line is [`FileRows::Unknown`]: a count is right, or it is none.

use std::fmt;
use std::str::FromStr;

use memchr::{memchr, memchr_iter, memmem};

use super::file_kind::{FileKind, KnownNames, NameParts};

/// As much of a `LOAD DATA` statement is kept; what is looked for stands before its columns.
const STATEMENT_KEPT: usize = 8 * 1024;
/// As much of a line is looked at to know what it begins.
const HEAD: usize = 12;

/// What one data file says of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRows {
    /// So many, in statements that insert them.
    Rows(u64),
    /// So many lines of a `.dat`.
    Lines(u64),
    /// It loads the `.dat` beside it, each line of which is a row but for the first ones.
    Loads {
        /// Lines of the `.dat` that are its header.
        skipped: u64,
    },
    /// It does not look as mydumper writes it, or its lines end otherwise.
    Unknown,
}

/// As it stands in an object's user metadata.
impl fmt::Display for FileRows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => write!(formatter, "{rows}"),
            Self::Lines(lines) => write!(formatter, "lines={lines}"),
            Self::Loads { skipped } => write!(formatter, "loads-after={skipped}"),
            Self::Unknown => formatter.write_str("unknown"),
        }
    }
}

impl FromStr for FileRows {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unknown" {
            return Ok(Self::Unknown);
        }
        if let Some(lines) = text.strip_prefix("lines=") {
            return lines.parse().map(Self::Lines);
        }
        match text.strip_prefix("loads-after=") {
            Some(skipped) => skipped.parse().map(|skipped| Self::Loads { skipped }),
            None => text.parse().map(Self::Rows),
        }
    }
}

/// Takes a data file's text in order, and counts its rows.
#[derive(Debug)]
pub struct RowCounter(Kind);

#[derive(Debug)]
enum Kind {
    Sql(SqlCounter),
    Text { lines: u64, last: u8 },
}

impl RowCounter {
    /// For a file of that name; `None` where it holds no rows.
    pub fn of(name: &str) -> Option<Self> {
        match NameParts::parse(name, &KnownNames::default()).kind {
            FileKind::Data => Some(Self(Kind::Sql(SqlCounter::default()))),
            FileKind::DataText => Some(Self(Kind::Text { lines: 0, last: b'\n' })),
            _ => None,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Sql(counter) => counter.update(bytes),
            Kind::Text { lines, last } => {
                *lines += memchr_iter(b'\n', bytes).count() as u64;
                *last = bytes.last().copied().unwrap_or(*last);
            }
        }
    }

    /// What the file says.
    pub fn finish(self) -> FileRows {
        match self.0 {
            Kind::Sql(counter) => counter.finish(),
            Kind::Text { lines, last: b'\n' } => FileRows::Lines(lines),
            Kind::Text { .. } => FileRows::Unknown,
        }
    }
}

#[derive(Debug, Default)]
struct SqlCounter {
    rows: u64,
    at: At,
    /// Between two statements, or among the rows of one.
    within: Within,
    /// What the line begins with, until it is known what that is.
    head: Vec<u8>,
    /// The byte before the next one.
    last: u8,
    loads: Option<FileRows>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Within {
    #[default]
    Nothing,
    /// Rows begin with `,(`.
    Rows,
    /// Rows begin with `(`, and the last one ends in `;`.
    OldRows,
}

/// Where the next byte stands.
#[derive(Debug, Default)]
enum At {
    #[default]
    LineStart,
    /// In a line of which nothing more is of interest.
    Line,
    /// In `INSERT INTO … VALUES`; a column's name may hold anything, a newline too.
    Header(Header),
    /// In a `LOAD DATA` statement, which is kept.
    Load,
    /// The text is not as mydumper writes it.
    Lost,
}

impl SqlCounter {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.at {
                At::LineStart => self.take_head(bytes),
                At::Line => self.take_line(bytes),
                At::Header(header) => {
                    let (taken, end) = header.take(bytes);
                    self.end_header(end);
                    taken
                }
                At::Load => {
                    let room = STATEMENT_KEPT.saturating_sub(self.head.len());
                    self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    bytes.len()
                }
                At::Lost => return,
            };
            if let Some(last) = taken.checked_sub(1).and_then(|at| bytes.get(at)) {
                self.last = *last;
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Takes what a line begins with, as far as that is needed to know what it is.
    fn take_head(&mut self, bytes: &[u8]) -> usize {
        let wanted = match self.within {
            Within::Nothing => HEAD,
            Within::Rows => 2,
            Within::OldRows => 1,
        };
        let room = wanted.saturating_sub(self.head.len()).min(bytes.len());
        let line = &bytes[..room];
        let line = memchr(b'\n', line).map_or(line, |at| &line[..at]);
        self.head.extend_from_slice(line);
        let is_whole = line.len() < room || self.head.len() >= wanted;
        if is_whole {
            self.begin_line();
        }
        line.len()
    }

    /// The line's head is known.
    fn begin_line(&mut self) {
        let head = std::mem::take(&mut self.head);
        let starts = |words: &[u8]| head.starts_with(words);
        self.at = match self.within {
            Within::Nothing if starts(b"INSERT ") || starts(b"REPLACE ") => {
                let mut header = Header::default();
                // Too short for `VALUES`.
                header.take(&head);
                At::Header(header)
            }
            Within::Nothing if starts(b"LOAD DATA ") => {
                self.head = head;
                At::Load
            }
            Within::Nothing if starts(b"(") || starts(b",(") => At::Lost,
            Within::Nothing => At::Line,
            Within::Rows if starts(b",(") => self.row(),
            Within::Rows if head == b";" => {
                self.within = Within::Nothing;
                At::Line
            }
            Within::OldRows if starts(b"(") => self.row(),
            Within::Rows | Within::OldRows => At::Lost,
        };
    }

    fn row(&mut self) -> At {
        self.rows += 1;
        At::Line
    }

    fn take_line(&mut self, bytes: &[u8]) -> usize {
        if self.within == Within::Rows {
            return self.take_lines_of_rows(bytes);
        }
        let Some(end) = memchr(b'\n', bytes) else { return bytes.len() };
        let last = end.checked_sub(1).map_or(self.last, |at| bytes[at]);
        self.at = At::LineStart;
        match (self.within, last) {
            (Within::OldRows, b';') => self.within = Within::Nothing,
            (Within::Nothing, _) | (_, b',') => {}
            // A newline within a value.
            _ => self.at = At::Lost,
        }
        end + 1
    }

    /// Goes on to the first line that is no row. This is where the time goes.
    fn take_lines_of_rows(&mut self, bytes: &[u8]) -> usize {
        for end in memchr_iter(b'\n', bytes) {
            let last = end.checked_sub(1).map_or(self.last, |at| bytes[at]);
            if last != b')' {
                self.at = At::Lost;
                return bytes.len();
            }
            if bytes[end + 1..].starts_with(b",(") {
                self.rows += 1;
            } else {
                self.at = At::LineStart;
                return end + 1;
            }
        }
        bytes.len()
    }

    fn end_header(&mut self, end: Option<HeaderEnd>) {
        match end {
            None => {}
            Some(HeaderEnd::Row) => {
                self.within = Within::Rows;
                self.at = self.row();
            }
            Some(HeaderEnd::Line) => {
                self.within = Within::OldRows;
                self.at = At::LineStart;
            }
            Some(HeaderEnd::Otherwise) => self.at = At::Lost,
        }
    }

    fn finish(mut self) -> FileRows {
        if matches!(self.at, At::LineStart) && !self.head.is_empty() {
            self.begin_line();
        }
        if matches!(self.at, At::Load) {
            self.loads = Some(loads(&self.head));
        }
        // 0.10's last line may have no newline.
        let ends_within = match (self.within, &self.at) {
            (_, At::Lost | At::Header(_)) => true,
            (Within::Nothing, _) => false,
            (Within::OldRows, At::Line) => self.last != b';',
            _ => true,
        };
        match self.loads {
            _ if ends_within => FileRows::Unknown,
            Some(loads) if self.rows == 0 => loads,
            Some(_) => FileRows::Unknown,
            None => FileRows::Rows(self.rows),
        }
    }
}

/// Finds the ` VALUES` that ends a header, outside of quotes.
#[derive(Debug, Default)]
struct Header {
    quote: Option<u8>,
    /// How much of ` VALUES` stands before the next byte.
    matched: usize,
}

enum HeaderEnd {
    /// `(`: the first row.
    Row,
    /// A newline: rows begin the lines that follow.
    Line,
    /// No rows, as `INSERT INTO … FROM INFILE` of `--format CLICKHOUSE`.
    Otherwise,
}

impl Header {
    fn take(&mut self, bytes: &[u8]) -> (usize, Option<HeaderEnd>) {
        const VALUES: &[u8] = b" VALUES";
        for (at, &byte) in bytes.iter().enumerate() {
            if let Some(quote) = self.quote {
                if byte == quote {
                    self.quote = None;
                }
                continue;
            }
            if self.matched == VALUES.len() {
                let end = match byte {
                    b'(' => HeaderEnd::Row,
                    b'\n' => HeaderEnd::Line,
                    b' ' => continue,
                    _ => HeaderEnd::Otherwise,
                };
                return (at + 1, Some(end));
            }
            match byte {
                b'`' | b'"' | b'\'' => (self.quote, self.matched) = (Some(byte), 0),
                b';' | b'\n' => return (at + 1, Some(HeaderEnd::Otherwise)),
                _ if byte == VALUES[self.matched] => self.matched += 1,
                _ => self.matched = usize::from(byte == VALUES[0]),
            }
        }
        (bytes.len(), None)
    }
}

/// What a `LOAD DATA` statement says of the lines that it loads; see `initialize_load_data_statement_suffix`.
fn loads(statement: &[u8]) -> FileRows {
    let clauses = outside_of_backquotes(statement);
    let Some(lines) = memmem::find(&clauses, b"LINES ").and_then(|at| clauses.get(at..)) else {
        return FileRows::Unknown;
    };
    let Some(end) = memmem::find(lines, b"TERMINATED BY '").and_then(|at| lines.get(at + 15..)) else {
        return FileRows::Unknown;
    };
    // Another end may stand in a value, where nothing escapes it.
    let Some(rest) = end.strip_prefix(br"\n' ").or_else(|| end.strip_prefix(br"\r\n' ")) else {
        return FileRows::Unknown;
    };
    if rest.starts_with(b"(") {
        return FileRows::Loads { skipped: 0 };
    }
    // A column's name may hold a newline, which makes two lines of the header; no value does.
    let header_is_a_line = statement.len() < STATEMENT_KEPT && !statement.trim_ascii_end().contains(&b'\n');
    if rest.starts_with(b"IGNORE 1 LINES ") && header_is_a_line {
        return FileRows::Loads { skipped: 1 };
    }
    FileRows::Unknown
}

/// The text without quoted names, which may look like anything.
fn outside_of_backquotes(text: &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == b'`').step_by(2).collect::<Vec<_>>().join(&b'`')
}

#[cfg(test)]
#[path = "row_count_tests.rs"]
mod tests;
