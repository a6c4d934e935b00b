//! What appears where, for each way of being asked. The live line itself is drawn only on a real terminal.

use anyhow::anyhow;
use serde_json::{Map, Value};

use super::testing::Capture;
use super::*;
use crate::hint::HintExt;

struct Output {
    report: Report,
    settings: OutputSettings,
    stdout: Capture,
    stderr: Capture,
}

impl Output {
    fn new(settings: OutputSettings) -> Self {
        let (stdout, stderr) = (Capture::default(), Capture::default());
        let outputs = Outputs { stdout: Box::new(stdout.clone()), stderr: Box::new(stderr.clone()), are_one: true };
        Self { report: Report::new(&settings, None, outputs).expect("a thread"), settings, stdout, stderr }
    }

    fn log(&self, log: impl FnOnce()) {
        tracing::subscriber::with_default(self.report.subscriber(&self.settings), log);
    }

    fn drained(&self) -> &Self {
        self.report.sink().outlet().drain(Duration::from_secs(30), Duration::from_secs(30));
        self
    }

    fn stdout(&self) -> String {
        self.drained().stdout.text()
    }

    fn stderr(&self) -> String {
        self.drained().stderr.text()
    }

    fn objects(&self) -> Vec<Map<String, Value>> {
        self.stderr().lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    }
}

fn verbose() -> OutputSettings {
    OutputSettings { verbosity: 1, is_progress_wanted: true, ..OutputSettings::default() }
}

fn json() -> OutputSettings {
    OutputSettings { log_format: LogFormat::Json, ..verbose() }
}

fn quiet() -> OutputSettings {
    OutputSettings { is_quiet: true, ..OutputSettings::default() }
}

fn summary() -> Summary {
    Summary {
        status: 0,
        outcome: "done".into(),
        reason: None,
        hint: None,
        full_disk: None,
        files: 1,
        bytes: 2,
        sent_bytes: 2,
        duration: Duration::from_secs(1),
        peak_local_bytes: None,
        given_back_bytes: 0,
        local: None,
        dumper: None,
        destination: None,
        manifest_sha256: None,
        failed: Vec::new(),
    }
}

fn run_everything(output: &Output) {
    output.log(|| tracing::info!("phase"));
    output.report.status(&Status { phase: "uploading", ..Status::default() });
    output.report.child_output("mydumper", b"child \xff", Stream::Stdout);
    output.report.child_output("mydumper", b"child error", Stream::Stderr);
    output.report.summary(&summary());
}

#[test]
fn off_a_terminal_status_lines_need_verbose_and_come_every_ten_seconds() {
    let count = |settings| {
        let (output, start) = (Output::new(settings), Instant::now());
        for second in 0..30 {
            output
                .report
                .status_at(&Status { phase: "uploading", ..Status::default() }, start + Duration::from_secs(second));
        }
        output.stderr().lines().count()
    };
    assert_eq!(count(OutputSettings::default()), 0);
    assert_eq!(count(verbose()), 3);
    assert_eq!(count(json()), 3);
}

#[test]
fn the_childs_output_passes_through_byte_for_byte() {
    let output = Output::new(OutputSettings::default());
    output.report.child_output("mydumper", b"** Message: \x1b[1mx", Stream::Stdout);
    output.report.child_output("mydumper", b"y", Stream::Stderr);
    assert_eq!(output.stdout(), "** Message: \x1b[1mx\n");
    assert_eq!(output.stderr(), "y\n");
}

#[test]
fn quiet_prints_nothing_when_the_status_is_0() {
    let output = Output::new(quiet());
    run_everything(&output);
    output.report.finish(0);
    assert_eq!((output.stdout(), output.stderr()), (String::new(), String::new()));
}

#[test]
fn what_must_be_seen_is_printed_even_if_quiet() {
    let output = Output::new(quiet());
    output.report.notice("its exit status was not seen");
    output.report.finish(0);
    assert_eq!(output.stderr(), "mydumper2s3: its exit status was not seen\n");
    // The summary has said it.
    let output = Output::new(OutputSettings::default());
    output.report.notice("its exit status was not seen");
    assert_eq!(output.stderr(), "");
}

#[test]
fn quiet_prints_everything_when_it_is_not() {
    let output = Output::new(quiet());
    run_everything(&output);
    output.report.fatal(&anyhow!("broken"));
    output.report.finish(1);
    let text = output.stderr();
    for word in ["phase", "child error", "done", "mydumper2s3: error: broken"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(output.stdout().contains("child"));
}

#[test]
fn json_is_one_object_a_line_whatever_is_written() {
    let output = Output::new(json());
    run_everything(&output);
    output.report.fatal(&anyhow!("broken\nin two"));
    let objects = output.objects();
    let events: Vec<_> = objects.iter().map(|object| object.get("event").and_then(Value::as_str)).collect();
    let expected = [None, Some("status"), Some("mydumper"), Some("mydumper"), Some("summary"), Some("error")];
    assert_eq!(events, expected);
    assert!(objects.iter().all(|object| object["timestamp"].is_string()));
    assert_eq!(output.stdout(), "");
}

#[tokio::test]
async fn data_goes_to_stdout_even_if_quiet() {
    let output = Output::new(quiet());
    let mut table = Table::new([("FILE", Align::Left)]);
    table.row(["a"]);
    output.report.table(&table).await.expect("written");
    output.report.data("{}").await.expect("written");
    assert_eq!(output.stdout(), "FILE\na\n{}\n");
}

#[test]
fn an_error_is_printed_with_its_causes_and_its_hint_on_a_line_of_its_own() {
    let output = Output::new(OutputSettings::default());
    let error = Err::<(), _>(anyhow!("access denied\n").context("cannot upload 'a'")).hint("allow s3:PutObject");
    output.report.fatal(&error.expect_err("an error"));
    let expected = "mydumper2s3: error: cannot upload 'a': access denied\\n\nhint: allow s3:PutObject\n";
    assert_eq!(output.stderr(), expected);
}

#[test]
fn progress_off_a_terminal_is_a_line_with_verbose() {
    let output = Output::new(verbose());
    let progress = output.report.progress("verifying", 3, 0);
    progress.advance(3, 0);
    drop(progress);
    let text = output.stderr();
    assert!(text.ends_with(" DEBUG verifying · 0 of 3 files\n") && text.lines().count() == 1, "{text}");
}
