//! map
pub mod cli;
pub mod model;
pub mod report;
