//! A program that we start: in a session and process group of its own, its output line by line, and never left behind.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;

use crate::aside::aside;
use crate::platform::{self, Exit};

/// The longest piece of a program's output that is kept in memory, in bytes.
const LINE_MAX: u64 = 64 * 1024;
/// How long its output may still come after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Gets each line that a program writes, without its newline, and whether it was written to standard error.
pub type OnLine = Arc<dyn Fn(&[u8], bool) + Send + Sync>;

/// What of our environment opens our buckets, by name or in a file that it names. No program that we start has a use for
/// it, and everybody of its user can read a process's environment for as long as it runs.
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

/// What a program inherits: the environment as we were given it, and what opens our buckets only where that is wished.
pub fn give_environment(command: &mut std::process::Command, with_access: bool) {
    platform::environment_as_given(command);
    for name in SECRETS.iter().filter(|_| !with_access) {
        command.env_remove(name);
    }
}

/// What becomes of a program when we die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterUs {
    /// It goes on: what it makes can be taken up later.
    GoesOn,
    /// It is killed: without us it would take what it has got for all that there is.
    Dies,
}

/// How a program is to be started. Standard input is `/dev/null`: there is nobody to answer a question.
pub struct Launch<'a> {
    /// The program with its arguments; not empty.
    pub line: &'a [OsString],
    /// Whether it inherits our access to the store.
    pub keep_aws_environment: bool,
    /// Gets its output, where that must pass through us. Else it inherits ours, so that its output outlives us.
    pub on_line: Option<OnLine>,
    /// Takes what it writes to standard output, where that is no text; `on_line` then gets the rest alone.
    pub stdout: Option<OwnedFd>,
    /// Where it puts files that are to be gone with it, if not where all programs do.
    pub temporary: Option<&'a Path>,
    /// What becomes of it when we die.
    pub after_us: AfterUs,
}

/// A program that was started, and whose end nobody waits for yet.
pub struct Launched {
    child: tokio::process::Child,
    pid: Pid,
    on_line: Option<OnLine>,
}

/// A program that runs, or has ended.
#[derive(Debug, Clone)]
pub struct Program {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
}

impl Launch<'_> {
    /// Starts it.
    pub fn start(self) -> anyhow::Result<Launched> {
        let (name, arguments) = self.line.split_first().context("no command to start")?;
        let mut command = Command::new(name);
        give_environment(command.as_std_mut(), self.keep_aws_environment);
        if let Some(directory) = self.temporary {
            command.env("TMPDIR", directory);
        }
        command.args(arguments).stdin(Stdio::null());
        platform::own_session(&mut command);
        if self.after_us == AfterUs::Dies {
            platform::die_with_us(&mut command);
        }
        if self.on_line.is_some() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        match self.stdout {
            // Whoever wants no more of it ends it by this.
            Some(stdout) => drop(command.stdout(stdout)),
            // A pipe that breaks with us does not end it.
            None if self.on_line.is_some() => platform::ignore_broken_pipes(&mut command),
            None => {}
        }
        let child = command.spawn().with_context(|| {
            let path = std::env::var("PATH").unwrap_or_default();
            format!("cannot start '{}' (PATH is '{path}')", name.to_string_lossy())
        })?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("the child has no pid")?;
        Ok(Launched { child, pid, on_line: self.on_line })
    }
}

impl Launched {
    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits for its end from now on; `on_end`, which may block, is called at once when it comes, before anybody else knows.
    pub fn watch(mut self, on_end: impl FnOnce() + Send + 'static) -> Program {
        let readers = self.on_line.map(|on_line| {
            let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
            tokio::spawn(async move { tokio::join!(pass_on(stdout, &on_line, false), pass_on(stderr, &on_line, true)) })
        });
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            let exit = self.child.wait().await.map_or(Exit::Status(255), exit_of);
            aside(on_end).await;
            if let Some(readers) = readers {
                // Its last words; a grandchild that keeps the pipe open is not waited for.
                let _ = tokio::time::timeout(LAST_WORDS, readers).await;
            }
            // Nobody may be listening any more; then nobody needs to know.
            let _ = sender.send(Some(exit));
        });
        Program { pid: self.pid, exit }
    }
}

impl Program {
    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end; `None` where nobody looks for it any more.
    pub async fn seen_end(&self) -> Option<Exit> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit)
    }

    /// Waits for its end. One that nobody saw is a failure.
    pub async fn wait(&self) -> Exit {
        self.seen_end().await.unwrap_or(Exit::Status(255))
    }

    /// Sends it a signal, to it alone.
    pub fn signal(&self, signal: Signal) {
        // Once it is reaped its number may belong to another process.
        if self.exit().is_none() {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Asks it and all of its process group to end.
    pub fn end(&self) {
        if self.exit().is_none() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::TERM);
        }
    }

    /// Kills it and all of its process group.
    pub fn kill(&self) {
        if self.exit().is_none() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// This same program as a helper, which outlives us: it learns of our end by the end of a pipe.
#[derive(Debug)]
pub struct Helper<P = std::process::ChildStdin> {
    /// The process.
    pub process: std::process::Child,
    /// What it reads; it breaks when we die.
    pub pipe: P,
}

impl Helper {
    /// Starts it; the first argument says what it is to do.
    pub fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> anyhow::Result<Self> {
        // A Ctrl-C or a signal to our group must not end it before us.
        let mut process = Self::command(arguments)?.stdin(Stdio::piped()).process_group(0).spawn()?;
        let pipe = process.stdin.take().context("the helper has no pipe")?;
        Ok(Self { process, pipe })
    }

    fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> anyhow::Result<std::process::Command> {
        // By its path in /proc the program is the same even after an upgrade replaced the file.
        let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
        let mut command = std::process::Command::new(program);
        give_environment(&mut command, false);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }
}

impl Helper<UnixStream> {
    /// The same, with a socket in place of the pipe, through which descriptors can be passed. Whoever is started so takes a
    /// session of its own.
    pub fn start_at_socket<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> anyhow::Result<Self> {
        let (pipe, its_end) = UnixStream::pair()?;
        let process = Helper::command(arguments)?.stdin(OwnedFd::from(its_end)).spawn()?;
        Ok(Self { process, pipe })
    }
}

/// Passes each line on. A line longer than [`LINE_MAX`] comes in pieces.
async fn pass_on(output: Option<impl AsyncRead + Unpin>, on_line: &OnLine, is_stderr: bool) {
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
