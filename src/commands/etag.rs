//! `etag`: what S3 would say of a local file; or, with `--match`, how an object must have been uploaded to have an ETag.
//!
//! A file is read once for each part size that is tried, its parts side by side, and never held in memory.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tracing::info;

use crate::cli::EtagArgs;
use crate::exit_status::{Failure, Status};
use crate::hasher::Hasher;
use crate::hint::hinted;
use crate::model::etag::ETag;
use crate::model::part_plan::{CutInto, PARTS_MAX, PartPlan};
use crate::model::part_size_guess::part_sizes_of;
use crate::model::units::ByteSize;
use crate::page_cache::Footprint;
use crate::report::{Report, escape};
use crate::stop::Stop;

/// From this many part sizes on, it is said that this takes a while.
const MANY: usize = 4;

/// Prints the ETag of each file, or by which part size it has the one that was given.
pub async fn run(args: &EtagArgs, report: &Report, stop: &Stop) -> Status {
    let wanted = match args.match_etag.as_deref().map(wanted).transpose() {
        Ok(wanted) => wanted,
        Err(failure) => return super::fail(report, &failure),
    };
    // Nothing is sent, so nothing has to be ready to be sent.
    let hasher = Hasher::new(1);
    let mut status = Status::Success;
    for path in &args.files {
        let line = tokio::select! {
            line = line(args, &hasher, wanted.as_ref(), path) => line,
            signal = stop.wait() => return Status::Signal(signal),
        };
        match line {
            Ok((line, is_right)) => {
                let written = tokio::select! {
                    written = report.data(&line) => written,
                    signal = stop.wait() => return Status::Signal(signal),
                };
                if let Err(error) = written {
                    return super::fail(report, &Failure::failed(error));
                }
                if !is_right && status == Status::Success {
                    status = Status::Difference;
                }
            }
            // The other files are still worth an answer.
            Err(error) => {
                report.fatal(&error);
                status = Status::Failure;
            }
        }
    }
    status
}

/// An ETag to look for. One that is no MD5 can be had of no bytes.
fn wanted(text: &str) -> Result<ETag, Failure> {
    let etag = ETag::from_store(text).filter(|etag| etag.as_md5().is_some() || etag.part_count().is_some());
    etag.ok_or_else(|| {
        let error = anyhow!("'{}' is no ETag that bytes have: 32 hexadecimal digits, or these with -N", escape(text));
        Failure::usage(hinted(error, "with SSE-KMS, SSE-C and in directory buckets an ETag says nothing of the bytes"))
    })
}

/// What is printed for one file, and whether that is good.
async fn line(args: &EtagArgs, hasher: &Hasher, wanted: Option<&ETag>, path: &Path) -> anyhow::Result<(String, bool)> {
    let name = path.to_string_lossy();
    let source = open(path).with_context(|| format!("cannot read '{}'", escape(&name)))?;
    let failed = || format!("cannot hash '{}'", escape(&name));
    let Some(wanted) = wanted else {
        let plan = PartPlan::new(source.size(), args.part_size.0, PARTS_MAX).with_context(failed)?;
        let hash = hasher.hash_file(&source, plan.cut()).await.with_context(failed)?;
        let etag = hash.etag().context("a hash without an ETag")?;
        return Ok((format!("{etag}  {}", escape(&name)), true));
    };
    let found = find(hasher, &source, wanted, &name).await.with_context(failed)?;
    let text = match found {
        None => "no part size gives this ETag: other bytes, or an unusual part size".to_owned(),
        Some(CutInto::OnePut) => "uploaded by one PUT".to_owned(),
        Some(CutInto::Parts(sizes)) if sizes.first() >= source.size() => {
            "uploaded in parts, of which there is one".to_owned()
        }
        Some(CutInto::Parts(sizes)) => format!("uploaded in parts of {}", ByteSize(sizes.first())),
    };
    Ok((format!("{}: {text}", escape(&name)), found.is_some()))
}

/// Only a regular file has a size to plan by; opening a FIFO would wait for its writer.
fn open(path: &Path) -> anyhow::Result<Footprint> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(anyhow!("this is no regular file"));
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok(Footprint::begin(Arc::new(file), size))
}

/// Tries one way of uploading after the other.
async fn find(hasher: &Hasher, source: &Footprint, wanted: &ETag, name: &str) -> anyhow::Result<Option<CutInto>> {
    let candidates = part_sizes_of(source.size(), wanted);
    if candidates.len() >= MANY {
        info!(file = name, part_sizes = candidates.len(), "the file is read once for each part size that fits");
    }
    for candidate in candidates {
        if hasher.hash_file(source, candidate).await?.etag().as_ref() == Some(wanted) {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}
