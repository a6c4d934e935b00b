//! Log lines: events of `tracing`, written as text for people or as JSON for programs.
//!
//! Conventions: INFO a phase, DEBUG a file (`-v`), TRACE a part or request (`-vv`), WARN we recover, ERROR someone
//! must act. Fields belong to events; spans are not looked at.
//!
//! **Invariant:** of other crates nothing below ERROR is written, with `-v` nothing below WARN, and never a field.
//! The AWS SDK's events hold requests and answers, and its promise to blank out what is secret is not ours to keep.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::escape::{escape, escape_value};
use super::json::{self, Fields, timestamp};
use super::outlet::{Stream, Weight};
use super::sink::Sink;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineStyle {
    /// Short, without time: somebody is looking at it now.
    Terminal {
        color: bool,
    },
    /// With time and level: it is read later.
    Plain,
    Json,
}

/// What `--verbose` lets through.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    own: Level,
    others: Level,
}

impl Threshold {
    pub fn of_verbosity(verbosity: u8) -> Self {
        let (own, others) = match verbosity {
            0 => (Level::INFO, Level::ERROR),
            1 => (Level::DEBUG, Level::WARN),
            _ => (Level::TRACE, Level::WARN),
        };
        Self { own, others }
    }

    fn allows(self, metadata: &Metadata<'_>) -> bool {
        // Levels order from ERROR, the least, to TRACE.
        *metadata.level() <= if is_own(metadata) { self.own } else { self.others }
    }
}

fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"))
}

/// The layer that writes events into the sink.
pub struct LogLayer {
    pub sink: Arc<Mutex<Sink>>,
    pub style: LineStyle,
    pub threshold: Threshold,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // Spans are of no use here, and the SDK makes thousands of them.
        metadata.is_event() && self.threshold.allows(metadata)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.threshold.own.max(self.threshold.others).into())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line { level: *event.metadata().level(), message: String::new(), fields: Fields::new() };
        event.record(&mut line);
        if !is_own(event.metadata()) {
            line.fields.clear();
        }
        let text = line.format(self.style, Timestamp::now());
        self.sink.lock().line(Stream::Stderr, Weight::Log, text.as_bytes());
    }
}

/// What is said, with its newline, once somebody reads again.
pub fn lines_not_shown(style: LineStyle, count: usize) -> String {
    let (lines, them) = if count == 1 { ("line was", "it") } else { ("lines were", "them") };
    warning(style, format!("{count} {lines} not shown: nobody read what was written before {them}")) + "\n"
}

/// What is said where `--quiet` shows only the last of what it kept back.
pub fn earlier_lines_not_shown(style: LineStyle, count: usize) -> String {
    warning(style, format!("{count} earlier {} not shown", if count == 1 { "line is" } else { "lines are" }))
}

fn warning(style: LineStyle, message: String) -> String {
    Line { level: Level::WARN, message, fields: Fields::new() }.format(style, Timestamp::now())
}

/// One event, taken apart.
#[derive(Debug)]
pub struct Line {
    pub level: Level,
    pub message: String,
    pub fields: Fields,
}

impl Line {
    pub fn format(self, style: LineStyle, now: Timestamp) -> String {
        match style {
            LineStyle::Terminal { color } => self.terminal(color),
            LineStyle::Plain => {
                let Self { level, message, .. } = &self;
                format!("{} {level:<5} {}{}", timestamp(now, 0), escape(message), self.fields_as_text(""))
            }
            LineStyle::Json => {
                let head: Fields = vec![("level", self.level.as_str().into()), ("message", self.message.into())];
                json::line(now, head.into_iter().chain(self.fields).collect())
            }
        }
    }

    /// `mydumper2s3: warning: message name=value`. The name tells our lines from mydumper's.
    fn terminal(&self, color: bool) -> String {
        let paint = |code: &'static str| if color { code } else { "" };
        let (dim, reset) = (paint("\x1b[2m"), paint("\x1b[0m"));
        let level = match self.level {
            Level::ERROR => format!("{}error:{reset} ", paint("\x1b[1;31m")),
            Level::WARN => format!("{}warning:{reset} ", paint("\x1b[1;33m")),
            _ => String::new(),
        };
        let fields = self.fields_as_text(dim);
        let end = if fields.is_empty() { "" } else { reset };
        format!("{dim}mydumper2s3:{reset} {level}{}{fields}{end}", escape(&self.message))
    }

    fn fields_as_text(&self, before: &str) -> String {
        let mut text = String::new();
        for (name, value) in &self.fields {
            let value = match value {
                Value::String(value) => escape_value(value),
                other => other.to_string().into(),
            };
            let before = if text.is_empty() { before } else { "" };
            // Writing into a string cannot fail.
            let _ = write!(text, "{before} {name}={value}");
        }
        text
    }

    fn set(&mut self, field: &Field, value: Value) {
        match value {
            Value::String(text) if field.name() == "message" => self.message = text,
            value => self.fields.push((field.name(), value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let causes: Vec<String> =
            std::iter::successors(Some(value), |error| error.source()).map(ToString::to_string).collect();
        self.set(field, causes.join(": ").into());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::report::outlet::{Outlet, Outputs};
    use crate::report::testing::Capture;

    fn logged(style: LineStyle, verbosity: u8, log: impl FnOnce()) -> String {
        let capture = Capture::default();
        let outputs =
            Outputs { stdout: Box::new(Capture::default()), stderr: Box::new(capture.clone()), are_one: true };
        let outlet = Outlet::start(outputs, style).expect("a thread");
        let sink = Arc::new(Mutex::new(Sink::new(outlet.clone(), style, false)));
        let layer = LogLayer { sink, style, threshold: Threshold::of_verbosity(verbosity) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        outlet.drain(Duration::from_secs(30), Duration::from_secs(30));
        capture.text()
    }

    const PIPE: LineStyle = LineStyle::Plain;
    const TERMINAL: LineStyle = LineStyle::Terminal { color: false };

    #[test]
    fn on_a_terminal_lines_are_short() {
        let text = logged(TERMINAL, 0, || {
            tracing::info!(method = "lease", dir = "/my backup", files = 3, "dump found");
            tracing::warn!("cannot list");
        });
        let expected = "mydumper2s3: dump found method=lease dir=\"/my backup\" files=3\n\
                        mydumper2s3: warning: cannot list\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn color_is_around_level_and_fields() {
        let text = logged(LineStyle::Terminal { color: true }, 0, || tracing::error!(a = 1, b = true, "no"));
        assert_eq!(text, "\x1b[2mmydumper2s3:\x1b[0m \x1b[1;31merror:\x1b[0m no\x1b[2m a=1 b=true\x1b[0m\n");
    }

    #[test]
    fn elsewhere_lines_have_time_and_level() {
        let line = Line { level: Level::INFO, message: "uploaded".into(), fields: Fields::new() };
        let now = Timestamp::from_second(1_795_340_000).expect("a time");
        assert_eq!(line.format(PIPE, now), "2026-11-22T09:33:20Z INFO  uploaded");
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let text = logged(LineStyle::Json, 0, || {
            let error = std::io::Error::other("broken\npipe");
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::info!(file = "a\nb", bytes = 5_u64, level = "fake", error, "done");
        });
        assert_eq!(text.lines().count(), 1);
        let object: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("one object");
        assert_eq!(object["level"], "INFO");
        assert_eq!(object["message"], "done");
        assert_eq!(object["file"], "a\nb");
        assert_eq!(object["bytes"], 5);
        assert_eq!(object["error"], "broken\npipe");
        let timestamp = object["timestamp"].as_str().expect("text");
        assert!(timestamp.ends_with('Z') && timestamp.parse::<Timestamp>().is_ok(), "{timestamp}");
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        for style in [TERMINAL, PIPE, LineStyle::Json] {
            let name = "x\nmydumper2s3: error: \x1b[31mforged";
            let text = logged(style, 1, || tracing::debug!(file = name, "uploaded {name}"));
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains('\x1b'), "{text}");
        }
    }

    #[test]
    fn verbosity_opens_our_own_levels() {
        let log = || {
            tracing::info!("phase");
            tracing::debug!("file");
            tracing::trace!("part");
        };
        assert_eq!(logged(TERMINAL, 0, log).lines().count(), 1);
        assert_eq!(logged(TERMINAL, 1, log).lines().count(), 2);
        assert_eq!(logged(TERMINAL, 2, log).lines().count(), 3);
        assert_eq!(logged(TERMINAL, 9, log).lines().count(), 3);
    }

    #[test]
    fn nothing_of_the_sdk_below_a_warning_is_ever_written() {
        let log = || {
            tracing::trace!(target: "aws_smithy_runtime::client", secret = "hunter2", "request");
            tracing::debug!(target: "aws_sdk_s3", secret = "hunter2", "request");
            tracing::info!(target: "hyper", secret = "hunter2", "request");
            tracing::info!(target: "mydumper2s3_evil", secret = "hunter2", "not ours");
            let span = tracing::info_span!(target: "aws_sdk_s3", "put", secret = "hunter2");
            let _entered = span.enter();
            tracing::warn!(target: "aws_config", secret = "hunter2", "no region");
        };
        for verbosity in 0..=3 {
            for style in [TERMINAL, PIPE, LineStyle::Json] {
                let text = logged(style, verbosity, log);
                assert!(!text.contains("hunter2"), "{text}");
                assert_eq!(text.contains("no region"), verbosity > 0, "{text}");
            }
        }
    }
}
