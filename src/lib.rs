//! The map of the crate.

pub mod bucket_dump;
pub mod catalog;
pub mod cli;
pub mod commands;
pub mod dump_dir;
pub mod dumper;
pub mod exit_status;
pub mod hint;
pub mod model;
pub mod platform;
pub mod pool;
pub mod removal;
pub mod report;
pub mod s3;
pub mod scan;
pub mod stop;
pub mod transfer;
pub mod writers;
