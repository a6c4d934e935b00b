//! Files go up while they are being written: each part when it is whole, the rest after the close.

use std::os::unix::fs::FileExt;

use rustix::process::Signal;

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, Operation};
use crate::support::sandbox::{Program, eventually};
use crate::support::stage::Stage;

const MIB: u64 = 1024 * 1024;
const LARGE: &str = "shop.orders.00000.sql";

fn upload(stage: &Stage) -> Program<'_> {
    stage.upload().args(["--part-size", "5MiB"])
}

/// The numbers of the parts of that name that the store took, each as often as it took it.
fn parts_of(stage: &Stage, name: &str) -> Vec<u32> {
    let taken = stage.uploads_of(name).into_iter().filter(|request| request.status == Some(200));
    let mut parts: Vec<_> = taken.filter_map(|request| request.part).collect();
    parts.sort_unstable();
    parts
}

#[track_caller]
fn wait_for_parts(stage: &Stage, name: &str, parts: &[u32]) {
    eventually(&format!("the parts {parts:?} of {name} are there"), || parts_of(stage, name) == parts);
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

#[test]
fn a_file_goes_up_part_by_part_while_it_is_written() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 5 * MIB);
    let run = upload(&stage).args(["--sha256", "--content-check"]).start();
    stage.let_looks_pass();
    assert_eq!(stage.uploads_of(LARGE).len(), 0, "its only part may be all of it");
    dumper.write(LARGE, 1);
    wait_for_parts(&stage, LARGE, &[1]);
    dumper.write(LARGE, 11 * MIB);
    wait_for_parts(&stage, LARGE, &[1, 2, 3]);
    stage.let_looks_pass();
    assert!(!stage.has(LARGE) && stage.sandbox.dump_dir().join(LARGE).exists());
    dumper.write(LARGE, 3 * MIB);
    end(&mut dumper);
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    assert_eq!(parts_of(&stage, LARGE), [1, 2, 3, 4]);
    let manifest = stage.manifest();
    let files = manifest["files"].as_array().expect("files").iter();
    let file = files.clone().find(|file| file["name"] == LARGE).expect("the file");
    assert_eq!((&file["part_size"], &file["max_parts"]), (&(5 * MIB).into(), &serde_json::Value::Null), "{file}");
    assert_eq!(manifest["format"], 1, "its parts are equal");
    assert!(file["sha256"].is_string(), "{file}");
    stage.command("verify").args(["--prefix", &stage.prefix(), "--deep"]).run().assert_status(0);
}

/// What was sent before a SIGKILL is not sent again: the store's list of parts says what it has.
#[test]
fn after_a_sigkill_it_goes_on_with_the_parts_that_are_there() {
    for is_closed in [false, true] {
        let stage = Stage::new();
        let mut dumper = writing(&stage, 16 * MIB);
        let run = upload(&stage).start();
        wait_for_parts(&stage, LARGE, &[1, 2, 3]);
        run.kill();
        dumper.write(LARGE, 5 * MIB);
        if is_closed {
            end(&mut dumper);
        }
        let run = upload(&stage).start();
        if !is_closed {
            wait_for_parts(&stage, LARGE, &[1, 2, 3, 4]);
            end(&mut dumper);
        }
        run.finish().assert_status(0);
        stage.assert_whole(&dumper);
        assert_eq!(parts_of(&stage, LARGE), [1, 2, 3, 4, 5], "closed: {is_closed}");
    }
}

#[test]
fn what_fails_on_the_way_of_a_growing_file_is_mended() {
    let of_part = |fault: Fault| fault.on(Operation::UploadPart).key_where(|key| key.ends_with(LARGE)).part(2);
    for fault in [
        Fault::answer(503, "SlowDown"),
        Fault::answer(404, "NoSuchUpload"),
        Fault::damage_in_transit(),
        Fault::wrong_etag(),
        Fault::cut_in_body(),
        Fault::lose_answer(),
    ] {
        let stage = Stage::new();
        let hit = stage.server.inject(of_part(fault).once());
        let mut dumper = writing(&stage, 11 * MIB);
        let run = upload(&stage).start();
        hit.wait_for_hits(1);
        eventually("both parts are there", || {
            let parts = parts_of(&stage, LARGE);
            parts.contains(&1) && parts.contains(&2)
        });
        end(&mut dumper);
        run.finish().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// Bytes are still here, so nothing is lost: the file goes up as it stands in the end.
#[test]
fn a_file_that_is_cut_short_and_grows_again_is_sent_anew() {
    for is_seen in [true, false] {
        let stage = Stage::new();
        let mut dumper = writing(&stage, 11 * MIB);
        let run = upload(&stage).start();
        wait_for_parts(&stage, LARGE, &[1, 2]);
        let path = stage.sandbox.dump_dir().join(LARGE);
        let file = std::fs::File::options().write(true).open(&path).expect("the file");
        file.set_len(0).expect("cut short");
        if is_seen {
            stage.let_looks_pass();
        }
        let again: Vec<u8> = (0..12 * MIB).map(|at| (at % 251) as u8).collect();
        file.write_all_at(&again, 0).expect("written again");
        drop(file);
        end(&mut dumper);
        let written = std::fs::read(&path);
        run.finish();
        // It ends amid a statement, and what it is was not mydumper's doing: the bytes are those that are here.
        let there = stage.files(&stage.prefix()).remove(LARGE).expect("the object");
        assert!(
            there == again || written.is_ok_and(|written| there == written),
            "{} bytes, seen: {is_seen}",
            there.len()
        );
        assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
    }
}

/// It must be in the bucket: more than an empty file went away.
#[test]
fn a_followed_file_that_goes_away_is_missed_and_leaves_nothing_behind() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 11 * MIB);
    let run = upload(&stage).start();
    wait_for_parts(&stage, LARGE, &[1, 2]);
    dumper.close(LARGE);
    std::fs::remove_file(stage.sandbox.dump_dir().join(LARGE)).expect("removed");
    dumper.file("shop.small.00000.sql", 1_000);
    eventually("its upload is given up", || stage.server.open_multipart_uploads(BUCKET).is_empty());
    dumper.finish_and_exit();
    // Either it was gone before it had settled, or its job found it gone.
    run.finish().assert_status(3).assert_says(LARGE);
    assert!(!stage.has("metadata"));
}

/// Up to 0.10.5 a table's first file loses its number when it is the only one.
#[test]
fn a_name_that_may_still_change_is_not_followed() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let (first, second, only) = ("shop.t.00001.sql", "shop.t.00002.sql", "shop.u.00001.sql");
    [first, only].into_iter().for_each(|name| {
        dumper.open(name);
        dumper.write(name, 6 * MIB);
    });
    let run = upload(&stage).start();
    stage.let_looks_pass();
    assert_eq!(stage.uploads_of(first).len() + stage.uploads_of(only).len(), 0);
    dumper.open(second);
    wait_for_parts(&stage, first, &[1]);
    dumper.write(second, 100);
    [first, second, only].into_iter().for_each(|name| dumper.close(name));
    dumper.rename(only, "shop.u.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    assert_eq!(parts_of(&stage, only), [] as [u32; 0]);
}

/// Only a new object can say that its file's content is broken: whoever finds it later must know.
#[test]
fn a_followed_file_whose_content_is_broken_says_so() {
    for is_killed in [false, true] {
        let stage = Stage::new();
        let no_frame = "shop.orders.00000.sql.zst";
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.open(no_frame);
        dumper.write(no_frame, 11 * MIB);
        let run = upload(&stage).start();
        wait_for_parts(&stage, no_frame, &[1, 2]);
        let end = |dumper: &mut FakeDumper| {
            dumper.close(no_frame);
            dumper.finish_and_exit();
        };
        let run = if is_killed {
            run.kill();
            end(&mut dumper);
            upload(&stage).start()
        } else {
            end(&mut dumper);
            run
        };
        run.finish().assert_status(3).assert_says("its content is broken");
        let object = stage.server.object(BUCKET, &format!("{}/{no_frame}", stage.prefix())).expect("the object");
        assert!(object.attributes.metadata.contains_key("broken"), "{:?}", object.attributes.metadata);
        assert!(!stage.has("metadata"));
        assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
    }
}

#[test]
fn a_stop_amid_a_growing_file_leaves_no_upload() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 11 * MIB);
    let run = upload(&stage).start();
    wait_for_parts(&stage, LARGE, &[1, 2]);
    run.signal(Signal::TERM);
    run.finish().assert_status(143);
    assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
    end(&mut dumper);
    upload(&stage).run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Where an unfinished upload could not be ended or found again, none is begun early.
#[test]
fn with_write_only_nothing_is_followed() {
    let stage = Stage::new();
    let mut dumper = writing(&stage, 11 * MIB);
    let run = upload(&stage).args(["--write-only", "--wait", "0"]).start();
    stage.let_looks_pass();
    assert_eq!(stage.uploads_of(LARGE).len(), 0);
    end(&mut dumper);
    run.finish().assert_status(0);
}
