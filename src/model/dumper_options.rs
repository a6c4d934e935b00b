//! mydumper's command line, read as mydumper reads it.
//!
//! mydumper reads its options with GLib, whose rules differ from getopt's: `-oDIR` is not `-o DIR` but `-o` with the
//! next argument and then the flags `-D -I -R`; options are never abbreviated; `-vD 3` is `-v 3 -D`.
//! Seen with 0.10.1 and in the sources of 1.x (`GOptionEntry` tables in `mydumper_arguments.c`, `common_options.c`
//! and `connection.c`), from which the tables here are made.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Short options of mydumper that take the next argument as their value, in 0.10 or 1.x. `-c` and `-k` take one in
/// 1.x only if it doesn't begin with `-`, which makes no difference here.
const SHORT_WITH_VALUE: &[u8] = b"BTOosrFxilIXLUzhupPStv";

/// Long options that take the next argument as their value, in 0.10 or 1.x. One that is missing here matters only
/// if its value looks like an option that is looked for.
const LONG_WITH_VALUE: &[&str] = &[
    "ca",
    "capath",
    "cert",
    "chunk-filesize",
    "cipher",
    "database",
    "default-connection-database",
    "defaults-extra-file",
    "defaults-file",
    "disk-limits",
    "exec-per-thread",
    "exec-per-thread-extension",
    "exec-threads",
    "fields-enclosed-by",
    "fields-escaped-by",
    "fields-terminated-by",
    "format",
    "host",
    "ignore-engines",
    "ignore-errors",
    "key",
    "lines-starting-by",
    "lines-terminated-by",
    "logfile",
    "long-query-guard",
    "long-query-retries",
    "long-query-retry-interval",
    "max-rows",
    "max-threads-per-table",
    "omit-from-file",
    "optimize-keys-engines",
    "outputdir",
    "partition-regex",
    "password",
    "pmm-path",
    "pmm-resolution",
    "port",
    "protocol",
    "regex",
    "rows",
    "rows-hard",
    "server-version",
    "set-names",
    "snapshot-count",
    "snapshot-interval",
    "socket",
    "source-control-command",
    "ssl-mode",
    "statement-size",
    "statement-terminated-by",
    "sync-thread-lock-mode",
    "sync-wait",
    "table-engine-for-view-dependency",
    "tables-list",
    "threads",
    "tidb-snapshot",
    "tls-version",
    "updated-since",
    "user",
    "verbose",
    "where",
];

/// Short options that take no value in any version. `-c` and `-k` may.
const SHORT_FLAGS: &[u8] = b"CDEGKMNRVWYabdem";

/// Long options that take no value in any version. What may or may not take one, like `--compress`, is not here.
const LONG_FLAGS: &[&str] = &[
    "all-tablespaces",
    "ask-password",
    "build-empty-files",
    "bulk-metadata-prefetch",
    "check-row-count",
    "checksum-all",
    "clear",
    "compact",
    "complete-insert",
    "compress-protocol",
    "csv",
    "daemon",
    "data-checksums",
    "debug",
    "dirty",
    "dry-run",
    "enable-cleartext-plugin",
    "events",
    "exit-if-broken-table-found",
    "hex-blob",
    "include-header",
    "insert-ignore",
    "kill-long-queries",
    "load-data",
    "machine-log-json",
    "masquerade-filename",
    "merge",
    "no-backup-locks",
    "no-check-generated-fields",
    "no-data",
    "no-delete",
    "no-schemas",
    "no-views",
    "order-by-primary",
    "replace",
    "routine-checksums",
    "routines",
    "schema-checksums",
    "skip-constraints",
    "skip-ddl-locks",
    "skip-definer",
    "skip-indexes",
    "skip-tz-utc",
    "split-partitions",
    "split-string-pk",
    "ssl",
    "triggers",
    "tz-utc",
    "use-defer",
    "use-savepoints",
    "use-single-column",
    "views-as-tables",
];

/// The long names of the letters that somebody here asks for.
const LONG_NAMES: [(u8, &[u8]); 17] = [
    (b'D', b"daemon"),
    (b'E', b"events"),
    (b'G', b"triggers"),
    (b'O', b"omit-from-file"),
    (b'R', b"routines"),
    (b'T', b"tables-list"),
    (b'U', b"updated-since"),
    (b'W', b"no-views"),
    (b'a', b"ask-password"),
    (b'c', b"compress"),
    (b'd', b"no-data"),
    (b'i', b"ignore-engines"),
    (b'm', b"no-schemas"),
    (b'o', b"outputdir"),
    (b't', b"threads"),
    (b'x', b"regex"),
    (b'B', b"database"),
];

/// An option that was given.
#[derive(Debug, Clone, Copy)]
pub struct GivenOption<'a> {
    /// Its long name, without dashes; empty for a letter that nobody here asks for.
    pub name: &'a [u8],
    /// Its value, if it takes one and has one.
    pub value: Option<&'a OsStr>,
    /// What was typed.
    pub argument: &'a OsStr,
    /// Other letters stand behind its own, as in `-oDIR`, where a getopt program would see its value.
    pub is_attached: bool,
}

/// How a program's options are written. GLib reads those of myloader, too.
#[derive(Debug, Clone, Copy)]
pub struct Syntax {
    /// Letters that take the next argument as their value.
    pub short_with_value: &'static [u8],
    /// Long names that do.
    pub long_with_value: &'static [&'static str],
    /// The long names of the letters that are asked for.
    pub long_names: &'static [(u8, &'static [u8])],
}

const MYDUMPER: Syntax =
    Syntax { short_with_value: SHORT_WITH_VALUE, long_with_value: LONG_WITH_VALUE, long_names: &LONG_NAMES };

/// The options among mydumper's arguments.
pub fn options(arguments: &[OsString]) -> Vec<GivenOption<'_>> {
    options_of(arguments, &MYDUMPER)
}

/// The first of mydumper's arguments that surely is neither an option nor the value of one: what stands behind an option
/// that is not known here, or that takes a value only in some versions, may be its value.
pub fn word(arguments: &[OsString]) -> Option<&OsStr> {
    let mut rest = arguments.iter().map(OsString::as_os_str);
    let mut may_be_value = false;
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        if bytes == b"--" {
            return rest.next();
        }
        may_be_value = if let Some(long) = bytes.strip_prefix(b"--") {
            let is_in = |names: &[&str]| names.iter().any(|known| known.as_bytes() == long);
            let takes_next = is_in(LONG_WITH_VALUE);
            if takes_next {
                rest.next();
            }
            !takes_next && !long.contains(&b'=') && !is_in(LONG_FLAGS)
        } else if let Some(letters) = bytes.strip_prefix(b"-") {
            let takes_next = letters.iter().any(|letter| SHORT_WITH_VALUE.contains(letter));
            if takes_next {
                rest.next();
            }
            !takes_next && !letters.iter().all(|letter| SHORT_FLAGS.contains(letter))
        } else if may_be_value {
            false
        } else {
            return Some(argument);
        };
    }
    None
}

/// The options among the arguments of a program with that syntax.
pub fn options_of<'a>(arguments: &'a [OsString], syntax: &Syntax) -> Vec<GivenOption<'a>> {
    let mut options = Vec::new();
    let mut rest = arguments.iter().map(OsString::as_os_str);
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        if bytes == b"--" {
            break;
        }
        if let Some(long) = bytes.strip_prefix(b"--") {
            options.push(long_option(argument, long, syntax, &mut rest));
        } else if let Some(letters) = bytes.strip_prefix(b"-") {
            // At most one of them can take a value, and it is always the next argument.
            let takes_value = |letter: &u8| syntax.short_with_value.contains(letter);
            let value = if letters.iter().any(takes_value) { rest.next() } else { None };
            options.extend(letters.iter().enumerate().map(|(at, letter)| GivenOption {
                name: syntax.long_names.iter().find(|(known, _)| known == letter).map_or(b"", |(_, name)| *name),
                value: value.filter(|_| takes_value(letter)),
                argument,
                is_attached: at == 0 && letters.len() > 1,
            }));
        }
    }
    options
}

fn long_option<'a>(
    argument: &'a OsStr,
    option: &'a [u8],
    syntax: &Syntax,
    rest: &mut impl Iterator<Item = &'a OsStr>,
) -> GivenOption<'a> {
    let (name, value) = match option.iter().position(|byte| *byte == b'=') {
        Some(at) => (&option[..at], Some(OsStr::from_bytes(&option[at + 1..]))),
        None => (option, None),
    };
    let takes_next = value.is_none() && syntax.long_with_value.iter().any(|known| known.as_bytes() == name);
    let value = if takes_next { rest.next() } else { value };
    GivenOption { name, value, argument, is_attached: false }
}
