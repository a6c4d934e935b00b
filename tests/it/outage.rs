//! A store that is down, slow, busy, or answers wrongly: files wait locally, nothing is lost, and nothing is committed
//! that is not proved. (Down for a while, and for too long; damaged and wrong ETags: `promises`.)

use std::time::Duration;

use rustix::process::Signal;

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, Operation};
use crate::support::sandbox::eventually;
use crate::support::stage::{MANIFEST, Stage};

const MIB: u64 = 1024 * 1024;
const FILES: u64 = 8;

fn is_data(key: &str) -> bool {
    key.ends_with(".sql")
}

/// "One log line when it starts and one when it ends", whatever the store says or does meanwhile, and however many
/// workers see it.
#[test]
fn every_kind_of_outage_is_waited_out_and_said_once() {
    let kinds: [fn() -> Fault; 8] = [
        || Fault::answer(503, "SlowDown"),
        || Fault::answer(503, "ServiceUnavailable"),
        || Fault::answer(429, "TooManyRequests"),
        || Fault::answer(500, "InternalError"),
        || Fault::answer(409, "OperationAborted"),
        Fault::cut_before_body,
        Fault::cut_in_body,
        Fault::lose_answer,
    ];
    std::thread::scope(|scope| {
        for kind in kinds {
            scope.spawn(move || {
                let stage = Stage::new();
                let fault = stage.server.inject(kind().on(Operation::PutObject).key_where(is_data));
                let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
                dumper.generate(FILES, 50_000, 0);
                let mut run = stage.upload().start();
                run.wait_for_line("files wait locally");
                fault.wait_for_hits(6);
                dumper.finish_and_exit();
                assert!(dumper.files().keys().all(|name| stage.sandbox.local_files().contains_key(name)));
                fault.clear();
                let finished = run.finish().assert_status(0);
                let said =
                    ["files wait locally", "the store is back"].map(|words| finished.text().matches(words).count());
                assert_eq!(said, [1, 1], "{finished:?}");
                stage.assert_whole(&dumper);
            });
        }
    });
}

/// A store that is down is asked by one request at a time.
#[test]
fn a_store_that_is_down_is_not_hammered() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().args(["--workers", "16"]).start();
    run.wait_for_line("claimed");
    let fault = stage.server.inject(Fault::answer(500, "InternalError").on(Operation::PutObject).key_where(is_data));
    dumper.generate(64, 1_000, 0);
    run.wait_for_line("files wait locally");
    // Each of those under way when it went down, three times by the SDK; from then on one.
    let first = fault.hits();
    fault.wait_for_hits(16 * 3);
    let settled = fault.hits();
    std::thread::scope(|scope| {
        scope.spawn(|| fault.wait_for_hits(settled + 6));
    });
    assert!(first <= 16 * 3 && fault.hits() < 16 * 3 + 16, "{} requests", fault.hits());
    fault.clear();
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "A request that never gets an answer ends by itself", with its body taken or the object even stored.
#[test]
fn a_request_that_never_gets_an_answer_ends_by_itself() {
    let stage = Stage::new();
    let [taken, stored] = [Fault::hang(), Fault::store_then_hang()].map(|fault| fault.on(Operation::PutObject).once());
    let taken = stage.server.inject(taken.key_where(|key| key.ends_with("/shop.a.00000.sql")));
    let stored = stage.server.inject(stored.key_where(|key| key.ends_with("/shop.b.00000.sql")));
    let part = stage.server.inject(Fault::hang().on(Operation::UploadPart).part(2).once());
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.a.00000.sql", 10_000);
    dumper.file("shop.b.00000.sql", 10_000);
    dumper.file("shop.c.00000.sql", 6 * MIB);
    let run = stage.upload().args(["--part-size", "5MiB"]).time_limit(Duration::from_secs(240)).start();
    [&taken, &stored, &part].into_iter().for_each(|fault| fault.wait_for_hits(1));
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("no answer within").assert_says("the store is back");
    stage.assert_whole(&dumper);
}

/// "A healthy slow link (256 KiB/s) is not cut off": four requests share it, and each takes longer than a request
/// without an answer may.
#[test]
fn a_slow_healthy_link_is_not_cut_off() {
    let stage = Stage::new();
    stage.server.set_rate_limit(Some(256 * 1024));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.generate(4, 2_300_000, 0);
    dumper.finish_and_exit();
    let finished = stage.upload().time_limit(Duration::from_secs(240)).run().assert_status(0);
    finished.assert_does_not_say("will be retried");
    stage.assert_whole(&dumper);
    let puts = stage.server.requests_of(Operation::PutObject);
    let puts: Vec<_> = puts.iter().filter(|request| is_data(&request.key)).collect();
    assert_eq!(puts.len(), 4);
    let longest = puts.iter().filter_map(|request| request.took).max();
    assert!(longest > Some(Duration::from_secs(30)), "this proves nothing: {longest:?}");
}

/// A story with one file in three parts, and a fault in it. It must end well.
#[track_caller]
fn in_parts_despite(fault: Fault) -> Stage {
    let stage = Stage::new();
    let fault = stage.server.inject(fault);
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 11 * MIB);
    dumper.finish_and_exit();
    let finished = stage.upload().args(["--part-size", "5MiB"]).run();
    assert!(fault.hits() > 0, "the fault struck nothing: {finished:?}");
    finished.assert_status(0);
    stage.assert_whole(&dumper);
    stage
}

/// "200 with an error inside": nothing was made, or all was.
#[test]
fn an_error_inside_200_is_no_success() {
    let complete = Operation::CompleteMultipartUpload;
    in_parts_despite(Fault::error_inside_ok("InternalError").on(complete).times(4));
    in_parts_despite(Fault::store_then_error_inside_ok("InternalError").on(complete).once());
}

/// "An answer lost after the object was stored": HEAD decides; nothing is sent twice.
#[test]
fn a_lost_answer_is_found_out() {
    let stage = in_parts_despite(Fault::lose_answer().on(Operation::CompleteMultipartUpload).once());
    assert_eq!(stage.server.count(Operation::UploadPart), 3, "sent again");
    let stage =
        in_parts_despite(Fault::store_then_answer(500, "InternalError").on(Operation::CompleteMultipartUpload).once());
    assert_eq!(stage.server.count(Operation::UploadPart), 3, "sent again");
    in_parts_despite(Fault::lose_answer().on(Operation::UploadPart).part(2).once());
}

/// Nobody can know the id of an upload whose first answer was lost: it is left alone, as a stranger's would be, and said.
#[test]
fn an_upload_whose_id_never_came_is_left_and_said() {
    let stage = Stage::new();
    let fault = Fault::lose_answer().on(Operation::CreateMultipartUpload).key_where(is_data).once();
    let fault = stage.server.inject(fault);
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 11 * MIB);
    dumper.finish_and_exit();
    let finished = stage.upload().args(["--part-size", "5MiB"]).run().assert_status(0);
    assert_eq!(fault.hits(), 1);
    finished.assert_says("unfinished uploads that are not known to be of this dump (1)");
    stage.assert_committed_at(&stage.prefix(), &dumper);
    assert_eq!(stage.server.open_multipart_uploads(BUCKET).len(), 1);
}

/// The same for what is put under a condition, which the repetition finds broken by the very object that it made: the
/// claim, its repetition, the last manifest, and `metadata`.
#[test]
fn a_lost_answer_to_a_put_under_a_condition_is_found_out() {
    // Between the first two the claim is put where it must be refused.
    let puts = [(MANIFEST, 0), (MANIFEST, 2), (MANIFEST, 3), ("metadata", 0)];
    for fault in [|| Fault::lose_answer(), || Fault::store_then_answer(500, "InternalError")] {
        for (name, before) in puts {
            let stage = Stage::new();
            let fault = fault().on(Operation::PutObject).key_where(move |key| key.ends_with(&format!("/{name}")));
            let fault = stage.server.inject(fault.after(before).once());
            let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
            dumper.file("shop.a.00000.sql", 10_000);
            dumper.finish_and_exit();
            stage.upload().run().assert_status(0);
            assert_eq!(fault.hits(), 1, "{name} after {before} others");
            stage.assert_whole(&dumper);
        }
    }
}

/// The claim was written, no answer came, and the store was away for longer than we asked: what stands there later is
/// ours, and no sign of another program.
#[test]
fn an_outage_after_the_claim_was_written_is_not_taken_for_another_program() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().key_where(|key| key.ends_with("/shop.a.00000.sql")));
    let mut run = stage.upload().args(["--retry-for", "1s", "--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.a.00000.sql", 1_000);
    held.wait_for_hits(1);
    let is_claim = |key: &str| key.ends_with("/mydumper2s3.json");
    let stored = Fault::store_then_answer(503, "SlowDown").on(Operation::PutObject).key_where(is_claim).once();
    let stored = stage.server.inject(stored);
    let away = stage.server.inject(Fault::answer(503, "SlowDown").key_where(is_claim).after(1));
    dumper.finish_and_exit();
    run.wait_for_line("exit status cannot be written into the claim");
    assert_eq!(stored.hits(), 1);
    away.clear();
    held.clear();
    run.finish().assert_status(0).assert_does_not_say("another program has claimed");
    stage.assert_whole(&dumper);
}

/// "An empty ETag on completion": HEAD has it. And a wrong one: the object is asked.
#[test]
fn an_empty_or_wrong_etag_of_a_completion_is_asked_for_again() {
    let complete = Operation::CompleteMultipartUpload;
    let stage = in_parts_despite(Fault::empty_etag().on(complete));
    assert!(stage.server.count(Operation::HeadObject) > 0);
    assert_eq!(stage.manifest()["files"][1]["proof"], "etag-composite");
    in_parts_despite(Fault::wrong_etag().on(complete));
}

/// Damaged on its way, or an ETag of other bytes, for a part: it is sent again.
#[test]
fn a_damaged_part_is_sent_again() {
    // It alone, and not its file.
    let stage = in_parts_despite(Fault::damage_in_transit().on(Operation::UploadPart).part(2).times(2));
    assert_eq!(stage.server.count(Operation::UploadPart), 3 + 2);
    let stage = in_parts_despite(Fault::wrong_etag().on(Operation::UploadPart).part(1).once());
    assert_eq!(stage.server.count(Operation::UploadPart), 3 + 1);
}

/// "A vanished upload id": the file begins anew.
#[test]
fn a_vanished_upload_id_begins_the_file_anew() {
    in_parts_despite(Fault::answer(404, "NoSuchUpload").on(Operation::UploadPart).part(2).once());
    in_parts_despite(Fault::answer(404, "NoSuchUpload").on(Operation::CompleteMultipartUpload).once());
}

/// A flipped byte behind a right ETag: no answer of the store tells of it, only reading everything back does.
#[test]
fn what_the_store_damages_unsaid_is_found_by_verify_deep() {
    let stage = Stage::new();
    let damaged = |key: &str| key.ends_with("/shop.t.00000.sql");
    stage.server.inject(Fault::damage_stored().on(Operation::PutObject).key_where(damaged));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_and_exit();
    stage.upload().run().assert_status(0);
    let verify = |options: &[&str]| {
        let program = stage.sandbox.mydumper2s3().args(["verify", "--bucket", BUCKET, "--prefix", &stage.prefix()]);
        program.args(options).connect_to(&stage.endpoint()).run()
    };
    verify(&[]).assert_status(0);
    verify(&["--deep"]).assert_status(4).assert_says("shop.t.00000.sql");
}

/// "A bucket removed meanwhile": that is waited out as an outage, and said with what to do.
#[test]
fn a_bucket_that_is_removed_meanwhile_is_waited_for() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().start();
    dumper.file("shop.before.00000.sql", 10_000);
    stage.wait_until_moved("shop.before.00000.sql");
    let removed = stage.server.inject(Fault::answer(404, "NoSuchBucket"));
    dumper.file("shop.t.00000.sql", 10_000);
    run.wait_for_line("files wait locally");
    dumper.finish_and_exit();
    run.wait_for_line("the dump has ended");
    stage.sandbox.assert_local_names(["metadata", "shop.t.00000.sql"]);
    removed.clear();
    run.finish().assert_status(0).assert_says("NoSuchBucket").assert_says("check --bucket");
    stage.assert_whole(&dumper);
}

/// "Clock skew of an hour in either direction."
#[test]
fn a_clock_that_is_an_hour_off_does_not_matter() {
    for seconds in [-3_600, 3_600] {
        let stage = Stage::new();
        stage.server.set_clock_offset(seconds);
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.file("shop.t.00000.sql", 10_000);
        dumper.finish_and_exit();
        stage.upload().run().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// And a clock that jumps in the middle of the dump.
#[test]
fn a_clock_that_jumps_does_not_matter() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().start();
    run.wait_for_line("claimed");
    stage.server.set_clock_offset(3_600);
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// After the dump's end patience ends: status 1, and everything that is not proved is still here. Not only when the
/// store is down, but whatever an outage is.
#[test]
fn after_the_end_patience_ends_and_everything_is_still_here() {
    for fault in [Fault::answer(503, "SlowDown"), Fault::answer(403, "AccessDenied"), Fault::cut_in_body()] {
        let stage = Stage::new();
        stage.server.inject(fault.on(Operation::PutObject).key_where(is_data));
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.file("shop.t.00000.sql", 10_000);
        dumper.finish_and_exit();
        stage.upload().args(["--retry-for", "1s"]).run().assert_status(1).assert_says("time is up");
        assert_eq!(stage.sandbox.local_files(), dumper.files());
        stage.server.clear_faults();
        stage.upload().run().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// "A hiccup costs the night": what is busy, broken or refuses connections at the start is waited for like later.
#[test]
fn an_outage_at_the_start_is_waited_out() {
    for hiccup in [
        Fault::answer(503, "SlowDown").on(Operation::ListObjectsV2),
        Fault::answer(429, "TooManyRequests").on(Operation::CreateMultipartUpload),
        Fault::cut_before_body().on(Operation::ListObjectsV2),
    ] {
        let stage = Stage::new();
        let hiccup = stage.server.inject(hiccup);
        let mut run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
        let line = run.wait_for_line("cannot be used (will be retried)");
        assert!(line.contains(&stage.server.endpoint()), "the line names the endpoint: {line}");
        hiccup.clear();
        let mut dumper = FakeDumper::accept(&stage.sandbox);
        dumper.begin(Generation::V1_0);
        dumper.file("shop.t.00000.sql", 10_000);
        dumper.finish_and_exit();
        run.finish().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// In the end it is a failure and no wrong setting, and mydumper was never started; a stop ends the wait at once.
#[test]
fn an_outage_at_the_start_that_does_not_end_is_status_1() {
    let stage = Stage::new();
    stage.server.inject(Fault::answer(503, "SlowDown"));
    let upload = |patience| stage.upload().args(["--retry-for", patience, "--", "mydumper", "-B", "shop"]);
    let gave_up = upload("1s").run().assert_status(1);
    gave_up
        .assert_says("nothing was begun")
        .assert_does_not_say("started mydumper")
        .assert_does_not_say("wait locally");
    let mut run = upload("1h").start();
    run.wait_for_line("will be retried");
    run.signal(Signal::TERM);
    run.finish().assert_status(143);
    for command in ["list", "verify", "prune", "delete"] {
        let options = if command == "prune" { &["--keep-last", "1"][..] } else { &[] };
        let asked = stage.sandbox.mydumper2s3().args([command, "--bucket", BUCKET, "--prefix", "a"]).args(options);
        asked.connect_to(&stage.endpoint()).run().assert_status(1).assert_does_not_say("wait locally");
    }
}

/// Hashing stands still until what is hashed has been sent; the part that was damaged must not wait for that.
#[test]
fn a_damaged_part_does_not_wait_for_those_that_wait_for_it() {
    let stage = Stage::new();
    stage.server.inject(Fault::damage_in_transit().on(Operation::UploadPart).part(1).once());
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 41 * MIB);
    dumper.finish_and_exit();
    stage.upload().args(["--part-size", "5MiB", "--workers", "1"]).run().assert_status(0);
    assert_eq!(stage.server.count(Operation::UploadPart), 9 + 1);
    stage.assert_whole(&dumper);
}

/// One part that takes long holds up neither the file's other parts nor other files.
#[test]
fn a_slow_part_holds_up_no_other() {
    let stage = Stage::new();
    let slow = stage.server.inject(Fault::hold().on(Operation::UploadPart).part(1).once());
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 41 * MIB);
    dumper.file("shop.u.00000.sql", MIB);
    dumper.finish_and_exit();
    let run = stage.upload().args(["--part-size", "5MiB", "--workers", "2"]).start();
    slow.wait_for_hits(1);
    // Part 1 waits for its answer; the eight others have theirs.
    eventually("all other parts are there", || {
        let parts = stage.server.requests().into_iter().filter(|request| request.operation == Operation::UploadPart);
        parts.filter(|request| request.is_ok()).count() == 8
    });
    stage.wait_for("shop.u.00000.sql");
    slow.clear();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}
