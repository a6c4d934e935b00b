//! The one integration-test binary: it runs the real program against real and scripted dumpers. One, because each one
//! more costs a link of the whole program.

mod support;

mod answers;
mod architecture;
mod child_mode;
mod completion;
mod connection;
mod content;
mod costs;
mod credentials;
mod delete;
mod disk;
mod dump_lives;
mod dumper_facts;
mod end_to_end;
mod etag;
mod floors;
mod full_disk;
mod full_size;
mod large;
mod left_out;
mod list;
mod listings;
mod load;
mod memory;
mod outage;
mod output;
mod promises;
mod proof;
mod prune;
mod readme;
mod reliability_page;
mod restart;
mod restore;
mod rights;
mod s3_server;
mod security;
mod settings;
mod stopping;
mod support_tests;
mod torture;
mod unprivileged;
mod verify;
mod when_it_fails;
mod whose_exit;
