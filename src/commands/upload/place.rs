//! Where a dump goes, what its claim says, and since when files are its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::anyhow;
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use tracing::info;

use super::start::Found;
use crate::aside::aside;
use crate::claim::{self, Claimed, Known, Occupied};
use crate::cli::{DestinationArgs, UploadArgs};
use crate::dump_dir::{DumpDir, identity_of};
use crate::dumper::{Life, LivingDump};
use crate::exit_status::Failure;
use crate::hint::{find, hinted};
use crate::model::dump_kind::DumpKind;
use crate::model::file_name::FileName;
use crate::model::identity::WIDEST_ZONE;
use crate::model::manifest::{DumpStateWord, DumperExit, FORMAT_OF_EQUAL_PARTS, ManifestHeader};
use crate::model::object_key::Prefix;
use crate::model::record::{Kind, Place, Record};
use crate::model::series::Series;
use crate::model::state::Phase;
use crate::recorder::Recorder;
use crate::s3::{Store, StoreError};
use crate::scan::{Held, Look};

/// So much older than its first line (in nanoseconds) a `metadata.partial` is of an earlier dump.
const TAKEN_OVER: i128 = 300 * 1_000_000_000;

/// So many dumps of one second find a place by themselves.
pub const IN_ONE_SECOND_MAX: u32 = 9;

/// Where a dump goes, and what its claim says: the place that the options name, or the one beside it that an earlier run
/// chose because another dump of the same second had that.
pub fn place(args: &UploadArgs, store: &Store, found: &Found) -> Result<(Prefix, ManifestHeader), Failure> {
    let started = started_at(&found.dump);
    let prefix = args.destination.prefix.expand(&found.dump.sighted.identity.host, started).map_err(Failure::usage)?;
    let chosen = |prefix: &Prefix| is_chosen(store, &found.dump, prefix);
    let mut beside = (2..=IN_ONE_SECOND_MAX).filter_map(|n| prefix.beside(n).ok());
    let beside = if args.destination.prefix.tells_seconds() { beside.find(chosen) } else { None };
    let prefix = beside.unwrap_or(prefix);
    let mut header = header(&found.dump, &found.directory, started, found.seen_alive);
    header.series = Some(series(args, &header, &prefix).to_string());
    if let Some(record) = &found.dump.sighted.record {
        record.dumper.tell(&mut header);
    }
    Ok((prefix, header))
}

/// Whether an earlier run of this dump chose that place.
fn is_chosen(store: &Store, dump: &LivingDump, prefix: &Prefix) -> bool {
    dump.sighted.record.as_ref().is_some_and(|record| record.claimed && record.to.is(&place_of(store, prefix)))
}

/// What the dump is one of.
fn series(args: &UploadArgs, header: &ManifestHeader, prefix: &Prefix) -> Series {
    let DestinationArgs { series, prefix: template, .. } = &args.destination;
    let of_template = || template.series(&header.identity.host);
    series.clone().or_else(of_template).unwrap_or_else(|| Series::of_place(prefix))
}

/// A prefix as the record has it.
pub fn place_of(store: &Store, prefix: &Prefix) -> Place {
    Place { endpoint: store.endpoint(), uri: store.uri(&prefix.directory()) }
}

/// The record of a dump: an earlier run's, or a new one of that kind.
pub fn recorder_of(kind: Kind, dump: &LivingDump, header: &ManifestHeader, here: Place) -> std::io::Result<Recorder> {
    let record = dump.sighted.record.clone().unwrap_or_else(|| Record::new(kind, header, here));
    Ok(Recorder::new(dump.sighted.lead.file.try_clone()?, record))
}

/// What an earlier run left to be accounted for, if there was one. The files of a dump belong into one place.
pub async fn settled(
    recorder: &Arc<Recorder>,
    directory: &Arc<DumpDir>,
    here: &Place,
) -> Result<Option<Record>, Failure> {
    let (settles, directory) = (Arc::clone(recorder), Arc::clone(directory));
    let is_there = move |name: &FileName| directory.identity(name.as_str()).is_ok();
    let record = aside(move || settles.settle(is_there)).await;
    if record.binds() && !record.to.is(here) {
        let error = anyhow!(
            "{} files of this dump are in the bucket alone by now{}, at {}; the rest cannot go to {here}",
            record.given.files,
            if record.only_copies.is_empty() { "" } else { ", and parts of others" },
            record.to
        );
        let hint = "run the same command with the --endpoint-url, --bucket and --prefix of the earlier run";
        return Err(Failure::usage(hinted(error, hint)));
    }
    Ok(Some(record).filter(|record| record.binds() || record.seen.files > 0))
}

/// Files that were last changed before this belong to something else than this dump: before the birth of
/// `metadata.partial`, or, where 1.x with `--dirty` took an old one over, before the start that its last line tells. Of a
/// dump that was never seen alive the birth counts only where it is the dump's and not a copy's.
pub async fn not_before(args: &UploadArgs, dump: &LivingDump, header: &ManifestHeader) -> Option<i128> {
    if args.dump.include_older {
        return None;
    }
    if !header.seen_alive {
        return header.identity.began_at_rest(started_local(dump), &TimeZone::system(), lead_changed(dump).await);
    }
    let line = header.started.as_nanosecond();
    Some(match header.identity.born {
        Some(born) if line - born > TAKEN_OVER => line,
        Some(born) => born,
        // Without a birth mydumper's zone is a guess, too; a file of last night is older still.
        None => line - WIDEST_ZONE,
    })
}

/// What somebody wrote down before this tells how an earlier dump ended.
pub async fn exits_not_before(dump: &LivingDump, header: &ManifestHeader) -> SystemTime {
    let since = match header.seen_alive {
        true => header.identity.born.unwrap_or(header.started.as_nanosecond()),
        false => header.identity.exits_at_rest(started_local(dump), &TimeZone::system(), lead_changed(dump).await),
    };
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(since).unwrap_or_default())
}

async fn lead_changed(dump: &LivingDump) -> i128 {
    let lead = Arc::clone(&dump.sighted.lead);
    aside(move || identity_of(&lead.file).map_or(0, |lead| lead.modified)).await.into()
}

/// How the directory of a dump is looked at.
pub async fn look_at(
    args: &UploadArgs,
    dump: &LivingDump,
    header: &ManifestHeader,
    prefix: &Prefix,
    phase: Phase,
) -> Look {
    Look {
        phase,
        closed_by: dump.closed_by,
        lead: dump.sighted.lead.inode,
        not_before: not_before(args, dump, header).await,
        prefix: prefix.clone(),
        held: Held::default(),
    }
}

/// The dump directory as the manifest has it.
pub fn directory_of(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_default().display().to_string()
}

fn started_local(dump: &LivingDump) -> Option<civil::DateTime> {
    let local = dump.sighted.metadata.started_local()?;
    let date = civil::Date::new(local.year.cast_signed(), local.month.cast_signed(), local.day.cast_signed()).ok()?;
    let time = civil::Time::new(local.hour.cast_signed(), local.minute.cast_signed(), local.second.cast_signed(), 0);
    Some(date.to_datetime(time.ok()?))
}

fn started_at(dump: &LivingDump) -> Timestamp {
    dump.sighted.identity.started_at(started_local(dump), &TimeZone::system(), Timestamp::now())
}

fn header(dump: &LivingDump, directory: &DumpDir, started: Timestamp, seen_alive: bool) -> ManifestHeader {
    let identity = dump.sighted.identity.clone();
    ManifestHeader {
        format: FORMAT_OF_EQUAL_PARTS,
        kind: DumpKind::Directory,
        name: None,
        state: DumpStateWord::Uploading,
        reason: None,
        dump_id: identity.id(),
        series: None,
        identity,
        started,
        finished: None,
        dumper_finished: None,
        dumper_version: dump.dumper_version.clone(),
        left_out: dump.left_out.clone(),
        dumper_exit: DumperExit::NOT_SEEN,
        full_disk: None,
        directory: directory_of(directory.path()),
        closed_by: dump.closed_by,
        seen_alive,
        told_to_stop: false,
        renewed: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        total_files: 0,
        total_bytes: 0,
        sources: Vec::new(),
        metadata_text: None,
        withdrawn: Vec::new(),
    }
}

/// A dump that is to have a place of its own.
pub struct Claiming<'a> {
    /// The settings.
    pub args: &'a UploadArgs,
    /// The store.
    pub store: &'a Store,
    /// The place to begin with.
    pub prefix: Prefix,
    /// What the claim says.
    pub header: &'a ManifestHeader,
    /// So many of its files were removed here after their upload to that place.
    pub given_up: u64,
    /// Whether it is being written, or was by our child: then it is no copy of a dump that has its place already.
    pub is_original: bool,
}

impl Claiming<'_> {
    /// Claims a place. While the dump lives an outage is waited out; after its end as long as any other.
    ///
    /// A dump that began in the same second as another goes beside it: two jobs of one minute get the same prefix.
    pub async fn claim(self, dump: &mut LivingDump, directory: &Arc<DumpDir>) -> Result<Claimed, Failure> {
        let Self { args, store, .. } = self;
        let mut known = Known { is_ours: is_chosen(store, dump, &self.prefix), given_up: self.given_up };
        let may_move = self.is_original && !known.is_ours && args.destination.prefix.tells_seconds();
        let mut others = (2..=IN_ONE_SECOND_MAX).filter(|_| may_move).filter_map(|n| self.prefix.beside(n).ok());
        let mut prefix = self.prefix.clone();
        loop {
            store.wait_for(Instant::now(), args.transfer.retry_for);
            let failure = match claim::claim(store, &args.destination, &prefix, self.header, known).await {
                Ok(claimed) => return Ok(claimed),
                Err(failure) => failure,
            };
            if find::<Occupied>(&failure.error).is_some_and(|occupied| occupied.is_claimed)
                && let Some(other) = others.next()
            {
                info!("{}, by a dump of the same second: this one goes to {other}", failure.error);
                (prefix, known) = (other, Known::default());
                continue;
            }
            let is_outage = find::<StoreError>(&failure.error).is_some_and(StoreError::is_outage);
            let lives = matches!(dump.probe(directory).await, Life::Alive { known: true });
            if !is_outage || !lives {
                return Err(failure);
            }
        }
    }
}
