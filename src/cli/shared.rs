//! Options that every command has: how the store is reached, and what is printed.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::model::destination::EndpointUrl;
pub use crate::report::LogFormat;
use crate::report::OutputSettings;

/// How the store is reached. What is not given here is found by the AWS SDK as usual: AWS_REGION, AWS_PROFILE,
/// AWS_ENDPOINT_URL, AWS_CA_BUNDLE and its files, and HTTPS_PROXY and NO_PROXY.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Another store than AWS, like http://127.0.0.1:9000
    #[arg(long, value_name = "URL")]
    pub endpoint_url: Option<EndpointUrl>,

    /// Region of the bucket
    #[arg(long)]
    pub region: Option<String>,

    /// Profile in the AWS configuration files
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,

    /// Bucket in the path, not in the host name
    #[arg(long)]
    pub path_style: bool,

    /// Certificates to trust, in PEM form
    #[arg(long, value_name = "FILE")]
    pub ca_bundle: Option<PathBuf>,
}

/// What is printed, and how. Nothing of it changes what is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// A line per file; twice: per part and request
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Nothing at all when the exit status is 0
    #[arg(short, long)]
    pub quiet: bool,

    /// Log lines: text or json
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, hide_possible_values = true)]
    pub log_format: LogFormat,

    /// No live status line on a terminal
    #[arg(long)]
    pub no_progress: bool,
}

impl OutputArgs {
    pub fn settings(&self) -> OutputSettings {
        OutputSettings {
            verbosity: self.verbose,
            is_quiet: self.quiet,
            log_format: self.log_format,
            is_progress_wanted: !self.no_progress,
        }
    }
}
