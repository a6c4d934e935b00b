//! A dump is restored into a server that is started for it, and what is there is compared: real MariaDB, mydumper and
//! myloader.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::support::background::find_program;
use crate::support::load_story::{ROWS, Story, endpoint_of, eventually_nothing_is_left, processes};
use crate::support::mariadb::MariaDb;
use crate::support::s3_server::{Fault, FaultHandle, Operation, S3Server};
use crate::support::sandbox::{Program, Run, eventually, eventually_some};
use crate::support::seaweedfs::SeaweedFs;
use crate::support::stored_dump::{METADATA, StoredDump, bytes};

/// What follows `--` where another myloader than that in PATH is to be tried.
fn other_myloader() -> Vec<OsString> {
    match std::env::var_os("MYLOADER") {
        Some(_) => vec!["--".into(), find_program("myloader", "MYLOADER").into()],
        None => Vec::new(),
    }
}

/// A myloader that does something more when it has loaded: `$socket` is the server's.
fn myloader_and_then(directory: &Path, statement: &str) -> Vec<OsString> {
    let script = directory.join("myloader");
    let text = format!(
        "loader=$1; shift; \"$loader\" \"$@\"; status=$?\n\
         while [ $# -gt 0 ]; do [ \"$1\" = --socket ] && socket=$2; shift; done\n\
         mariadb --no-defaults --socket=\"$socket\" --user=root --execute='{statement}' || exit 99\n\
         exit $status\n"
    );
    std::fs::write(&script, text).expect("a script");
    let real = find_program("myloader", "MYLOADER");
    ["--".into(), "sh".into(), script.into(), real.into()].to_vec()
}

fn drill(story: &Story) -> Program<'_> {
    story.command("drill")
}

/// A definer whom no other server has.
fn with_a_view_of_the_dumper(database: &str) -> String {
    format!("CREATE DEFINER='dumper'@'127.0.0.1' VIEW {database}.of_the_dumper AS SELECT id FROM {database}.small")
}

#[test]
fn a_good_dump_is_a_backup_though_its_definers_are_missing() {
    let bucket = SeaweedFs::shared().bucket("drill-good");
    let story = Story::new_with(bucket.endpoint.clone(), "drill_good", &[], with_a_view_of_the_dumper);
    // What the host's option files say is nothing to a server of ours, and to what asks it.
    let home = story.sandbox.path("home");
    std::fs::write(home.join(".my.cnf"), "[client]\nsocket=/nowhere\nbogus-option=1\n[mysqld]\nbogus-option=1\n")
        .expect("an option file");
    let metrics = home.join("drill.prom");
    let drilled = drill(&story).arg("--metrics-file").arg(&metrics).args(other_myloader()).run();
    let drilled = drilled.assert_status(0).assert_says("is a backup");
    println!("{}", drilled.text());
    let metrics = std::fs::read_to_string(metrics).expect("metrics");
    for line in
        ["exit_status{bucket=\"drill-good\",prefix=\"dump\"} 0", "tables{bucket=\"drill-good\",prefix=\"dump\"} 10"]
    {
        assert!(metrics.contains(&format!("mydumper2s3_drill_{line}\n")), "{metrics}");
    }
    let written = metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('{').next());
    let page = include_str!("../../docs/monitoring.md");
    let described = page.lines().filter_map(|line| line.strip_prefix("| `mydumper2s3_drill_")?.split('`').next());
    let described: BTreeSet<String> = described.map(|name| format!("mydumper2s3_drill_{name}")).collect();
    assert_eq!(described, written.map(str::to_owned).collect(), "left: the page, right: the file");
    let drilled = drilled.assert_says("made 1 definers, locked: 'dumper'@'127.0.0.1'");
    let row = |what: &str| {
        let line = drilled.stdout.lines().find(|line| line.starts_with(what)).unwrap_or_default();
        line[what.len().min(line.len())..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let rows = (ROWS + 2 + 5 * 50).to_string();
    assert_eq!(row("rows"), [rows.clone(), rows]);
    assert_eq!(row("tables "), ["10", "10"]);
    assert_eq!(row("tables checked"), ["10", "10"]);
    assert_eq!((row("views"), row("events")), (vec!["2".to_owned(); 2], vec!["1".to_owned(); 2]));
    assert_eq!(row("indexes"), ["11", "11"]);
    story.assert_nothing_is_left();
}

#[test]
fn a_compressed_dump_is_drilled_and_told_in_json() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "drill_compressed", &["-c"]);
    let drilled = drill(&story).arg("--json").args(other_myloader()).run().assert_status(0);
    let report: Value = serde_json::from_str(&drilled.stdout).expect("a document");
    assert_eq!((&report["is_right"], &report["is_part"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!((&report["differences"], &report["left_out"]), (&serde_json::json!([]), &serde_json::json!([])));
    let rows = report["counts"].as_array().expect("counts").iter().find(|count| count["what"] == "rows");
    assert_eq!(rows.expect("rows")["right"], u64::from(ROWS + 2 + 5 * 50));
    story.assert_nothing_is_left();
}

/// Each of these is a backup that somebody would have trusted.
#[test]
fn what_is_not_on_the_server_is_found_by_its_name() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "drill_lacks", &[]);
    let drill_and_then = |statement: &str| {
        let line = myloader_and_then(&story.sandbox.path("home"), statement);
        let drilled = drill(&story).args(line).run().assert_status(4);
        story.assert_nothing_is_left();
        drilled
    };
    let lacks = drill_and_then("DELETE FROM drill_lacks.big WHERE id = 7; DROP TABLE drill_lacks.small");
    let said = format!("'drill_lacks.big' differs: its files hold {ROWS} rows, the server has {}", ROWS - 1);
    let lacks = lacks.assert_says(&said).assert_says("'drill_lacks.small' differs: the table is missing");
    lacks.assert_says("is not what it should be").assert_does_not_say("is a backup");
    let lacks = drill_and_then(
        "DROP VIEW drill_lacks.cheap; DROP INDEX k ON drill_lacks.big; DROP TRIGGER drill_lacks.small_changed",
    );
    let lacks = lacks.assert_says("'drill_lacks.cheap' differs: the view is missing");
    let lacks = lacks.assert_says("'drill_lacks.small_changed' differs: the trigger is missing");
    lacks.assert_says("'drill_lacks.big' differs: its index 'k' is missing");
}

/// A dump of 1.x, whose `metadata` counts rows and has checksums.
fn put_counted(dump: &mut StoredDump, rows: &[u32], checksum: &str) {
    let values: Vec<String> = rows.iter().map(|row| format!("({row})\n")).collect();
    dump.dump("drill_told-schema-create.sql", "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `drill_told`;\n");
    dump.dump(
        "drill_told.t-schema.sql",
        "CREATE TABLE `t` (\n  `id` int(11) NOT NULL,\n  PRIMARY KEY (`id`)\n) ENGINE=InnoDB;\n",
    );
    dump.dump("drill_told.t.00000.sql", format!("INSERT INTO `t` VALUES{};\n", values.join(",")));
    let metadata = format!(
        "# Started dump at: 2026-11-22 02:00:01\n[config]\nquote-character = BACKTICK\n\n\
         [`drill_told`.`t`]\nreal_table_name=t\nrows = 3\ndata_checksum = {checksum}\n\n\
         # Finished dump at: 2026-11-22 02:00:09\n"
    );
    dump.dump("metadata", metadata);
}

/// The manifest fits what is there, so only what mydumper counted tells.
#[test]
fn a_shorter_file_that_the_manifest_fits_is_found_by_what_mydumper_counted() {
    let table = "CREATE DATABASE drill_sum; CREATE TABLE drill_sum.t (id INT PRIMARY KEY); INSERT INTO drill_sum.t VALUES (1),(2),(3)";
    MariaDb::second().sql(table);
    let sums = MariaDb::second().checksums("drill_sum");
    let drill = |rows: &[u32]| {
        let mut dump = StoredDump::none();
        put_counted(&mut dump, rows, &sums["t"]);
        dump.upload().assert_status(0);
        dump.command("verify").arg("--deep").run();
        let program = dump.command("drill").env("PATH", std::env::var_os("PATH").unwrap_or_default());
        program.args(other_myloader()).run()
    };
    drill(&[1, 2, 3]).assert_status(0).assert_says("checksums");
    let shorter = drill(&[1, 3]).assert_status(4);
    let shorter = shorter.assert_says("'drill_told.t' differs: mydumper counted 3 rows, the server has 2");
    shorter.assert_says("'drill_told.t' differs: CHECKSUM TABLE gave");
    // As many rows, and others.
    let other = drill(&[1, 2, 4]).assert_status(4).assert_says("'drill_told.t' differs: CHECKSUM TABLE gave");
    other.assert_does_not_say("mydumper counted");
}

/// The server of a drill, once it runs for the rows.
fn server_of(tmp: &Path) -> Pid {
    let tmp = tmp.display().to_string();
    let is_server = |line: &[String]| line.iter().any(|word| word.starts_with("--socket=") && word.contains(&tmp));
    let server = || processes().into_iter().find(|(_, line)| is_server(line)).map(|(pid, _)| pid);
    eventually_some("a server that runs", server)
}

fn drill_that_waits(story: &Story, server: &S3Server) -> (Run, FaultHandle) {
    let is_data = |key: &str| key.contains(".big.") && !key.contains("schema");
    let held = server.inject(Fault::hold().on(Operation::GetObject).key_where(is_data));
    let run = drill(story).args(other_myloader()).start();
    held.wait_for_hits(1);
    (run, held)
}

#[test]
fn a_signal_amid_a_drill_leaves_neither_process_nor_directory() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "drill_signal", &[]);
    let (run, held) = drill_that_waits(&story, &server);
    let its_server = server_of(&story.tmp()).as_raw_nonzero();
    let owner = std::fs::metadata(format!("/proc/{its_server}")).expect("the server").uid();
    assert!(owner != 0, "a server of ours runs as root");
    run.signal(Signal::TERM);
    run.finish().assert_status(128 + 15).assert_does_not_say("is a backup");
    held.clear();
    eventually_nothing_is_left(&story.tmp());

    // While the server's own tables are made.
    let run = drill(&story).args(other_myloader()).start();
    eventually("something is there", || std::fs::read_dir(story.tmp()).expect("a directory").next().is_some());
    run.signal(Signal::INT);
    run.finish().assert_status(128 + 2);
    eventually_nothing_is_left(&story.tmp());

    let (run, _held) = drill_that_waits(&story, &server);
    server_of(&story.tmp());
    run.kill().assert_killed_by(Signal::KILL);
    eventually_nothing_is_left(&story.tmp());
}

#[test]
fn a_server_that_dies_amid_a_drill_is_a_failure() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "drill_dies", &[]);
    let (run, held) = drill_that_waits(&story, &server);
    rustix::process::kill_process(server_of(&story.tmp()), Signal::KILL).expect("killed");
    held.clear();
    run.finish().assert_status(1).assert_says("the private server ended by itself").assert_does_not_say("is a backup");
    story.assert_nothing_is_left();
}

/// It is reached by its socket alone, runs nothing by itself, and can be led nowhere else.
#[test]
fn the_server_of_a_drill_is_private_and_small() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "drill_private", &[]);
    // Where only who may write everywhere is kept out.
    let elsewhere = story.sandbox.path("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a directory");
    std::fs::set_permissions(&elsewhere, std::fs::Permissions::from_mode(0o777)).expect("its mode");
    let outside = format!("CREATE TABLE drill_private.outside (id INT) DATA DIRECTORY=\"{}\"; ", elsewhere.display());
    let settings = "SELECT @@skip_networking, @@event_scheduler, @@log_bin, @@innodb_buffer_pool_size DIV 1048576; \
                    SELECT COUNT(*) AS led_elsewhere FROM information_schema.engines \
                        WHERE engine IN (\"FEDERATED\", \"CONNECT\", \"SPIDER\") AND support <> \"NO\"; \
                    SELECT @@plugin_dir, @@secure_file_priv";
    let line = myloader_and_then(&story.sandbox.path("home"), &format!("{outside}{settings}"));
    let drilled = drill(&story).args(line).run().assert_status(0);
    let drilled = drilled.assert_says("1\tOFF\t0\t128").assert_says("led_elsewhere\n0\n");
    let tmp = story.tmp().display().to_string();
    let places = drilled.stderr.lines().find(|line| line.contains("/plugins")).expect("places");
    assert!(places.split('\t').all(|place| place.starts_with(&tmp)), "{places}");
    assert_eq!(std::fs::read_dir(&elsewhere).expect("a directory").count(), 0, "something lies elsewhere");
}

#[test]
fn needs_root_a_drill_needs_no_root() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "drill_nobody", &[]);
    std::fs::set_permissions(story.tmp(), std::fs::Permissions::from_mode(0o777)).expect("its mode");
    drill(&story).args(other_myloader()).by_nobody().run().assert_status(0).assert_says("is a backup");
    story.assert_nothing_is_left();
}

/// Of nothing it cannot be said that it is a backup.
#[test]
fn a_dump_of_the_servers_own_database_alone_is_not_drilled() {
    let mut dump = StoredDump::none();
    dump.dump("mysql-schema-create.sql", "CREATE DATABASE `mysql`;\n");
    dump.dump("mysql.user-schema.sql", "CREATE TABLE `user` (\n  `id` int\n);\n");
    dump.dump("metadata", METADATA);
    dump.upload().assert_status(0);
    let refused = dump.command("drill").run().assert_status(2).assert_says("nothing can be drilled");
    refused.assert_says("own databases (mysql, sys) are not drilled");
}

#[test]
fn a_sample_is_chosen_by_a_seed_that_repeats_it() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "drill_sample", &[]);
    let sample = |more: &[&str]| {
        let drilled = drill(&story).args(["--sample", "64KiB", "--json"]).args(more).args(other_myloader()).run();
        let drilled = drilled.assert_status(0);
        let report: Value = serde_json::from_str(&drilled.stdout).expect("a document");
        let tables = report["counts"].as_array().expect("counts").iter().find(|count| count["what"] == "tables");
        (report["seed"].as_u64().expect("a seed"), tables.expect("tables")["right"].as_u64().expect("a number"), report)
    };
    let (seed, tables, report) = sample(&[]);
    // All but the large one.
    assert_eq!((tables, &report["is_part"]), (9, &Value::Bool(true)));
    let small = drill(&story).args(["--sample", "1KiB", "--seed", "7"]).args(other_myloader()).run().assert_status(0);
    let again = drill(&story).args(["--sample", "1KiB", "--seed", "7"]).args(other_myloader()).run().assert_status(0);
    assert_eq!(small.stdout, again.stdout);
    small.assert_says("--seed 7 repeats it");
    let (same, ..) = sample(&["--seed", &seed.to_string()]);
    assert_eq!(same, seed);
    let none = drill(&story).args(["--sample", "10", "--seed", "7"]).args(other_myloader()).run().assert_status(2);
    none.assert_says("no table of the dump fits in 10 B");
    story.assert_nothing_is_left();
}

#[test]
fn a_scratch_server_is_used_only_where_nothing_of_the_dump_is() {
    let server = S3Server::start();
    let story = Story::new_with(endpoint_of(&server), "drill_scratch", &[], |database| {
        format!(
            "CREATE USER drill_scratch_boss; \
             CREATE DEFINER=drill_scratch_boss VIEW {database}.of_the_boss AS SELECT id FROM {database}.small"
        )
    });
    let scratch = MariaDb::second();
    let line = scratch.myloader_with_rights("drill_admin", "ALL");
    // To give the definers their rights.
    scratch.sql("GRANT ALL ON *.* TO 'drill_admin'@'127.0.0.1' WITH GRANT OPTION");
    let drill_there = || drill(&story).arg("--").args(&line);
    scratch.sql("CREATE DATABASE drill_scratch; CREATE TABLE drill_scratch.mine (id INT)");
    let refused = drill_there().run().assert_status(2).assert_says("the server has 1 of the dump's databases already");
    refused.assert_says("'drill_scratch'");
    assert_eq!(scratch.sql("SHOW TABLES FROM drill_scratch").trim(), "mine");
    scratch.sql("DROP DATABASE drill_scratch; SET GLOBAL event_scheduler = ON");
    drill_there().run().assert_status(2).assert_says("event scheduler is on");
    scratch.sql("SET GLOBAL event_scheduler = OFF");
    let of_drill = "SELECT schema_name FROM information_schema.schemata WHERE schema_name = 'drill_scratch'
                    UNION SELECT user FROM mysql.user WHERE user = 'drill_scratch_boss'";
    drill_there().run().assert_status(0).assert_says("is a backup").assert_says("'drill_scratch_boss'@'%'");
    assert_eq!(scratch.sql(of_drill), "");
    let other = drill(&story).args(["--server", "/usr/sbin/mariadbd", "--"]).args(scratch.myloader());
    other.run().assert_status(2).assert_says("--server another one");
    story.assert_nothing_is_left();
}

#[test]
fn needs_root_a_disk_that_is_too_small_is_refused_with_the_figures() {
    let mut dump = StoredDump::none();
    dump.dump("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
    dump.dump("shop.t-schema.sql", "CREATE TABLE `t` (\n  `id` int\n);\n");
    dump.dump("shop.t.sql", bytes(1 << 20));
    dump.dump("metadata", METADATA);
    dump.upload().assert_status(0);
    let tmp = dump.sandbox.path("small");
    std::fs::create_dir(&tmp).expect("a directory");
    let mount = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=64m disk \"$TMPDIR\" && exec \"$@\"", "sh"];
    let program = dump.command("drill").env("TMPDIR", &tmp).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let refused = program.wrapped_in(mount.map(PathBuf::from)).run().assert_status(2);
    let refused = refused.assert_says("64.0 MiB free").assert_says("this dump of 1.0 MiB").assert_says("--sample SIZE");
    refused.assert_does_not_say("started");
}

/// Others need the disk, too.
#[test]
fn needs_root_a_disk_that_gets_tight_ends_the_drill() {
    let server = S3Server::start();
    let story = Story::new(endpoint_of(&server), "drill_tight", &[]);
    let is_data = |key: &str| key.contains(".big.") && !key.contains("schema");
    let held = server.inject(Fault::hold().on(Operation::GetObject).key_where(is_data));
    let mount =
        ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=1000m disk \"$TMPDIR\" && exec \"$@\"", "sh"];
    let run = drill(&story).args(other_myloader()).wrapped_in(mount).start();
    held.wait_for_hits(1);
    // Its disk is seen by its processes alone.
    let seen_by_it = format!("/proc/{}/root{}/filler", run.pid().as_raw_nonzero(), story.tmp().display());
    let filler = std::fs::File::create(seen_by_it).expect("a file");
    rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, 700 << 20).expect("700 MiB");
    run.finish().assert_status(1).assert_says("the drill was ended").assert_says("--sample SIZE");
    eventually_nothing_is_left(&story.tmp());
}
