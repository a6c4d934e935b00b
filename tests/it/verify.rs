//! "`verify`: every file there, same size, ETag and version; nothing missing, nothing extra. Months later, with no
//! local file."

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use crate::support::peak_memory;
use crate::support::s3_server::{BUCKET, Encryption, Fault, Operation};
use crate::support::sandbox::Finished;
use crate::support::stored_dump::{METADATA, PREFIX, StoredDump, bytes};

trait Says {
    fn assert_row(self, verdict: &str, name: &str) -> Self;
}

impl Says for Finished {
    /// A row of the table of what differs.
    #[track_caller]
    fn assert_row(self, verdict: &str, name: &str) -> Self {
        let found = self.stdout.lines().any(|line| {
            let mut words = line.split_whitespace();
            (words.next(), words.next()) == (Some(verdict), Some(name))
        });
        assert!(found, "no row '{verdict} {name}':\n{self:?}");
        self
    }
}

#[test]
fn what_was_uploaded_is_whole_without_a_download() {
    let dump = StoredDump::new();
    let before = dump.server.requests().len();
    dump.command("verify").run().assert_status(0).assert_says("6 match, 0 mismatch, 0 missing, 0 extra, 0 unproved");
    let requests = dump.server.requests().split_off(before);
    let asked: Vec<_> = requests.iter().map(|request| (request.operation, request.key.as_str())).collect();
    // `metadata` tells which tables have rows; of the dump itself not a byte is read.
    let (manifest, metadata) = (dump.key("mydumper2s3.json"), dump.key("metadata"));
    let [list, get] = [Operation::ListObjectsV2, Operation::GetObject];
    assert_eq!(asked, [(list, ""), (get, &manifest), (get, &metadata)]);
}

#[test]
fn a_changed_object_a_removed_one_and_an_added_one_are_each_named() {
    let dump = StoredDump::new();
    dump.put("shop.people.sql", "INSERT INTO `people` VALUES (2);\n");
    dump.put("shop.orders-schema.sql", "short");
    dump.remove("shop.people-schema.sql");
    dump.put("shop.added.sql", "added");
    // Below the prefix, but not directly: not of this dump.
    dump.put("more/shop.other.sql", "other");
    for options in [&[][..], &["--deep"]] {
        dump.command("verify")
            .args(options)
            .run()
            .assert_status(4)
            .assert_row("mismatch", "shop.people.sql")
            .assert_row("mismatch", "shop.orders-schema.sql")
            .assert_row("missing", "shop.people-schema.sql")
            .assert_row("extra", "shop.added.sql")
            .assert_does_not_say("shop.other.sql")
            .assert_says("3 match, 2 mismatch, 1 missing, 1 extra, 0 unproved");
    }
}

/// "After a copy by another program (other part layout) … it is *unproved*, hint `--deep`."
#[test]
fn a_copy_in_other_parts_is_unproved_and_no_mismatch() {
    let mut dump = StoredDump::none();
    dump.dump("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    dump.dump("shop.orders-schema.sql", "CREATE TABLE `orders` (id INT);\n");
    // Too large to be read in place of its ETag.
    dump.dump("shop.orders.sql", bytes(22 << 20));
    dump.dump("metadata", METADATA);
    dump.upload().assert_status(0);
    let (key, content) = (dump.key("shop.orders.sql"), dump.files["shop.orders.sql"].clone());
    let stored = dump.server.object(BUCKET, &key).expect("the object").etag.clone();
    // As many parts of another size, other parts, and one PUT.
    for part_size in [Some(21 << 18), Some(8 << 20), None] {
        dump.server.copy_in_parts(BUCKET, &key, part_size);
        assert_ne!(dump.server.object(BUCKET, &key).expect("the object").etag, stored);
        let verified = dump.command("verify").run().assert_status(4).assert_row("unproved", "shop.orders.sql");
        verified.assert_says("stored again in other parts").assert_says("--deep").assert_says("0 mismatch");
        let deep = dump.command("verify").arg("--deep").run().assert_status(0);
        deep.assert_says("4 match").assert_says("proved: 4 by their bytes");
    }
    let mut other = content;
    other[7] ^= 1;
    dump.server.put_directly(BUCKET, &key, &other);
    dump.server.copy_in_parts(BUCKET, &key, Some(5 << 20));
    dump.command("verify").run().assert_status(4).assert_row("mismatch", "shop.orders.sql");
}

#[test]
fn the_latest_is_verified() {
    let dump = StoredDump::new();
    let latest = |options: &[&str]| dump.command_on_bucket("verify").arg("--latest").args(options).run();
    latest(&[]).assert_status(0).assert_says("the newest complete dump is").assert_says("6 match");
    latest(&["--prefix", "db1", "--series", "db1"]).assert_status(0).assert_says("6 by size and ETag");
    latest(&["--series", "other"]).assert_status(3).assert_says("no complete dump of the series 'other'");
}

#[test]
fn deep_finds_a_byte_that_changed_under_an_unchanged_etag() {
    let dump = StoredDump::new();
    dump.command("verify").arg("--deep").run().assert_status(0);
    dump.corrupt("shop.orders.sql");
    dump.corrupt("shop.people.sql");
    dump.command("verify").run().assert_status(0);
    dump.command("verify")
        .arg("--deep")
        .run()
        .assert_status(4)
        .assert_row("mismatch", "shop.orders.sql")
        .assert_row("mismatch", "shop.people.sql")
        .assert_says("4 match, 2 mismatch");
}

#[test]
fn a_download_that_breaks_or_is_damaged_on_its_way_goes_on() {
    let dump = StoredDump::new();
    let orders = dump.key("shop.orders.sql");
    let cut = dump.server.inject(Fault::cut_in_answer().on(Operation::GetObject).key(&orders).times(2));
    let damaged =
        dump.server.inject(Fault::damage_answer().on(Operation::GetObject).key(&dump.key("shop.people.sql")).once());
    let busy =
        dump.server.inject(Fault::answer(503, "SlowDown").on(Operation::GetObject).key(&dump.key("metadata")).times(2));
    dump.command("verify").arg("--deep").run().assert_status(0);
    assert_eq!((cut.hits(), damaged.hits(), busy.hits()), (2, 1, 2));
}

#[test]
fn content_that_the_dumper_cut_short_is_found_by_decoding() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("into memory");
        encoder.finish().expect("into memory")
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("into memory");
    let mut dump = StoredDump::none();
    let rows = bytes(300_000);
    dump.dump("shop.a.sql.gz", gzip(&rows));
    dump.dump("shop.b.sql.zst", zstd(&rows));
    dump.dump("shop.c.sql.gz", [gzip(b"INSERT"), gzip(&rows)].concat());
    dump.dump("shop.d.sql.zst", [zstd(b"INSERT"), zstd(&rows)].concat());
    let cut = |whole: Vec<u8>| whole[..whole.len() - 9].to_vec();
    dump.dump("shop.e.sql.gz", cut(gzip(&rows)));
    dump.dump("shop.f.sql.zst", cut(zstd(&rows)));
    dump.dump("shop.g.sql.zst", "");
    dump.dump("metadata", METADATA);
    // A later version of the upload may find this itself, so the dump is laid into the bucket.
    for (name, bytes) in &dump.files {
        dump.put(name, bytes);
    }
    dump.command("verify")
        .arg("--deep")
        .run()
        .assert_status(4)
        .assert_row("mismatch", "shop.e.sql.gz")
        .assert_row("mismatch", "shop.f.sql.zst")
        .assert_row("mismatch", "shop.g.sql.zst")
        .assert_says("broken: its content was cut short")
        .assert_says("5 match, 3 mismatch");
}

#[test]
fn local_files_are_compared_with_the_bucket() {
    let dump = StoredDump::new();
    let dir = dump.sandbox.path("copy");
    dump.write_files(&dir);
    let verify = || dump.command("verify").arg("--dir").arg(&dir).run();
    verify().assert_status(0).assert_says("6 match").assert_says("6 local files compared");
    let mut orders = dump.files["shop.orders.sql"].clone();
    orders[11_000_000] ^= 1;
    std::fs::write(dir.join("shop.orders.sql"), orders).expect("a changed file");
    std::fs::write(dir.join("shop.people.sql"), "short").expect("a changed file");
    std::fs::write(dir.join("shop.new.sql"), "new").expect("a new file");
    verify()
        .assert_status(4)
        .assert_row("mismatch", "shop.orders.sql")
        .assert_row("mismatch", "shop.people.sql")
        .assert_row("missing", "shop.new.sql")
        .assert_says("4 match, 2 mismatch, 1 missing");
    assert_eq!(downloads(&dump), ["mydumper2s3.json", "metadata", "mydumper2s3.json", "metadata"]);
}

/// The keys of the downloads so far, without their prefix.
fn downloads(dump: &StoredDump) -> Vec<String> {
    let requests = dump.server.requests_of(Operation::GetObject);
    requests.into_iter().map(|request| request.key.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

/// "`verify --deep` counts the rows in each table's files against `metadata` and says so per table."
#[test]
fn deep_counts_the_rows_of_each_table() {
    let metadata = |rows: u32| {
        format!(
            "# Started dump at: 2026-11-22 02:00:01\n[`shop`.`t`]\nrows = {rows}\n[`shop`.`u`]\nrows = 2\n\
             # Finished dump at: 2026-11-22 02:00:09\n"
        )
    };
    let zstd = |text: &[u8]| zstd::encode_all(text, 1).expect("into memory");
    let mut dump = StoredDump::none();
    dump.dump("shop.t.00000.sql", "INSERT INTO `t` VALUES(1)\n,(2)\n;\n");
    dump.dump("shop.t.00001.sql.zst", zstd(b"INSERT INTO `t` VALUES(3)\n;\n"));
    dump.dump("shop.u.00000.dat", "1\n2\n");
    dump.dump(
        "shop.u.00000.sql",
        "LOAD DATA LOCAL INFILE 'shop.u.00000.dat' INTO TABLE `u` LINES TERMINATED BY '\\n' (`i`);\n",
    );
    dump.dump("metadata", metadata(3));
    dump.upload().assert_status(0);
    let deep = || dump.command("verify").arg("--deep");
    deep().run().assert_status(0).assert_says("rows counted: 2 of 2 tables are as metadata says");
    dump.command("verify").run().assert_status(0).assert_does_not_say("rows counted");
    // An uploader that did not count: what it put there is what it read, and a row is missing.
    dump.remove("mydumper2s3.json");
    dump.put("metadata", metadata(4));
    let words = "metadata counts 4 rows of 'shop.t', its files hold 3";
    deep().run().assert_status(4).assert_row("mismatch", "shop.t").assert_says(words).assert_says("1 differ");
    let ended = deep().arg("--json").run().assert_status(4);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}:\n{ended:?}"));
    let tables = report["tables"].as_array().expect("tables");
    assert_eq!((&tables[0]["table"], &tables[0]["rows"]), (&"t".into(), &4.into()));
    assert_eq!((&tables[0]["counted"], &tables[0]["found"]), (&"differ".into(), &3.into()));
    assert_eq!(tables[1]["counted"], "agree");
}

/// `zstd --long=28`: its window is larger than what a decoder takes without being told to.
#[test]
fn a_window_that_is_too_large_is_no_fault() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(28).expect("a parameter");
    encoder.write_all(b"INSERT INTO `t` VALUES(1)\n;\n").expect("into memory");
    let mut dump = StoredDump::none();
    dump.dump("shop.t.00000.sql.zst", encoder.finish().expect("into memory"));
    dump.dump("metadata", METADATA);
    dump.upload_to(PREFIX).arg("--content-check").run().assert_status(0);
    dump.command("verify").arg("--deep").run().assert_status(0).assert_says("2 match");
}

/// An uploader that did not look, and a dump without a manifest: what `metadata` counted is in no file.
#[test]
fn rows_without_a_data_file_are_missed_with_and_without_a_manifest() {
    let text = "# Started dump at: 2026-11-22 02:00:01\n[`shop`.`t`]\nrows = 0\n[`shop`.`u`]\nrows = 1\n\
                # Finished dump at: 2026-11-22 02:00:09\n";
    let mut dump = StoredDump::none();
    dump.dump("shop.t-schema.sql", "CREATE TABLE `t` (id INT);\n");
    dump.dump("shop.u-schema.sql", "CREATE TABLE `u` (id INT);\n");
    dump.dump("shop.u.00000.sql", "INSERT INTO `u` VALUES(1)\n;\n");
    dump.dump("metadata", text);
    dump.upload().assert_status(0);
    dump.command("verify").run().assert_status(0).assert_says("4 match");
    dump.put("metadata", text.replace("rows = 0", "rows = 2"));
    let missed = || {
        let words = "metadata counts 2 rows of its table";
        dump.command("verify").run().assert_row("missing", "shop.t.00000.sql").assert_says(words).assert_status(4);
    };
    missed();
    dump.remove("mydumper2s3.json");
    missed();
}

#[test]
fn a_dump_of_the_python_tool_at_the_root_of_a_bucket() {
    let mut dump = StoredDump::none();
    dump.dump("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    dump.dump("shop.orders.sql", bytes(12 << 20));
    dump.dump("metadata", METADATA);
    // Up in parts of 5 MiB, without a word about their size.
    dump.upload().assert_status(0);
    let orders = dump.server.object(BUCKET, &dump.key("shop.orders.sql")).expect("the object");
    assert_eq!(orders.parts_count, Some(3));
    dump.remove("mydumper2s3.json");
    let dir = dump.sandbox.path("copy");
    dump.write_files(&dir);

    dump.command("verify").run().assert_status(4).assert_says("there is no manifest").assert_says("3 unproved");
    dump.command("verify").arg("--deep").run().assert_status(0).assert_says("3 match");
    dump.command("verify").arg("--dir").arg(&dir).run().assert_status(0).assert_says("3 match");
    // Strangers are no business of ours.
    dump.put("notes.txt", "mine");
    dump.command("verify").arg("--dir").arg(&dir).run().assert_status(0);
    dump.corrupt("shop.orders.sql");
    dump.command("verify").arg("--deep").run().assert_status(4).assert_row("mismatch", "shop.orders.sql");
    // At the root of the bucket.
    for (name, bytes) in &dump.files {
        dump.server.put_directly(BUCKET, name, bytes);
    }
    dump.command_at("verify", "").arg("--dir").arg(&dir).run().assert_status(0).assert_says("3 match");
    std::fs::write(dir.join("shop.orders.sql"), "other").expect("a changed file");
    dump.command_at("verify", "")
        .arg("--dir")
        .arg(&dir)
        .run()
        .assert_status(4)
        .assert_row("mismatch", "shop.orders.sql");
}

#[test]
fn what_is_not_whole_is_status_3_and_says_why() {
    let dump = StoredDump::new();
    dump.command_at("verify", "db1/nowhere").run().assert_status(3).assert_says("there is no dump");
    dump.remove("metadata");
    dump.command("verify").run().assert_status(3).assert_row("missing", "metadata").assert_says("not committed");
    dump.remove("mydumper2s3.json");
    dump.command("verify").run().assert_status(3).assert_says("neither a manifest nor metadata");

    let mut dump = StoredDump::none();
    dump.dump("shop.people.sql", "INSERT INTO `people` VALUES (1);\n");
    dump.dump("metadata", METADATA.replace("Finished dump at", "Gone at"));
    dump.upload().assert_status(3);
    dump.command("verify").run().assert_status(3).assert_says("incomplete: metadata has no line 'Finished dump at'");
}

#[test]
fn an_upload_on_its_way_is_said_to_be_one() {
    let dump = StoredDump::new();
    let manifest = dump.server.object(BUCKET, &dump.key("mydumper2s3.json")).expect("the manifest").bytes();
    let mut manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    manifest["state"] = "uploading".into();
    manifest["files"] = Value::Array(Vec::new());
    dump.put("mydumper2s3.json", manifest.to_string());
    dump.command("verify").run().assert_status(3).assert_says("still being uploaded");
}

#[test]
fn a_manifest_is_the_one_that_is_meant_or_it_is_none() {
    let dump = StoredDump::new();
    let manifest = dump.server.object(BUCKET, &dump.key("mydumper2s3.json")).expect("the manifest").bytes();
    let sha256 = sha256(&manifest);
    let verify = |hash: &str| dump.command("verify").args(["--manifest-sha256", hash]).run();
    verify(&sha256).assert_status(0).assert_says("is the one that is meant");
    verify(&"ab".repeat(32)).assert_status(4).assert_says(&sha256);
    let newer = String::from_utf8(manifest.clone()).expect("text").replace("\"format\": 1", "\"format\": 99");
    dump.put("mydumper2s3.json", newer);
    dump.command("verify").run().assert_status(4).assert_says("use a newer mydumper2s3");
    dump.put("mydumper2s3.json", &manifest[..manifest.len() / 2]);
    dump.command("verify").run().assert_status(4).assert_says("damaged");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_json_report_is_dated_and_tells_each_file_with_its_proof() {
    let dump = StoredDump::new();
    dump.remove("shop.people.sql");
    let ended = dump.command("verify").args(["--json", "--deep"]).run().assert_status(4);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}:\n{ended:?}"));
    let verified = report["verified"].as_str().expect("a time");
    assert!(verified.parse::<jiff::Timestamp>().is_ok(), "{verified}");
    assert_eq!(report["dump"], format!("s3://{BUCKET}/{PREFIX}/"));
    assert_eq!(report["manifest"]["state"], "complete");
    assert_eq!((&report["counts"]["match"], &report["counts"]["missing"]), (&5.into(), &1.into()));
    let file = |name: &str| {
        let files = report["files"].as_array().expect("files");
        files.iter().find(|file| file["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    assert_eq!(file("shop.people.sql")["verdict"], "missing");
    let orders = file("shop.orders.sql");
    assert_eq!((&orders["verdict"], &orders["size"]), (&"match".into(), &(12 << 20).into()));
    assert_eq!(orders["because"], "its bytes were read: part-md5s");
    assert_eq!(orders["proof_at_upload"], "etag-composite");
}

#[test]
fn where_etags_are_no_md5s_nothing_is_called_a_match_without_another_proof() {
    let mut dump = StoredDump::none();
    dump.server.set_default_encryption(BUCKET, Encryption::Kms { key_id: "a-key".into() });
    dump.dump("shop.people.sql", "INSERT INTO `people` VALUES (1);\n");
    dump.dump("shop.orders.sql", bytes(12 << 20));
    dump.dump("metadata", METADATA);
    dump.upload().assert_status(0);
    // The manifest has the ETags that the store gave; `metadata`, whose is not in it, is read.
    dump.command("verify").run().assert_status(0).assert_says("3 match");
    dump.command("verify").arg("--deep").run().assert_status(0).assert_says("3 match");
    dump.corrupt("shop.orders.sql");
    dump.command("verify").arg("--deep").run().assert_status(4).assert_row("mismatch", "shop.orders.sql");
    dump.remove("mydumper2s3.json");
    let dir = dump.sandbox.path("copy");
    dump.write_files(&dir);
    dump.command("verify").arg("--dir").arg(&dir).run().assert_status(4).assert_says("3 unproved");
    dump.command("verify").arg("--deep").run().assert_status(4).assert_says("3 unproved");
}

/// "100,000 objects under a prefix: `verify` needs about one listing request per 1,000 objects, and bounded memory."
#[test]
fn a_hundred_thousand_objects() {
    const FILES: usize = 100_000;
    let dump = StoredDump::new();
    let manifest = dump.server.object(BUCKET, &dump.key("mydumper2s3.json")).expect("the manifest").bytes();
    let mut manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let file = manifest["files"].as_array().and_then(|files| files.iter().find(|file| file["name"] == "metadata"));
    let file = file.expect("metadata").clone();
    let names = || (0..FILES).map(|number| format!("shop.a_table_of_a_usual_name.{number:05}.sql"));
    dump.server.copy_directly(BUCKET, &dump.key("metadata"), names().map(|name| dump.key(&name)));
    let etag = dump.server.object(BUCKET, &dump.key("metadata")).expect("metadata").etag.clone();
    let files = manifest["files"].as_array_mut().expect("files");
    files.extend(names().map(|name| {
        let mut file = file.clone();
        (file["name"], file["etag"]) = (name.into(), etag.clone().into());
        file
    }));
    dump.put("mydumper2s3.json", serde_json::to_vec(&manifest).expect("JSON"));
    let before = dump.server.count(Operation::ListObjectsV2);
    let verify = dump.command("verify").wrapped_in(peak_memory::WRAPPER);
    let verify = verify.time_limit(Duration::from_secs(300)).run();
    let peak_mib = peak_memory::mib(&verify);
    verify.assert_status(0).assert_says(&format!("{} match", FILES + dump.files.len()));
    let listings = dump.server.count(Operation::ListObjectsV2) - before;
    println!("{listings} listing requests, {peak_mib} MiB at the peak");
    assert!(listings <= FILES / 1000 + 2, "{listings}");
    assert!(peak_mib < 64, "{peak_mib} MiB");
}
