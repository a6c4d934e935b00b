//! The one integration-test binary: it runs the real program against real and scripted dumpers. One, because each one
//! more costs a link of the whole program.

mod support;

mod end_to_end;
mod etag;
mod s3_server;
mod support_tests;
