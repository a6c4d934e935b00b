//! What the tests stand on.

pub mod s3_server;
