pub mod child_arguments;
pub mod destination;
pub mod file_name;
pub mod object_key;
pub mod selection;
pub mod units;
pub mod usage_error;
