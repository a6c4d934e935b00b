//! Where a stream comes from: a program that we start, or standard input.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::pipe::PipeFlags;
use tracing::info;

use crate::cli::PipeArgs;
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::manifest::{DumperExit, ExitSeen};
use crate::platform::Exit;
use crate::program::{AfterUs, Launch, Program};
use crate::report::Report;

/// What a pipe holds, in bytes: the fewer, the more often its two ends wait for each other. What a user may have
/// (`/proc/sys/fs/pipe-max-size`) where nothing was changed.
const PIPE_SIZE: usize = 1024 * 1024;

/// Who writes a stream.
#[derive(Debug)]
pub enum Source {
    /// A program of ours.
    Producer(Program),
    /// Somebody else, into our standard input.
    StandardInput,
}

/// A terminal is no dump.
pub fn refuse_terminal(args: &PipeArgs) -> Result<(), Failure> {
    if args.starts_producer() || !io::stdin().is_terminal() {
        return Ok(());
    }
    let error = anyhow!("standard input is a terminal, and no command is given that would write the stream");
    Err(Failure::usage(hinted(error, "name it behind '--': -- mysqldump --single-transaction shop")))
}

impl Source {
    /// Begins to read: the stream, and who writes it.
    pub fn open(args: &PipeArgs, report: &Report) -> anyhow::Result<(Self, File)> {
        let Some(program) = args.command.first() else {
            let input = File::from(io::stdin().as_fd().try_clone_to_owned().context("cannot read standard input")?);
            let _ = rustix::pipe::fcntl_setpipe_size(&input, PIPE_SIZE);
            return Ok((Self::StandardInput, input));
        };
        let (input, output) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        let _ = rustix::pipe::fcntl_setpipe_size(&input, PIPE_SIZE);
        let launch = Launch {
            line: &args.command,
            keep_aws_environment: args.stream.keep_aws_env,
            on_line: report.child_output_wanted_of("producer"),
            stdout: Some(output),
            temporary: None,
            // What it wrote is of no use without us.
            after_us: AfterUs::Dies,
        };
        let program_name = program.to_string_lossy();
        let producer = launch.start()?.watch(|| {});
        info!(pid = producer.pid(), "started {program_name}");
        Ok((Self::Producer(producer), input.into()))
    }

    /// Waits until it is known to have failed; for ever where it does not.
    pub async fn failed(&self) -> Failure {
        match self {
            Self::Producer(producer) => match producer.wait().await {
                Exit::Status(0) => std::future::pending().await,
                exit => why_failed(exit),
            },
            Self::StandardInput => std::future::pending().await,
        }
    }

    /// Waits for its end, after that of the stream.
    pub async fn ended_well(&self) -> Result<(), Failure> {
        match self {
            Self::Producer(producer) => match producer.wait().await {
                Exit::Status(0) => Ok(()),
                exit => Err(why_failed(exit)),
            },
            Self::StandardInput => Ok(()),
        }
    }

    /// How it ended, as the manifest has it.
    pub fn exit(&self) -> DumperExit {
        match self {
            Self::StandardInput => DumperExit::NOT_SEEN,
            Self::Producer(producer) => match producer.exit() {
                None => DumperExit::NOT_SEEN,
                Some(Exit::Status(status)) => DumperExit { status: Some(status), ..DumperExit::seen(ExitSeen::Child) },
                Some(Exit::Signal(signal)) => DumperExit { signal: Some(signal), ..DumperExit::seen(ExitSeen::Child) },
            },
        }
    }

    /// Ends the program, and kills it after that time.
    pub async fn end(&self, patience: Duration) {
        let Self::Producer(producer) = self else { return };
        producer.end();
        if tokio::time::timeout(patience, producer.wait()).await.is_err() {
            producer.kill();
            producer.wait().await;
        }
    }
}

fn why_failed(exit: Exit) -> Failure {
    let how = match exit {
        Exit::Status(status) => format!("ended with status {status}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
    };
    let error = anyhow!("the program that writes the stream {how}, so what it wrote is not whole");
    Failure::incomplete(hinted(error, "its own messages above say why; nothing of it stays in the bucket"))
}
