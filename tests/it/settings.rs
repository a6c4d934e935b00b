//! The settings, as they are typed, and what comes of them in the bucket, in the directory and on the screen.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Encryption, Fault, Limits, Operation, S3Server};
use crate::support::sandbox::Finished;
use crate::support::stage::{MANIFEST, Stage};

const NOTHING: [&str; 0] = [];
pub const MIB: u64 = 1024 * 1024;

/// A finished dump of one small file.
pub fn small_dump(stage: &Stage) -> FakeDumper {
    dump_of(stage, &[("shop.t.00000.sql", 1_000)])
}

/// A finished dump of these files.
pub fn dump_of(stage: &Stage, files: &[(&str, u64)]) -> FakeDumper {
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    files.iter().for_each(|(name, bytes)| dumper.file(name, *bytes));
    dumper.finish_and_exit();
    dumper
}

#[test]
fn everything_can_be_set_in_the_environment() {
    let stage = Stage::new();
    let dumper = small_dump(&stage);
    let program = stage.sandbox.mydumper2s3().env("MYDUMPER2S3_DIR", stage.sandbox.dump_dir());
    let program = program.env("MYDUMPER2S3_BUCKET", BUCKET).env("MYDUMPER2S3_PREFIX", "from/the/environment");
    let program =
        program.env("MYDUMPER2S3_ENDPOINT_URL", stage.server.endpoint()).env("MYDUMPER2S3_PATH_STYLE", "true");
    let program = program.env("MYDUMPER2S3_INTERVAL", "100ms").env("MYDUMPER2S3_TAG", "job=nightly,team=db");
    program.envs(stage.server.environment()).run().assert_status(0);
    stage.assert_whole(&dumper);
    assert_eq!(stage.prefix(), "from/the/environment");
    let metadata = stage.server.object(BUCKET, "from/the/environment/metadata").expect("the commit");
    assert_eq!(metadata.attributes.tags.keys().collect::<Vec<_>>(), ["job", "team"]);
}

#[test]
fn what_is_typed_wins_over_the_environment() {
    let stage = Stage::new();
    let dumper = small_dump(&stage);
    let program = stage.upload().args(["--prefix", "typed"]).env("MYDUMPER2S3_PREFIX", "set");
    // An empty variable is not set.
    program.env("MYDUMPER2S3_BUCKET", "no-such-bucket").env("MYDUMPER2S3_KEEP", "").run().assert_status(0);
    stage.assert_whole(&dumper);
    assert_eq!(stage.prefix(), "typed");
}

/// Nothing is asked of the store before the settings make sense, and each refusal says which one it was.
#[test]
fn wrong_values_are_refused_by_name() {
    let stage = Stage::new();
    for [option, value] in [
        ["--settle", "soon"],
        ["--wait", "-1"],
        ["--idle-timeout", "0"],
        ["--pid", "0"],
        ["--prefix", "a//b"],
        ["--prefix", "{nobody}"],
        ["--workers", "0"],
        ["--workers", "1000"],
        ["--part-size", "1MiB"],
        ["--part-size", "16 elephants"],
        ["--max-parts", "10001"],
        ["--limit-rate", "50"],
        ["--tag", "no-value"],
        ["--sse", "rot13"],
        ["--log-format", "xml"],
        ["--metrics-file", "/tmp/no-prom-file"],
    ] {
        let finished = stage.upload_with_defaults().args([option, value]).run().assert_status(2);
        assert!(finished.stderr.contains(option), "{option} {value}: {finished:?}");
    }
    let inside = stage.sandbox.dump_dir().join("status");
    stage.upload().arg("--exit-status-file").arg(inside).run().assert_status(2).assert_says("in the dump directory");
    let inside = stage.sandbox.dump_dir().join("m.prom");
    stage.upload().arg("--metrics-file").arg(inside).run().assert_status(2).assert_says("in the dump directory");
    stage.upload_with_defaults().env("MYDUMPER2S3_INTERVAL", "never").run().assert_status(2).assert_says("INTERVAL");
    stage.upload().args(["--sse-kms-key-id", "k"]).run().assert_status(2).assert_says("--sse aws:kms");
    assert_eq!(stage.server.requests().len(), 0);
}

#[test]
fn a_dump_is_waited_for_as_long_as_it_was_said() {
    let stage = Stage::new();
    let begun = Instant::now();
    let finished = stage.upload().args(["--wait", "1.5"]).run().assert_status(3);
    finished.assert_says("no dump found").assert_says("within 1.5 s").assert_says("--wait");
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    assert_eq!(stage.server.keys(BUCKET), [] as [String; 0]);
}

/// "The default is `{host}/%Y-%m-%dT%H%M%SZ`, so that the nightly cron job with no prefix just works."
#[test]
fn two_nights_with_the_same_command_are_two_dumps_side_by_side() {
    let stage = Stage::new();
    let host = rustix::system::uname().nodename().to_str().expect("a host name").to_owned();
    let mut nights = Vec::new();
    for day in ["02", "03"] {
        let mut dumper = FakeDumper::launch(&stage.sandbox);
        dumper.create_metadata(Generation::V0_10);
        dumper.write_started_at(&format!("2026-01-{day} 02:00:01"));
        dumper.file("shop.t.sql", 1_000);
        dumper.finish_and_exit();
        stage.upload().run().assert_status(0);
        stage.sandbox.assert_local_names(NOTHING);
        nights.push((format!("{host}/2026-01-{day}T020001Z"), dumper));
    }
    assert_eq!(stage.prefixes(), [&*nights[0].0, &*nights[1].0]);
    for (prefix, dumper) in &nights {
        stage.assert_whole_at(prefix, dumper);
    }
}

/// As the Python tool did it: the bucket's root. Directories beside the dump are somebody else's.
#[test]
fn a_dump_can_go_to_the_root_of_the_bucket() {
    let stage = Stage::new();
    stage.server.put_directly(BUCKET, "other/metadata", b"of somebody else");
    let dumper = small_dump(&stage);
    stage.upload().args(["--prefix", ""]).run().assert_status(0);
    let mut keys: BTreeSet<_> = stage.server.keys(BUCKET).into_iter().collect();
    assert!(keys.remove(MANIFEST) && keys.remove("other/metadata"));
    assert_eq!(keys, dumper.files().into_keys().collect());
}

/// "`--replace-incomplete` clears a prefix that has no `metadata`; `--overwrite` any."
#[test]
fn a_prefix_is_cleared_where_that_is_wished() {
    let stage = Stage::new();
    let upload = || stage.upload().args(["--prefix", "nightly"]);
    stage.server.put_directly(BUCKET, "nightly/shop.left.00000.sql", b"of a dump that failed");
    let first = small_dump(&stage);
    let finished = upload().run().assert_status(2).assert_says("it holds other objects");
    finished.assert_says("hint:").assert_says("--replace-incomplete").assert_says("--overwrite");
    upload().arg("--replace-incomplete").run().assert_status(0);
    stage.assert_whole(&first);

    let second = dump_of(&stage, &[("shop.u.00000.sql", 1_000)]);
    upload().arg("--replace-incomplete").run().assert_status(2).assert_says("it holds another dump");
    stage.assert_whole_at("nightly", &first);
    // Nor is a whole dump taken for half of one where a listing leaves its `metadata` out.
    stage.server.hide_from_listings(BUCKET, "nightly/metadata");
    upload().arg("--replace-incomplete").run().assert_status(2).assert_says("it holds another dump");
    let before = stage.server.requests().len();
    upload().arg("--overwrite").run().assert_status(0);
    stage.assert_whole(&second);
    // `metadata` before all else, so that half of a dump is never taken for a whole one.
    let requests = stage.server.requests().split_off(before);
    let deletes = [Operation::DeleteObject, Operation::DeleteObjects];
    let deleted: Vec<_> = requests.iter().filter(|request| deletes.contains(&request.operation)).collect();
    assert_eq!(deleted[0].key, "nightly/metadata");
}

/// What no dump can have made is never deleted.
#[test]
fn a_prefix_with_foreign_objects_is_not_cleared() {
    let stage = Stage::new();
    stage.server.put_directly(BUCKET, "nightly/holiday.jpg", b"a picture");
    stage.server.put_directly(BUCKET, "nightly/metadata", b"a dump's");
    small_dump(&stage);
    let upload = stage.upload().args(["--prefix", "nightly", "--overwrite"]);
    upload.run().assert_status(2).assert_says("holiday.jpg");
    assert_eq!(stage.server.keys(BUCKET), ["nightly/holiday.jpg", "nightly/metadata"]);
}

#[test]
fn files_stay_where_that_is_wished() {
    let stage = Stage::new();
    let dumper = small_dump(&stage);
    stage.upload().arg("--keep").run().assert_status(0);
    stage.assert_whole_at(&stage.prefix(), &dumper);
    assert_eq!(stage.sandbox.local_files(), dumper.files());
    // The bucket has it already: nothing is uploaded again, and without `--keep` it is tidied up.
    let before = stage.server.count(Operation::PutObject);
    stage.upload().args(["--keep", "--wait", "0"]).run().assert_status(0);
    assert_eq!(stage.sandbox.local_files(), dumper.files());
    stage.upload().args(["--wait", "0"]).run().assert_status(0).assert_says("has this dump already");
    stage.assert_whole(&dumper);
    assert_eq!(stage.server.count(Operation::PutObject), before);
}

#[test]
fn a_missing_bucket_is_created_where_that_is_wished() {
    let stage = Stage::with(S3Server::builder().bucket("another").start());
    small_dump(&stage);
    stage.upload().run().assert_status(2).assert_says("there is no bucket");
    stage.upload().arg("--create-bucket").run().assert_status(0).assert_says("created the bucket");
    assert!(stage.has("metadata"));
}

/// Everything under the prefix, whether it went up in one request or in parts, and our own object, too.
#[test]
fn objects_are_as_they_were_wished() {
    let stage = Stage::new();
    let dumper = dump_of(&stage, &[("shop.t.00000.sql", 1_000), ("shop.u.00000.sql", 11 * MIB)]);
    let options =
        ["--part-size", "5MiB", "--storage-class", "STANDARD_IA", "--sse", "aws:kms", "--sse-kms-key-id", "k1"];
    let tags = ["--tag", "job=nightly dump", "--tag", "odd=a+b/c:d@e", "--acl", "bucket-owner-full-control"];
    stage.upload().args(options).args(tags).run().assert_status(0);
    let is_begun = |operation| matches!(operation, Operation::PutObject | Operation::CreateMultipartUpload);
    for request in stage.server.requests().iter().filter(|request| is_begun(request.operation)) {
        assert_eq!(request.header("x-amz-acl"), Some("bucket-owner-full-control"), "{}", request.key);
    }
    stage.assert_whole(&dumper);
    let keys = stage.server.keys(BUCKET);
    assert_eq!(keys.len(), 4);
    for key in keys {
        let object = stage.server.object(BUCKET, &key).expect("an object that was listed");
        let attributes = &object.attributes;
        assert_eq!(attributes.storage_class.as_deref(), Some("STANDARD_IA"), "{key}");
        assert_eq!(attributes.encryption, Encryption::Kms { key_id: "k1".into() }, "{key}");
        let tags: Vec<_> = attributes.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(tags, ["job=nightly dump", "odd=a+b/c:d@e"], "{key}");
        assert!(attributes.metadata.contains_key("dump-id"), "{key}: {:?}", attributes.metadata);
        let parts = key.ends_with("/shop.u.00000.sql").then_some(3);
        assert_eq!(object.parts_count, parts, "{key}");
        assert_eq!(attributes.metadata.get("part-size").map(String::as_str), parts.map(|_| "5242880"), "{key}");
    }
}

/// "With SSE-KMS (asked for, or the bucket's default, seen in the answer) the ETag is none: then Content-MD5 on every
/// request and the size are the proof, and the manifest says so."
#[test]
fn in_a_bucket_with_kms_the_proof_is_content_md5() {
    let stage = Stage::new();
    stage.server.set_default_encryption(BUCKET, Encryption::Kms { key_id: "the bucket's".into() });
    // Damage on the way is found by the store.
    let operations = [Operation::PutObject, Operation::UploadPart];
    let damaged = stage.server.inject(Fault::damage_in_transit().on_any_of(operations).after(1).times(2));
    let dumper = dump_of(&stage, &[("shop.t.00000.sql", 1_000), ("shop.u.00000.sql", 11 * MIB)]);
    stage.upload().args(["--part-size", "5MiB"]).run().assert_status(0);
    assert_eq!(damaged.hits(), 2);
    stage.assert_whole(&dumper);
    for request in stage.server.requests().iter().filter(|request| operations.contains(&request.operation)) {
        assert!(request.has_content_md5(), "{} without Content-MD5", request.key);
    }
    for file in stage.manifest()["files"].as_array().expect("files").iter().filter(|file| file["name"] != "metadata") {
        assert_eq!(file["proof"], "content-md5", "{file}");
    }
}

/// Where the ETag is an MD5 it is compared as well, and no request has what some stores refuse.
#[test]
fn every_request_lets_the_store_refuse_damaged_bytes() {
    let stage = Stage::new();
    let dumper = dump_of(&stage, &[("shop.t.00000.sql", 0), ("shop.u.00000.sql", 11 * MIB)]);
    stage.upload().args(["--part-size", "5MiB"]).run().assert_status(0);
    stage.assert_whole(&dumper);
    let operations = [Operation::PutObject, Operation::UploadPart];
    for request in stage.server.requests().iter().filter(|request| operations.contains(&request.operation)) {
        assert!(request.has_content_md5() && !request.is_aws_chunked(), "{request:?}");
        assert!(!request.headers.keys().any(|name| name.as_str().starts_with("x-amz-checksum")), "{request:?}");
    }
    let manifest = stage.manifest();
    let proof = |name| {
        let files = manifest["files"].as_array().expect("files").iter();
        files.filter(|file| file["name"] == name).map(|file| file["proof"].clone()).next()
    };
    assert_eq!(proof("shop.t.00000.sql"), Some("etag-md5".into()));
    assert_eq!(proof("shop.u.00000.sql"), Some("etag-composite".into()));
}

/// "Single PUT up to `--part-size`, multipart above, several parts of one file at once."
#[test]
fn the_parts_of_one_file_are_uploaded_side_by_side() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().on(Operation::UploadPart));
    let dumper = dump_of(&stage, &[("shop.large.00000.sql", 21 * MIB), ("shop.exact.00000.sql", 5 * MIB)]);
    let run = stage.upload().args(["--part-size", "5MiB", "--workers", "3"]).start();
    held.wait_for_hits(3);
    held.clear();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    assert!(stage.server.peak_requests_in_flight() <= 4);
    let operations = |name| stage.uploads_of(name).iter().map(|request| request.operation).collect::<Vec<_>>();
    assert_eq!(operations("shop.exact.00000.sql"), [Operation::PutObject]);
    assert_eq!(operations("shop.large.00000.sql")[1..], [Operation::UploadPart; 5]);
}

/// "The part size grows so that `--max-parts` are enough."
#[test]
fn parts_grow_where_a_store_takes_few() {
    let stage = Stage::with(S3Server::builder().limits(Limits { max_parts: 3, ..Limits::default() }).start());
    let dumper = dump_of(&stage, &[("shop.large.00000.sql", 40 * MIB)]);
    stage.upload().args(["--part-size", "5MiB", "--max-parts", "3"]).run().assert_status(0);
    stage.assert_whole(&dumper);
    let prefix = stage.prefix();
    let object = stage.server.object(BUCKET, &format!("{prefix}/shop.large.00000.sql")).expect("the file");
    assert_eq!(object.parts_count, Some(3));
}

/// All files together; bytes that went over the wire, in the time from the first to the last.
#[test]
fn the_rate_is_limited() {
    const RATE: f64 = 1024.0 * 1024.0;
    let stage = Stage::new();
    let dumper = dump_of(&stage, &[("shop.t.00000.sql", 2 * MIB), ("shop.u.00000.sql", 2 * MIB)]);
    stage.upload().args(["--limit-rate", "1MiB", "--workers", "2"]).run().assert_status(0);
    stage.assert_whole(&dumper);
    let mut requests = stage.uploads_of("shop.t.00000.sql");
    requests.extend(stage.uploads_of("shop.u.00000.sql"));
    let bytes: u64 = requests.iter().map(|request| request.received).sum();
    assert_eq!(bytes, 4 * MIB);
    let first = requests.iter().map(|request| request.arrived).min().expect("a request");
    let last =
        requests.iter().map(|request| request.arrived + request.took.expect("its end")).max().expect("a request");
    let seconds = (last - first).as_secs_f64();
    // The first piece of each request is paid for before the server sees it; and on a loaded machine it sees that late.
    let most = RATE * seconds + 4.0 * 256.0 * 1024.0;
    assert!(bytes as f64 <= most, "{bytes} bytes in {seconds} s");
}

#[test]
fn quiet_prints_nothing_where_all_is_well() {
    let stage = Stage::new();
    let run = stage.upload().args(["-q", "--", "mydumper"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.log("mydumper says something");
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    let finished = run.finish().assert_status(0);
    assert_eq!(finished.text(), "");

    // Where it is not, all that was kept back is said.
    let run = stage.upload().args(["-q", "--", "mydumper"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.log("mydumper says something");
    dumper.exit(1);
    run.finish().assert_status(3).assert_says("mydumper says something").assert_says("left no dump");
}

#[test]
fn each_line_of_a_json_log_is_an_object() {
    let objects = |finished: &Finished| -> Vec<Value> {
        assert_eq!(finished.stdout, "");
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        finished.stderr.lines().map(parse).collect()
    };
    let stage = Stage::new();
    let run = stage.upload().args(["-vv", "--log-format", "json", "--", "mydumper"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.log("a \"line\" of mydumper\t\u{1b}[0m");
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    let lines = objects(&run.finish().assert_status(0));
    let summary = lines.iter().find(|line| line["event"] == "summary").expect("a summary");
    assert_eq!(summary["exit_status"], 0);
    assert_eq!(summary["files"], 2);
    assert_eq!(summary["bytes"], dumper.files().values().map(Vec::len).sum::<usize>());
    assert_eq!(summary["mydumper_exit_status"], 0);
    assert_eq!(summary["destination"], format!("s3://{BUCKET}/{}/", stage.prefix()));
    assert_eq!(summary["manifest_sha256"].as_str().map(str::len), Some(64));
    assert!(lines.iter().any(|line| line["message"] == "a \"line\" of mydumper\t\u{1b}[0m"));
    assert!(lines.iter().all(|line| line["timestamp"].is_string()));

    let failed = stage.upload().args(["--log-format", "json", "--wait", "0"]).run().assert_status(3);
    let lines = objects(&failed);
    assert_eq!(lines.last().expect("a line")["exit_status"], 3);
    let refused =
        stage.upload().args(["--log-format", "json"]).env("AWS_SECRET_ACCESS_KEY", "x").run().assert_status(2);
    assert_eq!(objects(&refused).last().expect("a line")["event"], "error");
}

/// The summary: "files, bytes, duration, rate, peak local disk, exit status of mydumper or that it was not seen, the
/// destination, the manifest's SHA-256."
#[test]
fn the_summary_says_what_a_person_wants_to_know() {
    let stage = Stage::new();
    small_dump(&stage);
    let finished = stage.upload().run().assert_status(0);
    let manifest =
        stage.server.object(BUCKET, &format!("{}/{MANIFEST}", stage.prefix())).expect("the manifest").bytes();
    let sha256 = sha256_of(&stage, &manifest);
    let destination = format!("s3://{BUCKET}/{}/", stage.prefix());
    for words in ["destination", "files", "bytes", "duration", "peak local disk", "not seen", &destination, &sha256] {
        assert!(finished.stderr.contains(words), "'{words}' is missing: {finished:?}");
    }
}

/// By a program of the system: not ours.
fn sha256_of(stage: &Stage, bytes: &[u8]) -> String {
    let file = stage.sandbox.path("bytes");
    std::fs::write(&file, bytes).expect("a file");
    let finished = stage.sandbox.program("sha256sum").arg(&file).run().assert_status(0);
    finished.stdout.split_whitespace().next().expect("a hash").to_owned()
}

#[test]
fn metrics_are_written_also_of_a_failure_and_the_last_success_survives_it() {
    let stage = Stage::new();
    let file = stage.sandbox.path("mydumper2s3.prom");
    let metric = |name: &str| -> Option<f64> {
        let text = std::fs::read_to_string(&file).expect("the metrics");
        let line = text.lines().find(|line| line.starts_with(&format!("mydumper2s3_{name}{{")))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    let upload = || stage.upload().args(["--wait", "0"]).arg("--metrics-file").arg(&file);
    upload().run().assert_status(3);
    assert_eq!((metric("exit_status"), metric("last_success_timestamp_seconds")), (Some(3.0), None));
    let dumper = small_dump(&stage);
    upload().run().assert_status(0);
    let bytes = dumper.files().values().map(Vec::len).sum::<usize>() as f64;
    assert_eq!((metric("exit_status"), metric("files"), metric("bytes")), (Some(0.0), Some(2.0), Some(bytes)));
    assert!(metric("peak_local_bytes").is_some_and(|peak| peak > 0.0));
    let success = metric("last_success_timestamp_seconds").expect("a success");
    upload().env("AWS_SECRET_ACCESS_KEY", "wrong").run().assert_status(2);
    assert_eq!(metric("exit_status"), Some(2.0));
    assert_eq!(metric("last_success_timestamp_seconds"), Some(success));
    let left = std::fs::read_dir(stage.sandbox.path("")).expect("the sandbox").flatten();
    assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().ends_with(".tmp")).count(), 0);
}

/// "Unreadable files; names that make no valid key; symlinks, FIFOs, directories: each gets a clear message, nothing is
/// lost, the rest goes on, the exit status tells."
#[test]
fn what_cannot_be_uploaded_is_named_and_the_rest_goes_on() {
    let too_long = format!("shop.{}.sql", "x".repeat(240));
    type Obstacle = (&'static str, Box<dyn Fn(&mut FakeDumper)>, &'static [u8]);
    let name = too_long.clone();
    let obstacles: [Obstacle; 7] = [
        ("a symbolic link", Box::new(|dumper| dumper.symlink("/etc/hostname", "shop.l.sql")), b"shop.l.sql"),
        ("a directory", Box::new(|dumper| dumper.mkdir("shop.d.sql")), b"shop.d.sql"),
        ("a FIFO", Box::new(|dumper| dumper.fifo("shop.f.sql")), b"shop.f.sql"),
        ("control character", Box::new(|dumper| dumper.file("shop.a\nb.sql", 10)), b"shop.a\nb.sql"),
        ("not UTF-8", Box::new(|dumper| dumper.file(OsStr::from_bytes(b"shop.\xff.sql"), 10)), b"shop.\xff.sql"),
        ("kept for the manifest", Box::new(|dumper| dumper.file(MANIFEST, 10)), MANIFEST.as_bytes()),
        ("longer than", Box::new(move |dumper| dumper.file(&name, 10)), b"too long"),
    ];
    for (words, put, name) in obstacles {
        let name = if name == b"too long" { too_long.as_bytes() } else { name };
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.file("shop.good.00000.sql", 1_000);
        put(&mut dumper);
        dumper.finish_and_exit();
        let prefix = ["p".repeat(250), "q".repeat(250), "r".repeat(250), "s".repeat(25)].join("/");
        let upload = || stage.upload().args(["--prefix", &prefix]);
        let finished = upload().run().assert_status(1).assert_says(words);
        // Said in a form that cannot break the line.
        let shown = String::from_utf8_lossy(name).escape_debug().to_string();
        assert!(finished.stderr.contains(&shown), "{shown}: {finished:?}");
        assert_eq!(stage.names(), ["shop.good.00000.sql"]);
        let left: BTreeSet<_> = stage.sandbox.local_names().into_iter().collect();
        assert_eq!(left, [OsStr::new("metadata"), OsStr::from_bytes(name)].map(OsStr::to_owned).into());
        // Mended, and run again.
        let path = stage.sandbox.dump_dir().join(OsStr::from_bytes(name));
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).expect("the obstacle");
        upload().run().assert_status(0);
        stage.sandbox.assert_local_names(NOTHING);
        assert_eq!(stage.names(), ["metadata", "shop.good.00000.sql"]);
    }
}

#[test]
fn needs_root_an_unreadable_file_is_named_and_the_rest_goes_on() {
    let stage = Stage::new();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    mode(&stage.sandbox.dump_dir(), 0o777);
    let dumper = dump_of(&stage, &[("shop.bad.00000.sql", 1_000), ("shop.good.00000.sql", 1_000)]);
    mode(&stage.sandbox.dump_dir().join("shop.bad.00000.sql"), 0o600);
    let finished = stage.upload().by_nobody().run().assert_status(1);
    finished.assert_says("'shop.bad.00000.sql': cannot read it").assert_says("hint:");
    assert_eq!(stage.names(), ["shop.good.00000.sql"]);
    // What is removed could not be written down on the lead of another user, so all stays until the commit.
    stage.sandbox.assert_local_names(["metadata", "shop.bad.00000.sql", "shop.good.00000.sql"]);
    mode(&stage.sandbox.dump_dir().join("shop.bad.00000.sql"), 0o644);
    stage.upload().by_nobody().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "0.10.1 keeps odd table names as they are (spaces, `#`, `%`, dots, non-ASCII)."
#[test]
fn odd_names_arrive_as_they_are() {
    let stage = Stage::new();
    // As long as a file name can be.
    let longest = format!("shop.{}.sql", "x".repeat(246));
    let odd = ["shop.two words.sql", "#shop.50%.sql", "shop.größe.sql", "shop.a+b&c=d?.sql", "shop.'q\"uote.sql"];
    let names = odd.into_iter().chain([longest.as_str()]);
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = stage.upload().args(["--part-size", "5MiB"]).start();
    names.for_each(|name| dumper.file(name, 6 * MIB));
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}
