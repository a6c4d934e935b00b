//! Pausing mydumper, and seeing to it that it goes on whatever happens to us.
//!
//! It is stopped with SIGSTOP together with all that it started: its compressors would go on filling the disk. If we die
//! in between, nobody would ever wake it. A parent-death signal would reach mydumper alone and not its compressors, and
//! only if it is our child; so a helper, this same program, waits at the end of a pipe, is told each time who is stopped,
//! and wakes them when the pipe breaks.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::ChildStdin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use tracing::info;

use super::child::Child;
use super::kinship::{ancestors, descendants};
use super::writer::Writer;
use crate::platform;
use crate::program::Helper;

/// The first argument that makes this program the helper; the second one is a number of seconds.
pub const HELPER_ARGUMENT: &str = "--wake-when-the-pipe-breaks";
/// How long after the longest pause the helper wakes mydumper by itself: we are stopped, or hang.
const MARGIN: Duration = Duration::from_secs(5);
/// How often, while it is paused, it is looked for what it started meanwhile; at most.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who is to be paused.
#[derive(Debug, Clone)]
pub enum Team {
    /// Our child and all that it started.
    Child(Child),
    /// A process that something else started, and its descendants.
    Stranger(Writer),
}

impl Team {
    /// Whether we may send signals to it.
    pub fn is_signallable(&self) -> bool {
        match self {
            Self::Child(_) => true,
            Self::Stranger(writer) => {
                let pid = Pid::from_raw(writer.process.pid);
                pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
            }
        }
    }

    /// The processes as they are now, the first one first; empty when it has ended.
    fn members(&self) -> Vec<i32> {
        let first = match self {
            Self::Child(child) if child.is_over() => return Vec::new(),
            Self::Child(child) => return child.family(),
            Self::Stranger(writer) if writer.has_ended() => return Vec::new(),
            Self::Stranger(writer) => writer.process.pid,
        };
        let ours = rustix::process::getpid().as_raw_nonzero().get();
        let all = platform::kinships();
        // Never ourselves, nor who started us, nor our helper: nobody would wake them.
        let mut spared = descendants(&all, ours);
        spared.extend(ancestors(ours));
        let team = descendants(&all, first).into_iter();
        team.filter(|pid| !spared.contains(pid)).collect()
    }
}

/// The reins on a running mydumper. Dropped, they let it go on.
///
/// A thread of their own holds them: to find out who is to be stopped goes through all of `/proc`.
#[derive(Debug)]
pub struct Reins {
    shared: Arc<Shared>,
    helper: std::process::Child,
}

#[derive(Debug)]
struct Shared {
    order: Mutex<Order>,
    changed: Condvar,
}

/// The last order.
#[derive(Debug)]
struct Order {
    wish: Wish,
    /// What is said when it is carried out.
    words: String,
    carried_out: Option<Instant>,
}

/// What mydumper is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Rest,
    /// Run, and nobody holds the reins any more.
    End,
}

impl Reins {
    /// Takes the reins: starts the helper. No pause will be longer than `longest`.
    pub fn take(team: Team, longest: Duration) -> anyhow::Result<Self> {
        let longest = (longest + MARGIN).as_secs().to_string();
        let helper = Helper::start([HELPER_ARGUMENT, &longest]);
        let Helper { process: helper, pipe } =
            helper.context("cannot start the helper that wakes mydumper if we die")?;
        let order = Order { wish: Wish::Run, words: String::new(), carried_out: Some(Instant::now()) };
        let shared = Arc::new(Shared { order: Mutex::new(order), changed: Condvar::new() });
        let hands = Hands { team, pipe, stopped: Vec::new() };
        let told = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("reins".to_owned());
        thread.spawn(move || hands.follow(&told)).context("cannot start the thread that pauses mydumper")?;
        Ok(Self { shared, helper })
    }

    /// Stops mydumper and all that it started, and what is started meanwhile. The words are said when that is done.
    pub fn pause(&self, words: String) {
        self.order(Wish::Rest, words);
    }

    /// Lets all go on that were stopped.
    pub fn resume(&self, words: String) {
        self.order(Wish::Run, words);
    }

    /// When the last order was carried out, if it is.
    pub fn carried_out(&self) -> Option<Instant> {
        self.shared.order().carried_out
    }

    fn order(&self, wish: Wish, words: String) {
        *self.shared.order() = Order { wish, words, carried_out: None };
        self.shared.changed.notify_one();
    }
}

impl Drop for Reins {
    fn drop(&mut self) {
        // If we end before the thread has done it, the pipe breaks, and the helper does.
        self.order(Wish::End, String::new());
        // It reads the end of the pipe when that is closed, after this; it has nobody to wake. Not waited for.
        let _ = self.helper.try_wait();
    }
}

impl Shared {
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock()
    }

    /// Waits for an order that is not carried out; or, for as long as that, for none.
    fn next(&self, longest: Option<Duration>) -> (Wish, String) {
        let mut order = self.order();
        let is_done = |order: &mut Order| order.carried_out.is_some();
        match longest {
            Some(longest) => drop(self.changed.wait_while_for(&mut order, is_done, longest)),
            None => self.changed.wait_while(&mut order, is_done),
        }
        (order.wish, std::mem::take(&mut order.words))
    }

    /// Unless another has come meanwhile.
    fn is_carried_out(&self, wish: Wish) {
        let mut order = self.order();
        if order.wish == wish {
            order.carried_out.get_or_insert_with(Instant::now);
        }
    }
}

/// What holds the reins.
struct Hands {
    team: Team,
    pipe: ChildStdin,
    stopped: Vec<i32>,
}

impl Hands {
    fn follow(mut self, shared: &Shared) {
        let mut longest = None;
        loop {
            let (wish, words) = shared.next(longest);
            let begun = Instant::now();
            if wish == Wish::Rest {
                self.pause()
            } else {
                self.resume()
            }
            if !words.is_empty() {
                info!("{words}");
            }
            shared.is_carried_out(wish);
            if wish == Wish::End {
                return;
            }
            // Where there are very many processes, a tenth of a processor at most goes into looking at them.
            longest = (wish == Wish::Rest).then(|| LOOK_EVERY.max(begun.elapsed() * 9));
        }
    }

    /// Stops mydumper and all that it started. Called again, it stops what was started meanwhile.
    fn pause(&mut self) {
        for pid in self.team.members() {
            if self.stopped.contains(&pid) {
                continue;
            }
            // The helper knows before it happens; a wake-up too many does no harm.
            if writeln!(self.pipe, "{pid}").and_then(|()| self.pipe.flush()).is_err() {
                return;
            }
            signal(pid, Signal::STOP);
            self.stopped.push(pid);
        }
    }

    /// Lets all go on that were stopped: the compressors first, who have something to write out.
    fn resume(&mut self) {
        for pid in self.stopped.drain(..).rev() {
            signal(pid, Signal::CONT);
        }
        let _ = writeln!(self.pipe).and_then(|()| self.pipe.flush());
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended just now.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The helper's whole life: remembers who is stopped, and wakes them when the pipe breaks, or when a pause lasts longer
/// than `longest`: then we are stopped ourselves.
pub fn wake_when_the_pipe_breaks(mut pipe: impl Read + AsFd, longest: Option<Duration>) {
    let mut stopped = Stopped::default();
    let mut bytes = [0; 4096];
    loop {
        let wake_at = stopped.since.zip(longest).map(|(since, longest)| since + longest);
        if !is_readable(pipe.as_fd(), wake_at) {
            stopped.wake();
            continue;
        }
        match pipe.read(&mut bytes) {
            Ok(length) if length > 0 => stopped.take(&bytes[..length], Instant::now()),
            _ => break,
        }
    }
    stopped.wake();
}

/// Waits until there is something to read, or the end of it; false when the time came first.
fn is_readable(pipe: impl AsFd, until: Option<Instant>) -> bool {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], left.as_ref());
    // Interrupted, or whatever else: the reading will tell.
    ready != Ok(0)
}

/// Who is stopped, as the helper knows it.
#[derive(Default)]
struct Stopped {
    pids: Vec<i32>,
    since: Option<Instant>,
    /// The start of a line that has not come to its end.
    line: Vec<u8>,
}

impl Stopped {
    /// Each line is the number of a process that is about to be stopped, or empty: all were woken.
    fn take(&mut self, bytes: &[u8], now: Instant) {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            match std::str::from_utf8(&self.line).ok().and_then(|line| line.parse().ok()) {
                Some(pid) => {
                    self.pids.push(pid);
                    self.since.get_or_insert(now);
                }
                None => (self.pids, self.since) = (Vec::new(), None),
            }
            self.line.clear();
        }
    }

    fn wake(&mut self) {
        for pid in self.pids.drain(..).rev() {
            signal(pid, Signal::CONT);
        }
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_helper_knows_who_is_stopped_and_since_when() {
        let (first, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let mut stopped = Stopped::default();
        stopped.take(b"12\n3", first);
        stopped.take(b"4\n", later);
        assert_eq!((&stopped.pids[..], stopped.since), (&[12, 34][..], Some(first)));
        stopped.take(b"\n", later);
        assert_eq!((&stopped.pids[..], stopped.since), (&[][..], None));
        stopped.take(b"5\n", later);
        assert_eq!(stopped.since, Some(later));
    }

    #[test]
    fn a_pause_that_lasts_too_long_is_ended_by_the_helper() {
        // A process that nobody but the helper will wake.
        let mut sleeper = Command::new("sleep").arg("60").spawn().expect("a process");
        let pid = i32::try_from(sleeper.id()).expect("its number");
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").map_or(' ', |(_, rest)| rest.chars().next().unwrap_or(' '))
        };
        let wait_for = |what: &str, wanted: fn(char) -> bool| {
            let patience = Instant::now() + Duration::from_secs(30);
            while !wanted(state()) {
                assert!(Instant::now() < patience, "{what}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        signal(pid, Signal::STOP);
        wait_for("it is stopped", |state| state == 'T');
        let (reads, writes) = std::os::unix::net::UnixStream::pair().expect("a pipe");
        let helper = std::thread::spawn(|| wake_when_the_pipe_breaks(reads, Some(Duration::from_millis(100))));
        writeln!(&writes, "{pid}").expect("written");
        wait_for("it goes on", |state| state != 'T');
        drop(writes);
        helper.join().expect("the helper ends with the pipe");
        sleeper.kill().expect("killed");
        sleeper.wait().expect("reaped");
    }
}
