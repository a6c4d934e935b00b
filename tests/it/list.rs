//! `list`: what lies in the bucket, and whether it is young enough.

use serde_json::{Value, json};

use crate::support::dump_objects::{Vault, endpoint};
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{AccessKey, BUCKET, Fault, Operation, Permission, S3Server};
use crate::support::sandbox::{Finished, Sandbox};

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

/// The states by prefix.
fn states(vault: &Vault, prefix: &str) -> Vec<String> {
    let listed = json(&vault.command("list").args(["--prefix", prefix, "--json"]).run().assert_status(0));
    let dumps = listed["dumps"].as_array().expect("dumps").clone();
    let mut states: Vec<_> = dumps
        .iter()
        .map(|dump| {
            format!("{} {}", dump["prefix"].as_str().expect("a prefix"), dump["state"].as_str().expect("a state"))
        })
        .collect();
    states.sort();
    states
}

/// The row of a dump in the table.
fn row(finished: &Finished, prefix: &str) -> String {
    let row = finished.stdout.lines().find(|line| line.split_whitespace().next() == Some(prefix));
    row.unwrap_or_else(|| panic!("no row of {prefix}: {finished:?}")).to_owned()
}

#[test]
fn a_real_upload_is_listed_with_what_is_known_of_it() {
    let (server, sandbox) = (S3Server::start(), Sandbox::new());
    let upload = sandbox.mydumper2s3().upload_to(&endpoint(&server)).args(["--prefix", "db1/night"]).start();
    let mut dumper = FakeDumper::launch(&sandbox);
    dumper.create_metadata(Generation::V1_0);
    dumper.write_started_at("2026-01-02 03:04:05");
    dumper.file_of("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    dumper.file("shop.t.00000.sql", 2048);
    dumper.file_of("shop.t-schema.sql", "CREATE TABLE t (i INT);\n");
    dumper.finish_and_exit();
    upload.finish().assert_status(0);
    let list = || sandbox.mydumper2s3().args(["list", "--bucket", BUCKET]).connect_to(&endpoint(&server));

    let table = list().run().assert_status(0);
    assert!(table.stdout.starts_with("PREFIX "), "{table:?}");
    let row = row(&table, "db1/night");
    for word in ["shop", "complete", "KiB"] {
        assert!(row.contains(word), "{word}: {row}");
    }
    let dump = json(&list().arg("--json").run())["dumps"][0].clone();
    assert_eq!(dump["files"], 4);
    assert_eq!(dump["databases"], serde_json::json!(["shop"]));
    let bytes: usize = dumper.files().values().map(Vec::len).sum();
    assert_eq!(dump["bytes"], bytes);

    let files = list().args(["--prefix", "db1/night", "--files"]).run().assert_status(0);
    files.assert_says("shop.t.00000.sql").assert_says("mydumper2s3.json").assert_says("shop.t ");
    let none = list().args(["--prefix", "db1", "--files"]).run().assert_status(3);
    none.assert_says("there is no dump directly in").assert_says("hint: ");
}

#[test]
fn every_state_is_told_apart() {
    let vault = Vault::new();
    let night = "2026-11-22T02:00:00Z";
    vault.put_complete("a/complete", night);
    vault.put_dump("a/failed", night, "incomplete");
    vault.put_dump("a/now", night, "uploading");
    for damaged in ["a/no-metadata", "a/one-less", "a/resized"] {
        vault.put_complete(damaged, night);
    }
    vault.server.remove_directly(BUCKET, "a/no-metadata/metadata");
    vault.server.remove_directly(BUCKET, "a/one-less/shop.t.00000.sql");
    vault.put("a/resized/shop.t.00000.sql", "longer than it was");
    vault.put("a/newer/mydumper2s3.json", r#"{"format": 99, "state": "splendid", "files": 5}"#);
    vault.put("a/broken/mydumper2s3.json", "{");
    // Nothing that mydumper makes: no dump.
    vault.put("a/pictures/cat.jpg", "meow");
    assert_eq!(
        states(&vault, "a"),
        [
            "a/broken damaged",
            "a/complete complete",
            "a/failed incomplete",
            "a/newer unknown",
            "a/no-metadata damaged",
            "a/now uploading",
            "a/one-less damaged",
            "a/resized damaged",
        ]
    );
    let table = vault.command("list").run().assert_status(0);
    assert!(row(&table, "a/complete").contains("1m 30s"), "{table:?}");
    assert!(row(&table, "a/failed").ends_with("incomplete: mydumper's exit status was 1"), "{table:?}");
    assert!(row(&table, "a/one-less").ends_with("damaged: 1 file is missing"), "{table:?}");
    assert!(row(&table, "a/no-metadata").ends_with("damaged: metadata is missing"), "{table:?}");
}

#[test]
fn an_upload_without_a_sign_of_life_is_stalled() {
    let vault = Vault::new();
    let (night, long_ago) = ("2026-11-22T02:00:00Z", json!({"renewed": "2026-11-22T02:00:00Z"}));
    vault.server.set_clock_offset(-2 * 3600);
    vault.put_dump_that_says("a/b", night, "uploading", &long_ago);
    vault.put_dump("a/silent", night, "uploading");
    vault.server.set_clock_offset(0);
    assert_eq!(states(&vault, ""), ["a/b stalled", "a/silent uploading"]);
}

/// "A dump made with the Python tool's layout (files at the bucket's root, no manifest) can be listed".
#[test]
fn a_dump_at_the_root_without_a_manifest_is_listed_beside_others() {
    let vault = Vault::new();
    for name in ["metadata", "shop-schema-create.sql", "shop.t-schema.sql", "crm.x.00001.sql.gz", "holiday.jpg"] {
        vault.put(name, "12345");
    }
    vault.put_complete("deep/er/night", "2026-11-22T02:00:00Z");
    assert_eq!(states(&vault, ""), [" no-manifest", "deep/er/night complete"]);
    let table = vault.command("list").run().assert_status(0);
    let row = row(&table, "''");
    assert!(row.contains(" ~20") && row.contains(" 4  20 B  crm,shop "), "{row}");
    vault.command("list").arg("--files").run().assert_status(0).assert_says("no file of a dump");
    assert_eq!(states(&vault, "deep"), ["deep/er/night complete"]);
    assert_eq!(states(&vault, "dee"), [""; 0], "a prefix is a directory");
}

/// `list --max-age 26h`: "status 4 when the newest complete dump is older, for monitoring".
#[test]
fn max_age_is_for_monitoring() {
    let vault = Vault::new();
    let check = |age| vault.command("list").args(["--max-age", age]).run();
    check("26h").assert_status(4).assert_says("no dump in");
    let hours_ago = |hours| (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours)).to_string();
    vault.put_complete("db1/old", &hours_ago(30));
    // What is not whole does not count, however young.
    vault.put_dump("db1/failed", &hours_ago(1), "incomplete");
    let late = check("26h").assert_status(4).assert_says("db1/old").assert_says("1d 6h");
    assert_eq!(late.stdout.lines().count(), 1, "{late:?}");
    let fine = check("31h").assert_status(0).assert_says("is within 1d 7h");
    assert_eq!(fine.stdout.lines().count(), 1, "{fine:?}");
    vault.put_complete("db1/new", &hours_ago(2));
    check("26h").assert_status(0).assert_says("db1/new");
    let quiet = vault.command("list").args(["--max-age", "26h", "--quiet"]).run().assert_status(0);
    assert_eq!(quiet.text(), "");
    vault.command("list").args(["--max-age", "1h", "--quiet"]).run().assert_status(4).assert_says("is older than 1h");
    let document = json(&vault.command("list").args(["--max-age", "1h", "--json"]).run().assert_status(4));
    assert_eq!(document["is_recent"], Value::Bool(false));
    let series = &document["series"][0];
    assert_eq!((&series["series"], &series["newest_complete"]), (&"db1".into(), &"db1/new".into()));
}

/// "It judges each series and names the old ones": a fresh host does not hide one that is long gone.
#[test]
fn max_age_judges_each_series() {
    let vault = Vault::new();
    let hours_ago = |hours| (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours)).to_string();
    vault.put_complete("db1/2026-11-22T020000Z", &hours_ago(2));
    vault.put_complete("db2/2026-08-22T020000Z", &hours_ago(24 * 86));
    vault.put_dump("db3/2026-11-22T020000Z", &hours_ago(3), "incomplete");
    let check = |options: &[&str]| vault.command("list").args(["--max-age", "26h"]).args(options).run();
    let said = check(&["--quiet"]).assert_status(4).assert_says("series 'db2'").assert_says("began 86d ago");
    said.assert_says("series 'db3': no complete dump").assert_does_not_say("db1");
    check(&["--prefix", "db1"]).assert_status(0);
    check(&["--series", "db1"]).assert_status(0).assert_does_not_say("db2");
    let document = json(&check(&["--json"]).assert_status(4));
    let recent: Vec<_> = document["series"].as_array().expect("series").iter().map(|one| &one["is_recent"]).collect();
    assert_eq!(recent, [&Value::Bool(true), &Value::Bool(false), &Value::Bool(false)]);
}

/// A start in the future: "shown as such, never the newest".
#[test]
fn a_start_in_the_future_is_shown_and_is_not_the_newest() {
    let vault = Vault::new();
    let in_hours = |hours| (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours)).to_string();
    vault.put_complete("db1/real", &in_hours(-30));
    vault.put_complete("db1/future", &in_hours(48));
    let listed = vault.command("list").run().assert_status(0);
    assert!(row(&listed, "db1/future").ends_with("complete, its start lies in the future"), "{listed:?}");
    vault.command("list").args(["--max-age", "26h"]).run().assert_status(4).assert_says("db1/real");
    let into = vault.sandbox.path("restored");
    let latest = vault.command("restore").args(["--latest", "--dir"]).arg(&into).run();
    latest.assert_says("the newest complete dump is").assert_says("db1/real").assert_does_not_say("db1/future");
}

/// Listing and manifest are two requests, and between them a dump may be committed.
#[test]
fn a_dump_that_is_committed_while_it_is_looked_at_is_not_damaged() {
    let vault = Vault::new();
    vault.put_dump("a", "2026-11-22T02:00:00Z", "uploading");
    let listed = vault.server.inject(Fault::store_then_hold().on(Operation::ListObjectsV2).once());
    let list = vault.command("list").args(["--prefix", "a"]).start();
    listed.wait_for_hits(1);
    vault.put_complete("a", "2026-11-22T02:00:00Z");
    listed.clear();
    let table = list.finish().assert_status(0);
    assert!(row(&table, "a").ends_with(" complete"), "{table:?}");
}

#[test]
fn odd_directories_neither_stop_nor_trap_the_walk() {
    let vault = Vault::new();
    for key in
        ["a//metadata", "/metadata", "a/../metadata", "a/b c\u{1}/metadata", &format!("{}metadata", "d/".repeat(40))]
    {
        vault.put(key, "x");
    }
    vault.put_complete("a/b+c d%20", "2026-11-22T02:00:00Z");
    assert_eq!(states(&vault, ""), ["a/b+c d%20 complete"]);
    vault.command("list").run().assert_status(0).assert_says("are not looked into");
}

#[test]
fn a_walk_costs_a_listing_for_each_directory_and_a_read_for_each_manifest() {
    let vault = Vault::new();
    for day in 10..30 {
        vault.put_complete(&format!("db1/{day}"), &format!("2026-11-{day}T02:00:00Z"));
    }
    let before = vault.server.requests().len();
    vault.command("list").run().assert_status(0);
    assert_eq!(vault.server.requests().len() - before, 2 + 20 + 20);
    assert_eq!(vault.server.count(Operation::GetObject), 20);
    assert!(vault.server.peak_requests_in_flight() <= 8);
}

#[test]
fn who_may_not_list_is_told_which_permission_lacks() {
    let vault = Vault::new();
    let denied = AccessKey::new("DENIED", "secret").without([Permission::ListBucket]);
    vault.server.set_key(denied);
    let list = vault.command("list").env("AWS_ACCESS_KEY_ID", "DENIED").env("AWS_SECRET_ACCESS_KEY", "secret");
    list.run().assert_status(2).assert_says("s3:ListBucket");
}
