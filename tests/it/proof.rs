//! What proves an object where its ETag is no MD5: Content-MD5, if the store is known to refuse a wrong one; else the
//! object is read back before its file is given up.

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Encryption, Fault, Limits, OpaqueEtags, Operation, S3Server};
use crate::support::sandbox::Finished;
use crate::support::stage::Stage;

const MIB: u64 = 1 << 20;
const SHORT: &str = "shop.t.00000.sql";
const IN_PARTS: &str = "shop.u.00000.sql";
const IN_PARTS_TOO: &str = "shop.v.00000.sql";

fn store(checks_content_md5: bool, opaque_etags: OpaqueEtags) -> Stage {
    let limits = Limits { checks_content_md5, opaque_etags, ..Limits::default() };
    Stage::with(S3Server::builder().limits(limits).start())
}

fn store_with_kms(checks_content_md5: bool) -> Stage {
    let stage = store(checks_content_md5, OpaqueEtags::None);
    stage.server.set_default_encryption(BUCKET, Encryption::Kms { key_id: "the bucket's".into() });
    stage
}

/// A dump with a short file and two in parts.
fn dump(stage: &Stage) -> FakeDumper {
    let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
    for (name, bytes) in [(SHORT, 1_000), (IN_PARTS, 11 * MIB), (IN_PARTS_TOO, 6 * MIB)] {
        dumper.file(name, bytes);
    }
    dumper.finish_and_exit();
    dumper
}

/// Of each file but `metadata`: its name, its proof, and whether it was read back.
fn proofs(stage: &Stage) -> Vec<(String, String, bool)> {
    let manifest = stage.manifest();
    let files = manifest["files"].as_array().expect("files").iter().filter(|file| file["name"] != "metadata");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    files.map(|file| (text(&file["name"]), text(&file["proof"]), file["read_back"] == true)).collect()
}

/// How often an object of the dump was read.
fn reads_of(stage: &Stage, name: &str) -> usize {
    let gets = stage.server.requests_of(Operation::GetObject);
    gets.iter().filter(|request| request.key.ends_with(&format!("/{name}"))).count()
}

fn verify(stage: &Stage, option: &[&str]) -> Finished {
    let verify = stage.sandbox.mydumper2s3().args(["verify", "--bucket", BUCKET, "--prefix", &stage.prefix()]);
    verify.args(option).connect_to(&stage.endpoint()).run()
}

/// Nothing of what arrives damaged passes for a proof.
#[test]
fn what_no_etag_and_no_content_md5_proves_is_read_back() {
    let stage = store_with_kms(false);
    let damage = || Fault::damage_in_transit().once();
    let is = |wanted: &'static str| move |key: &str| key.ends_with(&format!("/{wanted}"));
    let short = stage.server.inject(damage().on(Operation::PutObject).key_where(is(SHORT)));
    let part = stage.server.inject(damage().on(Operation::UploadPart).key_where(is(IN_PARTS)).part(2));
    let dumper = dump(&stage);
    let finished = stage.upload().args(["--part-size", "5MiB"]).run().assert_status(0);
    assert_eq!((short.hits(), part.hits()), (1, 1));
    finished
        .assert_says("each object is read back before its file is given up")
        .assert_says("are not those that were sent");
    stage.assert_whole(&dumper);
    for (name, proof, is_read_back) in proofs(&stage) {
        assert_eq!((proof.as_str(), is_read_back), ("content-md5", true), "{name}");
    }
    // Sent anew, and read anew.
    assert_eq!([SHORT, IN_PARTS, IN_PARTS_TOO].map(|name| reads_of(&stage, name)), [2, 2, 1]);
    verify(&stage, &["--deep"]).assert_status(0);
}

#[test]
fn a_store_that_refuses_a_wrong_content_md5_is_asked_once_and_nothing_is_read_back() {
    let stage = store_with_kms(true);
    let dumper = dump(&stage);
    stage.upload().args(["--part-size", "5MiB"]).run().assert_status(0).assert_does_not_say("read back");
    stage.assert_whole(&dumper);
    for (name, proof, is_read_back) in proofs(&stage) {
        assert_eq!((proof.as_str(), is_read_back, reads_of(&stage, &name)), ("content-md5", false, 0), "{name}");
    }
    let refused = stage.server.requests_of(Operation::PutObject).into_iter();
    let refused: Vec<_> = refused.filter(|request| request.error_code.as_deref() == Some("BadDigest")).collect();
    assert!(refused.len() == 1 && refused[0].key.ends_with("/mydumper2s3.json"), "{refused:?}");
}

/// Nobody may be asked, so nothing proves anything: not committed, and everything is still here.
#[test]
fn with_write_only_nothing_is_committed_that_nothing_proves() {
    for (stage, checks) in [
        (store_with_kms(false), false),
        (store(false, OpaqueEtags::All), false),
        (store_with_kms(true), true),
        (store(true, OpaqueEtags::All), true),
    ] {
        let dumper = dump(&stage);
        let finished = stage.upload().args(["--part-size", "5MiB", "--write-only"]).run();
        if checks {
            finished.assert_status(0);
            stage.assert_whole(&dumper);
        } else {
            finished.assert_status(1).assert_says("nothing proves what it holds");
            assert!(!stage.has("metadata"), "committed");
            for name in [SHORT, IN_PARTS, IN_PARTS_TOO] {
                assert!(stage.sandbox.dump_dir().join(name).exists(), "{name} was removed");
            }
        }
    }
}

/// "Whole files were sent 20 times in vain": the store's ETags are simply no MD5s, and no header says so.
#[test]
fn etags_that_are_no_md5s_without_a_word_do_not_make_files_be_sent_in_vain() {
    let opaque = [OpaqueEtags::Multipart, OpaqueEtags::MultipartAndParts, OpaqueEtags::All];
    for (etags, checks) in opaque.into_iter().flat_map(|etags| [(etags, true), (etags, false)]) {
        let stage = store(checks, etags);
        let dumper = dump(&stage);
        stage.upload().args(["--part-size", "5MiB"]).run().assert_status(0);
        stage.assert_whole(&dumper);
        for name in [SHORT, IN_PARTS, IN_PARTS_TOO] {
            let begun = stage.server.requests_of(Operation::CreateMultipartUpload).into_iter();
            let begun = begun.filter(|request| request.key.ends_with(&format!("/{name}"))).count();
            let puts = stage.server.requests_of(Operation::PutObject).into_iter();
            let puts = puts.filter(|request| request.key.ends_with(&format!("/{name}"))).count();
            assert_eq!(begun + puts, 1, "{etags:?} {checks}: {name}");
        }
        // Of the form of an MD5 and another one: that could be the ETag of other bytes, whatever the store checks.
        let is_read_back = !checks || etags == OpaqueEtags::MultipartAndParts;
        for (name, proof, read_back) in proofs(&stage) {
            let expected = match etags {
                OpaqueEtags::Multipart | OpaqueEtags::MultipartAndParts if name == SHORT => ("etag-md5", false),
                _ => ("content-md5", is_read_back),
            };
            assert_eq!((proof.as_str(), read_back), expected, "{etags:?} {checks}: {name}");
        }
        verify(&stage, &[]).assert_status(0);
        verify(&stage, &["--deep"]).assert_status(0);
    }
}

#[test]
fn damage_is_noticed_where_the_etags_are_no_md5s() {
    for etags in [OpaqueEtags::Multipart, OpaqueEtags::MultipartAndParts, OpaqueEtags::All] {
        let stage = store(false, etags);
        let is_file = |key: &str| key.ends_with(&format!("/{IN_PARTS}"));
        let damage = Fault::damage_in_transit().on(Operation::UploadPart).key_where(is_file).part(3).once();
        let damage = stage.server.inject(damage);
        let dumper = dump(&stage);
        stage.upload().args(["--part-size", "5MiB"]).run().assert_status(0);
        assert_eq!(damage.hits(), 1, "{etags:?}");
        stage.assert_whole(&dumper);
    }
}

/// A restart knows of a removed file only what its object says: an ETag that is no hash.
#[test]
fn a_restart_goes_on_where_etags_are_no_md5s() {
    for stage in [store(true, OpaqueEtags::All), store(false, OpaqueEtags::All), store_with_kms(false)] {
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        let run = stage.upload().args(["--part-size", "5MiB"]).start();
        dumper.file(SHORT, 1_000);
        dumper.file(IN_PARTS, 11 * MIB);
        stage.wait_until_moved(SHORT);
        stage.wait_until_moved(IN_PARTS);
        run.kill();
        dumper.file(IN_PARTS_TOO, 6 * MIB);
        dumper.finish_and_exit();
        stage.upload().args(["--part-size", "5MiB"]).run().assert_status(0);
        stage.assert_whole(&dumper);
        verify(&stage, &[]).assert_status(0);
    }
}
