//! What was asked for each object, and a store that refuses it or does nothing of it, also where nothing may be looked at.

use crate::settings::{MIB, dump_of, small_dump};
use crate::support::s3_server::{BUCKET, Fault, Limits, Operation, S3Server};
use crate::support::stage::Stage;

/// "Compare the answers with what was asked": the answer to a PUT shows the encryption, and that is all that may be seen.
#[test]
fn with_write_only_the_answer_to_the_claim_shows_the_encryption() {
    let limits = Limits { ignores_settings: true, ..Limits::default() };
    let stage = Stage::with(S3Server::builder().limits(limits).start());
    small_dump(&stage);
    let local = stage.sandbox.local_files();
    for kind in ["AES256", "aws:kms"] {
        let refused = stage.upload().args(["--write-only", "--sse", kind]).run().assert_status(2);
        refused.assert_says(&format!("--sse {kind} was asked for, and the store shows nothing of it"));
        assert_eq!(stage.sandbox.local_files(), local);
        assert!(stage.server.keys(BUCKET).iter().all(|key| key.ends_with("/mydumper2s3.json")));
    }
    assert_eq!(stage.server.count(Operation::HeadObject), 0);

    let stage = Stage::new();
    let dumper = small_dump(&stage);
    stage.upload().args(["--write-only", "--sse", "AES256"]).run().assert_status(0);
    stage.assert_whole(&dumper);
}

/// A right that is missing may be that to what was asked for, in every mode.
#[test]
fn what_is_refused_may_be_what_was_asked_for() {
    for mode in [&["--write-only"][..], &[]] {
        let stage = Stage::new();
        small_dump(&stage);
        let local = stage.sandbox.local_files();
        let writes = [Operation::PutObject, Operation::CreateMultipartUpload];
        for operation in writes {
            stage.server.inject(Fault::answer(403, "AccessDenied").on(operation));
        }
        let upload = |asked: &[&str]| stage.upload().args(mode).args(asked).run().assert_status(2);
        for asked in [["--acl", "bucket-owner-read"], ["--tag", "a=b"], ["--sse", "aws:kms"]] {
            upload(&asked).assert_says("--tag needs s3:PutObjectTagging, --acl s3:PutObjectAcl, --sse aws:kms");
        }
        upload(&[]).assert_says("hint: the credentials need the permission s3:PutObject\n");
        assert_eq!((stage.sandbox.local_files(), stage.server.keys(BUCKET)), (local, Vec::new()));
    }
}

/// A bucket whose owner has all objects refuses any ACL with a status that elsewhere means a wrong digest.
#[test]
fn an_acl_that_the_bucket_does_not_take_is_a_wrong_setting() {
    for mode in [&["--write-only"][..], &[]] {
        let stage = Stage::new();
        small_dump(&stage);
        let local = stage.sandbox.local_files();
        for operation in [Operation::PutObject, Operation::CreateMultipartUpload] {
            stage.server.inject(Fault::answer(400, "AccessControlListNotSupported").on(operation));
        }
        let refused = stage.upload().args(mode).args(["--acl", "bucket-owner-read"]).run().assert_status(2);
        refused.assert_says("AccessControlListNotSupported").assert_says("leave --acl out");
        assert_eq!((stage.sandbox.local_files(), stage.server.keys(BUCKET)), (local, Vec::new()));
    }
}

/// "Asked for and silently not done": status 0 would say that a backup is encrypted which is not.
#[test]
fn what_the_store_does_not_do_is_said_before_anything_is_sent() {
    let limits = Limits { ignores_settings: true, ..Limits::default() };
    let stage = Stage::with(S3Server::builder().limits(limits).start());
    dump_of(&stage, &[("shop.t.00000.sql", 1_000)]);
    let local = stage.sandbox.local_files();
    for (asked, shown) in [
        (["--sse", "AES256"], "--sse AES256 was asked for, and the store shows nothing of it"),
        (["--sse", "aws:kms"], "--sse aws:kms was asked for, and the store shows nothing of it"),
        (["--storage-class", "GLACIER"], "--storage-class GLACIER was asked for, and the store shows 'STANDARD'"),
        (["--tag", "job=nightly"], "--tag job=nightly was asked for, and the store shows nothing of it"),
    ] {
        stage.upload().args(asked).run().assert_status(2).assert_says(shown).assert_says("leave it out");
        assert_eq!((stage.sandbox.local_files(), stage.server.keys(BUCKET)), (local.clone(), Vec::new()), "{asked:?}");
    }
    stage.upload().args(["--storage-class", "STANDARD"]).run().assert_status(0);
}

/// A restart, `list` and `verify` read the manifest and `metadata`, so these are never archived.
#[test]
fn an_archived_dump_is_found_again_and_continued() {
    let stage = Stage::new();
    let dumper = dump_of(&stage, &[("shop.t.00000.sql", 1_000), ("shop.u.00000.sql", 11 * MIB)]);
    let options = ["--part-size", "5MiB", "--storage-class", "DEEP_ARCHIVE"];
    let away = stage.server.inject(Fault::answer(500, "InternalError").on(Operation::UploadPart));
    stage.upload().args(options).args(["--retry-for", "1s"]).run().assert_status(1);
    away.clear();
    stage.upload().args(options).run().assert_status(0);
    for key in stage.server.keys(BUCKET) {
        let object = stage.server.object(BUCKET, &key).expect("an object that was listed");
        let archived = key.ends_with(".sql").then_some("DEEP_ARCHIVE");
        assert_eq!(object.attributes.storage_class.as_deref(), archived, "{key}");
    }
    assert_eq!(stage.server.keys(BUCKET).len(), 4);
    stage
        .command("verify")
        .args(["--prefix", &stage.prefix()])
        .run()
        .assert_status(0)
        .assert_says("3 match, 0 mismatch, 0 missing, 0 extra");
    drop(dumper);
}

/// Who may not look is told that it was not looked at; that says nothing against the store.
#[test]
fn what_may_not_be_looked_at_is_no_difference() {
    for (operation, after, asked, said) in [
        // The first HEAD is the trial of the right itself.
        (Operation::HeadObject, 1, ["--sse", "AES256"], "s3:GetObject is missing"),
        (Operation::GetObjectTagging, 0, ["--tag", "job=nightly"], "s3:GetObjectTagging is missing"),
    ] {
        let stage = Stage::new();
        let dumper = dump_of(&stage, &[("shop.t.00000.sql", 1_000)]);
        let denied = stage.server.inject(Fault::answer(403, "AccessDenied").on(operation).after(after).once());
        stage.upload().args(asked).run().assert_status(0).assert_says(said);
        assert!(denied.hits() > 0);
        stage.assert_whole(&dumper);
    }
}
