//! One file a subcommand.

pub mod upload;
