//! What mydumper's `metadata` (or `metadata.partial`) says about a dump.
//!
//! The parser is total: any bytes give a value, and what is absent or odd is `None`. A dump is judged by its files;
//! coordinates that cannot be read must never stop one.
//!
//! Two generations, both written from the first second of a dump to its last:
//! - free text (to 0.12; `write_snapshot_info`, and samples of 0.10.1): `Started dump at:`, `SHOW MASTER STATUS:` and
//!   `SHOW SLAVE STATUS:` with indented `Log`, `Pos`, `GTID`, `Host`, `Connection name`, then `Finished dump at:`.
//! - INI-like (0.13 and later; `start_dump`, `write_snapshot_info`, `write_replica_info`,
//!   `print_dbt_on_metadata_gstring`): the same two moments as comments, and sections. Coordinates are comments too,
//!   depending on version and options (all of them in 1.0.3), so a comment in a replication section is read as a value.
//!
//! The last line counts only when it ends in a newline: `metadata.partial` is read while mydumper writes it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Everything we use of a `metadata` file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpMetadata {
    /// The text after the last `Started dump at:`, local time without a zone.
    /// The last one, because 1.x with `--dirty` or `--merge` appends to an old file.
    pub started: Option<String>,
    /// The text after the `Finished dump at:` that follows the last start.
    pub finished: Option<String>,
    /// `None` as long as nothing tells, as in the empty file of the first milliseconds.
    pub generation: Option<Generation>,
    /// The server's own position first, then one for each replication channel, in the order of the file.
    pub sources: Vec<ReplicationSource>,
    /// The tables, views and sequences; free text names none.
    pub tables: Vec<TableSection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generation {
    /// 0.12 and older.
    FreeText,
    /// 0.13 and newer.
    Ini,
}

/// Whose binary log a position belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceRole {
    /// The server that was dumped: its own binary log.
    #[serde(rename = "self")]
    Own,
    /// The server was a replica: the position in its source's log. Useless for its own log, and the reverse.
    Replica,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationSource {
    pub role: SourceRole,
    pub channel: Option<String>,
    pub host: Option<String>,
    pub file: Option<String>,
    pub position: Option<u64>,
    pub gtid: Option<String>,
}

/// A section like ``[`shop`.`orders`]``: written for every table, view and sequence that was chosen for the dump,
/// whatever was then written of it (`new_db_table` adds, `print_dbt_on_metadata_gstring` writes).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSection {
    pub database: String,
    /// The second part of the section's name: what file names use, `mydumper_3` for an odd name.
    /// Some 0.19 to 1.0 sources write the table's own name here, odd or not (`dbt->key`).
    pub file_table: String,
    /// The real name: `real_table_name`, or else the same as `file_table`.
    pub table: String,
    pub rows: Option<u64>,
    /// myloader reads `is_view`; no mydumper source seen writes it, so `false` says nothing.
    pub is_view: bool,
    pub is_sequence: bool,
    /// Taken after the schema file was written, so it proves that there was one.
    pub schema_checksum: Option<String>,
    pub data_checksum: Option<String>,
}

/// What stands before the time of the start, and of the end.
const STARTED: &str = "Started dump at:";
const FINISHED: &str = "Finished dump at:";

impl DumpMetadata {
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut parser = Parser::default();
        for line in text.split_inclusive('\n') {
            if let Some(line) = line.strip_suffix('\n') {
                parser.line(line.strip_suffix('\r').unwrap_or(line));
            }
        }
        parser.finish()
    }

    /// The start as numbers, when it has the form that mydumper writes.
    pub fn started_local(&self) -> Option<LocalTime> {
        LocalTime::parse(self.started.as_deref()?)
    }
}

/// The `sql_mode` with which myloader is to load, as `[myloader_session_variables]` says it; free text has none.
pub fn session_sql_mode(text: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| line.trim() != "[myloader_session_variables]").skip(1);
    let line = lines.by_ref().take_while(|line| !line.starts_with('[')).find(|line| line.starts_with("SQL_MODE="))?;
    // `SQL_MODE='ANSI_QUOTES,…' /*!40101`
    let quoted = line.split_once('\'')?.1;
    quoted.split_once('\'').map(|(modes, _)| modes.to_owned())
}

impl TableSection {
    /// `shop.orders`: how the names of its files begin.
    pub(super) fn base_name(&self) -> String {
        format!("{}.{}", self.database, self.file_table)
    }
}

/// A moment on the clock of the machine that mydumper ran on; which zone that was is not written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalTime {
    pub year: u16,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl LocalTime {
    /// Reads `2026-11-22 09:08:21`; a `T` between and a fraction are taken too. Anything else, a zone for one, is
    /// `None`: a guessed start would become a wrong prefix.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.trim().split_once([' ', 'T'])?;
        let (time, fraction) = time.split_once(['.', ',']).unwrap_or((time, "0"));
        if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let [year, month, day] = three_numbers(date, '-', 4)?;
        let [hour, minute, second] = three_numbers(time, ':', 2)?;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u16::from(leap),
            _ => return None,
        };
        if year == 0 || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let small = |number: u16| u8::try_from(number).ok();
        Some(Self {
            year,
            month: small(month)?,
            day: small(day)?,
            hour: small(hour)?,
            minute: small(minute)?,
            second: small(second)?,
        })
    }
}

/// Three numbers of exactly `first`, 2 and 2 digits.
fn three_numbers(text: &str, separator: char, first: usize) -> Option<[u16; 3]> {
    let mut parts = text.split(separator);
    let mut next = |width: usize| {
        let part = parts.next()?;
        let exact = part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit());
        exact.then(|| part.parse().ok()).flatten()
    };
    let numbers = [next(first)?, next(2)?, next(2)?];
    parts.next().is_none().then_some(numbers)
}

/// What the lines that come next belong to.
#[derive(Default)]
enum Block {
    #[default]
    Nothing,
    /// The last of `sources`.
    Source,
    /// This one of `tables`, whose section is quoted with this character.
    Table(usize, char),
}

#[derive(Default)]
struct Parser {
    metadata: DumpMetadata,
    sources: Vec<DraftSource>,
    /// Where a section stands in `tables`: with `--merge` a table can come again, and a search would be quadratic.
    table_index: HashMap<(String, String), usize>,
    block: Block,
    /// A GTID set that ended in a comma goes on in the next line, not indented (0.10.1 on MySQL).
    gtid_goes_on: bool,
}

impl Parser {
    fn line(&mut self, line: &str) {
        let gtid_goes_on = std::mem::take(&mut self.gtid_goes_on);
        if let Some((generation, moment)) = moment(line, STARTED) {
            self.start(generation, moment);
        } else if let Some((generation, moment)) = moment(line, FINISHED) {
            self.metadata.generation.get_or_insert(generation);
            self.metadata.finished = Some(moment.to_owned());
            self.block = Block::Nothing;
        } else if let Some(section) = section_name(line) {
            self.metadata.generation.get_or_insert(Generation::Ini);
            self.open_section(section);
        } else if let Some(role) = free_text_heading(line) {
            self.metadata.generation.get_or_insert(Generation::FreeText);
            self.open_source(role, None);
        } else {
            match self.block {
                Block::Nothing => {}
                Block::Source => self.source_line(line, gtid_goes_on),
                Block::Table(index, quote) => self.table_line(index, quote, line),
            }
        }
    }

    fn start(&mut self, generation: Generation, moment: &str) {
        // `--merge` appends to a finished dump, whose files are part of the new one; `--dirty` appends to a dead one,
        // whose words are worth nothing. Positions are of the last run in both cases.
        if self.metadata.finished.take().is_none() {
            self.metadata.tables.clear();
            self.table_index.clear();
        }
        self.sources.clear();
        self.metadata.started = Some(moment.to_owned());
        self.metadata.generation = Some(generation);
        self.block = Block::Nothing;
    }

    fn open_section(&mut self, section: &str) {
        self.block = Block::Nothing;
        if let Some((database, file_table, quote)) = quoted_pair(section) {
            let key = (database, file_table);
            let (database, file_table) = key.clone();
            let fresh = TableSection { database, table: file_table.clone(), file_table, ..TableSection::default() };
            let tables = &mut self.metadata.tables;
            let index = *self.table_index.entry(key).or_insert(tables.len());
            match tables.get_mut(index) {
                Some(table) => *table = fresh,
                None => tables.push(fresh),
            }
            self.block = Block::Table(index, quote);
        } else if section == "master" || section == "source" {
            self.open_source(SourceRole::Own, None);
        } else if section == "replication" {
            self.open_source(SourceRole::Replica, None);
        } else if let Some(channel) = section.strip_prefix("replication.") {
            self.open_source(SourceRole::Replica, Some(channel));
        }
        // Else [config], [myloader_session_variables], or a database's checksums: [`shop`].
    }

    fn open_source(&mut self, role: SourceRole, channel: Option<&str>) {
        let mut source = DraftSource::new(role);
        if let Some(channel) = channel {
            source.channel.offer(channel, false);
        }
        self.sources.push(source);
        self.block = Block::Source;
    }

    fn source_line(&mut self, line: &str, gtid_goes_on: bool) {
        let Some(source) = self.sources.last_mut() else {
            return;
        };
        let line = line.trim();
        if gtid_goes_on && !line.is_empty() {
            source.gtid.extend(line);
            self.gtid_goes_on = line.ends_with(',');
            return;
        }
        let (commented, line) = uncomment(line);
        // `Host: ::1` and `Source_Host = '::1'`: whichever separator comes first.
        let Some((key, value)) = line.split_once(['=', ':']) else {
            return;
        };
        let value = unquote(value);
        match key.trim_end().to_ascii_lowercase().as_str() {
            "log" | "file" | "source_log_file" | "relay_master_log_file" | "relay_source_log_file" => {
                source.file.offer(value, commented);
            }
            "pos" | "position" | "source_log_pos" | "exec_master_log_pos" | "exec_source_log_pos" => {
                source.position.offer(value, commented);
            }
            "gtid" | "executed_gtid_set" | "gtid_slave_pos" | "gtid_source_pos" => {
                self.gtid_goes_on = source.gtid.offer(value, commented) && value.ends_with(',');
            }
            "host" | "master_host" | "source_host" => {
                source.host.offer(value, commented);
            }
            "connection name" | "connection_name" | "channel_name" => {
                source.channel.offer(value, commented);
            }
            _ => {}
        }
    }

    fn table_line(&mut self, index: usize, quote: char, line: &str) {
        let Some(table) = self.metadata.tables.get_mut(index) else {
            return;
        };
        let Some((key, value)) = line.split_once('=') else {
            return;
        };
        let value = value.trim_start();
        let some = || (!value.is_empty()).then(|| value.trim_end().to_owned());
        match key.trim().to_ascii_lowercase().as_str() {
            // The name is written as between quotes, a quote in it doubled (`identifier_quote_character_protect`).
            "real_table_name" if !value.is_empty() => table.table = undouble(value, quote),
            // 0.13 wrote `Rows`.
            "rows" => table.rows = value.trim_end().parse().ok(),
            "is_view" => table.is_view = value.trim_end() == "1",
            "is_sequence" => table.is_sequence = value.trim_end() == "1",
            "schema_checksum" => table.schema_checksum = some(),
            "data_checksum" => table.data_checksum = some(),
            _ => {}
        }
    }

    fn finish(mut self) -> DumpMetadata {
        self.metadata.sources = self.sources.into_iter().filter_map(DraftSource::finish).collect();
        self.metadata
    }
}

/// A value that a comment may give and a plain line corrects; of equals, the first counts: the columns of
/// `SHOW REPLICA STATUS` follow as comments, and their `Source_Log_File` is what was fetched, not what was executed.
#[derive(Default)]
struct Draft {
    value: Option<String>,
    commented: bool,
}

impl Draft {
    fn offer(&mut self, value: &str, commented: bool) -> bool {
        // glib prints a C null pointer as `(null)`.
        let nothing = value.is_empty() || value == "(null)" || value == "NULL";
        let take = !nothing && (self.value.is_none() || (self.commented && !commented));
        if take {
            *self = Self { value: Some(value.to_owned()), commented };
        }
        take
    }

    fn extend(&mut self, more: &str) {
        if let Some(value) = &mut self.value {
            value.push_str(more);
        }
    }
}

struct DraftSource {
    role: SourceRole,
    channel: Draft,
    host: Draft,
    file: Draft,
    position: Draft,
    gtid: Draft,
}

impl DraftSource {
    fn new(role: SourceRole) -> Self {
        let [channel, host, file, position, gtid] = Default::default();
        Self { role, channel, host, file, position, gtid }
    }

    /// A section without any coordinate, like the bare `[source]` of 1.x without `--source-data`, says nothing.
    fn finish(self) -> Option<ReplicationSource> {
        let source = ReplicationSource {
            role: self.role,
            channel: self.channel.value,
            host: self.host.value,
            file: self.file.value,
            position: self.position.value.and_then(|position| position.parse().ok()),
            gtid: self.gtid.value,
        };
        let known = source.file.is_some() || source.position.is_some() || source.gtid.is_some();
        known.then_some(source)
    }
}

/// Whether a line is a comment, and what it says.
fn uncomment(line: &str) -> (bool, &str) {
    line.strip_prefix('#').map_or((false, line), |rest| (true, rest.trim_start()))
}

/// The text of a `Started` or `Finished` line; the `#` before it is what tells the generations apart.
fn moment<'a>(line: &'a str, words: &str) -> Option<(Generation, &'a str)> {
    let (commented, line) = uncomment(line);
    let text = line.strip_prefix(words)?.trim();
    let generation = if commented { Generation::Ini } else { Generation::FreeText };
    (!text.is_empty()).then_some((generation, text))
}

/// The name of a section. It ends at the last `]`, for an identifier may hold one.
fn section_name(line: &str) -> Option<&str> {
    line.trim_end().strip_prefix('[')?.strip_suffix(']')
}

/// `SHOW MASTER STATUS:` and the like; some versions add a comment behind.
fn free_text_heading(line: &str) -> Option<SourceRole> {
    let (command, _) = line.strip_prefix("SHOW ")?.split_once(" STATUS:")?;
    match command {
        "MASTER" | "BINARY LOG" => Some(SourceRole::Own),
        "SLAVE" | "REPLICA" => Some(SourceRole::Replica),
        _ => None,
    }
}

/// The value of a line: what stands between quotes, or the trimmed rest.
fn unquote(value: &str) -> &str {
    let value = value.trim();
    for quote in ['\'', '"'] {
        if let Some(inner) = value.strip_prefix(quote) {
            return inner.split_once(quote).map_or(inner, |(inside, _)| inside).trim();
        }
    }
    value
}

/// Database, table and quote of a section's name like `` `shop`.`orders` ``; `None` for any other section.
fn quoted_pair(section: &str) -> Option<(String, String, char)> {
    let quote = section.chars().next().filter(|quote| matches!(quote, '`' | '"'))?;
    let strict = || {
        let (database, rest) = quoted_identifier(section, quote)?;
        let (table, rest) = quoted_identifier(rest.strip_prefix('.')?, quote)?;
        rest.is_empty().then_some((database, table))
    };
    // Sections made of `dbt->key` do not double a quote inside a name; myloader splits in this way too.
    let loose = || {
        let inner = section.strip_prefix(quote)?.strip_suffix(quote)?;
        let (database, table) = inner.split_once(&format!("{quote}.{quote}"))?;
        Some((database.to_owned(), table.to_owned()))
    };
    let (database, table) = strict().or_else(loose)?;
    Some((database, table, quote))
}

/// The text without the sections of tables, and of databases, that are not wanted: a myloader that finds a section without
/// files dies (0.16.9) or warns (0.21.4, 1.0.1). `is_wanted` gets the names of a section; a database's has no table.
pub fn without_sections(text: &[u8], is_wanted: impl Fn(&str, Option<&str>) -> bool) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut is_kept = true;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let shown = String::from_utf8_lossy(line);
        if [STARTED, FINISHED].into_iter().any(|words| moment(&shown, words).is_some()) {
            // These are of no section, though they stand behind some.
            is_kept = true;
        } else if let Some(section) = section_name(&shown) {
            is_kept = match (quoted_pair(section), database_of(section)) {
                (Some((database, table, _)), _) => is_wanted(&database, Some(&table)),
                (None, Some(database)) => is_wanted(&database, None),
                (None, None) => true,
            };
        }
        if is_kept {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// The name in a section like ``[`shop`]``, which holds a database's checksums.
fn database_of(section: &str) -> Option<String> {
    let quote = section.chars().next().filter(|quote| matches!(quote, '`' | '"'))?;
    quoted_identifier(section, quote).filter(|(_, rest)| rest.is_empty()).map(|(database, _)| database)
}

/// The identifier at the start of `text`, and what follows its closing quote.
fn quoted_identifier(text: &str, quote: char) -> Option<(String, &str)> {
    let inner = text.strip_prefix(quote)?;
    let mut characters = inner.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        // A doubled quote is a quote inside the name.
        if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return Some((undouble(&inner[..at], quote), &inner[at + quote.len_utf8()..]));
        }
    }
    None
}

fn undouble(name: &str, quote: char) -> String {
    let doubled = format!("{quote}{quote}");
    name.replace(&doubled, &doubled[quote.len_utf8()..])
}

#[cfg(test)]
#[path = "dump_metadata_tests.rs"]
mod tests;
