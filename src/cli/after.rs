//! The options of what is done with a dump in the bucket.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::shared::{ConnectionArgs, OutputArgs};
use super::values;
use crate::model::destination::BucketName;
use crate::model::object_key::Prefix;
use crate::model::selection::{Sha256Hex, TablePattern, parse_time};
use crate::model::series::Series;
use crate::model::units::ByteSize;
use crate::model::usage_error::UsageError;

/// Which dump is meant.
#[derive(Clone, Debug, Args)]
pub struct ChoiceArgs {
    /// Bucket that holds the dump
    #[arg(long)]
    pub bucket: BucketName,

    /// The dump's directory in the bucket ('' is its root); with --latest, one above it
    #[arg(long, required_unless_present = "latest")]
    pub prefix: Option<Prefix>,

    /// The newest complete dump under the prefix
    #[arg(long)]
    pub latest: bool,

    /// With --latest: of this series, where there are several
    #[arg(long, value_name = "NAME", requires = "latest")]
    pub series: Option<Series>,

    /// With --latest: the newest that began before this
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "latest")]
    pub before: Option<Timestamp>,
}

/// Which dump is meant, one way or the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The one that lies there.
    At(Prefix),
    /// The newest complete one.
    Latest { under: Prefix, series: Option<Series>, before: Option<Timestamp> },
}

impl ChoiceArgs {
    /// What was typed.
    pub fn choice(&self) -> Choice {
        match &self.prefix {
            Some(prefix) if !self.latest => Choice::At(prefix.clone()),
            under => {
                let under = under.clone().unwrap_or_default();
                Choice::Latest { under, series: self.series.clone(), before: self.before }
            }
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub dump: ChoiceArgs,

    /// Compare with the files in this directory
    #[arg(long)]
    pub dir: Option<PathBuf>,

    /// Download and hash everything, decode .gz and .zst
    #[arg(long)]
    pub deep: bool,

    /// The manifest must be the one with this hash
    #[arg(long, value_name = "HASH")]
    pub manifest_sha256: Option<Sha256Hex>,

    /// A report with each file and its proof, on stdout
    #[arg(long)]
    pub json: bool,

    /// Files looked at at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = values::workers)]
    pub workers: usize,

    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Bucket that holds the dumps
    #[arg(long)]
    pub bucket: BucketName,

    /// Only dumps at or under this directory
    #[arg(long, default_value = "", hide_default_value = true)]
    pub prefix: Prefix,

    /// Only this series
    #[arg(long, value_name = "NAME", conflicts_with = "files")]
    pub series: Option<Series>,

    /// The files of the dump at the prefix
    #[arg(long, conflicts_with = "max_age")]
    pub files: bool,

    /// As JSON
    #[arg(long)]
    pub json: bool,

    /// Status 4 if the newest complete dump of a series is older
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration)]
    pub max_age: Option<Duration>,

    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub dump: ChoiceArgs,

    /// Directory to download into
    #[arg(long, required_unless_present = "stdout")]
    pub dir: Option<PathBuf>,

    /// A stream, made by `pipe`, to standard output: each part is proved before it is written
    #[arg(long, conflicts_with_all = ["dir", "tables", "overwrite", "incomplete"])]
    pub stdout: bool,

    /// Only these, by their real names, with the schemas that they need: shop.orders, crm.*, `odd.db`.orders
    #[arg(long, value_name = "DB.TABLE,...", value_delimiter = ',')]
    pub tables: Vec<TablePattern>,

    /// Take a dump that was never completed, too
    #[arg(long)]
    pub incomplete: bool,

    /// Replace local files that differ
    #[arg(long)]
    pub overwrite: bool,

    /// Files in transfer at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = values::workers)]
    pub workers: usize,

    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    pub dump: ChoiceArgs,

    /// Only these, by their real names, with the schemas that they need: shop.orders, crm.*, `odd.db`.orders
    #[arg(long, value_name = "DB.TABLE,...", value_delimiter = ',')]
    pub tables: Vec<TablePattern>,

    /// Load a dump that was never completed, too
    #[arg(long)]
    pub incomplete: bool,

    /// Load tables and rows alone into this database, which must have no table yet
    #[arg(long, value_name = "DATABASE", requires = "tables", conflicts_with_all = ["replace", "unchecked"], value_parser = values::database)]
    pub into: Option<String>,

    /// Drop tables that are there before they are loaded
    #[arg(long)]
    pub replace: bool,

    /// Load the server's own databases mysql and sys, too
    #[arg(long)]
    pub system_databases: bool,

    /// Do not look at the server first
    #[arg(long)]
    pub unchecked: bool,

    /// Load what no known hash can prove, too
    #[arg(long)]
    pub unproved: bool,

    /// Memory for what is fetched ahead
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub max_memory: ByteSize,

    /// Requests at once
    #[arg(long, value_name = "N", default_value = "8", value_parser = values::workers)]
    pub workers: usize,

    /// How long a store that is away is waited for
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = values::duration)]
    pub retry_for: Duration,

    /// myloader and its arguments, without -d
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct DrillArgs {
    #[command(flatten)]
    pub dump: ChoiceArgs,

    /// Only these, by their real names, with the schemas that they need: shop.orders, crm.*, `odd.db`.orders
    #[arg(long, value_name = "DB.TABLE,...", value_delimiter = ',')]
    pub tables: Vec<TablePattern>,

    /// Only as many tables as fit in so many bytes of the dump, chosen by chance
    #[arg(long, value_name = "SIZE", value_parser = values::positive_size)]
    pub sample: Option<ByteSize>,

    /// Repeat the choice of an earlier sample
    #[arg(long, value_name = "N", requires = "sample")]
    pub seed: Option<u64>,

    /// mariadbd or mysqld for the server that is started; else the first that is found
    #[arg(long, value_name = "FILE")]
    pub server: Option<PathBuf>,

    /// A report with all that was compared, on stdout
    #[arg(long)]
    pub json: bool,

    /// Requests at once
    #[arg(long, value_name = "N", default_value = "8", value_parser = values::workers)]
    pub workers: usize,

    /// How long a store that is away is waited for
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = values::duration)]
    pub retry_for: Duration,

    /// Prometheus metrics, for node_exporter
    // Another file than the upload's: what is typed, never the variable of the upload.
    #[arg(long, value_name = "FILE", value_parser = values::metrics_file)]
    pub metrics_file: Option<PathBuf>,

    /// myloader and its arguments, without -d; one that names a server loads into that
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    /// Bucket that holds the dump
    #[arg(long)]
    pub bucket: BucketName,

    /// The dump's directory in the bucket ('' is its root)
    #[arg(long)]
    pub prefix: Prefix,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Delete the bucket, too, if it is empty then
    #[arg(long)]
    pub with_bucket: bool,

    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// restic's rules: a dump stays if one of them keeps it.
#[derive(Clone, Debug, Args)]
pub struct PruneArgs {
    /// Bucket that holds the dumps
    #[arg(long)]
    pub bucket: BucketName,

    /// Only dumps under this directory ('' is the root)
    #[arg(long)]
    pub prefix: Prefix,

    /// Only this series
    #[arg(long, value_name = "NAME")]
    pub series: Option<Series>,

    /// Keep the newest N
    #[arg(long, value_name = "N", default_value_t, hide_default_value = true)]
    pub keep_last: u32,

    /// Keep what is less than this much older than the newest
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration)]
    pub keep_within: Option<Duration>,

    /// Keep the newest of each of the last N days
    #[arg(long, value_name = "N", default_value_t, hide_default_value = true)]
    pub keep_daily: u32,

    /// Keep the newest of each of the last N weeks
    #[arg(long, value_name = "N", default_value_t, hide_default_value = true)]
    pub keep_weekly: u32,

    /// Keep the newest of each of the last N months
    #[arg(long, value_name = "N", default_value_t, hide_default_value = true)]
    pub keep_monthly: u32,

    /// Remove incomplete and damaged dumps that are older
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration)]
    pub incomplete_older_than: Option<Duration>,

    /// Show what would be removed; change nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl PruneArgs {
    /// Whether there is a rule for complete dumps. Without one all of them stay.
    pub fn has_keep_rule(&self) -> bool {
        let counts = [self.keep_last, self.keep_daily, self.keep_weekly, self.keep_monthly];
        counts.iter().any(|count| *count > 0) || self.keep_within.is_some()
    }

    pub(super) fn check(self) -> Result<Self, UsageError> {
        if !self.has_keep_rule() && self.incomplete_older_than.is_none() {
            return Err(UsageError::new(
                "no rule says what to keep",
                "add one, like --keep-daily 7 or --keep-within 30d",
            ));
        }
        Ok(self)
    }
}

#[derive(Clone, Debug, Args)]
pub struct EtagArgs {
    /// Local files
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Larger files have an ETag of parts of this size
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = values::positive_size)]
    pub part_size: ByteSize,

    /// Find the part size by which a file has this ETag
    #[arg(long = "match", value_name = "ETAG")]
    pub match_etag: Option<String>,

    #[command(flatten)]
    pub output: OutputArgs,
}
