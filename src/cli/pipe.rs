//! The options of `pipe`: what a program writes into a pipe goes to the bucket as one object.

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::shared::{ConnectionArgs, OutputArgs};
use super::upload::{DestinationArgs, TransferArgs};
use super::values;
use crate::model::dump_end::Promised;
use crate::model::file_name::{FileName, METADATA};
use crate::model::units::ByteSize;
use crate::model::usage_error::UsageError;

#[derive(Clone, Debug, Args)]
pub struct PipeArgs {
    #[command(flatten)]
    pub stream: StreamArgs,
    #[command(flatten)]
    pub destination: DestinationArgs,
    #[command(flatten)]
    pub transfer: TransferArgs,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,

    /// The program that writes it, and its arguments; without one it comes from standard input
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Stream")]
pub struct StreamArgs {
    /// Name of the object, like shop.sql.zst
    #[arg(long, value_parser = name)]
    pub name: FileName,

    /// Compress it on its way: zstd[:LEVEL], gzip or none
    #[arg(long, value_name = "KIND", default_value_t = Compress::None)]
    pub compress: Compress,

    /// From standard input: its end is enough
    #[arg(long)]
    pub accept_eof: bool,

    /// Memory for parts that are not in the bucket yet
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = values::positive_size)]
    pub memory: ByteSize,

    /// The program inherits the AWS secrets
    #[arg(long)]
    pub keep_aws_env: bool,

    /// On a signal, time for it to end
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub stop_timeout: Duration,
}

/// How a stream is compressed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// As it comes.
    None,
    /// By zstd at that level.
    Zstd(i32),
    /// By gzip at its usual level.
    Gzip,
}

/// What zstd itself takes where nothing is asked for.
const ZSTD_LEVEL: i32 = 3;
/// The levels of zstd that need no option of their own.
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

impl Compress {
    /// How the name of what comes out ends.
    pub fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zstd(_) => ".zst",
            Self::Gzip => ".gz",
        }
    }
}

impl FromStr for Compress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("none", "") => Ok(Self::None),
            ("gzip", "") => Ok(Self::Gzip),
            ("zstd", "") => Ok(Self::Zstd(ZSTD_LEVEL)),
            ("zstd", level) => match level.parse() {
                Ok(level) if ZSTD_LEVELS.contains(&level) => Ok(Self::Zstd(level)),
                _ => Err("the level of zstd must be from 1 to 19, like zstd:6".to_owned()),
            },
            _ => Err("must be zstd, zstd:LEVEL, gzip or none".to_owned()),
        }
    }
}

impl fmt::Display for Compress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("none"),
            Self::Zstd(level) => write!(formatter, "zstd:{level}"),
            Self::Gzip => formatter.write_str("gzip"),
        }
    }
}

/// Names that mean something to mydumper, myloader and us would make a stream look like a dump's directory.
fn name(text: &str) -> Result<FileName, String> {
    if text.starts_with(METADATA) || text.starts_with("mydumper2s3") {
        return Err("names that begin with metadata or mydumper2s3 are kept for dumps".to_owned());
    }
    FileName::from_str(text).map_err(|error| error.to_string())
}

impl PipeArgs {
    /// Whether the program that writes it is to be started by us.
    pub fn starts_producer(&self) -> bool {
        !self.command.is_empty()
    }

    /// The name without the extension that is ours: what it would be called as it comes.
    pub fn incoming_name(&self) -> FileName {
        let StreamArgs { name, compress, .. } = &self.stream;
        let incoming = name.as_str().strip_suffix(compress.extension()).and_then(|name| name.parse().ok());
        incoming.unwrap_or_else(|| name.clone())
    }

    /// What does not fit together.
    pub(super) fn check(self) -> Result<Self, UsageError> {
        self.destination.check()?;
        let StreamArgs { name, compress, accept_eof, memory, .. } = &self.stream;
        if !name.as_str().ends_with(compress.extension()) || name.as_str() == compress.extension() {
            let extension = compress.extension();
            return Err(UsageError::new(
                format!("--compress {compress} and --name {name}, which does not end in {extension}"),
                format!("whoever reads it goes by its name: call it {name}{extension}"),
            ));
        }
        if self.command.first().is_some_and(|program| program.is_empty()) {
            return Err(UsageError::new("the command behind '--' is empty", "name the program that writes the stream"));
        }
        if self.starts_producer() && *accept_eof {
            return Err(UsageError::new(
                "--accept-eof is for standard input",
                "leave it away: of a program started after -- the exit status is known",
            ));
        }
        if !self.starts_producer() && !accept_eof && !Promised::by(&self.incoming_name()).tells_end() {
            return Err(UsageError::new(
                format!("nothing in '{name}' will tell whether all of it came through standard input"),
                "let the program be started here, `-- COMMAND`, whose exit status tells; or take its end for that with \
                 --accept-eof",
            ));
        }
        if *memory < self.transfer.part_size {
            return Err(UsageError::new(
                format!("--memory {memory} is less than a part, {}", self.transfer.part_size),
                "a part stands in memory until it is proved; four of them keep all busy",
            ));
        }
        Ok(self)
    }
}
