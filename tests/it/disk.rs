//! `--max-local` and `--min-free`: mydumper is paused while the disk is about to fill, and goes on whatever happens.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::stopping::state_of;
use crate::support::dir_watch::DirWatch;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::mariadb::{MariaDb, mydumper};
use crate::support::s3_server::{Fault, Operation};
use crate::support::sandbox::{PeakLocalBytes, Program, Run, eventually};
use crate::support::stage::{MANIFEST, Stage};

const MIB: u64 = 1024 * 1024;
/// "Never before the first data file and 2 s after it."
const GRACE: Duration = Duration::from_secs(2);

fn is_stopped(pid: Pid) -> bool {
    state_of(pid) == Some('T')
}

/// The dumper beside the program, or as its child. The store takes no data until the test lets it.
#[track_caller]
fn start(stage: &Stage, is_child: bool, options: &[&str]) -> (FakeDumper, Run) {
    let (mut dumper, mut run) = begin(stage, is_child, options);
    run.wait_for_line("claimed");
    dumper.file_of("shop.t-schema.sql", "CREATE TABLE `t` (id INT);\n");
    (dumper, run)
}

#[track_caller]
fn begin(stage: &Stage, is_child: bool, options: &[&str]) -> (FakeDumper, Run) {
    if is_child {
        let run = stage.upload().args(options).args(["--", "mydumper", "-B", "shop"]).start();
        let mut dumper = FakeDumper::accept(&stage.sandbox);
        dumper.begin(Generation::V1_0);
        (dumper, run)
    } else {
        let dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        (dumper, stage.upload().args(options).start())
    }
}

/// The same, and the store is away from the first claim on: no line of it, nor a file, until the test lets it.
#[track_caller]
fn start_without_store(stage: &Stage, is_child: bool, options: &[&str]) -> (FakeDumper, Run) {
    let is_claim = |key: &str| key.ends_with(MANIFEST);
    let away = stage.server.inject(Fault::answer(503, "SlowDown").on(Operation::PutObject).key_where(is_claim));
    let (dumper, run) = begin(stage, is_child, options);
    away.wait_for_hits(1);
    (dumper, run)
}

fn no_data(stage: &Stage) {
    stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with("0.sql")));
}

/// Stopped with its compressor, and not before locks are surely released; on its way again when the store takes files.
#[test]
fn mydumper_and_its_children_are_paused_and_go_on() {
    for is_child in [true, false] {
        let stage = Stage::new();
        no_data(&stage);
        let (mut dumper, mut run) = start(&stage, is_child, &["--max-local", "64KiB"]);
        // A schema is no data file: locks may be held still.
        dumper.file("shop.u-schema.sql", 100_000);
        stage.let_looks_pass();
        assert!(!is_stopped(dumper.pid()));
        let first = Instant::now();
        dumper.open("shop.t.00001.sql");
        let mut compressor = dumper.compressor(&stage.sandbox, "shop.t.00001.sql");
        dumper.file("shop.t.00000.sql", 100_000);
        run.wait_for_line("mydumper is paused");
        assert!(first.elapsed() >= GRACE, "paused after {:?}", first.elapsed());
        eventually("both are stopped", || is_stopped(dumper.pid()) && is_stopped(compressor.pid()));
        stage.server.clear_faults();
        run.wait_for_line("mydumper goes on");
        eventually("both go on", || !is_stopped(dumper.pid()) && !is_stopped(compressor.pid()));
        compressor.write_bytes(&mut dumper, "the last of it");
        compressor.exit(0);
        dumper.finish_and_exit();
        run.finish().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// The claim waits, and mydumper writes: the marks hold all the same, and it goes on when the store takes files.
#[test]
fn mydumper_is_held_at_the_mark_while_the_claim_waits_for_the_store() {
    for is_child in [true, false] {
        let stage = Stage::new();
        let (mut dumper, mut run) = start_without_store(&stage, is_child, &["--max-local", "64KiB"]);
        // What is being written does not count.
        dumper.open("shop.t.00001.sql");
        dumper.write("shop.t.00001.sql", 100_000);
        dumper.file("shop.t.00000.sql", 60_000);
        stage.let_looks_pass();
        assert!(!is_stopped(dumper.pid()));
        dumper.close("shop.t.00001.sql");
        run.wait_for_line("mydumper is paused");
        eventually("it is stopped", || is_stopped(dumper.pid()));
        assert_eq!(stage.prefixes(), [""; 0], "nothing is claimed");
        stage.server.clear_faults();
        run.wait_for_line("mydumper goes on");
        eventually("it goes on", || !is_stopped(dumper.pid()));
        dumper.finish_and_exit();
        run.finish().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// The same, and the claim is given up: by a signal, or because mydumper was held for too long.
#[test]
fn mydumper_is_let_go_when_the_claim_is_given_up() {
    for is_stopped_by_signal in [true, false] {
        let stage = Stage::new();
        let options: &[&str] = if is_stopped_by_signal { &[] } else { &["--max-held", "1s"] };
        let options = [&["--max-local", "64KiB"], options].concat();
        let (mut dumper, mut run) = start_without_store(&stage, false, &options);
        dumper.file("shop.t.00000.sql", 100_000);
        run.wait_for_line("mydumper is paused");
        if is_stopped_by_signal {
            run.signal(Signal::TERM);
            run.finish().assert_status(143);
        } else {
            run.finish().assert_status(1).assert_says("(--max-held)");
        }
        eventually("it goes on", || !is_stopped(dumper.pid()));
        stage.server.clear_faults();
        dumper.finish_and_exit();
        stage.upload().run().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// "Whatever happens to us, mydumper goes on: after our SIGKILL too"; and the helper that wakes it ends.
#[test]
fn after_our_sigkill_mydumper_goes_on_and_the_helper_ends() {
    for is_child in [true, false] {
        let stage = Stage::new();
        no_data(&stage);
        let (mut dumper, mut run) = start(&stage, is_child, &["--max-local", "64KiB"]);
        dumper.file("shop.t.00000.sql", 100_000);
        run.wait_for_line("mydumper is paused");
        eventually("it is stopped", || is_stopped(dumper.pid()));
        let helpers = helpers_of(run.pid());
        assert_eq!(helpers.len(), 1, "helpers");
        run.kill().assert_killed_by(Signal::KILL);
        eventually("it goes on", || !is_stopped(dumper.pid()));
        eventually("the helper is gone", || helpers.iter().all(|pid| matches!(state_of(*pid), None | Some('Z'))));
        stage.server.clear_faults();
        dumper.file("shop.t.00001.sql", 10_000);
        dumper.finish_and_exit();
        stage.upload().run().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// "We are SIGSTOPped while mydumper is paused": the helper has a clock of its own.
#[test]
fn after_our_sigstop_mydumper_goes_on_by_the_helpers_clock() {
    for is_child in [true, false] {
        let stage = Stage::new();
        no_data(&stage);
        let (mut dumper, mut run) = start(&stage, is_child, &["--max-local", "64KiB", "--max-pause", "1s"]);
        dumper.file("shop.t.00000.sql", 100_000);
        run.wait_for_line("mydumper is paused");
        eventually("it is stopped", || is_stopped(dumper.pid()));
        run.signal(Signal::STOP);
        // Whatever happened just before that: from now on nobody but the helper can wake it.
        eventually("it goes on", || !is_stopped(dumper.pid()));
        run.signal(Signal::CONT);
        stage.server.clear_faults();
        dumper.finish_and_exit();
        run.finish().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// The processes that a program started and that wait to wake mydumper.
fn helpers_of(parent: Pid) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.as_raw_nonzero()));
    let children = children.expect("its children");
    let is_helper = |pid: &&str| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("--wake-when-the-pipe-breaks")
    };
    let pid = |text: &str| Pid::from_raw(text.parse().expect("a number")).expect("a process");
    children.split_whitespace().filter(is_helper).map(pid).collect()
}

/// "Each pause is capped (`--max-pause`); between two pauses it runs at least 0.5 s", though nothing moves. How long a pause
/// is at most is decided in `model/brake.rs` and tested there: from outside a loaded machine makes it as long as it likes.
#[test]
fn no_pause_is_longer_than_it_may_be() {
    const RUN_MIN: Duration = Duration::from_millis(500);
    let stage = Stage::new();
    no_data(&stage);
    // The default is longer than anything is waited for here.
    let (mut dumper, mut run) = start(&stage, false, &["--max-local", "64KiB", "--max-pause", "0.7s"]);
    dumper.file("shop.t.00000.sql", 100_000);
    run.wait_for_line("mydumper is paused");
    eventually("it is stopped", || is_stopped(dumper.pid()));
    for _ in 0..3 {
        // From before the last look that saw it stopped to after the first that saw it stopped again: never less than it
        // ran, however late these looks come.
        let mut was_stopped = Instant::now();
        eventually("it goes on", || {
            let now = Instant::now();
            let stopped = is_stopped(dumper.pid());
            was_stopped = if stopped { now } else { was_stopped };
            !stopped
        });
        eventually("it is stopped again", || is_stopped(dumper.pid()));
        assert!(was_stopped.elapsed() >= RUN_MIN, "it ran for {:?} at most", was_stopped.elapsed());
    }
    stage.server.clear_faults();
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("mydumper goes on");
    stage.assert_whole(&dumper);
}

/// What lies here stays below the mark, the open file, and what is written in one look and in the half second between two
/// pauses. The dumper's pace is that of the looks: then a machine that is busy makes nothing more.
#[test]
fn what_waits_locally_is_bounded_by_the_mark() {
    const MARK: u64 = 4 * MIB;
    const FILE: u64 = 512 * 1024;
    /// Looks in half a second, and some for what is on its way.
    const FILES_IN_A_RUN: u64 = 500 / 50 + 4;
    let stage = Stage::new();
    no_data(&stage);
    let (mut dumper, mut run) = start(&stage, true, &["--max-local", "4MiB", "--max-pause", "45s"]);
    // Locks may be held until the first pause.
    dumper.file("shop.first.00000.sql", MARK + FILE);
    run.wait_for_line("mydumper is paused");
    stage.server.clear_faults();
    run.wait_for_line("mydumper goes on");
    stage.server.set_rate_limit(Some(MIB / 2));
    let peak = PeakLocalBytes::watch(stage.sandbox.dump_dir());
    let mut looks = DirWatch::on(&stage.sandbox.dump_dir());
    for index in 0..20 {
        dumper.file(format!("shop.t.{index:05}.1.sql"), FILE);
        // In a look the directory is opened up to three times.
        looks.wait_for_opens(3);
    }
    let (most, bound) = (peak.bytes(), MARK + FILE + FILES_IN_A_RUN * FILE);
    assert!(most > MARK, "this proves nothing: {most}");
    assert!(most < bound, "{most} bytes were local, {bound} may be");
    stage.server.set_rate_limit(None);
    dumper.finish_and_exit();
    let finished = run.finish().assert_status(0);
    // Once by the first file, and by what came after it.
    assert!(finished.text().matches("mydumper is paused").count() > 1, "{finished:?}");
    stage.assert_whole(&dumper);
}

/// "Needs mydumper as our child, or visible and signallable: otherwise status 2 at start."
#[test]
fn needs_root_who_cannot_pause_mydumper_is_told_so() {
    let stage = Stage::new();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(stage.sandbox.dump_dir(), everybody).expect("rights for all");
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 1_000);
    let run = stage.upload().args(["--max-local", "64KiB"]).by_nobody().run();
    run.assert_status(2).assert_says("cannot be seen or signalled").assert_says("hint:");
    assert_eq!(stage.server.count(Operation::PutObject), 0);
    // Nor a dump that has ended: there is nothing to pause, and nothing to refuse.
    dumper.finish_and_exit();
    stage.upload().args(["--max-local", "64KiB"]).run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "Or free space falls below": whatever the disk has, it is less than this.
#[test]
fn little_free_space_pauses_it_as_well() {
    let stage = Stage::new();
    no_data(&stage);
    let (mut dumper, mut run) = start(&stage, true, &["--min-free", "1EiB"]);
    dumper.file("shop.t.00000.sql", 1_000);
    run.wait_for_line("mydumper is paused");
    eventually("it is stopped", || is_stopped(dumper.pid()));
    stage.server.clear_faults();
    run.wait_for_line("mydumper goes on");
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// With a disk of its own, which only the program and its child see, and which is gone with them. Only root can do that.
pub fn on_a_disk_of<'a>(stage: &'a Stage, mib: u64, program: Program<'a>) -> Program<'a> {
    let mount = format!("mount -t tmpfs -o size={mib}m dump \"$0\" && exec \"$@\"");
    let dir = stage.sandbox.dump_dir();
    let dir = dir.to_str().expect("a path in UTF-8");
    program.wrapped_in(["unshare", "--mount", "sh", "-c", &mount, dir])
}

/// Without any option: a disk that is about to be full pauses mydumper, where it can be paused; and the summary says how
/// long its snapshot was held.
#[test]
fn needs_root_a_disk_that_is_about_to_be_full_pauses_it_by_itself() {
    let stage = Stage::new();
    no_data(&stage);
    let upload =
        stage.upload_with_defaults().args(["--settle", "0.2", "--interval", "10", "--", "mydumper", "-B", "shop"]);
    let mut run = on_a_disk_of(&stage, 100, upload).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("claimed");
    // The twentieth part is free at the end, and was looked at before a look at the files was due.
    for index in 0..96 {
        if run.text_so_far().contains("mydumper is paused") {
            break;
        }
        dumper.file(format!("shop.t.{index:05}.0.sql"), MIB);
    }
    run.wait_for_line("mydumper is paused");
    stage.server.clear_faults();
    run.wait_for_line("mydumper goes on");
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("exit status 0, paused for ");
    assert_eq!(stage.files(&stage.prefix()), dumper.files());
}

/// "mydumper held so long without a byte going up is ended": its snapshot is open all the time.
#[test]
fn a_mydumper_that_is_held_in_vain_is_ended() {
    let stage = Stage::new();
    no_data(&stage);
    let options = ["--max-local", "64KiB", "--max-pause", "0.5s", "--max-stall", "3s"];
    let (mut dumper, run) = start(&stage, true, &options);
    dumper.file("shop.t.00000.sql", 100_000);
    let finished = run.finish().assert_status(1).assert_says("not a byte went up (--max-stall), so it was ended");
    finished.assert_says("this one can never be whole").assert_says("still local");
    dumper.wait_for_end();
    assert!(!stage.has("metadata"));
}

/// The same for all pauses together; a mydumper that something else started goes on by itself.
#[test]
fn a_mydumper_that_is_held_for_longer_than_it_may_be_goes_on() {
    let stage = Stage::new();
    no_data(&stage);
    let (mut dumper, run) = start(&stage, false, &["--max-local", "64KiB", "--max-held", "1s"]);
    dumper.file("shop.t.00000.sql", 100_000);
    let finished = run.finish().assert_status(1).assert_says("(--max-held)");
    finished.assert_says("it goes on by itself now");
    eventually("it goes on", || !is_stopped(dumper.pid()));
    stage.server.clear_faults();
    dumper.finish_and_exit();
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "A forecast in the status line and log", where mydumper writes and nothing is taken away; "none before a minute of
/// data", and none while more than a quarter is free.
#[test]
fn needs_root_a_disk_that_fills_is_forecast() {
    let stage = Stage::new();
    no_data(&stage);
    let upload = stage.upload().args(["--", "mydumper", "-B", "shop"]).on_a_terminal();
    // A minute is measured, and some hundred files go up after that.
    let mut run = on_a_disk_of(&stage, 400, upload).time_limit(Duration::from_secs(300)).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("claimed");
    let mut files = (0..).map(|index| format!("shop.t.{index:05}.0.sql"));
    let mut write_at_a_pace = || {
        dumper.file(files.next().expect("a name"), MIB);
        // The dumper's own pace.
        std::thread::sleep(Duration::from_millis(200));
    };
    let began = Instant::now();
    while !run.text_so_far().contains("the disk is full in") {
        assert!(began.elapsed() < Duration::from_secs(200), "no forecast");
        write_at_a_pace();
    }
    assert!(began.elapsed() >= Duration::from_secs(60), "after {:?}", began.elapsed());
    (0..20).for_each(|_| write_at_a_pace());
    stage.server.clear_faults();
    dumper.finish_and_exit();
    let text = run.finish().assert_status(0).text();
    assert_eq!(stage.files(&stage.prefix()), dumper.files());
    let lines: Vec<&str> = text.split(['\r', '\n']).filter(|line| line.contains("full in ")).collect();
    let (logged, shown): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.contains("the disk is"));
    // Once a minute at most in the log.
    assert_eq!(logged.len(), 1, "{logged:?}");
    assert!(!shown.is_empty(), "not in the status line: {text}");
    for line in logged.into_iter().chain(shown) {
        assert!(line.contains("/s in, ") && line.contains("/s out"), "{line}");
    }
}

/// "ENOSPC seen by mydumper leaves closed empty files and a `metadata`: such a dump is not committed." A real mydumper on
/// a disk that is too small; and where its exit status of 1 gets lost on the way, its empty files tell. (With `-c` 0.10.0
/// hangs for ever on a full disk, by itself.)
#[test]
fn needs_root_a_real_mydumper_on_a_full_disk_commits_nothing() {
    const DATABASE: &str = "on_a_full_disk";
    MariaDb::shared().create_sample(DATABASE, 60_000);
    for wrapper in [&[][..], &["sh", "-c", "\"$@\"; exit 0", "sh"]] {
        let stage = Stage::new();
        // Nothing is taken, and so no space is given back, while it writes.
        let upload = stage.upload_with_defaults().args(["--settle", "1m", "--"]).args(wrapper).arg(mydumper());
        let upload = upload.args(MariaDb::shared().mydumper_arguments(DATABASE));
        let finished = on_a_disk_of(&stage, 2, upload).run().assert_status(3);
        assert!(!stage.has("metadata"), "{finished:?}");
        assert_eq!(stage.manifest()["state"], "incomplete", "{finished:?}");
    }
}
