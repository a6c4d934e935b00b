//! `-- mydumper …`: mydumper is our child. Nothing is started before all that can be checked is right, and nothing is
//! left behind.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{
    ACCESS_KEY, AccessKey, BUCKET, Fault, Limits, Operation, Permission, S3Server, SECRET_KEY,
};
use crate::support::sandbox::{Finished, Program, eventually};
use crate::support::stage::Stage;

const NOTHING: [&str; 0] = [];

/// A run that ends before it has started anything: no scripted dumper has connected.
#[track_caller]
fn refused(stage: &Stage, program: Program<'_>) -> Finished {
    let begun = Instant::now();
    let finished = program.run().assert_status(2).assert_does_not_say("started mydumper");
    assert!(begun.elapsed() < Duration::from_secs(10), "wrong settings fail within seconds");
    let is_of_a_dump = |key: &String| !key.ends_with("/mydumper2s3-trial/object");
    assert!(stage.sandbox.local_names().is_empty() || !stage.server.keys(BUCKET).iter().any(is_of_a_dump));
    finished
}

#[test]
fn a_dump_as_our_child_arrives_and_its_exit_status_is_known() {
    let stage = Stage::new();
    let run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop-schema-create.sql", 100);
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("exit status 0");
    stage.assert_whole(&dumper);
    assert_eq!(stage.manifest()["dumper_exit"]["status"], 0);
    assert_eq!(stage.manifest()["dumper_exit"]["seen"], "child");
}

/// "Without `-o`/`--outputdir` among its arguments `--dir` is passed on." The scripted dumper takes its directory from
/// there alone; and it makes the directory, as mydumper does.
#[test]
fn the_directory_is_passed_on() {
    let stage = Stage::new();
    std::fs::remove_dir(stage.sandbox.dump_dir()).expect("an empty directory");
    let run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", dumper.pid().as_raw_nonzero())).expect("its line");
    assert_eq!(line, format!("mydumper\0-B\0shop\0-o\0{}\0", stage.sandbox.dump_dir().display()));
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "Another directory there, `--daemon`, `--stream`, `--exec`, a password prompt and a database by position are usage errors."
#[test]
fn arguments_that_cannot_work_are_refused() {
    let stage = Stage::new();
    for arguments in
        [["-o", "/elsewhere"], ["--daemon", "-v"], ["--stream", "-v"], ["--exec", "true"], ["-a", "-v"], ["shop", "-v"]]
    {
        refused(&stage, stage.upload().args(["--", "mydumper"]).args(arguments)).assert_says("hint:");
    }
    assert_eq!(stage.server.requests().len(), 0);
}

/// A directory that holds anything but an earlier dump is refused.
#[test]
fn a_directory_that_is_not_empty_is_refused_before_the_start() {
    let stage = Stage::new();
    stage.sandbox.put_local("shop.t.sql", "of nobody knows what");
    let finished = refused(&stage, stage.upload().args(["--", "mydumper", "-B", "shop"]));
    finished.assert_says("is not empty").assert_says("hint: what stands there is no dump");
    stage.sandbox.assert_local_names(["shop.t.sql"]);
}

#[test]
fn the_store_is_checked_before_mydumper_is_started() {
    let stage = Stage::new();
    let command = ["--", "mydumper", "-B", "shop"];
    let elsewhere = || {
        let program = stage.sandbox.mydumper2s3().arg("--dir").arg(stage.sandbox.dump_dir());
        program.connect_to(&stage.endpoint())
    };
    refused(&stage, elsewhere().args(["--bucket", "no-such-bucket"]).args(command))
        .assert_says("there is no bucket 'no-such-bucket'")
        .assert_says("--create-bucket");

    let wrong_secret = stage.upload().env("AWS_SECRET_ACCESS_KEY", "wrong").args(command);
    refused(&stage, wrong_secret).assert_says("SignatureDoesNotMatch").assert_says("hint: check the access key");
    let wrong_key = stage.upload().env("AWS_ACCESS_KEY_ID", "UNKNOWN").args(command);
    refused(&stage, wrong_key).assert_says("InvalidAccessKeyId");
    let no_key = stage.upload().without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY").args(command);
    refused(&stage, no_key).assert_says("cannot find credentials").assert_says("hint: looked in: environment");

    stage.server.set_key(AccessKey::new("READER", "secret").without([Permission::PutObject]));
    let reader = stage.upload().env("AWS_ACCESS_KEY_ID", "READER").env("AWS_SECRET_ACCESS_KEY", "secret").args(command);
    refused(&stage, reader).assert_says("AccessDenied").assert_says("s3:PutObject");
    assert_eq!(stage.server.keys(BUCKET), [] as [String; 0], "checking leaves no object");
    assert_eq!(stage.server.open_multipart_uploads(BUCKET), [], "and no upload");

    // That is no wrong setting, but mydumper is not started into it.
    stage.server.down();
    let away = stage.upload().args(["--retry-for", "1s"]).args(command).run().assert_status(1);
    away.assert_says("nothing was begun").assert_does_not_say("started mydumper");
}

#[test]
fn a_prefix_that_is_occupied_is_refused_before_the_start() {
    let stage = Stage::new();
    stage.server.put_directly(BUCKET, "nightly/metadata", b"of another dump");
    let finished = refused(&stage, stage.upload().args(["--prefix", "nightly", "--", "mydumper"]));
    finished.assert_says("is occupied").assert_says("--overwrite");
}

/// "mydumper not found: status 2, showing PATH."
/// What only an object tells is found out before mydumper is started, and without leaving one.
#[test]
fn what_the_store_does_not_do_is_said_before_the_start() {
    let ignores = Limits { ignores_settings: true, ..Limits::default() };
    let stage = Stage::with(S3Server::builder().limits(ignores).start());
    let asked = ["--sse", "AES256", "--", "mydumper"];
    refused(&stage, stage.upload().args(asked)).assert_says("the store shows nothing of it");
    assert_eq!(stage.server.keys(BUCKET), NOTHING);

    // What cannot be overwritten may not be removed either, and is in the way in the second night, too.
    let forbids = Limits { overwrites: false, ..Limits::default() };
    let stage = Stage::with(S3Server::builder().limits(forbids).start());
    stage.server.inject(Fault::answer(403, "AccessDenied").on(Operation::DeleteObject));
    for _ in 0..2 {
        refused(&stage, stage.upload().args(["--", "mydumper"])).assert_says("cannot be written again");
    }
}

/// The object that the store is tried with stays where nothing may be deleted, and no command takes it for a dump's.
#[test]
fn a_store_that_deletes_nothing_keeps_one_object_more() {
    let stage = Stage::new();
    stage.server.inject(Fault::answer(403, "AccessDenied").on(Operation::DeleteObject));
    let run = stage.upload().args(["--", "mydumper"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    let is_trial = |key: &String| key.ends_with("/mydumper2s3-trial/object");
    let (trial, dump): (Vec<_>, Vec<_>) = stage.server.keys(BUCKET).into_iter().partition(is_trial);
    assert_eq!((trial.len(), dump.len()), (1, 3), "{trial:?} {dump:?}");
    let listed = stage.command("list").arg("--json").run().assert_status(0).stdout;
    assert_eq!(listed.matches("\"state\"").count(), 1, "{listed}");
    stage.command("verify").args(["--prefix", &stage.prefix()]).run().assert_status(0);
}

#[test]
fn a_command_that_is_not_there_shows_where_it_was_looked_for() {
    let stage = Stage::new();
    let finished = refused(&stage, stage.upload().args(["--", "mydumper-9.9.9", "-B", "shop"]));
    let path = stage.sandbox.path("bin").display().to_string();
    finished.assert_says("cannot start 'mydumper-9.9.9'").assert_says("PATH is '").assert_says(&path);
}

/// "SIGTERM and SIGINT to us reach it as SIGTERM (SIGINT makes 1.0.1 hang); such a dump is never committed": though it
/// does then what 1.0.1 does, a final `metadata` and exit status 0.
#[test]
fn a_signal_to_us_stops_mydumper_and_the_dump_is_never_committed() {
    for (signal, status) in [(Signal::TERM, 128 + 15), (Signal::INT, 128 + 2)] {
        let stage = Stage::new();
        let mut run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
        let mut dumper = FakeDumper::accept(&stage.sandbox);
        dumper.begin(Generation::V1_0);
        run.wait_for_line("found a dump (running)");
        dumper.file("shop.t.00000.sql", 10_000);
        stage.wait_until_moved("shop.t.00000.sql");
        dumper.open("shop.u.00000.sql");
        dumper.write("shop.u.00000.sql", 10_000);
        dumper.ignore_sigint();
        dumper.finish_on_sigterm();
        run.signal(signal);
        dumper.wait_for_end();
        run.finish().assert_status(status);
        assert!(!stage.has("metadata"));
        stage.sandbox.assert_local_names(["metadata", "shop.u.00000.sql"]);

        // Its `metadata` looks whole, but the next run knows better.
        stage.upload().run().assert_status(3).assert_says("told to stop");
        stage.assert_incomplete(["shop.t.00000.sql", "shop.u.00000.sql"]);
        stage.sandbox.assert_local_names(NOTHING);
    }
}

/// The same before there is anything to upload: not even a claim says that the dump was stopped.
#[test]
fn a_signal_before_the_dump_was_found_is_remembered_too() {
    let stage = Stage::new();
    // Between two looks.
    let upload = stage.upload_with_defaults().args(["--interval", "60", "--", "mydumper", "-B", "shop"]);
    let run = upload.start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_on_sigterm();
    run.signal(Signal::TERM);
    dumper.wait_for_end();
    run.finish().assert_status(128 + 15);
    stage.upload().run().assert_status(3).assert_says("told to stop");
    assert!(!stage.has("metadata"));
}

/// "After `--stop-timeout` SIGKILL to its group. We never exit before it."
#[test]
fn a_child_that_ignores_sigterm_is_killed_with_its_group() {
    let stage = Stage::new();
    let mut run = stage.upload().args(["--stop-timeout", "0.3", "--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("found a dump (running)");
    dumper.ignore_sigterm();
    dumper.open("shop.t.00000.sql.zst");
    let compressor = dumper.compressor(&stage.sandbox, "shop.t.00000.sql.zst");
    run.signal(Signal::TERM);
    dumper.wait_for_end();
    run.finish().assert_status(128 + 15);
    let compressor = format!("/proc/{}/environ", compressor.pid().as_raw_nonzero());
    // A zombie, until whoever took the orphan in has reaped it, has no environment any more.
    eventually("its compressor is gone, too", || std::fs::read(&compressor).unwrap_or_default().is_empty());
    assert!(!stage.has("metadata"));
}

/// "We never exit before it": whatever goes wrong here, mydumper is left to finish.
#[test]
fn we_wait_for_mydumper_whatever_goes_wrong() {
    let stage = Stage::new();
    let mut run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    // What it begins is refused.
    dumper.mkdir("0");
    dumper.mkdir("1");
    dumper.symlink("0", "last_dump");
    run.wait_for_line("mydumper is left to finish");
    assert!(run.is_running());
    dumper.exit(0);
    run.finish().assert_status(2).assert_says("snapshot");
}

/// Our child has exited, but what it started goes on writing.
#[test]
fn a_dump_goes_on_while_any_process_of_the_child_writes() {
    let stage = Stage::new();
    let mut run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("found a dump (running)");
    dumper.open("shop.t.00000.sql.gz");
    let mut compressor = dumper.compressor(&stage.sandbox, "shop.t.00000.sql.gz");
    dumper.finish_and_exit();
    run.wait_for_line("the dump has ended");
    stage.let_looks_pass();
    assert!(run.is_running() && !stage.has("metadata"));
    compressor.write_bytes(&mut dumper, "the last of it");
    compressor.exit(0);
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

#[test]
fn a_child_that_leaves_no_dump_is_status_3() {
    let stage = Stage::new();
    let run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.log_error("** (mydumper): CRITICAL **: Error connecting to database");
    dumper.exit(1);
    let finished = run.finish().assert_status(3).assert_says("ended with status 1 and left no dump");
    finished.assert_says("Error connecting to database");
    assert_eq!(stage.server.keys(BUCKET), NOTHING);
}

#[test]
fn a_child_that_is_killed_is_status_3() {
    let stage = Stage::new();
    let mut run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("found a dump (running)");
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.kill();
    run.finish().assert_status(3).assert_says("signal 9");
    stage.assert_incomplete(["shop.t.00000.sql"]);
    stage.sandbox.assert_local_names(NOTHING);
}

/// "Its output passes through without breaking the status line."
#[test]
fn what_mydumper_says_passes_through() {
    for options in [&["--no-progress"][..], &["-v"], &["--log-format", "json"]] {
        let stage = Stage::new();
        let mut run = stage.upload().args(options).args(["--", "mydumper", "-B", "shop"]).start();
        let mut dumper = FakeDumper::accept(&stage.sandbox);
        dumper.begin(Generation::V1_0);
        dumper.log("Thread 1 dumping data for `shop`.`t`");
        run.wait_for_line("Thread 1 dumping data for `shop`.`t`");
        dumper.log_error("** Message: something else");
        run.wait_for_line("** Message: something else");
        dumper.file("shop.t.00000.sql", 10_000);
        dumper.finish_and_exit();
        let finished = run.finish().assert_status(0);
        if options.is_empty() || options[0] != "--log-format" {
            assert!(finished.stdout.contains("Thread 1 dumping"), "stdout stays stdout: {finished:?}");
            assert!(!finished.stdout.contains("something else"), "{finished:?}");
        }
    }
}

#[test]
fn on_a_terminal_mydumper_and_the_live_line_share_the_screen() {
    let stage = Stage::new();
    let mut run = stage.upload().on_a_terminal().args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    stage.wait_until_moved("shop.t.00000.sql");
    dumper.log_error("** Message: something else");
    run.wait_for_line("** Message: something else");
    dumper.finish_and_exit();
    let finished = run.finish().assert_status(0);
    finished.assert_says("dump running").assert_says("\u{1b}[2K** Message: something else\r\n");
}

/// The credentials of the run belong to us; the wrapper before mydumper is looked through.
#[test]
fn a_wrapper_is_looked_through() {
    let stage = Stage::new();
    let run = stage.upload().args(["--", "env", "-i", "nice", "-n", "1"]).arg(stage.sandbox.path("bin/mydumper"));
    // `env -i` takes the way to the control socket from it: it fails, and says so.
    let finished = run.arg("-v").run().assert_status(3).assert_says("nothing to do");
    finished.assert_does_not_say("no output directory").assert_does_not_say(SECRET_KEY).assert_says("status 70");
    assert_ne!(ACCESS_KEY, SECRET_KEY);
}
