//! What the program promises, each promise a test that quotes it; and its exit statuses.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Signal;

use crate::support::dir_watch::DirWatch;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, Operation};
use crate::support::sandbox::{Sandbox, eventually};
use crate::support::stage::{MANIFEST, Stage};

const NOTHING: [&str; 0] = [];
const MIB: u64 = 1024 * 1024;

/// Promise 1: "A file that may still be written is never uploaded. Where we cannot tell, nothing is ready."
#[test]
fn a_file_that_may_still_be_written_is_never_uploaded() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = stage.upload().start();
    dumper.open("shop.open.00000.sql");
    dumper.write("shop.open.00000.sql", 50_000);
    dumper.file("shop.closed.00000.sql", 50_000);
    stage.wait_until_moved("shop.closed.00000.sql");
    // It rests for long, but it is open.
    stage.let_looks_pass();
    assert_eq!(stage.uploads_of("shop.open.00000.sql").len(), 0);
    dumper.write("shop.open.00000.sql", 50_000);
    dumper.close("shop.open.00000.sql");
    stage.wait_until_moved("shop.open.00000.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Promise 1, its second half: another user can neither take leases nor see who has a file open.
#[test]
fn needs_root_where_we_cannot_tell_nothing_is_ready() {
    let stage = Stage::new();
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(stage.sandbox.dump_dir(), everybody).expect("rights for all");
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.closed.00000.sql", 50_000);
    let mut run = stage.upload().by_nobody().start();
    run.wait_for_line("it cannot be known which files are closed");
    stage.let_looks_pass();
    assert_eq!(stage.uploads_of("shop.closed.00000.sql").len(), 0);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Promise 2: "A local file is removed only after the store has proved that it holds the same bytes, …"
#[test]
fn a_local_file_is_removed_only_after_the_proof() {
    let stage = Stage::new();
    let is_file = |key: &str| key.ends_with("/shop.t.00000.sql");
    let local = stage.sandbox.dump_dir().join("shop.t.00000.sql");
    // Refused on its way, and then stored, but nobody says as what.
    let damaged = stage.server.inject(Fault::damage_in_transit().on(Operation::PutObject).key_where(is_file).times(2));
    let writes = [Operation::PutObject, Operation::HeadObject];
    let wrong = stage.server.inject(Fault::wrong_etag().on_any_of(writes).key_where(is_file));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = stage.upload().start();
    dumper.file("shop.t.00000.sql", 100_000);
    damaged.wait_for_hits(2);
    wrong.wait_for_hits(4);
    stage.let_looks_pass();
    assert!(local.exists(), "removed on a wrong ETag");
    let held = stage.server.inject(Fault::store_then_hold().on(Operation::PutObject).key_where(is_file));
    wrong.clear();
    held.wait_for_hits(1);
    assert!(local.exists(), "removed before the answer");
    held.clear();
    stage.wait_until_moved("shop.t.00000.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("its ETag is 00000000000000000000000000000bad, and must be");
    stage.assert_whole(&dumper);
}

/// Promise 2: "… and only if the file is still the one that was read." mydumper never writes a closed file again; if
/// anybody does, what was read is not what is there.
#[test]
fn a_local_file_is_removed_only_if_it_is_the_one_that_was_read() {
    let stage = Stage::new();
    let is_file = |key: &str| key.ends_with(".00000.sql");
    let held = stage.server.inject(Fault::store_then_hold().on(Operation::PutObject).key_where(is_file).times(2));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = stage.upload().start();
    dumper.file("shop.longer.00000.sql", 1_000);
    dumper.file("shop.another.00000.sql", 1_000);
    held.wait_for_hits(2);
    dumper.reopen("shop.longer.00000.sql");
    dumper.write("shop.longer.00000.sql", 1_000);
    dumper.close("shop.longer.00000.sql");
    dumper.file_of("in.its.place.00000.sql", "other bytes");
    dumper.rename("in.its.place.00000.sql", "shop.another.00000.sql");
    held.clear();
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("it changed while it was");
    stage.assert_whole(&dumper);
}

/// Promise 3: "A file is in the queue at most once: it is marked as uploading in the same locked step that finds it,
/// before it is pushed."
#[test]
fn a_file_is_in_the_queue_at_most_once() {
    const FILES: usize = 40;
    let stage = Stage::new();
    // All workers are busy, so the queue is full and the rest waits for it; and the directory is looked at on and on.
    let held = stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(".sql")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = stage.upload().args(["--workers", "2"]).start();
    let names: Vec<String> = (0..FILES).map(|index| format!("shop.t.{index:05}.sql")).collect();
    names.iter().for_each(|name| dumper.file(name, 1_000));
    held.wait_for_hits(2);
    stage.let_looks_pass();
    held.clear();
    names.iter().for_each(|name| stage.wait_until_moved(name));
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    for name in names {
        assert_eq!(stage.uploads_of(&name).len(), 1, "{name}");
    }
}

/// Promise 4: "`metadata` is uploaded last, only when everything else is verified and the dump is known to have ended
/// well, as far as mydumper's exit status could be seen; locally it is removed last."
#[test]
fn metadata_is_uploaded_last_and_removed_last() {
    let stage = Stage::new();
    let last_file = stage.server.inject(Fault::store_then_hold().key_where(|key| key.ends_with("/shop.t.00009.sql")));
    let commit = stage.server.inject(Fault::store_then_hold().key_where(|key| key.ends_with("/metadata")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = stage.upload().start();
    for index in 0..10 {
        dumper.file(format!("shop.t.{index:05}.sql"), 1_000);
    }
    dumper.finish_and_exit();
    last_file.wait_for_hits(1);
    stage.let_looks_pass();
    assert_eq!(stage.uploads_of("metadata").len(), 0, "a file is not verified yet");
    assert_eq!(stage.manifest()["state"], "uploading");
    last_file.clear();
    commit.wait_for_hits(1);
    stage.sandbox.assert_local_names(["metadata"]);
    // The manifest is whole before the commit, and has the commit in it.
    assert_eq!(stage.manifest()["state"], "complete");
    stage.assert_whole_at(&stage.prefix(), &dumper);
    commit.clear();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    let writes = stage.server.requests_of(Operation::PutObject);
    let written: Vec<_> = writes.iter().map(|request| request.key.rsplit('/').next().unwrap_or_default()).collect();
    assert_eq!(written[0], MANIFEST, "the claim comes first");
    assert_eq!(written[written.len() - 2..], [MANIFEST, "metadata"]);
}

/// Promise 4 without the good end: what is there is uploaded, but not committed.
#[test]
fn metadata_is_not_uploaded_where_the_dump_has_not_ended_well() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().start();
    run.wait_for_line("found a dump (running)");
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish();
    dumper.exit(2);
    run.finish().assert_status(3).assert_says("exit status was 2");
    stage.assert_incomplete(["shop.t.00000.sql"]);
    assert_eq!(stage.uploads_of("metadata").len(), 0);
}

/// Promise 5: "Exit status 0 means: the dump is whole, and every file of it is in the bucket, verified. Nothing else
/// exits 0."
#[test]
fn exit_status_0_means_that_the_dump_is_in_the_bucket() {
    // A store that never takes one of the files.
    let stage = Stage::new();
    stage.server.inject(Fault::answer(400, "InvalidRequest").key_where(|key| key.ends_with("/shop.bad.00000.sql")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.bad.00000.sql", 1_000);
    dumper.file("shop.good.00000.sql", 1_000);
    dumper.finish_and_exit();
    let finished = stage.upload().run().assert_status(1);
    finished.assert_says("'shop.bad.00000.sql'").assert_says("InvalidRequest");
    assert_eq!(stage.names(), ["shop.good.00000.sql"], "the rest goes on");
    stage.sandbox.assert_local_names(["metadata", "shop.bad.00000.sql"]);

    stage.server.clear_faults();
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Promise 5: … the bucket is looked at before the commit: what is not there any more, or is not ours, is found.
#[test]
fn a_bucket_that_does_not_hold_exactly_the_dump_forbids_the_commit() {
    type Meddle = fn(&Stage, &str);
    let meddlers: [(Meddle, &str); 4] = [
        (|stage, prefix| stage.server.remove_directly(BUCKET, &format!("{prefix}/shop.t.00000.sql")), "is missing"),
        (
            |stage, prefix| {
                drop(stage.server.put_directly(BUCKET, &format!("{prefix}/shop.t.00000.sql"), &[b'x'; 1_000]))
            },
            "has another ETag",
        ),
        (
            |stage, prefix| drop(stage.server.put_directly(BUCKET, &format!("{prefix}/stranger.sql"), b"x")),
            "stranger.sql' is not of this dump",
        ),
        (
            |stage, prefix| drop(stage.server.put_directly(BUCKET, &format!("{prefix}/{MANIFEST}"), b"{}")),
            "another program has claimed",
        ),
    ];
    for (meddle, words) in meddlers {
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        let mut run = stage.upload().start();
        dumper.file("shop.t.00000.sql", 1_000);
        stage.wait_until_moved("shop.t.00000.sql");
        // The exit status is written into the claim: that must not be taken for the stranger's.
        let held = stage.server.inject(Fault::hold().key_where(|key| key.ends_with("/shop.u.00000.sql")));
        dumper.file("shop.u.00000.sql", 1_000);
        dumper.finish_and_exit();
        run.wait_for_line("the dump has ended");
        held.wait_for_hits(1);
        eventually("the exit status is in the claim", || stage.manifest()["dumper_exit"]["status"] == 0);
        meddle(&stage, &stage.prefix());
        held.clear();
        let finished = run.finish().assert_status(1).assert_says("the dump is not committed");
        assert!(finished.text().contains(words), "{words}: {finished:?}");
        assert!(!stage.has("metadata"));
        stage.sandbox.assert_local_names(["metadata"]);
    }
}

/// Promise 5: "What was not seen is said, not assumed."
#[test]
fn what_was_not_seen_is_said() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    dumper.file("shop.t.sql", 1_000);
    dumper.finish_and_exit();
    let finished = stage.upload().run().assert_status(0);
    let line = finished.stderr.lines().find(|line| line.trim_start().starts_with("mydumper ")).expect("its line");
    assert!(line.contains("exit status not seen"), "{line}");
    assert_eq!(stage.manifest()["dumper_exit"]["seen"], "not-seen");
    assert_eq!(stage.manifest()["seen_alive"], false);
}

/// Promise 6: "A crash, a kill or an outage at any moment loses nothing: run the same command again (without the `--`
/// part) and it goes on where it was." Here: killed at each step that changes something.
#[test]
fn a_kill_at_any_step_loses_nothing() {
    let ends_with = |end: &'static str| move |key: &str| key.ends_with(end);
    let put = Operation::PutObject;
    let steps: [(&str, Fault); 9] = [
        ("before the claim", Fault::hold().on(put).key_where(ends_with(MANIFEST))),
        ("after the claim", Fault::store_then_hold().on(put).key_where(ends_with(MANIFEST))),
        ("before a file", Fault::hold().on(put).key_where(ends_with("/shop.a.00000.sql"))),
        ("after a file", Fault::store_then_hold().on(put).key_where(ends_with("/shop.a.00000.sql"))),
        ("amid the parts of a file", Fault::hold().on(Operation::UploadPart).part(2)),
        ("after the parts", Fault::store_then_hold().on(Operation::CompleteMultipartUpload)),
        ("after the verdict", Fault::store_then_hold().on(put).key_where(ends_with(MANIFEST)).after(2)),
        ("before the commit", Fault::hold().on(put).key_where(ends_with("/metadata"))),
        ("after the commit", Fault::store_then_hold().on(put).key_where(ends_with("/metadata"))),
    ];
    for (step, fault) in steps {
        let stage = Stage::new();
        let held = stage.server.inject(fault.once());
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        let upload = || stage.upload().args(["--part-size", "5MiB", "--wait", "0"]);
        let mut run = upload().start();
        run.wait_for_line("found a dump (running)");
        dumper.file("shop.a.00000.sql", 100_000);
        dumper.file("shop.b.00000.sql", 11 * MIB);
        dumper.finish_and_exit();
        held.wait_for_hits(1);
        run.kill().assert_killed_by(Signal::KILL);
        held.clear();

        let proved: Vec<String> = stage.server.keys(BUCKET);
        let before = stage.server.requests().len();
        upload().run().assert_status(0);
        stage.assert_whole(&dumper);
        // Nothing is uploaded twice that is proved already.
        let again = stage.server.requests().split_off(before);
        let again = again.iter().filter(|request| [put, Operation::UploadPart].contains(&request.operation));
        let again: Vec<_> = again.filter(|request| proved.contains(&request.key)).map(|request| &request.key).collect();
        let mut again: Vec<_> = again.iter().filter(|key| !key.ends_with(MANIFEST)).collect();
        again.dedup();
        assert!(again.is_empty(), "{step}: uploaded again: {again:?}");
    }
}

/// Promise 6, while the dump goes on, and with files that an earlier run has uploaded and removed.
#[test]
fn a_kill_while_the_dump_goes_on_loses_nothing() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    for round in 0..4 {
        let mut run = stage.upload().start();
        run.wait_for_line("found a dump (running)");
        let name = format!("shop.t.{round:05}.sql");
        dumper.file(&name, 10_000);
        stage.wait_until_moved(&name);
        dumper.file(format!("shop.u.{round:05}.sql"), 10_000);
        run.kill().assert_killed_by(Signal::KILL);
    }
    let run = stage.upload().start();
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    for round in 0..4 {
        assert_eq!(stage.uploads_of(&format!("shop.t.{round:05}.sql")).len(), 1);
    }
}

/// Promise 6: an outage, here of the whole store while the dump goes on, is waited out.
#[test]
fn an_outage_loses_nothing() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().start();
    dumper.file("shop.before.00000.sql", 10_000);
    stage.wait_until_moved("shop.before.00000.sql");
    stage.server.down();
    dumper.file("shop.during.00000.sql", 10_000);
    run.wait_for_line("files wait locally");
    dumper.finish_and_exit();
    run.wait_for_line("the dump has ended");
    stage.sandbox.assert_local_names(["metadata", "shop.during.00000.sql"]);
    stage.server.up();
    run.finish().assert_status(0).assert_says("the store is back");
    stage.assert_whole(&dumper);
}

/// Promise 6, where time is up: everything is where it was, and the next run goes on.
#[test]
fn an_outage_that_lasts_too_long_loses_nothing() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().args(["--retry-for", "0.5"]).start();
    run.wait_for_line("claimed");
    stage.server.down();
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_and_exit();
    run.finish().assert_status(1).assert_says("time is up");
    stage.sandbox.assert_local_names(["metadata", "shop.t.00000.sql"]);
    stage.server.up();
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Promise 7: "Memory and open connections are bounded by the settings, not by the number or size of files."
#[test]
fn memory_and_connections_are_bounded_by_the_settings() {
    let run = |files: u64, bytes: u64| {
        let stage = Stage::new();
        stage.server.set_latency(std::time::Duration::from_millis(5));
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.generate(files, bytes, 0);
        let upload = stage.upload().args(["--workers", "3"]).start();
        let peak = Arc::new(AtomicU64::new(0));
        let status = format!("/proc/{}/status", upload.pid().as_raw_nonzero());
        let watcher = {
            let peak = Arc::clone(&peak);
            std::thread::spawn(move || {
                while let Some(kib) = peak_memory(&status) {
                    peak.store(kib, Ordering::Relaxed);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            })
        };
        let last = format!("shop.orders.{:05}.sql", files - 1);
        stage.wait_until_moved(&last);
        dumper.finish_and_exit();
        upload.finish().assert_status(0);
        watcher.join().expect("the watcher");
        stage.assert_whole(&dumper);
        // Three that carry bytes, and what is asked beside them.
        let (requests, connections) = (stage.server.peak_requests_in_flight(), stage.server.peak_connections());
        assert!(requests <= 4, "{requests} requests at once");
        assert!(connections <= 3 * 3, "{connections} connections");
        peak.load(Ordering::Relaxed)
    };
    let small = run(10, 1_000);
    let (many, large) = (run(1_000, 1_000), run(1, 192 * MIB));
    println!("peak memory in KiB: {small}, with 1,000 files {many}, with one of 192 MiB {large}");
    assert!(many < small + 20 * 1024, "{small} KiB grew to {many} KiB with the number of files");
    assert!(large < small + 20 * 1024, "{small} KiB grew to {large} KiB with the size of a file");
}

/// The most that a process has had in memory, in KiB; nothing when it has ended.
fn peak_memory(status: &str) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Promise 8: "Nothing of ours is ever written into the dump directory." The kernel tells of every file that is made
/// there, renamed into it, or open for writing.
#[test]
fn nothing_of_ours_is_written_into_the_dump_directory() {
    let stage = Stage::new();
    let mut watch = DirWatch::on(&stage.sandbox.dump_dir());
    let mut run = stage.upload().args(["--part-size", "5MiB"]).start();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    run.wait_for_line("found a dump (running)");
    let names = ["shop-schema-create.sql", "shop.t-schema.sql", "shop.t.00000.sql"];
    for name in names {
        dumper.file(name, 6 * MIB);
    }
    stage.wait_until_moved(names[2]);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    let once = |names: &[&str]| -> BTreeMap<String, usize> { names.iter().map(|name| ((*name).into(), 1)).collect() };
    assert_eq!(watch.made(), once(&[&names[..], &["metadata", "metadata.partial"]].concat()));
    assert_eq!(watch.written(), once(&[&names[..], &["metadata.partial"]].concat()));
}

/// Promise 9: "A dump is never mixed with another, neither in the bucket …"
#[test]
fn a_dump_is_never_mixed_with_another_in_the_bucket() {
    let stage = Stage::new();
    let upload = || stage.upload().args(["--prefix", "nightly"]);
    let mut first = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    first.file("shop.a.00000.sql", 1_000);
    first.finish_and_exit();
    upload().run().assert_status(0);
    let before = stage.server.keys(BUCKET);

    let mut second = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    second.file("shop.b.00000.sql", 1_000);
    second.finish_and_exit();
    upload().run().assert_status(2).assert_says("it holds another dump").assert_says("hint: choose another --prefix");
    assert_eq!(stage.server.keys(BUCKET), before);
    stage.assert_whole_at("nightly", &first);
    assert_eq!(stage.sandbox.local_files(), second.files());
}

/// Promise 9, at the same time: two dumps go to one prefix, and the claim decides.
#[test]
fn of_two_dumps_that_claim_one_prefix_at_once_one_is_refused() {
    let (one, other) = (Stage::new(), Sandbox::new());
    let claims = one.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(MANIFEST)));
    let mut dumpers = [&one.sandbox, &other].map(|sandbox| FakeDumper::start(sandbox, Generation::V1_0));
    let upload = |sandbox: &Sandbox| {
        let program = sandbox.mydumper2s3().upload_to(&one.endpoint()).args(["--prefix", "nightly"]);
        program.start()
    };
    let runs = [&one.sandbox, &other].map(upload);
    // Both have found the prefix free.
    claims.wait_for_hits(2);
    claims.clear();
    for (index, dumper) in dumpers.iter_mut().enumerate() {
        dumper.file(format!("shop.t.0000{index}.sql"), 1_000);
        dumper.finish_and_exit();
    }
    let statuses = runs.map(|run| run.finish().status.code());
    let winner = statuses.iter().position(|status| *status == Some(0)).expect("one that wins");
    assert_eq!(statuses[1 - winner], Some(2));
    one.assert_whole_at("nightly", &dumpers[winner]);
    let loser = [&one.sandbox, &other][1 - winner];
    assert_eq!(loser.local_files(), dumpers[1 - winner].files());
}

/// Promise 9: "… nor from the directory." A new dump takes the old one's place while that is being committed.
#[test]
fn a_dump_is_never_mixed_with_another_from_the_directory() {
    let stage = Stage::new();
    let commit = stage.server.inject(Fault::store_then_hold().key_where(|key| key.ends_with("/metadata")));
    let mut first = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = stage.upload().start();
    first.file("shop.a.sql", 1_000);
    first.finish_and_exit();
    commit.wait_for_hits(1);
    let prefix = stage.prefix();
    let mut second = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    second.file("shop.b.sql", 1_000);
    stage.let_looks_pass();
    commit.clear();
    // The first is whole and in the bucket; the second is untouched.
    run.finish().assert_status(0);
    stage.assert_whole_at(&prefix, &first);
    assert_eq!(stage.sandbox.local_files(), second.files());
    assert!(!stage.has("shop.b.sql"));
}

/// Two programs on one directory: the second refuses, and the first's death frees the directory.
#[test]
fn two_programs_never_work_on_one_directory() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut first = stage.upload().start();
    first.wait_for_line("claimed");
    stage.upload().run().assert_status(2).assert_says("another mydumper2s3 works on");
    dumper.file("shop.t.00000.sql", 1_000);
    first.kill().assert_killed_by(Signal::KILL);
    let run = stage.upload().start();
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// The exit statuses in one place: 0 a whole dump, 1 a failure, 2 wrong usage or settings, 3 no whole dump, 128+n a
/// signal. (4 is for `verify`.)
#[test]
fn exit_statuses() {
    let stage = Stage::new();
    stage.sandbox.mydumper2s3().run().assert_status(2);
    stage.sandbox.mydumper2s3().arg("--no-such-option").run().assert_status(2);
    stage.sandbox.mydumper2s3().arg("--version").run().assert_status(0);
    stage.upload().args(["--wait", "0"]).run().assert_status(3).assert_says("no dump found");
    let mut run = stage.upload().start();
    run.wait_for_line("waiting for a dump");
    run.signal(Signal::INT);
    run.finish().assert_status(128 + 2);

    // Status 1 stands before 3 when both hold: the dump was killed, and a directory stands in the way.
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().start();
    run.wait_for_line("found a dump (running)");
    dumper.mkdir("shop.t.00000.sql");
    dumper.kill();
    run.finish().assert_status(1).assert_says("signal 9").assert_says("a directory");
    stage.sandbox.assert_local_names(["metadata.partial", "shop.t.00000.sql"]);
    std::fs::remove_dir(stage.sandbox.dump_dir().join("shop.t.00000.sql")).expect("the directory");
    stage.upload().args(["--wait", "0"]).run().assert_status(3);
    stage.sandbox.assert_local_names(NOTHING);
}
