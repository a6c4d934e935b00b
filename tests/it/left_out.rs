//! What mydumper was not asked for: a whole dump lacks it all the same, so it is said, recorded and shown.

use serde_json::{Value, json};

use crate::dumper_facts::following;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::BUCKET;
use crate::support::sandbox::eventually;
use crate::support::sandbox::{Finished, Program};
use crate::support::stage::Stage;

const NOT_ASKED: &str = "mydumper was not asked for these, so they will not be in the dump";

/// A whole dump by a child that is started with these arguments.
#[track_caller]
fn dump_with(stage: &Stage, arguments: &[&str]) -> Finished {
    let run = stage.upload().args(["--", "mydumper", "-B", "shop"]).args(arguments).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0)
}

fn look<'a>(stage: &'a Stage, command: &str) -> Program<'a> {
    stage.sandbox.mydumper2s3().args([command, "--bucket", BUCKET]).connect_to(&stage.endpoint())
}

#[test]
fn what_mydumper_was_not_asked_for_is_said_recorded_and_shown() {
    let stage = Stage::new();
    dump_with(&stage, &["--where", "id > 3", "-E"])
        .assert_says(&format!("{NOT_ASKED}: triggers, routines (add --triggers --routines)"))
        .assert_says("left out         triggers, routines, some rows");
    let left_out = json!(["triggers", "routines", "rows"]);
    assert_eq!(stage.manifest()["left_out"], left_out);
    look(&stage, "list").run().assert_status(0).assert_says("complete (without triggers, routines, some rows)");
    let listed = look(&stage, "list").arg("--json").run().assert_status(0);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed["dumps"][0]["left_out"], left_out);
    let prefix = stage.prefix();
    let verified = look(&stage, "verify").args(["--prefix", &prefix]).run().assert_status(0);
    verified.assert_says("left out by mydumper, as it was asked to: triggers, routines, some rows");
    let verified = look(&stage, "verify").args(["--prefix", &prefix, "--json"]).run().assert_status(0);
    let verified: Value = serde_json::from_str(&verified.stdout).expect("JSON");
    assert_eq!(verified["manifest"]["left_out"], left_out);
}

#[test]
fn a_mydumper_that_was_asked_for_everything_leaves_nothing_out() {
    let stage = Stage::new();
    dump_with(&stage, &["-G", "-E", "-R"]).assert_does_not_say(NOT_ASKED).assert_says("left out         nothing");
    assert_eq!(stage.manifest()["left_out"], json!([]));
    look(&stage, "list").run().assert_status(0).assert_does_not_say("without");
    let verify = look(&stage, "verify").args(["--prefix", &stage.prefix()]).run();
    verify.assert_status(0).assert_does_not_say("left out");
}

#[test]
fn what_a_defaults_file_leaves_out_is_left_out() {
    let stage = Stage::new();
    let file = stage.sandbox.path("my.cnf");
    std::fs::write(&file, "[client]\nuser=backup\n[mydumper]\nno-views=1\n[`shop`.`t`]\nlimit=3\n").expect("a file");
    dump_with(&stage, &["-G", "-E", "-R", "--defaults-file", file.to_str().expect("a path")])
        .assert_says("left out         views, some rows");
    assert_eq!(stage.manifest()["left_out"], json!(["views", "rows"]));
}

/// A file that is there and cannot be read may say anything.
#[test]
fn what_an_unreadable_defaults_file_leaves_out_is_not_known() {
    let stage = Stage::new();
    let directory = stage.sandbox.path("my.cnf");
    std::fs::create_dir(&directory).expect("a directory");
    dump_with(&stage, &["-G", "--defaults-file", directory.to_str().expect("a path")])
        .assert_says("left out         not known");
    assert_eq!(stage.manifest()["left_out"], Value::Null);
}

#[test]
fn what_a_dumper_beside_us_leaves_out_is_read_from_its_arguments() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("left out         triggers, routines, events");
    assert_eq!(stage.manifest()["left_out"], json!(["triggers", "routines", "events"]));
}

/// "What an earlier run knew": after a kill nobody is left to be asked, and the claim may be pruned, or not be readable.
#[test]
fn what_was_left_out_is_remembered_by_the_run_after_a_kill() {
    for (options, is_pruned) in [(&[][..], false), (&[], true), (&["--write-only"], false)] {
        let stage = Stage::new();
        let run = stage.upload().args(options).args(["--", "mydumper", "-B", "shop", "-G", "--no-views"]).start();
        let mut dumper = FakeDumper::accept(&stage.sandbox);
        dumper.begin(Generation::V1_0);
        let lead = stage.sandbox.dump_dir().join("metadata.partial");
        eventually("it is written down", || {
            let (mut record, mut is_there) = (vec![0; 4096], false);
            if let Ok(length) = rustix::fs::getxattr(&lead, "user.mydumper2s3", &mut record[..]) {
                is_there = String::from_utf8_lossy(&record[..length]).contains("left_out");
            }
            is_there
        });
        run.kill();
        dumper.file("shop.t.00000.sql", 1_000);
        dumper.finish_and_exit();
        if is_pruned {
            stage.server.keys(BUCKET).iter().for_each(|key| stage.server.remove_directly(BUCKET, key));
        }
        stage.upload().args(options).run().assert_status(0).assert_says("left out         routines, events, views");
        assert_eq!(stage.manifest()["left_out"], json!(["routines", "events", "views"]), "{options:?}");
    }
}

#[test]
fn of_a_dump_that_had_ended_it_is_not_known_what_was_left_out() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    stage.upload().run().assert_status(0).assert_says("left out         not known");
    assert_eq!(stage.manifest()["left_out"], Value::Null);
    look(&stage, "list").run().assert_status(0).assert_does_not_say("without");
}
