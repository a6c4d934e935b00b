//! What was asked for each object, and a store that refuses it or does nothing of it, also where nothing may be looked at.

use crate::settings::small_dump;
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
