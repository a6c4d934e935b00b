//! Many files, and a large one: each run of the tests has them at a size that it can bear, `MYDUMPER2S3_FULL_SIZE=1` at the
//! full one.

use std::fs::File;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};

use super::full_size::is_full;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::peak_memory;
use crate::support::s3_server::{BUCKET, Operation};
use crate::support::sandbox::{Finished, eventually};
use crate::support::stage::Stage;

const MIB: u64 = 1 << 20;
const PART: u64 = 16 * MIB;
/// What an upload may need, whatever it uploads, and for each file that it must remember until the commit.
const PEAK_BYTES: u64 = 64 * MIB;
const BYTES_PER_FILE: u64 = 500;
const TIME_LIMIT: Duration = Duration::from_secs(3600);

/// Runs the upload to its good end, and says what it cost.
fn upload(stage: &Stage, files: u64, what: &str) -> Finished {
    let began = Instant::now();
    let upload = stage.upload_with_defaults().wrapped_in(peak_memory::WRAPPER);
    let finished = upload.time_limit(TIME_LIMIT).run().assert_status(0);
    let peak = peak_memory::mib(&finished);
    println!("{what}: {:.1} s, {peak} MiB of memory at the peak", began.elapsed().as_secs_f64());
    assert!(peak * MIB < PEAK_BYTES + files * BYTES_PER_FILE, "{peak} MiB");
    finished
}

/// "100,000 files": each is sent once. At the small size two thousand.
#[test]
fn a_directory_of_many_files_arrives() {
    let files = if is_full() { 100_000 } else { 2_000 };
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.generate(files, 100, 0);
    dumper.finish_and_exit();
    upload(&stage, files, &format!("{files} files"));
    stage.assert_whole(&dumper);
    let sent = stage.server.requests_of(Operation::PutObject);
    assert_eq!(sent.iter().filter(|request| request.key.ends_with(".sql")).count() as u64, files);
    eventually("no connection is left", || stage.server.open_connections() == 0);
}

/// "A sparse 20 GiB file": all zeros, of which the disk holds none, and one byte more than whole parts. At the small size
/// 256 MiB.
#[test]
fn a_sparse_file_arrives() {
    const NAME: &str = "shop.t.00000.sql";
    let size = if is_full() { 20 * 1024 * MIB } else { 256 * MIB } + 1;
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.open(NAME);
    let file = File::options().write(true).open(stage.sandbox.dump_dir().join(NAME)).expect("an open file");
    file.set_len(size).expect("a filesystem with holes");
    drop(file);
    dumper.close(NAME);
    dumper.finish_and_exit();
    upload(&stage, 1, &format!("a sparse file of {size} bytes"));
    stage.sandbox.assert_local_names([] as [&str; 0]);
    let object = stage.server.object(BUCKET, &format!("{}/{NAME}", stage.prefix())).expect("the object");
    assert_eq!((object.size, object.etag.as_str()), (size, etag_of_zeros(size).as_str()));
    let verify = stage.sandbox.mydumper2s3().args(["verify", "--bucket", BUCKET, "--prefix", &stage.prefix()]);
    verify.connect_to(&stage.endpoint()).run().assert_status(0).assert_says("2 match, 0 mismatch, 0 missing, 0 extra");
}

/// The MD5 of the parts' MD5s, and how many there are.
fn etag_of_zeros(size: u64) -> String {
    let zeros = vec![0; PART as usize];
    let whole = Md5::digest(&zeros);
    let mut of_parts = Md5::new();
    (0..size / PART).for_each(|_| of_parts.update(whole));
    of_parts.update(Md5::digest(&zeros[..(size % PART) as usize]));
    let hex: String = of_parts.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}-{}", size / PART + 1)
}
