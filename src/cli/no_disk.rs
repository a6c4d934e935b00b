//! The options of a dump without files, and what does not go with them.

use clap::Args;

use super::upload::UploadArgs;
use super::values;
use crate::model::no_disk::check_command;
use crate::model::packing::Packing;
use crate::model::units::ByteSize;
use crate::model::usage_error::UsageError;

/// Memory for parts where nobody says how much.
const MEMORY: ByteSize = ByteSize::mib(256);

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Dump")]
pub struct NoDiskArgs {
    /// No files: rows go through memory
    #[arg(long)]
    pub no_disk: bool,

    /// So: zstd[:LEVEL], gzip or none [zstd]
    #[arg(long, value_name = "FORMAT")]
    pub compress: Option<Packing>,

    /// So: memory for parts [256MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::positive_size)]
    pub max_memory: Option<ByteSize>,
}

impl NoDiskArgs {
    /// How rows are compressed.
    pub fn packing(&self) -> Packing {
        self.compress.unwrap_or_default()
    }

    /// How many bytes of parts may be held at a time.
    pub fn memory(&self) -> ByteSize {
        self.max_memory.unwrap_or(MEMORY)
    }
}

impl UploadArgs {
    /// What makes no sense without files, or only without them.
    pub(super) fn check_without_disk(&self) -> Result<(), UsageError> {
        let NoDiskArgs { no_disk, compress, max_memory } = &self.without;
        if !no_disk {
            let given = [("--compress", compress.is_some()), ("--max-memory", max_memory.is_some())];
            return match given.iter().find(|(_, is_given)| *is_given) {
                None => Ok(()),
                Some((option, _)) => Err(UsageError::new(
                    format!("{option} without --no-disk"),
                    "files are uploaded as mydumper writes them: let it compress them by its own -c",
                )),
            };
        }
        if !self.starts_mydumper() {
            return Err(UsageError::new(
                "--no-disk without a mydumper behind '--'",
                "mydumper must be started so that it hands its rows over: add -- mydumper and its arguments",
            ));
        }
        let dump = &self.dump;
        let refused = [
            ("--keep", dump.keep, "no file here holds anything that could be kept"),
            ("--max-local", dump.max_local.is_some(), "nothing is local; --max-memory says what may be in memory"),
            ("--give-back", dump.give_back, "nothing is local that could be given back"),
            ("--min-free", dump.min_free.is_some(), "next to nothing is written to the disk"),
            ("--max-held", dump.max_held.is_some(), "mydumper is not paused, it waits; --max-stall says for how long"),
            ("--content-check", dump.content_check, "rows are compressed here; `verify --deep` counts them"),
            ("--write-only", self.destination.write_only, "a name that mydumper takes back must be deleted there"),
        ];
        for (option, is_given, hint) in refused {
            if is_given {
                return Err(UsageError::new(format!("{option} does not go with --no-disk"), hint));
            }
        }
        check_command(&self.command)
    }
}
