//! A dump into a server without a disk that holds it: real MariaDB, mydumper and myloader.

use std::ffi::OsString;

use rustix::process::Signal;

use crate::support::fake_dumper;
use crate::support::load_story::{ROWS, Story, endpoint_of, eventually_nothing_is_left, with_real_programs};
use crate::support::mariadb::{MariaDb, is_mydumper_1};
use crate::support::s3_server::{BUCKET, Encryption, Fault, Operation, S3Server};
use crate::support::sandbox::PeakLocalBytes;
use crate::support::scripted_loader::{READS_BOTH, ScriptedLoader};
use crate::support::seaweedfs::SeaweedFs;
use crate::support::stored_dump::{METADATA, StoredDump};

/// 300 MB, which at no moment lie on the disk.
#[test]
fn a_dump_is_loaded_and_no_disk_holds_it() {
    let bucket = SeaweedFs::shared().bucket("load-plain");
    let story = Story::with_rows(bucket.endpoint.clone(), "load_plain", 1_150_000);
    let run = story.load_all().start();
    let disk = PeakLocalBytes::watch(story.stage());
    run.finish().assert_status(0).assert_says("loaded");
    story.assert_loaded();
    println!("at most {} bytes on the disk", disk.bytes());
    assert!(disk.bytes() < 1024 * 1024, "{}", disk.bytes());
}

/// Compressed; and rows as text, which mydumper before 0.11 cannot write.
#[test]
fn a_dump_in_each_form_is_loaded() {
    let text: [(&str, &[&str]); 2] =
        [("load_text", &["--format", "LOAD_DATA"]), ("load_text_compressed", &["--format", "LOAD_DATA", "-c"])];
    let forms = [("load_compressed", &["-c"] as &[&str])].into_iter();
    for (database, options) in forms.chain(text.into_iter().filter(|_| is_mydumper_1())) {
        let server = S3Server::start();
        let story = Story::new(endpoint_of(&server), database, options);
        story.load_all().run().assert_status(0);
        story.assert_loaded();
    }
}

/// "For LOAD DATA a file begins only with its first part in hand": once the server has the statement it waits for rows, and
/// not for long. Its patience is named before.
#[test]
fn a_statement_for_rows_as_text_waits_for_the_first_of_them() {
    const STATEMENT: &str = "shop.notes.00000.sql";
    const ROWS_AS_TEXT: &str = "shop.notes.00000.dat";
    let mut dump = StoredDump::none();
    dump.dump("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    dump.dump("shop.notes-schema.sql", "CREATE TABLE `notes` (id INT, v TEXT);\n");
    dump.dump(STATEMENT, format!("LOAD DATA LOCAL INFILE '{ROWS_AS_TEXT}' INTO TABLE `notes` (`id`,`v`);\n"));
    dump.dump(ROWS_AS_TEXT, "1\tone\n2\ttwo\n");
    dump.dump("metadata", METADATA);
    dump.upload().assert_status(0);
    std::fs::create_dir_all(dump.sandbox.path("tmp")).expect("a directory");
    // As 1.x does it: the statement is read to its end and sent, and only then the rows are opened.
    let loader =
        ScriptedLoader::with(&dump.sandbox, &READS_BOTH.replace("SQL", STATEMENT).replace("DAT", ROWS_AS_TEXT));
    let load = |patience: &str| {
        let load = dump.command("load").env("TMPDIR", dump.sandbox.path("tmp")).args(["--retry-for", patience]);
        with_real_programs(load).arg("--").args(loader.line()).args(MariaDb::second().connection())
    };
    let away = dump.server.inject(Fault::answer(503, "SlowDown").on(Operation::GetObject).key(&dump.key(ROWS_AS_TEXT)));
    let finished = load("1s").run().assert_status(1).assert_says("cannot fetch 'shop.notes.00000.");
    finished.assert_says("net_read_timeout (30 s)").assert_says("shop.notes (2 of 2 files missing)");
    assert_eq!((loader.bytes(STATEMENT), loader.whole()), (Vec::new(), Vec::new()));

    let mut run = load("1m").start();
    run.wait_for_line("cannot be used");
    assert_eq!(loader.bytes(STATEMENT), b"");
    away.clear();
    run.finish().assert_status(0);
    assert_eq!(loader.whole(), [STATEMENT, ROWS_AS_TEXT]);
    assert!([STATEMENT, ROWS_AS_TEXT].iter().all(|name| loader.bytes(name) == dump.files[*name]));

    let held = dump.server.inject(Fault::hold().on(Operation::GetObject).key(&dump.key(ROWS_AS_TEXT)));
    let run = load("1m").start();
    held.wait_for_hits(1);
    dump.remove(ROWS_AS_TEXT);
    held.clear();
    run.finish().assert_status(1).assert_says(&format!("cannot fetch '{ROWS_AS_TEXT}'"));
    assert_eq!(loader.bytes(STATEMENT), b"");
}

#[test]
fn tables_that_were_asked_for_are_loaded_alone() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_tables", &[]);
    let tables = "load_tables.small,`load_tables`.`dotted.name`";
    let load = story.load().args(["--tables", tables]).arg("--").args(MariaDb::second().myloader());
    load.run().assert_status(0).assert_does_not_say("WARNING");
    let (all, loaded) = (MariaDb::shared().checksums(story.database), MariaDb::second().checksums(story.database));
    assert_eq!(loaded.keys().collect::<Vec<_>>(), ["dotted.name", "small"]);
    assert!(loaded.iter().all(|(table, sum)| all[table] == *sum), "{loaded:?}");
    story.assert_nothing_is_left();
}

/// "Each part is proved against the manifest before a byte of it goes in."
#[test]
fn a_byte_that_differs_in_the_bucket_ends_the_load_and_names_the_table() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_changed", &[]);
    let key = server.keys(BUCKET).into_iter().find(|key| key.contains(".big.") && !key.contains("schema"));
    server.corrupt(BUCKET, &key.expect("the rows of the large table"));
    let finished = story.load_all().run().assert_status(4).assert_says("is not what was uploaded");
    finished.assert_says("load_changed.big (").assert_does_not_say("INFO  loaded");
    story.assert_nothing_is_left();
    let rows = MariaDb::second().sql("SELECT COUNT(*) FROM load_changed.big");
    assert!(rows.trim().parse::<u32>().expect("a number") < ROWS, "{rows}");
}

#[test]
fn an_outage_is_waited_out_while_myloader_waits() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_outage", &[]);
    let is_data = |key: &str| key.contains(".big.") && !key.contains("schema");
    let fault = Fault::answer(503, "SlowDown").on(Operation::GetObject).key_where(is_data);
    let away = server.inject(fault);
    let mut run = story.load_all().start();
    run.wait_for_line("cannot be used");
    away.clear();
    run.finish().assert_status(0).assert_says("the store is back");
    story.assert_loaded();
}

#[test]
fn a_store_that_stays_away_ends_the_load() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_away", &[]);
    let is_data = |key: &str| key.contains(".big.") && !key.contains("schema");
    server.inject(Fault::answer(503, "SlowDown").on(Operation::GetObject).key_where(is_data));
    let load = story.load().args(["--retry-for", "1s"]).arg("--").args(MariaDb::second().myloader());
    load.run().assert_status(1).assert_says("cannot fetch 'load_away.big").assert_says("load_away.big (");
    story.assert_nothing_is_left();
}

#[test]
fn a_signal_ends_myloader_before_any_file_ends() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_signal", &[]);
    let is_data = |key: &str| key.contains(".big.") && !key.contains("schema");
    let held = server.inject(Fault::hold().on(Operation::GetObject).key_where(is_data));
    let run = story.load_all().start();
    held.wait_for_hits(1);
    run.signal(Signal::TERM);
    let finished = run.finish().assert_status(128 + 15).assert_says("load_signal.big (");
    held.clear();
    finished.assert_does_not_say("INFO  loaded");
    story.assert_nothing_is_left();
}

/// Without us the pipes end, and their ends would say that the files are whole.
#[test]
fn myloader_does_not_outlive_us() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_killed", &[]);
    let is_data = |key: &str| key.contains(".big.") && !key.contains("schema");
    let held = server.inject(Fault::hold().on(Operation::GetObject).key_where(is_data));
    let run = story.load_all().start();
    held.wait_for_hits(1);
    story.loader();
    run.kill();
    eventually_nothing_is_left(&story.tmp());
}

/// 0.10.1 ends with 0 whatever becomes of a statement: its words count.
#[test]
fn a_row_that_cannot_be_loaded_is_a_failure() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_duplicate", &[]);
    MariaDb::second().sql(
        "CREATE DATABASE load_duplicate; USE load_duplicate;
         CREATE TABLE small (id INT PRIMARY KEY, at DATETIME(6), price DECIMAL(10,2), raw VARBINARY(20));
         INSERT INTO small VALUES (2, NULL, NULL, NULL)",
    );
    let load = story.load().arg("--unchecked").arg("--").args(MariaDb::second().myloader());
    load.run().assert_status(1).assert_says("myloader");
    story.assert_nothing_is_left();
}

#[test]
fn tables_that_are_there_are_replaced_only_where_that_is_wished() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_replaced", &[]);
    MariaDb::second().sql("CREATE DATABASE load_replaced; CREATE TABLE load_replaced.small (mine INT PRIMARY KEY)");
    let refused = story.load_all().run().assert_status(2).assert_says("the server has 1 of the dump's tables already");
    refused.assert_says("load_replaced.small").assert_says("--replace").assert_says("the target is");
    assert_eq!(MariaDb::second().sql("SHOW COLUMNS FROM load_replaced.small").split('\t').next(), Some("mine"));
    let load = story.load().arg("--replace").arg("--").args(MariaDb::second().myloader());
    load.run().assert_status(0);
    story.assert_loaded();
}

/// Nothing is loaded blindly unless that is wished; and a password stands nowhere.
#[test]
fn a_server_that_cannot_be_asked_is_not_loaded_into() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_unasked", &[]);
    let without_client = story.load_all().env("PATH", story.sandbox.path("empty"));
    without_client.run().assert_status(2).assert_says("--unchecked");
    let mut line = MariaDb::second().myloader();
    let password = line.iter().position(|word| word == "-p").expect("a password") + 1;
    line[password] = "open sesame".into();
    let refused = story.load().arg("--").args(line).run().assert_status(1).assert_says("cannot look at the server");
    refused.assert_does_not_say("open sesame").assert_says("Access denied");
    story.assert_nothing_is_left();
    assert_eq!(MariaDb::second().sql("SHOW DATABASES LIKE 'load_unasked'"), "");
}

/// "One table beside production": nothing that is there is touched, and nothing comes along that would act on it.
#[test]
fn tables_are_loaded_beside_others() {
    for (database, options) in [("load_beside", &[] as &[&str]), ("load_beside_compressed", &["-c"])] {
        let server = S3Server::start();
        let rescue = format!("rescue_{database}");
        MariaDb::second()
            .sql(&format!("CREATE DATABASE {database}; CREATE TABLE {database}.small (mine INT PRIMARY KEY)"));
        let story = Story::new_with(endpoint_of(&server), database, options, |database| {
            format!(
                "USE {database}; CREATE TABLE child (id INT PRIMARY KEY, CONSTRAINT gone FOREIGN KEY (id) REFERENCES big (id));
                 CREATE TABLE grandchild (id INT PRIMARY KEY, CONSTRAINT kept FOREIGN KEY (id) REFERENCES child (id));
                 INSERT INTO child VALUES (1); INSERT INTO grandchild VALUES (1)"
            )
        });
        let tables = format!("{database}.small,{database}.cheap,{database}.child,{database}.grandchild");
        let load = || story.load().args(["--tables", &tables, "--into", &rescue]).arg("--");
        let loaded = load().args(MariaDb::second().myloader()).run().assert_status(0);
        loaded.assert_says("without foreign keys to what is not loaded");
        let all = MariaDb::shared().checksums(database);
        let there = MariaDb::second().checksums(&rescue);
        assert_eq!(there.keys().collect::<Vec<_>>(), ["child", "grandchild", "small"]);
        assert!(there.iter().all(|(table, sum)| all[table] == *sum), "{there:?}");
        assert_eq!(MariaDb::second().programs(&rescue), [] as [String; 0]);
        let keys = "SELECT constraint_name FROM information_schema.referential_constraints WHERE constraint_schema =";
        assert_eq!(MariaDb::second().sql(&format!("{keys} '{rescue}'")).trim(), "kept");
        assert_eq!(MariaDb::second().sql(&format!("SHOW TABLES FROM {database}")).trim(), "small");
        load().args(MariaDb::second().myloader()).run().assert_status(2).assert_says("has 3 tables already");
    }
}

/// A dump that other programs put there: its ETags are all that is known. One that is no MD5 proves nothing.
#[test]
fn a_dump_without_a_manifest_is_proved_by_its_etags() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "load_foreign", &[]);
    server.remove_directly(BUCKET, "dump/mydumper2s3.json");
    story.load_all().run().assert_status(0);
    story.assert_loaded();

    // With KMS an ETag has the form of an MD5 and is none.
    let server = S3Server::start();
    server.set_default_encryption(BUCKET, Encryption::Kms { key_id: "k".into() });
    let story = Story::new(endpoint_of(&server), "load_foreign_kms", &[]);
    server.remove_directly(BUCKET, "dump/mydumper2s3.json");
    story.load_all().run().assert_status(1).assert_says("nothing was loaded; --unproved");
    let load = story.load().arg("--unproved").arg("--").args(MariaDb::second().myloader());
    load.run().assert_status(0);
    story.assert_loaded();
}

/// What cannot work is said before anything is loaded: nothing is started, the server is as it was.
#[test]
fn a_dump_that_cannot_be_loaded_there_is_refused() {
    let load = |dump: &StoredDump, loader: &[OsString]| {
        std::fs::create_dir_all(dump.sandbox.path("tmp")).expect("a directory");
        let load = dump.command("load").env("TMPDIR", dump.sandbox.path("tmp")).arg("--").args(loader);
        let finished = with_real_programs(load.args(MariaDb::second().connection())).run().assert_status(2);
        finished.assert_does_not_say("started")
    };
    // The scripted dumper says that it is of 1.0.1, under whatever name.
    let dump = StoredDump::new();
    let program = dump.sandbox.path("myloader");
    std::os::unix::fs::symlink(fake_dumper::program(), &program).expect("a link");
    load(&dump, &[program.into()]).assert_says("myloader 1.0.1 does not understand its metadata");

    let mut dump = StoredDump::none();
    let create = "CREATE TABLE `t` (`v` text COMMENT 'COLLATE none') COLLATE=klingon_ci;\n";
    dump.dump("load_foreign_words-schema-create.sql", "CREATE DATABASE `load_foreign_words`;\n");
    dump.dump("load_foreign_words.t-schema.sql", create);
    dump.dump("load_foreign_words.t.sql", "INSERT INTO `t` VALUES\n(\"a\");\n");
    dump.dump("metadata", METADATA);
    dump.upload().assert_status(0);
    let loader = ScriptedLoader::new(&dump.sandbox);
    let refused = load(&dump, &loader.line()).assert_says("needs 1 collations that the server does not know");
    refused.assert_says("klingon_ci (in 'load_foreign_words.t-schema.sql')").assert_says("--unchecked");
    assert_eq!(MariaDb::second().sql("SHOW DATABASES LIKE 'load_foreign_words'"), "");
}

/// The dump's own `sql_mode` counts while it is loaded; afterwards the server's does.
#[test]
fn what_is_otherwise_on_the_server_is_said() {
    let mut dump = StoredDump::none();
    let metadata = "# Started dump at: 2026-11-22 02:00:01\n[config]\nquote-character = BACKTICK\n\n\
                    [myloader_session_variables]\nSQL_MODE='NO_AUTO_VALUE_ON_ZERO,PIPES_AS_CONCAT' /*!40101\n\n\
                    [`shop`.`t`]\nreal_table_name=t\nrows = 1\n# Finished dump at: 2026-11-22 02:00:09\n";
    dump.dump("shop.t-schema.sql", "CREATE TABLE `t` (`v` text) COLLATE=utf8mb4_bin;\n");
    dump.dump("shop.t.00000.sql", "INSERT INTO `t` VALUES(\"a\")\n;\n");
    dump.dump("metadata", metadata);
    dump.upload().assert_status(0);
    std::fs::create_dir_all(dump.sandbox.path("tmp")).expect("a directory");
    let loader = ScriptedLoader::new(&dump.sandbox);
    let load = dump.command("load").env("TMPDIR", dump.sandbox.path("tmp")).arg("--").args(loader.line());
    let finished = with_real_programs(load.args(MariaDb::second().connection())).run().assert_status(0);
    finished.assert_says("sql_mode differs").assert_says("which has PIPES_AS_CONCAT more");
}

/// With `-v` a line for each table, in JSON an object a line; and at the end what all were.
#[test]
fn each_table_is_said_with_its_rows() {
    let mut dump = StoredDump::none();
    let metadata = "# Started dump at: 2026-11-22 02:00:01\n[`shop`.`t`]\nreal_table_name=t\nrows = 2\n\n\
                    [`shop`.`u`]\nreal_table_name=u\nrows = 1\n# Finished dump at: 2026-11-22 02:00:09\n";
    for (table, text) in [("t.00000", "(1)"), ("t.00001", "(2)"), ("u.00000", "(1)")] {
        dump.dump(&format!("shop.{table}.sql"), format!("INSERT INTO `t` VALUES{text}\n;\n"));
    }
    dump.dump("shop.t-schema.sql", "CREATE TABLE `t` (`id` int);\n");
    dump.dump("shop.u-schema.sql", "CREATE TABLE `u` (`id` int);\n");
    dump.dump("metadata", metadata);
    dump.upload().assert_status(0);
    std::fs::create_dir_all(dump.sandbox.path("tmp")).expect("a directory");
    let loader = ScriptedLoader::new(&dump.sandbox);
    let load = |options: &[&str]| {
        let load = dump.command("load").env("TMPDIR", dump.sandbox.path("tmp")).arg("--unchecked").args(options);
        load.arg("--").args(loader.line()).run().assert_status(0)
    };
    let finished = load(&["-v"]).assert_says("handed over table=shop.t files=2").assert_says("rows=2");
    finished.assert_says("loaded 3 data files of 2 tables with 3 rows");

    let finished = load(&["-v", "--log-format", "json"]);
    let lines: Vec<serde_json::Value> =
        finished.stderr.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let table = lines.iter().find(|line| line["table"] == "shop.u").expect("a line of the table");
    assert_eq!((&table["rows"], &table["files"]), (&1.into(), &1.into()), "{table}");
    let summary = lines.iter().find(|line| line["event"] == "summary").expect("a summary");
    assert_eq!((&summary["tables"], &summary["rows"], &summary["files"]), (&2.into(), &3.into(), &3.into()));
    assert!(summary["duration_seconds"].as_f64().is_some(), "{summary}");
}
