//! The MD5 of stretches of a file: most of the CPU that an upload takes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use md5::{Digest, Md5};

use crate::model::etag::Md5Digest;
use crate::model::part_plan::PartPlan;

/// Files up to this size are hashed where we are: a hand-over to another thread costs more.
const INLINE_MAX: u64 = 64 * 1024;
/// How much is read at a time.
const PIECE: usize = 256 * 1024;

/// The MD5 of each part of a plan, in order.
pub async fn hash_parts(file: &Arc<File>, plan: PartPlan, at_once: usize) -> io::Result<Vec<Md5Digest>> {
    let hashes = futures_util::stream::iter(plan.parts());
    hashes.map(|part| hash(file, part.offset, part.length)).buffered(at_once).try_collect().await
}

/// The MD5 of a stretch of a file.
pub async fn hash(file: &Arc<File>, offset: u64, length: u64) -> io::Result<Md5Digest> {
    if length <= INLINE_MAX {
        return hash_now(file, offset, length);
    }
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || hash_now(&file, offset, length)).await.map_err(io::Error::other)?
}

fn hash_now(file: &File, mut offset: u64, length: u64) -> io::Result<Md5Digest> {
    let end = offset + length;
    let mut hasher = Md5::new();
    let mut piece = vec![0; PIECE.min(length as usize)];
    while offset < end {
        let wanted = piece.len().min((end - offset) as usize);
        file.read_exact_at(&mut piece[..wanted], offset)?;
        hasher.update(&piece[..wanted]);
        offset += wanted as u64;
    }
    Ok(Md5Digest(hasher.finalize().into()))
}
