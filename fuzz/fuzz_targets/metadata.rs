//! `metadata` and `metadata.partial`, of both generations: any bytes give a value, and what is taken out of the text is not
//! found in it any more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mydumper2s3::model::dump_metadata::{DumpMetadata, session_sql_mode, without_sections};

fuzz_target!(|text: &[u8]| {
    let metadata = DumpMetadata::parse(text);
    let _ = metadata.started_local();
    let _ = session_sql_mode(&String::from_utf8_lossy(text));
    assert_eq!(without_sections(text, |_, _| true), text);
    let without = DumpMetadata::parse(&without_sections(text, |_, _| false));
    assert_eq!(without.tables, []);
    assert_eq!((&without.started, &without.finished), (&metadata.started, &metadata.finished));
});
