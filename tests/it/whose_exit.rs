//! Whose exit status it is: a dump's end is that of the process that wrote it, not of whatever was started in its name.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::dumper_facts::following;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::sandbox::{Finished, Program, Run, eventually};
use crate::support::stage::Stage;

const NOTHING: [&str; 0] = [];

/// `-- sh -c SCRIPT -o DIR`: so `$0` and `$1` are what mydumper needs.
fn shell<'a>(stage: &'a Stage, program: Program<'a>, script: &str) -> Program<'a> {
    program.args(["--", "sh", "-c", script, "-o"]).arg(stage.sandbox.dump_dir())
}

/// A dump that a shell started, from its beginning to just before its exit.
#[track_caller]
fn dump(stage: &Stage, run: &mut Run) -> FakeDumper {
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("found a dump (running)");
    dumper.file("shop.t.00000.sql", 1_000);
    dumper
}

#[track_caller]
fn assert_seen(stage: &Stage, seen: &str, status: i64) {
    let exit = &stage.manifest()["dumper_exit"];
    assert_eq!((exit["seen"].as_str(), exit["status"].as_i64()), (Some(seen), Some(status)), "{exit}");
    assert!(exit["through"].is_null(), "{exit}");
}

/// `sh -c 'mydumper … & exit 0'`, and `setsid mydumper`, which does the same: the status 0 is of a launcher that was
/// gone before the dump failed.
#[test]
fn a_launcher_that_is_gone_does_not_speak_for_the_dumper_that_it_left() {
    for script in
        [r#"mydumper "$0" "$1" & exit 0"#, r#"setsid mydumper "$0" "$1" & exit 0"#, r#"setsid mydumper "$0" "$1""#]
    {
        for option in [&[][..], &["--require-exit-status"]] {
            let stage = Stage::new();
            let mut run = shell(&stage, stage.upload().args(option), script).start();
            let mut dumper = dump(&stage, &mut run);
            dumper.finish();
            dumper.exit(1);
            run.finish().assert_status(3).assert_says("exit status was 1");
            stage.assert_incomplete(["shop.t.00000.sql"]);
            assert_seen(&stage, "pidfd", 1);
        }
    }
}

#[test]
fn a_dumper_that_its_launcher_left_and_that_ends_well_is_seen_itself() {
    let stage = Stage::new();
    let upload = stage.upload().arg("--require-exit-status");
    let mut run = shell(&stage, upload, r#"setsid mydumper "$0" "$1" & exit 0"#).start();
    let mut dumper = dump(&stage, &mut run);
    stage.wait_until_moved("shop.t.00000.sql");
    dumper.finish();
    run.wait_for_line("the dump has ended");
    // It looks no more: all that is left is to wait, longer than a commit would take.
    std::thread::sleep(Duration::from_secs(1));
    assert!(run.is_running() && !stage.has("metadata"), "it lives, so it is not committed");
    dumper.exit(0);
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    assert_seen(&stage, "pidfd", 0);
}

/// The dumper begins when its launcher has been gone for a while: there is no dump yet, but somebody who may begin one.
#[test]
fn a_dump_that_begins_after_its_launchers_end_is_waited_for() {
    let stage = Stage::new();
    let script = r#"(sleep 1.5; exec mydumper "$0" "$1") & exit 0"#;
    let mut run = shell(&stage, stage.upload(), script).start();
    let mut dumper = dump(&stage, &mut run);
    dumper.finish();
    dumper.exit(1);
    run.finish().assert_status(3).assert_says("exit status was 1");
}

/// `sh -c 'mydumper | cat'` ends with 0 for a dumper that ended with 1.
#[test]
fn a_pipe_does_not_hide_how_mydumper_ended() {
    for (status, expected) in [(1, 3), (0, 0)] {
        let stage = Stage::new();
        let mut run = shell(&stage, stage.upload(), r#"mydumper "$0" "$1" | cat"#).start();
        let mut dumper = dump(&stage, &mut run);
        dumper.finish();
        dumper.exit(status);
        run.finish().assert_status(expected);
        assert_seen(&stage, "pidfd", status.into());
    }
}

/// Beside a mydumper that something else started, too: `--pid` names a shell, and mydumper is another process.
#[test]
fn a_pid_that_is_only_a_launchers_does_not_speak_for_the_dumper() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::launch_wrapped_in(&stage.sandbox, ["sh", "-c", r#""$@"; exit 0"#, "sh"]);
    dumper.begin(Generation::V1_0);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", dumper.pid().as_raw_nonzero())).expect("its stat");
    let launcher = stat.rsplit_once(") ").expect("its fields").1.split(' ').nth(1).expect("its parent").to_owned();
    let run = following(stage.upload().args(["--pid", &launcher]));
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish();
    dumper.exit(1);
    run.finish().assert_status(3).assert_says("exit status was 1");
    assert_seen(&stage, "pidfd", 1);
}

/// Wrappers that become mydumper are our child itself.
#[test]
fn a_wrapper_that_becomes_mydumper_is_our_child_itself() {
    for shell_first in [true, false] {
        let stage = Stage::new();
        let upload = match shell_first {
            true => shell(&stage, stage.upload(), r#"exec nice mydumper "$0" "$1""#),
            false => stage.upload().args(["--", "nice", "-n", "1", "mydumper", "-v"]),
        };
        let mut run = upload.start();
        let mut dumper = dump(&stage, &mut run);
        dumper.finish_and_exit();
        run.finish().assert_status(0);
        assert_seen(&stage, "child", 0);
    }
}

/// A status that is not 0 counts, from whichever.
#[test]
fn a_launcher_that_fails_after_a_good_dump_is_a_failure() {
    let stage = Stage::new();
    let mut run = shell(&stage, stage.upload(), r#"mydumper "$0" "$1"; exit 7"#).start();
    let mut dumper = dump(&stage, &mut run);
    dumper.finish_and_exit();
    run.finish().assert_status(3).assert_says("exit status was 7");
    assert_eq!(stage.manifest()["dumper_exit"]["through"], true);
}

/// What the child left behind writes one more file a moment after its end: it is of the dump.
#[test]
fn a_file_that_a_grandchild_writes_after_the_childs_end_is_of_the_dump() {
    let script =
        r#"mydumper "$0" "$1"; (sleep 0.4; echo 'INSERT INTO `t` VALUES(1);' >"$1/shop.late.00000.sql") & exit 0"#;
    let stage = Stage::new();
    let mut run = shell(&stage, stage.upload(), script).start();
    let mut dumper = dump(&stage, &mut run);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    assert_eq!(stage.names(), ["metadata", "shop.late.00000.sql", "shop.t.00000.sql"]);
    stage.sandbox.assert_local_names(NOTHING);
}

/// Something that a wrapper leaves running for good keeps nobody waiting for ever.
#[test]
fn what_a_wrapper_leaves_running_is_named_and_not_waited_for() {
    let stage = Stage::new();
    let mut run = shell(&stage, stage.upload(), r#"sleep 600 & exec mydumper "$0" "$1""#).start();
    let mut dumper = dump(&stage, &mut run);
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("'sleep' still runs");
    stage.assert_whole(&dumper);
}

/// The dumper runs where we cannot see it, as over ssh or in a container; what we started waits for it and says 0.
#[track_caller]
fn behind_a_wall(options: &[&str], status: &str) -> (Stage, Finished) {
    let stage = Stage::new();
    let done = stage.sandbox.path("done");
    let started = stage.sandbox.path("started");
    let (begin, end) = (started.display(), done.display());
    let script = format!("touch {begin}; while [ ! -e {end} ]; do sleep 0.05; done; exit {status}");
    let upload = shell(&stage, stage.upload().args(options), &script);
    let run = upload.wrapped_in(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]).start();
    eventually("the child is started", || started.exists());
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 1_000);
    stage.wait_for("shop.t.00000.sql");
    dumper.finish_and_exit();
    std::fs::write(&done, "").expect("a file");
    let finished = run.finish();
    (stage, finished)
}

#[test]
fn needs_root_a_wrappers_status_is_said_to_be_one() {
    let (stage, finished) = behind_a_wall(&[], "0");
    finished.assert_status(0).assert_says("exit status 0, of the program that started it");
    let exit = stage.manifest()["dumper_exit"].clone();
    // A reader that does not know `through` says that it was not seen.
    assert_eq!((&exit["seen"], &exit["status"], &exit["through"]), (&"not-seen".into(), &0.into(), &true.into()));
    let listed = stage.sandbox.mydumper2s3().args(["list", "--bucket", crate::support::s3_server::BUCKET]);
    listed.connect_to(&stage.endpoint()).run().assert_says("exit status of its wrapper only");
    let verified = stage.sandbox.mydumper2s3().args(["verify", "--bucket", crate::support::s3_server::BUCKET]);
    let verified = verified.args(["--prefix", &stage.prefix()]).connect_to(&stage.endpoint()).run();
    verified.assert_status(0).assert_says("only the exit status of the program that started mydumper was seen");
}

#[test]
fn needs_root_a_wrappers_status_is_enough_only_where_that_is_wished() {
    let (_, finished) = behind_a_wall(&["--require-exit-status"], "0");
    finished.assert_status(3).assert_says("only the exit status of the program that started mydumper");
    let (_, finished) = behind_a_wall(&["--require-exit-status", "--accept-wrapper-exit", "-q"], "0");
    let finished = finished.assert_status(0);
    assert_eq!(finished.text(), "");
    let (_, finished) = behind_a_wall(&[], "9");
    finished.assert_status(3).assert_says("exit status was 9");
}

/// "A status that was not seen is said also with `-q`."
#[test]
fn a_status_that_was_not_seen_is_said_even_if_quiet() {
    for (options, says) in [(&["-q"][..], true), (&["-q", "--accept-unseen-exit"], false)] {
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.file("shop.t.00000.sql", 1_000);
        dumper.finish_and_exit();
        let finished = stage.upload().args(options).run().assert_status(0);
        let lines: Vec<_> = finished.stderr.lines().collect();
        assert_eq!(lines.len(), usize::from(says), "{finished:?}");
        assert!(lines.iter().all(|line| line.contains("is committed, but mydumper's exit status was not seen")));
        assert_eq!(finished.stdout, "");
    }
    let stage = Stage::new();
    let contradiction = stage.upload().args(["--require-exit-status", "--accept-unseen-exit"]).run();
    contradiction.assert_status(2).assert_says("does not go with --require-exit-status");
}

/// Longer than a dead dump is silent before it counts as dead: but its process lives.
#[test]
fn a_dumper_that_lives_is_not_dead_however_long_its_rename_takes() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = following(stage.upload());
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_without_rename();
    std::thread::sleep(Duration::from_secs(4));
    assert!(run.is_running() && !run.text_so_far().contains("the dump has ended"), "{}", run.text_so_far());
    dumper.rename_metadata();
    dumper.exit(0);
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Nothing is known of its process, and it is renamed after it counted as dead: looked at once more before the verdict.
#[test]
fn needs_root_an_ending_is_looked_at_once_more_before_it_is_judged() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::launch(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    let upload = stage.upload().wrapped_in(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    let mut run = upload.start();
    run.wait_for_line("found a dump (running)");
    let held = stage
        .server
        .inject(crate::support::s3_server::Fault::hold().key_where(|key| key.ends_with("/shop.t.00000.sql")));
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_without_rename();
    run.wait_for_line("the dump has ended");
    dumper.rename_metadata();
    held.clear();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// A script in mydumper's place: it is run once, for the dump, and never asked for its version.
#[test]
fn what_is_called_mydumper_is_run_once() {
    let stage = Stage::new();
    let (script, runs) = (stage.sandbox.path("bin/mydumper"), stage.sandbox.path("runs"));
    std::fs::remove_file(&script).expect("the link");
    let dumper = crate::support::fake_dumper::program();
    let text = format!("#!/bin/sh\necho \"$@\" >>{}\nexec {} \"$@\"\n", runs.display(), dumper.display());
    std::fs::write(&script, text).expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let mut run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = dump(&stage, &mut run);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    assert_eq!(std::fs::read_to_string(runs).expect("its runs").lines().count(), 1);
    assert_seen(&stage, "child", 0);
}

/// "The child does not inherit our AWS secrets, except with `--keep-aws-env`."
#[test]
fn the_child_and_the_helper_inherit_no_access_to_the_store() {
    for (options, inherits) in [(&[][..], false), (&["--keep-aws-env"], true)] {
        let stage = Stage::new();
        let upload = stage.upload().args(["--max-local", "1GiB"]).args(options);
        let upload = upload.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a token").env("KEPT", "yes");
        let mut run = upload.args(["--", "mydumper", "-B", "shop"]).start();
        let mut dumper = dump(&stage, &mut run);
        let environment = |pid: i32| {
            let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', "\n")
        };
        let of_child = environment(dumper.pid().as_raw_nonzero().get());
        assert!(of_child.contains("KEPT=yes"), "{of_child}");
        for name in ["AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_CONTAINER_AUTHORIZATION_TOKEN="] {
            assert_eq!(of_child.contains(name), inherits, "{name} {of_child}");
        }
        let helpers = helpers_of(run.pid().as_raw_nonzero().get());
        assert!(helpers.iter().all(|pid| !environment(*pid).contains("AWS_SECRET_ACCESS_KEY")), "{helpers:?}");
        dumper.finish_and_exit();
        run.finish().assert_status(0);
    }
}

/// "The child gets the environment that we were given", whatever we make of it for ourselves.
#[test]
fn what_we_change_in_our_environment_is_not_the_childs() {
    let given = [
        ("AWS_ENDPOINT_URL", "http://store.invalid:9000"),
        ("HTTP_PROXY", "http://proxy.invalid:3128"),
        ("NO_PROXY", "db1,.example.com"),
        ("AWS_REGION", "eu-central-1"),
    ];
    let stage = Stage::new();
    let mut run = stage.upload().envs(given).args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = dump(&stage, &mut run);
    let environment_of = |pid: i32| {
        let bytes = std::fs::read(format!("/proc/{pid}/environ")).expect("its environment");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut settings: Vec<_> = text.split_terminator('\0').map(str::to_owned).collect();
        settings.retain(|setting| !setting.starts_with("AWS_ACCESS") && !setting.starts_with("AWS_SECRET"));
        settings.sort();
        settings
    };
    // The kernel shows a process's environment as it was at its start.
    let ours = environment_of(run.pid().as_raw_nonzero().get());
    let of_child = environment_of(dumper.pid().as_raw_nonzero().get());
    assert!(ours.contains(&"AWS_ENDPOINT_URL=http://store.invalid:9000".to_owned()), "{ours:?}");
    assert_eq!(of_child, ours);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
}

/// The processes that were started with our helper's argument, by this process.
fn helpers_of(parent: i32) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let is_helper = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--wake-when-the-pipe-breaks")
    };
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(is_helper).collect()
}

/// A stranger's `metadata` is final, and its process does not end: a signal to us is not kept waiting for it.
#[test]
fn a_stop_does_not_wait_for_an_exit_status() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = following(stage.upload());
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish();
    stage.wait_until_moved("shop.t.00000.sql");
    run.wait_for_line("the dump has ended");
    let asked = Instant::now();
    run.signal(Signal::TERM);
    run.finish().assert_status(128 + 15);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(!stage.has("metadata"));
    dumper.exit(0);
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// The same for a dumper whose launcher is gone: it is told to stop, and so is not committed by the next run.
#[test]
fn a_stop_reaches_a_dumper_that_its_launcher_left() {
    let stage = Stage::new();
    let mut run = shell(&stage, stage.upload(), r#"setsid mydumper "$0" "$1" & exit 0"#).start();
    let mut dumper = dump(&stage, &mut run);
    dumper.finish_on_sigterm();
    run.signal(Signal::TERM);
    dumper.wait_for_end();
    run.finish().assert_status(128 + 15);
    stage.upload().run().assert_status(3).assert_says("told to stop");
}

/// All is written, and only something that a wrapper left is waited for: then nobody is told to stop, and the dump is whole.
#[test]
fn a_stop_after_the_dumps_end_does_not_spoil_it() {
    let stage = Stage::new();
    let mut run = shell(&stage, stage.upload(), r#"sleep 600 & exec mydumper "$0" "$1""#).start();
    let mut dumper = dump(&stage, &mut run);
    dumper.finish_and_exit();
    run.wait_for_line("the dump has ended");
    stage.wait_until_moved("shop.t.00000.sql");
    run.signal(Signal::TERM);
    run.finish().assert_status(128 + 15);
    assert!(!stage.has("metadata"));
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// A child whose `metadata` is final has nothing to lose: where it ignores SIGTERM it is not waited for long.
#[test]
fn a_child_that_hangs_after_its_last_line_is_stopped_within_seconds() {
    let stage = Stage::new();
    let mut run = stage.upload().args(["--stop-timeout", "60s", "--", "mydumper", "-B", "shop"]).start();
    let mut dumper = dump(&stage, &mut run);
    dumper.ignore_sigterm();
    dumper.finish();
    stage.wait_until_moved("shop.t.00000.sql");
    let asked = Instant::now();
    run.signal(Signal::TERM);
    run.finish().assert_status(128 + 15);
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    dumper.wait_for_end();
    assert!(!stage.has("metadata"));
}

/// A child that fails before there is a dump is known at once, whatever the time between looks.
#[test]
fn a_child_that_ends_before_the_first_look_is_known_at_once() {
    for begins in [false, true] {
        let stage = Stage::new();
        let upload = stage.upload_with_defaults().args(["--interval", "5s", "--wait", "1h"]);
        let run = upload.args(["--", "mydumper", "-B", "shop"]).start();
        let mut dumper = FakeDumper::accept(&stage.sandbox);
        if begins {
            dumper.begin(Generation::V1_0);
        }
        let ended = Instant::now();
        dumper.exit(1);
        run.finish().assert_status(3);
        assert!(ended.elapsed() < Duration::from_secs(20), "{:?}", ended.elapsed());
    }
}

/// The same while there is a dump: its child's end is acted upon at once, well or not.
#[test]
fn the_end_of_a_child_is_acted_upon_whatever_the_time_between_looks() {
    for (status, expected) in [(0, 0), (1, 3)] {
        let stage = Stage::new();
        let upload = stage.upload_with_defaults().args(["--interval", "1h", "--settle", "0.2"]);
        let mut run = upload.args(["--", "mydumper", "-B", "shop"]).start();
        let mut dumper = FakeDumper::accept(&stage.sandbox);
        dumper.begin(Generation::V1_0);
        run.wait_for_line("claimed");
        dumper.file("shop.t.00000.sql", 10_000);
        if status == 0 {
            dumper.finish();
        }
        dumper.exit(status);
        run.finish().assert_status(expected);
        assert!(stage.has("shop.t.00000.sql"));
    }
}

/// "`--pid` of a common parent with `--max-local` stopped ourselves for ever."
#[test]
fn a_pid_that_we_came_from_is_refused() {
    let stage = Stage::new();
    let upload = stage.upload().args(["--max-local", "1MiB"]);
    let refused = upload.wrapped_in(["sh", "-c", r#""$@" --pid $$; exit $?"#, "sh"]).run();
    refused.assert_status(2).assert_says("not mydumper").assert_says("hint:");
}

/// "`--exit-status-file` that is a FIFO or huge: never block, never follow."
#[test]
fn an_exit_status_file_that_is_none_is_a_failure_and_waits_for_nobody() {
    let stage = Stage::new();
    let fifo = stage.sandbox.path("status");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o644)).expect("a FIFO");
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload().arg("--exit-status-file").arg(&fifo));
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    run.finish().assert_status(3).assert_says("no regular file");
    assert!(!stage.has("metadata"));
}

/// The same for the metrics, which are written in the end.
#[test]
fn a_metrics_file_that_is_none_is_neither_waited_for_nor_followed() {
    let stage = Stage::new();
    let (fifo, link, victim) =
        (stage.sandbox.path("fifo.prom"), stage.sandbox.path("link.prom"), stage.sandbox.path("victim"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o644)).expect("a FIFO");
    std::fs::write(&victim, "mine").expect("a file");
    std::os::unix::fs::symlink(&victim, &link).expect("a symlink");
    for file in [&fifo, &link] {
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.file("shop.t.00000.sql", 1_000);
        dumper.finish_and_exit();
        let upload = stage.upload().args(["--prefix", "nightly", "--overwrite", "--metrics-file"]).arg(file);
        let finished = upload.run().assert_status(0);
        assert_eq!(finished.text().contains("cannot write the metrics"), file == &fifo, "{finished:?}");
    }
    assert_eq!(std::fs::read_to_string(&victim).expect("a file"), "mine");
}
