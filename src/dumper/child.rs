//! mydumper as our child: its own session and process group, no standard input, and never left behind.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;

use super::exit_status::dumper_exit;
use crate::model::manifest::{DumperExit, ExitSeen};
use crate::platform::{self, Exit};

/// The longest piece of mydumper's output that is kept in memory, in bytes.
const LINE_MAX: u64 = 64 * 1024;
/// How long its output may still come after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Gets each line that mydumper writes, without its newline, and whether it was written to standard error.
pub type ChildLine = Arc<dyn Fn(&[u8], bool) + Send + Sync>;

/// A running mydumper.
#[derive(Debug, Clone)]
pub struct Child {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
}

impl Child {
    /// Starts a program with its arguments; `command` is not empty.
    ///
    /// Its output is inherited, so that it outlives us, unless `on_line` wants it line by line: then a pipe that breaks
    /// with us does not end it. Standard input is `/dev/null`: there is nobody to answer a question.
    pub fn start(command: &[OsString], on_line: Option<ChildLine>) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("no command to start")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        platform::own_session(&mut command);
        if on_line.is_some() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            platform::ignore_broken_pipes(&mut command);
        }
        let mut child = command.spawn().with_context(|| {
            let path = std::env::var("PATH").unwrap_or_default();
            format!("cannot start '{}' (PATH is '{path}')", program.to_string_lossy())
        })?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("the child has no pid")?;
        let readers = on_line.map(|on_line| {
            let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
            tokio::spawn(async move { tokio::join!(pass_on(stdout, &on_line, false), pass_on(stderr, &on_line, true)) })
        });
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            let exit = child.wait().await.map_or(Exit::Status(255), exit_of);
            if let Some(readers) = readers {
                // Its last words; a grandchild that keeps the pipe open is not waited for.
                let _ = tokio::time::timeout(LAST_WORDS, readers).await;
            }
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

    /// Its end as the manifest has it, if it has ended.
    pub fn dumper_exit(&self) -> Option<DumperExit> {
        self.exit().map(|exit| dumper_exit(exit, ExitSeen::Child))
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Status(255)),
            Err(_) => Exit::Status(255),
        }
    }

    /// Ends it: it is asked first, and after `patience` all that it started is killed.
    ///
    /// Always by SIGTERM: SIGINT makes mydumper 1.0.1 ask a question that nobody answers.
    pub async fn stop(&self, patience: Duration) {
        // Once it is reaped its number may belong to another process.
        if self.exit().is_none() {
            let _ = rustix::process::kill_process(self.pid, Signal::TERM);
        }
        if tokio::time::timeout(patience, self.wait()).await.is_err() {
            self.kill();
            self.wait().await;
        }
    }

    /// Ends it and all that it started, at once.
    pub fn kill(&self) {
        if self.exit().is_none() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// Passes each line on. A line longer than [`LINE_MAX`] comes in pieces.
async fn pass_on(output: Option<impl AsyncRead + Unpin>, on_line: &ChildLine, is_stderr: bool) {
    let Some(output) = output else { return };
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => on_line(line.strip_suffix(b"\n").unwrap_or(&line), is_stderr),
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}
