//! SIGTERM, SIGINT, SIGPIPE, SIGIO. (Where mydumper is our child: `child_mode`.)

use std::process::Stdio;

use rustix::process::{Pid, Signal};

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, Operation};
use crate::support::sandbox::{eventually, eventually_some};
use crate::support::stage::Stage;

const MIB: u64 = 1024 * 1024;

/// "Take no new files, give running requests `--stop-timeout`": what is on its way arrives, what waits stays.
#[test]
fn a_stop_lets_running_requests_end_and_takes_no_new_files() {
    for (signal, status) in [(Signal::TERM, 128 + 15), (Signal::INT, 128 + 2)] {
        let stage = Stage::new();
        let held = stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(".sql")));
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        let mut run = stage.upload().args(["--workers", "1", "--stop-timeout", "30"]).start();
        dumper.file("shop.a.00000.sql", 1_000);
        held.wait_for_hits(1);
        dumper.file("shop.b.00000.sql", 1_000);
        stage.let_looks_pass();
        run.signal(signal);
        run.wait_for_line("stopping");
        dumper.file("shop.c.00000.sql", 1_000);
        held.clear();
        let finished = run.finish().assert_status(status).assert_says("hint: run the same command again");
        assert_eq!(stage.uploads_of("shop.a.00000.sql").len(), 1);
        assert!(stage.has("shop.a.00000.sql"), "{finished:?}");
        assert_eq!(stage.uploads_of("shop.b.00000.sql").len(), 0, "one that waited was begun");
        assert_eq!(stage.uploads_of("shop.c.00000.sql").len(), 0, "a new file was taken");
        assert!(!stage.sandbox.local_files().contains_key("shop.a.00000.sql"), "proved, but still here");
        dumper.finish_and_exit();
        stage.upload().run().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// "Abort unfinished multipart uploads", so that they cost nothing for ever.
#[test]
fn a_stop_aborts_unfinished_uploads() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().on(Operation::UploadPart).part(2));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = stage.upload().args(["--part-size", "5MiB", "--stop-timeout", "0.2"]).start();
    dumper.file("shop.t.00000.sql", 11 * MIB);
    held.wait_for_hits(1);
    assert_eq!(stage.server.open_multipart_uploads(BUCKET).len(), 1);
    run.signal(Signal::TERM);
    run.finish().assert_status(128 + 15).assert_says("did not end in time");
    assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
    held.clear();
    dumper.finish_and_exit();
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// A stop while the store is down ends in its time, too.
#[test]
fn a_stop_during_an_outage_ends_in_time() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().args(["--stop-timeout", "0.5"]).start();
    run.wait_for_line("claimed");
    stage.server.down();
    dumper.file("shop.t.00000.sql", 1_000);
    run.wait_for_line("files wait locally");
    run.signal(Signal::TERM);
    run.finish().assert_status(128 + 15);
    dumper.finish_and_exit();
    assert_eq!(stage.sandbox.local_files(), dumper.files());
    stage.server.up();
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "SIGPIPE on stdout ends nothing": nobody reads what we, or mydumper through us, say.
#[test]
fn nobody_needs_to_listen() {
    let stage = Stage::new();
    let mut command = stage.upload().args(["-vv", "--", "mydumper", "-B", "shop"]).command();
    let (stdout, stderr) = (std::io::pipe().expect("a pipe"), std::io::pipe().expect("a pipe"));
    let mut run = command.stdin(Stdio::null()).stdout(stdout.1).stderr(stderr.1).spawn().expect("the program");
    // The command keeps copies of the pipes' other ends.
    drop(command);
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    drop((stdout.0, stderr.0));
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    stage.wait_until_moved("shop.t.00000.sql");
    dumper.finish_and_exit();
    assert_eq!(run.wait().expect("its status").code(), Some(0));
    stage.assert_whole(&dumper);
}

/// SIGIO comes when somebody opens a file on which we hold a lease; its default action would end us. So would SIGPIPE's.
#[test]
fn sigio_and_sigpipe_end_nothing() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().start();
    run.wait_for_line("claimed");
    for signal in [Signal::IO, Signal::PIPE] {
        run.signal(signal);
    }
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// A stop while mydumper is paused wakes it: a stopped process would never see the signal that ends it.
#[test]
fn a_stop_while_mydumper_is_paused_wakes_and_ends_it() {
    let stage = Stage::new();
    stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(".sql")));
    let options = ["--max-local", "1KiB", "--stop-timeout", "5", "--", "mydumper", "-B", "shop"];
    let mut run = stage.upload().args(options).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    run.wait_for_line("mydumper is paused");
    eventually("mydumper is stopped", || state_of(dumper.pid()) == Some('T'));
    run.signal(Signal::TERM);
    dumper.wait_for_end();
    run.finish().assert_status(128 + 15);
    assert!(!stage.has("metadata"));
    assert_eq!(stage.sandbox.local_files(), dumper.files());
}

/// As `/proc/PID/stat` has it: `T` is stopped.
pub fn state_of(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// "128+n: ended by signal n, after an orderly stop", at whatever step: and the next run goes on.
#[test]
fn an_orderly_stop_loses_nothing() {
    let ends_with = |end: &'static str| move |key: &str| key.ends_with(end);
    let steps = [
        Fault::hold().key_where(ends_with("/shop.t.00000.sql")),
        Fault::hold().on(Operation::ListObjectsV2).after(2),
        Fault::hold().key_where(ends_with("/metadata")),
    ];
    for fault in steps {
        let stage = Stage::new();
        let held = stage.server.inject(fault);
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        let mut run = stage.upload().args(["--stop-timeout", "0.2"]).start();
        run.wait_for_line("found a dump (running)");
        dumper.file("shop.t.00000.sql", 1_000);
        dumper.finish_and_exit();
        held.wait_for_hits(1);
        run.signal(Signal::TERM);
        run.finish().assert_status(128 + 15).assert_says("hint: run the same command again");
        held.clear();
        assert!(stage.sandbox.dump_dir().join("metadata").exists());
        stage.upload().run().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// A script's exit status is waited for when the signal comes: the dump is no worse for it.
#[test]
fn a_stop_while_the_exit_status_is_waited_for_loses_nothing() {
    let stage = Stage::new();
    let status = stage.sandbox.path("status");
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let upload = || stage.upload().args(["--stop-timeout", "0.2"]).arg("--exit-status-file").arg(&status);
    let run = upload().start();
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    stage.wait_until_moved("shop.t.00000.sql");
    run.signal(Signal::INT);
    run.finish().assert_status(128 + 2);
    stage.sandbox.assert_local_names(["metadata"]);
    std::fs::write(&status, "0\n").expect("a status file");
    upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// The second signal ends it at once.
#[test]
fn a_second_signal_ends_it_at_once() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().key_where(|key| key.ends_with("/shop.t.00000.sql")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().args(["--stop-timeout", "1h"]).start();
    dumper.file("shop.t.00000.sql", 1_000);
    held.wait_for_hits(1);
    run.signal(Signal::TERM);
    run.wait_for_line("stopping");
    run.signal(Signal::TERM);
    run.finish().assert_status(128 + 15);
    eventually_some("the file is still there", || stage.sandbox.local_files().remove("shop.t.00000.sql"));
}
