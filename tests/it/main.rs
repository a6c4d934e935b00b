//! The one integration-test binary: it runs the real program against real and scripted dumpers. One, because each one
//! more costs a link of the whole program.

mod support;

mod architecture;
mod child_mode;
mod delete;
mod dumper_facts;
mod end_to_end;
mod etag;
mod floors;
mod list;
mod promises;
mod prune;
mod readme;
mod restore;
mod s3_server;
mod settings;
mod support_tests;
mod unprivileged;
mod verify;
