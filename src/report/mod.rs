//! The only place that prints.

/// How the program was asked to print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputSettings {
    /// 0: a line per phase, 1: per file, 2: per part.
    pub verbosity: u8,
    /// Nothing is printed unless the exit status is not 0.
    pub is_quiet: bool,
    pub log_format: LogFormat,
    pub is_progress_wanted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}
