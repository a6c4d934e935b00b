//! What came of a drill: a table of all that was compared, what differs by its name, and how long it took.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tracing::{error, info, warn};

use super::Took;
use crate::exit_status::{Failure, Status};
use crate::model::drill::{Compared, Count, Difference};
use crate::model::left_out::{LeftOut, in_words};
use crate::model::units::{ByteSize, human_duration};
use crate::program::OnLine;
use crate::report::{Align, Report, Table};

/// The format of the JSON report.
const FORMAT: u32 = 1;
/// Differences, and tables without a count, that are named in lines.
const SAID_MAX: usize = 50;
/// What myloader finds by the dump's checksums that is kept.
const MISMATCHES_MAX: usize = 50;
/// The most of each, in characters.
const LENGTH_MAX: usize = 300;

/// The name of what myloader itself found.
pub const LOADER: &str = "myloader";

/// What came of it.
pub struct Outcome {
    /// The dump.
    pub uri: String,
    /// The server.
    pub server: String,
    /// What was compared.
    pub compared: Compared,
    /// Of the data files that were loaded.
    pub bytes: u64,
    /// Whether that is less than the dump.
    pub is_part: bool,
    /// Of a sample.
    pub seed: Option<u64>,
    /// What mydumper left out, where that is known.
    pub left_out: Option<Vec<LeftOut>>,
    /// How long it took.
    pub took: Took,
}

#[derive(Serialize)]
struct Json<'a> {
    format: u32,
    drilled: Timestamp,
    version: &'static str,
    dump: &'a str,
    server: &'a str,
    /// Whether nothing differs.
    is_right: bool,
    is_part: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    bytes: u64,
    counts: &'a [Count],
    differences: &'a [Difference],
    /// Tables whose rows nothing tells.
    uncounted: &'a [Difference],
    /// `null` where it is not known.
    left_out: Option<&'a [LeftOut]>,
    seconds: Seconds,
}

#[derive(Serialize)]
struct Seconds {
    server: f64,
    load: f64,
    comparison: f64,
    whole: f64,
}

impl Outcome {
    /// Says it, and with which status it ends.
    pub async fn tell(self, as_json: bool, report: &Report) -> Result<Status, Failure> {
        let Self { compared, took, .. } = &self;
        match as_json {
            true => report.data(&self.json()?).await?,
            false => report.table(&self.table()).await?,
        }
        for Difference { name, why } in compared.uncounted.iter().take(SAID_MAX) {
            warn!("'{name}' is not proved: {why}");
        }
        match self.left_out.as_deref() {
            Some([]) => {}
            Some(left_out) => info!("mydumper left out by its own options: {}", in_words(left_out)),
            None => info!("what mydumper left out by its own options is not known"),
        }
        for Difference { name, why } in compared.differences.iter().take(SAID_MAX) {
            match name.as_str() {
                LOADER => error!("{LOADER} complained: {why}"),
                name => error!("'{name}' differs: {why}"),
            }
        }
        let more = compared.differences.len().saturating_sub(SAID_MAX);
        if more > 0 {
            error!("and {more} differences more, which --json has");
        }
        let time = |duration: Duration| human_duration(duration);
        let part = if self.is_part { "a part of " } else { "" };
        let came = match compared.differences.len() {
            0 => "is a backup".to_owned(),
            1 => "is not what it should be: 1 difference".to_owned(),
            count => format!("is not what it should be: {count} differences"),
        };
        info!(
            "{part}{} {came}; {} loaded into {} in {} (server {}, load {}, comparison {})",
            self.uri,
            ByteSize(self.bytes).human(),
            self.server,
            time(took.whole),
            time(took.server),
            time(took.load),
            time(took.comparison),
        );
        Ok(if compared.differences.is_empty() { Status::Success } else { Status::Difference })
    }

    fn table(&self) -> Table {
        let columns = ["IN THE DUMP", "ON THE SERVER"].map(|name| (name, Align::Right));
        let mut table = Table::new([("WHAT", Align::Left)].into_iter().chain(columns).chain([("", Align::Left)]));
        for Count { what, expected, right } in &self.compared.counts {
            let verdict = if expected == right { "" } else { "differs" };
            table.row([*what, &expected.to_string(), &right.to_string(), verdict]);
        }
        table
    }

    fn json(&self) -> anyhow::Result<String> {
        let Self { compared, took, .. } = self;
        let report = Json {
            format: FORMAT,
            drilled: Timestamp::now(),
            version: env!("CARGO_PKG_VERSION"),
            dump: &self.uri,
            server: &self.server,
            is_right: compared.differences.is_empty(),
            is_part: self.is_part,
            seed: self.seed,
            bytes: self.bytes,
            counts: &compared.counts,
            differences: &compared.differences,
            uncounted: &compared.uncounted,
            left_out: self.left_out.as_deref(),
            seconds: Seconds {
                server: took.server.as_secs_f64(),
                load: took.load.as_secs_f64(),
                comparison: took.comparison.as_secs_f64(),
                whole: took.whole.as_secs_f64(),
            },
        };
        serde_json::to_string(&report).context("the report has no JSON form")
    }
}

/// What a myloader of 1.x says of the checksums in `metadata`: it warns, and ends with 0.
#[derive(Debug, Clone, Default)]
pub struct Mismatches(Arc<Mutex<Vec<String>>>);

impl Mismatches {
    /// Listens, and passes each line on: to standard error, since what was asked for goes to standard output.
    pub fn before(&self, next: OnLine) -> OnLine {
        let mismatches = self.clone();
        Arc::new(move |line, _| {
            if let Some(text) = mismatch(line) {
                let mut kept = mismatches.0.lock();
                if kept.len() < MISMATCHES_MAX {
                    kept.push(text);
                }
            }
            next(line, true);
        })
    }

    /// What was heard so far.
    pub fn heard(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// `** (myloader:7): WARNING **: 05:54:07.787: Schema index checksum mismatch found for shop.t: got 1, expecting 2`
/// (`checksum_template` in `checksum.c`).
fn mismatch(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let at = line.find(" mismatch found for ")?;
    let begin = line[..at].rfind(": ").map_or(0, |colon| colon + 2);
    Some(line[begin..].trim().chars().take(LENGTH_MAX).collect::<String>().escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mismatches_are_told_from_other_words() {
        let of = |line: &str| mismatch(line.as_bytes());
        let line = "** (myloader:7): WARNING **: 05:54:07.787: Schema index checksum mismatch found for shop.t: got 1, expecting 2";
        assert_eq!(of(line).as_deref(), Some("Schema index checksum mismatch found for shop.t: got 1, expecting 2"));
        assert_eq!(of("** Message: 05:54:07.787: Data checksum confirmed for shop.t"), None);
    }
}
