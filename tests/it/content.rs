//! What mydumper itself cut short: a broken file is uploaded and reported, and its dump is not committed.

use std::io::Write;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::Fault;
use crate::support::stage::Stage;

/// What the real compressor makes of some rows.
fn compressed(program: &str) -> Vec<u8> {
    let rows: String =
        (0..5_000).map(|row| format!("INSERT INTO `t` VALUES ({row},{});\n", row * 7919 % 1013)).collect();
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("the program '{program}' is needed: {error}"));
    let mut stdin = child.stdin.take().expect("its stdin");
    let writer = std::thread::spawn(move || stdin.write_all(rows.as_bytes()));
    let output = child.wait_with_output().expect("its output");
    writer.join().expect("a writer").expect("all rows written");
    assert!(output.status.success() && output.stdout.len() > 1_000, "{program}: {}", output.status);
    output.stdout
}

/// A dump of files of given bytes, as our child or beside us, without anything that makes it bad but their content.
#[track_caller]
fn dump(stage: &Stage, files: &[(&str, &[u8])], tables: &str) -> FakeDumper {
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    files.iter().for_each(|(name, bytes)| dumper.file_of(name, bytes));
    if !tables.is_empty() {
        dumper.write_metadata(tables);
    }
    dumper.finish_and_exit();
    dumper
}

#[track_caller]
fn assert_broken(files: &[(&str, &[u8])], tables: &str, words: &str) {
    let stage = Stage::new();
    dump(&stage, files, tables);
    stage.upload().run().assert_status(3).assert_says(words);
    let mut names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
    names.sort();
    // Uploaded all the same, and the night after finds an empty directory.
    stage.assert_incomplete(names);
    stage.sandbox.assert_local_names([] as [&str; 0]);
    assert_eq!(stage.uploads_of("metadata").len(), 0);
}

#[track_caller]
fn assert_good(files: &[(&str, &[u8])], tables: &str) {
    let stage = Stage::new();
    let dumper = dump(&stage, files, tables);
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

#[test]
fn what_the_compressors_make_is_whole() {
    let (zstd, gzip) = (compressed("zstd"), compressed("gzip"));
    assert_good(&[("shop.t.00000.sql.zst", &zstd), ("shop.t.00001.sql.zst", &[&zstd[..], &zstd].concat())], "");
    assert_good(&[("shop.t.00000.sql.gz", &gzip), ("shop.t.00001.sql.gz", &[&gzip[..], &gzip].concat())], "");
}

#[test]
fn a_zst_file_that_is_cut_short_is_broken() {
    let whole = compressed("zstd");
    for length in [0, 3, whole.len() / 2, whole.len() - 1] {
        assert_broken(&[("shop.t.00000.sql.zst", &whole[..length])], "", "'shop.t.00000.sql.zst' is broken");
    }
}

#[test]
fn a_gz_file_that_is_cut_short_is_broken_where_the_exit_status_was_not_seen() {
    let whole = compressed("gzip");
    for length in [0, 3, whole.len() / 2, whole.len() - 1] {
        assert_broken(&[("shop.t.00000.sql.gz", &whole[..length])], "", "'shop.t.00000.sql.gz' is broken");
    }
}

/// "`.gz` files are inflated only where the exit status was not seen, or with `--content-check`": that costs CPU.
#[test]
fn a_gz_file_of_a_dump_whose_exit_status_is_seen_is_inflated_where_that_is_wished() {
    let whole = compressed("gzip");
    for (options, status) in [(&[][..], 0), (&["--content-check"], 3)] {
        let stage = Stage::new();
        let run = stage.upload().args(options).args(["--", "mydumper", "-B", "shop"]).start();
        let mut dumper = FakeDumper::accept(&stage.sandbox);
        dumper.begin(Generation::V1_0);
        dumper.file_of("shop.t.00000.sql.gz", &whole[..whole.len() / 2]);
        dumper.finish_and_exit();
        run.finish().assert_status(status);
        assert_eq!(stage.has("metadata"), status == 0);
    }
}

/// The broken file is in the bucket and no more here when the program is killed: its object still says it.
#[test]
fn a_broken_file_is_remembered_after_a_kill() {
    let whole = compressed("zstd");
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().start();
    dumper.file_of("shop.t.00000.sql.zst", &whole[..whole.len() / 2]);
    run.wait_for_line("its content is broken");
    stage.wait_until_moved("shop.t.00000.sql.zst");
    run.kill().assert_killed_by(Signal::KILL);
    dumper.finish_and_exit();
    stage.upload().run().assert_status(3).assert_says("'shop.t.00000.sql.zst' is broken");
    stage.assert_incomplete(["shop.t.00000.sql.zst"]);
}

/// The same, killed after the object was stored and before the file was removed.
#[test]
fn a_broken_file_is_found_again_after_a_kill() {
    let whole = compressed("zstd");
    let stage = Stage::new();
    let held = stage.server.inject(Fault::store_then_hold().key_where(|key| key.ends_with(".zst")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = stage.upload().start();
    dumper.file_of("shop.t.00000.sql.zst", &whole[..whole.len() / 2]);
    held.wait_for_hits(1);
    run.kill().assert_killed_by(Signal::KILL);
    held.clear();
    dumper.finish_and_exit();
    stage.upload().run().assert_status(3).assert_says("'shop.t.00000.sql.zst' is broken");
    stage.assert_incomplete(["shop.t.00000.sql.zst"]);
    assert_eq!(stage.uploads_of("shop.t.00000.sql.zst").len(), 1, "uploaded twice");
}

#[test]
fn a_schema_file_without_a_byte_is_broken() {
    for name in ["shop-schema-create.sql", "shop.t-schema.sql", "shop.v-schema-view.sql"] {
        assert_broken(&[(name, b""), ("shop.t.00000.sql", b"INSERT")], "", "a schema file without a byte");
    }
}

/// "A 0-byte data file is broken where 1.x `metadata` says rows > 0, otherwise only reported (`--build-empty-files`)."
#[test]
fn a_data_file_without_a_byte_is_judged_by_its_rows() {
    let files: [(&str, &[u8]); 2] = [("shop.t-schema.sql", b"CREATE"), ("shop.t.00000.sql", b"")];
    assert_broken(&files, "[`shop`.`t`]\nrows = 3\n", "a data file without a byte");
    assert_good(&files, "[`shop`.`t`]\nrows = 0\n");
    assert_good(&files, "");
}

/// "SQL text whose end is not a statement's end is broken": also where mydumper's exit status was seen.
#[test]
fn sql_that_ends_in_the_middle_of_a_statement_is_broken() {
    let text = format!("INSERT INTO `t` VALUES(1,\"a\")\n{};\n", ",(2,\"b\")\n".repeat(100_000));
    let cut = &text.as_bytes()[..text.len() - 9];
    let words = "its text ends in the middle of a statement";
    assert_broken(&[("shop.t.00000.sql", cut)], "", words);
    assert_broken(&[("shop.t-schema.sql", b"CREATE TABLE `t` (\n  `id` int")], "", words);
    let gzip = flate2_of(cut);
    assert_broken(&[("shop.t.00000.sql.gz", &gzip)], "", words);
    // Text that is no SQL, text without anything, and what a program of the user's made of it under the same name.
    assert_good(&[("shop.t.00000.sql", text.as_bytes()), ("shop.t.00001.dat", cut)], "");
    assert_good(&[("shop.t.00000.sql", b"Salted__x"), ("all-schema-create-tablespace.sql", b"")], "");
}

fn flate2_of(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

const COUNTED: &str = "[`shop`.`t`]\nrows = 3\n[`shop`.`e`]\nrows = 0\n";
const TWO_ROWS: &[u8] = b"INSERT INTO `t` VALUES(1)\n,(2)\n;\n";
const ONE_ROW: &[u8] = b"INSERT INTO `t` VALUES(3)\n;\n";

/// "`--content-check` counts the rows in each table's files against `metadata` before the commit."
#[test]
fn a_table_that_lacks_a_row_is_found_by_the_content_check() {
    let zstd = zstd::encode_all(TWO_ROWS, 1).expect("into memory");
    for (last, status, words) in [
        (ONE_ROW, 0, "rows counted: 2 of 2 tables are as metadata says"),
        (TWO_ROWS, 3, "metadata counts 3 rows of 'shop.t', its files hold 4"),
        (b"SET NAMES binary;\n", 3, "metadata counts 3 rows of 'shop.t', its files hold 2"),
        (b"INSERT INTO `t` VALUES(3,'a\nb')\n;\n", 0, "1 of 2 tables are as metadata says, 1 not counted"),
    ] {
        let stage = Stage::new();
        dump(&stage, &[("shop.t.00000.sql.zst", &zstd), ("shop.t.00001.sql", last)], COUNTED);
        stage.upload().arg("--content-check").run().assert_status(status).assert_says(words);
        assert_eq!(stage.has("metadata"), status == 0);
    }
    // Not asked for.
    assert_good(&[("shop.t.00000.sql.zst", &zstd), ("shop.t.00001.sql", TWO_ROWS)], COUNTED);
    // Of a dump of 0.10.1 that is said.
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    dumper.file_of("shop.t.sql", b"INSERT INTO `t` VALUES\n(1);\n");
    dumper.finish_and_exit();
    stage.upload().arg("--content-check").run().assert_status(0).assert_says("rows not counted");
}

/// The counted file is in the bucket and no more here when the program is killed: its object still says how many.
#[test]
fn rows_that_were_counted_are_remembered_after_a_kill() {
    for (last, status) in [(ONE_ROW, 0), (TWO_ROWS, 3)] {
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        let run = stage.upload().arg("--content-check").start();
        dumper.file_of("shop.t.00000.sql", TWO_ROWS);
        stage.wait_until_moved("shop.t.00000.sql");
        run.kill().assert_killed_by(Signal::KILL);
        dumper.file_of("shop.t.00001.sql", last);
        dumper.write_metadata(COUNTED);
        dumper.finish_and_exit();
        let run = stage.upload().arg("--content-check").run().assert_status(status);
        if status == 0 {
            run.assert_says("rows counted: 2 of 2 tables");
        }
    }
}

/// A dump at rest whose only data file is gone: `metadata` still counts its rows.
#[test]
fn a_table_with_rows_has_a_data_file_or_the_dump_is_not_whole() {
    let schema: (&str, &[u8]) = ("shop.t-schema.sql", b"CREATE TABLE `t` (id INT);\n");
    let words = "rows of tables without a data file (shop.t.00000.sql of 2 rows)";
    assert_broken(&[schema], "[`shop`.`t`]\nrows = 2\n", words);
    assert_good(&[schema], "[`shop`.`t`]\nrows = 0\n");
    let rows: &[u8] = b"INSERT INTO `t` VALUES(1)\n,(2)\n;\n";
    for name in ["shop.t.00000.sql", "shop.t.00003.00001.sql", "shop.t.00000.dat", "shop.t.00000.sqlenc"] {
        assert_good(&[schema, (name, rows)], "[`shop`.`t`]\nrows = 2\n");
    }
    // Of an odd name this version does not say what its file is called.
    assert_good(&[schema, ("shop.mydumper_0.00000.sql", rows)], "[`shop`.`a.b`]\nrows = 2\n");
}

/// The same where an earlier run saw the empty file, which waits for the dump's end.
#[test]
fn a_data_file_without_a_byte_is_judged_by_its_rows_after_a_kill() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = stage.upload().start();
    dumper.file_of("shop.t-schema.sql", "CREATE");
    dumper.file_of("shop.t.00000.sql", "");
    stage.wait_until_moved("shop.t-schema.sql");
    run.kill().assert_killed_by(Signal::KILL);
    dumper.write_metadata("[`shop`.`t`]\nrows = 3\n");
    dumper.finish_and_exit();
    stage.upload().run().assert_status(3).assert_says("a data file without a byte");
}

/// "`--no-data`, `--no-schemas`, `--format` and unknown extensions from `--exec-per-thread` make good dumps."
#[test]
fn every_way_to_dump_makes_a_good_dump() {
    let schemas: [(&str, &[u8]); 2] = [("shop-schema-create.sql", b"CREATE"), ("shop.t-schema.sql", b"CREATE")];
    assert_good(&schemas, "[`shop`.`t`]\nrows = 0\n");
    assert_good(&[("shop.t.00000.sql", b"INSERT")], "[`shop`.`t`]\nrows = 3\n");
    assert_good(&[schemas[1], ("shop.t.00000.sql", b"LOAD DATA"), ("shop.t.00000.dat", b"1\t2\n")], "");
    assert_good(&[("shop.t.00000.sql.age", b"secret"), ("shop.t.00001.sql.xz", b"")], "");
}

/// "ENOSPC seen by mydumper leaves closed empty files and a `metadata`": here with a compressor, as 1.0.1 leaves it.
#[test]
fn a_full_disk_under_mydumper_is_seen_by_its_files() {
    let zstd = compressed("zstd");
    assert_broken(
        &[("shop.t-schema.sql.zst", &zstd), ("shop.t.00000.sql.zst", &zstd), ("shop.t.00001.sql.zst", b"")],
        "[`shop`.`t`]\nrows = 3\n",
        "'shop.t.00001.sql.zst' is broken",
    );
}

/// A file that is written to, cut or replaced while it is read: what is committed is what is there in the end.
#[test]
fn a_file_that_changes_while_it_is_read_is_read_again() {
    type Meddle = fn(&mut FakeDumper, &str);
    let meddlers: [Meddle; 3] = [
        |dumper, name| {
            dumper.reopen(name);
            dumper.write(name, 10);
            dumper.close(name);
        },
        |dumper, name| dumper.file(name, 6_000_000),
        |dumper, name| {
            // Under a name that no look takes for a file of the dump.
            dumper.file_of("resume.partial", vec![b'x'; 12 << 20]);
            dumper.rename("resume.partial", name);
        },
    ];
    std::thread::scope(|scope| {
        for meddle in meddlers {
            scope.spawn(move || {
                let stage = Stage::new();
                let is_file = |key: &str| key.ends_with("/shop.t.00000.sql");
                let held = stage.server.inject(Fault::hold().key_where(is_file));
                let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
                let run = stage.upload().args(["--part-size", "5MiB"]).start();
                dumper.file("shop.u.00000.sql", 1_000);
                dumper.file("shop.t.00000.sql", 12 << 20);
                held.wait_for_hits(1);
                meddle(&mut dumper, "shop.t.00000.sql");
                held.clear();
                dumper.finish_and_exit();
                run.finish().assert_status(0).assert_does_not_say("the store cannot be used");
                stage.assert_whole(&dumper);
            });
        }
    });
}
