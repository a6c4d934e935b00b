//! `etag`: equal to what stores give, and found again from what they gave.

use std::path::Path;

use crate::support::dump_objects::endpoint;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, S3Server};
use crate::support::sandbox::{Endpoint, Finished, Program, Sandbox};
use crate::support::seaweedfs::SeaweedFs;

const MIB: usize = 1024 * 1024;
/// The least that stores take, so that few bytes make many parts.
const PART: usize = 5 * MIB;
const BOUNDARIES: [usize; 8] = [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1, 3 * PART - 1];

fn etag<'a>(sandbox: &'a Sandbox, files: impl IntoIterator<Item = &'a Path>) -> Program<'a> {
    sandbox.mydumper2s3().arg("etag").args(files)
}

/// Not the same in each part: parts that changed places must be seen.
fn bytes(count: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..count as u32 / 4 + 1).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    bytes.truncate(count);
    bytes
}

fn first_word(finished: &Finished) -> String {
    finished.stdout.split("  ").next().unwrap_or_default().to_owned()
}

/// Uploads a dump with a file of each size, and asks `etag` about the same bytes: the ETags must be the store's.
fn assert_equals_the_store(endpoint: &Endpoint, stored: impl Fn(&str) -> String) {
    let sandbox = Sandbox::new();
    let prefix = ["--prefix", "p", "--part-size", "5MiB"];
    let upload = sandbox.mydumper2s3().upload_to(endpoint).args(prefix).start();
    let mut dumper = FakeDumper::start(&sandbox, Generation::V1_0);
    dumper.file_of("s.t-schema.sql", "CREATE TABLE t (i INT);\n");
    for size in BOUNDARIES {
        dumper.file_of(format!("s.t.{size:05}.sql"), bytes(size));
    }
    dumper.finish_and_exit();
    upload.finish().assert_status(0);
    for size in BOUNDARIES {
        let path = sandbox.path("local");
        std::fs::write(&path, bytes(size)).expect("a file");
        let said = etag(&sandbox, [path.as_path()]).args(["--part-size", "5MiB"]).run().assert_status(0);
        let there = stored(&format!("p/s.t.{size:05}.sql"));
        assert_eq!(first_word(&said), there, "{size} bytes");
        let found = etag(&sandbox, [path.as_path()]).args(["--match", &there]).run().assert_status(0);
        let how = if size <= PART { "uploaded by one PUT" } else { "uploaded in parts of 5MiB" };
        assert!(found.stdout.ends_with(&format!(": {how}\n")), "{size} bytes: {found:?}");
    }
}

#[test]
fn etags_equal_those_of_the_strict_store_around_every_boundary() {
    let server = S3Server::start();
    let endpoint = endpoint(&server);
    assert_equals_the_store(&endpoint, |key| server.object(BUCKET, key).expect("uploaded").etag.clone());
}

#[test]
fn etags_equal_those_of_seaweedfs_around_every_boundary() {
    let bucket = SeaweedFs::shared().bucket("etag-boundaries");
    assert_equals_the_store(&bucket.endpoint, |key| bucket.objects(key)[key].etag.clone());
}

/// Made with another tool:
///
/// ```text
/// python3 -c '
/// from hashlib import md5
/// M = 1 << 20
/// data = (b"mydumper2s3\n" * 2 * M)[:20 * M]
/// print(md5(data).hexdigest())
/// for p in 16 * M, 8 * M, 7 * M, 6000000:
///     d = [md5(data[i:i + p]).digest() for i in range(0, len(data), p)]
///     print(p, md5(b"".join(d)).hexdigest() + "-" + str(len(d)))
/// print(md5(md5(data).digest()).hexdigest() + "-1")'
/// ```
const KNOWN: [(&str, &str); 4] = [
    ("16MiB", "e6c9d15caaf1091209c20bfee8fd8330-2"),
    ("8MiB", "556183382e6277c8c9f16c40128b2d01-3"),
    ("7MiB", "3b3e813678750c24d56f6595763bfde7-3"),
    ("6000000B", "dbba99292efaaa6ccc4a48e02997399a-4"),
];
const KNOWN_WHOLE: &str = "90561e63473398ab753fd403470331ef";
const KNOWN_ONE_PART: &str = "02e06d603b1496842016cf76606d0934-1";

fn known_file(sandbox: &Sandbox) -> std::path::PathBuf {
    let path = sandbox.path("known");
    let mut data = b"mydumper2s3\n".repeat(2 * MIB);
    data.truncate(20 * MIB);
    std::fs::write(&path, data).expect("a file");
    path
}

#[test]
fn known_etags_of_another_tool_come_out() {
    let sandbox = Sandbox::new();
    let path = known_file(&sandbox);
    for (part_size, expected) in KNOWN {
        let said = etag(&sandbox, [path.as_path()]).args(["--part-size", part_size]).run().assert_status(0);
        assert_eq!(said.stdout, format!("{expected}  {}\n", path.display()), "{part_size}");
    }
    let said = etag(&sandbox, [path.as_path()]).args(["--part-size", "20MiB"]).run().assert_status(0);
    assert_eq!(first_word(&said), KNOWN_WHOLE);
    // The upload's own default.
    assert_eq!(first_word(&etag(&sandbox, [path.as_path()]).run()), KNOWN[0].1);
}

#[test]
fn the_part_size_is_found_from_the_etag() {
    let sandbox = Sandbox::new();
    let path = known_file(&sandbox);
    // 6000000 is neither of a tool nor a whole MiB.
    for (part_size, known) in &KNOWN[..3] {
        let found = etag(&sandbox, [path.as_path()]).args(["--match", &format!("\"{known}\"")]).run().assert_status(0);
        assert_eq!(found.stdout, format!("{}: uploaded in parts of {part_size}\n", path.display()));
    }
    etag(&sandbox, [path.as_path()]).args(["--match", KNOWN_WHOLE]).run().assert_status(0).assert_says("by one PUT");
    let one = etag(&sandbox, [path.as_path()]).args(["--match", KNOWN_ONE_PART]).run().assert_status(0);
    one.assert_says("in parts, of which there is one");
    etag(&sandbox, [path.as_path()]).args(["--match", KNOWN[3].1]).run().assert_status(4).assert_says("no part size");
}

#[test]
fn one_file_that_cannot_be_read_does_not_hide_the_others() {
    let sandbox = Sandbox::new();
    let (good, gone) = (sandbox.path("good\n0  forged"), sandbox.path("gone"));
    std::fs::write(&good, "hello").expect("a file");
    let said = etag(&sandbox, [gone.as_path(), good.as_path()]).run().assert_status(1);
    // printf hello | md5sum
    assert!(said.stdout.starts_with("5d41402abc4b2a76b9719d911017c592  "), "{said:?}");
    assert_eq!(said.stdout.lines().count(), 1, "a name cannot make a line: {said:?}");
    said.assert_says("gone");
    let dir = sandbox.path("home");
    etag(&sandbox, [dir.as_path()]).run().assert_status(1).assert_says("no regular file");
}

#[test]
fn what_can_be_no_etag_of_bytes_is_refused() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("f");
    std::fs::write(&path, "hello").expect("a file");
    etag(&sandbox, [path.as_path()]).args(["--match", "abc"]).run().assert_status(2).assert_says("hint: ");
}
