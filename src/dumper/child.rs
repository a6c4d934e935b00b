//! mydumper as our child: its own session and process group, no standard input, and never left behind.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;

use super::exit_status::judged;
use super::witness::Witness;
use super::writer::{Role, Writer};
use crate::model::manifest::DumperExit;
use crate::platform::{self, Exit};

/// The longest piece of mydumper's output that is kept in memory, in bytes.
const LINE_MAX: u64 = 64 * 1024;
/// How long its output may still come after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long mydumper is given to end on SIGTERM when it has written all that it had to.
const NOTHING_TO_LOSE: Duration = Duration::from_secs(2);
/// Between two looks at a process that is not our own child.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Gets each line that mydumper writes, without its newline, and whether it was written to standard error.
pub type ChildLine = Arc<dyn Fn(&[u8], bool) + Send + Sync>;

/// What of our environment opens our buckets, by name or in a file that it names. mydumper has no use for it, and everybody
/// of its user can read a process's environment for as long as it runs.
const SECRETS: [&str; 9] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// Takes what opens our buckets out of what a child inherits.
pub(super) fn without_secrets(command: &mut std::process::Command) {
    for name in SECRETS {
        command.env_remove(name);
    }
}

/// How mydumper is to be started.
pub struct Start<'a> {
    /// The program with its arguments; not empty.
    pub command: &'a [OsString],
    /// Where it will write.
    pub directory: &'a Path,
    /// Whether it inherits our access to the store.
    pub keep_aws_environment: bool,
    /// Gets its output, where that must pass through us.
    pub on_line: Option<ChildLine>,
}

/// A running mydumper.
#[derive(Debug, Clone)]
pub struct Child {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
    witness: Arc<Witness>,
}

impl Child {
    /// Starts a program.
    ///
    /// Its output is inherited, so that it outlives us, unless `on_line` wants it line by line: then a pipe that breaks
    /// with us does not end it. Standard input is `/dev/null`: there is nobody to answer a question.
    pub fn start(start: Start<'_>) -> anyhow::Result<Self> {
        let Start { command, directory, keep_aws_environment, on_line } = start;
        let line = command;
        let (program, arguments) = line.split_first().context("no command to start")?;
        // Else who is orphaned among all that it starts would be out of sight.
        platform::adopt_orphans();
        let mut command = Command::new(program);
        if !keep_aws_environment {
            without_secrets(command.as_std_mut());
        }
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
        let witness = Arc::new(Witness::begin(directory, pid.as_raw_nonzero().get(), line));
        let readers = on_line.map(|on_line| {
            let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
            tokio::spawn(async move { tokio::join!(pass_on(stdout, &on_line, false), pass_on(stderr, &on_line, true)) })
        });
        let (sender, exit) = watch::channel(None);
        let sees_end = Arc::clone(&witness);
        tokio::spawn(async move {
            let exit = child.wait().await.map_or(Exit::Status(255), exit_of);
            sees_end.child_has_ended();
            if let Some(readers) = readers {
                // Its last words; a grandchild that keeps the pipe open is not waited for.
                let _ = tokio::time::timeout(LAST_WORDS, readers).await;
            }
            // Nobody may be listening any more; then nobody needs to know.
            let _ = sender.send(Some(exit));
        });
        Ok(Self { pid, exit, witness })
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Who writes the dump of this lead, if that was seen from the child's first moment on.
    pub fn writer_of(&self, inode: (u64, u64)) -> Option<Writer> {
        self.witness.writer_of(inode)
    }

    /// What its end tells of the dump that it left, if it has ended.
    pub fn dumper_exit(&self) -> Option<DumperExit> {
        let writer = self.witness.writer();
        let own = writer.as_ref().filter(|writer| writer.role != Role::Child).map(Writer::exit);
        let is_writer = writer.is_some() && own.is_none();
        self.exit().map(|exit| judged(exit, is_writer, self.was_left_early(), own.flatten()))
    }

    /// Whether it ended before the dump did: then its status says nothing of the dump.
    pub fn was_left_early(&self) -> bool {
        self.witness.was_left_early()
    }

    /// Whether it has ended, and nobody is left of all that it started who could still write.
    pub fn is_over(&self) -> bool {
        *self.witness.is_over().borrow()
    }

    /// Whether the dump may not be done yet: then it can be told to stop. Something that a wrapper left running is none
    /// of the dump.
    pub fn may_still_write(&self) -> bool {
        let is_unknown = || self.witness.writer().is_none() && !self.is_over() && !self.witness.is_final();
        self.exit().is_none() || self.stray_writer().is_some() || is_unknown()
    }

    /// All that is alive of it and of what it started, itself first.
    pub fn family(&self) -> Vec<i32> {
        let mut family = self.witness.family();
        family.sort_by_key(|pid| *pid != self.pid());
        family
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Status(255)),
            Err(_) => Exit::Status(255),
        }
    }

    /// Waits for its end and that of all that it started.
    pub async fn wait_until_over(&self) {
        self.wait().await;
        // Nobody tells any more only where the witness is gone, and that is with us.
        let _ = self.witness.is_over().wait_for(|is_over| *is_over).await;
    }

    /// How many of its two ends have come: its own, and that of all that it started.
    pub fn ends(&self) -> usize {
        usize::from(self.exit().is_some()) + usize::from(self.is_over())
    }

    /// Waits until one more has come than there were; for ever when there is none more to come.
    pub async fn next_end(&self, before: usize) {
        let (mut exit, mut is_over) = (self.exit.clone(), self.witness.is_over());
        while self.ends() <= before {
            tokio::select! {
                Ok(_) = exit.wait_for(Option::is_some), if self.exit().is_none() => {}
                Ok(_) = is_over.wait_for(|is_over| *is_over), if !self.is_over() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Ends it: it is asked first, and after `patience` all that it started is killed.
    ///
    /// Always by SIGTERM: SIGINT makes mydumper 1.0.1 ask a question that nobody answers.
    pub async fn stop(&self, patience: Duration) {
        let patience = if self.witness.is_final() { patience.min(NOTHING_TO_LOSE) } else { patience };
        self.signal(Signal::TERM);
        if tokio::time::timeout(patience, self.writer_and_child_end()).await.is_err() {
            self.kill();
            self.writer_and_child_end().await;
        }
    }

    async fn writer_and_child_end(&self) {
        self.wait().await;
        while self.stray_writer().is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Who writes the dump, lives, and is not our child itself.
    fn stray_writer(&self) -> Option<Writer> {
        self.witness.writer().filter(|writer| writer.role != Role::Child && !writer.has_ended())
    }

    fn signal(&self, signal: Signal) {
        // Once it is reaped its number may belong to another process.
        if self.exit().is_none() {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
        if let Some(writer) = self.stray_writer() {
            let _ = writer.handle().signal(signal);
        }
    }

    /// Ends it and all that it started, at once.
    pub fn kill(&self) {
        if self.exit().is_none() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
        if let Some(writer) = self.stray_writer() {
            let _ = writer.handle().signal(Signal::KILL);
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
