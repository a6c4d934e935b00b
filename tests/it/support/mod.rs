//! What the tests stand on: a place to run the program in, dumpers, databases and stores.

// A story uses some of these words; that another does not is no reason to take them away.
#![allow(dead_code)]

pub mod background;
pub mod bucket;
pub mod dir_watch;
pub mod disk_samples;
pub mod dump_objects;
pub mod fake_dumper;
pub mod load_story;
pub mod mariadb;
pub mod peak_memory;
pub mod role_agent;
pub mod run;
pub mod s3_server;
pub mod sandbox;
pub mod scripted_loader;
pub mod seaweedfs;
pub mod slow_link;
pub mod stage;
pub mod stored_dump;
pub mod strace;
pub mod tls_front;
