//! Stores whose listings are no listings of what was asked for: an error, never a shorter listing. What is not listed looks
//! like what is not there, so it would be called damaged, left behind, taken for the newest or uploaded anew.

use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{BUCKET, Fault, Oddity, Operation};
use crate::support::sandbox::files_in;
use crate::support::stage::Stage;
use crate::support::stored_dump::{PREFIX, StoredDump};

/// All that leave something out, or name what was not asked for.
const ODDITIES: [Oddity; 5] =
    [Oddity::NoToken, Oddity::SameToken, Oddity::EmptyPages, Oddity::OutsideKey, Oddity::OutsidePrefix];

/// What reads a bucket, or removes something from it. The prefix above the dump, so that there are directories, too.
fn commands(dump: &StoredDump) -> Vec<(&'static str, Vec<String>)> {
    let target = dump.sandbox.path("restored").display().to_string();
    let words = |text: &str| text.split(' ').map(|word| word.replace("TARGET", &target)).collect();
    vec![
        ("list", words("--prefix db1")),
        ("restore", words("--prefix db1 --latest --dir TARGET")),
        ("verify", words(&format!("--prefix {PREFIX}"))),
        ("verify", words(&format!("--prefix {PREFIX} --deep"))),
        ("prune", words("--prefix db1 --keep-last 1")),
        ("delete", words(&format!("--prefix {PREFIX} --yes"))),
    ]
}

#[test]
fn a_listing_that_may_leave_something_out_is_an_error_and_nothing_is_removed() {
    let mut dump = StoredDump::new();
    // A second night, so that there is something to prune, and an older one to be taken for the newest.
    let first = dump.files.clone();
    first.iter().for_each(|(name, bytes)| dump.dump(name, bytes));
    dump.dump("metadata", "Started dump at: 2026-11-23 02:00:01\nFinished dump at: 2026-11-23 02:00:09\n");
    dump.upload_to("db1/second").run().assert_status(0);
    let keys = dump.server.keys(BUCKET);
    for oddity in ODDITIES {
        dump.server.set_oddity(BUCKET, Some(oddity));
        for (command, arguments) in commands(&dump) {
            let finished = dump.command_on_bucket(command).args(&arguments).run();
            assert_eq!(finished.status.code(), Some(1), "{oddity:?}, {command} {arguments:?}: {finished:?}");
            finished.assert_says("the answer of the store is no listing of what was asked for");
            assert_eq!(dump.server.keys(BUCKET), keys, "{oddity:?}, {command}");
            let target = dump.sandbox.path("restored");
            assert!(!target.exists() || files_in(&target).is_empty(), "{oddity:?}: something was restored");
        }
        // The store is well again.
        dump.server.set_oddity(BUCKET, None);
        dump.command("verify").run().assert_status(0);
    }
}

/// The second run after a kill: it must not begin anew, nor commit what it believes to be all.
#[test]
fn a_restart_does_not_go_by_a_listing_that_may_leave_something_out() {
    for oddity in ODDITIES {
        let stage = Stage::new();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        let held = stage.server.inject(Fault::hold().key_where(|key| key.ends_with("/shop.b.00000.sql")));
        let run = stage.upload().start();
        dumper.file("shop.a.00000.sql", 10_000);
        stage.wait_until_moved("shop.a.00000.sql");
        dumper.file("shop.b.00000.sql", 20_000);
        held.wait_for_hits(1);
        run.kill();
        held.clear();
        dumper.finish_and_exit();
        let (keys, local) = (stage.server.keys(BUCKET), stage.sandbox.local_files());
        stage.server.set_oddity(BUCKET, Some(oddity));
        let finished = stage.upload().run();
        assert_eq!(finished.status.code(), Some(1), "{oddity:?}: {finished:?}");
        assert_eq!(stage.server.keys(BUCKET), keys, "{oddity:?}");
        assert_eq!(stage.sandbox.local_files(), local, "{oddity:?}");
        stage.server.set_oddity(BUCKET, None);
        stage.upload().run().assert_status(0);
        stage.assert_whole(&dumper);
    }
}

/// "Memory … bounded by the settings, … nor by what stands in the bucket": a heap of unfinished uploads has an end, and is no
/// reason to lose a night or to keep a dump.
#[test]
fn more_unfinished_uploads_than_can_be_listed_are_said_and_keep_nothing() {
    const SAID: &str = "more than 100000 unfinished uploads lie in it";
    let mut dump = StoredDump::none();
    dump.server.set_oddity(BUCKET, Some(Oddity::EndlessUploads));
    dump.dump("shop.t.00000.sql", "INSERT INTO `t` VALUES (1);\n");
    dump.dump("metadata", crate::support::stored_dump::METADATA);
    dump.upload().assert_status(0).assert_says("is not looked for, and is sent anew").assert_says(SAID);
    dump.server.set_oddity(BUCKET, None);
    dump.command("verify").run().assert_status(0);
    dump.server.set_oddity(BUCKET, Some(Oddity::EndlessUploads));
    dump.command("delete").arg("--yes").run().assert_status(0).assert_says(SAID);
    assert_eq!(dump.server.keys(BUCKET), [] as [String; 0]);
    // None of them was aborted: that they are ours is not known.
    assert_eq!(dump.server.count(Operation::AbortMultipartUpload), 1, "the trial's own");
}

/// `+` in a key, which most stores write as `%2B` and some leave as it is, where it would stand for a space.
#[test]
fn a_plus_in_a_key_is_read_as_it_is_meant() {
    for oddity in [None, Some(Oddity::RawPlus)] {
        let mut dump = StoredDump::none();
        dump.server.set_oddity(BUCKET, oddity);
        dump.dump("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
        dump.dump("shop.a+b-schema.sql", "CREATE TABLE `a+b` (id INT);\n");
        dump.dump("shop.a+b.sql", "INSERT INTO `a+b` VALUES (1);\n");
        dump.dump("shop.a b.sql", "INSERT INTO `a b` VALUES (1);\n");
        dump.dump("shop.a b-schema.sql", "CREATE TABLE `a b` (id INT);\n");
        dump.dump("metadata", crate::support::stored_dump::METADATA);
        dump.upload().assert_status(0);
        dump.command("verify").arg("--deep").run().assert_status(0);
        let target = dump.sandbox.path("restored");
        dump.command("restore").arg("--dir").arg(&target).run().assert_status(0);
        assert_eq!(files_in(&target), dump.files);
        dump.command("delete").arg("--yes").run().assert_status(0);
        assert_eq!(dump.server.keys(BUCKET), [] as [String; 0], "{oddity:?}");
    }
}
