//! A stream back into a pipe: each part is proved before it is written. A reader that gets less than all of it finds out by
//! our exit status.

use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use tokio::sync::Semaphore;
use tracing::info;

use super::{Report, RestoreArgs, planned};
use crate::exit_status::{Failure, Status};
use crate::hint::hinted;
use crate::model::units::{ByteSize, Rate, human_duration};
use crate::object_hash::KnownHash;
use crate::retrieval::memory::Memory;
use crate::retrieval::pieces::{NoPiece, Pieces, Supply};
use crate::s3::ObjectRef;

/// What is fetched ahead, in bytes. A part that is larger is held all the same: it is proved as a whole.
const MEMORY: u64 = 64 << 20;

/// Writes a stream to standard output.
pub async fn restore(args: &RestoreArgs, report: &Report) -> Result<Status, Failure> {
    let began = Instant::now();
    let (store, prefix, plan) = planned(args).await?;
    let uri = store.uri(&prefix.directory());
    let wanted = match plan.wanted.as_slice() {
        [wanted] if plan.is_stream() => wanted,
        _ => {
            let error = anyhow!("{uri} is no stream that `pipe` made");
            return Err(Failure::usage(hinted(error, "restore a dump's directory with --dir")));
        }
    };
    plan.check_archived(&store, &prefix, &[wanted], 1).await?;
    let object = ObjectRef {
        key: format!("{}{}", prefix.directory(), wanted.listed.name),
        size: wanted.listed.size,
        etag: wanted.listed.etag.clone(),
    };
    let known = match wanted.record.as_ref().and_then(|record| KnownHash::of_record(record, object.size)) {
        Some(known) => known,
        None => KnownHash::of_object(&store, &object.key, &wanted.listed).await.map_err(Failure::failed)?,
    };
    let requests = Semaphore::new(args.workers);
    let supply = Arc::new(Supply { store: store.clone(), memory: Memory::new(MEMORY), requests });
    let Some(mut pieces) = Pieces::of(&supply, object, &known, false) else {
        return Err(Failure::failed(anyhow!("no hash of {} is known to prove it by", wanted.listed.name)));
    };
    let mut written = 0;
    while let Some(mut piece) = pieces.next().await.map_err(|error| not_whole(error, written))? {
        written += piece.bytes.len() as u64;
        report.bytes(std::mem::take(&mut piece.bytes)).await?;
    }
    let took = began.elapsed();
    let rate = Rate::of(written, took).human();
    info!("{} of {uri} written in {}, {rate}", ByteSize(written).human(), human_duration(took));
    Ok(Status::Success)
}

fn not_whole(error: NoPiece, written: u64) -> Failure {
    let error = match error {
        NoPiece::Store(error) => anyhow!(error),
        NoPiece::Local(error) => anyhow!(error),
        NoPiece::Different => anyhow!("its bytes in the bucket are not those that were uploaded"),
        NoPiece::Unknown => anyhow!("its bytes have another hash than is known of them"),
    };
    let error = error.context(format!("only the first {written} bytes of it were written"));
    Failure::failed(hinted(error, "whatever was made of them is not whole"))
}
