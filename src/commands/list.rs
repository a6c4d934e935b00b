//! `list`: the dumps in the bucket, one dump's files, and whether the newest complete dump is young enough.
//!
//! `--json` prints one document on stdout: `dumps` has what the table has, with full precision and nothing cut, and
//! with `--max-age` `is_recent` and each of the `series`, too; with `--files` it is one `dump` and its `files`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::anyhow;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tracing::info;

use crate::catalog::{self, FoundDump};
use crate::cli::ListArgs;
use crate::commands::reach::{first_answer, reach};
use crate::exit_status::{Failure, Status};
use crate::model::left_out::{LeftOut, in_words};
use crate::model::series::Series;
use crate::model::standing::{Standing, StandingWord};
use crate::model::units::{ByteSize, human_duration};
use crate::report::{Align, Report, Table, escape};
use crate::s3::Store;
use crate::stop::Stop;

mod files;

/// Databases that a table's row names; `--json` has all of them.
const DATABASES_MAX: usize = 4;

/// Lists what was asked for.
pub async fn run(args: &ListArgs, report: &Report, stop: &Stop) -> Status {
    let listed = tokio::select! {
        listed = list(args, report, Timestamp::now()) => listed,
        signal = stop.wait() => return Status::Signal(signal),
    };
    listed.unwrap_or_else(|failure| super::fail(report, &failure))
}

async fn list(args: &ListArgs, report: &Report, now: Timestamp) -> Result<Status, Failure> {
    let store = reach(&args.connection, &args.bucket).await?;
    if args.files {
        return files::list(&store, args, report, now).await;
    }
    let mut dumps = first_answer(&store, catalog::find(&store, &args.prefix, now).await)?;
    dumps.retain(|dump| dump.is_of(args.series.as_ref()));
    let place = store.uri(&args.prefix.directory());
    let ages = args.max_age.map(|max_age| Ages::of(&dumps, max_age, now));
    if args.json {
        let dumps = dumps.iter().map(DumpJson::from).collect();
        let ages = ages.as_ref().map(AgesJson::from);
        report.data(&to_json(&ListJson { bucket: store.bucket(), prefix: args.prefix.as_str(), ages, dumps })?).await?;
    } else if let Some(ages) = &ages {
        // A check in cron's way: nothing to say when all is well.
        let shown = ages.of_series.iter().filter(|age| !(args.output.quiet && age.is_recent));
        for age in shown {
            report.data(&age.line(&store, ages.max)).await?;
        }
        if ages.of_series.is_empty() {
            let limit = human_duration(ages.max);
            report.data(&format!("no dump in {}, and one at most {limit} old was expected", escape(&place))).await?;
        }
    } else if dumps.is_empty() {
        info!("there is no dump in {place}");
    } else {
        report.table(&table(&dumps)).await?;
    }
    Ok(ages.filter(|ages| !ages.are_recent()).map_or(Status::Success, |_| Status::Difference))
}

fn table(dumps: &[FoundDump]) -> Table {
    let mut table = Table::new([
        ("PREFIX", Align::Left),
        ("START (UTC)", Align::Left),
        ("DURATION", Align::Right),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("DATABASES", Align::Left),
        ("STATE", Align::Left),
    ]);
    for dump in dumps {
        table.row([
            shown_prefix(dump.prefix.as_str()),
            dump.started().map_or_else(|| "-".to_owned(), |time| shown_start(dump, time)),
            dump.duration().map_or_else(|| "-".to_owned(), human_duration),
            dump.files.to_string(),
            ByteSize(dump.bytes).human(),
            shown_databases(dump),
            shown_state(dump),
        ]);
    }
    table
}

/// With what a whole dump lacks all the same.
fn shown_state(dump: &FoundDump) -> String {
    let left_out = dump.header.as_ref().and_then(|header| header.left_out.as_deref()).unwrap_or_default();
    match dump.standing.is_complete() && !left_out.is_empty() {
        true => format!("{} (without {})", dump.state(), in_words(left_out)),
        false => dump.state(),
    }
}

/// As it is typed behind `--prefix`, where it is nothing.
pub(super) fn shown_prefix(prefix: &str) -> String {
    if prefix.is_empty() { "''".to_owned() } else { prefix.to_owned() }
}

/// `~` where it is not written anywhere: then it is when the first object came.
pub(super) fn shown_start(dump: &FoundDump, time: Timestamp) -> String {
    let mark = if dump.header.is_some() { "" } else { "~" };
    format!("{mark}{}", shown_time(time))
}

pub(super) fn shown_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn shown_databases(dump: &FoundDump) -> String {
    let named: Vec<_> = dump.databases.iter().take(DATABASES_MAX).map(String::as_str).collect();
    match dump.databases.len().saturating_sub(DATABASES_MAX) {
        0 if named.is_empty() => "-".to_owned(),
        0 => named.join(","),
        more => format!("{} and {more} more", named.join(",")),
    }
}

/// How old the newest complete dump of each series is, and whether that will do.
struct Ages<'a> {
    max: Duration,
    of_series: Vec<Age<'a>>,
}

struct Age<'a> {
    series: &'a Series,
    /// The newest complete dump, and its age.
    newest: Option<(&'a FoundDump, SignedDuration)>,
    is_recent: bool,
}

impl<'a> Ages<'a> {
    /// Counted from the dumps' starts: what happened later is not in them. Of what has no manifest nobody expects a next.
    fn of(dumps: &'a [FoundDump], max: Duration, now: Timestamp) -> Self {
        let mut newest: BTreeMap<&Series, Option<(&FoundDump, SignedDuration)>> = BTreeMap::new();
        // The oldest comes first.
        for dump in dumps.iter().filter(|dump| !matches!(dump.standing, Standing::NoManifest { .. })) {
            let of_series = newest.entry(&dump.series).or_default();
            if let Some(started) = dump.started().filter(|_| dump.counts()) {
                *of_series = Some((dump, now.duration_since(started)));
            }
        }
        let max_age = SignedDuration::try_from(max).unwrap_or(SignedDuration::MAX);
        let age = |(series, newest): (_, Option<(_, SignedDuration)>)| {
            let is_recent = newest.is_some_and(|(_, age)| age <= max_age);
            Age { series, newest, is_recent }
        };
        Self { max, of_series: newest.into_iter().map(age).collect() }
    }

    /// All of them, and there is one.
    fn are_recent(&self) -> bool {
        !self.of_series.is_empty() && self.of_series.iter().all(|age| age.is_recent)
    }
}

impl Age<'_> {
    fn line(&self, store: &Store, max: Duration) -> String {
        let limit = human_duration(max);
        let series = escape(self.series.as_str());
        let Some((dump, age)) = self.newest else {
            return format!("series '{series}': no complete dump, and one at most {limit} old was expected");
        };
        let age = human_duration(age.try_into().unwrap_or_default());
        let verdict = if self.is_recent { "is within" } else { "is older than" };
        let uri = store.uri(&dump.prefix.directory());
        format!(
            "series '{series}': the newest complete dump, {}, began {age} ago, which {verdict} {limit}",
            escape(&uri)
        )
    }
}

#[derive(Serialize)]
struct ListJson<'a> {
    bucket: &'a str,
    prefix: &'a str,
    #[serde(flatten)]
    ages: Option<AgesJson<'a>>,
    dumps: Vec<DumpJson<'a>>,
}

#[derive(Serialize)]
struct AgesJson<'a> {
    max_age_seconds: f64,
    /// Whether all series are.
    is_recent: bool,
    series: Vec<AgeJson<'a>>,
}

#[derive(Serialize)]
struct AgeJson<'a> {
    series: &'a str,
    is_recent: bool,
    /// Its prefix.
    newest_complete: Option<&'a str>,
    age_seconds: Option<f64>,
}

impl<'a> From<&Ages<'a>> for AgesJson<'a> {
    fn from(ages: &Ages<'a>) -> Self {
        let of_series = |age: &Age<'a>| AgeJson {
            series: age.series.as_str(),
            is_recent: age.is_recent,
            newest_complete: age.newest.map(|(dump, _)| dump.prefix.as_str()),
            age_seconds: age.newest.map(|(_, age)| age.as_secs_f64()),
        };
        Self {
            max_age_seconds: ages.max.as_secs_f64(),
            is_recent: ages.are_recent(),
            series: ages.of_series.iter().map(of_series).collect(),
        }
    }
}

/// A dump in `--json`.
#[derive(Serialize)]
struct DumpJson<'a> {
    prefix: &'a str,
    series: &'a str,
    state: StandingWord,
    /// Why it is not whole.
    reason: Option<&'a str>,
    started: Option<Timestamp>,
    /// Whether that is only when the oldest object was stored.
    started_is_estimate: bool,
    /// Whether a clock was wrong: such a dump counts nowhere as the newest.
    started_in_future: bool,
    finished: Option<Timestamp>,
    duration_seconds: Option<f64>,
    files: u64,
    bytes: u64,
    databases: Vec<&'a str>,
    newest_object: Option<Timestamp>,
    host: Option<&'a str>,
    dumper_version: Option<&'a str>,
    /// mydumper's exit status, or the signal that ended it, where it was seen.
    dumper_exit: Option<String>,
    /// What mydumper was not asked for; `null` where that is not known.
    left_out: Option<&'a [LeftOut]>,
}

impl<'a> From<&'a FoundDump> for DumpJson<'a> {
    fn from(dump: &'a FoundDump) -> Self {
        let header = dump.header.as_ref();
        Self {
            prefix: dump.prefix.as_str(),
            series: dump.series.as_str(),
            state: dump.standing.word(),
            reason: dump.standing.reason(),
            started: dump.started(),
            started_is_estimate: header.is_none(),
            started_in_future: dump.is_future,
            finished: header.and_then(|header| header.finished),
            duration_seconds: dump.duration().map(|duration| duration.as_secs_f64()),
            files: dump.files,
            bytes: dump.bytes,
            databases: dump.databases.iter().map(String::as_str).collect(),
            newest_object: dump.newest,
            host: header.map(|header| header.identity.host.as_str()),
            dumper_version: header.and_then(|header| header.dumper_version.as_deref()),
            dumper_exit: header.map(|header| header.dumper_exit.to_string()),
            left_out: header.and_then(|header| header.left_out.as_deref()),
        }
    }
}

fn to_json(document: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(document).map_err(|error| Failure::failed(anyhow!("cannot write JSON: {error}")))
}
