//! The support is trusted by every other test, so it has tests of its own.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::bucket::Bucket;
use crate::support::fake_dumper::{CONTROL_VARIABLE, FakeDumper, Generation, SCRIPT_VARIABLE};
use crate::support::mariadb::{MariaDb, mydumper};
use crate::support::sandbox::{Sandbox, eventually};
use crate::support::seaweedfs::{ADMIN, READER, SeaweedFs, TENANT, TENANT_BUCKET};

/// Whether somebody has it open for writing, as the kernel says it.
fn is_open_for_writing(path: &Path) -> bool {
    let file = File::open(path).expect("a file to probe");
    // SAFETY: fcntl with F_SETLEASE takes an integer and touches no memory of ours. The lease goes with
    // the descriptor.
    #[allow(unsafe_code)]
    let leased = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    leased == -1
}

#[test]
fn a_dump_is_written_as_mydumper_writes_it() {
    for generation in Generation::ALL {
        let sandbox = Sandbox::new();
        let mut dumper = FakeDumper::launch(&sandbox);
        sandbox.assert_local_names([] as [&str; 0]);

        dumper.create_metadata(generation);
        assert_eq!(sandbox.local_files()["metadata.partial"], b"");
        dumper.write_started_at("2026-01-02 03:04:05");
        dumper.file("shop.t.sql", 100_000);
        dumper.file_of("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
        sandbox.assert_local_names(["metadata.partial", "shop-schema-create.sql", "shop.t.sql"]);
        dumper.finish_and_exit();

        assert_eq!(sandbox.local_files(), dumper.files());
        let metadata = String::from_utf8(dumper.content("metadata")).expect("text");
        let comment = if generation == Generation::V1_0 { "# " } else { "" };
        assert!(metadata.starts_with(&format!("{comment}Started dump at: 2026-01-02 03:04:05\n")));
        assert!(metadata.contains(&format!("\n{comment}Finished dump at: 20")), "{metadata}");
    }
}

#[test]
fn a_file_is_open_until_its_last_writer_closes_it() {
    let sandbox = Sandbox::new();
    let file = sandbox.dump_dir().join("shop.t.sql.zst");
    let mut dumper = FakeDumper::start(&sandbox, Generation::V1_0);
    assert!(is_open_for_writing(&sandbox.dump_dir().join("metadata.partial")));

    dumper.open("shop.t.sql.zst");
    assert!(is_open_for_writing(&file));
    let mut compressor = dumper.compressor(&sandbox, "shop.t.sql.zst");
    dumper.close("shop.t.sql.zst");
    assert!(is_open_for_writing(&file), "the compressor still has it");
    compressor.write_bytes(&mut dumper, "compressed");
    compressor.close();
    assert!(!is_open_for_writing(&file));
    assert_eq!(std::fs::read(&file).expect("the file"), b"compressed");
    compressor.exit(0);

    dumper.finish_without_rename();
    sandbox.assert_local_names(["metadata.partial", "shop.t.sql.zst"]);
    assert!(!is_open_for_writing(&sandbox.dump_dir().join("metadata.partial")));
}

#[test]
fn a_compressor_outlives_a_killed_dumper() {
    let sandbox = Sandbox::new();
    let file = sandbox.dump_dir().join("shop.t.sql.gz");
    let mut dumper = FakeDumper::start(&sandbox, Generation::V1_0);
    dumper.open("shop.t.sql.gz");
    let mut compressor = dumper.compressor(&sandbox, "shop.t.sql.gz");
    dumper.kill();
    assert!(is_open_for_writing(&file));
    compressor.write_bytes(&mut dumper, "the last of it");
    compressor.exit(0);
    assert!(!is_open_for_writing(&file));
    sandbox.assert_local_names(["metadata.partial", "shop.t.sql.gz"]);
}

#[test]
fn the_scripted_dumper_looks_like_mydumper_in_proc() {
    let sandbox = Sandbox::new();
    let dumper = FakeDumper::start(&sandbox, Generation::V0_10);
    let proc = Path::new("/proc").join(dumper.pid().as_raw_nonzero().to_string());
    assert_eq!(std::fs::read_to_string(proc.join("comm")).expect("its name"), "mydumper\n");
    let line = std::fs::read_to_string(proc.join("cmdline")).expect("its command line");
    assert!(line.contains(&format!("--outputdir\0{}", sandbox.dump_dir().display())), "{line:?}");
}

#[test]
fn odd_names_and_kinds_of_files() {
    let sandbox = Sandbox::new();
    let mut dumper = FakeDumper::start(&sandbox, Generation::V0_10);
    let odd = ["shop.two words.sql", "#shop.50%.sql", "shop.größe.sql", "shop.new\nline\\.sql"];
    odd.iter().for_each(|name| dumper.file(name, 10));
    dumper.rename("#shop.50%.sql", "shop.renamed.sql");
    dumper.delete("shop.two words.sql");
    assert_eq!(sandbox.local_files(), dumper.files());

    dumper.reopen("shop.renamed.sql");
    dumper.write_bytes("shop.renamed.sql", "more");
    dumper.close("shop.renamed.sql");
    assert_eq!(sandbox.local_files(), dumper.files());

    dumper.fifo("shop.fifo.sql");
    dumper.symlink("/etc/hostname", "shop.link.sql");
    dumper.mkdir("0");
    assert_eq!(sandbox.local_names().len(), 3 + 4);
}

#[test]
fn generated_files_come_at_the_given_rate() {
    let sandbox = Sandbox::new();
    let mut dumper = FakeDumper::start(&sandbox, Generation::V1_0);
    let begun = std::time::Instant::now();
    dumper.generate(4, 100_000, 2_000_000);
    assert!(begun.elapsed() >= Duration::from_millis(180), "{:?}", begun.elapsed());
    assert_eq!(sandbox.local_files(), dumper.files());
}

#[test]
fn on_sigterm_it_can_do_what_1_0_1_does() {
    let sandbox = Sandbox::new();
    let mut dumper = FakeDumper::start(&sandbox, Generation::V1_0);
    dumper.open("shop.t.sql");
    dumper.write("shop.t.sql", 5_000);
    dumper.finish_on_sigterm();
    dumper.signal(Signal::TERM);
    dumper.wait_for_end().expect("our own process").assert_status(0);
    sandbox.assert_local_names(["metadata", "shop.t.sql"]);
    assert!(String::from_utf8_lossy(&sandbox.local_files()["metadata"]).contains("Finished dump at"));
}

#[test]
fn ends_of_a_dumper_have_their_status() {
    let sandbox = Sandbox::new();
    let mut dumper = FakeDumper::launch(&sandbox);
    dumper.ignore_sigterm();
    dumper.signal(Signal::TERM);
    dumper.log_error("** (mydumper): CRITICAL **: lost connection");
    dumper.tell("exit", &["1"]);
    let finished = dumper.wait_for_end().expect("our own process").assert_status(1);
    assert_eq!(finished.stderr, "** (mydumper): CRITICAL **: lost connection\n");

    let mut dumper = FakeDumper::launch(&sandbox);
    dumper.signal(Signal::KILL);
    dumper.wait_for_end().expect("our own process").assert_killed_by(Signal::KILL);
}

#[test]
fn a_script_needs_nobody_to_drive_it() {
    let sandbox = Sandbox::new();
    let script = sandbox.path("script");
    let text = "# a small dump\nstart 1.0\nstarted\nopen shop.t.sql\nwrite shop.t.sql 1000\nclose shop.t.sql\n\
                log Thread 1 dumping data\ngenerate 2 100 0\nsleep 1\nfinish\nexit 3\n";
    std::fs::write(&script, text).expect("a script");
    sandbox
        .program("mydumper")
        .arg("-o")
        .arg(sandbox.dump_dir())
        .env(SCRIPT_VARIABLE, &script)
        .without_env(CONTROL_VARIABLE)
        .run()
        .assert_status(3)
        .assert_says("Thread 1 dumping data");
    sandbox.assert_local_names(["metadata", "shop.orders.00000.sql", "shop.orders.00001.sql", "shop.t.sql"]);
}

#[test]
fn whatever_a_sandbox_started_ends_with_it() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.program("sh").args(["-c", "setsid sleep 1000 & echo $!; wait"]).start();
    let sleeper = run.wait_for_line("");
    let process = Path::new("/proc").join(&sleeper);
    assert!(process.exists());
    run.kill().assert_killed_by(Signal::KILL);
    assert!(process.exists());
    drop(sandbox);
    // A zombie, until whoever took the orphan in has reaped it, has no environment any more.
    eventually("the sleeper is gone", || std::fs::read(process.join("environ")).unwrap_or_default().is_empty());
}

#[test]
fn the_environment_of_the_host_stays_outside() {
    let sandbox = Sandbox::new();
    let finished = sandbox.program("env").run().assert_status(0).assert_says("AWS_EC2_METADATA_DISABLED=true");
    let names: Vec<&str> = finished.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    let known = [
        "AWS_EC2_METADATA_DISABLED",
        "HOME",
        "LANG",
        "PATH",
        "RUST_BACKTRACE",
        "SCRIPTED_DUMPER_CONTROL",
        "TEST_SANDBOX",
        "TZ",
    ];
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
}

#[test]
fn a_program_can_have_a_terminal() {
    let sandbox = Sandbox::new();
    let looks = || sandbox.program("sh").args(["-c", "test -t 2 && stty size <&2"]);
    looks().run().assert_status(1);
    looks().on_a_terminal().run().assert_status(0).assert_says("30 100");
}

#[test]
#[should_panic(expected = "it ended without saying 'ready': sh -c echo not yet\nnot yet\n")]
fn a_line_that_never_comes_fails_the_test_and_shows_the_others() {
    let sandbox = Sandbox::new();
    sandbox.program("sh").args(["-c", "echo not yet"]).start().wait_for_line("ready");
}

#[test]
#[should_panic(expected = "still running after 200ms: sh -c echo working; sleep 1000\nworking\n")]
fn a_program_that_hangs_fails_the_test_and_is_killed() {
    let sandbox = Sandbox::new();
    let program = sandbox.program("sh").args(["-c", "echo working; sleep 1000"]);
    program.time_limit(Duration::from_millis(200)).run();
}

#[test]
fn needs_root_a_program_can_run_as_somebody_else() {
    let sandbox = Sandbox::new();
    sandbox.program("id").arg("-u").by_nobody().run().assert_status(0).assert_says("65534");
    let looks = sandbox.program("sh").args(["-c", "ls -d $HOME && touch $HOME/mine"]);
    looks.by_nobody().run().assert_status(0);
}

#[test]
fn needs_root_a_dumper_can_live_in_another_pid_namespace() {
    let sandbox = Sandbox::new();
    let mut dumper = FakeDumper::launch_wrapped_in(&sandbox, ["unshare", "--pid", "--fork"]);
    dumper.begin(Generation::V1_0);
    dumper.file("shop.t.sql", 100);
    assert_eq!(sandbox.local_files(), dumper.files());
    let status = Path::new("/proc").join(dumper.pid().as_raw_nonzero().to_string()).join("status");
    let status = std::fs::read_to_string(status).expect("the dumper as we see it");
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("its pids");
    assert!(pids.ends_with("\t1"), "the first process of its own namespace: {pids}");
    dumper.exit(0);
}

#[test]
fn seaweedfs_keeps_what_is_put_into_a_bucket() {
    let bucket = SeaweedFs::shared().bucket("support-put-get");
    assert!(bucket.keys("").is_empty());
    bucket.put("dumps/one/shop.t.sql", "the bytes");
    bucket.put("dumps/one/nested/other", "not of that prefix");
    let object = &bucket.objects("dumps/one/")["dumps/one/shop.t.sql"];
    assert_eq!((object.bytes, object.etag.as_str()), (9, "ab48e870377e5d9fbe11663949e229b0"));
    assert_eq!(bucket.get("dumps/one/shop.t.sql").as_deref(), Some(&b"the bytes"[..]));
    assert_eq!(bucket.get("dumps/one/missing"), None);
    let files = bucket.files("dumps/one");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["shop.t.sql"]);
    bucket.delete("dumps/one/shop.t.sql");
    assert_eq!(bucket.keys(""), ["dumps/one/nested/other"]);
    assert!(bucket.open_uploads().is_empty());
}

#[test]
fn seaweedfs_lets_each_do_what_he_may() {
    let seaweedfs = SeaweedFs::shared();
    let bucket = seaweedfs.bucket("support-rights");
    bucket.put("key", "bytes");

    let reader = bucket.asked_with(READER.access_key, READER.secret_key);
    assert_eq!(reader.keys(""), ["key"]);
    assert!(!reader.may_put("more"));

    let tenant = bucket.asked_with(TENANT.access_key, TENANT.secret_key);
    assert!(!tenant.may_put("more"), "in a bucket of others");
    assert!(Bucket::new(seaweedfs.endpoint(TENANT_BUCKET, &TENANT)).may_put("more"));

    assert!(!bucket.asked_with(ADMIN.access_key, "a wrong secret").may_put("more"));
    assert_eq!(bucket.keys(""), ["key"]);
}

#[test]
fn a_sample_database_survives_mydumper_and_myloader() {
    let mariadb = MariaDb::shared();
    mariadb.create_sample("support_sample", 1_000);
    let sandbox = Sandbox::new();
    sandbox
        .program(mydumper())
        .args(mariadb.mydumper_arguments("support_sample"))
        .arg("-o")
        .arg(sandbox.dump_dir())
        .run()
        .assert_status(0);
    mariadb.load(&sandbox.dump_dir(), "support_sample", "support_restored");

    let checksums = mariadb.checksums("support_sample");
    assert_eq!(checksums.len(), 10);
    assert_ne!(checksums["big"], "0");
    assert_eq!(mariadb.checksums("support_restored"), checksums);
    let programs = mariadb.programs("support_sample");
    let kinds = ["event nightly", "routine doubled", "routine forget", "trigger small_changed", "view cheap"];
    assert_eq!(programs, kinds);
    assert_eq!(mariadb.programs("support_restored"), programs);
}
