//! Pausing mydumper, and seeing to it that it goes on whatever happens to us.
//!
//! It is stopped with SIGSTOP together with all that it started: its compressors would go on filling the disk. If we die
//! in between, nobody would ever wake it. A parent-death signal would reach mydumper alone and not its compressors, and
//! only if it is our child; so a helper, this same program, waits at the end of a pipe, is told each time who is stopped,
//! and wakes them when the pipe breaks.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;

use anyhow::Context;
use rustix::process::{Pid, Signal};

use super::Child;
use crate::platform::{self, ProcessHandle};

/// The first argument that makes this program the helper.
pub const HELPER_ARGUMENT: &str = "--wake-when-the-pipe-breaks";

/// Who is to be paused.
#[derive(Debug, Clone)]
pub enum Team {
    /// Our child and all of its process group.
    Child(Child),
    /// A process that something else started, and its descendants.
    Stranger(i32, Arc<ProcessHandle>),
}

impl Team {
    /// Whether we may send signals to it.
    pub fn is_signallable(&self) -> bool {
        match self {
            Self::Child(_) => true,
            Self::Stranger(pid, _) => {
                Pid::from_raw(*pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
            }
        }
    }

    fn has_ended(&self) -> bool {
        match self {
            Self::Child(child) => child.exit().is_some(),
            Self::Stranger(_, handle) => handle.has_ended(),
        }
    }

    /// The processes as they are now, the first one first; empty when it has ended.
    fn members(&self) -> Vec<i32> {
        if self.has_ended() {
            return Vec::new();
        }
        let first = match self {
            Self::Child(child) => child.pid(),
            Self::Stranger(pid, _) => *pid,
        };
        let mut members = vec![first];
        let mut known = HashSet::from([first]);
        let processes: Vec<(i32, i32)> =
            platform::processes().iter().filter_map(|process| Some((process.pid, process.parent()?))).collect();
        // Children of children: until a round finds nobody new.
        loop {
            let found: Vec<i32> = processes
                .iter()
                .filter(|(pid, parent)| known.contains(parent) && !known.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if found.is_empty() {
                return members;
            }
            known.extend(&found);
            members.extend(found);
        }
    }
}

/// The reins on a running mydumper. Dropped, they let it go on.
#[derive(Debug)]
pub struct Reins {
    team: Team,
    helper: std::process::Child,
    pipe: ChildStdin,
    stopped: Vec<i32>,
}

impl Reins {
    /// Takes the reins: starts the helper.
    pub fn take(team: Team) -> anyhow::Result<Self> {
        // By its path in /proc the program is the same even after an upgrade replaced the file.
        let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
        let mut helper = Command::new(program)
            .arg(HELPER_ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C or a signal to our group must not end it before us.
            .process_group(0)
            .spawn()
            .context("cannot start the helper that wakes mydumper if we die")?;
        let pipe = helper.stdin.take().context("the helper has no pipe")?;
        Ok(Self { team, helper, pipe, stopped: Vec::new() })
    }

    /// Stops mydumper and all that it started. Called again, it stops what was started meanwhile.
    pub fn pause(&mut self) {
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
    pub fn resume(&mut self) {
        for pid in self.stopped.drain(..).rev() {
            signal(pid, Signal::CONT);
        }
        let _ = writeln!(self.pipe).and_then(|()| self.pipe.flush());
    }
}

impl Drop for Reins {
    fn drop(&mut self) {
        self.resume();
        // It reads the end of the pipe when that is closed, after this; it has nobody to wake. Not waited for.
        let _ = self.helper.try_wait();
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended just now.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The helper's whole life: remembers who is stopped, and wakes them when the pipe breaks.
pub fn wake_when_the_pipe_breaks(pipe: impl Read) {
    let mut stopped = Vec::new();
    for line in BufReader::new(pipe).lines() {
        match line.as_deref().map(str::parse::<i32>) {
            Ok(Ok(pid)) => stopped.push(pid),
            // An empty line: all were woken.
            Ok(Err(_)) => stopped.clear(),
            Err(_) => break,
        }
    }
    for pid in stopped.into_iter().rev() {
        signal(pid, Signal::CONT);
    }
}
