//! Parse, set the output up, listen for signals, run, exit.

use std::process::ExitCode;

use mydumper2s3::exit_status::Status;
use mydumper2s3::report::Report;
use mydumper2s3::stop::Stop;
use mydumper2s3::{cli, commands, dumper, hand_over, platform, s3, scratch_dir};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == dumper::HELPER_ARGUMENT) {
        let longest = std::env::args().nth(2).and_then(|seconds| seconds.parse().ok());
        dumper::wake_when_the_pipe_breaks(std::io::stdin(), longest.map(std::time::Duration::from_secs));
        return Ok(ExitCode::SUCCESS);
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == scratch_dir::HELPER_ARGUMENT) {
        scratch_dir::tidy_when_the_pipe_breaks(std::io::stdin(), std::env::args_os().nth(2));
        return Ok(ExitCode::SUCCESS);
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == hand_over::HELPER_ARGUMENT) {
        return Ok(hand_over::hand_over(std::env::args_os().skip(2)));
    }
    s3::prepare_environment();
    let directory = std::env::current_dir().unwrap_or_default();
    let command = match cli::parse_from(std::env::args_os(), &directory) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    let report = Report::start(&command.output().settings())?;
    platform::ignore_lease_breaks();
    let status = run(&command, &report).unwrap_or_else(|error| {
        report.fatal(&error);
        Status::Failure
    });
    report.finish(status.code());
    Ok(ExitCode::from(status.code()))
}

/// One thread for the network, the signals and all that waits; files are asked for, read and hashed on others.
fn run(command: &cli::Command, report: &Report) -> anyhow::Result<Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = tokio::task::LocalSet::new().block_on(&runtime, async {
        let says_the_rest = report.clone();
        let stop = Stop::listen(move || says_the_rest.finish_at_once())?;
        anyhow::Ok(commands::run(command, report, &stop).await)
    })?;
    // A read that hangs must not keep us.
    runtime.shutdown_background();
    Ok(status)
}
