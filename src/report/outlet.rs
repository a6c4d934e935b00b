//! The one place that writes: threads behind bounded queues. A pager that is stopped, or a pipe that nobody reads, keeps
//! such a thread and nobody else.
//!
//! When the queue is full, log lines are left away until it is empty again, and then their number is said. Data never
//! is: who has some waits until it is written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::live_line::LiveLine;
use super::logging::{LineStyle, lines_not_shown};

/// Lines that wait to be written, at most.
const LINES_MAX: usize = 4_096;
/// What they may hold in memory, in bytes.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long to wait where another process has made a terminal that it shares with us non-blocking.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What becomes of a line that finds the queue full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It is left away, and counted.
    Log,
    /// It has as much room again: how a run ended is said even to a reader who comes back late.
    Verdict,
}

/// stdout and stderr, or what stands for them in a test.
pub struct Outputs {
    pub stdout: Box<dyn Write + Send>,
    pub stderr: Box<dyn Write + Send>,
    /// Whether they are one terminal or file, where the order of what is written to them matters.
    pub are_one: bool,
}

impl Outputs {
    /// The program's own. Without a buffer: a line is one `write`, so no other process gets in between.
    pub fn of_the_program() -> io::Result<Self> {
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let (one, other) = (stdout.metadata()?, stderr.metadata()?);
        let are_one = (one.dev(), one.ino()) == (other.dev(), other.ino());
        Ok(Self { stdout: Box::new(stdout), stderr: Box::new(stderr), are_one })
    }
}

/// All output: clones are the same one. stdout and stderr have a thread each, so that who reads one of them does not wait
/// for who does not read the other; unless they are one.
#[derive(Clone)]
pub struct Outlet {
    stdout: Queued,
    stderr: Queued,
}

impl Outlet {
    /// Starts the threads.
    pub fn start(outputs: Outputs, style: LineStyle) -> io::Result<Self> {
        let Outputs { stdout, stderr, are_one } = outputs;
        if are_one {
            let both = Queued::start(stdout, stderr, Stream::Stderr, style)?;
            return Ok(Self { stdout: both.clone(), stderr: both });
        }
        Ok(Self {
            stdout: Queued::start(stdout, Box::new(io::sink()), Stream::Stdout, style)?,
            stderr: Queued::start(Box::new(io::sink()), stderr, Stream::Stderr, style)?,
        })
    }

    fn of(&self, stream: Stream) -> &Queued {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    /// A line with its newline. Never waits.
    pub fn line(&self, stream: Stream, weight: Weight, bytes: Vec<u8>) {
        self.of(stream).line(stream, weight, bytes);
    }

    /// Data, and what tells when it is written. Never waits by itself.
    pub fn data(&self, stream: Stream, bytes: Vec<u8>) -> oneshot::Receiver<io::Result<()>> {
        self.of(stream).data(stream, bytes)
    }

    /// What stands on the terminal's last line from now on.
    pub fn show_live(&self, line: Option<String>) {
        self.stderr.show_live(line);
    }

    /// Waits until all is written; no longer than `limit`, and no longer than `patience` for somebody who does not read.
    pub fn drain(&self, patience: Duration, limit: Duration) {
        self.stderr.drain(patience, limit);
        self.stdout.drain(patience, limit);
    }
}

/// A thread that writes, and its queue; clones are the same one.
#[derive(Clone)]
struct Queued(Arc<Shared>);

struct Shared {
    style: LineStyle,
    /// Where it is said that lines were not shown.
    home: Stream,
    // A std mutex: it is held for one line, never across a write.
    queue: Mutex<Queue>,
    /// There is something to write.
    more: Condvar,
    /// Something was written, or all is.
    less: Condvar,
    /// Bytes written since the start: whether somebody reads.
    written: AtomicU64,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// How many of the pieces are lines, and their bytes. Data counts nothing: its sender waits for it.
    lines: usize,
    bytes: usize,
    /// Lines that found no place since the queue was last empty. As long as there are any, none is taken.
    not_shown: usize,
    live: Option<LiveLine>,
    /// Whether a live line stands on the terminal.
    is_drawn: bool,
    is_writing: bool,
    is_closed: bool,
}

struct Piece {
    stream: Stream,
    bytes: Vec<u8>,
    /// Who waits for it; only data is waited for.
    done: Option<oneshot::Sender<io::Result<()>>>,
}

/// What the thread does next.
enum Work {
    Write(Piece),
    Draw(Vec<u8>),
    End,
}

impl Queued {
    /// Starts the thread.
    fn start(
        stdout: Box<dyn Write + Send>,
        stderr: Box<dyn Write + Send>,
        home: Stream,
        style: LineStyle,
    ) -> io::Result<Self> {
        let outlet = Self(Arc::new(Shared {
            style,
            home,
            queue: Mutex::default(),
            more: Condvar::new(),
            less: Condvar::new(),
            written: AtomicU64::new(0),
        }));
        let mut writer = Writer { shared: Arc::clone(&outlet.0), stdout, stderr };
        std::thread::Builder::new().name(WRITER.to_owned()).spawn(move || {
            // The panic itself is said by the hook; what it broke off is lost, and the rest is still written.
            while std::panic::catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {}
        })?;
        Ok(outlet)
    }

    fn line(&self, stream: Stream, weight: Weight, bytes: Vec<u8>) {
        let mut queue = self.0.queue();
        let is_log = weight == Weight::Log;
        let room = if is_log { 1 } else { 2 };
        let is_full = queue.lines >= room * LINES_MAX || queue.bytes + bytes.len() > room * BYTES_MAX;
        if is_full || (is_log && queue.not_shown > 0) {
            queue.not_shown += 1;
            return;
        }
        if queue.not_shown > 0 {
            self.0.say_what_is_not_shown(&mut queue);
        }
        queue.push(stream, bytes);
        self.0.more.notify_one();
    }

    fn data(&self, stream: Stream, bytes: Vec<u8>) -> oneshot::Receiver<io::Result<()>> {
        let (done, is_done) = oneshot::channel();
        self.0.queue().pieces.push_back(Piece { stream, bytes, done: Some(done) });
        self.0.more.notify_one();
        is_done
    }

    fn show_live(&self, line: Option<String>) {
        let mut queue = self.0.queue();
        match (line, &mut queue.live) {
            // It is seen with the next frame.
            (Some(line), Some(live)) => live.set(line),
            (line, live) => {
                *live = line.map(LiveLine::new);
                self.0.more.notify_one();
            }
        }
    }

    fn drain(&self, patience: Duration, limit: Duration) {
        let deadline = Instant::now() + limit;
        let written = || self.0.written.load(Ordering::Relaxed);
        let (mut seen, mut seen_at) = (written(), Instant::now());
        let mut queue = self.0.queue();
        while !queue.is_idle() {
            let now = Instant::now();
            if written() != seen {
                (seen, seen_at) = (written(), now);
            }
            let wait = (seen_at + patience).min(deadline).saturating_duration_since(now);
            if wait.is_zero() {
                return;
            }
            self.0.less.wait_for(&mut queue, wait);
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        // The writer's own and this one: then nobody is left who could say something.
        if Arc::strong_count(&self.0) <= 2 {
            self.0.queue().is_closed = true;
            self.0.more.notify_one();
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    fn say_what_is_not_shown(&self, queue: &mut Queue) {
        let note = lines_not_shown(self.style, std::mem::take(&mut queue.not_shown));
        queue.push(self.home, note.into_bytes());
    }
}

impl Queue {
    fn push(&mut self, stream: Stream, bytes: Vec<u8>) {
        self.lines += 1;
        self.bytes += bytes.len();
        self.pieces.push_back(Piece { stream, bytes, done: None });
    }

    fn is_idle(&self) -> bool {
        let is_line_gone = self.live.is_none() && !self.is_drawn;
        self.pieces.is_empty() && self.not_shown == 0 && !self.is_writing && is_line_gone
    }
}

/// The name of the writer's thread.
pub const WRITER: &str = "output";

struct Writer {
    shared: Arc<Shared>,
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
}

impl Writer {
    fn run(&mut self) {
        loop {
            match self.next() {
                Work::Write(piece) => self.write(piece),
                Work::Draw(bytes) => drop(self.put(Stream::Stderr, &bytes)),
                Work::End => return,
            }
        }
    }

    /// Waits for something to do. What was taken last is done.
    fn next(&self) -> Work {
        let mut queue = self.shared.queue();
        queue.is_writing = false;
        loop {
            self.shared.less.notify_all();
            if let Some(work) = self.take(&mut queue) {
                queue.is_writing = true;
                return work;
            }
            match queue.live.as_ref().map(LiveLine::until_next_frame) {
                Some(wait) => drop(self.shared.more.wait_for(&mut queue, wait)),
                None => self.shared.more.wait(&mut queue),
            }
        }
    }

    fn take(&self, queue: &mut Queue) -> Option<Work> {
        if queue.pieces.is_empty() && queue.not_shown > 0 {
            self.shared.say_what_is_not_shown(queue);
        }
        if let Some(next) = queue.pieces.front_mut() {
            if std::mem::take(&mut queue.is_drawn) {
                // The live line makes place for what is to stand above it, in the same `write` where that can be.
                queue.live.iter_mut().for_each(LiveLine::redraw);
                if next.stream == Stream::Stdout {
                    return Some(Work::Draw(LiveLine::CLEAR.to_vec()));
                }
                if next.done.is_none() {
                    queue.bytes += LiveLine::CLEAR.len();
                }
                next.bytes.splice(0..0, LiveLine::CLEAR.iter().copied());
            }
            let piece = queue.pieces.pop_front()?;
            if piece.done.is_none() {
                queue.lines -= 1;
                queue.bytes -= piece.bytes.len();
            }
            return Some(Work::Write(piece));
        }
        if queue.live.is_none() && std::mem::take(&mut queue.is_drawn) {
            return Some(Work::Draw(LiveLine::CLEAR.to_vec()));
        }
        let frame = queue.live.as_mut().and_then(LiveLine::frame_if_due);
        if let Some(frame) = frame {
            queue.is_drawn = true;
            return Some(Work::Draw(frame));
        }
        queue.is_closed.then_some(Work::End)
    }

    fn write(&mut self, piece: Piece) {
        let Piece { stream, bytes, done } = piece;
        let written = self.put(stream, &bytes);
        // A line that cannot be written has no reader; that ends nothing. Whoever waits for data is told.
        if let Some(done) = done {
            let _ = done.send(written);
        }
    }

    fn put(&mut self, stream: Stream, mut bytes: &[u8]) -> io::Result<()> {
        let output = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        while !bytes.is_empty() {
            match output.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    self.shared.written.fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(TRY_AGAIN_AFTER),
                Err(error) => return Err(error),
            }
        }
        output.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::report::testing::Capture;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A reader who takes nothing before it is let go.
    struct Stuck {
        goes_on: Receiver<()>,
        is_stuck: Sender<()>,
        to: Capture,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Nobody listens any more once it was let go.
            let _ = self.is_stuck.send(());
            let _ = self.goes_on.recv();
            self.to.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An outlet whose stderr takes nothing until the sender is dropped, and what it took then.
    fn stuck(style: LineStyle) -> (Outlet, Sender<()>, Capture) {
        let (let_go, goes_on) = channel();
        let (is_stuck, waits) = channel();
        let to = Capture::default();
        let stderr = Box::new(Stuck { goes_on, is_stuck, to: to.clone() });
        let outlet = Outlet::start(Outputs { stdout: Box::new(Capture::default()), stderr, are_one: true }, style)
            .expect("a thread");
        outlet.line(Stream::Stderr, Weight::Log, b"first\n".to_vec());
        waits.recv_timeout(PATIENCE).expect("a writer that waits");
        (outlet, let_go, to)
    }

    fn outlet(stdout: impl Write + Send + 'static) -> (Outlet, Capture) {
        let stderr = Capture::default();
        let outputs = Outputs { stdout: Box::new(stdout), stderr: Box::new(stderr.clone()), are_one: true };
        (Outlet::start(outputs, LineStyle::Plain).expect("a thread"), stderr)
    }

    #[test]
    fn what_finds_the_queue_full_is_counted_and_said_when_it_drains() {
        let (outlet, let_go, to) = stuck(LineStyle::Terminal { color: false });
        (0..LINES_MAX + 3).for_each(|_| outlet.line(Stream::Stderr, Weight::Log, b"line\n".to_vec()));
        drop(let_go);
        outlet.drain(PATIENCE, PATIENCE);
        outlet.line(Stream::Stderr, Weight::Log, b"after\n".to_vec());
        outlet.drain(PATIENCE, PATIENCE);
        let text = to.text();
        assert_eq!(text.matches("line\n").count(), LINES_MAX);
        let end =
            "line\nmydumper2s3: warning: 3 lines were not shown: nobody read what was written before them\nafter\n";
        assert!(text.ends_with(end), "{}", &text[text.len() - 200..]);
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_too() {
        let (outlet, let_go, to) = stuck(LineStyle::Plain);
        let long = vec![b'x'; BYTES_MAX / 4];
        (0..6).for_each(|_| outlet.line(Stream::Stderr, Weight::Log, long.clone()));
        drop(let_go);
        outlet.drain(PATIENCE, PATIENCE);
        let text = to.text();
        assert_eq!(text.matches('x').count(), BYTES_MAX);
        assert!(text.ends_with("2 lines were not shown: nobody read what was written before them\n"));
    }

    #[test]
    fn a_verdict_has_room_where_log_lines_have_none() {
        let (outlet, let_go, to) = stuck(LineStyle::Plain);
        (0..=LINES_MAX).for_each(|_| outlet.line(Stream::Stderr, Weight::Log, b"line\n".to_vec()));
        outlet.line(Stream::Stderr, Weight::Verdict, b"failed\n".to_vec());
        drop(let_go);
        outlet.drain(PATIENCE, PATIENCE);
        let text = to.text();
        assert!(text.ends_with("1 line was not shown: nobody read what was written before it\nfailed\n"), "{text}");
    }

    #[test]
    fn a_json_log_stays_json() {
        let (outlet, let_go, to) = stuck(LineStyle::Json);
        (0..=LINES_MAX).for_each(|_| outlet.line(Stream::Stderr, Weight::Log, b"{}\n".to_vec()));
        drop(let_go);
        outlet.drain(PATIENCE, PATIENCE);
        let text = to.text();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("an object");
        assert_eq!(last["level"], "WARN");
    }

    /// "Exit never hangs on a reader that is gone": nor on one that is there and does not read.
    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read() {
        let (outlet, _held, to) = stuck(LineStyle::Plain);
        outlet.drain(Duration::from_millis(1), PATIENCE);
        assert_eq!(to.text(), "");
    }

    #[test]
    fn who_reads_stdout_does_not_wait_for_who_does_not_read_stderr() {
        let (let_go, goes_on) = channel();
        let (is_stuck, _waits) = channel();
        let stderr = Box::new(Stuck { goes_on, is_stuck, to: Capture::default() });
        let stdout = Capture::default();
        let outputs = Outputs { stdout: Box::new(stdout.clone()), stderr, are_one: false };
        let outlet = Outlet::start(outputs, LineStyle::Plain).expect("threads");
        outlet.line(Stream::Stderr, Weight::Log, b"line\n".to_vec());
        outlet.data(Stream::Stdout, b"data\n".to_vec()).blocking_recv().expect("an answer").expect("written");
        assert_eq!(stdout.text(), "data\n");
        drop(let_go);
    }

    #[test]
    fn data_is_written_or_its_sender_told_why_not() {
        let (one, _) = outlet(Capture::default());
        one.data(Stream::Stdout, b"x".to_vec()).blocking_recv().expect("an answer").expect("written");
        let full = File::options().write(true).open("/dev/full").expect("a device that is full");
        let (other, _) = outlet(full);
        let error = other.data(Stream::Stdout, b"x".to_vec()).blocking_recv().expect("an answer");
        assert_eq!(error.expect_err("no space").kind(), ErrorKind::StorageFull);
    }

    #[test]
    fn a_panic_of_the_writer_is_told_to_who_waits_and_ends_nothing() {
        struct Panics;
        impl Write for Panics {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                panic!("on purpose");
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (outlet, stderr) = outlet(Panics);
        outlet.data(Stream::Stdout, b"x".to_vec()).blocking_recv().expect_err("it was not written");
        outlet.line(Stream::Stderr, Weight::Log, b"after\n".to_vec());
        outlet.drain(PATIENCE, PATIENCE);
        assert_eq!(stderr.text(), "after\n");
    }

    #[test]
    fn lines_stand_above_the_live_line() {
        let (outlet, stderr) = outlet(Capture::default());
        outlet.show_live(Some("uploading".to_owned()));
        while !stderr.text().contains("uploading") {
            std::thread::yield_now();
        }
        outlet.line(Stream::Stderr, Weight::Log, b"a line\n".to_vec());
        outlet.show_live(None);
        outlet.drain(PATIENCE, PATIENCE);
        let text = stderr.text();
        assert!(text.contains("uploading\x1b[K\r\x1b[2Ka line\n"), "{text:?}");
        assert!(text.ends_with("\n") || text.ends_with("\r\x1b[2K"), "{text:?}");
    }
}
