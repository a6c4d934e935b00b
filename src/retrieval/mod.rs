//! The way back: which files of a dump, each fetched and proved, and only then placed in a directory.

pub mod bring;
pub mod directory;
pub mod memory;
pub mod myloader;
pub mod openers;
pub mod pieces;
pub mod pipes;
pub mod plan;

/// Files that are named in a message at most.
pub const NAMED_MAX: usize = 5;
