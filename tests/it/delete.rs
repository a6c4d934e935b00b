//! `delete`: one dump goes, in an order that leaves nothing that looks whole, and nothing else goes.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::support::dump_objects::{FILES, Vault};
use crate::support::s3_server::{AccessKey, BUCKET, Fault, Operation, Permission};
use crate::support::sandbox::{Program, Sandbox};
use crate::support::seaweedfs::SeaweedFs;

const NIGHT: &str = "2026-11-22T02:00:00Z";

fn delete<'a>(vault: &'a Vault, prefix: &str) -> Program<'a> {
    vault.command("delete").args(["--prefix", prefix, "--yes"])
}

/// "`delete --prefix nightly/2026-11-2` doesn't touch `nightly/2026-11-22`", nor what lies deeper.
#[test]
fn only_keys_directly_under_the_prefix_go() {
    let vault = Vault::new();
    vault.put_complete("nightly/2026-11-2", NIGHT);
    vault.put_complete("nightly/2026-11-22", NIGHT);
    vault.put_complete("nightly/2026-11-2/below", NIGHT);
    vault.put("nightly/2026-11-2", "a key of the directory's own name");
    delete(&vault, "nightly/2026-11-2").run().assert_status(0).assert_says("deleted 5 objects");
    assert_eq!(vault.keys_under("nightly/2026-11-22").len(), 5);
    assert_eq!(vault.keys_under("nightly/2026-11-2/below").len(), 5);
    assert_eq!(vault.keys().len(), 11);
}

#[test]
fn metadata_goes_first_and_the_manifest_last() {
    let vault = Vault::new();
    vault.put_complete("p", NIGHT);
    for number in 0..1100 {
        vault.put(&format!("p/shop.t.{number:05}.sql"), "x");
    }
    // The rest cannot go: what is left must not look whole.
    let fault = vault.server.inject(Fault::answer(500, "InternalError").on(Operation::DeleteObjects));
    let denied = delete(&vault, "p").time_limit(Duration::from_secs(5));
    let mut run = denied.start();
    fault.wait_for_hits(1);
    assert!(vault.server.object(BUCKET, "p/metadata").is_none());
    assert!(vault.server.object(BUCKET, "p/mydumper2s3.json").is_some());
    vault.command("list").run().assert_says("damaged: metadata is missing");
    fault.clear();
    run.wait_for_line("deleted 1104 objects");
    drop(run);
    assert_eq!(vault.keys(), [""; 0]);
    let requests = vault.server.requests();
    let of = |operation| requests.iter().filter(move |request| request.operation == operation);
    let last = of(Operation::DeleteObject).next_back().expect("a request");
    assert_eq!(last.key, "p/mydumper2s3.json");
}

#[test]
fn strangers_are_named_and_stay() {
    let vault = Vault::new();
    vault.put_complete("p", NIGHT);
    vault.put("p/README.txt", "mine");
    vault.put("p/cat.jpg", "meow");
    let said = delete(&vault, "p").run().assert_status(0);
    said.assert_says("stay: README.txt, cat.jpg");
    assert_eq!(vault.keys(), ["p/README.txt", "p/cat.jpg"]);
    delete(&vault, "p").run().assert_status(3).assert_says("there is no dump directly in");
}

/// "A dump made with the Python tool's layout … deleted without touching anything else in the bucket".
#[test]
fn a_dump_at_the_root_goes_without_anything_else_in_the_bucket() {
    let vault = Vault::new();
    for name in FILES.into_iter().chain(["metadata", "notes.sql", "holiday.jpg"]) {
        vault.put(name, "x");
    }
    vault.put_complete("other/night", NIGHT);
    delete(&vault, "").run().assert_status(0).assert_says("deleted 4 objects");
    let left: Vec<_> = vault.keys().into_iter().filter(|key| !key.contains('/')).collect();
    assert_eq!(left, ["holiday.jpg", "notes.sql"]);
    assert_eq!(vault.keys_under("other/night").len(), 5);
}

/// "Only names that mydumper or we make, or objects that carry the dump's id, whatever a manifest says."
#[test]
fn a_file_of_an_odd_name_goes_if_it_carries_the_dumps_id() {
    let vault = Vault::new();
    vault.put_complete("p", NIGHT);
    let manifest = vault.server.object(BUCKET, "p/mydumper2s3.json").expect("the manifest").bytes();
    let manifest = String::from_utf8(manifest).expect("text").replace("shop.t.00000.sql", "holiday.jpg");
    vault.put("p/mydumper2s3.json", &manifest);
    vault.put("p/holiday.jpg", "mine");
    vault.server.put_with_metadata(BUCKET, "p/odd", b"x", &[("dump-id", NIGHT)]);
    vault.server.put_with_metadata(BUCKET, "p/other", b"x", &[("dump-id", "another")]);
    delete(&vault, "p").run().assert_status(0).assert_says("stay: holiday.jpg, other");
    assert_eq!(vault.keys(), ["p/holiday.jpg", "p/other"]);
}

/// Left behind, `metadata` would call a whole dump what is none any more.
#[test]
fn metadata_that_only_the_listing_lacks_goes_with_the_dump() {
    let vault = Vault::new();
    vault.put_complete("p", NIGHT);
    vault.server.hide_from_listings(BUCKET, "p/metadata");
    delete(&vault, "p").run().assert_status(0);
    assert_eq!(vault.keys(), [""; 0]);
}

/// An upload that may be alive: a person decides, a script does not.
#[test]
fn a_dump_that_may_be_alive_is_not_deleted_unasked() {
    let vault = Vault::new();
    vault.put_dump("p", NIGHT, "uploading");
    delete(&vault, "p").run().assert_status(1).assert_says("an upload may be at work").assert_says("hint: stop it");
    assert_eq!(vault.keys().len(), 4);
    let asked = vault.command("delete").args(["--prefix", "p"]).typing("y").run().assert_status(0);
    asked.assert_says("an upload may be at work");
    assert_eq!(vault.keys(), [""; 0]);
}

#[test]
fn open_uploads_of_the_dump_are_aborted_and_no_others() {
    let vault = Vault::new();
    vault.put_dump("p", NIGHT, "incomplete");
    let night = SystemTime::try_from(NIGHT.parse::<Timestamp>().expect("a time")).expect("a time of the system");
    for key in ["p/shop.t.00001.sql", "p/movie.mkv", "p/below/shop.t.00001.sql", "p2/shop.t.00001.sql"] {
        vault.server.begin_upload_at(BUCKET, key, night + Duration::from_secs(60));
    }
    // Of the dump's own names, but begun when it was no more or not yet under way: somebody else's.
    for hours in [1, 48] {
        vault.server.begin_upload_at(BUCKET, "p/shop.t.00000.sql", night + Duration::from_secs(hours * 3600));
    }
    vault.server.begin_upload_at(BUCKET, "p/shop.t.00000.sql", night - Duration::from_secs(3600));
    delete(&vault, "p")
        .run()
        .assert_status(0)
        .assert_says("unfinished uploads that were not begun while this dump was made (3)");
    let left: Vec<_> = vault.server.open_multipart_uploads(BUCKET).into_iter().map(|(key, _)| key).collect();
    let mut expected = vec!["p/below/shop.t.00001.sql", "p/movie.mkv"];
    expected.extend(["p/shop.t.00000.sql"; 3]);
    expected.push("p2/shop.t.00001.sql");
    assert_eq!(left, expected);
}

#[test]
fn without_a_terminal_yes_is_a_must() {
    let vault = Vault::new();
    vault.put_complete("p", NIGHT);
    let asked = vault.command("delete").args(["--prefix", "p"]).run().assert_status(2);
    asked.assert_says("5 objects").assert_says("hint: --yes");
    assert_eq!(vault.keys().len(), 5);
}

#[test]
fn on_a_terminal_it_asks() {
    let vault = Vault::new();
    vault.put_complete("p", NIGHT);
    let answer = |answer| vault.command("delete").args(["--prefix", "p"]).typing(answer).run();
    answer("n").assert_status(1).assert_says("Delete 5 objects").assert_says("nothing was deleted");
    assert_eq!(vault.keys().len(), 5);
    answer("y").assert_status(0);
    assert_eq!(vault.keys(), [""; 0]);
}

#[test]
fn on_a_versioned_bucket_it_says_that_the_bytes_stay() {
    let vault = Vault::new();
    vault.server.enable_versioning(BUCKET);
    vault.put_complete("p", NIGHT);
    delete(&vault, "p").run().assert_status(0).assert_says("keeps old versions");
    assert_eq!(vault.keys(), [""; 0]);
    assert_eq!(vault.server.versions(BUCKET, "p/metadata").len(), 1);
    // Who may not ask for the bucket's versioning sees it from the objects.
    vault.put_complete("q", NIGHT);
    let few = [Permission::ListBucket, Permission::GetObject, Permission::DeleteObject];
    vault.server.set_key(AccessKey::new("FEW", "secret").only(few));
    let program = delete(&vault, "q").env("AWS_ACCESS_KEY_ID", "FEW").env("AWS_SECRET_ACCESS_KEY", "secret");
    program.run().assert_status(0).assert_says("keeps old versions");
}

#[test]
fn what_is_retained_is_named_with_its_date_and_gives_status_1() {
    let vault = Vault::new();
    vault.put_complete("p", NIGHT);
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    vault.server.retain(BUCKET, "p/shop.t.00000.sql", until);
    let said = delete(&vault, "p").run().assert_status(1);
    said.assert_says("'p/shop.t.00000.sql': kept until 2100-01-01 00:00 UTC");
    assert_eq!(vault.keys(), ["p/mydumper2s3.json", "p/shop.t.00000.sql"], "the manifest says what is left");
    // While `metadata` stays, all of the dump does.
    vault.put_complete("q", NIGHT);
    vault.server.retain(BUCKET, "q/metadata", until);
    delete(&vault, "q").run().assert_status(1).assert_says("'q/metadata': kept until 2100-01-01");
    assert_eq!(vault.keys_under("q").len(), 5);
}

#[test]
fn where_batches_are_refused_each_object_gets_a_request() {
    for (status, code) in [(501, "NotImplemented"), (403, "AccessDenied")] {
        let vault = Vault::new();
        vault.put_complete("p", NIGHT);
        vault.server.inject(Fault::answer(status, code).on(Operation::DeleteObjects));
        delete(&vault, "p").run().assert_status(0);
        assert_eq!(vault.keys(), [""; 0]);
    }
}

#[test]
fn the_bucket_goes_only_when_it_is_empty() {
    let vault = Vault::new();
    vault.put_complete("p", NIGHT);
    vault.put("other", "x");
    let with_bucket = || delete(&vault, "p").arg("--with-bucket").run();
    with_bucket().assert_status(0).assert_says("is not empty");
    assert_eq!(vault.keys(), ["other"]);
    vault.server.remove_directly(BUCKET, "other");
    with_bucket().assert_status(0).assert_says("deleted the bucket");
    assert!(!vault.server.has_bucket(BUCKET));
}

/// SeaweedFS deletes a bucket with everything in it when it is asked to.
#[test]
fn a_bucket_that_holds_something_stays_on_seaweedfs_too() {
    let bucket = SeaweedFs::shared().bucket("delete-with-bucket");
    let sandbox = Sandbox::new();
    for key in ["metadata", "shop.t-schema.sql", "deep/er/other"] {
        bucket.put(key, "x");
    }
    let delete = || {
        let program = sandbox.mydumper2s3().args(["delete", "--bucket", &bucket.endpoint.bucket, "--prefix", ""]);
        program.args(["--yes", "--with-bucket"]).connect_to(&bucket.endpoint).run()
    };
    delete().assert_status(0).assert_says("is not empty");
    assert_eq!(bucket.keys(""), ["deep/er/other"]);
    bucket.delete("deep/er/other");
    delete().assert_status(0).assert_says("deleted the bucket");
    assert!(!bucket.answers());
}
