//! What README.md says is so: every option is in it and none that there is not, and its scripts run.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use clap::error::ErrorKind;
use mydumper2s3::cli;
use mydumper2s3::model::manifest::{self, FORMAT_OF_EQUAL_PARTS, ManifestFile, ManifestHeader};
use serde_json::Value;

use crate::support::fake_dumper::{CONTROL_VARIABLE, SCRIPT_VARIABLE};
use crate::support::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::support::sandbox::{Finished, Sandbox, eventually};

const README: &str = include_str!("../../README.md");
const WHEN_IT_FAILS: &str = include_str!("../../docs/when-it-fails.md");

/// What the scripted dumper does when a script of the README starts it: a whole dump, ended with `exit`.
const DUMP: &str = "\
start 1.0
started
open shop-schema-create.sql
text shop-schema-create.sql CREATE DATABASE shop;
close shop-schema-create.sql
open shop.t-schema.sql
text shop.t-schema.sql CREATE TABLE t (id INT PRIMARY KEY);
close shop.t-schema.sql
generate 2 100000 0
finish
exit ";

/// The lines under a heading, to the next heading of the same or a higher level.
fn section(heading: &str) -> &'static str {
    let level = heading.find(' ').expect("a heading");
    let begin = README.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}")) + 1 + heading.len();
    let is_end =
        |line: &str| line.find(' ').is_some_and(|hashes| hashes <= level && line[..hashes].bytes().all(|b| b == b'#'));
    let mut end = begin;
    for line in README[begin..].split_inclusive('\n').skip(1) {
        if is_end(line) && line.starts_with('#') {
            break;
        }
        end += line.len();
    }
    &README[begin..=end]
}

/// The cells of each row of the tables in a text; without their heads.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    lines.map(cells).filter(|row| row[0] != "option" && row[0] != "command").collect()
}

/// `--dir` of "`--dir DIR`".
fn options_in(text: &str) -> BTreeSet<String> {
    let words = text.split(['`', ' ', ',', '=']);
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(|word| word[2..].to_owned()).collect()
}

/// The options of a command, each with its default.
fn options_of(command: &clap::Command) -> Vec<(String, Option<String>)> {
    let mut command = command.clone();
    command.build();
    let options = command.get_arguments().filter_map(|argument| {
        let default = argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        Some((argument.get_long()?.to_owned(), default.filter(|_| argument.get_action().takes_values())))
    });
    options.collect()
}

fn names(options: &[(String, Option<String>)]) -> BTreeSet<String> {
    options.iter().map(|(name, _)| name.clone()).collect()
}

#[test]
fn every_option_of_the_upload_is_in_the_table_of_its_group() {
    let options = options_of(&cli::command());
    let mut documented = BTreeSet::new();
    for group in ["Dump", "Destination", "Transfer", "Connection", "Output"] {
        for row in rows(section(&format!("### {group}"))) {
            let [option, default, _meaning] = &row[..] else { panic!("a row of three cells: {row:?}") };
            for name in options_in(option) {
                let known = options.iter().find(|(known, _)| *known == name);
                let (_, expected) = known.unwrap_or_else(|| panic!("README has --{name}, the program has not"));
                if let Some(expected) = expected {
                    assert_eq!(*default, format!("`{expected}`"), "the default of --{name}");
                }
                documented.insert(name);
            }
        }
    }
    assert_eq!(documented, names(&options), "left: README, right: --help");
}

#[test]
fn options_stand_under_the_heading_that_help_gives_them() {
    let mut command = cli::command();
    command.build();
    for argument in command.get_arguments() {
        let (Some(heading), Some(long)) = (argument.get_help_heading(), argument.get_long()) else { continue };
        let in_group = rows(section(&format!("### {heading}"))).iter().any(|row| options_in(&row[0]).contains(long));
        assert!(in_group, "--{long} is not under {heading}");
    }
}

#[test]
fn every_option_of_the_other_commands_is_in_their_table() {
    let table = rows(section("### Options of the other commands"));
    let of_headings = |headings: &[&str]| -> BTreeSet<String> {
        let options = headings.iter().flat_map(|heading| rows(section(heading))).flat_map(|row| options_in(&row[0]));
        // The upload's own, and another one of the drill's.
        options.filter(|name| name != "metrics-file").collect()
    };
    let of_all = of_headings(&["### Connection", "### Output"]);
    let of_uploads = of_headings(&["### Connection", "### Output", "### Destination", "### Transfer"]);
    for command in cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
        let mut current = String::new();
        let mut documented = BTreeSet::new();
        for row in &table {
            if !row[0].is_empty() {
                current = row[0].trim_matches('`').to_owned();
            }
            if current == command.get_name() {
                documented.extend(options_in(&row[1]));
            }
        }
        let shared = if command.get_name() == "pipe" { &of_uploads } else { &of_all };
        let real: BTreeSet<String> =
            names(&options_of(command)).into_iter().filter(|name| !shared.contains(name)).collect();
        assert_eq!(documented, real, "{}; left: README, right: --help", command.get_name());
    }
}

#[test]
fn commands_and_examples_use_options_that_exist() {
    let root = cli::command();
    let mut known = names(&options_of(&root));
    for command in root.get_subcommands() {
        known.extend(names(&options_of(command)));
    }
    let blocks = [README, WHEN_IT_FAILS].into_iter().flat_map(|page| page.split("```").skip(1).step_by(2));
    for block in blocks {
        let joined = block.replace("\\\n", " ");
        for line in joined.lines().filter(|line| line.contains("mydumper2s3 ") && !line.trim_start().starts_with('#')) {
            let (_, ours) = line.split_once("mydumper2s3 ").expect("our part of the line");
            let ours = format!(" {ours}");
            let ours = ours.split(" -- ").next().expect("what is before the dumper's part");
            for name in options_in(ours) {
                assert!(known.contains(&name), "no option --{name}: {line}");
            }
        }
    }
}

#[test]
fn the_exit_statuses_are_those_of_help() {
    let help = cli::command().render_help().to_string();
    for row in rows(section("## Exit statuses")).iter().filter(|row| row[0] != "status") {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&row[0])), "no status {} in --help", row[0]);
    }
}

#[test]
fn each_promise_is_quoted_by_a_test() {
    let words = |text: &str| text.replace("///", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it")).expect("the tests");
    let files = files.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let tests = words(&files.map(|path| read(&path)).collect::<String>());
    let mut promises = 0;
    for line in section("## What it promises").lines() {
        let Some((number, promise)) = line.split_once(". ") else { continue };
        let Ok(number) = number.parse::<u32>() else { continue };
        let begin = words(promise).split(' ').take(8).collect::<Vec<_>>().join(" ");
        let begin = begin.trim_end_matches(',');
        assert!(tests.contains(&format!("Promise {number}: \"{begin}")), "no test quotes: {begin}");
        promises += 1;
    }
    assert_eq!(promises, 11);
}

#[test]
fn links_lead_to_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for target in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if target.starts_with("http") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let text = if file.is_empty() { README.to_owned() } else { read(&root.join(file)) };
        let slug = |heading: &str| heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        let mut headings = text.lines().filter(|line| line.starts_with('#')).map(slug);
        assert!(anchor.is_empty() || headings.any(|heading| heading == anchor), "{target} has no such heading");
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_policy_is_json_and_each_permission_of_it_is_explained() {
    let text = section("## Permissions on AWS");
    let policy = text.split("```").nth(1).and_then(|block| block.strip_prefix("json")).expect("a policy");
    let policy: Value = serde_json::from_str(policy).expect("JSON");
    let explained: Vec<String> = rows(text).iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    for statement in policy["Statement"].as_array().expect("statements") {
        for action in statement["Action"].as_array().expect("actions") {
            let action = action.as_str().expect("a permission").to_owned();
            assert!(explained.contains(&action), "{action}");
        }
    }
}

/// Names in backquotes in the first column of a page's tables.
fn described(page: &str) -> BTreeSet<String> {
    let rows = rows(page).into_iter();
    rows.flat_map(|row| row[0].split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The paths of all fields: `identity.host`, `sources[].role`.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                found.insert(path.clone());
                fields(value, &path, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, &format!("{path}[]"), found)),
        _ => {}
    }
}

#[test]
fn the_manifests_page_describes_every_field_and_its_example_is_one() {
    let page = include_str!("../../docs/manifest.md");
    let described = described(page);
    let example = page.split("```").nth(1).and_then(|block| block.strip_prefix("json")).expect("an example");
    let mut read = 0;
    let header = manifest::read(example.as_bytes(), |_| read += 1).expect("the example is a manifest");
    assert_eq!((header.format, header.total_files), (FORMAT_OF_EQUAL_PARTS, read));
    let file: ManifestFile = serde_json::from_value(serde_json::json!({
        "name": "shop.t.sql", "kind": "data", "database": "shop", "table": "t", "rows": 1, "size": 1,
        "part_size": 1, "max_parts": 2, "part_md5s": [], "etag": "e", "version_id": "v", "sha256": "s", "proof": "etag-composite",
    }))
    .expect("a file with every field");
    // Every field that this program writes, and some that the example lacks.
    let mut written = BTreeSet::new();
    fields(&serde_json::to_value(&file).expect("JSON"), "", &mut written);
    let full = ManifestHeader {
        reason: Some(String::new()),
        dumper_version: Some(String::new()),
        metadata_text: Some(String::new()),
        told_to_stop: true,
        ..header
    };
    fields(&serde_json::to_value(&full).expect("JSON"), "", &mut written);
    let undescribed: Vec<_> = written
        .iter()
        // Their fields are described one by one.
        .filter(|field| !["identity", "dumper_exit"].contains(&field.as_str()))
        .filter(|field| !described.contains(*field))
        .collect();
    assert!(undescribed.is_empty(), "{undescribed:?}");
}

#[test]
fn the_monitoring_page_names_the_metrics_that_are_written() {
    let page = include_str!("../../docs/monitoring.md");
    let machine = Machine::new();
    let metrics = machine.sandbox.path("dump.prom");
    machine
        .run_with("child", DUMP, 0, &[("MYDUMPER2S3_METRICS_FILE", metrics.to_str().expect("text"))])
        .assert_status(0);
    let text = std::fs::read_to_string(metrics).expect("the metrics");
    let written: BTreeSet<String> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('{').next().expect("a name").to_owned())
        .collect();
    // Those of a drill are held to the page by its own tests.
    let is_of_upload = |name: &String| name.starts_with("mydumper2s3_") && !name.starts_with("mydumper2s3_drill_");
    let described: BTreeSet<String> = described(page).into_iter().filter(is_of_upload).collect();
    assert_eq!(described, written, "left: the page, right: the file");
}

#[test]
fn those_who_come_from_the_python_tool_find_options_that_exist() {
    let page = include_str!("../../docs/from-python.md");
    let mut known = names(&options_of(&cli::command()));
    cli::command().get_subcommands().for_each(|command| known.extend(names(&options_of(command))));
    for row in rows(page).iter().filter(|row| row.len() == 3) {
        for name in options_in(&row[1]) {
            assert!(known.contains(&name), "no option --{name}: {row:?}");
        }
    }
}

/// The block after `<!-- test: NAME -->`.
fn script(name: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("<!-- test: {name} -->\n```sh\n")).expect("the block");
    rest.split_once("```").expect("its end").0
}

/// What the service's unit runs, as a script.
fn unit_command() -> String {
    let (_, rest) = README.split_once("\nExecStart=/usr/local/bin/").expect("the unit");
    let (command, _) = rest.split_once("\nTimeoutStartSec").expect("its next line");
    format!("#!/bin/sh\nexec {command}\n")
}

/// A script of the README on a machine of its own: its paths lie in the sandbox, its `mydumper` is scripted.
struct Machine {
    sandbox: Sandbox,
    server: S3Server,
}

impl Machine {
    fn new() -> Self {
        let machine = Machine { sandbox: Sandbox::new(), server: S3Server::builder().bucket("backups").start() };
        symlink(env!("CARGO_BIN_EXE_mydumper2s3"), machine.sandbox.path("bin/mydumper2s3")).expect("a link");
        machine
    }

    /// Runs the block after `<!-- test: NAME -->`, or the unit, with a dumper that exits with `status`.
    fn run(&self, name: &str, dump: &str, status: i32) -> Finished {
        self.run_with(name, dump, status, &[])
    }

    fn run_with(&self, name: &str, dump: &str, status: i32, environment: &[(&str, &str)]) -> Finished {
        let directory = self.sandbox.path("");
        let script = if name == "unit" { unit_command() } else { script(name).to_owned() };
        let script = script
            .replace("/var/lib/mydumper2s3/dump", "/var/backups/dump")
            .replace("/var/backups/dump", &self.sandbox.dump_dir().display().to_string())
            .replace("/var/backups/", &directory.display().to_string());
        assert!(!script.contains("/var/"), "{script}");
        let (path, dump_script) = (self.sandbox.path("nightly"), self.sandbox.path("script"));
        std::fs::write(&path, script).expect("the script is written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it can be run");
        std::fs::write(&dump_script, format!("{dump}{status}\n")).expect("the dumper's script is written");
        let program =
            environment.iter().fold(self.sandbox.program(path), |program, (name, value)| program.env(name, value));
        program
            .without_env(CONTROL_VARIABLE)
            .env(SCRIPT_VARIABLE, dump_script)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("MYDUMPER2S3_ENDPOINT_URL", self.server.endpoint())
            .env("MYDUMPER2S3_INTERVAL", "0.2")
            .env("MYDUMPER2S3_SETTLE", "0.2")
            .run()
    }

    /// How many whole dumps the bucket holds.
    fn whole_dumps(&self) -> usize {
        self.server.keys("backups").iter().filter(|key| key.ends_with("/metadata")).count()
    }
}

#[test]
fn the_cron_script_uploads_a_dump_and_says_nothing() {
    let machine = Machine::new();
    let finished = machine.run("child", DUMP, 0).assert_status(0);
    assert_eq!(finished.text(), "");
    assert_eq!(machine.whole_dumps(), 1);
    machine.sandbox.assert_local_names([] as [&str; 0]);
}

#[test]
fn the_cron_script_fails_when_mydumper_does() {
    let machine = Machine::new();
    machine.run("child", DUMP, 1).assert_status(3);
    assert_eq!(machine.whole_dumps(), 0);
}

/// What a bad night left in the dump directory, and how many whole dumps there are after the night that follows.
const BAD_NIGHTS: [(&[(&str, &str)], usize); 4] = [
    // Killed after mydumper had ended.
    (
        &[
            ("shop-schema-create.sql", "CREATE DATABASE shop;\n"),
            ("shop.t-schema.sql", "CREATE TABLE t (id INT PRIMARY KEY);\n"),
            ("metadata", "# Started dump at: 2026-01-02 03:04:05\n# Finished dump at: 2026-01-02 03:05:06\n"),
        ],
        2,
    ),
    // Killed together with mydumper: never whole.
    (
        &[
            ("shop-schema-create.sql", "CREATE DATABASE shop;\n"),
            ("metadata.partial", "# Started dump at: 2026-01-02 03:04:05\n"),
        ],
        1,
    ),
    // mydumper said that it had ended, and lacks a schema: never whole.
    (
        &[
            ("shop-schema-create.sql", "CREATE DATABASE shop;\n"),
            (
                "metadata",
                "# Started dump at: 2026-01-02 03:04:05\n[`shop`.`t`]\nrows = 7\n# Finished dump at: 2026-01-02 03:05:06\n",
            ),
        ],
        1,
    ),
    // mydumper aborted before its first flush.
    (&[("metadata.partial", "")], 1),
];

/// "One failed night stops all following nights": not the recommended script, whose status is tonight's own; and what
/// can never be whole is said, though the night went well.
#[test]
fn the_cron_script_survives_each_bad_night() {
    for (left, whole) in BAD_NIGHTS {
        let machine = Machine::new();
        left.iter().for_each(|(name, text)| machine.sandbox.put_local(name, text));
        let said = machine.run("child", DUMP, 0).assert_status(0).text();
        assert_eq!(machine.whole_dumps(), whole, "{left:?}: {said}");
        assert_eq!(said.lines().count(), 2 - whole, "{left:?}: {said}");
        machine.sandbox.assert_local_names([] as [&str; 0]);
    }
}

/// So with a night that was stopped in the middle, and with tonight's own failure.
#[test]
fn the_cron_script_survives_a_night_that_failed() {
    let machine = Machine::new();
    machine.run("child", DUMP, 1).assert_status(3);
    // The default prefix has the dump's start, to the second.
    let second = || jiff::Timestamp::now().as_second();
    let failed_before = second();
    eventually("another second", || second() > failed_before);
    machine.run("child", DUMP, 0).assert_status(0);
    assert_eq!(machine.whole_dumps(), 1);
    machine.sandbox.assert_local_names([] as [&str; 0]);
}

/// The unit's command, as systemd runs it.
#[test]
fn the_systemd_unit_survives_each_bad_night() {
    for (left, whole) in BAD_NIGHTS {
        let machine = Machine::new();
        left.iter().for_each(|(name, text)| machine.sandbox.put_local(name, text));
        machine.run("unit", DUMP, 0).assert_status(0);
        assert_eq!(machine.whole_dumps(), whole, "{left:?}");
        machine.sandbox.assert_local_names([] as [&str; 0]);
    }
}

#[test]
fn the_script_for_two_programs_keeps_both_statuses() {
    let machine = Machine::new();
    machine
        .run("beside", DUMP, 0)
        .assert_status(0)
        .assert_says("mydumper ended with status 0, mydumper2s3 with status 0");
    assert_eq!(machine.whole_dumps(), 1);
}

#[test]
fn the_script_for_two_programs_ends_with_a_failure_of_mydumper() {
    let machine = Machine::new();
    let said = "mydumper ended with status 7, mydumper2s3 with status 3";
    machine.run("beside", DUMP, 7).assert_status(3).assert_says(said);
    assert_eq!(machine.whole_dumps(), 0);
}

/// Every command line in README.md and on the pages, as a shell takes it apart.
#[test]
fn every_command_of_the_documents_can_be_typed() {
    let docs = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).expect("docs");
    let pages =
        docs.map(|entry| entry.expect("a page").path()).filter(|path| path.extension().is_some_and(|ext| ext == "md"));
    // The benchmarks' are run, and some are the Python tool's, as is one on the page for those who come from it.
    let pages = pages.filter(|page| !page.ends_with("benchmarks.md"));
    let texts = pages.map(|page| std::fs::read_to_string(page).expect("a page")).chain([README.to_owned()]);
    let mut typed = 0;
    for text in texts {
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block);
        let lines = blocks.flat_map(|block| block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>());
        for line in lines.filter(|line| line.starts_with("mydumper2s3 ") && !line.contains("--domain")) {
            let end = line.find(['|', '>', '&', ';', '#']).unwrap_or(line.len());
            let words = Command::new("sh")
                .args(["-fc", &format!("printf '%s\\0' {}", &line[..end].replace('$', ""))])
                .output()
                .expect("sh");
            let words = String::from_utf8(words.stdout).expect("UTF-8");
            let words = words.split_terminator('\0');
            // What is required may stand in the environment.
            match cli::command().try_get_matches_from(words) {
                Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => panic!("{line}: {error}"),
                _ => typed += 1,
            }
        }
    }
    assert!(typed > 10, "{typed}");
}
