//! Jobs that cron starts in the same second get the same prefix from the default, and each its own place.

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{ACCESS_KEY, AccessKey, BUCKET, Operation, Permission, S3Server, SECRET_KEY};
use crate::support::sandbox::{Endpoint, Program, Sandbox, eventually};
use crate::support::stage::{MANIFEST, Stage};

const STARTED: &str = "2026-01-02 02:00:01";

/// A dump that began in that second and lives.
fn begun(sandbox: &Sandbox) -> FakeDumper {
    let mut dumper = FakeDumper::launch(sandbox);
    dumper.create_metadata(Generation::V1_0);
    dumper.write_started_at(STARTED);
    dumper.file("shop.a.00000.sql", 1_000);
    dumper
}

fn upload<'a>(sandbox: &'a Sandbox, endpoint: &Endpoint) -> Program<'a> {
    sandbox.mydumper2s3().upload_to(endpoint).args(["--settle", "0.2"])
}

/// The place that the default gives to a dump of that second, and the one beside it.
fn places() -> [String; 2] {
    let host = rustix::system::uname().nodename().to_str().expect("a host name").to_owned();
    let first = format!("{host}/2026-01-02T020001Z");
    [first.clone(), first + "-2"]
}

fn is_claimed(server: &S3Server, place: &str) -> bool {
    server.keys(BUCKET).contains(&format!("{place}/{MANIFEST}"))
}

#[test]
fn two_jobs_of_one_second_go_side_by_side() {
    let (one, other) = (Stage::new(), Sandbox::new());
    let [first, second] = places();
    let mut dumpers = [begun(&one.sandbox), begun(&other)];
    let runs = [upload(&one.sandbox, &one.endpoint()).start(), upload(&other, &one.endpoint()).start()];
    for (index, dumper) in dumpers.iter_mut().enumerate() {
        dumper.file(format!("shop.t.0000{index}.sql"), 1_000);
    }
    eventually("each has a place", || [&first, &second].iter().all(|place| is_claimed(&one.server, place)));
    dumpers.iter_mut().for_each(FakeDumper::finish_and_exit);
    runs.into_iter().for_each(|run| drop(run.finish().assert_status(0)));
    let has_first = one.server.keys(BUCKET).contains(&format!("{first}/shop.t.00000.sql"));
    let [a, b] = if has_first { [&first, &second] } else { [&second, &first] };
    one.assert_whole_at(a, &dumpers[0]);
    one.assert_whole_at(b, &dumpers[1]);
    let list = one.command("list").arg("--json").run().assert_status(0);
    let series = format!("\"series\":\"{}\"", first.split_once('/').expect("a host").0);
    assert_eq!(list.stdout.replace(": ", ":").matches(&series).count(), 2, "{}", list.stdout);
}

/// The record says which place was chosen; without it the claim does.
#[test]
fn a_restart_goes_on_beside_the_other() {
    let (one, other) = (Stage::new(), Sandbox::new());
    let [first, second] = places();
    let mut dumper = begun(&one.sandbox);
    dumper.finish_and_exit();
    upload(&one.sandbox, &one.endpoint()).run().assert_status(0);
    let mut dumper = begun(&other);
    let run = upload(&other, &one.endpoint()).start();
    dumper.file("shop.t.00000.sql", 1_000);
    one.wait_for("shop.t.00000.sql");
    eventually("it is here no more", || !other.local_files().contains_key("shop.t.00000.sql"));
    run.kill();
    dumper.file("shop.t.00001.sql", 1_000);
    dumper.finish_and_exit();
    upload(&other, &one.endpoint()).run().assert_status(0);
    one.assert_whole_at(&second, &dumper);
    let mut prefixes = one.prefixes();
    prefixes.sort();
    assert_eq!(prefixes, [first, second]);
}

/// It may be a copy of the one that is there, of which files were removed after their upload.
#[test]
fn a_dump_that_nobody_saw_alive_does_not_move_aside() {
    let (one, other) = (Stage::new(), Sandbox::new());
    for (sandbox, status) in [(&one.sandbox, 0), (&other, 2)] {
        let mut dumper = begun(sandbox);
        dumper.file("shop.t.00000.sql", 1_000);
        dumper.finish_and_exit();
        let finished = upload(sandbox, &one.endpoint()).run().assert_status(status);
        if status == 2 {
            finished.assert_says("is occupied: it holds another dump");
            assert_eq!(sandbox.local_files(), dumper.files());
        }
    }
    assert_eq!(one.prefixes(), [places()[0].clone()]);
}

/// Where nothing may be asked, the condition of the request tells that the place is another's: they are never mixed.
#[test]
fn with_write_only_they_are_never_mixed() {
    let (one, [other, third]) = (Stage::new(), [Sandbox::new(), Sandbox::new()]);
    one.server.set_key(AccessKey::new(ACCESS_KEY, SECRET_KEY).only([Permission::PutObject]));
    let write_only = |sandbox| {
        let program = upload(sandbox, &one.endpoint());
        program.args(["--write-only", "--wait", "0"]).start()
    };
    let [first, second] = places();
    let mut dumpers = [begun(&one.sandbox), begun(&other)];
    let runs = [write_only(&one.sandbox), write_only(&other)];
    eventually("each has a place", || [&first, &second].iter().all(|place| is_claimed(&one.server, place)));
    dumpers.iter_mut().for_each(FakeDumper::finish_and_exit);
    runs.into_iter().for_each(|run| drop(run.finish().assert_status(0)));
    let before = one.server.requests().len();
    let mut dumper = begun(&third);
    dumper.finish_and_exit();
    let finished = write_only(&third).finish();
    finished.assert_status(2).assert_says("is occupied: it is claimed").assert_says("choose another --prefix");
    let written = one
        .server
        .requests()
        .split_off(before)
        .into_iter()
        .filter(|request| request.status.is_some_and(|status| status < 300));
    let written: Vec<_> = written.filter(|request| request.operation == Operation::PutObject).collect();
    assert!(written.is_empty(), "{written:?}");
    assert_eq!(third.local_files(), dumper.files());
}
