//! The S3 server of the tests as a program, for demonstrations and for trying things by hand.
//!
//!     cargo run --example s3_server -- --bucket backups --port 9000
//!
//! Objects live in files below `--dir` and are gone when it ends.

#[path = "../tests/it/support/s3_server/mod.rs"]
mod s3_server;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use s3_server::{ACCESS_KEY, AccessKey, BUCKET, S3Server, SECRET_KEY};

#[derive(Parser)]
struct Arguments {
    /// Where the objects' bytes go [default: the system's temporary directory]
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    /// 0 for any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Made at the start; may be given more than once
    #[arg(long, default_value = BUCKET)]
    bucket: Vec<String>,
    #[arg(long, env = "AWS_ACCESS_KEY_ID", default_value = ACCESS_KEY)]
    access_key: String,
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", default_value = SECRET_KEY, hide_env_values = true)]
    secret_key: String,
    /// Each request waits this long before it is looked at
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    latency_ms: u64,
    /// Bytes per second for all bodies together [default: no limit]
    #[arg(long, value_name = "BYTES")]
    limit_rate: Option<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let server = start(&arguments);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(&server, &arguments))
}

fn start(arguments: &Arguments) -> S3Server {
    let mut builder = S3Server::builder().port(arguments.port);
    builder = builder.key(AccessKey::new(&arguments.access_key, &arguments.secret_key));
    for bucket in &arguments.bucket {
        builder = builder.bucket(bucket);
    }
    if let Some(dir) = &arguments.dir {
        builder = builder.dir(dir);
    }
    let server = builder.start();
    server.set_latency(Duration::from_millis(arguments.latency_ms));
    server.set_rate_limit(arguments.limit_rate);
    server
}

/// One line, for a script that waits for it. A secret that is not our own default is not repeated.
fn announce(server: &S3Server, arguments: &Arguments) {
    let secret = if arguments.secret_key == SECRET_KEY { SECRET_KEY } else { "(as given)" };
    println!(
        "ready: endpoint={} bucket={} access_key={} secret_key={secret}",
        server.endpoint(),
        arguments.bucket.join(","),
        arguments.access_key,
    );
}

/// Until SIGTERM or ctrl-c. Ready only when it can be told to end: a script may do so at once.
async fn serve(server: &S3Server, arguments: &Arguments) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    announce(server, arguments);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
