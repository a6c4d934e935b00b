//! Stores that send more than anybody asked for, or part sizes that no upload has.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use crate::support::peak_memory::{self, WRAPPER};
use crate::support::s3_server::{BUCKET, Operation};
use crate::support::sandbox::{Endpoint, Finished, Sandbox, files_in};
use crate::support::stored_dump::StoredDump;

/// What a run may have, whatever a store sends: 30 and 38 MiB were measured.
const MEMORY_MAX_MIB: u64 = 100;

/// A store that answers each request in one way, and goes on for as long as somebody reads.
struct Flood {
    url: String,
}

impl Flood {
    fn start(head: &'static str, forever: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        // Ends with the test process; who is not read any more ends before.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(stream, head, forever));
            }
        });
        Flood { url }
    }

    /// `list`, with the most memory that it had.
    fn list(&self) -> Finished {
        let endpoint = Endpoint {
            url: self.url.clone(),
            bucket: "b".to_owned(),
            access_key: "AK".to_owned(),
            secret_key: "SK".to_owned(),
        };
        let sandbox = Sandbox::new();
        let list = sandbox.mydumper2s3().args(["list", "--bucket", "b"]).connect_to(&endpoint);
        list.wrapped_in(WRAPPER).run()
    }
}

fn answer(mut stream: TcpStream, head: &str, forever: &str) {
    let mut request = BufReader::new(stream.try_clone().expect("its other end"));
    let mut line = String::new();
    while request.read_line(&mut line).is_ok_and(|length| length > 2) {
        line.clear();
    }
    let piece = forever.repeat(64 * 1024 / forever.len());
    let _ = stream.write_all(head.as_bytes());
    while stream.write_all(piece.as_bytes()).is_ok() {}
}

/// "A store that sends gigabytes as an error (4 GB of memory)": its status is enough.
#[test]
fn an_error_without_end_is_cut() {
    let flood = Flood::start("HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n", "You may not do this. ");
    let finished = flood.list().assert_status(2).assert_says("HTTP status 403").assert_says("s3:ListBucket");
    let mib = peak_memory::mib(&finished);
    assert!(mib < MEMORY_MAX_MIB, "{mib} MiB");
}

/// "… or as a listing": an error, since a listing that is cut would look like a shorter one.
#[test]
fn a_listing_without_end_is_an_error() {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<?xml version=\"1.0\"?><ListBucketResult>";
    let flood = Flood::start(head, "<Contents><Key>a</Key></Contents>");
    let finished = flood.list().assert_status(1).assert_says("the answer is larger than 8 MiB");
    let mib = peak_memory::mib(&finished);
    assert!(mib < MEMORY_MAX_MIB, "{mib} MiB");
}

/// "`part_size` 1 (a request a byte)": what no upload can have is not believed, and the object tells.
#[test]
fn a_part_size_that_no_upload_has_is_not_believed() {
    let stored = StoredDump::new();
    let key = stored.key("mydumper2s3.json");
    let text = stored.server.object(BUCKET, &key).expect("a manifest").bytes();
    let mut manifest: Value = serde_json::from_slice(&text).expect("JSON");
    let files = manifest["files"].as_array_mut().expect("files");
    let in_parts = files.iter_mut().find(|file| file["part_size"].is_u64()).expect("a file in parts");
    in_parts["part_size"] = 1.into();
    in_parts["part_md5s"] = Value::Array(Vec::new());
    stored.put("mydumper2s3.json", manifest.to_string());
    let before = stored.server.count(Operation::GetObject);
    let target = stored.sandbox.path("back");
    stored.command("verify").arg("--deep").run().assert_status(0);
    stored.command("restore").arg("--dir").arg(&target).run().assert_status(0);
    assert_eq!(files_in(&target), stored.files);
    let asked = stored.server.count(Operation::GetObject) - before;
    assert!(asked < 30, "{asked} requests");
}
