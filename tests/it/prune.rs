//! `prune`: what no rule keeps goes, series by series, and never the last whole dump of one.

use serde_json::json;

use crate::support::dump_objects::Vault;
use crate::support::s3_server::{BUCKET, Fault, Operation};
use crate::support::sandbox::{Finished, Program};

fn prune<'a>(vault: &'a Vault, prefix: &str, rules: &[&str]) -> Program<'a> {
    vault.command("prune").args(["--prefix", prefix]).args(rules)
}

/// The dumps that are there, by their prefixes.
fn dumps(vault: &Vault) -> Vec<String> {
    let keys = vault.keys().into_iter();
    let mut dumps: Vec<_> = keys.filter_map(|key| key.strip_suffix("/mydumper2s3.json").map(str::to_owned)).collect();
    dumps.sort();
    dumps
}

/// `action why` of a dump's row.
fn row(finished: &Finished, prefix: &str) -> String {
    let row = finished.stdout.lines().find(|line| line.split_whitespace().any(|word| word == prefix));
    let row = row.unwrap_or_else(|| panic!("no row of {prefix}: {finished:?}"));
    let words: Vec<_> = row.split_whitespace().collect();
    let at = words.iter().position(|word| *word == prefix).expect("the prefix");
    format!("{} {}", words[0], words[at + 1..].join(" "))
}

fn hours_ago(hours: i64) -> String {
    (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours)).to_string()
}

fn days(vault: &Vault, parent: &str, days: impl IntoIterator<Item = u32>) {
    for day in days {
        vault.put_complete(&format!("{parent}/{day:02}"), &format!("2020-11-{day:02}T02:00:00Z"));
    }
}

#[test]
fn each_directory_is_counted_on_its_own() {
    let vault = Vault::new();
    days(&vault, "host/db1", 20..25);
    days(&vault, "host/db2", 1..4);
    let pruned = prune(&vault, "host", &["--keep-last", "2"]).run().assert_status(0);
    assert_eq!(dumps(&vault), ["host/db1/23", "host/db1/24", "host/db2/02", "host/db2/03"]);
    assert_eq!(row(&pruned, "host/db1/24"), "keep last");
    assert_eq!(row(&pruned, "host/db1/20"), "remove no rule keeps it");
    pruned.assert_says("removing 4 of 8 dumps");
    let again = prune(&vault, "host", &["--keep-last", "2"]).run().assert_status(0);
    again.assert_says("removing 0 of 4 dumps");
    assert_eq!(vault.keys().len(), 20);
}

#[test]
fn rules_are_joined_and_each_reason_is_shown() {
    let vault = Vault::new();
    days(&vault, "p", 1..31);
    let rules =
        ["--keep-last", "1", "--keep-daily", "2", "--keep-weekly", "2", "--keep-monthly", "1", "--keep-within", "3d"];
    let pruned = prune(&vault, "p", &rules).run().assert_status(0);
    // 2020-11-29 is a Sunday. Within three days of the 30th, 02:00, are the 28th and later.
    assert_eq!(dumps(&vault), ["p/28", "p/29", "p/30"]);
    assert_eq!(row(&pruned, "p/30"), "keep within, last, daily, weekly, monthly");
    assert_eq!(row(&pruned, "p/29"), "keep within, daily, weekly");
    assert_eq!(row(&pruned, "p/28"), "keep within");
}

#[test]
fn a_dry_run_changes_nothing() {
    let vault = Vault::new();
    days(&vault, "p", 1..6);
    let before = vault.keys();
    let said = prune(&vault, "p", &["--keep-last", "1", "--dry-run"]).run().assert_status(0);
    said.assert_says("would remove 4 of 5 dumps");
    assert_eq!(vault.keys(), before);
}

#[test]
fn what_is_not_whole_never_counts_and_goes_only_by_its_age() {
    let vault = Vault::new();
    vault.put_complete("p/whole", "2020-11-01T02:00:00Z");
    vault.put_dump("p/failed", "2020-11-10T02:00:00Z", "incomplete");
    vault.put_complete("p/damaged", "2020-11-11T02:00:00Z");
    vault.server.remove_directly(BUCKET, "p/damaged/metadata");
    let soon = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1)).to_string();
    vault.put_dump("p/young", &soon, "incomplete");
    // The dump of last month is the last that is whole.
    let all = ["p/damaged", "p/failed", "p/whole", "p/young"];
    prune(&vault, "p", &["--keep-last", "1"]).run().assert_status(0);
    assert_eq!(dumps(&vault), all);
    let limit = ["--keep-last", "1", "--incomplete-older-than", "2h"];
    let pruned = prune(&vault, "p", &limit).run().assert_status(0);
    assert_eq!(dumps(&vault), ["p/whole", "p/young"]);
    assert_eq!(row(&pruned, "p/failed"), "remove incomplete: mydumper's exit status was 1; older than 2h");
    assert_eq!(row(&pruned, "p/young"), "keep incomplete: mydumper's exit status was 1; not older than 2h");
}

#[test]
fn an_upload_is_touched_only_when_it_is_old_and_stalled() {
    let vault = Vault::new();
    let old = "2020-11-10T02:00:00Z";
    vault.put_dump("p/alive", old, "uploading");
    vault.server.set_clock_offset(-2 * 3600);
    // Of version 0.1, which may be sending one file for hours.
    vault.put_dump("p/silent", old, "uploading");
    // Its last object came two hours ago, and its last sign of life was a renewal of the claim.
    vault.put_dump_that_says("p/renewed", old, "uploading", &json!({"renewed": hours_ago(0)}));
    vault.put_dump_that_says("p/stalled", old, "uploading", &json!({"renewed": hours_ago(2)}));
    vault.put_dump_that_says("p/stalled-young", &hours_ago(3), "uploading", &json!({"renewed": hours_ago(2)}));
    vault.server.set_clock_offset(-25 * 3600);
    vault.put_dump("p/silent-for-a-day", old, "uploading");
    vault.server.set_clock_offset(0);
    let pruned = prune(&vault, "p", &["--incomplete-older-than", "7d"]).run().assert_status(0);
    assert_eq!(dumps(&vault), ["p/alive", "p/renewed", "p/silent", "p/stalled-young"]);
    for prefix in ["p/alive", "p/renewed", "p/silent"] {
        assert_eq!(row(&pruned, prefix), "keep uploading; it may be alive");
    }
}

/// Between the look at all dumps and the removal of one its upload gave a sign of life.
#[test]
fn an_upload_that_turns_out_to_live_stays() {
    let vault = Vault::new();
    vault.server.set_clock_offset(-2 * 3600);
    let (a, b) = ("2020-11-10T02:00:00Z", "2020-11-11T02:00:00Z");
    vault.put_dump("p/a", a, "incomplete");
    vault.put_dump_that_says("p/b", b, "uploading", &json!({"renewed": hours_ago(2)}));
    vault.server.set_clock_offset(0);
    let held = vault.server.inject(Fault::hold().on(Operation::DeleteObject).once());
    let pruning = prune(&vault, "p", &["--incomplete-older-than", "7d"]).start();
    held.wait_for_hits(1);
    vault.put_dump_that_says("p/b", b, "uploading", &json!({"renewed": hours_ago(0)}));
    held.clear();
    pruning.finish().assert_status(0).assert_says("has changed meanwhile and stays");
    assert_eq!(dumps(&vault), ["p/b"]);
}

/// "Rules count per series, … never the last complete dump of one": two of them in one folder, told apart by their names.
#[test]
fn series_in_one_directory_are_counted_apart() {
    let vault = Vault::new();
    for day in 20..23 {
        vault.put_complete(&format!("nightly/shop-2020-11-{day}"), &format!("2020-11-{day}T02:00:00Z"));
    }
    vault.put_complete("nightly/crm-2020-11-20", "2020-11-20T03:00:00Z");
    let pruned = prune(&vault, "nightly", &["--keep-last", "1"]).run().assert_status(0);
    assert_eq!(dumps(&vault), ["nightly/crm-2020-11-20", "nightly/shop-2020-11-22"]);
    pruned.assert_says("series 'nightly/crm': 0 of 1 dumps").assert_says("series 'nightly/shop': 2 of 3 dumps");
}

/// What the manifest names is the series, wherever its dumps lie; and `--series` takes one alone.
#[test]
fn a_series_that_is_named_counts_across_directories() {
    let vault = Vault::new();
    let named = |prefix: &str, day: u32, series: &str| {
        let started = format!("2020-11-{day}T02:00:00Z");
        vault.put_dump_that_says(prefix, &started, "complete", &json!({"series": series}));
    };
    named("db1/a", 20, "shop");
    named("db2/b", 21, "shop");
    named("db1/c", 20, "crm");
    named("db1/d", 22, "crm");
    prune(&vault, "", &["--keep-last", "1", "--series", "shop"]).run().assert_status(0);
    assert_eq!(dumps(&vault), ["db1/c", "db1/d", "db2/b"]);
    prune(&vault, "", &["--keep-last", "1"]).run().assert_status(0);
    assert_eq!(dumps(&vault), ["db1/d", "db2/b"]);
}

/// Copies of one dump take one place together, so that a copy is not what keeps the original from staying.
#[test]
fn copies_of_one_dump_stay_and_go_together() {
    let vault = Vault::new();
    let copies = |day: u32| {
        let (started, series) = (format!("2020-11-{day}T02:00:00Z"), json!({"series": "shop"}));
        vault.put_dump_that_says(&format!("shop/{day}"), &started, "complete", &series);
        vault.put_dump_that_says(&format!("archive/{day}"), &started, "complete", &series);
    };
    [20, 21, 22].into_iter().for_each(copies);
    prune(&vault, "", &["--keep-daily", "2"]).run().assert_status(0);
    assert_eq!(dumps(&vault), ["archive/21", "archive/22", "shop/21", "shop/22"]);
}

#[test]
fn a_dump_of_the_future_stays_and_takes_no_place_in_any_rule() {
    let vault = Vault::new();
    days(&vault, "p", 1..3);
    vault.put_complete("p/future", &hours_ago(-24 * 365));
    let pruned = prune(&vault, "p", &["--keep-last", "1"]).run().assert_status(0);
    assert_eq!(dumps(&vault), ["p/02", "p/future"]);
    assert_eq!(row(&pruned, "p/future"), "keep its start lies in the future");
}

/// Promise 10: "What removes backups (`delete`, `prune`, `--overwrite`, `--replace-incomplete`) never acts on a view of
/// the bucket that may be partial": a listing that leaves something out makes a whole dump look damaged.
#[test]
fn a_dump_whose_files_only_the_listing_lacks_stays() {
    let vault = Vault::new();
    days(&vault, "p", 1..3);
    vault.server.hide_from_listings(BUCKET, "p/01/shop.t.00000.sql");
    let pruned = prune(&vault, "p", &["--keep-last", "5", "--incomplete-older-than", "1d"]).run().assert_status(0);
    assert_eq!(dumps(&vault), ["p/01", "p/02"]);
    assert!(row(&pruned, "p/01").starts_with("keep unknown: a listing leaves out"), "{pruned:?}");
}

/// Whoever may write to the bucket may make a manifest of any size.
#[test]
fn a_manifest_that_is_too_large_to_be_read_condemns_nothing() {
    let vault = Vault::new();
    vault.put_complete("p/01", "2020-11-01T02:00:00Z");
    let name = "x".repeat(2 << 20);
    vault.put("p/01/mydumper2s3.json", &format!(r#"{{"format": 1, "files": [{{"name": "{name}"}}]}}"#));
    let pruned = prune(&vault, "p", &["--incomplete-older-than", "1d"]).run().assert_status(0);
    assert_eq!(dumps(&vault), ["p/01"]);
    assert!(row(&pruned, "p/01").starts_with("keep unknown: mydumper2s3.json is larger than"), "{pruned:?}");
}

#[test]
fn what_cannot_be_judged_stays_and_strangers_do_too() {
    let vault = Vault::new();
    days(&vault, "p", 1..3);
    vault.put("p/python/metadata", "x");
    vault.put("p/python/shop.t.00000.sql", "x");
    vault.put("p/newer/mydumper2s3.json", r#"{"format": 99}"#);
    vault.put("p/01/cat.jpg", "meow");
    // A dump at the prefix itself is not under it.
    vault.put_complete("p", "2020-01-01T00:00:00Z");
    let rules = ["--keep-last", "1", "--incomplete-older-than", "1s"];
    let pruned = prune(&vault, "p", &rules).run().assert_status(0).assert_says("stay: cat.jpg");
    assert_eq!(dumps(&vault), ["p", "p/02", "p/newer"]);
    assert_eq!(vault.keys_under("p/01"), ["p/01/cat.jpg"]);
    assert_eq!(vault.keys_under("p/python").len(), 2);
    assert!(row(&pruned, "p/python").starts_with("keep no manifest; it cannot be judged without one"));
    assert!(row(&pruned, "p/newer").contains("; it cannot be judged"));
}

#[test]
fn one_dump_that_cannot_go_does_not_keep_the_others() {
    let vault = Vault::new();
    days(&vault, "p", 1..5);
    let until = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_102_444_800);
    vault.server.retain(BUCKET, "p/01/metadata", until);
    prune(&vault, "p", &["--keep-last", "1"]).run().assert_status(1).assert_says("kept until 2100-01-01");
    assert_eq!(dumps(&vault), ["p/01", "p/04"]);
    assert_eq!(vault.keys_under("p/01").len(), 5);
}

#[test]
fn without_a_rule_it_is_wrong_usage() {
    let vault = Vault::new();
    prune(&vault, "p", &[]).run().assert_status(2).assert_says("hint: ");
}
