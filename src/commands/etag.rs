//! `etag`: what S3 would say of a local file; or, with `--match`, how an object must have been uploaded to have an ETag.
//!
//! A file is read once for each part size that is tried, its parts side by side, and never held in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use futures_util::{StreamExt, TryStreamExt};
use md5::{Digest, Md5};
use tokio::sync::watch;
use tracing::info;

use crate::cli::EtagArgs;
use crate::exit_status::{Failure, Status};
use crate::hint::hinted;
use crate::model::etag::{ETag, Md5Digest};
use crate::model::part_plan::{PARTS_MAX, Part, PartPlan};
use crate::model::part_size_guess::{CutInto, part_sizes_of};
use crate::model::units::ByteSize;
use crate::report::{Report, escape};
use crate::stop::Stop;

/// How much is read at a time for hashing.
const PIECE: u64 = 256 * 1024;
/// From this many part sizes on, it is said that this takes a while.
const MANY: usize = 4;

/// Prints the ETag of each file, or by which part size it has the one that was given.
pub async fn run(args: &EtagArgs, report: &Report, stop: &Stop) -> Status {
    let wanted = match args.match_etag.as_deref().map(wanted).transpose() {
        Ok(wanted) => wanted,
        Err(failure) => return super::fail(report, &failure),
    };
    let mut status = Status::Success;
    for path in &args.files {
        let line = tokio::select! {
            line = line(args, wanted.as_ref(), path) => line,
            signal = stop.wait() => return Status::Signal(signal),
        };
        match line {
            Ok((line, is_right)) => {
                report.data(&line);
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
async fn line(args: &EtagArgs, wanted: Option<&ETag>, path: &Path) -> anyhow::Result<(String, bool)> {
    let name = path.to_string_lossy();
    let (file, size) = open(path).with_context(|| format!("cannot read '{}'", escape(&name)))?;
    let failed = || format!("cannot hash '{}'", escape(&name));
    let Some(wanted) = wanted else {
        let plan = PartPlan::new(size, args.part_size.0, PARTS_MAX).with_context(failed)?;
        let etag = etag(&file, plan).await.with_context(failed)?;
        return Ok((format!("{etag}  {}", escape(&name)), true));
    };
    let found = find(&file, size, wanted, &name).await.with_context(failed)?;
    let text = match found {
        None => "no part size gives this ETag: other bytes, or an unusual part size".to_owned(),
        Some(CutInto::OnePut) => "uploaded by one PUT".to_owned(),
        Some(CutInto::Parts(part_size)) if part_size >= size => "uploaded in parts, of which there is one".to_owned(),
        Some(CutInto::Parts(part_size)) => format!("uploaded in parts of {}", ByteSize(part_size)),
    };
    Ok((format!("{}: {text}", escape(&name)), found.is_some()))
}

/// Only a regular file has a size to plan by; opening a FIFO would wait for its writer.
fn open(path: &Path) -> anyhow::Result<(Arc<File>, u64)> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(anyhow!("this is no regular file"));
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok((Arc::new(file), size))
}

/// Tries one way of uploading after the other.
async fn find(file: &Arc<File>, size: u64, wanted: &ETag, name: &str) -> anyhow::Result<Option<CutInto>> {
    let candidates = part_sizes_of(size, wanted);
    if candidates.len() >= MANY {
        info!(file = name, part_sizes = candidates.len(), "the file is read once for each part size that fits");
    }
    for candidate in candidates {
        let etag = match candidate {
            CutInto::OnePut => ETag::of_single_put(hash(file, 0, size).await?),
            CutInto::Parts(part_size) => ETag::of_parts(&hash_parts(file, parts(size, part_size)).await?),
        };
        if etag == *wanted {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

async fn etag(file: &Arc<File>, plan: PartPlan) -> anyhow::Result<ETag> {
    if plan.is_multipart() {
        Ok(ETag::of_parts(&hash_parts(file, plan.parts()).await?))
    } else {
        Ok(ETag::of_single_put(hash(file, 0, plan.size()).await?))
    }
}

/// The parts of a file that was uploaded in parts, whatever its size: other tools do so with one part, too.
fn parts(size: u64, part_size: u64) -> impl Iterator<Item = Part> {
    (0..size.div_ceil(part_size).max(1)).map(move |index| {
        let offset = index * part_size;
        Part { number: index as u32 + 1, offset, length: part_size.min(size - offset) }
    })
}

async fn hash_parts(file: &Arc<File>, parts: impl Iterator<Item = Part>) -> anyhow::Result<Vec<Md5Digest>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let hashes = futures_util::stream::iter(parts).map(|part| hash(file, part.offset, part.length));
    hashes.buffered(threads).try_collect().await
}

/// The MD5 of a stretch of a file, on a thread of its own. Given up with the future, it ends at the next piece.
async fn hash(file: &Arc<File>, offset: u64, length: u64) -> anyhow::Result<Md5Digest> {
    let file = Arc::clone(file);
    let (_alive, wanted) = watch::channel(());
    let hashed = tokio::task::spawn_blocking(move || hash_now(&file, offset, length, &wanted)).await?;
    Ok(hashed?)
}

fn hash_now(file: &File, offset: u64, length: u64, wanted: &watch::Receiver<()>) -> std::io::Result<Md5Digest> {
    let mut hasher = Md5::new();
    let mut piece = vec![0; PIECE.min(length) as usize];
    let mut done = 0;
    while done < length && wanted.has_changed().is_ok() {
        let next = (length - done).min(PIECE) as usize;
        file.read_exact_at(&mut piece[..next], offset + done)?;
        hasher.update(&piece[..next]);
        done += next as u64;
    }
    Ok(Md5Digest(hasher.finalize().into()))
}
