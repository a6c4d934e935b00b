//! A manifest that somebody wrote into the bucket. What is read of it is the same after it was written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mydumper2s3::model::manifest::{self, ManifestFile, ManifestHeader};

fuzz_target!(|text: &[u8]| {
    let Some((header, files)) = read(text) else { return };
    let mut written = Vec::new();
    manifest::write(&mut written, &header, files.iter().cloned()).expect("memory takes everything");
    let (header_again, files_again) = read(&written).expect("what we wrote can be read");
    assert_eq!(json(&header), json(&header_again));
    assert_eq!(json(&files), json(&files_again));
});

fn read(text: &[u8]) -> Option<(ManifestHeader, Vec<ManifestFile>)> {
    let mut files = Vec::new();
    let header = manifest::read(text, |file| files.push(file)).ok()?;
    Some((header, files))
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("it came from JSON")
}
