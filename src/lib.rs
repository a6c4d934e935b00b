//! The map of the crate.
//!
//! mydumper2s3 runs beside mydumper and moves a dump to S3 while it is being written. Four floors; arrows go down:
//! nothing uses a module of a floor above its own. ARCHITECTURE.md tells why, `tests/it/architecture.rs` that it is so.
//!
//! ```text
//! commands      one file per subcommand; `upload` is the main job:
//!                 start    settings tried, mydumper started, the dump found
//!                 session  one dump, from claim to end
//!                 follow   the watcher: scan, enqueue, until the dump has ended and everything is up
//!                 finish   how did it end, is it whole, is the bucket right: manifest, then `metadata`
//!
//! cli           what may be typed; leaves as model types
//! claim         the prefix made ours; the only writer of manifests
//! transfer      one file's life: found ready, opened, looked at, made an object, given up here
//! content       whether a file's content is whole: compressed frames, empty schema files
//! fetch         objects on their way back, to be hashed, decoded or written
//! hasher        MD5 of many stretches of files side by side, ahead of their sending
//! pool          the bounded queue and its workers
//! retrieval     the way back: which files of a dump, fetched, proved and placed
//! scan          one look at the directory, in the order that matters
//! bucket_dump   a dump as it lies in the bucket: its listing
//! bucket_manifest  the one reader of manifests
//! object_writer bytes that are held here become an object: hashed, sent, proved
//! object_hash   how an object was hashed when it went up, so that a copy can be compared
//! catalog       the dumps in a bucket, and where each stands
//! real_names    the names behind those that mydumper made up for files
//! streams       one stream's life: rows handed over, compressed, made an object
//! removal       takes one dump out of the bucket
//! trial         what the store lets us do, tried before anything depends on it
//!
//! aside         questions to the filesystem, off the thread that serves network and signals
//! dump_dir      the dump directory; the only place that removes a dump's files
//! recorder      the record of what is gone from a dump directory, beside the dump itself
//! writers       who writes: how a file is known to be closed
//! dumper        the dump's life: metadata.partial, the process, our child, its exit status
//! hand_over     rows that mydumper hands over instead of writing them into files
//! private_server  a MariaDB or MySQL of our own, gone when we are
//! program       a program that we start
//! s3            the store; the only place that names the SDK
//! page_cache    what our reading leaves in the page cache, and takes out again
//! report        the only place that prints: log, status line, summary, metrics
//! platform      what only the operating system can tell; the only unsafe code
//! scratch_dir   a directory for processes that we start, gone when we are
//! sql_client    a server that is asked through its own client
//! stop          SIGTERM and SIGINT
//! hint          errors that carry what the user can do
//!
//! model         values in, values out: DumpState and its four sets, parts, ETags, keys, the manifest, metadata
//! exit_status   what the program's exit status tells
//! ```
//!
//! `main` parses, starts the report and the runtime, calls [`commands::run`], and exits.

pub mod aside;
pub mod bucket_dump;
pub mod bucket_manifest;
pub mod catalog;
pub mod claim;
pub mod cli;
pub mod commands;
pub mod content;
pub mod dump_dir;
pub mod dumper;
pub mod exit_status;
pub mod fetch;
pub mod hand_over;
pub mod hasher;
pub mod hint;
pub mod model;
pub mod object_hash;
pub mod object_writer;
pub mod page_cache;
pub mod platform;
pub mod pool;
pub mod private_server;
pub mod program;
pub mod real_names;
pub mod recorder;
pub mod removal;
pub mod report;
pub mod retrieval;
pub mod s3;
pub mod scan;
pub mod scratch_dir;
pub mod sql_client;
pub mod stop;
pub mod streams;
pub mod transfer;
pub mod trial;
pub mod writers;
