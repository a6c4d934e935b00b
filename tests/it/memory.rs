//! What an earlier run knew, and a later one must not forget: what was removed here and must be in the bucket, where it
//! went, and that mydumper was told to stop. The record of it stands beside the dump, on its lead.

use rustix::process::Signal;

use crate::dumper_facts::{begun_at, following, put_of_yesterday};
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, Limits, Operation, S3Server};
use crate::support::sandbox::{Program, Sandbox};
use crate::support::stage::{MANIFEST, Stage};

/// A run under another host name, as another pod has it.
fn elsewhere(program: Program<'_>) -> Program<'_> {
    program.wrapped_in(["unshare", "--uts", "sh", "-c", "hostname elsewhere && exec \"$@\"", "sh"])
}

/// A dump of which the first file was uploaded and removed here before the run was killed, and which has ended since.
fn half_way<'a>(stage: &'a Stage, upload: impl Fn(&'a Stage) -> Program<'a>) -> FakeDumper {
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(upload(stage));
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_until_moved("shop.a.00000.sql");
    run.kill().assert_killed_by(Signal::KILL);
    dumper.file("shop.b.00000.sql", 20_000);
    dumper.finish_and_exit();
    dumper
}

fn upload(stage: &Stage) -> Program<'_> {
    stage.upload()
}

/// The key of the file that is in the bucket alone.
fn moved(stage: &Stage) -> String {
    format!("{}/shop.a.00000.sql", stage.prefix())
}

#[track_caller]
fn assert_never_committed(stage: &Stage, said: &str) {
    stage.upload().run().assert_status(3).assert_says(said);
    assert!(!stage.has("metadata"));
    assert_eq!(stage.manifest()["state"], "incomplete");
}

#[test]
fn a_dump_whose_claim_was_pruned_is_never_committed() {
    let stage = Stage::new();
    half_way(&stage, upload);
    stage.server.keys(BUCKET).iter().for_each(|key| stage.server.remove_directly(BUCKET, key));
    assert_never_committed(&stage, "1 files of it were removed here after their upload");
    // What was still here is in safety, and the next night finds an empty directory.
    assert_eq!(stage.names(), ["shop.b.00000.sql"]);
    stage.sandbox.assert_local_names([] as [&str; 0]);
}

/// Nothing was removed here, so nothing can be missing.
#[test]
fn a_kept_dump_whose_objects_were_deleted_goes_up_again() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.a.00000.sql", 10_000);
    dumper.finish_and_exit();
    for _ in 0..2 {
        stage.upload().arg("--keep").run().assert_status(0);
        assert!(stage.has("metadata") && stage.has("shop.a.00000.sql"));
        stage.server.keys(BUCKET).iter().for_each(|key| stage.server.remove_directly(BUCKET, key));
    }
}

/// The objects without the claim may be all that there is of the files: no option deletes them.
#[test]
fn objects_whose_claim_is_gone_are_never_cleared() {
    let stage = Stage::new();
    let nightly = ["--prefix", "nightly"];
    half_way(&stage, |stage| stage.upload().args(nightly));
    stage.server.remove_directly(BUCKET, "nightly/mydumper2s3.json");
    let (local, there) = (stage.sandbox.local_files(), stage.files("nightly"));
    assert_eq!(there.keys().collect::<Vec<_>>(), ["shop.a.00000.sql"]);
    for option in [None, Some("--replace-incomplete"), Some("--overwrite")] {
        let finished = stage.upload().args(nightly).args(option).run().assert_status(2);
        finished.assert_says("1 files were removed here after their upload to it");
        assert_eq!((stage.sandbox.local_files(), stage.files("nightly")), (local.clone(), there.clone()), "{option:?}");
    }
}

#[test]
fn an_object_that_is_gone_forbids_the_commit() {
    let stage = Stage::new();
    half_way(&stage, upload);
    stage.server.remove_directly(BUCKET, &moved(&stage));
    assert_never_committed(&stage, "removed 1 files (9.8 KiB) here after their upload, and the bucket has 0");
}

/// The same size, and the dump's id kept: only the ETag tells.
#[test]
fn an_object_that_somebody_replaced_forbids_the_commit() {
    let stage = Stage::new();
    half_way(&stage, upload);
    stage.server.replace_directly(BUCKET, &moved(&stage), &[b'x'; 10_000]);
    assert_never_committed(&stage, "objects are missing there, or are other ones");
}

/// What was not removed here may be replaced in the bucket: it is compared with the local file, and sent again.
#[test]
fn an_object_whose_file_is_still_here_is_sent_again() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload().arg("--keep"));
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_for("shop.a.00000.sql");
    run.kill().assert_killed_by(Signal::KILL);
    dumper.finish_and_exit();
    stage.server.put_directly(BUCKET, &moved(&stage), &[b'x'; 10_000]);
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Another pod: `{host}` in the default prefix. The dump goes on where it was.
#[test]
fn needs_root_under_another_host_name_it_goes_on_where_it_was() {
    let stage = Stage::new();
    let dumper = half_way(&stage, upload);
    elsewhere(stage.upload()).run().assert_status(0).assert_says("going on at");
    stage.assert_whole(&dumper);
}

#[test]
fn another_prefix_is_refused_with_the_right_one() {
    let stage = Stage::new();
    let dumper = half_way(&stage, |stage| stage.upload().args(["--prefix", "nightly"]));
    let finished = stage.upload().args(["--prefix", "other"]).run().assert_status(2);
    finished.assert_says("1 files of this dump are in the bucket alone by now, at s3://test-bucket/nightly/");
    assert_eq!(stage.prefixes(), ["nightly"], "nothing was claimed");
    stage.upload().args(["--prefix", "nightly"]).run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Nothing was removed here yet, so all of it may go anywhere.
#[test]
fn as_long_as_nothing_was_removed_another_prefix_is_fine() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload().args(["--keep", "--prefix", "nightly"]));
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_for("shop.a.00000.sql");
    run.kill().assert_killed_by(Signal::KILL);
    dumper.finish_and_exit();
    stage.upload().args(["--prefix", "other"]).run().assert_status(0);
    stage.assert_whole_at("other", &dumper);
}

/// A run of 0.1, or a filesystem without attributes: nothing tells whether what is there is all that was removed.
#[test]
fn what_a_run_without_a_record_left_half_done_is_never_committed() {
    let stage = Stage::new();
    half_way(&stage, upload);
    let lead = stage.sandbox.dump_dir().join("metadata");
    rustix::fs::removexattr(&lead, "user.mydumper2s3").expect("a record");
    assert_never_committed(&stage, "nothing here tells whether they are all that it removed");
}

/// A lead that was truncated and used again has the record of its first dump.
#[test]
fn the_record_of_another_dump_on_the_same_inode_says_nothing() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    dumper.file("shop.a.sql", 10_000);
    let lead = stage.sandbox.dump_dir().join("metadata.partial");
    let record = br#"{"version":1,"kind":"directory","dump":"ffffffffffffffffffffffffffffffff","host":"vm",
        "to":{"uri":"s3://elsewhere/p/"},"given":{"files":9,"bytes":9,"digest":"00000000000000000000000000000009"}}"#;
    rustix::fs::setxattr(&lead, "user.mydumper2s3", record, rustix::fs::XattrFlags::empty()).expect("a record");
    dumper.finish_and_exit();
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

#[test]
fn a_record_of_a_newer_program_or_a_damaged_one_is_refused() {
    for record in [br#"{"version":2,"dump":"x"}"#.as_slice(), b"\xff not json"] {
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.file("shop.a.00000.sql", 10_000);
        dumper.finish_and_exit();
        let lead = stage.sandbox.dump_dir().join("metadata");
        rustix::fs::setxattr(&lead, "user.mydumper2s3", record, rustix::fs::XattrFlags::empty()).expect("a record");
        stage.upload().run().assert_status(2).assert_says("user.mydumper2s3");
        assert_eq!(stage.server.keys(BUCKET), [] as [String; 0]);
    }
}

/// A file that a run saw and that is gone when the next one comes, without ever having been uploaded.
#[test]
fn a_file_that_is_removed_between_two_runs_is_missed() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().key_where(|key| key.ends_with("/shop.b.00000.sql")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_until_moved("shop.a.00000.sql");
    dumper.file("shop.b.00000.sql", 20_000);
    held.wait_for_hits(1);
    dumper.finish_and_exit();
    run.kill().assert_killed_by(Signal::KILL);
    held.clear();
    std::fs::remove_file(stage.sandbox.dump_dir().join("shop.b.00000.sql")).expect("removed by a stranger");
    assert_never_committed(&stage, "1 files that an earlier run saw in the directory are neither there any more");
}

/// And files that come later do not stand for it.
#[test]
fn a_file_that_is_removed_between_two_runs_is_missed_though_others_came() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().key_where(|key| key.ends_with("/shop.b.00000.sql")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_until_moved("shop.a.00000.sql");
    dumper.file("shop.b.00000.sql", 20_000);
    held.wait_for_hits(1);
    run.kill().assert_killed_by(Signal::KILL);
    held.clear();
    std::fs::remove_file(stage.sandbox.dump_dir().join("shop.b.00000.sql")).expect("removed by a stranger");
    for name in ["shop.c.00000.sql", "shop.d.00000.sql"] {
        dumper.file(name, 20_000);
    }
    dumper.finish_and_exit();
    assert_never_committed(&stage, "1 files that an earlier run saw in the directory are neither there any more");
}

/// mydumper 1.0.1 makes what it has look whole when it is stopped: final `metadata`, status 0. The store was away, and
/// the next run is another pod's.
#[test]
fn needs_root_a_stop_while_the_store_is_away_is_remembered() {
    let stage = Stage::new();
    let mut run = stage.upload().args(["--stop-timeout", "2", "--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("found a dump (running)");
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_until_moved("shop.a.00000.sql");
    dumper.finish_on_sigterm();
    stage.server.down();
    run.signal(Signal::TERM);
    run.finish().assert_status(143);
    stage.server.up();
    elsewhere(stage.upload()).run().assert_status(3).assert_says("told to stop");
    assert!(!stage.has("metadata"));
}

/// The same for a dump that nobody claimed: the morning's backup stands under the prefix, and stays.
#[test]
fn a_stop_of_a_dump_that_found_no_place_leaves_the_dump_that_has_it() {
    let stage = Stage::new();
    let mut morning = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    morning.file("shop.a.00000.sql", 10_000);
    morning.finish_and_exit();
    let daily = ["--prefix", "{host}/daily"];
    stage.upload().args(daily).run().assert_status(0);
    let (prefix, before) = (stage.prefix(), stage.manifest());
    // A prefix with a time in it is looked at only when the dump has begun.
    let year = this_year();
    stage.server.copy_directly(BUCKET, &format!("{prefix}/{MANIFEST}"), [format!("{year}/{MANIFEST}")]);
    stage.server.copy_directly(BUCKET, &format!("{prefix}/metadata"), [format!("{year}/metadata")]);
    let mut run = stage.upload().args(["--prefix", "%Y", "--", "mydumper", "-B", "shop"]).start();
    let mut evening = FakeDumper::accept(&stage.sandbox);
    evening.begin(Generation::V1_0);
    run.wait_for_line("mydumper is left to finish");
    evening.finish_on_sigterm();
    run.signal(Signal::TERM);
    let status = run.finish().status.code();
    assert!(matches!(status, Some(2 | 143)), "{status:?}");
    assert_eq!(stage.manifest_of(&year), before, "the morning's manifest");
    // And what mydumper made look whole is known to be stopped.
    stage.upload().args(["--prefix", "second"]).run().assert_status(3).assert_says("told to stop");
}

fn this_year() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%Y"]).output().expect("date");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// The first is stopped at its commit (SIGSTOP, a suspended machine), a second takes the prefix and commits; the first
/// wakes: what stands there is not its own any more.
#[test]
fn a_run_that_was_asleep_does_not_undo_the_commit_of_another() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload().args(["--prefix", "nightly"]));
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_until_moved("shop.a.00000.sql");
    let held = stage.server.inject(Fault::hold().on(Operation::ListObjectsV2).once());
    dumper.finish_and_exit();
    held.wait_for_hits(1);
    run.signal(Signal::STOP);
    held.clear();
    let sandbox = Sandbox::new();
    let mut rival = FakeDumper::start(&sandbox, Generation::V1_0);
    rival.file("shop.rival.00000.sql", 20_000);
    rival.finish_and_exit();
    let program = sandbox.mydumper2s3().upload_to(&stage.endpoint()).args(["--settle", "0.2", "--prefix", "nightly"]);
    // Somebody takes it for dead, and clears the prefix by hand.
    for key in stage.server.keys(BUCKET) {
        stage.server.remove_directly(BUCKET, &key);
    }
    program.run().assert_status(0);
    let committed = stage.files("nightly");
    assert_eq!(committed, rival.files());
    run.signal(Signal::CONT);
    run.finish().assert_status(1);
    assert_eq!(stage.files("nightly"), committed);
    assert_eq!(stage.manifest_of("nightly")["files"][1]["name"], "shop.rival.00000.sql");
}

fn store_with(limits: Limits) -> Stage {
    Stage::with(S3Server::builder().limits(limits).start())
}

/// Two dumps claim one prefix at the same time, on a store that does not look at conditions: the one whose claim is not
/// the last finds out before it gives anything up.
#[test]
fn two_claims_at_once_on_a_store_without_conditions_lose_no_local_file() {
    let stage = store_with(Limits { knows_conditions: false, ..Limits::default() });
    let held =
        stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(MANIFEST)).times(2));
    let other = Sandbox::new();
    let mut dumpers = [&stage.sandbox, &other].map(|sandbox| FakeDumper::start(sandbox, Generation::V1_0));
    for (number, dumper) in dumpers.iter_mut().enumerate() {
        dumper.file_of("shop-schema-create.sql", format!("CREATE DATABASE `shop` /* {number} */;\n"));
        dumper.file("shop.t.00000.sql", 10_000 + number as u64);
        dumper.finish_and_exit();
    }
    let rival = other.mydumper2s3().upload_to(&stage.endpoint()).args(["--settle", "0.2", "--prefix", "nightly"]);
    let runs = [stage.upload().args(["--prefix", "nightly"]).start(), rival.start()];
    held.wait_for_hits(2);
    held.clear();
    let statuses = runs.map(|run| run.finish().status.code());
    let winner = statuses.iter().position(|status| *status == Some(0)).unwrap_or_else(|| panic!("{statuses:?}"));
    assert_eq!(statuses[1 - winner], Some(1));
    assert_eq!(stage.files("nightly"), dumpers[winner].files());
    let loser = [&stage.sandbox, &other][1 - winner];
    assert_eq!(loser.local_files(), dumpers[1 - winner].files(), "nothing was given up");
}

/// The last manifest is written over the claim: a store that forbids that is found out before anything is given up.
#[test]
fn a_store_that_forbids_overwriting_is_refused_before_anything_is_removed() {
    let stage = store_with(Limits { overwrites: false, ..Limits::default() });
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.a.00000.sql", 10_000);
    dumper.finish_and_exit();
    stage.upload().run().assert_status(2).assert_says("was written once, and cannot be written again");
    assert_eq!(stage.sandbox.local_files(), dumper.files());
}

/// "`metadata` changed between the foreseen record and its upload": what is committed is what was judged, or the dump is
/// judged anew.
#[test]
fn a_metadata_that_changes_amid_the_commit_is_judged_anew() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = following(stage.upload());
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_until_moved("shop.a.00000.sql");
    // The claim, the exit status, and then the last manifest, which says what metadata is to be.
    let last = |key: &str| key.ends_with(MANIFEST);
    let held = stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(last).after(1).once());
    dumper.finish_and_exit();
    held.wait_for_hits(1);
    let lead = stage.sandbox.dump_dir().join("metadata");
    let mut text = std::fs::read(&lead).expect("metadata");
    text.extend(b"# one line more\n");
    std::fs::write(&lead, &text).expect("written by a stranger");
    held.clear();
    run.wait_for_line("committed");
    run.finish().assert_status(0);
    assert_eq!(stage.files(&stage.prefix())["metadata"], text);
    let program = stage.sandbox.mydumper2s3().args(["verify", "--bucket", BUCKET, "--prefix", &stage.prefix()]);
    program.connect_to(&stage.endpoint()).run().assert_status(0);
}

/// "A new file in that window stays local and unnamed, 0": the commit is taken back, and made again with it.
#[test]
fn a_file_that_comes_amid_the_commit_is_committed_with_the_dump() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_until_moved("shop.a.00000.sql");
    let commit = |key: &str| key.ends_with("/metadata");
    let held = stage.server.inject(Fault::store_then_hold().on(Operation::PutObject).key_where(commit).once());
    dumper.finish_and_exit();
    held.wait_for_hits(1);
    stage.sandbox.put_local("shop.late.00000.sql", "INSERT INTO `late` VALUES(1);\n");
    held.clear();
    run.finish().assert_status(0).assert_says("'shop.late.00000.sql' among them");
    assert_eq!(stage.names(), ["metadata", "shop.a.00000.sql", "shop.late.00000.sql"]);
    assert_eq!(stage.manifest()["total_files"], 3);
    stage.sandbox.assert_local_names([] as [&str; 0]);
}

/// 0.10.1 twice into one directory, and the uploader afterwards: the first night's files are not the second night's.
#[test]
fn a_dump_that_is_found_ended_leaves_older_files_alone() {
    for (option, status) in [(None, 1), (Some("--include-older"), 0)] {
        let stage = Stage::new();
        put_of_yesterday(&stage, "shop.dropped.sql");
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
        dumper.file("shop.a.sql", 10_000);
        dumper.finish_and_exit();
        let finished = stage.upload().args(option).run().assert_status(status);
        if option.is_none() {
            finished.assert_says("'shop.dropped.sql': it is older than the dump");
        }
        assert_eq!(stage.has("shop.dropped.sql"), option.is_some());
        assert_eq!(stage.has("metadata"), option.is_some());
    }
}

/// A copy keeps the times of the files and not that of the lead's birth: `cp -a` of a finished dump must go up.
#[test]
fn a_copy_of_a_finished_dump_goes_up() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.a.00000.sql", 10_000);
    dumper.finish_and_exit();
    let (dir, copy) = (stage.sandbox.dump_dir(), stage.sandbox.path("copy"));
    let status = std::process::Command::new("cp").arg("-a").args([&dir, &copy]).status().expect("cp");
    assert!(status.success());
    std::fs::remove_dir_all(&dir).expect("removed");
    std::fs::rename(&copy, &dir).expect("renamed");
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "One failed night stops all following nights": what an earlier one left is finished or cleared before tonight's
/// mydumper starts, and tonight's dump is tonight's alone.
#[test]
fn an_earlier_dump_is_finished_before_mydumper_starts() {
    for is_whole in [true, false] {
        let stage = Stage::new();
        let mut earlier = begun_at(&stage, Generation::V1_0, "2026-01-01 02:00:00");
        earlier.file("shop.yesterday.00000.sql", 10_000);
        if is_whole {
            earlier.finish_and_exit()
        } else {
            earlier.kill()
        }
        let mut run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
        run.wait_for_line("an earlier dump stands in");
        let mut tonight = FakeDumper::accept(&stage.sandbox);
        tonight.begin(Generation::V1_0);
        tonight.file("shop.tonight.00000.sql", 10_000);
        tonight.finish_and_exit();
        let finished = run.finish().assert_status(0);
        finished.assert_says(if is_whole {
            "the earlier dump is in the bucket"
        } else {
            "the earlier dump is not whole"
        });
        let [one, two] = <[String; 2]>::try_from(stage.prefixes()).expect("two dumps");
        let states =
            [&one, &two].map(|prefix| stage.manifest_of(prefix)["state"].as_str().expect("a state").to_owned());
        let wanted = if is_whole { ["complete", "complete"] } else { ["incomplete", "complete"] };
        assert_eq!(states, wanted);
        assert_eq!(stage.files(&two), tonight.files());
        assert!(stage.files(&one).contains_key("shop.yesterday.00000.sql"));
        stage.sandbox.assert_local_names([] as [&str; 0]);
    }
}

/// A mydumper that aborts before its first flush leaves an empty `metadata.partial`: said, removed, status 3 once.
#[test]
fn an_empty_lead_that_nobody_writes_is_cleared_once() {
    let stage = Stage::new();
    stage.sandbox.put_local("metadata.partial", "");
    let alone = stage.upload().args(["--wait", "0"]).run().assert_status(3);
    alone.assert_says("a mydumper failed before its dump began");
    stage.sandbox.assert_local_names([] as [&str; 0]);
    stage.sandbox.put_local("metadata.partial", "");
    let run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
    let mut tonight = FakeDumper::accept(&stage.sandbox);
    tonight.begin(Generation::V1_0);
    tonight.file("shop.a.00000.sql", 10_000);
    tonight.finish_and_exit();
    run.finish().assert_status(0).assert_says("a mydumper failed before its dump began");
    stage.assert_whole(&tonight);
}

/// Committed, and killed or kept here before the last local file was gone: what the bucket lost since then, it has not.
#[test]
fn a_committed_dump_that_lost_an_object_is_not_called_whole() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.a.00000.sql", 10_000);
    dumper.finish_and_exit();
    let upload = || stage.upload().arg("--keep");
    upload().run().assert_status(0);
    let key = moved(&stage);
    // Not a hole: a listing that leaves it out.
    stage.server.hide_from_listings(BUCKET, &key);
    upload().run().assert_status(0).assert_says("has this dump already");
    stage.server.remove_directly(BUCKET, &key);
    let (local, there) = (stage.sandbox.local_files(), stage.names());
    let finished = upload().run().assert_status(3).assert_does_not_say("the dump is whole");
    finished.assert_says("has not any more: 'shop.a.00000.sql' is missing").assert_says("`mydumper2s3 verify`");
    assert_eq!((stage.sandbox.local_files(), stage.names()), (local, there));
}

/// All of it is there already, so that no file waits until the claim can be believed: the last manifest does.
#[test]
fn a_dump_that_is_there_already_is_committed_on_a_store_without_conditions() {
    let stage = Stage::new();
    let last = Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(MANIFEST)).after(3);
    let held = stage.server.inject(last);
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.a.00000.sql", 10_000);
    dumper.finish_and_exit();
    let run = stage.upload().start();
    stage.wait_until_moved("shop.a.00000.sql");
    held.wait_for_hits(1);
    run.kill().assert_killed_by(Signal::KILL);
    held.clear();
    let unknown = Fault::answer(501, "NotImplemented").on(Operation::PutObject).once();
    let unknown = stage.server.inject(unknown.key_where(|key| key.ends_with(MANIFEST)));
    stage.upload().run().assert_status(0).assert_says("nothing is sent for 3");
    assert_eq!(unknown.hits(), 1);
    stage.assert_whole(&dumper);
}
