//! The map of the crate.

pub mod cli;
pub mod dump_dir;
pub mod dumper;
pub mod hint;
pub mod model;
pub mod platform;
pub mod pool;
pub mod report;
pub mod s3;
pub mod transfer;
pub mod writers;
