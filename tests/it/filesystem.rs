//! A filesystem that answers slowly or never, as a network's does whose server is away: it keeps neither the network nor
//! the signals, because the thread that serves these asks it nothing.

use rustix::process::{Pid, Signal};

use super::stopping::state_of;
use crate::dumper_facts::following;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::run::Run;
use crate::support::s3_server::{Fault, Operation};
use crate::support::sandbox::eventually;
use crate::support::stage::Stage;
use crate::support::strace::{Trace, hanging};

/// "Nothing of the filesystem may be asked on that thread", from the first look to the last removal. The bytes that are sent
/// come out of the page cache, where they were hashed a moment ago.
#[test]
fn the_thread_of_network_and_signals_asks_the_filesystem_nothing() {
    /// Do not wait for it: a descriptor's end, advice on the page cache, and what is read only if it is there.
    const DO_NOT_WAIT: [&str; 3] = ["close", "fadvise64", "preadv2"];
    for option in [["--max-local", "1GiB"], ["--keep", "--content-check"]] {
        let stage = Stage::new();
        let dump = stage.sandbox.dump_dir().display().to_string();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        let trace = Trace::new(&stage.sandbox);
        let upload = stage.upload().args(["--part-size", "5MiB"]).args(option);
        let mut run = upload.wrapped_in(trace.wrapper()).start();
        run.wait_for_line("claimed");
        dumper.file("shop.small.00000.sql", 1_000);
        dumper.file("shop.large.00000.sql", 11 << 20);
        ["shop.small.00000.sql", "shop.large.00000.sql"].iter().for_each(|name| stage.wait_for(name));
        dumper.file("shop.last.00000.sql", 1_000);
        dumper.finish_and_exit();
        run.finish().assert_status(0);
        assert_eq!(stage.files(&stage.prefix()), dumper.files());
        let calls = trace.calls();
        let first = &calls.first().expect("a call").thread;
        let names_dump = |text: &str| text.contains(&format!("{dump}/")) || text.contains(&format!("{dump}>"));
        let is_body = |name: &str, arguments: &str| name == "pread64" && arguments.contains("shop.large.");
        // Of the descriptor alone; a debug build asks at each close whether there is one.
        let is_own = |name: &str, arguments: &str| name == "fcntl" && arguments.contains("FD");
        let asked: Vec<_> = calls
            .iter()
            .filter(|call| call.thread == *first && names_dump(&call.arguments))
            .filter(|call| !DO_NOT_WAIT.contains(&call.name.as_str()))
            .filter(|call| !is_body(&call.name, &call.arguments) && !is_own(&call.name, &call.arguments))
            .map(|call| format!("{}({}", call.name, call.arguments))
            .collect();
        assert!(calls.iter().any(|call| call.thread != *first && names_dump(&call.arguments)), "this proves nothing");
        assert_eq!(asked, [""; 0], "{option:?}");
    }
}

/// Ends a program some of whose calls hang, by a signal. What makes them hang would outlive it.
#[track_caller]
fn end(run: Run) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.pid().as_raw_nonzero())).expect("its status");
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok());
    let tracer = tracer.and_then(Pid::from_raw).expect("a tracer");
    run.signal(Signal::TERM);
    eventually("it has ended", || matches!(state_of(run.pid()), None | Some('Z')));
    rustix::process::kill_process(tracer, Signal::KILL).expect("a signal to the tracer");
    run.finish().assert_status(143);
}

/// Whatever it is that never comes back: a signal is answered.
#[test]
fn a_signal_is_answered_while_the_filesystem_does_not_answer() {
    for (call, line) in [
        ("flock", "waiting for a dump"),
        ("fstatfs", "waiting for a dump"),
        ("fsetxattr", "claimed"),
        ("getdents64", "claimed"),
        ("unlinkat", "claimed"),
    ] {
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.file("shop.a.00000.sql", 1_000);
        let mut run = stage.upload().args(["--stop-timeout", "1"]).wrapped_in(hanging(call, &stage.sandbox)).start();
        run.wait_for_line(line);
        if call == "unlinkat" {
            // It is up, and its removal hangs.
            stage.wait_for("shop.a.00000.sql");
        }
        end(run);
        dumper.finish_and_exit();
        stage.upload().run().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// What is on its way goes on: its bytes are sent, and it is proved.
#[test]
fn files_on_their_way_arrive_while_the_filesystem_does_not_answer() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let held =
        stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with("b.00000.sql")));
    // The first removal hangs, and with it all that wait for theirs.
    let run = following(stage.upload().args(["--stop-timeout", "1"]).wrapped_in(hanging("unlinkat", &stage.sandbox)));
    dumper.file("shop.a.00000.sql", 1_000);
    dumper.file("shop.b.00000.sql", 1_000);
    stage.wait_for("shop.a.00000.sql");
    held.wait_for_hits(1);
    held.clear();
    stage.wait_for("shop.b.00000.sql");
    end(run);
    dumper.finish_and_exit();
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}
