//! An S3 server that costs next to nothing: it counts what it gets and throws it away. `scripts/bench.sh` measures
//! uploaders against it, so that what is measured is the uploader.
//!
//!     cargo run --release --package sink_server -- --port 9000
//!
//! A measuring tool, not a store: it checks no signature, and without `--dir` it forgets the bytes. One thread per
//! connection with blocking calls, since that is the cheapest; bodies are dropped in the kernel.
//!
//! `GET /_counters` answers with what it counted, as JSON; `GET /_objects` with a line for each object, its size and its
//! key; `POST /_reset` forgets both.

mod answer;
mod body;
mod counters;
mod listing;
mod operations;
mod request;
mod store;
mod transport;
mod uploads;
mod xml;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use crate::operations::Sink;
use crate::transport::TlsSettings;

#[derive(Parser)]
struct Arguments {
    /// 0 for any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Each request waits this long before it is answered
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    latency_ms: u64,
    /// Hashes each body, and refuses one that is not as its Content-MD5 says
    #[arg(long)]
    md5: bool,
    /// Keeps bodies in files below this directory, so that they can be downloaded
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    /// Certificate in PEM form: then it speaks https
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsSettings::load(certificate, key)?),
        _ => None,
    };
    if let Some(dir) = &arguments.dir {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make '{}'", dir.display()))?;
    }
    let latency = Duration::from_millis(arguments.latency_ms);
    let sink = Arc::new(Sink::new(latency, arguments.md5, arguments.dir));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port))
        .with_context(|| format!("cannot listen on port {}", arguments.port))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    println!("ready: endpoint={scheme}://{} bucket=any access_key=any secret_key=any", listener.local_addr()?);
    serve(&listener, &sink, tls.as_ref())
}

/// Until it is killed: it has nothing to put in order.
fn serve(listener: &TcpListener, sink: &Arc<Sink>, tls: Option<&TlsSettings>) -> Result<()> {
    for stream in listener.incoming() {
        let stream = stream.context("cannot accept a connection")?;
        let (sink, tls) = (Arc::clone(sink), tls.cloned());
        std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(move || {
                // A client that goes away in mid-request is not our failure, but it is worth a line.
                if let Err(error) = transport::accept(stream, tls).and_then(|transport| sink.converse(transport)) {
                    eprintln!("sink server: a connection ended early: {error}");
                }
            })
            .context("cannot start a thread for a connection")?;
    }
    Ok(())
}
