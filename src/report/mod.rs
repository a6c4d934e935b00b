//! The only place that prints.
//!
//! Data goes to stdout; status, log lines and the summary to stderr. On a terminal one live line stays below all
//! others. Nothing here fails or blocks the upload: an output that is closed takes nothing, and that is all.
//!
//! Log lines come through `tracing`: see [`logging`] for what each level is for.

mod confirm;
mod escape;
mod json;
pub mod logging;
mod metrics;
mod progress;
mod rate;
mod sink;
mod status_line;
mod summary;
mod table;

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use tracing_subscriber::layer::SubscriberExt;

pub use escape::escape;
pub use metrics::RunMetrics;
pub use progress::Progress;
pub use rate::RateMeter;
pub use sink::Stream;
pub use status_line::Status;
pub use summary::{DumperSummary, LocalFiles, Summary};
pub use table::{Align, Table};

use crate::dumper::ChildLine;
use crate::hint::hint_of;
use json::Fields;
use logging::{LineStyle, LogLayer, Threshold};
use sink::Sink;
use status_line::Throttle;

/// Off a terminal a status is a line in a log, which is read later.
const STATUS_LINE_EVERY: Duration = Duration::from_secs(10);

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
    pub fn start(settings: &OutputSettings) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = is_terminal.then_some(Terminal { color: !no_color && !is_dumb, live_line: !is_dumb });
        let sink = Sink::new(Box::new(std::io::stdout()), Box::new(std::io::stderr()), settings.is_quiet);
        let report = Self::new(settings, terminal, sink);
        // Fails only where there is one already, and then lines go there.
        let _ = tracing::subscriber::set_global_default(report.subscriber(settings));
        report
    }

    fn new(settings: &OutputSettings, terminal: Option<Terminal>, sink: Sink) -> Self {
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
        Self { sink: Arc::new(Mutex::new(sink)), style, has_live_line, status_lines }
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
            self.json(status.json());
        }
    }

    /// Redraws the live line; or, where there is none, writes the line now and then if `-v` was given.
    fn show_live(&self, now: Instant, line: impl FnOnce(usize) -> String) {
        if self.has_live_line {
            let columns = console::Term::stderr().size_checked().map_or(80, |(_, columns)| usize::from(columns));
            // The spinner and its space; and a terminal may wrap when its last column is written.
            let line = line(columns.saturating_sub(3));
            let mut sink = self.sink();
            if sink.live().is_none() {
                sink.set_live(Some(live_bar()));
            }
            if let Some(bar) = sink.live() {
                bar.set_message(line);
            }
        } else if self.is_status_line_due(now) {
            let line = logging::Line { level: tracing::Level::DEBUG, message: line(usize::MAX), fields: Fields::new() };
            self.line(Stream::Stderr, &line.format(self.style, Timestamp::now()));
        }
    }

    fn clear_live(&self) {
        self.sink().set_live(None);
    }

    fn is_status_line_due(&self, now: Instant) -> bool {
        let due = |lines: &Arc<Mutex<Throttle>>| lines.lock().unwrap_or_else(PoisonError::into_inner).is_due(now);
        self.status_lines.as_ref().is_some_and(due)
    }

    /// For a command that knows how much there is to do. Drop it when that is done.
    pub fn progress(&self, phase: &'static str, total_files: usize, total_bytes: u64) -> Progress {
        Progress::new(self.clone(), phase, total_files, total_bytes)
    }

    /// What takes mydumper's lines, where they must pass through here: above a live line, as JSON, or kept back.
    /// Elsewhere mydumper had better write by itself.
    pub fn child_output_wanted(&self) -> Option<ChildLine> {
        let wanted = self.has_live_line || self.style == LineStyle::Json || self.sink().is_quiet();
        let report = self.clone();
        wanted.then(|| -> ChildLine {
            Arc::new(move |line, is_stderr| {
                report.child_output(line, if is_stderr { Stream::Stderr } else { Stream::Stdout });
            })
        })
    }

    /// A line that mydumper wrote, without its newline: passed on byte for byte, above the live line.
    /// In JSON it becomes an object, so that each line stays one.
    pub fn child_output(&self, line: &[u8], stream: Stream) {
        if self.style != LineStyle::Json {
            return self.sink().line(stream, line);
        }
        self.json(vec![
            ("event", "mydumper".into()),
            ("stream", if stream == Stream::Stdout { "stdout" } else { "stderr" }.into()),
            ("message", String::from_utf8_lossy(line).into()),
        ]);
    }

    /// Data that was asked for, on stdout, also with `--quiet`: that is about what nobody asked for.
    pub fn table(&self, table: &Table) {
        self.sink().print(Stream::Stdout, table.render().as_bytes());
    }

    /// A line of data on stdout. Names in it must have gone through [`escape`], or be JSON.
    pub fn data(&self, line: &str) {
        self.sink().print(Stream::Stdout, format!("{line}\n").as_bytes());
    }

    /// A line that must be seen although all went well: with `--quiet` it is printed at once. Elsewhere the summary has
    /// said the same.
    pub fn notice(&self, message: &str) {
        let mut sink = self.sink();
        if !sink.is_quiet() {
            return;
        }
        let line = match self.style {
            LineStyle::Json => {
                json::line(Timestamp::now(), vec![("event", "notice".into()), ("message", message.into())])
            }
            _ => format!("mydumper2s3: {}", escape(message)),
        };
        sink.print(Stream::Stderr, format!("{line}\n").as_bytes());
    }

    /// What is said at the end.
    pub fn summary(&self, summary: &Summary) {
        self.clear_live();
        if self.style == LineStyle::Json {
            self.json(summary.json());
        } else {
            self.line(Stream::Stderr, &summary.text());
        }
    }

    /// The error that ends the program, its causes, and what to do about it.
    pub fn fatal(&self, error: &anyhow::Error) {
        self.clear_live();
        let (message, hint) = (format!("{error:#}"), hint_of(error));
        if self.style == LineStyle::Json {
            return self.json(vec![
                ("event", "error".into()),
                ("level", "ERROR".into()),
                ("message", message.into()),
                ("hint", hint.into()),
            ]);
        }
        let line = logging::Line { level: tracing::Level::ERROR, message, fields: Fields::new() };
        // Without a time, off a terminal, too: it is what a person sees who has just made a mistake.
        let color = self.style == LineStyle::Terminal { color: true };
        self.line(Stream::Stderr, &line.format(LineStyle::Terminal { color }, Timestamp::now()));
        if let Some(hint) = hint {
            self.line(Stream::Stderr, &format!("hint: {}", escape(&hint)));
        }
    }

    /// The last call: takes the live line away, and shows what `--quiet` kept back if the run failed.
    pub fn finish(&self, exit_status: u8) {
        let mut sink = self.sink();
        sink.set_live(None);
        if exit_status != 0 {
            sink.release();
        }
    }

    /// One object on stderr, with its time.
    fn json(&self, fields: Fields) {
        self.line(Stream::Stderr, &json::line(Timestamp::now(), fields));
    }

    fn line(&self, stream: Stream, line: &str) {
        self.sink().line(stream, line.as_bytes());
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stderr is, where it is a terminal.
#[derive(Clone, Copy)]
struct Terminal {
    color: bool,
    live_line: bool,
}

/// A spinner that turns by itself, so that one sees the program live while nothing changes.
fn live_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    // wide_msg cuts the line where the terminal has just become narrower.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(150));
    bar
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
