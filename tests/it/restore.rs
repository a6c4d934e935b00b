//! "`restore`: downloads in parallel, each file is proved before it appears under its final name, `metadata` last. Run
//! again it keeps what is already right."

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::mariadb::{MariaDb, mydumper};
use crate::support::s3_server::{BUCKET, Fault, Operation};
use crate::support::sandbox::{Program, files_in, names_in};
use crate::support::stored_dump::{METADATA, PREFIX, StoredDump, bytes};

impl StoredDump {
    fn target(&self) -> PathBuf {
        self.sandbox.path("restored")
    }

    fn restore(&self) -> Program<'_> {
        self.restore_at(PREFIX)
    }

    fn restore_at(&self, prefix: &str) -> Program<'_> {
        self.command_at("restore", prefix).arg("--dir").arg(self.target())
    }

    /// The directory holds exactly these files of the dump.
    #[track_caller]
    fn assert_restored(&self, wanted: impl Fn(&str) -> bool) {
        let expected: BTreeMap<_, _> = self.files.iter().filter(|(name, _)| wanted(name)).collect();
        let there = files_in(&self.target());
        assert_eq!(there.keys().collect::<Vec<_>>(), expected.keys().copied().collect::<Vec<_>>());
        assert!(expected.into_iter().all(|(name, bytes)| there[name] == *bytes), "other bytes");
    }

    /// The names of the files that were asked for since, one for each request.
    fn fetched_since(&self, before: usize) -> Vec<String> {
        let requests = self.server.requests_of(Operation::GetObject).split_off(before);
        requests.into_iter().map(|request| request.key.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("its mode").permissions().mode() & 0o7777
}

#[test]
fn a_dump_comes_back_byte_for_byte_and_for_this_user_alone() {
    let dump = StoredDump::new();
    let before = dump.server.count(Operation::GetObject);
    let command = format!("myloader --directory {}", dump.target().display());
    dump.restore().run().assert_status(0).assert_says(&command);
    dump.assert_restored(|_| true);
    assert_eq!(mode(&dump.target()), 0o700);
    for name in dump.files.keys() {
        assert_eq!(mode(&dump.target().join(name)), 0o600, "{name}");
    }
    // The large file in ranges, `metadata` last (and once before, to know what the dump is).
    let fetched = dump.fetched_since(before);
    assert_eq!(fetched.iter().filter(|name| *name == "shop.orders.sql").count(), 3);
    assert_eq!(fetched.last().map(String::as_str), Some("metadata"));

    let before = dump.server.count(Operation::GetObject);
    dump.restore().run().assert_status(0).assert_says("0 files fetched");
    assert_eq!(dump.fetched_since(before), ["mydumper2s3.json", "metadata"]);
    dump.assert_restored(|_| true);
}

/// "`restore` killed at random and run again ends right, with no byte downloaded twice for finished files."
#[test]
fn killed_at_any_moment_it_goes_on_where_it_was() {
    let mut dump = StoredDump::none();
    for number in 0..12 {
        dump.dump(&format!("shop.t{number:02}.sql"), bytes(100_000 + number * 70_000));
    }
    dump.dump("shop.orders.sql", bytes(12 << 20));
    dump.dump("metadata", METADATA);
    dump.upload().assert_status(0);
    // Slow enough that there is a middle to be killed in.
    dump.server.set_rate_limit(Some(40 << 20));
    for requests in [3, 6, 9, 12, 15, 18] {
        let _ = std::fs::remove_dir_all(dump.target());
        let before = dump.server.count(Operation::GetObject);
        let run = dump.restore().start();
        dump.server.wait_until("so many downloads", |log| {
            log.iter().filter(|request| request.operation == Operation::GetObject).count() >= before + requests
        });
        run.kill();
        let there = files_in(&dump.target());
        let finished: Vec<_> = there.keys().filter(|name| dump.files.contains_key(*name)).collect();
        for name in &finished {
            assert!(there[*name] == dump.files[*name], "'{name}' has its name and is not right");
        }
        assert!(!there.contains_key("metadata") || finished.len() == dump.files.len(), "{finished:?}");

        let before = dump.server.count(Operation::GetObject);
        dump.restore().run().assert_status(0);
        dump.assert_restored(|_| true);
        let again = dump.fetched_since(before);
        let twice: Vec<_> = finished.iter().filter(|name| **name != "metadata" && again.contains(name)).collect();
        assert!(twice.is_empty(), "fetched again after {requests} requests: {twice:?}");
        println!("killed at request {requests}: {} of {} files were finished", finished.len(), dump.files.len());
    }
}

#[test]
fn what_is_not_right_never_gets_its_name() {
    let dump = StoredDump::new();
    dump.corrupt("shop.orders.sql");
    let said = "its bytes in the bucket are not those that were uploaded";
    dump.restore().run().assert_status(1).assert_says(said).assert_says("shop.orders.sql");
    // Neither `metadata`, which would say that all is there.
    dump.assert_restored(|name| !["shop.orders.sql", "metadata"].contains(&name));
    assert!(names_in(&dump.target()).iter().all(|name| !name.to_string_lossy().contains("download")));
}

#[test]
fn trouble_on_the_way_is_overcome() {
    let dump = StoredDump::new();
    let (orders, people) = (dump.key("shop.orders.sql"), dump.key("shop.people.sql"));
    let on = |fault: Fault, key: &str| dump.server.inject(fault.on(Operation::GetObject).key(key));
    let faults = [
        on(Fault::damage_answer().times(2), &orders),
        on(Fault::cut_in_answer().times(2), &orders),
        on(Fault::damage_answer().once(), &people),
        on(Fault::answer(503, "SlowDown").times(2), &people),
    ];
    dump.restore().run().assert_status(0);
    dump.assert_restored(|_| true);
    assert_eq!(faults.map(|fault| fault.hits()), [2, 2, 1, 2]);
}

#[test]
fn a_dump_that_is_not_whole_needs_to_be_asked_for() {
    let mut dump = StoredDump::none();
    dump.dump("shop.people.sql", "INSERT INTO `people` VALUES (1);\n");
    let text = METADATA.replace("Finished dump at", "Gone at");
    dump.dump("metadata", &text);
    dump.upload().assert_status(3);
    dump.restore().run().assert_status(3).assert_says("is no whole dump").assert_says("--incomplete");
    assert!(!dump.target().exists());
    // Its `metadata` is in the manifest: without one myloader loads nothing.
    for _ in 0..2 {
        dump.restore().arg("--incomplete").run().assert_status(3).assert_says("what there is was fetched");
        dump.assert_restored(|_| true);
    }
}

#[test]
fn a_damaged_dump_is_refused_before_the_first_byte() {
    let dump = StoredDump::new();
    dump.remove("shop.people.sql");
    dump.put("shop.orders-schema.sql", "short");
    let refused = dump.restore().run().assert_status(4).assert_says("'shop.people.sql' is missing");
    refused.assert_says("'shop.orders-schema.sql' has another size").assert_says("--incomplete");
    assert!(!dump.target().exists());
    dump.restore().arg("--incomplete").run().assert_status(3);
    dump.assert_restored(|name| !["shop.people.sql", "shop.orders-schema.sql"].contains(&name));
}

#[test]
fn archived_objects_are_named_before_the_first_byte() {
    let mut dump = StoredDump::none();
    dump.dump("shop.people.sql", "INSERT INTO `people` VALUES (1);\n");
    dump.dump("metadata", METADATA);
    let upload = dump.upload_to(PREFIX).args(["--storage-class", "DEEP_ARCHIVE"]);
    upload.run().assert_status(0);
    let before = dump.server.count(Operation::GetObject);
    dump.restore().run().assert_status(1).assert_says("archived").assert_says("aws s3api restore-object");
    assert_eq!(dump.fetched_since(before), ["mydumper2s3.json", "metadata"]);
}

#[test]
fn files_of_others_are_safe() {
    let dump = StoredDump::new();
    let target = dump.target();
    std::fs::create_dir(&target).expect("a directory");
    std::fs::write(target.join("shop.people.sql"), "mine").expect("a file");
    std::fs::write(target.join("notes.txt"), "mine").expect("a file");
    dump.restore().run().assert_status(2).assert_says("'shop.people.sql' has 4 bytes").assert_says("--overwrite");
    assert_eq!(names_in(&target), ["notes.txt", "shop.people.sql"]);
    dump.restore().arg("--overwrite").run().assert_status(0);
    assert_eq!(files_in(&target)["notes.txt"], b"mine");
    std::fs::remove_file(target.join("notes.txt")).expect("a file");
    dump.assert_restored(|_| true);

    // myloader would load this one, too.
    std::fs::write(target.join("old.t.sql"), "DROP DATABASE shop").expect("a file");
    dump.restore().run().assert_status(2).assert_says("not of this dump: 'old.t.sql'");
}

#[test]
fn a_symlink_is_never_followed() {
    let dump = StoredDump::new();
    let (target, outside) = (dump.target(), dump.sandbox.path("outside"));
    std::fs::create_dir(&target).expect("a directory");
    std::fs::write(&outside, "precious").expect("a file");
    symlink(&outside, target.join("shop.people.sql")).expect("a symlink");
    for options in [&[][..], &["--overwrite"]] {
        dump.restore().args(options).run().assert_status(2).assert_says("is a symlink");
    }
    std::fs::remove_file(target.join("shop.people.sql")).expect("a symlink");
    // Nor one that waits where we put what is not proved yet.
    for number in 0..3 {
        symlink(&outside, target.join(format!(".mydumper2s3-{number}.download"))).expect("a symlink");
    }
    dump.restore().run().assert_status(0);
    assert_eq!(std::fs::read(&outside).expect("a file"), b"precious");
}

/// Promise 11: "Nothing that a bucket's writer, another local user or a dump's content can choose leads outside": no path.
#[test]
fn a_hostile_key_gets_nowhere() {
    let dump = StoredDump::new();
    // Without a manifest it is the keys that name files.
    let manifest = dump.server.object(BUCKET, &dump.key("mydumper2s3.json")).expect("the manifest").bytes();
    dump.remove("mydumper2s3.json");
    for name in
        ["..", ".", "../../evil.sql", "/etc/evil.sql", "sub/evil.sql", "evil\n.sql", "resume", "metadata.partial.0"]
    {
        dump.put(name, "evil");
    }
    dump.put(".mydumper2s3-1.download", "evil");
    dump.restore().run().assert_status(0);
    dump.assert_restored(|_| true);
    for place in [dump.sandbox.path("evil.sql"), PathBuf::from("/etc/evil.sql")] {
        assert!(!place.exists(), "{}", place.display());
    }

    // With one it is the manifest.
    for name in ["../evil.sql", "/etc/evil.sql", "a/b.sql", "..", ""] {
        let mut hostile: Value = serde_json::from_slice(&manifest).expect("JSON");
        hostile["files"][0]["name"] = name.into();
        dump.put("mydumper2s3.json", hostile.to_string());
        let _ = std::fs::remove_dir_all(dump.target());
        dump.restore().run().assert_status(1).assert_says("damaged");
        assert!(!dump.target().exists());
    }
}

#[test]
fn tables_come_with_the_schemas_that_they_need() {
    let mut dump = StoredDump::none();
    for name in [
        "crm-schema-create.sql",
        "crm.people-schema.sql",
        "crm.people.sql",
        "crm-schema-post.sql",
        "shop-schema-create.sql",
        "shop-schema-post.sql",
        "shop.orders-schema.sql",
        "shop.orders-schema-triggers.sql",
        "shop.orders.00000.sql",
        "shop.orders.00001.sql",
        "shop.two words-schema.sql",
        "shop.two words.sql",
    ] {
        dump.dump(name, format!("-- {name}\n"));
    }
    dump.dump("metadata", METADATA);
    dump.upload().assert_status(0);
    let restored = |tables: &str, wanted: &dyn Fn(&str) -> bool| {
        let _ = std::fs::remove_dir_all(dump.target());
        dump.restore().args(["--tables", tables]).run().assert_status(0);
        dump.assert_restored(wanted);
    };
    let always = |name: &str| ["metadata", "shop-schema-create.sql"].contains(&name);
    restored("shop.orders", &|name| always(name) || name.starts_with("shop.orders"));
    restored("shop.two words", &|name| always(name) || name.starts_with("shop.two words"));
    restored("shop.*", &|name| name.starts_with("shop") || name == "metadata");
    restored("crm.*,shop.orders", &|name| always(name) || name.starts_with("crm") || name.starts_with("shop.orders"));
    let missing = dump.restore().args(["--tables", "shop.order"]).run().assert_status(2);
    missing.assert_says("the dump has no table 'shop.order'");
    // One table after the other into one directory: all of them are of this dump.
    restored("shop.orders", &|name| always(name) || name.starts_with("shop.orders"));
    dump.restore().args(["--tables", "crm.people"]).run().assert_status(0);
    dump.assert_restored(|name| !name.contains("-post") && !name.contains("two words"));
}

/// The names in files are made up where the real ones are odd, and only the schema files have them: to `list`, and to
/// `--tables`, with a manifest and without.
#[test]
fn tables_are_chosen_by_their_real_names() {
    let mut dump = StoredDump::none();
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("compressed");
        encoder.finish().expect("compressed")
    };
    dump.dump("mydumper_0-schema-create.sql", "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `odd.db` ;\n");
    dump.dump(
        "mydumper_0.mydumper_1-schema.sql.gz",
        gzip("/*!40101 SET NAMES binary*/;\nCREATE TABLE `a/b` (`n` int);\n"),
    );
    dump.dump("mydumper_0.mydumper_1.00000.sql.gz", gzip("INSERT INTO `a/b` VALUES(1);\n"));
    dump.dump("mydumper_0.plain-schema.sql", "CREATE TABLE `plain` (`n` int);\n");
    dump.dump("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    let view = zstd::encode_all(&b"CREATE TABLE IF NOT EXISTS `v``1`(\n`n` int\n) ENGINE=MEMORY;\n"[..], 1);
    dump.dump("shop.mydumper_2-schema.sql.zst", view.expect("compressed"));
    dump.dump(
        "shop.mydumper_2-schema-view.sql",
        "DROP TABLE IF EXISTS `v``1`;\nCREATE VIEW `v``1` AS SELECT 1 AS `n`;\n",
    );
    dump.dump("metadata", METADATA);
    dump.upload().assert_status(0);
    let real_names = || -> Vec<String> {
        let listed = dump.command("list").args(["--files", "--json"]).run().assert_status(0);
        let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
        let named = |file: &Value| format!("{} {}", file["database"], file["table"]).replace('"', "");
        let of_tables = |file: &&Value| !file["database"].is_null();
        listed["files"].as_array().expect("files").iter().filter(of_tables).map(named).collect()
    };
    let odd = ["odd.db null", "odd.db a/b", "odd.db a/b", "odd.db plain"];
    let names = [&odd[..], &["shop null", "shop v`1", "shop v`1"]].concat();
    assert_eq!(real_names(), names);
    let assert_chosen = || {
        let restored = |tables: &str, wanted: &dyn Fn(&str) -> bool| {
            let _ = std::fs::remove_dir_all(dump.target());
            dump.restore().args(["--tables", tables]).run().assert_status(0);
            dump.assert_restored(wanted);
        };
        let of_odd = |name: &str| name == "metadata" || name.starts_with("mydumper_0-schema-create");
        restored("`odd.db`.a/b", &|name| of_odd(name) || name.contains("mydumper_1"));
        restored("`odd.db`.plain", &|name| of_odd(name) || name.contains("plain"));
        restored("shop.`v``1`", &|name| name == "metadata" || name.starts_with("shop"));
    };
    assert_chosen();
    dump.server.remove_directly(BUCKET, &format!("{PREFIX}/mydumper2s3.json"));
    assert_chosen();
    assert_eq!(real_names(), names);
}

#[test]
fn a_dump_of_the_python_tool_comes_back_from_the_root_of_a_bucket() {
    let mut dump = StoredDump::none();
    dump.dump("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    dump.dump("shop.orders-schema.sql", "CREATE TABLE `orders` (id INT);\n");
    dump.dump("shop.orders.sql", bytes(12 << 20));
    dump.dump("metadata", METADATA);
    dump.upload_to("").run().assert_status(0);
    dump.server.remove_directly(BUCKET, "mydumper2s3.json");
    dump.server.put_directly(BUCKET, "holiday.jpg", b"mine");
    dump.server.put_directly(BUCKET, "other/dump/metadata", METADATA.as_bytes());
    dump.restore_at("").run().assert_status(0).assert_does_not_say("only their size is proved");
    dump.assert_restored(|_| true);
    dump.server.corrupt(BUCKET, "shop.orders.sql");
    std::fs::remove_dir_all(dump.target()).expect("what was restored");
    dump.restore_at("").run().assert_status(1).assert_says("not those that were uploaded");
}

#[test]
fn the_latest_is_the_newest_complete_one() {
    let mut dump = StoredDump::none();
    for (prefix, started, ended) in [
        ("db1/second", "2026-11-22 02:00:01", "Finished dump at"),
        ("db1/first", "2026-11-21 02:00:01", "Finished dump at"),
        ("db1/third", "2026-11-23 02:00:01", "Gone at"),
    ] {
        dump.dump("shop.people.sql", format!("-- {prefix}\n"));
        let text = METADATA.replace("2026-11-22 02:00:01", started).replace("Finished dump at", ended);
        dump.dump("metadata", text);
        let status = if prefix == "db1/third" { 3 } else { 0 };
        dump.upload_to(prefix).run().assert_status(status);
    }
    let latest = |options: &[&str], expected: &str| {
        let _ = std::fs::remove_dir_all(dump.target());
        dump.restore_at("db1").arg("--latest").args(options).run().assert_status(0);
        let there = files_in(&dump.target());
        assert_eq!(String::from_utf8_lossy(&there["shop.people.sql"]), format!("-- {expected}\n"));
    };
    latest(&[], "db1/second");
    latest(&["--before", "2026-11-22"], "db1/first");
    let none = dump.restore_at("db1").args(["--latest", "--before", "2026-01-01"]).run().assert_status(3);
    none.assert_says("no complete dump under");
}

/// "`restore --latest` over several series: ask which."
#[test]
fn the_latest_of_several_series_is_asked_for() {
    let mut dump = StoredDump::none();
    for (prefix, started) in [("db1/a", "2026-11-22 02:00:01"), ("db2/a", "2026-11-21 02:00:01")] {
        dump.dump("shop.people.sql", format!("-- {prefix}\n"));
        dump.dump("metadata", METADATA.replace("2026-11-22 02:00:01", started));
        dump.upload_to(prefix).run().assert_status(0);
    }
    let asked = dump.restore_at("").arg("--latest").run().assert_status(2);
    asked.assert_says("dumps of 2 series").assert_says("'db1', 'db2'").assert_says("hint: name the one");
    assert!(!dump.target().exists(), "nothing was begun");
    dump.restore_at("").args(["--latest", "--series", "db2"]).run().assert_status(0);
    assert_eq!(String::from_utf8_lossy(&files_in(&dump.target())["shop.people.sql"]), "-- db2/a\n");
}

#[test]
fn a_loader_of_the_other_generation_is_warned_of() {
    let dump = StoredDump::new();
    let loader = dump.sandbox.path("bin/myloader");
    let says = |version: &str| {
        std::fs::write(&loader, format!("#!/bin/sh\necho 'myloader {version}, built against MySQL'\n"))
            .expect("a script");
        std::fs::set_permissions(&loader, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        dump.restore().run().assert_status(0)
    };
    says("v1.0.1-1").assert_says("the myloader here is 1.x");
    says("0.10.0").assert_does_not_say("myloader here");
}

/// "A dump restored with `restore` and Debian's `myloader` into an empty database: `CHECKSUM TABLE` equal for every
/// table; the same for `--tables` with one table."
#[test]
fn a_real_dump_comes_back_into_a_database() {
    let (database, whole, one) = ("restore_shop", "restore_whole", "restore_one");
    let mariadb = MariaDb::shared();
    mariadb.create_sample(database, 20_000);
    let dump = StoredDump::none();
    let dumped = dump.sandbox.program(mydumper()).args(mariadb.mydumper_arguments(database));
    dumped.arg("-c").arg("-o").arg(dump.sandbox.dump_dir()).run().assert_status(0);
    dump.upload().assert_status(0);
    dump.sandbox.assert_local_names([] as [&str; 0]);
    dump.command("verify").arg("--deep").run().assert_status(0);

    dump.restore().run().assert_status(0);
    mariadb.load(&dump.target(), database, whole);
    assert_eq!(mariadb.checksums(whole), mariadb.checksums(database));
    assert_eq!(mariadb.programs(whole), mariadb.programs(database));

    std::fs::remove_dir_all(dump.target()).expect("what was restored");
    let table = "two words";
    dump.restore().args(["--tables", &format!("{database}.{table}")]).run().assert_status(0);
    mariadb.load(&dump.target(), database, one);
    let expected: BTreeMap<_, _> = mariadb.checksums(database).into_iter().filter(|(name, _)| name == table).collect();
    assert_eq!(mariadb.checksums(one), expected);
}

/// Forty files into `/etc` by a slip of the hand: a directory that holds other things and nothing of the dump is refused
/// before anything is fetched. One that has a part of the dump already may hold notes, too.
#[test]
fn a_populated_directory_without_anything_of_the_dump_is_refused() {
    let dump = StoredDump::new();
    let target = dump.target();
    std::fs::create_dir(&target).expect("a directory");
    std::fs::create_dir(target.join("lost+found")).expect("a directory");
    for number in 0..40 {
        std::fs::write(target.join(format!("{number:02}.conf")), "mine").expect("a file");
    }
    let before = dump.server.count(Operation::GetObject);
    let names = "nothing of this dump: '00.conf', '01.conf', '02.conf', '03.conf', '04.conf', and 35 more";
    dump.restore().run().assert_status(2).assert_says(names).assert_says("hint: choose an empty directory");
    let fetched = dump.fetched_since(before);
    assert!(fetched.iter().all(|name| name == "metadata" || name == "mydumper2s3.json"), "{fetched:?}");
    assert_eq!(names_in(&target).len(), 41);

    std::fs::write(target.join("shop.people.sql"), &dump.files["shop.people.sql"]).expect("a file");
    dump.restore().run().assert_status(0);
}
