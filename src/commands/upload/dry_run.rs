//! `--dry-run`: what would be done, from the same looks and decisions as the upload. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;

use super::no_disk;
use super::place::{self, not_before};
use super::start::{self, Found};
use super::store_check;
use crate::aside::aside;
use crate::bucket_dump::Listing;
use crate::bucket_manifest::read_manifest;
use crate::claim;
use crate::cli::UploadArgs;
use crate::dumper::Life;
use crate::exit_status::Failure;
use crate::model::file_name::{METADATA, METADATA_PARTIAL};
use crate::model::manifest::ClosedBy;
use crate::model::record::Kind;
use crate::model::state::{DumpState, Phase, Writers};
use crate::model::units::ByteSize;
use crate::report::{Align, Report, Table};
use crate::s3::Store;
use crate::scan::{Held, Look};
use crate::trial::Right;

/// Shows identity, verdict, prefix, method, rights, and the fate of each file.
pub async fn run(args: &UploadArgs, report: &Report) -> Result<(), Failure> {
    let (store, rights) = store_check::connect(args).await?;
    let mut facts = Table::new([("fact", Align::Left), ("value", Align::Left)]);
    show_rights(&mut facts, &rights);
    if args.without.no_disk {
        facts.row(["memory", &no_disk::in_words(no_disk::plan(args).await?)]);
    }
    let found = start::find_now(args).await.map_err(Failure::usage)?;
    let Some(mut found) = found else {
        facts.row(["dump", "none in the directory now"]);
        facts.row(["prefix", &args.destination.prefix.to_string()]);
        report.table(&facts).await?;
        return Ok(());
    };
    let life = found.dump.probe(&found.directory).await;
    let (prefix, header) = place::place(args, &store, &found)?;
    facts.row(["dump", &format!("{}, started {}", header.dump_id, header.identity.started)]);
    let directory = Arc::clone(&found.directory);
    let (is_renamed, why_not_removable) = aside(move || {
        let is_there = |name: &str| directory.identity(name).is_ok();
        (is_there(METADATA) && !is_there(METADATA_PARTIAL), directory.why_not_removable(METADATA_PARTIAL))
    })
    .await;
    facts.row(["verdict", verdict(is_renamed, life)]);
    facts.row(["destination", &store.uri(&prefix.directory())]);
    facts.row(["prefix", &occupation(args, &store, &prefix, &header).await?]);
    let method = match found.dump.closed_by {
        ClosedBy::Lease => "leases",
        ClosedBy::Proc => "/proc",
        ClosedBy::End => "not before the dump has ended",
    };
    facts.row(["closed files known by", &format!("{method}: {}", found.dump.closed_by_reason)]);
    let removal = match why_not_removable {
        _ if args.dump.keep => "kept".to_owned(),
        None => "removed after their upload".to_owned(),
        Some(why) => format!("cannot be removed: {why}"),
    };
    facts.row(["local files", &removal]);
    report.table(&facts).await?;
    report.table(&fates(args, &found, prefix, &header, is_renamed).await?).await?;
    Ok(())
}

fn show_rights(facts: &mut Table, rights: &[Right]) {
    facts.row(["right to upload", "yes"]);
    for Right { what, missing, consequence } in rights {
        let found = missing.as_ref().map_or("yes".to_owned(), |why| format!("no: {consequence} ({why})"));
        facts.row([format!("right to {what}"), found]);
    }
    facts.row(["right to delete objects", "not tried"]);
}

fn verdict(is_renamed: bool, life: Life) -> &'static str {
    match life {
        _ if is_renamed => "ended",
        Life::Alive { known: true } => "running",
        Life::Alive { known: false } => "unknown: nothing tells whether it runs",
        Life::Silent | Life::Ended(_) => "died, unless it is just being renamed",
    }
}

async fn occupation(
    args: &UploadArgs,
    store: &Store,
    prefix: &crate::model::object_key::Prefix,
    ours: &crate::model::manifest::ManifestHeader,
) -> Result<String, Failure> {
    if args.destination.write_only {
        return Ok("not looked at: the store may only be written to".to_owned());
    }
    let listing = Listing::of(store, prefix).await.context("cannot list the prefix")?;
    if listing.is_empty() {
        return Ok("free".to_owned());
    }
    let manifest = read_manifest(store, listing.manifest.as_ref(), drop).await.context("cannot read the manifest")?;
    if let Some(Ok(header)) = manifest
        && header.identity == ours.identity
    {
        return Ok("ours, from an earlier run".to_owned());
    }
    let me = (ours.identity.host.as_str(), ours.directory.as_str());
    Ok(match claim::may_clear(store, &args.destination, prefix, &listing, me).await {
        Ok(()) => format!("occupied by {} objects, which would be deleted", listing.len()),
        Err(failure) => format!("occupied: {:#}", failure.error),
    })
}

async fn fates(
    args: &UploadArgs,
    found: &Found,
    prefix: crate::model::object_key::Prefix,
    header: &crate::model::manifest::ManifestHeader,
    is_renamed: bool,
) -> anyhow::Result<Table> {
    let look = Look {
        phase: if is_renamed { Phase::Ended } else { Phase::Writing },
        closed_by: found.dump.closed_by,
        lead: found.dump.sighted.lead.inode,
        not_before: not_before(args, &found.dump, header).await,
        prefix,
        held: Held::default(),
    };
    let state = Mutex::new(DumpState::new(Duration::ZERO));
    let directory = Arc::clone(&found.directory);
    let looked = aside(move || look.at(&directory, &state)).await;
    let (scan, strangers) = looked.context("cannot look at the dump directory")?;
    let is_of_streams = found.dump.sighted.record.as_ref().is_some_and(|record| record.kind == Kind::Streams);
    let mut files: Vec<_> = scan
        .probes
        .iter()
        .map(|(name, probe)| {
            let fate = match probe.writers {
                _ if name.is_metadata() => "uploaded last",
                _ if is_of_streams => "a name without content: never uploaded",
                Writers::Some => "open: waits",
                Writers::None | Writers::Ended => "closed: uploaded when it has settled",
            };
            (name.to_string(), ByteSize(probe.identity.size).human(), fate.to_owned())
        })
        .collect();
    files.extend(
        strangers
            .into_iter()
            .map(|(name, why)| (name.to_string_lossy().into_owned(), String::new(), format!("not uploaded: {why}"))),
    );
    files.sort();
    let mut table = Table::new([("file", Align::Left), ("size", Align::Right), ("fate", Align::Left)]);
    for (name, size, fate) in files {
        table.row([name, size, fate]);
    }
    Ok(table)
}
