//! What a run says at its end when it failed is true: whoever follows the hint gets there. And `docs/when-it-fails.md`
//! tells of each status.

use rustix::process::Signal;

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, Operation};
use crate::support::stage::Stage;

const PAGE: &str = include_str!("../../docs/when-it-fails.md");
const CHILD: [&str; 4] = ["--", "mydumper", "-B", "shop"];

/// "A hint is true in every case in which it is printed": a mydumper that was stopped with us never ends well. What the
/// hint says instead leads to tonight's whole dump, whose status is its own.
#[test]
fn stopped_with_its_mydumper_a_dump_is_not_said_to_go_on() {
    for (signal, status) in [(Signal::TERM, 128 + 15), (Signal::INT, 128 + 2)] {
        let stage = Stage::new();
        let run = stage.upload().args(CHILD).start();
        let mut first = FakeDumper::accept(&stage.sandbox);
        first.begin(Generation::V1_0);
        first.file("shop.a.00000.sql", 1_000);
        stage.wait_until_moved("shop.a.00000.sql");
        first.open("shop.b.00000.sql");
        first.write("shop.b.00000.sql", 1_000);
        run.signal(signal);
        first.wait_for_end();
        let finished = run.finish().assert_status(status).assert_does_not_say("it goes on where it was");
        finished.assert_says("this one can never be whole").assert_says("#status-128n");

        let mut again = stage.upload().args(CHILD).start();
        again.wait_for_line("an earlier dump stands in");
        let mut second = FakeDumper::accept(&stage.sandbox);
        second.begin(Generation::V1_0);
        second.file("shop.c.00000.sql", 1_000);
        second.finish_and_exit();
        again.finish().assert_status(0).assert_says("the earlier dump is not whole");
        let whole: Vec<_> =
            stage.prefixes().into_iter().filter(|prefix| stage.files(prefix).contains_key("metadata")).collect();
        assert_eq!(whole.len(), 1, "the stopped dump was committed");
        stage.assert_whole_at(&whole[0], &second);
        stage.sandbox.assert_local_names([] as [&str; 0]);
    }
}

/// Status 1 after `--retry-for`: how many files and bytes are still local, and where; and the hint leads on.
#[test]
fn after_an_outage_that_was_too_long_the_hint_leads_on() {
    let stage = Stage::new();
    let mut run = stage.upload().args(["--retry-for", "1s"]).args(CHILD).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("claimed");
    stage.server.down();
    dumper.file("shop.a.00000.sql", 1_000);
    dumper.file("shop.b.00000.sql", 24);
    dumper.finish_and_exit();
    assert_eq!(stage.sandbox.local_files(), dumper.files());
    let finished = run.finish().assert_status(1).assert_says("out of reach");
    let finished = finished.assert_says("without '--' and what follows: it goes on where it was");
    let text = finished.text();
    let line = text.lines().find(|line| line.contains("still local")).unwrap_or_else(|| panic!("{text}"));
    let directory = stage.sandbox.dump_dir().display().to_string();
    assert!(line.contains("3 files (") && line.contains(&directory), "{line}");
    stage.server.up();
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Nothing of another dump was seen: the directory is elsewhere. There the same command goes on.
#[test]
fn a_directory_that_was_moved_is_called_so() {
    let stage = Stage::new();
    let mut run = stage.upload().start();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.a.00000.sql", 1_000);
    run.wait_for_line("claimed");
    stage.wait_until_moved("shop.a.00000.sql");
    let (there, moved) = (stage.sandbox.dump_dir(), stage.sandbox.path("moved"));
    dumper.file("shop.b.00000.sql", 1_000);
    std::fs::rename(&there, &moved).expect("it can be moved");
    let finished = run.finish().assert_status(3).assert_does_not_say("another dump has begun");
    finished.assert_says("the directory was moved or removed").assert_says("--dir where it is now");
    // As the hint says: there the rest goes up, beside what was in the bucket already.
    dumper.exit(1);
    let endpoint = stage.endpoint();
    let again = stage.sandbox.mydumper2s3().arg("--dir").arg(&moved).args(["--bucket", BUCKET]).connect_to(&endpoint);
    let again = again.args(["--settle", "0.2", "--wait", "5"]).run();
    again.assert_status(3).assert_says("going on at").assert_says("mydumper is gone and left metadata.partial");
    assert!(stage.has("shop.a.00000.sql") && stage.has("shop.b.00000.sql") && !stage.has("metadata"));
}

/// "39 uploading" with one worker: those that wait for their turn are queued.
#[test]
fn queued_and_uploading_are_two_numbers() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(".sql")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().args(["--workers", "1", "--log-format", "json", "-v"]).start();
    for number in 0..5 {
        dumper.file(format!("shop.t{number}.00000.sql"), 1_000);
    }
    held.wait_for_hits(1);
    run.wait_for_line("\"queued\":4,\"uploading\":1");
    held.clear();
    dumper.finish_and_exit();
    run.finish().assert_status(0);
}

/// What an earlier run sent took this one no time.
#[test]
fn a_resumed_runs_rate_counts_what_it_sent() {
    const MIB: u64 = 1024 * 1024;
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = stage.upload().start();
    dumper.file("shop.a.00000.sql", MIB);
    stage.wait_until_moved("shop.a.00000.sql");
    run.kill();
    dumper.file("shop.b.00000.sql", 1_000);
    dumper.finish_and_exit();
    let finished = stage.upload().args(["--log-format", "json"]).run().assert_status(0);
    let text = finished.text();
    let summary = text.lines().find(|line| line.contains("\"event\":\"summary\"")).unwrap_or_else(|| panic!("{text}"));
    let start = summary.find('{').expect("an object");
    let summary: serde_json::Value = serde_json::from_str(&summary[start..]).expect("JSON");
    let (bytes, sent) = (summary["bytes"].as_u64().expect("bytes"), summary["sent_bytes"].as_u64().expect("bytes"));
    assert!(bytes > MIB && sent > 1_000 && sent < MIB / 4, "{summary}");
    let rate = summary["bytes_per_second"].as_f64().expect("a rate");
    assert!(rate * summary["duration_seconds"].as_f64().expect("a time") < MIB as f64 / 2.0, "{summary}");
    stage.assert_whole(&dumper);
}

/// Those of snapshots are in every directory of such a filesystem, or at its top, as `lost+found` is; nobody can remove
/// them.
#[test]
fn directories_that_filesystems_keep_are_ignored() {
    let stage = Stage::new();
    for name in ["lost+found", ".snapshot", ".snap", ".snapshots", ".zfs"] {
        std::fs::create_dir(stage.sandbox.dump_dir().join(name)).expect("a directory");
    }
    let run = stage.upload().args(CHILD).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.a.00000.sql", 1_000);
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_does_not_say("not uploaded");
    stage.assert_whole_at(&stage.prefix(), &dumper);
}

/// The statuses are those of the README, each with the answers to the same questions.
#[test]
fn the_page_tells_of_each_status() {
    for status in ["0", "1", "2", "3", "4", "128+n"] {
        let heading = format!("\n## Status {status}\n");
        let section = PAGE.split_once(&heading).unwrap_or_else(|| panic!("no section for {status}")).1;
        let section = section.split("\n## ").next().expect("a section");
        assert!(section.lines().count() > 3, "the section for {status} says nothing");
        let anchor = status.replace('+', "");
        assert!(PAGE.contains(&format!("\n| [{status}](#status-{anchor}) | ")), "the table lacks {status}");
        assert!(status == "0" || section.contains("- May the directory be emptied?"), "{status}");
    }
}
