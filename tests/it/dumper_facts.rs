//! How mydumper treats its data files, and what must come of it; `dump_lives` has how a dump begins and ends. Each fact was seen on a real mydumper; here the scripted
//! dumper does it on command, in the order that hurts.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::dir_watch::DirWatch;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{Fault, Operation};
use crate::support::sandbox::{Program, Run};
use crate::support::stage::Stage;

pub const NOTHING: [&str; 0] = [];

/// A run that follows a dump.
#[track_caller]
pub fn following(upload: Program<'_>) -> Run {
    let mut run = upload.start();
    run.wait_for_line("found a dump (running)");
    run
}

/// A dump that says that it began then: two of one second would have one prefix.
#[track_caller]
pub fn begun_at(stage: &Stage, generation: Generation, time: &str) -> FakeDumper {
    let mut dumper = FakeDumper::launch(&stage.sandbox);
    dumper.create_metadata(generation);
    dumper.write_started_at(time);
    dumper
}

/// A file of another dump. The clock of a filesystem is coarse: without a doubt it is older than what comes next only
/// if it says so.
pub fn put_of_yesterday(stage: &Stage, name: &str) {
    stage.sandbox.put_local(name, "of another dump");
    make_old(&stage.sandbox.dump_dir().join(name));
}

pub fn make_old(file: &Path) {
    let yesterday = SystemTime::now() - Duration::from_secs(24 * 3600);
    File::open(file).and_then(|file| file.set_modified(yesterday)).expect("an old file");
}

/// What `zstd` would make of some bytes that cannot be compressed: one frame with one raw block (RFC 8878).
pub fn zstd_frame(bytes: &[u8]) -> Vec<u8> {
    let size = u8::try_from(bytes.len()).expect("a size in one byte");
    let block = u32::from(size) << 3 | 1;
    [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, size], &block.to_le_bytes()[..3], bytes].concat()
}

/// 0.10.1 `-F`: "`t.00001.sql` closed, then about 0.1 ms later renamed to `t.sql` if the table fits one file".
#[test]
fn a_file_that_is_renamed_right_after_its_close_has_one_name_in_the_bucket() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = following(stage.upload());
    for table in 0..5 {
        let first = format!("shop.t{table}.00001.sql");
        dumper.file(&first, 10_000);
        dumper.rename(&first, format!("shop.t{table}.sql"));
    }
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    for table in 0..5 {
        assert_eq!(stage.uploads_of(&format!("shop.t{table}.00001.sql")).len(), 0);
    }
}

/// "Empty table: created, closed, deleted", with 1.0.1 "seen within 200 ms".
#[test]
fn a_file_that_is_deleted_right_after_its_close_is_never_uploaded() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.file("shop.full.00000.sql", 1_000);
    dumper.file("shop.empty.00000.sql", 0);
    dumper.delete("shop.empty.00000.sql");
    stage.let_looks_pass();
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    assert_eq!(stage.uploads_of("shop.empty.00000.sql").len(), 0);
}

/// mydumper takes back only what has no row. A file with rows that goes away while its bytes are on their way, or after
/// that, was removed by somebody else, and its object is proved.
#[test]
fn a_file_that_somebody_removes_after_it_was_read_stays_in_the_bucket() {
    for keep in [false, true] {
        let stage = Stage::new();
        let name = "shop.t.00000.sql";
        let held = stage.server.inject(Fault::store_then_hold().key_where(move |key| key.ends_with(name)));
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
        let run = following(stage.upload().args(keep.then_some("--keep")));
        dumper.file(name, 20);
        held.wait_for_hits(1);
        dumper.delete(name);
        held.clear();
        dumper.file("shop.full.sql", 1_000);
        dumper.finish_and_exit();
        run.finish().assert_status(0);
        assert_eq!(stage.names(), ["metadata", "shop.full.sql", name]);
        assert_eq!(stage.server.requests_of(Operation::DeleteObject).len(), 0);
    }
}

/// "Any other file that goes away before it is proved was removed by somebody else: not whole."
#[test]
fn a_file_that_somebody_removes_before_its_upload_makes_the_dump_incomplete() {
    for (name, bytes) in [
        ("shop.t.00000.sql", b"INSERT".as_slice()),
        ("shop.t-schema.sql", b"CREATE"),
        ("shop.t.00000.sql.zst", &[0; 14]),
        ("shop.t.00000.dat", b"1"),
    ] {
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        let run = following(stage.upload_with_defaults().args(["--interval", "0.1", "--settle", "60"]));
        dumper.file("shop.full.00000.sql", 1_000);
        dumper.file_of(name, bytes);
        stage.let_looks_pass();
        dumper.delete(name);
        dumper.finish_and_exit();
        let said = format!("'{name}' is missing");
        run.finish().assert_status(3).assert_says(&said);
        stage.assert_incomplete(["shop.full.00000.sql"]);
    }
}

/// The size that a look saw is a lower bound: written to after that and removed before the next one, the file had rows.
#[test]
fn a_file_that_grew_before_somebody_removed_it_is_missed() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload_with_defaults().args(["--interval", "1"]));
    dumper.file("shop.full.00000.sql", 1_000);
    dumper.open("shop.t.00000.sql");
    DirWatch::on(&stage.sandbox.dump_dir()).wait_for_opens(4);
    dumper.write("shop.t.00000.sql", 4_000);
    dumper.close("shop.t.00000.sql");
    dumper.delete("shop.t.00000.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(3).assert_says("'shop.t.00000.sql' is missing").assert_says("4000 bytes");
}

/// What mydumper takes back: no row, plain and compressed, and the `.sql` beside a `.dat` without one. It is not even
/// uploaded, since it waits for the dump's end.
#[test]
fn what_has_no_row_is_taken_back_and_was_never_uploaded() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.file("shop.full.00000.sql", 1_000);
    let gzip_of_nothing = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let empty: [(&str, &[u8]); 5] = [
        ("shop.a.00000.sql", b""),
        ("shop.b.00000.sql.gz", &gzip_of_nothing),
        ("shop.c.00000.sql.zst", &[0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x00, 0x01, 0x00, 0x00, 0x99, 0xe9, 0xd8, 0x51]),
        ("shop.d.00000.dat", b""),
        ("shop.d.00000.sql", b"LOAD DATA LOCAL INFILE 'shop.d.00000.dat';\n"),
    ];
    empty.iter().for_each(|(name, bytes)| dumper.file_of(name, *bytes));
    stage.wait_until_moved("shop.full.00000.sql");
    stage.let_looks_pass();
    empty.iter().for_each(|(name, _)| dumper.delete(name));
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
    empty.iter().for_each(|(name, _)| assert_eq!(stage.uploads_of(name).len(), 0, "{name}"));
}

/// "Uploading the old name too breaks the restore ('Duplicate entry')".
#[test]
fn a_file_that_is_renamed_after_its_upload_moves_in_the_bucket() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = following(stage.upload().arg("--keep"));
    dumper.file("shop.t.00001.sql", 1_000);
    stage.wait_for("shop.t.00001.sql");
    dumper.rename("shop.t.00001.sql", "shop.t.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole_at(&stage.prefix(), &dumper);
}

/// The same while its bytes are just on their way: the old name must go again.
#[test]
fn a_file_that_is_renamed_while_it_is_uploaded_has_one_name_in_the_bucket() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::store_then_hold().key_where(|key| key.ends_with("/shop.t.00001.sql")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = following(stage.upload());
    dumper.file("shop.t.00001.sql", 1_000);
    held.wait_for_hits(1);
    dumper.rename("shop.t.00001.sql", "shop.t.sql");
    held.clear();
    stage.wait_until_moved("shop.t.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// A name that comes back while the object of its first owner is being deleted: the deletion must not hit the new one.
#[test]
fn a_name_that_comes_back_has_its_new_bytes_in_the_bucket() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().on(Operation::DeleteObject));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = following(stage.upload().arg("--keep"));
    dumper.file_of("shop.t.00001.sql", "the first bytes");
    stage.wait_for("shop.t.00001.sql");
    dumper.rename("shop.t.00001.sql", "shop.t.sql");
    held.wait_for_hits(1);
    dumper.file_of("shop.t.00001.sql", "the second bytes");
    stage.let_looks_pass();
    assert_eq!(stage.uploads_of("shop.t.00001.sql").len(), 1, "the old object goes before the new one comes");
    held.clear();
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole_at(&stage.prefix(), &dumper);
}

/// "An uploaded copy of a withdrawn file that can't be deleted: no commit, status 1."
#[test]
fn a_withdrawn_file_whose_object_cannot_be_deleted_forbids_the_commit() {
    let stage = Stage::new();
    stage.server.inject(Fault::answer(403, "AccessDenied").on(Operation::DeleteObject));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = following(stage.upload().arg("--keep"));
    dumper.file("shop.full.sql", 1_000);
    dumper.file("shop.t.00001.sql", 20);
    stage.wait_for("shop.t.00001.sql");
    dumper.rename("shop.t.00001.sql", "shop.t.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(1).assert_says("shop.t.00001.sql").assert_says("cannot be deleted");
    assert!(!stage.has("metadata"));
}

/// 1.0.1 `-c`: "the child writes to the inherited fd": open by mydumper **and** the child.
#[test]
fn a_file_is_open_until_its_compressor_closes_it() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.open("shop.t.00000.sql.zst");
    let mut compressor = dumper.compressor(&stage.sandbox, "shop.t.00000.sql.zst");
    dumper.close("shop.t.00000.sql.zst");
    let frame = zstd_frame(b"all of it");
    let (first, rest) = frame.split_at(12);
    compressor.write_bytes(&mut dumper, first);
    stage.let_looks_pass();
    assert_eq!(stage.uploads_of("shop.t.00000.sql.zst").len(), 0, "its compressor still writes");
    compressor.write_bytes(&mut dumper, rest);
    compressor.exit(0);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "Compressor children may write for about 1 ms after an aborted mydumper has exited: wait for every writer, not only
/// for the process."
#[test]
fn a_compressor_that_outlives_mydumper_is_waited_for() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = following(stage.upload());
    dumper.file("shop-schema-create.sql", 100);
    dumper.open("shop.t.00000.sql.zst");
    let mut compressor = dumper.compressor(&stage.sandbox, "shop.t.00000.sql.zst");
    dumper.kill();
    run.wait_for_line("the dump has ended");
    stage.wait_until_moved("shop-schema-create.sql");
    assert!(run.is_running());
    assert_eq!(stage.uploads_of("shop.t.00000.sql.zst").len(), 0);
    compressor.write_bytes(&mut dumper, "its last words");
    compressor.exit(0);
    run.finish().assert_status(3);
    stage.assert_incomplete(["shop-schema-create.sql", "shop.t.00000.sql.zst"]);
    assert_eq!(stage.files(&stage.prefix())["shop.t.00000.sql.zst"], b"its last words");
    stage.sandbox.assert_local_names(NOTHING);
}

/// 0.13 to 0.15.1 `-c`: "`t.00000.sql` is a FIFO in the dump directory; the real file is `t.00000.sql.zst`". Opening it
/// would block, or steal data.
#[test]
fn a_fifo_is_left_alone() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = following(stage.upload());
    dumper.fifo("shop.t.00000.sql");
    dumper.file_of("shop.t.00000.sql.zst", zstd_frame(b"INSERT INTO `t` VALUES(1);"));
    stage.wait_until_moved("shop.t.00000.sql.zst");
    dumper.delete("shop.t.00000.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_does_not_say("FIFO");
    stage.assert_whole(&dumper);
}
