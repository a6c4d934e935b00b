//! `--no-disk` when something goes wrong: the end of a stream says nothing, so nothing is committed before mydumper's own
//! end says that it is well, and whatever happens to one of the two, the other does not stay behind.

use rustix::process::Signal;

use crate::no_disk::{begun, plain, tight};
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, Operation};
use crate::support::stage::Stage;

const MIB: u64 = 1 << 20;
const NOTHING: [&str; 0] = [];

#[track_caller]
fn assert_not_committed(stage: &Stage) {
    assert!(!stage.has("metadata"));
    assert!(stage.prefixes().iter().all(|prefix| stage.manifest_of(prefix)["state"] != "complete"));
}

/// A name of 0 bytes over a good object would destroy it.
#[track_caller]
fn assert_no_object_is_empty(stage: &Stage) {
    let prefix = stage.prefix();
    assert!(stage.files(&prefix).values().all(|bytes| !bytes.is_empty()), "{:?}", stage.names());
}

/// mydumper does not look at what becomes of its program: exit status 0, a final `metadata`, and rows that nobody has.
#[test]
fn a_file_that_was_not_handed_over_makes_the_dump_incomplete() {
    let stage = Stage::new();
    let (run, mut dumper) = begun(&stage, plain(&stage));
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.open_in_vain("shop.u.00000.sql");
    dumper.write("shop.u.00000.sql", 10_000);
    dumper.close("shop.u.00000.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(3).assert_says("'shop.u.00000.sql'").assert_says("never handed over");
    stage.assert_incomplete(["shop.t.00000.sql"]);
    stage.sandbox.assert_local_names(NOTHING);
}

/// It would wait in a write for ever.
#[test]
fn a_mydumper_that_waits_for_a_program_that_is_gone_is_ended() {
    let stage = Stage::new();
    let (run, mut dumper) = begun(&stage, plain(&stage));
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.open_in_vain("shop.u.00000.sql");
    run.finish().assert_status(1).assert_says("made 'shop.u.00000.sql' and did not hand its rows over");
    dumper.wait_for_end();
    assert_not_committed(&stage);
}

/// Every stream ends as if it were whole.
#[test]
fn a_mydumper_that_is_killed_leaves_no_commit() {
    let stage = Stage::new();
    let (run, mut dumper) = begun(&stage, plain(&stage));
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.open("shop.u.00000.sql");
    dumper.write("shop.u.00000.sql", 20 * MIB);
    dumper.kill();
    run.finish().assert_status(3).assert_says("signal 9");
    assert_not_committed(&stage);
    assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
    stage.sandbox.assert_local_names(NOTHING);
}

#[test]
fn a_mydumper_that_fails_leaves_no_commit() {
    let stage = Stage::new();
    let (run, mut dumper) = begun(&stage, plain(&stage));
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish();
    dumper.exit(1);
    run.finish().assert_status(3).assert_says("exit status was 1");
    stage.assert_incomplete(["shop.t.00000.sql"]);
}

/// A row that was not handed over, in a dump of which mydumper says that it is whole.
#[test]
fn rows_are_counted_as_they_pass() {
    for (rows, status) in [("(1)\n,(2)\n,(3)\n", 0), ("(1)\n,(2)\n", 3)] {
        let stage = Stage::new();
        let (run, mut dumper) = begun(&stage, stage.upload().arg("--no-disk"));
        dumper.file_of("shop.t-schema.sql.zst", "CREATE TABLE `t` (a int);\n");
        dumper.file_of("shop.t.00000.sql.zst", format!("INSERT INTO `t` VALUES{rows};\n"));
        dumper.write_metadata("[`shop`.`t`]\nreal_table_name=t\nrows = 3\n");
        dumper.finish_and_exit();
        let finished = run.finish().assert_status(status);
        assert_eq!(stage.has("metadata"), status == 0, "{finished:?}");
    }
}

#[test]
fn rows_that_end_in_the_middle_of_a_statement_are_not_committed() {
    let stage = Stage::new();
    let (run, mut dumper) = begun(&stage, stage.upload().arg("--no-disk"));
    dumper.file_of("shop.t.00000.sql.zst", "INSERT INTO `t` VALUES(1)\n,(2");
    dumper.finish_and_exit();
    run.finish().assert_status(3).assert_says("in the middle of a statement");
    assert_not_committed(&stage);
}

/// A name that somebody removes though its rows came.
#[test]
fn a_name_that_is_gone_makes_the_dump_incomplete() {
    let stage = Stage::new();
    let (run, mut dumper) = begun(&stage, plain(&stage));
    for name in ["shop.t.00000.sql", "shop.u.00000.sql"] {
        dumper.file(name, 10_000);
        stage.wait_for(name);
    }
    dumper.delete("shop.u.00000.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(3).assert_says("its name is gone");
    assert_not_committed(&stage);
}

/// The store away for a while: nothing is read, mydumper waits, and then all goes on. Damaged bodies, lost answers and
/// busy stores on the way.
#[test]
fn a_store_with_faults_gets_the_whole_dump() {
    let stage = Stage::new();
    for fault in [
        Fault::answer(503, "SlowDown").on(Operation::UploadPart).times(3),
        Fault::damage_in_transit().on(Operation::UploadPart).part(2).once(),
        Fault::wrong_etag().on(Operation::UploadPart).part(3).once(),
        Fault::lose_answer().on(Operation::CompleteMultipartUpload).once(),
        Fault::damage_in_transit().on(Operation::PutObject).key_where(|key| key.ends_with(".sql")).once(),
    ] {
        stage.server.inject(fault);
    }
    let (mut run, mut dumper) = begun(&stage, tight(&stage));
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.file("shop.u.00000.sql", 30 * MIB);
    run.wait_for_line("claimed");
    stage.server.down();
    dumper.open("shop.v.00000.sql");
    std::thread::scope(|scope| {
        // It blocks: there is memory for 40 MiB.
        let writes = scope.spawn(|| dumper.write("shop.v.00000.sql", 90 * MIB));
        run.wait_for_line("cannot be used");
        assert!(!writes.is_finished());
        stage.server.up();
        writes.join().expect("written");
    });
    dumper.close("shop.v.00000.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "At most `--max-stall` without a byte going up", for its snapshot stays open.
#[test]
fn mydumper_is_not_kept_waiting_for_ever() {
    let stage = Stage::new();
    let (mut run, mut dumper) = begun(&stage, tight(&stage).args(["--max-stall", "1s"]));
    run.wait_for_line("claimed");
    dumper.open("shop.t.00000.sql");
    stage.server.down();
    std::thread::scope(|scope| {
        // Its answer never comes: mydumper is killed.
        let writes = scope.spawn(|| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dumper.write("shop.t.00000.sql", 90 * MIB)))
        });
        run.finish().assert_status(1).assert_says("not a byte went up (--max-stall)");
        assert!(writes.join().expect("a thread").is_err());
    });
    stage.server.up();
    assert_not_committed(&stage);
}

/// What the store will never take ends the run, and mydumper with it.
#[test]
fn a_store_that_refuses_ends_mydumper() {
    let stage = Stage::new();
    let fault = Fault::answer(403, "AccessDenied").on(Operation::PutObject).key_where(|key| key.ends_with(".sql"));
    stage.server.inject(fault);
    let (run, mut dumper) = begun(&stage, plain(&stage).args(["--retry-for", "1s"]));
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_and_exit();
    run.finish().assert_status(1).assert_says("AccessDenied");
    assert_not_committed(&stage);
}

#[test]
fn an_upload_that_the_store_loses_ends_mydumper() {
    let stage = Stage::new();
    let (run, mut dumper) = begun(&stage, tight(&stage));
    dumper.open("shop.t.00000.sql");
    dumper.write("shop.t.00000.sql", 40 * MIB);
    stage
        .server
        .wait_until("a part", |requests| requests.iter().any(|request| request.operation == Operation::UploadPart));
    stage.server.abort_uploads_directly(BUCKET);
    dumper.close("shop.t.00000.sql");
    let finished = run.finish().assert_status(1);
    finished.assert_says("the rows of 'shop.t.00000.sql' are lost");
    dumper.wait_for_end();
    assert_not_committed(&stage);
}

/// "SIGTERM: mydumper is ended, nothing is committed, no unfinished upload is left."
#[test]
fn a_signal_to_us_ends_mydumper_and_leaves_no_upload() {
    for (signal, status) in [(Signal::TERM, 128 + 15), (Signal::INT, 128 + 2)] {
        let stage = Stage::new();
        let (run, mut dumper) = begun(&stage, tight(&stage));
        dumper.finish_on_sigterm();
        dumper.open("shop.t.00000.sql");
        dumper.write("shop.t.00000.sql", 40 * MIB);
        stage
            .server
            .wait_until("a part", |requests| requests.iter().any(|request| request.operation == Operation::UploadPart));
        run.signal(signal);
        run.finish().assert_status(status);
        dumper.wait_for_end();
        assert_not_committed(&stage);
        assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
    }
}

/// We are killed: mydumper ends, and so does what it started; nothing is committed. The directory is not uploaded by
/// whoever comes next, who says that it cannot be gone on with, and leaves nothing in the way of the next dump.
#[test]
fn we_are_killed_and_the_next_run_never_uploads_the_names() {
    for next in [None, Some("--no-disk")] {
        let stage = Stage::new();
        let (run, mut dumper) = begun(&stage, tight(&stage));
        dumper.file("shop.t.00000.sql", 10_000);
        stage.wait_for("shop.t.00000.sql");
        dumper.open("shop.u.00000.sql");
        dumper.write("shop.u.00000.sql", 40 * MIB);
        stage
            .server
            .wait_until("a part", |requests| requests.iter().any(|request| request.operation == Operation::UploadPart));
        run.kill().assert_killed_by(Signal::KILL);
        dumper.wait_for_end();
        stage.sandbox.assert_local_names(["metadata.partial", "shop.t.00000.sql", "shop.u.00000.sql"]);
        assert_eq!(stage.server.open_multipart_uploads(BUCKET).len(), 1);
        assert_not_committed(&stage);
        let first = stage.prefix();

        let said = "such a dump cannot be gone on with";
        match next {
            None => {
                stage.upload().args(["--wait", "1"]).run().assert_status(3).assert_says(said);
            }
            Some(option) => {
                let (run, mut dumper) = begun(&stage, stage.upload().args([option, "--compress", "none"]));
                dumper.file("shop.v.00000.sql", 10_000);
                dumper.finish_and_exit();
                run.finish().assert_status(0).assert_says(said);
                let second = stage.prefixes().into_iter().find(|prefix| *prefix != first).expect("another dump");
                stage.assert_whole_at(&second, &dumper);
            }
        }
        assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
        assert_eq!(stage.manifest_of(&first)["state"], "incomplete");
        let files = stage.files(&first);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["shop.t.00000.sql"]);
        assert_eq!(files["shop.t.00000.sql"].len(), 10_000);
        stage.sandbox.assert_local_names(NOTHING);
    }
}

/// Killed between the commit and the removal of what is here: the next run only tidies up.
#[test]
fn a_dump_that_was_committed_is_tidied_up_by_the_next_run() {
    let stage = Stage::new();
    let (run, mut dumper) = begun(&stage, plain(&stage));
    dumper.file("shop.t.00000.sql", 10_000);
    let commit = Fault::store_then_hold().on(Operation::PutObject).key_where(|key| key.ends_with("/metadata"));
    let commit = stage.server.inject(commit);
    dumper.finish_and_exit();
    commit.wait_for_hits(1);
    run.kill();
    commit.clear();
    stage.sandbox.assert_local_names(["metadata", "shop.t.00000.sql"]);
    stage.upload().args(["--wait", "1"]).run().assert_status(0);
    stage.assert_whole(&dumper);
    assert_no_object_is_empty(&stage);
}

/// A program that cannot hand over ends mydumper, which would go on without.
#[test]
fn a_hand_over_program_that_cannot_reach_us_ends_mydumper() {
    let stage = Stage::new();
    let program = env!("CARGO_BIN_EXE_mydumper2s3");
    let nowhere = stage.sandbox.path("nowhere").display().to_string();
    let line =
        stage.sandbox.program(stage.sandbox.path("bin/mydumper")).arg("--outputdir").arg(stage.sandbox.dump_dir());
    let run = line.args(["--exec-per-thread", &format!("{program} --hand-over {nowhere} 1")]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dumper.open("shop.t.00000.sql")));
    run.finish().assert_killed_by(Signal::KILL);
    // It may have answered before.
    drop(opened);
    // A parent that is no mydumper is left alone.
    let script = format!("{program} --hand-over {nowhere} 1 </dev/null; echo went on with $?");
    stage.sandbox.program("sh").args(["-c", &script]).run().assert_status(0).assert_says("went on with 1");
}
