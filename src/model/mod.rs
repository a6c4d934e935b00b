//! The pure floor: values in, values out.
//!
//! Nothing here names tokio, the filesystem or S3's client, so all that decides (what is ready, how a file is cut,
//! what an ETag must be, whether a dump is whole) can be tested without any of them.

pub mod brake;
pub mod child_arguments;
pub mod comparison;
pub mod content_check;
pub mod content_hash;
pub mod destination;
pub mod disk_forecast;
pub mod drill;
pub mod dump_end;
pub mod dump_kind;
pub mod dump_metadata;
pub mod dumper_options;
pub mod dumper_version;
pub mod etag;
pub mod file_kind;
pub mod file_name;
pub mod full_disk;
pub mod given_back;
pub mod identity;
pub mod left_out;
pub mod listing;
pub mod load_target;
pub mod loader_command;
pub mod manifest;
pub mod missing_files;
pub mod object_key;
pub mod part_plan;
pub mod part_size_guess;
pub mod part_sizes;
pub mod record;
pub mod reminder;
pub mod replication;
pub mod retention;
pub mod row_count;
pub mod row_proof;
pub mod sample;
pub mod schema_name;
pub mod schema_programs;
pub mod schema_text;
pub mod selection;
pub mod series;
pub mod server_software;
pub mod sql_end;
pub mod standing;
pub mod state;
pub mod table_choice;
pub mod table_shape;
pub mod taken_back;
pub mod units;
pub mod usage_error;
pub mod user_metadata;
pub mod verdict;
pub mod zstd_frames;
