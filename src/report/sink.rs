//! Where lines go: to the thread that writes, or into the buffer of `--quiet`.

use std::collections::VecDeque;
use std::io;

use tokio::sync::oneshot;

use super::logging::{LineStyle, earlier_lines_not_shown};
use super::outlet::{Outlet, Stream, Weight};

/// Lines that `--quiet` keeps for the case that the run fails, and their bytes.
const WITHHELD_MAX: usize = 1_000;
const WITHHELD_BYTES_MAX: usize = 1024 * 1024;

pub struct Sink {
    outlet: Outlet,
    style: LineStyle,
    /// `Some` with `--quiet`, until the run turns out to have failed.
    withheld: Option<Withheld>,
}

#[derive(Default)]
struct Withheld {
    lines: VecDeque<(Stream, Vec<u8>)>,
    bytes: usize,
    /// How many lines fell out.
    forgotten: usize,
}

impl Sink {
    pub fn new(outlet: Outlet, style: LineStyle, is_quiet: bool) -> Self {
        Self { outlet, style, withheld: is_quiet.then(Withheld::default) }
    }

    /// Whether lines are kept back now.
    pub fn is_quiet(&self) -> bool {
        self.withheld.is_some()
    }

    /// A line without its newline. With `--quiet` it is kept back.
    pub fn line(&mut self, stream: Stream, weight: Weight, line: &[u8]) {
        let line = [line, b"\n"].concat();
        match &mut self.withheld {
            Some(withheld) => withheld.keep(stream, line),
            None => self.outlet.line(stream, weight, line),
        }
    }

    /// A line that is printed whatever was asked for.
    pub fn notice(&self, line: &str) {
        self.outlet.line(Stream::Stderr, Weight::Verdict, format!("{line}\n").into_bytes());
    }

    /// Prints now, whatever was asked for: data is the product, not talk about it.
    pub fn data(&self, stream: Stream, bytes: Vec<u8>) -> oneshot::Receiver<io::Result<()>> {
        self.outlet.data(stream, bytes)
    }

    /// The run failed: what was kept back is shown after all, and what comes now is not kept back.
    pub fn release(&mut self) {
        let Some(withheld) = self.withheld.take() else { return };
        if withheld.forgotten > 0 {
            self.notice(&earlier_lines_not_shown(self.style, withheld.forgotten));
        }
        for (stream, line) in withheld.lines {
            self.outlet.line(stream, Weight::Verdict, line);
        }
    }

    pub fn outlet(&self) -> &Outlet {
        &self.outlet
    }
}

impl Withheld {
    fn keep(&mut self, stream: Stream, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back((stream, line));
        while self.lines.len() > WITHHELD_MAX || self.bytes > WITHHELD_BYTES_MAX {
            let Some((_, oldest)) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len();
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;
    use crate::report::outlet::Outputs;
    use crate::report::testing::Capture;

    fn sink_to(stdout: impl Write + Send + 'static, stderr: impl Write + Send + 'static, is_quiet: bool) -> Sink {
        let outputs = Outputs { stdout: Box::new(stdout), stderr: Box::new(stderr), are_one: true };
        let style = LineStyle::Terminal { color: false };
        Sink::new(Outlet::start(outputs, style).expect("a thread"), style, is_quiet)
    }

    fn sink(is_quiet: bool) -> (Sink, Capture, Capture) {
        let (stdout, stderr) = (Capture::default(), Capture::default());
        (sink_to(stdout.clone(), stderr.clone(), is_quiet), stdout, stderr)
    }

    fn drain(sink: &Sink) {
        sink.outlet().drain(Duration::from_secs(30), Duration::from_secs(30));
    }

    #[test]
    fn lines_go_where_they_belong() {
        let (mut sink, stdout, stderr) = sink(false);
        sink.line(Stream::Stdout, Weight::Log, b"data");
        sink.line(Stream::Stderr, Weight::Log, b"log");
        drain(&sink);
        assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("data\n", "log\n"));
    }

    #[test]
    fn quiet_shows_its_lines_only_after_a_failure() {
        let (mut sink, stdout, stderr) = sink(true);
        sink.line(Stream::Stdout, Weight::Log, b"child");
        sink.line(Stream::Stderr, Weight::Log, b"log");
        drain(&sink);
        assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("", ""));
        sink.release();
        sink.line(Stream::Stderr, Weight::Log, b"after");
        drain(&sink);
        assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("child\n", "log\nafter\n"));
    }

    #[test]
    fn quiet_keeps_the_last_thousand_lines() {
        let (mut sink, _, stderr) = sink(true);
        for number in 0..1_003 {
            sink.line(Stream::Stderr, Weight::Log, format!("line {number}").as_bytes());
        }
        sink.release();
        drain(&sink);
        let text = stderr.text();
        assert!(text.starts_with("mydumper2s3: warning: 3 earlier lines are not shown\nline 3\n"), "{text}");
        assert!(text.ends_with("line 1002\n"));
    }

    #[test]
    fn quiet_keeps_no_more_than_a_mebibyte() {
        let (mut sink, _, stderr) = sink(true);
        let line = vec![b'x'; 64 * 1024 - 1];
        (0..20).for_each(|_| sink.line(Stream::Stdout, Weight::Log, &line));
        sink.release();
        drain(&sink);
        assert_eq!(stderr.text(), "mydumper2s3: warning: 4 earlier lines are not shown\n");
    }

    #[test]
    fn data_is_never_kept_back() {
        let (sink, stdout, _) = sink(true);
        sink.data(Stream::Stdout, b"table\n".to_vec()).blocking_recv().expect("an answer").expect("written");
        assert_eq!(stdout.text(), "table\n");
    }

    #[test]
    fn a_closed_output_ends_nothing() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let stderr = Capture::default();
        let mut sink = sink_to(Closed, stderr.clone(), false);
        sink.line(Stream::Stdout, Weight::Log, b"x");
        sink.line(Stream::Stderr, Weight::Log, b"y");
        drain(&sink);
        assert_eq!(stderr.text(), "y\n");
    }
}
