//! Where a stream goes, and what its claim says.

use jiff::Timestamp;
use tracing::info;

use crate::claim::{self, Claimed, Known, Occupied};
use crate::cli::PipeArgs;
use crate::commands::upload::place::IN_ONE_SECOND_MAX;
use crate::exit_status::Failure;
use crate::hint::find;
use crate::model::dump_kind::DumpKind;
use crate::model::identity::DumpIdentity;
use crate::model::manifest::{ClosedBy, DumpStateWord, DumperExit, ManifestHeader};
use crate::model::object_key::{DEFAULT_PREFIX, Prefix};
use crate::model::series::Series;
use crate::platform;
use crate::s3::Store;

/// What the claim says, and the place that the options name.
pub fn header_and_place(args: &PipeArgs) -> Result<(ManifestHeader, Prefix), Failure> {
    let (host, now) = (platform::host_name(), Timestamp::now());
    let prefix = args.destination.prefix.expand(&host, now).map_err(Failure::usage)?;
    let mut header = header(args, host, now);
    header.series = Some(series(args, &header, &prefix));
    Ok((header, prefix))
}

/// What the stream is one of. Where all kinds of dumps of a host lie side by side its name tells.
fn series(args: &PipeArgs, header: &ManifestHeader, prefix: &Prefix) -> String {
    let template = &args.destination.prefix;
    if let Some(series) = &args.destination.series {
        return series.to_string();
    }
    let fixed = template.series(&header.identity.host).unwrap_or_else(|| Series::of_place(prefix));
    match template.to_string() == DEFAULT_PREFIX {
        true => format!("{fixed}/{}", args.stream.name),
        false => fixed.to_string(),
    }
}

fn header(args: &PipeArgs, host: String, now: Timestamp) -> ManifestHeader {
    let process = std::process::id();
    let identity =
        DumpIdentity { host, started: now.to_string(), inode: process.into(), born: Some(now.as_nanosecond()) };
    ManifestHeader {
        format: DumpKind::Stream.format(),
        kind: DumpKind::Stream,
        name: Some(args.stream.name.clone()),
        state: DumpStateWord::Uploading,
        reason: None,
        dump_id: identity.id(),
        series: None,
        started: now,
        finished: None,
        dumper_finished: None,
        dumper_version: None,
        left_out: None,
        dumper_exit: DumperExit::NOT_SEEN,
        full_disk: None,
        // Of no directory: and so that no other run takes this one for its own that has died.
        directory: format!("process {process} at {now}"),
        identity,
        closed_by: ClosedBy::End,
        seen_alive: true,
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

/// Claims the place, or one beside it where another dump of the same second has that.
pub async fn claim_place(
    args: &PipeArgs,
    store: &Store,
    header: &ManifestHeader,
    prefix: Prefix,
) -> Result<Claimed, Failure> {
    let may_move = args.destination.prefix.tells_seconds();
    let mut others = (2..=IN_ONE_SECOND_MAX).filter(|_| may_move).filter_map(|n| prefix.beside(n).ok());
    let mut place = prefix.clone();
    loop {
        let failure = match claim::claim(store, &args.destination, &place, header, Known::default()).await {
            Ok(claimed) => {
                claimed.claim.check_asked()?;
                return Ok(claimed);
            }
            Err(failure) => failure,
        };
        match others.next() {
            Some(other) if find::<Occupied>(&failure.error).is_some_and(|occupied| occupied.is_claimed) => {
                info!("{}, by a dump of the same second: this one goes to {other}", failure.error);
                place = other;
            }
            _ => return Err(failure),
        }
    }
}
