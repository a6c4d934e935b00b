//! A disk that was full for a moment while mydumper wrote: "before 0.20.1 it writes garbage after a short write, and still
//! ends with 0", so what it wrote must be proved row by row, or the dump is not taken for whole in silence.
//!
//! The scripted dumper has no version that its program file would tell, so it counts as an early one.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use rustix::process::{Pid, Signal};

use crate::support::dir_watch::DirWatch;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{Fault, Operation};
use crate::support::sandbox::{Program, Run, eventually};
use crate::support::stage::Stage;

const COUNTED: &str = "[`shop`.`t`]\nrows = 3\n";
const TWO_ROWS: &[u8] = b"INSERT INTO `t` VALUES(1)\n,(2)\n;\n";
const ONE_ROW: &[u8] = b"INSERT INTO `t` VALUES(3)\n;\n";

/// A disk of a few MiB that only the program and its child see, and which is gone with them. The dump directory is on it,
/// and room beside that for somebody else's files. Only root can do that.
struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// The program runs with it.
    fn under<'a>(stage: &'a Stage, program: Program<'a>) -> (Self, Program<'a>) {
        let place = stage.sandbox.path("disk");
        std::fs::create_dir(&place).expect("a place for it");
        let mount = "mount -t tmpfs -o size=4m disk \"$0\" && mkdir \"$0/dump\" && mount --bind \"$0/dump\" \"$1\" && \
                     shift && exec \"$@\"";
        let dump_dir = stage.sandbox.dump_dir();
        let wrapper = ["unshare", "--mount", "sh", "-c", mount].map(PathBuf::from);
        let wrapper = wrapper.into_iter().chain([place.clone(), dump_dir]);
        (Self { place }, program.wrapped_in(wrapper))
    }

    /// Where a process of the program's sees the path.
    fn seen_by(&self, pid: Pid, name: &str) -> PathBuf {
        let place = self.place.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", pid.as_raw_nonzero())).join(place).join(name)
    }

    /// Fills it to its last byte, until what is returned is dropped.
    fn fill(&self, pid: Pid) -> Filler {
        let path = self.seen_by(pid, "filler");
        let mut file = File::create(&path).expect("a file on the disk");
        while file.write_all(&[0; 4096]).is_ok() {}
        Filler(path)
    }
}

struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A dump with one file before the disk was full.
fn begin(stage: &Stage, generation: Generation, options: &[&str]) -> (SmallDisk, FakeDumper, Run) {
    let upload = stage.upload().args(options).args(["--", "mydumper", "-B", "shop"]);
    let (disk, upload) = SmallDisk::under(stage, upload);
    let mut run = upload.start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(generation);
    run.wait_for_line("claimed");
    (disk, dumper, run)
}

/// "Row counting is switched on for the files written from then on": as many rows as mydumper counted prove them, also
/// where no byte was free.
#[test]
fn needs_root_after_a_full_disk_an_early_mydumpers_rows_are_counted() {
    for (last, status) in [(ONE_ROW, 0), (TWO_ROWS, 3)] {
        let stage = Stage::new();
        let (disk, mut dumper, mut run) = begin(&stage, Generation::V1_0, &[]);
        let filler = disk.fill(run.pid());
        run.wait_for_line("the disk was full (0 B free)");
        drop(filler);
        dumper.file_of("shop.t.00000.sql", TWO_ROWS);
        dumper.file_of("shop.t.00001.sql", last);
        dumper.write_metadata(COUNTED);
        dumper.finish_and_exit();
        let finished = run.finish().assert_status(status);
        assert_eq!(stage.has("metadata"), status == 0);
        match status {
            0 => assert_eq!(stage.manifest()["full_disk"], serde_json::Value::Null, "it is proved: {finished:?}"),
            _ => {
                drop(finished.assert_says("metadata counts 3 rows of 'shop.t', its files hold 4").assert_says("hint:"))
            }
        }
    }
}

/// What went up and was removed before the disk was full is counted in the bucket: a whole dump is proved as one, and garbage
/// is found.
#[test]
fn needs_root_rows_that_went_up_before_a_full_disk_are_counted_in_the_bucket() {
    // More than one piece of a download.
    let early = format!("INSERT INTO `t` VALUES(1)\n{};\n", ",(2)\n".repeat(20_000));
    for (last, status) in [(ONE_ROW, 0), (TWO_ROWS, 3)] {
        let stage = Stage::new();
        let (disk, mut dumper, mut run) = begin(&stage, Generation::V1_0, &[]);
        dumper.file_of("shop.t.00000.sql", early.as_bytes());
        stage.wait_for("shop.t.00000.sql");
        let local = disk.seen_by(run.pid(), "dump/shop.t.00000.sql");
        eventually("it is removed here", || !local.exists());
        // Its blocks are free only when nobody has it open any more.
        let links = || std::fs::read_dir(format!("/proc/{}/fd", run.pid().as_raw_nonzero())).expect("its open files");
        let is_it =
            |link: PathBuf| std::fs::read_link(link).is_ok_and(|file| file.to_string_lossy().contains("00000.sql"));
        eventually("it is closed", || !links().flatten().any(|link| is_it(link.path())));
        let filler = disk.fill(run.pid());
        run.wait_for_line("the disk was full (0 B free)");
        drop(filler);
        dumper.file_of("shop.t.00001.sql", last);
        dumper.write_metadata("[`shop`.`t`]\nrows = 20002\n");
        dumper.finish_and_exit();
        let finished = run.finish().assert_status(status);
        assert_eq!(stage.has("metadata"), status == 0);
        let finished = finished.assert_says("1 files (97.7 KiB) went up before the disk was full");
        if status == 3 {
            finished.assert_says("metadata counts 20002 rows of 'shop.t', its files hold 20003");
        } else {
            assert_eq!(stage.manifest()["full_disk"], serde_json::Value::Null, "it is proved");
        }
    }
}

/// "Where nothing counts rows (0.10): status 3 where 0 B were seen."
#[test]
fn needs_root_a_full_disk_under_a_mydumper_that_counts_no_rows_condemns_the_dump() {
    let stage = Stage::new();
    let (disk, mut dumper, mut run) = begin(&stage, Generation::V0_10, &[]);
    let filler = disk.fill(run.pid());
    run.wait_for_line("the disk was full (0 B free)");
    drop(filler);
    dumper.file_of("shop.t.sql", TWO_ROWS);
    dumper.finish_and_exit();
    run.finish().assert_status(3).assert_says("nothing counts the rows").assert_says("--chunk-filesize");
    stage.assert_incomplete(["shop.t.sql"]);
    assert_eq!(stage.manifest()["full_disk"], "was");
}

/// "Free space below twice what was written since the last look: committed, marked in the manifest and warned; `list` and
/// `verify` show it."
#[test]
fn needs_root_a_disk_that_may_have_been_full_marks_the_dump() {
    let stage = Stage::new();
    let (_disk, mut dumper, mut run) = begin(&stage, Generation::V0_10, &[]);
    // At once: however the looks fall, one sees less free than twice that.
    dumper.file("shop.u.sql", 3 << 20);
    run.wait_for_line("the disk may have been full");
    dumper.file_of("shop.t.sql", TWO_ROWS);
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("verified; but the disk may have been full");
    assert_eq!(stage.manifest()["full_disk"], "may-have-been");
    let prefix = stage.prefix();
    let program = |command: &str| {
        let program = stage.sandbox.mydumper2s3().args([command, "--bucket", crate::support::s3_server::BUCKET]);
        program.connect_to(&stage.endpoint())
    };
    program("list").run().assert_status(0).assert_says("complete, the disk may have been full");
    program("verify").args(["--prefix", &prefix]).run().assert_status(0).assert_says("the disk may have been full");
}

/// "The record must remember it across restarts": with a disk that has room again, and a mydumper that lives on.
#[test]
fn needs_root_a_full_disk_is_remembered_after_a_kill() {
    let stage = Stage::new();
    let (disk, mut dumper, mut run) = begin(&stage, Generation::V0_10, &[]);
    let filler = disk.fill(run.pid());
    run.wait_for_line("the disk was full (0 B free)");
    drop(filler);
    run.kill().assert_killed_by(Signal::KILL);
    dumper.file_of("shop.t.sql", TWO_ROWS);
    let namespace = format!("--mount=/proc/{}/ns/mnt", dumper.pid().as_raw_nonzero());
    let run = stage.upload().wrapped_in(["nsenter", &namespace]).start();
    stage.wait_for("shop.t.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(3).assert_says("the disk was full (0 B free)");
    assert!(!stage.has("metadata"));
}

/// A disk with room is no reason to count anything, nor to say anything.
#[test]
fn needs_root_a_disk_with_room_is_not_mentioned() {
    let stage = Stage::new();
    let (disk, mut dumper, run) = begin(&stage, Generation::V1_0, &[]);
    let mut looks = DirWatch::on(&disk.seen_by(run.pid(), "dump"));
    stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(".sql")));
    for index in 0..8 {
        dumper.file(format!("shop.t.{index:05}.sql"), 100_000);
        looks.wait_for_opens(3);
    }
    stage.server.clear_faults();
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_does_not_say("full").assert_does_not_say("rows counted");
    assert_eq!(stage.files(&stage.prefix()), dumper.files());
}
