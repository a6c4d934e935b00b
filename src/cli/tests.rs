//! What is typed and set arrives as it was meant. Variables are set for a child process only: the environment of a
//! test process is shared by its threads.

use std::process::Command as Process;
use std::time::Duration;

use super::*;
use crate::model::units::{ByteSize, Rate};

fn parse(line: &str) -> Result<Command, String> {
    let arguments = std::iter::once("mydumper2s3").chain(line.split_whitespace()).map(OsString::from);
    parse_from(arguments, Path::new("/home/me")).map_err(|error| error.to_string())
}

fn upload(line: &str) -> UploadArgs {
    match parse(&format!("--dir /backup --bucket dumps {line}")) {
        Ok(Command::Upload(upload)) => *upload,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str, words: &[&str]) {
    let error = parse(line).expect_err(line);
    for word in words {
        assert!(error.contains(word), "{line}: {word:?} is not in {error}");
    }
}

fn upload_refused(line: &str, words: &[&str]) {
    refused(&format!("--dir /backup --bucket dumps {line}"), words);
}

#[test]
fn the_definition_is_sound() {
    command().debug_assert();
}

#[test]
fn the_upload_needs_no_name_and_has_its_defaults() {
    let upload = upload("");
    assert_eq!(upload.dump.dir, Path::new("/backup"));
    assert_eq!(upload.destination.bucket.as_str(), "dumps");
    assert_eq!(upload.destination.prefix.to_string(), "{host}/%Y-%m-%dT%H%M%SZ");
    assert_eq!(upload.dump.interval, Duration::from_secs(1));
    assert_eq!(upload.dump.settle, Duration::from_secs(1));
    assert_eq!(upload.dump.wait, Duration::from_secs(60));
    assert_eq!(upload.dump.idle_timeout, Duration::from_secs(6 * 3600));
    assert_eq!(upload.dump.stop_timeout, Duration::from_secs(30));
    assert_eq!(upload.dump.max_pause, Duration::from_secs(45));
    assert_eq!(upload.transfer.workers, 4);
    assert_eq!(upload.transfer.part_size, ByteSize::mib(16));
    assert_eq!(upload.transfer.max_parts, 10_000);
    assert_eq!(upload.transfer.retry_for, Duration::from_secs(3600));
    assert_eq!(upload.output, OutputArgs::default());
    assert_eq!(upload.connection, ConnectionArgs::default());
    assert!(!upload.starts_mydumper());
}

#[test]
fn values_arrive_as_model_types() {
    let upload = upload(
        "--interval 0.2 --part-size 5MiB --limit-rate 50MiB/s --tag a=b --tag c=d,e=f --sse aws:kms -vv -q \
         --prefix nightly/%Y --endpoint-url http://127.0.0.1:9000 --path-style --max-local 500MiB",
    );
    assert_eq!(upload.dump.interval, Duration::from_millis(200));
    assert_eq!(upload.transfer.part_size, ByteSize::mib(5));
    assert_eq!(upload.transfer.limit_rate, Some(Rate(50 << 20)));
    assert_eq!(upload.destination.tags.len(), 3);
    assert_eq!(upload.dump.max_local, Some(ByteSize::mib(500)));
    assert!(upload.connection.path_style && upload.output.quiet && upload.output.verbose == 2);
}

#[test]
fn without_a_subcommand_directory_and_bucket_are_asked_for() {
    refused("", &["--dir <DIR>", "--bucket <BUCKET>"]);
    refused("--dir /backup", &["--bucket <BUCKET>"]);
}

#[test]
fn wrong_values_name_the_option_and_what_is_allowed() {
    upload_refused("--interval 0", &["--interval <TIME>", "0.01 (10ms) to 1h"]);
    upload_refused("--interval soon", &["--interval <TIME>", "write a duration like"]);
    upload_refused("--part-size 1MiB", &["--part-size <SIZE>", "from 5MiB to 5GiB"]);
    upload_refused("--workers 0", &["--workers <N>", "from 1 to 256"]);
    upload_refused("--max-parts 10001", &["from 1 to 10000"]);
    upload_refused("--limit-rate 50", &["at least 64KiB/s"]);
    upload_refused("--pid -1", &["--pid"]);
    upload_refused("--prefix {hots}", &["{host}"]);
    upload_refused("--max-pause 0", &["longer than 0s"]);
    refused("--dir /backup --bucket s3://b/p --prefix x", &["two values for --prefix", "hint: "]);
}

#[test]
fn what_does_not_fit_together_is_refused_with_a_hint() {
    for line in [
        "--keep --max-local 1GiB",
        "--sse-kms-key-id k",
        "--sse AES256 --sse-kms-key-id k",
        "--write-only --overwrite",
        "--exit-status-file /backup/status",
        "--exit-status-file ../../backup/status",
        "--metrics-file /backup/x.prom",
        "--metrics-file /var/lib/x.txt",
        "--pid 7 -- mydumper",
        "--tag a=1 --tag a=2",
        "-- mydumper --daemon",
        "-- mydumper -o /other",
    ] {
        upload_refused(line, &["hint: "]);
    }
    refused("prune --bucket dumps --prefix p", &["hint: "]);
    refused("restore --bucket dumps --prefix p --before 2026-11-22 --dir d", &["--latest"]);
}

#[test]
fn usage_errors_end_with_status_2() {
    for line in ["", "--bucket", "nonsense", "--dir d --bucket dumps --keep --max-local 1", "verify"] {
        let arguments = std::iter::once("mydumper2s3").chain(line.split_whitespace()).map(OsString::from);
        let error = parse_from(arguments, Path::new("/")).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn the_command_after_the_dashes_is_checked_and_completed() {
    let command = |line| upload(line).command.join(std::ffi::OsStr::new(" "));
    assert_eq!(command("-- mydumper -B shop"), "mydumper -B shop -o /backup");
    assert_eq!(command("-- nice mydumper -o ../../backup"), "nice mydumper -o ../../backup");
    refused("--dir d --bucket dumps --", &["nothing follows '--'", "hint: "]);
    let empty = ["mydumper2s3", "--dir", "d", "--bucket", "dumps", "--", ""].map(OsString::from);
    assert!(parse_from(empty, Path::new("/")).is_err_and(|error| error.to_string().contains("is empty")));
    refused("--dir d --bucket dumps mydumper -B shop", &["put -- before", ": -- mydumper"]);
}

#[test]
fn subcommands_do_not_ask_for_the_uploads_options() {
    let parsed = parse("verify --bucket dumps --prefix a/b --deep").expect("a command");
    assert!(matches!(parsed, Command::Verify(verify) if verify.deep && verify.dump.prefix == "a/b".parse().ok()));
    assert!(matches!(parse("list --bucket dumps --max-age 26h"), Ok(Command::List(_))));
    assert!(matches!(parse("delete --bucket dumps --prefix a -y"), Ok(Command::Delete(delete)) if delete.yes));
    assert!(matches!(parse("prune --bucket dumps --prefix a --keep-daily 7 --dry-run"), Ok(Command::Prune(_))));
    assert!(matches!(parse("etag a b --part-size 8MiB"), Ok(Command::Etag(etag)) if etag.files.len() == 2));
    refused("verify --bucket dumps", &["--prefix"]);
    refused("--bucket dumps verify --prefix p", &["the command comes first: mydumper2s3 verify"]);
    refused("verfy", &["the commands are verify, list"]);
}

#[test]
fn restore_takes_one_dump_or_the_latest() {
    let choice = |line: &str| match parse(&format!("restore --bucket dumps --dir d {line}")) {
        Ok(Command::Restore(restore)) => Ok(restore.dump.choice()),
        other => Err(format!("{other:?}")),
    };
    let prefix = "a".parse::<crate::model::object_key::Prefix>().expect("a prefix");
    let latest = |under, series| Ok(Choice::Latest { under, series, before: None });
    assert_eq!(choice("--prefix a"), Ok(Choice::At(prefix.clone())));
    assert_eq!(choice("--latest"), latest(Default::default(), None));
    assert_eq!(choice("--latest --prefix a --series b"), latest(prefix, "b".parse().ok()));
    assert!(choice("--latest --before 2026-11-22T03:00 --tables shop.orders,crm.*").is_ok());
    refused("restore --bucket dumps --dir d", &["--prefix"]);
    refused("restore --bucket dumps --dir d --prefix a --series b", &["--latest"]);
    refused("verify --bucket dumps", &["--prefix"]);
}

#[test]
fn every_option_has_one_line_at_80_columns() {
    let help = command().term_width(80).render_help().to_string();
    // The prefix's default alone takes half a line.
    let continued = help.lines().filter(|line| line.starts_with("                 ")).count();
    assert!(continued <= 1, "{help}");
    assert!(help.lines().all(|line| line.len() <= 90), "{help}");
    assert!(help.lines().count() < 112, "{help}");
}

/// Parses `line` in a child process with these variables, and gives what it printed.
fn with_variables(variables: &[(&str, &str)], line: &str) -> String {
    let output = Process::new(std::env::current_exe().expect("this program"))
        .args(["cli::tests::what_was_parsed_can_be_printed", "--exact", "--nocapture"])
        .envs(variables.iter().copied())
        .env("CLI_TEST_LINE", line)
        .output()
        .expect("a child process");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// In a child process it is the other half of the tests below: variables cannot be set in a process with threads.
#[test]
fn what_was_parsed_can_be_printed() {
    let Ok(line) = std::env::var("CLI_TEST_LINE") else {
        let parsed = parse("--dir /backup --bucket typed").expect("a good line");
        assert!(format!("{parsed:?}").contains("\"typed\""));
        return;
    };
    match parse(&line) {
        Ok(parsed) => println!("{parsed:?}"),
        Err(error) => println!("{error}"),
    }
}

const BUCKET: (&str, &str) = ("MYDUMPER2S3_BUCKET", "from-env");
const DIR: (&str, &str) = ("MYDUMPER2S3_DIR", "/env");

#[test]
fn every_option_can_come_from_the_environment_and_a_flag_wins() {
    let printed = with_variables(&[DIR, BUCKET, ("MYDUMPER2S3_WORKERS", "7"), ("MYDUMPER2S3_TAG", "a=b,c=d")], "");
    for word in ["dir: \"/env\"", "\"from-env\"", "workers: 7", "key: \"c\""] {
        assert!(printed.contains(word), "{word} is not in {printed}");
    }
    let printed = with_variables(&[DIR, BUCKET, ("MYDUMPER2S3_WORKERS", "7")], "--workers 2 --bucket typed");
    assert!(printed.contains("workers: 2") && printed.contains("\"typed\""), "{printed}");
}

#[test]
fn switches_take_words_from_the_environment() {
    for (value, expected) in [("true", true), ("1", true), ("yes", true), ("false", false), ("0", false), ("no", false)]
    {
        let printed = with_variables(&[DIR, BUCKET, ("MYDUMPER2S3_KEEP", value)], "");
        assert!(printed.contains(&format!(" keep: {expected}")), "{value}: {printed}");
    }
    assert!(with_variables(&[DIR, BUCKET, ("MYDUMPER2S3_VERBOSE", "2")], "").contains("verbose: 2"));
}

#[test]
fn an_empty_variable_is_not_set() {
    let empty = [("MYDUMPER2S3_WORKERS", ""), ("MYDUMPER2S3_KEEP", ""), ("MYDUMPER2S3_REGION", "")];
    let printed = with_variables(&[&[DIR, BUCKET], &empty[..]].concat(), "");
    for word in ["workers: 4", " keep: false", "region: None"] {
        assert!(printed.contains(word), "{word} is not in {printed}");
    }
    assert!(with_variables(&[DIR, ("MYDUMPER2S3_BUCKET", "")], "").contains("--bucket <BUCKET>"));
}

#[test]
fn subcommands_take_settings_from_the_environment_but_not_what_they_act_on() {
    let all = [DIR, BUCKET, ("MYDUMPER2S3_PREFIX", "{host}/x"), ("MYDUMPER2S3_REGION", "eu")];
    let printed = with_variables(&all, "verify --prefix typed");
    assert!(
        printed.contains("Verify(") && printed.contains("\"from-env\"") && printed.contains("Some(\"eu\")"),
        "{printed}"
    );
    assert!(printed.contains("dir: None"), "{printed}");
    assert!(with_variables(&all, "delete").contains("--prefix <PREFIX>"));
}

#[test]
fn a_password_in_a_url_is_not_repeated() {
    let line = "--dir /d --bucket b --endpoint-url http://user:topsecret@host";
    let error = parse(line).expect_err("no credentials in URLs").to_string();
    assert!(error.contains("--endpoint-url") && !error.contains("topsecret"), "{error}");
}

#[test]
fn a_wrong_variable_is_named() {
    let wrong = ("MYDUMPER2S3_WORKERS", "many");
    let printed = with_variables(&[DIR, BUCKET, wrong], "");
    assert!(
        printed.contains("--workers <N>") && printed.contains("MYDUMPER2S3_WORKERS in the environment"),
        "{printed}"
    );
    let printed = with_variables(&[DIR, BUCKET, wrong], "--workers none");
    assert!(printed.contains("'none'") && !printed.contains("in the environment"), "{printed}");
}
