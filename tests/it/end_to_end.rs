//! The whole way, with nothing made up: a real MariaDB, mydumper, SeaweedFS, and the way back with a plain download or
//! our own, and myloader. Debian's mydumper, or another version:
//!
//!     MYDUMPER=/opt/mydumper/mydumper MYLOADER=/opt/mydumper/myloader scripts/test.sh end_to_end

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::bucket::Bucket;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::mariadb::{MariaDb, mydumper};
use crate::support::sandbox::{Endpoint, PeakLocalBytes, Program, Sandbox, eventually, files_in};
use crate::support::seaweedfs::SeaweedFs;
use crate::support::slow_link::SlowLink;

/// The sample that all of these tests dump and none changes. Its largest table needs more than one part
/// when it is dumped into one file.
const DATABASE: &str = "shop";
const ROWS: u32 = 80_000;

fn mariadb() -> &'static MariaDb {
    static SAMPLE: OnceLock<&MariaDb> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        MariaDb::shared().create_sample(DATABASE, ROWS);
        MariaDb::shared()
    })
}

/// One way of dumping, and where it ends up.
struct Story {
    name: &'static str,
    options: &'static [&'static str],
    sandbox: Sandbox,
    bucket: Bucket,
}

impl Story {
    fn new(name: &'static str, options: &'static [&'static str]) -> Self {
        let bucket = SeaweedFs::shared().bucket(&format!("end-to-end-{name}"));
        mariadb();
        Story { name, options, sandbox: Sandbox::new(), bucket }
    }

    fn upload(&self) -> Program<'_> {
        self.sandbox.mydumper2s3().upload_to(&self.bucket.endpoint)
    }

    fn mydumper(&self) -> Program<'_> {
        self.with_mydumper_arguments(self.sandbox.program(mydumper()))
    }

    /// Goes on where an earlier run was, and lets no file settle for long.
    fn upload_again(&self) -> Program<'_> {
        self.upload().args(["--settle", "0.2"])
    }

    /// With mydumper as a child that reads slowly enough for something to happen meanwhile.
    fn upload_of_a_slow_child(&self) -> Program<'_> {
        let database = SlowLink::to(mariadb().port(), 6_000_000);
        let program = self.with_mydumper_arguments(self.upload_again().arg("--").arg(mydumper()));
        // The last port counts.
        program.args(["-P", &database.port().to_string()])
    }

    fn with_mydumper_arguments<'a>(&self, program: Program<'a>) -> Program<'a> {
        // 1.x runs a compressor: not the scripted one that a sandbox has.
        let program = program.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        program.args(mariadb().mydumper_arguments(DATABASE)).args(self.options).arg("-o").arg(self.sandbox.dump_dir())
    }

    /// The program is there first, then a script runs mydumper.
    fn side_by_side(self) {
        let upload = self.upload().start();
        self.mydumper().run().assert_status(0);
        upload.finish().assert_status(0);
        self.assert_arrived();
    }

    fn in_child_mode(self) {
        let upload = self.upload().arg("--").arg(mydumper());
        self.with_mydumper_arguments(upload).run().assert_status(0);
        self.assert_arrived();
    }

    /// Waits until rows of it are in the bucket.
    fn wait_until_amid(&self) {
        let is_data = |key: &String| key.contains("/shop.") && !key.contains("-schema");
        eventually("a data file is in the bucket", || self.bucket.keys("").iter().any(is_data));
    }

    /// What mydumper had written is in safety, and no dump; 1.0.1 makes it look whole, with a final `metadata`. The next
    /// night finds an empty directory.
    fn stopped_and_run_again(self) {
        let upload = self.upload_of_a_slow_child().start();
        self.wait_until_amid();
        upload.signal(Signal::TERM);
        upload.finish().assert_status(143);
        self.upload_again().args(["--wait", "0"]).run().assert_status(3);
        let stopped = dumps_in(&self.bucket).pop().expect("a claimed prefix");
        let keys = self.bucket.keys("");
        assert!(!keys.contains(&format!("{stopped}/metadata")), "{keys:?}");
        self.sandbox.assert_local_names([] as [&str; 0]);
        let upload = self.upload_again().arg("--").arg(mydumper());
        self.with_mydumper_arguments(upload).run().assert_status(0);
        let whole = dumps_in(&self.bucket).into_iter().find(|prefix| *prefix != stopped).expect("a second dump");
        self.assert_restorable(&whole);
    }

    /// mydumper goes on without us, and the next run with it.
    fn killed_and_run_again(self) {
        let upload = self.upload_of_a_slow_child().start();
        self.wait_until_amid();
        upload.kill().assert_killed_by(Signal::KILL);
        self.upload_again().run().assert_status(0);
        self.assert_arrived();
    }

    /// The directory is empty, the bucket has one whole dump, and it is the database.
    fn assert_arrived(&self) {
        self.sandbox.assert_local_names([] as [&str; 0]);
        let prefixes = dumps_in(&self.bucket);
        assert_eq!(prefixes.len(), 1, "{prefixes:?}");
        assert_eq!(self.bucket.open_uploads(), [] as [&str; 0]);
        self.assert_restorable(&prefixes[0]);
    }

    fn assert_restorable(&self, prefix: &str) {
        let ours = |command: &str| {
            let program = self.sandbox.mydumper2s3().arg(command).args(["--bucket", &self.bucket.endpoint.bucket]);
            program.args(["--prefix", prefix]).connect_to(&self.bucket.endpoint)
        };
        ours("verify").arg("--deep").run().assert_status(0);
        let (download, restore) = (self.sandbox.path("download"), self.sandbox.path("restore"));
        self.bucket.download(prefix, &download);
        ours("restore").arg("--dir").arg(&restore).run().assert_status(0);
        let mut downloaded = files_in(&download);
        downloaded.remove("mydumper2s3.json");
        assert!(files_in(&restore) == downloaded, "{:?}", downloaded.keys());
        std::fs::remove_dir_all(restore).expect("what was restored");
        let restored = format!("restored_{}", self.name.replace('-', "_"));
        mariadb().load(&download, DATABASE, &restored);
        assert_eq!(mariadb().checksums(&restored), mariadb().checksums(DATABASE));
        assert_eq!(mariadb().programs(&restored), mariadb().programs(DATABASE));
        std::fs::remove_dir_all(download).expect("the download");
    }
}

/// The prefixes that somebody claimed, whole or not.
fn dumps_in(bucket: &Bucket) -> Vec<String> {
    let keys = bucket.keys("").into_iter();
    keys.filter_map(|key| key.strip_suffix("/mydumper2s3.json").map(str::to_owned)).collect()
}

#[test]
fn plain_side_by_side() {
    Story::new("plain-beside", &[]).side_by_side();
}

#[test]
fn plain_as_a_child() {
    Story::new("plain-child", &[]).in_child_mode();
}

#[test]
fn compressed_side_by_side() {
    Story::new("compressed-beside", &["-c"]).side_by_side();
}

#[test]
fn compressed_as_a_child() {
    Story::new("compressed-child", &["-c"]).in_child_mode();
}

#[test]
fn in_files_of_1_mb_side_by_side() {
    Story::new("files-beside", &["-F", "1"]).side_by_side();
}

#[test]
fn in_files_of_1_mb_as_a_child() {
    Story::new("files-child", &["-F", "1"]).in_child_mode();
}

#[test]
fn cut_by_rows_side_by_side() {
    Story::new("rows-beside", &["-r", "10000"]).side_by_side();
}

#[test]
fn cut_by_rows_as_a_child() {
    Story::new("rows-child", &["-r", "10000"]).in_child_mode();
}

#[test]
fn plain_stopped_and_run_again() {
    Story::new("plain-stopped", &[]).stopped_and_run_again();
}

#[test]
fn compressed_stopped_and_run_again() {
    Story::new("compressed-stopped", &["-c"]).stopped_and_run_again();
}

#[test]
fn in_files_of_1_mb_stopped_and_run_again() {
    Story::new("files-stopped", &["-F", "1"]).stopped_and_run_again();
}

#[test]
fn plain_killed_and_run_again() {
    Story::new("plain-killed", &[]).killed_and_run_again();
}

#[test]
fn compressed_killed_and_run_again() {
    Story::new("compressed-killed", &["-c"]).killed_and_run_again();
}

#[test]
fn in_files_of_1_mb_killed_and_run_again() {
    Story::new("files-killed", &["-F", "1"]).killed_and_run_again();
}

/// "Script and sidecar may be started in either order": here the dump is over before the program begins.
#[test]
fn a_finished_dump_is_taken_as_it_stands() {
    let story = Story::new("finished", &[]);
    story.mydumper().run().assert_status(0);
    let dumped = story.sandbox.local_files();
    story.upload().run().assert_status(0);
    story.assert_arrived();

    // Byte for byte, and the manifest beside it.
    let mut uploaded = story.bucket.files(&dumps_in(&story.bucket)[0]);
    let manifest = uploaded.remove("mydumper2s3.json").expect("the manifest");
    assert!(uploaded == dumped, "{:?} and {:?}", uploaded.keys(), dumped.keys());
    let manifest: Value = serde_json::from_slice(&manifest).expect("a manifest in JSON");
    assert_ne!(manifest["state"], "uploading");
}

/// "The default is `{host}/%Y-%m-%dT%H%M%SZ`, so that the nightly cron job with no prefix just works": two
/// nights with the same command are two whole dumps, side by side in the bucket.
#[test]
fn two_nights_with_the_same_command() {
    let story = Story::new("two-nights", &[]);
    for night in 1..=2 {
        let upload = story.upload().start();
        story.mydumper().run().assert_status(0);
        upload.finish().assert_status(0);
        story.sandbox.assert_local_names([] as [&str; 0]);
        assert_eq!(dumps_in(&story.bucket).len(), night);
        // No two nights begin in the same second.
        let begun = jiff::Timestamp::now().as_second();
        eventually("the next second", || jiff::Timestamp::now().as_second() > begun);
    }
    let host = rustix::system::uname().nodename().to_str().expect("a host name").to_owned();
    for prefix in dumps_in(&story.bucket) {
        let metadata = story.bucket.get(&format!("{prefix}/metadata")).expect("metadata");
        let metadata = String::from_utf8(metadata).expect("metadata in UTF-8");
        let started = metadata.lines().next().expect("its first line");
        let started = started.trim_start_matches("# ").strip_prefix("Started dump at: ").expect("the start");
        // The sandbox's time zone is UTC.
        let started = started.replace(' ', "T").replacen(':', "", 2);
        assert_eq!(prefix, format!("{host}/{started}Z"));
        story.assert_restorable(&prefix);
        mariadb().sql("DROP DATABASE restored_two_nights");
    }
}

/// "`metadata` there: not proof of success": a dump whose mydumper, or the script around it, ends with
/// another status than 0 is uploaded without it, and the exit status says so.
#[test]
fn a_mydumper_that_fails_commits_nothing() {
    let story = Story::new("failing", &[]);
    let upload = story.upload().arg("--").args(["sh", "-c", "\"$@\"; exit 1", "sh"]).arg(mydumper());
    story.with_mydumper_arguments(upload).run().assert_status(3);
    story.sandbox.assert_local_names([] as [&str; 0]);
    let prefix = dumps_in(&story.bucket).pop().expect("a claimed prefix");
    let files = story.bucket.files(&prefix);
    assert!(files.keys().any(|name| name.starts_with("shop.small.")), "{:?}", files.keys());
    assert!(!files.contains_key("metadata"), "{:?}", files.keys());
}

/// "Killed with SIGKILL at any moment and started again with the same command, while the dump goes on"; and the store is
/// away for some seconds: the same where nothing is made up.
#[test]
fn kills_and_an_outage_amid_a_real_dump_lose_nothing() {
    let story = Story::new("killed", &[]);
    let database = SlowLink::to(mariadb().port(), 6_000_000);
    let store_port = story.bucket.endpoint.url.rsplit(':').next().and_then(|port| port.parse().ok());
    let store = SlowLink::to(store_port.expect("the store's port"), u64::MAX);
    let endpoint = Endpoint { url: format!("http://127.0.0.1:{}", store.port()), ..story.bucket.endpoint.clone() };
    // The large table goes up in parts, and slowly, so that there is a middle to be killed in.
    let upload = || {
        let program = story.sandbox.mydumper2s3().upload_to(&endpoint);
        program.args(["--part-size", "5MiB", "--limit-rate", "3MiB", "--settle", "0.2"])
    };
    // The last port counts.
    let dump = story.mydumper().args(["-P", &database.port().to_string()]).start();
    let conditions: [(&str, &dyn Fn() -> bool); 3] = [
        ("the prefix is claimed", &|| !dumps_in(&story.bucket).is_empty()),
        ("a data file is there", &|| story.bucket.keys("").iter().any(|key| key.contains("/shop.small."))),
        ("a part of a file is there", &|| story.bucket.has_open_parts()),
    ];
    for (what, condition) in conditions {
        let mut run = upload().start();
        // Not amid the trial of its rights: that upload in parts nobody would look for.
        run.wait_for_line("s3://");
        eventually(what, condition);
        run.kill().assert_killed_by(Signal::KILL);
    }
    let mut run = upload().start();
    eventually("it goes on with the parts", || run.text_so_far().contains("found a dump"));
    store.cut();
    run.wait_for_line("files wait locally");
    store.mend();
    run.finish().assert_status(0).assert_says("the store is back");
    dump.finish().assert_status(0);
    story.assert_arrived();
}

/// With default settings, a dump at 10 MB/s in files of 1 MB needs less than a quarter of its size in
/// local disk, and from the dumper's end to the commit it takes less than two intervals and the last
/// file's upload.
#[test]
fn a_steady_dump_needs_a_fraction_of_its_size_on_disk() {
    const FILES: u64 = 200;
    const FILE_BYTES: u64 = 1_000_000;
    let bucket = SeaweedFs::shared().bucket("end-to-end-steady");
    let sandbox = Sandbox::new();
    let upload = sandbox
        .mydumper2s3()
        .arg("--dir")
        .arg(sandbox.dump_dir())
        .args(["--bucket", &bucket.endpoint.bucket])
        .connect_to(&bucket.endpoint)
        .start();
    let mut dumper = FakeDumper::start(&sandbox, Generation::V1_0);
    let disk = PeakLocalBytes::watch(sandbox.dump_dir());
    dumper.generate(FILES, FILE_BYTES, 10_000_000);
    dumper.finish_and_exit();
    let ended = Instant::now();
    upload.finish().assert_status(0);
    let commit = ended.elapsed();

    let dump = FILES * FILE_BYTES;
    println!("peak local disk {} of {dump} bytes, commit after {commit:?}", disk.bytes());
    assert!(disk.bytes() < dump / 4, "{} of {dump}", disk.bytes());
    // An upload of 1 MB on loopback and the program's end are well within a second.
    assert!(commit < Duration::from_secs(2 + 1), "{commit:?}");
    sandbox.assert_local_names([] as [&str; 0]);
    let mut uploaded = bucket.files(&dumps_in(&bucket)[0]);
    uploaded.remove("mydumper2s3.json").expect("the manifest");
    assert!(uploaded == dumper.files(), "{:?}", uploaded.keys());
}
