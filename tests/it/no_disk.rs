//! `--no-disk`: rows come from mydumper through memory, and here are names of 0 bytes. What the scripted dumper does with
//! them is what 1.0.1 does: a program for each file, names that are removed again, statements beside empty rows.

use std::io::Read;

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::peak_memory;
use crate::support::run::Run;
use crate::support::s3_server::{BUCKET, Operation};
use crate::support::sandbox::{PeakLocalBytes, Program};
use crate::support::stage::Stage;

const MIB: u64 = 1 << 20;
const COMMAND: [&str; 4] = ["--", "mydumper", "-B", "shop"];

/// Rows as they come, so that the objects' bytes are what was dumped.
pub fn plain(stage: &Stage) -> Program<'_> {
    stage.upload().args(["--no-disk", "--compress", "none"])
}

/// The same with so little memory that each part goes up as soon as it is full.
pub fn tight(stage: &Stage) -> Program<'_> {
    plain(stage).args(["--max-memory", "40MiB"])
}

/// A run whose mydumper has begun its dump.
pub fn begun(stage: &Stage, program: Program<'_>) -> (Run, FakeDumper) {
    let run = program.args(COMMAND).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    (run, dumper)
}

#[test]
fn a_dump_arrives_whole_and_no_byte_of_it_is_local() {
    let stage = Stage::new();
    let disk = PeakLocalBytes::watch(stage.sandbox.dump_dir());
    let (run, mut dumper) = begun(&stage, plain(&stage));
    dumper.file("shop-schema-create.sql", 100);
    dumper.file("shop.orders-schema.sql", 500);
    dumper.file("shop.orders.00000.sql", 60 * MIB);
    dumper.file("shop.orders.00001.sql", 16 * MIB);
    dumper.file("shop.orders.00002.sql", 16 * MIB + 1);
    dumper.finish_and_exit();
    let finished = run.finish().assert_status(0).assert_says("exit status 0");
    assert!(!finished.text().contains("is not uploaded"), "{finished:?}");
    stage.assert_whole(&dumper);
    assert_eq!(stage.manifest()["dumper_exit"]["seen"], "child");
    assert!(disk.bytes() < 1000, "{} bytes were local", disk.bytes());
    let deep = stage.command("verify").args(["--deep", "--prefix", &stage.prefix()]).run().assert_status(0);
    deep.assert_says("6 match, 0 mismatch");
}

/// "Names and content as mydumper's `-c` makes them."
#[test]
fn rows_are_compressed_here() {
    type Unpack = fn(&[u8], &mut Vec<u8>);
    let zstd: Unpack = |bytes, text| zstd::stream::copy_decode(bytes, text).expect("whole frames");
    let gzip: Unpack =
        |bytes, text| _ = flate2::read::MultiGzDecoder::new(bytes).read_to_end(text).expect("a whole stream");
    for (option, extension, unpack) in
        [(None, ".zst", zstd), (Some("zstd:1"), ".zst", zstd), (Some("gzip"), ".gz", gzip)]
    {
        let stage = Stage::new();
        let compress = option.map(|format| ["--compress", format]);
        let program = stage.upload().args(["--no-disk", "--sha256"]).args(compress.iter().flatten());
        let (run, mut dumper) = begun(&stage, program);
        let rows = format!("INSERT INTO `t` VALUES(1,\"a\")\n{};\n", ",(2,\"b\")\n".repeat(100_000));
        let names = ["shop.t-schema.sql", "shop.t.00000.sql"].map(|name| format!("{name}{extension}"));
        dumper.file_of(&names[0], "CREATE TABLE `t` (a int, b text);\n");
        dumper.file_of(&names[1], &rows);
        dumper.finish_and_exit();
        run.finish().assert_status(0);
        let there = stage.files(&stage.prefix());
        assert_eq!(there.keys().collect::<Vec<_>>(), ["metadata", &names[0], &names[1]]);
        let mut text = Vec::new();
        unpack(&there[&names[1]], &mut text);
        assert!(text == rows.as_bytes() && there[&names[1]].len() < rows.len() / 50);
        stage.command("verify").args(["--deep", "--prefix", &stage.prefix()]).run().assert_status(0);
        assert!(stage.manifest()["files"][1]["sha256"].is_string(), "{}", stage.manifest());
        stage.sandbox.assert_local_names([] as [&str; 0]);
    }
}

/// mydumper removes the files of empty tables, and the statement beside an empty `.dat`; with `--build-empty-files` they
/// stay. The names at the end are the truth.
#[test]
fn files_without_a_row_are_as_mydumper_leaves_them() {
    let stage = Stage::new();
    let (run, mut dumper) = begun(&stage, stage.upload().arg("--no-disk"));
    for name in ["shop.gone.00000.sql.zst", "shop.stays.00000.sql.zst"] {
        dumper.open(name);
        dumper.close(name);
    }
    dumper.delete("shop.gone.00000.sql.zst");
    let [statement, rows] = ["shop.load.00000.sql.zst", "shop.load.00000.dat.zst"];
    dumper.open(rows);
    dumper.open(statement);
    dumper.write_bytes(statement, "LOAD DATA LOCAL INFILE 'shop.load.00000.dat.zst' INTO TABLE `load`;\n");
    dumper.close(statement);
    stage.wait_for(statement);
    dumper.delete(statement);
    dumper.close(rows);
    dumper.delete(rows);
    dumper.file_of("shop.full.00000.sql.zst", "INSERT INTO `full` VALUES(1)\n;\n");
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    assert_eq!(stage.names(), ["metadata", "shop.full.00000.sql.zst", "shop.stays.00000.sql.zst"]);
    let stays = &stage.files(&stage.prefix())["shop.stays.00000.sql.zst"];
    assert_eq!(zstd::decode_all(stays.as_slice()).expect("a frame"), b"");
    assert_eq!(stays.len(), 13, "as `zstd -c` makes it of nothing");
    assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
    stage.sandbox.assert_local_names([] as [&str; 0]);
}

/// With LOAD_DATA one thread fills two files in turn: each must be read, or mydumper waits for ever. With 8 threads and
/// the least memory that is taken.
#[test]
fn sixteen_files_are_filled_in_turn_with_the_least_memory() {
    let stage = Stage::new();
    let program = plain(&stage).args(["--max-memory", "80MiB", "--workers", "2"]);
    let run = program.wrapped_in(peak_memory::WRAPPER).args(COMMAND).args(["-t", "8"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    let pairs: Vec<_> =
        (0..8).map(|thread| [format!("shop.t.{thread:05}.dat"), format!("shop.t.{thread:05}.sql")]).collect();
    pairs.iter().flatten().for_each(|name| dumper.open(name));
    for _ in 0..4 {
        pairs.iter().flatten().for_each(|name| dumper.write(name, 3 * MIB));
    }
    for [rows, statement] in &pairs {
        dumper.close(statement);
        dumper.close(rows);
    }
    dumper.finish_and_exit();
    let finished = run.finish().assert_status(0).assert_says("in 16 parts of 5.0 MiB, 16 files at a time");
    stage.assert_whole(&dumper);
    // Beside the parts, which lie in files in memory.
    let peak = peak_memory::mib(&finished);
    assert!(peak < 80 + 80, "{peak} MiB");
    let begun = stage.server.requests_of(Operation::CreateMultipartUpload);
    assert_eq!(begun.iter().filter(|request| request.key.contains("/shop.t.")).count(), 16);
}

/// Small files may be finished before anybody looks at them: none is left in its pipe, and no more than there is room for
/// are taken at a time.
#[test]
fn many_small_files_pass() {
    let stage = Stage::new();
    let (run, mut dumper) = begun(&stage, tight(&stage));
    for number in 0..300 {
        dumper.file(format!("shop.t.{number:05}.sql"), 100 + number);
    }
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_touched() {
    let stage = Stage::new();
    let refused = |options: &[&str], command: &[&str], said: &str| {
        let finished = stage.upload().args(options).args(command).run().assert_status(2);
        finished.assert_says(said).assert_says("hint:").assert_does_not_say("started mydumper");
    };
    for options in [
        &["--keep"] as &[&str],
        &["--max-local", "1GiB"],
        &["--min-free", "1GiB"],
        &["--max-held", "1h"],
        &["--content-check"],
        &["--write-only"],
    ] {
        let said = format!("{} does not go with --no-disk", options[0]);
        refused(&[&["--no-disk"], options].concat(), &COMMAND, &said);
    }
    refused(&["--no-disk"], &[], "--no-disk without a mydumper behind '--'");
    refused(&["--no-disk"], &["--", "nightly.sh", "mydumper.conf"], "--no-disk needs a mydumper");
    refused(&["--compress", "gzip"], &COMMAND, "--compress without --no-disk");
    refused(&["--max-memory", "1GiB"], &COMMAND, "--max-memory without --no-disk");
    for given in ["-c", "--compress=gzip", "--exec-per-thread=x", "--exec-per-thread-extension=.x"] {
        refused(&["--no-disk"], &["--", "mydumper", given], "does not go with --no-disk");
    }
    refused(&["--no-disk"], &["--", "mydumper", "--stream"], "--stream");
    refused(&["--no-disk", "--max-memory", "79MiB"], &["--", "mydumper", "-t", "8"], "too little for 8 threads");
    stage
        .upload()
        .args(["--no-disk", "--compress", "lz4"])
        .args(COMMAND)
        .run()
        .assert_status(2)
        .assert_says("zstd:LEVEL");
    assert_eq!(stage.server.keys(BUCKET), [] as [String; 0]);
}

/// Descriptors that are not there would keep mydumper for ever.
#[test]
fn too_few_open_files_are_refused() {
    let stage = Stage::new();
    let few = ["sh", "-c", "ulimit -n 140; exec \"$@\"", "sh"];
    let finished = plain(&stage).wrapped_in(few).args(COMMAND).run().assert_status(2);
    finished.assert_says("open files are needed without disk").assert_says("ulimit -n");
}

/// Debian's mydumper, a real one.
#[test]
fn an_older_mydumper_is_refused_with_its_version() {
    let stage = Stage::new();
    let older = ["--", "/usr/bin/mydumper", "-B", "shop"];
    let finished = stage.upload().arg("--no-disk").args(older).run().assert_status(2);
    finished.assert_says("mydumper 0.10.0 cannot hand its rows over: --no-disk needs 0.15.1 or newer");
}

#[test]
fn a_dry_run_says_what_it_would_take_of_memory() {
    let stage = Stage::new();
    let finished = plain(&stage).args(["--dry-run", "--max-memory", "100MiB"]).args(COMMAND).args(["-t", "8"]).run();
    finished.assert_status(0).assert_says("up to 96.0 MiB in 16 parts of 6.0 MiB, 16 files at a time");
}
