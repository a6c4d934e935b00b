//! How a dump begins, lives and ends, and what must come of it. Each fact was seen on a real mydumper; here the scripted
//! dumper does it on command, in the order that hurts.

use std::time::Duration;

use rustix::process::Signal;

use crate::dumper_facts::{NOTHING, begun_at, following, make_old, put_of_yesterday};
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault};
use crate::support::sandbox::eventually;
use crate::support::stage::Stage;

/// "SIGKILL leaves `metadata.partial`; so does any signal with 0.10.1."
#[test]
fn a_killed_dumper_leaves_what_was_closed_in_the_bucket_and_no_metadata() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = following(stage.upload());
    dumper.file("shop.t.sql", 10_000);
    dumper.open("shop.u.sql");
    dumper.write("shop.u.sql", 5_000);
    dumper.kill();
    run.finish().assert_status(3).assert_says("signal 9");
    stage.assert_incomplete(["shop.t.sql", "shop.u.sql"]);
    // Its text is kept, and the next night finds an empty directory.
    let text = stage.manifest()["metadata_text"].as_str().expect("the text of metadata.partial").to_owned();
    assert_eq!(text.into_bytes(), dumper.content("metadata.partial"));
    stage.sandbox.assert_local_names(NOTHING);
}

/// "`metadata` there: not proof of success. It appeared, with exit status 1, after a killed connection, a full disk and
/// a pause over 60 s." Here the process is not ours: its pidfd tells.
#[test]
fn a_final_metadata_with_exit_status_1_is_seen_by_pidfd() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish();
    dumper.exit(1);
    run.finish().assert_status(3).assert_says("exit status was 1");
    stage.assert_incomplete(["shop.t.00000.sql"]);
    assert_eq!(stage.manifest()["dumper_exit"]["seen"], "pidfd");
    stage.sandbox.assert_local_names(NOTHING);
}

#[test]
fn a_final_metadata_with_exit_status_1_is_seen_in_child_mode() {
    let stage = Stage::new();
    let run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish();
    dumper.exit(1);
    run.finish().assert_status(3).assert_says("exit status was 1");
    stage.assert_incomplete(["shop.t.00000.sql"]);
    assert_eq!(stage.manifest()["dumper_exit"]["seen"], "child");
}

/// A mydumper so fast that its `metadata` is there at the first look, and that lives on for a moment (80 ms were seen):
/// its exit status is waited for all the same.
#[test]
fn the_exit_status_of_a_child_that_was_too_fast_to_be_seen_alive_counts() {
    let stage = Stage::new();
    let run = stage.upload_with_defaults().args(["--interval", "5", "--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish();
    stage.wait_until_moved("shop.t.00000.sql");
    dumper.exit(1);
    run.finish().assert_status(3).assert_says("exit status was 1");
    stage.assert_incomplete(["shop.t.00000.sql"]);
}

/// "Else from `--exit-status-file F`, into which the script writes `$?`": nothing is committed before it holds 0.
#[test]
fn an_exit_status_file_has_the_last_word() {
    for (status, expected) in [("0\n", 0), ("1\n", 3), ("not a number\n", 3)] {
        let stage = Stage::new();
        let file = stage.sandbox.path("status");
        // Of last night: it says nothing.
        std::fs::write(&file, "0\n").expect("a status file");
        make_old(&file);
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        let run = following(stage.upload().arg("--exit-status-file").arg(&file));
        dumper.file("shop.t.00000.sql", 1_000);
        dumper.finish_and_exit();
        stage.wait_until_moved("shop.t.00000.sql");
        assert!(!stage.has("metadata"), "nothing is committed before the file holds 0");
        std::fs::write(&file, status).expect("a status file");
        run.finish().assert_status(expected);
        assert_eq!(stage.has("metadata"), expected == 0);
    }
}

/// The script may write its file a moment after a sidecar that came late has found the dump finished.
#[test]
fn an_exit_status_file_is_waited_for_where_the_dump_was_found_finished() {
    let stage = Stage::new();
    let file = stage.sandbox.path("status");
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    let run = stage.upload().arg("--exit-status-file").arg(&file).start();
    stage.wait_until_moved("shop.t.00000.sql");
    std::fs::write(&file, "0\n").expect("a status file");
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// A copy's birth is later than the file that a script wrote after mydumper's end; its change is not. What was written before
/// that tells of an earlier night.
#[test]
fn an_exit_status_file_counts_for_a_copy_of_the_dump() {
    for (is_later, expected) in [(true, 0), (false, 3)] {
        let stage = Stage::new();
        let file = stage.sandbox.path("status");
        std::fs::write(&file, "0\n").expect("a status file");
        make_old(&file);
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.file("shop.t.00000.sql", 1_000);
        dumper.finish_and_exit();
        if is_later {
            std::fs::write(&file, "0\n").expect("a status file");
        }
        let copied = std::process::Command::new("sh")
            .args(["-c", "mv dump original && cp -a original dump"])
            .current_dir(stage.sandbox.path(""))
            .status();
        assert!(copied.expect("a copy").success());
        let run = stage.upload().arg("--exit-status-file").arg(&file).args(["--wait", "0"]).run();
        run.assert_status(expected);
        assert_eq!(stage.has("metadata"), expected == 0);
    }
}

#[test]
fn an_exit_status_that_is_required_and_not_seen_forbids_the_commit() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    stage.upload().arg("--require-exit-status").run().assert_status(3).assert_says("was not seen");
    stage.assert_incomplete(["shop.t.00000.sql"]);
}

/// "It is closed some microseconds before it is renamed": that is not death.
#[test]
fn a_metadata_partial_that_is_closed_and_not_yet_renamed_is_not_dead() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_without_rename();
    // Some scans see it closed.
    stage.let_looks_pass();
    dumper.rename_metadata();
    dumper.exit(0);
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "0.10.1 dumps into a directory that is not empty": last night's `metadata` beside a living `metadata.partial` is
/// neither uploaded nor the sign of an end.
#[test]
fn a_stale_metadata_beside_a_living_dump_says_nothing() {
    let stage = Stage::new();
    stage
        .sandbox
        .put_local("metadata", "Started dump at: 2026-01-01 02:00:00\nFinished dump at: 2026-01-01 02:00:09\n");
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let mut run = following(stage.upload());
    dumper.file("shop.t.sql", 1_000);
    stage.let_looks_pass();
    assert!(run.is_running());
    assert!(!stage.has("metadata"));
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "A dead `metadata.partial`, or nothing: we wait. After that a dead one is judged as ended badly."
#[test]
fn a_dead_metadata_partial_of_last_night_is_waited_beside_and_then_judged() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    dumper.file("shop.t.sql", 1_000);
    dumper.kill();
    let finished = stage.upload().args(["--wait", "1"]).run().assert_status(3);
    finished.assert_says("killed or crashed");
    stage.assert_incomplete(["shop.t.sql"]);
    stage.sandbox.assert_local_names(NOTHING);
}

#[test]
fn a_new_dump_takes_the_place_of_a_dead_one_that_was_waited_beside() {
    let stage = Stage::new();
    let mut last_night = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    last_night.kill();
    let mut run = stage.upload().arg("-v").start();
    run.wait_for_line("no living dump yet");
    std::fs::remove_file(stage.sandbox.dump_dir().join("metadata.partial")).expect("last night's metadata.partial");
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    run.wait_for_line("found a dump (running)");
    dumper.file("shop.t.sql", 1_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "Files of a living dump's directory that were last changed before its `metadata.partial` was born belong to something
/// else: never uploaded, never removed, named, and no commit (status 1)."
#[test]
fn a_foreign_older_file_is_named_and_left_alone() {
    let stage = Stage::new();
    put_of_yesterday(&stage, "shop.older.sql");
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = following(stage.upload());
    dumper.file("shop.t.sql", 1_000);
    dumper.finish_and_exit();
    run.finish().assert_status(1).assert_says("'shop.older.sql': it is older than the dump");
    assert_eq!(stage.names(), ["shop.t.sql"]);
    stage.sandbox.assert_local_names(["metadata", "shop.older.sql"]);

    // A restart knows it, too, though it has not seen the dump alive itself.
    stage.upload().run().assert_status(1);
    stage.sandbox.assert_local_names(["metadata", "shop.older.sql"]);
    // Mended, it goes on where it was.
    std::fs::remove_file(stage.sandbox.dump_dir().join("shop.older.sql")).expect("the foreign file");
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

#[test]
fn a_foreign_older_file_is_taken_where_that_is_wished() {
    let stage = Stage::new();
    put_of_yesterday(&stage, "shop.older.sql");
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = following(stage.upload().arg("--include-older"));
    dumper.file("shop.t.sql", 1_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    assert_eq!(stage.names(), ["metadata", "shop.older.sql", "shop.t.sql"]);
    stage.sandbox.assert_local_names(NOTHING);
}

/// "The directory is looked up by path at each scan and its inode compared: a script may have removed and made it again
/// before the dump began."
#[test]
fn a_directory_that_is_made_anew_before_the_dump_is_found() {
    let stage = Stage::new();
    let mut run = stage.upload().arg("-v").start();
    run.wait_for_line("no living dump yet");
    std::fs::remove_dir(stage.sandbox.dump_dir()).expect("an empty directory");
    // mydumper makes it.
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    run.wait_for_line("found a dump (running)");
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// What a script removes in the middle of a dump is gone: what was uploaded is all there is.
#[test]
fn a_directory_that_is_removed_in_mid_dump_is_no_whole_dump() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.file("shop.t.00000.sql", 1_000);
    stage.wait_until_moved("shop.t.00000.sql");
    std::fs::remove_dir_all(stage.sandbox.dump_dir()).expect("the dump directory");
    std::fs::create_dir(stage.sandbox.dump_dir()).expect("a new one");
    stage.sandbox.put_local("shop.u.00000.sql", "of something else");
    run.finish().assert_status(3).assert_says("was moved or removed");
    stage.assert_incomplete(["shop.t.00000.sql"]);
    stage.sandbox.assert_local_names(["shop.u.00000.sql"]);
}

/// "On a full disk 1.0.1 even closed an empty schema file after the rename": what comes while its process lives is of
/// the dump.
#[test]
fn a_file_that_is_written_after_the_rename_belongs_to_the_dump() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = following(stage.upload());
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish();
    run.wait_for_line("the dump has ended");
    stage.wait_until_moved("shop.t.00000.sql");
    dumper.file("shop.late.00000.sql", 1_000);
    dumper.exit(0);
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "Daemon mode: directories `0/` and `1/`, symlink `last_dump`": refused, one run per snapshot directory.
#[test]
fn the_directory_of_a_daemon_is_refused() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::launch(&stage.sandbox);
    dumper.mkdir("0");
    dumper.mkdir("1");
    dumper.symlink("0", "last_dump");
    stage.upload().run().assert_status(2).assert_says("snapshot").assert_says("/0'");
    assert_eq!(stage.server.keys(BUCKET), [] as [String; 0]);
}

/// "SIGTERM to 1.0.1 in mid-dump: exit 0, final `metadata`; but `metadata` named a view whose schema file was never
/// written: that can be seen."
#[test]
fn a_dump_that_somebody_stopped_is_known_by_its_missing_schema() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.file("shop-schema-create.sql", 100);
    dumper.file("shop.t-schema.sql", 100);
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.write_metadata("[`shop`.`t`]\nrows = 44262\n\n[`shop`.`v`]\n\n");
    dumper.finish_on_sigterm();
    dumper.signal(Signal::TERM);
    dumper.wait_for_end().expect("our own process").assert_status(0);
    run.finish().assert_status(3).assert_says("shop.v-schema.sql");
    stage.assert_incomplete(["shop-schema-create.sql", "shop.t-schema.sql", "shop.t.00000.sql"]);
}

/// "A dump with neither schema nor data is not a dump (`--allow-empty`)."
#[test]
fn an_empty_dump_needs_leave() {
    for (wished, expected) in [(false, 3), (true, 0)] {
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.finish_and_exit();
        let upload = stage.upload();
        let upload = if wished { upload.arg("--allow-empty") } else { upload };
        upload.run().assert_status(expected);
        assert_eq!(stage.has("metadata"), wished);
        stage.sandbox.assert_local_names(NOTHING);
    }
}

/// "`metadata.partial` is empty for its first milliseconds": the identity exists once the line ends in a newline.
#[test]
fn a_dump_has_no_identity_before_its_first_line_is_whole() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::launch(&stage.sandbox);
    dumper.create_metadata(Generation::V1_0);
    let mut run = stage.upload().arg("-v").start();
    run.wait_for_line("no living dump yet");
    dumper.write_metadata("# Started dump at: 2026-01-0");
    dumper.file("shop.t.00000.sql", 1_000);
    assert_eq!(stage.server.keys(BUCKET), [] as [String; 0], "claimed for half a line");
    dumper.write_metadata("2 03:04:05\n");
    run.wait_for_line("2026-01-02 03:04:05");
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    assert_eq!(stage.manifest()["identity"]["started"], "2026-01-02 03:04:05");
}

/// "1.0.1 with `--dirty` appends to an old `metadata.partial`, so the last `Started` line counts."
#[test]
fn a_dirty_dump_is_the_one_that_began_last() {
    let stage = Stage::new();
    begun_at(&stage, Generation::V1_0, "2026-01-01 02:00:00").kill();
    let mut dumper = begun_at(&stage, Generation::V1_0, "2026-01-02 02:00:00");
    let run = following(stage.upload());
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    assert_eq!(stage.names(), ["metadata", "shop.t.00000.sql"]);
    assert_eq!(stage.manifest()["identity"]["started"], "2026-01-02 02:00:00");
    let metadata = String::from_utf8(stage.files(&stage.prefix())["metadata"].clone()).expect("text");
    assert_eq!(metadata.matches("Started dump at").count(), 2);
}

/// "When a new `metadata.partial` comes to life while an earlier dump is being uploaded, the directory is being
/// overwritten: stop, touch nothing more, status 3."
#[test]
fn a_directory_that_is_overwritten_while_its_dump_lives_is_let_go() {
    let stage = Stage::new();
    let mut first = begun_at(&stage, Generation::V1_0, "2026-01-02 03:04:05");
    let run = following(stage.upload());
    first.file("shop.a.00000.sql", 1_000);
    stage.wait_until_moved("shop.a.00000.sql");
    first.kill();
    std::fs::remove_file(stage.sandbox.dump_dir().join("metadata.partial")).expect("of the first dump");
    let mut second = begun_at(&stage, Generation::V1_0, "2026-01-02 03:04:06");
    for table in 0..3 {
        second.file(format!("shop.b{table}.00000.sql"), 1_000);
    }
    run.finish().assert_status(3).assert_says("another dump has begun");
    stage.assert_incomplete(["shop.a.00000.sql"]);
    assert_eq!(stage.sandbox.local_files(), second.files(), "the second dump was touched");

    second.finish_and_exit();
    stage.upload().run().assert_status(0);
    let prefix = stage.prefixes().into_iter().find(|prefix| stage.files(prefix).contains_key("metadata"));
    stage.assert_whole_at(&prefix.expect("the second dump"), &second);
}

/// 0.10.1 begins `metadata.partial` anew without removing it, so a retry has the inode of what failed before it.
#[test]
fn a_retry_of_mydumper_in_the_same_directory_is_another_dump() {
    for generation in Generation::ALL {
        let stage = Stage::new();
        let mut first = begun_at(&stage, generation, "2026-01-02 03:04:05");
        let mut run = following(stage.upload());
        first.file("shop.a.sql", 1_000);
        stage.wait_until_moved("shop.a.sql");
        first.kill();
        let mut second = begun_at(&stage, generation, "2026-01-02 03:04:06");
        second.file("shop.b.sql", 1_000);
        eventually("it lets go", || !run.is_running());
        run.finish().assert_status(3).assert_says("another dump has begun");
        stage.assert_incomplete(["shop.a.sql"]);
        stage.sandbox.assert_local_names(["metadata.partial", "shop.b.sql"]);
    }
}

/// The dump has ended, its last file is on its way, and the next dump begins.
#[test]
fn a_directory_that_is_overwritten_after_its_dump_is_let_go() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().key_where(|key| key.ends_with("/shop.a.sql")));
    let mut first = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let mut run = following(stage.upload());
    first.file("shop.a.sql", 1_000);
    first.finish_and_exit();
    run.wait_for_line("the dump has ended");
    let mut second = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    second.file("shop.b.sql", 1_000);
    run.finish().assert_status(3).assert_says("another dump has begun");
    held.clear();
    assert!(!stage.has("metadata") && !stage.has("shop.b.sql"));
    stage.sandbox.assert_local_names(["metadata", "metadata.partial", "shop.a.sql", "shop.b.sql"]);
}

/// "On a full disk 1.0.1 … hangs for ever" after the rename: a dump counts as over only when its process has ended.
#[test]
fn a_child_that_hangs_after_its_metadata_is_not_committed() {
    let stage = Stage::new();
    let mut run = stage.upload().args(["--stop-timeout", "0.2", "--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("found a dump (running)");
    dumper.ignore_sigterm();
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish();
    stage.wait_until_moved("shop.t.00000.sql");
    assert!(run.is_running() && !stage.has("metadata"));
    run.signal(Signal::TERM);
    run.finish().assert_status(128 + 15);
    dumper.wait_for_end();
    assert!(!stage.has("metadata"));
}

/// Nothing tells whether the dump lives, and nothing has changed for long: "that is a guess that it died: status 3, and
/// nothing is uploaded or removed on that guess."
#[test]
fn needs_root_on_a_guess_nothing_is_uploaded() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 1_000);
    super::unprivileged::open_to_all(&stage.sandbox.dump_dir());
    let upload = stage.upload().args(["--idle-timeout", "0.5"]).by_nobody();
    let upload = upload.wrapped_in(["unshare", "--pid", "--fork", "--mount-proc"]);
    upload.time_limit(Duration::from_secs(60)).run().assert_status(3).assert_says("may have died");
    assert!(!stage.has("shop.t.00000.sql"));
    stage.sandbox.assert_local_names(["metadata.partial", "shop.t.00000.sql"]);
}
