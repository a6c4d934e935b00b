//! mydumper as our child: its own process group, no standard input, and never left behind.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use rustix::process::{Pid, Signal};
use tokio::process::Command;
use tokio::sync::watch;

use crate::platform::Exit;

/// What to start.
#[derive(Debug, Clone)]
pub struct ChildSettings {
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
}

/// A running mydumper.
#[derive(Debug, Clone)]
pub struct Child {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
}

impl Child {
    /// Starts it.
    ///
    /// Its output is ours: it is inherited, not piped, so that it outlives us. Standard input is `/dev/null`: there is
    /// nobody to answer a question.
    pub fn start(settings: &ChildSettings) -> anyhow::Result<Self> {
        let (program, arguments) = settings.command.split_first().context("no command to start")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).process_group(0);
        let mut child = command.spawn().with_context(|| {
            let path = std::env::var("PATH").unwrap_or_default();
            format!("cannot start '{}' (PATH is '{path}')", program.to_string_lossy())
        })?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("the child has no pid")?;
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            let exit = child.wait().await.map_or(Exit::Status(255), exit_of);
            // Nobody may be listening any more; then nobody needs to know.
            let _ = sender.send(Some(exit));
        });
        Ok(Self { pid, exit })
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Status(255)),
            Err(_) => Exit::Status(255),
        }
    }

    /// Asks it to stop. Always by SIGTERM: SIGINT makes mydumper 1.0.1 ask a question that nobody answers.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it and all that it started.
    pub fn kill(&self) {
        if self.exit().is_none() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
    }

    fn signal(&self, signal: Signal) {
        // Once it is reaped its number may belong to another process.
        if self.exit().is_none() {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}
