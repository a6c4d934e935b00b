//! `prune`: old dumps go by rules. Each series is counted on its own.
//!
//! Only whole dumps of this program are counted. What cannot be judged (no manifest, or a newer one) stays, and so does
//! what may be alive.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use super::{delete, list};
use crate::catalog::{self, FoundDump};
use crate::cli::PruneArgs;
use crate::commands::reach::{first_answer, reach};
use crate::exit_status::{Failure, Status};
use crate::model::manifest::ManifestHeader;
use crate::model::retention::{Reason, Rules, reasons_to_keep};
use crate::model::series::Series;
use crate::model::standing::Standing;
use crate::model::units::{ByteSize, human_duration};
use crate::removal::Removal;
use crate::report::{Align, Report, Table, escape};
use crate::s3::Store;
use crate::stop::Stop;

/// Removes what the rules do not keep.
pub async fn run(args: &PruneArgs, report: &Report, stop: &Stop) -> Status {
    prune(args, report, stop, Timestamp::now()).await.unwrap_or_else(|failure| super::fail(report, &failure))
}

async fn prune(args: &PruneArgs, report: &Report, stop: &Stop, now: Timestamp) -> Result<Status, Failure> {
    let store = reach(&args.connection, &args.bucket).await?;
    let mut dumps = tokio::select! {
        dumps = catalog::find(&store, &args.prefix, now) => first_answer(&store, dumps)?,
        signal = stop.wait() => return Ok(Status::Signal(signal)),
    };
    // A dump that lies at the prefix itself is not under it; it belongs to the directory above.
    dumps.retain(|dump| dump.prefix != args.prefix);
    dumps.retain(|dump| dump.is_of(args.series.as_ref()));
    let groups = decide(&dumps, args, now);
    tokio::select! {
        shown = show(&groups, report) => shown?,
        signal = stop.wait() => return Ok(Status::Signal(signal)),
    }
    let doomed: Vec<_> =
        groups.values().flatten().filter(|decided| decided.is_removed).map(|decided| decided.dump).collect();
    let bytes = ByteSize(doomed.iter().map(|dump| dump.bytes).sum()).human();
    let word = if args.dry_run { "would remove" } else { "removing" };
    info!("{word} {} of {} dumps ({bytes})", doomed.len(), dumps.len());
    if args.dry_run {
        return Ok(Status::Success);
    }
    store.wait_for(Instant::now(), delete::PATIENCE);
    remove_all(&store, &doomed, stop).await
}

/// A dump, and what becomes of it.
struct Decided<'a> {
    dump: &'a FoundDump,
    is_removed: bool,
    why: String,
}

/// Decides about every dump, series by series.
fn decide<'a>(dumps: &'a [FoundDump], args: &PruneArgs, now: Timestamp) -> BTreeMap<&'a Series, Vec<Decided<'a>>> {
    let rules = Rules {
        last: args.keep_last,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        within: args.keep_within,
    };
    let mut groups: BTreeMap<&Series, Vec<&FoundDump>> = BTreeMap::new();
    for dump in dumps {
        groups.entry(&dump.series).or_default().push(dump);
    }
    let decide = |(series, dumps)| (series, decide_in_one(dumps, rules, args.incomplete_older_than, now));
    groups.into_iter().map(decide).collect()
}

/// Copies of one dump, in another directory, take one place together: a rule that keeps one of them keeps all.
fn decide_in_one<'a>(
    dumps: Vec<&'a FoundDump>,
    rules: Rules,
    incomplete_older_than: Option<Duration>,
    now: Timestamp,
) -> Vec<Decided<'a>> {
    let complete = |dump: &'a FoundDump| {
        let started = dump.started().filter(|_| dump.standing.is_complete())?;
        Some((dump.header.as_ref().map(|header| header.dump_id.as_str())?, started))
    };
    let mut starts: Vec<Timestamp> = Vec::new();
    let mut places = HashMap::new();
    for (dump_id, started) in dumps.iter().filter_map(|dump| complete(dump)) {
        places.entry(dump_id).or_insert_with(|| {
            starts.push(started);
            starts.len() - 1
        });
    }
    let reasons = reasons_to_keep(&starts, rules, now);
    let decide = |dump| match complete(dump) {
        Some((dump_id, _)) => of_complete(dump, &reasons[places[dump_id]]),
        None => of_other(dump, incomplete_older_than, now),
    };
    dumps.into_iter().map(decide).collect()
}

fn of_complete<'a>(dump: &'a FoundDump, reasons: &[Reason]) -> Decided<'a> {
    let why = reasons.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", ");
    Decided {
        dump,
        is_removed: reasons.is_empty(),
        why: if reasons.is_empty() { "no rule keeps it".to_owned() } else { why },
    }
}

/// What is not a whole dump goes only by its age, and never while it may still be on its way.
fn of_other(dump: &FoundDump, older_than: Option<Duration>, now: Timestamp) -> Decided<'_> {
    let stays = |why: &str| Decided { dump, is_removed: false, why: format!("{}; {why}", dump.state()) };
    match dump.standing {
        Standing::Uploading => return stays("it may be alive"),
        Standing::NoManifest { .. } => return stays("it cannot be judged without one; use delete"),
        Standing::Unknown(_) => return stays("it cannot be judged"),
        _ => {}
    }
    let Some(limit) = older_than else { return stays("--incomplete-older-than removes such") };
    // Without a readable manifest the newest object is what is known of the dump's age.
    let age = dump.header.as_ref().map(|header| header.started).or(dump.newest);
    let age = age.map(|time| now.duration_since(time));
    let limit_text = human_duration(limit);
    let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
    match age {
        Some(age) if age > limit => {
            Decided { dump, is_removed: true, why: format!("{}; older than {limit_text}", dump.state()) }
        }
        _ => stays(&format!("not older than {limit_text}")),
    }
}

/// A table for each series. What happens comes first, and what may be long last.
async fn show(groups: &BTreeMap<&Series, Vec<Decided<'_>>>, report: &Report) -> anyhow::Result<()> {
    for (index, (series, decided)) in groups.iter().enumerate() {
        let removed = decided.iter().filter(|decided| decided.is_removed).count();
        let gap = if index > 0 { "\n" } else { "" };
        let series = escape(series.as_str());
        report.data(&format!("{gap}series '{series}': {removed} of {} dumps to be removed", decided.len())).await?;
        report.table(&table(decided)).await?;
    }
    Ok(())
}

fn table(decided: &[Decided<'_>]) -> Table {
    let mut table = Table::new([
        ("ACTION", Align::Left),
        ("START (UTC)", Align::Left),
        ("SIZE", Align::Right),
        ("PREFIX", Align::Left),
        ("WHY", Align::Left),
    ]);
    for Decided { dump, is_removed, why } in decided {
        table.row([
            if *is_removed { "remove" } else { "keep" }.to_owned(),
            dump.started().map_or_else(|| "-".to_owned(), |time| list::shown_start(dump, time)),
            ByteSize(dump.bytes).human(),
            list::shown_prefix(dump.prefix.as_str()),
            why.clone(),
        ]);
    }
    table
}

/// Removes them one after the other. One that fails does not keep the others.
async fn remove_all(store: &Store, doomed: &[&FoundDump], stop: &Stop) -> Result<Status, Failure> {
    let mut status = Status::Success;
    for (index, dump) in doomed.iter().enumerate() {
        if let Some(signal) = stop.asked() {
            return Ok(Status::Signal(signal));
        }
        if let Err(failure) = remove(store, dump, index == 0, stop).await {
            if matches!(failure.status, Status::Signal(_)) {
                return Err(failure);
            }
            warn!("{failure}");
            status = failure.status;
        }
    }
    Ok(status)
}

async fn remove(store: &Store, dump: &FoundDump, is_first: bool, stop: &Stop) -> Result<(), Failure> {
    let place = store.uri(&dump.prefix.directory());
    let removal = Removal::plan(store, &dump.prefix).await.map_err(Failure::failed)?;
    // A claim that was renewed since is another manifest, and of a dump that lives.
    let which =
        |header: Option<&ManifestHeader>| header.map(|header| (header.dump_id.clone(), header.state, header.renewed));
    if which(removal.header.as_ref()) != which(dump.header.as_ref()) {
        warn!("{place} has changed meanwhile and stays");
        return Ok(());
    }
    if removal.strangers.count > 0 {
        warn!("in {place} these are no files of a dump and stay: {}", removal.stranger_names());
    }
    if is_first && delete::keeps_old_versions(store, &removal).await {
        warn!(
            "the bucket keeps old versions: they stay, and so do their bytes, until a lifecycle rule or you remove them"
        );
    }
    let removed = removal.carry_out(store, || stop.asked()).await.map_err(|error| delete::broken_off(error, &place))?;
    delete::outcome(&removed, &place)
}
