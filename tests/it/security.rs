//! The way to the store: encrypted, to whom it is meant, or said. (Secrets: `rights`.)

use serde_json::json;

use crate::support::dump_objects::Vault;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::BUCKET;
use crate::support::sandbox::{Endpoint, Program};
use crate::support::stage::Stage;
use crate::support::tls_front::TlsFront;

const UNENCRYPTED: &str = "crosses the network unencrypted";

#[track_caller]
fn finished_dump(stage: &Stage) -> FakeDumper {
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_and_exit();
    dumper
}

fn upload_to<'a>(stage: &'a Stage, url: &str) -> Program<'a> {
    let endpoint = Endpoint { url: url.to_owned(), ..stage.endpoint() };
    stage.sandbox.mydumper2s3().upload_to(&endpoint)
}

/// The endpoint where the SDK finds it, and not on the command line.
fn upload_with_endpoint_in_the_environment<'a>(stage: &'a Stage, url: &str) -> Program<'a> {
    let endpoint = stage.endpoint();
    let program = stage.sandbox.mydumper2s3().arg("--dir").arg(stage.sandbox.dump_dir());
    let program = program.args(["--bucket", &endpoint.bucket, "--path-style"]).env("AWS_ENDPOINT_URL", url);
    program.env("AWS_ACCESS_KEY_ID", &endpoint.access_key).env("AWS_SECRET_ACCESS_KEY", &endpoint.secret_key)
}

/// "`http://` to a host that is not loopback warns once", wherever the endpoint was found. 0.0.0.0 is this machine, too,
/// and no loopback address.
#[test]
fn an_unencrypted_way_over_a_network_is_said_once() {
    let ways = [upload_to, upload_with_endpoint_in_the_environment];
    for (host, warnings) in [("0.0.0.0", 1), ("127.0.0.1", 0)] {
        for way in ways {
            let stage = Stage::new();
            let dumper = finished_dump(&stage);
            let url = format!("http://{host}:{}", stage.server.port());
            let finished = way(&stage, &url).run().assert_status(0);
            assert_eq!(finished.text().matches(UNENCRYPTED).count(), warnings, "{finished:?}");
            stage.assert_whole(&dumper);
            let verify = stage.sandbox.mydumper2s3().args(["verify", "--bucket", BUCKET, "--prefix", &stage.prefix()]);
            let finished = verify.connect_to(&Endpoint { url, ..stage.endpoint() }).run().assert_status(0);
            assert_eq!(finished.text().matches(UNENCRYPTED).count(), warnings, "{finished:?}");
        }
    }
}

/// "TLS is checked": who made the certificate, and for whom. Where that is wrong, nothing is asked at all.
#[test]
fn a_certificate_that_is_not_trusted_is_refused() {
    let stage = Stage::new();
    let dumper = finished_dump(&stage);
    let front = TlsFront::before(stage.server.port());
    let certificate = front.write_certificate(stage.sandbox.path("ca.pem"));
    let unknown = upload_to(&stage, &front.url("localhost")).run().assert_status(2);
    unknown.assert_says("the store's certificate is not trusted").assert_says("--ca-bundle");
    // Another host name than the certificate's.
    let other = upload_to(&stage, &front.url("127.0.0.1")).arg("--ca-bundle").arg(&certificate);
    other.run().assert_status(2).assert_says("the store's certificate is for another host");
    assert!(stage.server.requests().is_empty(), "it was asked");
    assert_eq!(stage.sandbox.local_files(), dumper.files());
    let trusted = upload_to(&stage, &front.url("localhost")).arg("--ca-bundle").arg(&certificate);
    trusted.run().assert_status(0).assert_does_not_say(UNENCRYPTED);
    stage.assert_whole(&dumper);
}

/// "https against http is told", at once: waiting would not mend it.
#[test]
fn https_against_a_server_that_speaks_http_is_a_wrong_setting() {
    let stage = Stage::new();
    let dumper = finished_dump(&stage);
    let url = stage.endpoint().url.replace("http://", "https://");
    let refused = upload_to(&stage, &url).run().assert_status(2);
    refused.assert_says("hint: nothing there speaks TLS: is the endpoint an http:// one?");
    assert_eq!(stage.sandbox.local_files(), dumper.files());
}

/// A store of one's own needs no region, and nobody waits for instance metadata that are not there.
#[test]
fn a_store_of_ones_own_is_reached_without_instance_metadata() {
    let stage = Stage::new();
    let dumper = finished_dump(&stage);
    let metadata_service = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    metadata_service.set_nonblocking(true).expect("a listener that does not wait");
    let address = metadata_service.local_addr().expect("its address");
    let upload = stage.upload().without_env("AWS_REGION").without_env("AWS_EC2_METADATA_DISABLED");
    let upload = upload.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{address}"));
    upload.run().assert_status(0);
    let asked = metadata_service.accept().map(|(_, who)| who);
    assert_eq!(asked.expect_err("nobody asks").kind(), std::io::ErrorKind::WouldBlock);
    stage.assert_whole(&dumper);
}

/// "No terminal escape": whoever may write to the bucket chooses what a manifest says, and how objects are called.
#[test]
fn nothing_in_a_bucket_reaches_the_terminal_as_a_command() {
    let vault = Vault::new();
    let evil = "\u{1b}[2J\u{9b}2J\u{202e}evil";
    let more = json!({
        "series": evil, "reason": evil, "dumper_version": evil, "directory": evil, "left_out": [evil],
        "identity": {"host": evil, "started": evil, "inode": 7},
        "sources": [{"role": "self", "host": evil, "file": evil, "position": 4}],
    });
    let (started, newer) = ("2026-11-22T02:00:00Z", "2026-11-23T02:00:00Z");
    vault.put_dump_that_says("p/complete", started, "complete", &more);
    vault.put_dump_that_says("p/failed", newer, "incomplete", &more);
    vault.put(&format!("p/complete/{evil}"), "x");
    vault.put(&format!("{evil}/metadata"), "x");
    let into = vault.sandbox.path("into");
    let into = into.to_str().expect("a path");
    vault.command("list").run().assert_says("incomplete: \\u{1b}[2J");
    for arguments in [
        &["list"][..],
        &["list", "--max-age", "1h"],
        &["list", "--files", "--prefix", "p/complete"],
        &["verify", "--prefix", "p/complete"],
        &["verify", "--latest", "--series", "x"],
        &["restore", "--latest", "--dir", into],
        &["restore", "--prefix", "p/failed", "--dir", into],
        &["prune", "--prefix", "", "--keep-last", "1", "--incomplete-older-than", "1h"],
        &["delete", "--prefix", "p/complete", "--yes"],
    ] {
        let finished = vault.command(arguments[0]).args(&arguments[1..]).run();
        let text = finished.text();
        let is_harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(is_harmful), "{arguments:?}: {text:?}");
    }
}
