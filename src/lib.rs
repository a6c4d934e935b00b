//! map
pub mod model;
