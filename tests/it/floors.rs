//! What the program is for, in figures: little local disk, and the bucket has the dump moments after mydumper's end.

use std::time::{Duration, Instant};

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::Operation;
use crate::support::sandbox::PeakLocalBytes;
use crate::support::stage::Stage;

/// With default settings, on loopback: a dump at 10 MB/s for 20 s in files of 1 MB needs less than a quarter of its size
/// in local disk, as somebody else measures it.
#[test]
fn a_dump_needs_a_fraction_of_its_size_in_local_disk() {
    const FILES: u64 = 200;
    const FILE_BYTES: u64 = 1_000_000;
    let stage = Stage::new();
    let upload = stage.upload_with_defaults().start();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let disk = PeakLocalBytes::watch(stage.sandbox.dump_dir());
    dumper.generate(FILES, FILE_BYTES, 10_000_000);
    dumper.finish_and_exit();
    upload.finish().assert_status(0);
    stage.assert_whole(&dumper);
    let (peak, dump) = (disk.bytes(), FILES * FILE_BYTES);
    println!("at most {peak} of {dump} bytes were local");
    assert!(peak > FILE_BYTES, "measured nothing");
    assert!(peak < dump / 4, "{peak} of {dump} bytes were local");
}

/// From the dumper's end to the commit: less than two intervals and the last file's upload.
#[test]
fn the_commit_comes_within_two_intervals_of_the_end() {
    const INTERVAL: Duration = Duration::from_secs(2);
    let stage = Stage::new();
    let mut run = stage.upload_with_defaults().args(["--interval", "2"]).start();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    run.wait_for_line("found a dump (running)");
    dumper.file("shop.t.00000.sql", 1_000_000);
    dumper.file("shop.u.00000.sql", 1_000_000);
    stage.wait_until_moved("shop.u.00000.sql");
    dumper.file("shop.last.00000.sql", 1_000_000);
    let ended = Instant::now();
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    let requests = stage.server.requests_of(Operation::PutObject);
    let commit = requests.iter().find(|request| request.key.ends_with("/metadata")).expect("the commit");
    let last = requests.iter().find(|request| request.key.ends_with("/shop.last.00000.sql")).expect("the last file");
    let last_upload = last.took.expect("its end");
    let took = commit.arrived + commit.took.expect("its end") - ended;
    println!("committed {took:?} after the dumper's end, of which {last_upload:?} for the last file");
    assert!(took < 2 * INTERVAL + last_upload, "{took:?}");
}
