//! Output that nobody reads, or that cannot be written: real pipes, and a device that is full.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read};
use std::process::{Child, Command, Stdio};

use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, Signal};

use crate::stopping::state_of;
use crate::support::dump_objects::Vault;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{Fault, Operation};
use crate::support::sandbox::{Program, eventually};
use crate::support::stage::Stage;
use crate::support::stored_dump::StoredDump;

/// What a pipe is made of. A write that does not fit fills one after the other.
const PAGE: usize = 4096;

/// A pipe into which nothing goes any more, as a stopped pager leaves it.
fn full_pipe() -> (PipeReader, PipeWriter) {
    filled_pipe(1)
}

/// A pipe of so many pages, of which the first is full.
fn filled_pipe(pages: usize) -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    assert_eq!(fcntl_setpipe_size(&writer, pages * PAGE).expect("a small pipe"), pages * PAGE);
    assert_eq!(rustix::io::write(&writer, &[b'.'; PAGE]).expect("room"), PAGE);
    (reader, writer)
}

fn fills(reader: &PipeReader) -> u64 {
    rustix::io::ioctl_fionread(reader).expect("what waits in a pipe")
}

fn start(program: &Program<'_>, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Child {
    let mut command: Command = program.command();
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().expect("the program")
}

fn signal(run: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(run), signal).expect("a signal to a running program");
}

/// Before the program ends it waits for a reader, but not for long.
fn status(mut run: Child) -> Option<i32> {
    let mut status = None;
    eventually("it ends", || {
        status = run.try_wait().expect("its status");
        status.is_some()
    });
    status.and_then(|status| status.code())
}

/// "stderr that nobody reads must block nothing: uploads go on" to status 0, with `-vv`, from the first line on.
#[test]
fn stderr_that_nobody_reads_keeps_no_upload() {
    let stage = Stage::new();
    let (reader, writer) = full_pipe();
    let run = start(&stage.upload().arg("-vv"), Stdio::null(), writer);
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    stage.wait_until_moved("shop.t.00000.sql");
    dumper.finish_and_exit();
    assert_eq!(status(run), Some(0));
    assert_eq!(fills(&reader), PAGE as u64, "something was read");
    stage.assert_whole(&dumper);
}

/// "SIGTERM is answered at once, a paused mydumper is resumed", whatever became of the reader.
#[test]
fn a_signal_is_answered_while_nobody_reads_stderr() {
    let stage = Stage::new();
    stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(".sql")));
    let options = ["-vv", "--max-local", "1KiB", "--stop-timeout", "1", "--", "mydumper", "-B", "shop"];
    let (_reader, writer) = full_pipe();
    let run = start(&stage.upload().args(options), Stdio::null(), writer);
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    eventually("mydumper is paused", || state_of(dumper.pid()) == Some('T'));
    signal(&run, Signal::TERM);
    dumper.wait_for_end();
    assert_eq!(status(run), Some(128 + 15));
    assert_eq!(stage.sandbox.local_files(), dumper.files());
}

/// The second signal ends it at once, as it does where somebody reads. Another one than the first: two that are the same
/// may arrive as one.
#[test]
fn a_second_signal_ends_it_at_once_while_nobody_reads_stderr() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(".sql")));
    let (_reader, writer) = full_pipe();
    let run = start(&stage.upload().args(["-vv", "--stop-timeout", "1h"]), Stdio::null(), writer);
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    held.wait_for_hits(1);
    signal(&run, Signal::TERM);
    signal(&run, Signal::INT);
    let status = status(run);
    assert!(matches!(status, Some(130 | 143)), "{status:?}");
    assert_eq!(stage.sandbox.local_files(), dumper.files());
}

/// "The child's words" pass through the same queue: mydumper is not held by who does not read us, and how many of its
/// lines were not shown is said to a reader who comes back.
#[test]
fn the_childs_words_wait_for_nobody_and_what_is_not_shown_is_counted() {
    let stage = Stage::new();
    let (mut reader, writer) = full_pipe();
    let run = start(
        &stage.upload().args(["--log-format", "json", "--", "mydumper", "-B", "shop"]),
        Stdio::null(),
        writer.try_clone().expect("the pipe's end"),
    );
    drop(writer);
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    // Twice what the queue and all pipes hold.
    (0..150).for_each(|_| dumper.log(&"x".repeat(60_000)));
    dumper.file("shop.t.00000.sql", 10_000);
    stage.wait_until_moved("shop.t.00000.sql");
    dumper.finish();
    let mut text = String::new();
    std::thread::scope(|scope| {
        scope.spawn(|| reader.read_to_string(&mut text).expect("text"));
        dumper.exit(0);
        assert_eq!(status(run), Some(0));
    });
    let lines: Vec<serde_json::Value> = text
        .trim_start_matches('.')
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    let is_said = |line: &serde_json::Value| line["message"].as_str().is_some_and(|text| text.contains("not shown"));
    assert_eq!(lines.iter().filter(|line| is_said(line)).count(), 1);
    assert!(lines.iter().any(|line| line["event"] == "summary"), "how it ended is missing");
    stage.assert_whole(&dumper);
}

/// Who reads stdout does not wait for who does not read stderr.
#[test]
fn data_comes_though_nobody_reads_stderr() {
    let stored = StoredDump::new();
    let (mut reader, stdout) = std::io::pipe().expect("a pipe");
    let (_held, stderr) = full_pipe();
    let restore = stored.command("restore").arg("--dir").arg(stored.sandbox.path("back"));
    let run = start(&restore, stdout, stderr);
    drop(restore);
    assert_eq!(status(run), Some(0));
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    assert!(text.contains("myloader"), "{text}");
}

/// "Data on stdout is never dropped: the command waits for it, and a signal still ends it."
#[test]
fn data_waits_for_its_reader_and_a_signal_ends_it() {
    let vault = Vault::new();
    (0..40).for_each(|day| vault.put_complete(&format!("db1/day-{day:02}"), "2026-01-02T03:04:05Z"));
    let list = vault.command("list").arg("--json");
    let whole = vault.command("list").arg("--json").run().assert_status(0).stdout;
    assert!(whole.len() > 2 * PAGE, "{} bytes", whole.len());

    let (reader, writer) = filled_pipe(2);
    let run = start(&list, writer, Stdio::null());
    eventually("it waits amid its data", || fills(&reader) == 2 * PAGE as u64);
    signal(&run, Signal::TERM);
    assert_eq!(status(run), Some(128 + 15));

    let (mut reader, writer) = filled_pipe(2);
    let run = start(&list, writer, Stdio::null());
    drop(list);
    eventually("it waits amid its data", || fills(&reader) == 2 * PAGE as u64);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    assert_eq!(status(run), Some(0));
    assert_eq!(text.trim_start_matches('.'), whole);
}

/// "Write errors on stdout (`list --json > /dev/full`, closed pipe): status 1 with a message on stderr."
#[test]
fn data_that_cannot_be_written_is_a_failure() {
    let stored = StoredDump::new();
    stored.write_files(&stored.sandbox.path("copy"));
    let etag = stored.sandbox.mydumper2s3().arg("etag").arg(stored.sandbox.path("copy/metadata"));
    let commands = [
        stored.command_on_bucket("list"),
        stored.command_on_bucket("list").arg("--json"),
        stored.command("list").arg("--files"),
        stored.command("verify"),
        stored.command("verify").arg("--json"),
        stored.command_at("prune", "db1").args(["--keep-last", "1", "--dry-run"]),
        stored.command("restore").arg("--dir").arg(stored.sandbox.path("back")),
        stored.upload_to("db1/other").arg("--dry-run"),
        etag,
    ];
    for program in commands {
        let full = File::options().write(true).open("/dev/full").expect("a device that is full");
        let (reader, closed) = std::io::pipe().expect("a pipe");
        drop(reader);
        for (stdout, why) in [(Stdio::from(full), "No space left on device"), (Stdio::from(closed), "Broken pipe")] {
            let run = start(&program, stdout, Stdio::piped());
            let output = run.wait_with_output().expect("its end");
            let text = String::from_utf8_lossy(&output.stderr);
            let error = format!("error: cannot write to standard output: {why}");
            assert!(text.contains(&error), "{:?}: {text}", program.command());
            assert_eq!(output.status.code(), Some(1), "{:?}: {text}", program.command());
        }
    }
}
