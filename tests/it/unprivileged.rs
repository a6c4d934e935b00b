//! Watching a dump of somebody else: where it cannot be seen who writes a file, nothing half-written is uploaded, and
//! nothing is removed early.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::Operation;
use crate::support::sandbox::eventually;
use crate::support::stage::{MANIFEST, Stage};

/// Whoever may write into a directory may remove files from it, also those of others.
pub fn open_to_all(dir: &Path) {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).expect("rights for all");
}

/// "Said once, as a warning that names both user ids and the remedy."
const WARNING: &str = "nothing is uploaded before the dump has ended";

/// A dump with a file that is closed and one that is being written.
fn half_way(stage: &Stage) -> FakeDumper {
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.a.00000.sql", 1_000);
    dumper.open("shop.b.00000.sql");
    dumper.write("shop.b.00000.sql", 1_000);
    dumper
}

/// Whether the bucket was asked to take nothing but the claim before the dump came to its end.
#[track_caller]
fn assert_nothing_taken(stage: &Stage, before_the_end: Instant) {
    let files = stage.server.requests_of(Operation::PutObject).into_iter().filter(|put| !put.key.ends_with(MANIFEST));
    let early: Vec<_> = files.filter(|request| request.arrived < before_the_end).map(|request| request.key).collect();
    assert_eq!(early, [] as [String; 0]);
}

/// Not the owner, so no lease; and another user's open files are not to be seen.
#[test]
fn needs_root_another_user_waits_for_the_end_of_the_dump() {
    let stage = Stage::new();
    open_to_all(&stage.sandbox.dump_dir());
    let mut dumper = half_way(&stage);
    let mut run = stage.upload().by_nobody().start();
    let warning = run.wait_for_line(WARNING);
    assert!(warning.contains("user id is 0, ours is 65534") && warning.contains("same user"), "{warning}");
    // It looks, and leaves all as it is.
    stage.let_looks_pass();
    assert_eq!(stage.sandbox.local_files(), dumper.files());
    dumper.write("shop.b.00000.sql", 1_000);
    dumper.close("shop.b.00000.sql");
    let before_the_end = Instant::now();
    dumper.finish_and_exit();
    let finished = run.finish().assert_status(0);
    assert_nothing_taken(&stage, before_the_end);
    assert_eq!(finished.text().matches(WARNING).count(), 1);
    stage.assert_whole(&dumper);
    assert_eq!(stage.manifest()["closed_by"], "end");
    assert_eq!(stage.manifest()["dumper_exit"]["seen"], "pidfd", "a pidfd tells other users, too");
}

#[test]
fn needs_root_another_user_sees_that_the_dumper_was_killed() {
    let stage = Stage::new();
    open_to_all(&stage.sandbox.dump_dir());
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().by_nobody().start();
    run.wait_for_line(WARNING);
    dumper.file("shop.a.00000.sql", 1_000);
    dumper.kill();
    run.finish().assert_status(3).assert_says("signal 9");
    stage.assert_incomplete(["shop.a.00000.sql"]);
    stage.sandbox.assert_local_names([] as [&str; 0]);
}

/// Neither its files nor its process are to be seen: only `metadata` tells the end.
#[test]
fn needs_root_another_user_in_another_pid_namespace_waits_for_metadata() {
    let stage = Stage::new();
    open_to_all(&stage.sandbox.dump_dir());
    let mut dumper = half_way(&stage);
    let upload = stage.upload().by_nobody();
    let mut run = upload.wrapped_in(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]).start();
    run.wait_for_line(WARNING);
    stage.let_looks_pass();
    dumper.close("shop.b.00000.sql");
    let before_the_end = Instant::now();
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("not seen");
    assert_nothing_taken(&stage, before_the_end);
    stage.assert_whole(&dumper);
    assert_eq!(stage.manifest()["dumper_exit"]["seen"], "not-seen");
}

/// The owner has leases, which see writers in every PID namespace.
#[test]
fn needs_root_a_writer_in_another_pid_namespace_is_seen_by_lease() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::launch_wrapped_in(&stage.sandbox, ["unshare", "--pid", "--fork"]);
    dumper.begin(Generation::V1_0);
    let mut run = stage.upload().wrapped_in(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]).start();
    run.wait_for_line("found a dump (running)");
    dumper.open("shop.b.00000.sql");
    dumper.write("shop.b.00000.sql", 1_000);
    stage.let_looks_pass();
    assert_eq!(stage.uploads_of("shop.b.00000.sql").len(), 0, "it is being written");
    assert!(run.is_running());
    dumper.close("shop.b.00000.sql");
    stage.wait_until_moved("shop.b.00000.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("not seen");
    stage.assert_whole(&dumper);
    assert_eq!(stage.manifest()["closed_by"], "lease");
}

/// `/proc` shows a dumper whose open files cannot be read: that is not "nothing is open".
#[test]
fn needs_root_with_the_pid_alone_nothing_half_written_is_taken() {
    let stage = Stage::new();
    open_to_all(&stage.sandbox.dump_dir());
    let mut dumper = half_way(&stage);
    let pid = dumper.pid().as_raw_nonzero().to_string();
    let mut run = stage.upload().args(["--pid", &pid]).by_nobody().start();
    run.wait_for_line(WARNING);
    stage.let_looks_pass();
    dumper.close("shop.b.00000.sql");
    let before_the_end = Instant::now();
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    assert_nothing_taken(&stage, before_the_end);
    stage.assert_whole(&dumper);
}

/// A directory in which nothing may be removed is found on `metadata.partial`, not at the end.
#[test]
fn needs_root_a_directory_that_is_not_ours_to_empty_is_refused_at_once() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 1_000);
    let refused = stage.upload().by_nobody().run().assert_status(2);
    refused.assert_says("could not be removed").assert_says("--keep");
    assert_eq!(stage.server.count(Operation::PutObject), 0);

    // Sticky, as /tmp is: others may write there, but not remove.
    let sticky = std::fs::Permissions::from_mode(0o1777);
    std::fs::set_permissions(stage.sandbox.dump_dir(), sticky).expect("a sticky directory");
    stage.upload().by_nobody().run().assert_status(2).assert_says("sticky");
    dumper.finish_and_exit();
    stage.upload().by_nobody().run().assert_status(2).assert_says("sticky");
    assert_eq!(stage.server.count(Operation::PutObject), 0);

    stage.upload().arg("--keep").by_nobody().run().assert_status(0);
    stage.assert_whole_at(&stage.prefix(), &dumper);
    eventually("all is still there", || stage.sandbox.local_files() == dumper.files());
}
