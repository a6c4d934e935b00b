//! Is a dump in the bucket whole and unchanged? Months later, from the bucket alone; with a directory beside it; or
//! down to the last byte.

mod judge;
mod outcome;
mod standing;

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use futures_util::StreamExt;
use rustix::fs::FileType;
use tracing::{info, warn};

use self::judge::{Entry, Judge};
use self::outcome::Outcome;
use self::standing::Standing;
use super::choose::chosen;
use super::reach::{first_answer, reach, stopped};
use crate::bucket_dump::{Listed, Listing, no_dump};
use crate::bucket_manifest::{Fetched, Spooled};
use crate::cli::VerifyArgs;
use crate::dump_dir::DumpDir;
use crate::exit_status::{Failure, Status};
use crate::hasher::Hasher;
use crate::hint::hinted;
use crate::model::file_kind::{could_be_dump_file, is_never_data};
use crate::model::file_name::{FileName, MANIFEST};
use crate::model::object_key::Prefix;
use crate::report::Report;
use crate::s3::Store;
use crate::stop::Stop;

/// Verifies a dump and says how it stands.
pub async fn run(args: &VerifyArgs, report: &Report, stop: &Stop) -> Status {
    let result = tokio::select! {
        result = verify(args, report) => result,
        signal = stop.wait() => Err(stopped(signal, "nothing was changed; run it again")),
    };
    result.unwrap_or_else(|failure| {
        report.fatal(&failure.error);
        failure.status
    })
}

async fn verify(args: &VerifyArgs, report: &Report) -> Result<Status, Failure> {
    let directory = args.dir.as_deref().map(open_directory).transpose().map_err(Failure::usage)?;
    let local = directory.as_deref().map(local_names).transpose().map_err(Failure::failed)?.unwrap_or_default();
    let store = reach(&args.connection, &args.dump.bucket).await?;
    let prefix = chosen(&args.dump, &store).await?;
    let listing = first_answer(&store, Listing::of(&store, &prefix).await)?;
    let manifest = manifest(args, &store, &prefix, &listing).await?;
    if manifest.is_none() && local.is_empty() && !listing.names().any(|name| could_be_dump_file(name.as_str())) {
        return Err(Failure::incomplete(no_dump(&store, &prefix)));
    }
    let standing = Standing::of(&store, &prefix, &listing, manifest.as_deref().map(|manifest| &manifest.header));
    let standing = standing.await.map_err(Failure::failed)?;
    if let Standing::Uploading { .. } = standing {
        // Its manifest names no file yet.
        return standing.judge(Status::Incomplete);
    }
    standing.say();

    let files = manifest.as_ref().map_or(listing.len() as u64, |manifest| manifest.header.total_files);
    let reads = args.deep || directory.is_some();
    let bytes = manifest.as_ref().filter(|_| reads).map_or(0, |manifest| manifest.header.total_bytes);
    let judge = Judge {
        store: &store,
        prefix: &prefix,
        directory,
        is_deep: args.deep,
        has_manifest: manifest.is_some(),
        hasher: Hasher::new(args.workers),
        progress: report.progress("verifying", files as usize, bytes),
    };
    let mut outcome = Outcome::begin(args, report, store.uri(&prefix.directory()), manifest.as_deref()).await?;
    outcome.local_files(local.len());
    let entries = entries(manifest.as_deref(), listing, local);
    let mut findings = Box::pin(entries.map(|entry| judge.judge(entry)).buffer_unordered(args.workers));
    while let Some(finding) = findings.next().await {
        let finding = finding.map_err(|error| Failure::failed(anyhow!(error).context("the dump is not verified")))?;
        outcome.add(finding).await?;
    }
    outcome.missing(standing.missing()).await?;
    if let Some(metadata) = standing.metadata().filter(|_| args.deep) {
        outcome.prove_rows(metadata);
    }
    // Takes the progress line away.
    drop(findings);
    drop(judge);
    standing.judge(outcome.finish().await?)
}

/// Fetches the manifest and makes sure that it is the one that is meant.
async fn manifest(
    args: &VerifyArgs,
    store: &Store,
    prefix: &Prefix,
    listing: &Listing,
) -> Result<Option<Box<Spooled>>, Failure> {
    let difference = |error| Failure { status: Status::Difference, error };
    let uri = store.uri(&prefix.manifest_key());
    let fetched = Spooled::fetch(store, listing.manifest.as_ref()).await.map_err(Failure::failed)?;
    let manifest = match fetched {
        Fetched::Read(manifest) => manifest,
        Fetched::Bad(bad) => return Err(difference(anyhow!(bad).context(format!("cannot verify by {uri}")))),
        Fetched::Absent if args.manifest_sha256.is_some() => {
            return Err(difference(anyhow!("there is no manifest, {uri}, that could have this SHA-256")));
        }
        Fetched::Absent => return Ok(None),
    };
    match &args.manifest_sha256 {
        Some(wanted) if wanted.as_str() != manifest.sha256 => {
            let error = anyhow!("{uri} is not the manifest that is meant: its SHA-256 is {}", manifest.sha256);
            Err(difference(hinted(error, "it was written again since, or the hash is of another dump")))
        }
        Some(_) => {
            info!("the manifest is the one that is meant: its SHA-256 is {}", manifest.sha256);
            Ok(Some(manifest))
        }
        None => Ok(Some(manifest)),
    }
}

/// Every file that somebody names: first the manifest's, then what else is in the bucket, then what else is local.
fn entries(
    manifest: Option<&Spooled>,
    listing: Listing,
    local: HashSet<FileName>,
) -> impl futures_util::Stream<Item = Entry> {
    let has_manifest = manifest.is_some();
    let named = manifest.map(Spooled::files);
    let withdrawn = manifest.map(|manifest| manifest.header.withdrawn.iter().cloned().collect()).unwrap_or_default();
    let state = State { named, listing: Some(listing), rest: None, withdrawn, local, unnamed: None, has_manifest };
    futures_util::stream::unfold(state, async |mut state| Some((state.next().await?, state)))
}

struct State {
    named: Option<tokio::sync::mpsc::Receiver<crate::model::manifest::ManifestFile>>,
    listing: Option<Listing>,
    rest: Option<Box<dyn Iterator<Item = Listed>>>,
    /// What mydumper took back and could not be deleted: none of the dump.
    withdrawn: HashSet<FileName>,
    local: HashSet<FileName>,
    unnamed: Option<std::collections::hash_set::IntoIter<FileName>>,
    has_manifest: bool,
}

impl State {
    async fn next(&mut self) -> Option<Entry> {
        if let (Some(named), Some(listing)) = (&mut self.named, &mut self.listing)
            && let Some(file) = named.recv().await
        {
            let (listed, is_local) = (listing.take(&file.name), self.local.remove(&file.name));
            return Some(Entry { name: file.name, record: Some(file.object), listed, is_local });
        }
        if let Some(listing) = self.listing.take() {
            say_strangers(&listing, self.has_manifest);
            self.rest = Some(Box::new(listing.into_rest()));
        }
        while let Some(listed) = self.rest.as_mut().and_then(Iterator::next) {
            let is_local = self.local.remove(&listed.name);
            if !is_local && self.withdrawn.contains(&listed.name) {
                info!(file = %listed.name, "mydumper took it back, and its object could not be deleted: skipped");
                continue;
            }
            // Without a manifest all kinds of things may lie there: at the root of a bucket, say.
            if self.has_manifest || is_local || could_be_dump_file(listed.name.as_str()) {
                return Some(Entry { name: listed.name.clone(), record: None, listed: Some(listed), is_local });
            }
        }
        let unnamed = self.unnamed.get_or_insert_with(|| std::mem::take(&mut self.local).into_iter());
        unnamed.next().map(|name| Entry { name, record: None, listed: None, is_local: true })
    }
}

fn say_strangers(listing: &Listing, has_manifest: bool) {
    if let Some(first) = listing.strangers.named.first() {
        warn!(
            key = first.as_str(),
            "{} keys cannot be files of a dump; they were not looked at", listing.strangers.count
        );
    }
    let others = listing.names().filter(|name| !could_be_dump_file(name.as_str())).count();
    if others > 0 && !has_manifest {
        info!(
            "{others} objects have names that no dump has; they are looked at only where the directory has them, too"
        );
    }
}

fn open_directory(path: &std::path::Path) -> anyhow::Result<Arc<DumpDir>> {
    DumpDir::open(path).map(Arc::new).with_context(|| format!("cannot open the directory '{}'", path.display()))
}

/// The regular files that a dump's directory may have beside each other.
fn local_names(directory: &DumpDir) -> anyhow::Result<HashSet<FileName>> {
    let path = directory.path().display();
    let mut names = HashSet::new();
    let listed = directory.each(|entry| match FileName::from_os(entry.name) {
        _ if entry.file_type != FileType::RegularFile => {}
        Ok(name) if is_never_data(name.as_str()) || name.as_str() == MANIFEST => {}
        Ok(name) => drop(names.insert(name)),
        Err(error) => warn!(file = %entry.name.display(), "not compared: {error}"),
    });
    listed.with_context(|| format!("cannot list '{path}'"))?;
    if names.is_empty() {
        warn!("there is no file in '{path}': nothing is compared with it");
    }
    Ok(names)
}
