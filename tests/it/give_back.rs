//! `--give-back`: parts of files that are still being written are given back to the filesystem. From then on unfinished
//! uploads hold the only copy of some bytes: nothing here may abort them, and what happens to them is never taken for whole.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::SeekFrom;
use rustix::process::Signal;

use super::disk::on_a_disk_of;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, Operation};
use crate::support::sandbox::{Finished, Program, eventually};
use crate::support::stage::Stage;

const MIB: u64 = 1024 * 1024;
const LARGE: &str = "shop.orders.00000.sql";

/// At most 20 MiB may be local, so from 10 MiB on parts of 5 MiB are given back.
fn upload(stage: &Stage) -> Program<'_> {
    stage.upload().args(["--part-size", "5MiB", "--max-local", "20MiB", "--give-back"])
}

fn path(stage: &Stage) -> PathBuf {
    stage.sandbox.dump_dir().join(LARGE)
}

/// Up to where the file is a hole.
fn hole(stage: &Stage) -> u64 {
    let file = File::open(path(stage)).expect("the file");
    rustix::fs::seek(&file, SeekFrom::Data(0)).expect("some data")
}

/// A dump that lives and has written so much of a file that it is still writing.
fn writing(stage: &Stage, bytes: u64) -> FakeDumper {
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.open(LARGE);
    dumper.write(LARGE, bytes);
    dumper
}

fn end(dumper: &mut FakeDumper) {
    dumper.close(LARGE);
    dumper.finish_and_exit();
}

/// A run that has given back two parts of a file of 12 MiB, and was killed then.
fn killed_after_two_parts(stage: &Stage) -> FakeDumper {
    let dumper = writing(stage, 12 * MIB);
    let run = upload(stage).start();
    eventually("two parts are given back", || hole(stage) == 10 * MIB);
    run.kill();
    dumper
}

#[track_caller]
fn verify_deep(stage: &Stage) -> Finished {
    stage.command("verify").args(["--prefix", &stage.prefix(), "--deep"]).run().assert_status(0)
}

#[test]
fn what_went_up_of_an_open_file_is_given_back() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 9 * MIB);
    let run = upload(&stage).arg("--sha256").start();
    eventually("its first part is there", || stage.uploads_of(LARGE).iter().any(|request| request.part == Some(1)));
    stage.let_looks_pass();
    assert_eq!(hole(&stage), 0, "less than half of the mark is local");
    dumper.write(LARGE, 3 * MIB);
    eventually("two parts are given back", || hole(&stage) == 10 * MIB);
    for _ in 0..6 {
        dumper.write(LARGE, 5 * MIB);
    }
    eventually("most of it is given back", || hole(&stage) >= 30 * MIB);
    end(&mut dumper);
    run.finish().assert_status(0).assert_says("given back early");
    stage.assert_whole(&dumper);
    verify_deep(&stage);
}

/// At any moment; the file is closed by then, or not; the second time, too.
#[test]
fn after_a_sigkill_what_was_given_back_is_gone_on_with() {
    for is_closed in [true, false] {
        let stage = Stage::new();
        let mut dumper = killed_after_two_parts(&stage);
        dumper.write(LARGE, 12 * MIB);
        if !is_closed {
            let run = upload(&stage).start();
            eventually("more is given back", || hole(&stage) >= 20 * MIB);
            run.kill();
        }
        end(&mut dumper);
        let finished = upload(&stage).run().assert_status(0);
        finished.assert_says("they are read in the bucket");
        stage.assert_whole(&dumper);
        verify_deep(&stage);
    }
}

/// A run that is not asked to give anything back goes on with it all the same: it is what is left of the file.
#[test]
fn a_run_without_the_option_goes_on_with_what_was_given_back() {
    let stage = Stage::new();
    let mut dumper = killed_after_two_parts(&stage);
    end(&mut dumper);
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

#[test]
fn a_stop_keeps_the_upload_that_has_the_only_copy() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 12 * MIB);
    let run = upload(&stage).start();
    eventually("two parts are given back", || hole(&stage) == 10 * MIB);
    run.signal(Signal::TERM);
    run.finish().assert_status(143);
    assert_eq!(stage.server.open_multipart_uploads(BUCKET).len(), 1);
    end(&mut dumper);
    upload(&stage).run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Somebody else aborted it, or the store lost a part of it: the dump is not whole, and nobody says that it is.
#[test]
fn what_was_given_back_and_is_gone_there_is_never_taken_for_whole() {
    let losses: [fn(&Stage); 2] =
        [|stage| stage.server.abort_uploads_directly(BUCKET), |stage| stage.server.lose_part(BUCKET, 1)];
    for (number, lose) in losses.into_iter().enumerate() {
        let stage = Stage::new();
        let mut dumper = killed_after_two_parts(&stage);
        lose(&stage);
        end(&mut dumper);
        let finished = upload(&stage).run().assert_status(3).assert_says("its first 10485760 bytes were given back");
        finished.assert_says(LARGE).assert_says(if number == 0 { "NoSuchUpload" } else { "does not list the 2 parts" });
        assert_rest_is_safe(&stage, &dumper);
    }
}

/// What was not given back is in the bucket, and says that it is broken; the nights that follow are not kept up.
#[track_caller]
fn assert_rest_is_safe(stage: &Stage, dumper: &FakeDumper) {
    stage.assert_incomplete([LARGE]);
    let object = stage.server.object(BUCKET, &format!("{}/{LARGE}", stage.prefix())).expect("the object");
    assert!(object.attributes.metadata.contains_key("broken"), "{:?}", object.attributes.metadata);
    assert!(object.bytes()[10 * MIB as usize..] == dumper.content(LARGE)[10 * MIB as usize..]);
    stage.sandbox.assert_local_names([] as [&str; 0]);
}

/// The same while it runs: its end finds out.
#[test]
fn an_upload_that_is_aborted_amid_the_run_is_found_out() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 12 * MIB);
    let run = upload(&stage).start();
    eventually("two parts are given back", || hole(&stage) == 10 * MIB);
    stage.server.abort_uploads_directly(BUCKET);
    dumper.write(LARGE, 6 * MIB);
    end(&mut dumper);
    run.finish().assert_status(3).assert_says(LARGE);
    assert!(!stage.has("metadata"));
    stage.sandbox.assert_local_names([] as [&str; 0]);
}

/// Killed between the object's making and the removal of its file: what is there is read, and is the file.
#[test]
fn an_object_that_was_made_before_a_kill_is_known_again() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 12 * MIB);
    let run = upload(&stage).start();
    eventually("two parts are given back", || hole(&stage) == 10 * MIB);
    let held = stage.server.inject(Fault::store_then_hold().on(Operation::CompleteMultipartUpload));
    end(&mut dumper);
    held.wait_for_hits(1);
    run.kill();
    held.clear();
    assert!(path(&stage).exists() && stage.has(LARGE));
    upload(&stage).run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// The same, and the object is not what was given back: neither it nor what is local is touched.
#[test]
fn an_object_that_is_not_what_was_given_back_is_left_alone() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 12 * MIB);
    let run = upload(&stage).start();
    eventually("two parts are given back", || hole(&stage) == 10 * MIB);
    let held = stage.server.inject(Fault::store_then_hold().on(Operation::CompleteMultipartUpload));
    end(&mut dumper);
    held.wait_for_hits(1);
    run.kill();
    held.clear();
    let key = format!("{}/{LARGE}", stage.prefix());
    let other = vec![b'x'; 12 * MIB as usize];
    stage.server.replace_directly(BUCKET, &key, &other);
    upload(&stage).run().assert_status(1).assert_says("is not what was given back of it; neither is touched");
    assert!(stage.server.object(BUCKET, &key).expect("the object").bytes() == other && path(&stage).exists());
}

/// What stands beside the file is gone, as after a copy: the record beside the dump knows that some of it is there alone.
#[test]
fn without_what_stands_beside_the_file_nothing_is_guessed() {
    let stage = Stage::new();
    let mut dumper = killed_after_two_parts(&stage);
    let file = File::options().write(true).open(path(&stage)).expect("the file");
    rustix::fs::fremovexattr(&file, "user.mydumper2s3.parts").expect("it stood there");
    drop(file);
    end(&mut dumper);
    upload(&stage)
        .run()
        .assert_status(3)
        .assert_says("nothing beside it tells any more where its first 10485760 bytes");
    assert_rest_is_safe(&stage, &dumper);
}

/// Without the record what stands beside the file is enough.
#[test]
fn without_the_record_what_stands_beside_the_file_is_gone_on_with() {
    let stage = Stage::new();
    let mut dumper = killed_after_two_parts(&stage);
    let lead = File::open(stage.sandbox.dump_dir().join("metadata.partial")).expect("the lead");
    rustix::fs::fremovexattr(&lead, "user.mydumper2s3").expect("there was a record");
    end(&mut dumper);
    upload(&stage).run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// It is not the file of which something was given back: it goes up as it stands.
#[test]
fn a_file_that_is_written_anew_is_sent_anew() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 12 * MIB);
    let run = upload(&stage).start();
    eventually("two parts are given back", || hole(&stage) == 10 * MIB);
    let again: Vec<u8> = (0..13 * MIB).map(|at| (at % 251) as u8 + 1).collect();
    std::fs::write(path(&stage), &again).expect("written anew");
    end(&mut dumper);
    run.finish();
    let there = stage.files(&stage.prefix()).remove(LARGE).expect("the object");
    assert!(there == again, "{} bytes", there.len());
    assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
}

/// It is not as it was when it was found closed, again and again: its upload has the only copy, and stays.
#[test]
fn a_file_that_is_touched_at_its_end_keeps_its_upload() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 12 * MIB);
    let run = upload(&stage).start();
    eventually("two parts are given back", || hole(&stage) == 10 * MIB);
    let file = File::open(path(&stage)).expect("the file");
    let begun = Instant::now();
    dumper.close(LARGE);
    dumper.finish();
    while begun.elapsed() < Duration::from_secs(3) {
        file.set_modified(SystemTime::now()).expect("touched");
    }
    drop(file);
    dumper.exit(0);
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    assert_eq!(stage.server.count(Operation::CompleteMultipartUpload), 1);
}

/// What went up of it is all that is left: it becomes an object, and the dump is not whole.
#[test]
fn what_is_left_of_a_file_that_goes_away_becomes_an_object() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 12 * MIB);
    let whole = dumper.content(LARGE);
    let run = upload(&stage).start();
    eventually("two parts are given back", || hole(&stage) == 10 * MIB);
    std::fs::remove_file(path(&stage)).expect("removed");
    stage.wait_for(LARGE);
    dumper.file("shop.small.00000.sql", 1_000);
    end(&mut dumper);
    run.finish().assert_status(3).assert_says(LARGE);
    assert!(stage.files(&stage.prefix()).remove(LARGE).expect("the object") == whole[..10 * MIB as usize]);
    assert!(!stage.has("metadata"));
}

/// A disk that holds a fraction of the one file, and a store that is slower than mydumper.
#[test]
fn needs_root_a_table_of_any_size_fits_through_a_small_disk() {
    let stage = Stage::new();
    let options = ["--part-size", "5MiB", "--max-local", "32MiB", "--give-back", "--limit-rate", "12MiB"];
    let upload = stage.upload().args(options).args(["--", "mydumper", "-B", "shop"]);
    // What the dumper did not write while it was paused it writes at once when it goes on: more than a real one could.
    let run = on_a_disk_of(&stage, 112, upload).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.generate(1, 160 * MIB, 20 * MIB);
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("given back early");
    stage.assert_whole(&dumper);
}

/// The object cannot say it, since its bytes cannot be sent again: the record does.
#[test]
fn broken_content_is_found_though_its_beginning_is_gone() {
    for is_killed in [false, true] {
        let stage = Stage::new();
        let no_frame = "shop.orders.00000.sql.zst";
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.open(no_frame);
        dumper.write(no_frame, 12 * MIB);
        let run = upload(&stage).start();
        let file = stage.sandbox.dump_dir().join(no_frame);
        let hole = || rustix::fs::seek(File::open(&file).expect("the file"), SeekFrom::Data(0)).expect("some data");
        eventually("two parts are given back", || hole() == 10 * MIB);
        let run = if is_killed {
            run.kill();
            dumper.close(no_frame);
            dumper.finish_and_exit();
            upload(&stage).start()
        } else {
            dumper.close(no_frame);
            dumper.finish_and_exit();
            run
        };
        run.finish().assert_status(3).assert_says(no_frame);
        assert!(!stage.has("metadata"));
        assert!(stage.has(no_frame), "what there is of it is safe");
    }
}

/// Where the store's ETags tell nothing of its parts a restart could not tell that they are right.
#[test]
fn nothing_is_given_back_that_the_store_cannot_prove() {
    let stage = Stage::new();
    stage.server.inject(Fault::wrong_etag().on(Operation::UploadPart));
    let mut dumper = writing(&stage, 12 * MIB);
    let mut run = upload(&stage).start();
    run.wait_for_line("no blocks of files that are still being written are given back: the store's ETags are no MD5s");
    assert_eq!(hole(&stage), 0);
    stage.server.clear_faults();
    end(&mut dumper);
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

#[test]
fn a_lifecycle_rule_that_could_abort_it_is_refused() {
    let stage = Stage::new();
    let host = rustix::system::uname().nodename().to_str().expect("a host name").to_owned();
    stage.server.abort_uploads_after(BUCKET, &format!("{host}/"), 7);
    let refused = upload(&stage).run().assert_status(2);
    refused.assert_says("a lifecycle rule of the bucket aborts unfinished uploads after 7 days");
    for (prefix, days) in [(format!("{host}/"), 8), ("elsewhere/".to_owned(), 1)] {
        stage.server.abort_uploads_after(BUCKET, &prefix, days);
        upload(&stage).args(["--wait", "0"]).run().assert_status(3).assert_says("no dump found");
    }
}

#[test]
fn what_does_not_go_with_it_is_a_wrong_setting() {
    let stage = Stage::new();
    stage.upload().args(["--give-back"]).run().assert_status(2).assert_says("--give-back needs --max-local");
    let too_small = stage.upload().args(["--give-back", "--max-local", "60MiB"]).run().assert_status(2);
    too_small.assert_says("less than 4 parts");
}
