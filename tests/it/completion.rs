//! The end of an upload in parts, for which a store may take minutes, and whose answer may be lost.

use rustix::process::Signal;

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, Operation};
use crate::support::sandbox::Run;
use crate::support::stage::Stage;

const MIB: u64 = 1024 * 1024;
const NAME: &str = "shop.t.00000.sql";

fn is_data(key: &str) -> bool {
    key.ends_with(NAME)
}

/// A run that is to send a file in parts.
fn begin(stage: &Stage) -> (Run, FakeDumper) {
    let run = stage.upload().args(["--part-size", "5MiB", "--stop-timeout", "1"]).start();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file(NAME, 11 * MIB);
    (run, dumper)
}

fn wait_for_looks(stage: &Stage, count: usize) {
    for seen in 1..=count {
        stage.server.wait_until("the object is looked at", |requests| {
            let is_look = |operation| operation == Operation::HeadObject;
            requests.iter().filter(|request| is_look(request.operation) && is_data(&request.key)).count() >= seen
        });
    }
}

/// "A slow CompleteMultipartUpload (AWS: minutes) was taken for an outage after 30 s": a store that answers others is at
/// work on it. It is asked once.
#[test]
fn a_completion_that_takes_long_is_no_outage() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().on(Operation::CompleteMultipartUpload));
    let (run, mut dumper) = begin(&stage);
    held.wait_for_hits(1);
    // Each look comes 15 s after the last.
    wait_for_looks(&stage, 3);
    // Others are not kept waiting.
    dumper.file("shop.u.00000.sql", 1_000);
    stage.wait_until_moved("shop.u.00000.sql");
    held.clear();
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_does_not_say("cannot be used");
    assert_eq!(stage.server.count(Operation::CompleteMultipartUpload), 1);
    stage.assert_whole(&dumper);
}

/// "Keep signals answered": no store is waited for after `--stop-timeout`.
#[test]
fn a_stop_does_not_wait_for_a_completion() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().on(Operation::CompleteMultipartUpload));
    let (run, mut dumper) = begin(&stage);
    held.wait_for_hits(1);
    run.signal(Signal::TERM);
    run.finish().assert_status(128 + 15).assert_says("did not end in time");
    held.clear();
    dumper.finish_and_exit();
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "After a lost answer the object is looked at before anything is sent again": whether the connection breaks, the answer
/// is an error, or none comes at all.
#[test]
fn after_a_lost_answer_the_object_is_looked_at_and_nothing_is_sent_again() {
    let faults = [Fault::lose_answer(), Fault::store_then_answer(500, "InternalError"), Fault::store_then_hang()];
    for fault in faults {
        let stage = Stage::new();
        let fault = stage.server.inject(fault.on(Operation::CompleteMultipartUpload).once());
        let (run, mut dumper) = begin(&stage);
        stage.wait_until_moved(NAME);
        assert_eq!(fault.hits(), 1);
        dumper.finish_and_exit();
        run.finish().assert_status(0).assert_does_not_say("cannot be used");
        assert_eq!(stage.server.count(Operation::CompleteMultipartUpload), 1, "asked again");
        assert_eq!(stage.server.count(Operation::UploadPart), 3, "sent again");
        assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
        stage.assert_whole(&dumper);
    }
}
