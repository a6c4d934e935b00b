//! What may be typed: options, environment variables, and the subcommands.
//!
//! Every value leaves here as a model type with its range checked; what does not fit together is refused here, too.
//! What the program works with is made from these structs, nothing here does any work.
//!
//! The upload has no name of its own: it is what happens without a subcommand.

mod after;
mod environment;
mod no_disk;
mod pasted;
mod pipe;
mod shared;
#[cfg(test)]
mod tests;
mod upload;
mod values;

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, FromArgMatches, Subcommand};

pub use after::{
    Choice, ChoiceArgs, DeleteArgs, DrillArgs, EtagArgs, ListArgs, LoadArgs, PruneArgs, RestoreArgs, VerifyArgs,
};
pub use no_disk::NoDiskArgs;
pub use pipe::{Compress, PipeArgs, StreamArgs};
pub use shared::{ConnectionArgs, LogFormat, OutputArgs};
pub use upload::{DestinationArgs, DumpArgs, TransferArgs, UploadArgs};

use crate::model::usage_error::UsageError;

const ABOUT: &str = "Uploads a mydumper dump to S3 while it is being written: each file is verified in the bucket \
                     before the local one is removed, and `metadata` goes last.";

const USAGE: &str = "mydumper2s3 --dir <DIR> --bucket <BUCKET> [OPTIONS] [-- mydumper <ARGUMENTS>...]
       mydumper2s3 <COMMAND> [OPTIONS]";

const AFTER_HELP: &str = "\
Examples:
  mydumper2s3 --dir /backup --bucket b -- mydumper -B shop -G -E -R
      starts mydumper and knows its exit status: the recommended way
  mydumper2s3 --dir /backup --bucket b --interval 1
      beside a mydumper that something else starts, before or after
  mydumper2s3 verify --bucket b --prefix db1/2026-11-22T020000Z
      is everything still there, and unchanged?

Sizes are written like 16MiB, durations like 0.5, 90s or 1h30m.
Each option can also be set in the environment, --part-size as
MYDUMPER2S3_PART_SIZE. What is typed wins; an empty variable is not set.
Credentials come from where all AWS programs find them; there is no option.

Exit status:
  0      the whole dump is in the bucket, verified
  1      some files could not be uploaded; they are still where they were
  2      wrong usage or settings; nothing was touched
  3      the dump is incomplete, failed, or none was found; what there was
         is in the bucket, without `metadata`
  4      verification found a difference
  128+n  ended by signal n";

/// What is to be done. `Upload` is what is meant without a subcommand.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    #[command(skip)]
    Upload(Box<UploadArgs>),
    /// Upload what a program writes into a pipe, as one object
    Pipe(Box<PipeArgs>),
    /// Check that a dump in the bucket is whole and unchanged
    Verify(VerifyArgs),
    /// Show the dumps in the bucket
    List(ListArgs),
    /// Download a dump, each file proved before it appears
    Restore(RestoreArgs),
    /// Load a dump into a server with myloader, without a disk that holds it
    Load(LoadArgs),
    /// Restore a dump into a server that is started for it, and compare
    Drill(DrillArgs),
    /// Remove one dump from the bucket
    Delete(DeleteArgs),
    /// Remove old dumps by rules like --keep-daily 7
    Prune(PruneArgs),
    /// Print the ETag that S3 would give a local file
    Etag(EtagArgs),
}

impl Command {
    /// How this command may print.
    pub fn output(&self) -> &OutputArgs {
        match self {
            Self::Upload(args) => &args.output,
            Self::Pipe(args) => &args.output,
            Self::Verify(args) => &args.output,
            Self::List(args) => &args.output,
            Self::Restore(args) => &args.output,
            Self::Load(args) => &args.output,
            Self::Drill(args) => &args.output,
            Self::Delete(args) => &args.output,
            Self::Prune(args) => &args.output,
            Self::Etag(args) => &args.output,
        }
    }
}

/// Everything that may be typed, for parsing and for tests that compare it with the documents.
pub fn command() -> clap::Command {
    let command = clap::Command::new("mydumper2s3")
        .version(env!("CARGO_PKG_VERSION"))
        .override_usage(USAGE)
        .after_help(AFTER_HELP)
        .max_term_width(100)
        // `--dir` and `--bucket` of the upload are not asked for where a subcommand is given. Only what is typed
        // conflicts with one: MYDUMPER2S3_BUCKET in the environment serves all of them.
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true);
    // The derived structs have descriptions of their own, so the program's comes last.
    let command = Command::augment_subcommands(UploadArgs::augment_args(command)).about(ABOUT);
    environment::with_variables(command)
}

/// Reads what was typed and the environment. `directory` is the current one, for paths that are compared.
///
/// Help and version are errors here as well, as clap has it: `error.exit()` prints each where it belongs and ends
/// with 0 or 2.
pub fn parse_from(arguments: impl IntoIterator<Item = OsString>, directory: &Path) -> Result<Command, clap::Error> {
    let arguments = pasted::taken_apart(arguments.into_iter().collect()).map_err(|error| usage_error(&error))?;
    let parse = || {
        let matches = command().try_get_matches_from(&arguments)?;
        if matches.subcommand_name().is_some() {
            Command::from_arg_matches(&matches)
        } else {
            UploadArgs::from_arg_matches(&matches).map(|upload| Command::Upload(Box::new(upload)))
        }
    };
    let command = parse().map_err(|error| environment::name_variable(explain_word(error), &arguments))?;
    // An empty variable behind it: nobody would start mydumper, and nobody would know.
    if arguments.last().is_some_and(|last| last == "--") {
        let error =
            UsageError::new("nothing follows '--'", "name the command that starts mydumper, or leave '--' away");
        return Err(usage_error(&error));
    }
    match command {
        Command::Upload(upload) => upload.check(directory).map(|upload| Command::Upload(Box::new(upload))),
        Command::Pipe(pipe) => pipe.check().map(|pipe| Command::Pipe(Box::new(pipe))),
        Command::Prune(prune) => prune.check().map(Command::Prune),
        command => Ok(command),
    }
    .map_err(|error| usage_error(&error))
}

/// A word where only options are expected: what was probably meant.
fn explain_word(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    if error.kind() != ErrorKind::UnknownArgument || word.starts_with('-') {
        return error;
    }
    let tip = if command().find_subcommand(word).is_some() {
        format!("the command comes first: mydumper2s3 {word} [OPTIONS]")
    } else if word.contains("mydumper") {
        format!("put -- before the command that starts mydumper: -- {word}")
    } else {
        "the commands are verify, list, restore, load, drill, pipe, delete, prune and etag; without one a dump is uploaded"
            .into()
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

fn usage_error(error: &UsageError) -> clap::Error {
    let text = format!("{error}\n\n  hint: {}\n", error.hint());
    let mut error = clap::Error::raw(ErrorKind::ValueValidation, text);
    error.remove(ContextKind::Usage);
    error
}
