//! Schema files: any text gives a value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mydumper2s3::model::schema_programs::{definers, newest_version, programs};
use mydumper2s3::model::table_shape::TableShape;

fuzz_target!(|text: &str| {
    let _ = (programs(text), definers(text), newest_version(text), TableShape::of(text));
});
