//! A dump without files, before it begins: can this mydumper hand its rows over, is there memory for them, and whereto.

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::anyhow;
use rustix::process::{Resource, getrlimit};
use tracing::{info, warn};

use crate::aside::aside;
use crate::cli::UploadArgs;
use crate::dumper;
use crate::exit_status::Failure;
use crate::hand_over::Reception;
use crate::hint::hinted;
use crate::model::dumper_version::hands_rows_over;
use crate::model::no_disk::{StreamMemory, with_program};
use crate::model::units::ByteSize;

/// Descriptors of everything that is not rows: sockets to the store, the directory, logs, processes.
const OTHER_DESCRIPTORS: u64 = 128;

/// No process is to be killed when we die.
const NOBODY: i32 = 0;

/// All that a dump without files needs and others do not.
#[derive(Debug)]
pub struct NoDisk {
    /// What is held in memory.
    pub memory: StreamMemory,
    /// Where mydumper hands its rows over.
    pub reception: Arc<Reception>,
}

impl NoDisk {
    /// Gets ready for the mydumper that is to be started, where no files are wanted.
    pub async fn prepare(args: &UploadArgs) -> Result<Option<Self>, Failure> {
        if !args.without.no_disk {
            return Ok(None);
        }
        let memory = plan(args).await?;
        let reception = Arc::new(aside(Reception::open).await?);
        info!("rows go through memory: {}", in_words(memory));
        Ok(Some(Self { memory, reception }))
    }

    /// mydumper has ended, whose number may soon be another's.
    pub async fn end(self) {
        // Where somebody holds it still, the helper removes it when we end.
        self.reception.watch(NOBODY);
        if let Some(reception) = Arc::into_inner(self.reception)
            && let Err(error) = aside(move || reception.close()).await
        {
            warn!("{error:#}");
        }
    }

    /// The command that starts mydumper so that it hands its rows over.
    pub fn command(&self, args: &UploadArgs) -> Vec<OsString> {
        with_program(&args.command, &self.reception.program(), args.without.packing())
    }
}

/// What it takes of our memory; refused where that cannot do.
pub async fn plan(args: &UploadArgs) -> Result<StreamMemory, Failure> {
    let command = args.command.clone();
    let (version, threads) =
        aside(move || (dumper::version_by_command(&command), dumper::threads_by_command(&command))).await;
    match hands_rows_over(version.as_deref()) {
        Some(true) => {}
        Some(false) => {
            let version = version.unwrap_or_default();
            let error = anyhow!("mydumper {version} cannot hand its rows over: --no-disk needs 0.15.1 or newer");
            return Err(Failure::usage(hinted(error, "take a newer mydumper, or leave --no-disk away")));
        }
        None => warn!("mydumper's version is not known: --no-disk needs 0.15.1 or newer"),
    }
    let memory =
        StreamMemory::plan(threads, args.transfer.part_size.0, args.without.memory()).map_err(Failure::usage)?;
    check_descriptors(memory)?;
    Ok(memory)
}

/// Each stream that could not be taken would keep mydumper for ever.
fn check_descriptors(memory: StreamMemory) -> Result<(), Failure> {
    let wanted = memory.descriptors() + OTHER_DESCRIPTORS;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < wanted => {
            let error = anyhow!("{wanted} open files are needed without disk, and {limit} are allowed");
            let hint = "raise the limit (ulimit -n, or LimitNOFILE of a service), or give mydumper fewer --threads";
            Err(Failure::usage(hinted(error, hint)))
        }
        _ => Ok(()),
    }
}

/// For people.
pub fn in_words(memory: StreamMemory) -> String {
    format!(
        "up to {} in {} parts of {}, {} files at a time",
        ByteSize(memory.bytes()).human(),
        memory.parts,
        ByteSize(memory.part_size).human(),
        memory.streams
    )
}
