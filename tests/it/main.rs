//! The integration tests: one binary, because each one more costs a link of the whole program.

mod s3_server;
mod support;
