//! The only place that prints.
//!
//! Data goes to stdout; status, log lines and the summary to stderr. On a terminal one live line stays below all
//! others. All of it passes through queues to threads that write it ([`outlet`]): an output that is closed, or that
//! nobody reads, neither ends nor blocks an upload. Only data must be written, and its command waits for that.
//!
//! Log lines come through `tracing`: see [`logging`] for what each level is for.

mod confirm;
mod escape;
mod json;
mod live_line;
pub mod logging;
mod metrics;
mod outlet;
mod progress;
mod rate;
mod sink;
mod status_line;
mod summary;
mod table;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tracing_subscriber::layer::SubscriberExt;

pub use escape::escape;
pub use metrics::{DrillMetrics, RunMetrics};
pub use outlet::Stream;
pub use progress::Progress;
pub use rate::RateMeter;
pub use status_line::Status;
pub use summary::{DumperSummary, LocalFiles, Summary};
pub use table::{Align, Table};

use crate::hint::{HintExt, hint_of, hinted};
use crate::program::OnLine;
use json::Fields;
use logging::{LineStyle, LogLayer, Threshold};
use outlet::{Outlet, Outputs, WRITER, Weight};
use sink::Sink;
use status_line::Throttle;

/// Off a terminal a status is a line in a log, which is read later.
const STATUS_LINE_EVERY: Duration = Duration::from_secs(10);
/// At the end: how long a reader who takes nothing is waited for, and one who does.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(2);
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(30);
/// The same where a second signal ends us at once.
const AT_ONCE: Duration = Duration::from_millis(200);

/// How the program was asked to print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputSettings {
    /// 0: a line per phase, 1: per file, 2: per part.
    pub verbosity: u8,
    /// Nothing is printed unless the exit status is not 0.
    pub is_quiet: bool,
    pub log_format: LogFormat,
    pub is_progress_wanted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// A handle to all output; clones are the same output.
#[derive(Clone)]
pub struct Report {
    // A std mutex: it is held for one line, never across an await.
    sink: Arc<Mutex<Sink>>,
    style: LineStyle,
    /// Where the last line of a terminal is ours.
    has_live_line: bool,
    /// Off a terminal, with `-v`.
    status_lines: Option<Arc<Mutex<Throttle>>>,
}

impl Report {
    /// Output to stdout and stderr, and log lines from now on. Once in a program.
    pub fn start(settings: &OutputSettings) -> anyhow::Result<Self> {
        let is_terminal = std::io::stderr().is_terminal();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = is_terminal.then_some(Terminal { color: !no_color && !is_dumb, live_line: !is_dumb });
        let outputs = Outputs::of_the_program().context("cannot open standard output and standard error")?;
        let report = Self::new(settings, terminal, outputs).context("cannot start the thread that writes")?;
        // Fails only where there is one already, and then lines go there.
        let _ = tracing::subscriber::set_global_default(report.subscriber(settings));
        report.take_panics();
        Ok(report)
    }

    fn new(settings: &OutputSettings, terminal: Option<Terminal>, outputs: Outputs) -> std::io::Result<Self> {
        let style = match (settings.log_format, terminal) {
            (LogFormat::Json, _) => LineStyle::Json,
            (LogFormat::Text, Some(Terminal { color, .. })) => LineStyle::Terminal { color },
            (LogFormat::Text, None) => LineStyle::Plain,
        };
        let is_plain_terminal = matches!(style, LineStyle::Terminal { .. });
        let has_live_line = is_plain_terminal
            && terminal.is_some_and(|terminal| terminal.live_line)
            && settings.is_progress_wanted
            && !settings.is_quiet;
        let throttle = || Arc::new(Mutex::new(Throttle::new(STATUS_LINE_EVERY)));
        let status_lines = (!has_live_line && settings.verbosity > 0).then(throttle);
        let sink = Sink::new(Outlet::start(outputs, style)?, style, settings.is_quiet);
        Ok(Self { sink: Arc::new(Mutex::new(sink)), style, has_live_line, status_lines })
    }

    /// A panic is said through the queue, too: the thread that panics must not wait for a reader. Only the one that
    /// writes says its own by itself.
    fn take_panics(&self) {
        let report = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let backtrace = std::backtrace::Backtrace::capture();
            if std::thread::current().name() == Some(WRITER) {
                // Not by `eprintln!`: that panics where nobody listens, and a panic here ends the program.
                let _ = writeln!(std::io::stderr(), "mydumper2s3: error: {panic}\n{backtrace}");
                return;
            }
            let error = anyhow!("{panic}");
            report.fatal(&hinted(error, "this is a fault of mydumper2s3: please report it with the lines before it"));
            if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
                report.line(Weight::Verdict, &backtrace.to_string());
            }
        }));
    }

    fn subscriber(&self, settings: &OutputSettings) -> impl tracing::Subscriber + Send + Sync + use<> {
        tracing_subscriber::registry().with(LogLayer {
            sink: Arc::clone(&self.sink),
            style: self.style,
            threshold: Threshold::of_verbosity(settings.verbosity),
        })
    }

    /// How it stands now. May be called as often as one likes.
    pub fn status(&self, status: &Status) {
        self.status_at(status, Instant::now());
    }

    fn status_at(&self, status: &Status, now: Instant) {
        if self.style != LineStyle::Json {
            return self.show_live(now, |width| status.line(width));
        }
        if self.is_status_line_due(now) {
            self.json(Weight::Log, status.json());
        }
    }

    /// Redraws the live line; or, where there is none, writes the line now and then if `-v` was given.
    fn show_live(&self, now: Instant, line: impl FnOnce(usize) -> String) {
        if self.has_live_line {
            self.sink().outlet().show_live(Some(line(live_line::width())));
        } else if self.is_status_line_due(now) {
            let line = logging::Line { level: tracing::Level::DEBUG, message: line(usize::MAX), fields: Fields::new() };
            self.line(Weight::Log, &line.format(self.style, Timestamp::now()));
        }
    }

    fn clear_live(&self) {
        self.sink().outlet().show_live(None);
    }

    fn is_status_line_due(&self, now: Instant) -> bool {
        let due = |lines: &Arc<Mutex<Throttle>>| lines.lock().is_due(now);
        self.status_lines.as_ref().is_some_and(due)
    }

    /// For a command that knows how much there is to do. Drop it when that is done.
    pub fn progress(&self, phase: &'static str, total_files: usize, total_bytes: u64) -> Progress {
        Progress::new(self.clone(), phase, total_files, total_bytes)
    }

    /// What takes mydumper's lines, where they must pass through here: above a live line, as JSON, or kept back.
    /// Elsewhere mydumper had better write by itself.
    pub fn child_output_wanted(&self) -> Option<OnLine> {
        self.child_output_wanted_of("mydumper")
    }

    /// The same of another program.
    pub fn child_output_wanted_of(&self, program: &'static str) -> Option<OnLine> {
        let wanted = self.has_live_line || self.style == LineStyle::Json || self.sink().is_quiet();
        wanted.then(|| self.takes_child_output(program))
    }

    /// What takes the lines of a program of that name.
    pub fn takes_child_output(&self, program: &'static str) -> OnLine {
        let report = self.clone();
        Arc::new(move |line, is_stderr| {
            report.child_output(program, line, if is_stderr { Stream::Stderr } else { Stream::Stdout });
        })
    }

    /// A line that a program of ours wrote, without its newline: passed on byte for byte, above the live line.
    /// In JSON it becomes an object, so that each line stays one.
    pub fn child_output(&self, program: &str, line: &[u8], stream: Stream) {
        if self.style != LineStyle::Json {
            return self.sink().line(stream, Weight::Log, line);
        }
        let fields = vec![
            ("event", program.into()),
            ("stream", if stream == Stream::Stdout { "stdout" } else { "stderr" }.into()),
            ("message", String::from_utf8_lossy(line).into()),
        ];
        self.json(Weight::Log, fields);
    }

    /// Data that was asked for, on stdout, also with `--quiet`: that is about what nobody asked for.
    pub async fn table(&self, table: &Table) -> anyhow::Result<()> {
        self.write_data(table.render()).await
    }

    /// A line of data on stdout. Names in it must have gone through [`escape`], or be JSON.
    pub async fn data(&self, line: &str) -> anyhow::Result<()> {
        self.write_data(format!("{line}\n")).await
    }

    async fn write_data(&self, text: String) -> anyhow::Result<()> {
        self.bytes(text.into_bytes()).await
    }

    /// Data as it is. Waits until it is written: what somebody asked for is never left away.
    pub async fn bytes(&self, bytes: Vec<u8>) -> anyhow::Result<()> {
        let written = self.sink().data(Stream::Stdout, bytes);
        let written =
            written.await.unwrap_or_else(|_| Err(std::io::Error::other("the thread that writes has panicked")));
        written
            .context("cannot write to standard output")
            .hint("what was written is not all: use the exit status, and make room or read to the end")
    }

    /// A line that must be seen although all went well: with `--quiet` it is printed at once. Elsewhere the summary has
    /// said the same.
    pub fn notice(&self, message: &str) {
        let sink = self.sink();
        if !sink.is_quiet() {
            return;
        }
        let line = match self.style {
            LineStyle::Json => {
                json::line(Timestamp::now(), vec![("event", "notice".into()), ("message", message.into())])
            }
            _ => format!("mydumper2s3: {}", escape(message)),
        };
        sink.notice(&line);
    }

    /// What is said at the end.
    pub fn summary(&self, summary: &Summary) {
        self.clear_live();
        if self.style == LineStyle::Json {
            self.json(Weight::Verdict, summary.json());
        } else {
            self.line(Weight::Verdict, &summary.text());
        }
    }

    /// The figures of an end that a log line has told a person; only in JSON, as an object of the event `summary`.
    pub fn figures(&self, figures: Vec<(&'static str, serde_json::Value)>) {
        if self.style == LineStyle::Json {
            let event = ("event", "summary".into());
            self.json(Weight::Verdict, std::iter::once(event).chain(figures).collect());
        }
    }

    /// The error that ends the program, its causes, and what to do about it.
    pub fn fatal(&self, error: &anyhow::Error) {
        self.clear_live();
        let (message, hint) = (format!("{error:#}"), hint_of(error));
        if self.style == LineStyle::Json {
            let fields = vec![
                ("event", "error".into()),
                ("level", "ERROR".into()),
                ("message", message.into()),
                ("hint", hint.into()),
            ];
            return self.json(Weight::Verdict, fields);
        }
        let line = logging::Line { level: tracing::Level::ERROR, message, fields: Fields::new() };
        // Without a time, off a terminal, too: it is what a person sees who has just made a mistake.
        let color = self.style == LineStyle::Terminal { color: true };
        self.line(Weight::Verdict, &line.format(LineStyle::Terminal { color }, Timestamp::now()));
        if let Some(hint) = hint {
            self.line(Weight::Verdict, &format!("hint: {}", escape(&hint)));
        }
    }

    /// The last call: takes the live line away, shows what `--quiet` kept back if the run failed, and waits until all is
    /// written, but not for somebody who does not read.
    pub fn finish(&self, exit_status: u8) {
        let mut sink = self.sink();
        if exit_status != 0 {
            sink.release();
        }
        let outlet = sink.outlet().clone();
        drop(sink);
        outlet.show_live(None);
        outlet.drain(LAST_WORDS_PATIENCE, LAST_WORDS_LIMIT);
    }

    /// The last call where the program ends amid everything.
    pub fn finish_at_once(&self) {
        let outlet = self.sink().outlet().clone();
        outlet.show_live(None);
        outlet.drain(AT_ONCE, AT_ONCE);
    }

    /// One object on stderr, with its time.
    fn json(&self, weight: Weight, fields: Fields) {
        self.line(weight, &json::line(Timestamp::now(), fields));
    }

    fn line(&self, weight: Weight, line: &str) {
        self.sink().line(Stream::Stderr, weight, line.as_bytes());
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock()
    }
}

/// What stderr is, where it is a terminal.
#[derive(Clone, Copy)]
struct Terminal {
    color: bool,
    live_line: bool,
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
