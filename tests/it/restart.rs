//! Killed and started again, and two programs where one should be: what an earlier run has done is not done again, what
//! it saw is not forgotten, and nobody commits a mixture. (Killed at each step: `a_kill_at_any_step_loses_nothing`.)

use rustix::process::Signal;

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{ACCESS_KEY, AccessKey, BUCKET, Fault, Operation, Permission, SECRET_KEY};
use crate::support::sandbox::{Program, Sandbox, eventually};
use crate::support::stage::{MANIFEST, Stage};

const MIB: u64 = 1024 * 1024;

fn in_parts(stage: &Stage) -> Program<'_> {
    stage.upload().args(["--part-size", "5MiB", "--wait", "0"])
}

/// An upload in parts goes on where it was: the parts that the store has are not sent again. Uploads of others are left
/// alone, below the prefix as well as beside it.
#[test]
fn parts_that_the_store_has_are_not_sent_again() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().on(Operation::UploadPart).part(2));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    // Closed before anybody looks: it goes up as a whole.
    dumper.file("shop.t.00000.sql", 18 * MIB);
    let mut run = in_parts(&stage).start();
    run.wait_for_line("found a dump (running)");
    dumper.finish_and_exit();
    held.wait_for_hits(1);
    stage.server.wait_until("the other three parts are stored", |requests| {
        let parts = requests.iter().filter(|request| request.operation == Operation::UploadPart);
        parts.filter(|request| request.is_ok()).count() == 3
    });
    run.kill().assert_killed_by(Signal::KILL);
    held.clear();
    let strangers = ["elsewhere/shop.t.00000.sql".to_owned(), format!("{}/below/shop.t.00000.sql", stage.prefix())];
    strangers.iter().for_each(|key| stage.server.begin_upload_directly(BUCKET, key));

    let before = stage.server.requests().len();
    in_parts(&stage).arg("-v").run().assert_status(0).assert_says("continuing the upload");
    let again = stage.server.requests().split_off(before);
    let parts: Vec<_> = again.iter().filter_map(|request| request.part).collect();
    assert_eq!(parts, [2], "the parts that were sent");
    let left: Vec<_> = stage.server.open_multipart_uploads(BUCKET).into_iter().map(|(key, _)| key).collect();
    let mut strangers = strangers.to_vec();
    strangers.sort();
    assert_eq!(left, strangers, "uploads of others");
    assert_eq!(stage.files(&stage.prefix()), dumper.files());
}

/// Whose user metadata, key and access list an upload has, no listing shows: only what is known to be ours goes on. Begun
/// before our run, or between two runs; without a part, with the very parts of our file, or with others.
#[test]
fn a_strangers_upload_is_neither_continued_nor_aborted() {
    let bytes = vec![b'-'; 11 * MIB as usize];
    let (first, others) = (&bytes[..5 * MIB as usize], vec![b'x'; 5 * MIB as usize]);
    let strangers = |stage: &Stage| {
        for parts in [&[][..], &[first], &[&others]] {
            stage.server.begin_upload_of_a_stranger(BUCKET, "p/shop.t.00000.sql", parts);
        }
        stage.server.open_multipart_uploads(BUCKET)
    };
    for is_between in [false, true] {
        let stage = Stage::new();
        let run = || in_parts(&stage).args(["--prefix", "p"]);
        let mut theirs = if is_between { Vec::new() } else { strangers(&stage) };
        let held = stage.server.inject(Fault::hold().on(Operation::UploadPart).part(2));
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.file_of("shop.t.00000.sql", &bytes);
        let killed = run().start();
        dumper.finish_and_exit();
        held.wait_for_hits(1);
        stage.server.wait_until("the other two parts are stored", |requests| {
            let parts = requests.iter().filter(|request| request.operation == Operation::UploadPart);
            parts.filter(|request| request.is_ok()).count() == 2
        });
        killed.kill().assert_killed_by(Signal::KILL);
        held.clear();
        if is_between {
            let ours = stage.server.open_multipart_uploads(BUCKET);
            theirs = strangers(&stage);
            theirs.retain(|upload| !ours.contains(upload));
        }
        let before = stage.server.requests().len();
        let finished = run().arg("-v").run().assert_status(0).assert_says("continuing the upload");
        finished.assert_says("s3://test-bucket/p/ has unfinished uploads that are not known to be of this dump (3)");
        let parts: Vec<_> =
            stage.server.requests().split_off(before).iter().filter_map(|request| request.part).collect();
        assert_eq!(parts, [2], "the parts that were sent");
        assert_eq!(stage.server.open_multipart_uploads(BUCKET), theirs);
        stage.assert_committed_at("p", &dumper);
        let object = stage.server.object(BUCKET, "p/shop.t.00000.sql").expect("uploaded");
        let metadata = &object.attributes.metadata;
        assert!(metadata.contains_key("dump-id") && !metadata.contains_key("whose"), "{metadata:?}");
    }
}

/// A filesystem without extended attributes forgets which upload is ours: it is sent anew, and left alone.
#[test]
fn an_upload_that_nothing_tells_to_be_ours_begins_anew() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().on(Operation::CompleteMultipartUpload));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = in_parts(&stage).start();
    dumper.file("shop.t.00000.sql", 11 * MIB);
    held.wait_for_hits(1);
    run.kill().assert_killed_by(Signal::KILL);
    held.clear();
    let lead = std::fs::File::open(stage.sandbox.dump_dir().join("metadata.partial")).expect("the lead");
    rustix::fs::fremovexattr(&lead, "user.mydumper2s3").expect("there was a record");
    dumper.finish_and_exit();
    let left = stage.server.open_multipart_uploads(BUCKET);
    in_parts(&stage).run().assert_status(0).assert_does_not_say("continuing");
    stage.assert_committed_at(&stage.prefix(), &dumper);
    assert_eq!(stage.server.open_multipart_uploads(BUCKET), left);
}

/// A file that was changed since its parts were sent: they match no more, and the object is what the file is now.
#[test]
fn parts_of_other_bytes_are_sent_anew() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().on(Operation::CompleteMultipartUpload));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = in_parts(&stage).start();
    dumper.file("shop.t.00000.sql", 11 * MIB);
    held.wait_for_hits(1);
    run.kill().assert_killed_by(Signal::KILL);
    held.clear();
    // The same file: one that took its place would not stand for it.
    let bytes = vec![b'x'; 11 * MIB as usize];
    stage.sandbox.put_local("shop.t.00000.sql", &bytes);
    dumper.finish_and_exit();
    in_parts(&stage).run().assert_status(0);
    assert!(stage.files(&stage.prefix())["shop.t.00000.sql"] == bytes, "other bytes");
    assert_eq!(stage.server.open_multipart_uploads(BUCKET), []);
}

/// "Where a store can't list them, say so once and go on."
#[test]
fn a_store_that_cannot_list_unfinished_uploads_is_said_once() {
    let stage = Stage::new();
    stage.server.inject(Fault::answer(501, "NotImplemented").on(Operation::ListMultipartUploads));
    stage.server.inject(Fault::answer(501, "NotImplemented").on(Operation::ListParts));
    let held = stage.server.inject(Fault::hold().on(Operation::CompleteMultipartUpload));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = in_parts(&stage).start();
    dumper.file("shop.t.00000.sql", 11 * MIB);
    held.wait_for_hits(1);
    run.kill().assert_killed_by(Signal::KILL);
    held.clear();
    dumper.finish_and_exit();
    let finished = in_parts(&stage).run().assert_status(0);
    let said = finished.text().matches("the right to list unfinished uploads is missing").count();
    assert_eq!(said, 1, "{finished:?}");
    assert_eq!(stage.files(&stage.prefix()), dumper.files());
}

/// The killed run saw that mydumper failed, and wrote it into the claim. The next one cannot see it any more.
#[test]
fn an_exit_status_that_a_killed_run_saw_is_remembered() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::hold().key_where(|key| key.ends_with("/shop.t.00000.sql")));
    let mut run = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("found a dump (running)");
    dumper.file("shop.t.00000.sql", 10_000);
    held.wait_for_hits(1);
    dumper.finish();
    dumper.exit(1);
    eventually("the exit status is in the claim", || stage.manifest()["dumper_exit"]["status"] == 1);
    run.kill().assert_killed_by(Signal::KILL);
    held.clear();
    stage.upload().run().assert_status(3).assert_says("exit status was 1");
    stage.assert_incomplete(["shop.t.00000.sql"]);
    assert_eq!(stage.uploads_of("metadata").len(), 0);
}

/// The program is killed, the mydumper that it started goes on; the next run learns its exit status all the same.
#[test]
fn a_child_outlives_a_killed_run_and_the_next_one_sees_how_it_ends() {
    for (status, expected) in [(0, 0), (1, 3)] {
        let stage = Stage::new();
        let mut first = stage.upload().args(["--", "mydumper", "-B", "shop"]).start();
        let mut dumper = FakeDumper::accept(&stage.sandbox);
        dumper.begin(Generation::V1_0);
        first.wait_for_line("found a dump (running)");
        dumper.file("shop.t.00000.sql", 10_000);
        stage.wait_until_moved("shop.t.00000.sql");
        first.kill().assert_killed_by(Signal::KILL);
        dumper.file("shop.t.00001.sql", 10_000);
        let mut second = stage.upload().start();
        second.wait_for_line("found a dump (running)");
        dumper.finish();
        dumper.exit(status);
        second.finish().assert_status(expected);
        // A good end is known only when whoever took the orphan in has reaped it, which may never happen in a container.
        if status != 0 {
            assert_eq!(stage.manifest()["dumper_exit"]["status"], status);
        }
        assert_eq!(stage.has("metadata"), expected == 0);
        assert_eq!(stage.uploads_of("shop.t.00000.sql").len(), 1, "uploaded twice");
    }
}

/// A second host with the same prefix, and its own dump.
struct Rival {
    sandbox: Sandbox,
    dumper: FakeDumper,
}

impl Rival {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let mut dumper = FakeDumper::start(&sandbox, Generation::V1_0);
        dumper.file_of("shop-schema-create.sql", "CREATE DATABASE `shop` /* the rival's */;\n");
        dumper.file("shop.rival.00000.sql", 20_000);
        Rival { sandbox, dumper }
    }

    fn upload(&self, stage: &Stage) -> Program<'_> {
        let program = self.sandbox.mydumper2s3().upload_to(&stage.endpoint());
        program.args(["--settle", "0.2", "--prefix", "nightly"])
    }
}

/// Makes `flock` answer ENOLCK, as filesystems do that have no locks, and becomes the program. A filter of system calls
/// does it: such a filesystem is not to be had everywhere.
const WITHOUT_LOCKS: &str = r#"
import ctypes, os, platform, struct, sys
FLOCK, ENOLCK = {"x86_64": 73, "aarch64": 32}[platform.machine()], 37
load, equal, answer = 0x20, 0x15, 0x06
steps = [(load, 0, 0, 0), (equal, 0, 1, FLOCK), (answer, 0, 0, 0x00050000 | ENOLCK), (answer, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]
program = Program(len(steps), ctypes.addressof(code))
prctl, zero = ctypes.CDLL(None).prctl, ctypes.c_ulong(0)
assert prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0, "PR_SET_NO_NEW_PRIVS"
assert prctl(22, ctypes.c_ulong(2), ctypes.byref(program), zero, zero) == 0, "PR_SET_SECCOMP"
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// "One warning where locks are not supported": the dump arrives all the same.
#[test]
fn a_directory_that_cannot_be_locked_is_said_once() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().wrapped_in(["python3", "-c", WITHOUT_LOCKS]).start();
    run.wait_for_line("claimed");
    dumper.file("shop.t.00000.sql", 1_000);
    dumper.finish_and_exit();
    let finished = run.finish().assert_status(0);
    assert_eq!(finished.text().matches("cannot be locked").count(), 1, "{finished:?}");
    stage.assert_whole(&dumper);
}

/// Whoever has committed, all of it is theirs.
#[track_caller]
fn assert_no_mixture(stage: &Stage, dumps: [&FakeDumper; 2]) {
    let there = stage.files("nightly");
    if there.contains_key("metadata") {
        assert!(dumps.iter().any(|dump| dump.files() == there), "a committed mixture: {:?}", there.keys());
    }
}

/// Two hosts on one prefix: the store lets one claim it, and the other refuses.
#[test]
fn the_second_host_on_a_prefix_refuses() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file_of("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    dumper.file("shop.t.00000.sql", 20_000);
    // Both have seen that the prefix is free.
    let held = stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(MANIFEST)));
    let mut rival = Rival::new();
    let runs = [stage.upload().args(["--prefix", "nightly"]).start(), rival.upload(&stage).start()];
    held.wait_for_hits(2);
    held.clear();
    dumper.finish_and_exit();
    rival.dumper.finish_and_exit();
    let mut statuses = runs.map(|run| run.finish().status.code());
    statuses.sort();
    assert_eq!(statuses, [Some(0), Some(2)]);
    assert!(stage.files("nightly").contains_key("metadata"));
    assert_no_mixture(&stage, [&dumper, &rival.dumper]);
}

/// On a store without conditional writes both may claim it: then neither commits.
#[test]
fn two_hosts_on_a_prefix_of_a_store_without_conditions_commit_nothing() {
    let stage = Stage::new();
    let is_claim = |key: &str| key.ends_with(MANIFEST);
    let refused = || Fault::answer(501, "NotImplemented").on(Operation::PutObject).key_where(is_claim).once();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file_of("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    dumper.file("shop.t.00000.sql", 20_000);
    stage.server.inject(refused());
    let held = stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(is_claim).once());
    let run = stage.upload().args(["--prefix", "nightly"]).start();
    held.wait_for_hits(1);
    stage.server.inject(refused());
    let mut rival = Rival::new();
    let rivals_run = rival.upload(&stage).start();
    stage.wait_for("shop.rival.00000.sql");
    // Now the first claims it, over the rival's claim.
    held.clear();
    stage.wait_for("shop.t.00000.sql");
    dumper.finish_and_exit();
    rival.dumper.finish_and_exit();
    run.finish().assert_status(1).assert_says("the dump is not committed");
    // Before it gives anything up, or at the latest before its commit.
    rivals_run.finish().assert_status(1).assert_says("another program has claimed the prefix");
    assert!(!stage.has("metadata"));
}

/// The same, where the first is done before the other has uploaded anything: what it committed stays as it is.
#[test]
fn a_claim_that_another_wrote_over_is_not_written_again() {
    let stage = Stage::new();
    let is_claim = |key: &str| key.ends_with(MANIFEST);
    let refused = || Fault::answer(501, "NotImplemented").on(Operation::PutObject).key_where(is_claim).once();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 20_000);
    stage.server.inject(refused());
    let held = stage.server.inject(Fault::hold().on(Operation::PutObject).key_where(is_claim).once());
    let run = stage.upload().args(["--prefix", "nightly"]).start();
    held.wait_for_hits(1);
    stage.server.inject(refused());
    let sandbox = Sandbox::new();
    let mut rival = FakeDumper::start(&sandbox, Generation::V1_0);
    let program = sandbox.mydumper2s3().upload_to(&stage.endpoint()).args(["--settle", "0.2", "--prefix", "nightly"]);
    let mut rivals_run = program.start();
    rivals_run.wait_for_line("claimed");
    held.clear();
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    rival.file("shop.rival.00000.sql", 20_000);
    rival.finish_and_exit();
    rivals_run.finish().assert_status(1).assert_says("another program has claimed");
    assert_eq!(stage.manifest_of("nightly")["state"], "complete");
    let mut there = stage.files("nightly");
    there.remove("shop.rival.00000.sql");
    assert_eq!(there, dumper.files());
}

/// Somebody clears the prefix at the very moment of the commit, by hand: the commit does not stand over files that are
/// gone.
#[test]
fn a_prefix_that_is_cleared_amid_the_commit_is_not_committed() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().args(["--prefix", "nightly"]).start();
    run.wait_for_line("claimed");
    let verdict = Fault::hold().on(Operation::PutObject).key_where(|key| key.ends_with(MANIFEST));
    // The first is for the exit status.
    let held = stage.server.inject(verdict.after(1).once());
    dumper.file_of("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    dumper.file("shop.t.00000.sql", 20_000);
    dumper.finish_and_exit();
    held.wait_for_hits(1);
    let mut rival = Rival::new();
    rival.upload(&stage).arg("--overwrite").run().assert_status(2).assert_says("may be at work there");
    for key in stage.server.keys(BUCKET) {
        stage.server.remove_directly(BUCKET, &key);
    }
    let mut rivals_run = rival.upload(&stage).start();
    rivals_run.wait_for_line("claimed");
    stage.wait_for("shop.rival.00000.sql");
    held.clear();
    run.finish().assert_status(1);
    rival.dumper.finish_and_exit();
    let status = rivals_run.finish().status.code();
    assert!(matches!(status, Some(0 | 1)), "{status:?}");
    assert_no_mixture(&stage, [&dumper, &rival.dumper]);
}

/// What is named at the start when a right is missing, each with its consequence.
#[test]
fn each_missing_right_is_named_at_the_start() {
    let stage = Stage::new();
    let denied = [
        Permission::AbortMultipartUpload,
        Permission::ListBucketMultipartUploads,
        Permission::ListMultipartUploadParts,
    ];
    stage.server.set_key(AccessKey::new(ACCESS_KEY, SECRET_KEY).without(denied));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.t.00000.sql", 11 * MIB);
    dumper.finish_and_exit();
    let finished = in_parts(&stage).run().assert_status(0);
    finished.assert_says("the right to abort uploads is missing").assert_says("list unfinished uploads is missing");
    assert_eq!(stage.files(&stage.prefix()), dumper.files());
}
