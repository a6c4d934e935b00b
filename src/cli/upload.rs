//! The options of the upload, which is what happens without a subcommand.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::no_disk::NoDiskArgs;
use super::shared::{ConnectionArgs, OutputArgs};
use super::values;
use crate::model::child_arguments::{absolute, check_child_arguments};
use crate::model::destination::{BucketName, ObjectAcl, ServerSideEncryption, StorageClass, TAGS_MAX, Tag};
use crate::model::object_key::{DEFAULT_PREFIX, PrefixTemplate};
use crate::model::series::Series;
use crate::model::units::{ByteSize, Rate};
use crate::model::usage_error::UsageError;

#[derive(Clone, Debug, Args)]
pub struct UploadArgs {
    /// Show what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub dump: DumpArgs,
    #[command(flatten)]
    pub without: NoDiskArgs,
    #[command(flatten)]
    pub destination: DestinationArgs,
    #[command(flatten)]
    pub transfer: TransferArgs,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,

    /// Prometheus metrics, for node_exporter
    // Not among those that all commands share: a `verify` with the same environment would overwrite the upload's.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub metrics_file: Option<PathBuf>,

    // After a successful parse it is checked, and `--outputdir` is among its arguments.
    /// mydumper and its arguments
    #[arg(last = true, value_name = "COMMAND", hide = true)]
    pub command: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Dump")]
pub struct DumpArgs {
    /// Directory that mydumper writes into
    #[arg(long)]
    pub dir: PathBuf,

    /// Time between scans
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::interval)]
    pub interval: Duration,

    /// Time a closed file must rest
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::duration)]
    pub settle: Duration,

    /// Wait for a dump to begin
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = values::duration)]
    pub wait: Duration,

    /// Give up after a silence of
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = values::positive_duration)]
    pub idle_timeout: Duration,

    /// mydumper's process id, where not found
    #[arg(long, value_parser = values::process_id)]
    pub pid: Option<u32>,

    /// A script writes mydumper's status to it
    #[arg(long, value_name = "FILE")]
    pub exit_status_file: Option<PathBuf>,

    /// No commit when that status is unknown
    #[arg(long)]
    pub require_exit_status: bool,

    /// With it: a wrapper's status is enough
    #[arg(long)]
    pub accept_wrapper_exit: bool,

    /// Do not mention an unseen status
    #[arg(long)]
    pub accept_unseen_exit: bool,

    /// mydumper inherits the AWS secrets
    #[arg(long)]
    pub keep_aws_env: bool,

    /// Take files older than the dump, too
    #[arg(long)]
    pub include_older: bool,

    /// A dump without schema and data is fine
    #[arg(long)]
    pub allow_empty: bool,

    /// Leave uploaded files where they are
    #[arg(long)]
    pub keep: bool,

    /// On a signal, time to end
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub stop_timeout: Duration,

    /// Pause mydumper while more is local
    #[arg(long, value_name = "SIZE", value_parser = values::positive_size)]
    pub max_local: Option<ByteSize>,

    /// At half of it: free parts of open files
    #[arg(long)]
    pub give_back: bool,

    /// Pause it while less is free [5 %, <= 2 GiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub min_free: Option<ByteSize>,

    /// Longest pause at a time
    #[arg(long, value_name = "TIME", default_value = "45s", value_parser = values::positive_duration)]
    pub max_pause: Duration,

    /// Longest hold without progress
    #[arg(long, value_name = "TIME", default_value = "2h", value_parser = values::positive_duration)]
    pub max_stall: Duration,

    /// Longest of all pauses together
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration)]
    pub max_held: Option<Duration>,

    /// Decode every file and count its rows
    #[arg(long)]
    pub content_check: bool,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Destination")]
pub struct DestinationArgs {
    #[arg(long, help = "Bucket to upload to")]
    pub bucket: BucketName,

    /// Directory in the bucket, with the dump's start
    #[arg(long, default_value = DEFAULT_PREFIX)]
    pub prefix: PrefixTemplate,

    /// What it is one of, for list and prune
    // The fixed part of the prefix without it.
    #[arg(long, value_name = "NAME")]
    pub series: Option<Series>,

    /// Delete whatever dump is under the prefix
    #[arg(long)]
    pub overwrite: bool,

    /// Delete a dump there that has no `metadata`
    #[arg(long)]
    pub replace_incomplete: bool,

    /// Create the bucket where it is missing
    #[arg(long)]
    pub create_bucket: bool,

    /// Like STANDARD_IA or GLACIER_IR
    #[arg(long, value_name = "CLASS")]
    pub storage_class: Option<StorageClass>,

    /// Encryption: AES256, aws:kms or aws:kms:dsse
    #[arg(long, value_name = "KIND")]
    pub sse: Option<ServerSideEncryption>,

    /// Key for aws:kms
    #[arg(long, value_name = "KEY")]
    pub sse_kms_key_id: Option<String>,

    /// Like bucket-owner-full-control
    #[arg(long)]
    pub acl: Option<ObjectAcl>,

    /// Tag of each object; may be repeated
    // A comma is in no tag of S3, so it can part them in the environment.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub tags: Vec<Tag>,

    /// Put each file's SHA-256 into the manifest
    #[arg(long)]
    pub sha256: bool,

    /// The store allows PutObject and nothing else
    #[arg(long)]
    pub write_only: bool,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Transfer")]
pub struct TransferArgs {
    /// Files in transfer at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = values::workers)]
    pub workers: usize,

    /// Larger files go up in such parts
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = values::part_size)]
    pub part_size: ByteSize,

    /// Most parts of a file; parts grow
    #[arg(long, value_name = "N", default_value = "10000", value_parser = values::max_parts)]
    pub max_parts: u32,

    /// Time to try again after the dump's end
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = values::duration)]
    pub retry_for: Duration,

    /// Most bytes a second, all files together
    #[arg(long, value_name = "RATE", value_parser = values::limit_rate)]
    pub limit_rate: Option<Rate>,
}

/// So many parts must fit into what may be local, where only whole parts are given back.
const PARTS_LOCAL: u64 = 4;

impl UploadArgs {
    /// Whether mydumper is to be started by us.
    pub fn starts_mydumper(&self) -> bool {
        !self.command.is_empty()
    }

    /// What does not fit together. The child's arguments come back complete.
    pub(super) fn check(mut self, directory: &Path) -> Result<Self, UsageError> {
        self.destination.check()?;
        let dir = &self.dump.dir;
        if dir.as_os_str().is_empty() {
            return Err(UsageError::new("--dir is empty", "name the directory that mydumper writes into"));
        }
        let inside = |file: &Option<PathBuf>| {
            file.as_ref().is_some_and(|file| absolute(directory, file).starts_with(absolute(directory, dir)))
        };
        if inside(&self.dump.exit_status_file) {
            return Err(UsageError::new(
                "--exit-status-file is in the dump directory",
                "put it elsewhere: mydumper refuses a directory that is not empty, and myloader reads what is there",
            ));
        }
        if inside(&self.metrics_file) {
            return Err(UsageError::new(
                "--metrics-file is in the dump directory",
                "put it where node_exporter's textfile collector reads",
            ));
        }
        if self.metrics_file.as_ref().is_some_and(|file| file.extension().is_none_or(|name| name != "prom")) {
            return Err(UsageError::new(
                "--metrics-file does not end in .prom",
                "node_exporter reads no other files; name it like mydumper2s3.prom",
            ));
        }
        if self.dump.require_exit_status && self.dump.accept_unseen_exit {
            return Err(UsageError::new(
                "--accept-unseen-exit does not go with --require-exit-status",
                "leave one of the two away; --accept-wrapper-exit takes the status of a program that started mydumper",
            ));
        }
        if self.dump.keep && self.dump.max_local.is_some() {
            return Err(UsageError::new(
                "--max-local does not go with --keep",
                "files that are kept take no less space after their upload; leave one of the two away",
            ));
        }
        if self.destination.write_only && self.dump.max_local.is_some() {
            return Err(UsageError::new(
                "--max-local does not go with --write-only",
                "with --write-only all files stay until the dump is committed; leave one of the two away",
            ));
        }
        if self.dump.give_back {
            let Some(most) = self.dump.max_local else {
                return Err(UsageError::new(
                    "--give-back needs --max-local",
                    "it says how much of a dump may be local; half of that is when parts of open files are given back",
                ));
            };
            if most.0 < PARTS_LOCAL * self.transfer.part_size.0 {
                return Err(UsageError::new(
                    format!("--give-back with a --max-local of less than {PARTS_LOCAL} parts"),
                    "only whole parts are given back: each file that mydumper writes at a time needs one or two of them; \
                     make --part-size smaller or --max-local larger",
                ));
            }
        }
        if self.starts_mydumper() {
            if self.dump.pid.is_some() || self.dump.exit_status_file.is_some() {
                return Err(UsageError::new(
                    "--pid and --exit-status-file are for a mydumper that something else starts",
                    "leave them away: of a mydumper started after -- both are known",
                ));
            }
            if self.command[0].is_empty() {
                return Err(UsageError::new(
                    "the command behind '--' is empty",
                    "name the command that starts mydumper, or leave '--' away",
                ));
            }
            self.command = check_child_arguments(&self.dump.dir, &self.command, directory)?;
        }
        self.check_without_disk()?;
        Ok(self)
    }
}

impl DestinationArgs {
    /// What does not fit together.
    pub(super) fn check(&self) -> Result<(), UsageError> {
        let destination = self;
        if destination.tags.len() > TAGS_MAX {
            return Err(UsageError::new(format!("more than {TAGS_MAX} tags"), "S3 allows no more for an object"));
        }
        let keys: std::collections::BTreeSet<_> = destination.tags.iter().map(|tag| &tag.key).collect();
        if keys.len() < destination.tags.len() {
            return Err(UsageError::new("a tag is given twice", "S3 allows each key once for an object"));
        }
        if destination.sse_kms_key_id.is_some() && !destination.sse.is_some_and(ServerSideEncryption::is_kms) {
            return Err(UsageError::new("--sse-kms-key-id without --sse aws:kms", "add --sse aws:kms"));
        }
        if destination.write_only && !destination.prefix.to_string().contains('%') {
            return Err(UsageError::new(
                "--write-only needs a --prefix with the time in it",
                "nothing tells what is there already, so each dump needs a place of its own, like {host}/%Y-%m-%dT%H%M%SZ",
            ));
        }
        if destination.write_only && (destination.overwrite || destination.replace_incomplete) {
            return Err(UsageError::new(
                "--write-only does not go with --overwrite and --replace-incomplete",
                "those two delete; leave --write-only away, or choose another --prefix",
            ));
        }
        Ok(())
    }
}
