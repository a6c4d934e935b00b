//! A program that runs, what it says, and how it ended.

use std::fmt::{Debug, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::sandbox::{PATIENCE, POLL};

/// A program that runs. It is killed when this is dropped.
pub struct Run {
    pub(super) title: String,
    pub(super) child: Child,
    pub(super) output: Arc<Output>,
    pub(super) readers: Vec<JoinHandle<()>>,
    pub(super) deadline: Instant,
    pub(super) time_limit: Duration,
}

impl Run {
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("a signal to a running program");
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(mut self) -> Finished {
        self.child.kill().expect("SIGKILL to a running program");
        self.finish()
    }

    /// Waits for a line, on stdout or stderr, that has `needle` in it, and returns it whole. Lines that
    /// came before the call count.
    #[track_caller]
    pub fn wait_for_line(&mut self, needle: &str) -> String {
        let patience = (Instant::now() + PATIENCE).min(self.deadline);
        loop {
            // Asked before the lines are searched: so all that it said before its end is found.
            let ended = !self.is_running();
            if ended {
                self.read_the_rest();
            }
            if let Some(line) = self.output.wait_for(needle, POLL * 10) {
                return line;
            }
            let why = match ended {
                true => "it ended without saying",
                false if Instant::now() > patience => "it did not say in time",
                false => continue,
            };
            panic!("{why} '{needle}': {}", self.all_output());
        }
    }

    /// Everything it said so far.
    pub fn text_so_far(&self) -> String {
        self.output.text(|_| true)
    }

    /// Waits for its end. Past its time limit it is killed, and the test fails showing what it said.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let status = loop {
            match self.child.try_wait().expect("its status") {
                Some(status) => break status,
                None if Instant::now() > self.deadline => {
                    panic!("still running after {:?}: {}", self.time_limit, self.all_output())
                }
                None => std::thread::sleep(POLL),
            }
        };
        self.read_the_rest();
        Finished {
            title: self.title.clone(),
            status,
            stdout: self.output.text(|stream| stream == Stream::Stdout),
            stderr: self.output.text(|stream| stream == Stream::Stderr),
        }
    }

    /// Takes in what an ended program left in the pipes.
    fn read_the_rest(&mut self) {
        self.output.program_ended.store(true, Ordering::Release);
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of its output");
        }
    }

    fn all_output(&self) -> String {
        format!("{}\n{}", self.title, self.text_so_far())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Both fail when it has ended already, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that has ended.
pub struct Finished {
    title: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Stdout and then stderr.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn assert_status(self, expected: i32) -> Self {
        assert!(self.status.code() == Some(expected), "expected status {expected}:\n{self:?}");
        self
    }

    #[track_caller]
    pub fn assert_killed_by(self, signal: Signal) -> Self {
        assert!(self.status.signal() == Some(signal.as_raw()), "expected {signal:?}:\n{self:?}");
        self
    }

    #[track_caller]
    pub fn assert_says(self, needle: &str) -> Self {
        assert!(self.text().contains(needle), "expected the words '{needle}':\n{self:?}");
        self
    }

    #[track_caller]
    pub fn assert_does_not_say(self, needle: &str) -> Self {
        assert!(!self.text().contains(needle), "did not expect the words '{needle}':\n{self:?}");
        self
    }
}

impl Debug for Finished {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(to, "{}\n{}", self.title, self.status)?;
        writeln!(to, "--- stdout\n{}--- stderr\n{}---", self.stdout, self.stderr)
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What a program has said so far, line by line in the order of arrival.
#[derive(Default)]
pub(super) struct Output {
    lines: Mutex<Vec<(Stream, String)>>,
    more: Condvar,
    /// Set by the program's end: then its readers stop as soon as there is nothing more in the pipes. The
    /// pipes' own end may be far, where a child of the program outlives it.
    program_ended: AtomicBool,
}

impl Output {
    pub(super) fn follow(output: &Arc<Self>, stream: Stream, pipe: OwnedFd) -> JoinHandle<()> {
        let output = Arc::clone(output);
        std::thread::spawn(move || {
            let mut unfinished = Vec::new();
            while let Some(bytes) = output.next_piece(&pipe) {
                unfinished.extend(bytes);
                while let Some(end) = unfinished.iter().position(|&byte| byte == b'\n') {
                    output.push(stream, &unfinished.drain(..=end).collect::<Vec<u8>>()[..end]);
                }
            }
            if !unfinished.is_empty() {
                output.push(stream, &unfinished);
            }
        })
    }

    /// What comes next out of the pipe; nothing when all is read.
    fn next_piece(&self, pipe: &OwnedFd) -> Option<Vec<u8>> {
        let soon = Timespec::try_from(POLL).expect("a short time");
        loop {
            let ended = self.program_ended.load(Ordering::Acquire);
            let ready = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&soon));
            match ready.expect("a poll of a pipe") {
                0 if ended => return None,
                0 => {}
                _ => break,
            }
        }
        let mut bytes = vec![0; 16 * 1024];
        let count = match rustix::io::read(pipe, &mut bytes) {
            // A terminal that nobody has open any more.
            Err(Errno::IO) => 0,
            count => count.expect("a read from a pipe"),
        };
        bytes.truncate(count);
        (count > 0).then_some(bytes)
    }

    fn push(&self, stream: Stream, line: &[u8]) {
        self.lines().push((stream, String::from_utf8_lossy(line).into_owned()));
        self.more.notify_all();
    }

    fn lines(&self) -> MutexGuard<'_, Vec<(Stream, String)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, needle: &str, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut lines = self.lines();
        loop {
            if let Some((_, line)) = lines.iter().find(|(_, line)| line.contains(needle)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            lines = self.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn text(&self, wanted: impl Fn(Stream) -> bool) -> String {
        let mut text = String::new();
        for (_, line) in self.lines().iter().filter(|(stream, _)| wanted(*stream)) {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// What a person would sit at.
pub(super) struct Terminal {
    pub(super) outside: OwnedFd,
}

impl Terminal {
    pub(super) fn open() -> Self {
        let outside = openpt(Self::FLAGS).expect("a terminal");
        unlockpt(&outside).expect("a terminal that can be used");
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&outside, size).expect("its size");
        Terminal { outside }
    }

    /// The side of the program.
    pub(super) fn inside(&self) -> OwnedFd {
        ioctl_tiocgptpeer(&self.outside, Self::FLAGS).expect("the other side of a terminal")
    }

    /// Not our controlling terminal; and other children must not inherit it, or it would never end.
    const FLAGS: OpenptFlags = OpenptFlags::RDWR.union(OpenptFlags::NOCTTY).union(OpenptFlags::CLOEXEC);
}
