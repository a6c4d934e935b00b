//! Credentials that expire, rights that are missing or taken away, `--write-only`, and secrets.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{ACCESS_KEY, AccessKey, BUCKET, Fault, Operation, Permission, SECRET_KEY};
use crate::support::sandbox::{Program, eventually, files_in};
use crate::support::stage::{MANIFEST, Stage};

const MIB: u64 = 1024 * 1024;
/// What temporary credentials are at first, and after they were renewed.
const KEYS: [(&str, &str); 2] = [("FIRSTKEY", "the-first-secret"), ("SECONDKEY", "the-second-secret")];

/// Without credentials in the environment: the SDK looks in its files.
fn upload(stage: &Stage) -> Program<'_> {
    stage.upload().without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY")
}

fn put_into_home(stage: &Stage, name: &str, text: &str, mode: u32) {
    let path = stage.sandbox.path("home").join(name);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("a file");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).expect("its mode");
    std::fs::rename(new, path).expect("in its place");
}

/// The credentials expire in the middle of a dump, and are renewed some time later.
#[track_caller]
fn expire_and_renew(stage: &Stage, renew: impl Fn(&Stage, (&str, &str))) {
    let (first, second) = (KEYS[0], KEYS[1]);
    stage.server.set_key(AccessKey::new(first.0, first.1));
    renew(stage, first);
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = upload(stage).start();
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_until_moved("shop.a.00000.sql");
    stage.server.set_key(AccessKey::new(first.0, first.1).expiring_at(SystemTime::now() - Duration::from_secs(1)));
    dumper.file("shop.b.00000.sql", 10_000);
    let line = run.wait_for_line("files wait locally");
    assert!(line.contains("expired; renew them"), "{line}");
    assert_eq!(stage.sandbox.local_files()["shop.b.00000.sql"], dumper.content("shop.b.00000.sql"));
    stage.server.set_key(AccessKey::new(second.0, second.1));
    renew(stage, second);
    stage.wait_until_moved("shop.b.00000.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(0).assert_says("the store is back");
    stage.assert_whole(&dumper);
}

/// "Expired or rotated credentials: reload, wait, go on; never a lost upload, never a removed file."
#[test]
fn a_credentials_file_that_is_replaced_is_read_again() {
    expire_and_renew(&Stage::new(), |stage, (id, secret)| {
        let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        put_into_home(stage, ".aws/credentials", &text, 0o600);
    });
}

#[test]
fn a_credential_process_is_run_again() {
    expire_and_renew(&Stage::new(), |stage, (id, secret)| {
        let json = format!(r#"{{"Version":1,"AccessKeyId":"{id}","SecretAccessKey":"{secret}"}}"#);
        put_into_home(stage, "issue-key", &format!("#!/bin/sh\necho '{json}'\n"), 0o700);
        let program = stage.sandbox.path("home/issue-key");
        let config = format!("[default]\ncredential_process = {}\n", program.display());
        put_into_home(stage, ".aws/config", &config, 0o600);
    });
}

/// Credentials of a few seconds, renewed again and again, while a dump goes on.
#[test]
fn credentials_of_a_few_seconds_are_renewed_in_time() {
    let stage = Stage::new();
    let issue = |number: u64| {
        let (id, secret) = (format!("KEY{number}"), format!("secret-{number}"));
        let end = SystemTime::now() + Duration::from_secs(1);
        stage.server.set_key(AccessKey::new(&id, &secret).expiring_at(end));
        let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        put_into_home(&stage, ".aws/credentials", &text, 0o600);
    };
    issue(0);
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = upload(&stage).start();
    for number in 0..4 {
        issue(number);
        let name = format!("shop.t.{number:05}.sql");
        dumper.file(&name, 10_000);
        eventually("it is uploaded, with whatever key there is by then", || {
            let local = stage.sandbox.dump_dir().join(&name);
            issue(number);
            !local.exists()
        });
    }
    stage.server.set_key(AccessKey::new("LASTKEY", "the-last-secret"));
    let text = "[default]\naws_access_key_id = LASTKEY\naws_secret_access_key = the-last-secret\n";
    put_into_home(&stage, ".aws/credentials", text, 0o600);
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "Access refused: a hint naming the permission." From the start it is a wrong setting.
#[test]
fn what_is_refused_from_the_start_is_a_wrong_setting() {
    let cases = [
        (Permission::PutObject, "the permission s3:PutObject"),
        (Permission::ListBucket, "the permission s3:ListBucket"),
    ];
    for (missing, words) in cases {
        let stage = Stage::new();
        stage.server.set_key(AccessKey::new(ACCESS_KEY, SECRET_KEY).without([missing]));
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        dumper.file("shop.t.00000.sql", 1_000);
        dumper.finish_and_exit();
        stage.upload().run().assert_status(2).assert_says("hint:").assert_says(words);
        assert_eq!(stage.sandbox.local_files(), dumper.files());
        assert_eq!(stage.server.keys(BUCKET), [] as [&str; 0]);
    }
}

/// In the middle of a dump somebody may give it back.
#[test]
fn what_is_refused_in_the_middle_is_waited_for() {
    let stage = Stage::new();
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let mut run = stage.upload().args(["--part-size", "5MiB"]).start();
    run.wait_for_line("claimed");
    stage.server.set_key(AccessKey::new(ACCESS_KEY, SECRET_KEY).without([Permission::PutObject]));
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.file("shop.u.00000.sql", 6 * MIB);
    let line = run.wait_for_line("files wait locally");
    assert!(line.contains("the permission s3:PutObject"), "{line}");
    stage.server.set_key(AccessKey::new(ACCESS_KEY, SECRET_KEY));
    stage.wait_until_moved("shop.t.00000.sql");
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "An uploaded copy of a withdrawn file that can't be deleted: no commit, status 1."
#[test]
fn a_withdrawn_file_whose_object_cannot_be_deleted_forbids_the_commit() {
    let stage = Stage::new();
    stage.server.set_key(AccessKey::new(ACCESS_KEY, SECRET_KEY).without([Permission::DeleteObject]));
    let is_renamed = |key: &str| key.ends_with("/shop.u.00001.sql");
    let held = stage.server.inject(Fault::store_then_hold().on(Operation::PutObject).key_where(is_renamed));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = stage.upload().start();
    dumper.file("shop.t.sql", 10_000);
    dumper.file("shop.u.00001.sql", 100);
    held.wait_for_hits(1);
    dumper.rename("shop.u.00001.sql", "shop.u.sql");
    held.clear();
    dumper.finish_and_exit();
    run.finish().assert_status(1).assert_says("its object cannot be deleted");
    assert!(!stage.has("metadata"));
    stage.sandbox.assert_local_names(["metadata"]);
    // With the right to delete it is put right.
    stage.server.set_key(AccessKey::new(ACCESS_KEY, SECRET_KEY));
    stage.server.remove_directly(BUCKET, &format!("{}/shop.empty.00000.sql", stage.prefix()));
    stage.upload().run().assert_status(0);
    stage.assert_whole(&dumper);
}

fn write_only(stage: &Stage) -> Program<'_> {
    stage.server.set_key(AccessKey::new(ACCESS_KEY, SECRET_KEY).only([Permission::PutObject]));
    stage.upload().args(["--write-only", "--part-size", "5MiB", "--wait", "0"])
}

/// "`--write-only` for stores that allow PutObject and nothing else: no list, HEAD, delete or abort."
#[test]
fn write_only_asks_for_nothing_but_to_put() {
    let stage = Stage::new();
    let is_renamed = |key: &str| key.ends_with("/shop.v.00001.sql");
    let held = stage.server.inject(Fault::store_then_hold().on(Operation::PutObject).key_where(is_renamed));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V0_10);
    let run = write_only(&stage).start();
    dumper.file("shop.t.sql", 10_000);
    dumper.file("shop.u.sql", 11 * MIB);
    dumper.file("shop.v.00001.sql", 100);
    held.wait_for_hits(1);
    dumper.rename("shop.v.00001.sql", "shop.v.sql");
    held.clear();
    dumper.finish_and_exit();
    run.finish().assert_status(0);
    stage.sandbox.assert_local_names([] as [&str; 0]);
    let mut there = stage.files(&stage.prefix());
    assert!(there.remove("shop.v.00001.sql").is_some(), "nothing may be deleted");
    assert_eq!(there, dumper.files());
    assert_eq!(stage.manifest()["withdrawn"][0], "shop.v.00001.sql");
    let puts = ["PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"];
    for request in stage.server.requests() {
        assert!(puts.contains(&format!("{:?}", request.operation).as_str()), "{:?}", request.operation);
    }

    // Who may read finds the dump whole, and the withdrawn file is none of it.
    stage.server.set_key(AccessKey::new(ACCESS_KEY, SECRET_KEY));
    let command = |words: &[&str]| {
        let program = stage.sandbox.mydumper2s3().args(words).args(["--bucket", BUCKET, "--prefix", &stage.prefix()]);
        program.connect_to(&stage.endpoint())
    };
    for options in [&["verify"][..], &["verify", "--deep"]] {
        command(options).run().assert_status(0).assert_says("0 extra");
    }
    let restored = stage.sandbox.path("restored");
    command(&["restore"]).arg("--dir").arg(&restored).run().assert_status(0);
    assert_eq!(files_in(&restored), dumper.files());
}

/// "A restart uploads again." What the killed run uploaded and removed here belongs to the dump all the same.
#[test]
fn a_restart_with_write_only_uploads_again() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::store_then_hold().key_where(|key| key.ends_with("/shop.b.00000.sql")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    let run = write_only(&stage).start();
    dumper.file("shop.a.00000.sql", 10_000);
    stage.wait_for("shop.a.00000.sql");
    dumper.file("shop.b.00000.sql", 10_000);
    held.wait_for_hits(1);
    run.kill();
    held.clear();
    dumper.finish_and_exit();
    write_only(&stage).run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// Killed between the commit and the removal of `metadata`: what stands in the bucket is whole and stays so.
#[test]
fn a_restart_with_write_only_after_the_commit_spoils_nothing() {
    let stage = Stage::new();
    let held = stage.server.inject(Fault::store_then_hold().key_where(|key| key.ends_with("/metadata")));
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    dumper.file("shop.a.00000.sql", 10_000);
    dumper.finish_and_exit();
    let run = write_only(&stage).start();
    held.wait_for_hits(1);
    run.kill();
    held.clear();
    write_only(&stage).run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// "No secret in any log, error, process list or manifest", however much is logged and whatever fails.
#[test]
fn no_secret_is_ever_told() {
    let stage = Stage::new();
    let token = "a-session-token-of-this-test";
    stage.server.set_key(AccessKey::new(ACCESS_KEY, SECRET_KEY).with_session_token(token));
    let faults =
        [Fault::answer(403, "SignatureDoesNotMatch"), Fault::answer(500, "InternalError"), Fault::cut_in_body()];
    for fault in faults {
        stage.server.inject(fault.on(Operation::PutObject).key_where(|key| key.ends_with(".sql")).times(2));
    }
    let options = ["-vv", "--retry-for", "20s", "--", "mydumper", "-B", "shop"];
    let mut run = stage.upload().env("AWS_SESSION_TOKEN", token).args(options).start();
    let mut dumper = FakeDumper::accept(&stage.sandbox);
    dumper.begin(Generation::V1_0);
    run.wait_for_line("claimed");
    let mut lines = Vec::new();
    for pid in [run.pid(), dumper.pid()] {
        lines.push(std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).expect("its line"));
    }
    dumper.file("shop.t.00000.sql", 10_000);
    dumper.finish_and_exit();
    let finished = run.finish().assert_status(0);
    lines.extend([finished.text(), stage.manifest().to_string()]);
    assert!(lines[2].contains("SignatureDoesNotMatch"), "{finished:?}");
    for text in lines {
        assert!(!text.contains(SECRET_KEY) && !text.contains(token), "{text}");
    }
    assert!(stage.has(MANIFEST));
}
