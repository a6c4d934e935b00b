//! `prune`: what no rule keeps goes, directory by directory, and never the last whole dump.

use crate::support::dump_objects::Vault;
use crate::support::s3_server::BUCKET;
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

/// `prefix action why` of each row.
fn row(finished: &Finished, prefix: &str) -> String {
    let row = finished.stdout.lines().find(|line| line.split_whitespace().next() == Some(prefix));
    let row = row.unwrap_or_else(|| panic!("no row of {prefix}: {finished:?}"));
    let words: Vec<_> = row.split_whitespace().collect();
    let at = words.iter().rposition(|word| ["keep", "remove"].contains(word)).expect("an action");
    words[at..].join(" ")
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
    assert_eq!(row(&pruned, "p/failed"), "remove not whole, and older than 2h");
    assert_eq!(row(&pruned, "p/young"), "keep not whole, but not older than 2h");
}

#[test]
fn an_upload_is_touched_only_when_it_is_old_and_stalled() {
    let vault = Vault::new();
    vault.put_dump("p/alive", "2020-11-10T02:00:00Z", "uploading");
    vault.server.set_clock_offset(-2 * 3600);
    vault.put_dump("p/stalled", "2020-11-10T02:00:00Z", "uploading");
    let soon = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(3)).to_string();
    vault.put_dump("p/stalled-young", &soon, "uploading");
    vault.server.set_clock_offset(0);
    let pruned = prune(&vault, "p", &["--incomplete-older-than", "7d"]).run().assert_status(0);
    assert_eq!(dumps(&vault), ["p/alive", "p/stalled-young"]);
    assert_eq!(row(&pruned, "p/alive"), "keep it is being uploaded");
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
    assert!(row(&pruned, "p/python").starts_with("keep without a manifest"));
    assert!(row(&pruned, "p/newer").starts_with("keep it cannot be judged"));
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
