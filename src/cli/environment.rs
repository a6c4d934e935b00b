//! `MYDUMPER2S3_…`: an environment variable for every setting, named after its option.

use std::ffi::{OsStr, OsString};

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};

const PREFIX: &str = "MYDUMPER2S3_";

/// What subcommands take from the environment, beside their `--bucket`: settings, but not what they act on.
/// A container that uploads has MYDUMPER2S3_PREFIX and MYDUMPER2S3_DIR set. `delete` typed there must not take its
/// prefix from them, nor `verify` compare with a directory that is empty by design, nor `restore` write into it.
const SUBCOMMAND_SETTINGS: [&str; 13] = [
    "bucket",
    "endpoint_url",
    "region",
    "profile",
    "path_style",
    "ca_bundle",
    "workers",
    "part_size",
    "verbose",
    "quiet",
    "log_format",
    "no_progress",
    "dry_run",
];

/// Gives each option its variable.
pub fn with_variables(command: Command) -> Command {
    command.mut_args(with_variable).mut_subcommands(|subcommand| {
        subcommand.mut_args(|argument| {
            if SUBCOMMAND_SETTINGS.contains(&argument.get_id().as_str()) { with_variable(argument) } else { argument }
        })
    })
}

fn with_variable(argument: Arg) -> Arg {
    let Some(name) = argument.get_long().map(variable) else {
        return argument;
    };
    // Help would grow by a line an option; its last part says the rule instead.
    let argument = argument.hide_env(true);
    let argument = match argument.get_action() {
        ArgAction::SetTrue => argument.value_parser(BoolishValueParser::new()),
        // `--interval -1` is a wrong value, not an option of that name.
        ArgAction::Set => argument.allow_negative_numbers(true),
        _ => argument,
    };
    // Kubernetes and compose files set a variable to nothing where they mean that it is not set.
    if value_of(&name).is_some() { argument.env(name) } else { argument }
}

/// `part-size`: `MYDUMPER2S3_PART_SIZE`.
pub fn variable(long: &str) -> String {
    format!("{PREFIX}{}", long.to_ascii_uppercase().replace('-', "_"))
}

fn value_of(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Says where a wrong value came from when it wasn't typed: clap's message names the option only.
pub fn name_variable(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    // A password in a URL is refused, and not repeated either.
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && value.contains("://")
        && let Some((_, host)) = value.rsplit_once('@')
    {
        let value = format!("***@{host}");
        error.insert(ContextKind::InvalidValue, ContextValue::String(value));
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let Some(long) = argument.strip_prefix("--").and_then(|rest| rest.split([' ', '=']).next()) else {
        return error;
    };
    let is_typed = arguments
        .iter()
        .take_while(|argument| *argument != OsStr::new("--"))
        .filter_map(|argument| argument.to_str()?.strip_prefix("--"))
        .any(|typed| typed == long || typed.starts_with(&format!("{long}=")));
    let name = variable(long);
    if !is_typed && value_of(&name).is_some() {
        let tip = format!("the value is that of {name} in the environment");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}
