//! Where lines go: above the live line, into the buffer of `--quiet`, or straight out.
//!
//! Nothing here fails: a closed stdout or stderr must not end an upload.

use std::collections::VecDeque;
use std::io::Write;

use indicatif::ProgressBar;

/// Lines that `--quiet` keeps for the case that the run fails.
const WITHHELD_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

pub struct Sink {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    /// `Some` with `--quiet`, until the run turns out to have failed.
    withheld: Option<VecDeque<(Stream, Vec<u8>)>>,
    /// How many lines fell out of `withheld`.
    forgotten: usize,
    /// What is drawn on the terminal's last line.
    live: Option<ProgressBar>,
}

impl Sink {
    /// Whether lines are kept back now.
    pub fn is_quiet(&self) -> bool {
        self.withheld.is_some()
    }

    pub fn new(stdout: Box<dyn Write + Send>, stderr: Box<dyn Write + Send>, is_quiet: bool) -> Self {
        Self { stdout, stderr, withheld: is_quiet.then(VecDeque::new), forgotten: 0, live: None }
    }

    /// A line without its newline. With `--quiet` it is kept back.
    pub fn line(&mut self, stream: Stream, line: &[u8]) {
        let line = [line, b"\n"].concat();
        let Some(withheld) = &mut self.withheld else { return self.print(stream, &line) };
        if withheld.len() == WITHHELD_MAX {
            withheld.pop_front();
            self.forgotten += 1;
        }
        withheld.push_back((stream, line));
    }

    /// Prints now, whatever was asked for: data is the product, not talk about it.
    ///
    /// One write: so lines of other processes do not get in between.
    pub fn print(&mut self, stream: Stream, bytes: &[u8]) {
        let writer = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut write = || drop(writer.write_all(bytes).and_then(|()| writer.flush()));
        match &self.live {
            Some(live) => live.suspend(write),
            None => write(),
        }
    }

    /// The run failed: what was kept back is shown after all, and what comes now is not kept back.
    pub fn release(&mut self) {
        let Some(withheld) = self.withheld.take() else { return };
        if self.forgotten > 0 {
            let note = format!("mydumper2s3: {} earlier lines are not shown", self.forgotten);
            self.line(Stream::Stderr, note.as_bytes());
        }
        for (stream, line) in withheld {
            self.print(stream, &line);
        }
    }

    pub fn live(&self) -> Option<&ProgressBar> {
        self.live.as_ref()
    }

    /// There is one last line, so a new bar takes the place of the old one.
    pub fn set_live(&mut self, live: Option<ProgressBar>) {
        if let Some(old) = self.live.take() {
            old.finish_and_clear();
        }
        self.live = live;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::Capture;

    fn sink(is_quiet: bool) -> (Sink, Capture, Capture) {
        let (stdout, stderr) = (Capture::default(), Capture::default());
        (Sink::new(Box::new(stdout.clone()), Box::new(stderr.clone()), is_quiet), stdout, stderr)
    }

    #[test]
    fn lines_go_where_they_belong() {
        let (mut sink, stdout, stderr) = sink(false);
        sink.line(Stream::Stdout, b"data");
        sink.line(Stream::Stderr, b"log");
        assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("data\n", "log\n"));
    }

    #[test]
    fn quiet_shows_its_lines_only_after_a_failure() {
        let (mut sink, stdout, stderr) = sink(true);
        sink.line(Stream::Stdout, b"child");
        sink.line(Stream::Stderr, b"log");
        assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("", ""));
        sink.release();
        sink.line(Stream::Stderr, b"after");
        assert_eq!((stdout.text().as_str(), stderr.text().as_str()), ("child\n", "log\nafter\n"));
    }

    #[test]
    fn quiet_keeps_the_last_thousand_lines() {
        let (mut sink, _, stderr) = sink(true);
        for number in 0..1_003 {
            sink.line(Stream::Stderr, format!("line {number}").as_bytes());
        }
        sink.release();
        let text = stderr.text();
        assert!(text.starts_with("mydumper2s3: 3 earlier lines are not shown\nline 3\n"), "{text}");
        assert!(text.ends_with("line 1002\n"));
    }

    #[test]
    fn data_is_never_kept_back() {
        let (mut sink, stdout, _) = sink(true);
        sink.print(Stream::Stdout, b"table\n");
        assert_eq!(stdout.text(), "table\n");
    }

    #[test]
    fn a_closed_output_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        }
        Sink::new(Box::new(Closed), Box::new(Closed), false).line(Stream::Stdout, b"x");
    }
}
