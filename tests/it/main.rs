//! The one integration-test binary: it runs the real program against real and scripted dumpers. One, because each one
//! more costs a link of the whole program.

mod support;

mod delete;
mod end_to_end;
mod etag;
mod list;
mod prune;
mod s3_server;
mod support_tests;
