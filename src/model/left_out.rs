//! What mydumper was not asked for, or was told to leave out: a whole dump may lack it all the same.
//!
//! Triggers, routines and events are dumped only where they are asked for, in every version from 0.10.1 to 1.0.1.
//! From 0.11 on the group `[mydumper]` of the defaults file is read like further arguments, whatever the values say:
//! `triggers=0` asks for them, too (`parse_key_file_group` in 1.0.1's `common.c`).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::dumper_options::options;
use super::dumper_version::{dumps_triggers_without_schemas, reads_defaults_file};

/// The defaults file of a mydumper that is given none, if it is there.
const DEFAULTS_FILE: &str = "/etc/mydumper.cnf";

/// Something that a dump may be without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// Triggers were not asked for.
    Triggers,
    /// Stored procedures and functions were not asked for.
    Routines,
    /// Events were not asked for.
    Events,
    /// Views.
    Views,
    /// How databases and tables are made.
    Schemas,
    /// All rows.
    Data,
    /// Tables, by a list, a pattern, their engine or their age.
    Tables,
    /// Rows, by a condition or by their partition.
    Rows,
    /// The tables' indexes.
    Indexes,
    /// The tables' constraints.
    Constraints,
    /// Whatever failed with an error that mydumper was told to ignore.
    IgnoredErrors,
    /// Something that a newer program knows of.
    #[serde(other)]
    Other,
}

/// What leaves what out.
const LEAVES_OUT: [(&[u8], LeftOut); 15] = [
    (b"no-views", LeftOut::Views),
    (b"no-schemas", LeftOut::Schemas),
    (b"no-data", LeftOut::Data),
    (b"tables-list", LeftOut::Tables),
    (b"omit-from-file", LeftOut::Tables),
    (b"regex", LeftOut::Tables),
    (b"ignore-engines", LeftOut::Tables),
    (b"updated-since", LeftOut::Tables),
    (b"success-on-1146", LeftOut::IgnoredErrors),
    (b"ignore-errors", LeftOut::IgnoredErrors),
    (b"where", LeftOut::Rows),
    (b"partition-regex", LeftOut::Rows),
    (b"skip-indexes", LeftOut::Indexes),
    (b"skip-constraints", LeftOut::Constraints),
    // A key of a table's own section in the defaults file, as `where` and `partition_regex` may be.
    (b"limit", LeftOut::Rows),
];

/// What must be asked for.
const ASKED_FOR: [(&[u8], LeftOut); 3] =
    [(b"triggers", LeftOut::Triggers), (b"routines", LeftOut::Routines), (b"events", LeftOut::Events)];

impl LeftOut {
    /// In the words of a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Triggers => "triggers",
            Self::Routines => "routines",
            Self::Events => "events",
            Self::Views => "views",
            Self::Schemas => "schemas",
            Self::Data => "data",
            Self::Tables => "some tables",
            Self::Rows => "some rows",
            Self::Indexes => "indexes",
            Self::Constraints => "constraints",
            Self::IgnoredErrors => "what failed with an ignored error",
            Self::Other => "what a newer mydumper2s3 knows of",
        }
    }

    /// The option that asks for it, where it must be asked for.
    pub fn option(self) -> Option<&'static str> {
        match self {
            Self::Triggers => Some("--triggers"),
            Self::Routines => Some("--routines"),
            Self::Events => Some("--events"),
            _ => None,
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// All of it in one line: `triggers, routines, events`.
pub fn in_words(left_out: &[LeftOut]) -> String {
    left_out.iter().map(|what| what.as_str()).collect::<Vec<_>>().join(", ")
}

/// What a mydumper leaves out that was started with these arguments and that reads these defaults files, whose texts
/// are given. Where its version is not known the files count only for what they leave out.
pub fn left_out(arguments: &[OsString], defaults: &[String], version: Option<&str>) -> Vec<LeftOut> {
    let reads_defaults = reads_defaults_file(version);
    let given = options(arguments);
    let mut keys: Vec<Key<'_>> = Vec::new();
    if reads_defaults != Some(false) {
        keys.extend(defaults.iter().flat_map(|text| keys_of(text)));
    }
    let is_given = |name: &[u8]| given.iter().any(|option| option.name == name);
    let is_asked = |name: &[u8]| {
        is_given(name) || (reads_defaults == Some(true) && keys.iter().any(|key| key.is_option() && key.is(name)))
    };
    let is_left_out = |name: &[u8]| is_given(name) || keys.iter().any(|key| key.is(name));
    let not_asked = ASKED_FOR.iter().filter(|(name, _)| !is_asked(name));
    let told = LEAVES_OUT.iter().filter(|(name, _)| is_left_out(name));
    let mut left_out: Vec<LeftOut> = not_asked.chain(told).map(|(_, what)| *what).collect();
    if is_left_out(b"tables-list") && !is_left_out(b"database") {
        // No database is gone through then, and these belong to a database (seen with 1.0.1).
        left_out.extend([LeftOut::Routines, LeftOut::Events]);
    }
    if is_left_out(b"no-schemas") && !dumps_triggers_without_schemas(version) {
        left_out.push(LeftOut::Triggers);
    }
    left_out.sort_unstable();
    left_out.dedup();
    left_out
}

/// The defaults files that a mydumper with these arguments reads. They need not be there.
pub fn defaults_files(arguments: &[OsString]) -> Vec<PathBuf> {
    let given = options(arguments);
    let last = |name: &[u8]| given.iter().rfind(|option| option.name == name).and_then(|option| option.value);
    let main = last(b"defaults-file").unwrap_or(OsStr::new(DEFAULTS_FILE));
    [Some(main), last(b"defaults-extra-file")].into_iter().flatten().map(PathBuf::from).collect()
}

/// The values that a defaults file gives an option of mydumper's.
pub fn values_in_defaults<'a>(text: &'a str, option: &str) -> impl Iterator<Item = &'a str> {
    keys_of(text).filter(move |key| key.is_option() && key.name == option).map(|key| key.value)
}

/// A key of a defaults file, with the group that it stands in.
struct Key<'a> {
    group: &'a str,
    name: &'a str,
    value: &'a str,
}

impl Key<'_> {
    /// Whether it counts as an argument. `[mydumper_mariadb]` and the like hold for some servers alone.
    fn is_option(&self) -> bool {
        self.group == "mydumper"
    }

    /// Whether it means that option, as an argument or in a table's own section.
    fn is(&self, option: &[u8]) -> bool {
        let of_table = self.group.starts_with(['`', '"']);
        let is_group = of_table || self.group == "mydumper" || self.group.starts_with("mydumper_");
        let bytes = self.name.bytes().map(|byte| if of_table && byte == b'_' { b'-' } else { byte });
        is_group && bytes.eq(option.iter().copied())
    }
}

/// Reads a defaults file as GLib's `GKeyFile` does: groups in brackets, `key=value`, comments from `#`.
fn keys_of(text: &str) -> impl Iterator<Item = Key<'_>> {
    let mut group = "";
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            group = name;
            return None;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let (name, value) = (name.trim(), value.trim());
        (!name.is_empty() && !name.starts_with('#')).then_some(Key { group, name, value })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL_ASKED: &str = "-B shop -G -E -R";

    fn arguments(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn of(text: &str) -> String {
        in_words(&left_out(&arguments(text), &[], None))
    }

    fn with_file(text: &str, file: &str, version: Option<&str>) -> String {
        in_words(&left_out(&arguments(text), &[file.to_owned()], version))
    }

    #[test]
    fn what_is_not_asked_for_is_left_out() {
        assert_eq!(of("-B shop"), "triggers, routines, events");
        assert_eq!(of(ALL_ASKED), "");
        assert_eq!(of("--triggers --events --routines --threads 4"), "");
        assert_eq!(of("-vGER 3"), "");
        assert_eq!(of("-G -E"), "routines");
        // Values are no options.
        assert_eq!(of("-p -G --regex --events -- -R"), "triggers, routines, events, some tables");
    }

    #[test]
    fn what_is_told_to_be_left_out_is() {
        for (more, wanted) in [
            ("-d", "data"),
            ("--no-data", "data"),
            ("-m", "triggers, schemas"),
            ("-W", "views"),
            ("-T a,b", "some tables"),
            ("--omit-from-file f -x ^a", "some tables"),
            ("-i MEMORY", "some tables"),
            ("-U 3", "some tables"),
            ("--where=id>3", "some rows"),
            ("--partition-regex p1", "some rows"),
            ("--skip-indexes --skip-constraints", "indexes, constraints"),
            ("--ignore-errors 1146", "what failed with an ignored error"),
            ("--success-on-1146", "what failed with an ignored error"),
            ("--rows 1000 -F 64 -c zstd", ""),
        ] {
            assert_eq!(of(&format!("{ALL_ASKED} {more}")), wanted, "{more}");
        }
    }

    /// What goes with something else, in words of the versions that were tried.
    #[test]
    fn what_is_asked_for_may_be_left_out_with_something_else() {
        assert_eq!(of("-G -E -R -T shop.a"), "routines, events, some tables");
        let of_version = |version| in_words(&left_out(&arguments("-B shop -G -E -R -m"), &[], Some(version)));
        assert_eq!(of_version("1.0.1-3"), "schemas");
        assert_eq!(of_version("0.10.1"), "triggers, schemas");
    }

    #[test]
    fn a_defaults_file_counts_like_arguments_where_mydumper_reads_it() {
        let file =
            "# no-data = 1\n[client]\nno-views=1\n[mydumper]\ntriggers=1\nroutines = true\nevents\nregex=^shop\n";
        assert_eq!(with_file("", file, Some("1.0.1-3")), "some tables");
        // 0.10 takes only the connection from it.
        assert_eq!(with_file("", file, Some("0.10.1")), "triggers, routines, events");
        // Of an unknown version the worse is believed.
        assert_eq!(with_file("", file, None), "triggers, routines, events, some tables");
    }

    #[test]
    fn a_tables_own_section_leaves_rows_out() {
        for key in ["where = id > 3", "limit=10", "partition_regex=p1"] {
            let file = format!("[`shop`.`orders`]\n{key}\n");
            assert_eq!(with_file(ALL_ASKED, &file, Some("1.0.1-3")), "some rows", "{key}");
        }
        assert_eq!(with_file(ALL_ASKED, "[mydumper_session_variables]\nwait_timeout=1\n", Some("1.0.1-3")), "");
    }

    #[test]
    fn the_defaults_files_are_those_that_mydumper_reads() {
        let paths = |text: &str| {
            defaults_files(&arguments(text)).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths("-B shop"), ["/etc/mydumper.cnf"]);
        assert_eq!(paths("--defaults-file=my.cnf --defaults-extra-file x"), ["my.cnf", "x"]);
    }

    #[test]
    fn a_word_of_a_newer_program_is_no_damage() {
        let read: Vec<LeftOut> = serde_json::from_str(r#"["triggers","ignored-errors","grants"]"#).expect("words");
        assert_eq!(read, [LeftOut::Triggers, LeftOut::IgnoredErrors, LeftOut::Other]);
    }

    proptest! {
        #[test]
        fn nothing_panics(arguments in proptest::collection::vec(".{0,12}", 0..6), file in ".{0,200}") {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            let _ = left_out(&arguments, &[file], Some("1.0.1"));
        }
    }
}
