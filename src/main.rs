//! Parse, listen for signals, run, exit.

use std::process::ExitCode;

use mydumper2s3::cli::{self, Command};
use mydumper2s3::commands::upload;
use mydumper2s3::exit_status::Status;
use mydumper2s3::stop::Stop;

fn main() -> ExitCode {
    let directory = std::env::current_dir().unwrap_or_default();
    let command = match cli::parse_from(std::env::args_os(), &directory) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    mydumper2s3::platform::ignore_lease_breaks();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mydumper2s3: error: cannot start: {error}");
            return ExitCode::from(Status::Failure.code());
        }
    };
    let status = tokio::task::LocalSet::new().block_on(&runtime, async {
        let stop = Stop::listen(|| {}).expect("signals");
        match command {
            Command::Upload(args) => {
                let mut totals = upload::Totals::new(Box::new(|_, _| {}));
                let result = upload::run(&args, &stop, &mut totals).await;
                eprintln!(
                    "{} files {} bytes peak {} exit {:?} to {:?} sha {:?}",
                    totals.files,
                    totals.bytes,
                    totals.peak_local,
                    totals.dumper_exit,
                    totals.destination,
                    totals.manifest_sha256
                );
                match result {
                    Ok(()) => Status::Success,
                    Err(failure) => {
                        eprintln!("mydumper2s3: error: {failure}");
                        if let Some(hint) = mydumper2s3::hint::hint_of(&failure.error) {
                            eprintln!("hint: {hint}");
                        }
                        failure.status
                    }
                }
            }
            _ => Status::Usage,
        }
    });
    ExitCode::from(status.code())
}
