//! A dump back out of the bucket: each file is proved before it appears, `metadata` comes last.

mod stdout;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::choose::chosen;
use super::reach::{first_answer, reach, stopped};
use crate::bucket_dump::Listing;
use crate::cli::RestoreArgs;
use crate::exit_status::{Failure, Status};
use crate::hasher::Hasher;
use crate::hint::hinted;
use crate::model::object_key::Prefix;
use crate::model::units::{ByteSize, Rate, first_few, human_duration};
use crate::report::Report;
use crate::retrieval::NAMED_MAX;
use crate::retrieval::bring::{self, Bring, Proved};
use crate::retrieval::directory::{Local, RestoreDir};
use crate::retrieval::myloader;
use crate::retrieval::plan::{Plan, Selection, Wanted};
use crate::s3::{Store, StoreError};
use crate::stop::Stop;

/// Restores a dump and says how to load it.
pub async fn run(args: &RestoreArgs, report: &Report, stop: &Stop) -> Status {
    let result = tokio::select! {
        result = restore_or_write(args, report) => result,
        signal = stop.wait() => Err(stopped(signal, "run the same command again: what has arrived is not fetched again")),
    };
    result.unwrap_or_else(|failure| super::fail(report, &failure))
}

async fn restore_or_write(args: &RestoreArgs, report: &Report) -> Result<Status, Failure> {
    match &args.dir {
        Some(directory) if !args.stdout => restore(args, directory, report).await,
        _ => stdout::restore(args, report).await,
    }
}

/// The dump that is meant, and what is to be fetched of it.
async fn planned(args: &RestoreArgs) -> Result<(Store, Prefix, Plan), Failure> {
    let store = reach(&args.connection, &args.dump.bucket).await?;
    let prefix = chosen(&args.dump, &store).await?;
    let listing = first_answer(&store, Listing::of(&store, &prefix).await)?;
    let selection = Selection { tables: &args.tables, incomplete: args.incomplete, by_real_names: false };
    let plan = Plan::make(&selection, &store, &prefix, listing).await?;
    Ok((store, prefix, plan))
}

async fn restore(args: &RestoreArgs, directory: &Path, report: &Report) -> Result<Status, Failure> {
    let began = Instant::now();
    let (store, prefix, plan) = planned(args).await?;
    let path = directory.to_owned();
    // On a thread of its own: what a killed run left behind may be large.
    let opened = tokio::task::spawn_blocking(move || RestoreDir::open(&path)).await.map_err(Failure::failed)?;
    let opened = opened.map_err(Failure::usage)?;
    let bring = Bring {
        store: &store,
        prefix: &prefix,
        directory: &opened,
        workers: args.workers,
        hasher: Hasher::new(args.workers),
        requests: Semaphore::new(args.workers),
        progress: None,
    };
    let sorted = sort_out(args, &plan, &bring).await?;
    check_space(&opened, &sorted.fetch)?;
    plan.check_archived(&store, &prefix, &sorted.fetch, args.workers).await?;

    let outcome = bring_all(bring, args, report, &plan, &sorted).await?;
    let bytes: u64 = sorted.fetch.iter().map(|wanted| wanted.listed.size).sum();
    let took = began.elapsed();
    info!(
        "{} files fetched from {} ({} in {}, {}), {} were there already",
        sorted.fetch.len(),
        store.uri(&prefix.directory()),
        ByteSize(bytes).human(),
        human_duration(took),
        Rate::of(bytes, took).human(),
        sorted.kept,
    );
    if let Some(name) = outcome.unproved.first() {
        let count = outcome.unproved.len();
        warn!(
            file = name.as_str(),
            "{count} files have no hash to compare with, in the bucket or the manifest: only their size is proved"
        );
    }
    if !plan.is_stream() {
        report.data(&myloader::command_line(directory)).await?;
        myloader::warn_of_generations(plan.generation()).await;
    }
    plan.conclude()
}

/// What is to be done with each wanted file.
struct Sorted<'a> {
    fetch: Vec<&'a Wanted>,
    kept: usize,
}

/// Compares what stands in the directory with what is wanted. Nothing was changed yet when this refuses.
async fn sort_out<'a>(args: &RestoreArgs, plan: &'a Plan, bring: &Bring<'_>) -> Result<Sorted<'a>, Failure> {
    bring.directory.check_strangers(plan, args.overwrite).map_err(Failure::usage)?;
    let looks = futures_util::stream::iter(&plan.wanted).map(async |wanted| (wanted, bring.look(wanted).await));
    let mut looks = Box::pin(looks.buffer_unordered(args.workers));
    let (mut fetch, mut kept, mut different) = (Vec::new(), Vec::new(), Vec::new());
    while let Some((wanted, local)) = looks.next().await {
        match local.map_err(|error| out_of_reach(&error))? {
            Local::Absent => fetch.push(wanted),
            Local::Right => kept.push(wanted),
            Local::Different(why) => {
                different.push(format!("'{}' {why}", wanted.listed.name));
                fetch.push(wanted);
            }
            Local::Unfit(why) => {
                return Err(Failure::usage(anyhow!(
                    "'{}' in '{}' {why}",
                    wanted.listed.name,
                    bring.directory.path().display()
                )));
            }
        }
    }
    if !different.is_empty() && !args.overwrite {
        different.sort();
        let error = anyhow!(
            "'{}' holds other files of the same names: {}",
            bring.directory.path().display(),
            first_few(&different, NAMED_MAX)
        );
        return Err(Failure::usage(hinted(error, "choose an empty directory, or replace them with --overwrite")));
    }
    // It says that all is there, so it is not there while something is missing. It is small.
    if !fetch.is_empty()
        && let Some(at) = kept.iter().position(|wanted| wanted.listed.name.is_metadata())
    {
        fetch.push(kept.swap_remove(at));
    }
    // Large ones first, so that the last one is not a large one.
    fetch.sort_by_key(|wanted| std::cmp::Reverse(wanted.listed.size));
    Ok(Sorted { fetch, kept: kept.len() })
}

fn check_space(directory: &RestoreDir, fetch: &[&Wanted]) -> Result<(), Failure> {
    let needed: u64 = fetch.iter().map(|wanted| wanted.listed.size).sum();
    let free = directory.free_space().map_err(|error| Failure::failed(anyhow!(error)))?;
    if needed <= free {
        return Ok(());
    }
    let error = anyhow!(
        "'{}' has {} free, and {} are needed",
        directory.path().display(),
        ByteSize(free).human(),
        ByteSize(needed).human()
    );
    Err(Failure::usage(hinted(error, "free space, choose another --dir, or take fewer tables with --tables")))
}

struct BroughtAll {
    /// Files whose bytes nothing could prove.
    unproved: Vec<String>,
}

/// Fetches the files side by side, and `metadata` when all others stand on the disk.
async fn bring_all(
    mut bring: Bring<'_>,
    args: &RestoreArgs,
    report: &Report,
    plan: &Plan,
    sorted: &Sorted<'_>,
) -> Result<BroughtAll, Failure> {
    let bytes = sorted.fetch.iter().map(|wanted| wanted.listed.size).sum();
    bring.progress = Some(report.progress("downloading", sorted.fetch.len(), bytes));
    let bring = Arc::new(bring);
    let local = |error: std::io::Error| Failure::failed(anyhow!(error).context("cannot write the directory"));
    let (commit, files): (Vec<&Wanted>, Vec<&Wanted>) =
        sorted.fetch.iter().partition(|wanted| wanted.listed.name.is_metadata());
    if !sorted.fetch.is_empty() {
        bring.directory.remove_metadata().map_err(local)?;
    }
    let mut all = BroughtAll { unproved: Vec::new() };
    let mut failed = Vec::new();
    let steps = [files, commit];
    for files in steps {
        let brought = futures_util::stream::iter(files).map(async |wanted| (wanted, bring.bring(wanted).await));
        let mut brought = Box::pin(brought.buffer_unordered(args.workers));
        while let Some((wanted, result)) = brought.next().await {
            match result {
                Ok(Proved::ByHash) => {}
                Ok(Proved::BySizeOnly) => all.unproved.push(wanted.listed.name.to_string()),
                Err(error) => {
                    warn!(file = %wanted.listed.name, "{error:#}");
                    failed.push(format!("'{}': {error:#}", wanted.listed.name));
                    if bring::is_hopeless(&error) {
                        break;
                    }
                }
            }
        }
        drop(brought);
        bring.directory.sync().map_err(local)?;
        // Before `metadata`, which says that all the others are there.
        if !failed.is_empty() {
            let error = anyhow!("{} files could not be fetched: {}", failed.len(), first_few(&failed, NAMED_MAX));
            return Err(Failure::failed(hinted(
                error,
                "run the same command again: what has arrived is not fetched again",
            )));
        }
    }
    if let Some(text) = plan.salvaged_metadata() {
        bring.directory.write_metadata(text.as_bytes()).map_err(local)?;
        bring.directory.sync().map_err(local)?;
    }
    Ok(all)
}

fn out_of_reach(error: &StoreError) -> Failure {
    Failure::failed(anyhow!("{error}"))
}
