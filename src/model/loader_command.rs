//! What follows `--` of `load`: the command that starts myloader, checked before anything is touched.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::child_arguments::position_of;
use super::dumper_options::{GivenOption, Syntax, options_of};
use super::usage_error::UsageError;

/// Threads of myloader where its command does not say how many (0.10.1 to 1.0.1).
const THREADS: u32 = 4;

/// myloader's options, of 0.10.1 to 1.0.1 (`GOptionEntry` tables in `myloader.c` and `myloader_arguments.c`).
const MYLOADER: Syntax = Syntax {
    short_with_value: b"BLOPSTdhpqrstuvx",
    long_with_value: &[
        "ca",
        "capath",
        "cert",
        "checksum",
        "cipher",
        "database",
        "default-connection-database",
        "defaults-extra-file",
        "defaults-file",
        "directory",
        "exec-per-thread",
        "exec-per-thread-extension",
        "fifodir",
        "host",
        "ignore-errors",
        "ignore-set",
        "innodb-optimize-keys",
        "key",
        "load-data-tmp-dir",
        "logfile",
        "max-statement-size",
        "max-threads-for-index-creation",
        "max-threads-for-post-actions",
        "max-threads-for-schema-creation",
        "max-threads-per-table",
        "max-transaction-size",
        "metadata-refresh-interval",
        "num-sequences",
        "omit-from-file",
        "optimize-keys",
        "optimize-keys-batchsize",
        "optimize-keys-engines",
        "password",
        "pmm-path",
        "pmm-resolution",
        "port",
        "protocol",
        "queries-per-transaction",
        "quote-character",
        "regex",
        "replace-definer",
        "retry-count",
        "rows",
        "server-version",
        "set-names",
        "socket",
        "source-control-command",
        "source-db",
        "ssl-mode",
        "tables-list",
        "threads",
        "throttle",
        "tls-version",
        "user",
        "verbose",
    ],
    long_names: &[
        (b'B', b"database"),
        (b'L', b"logfile"),
        (b'O', b"omit-from-file"),
        (b'P', b"port"),
        (b'S', b"socket"),
        (b'T', b"tables-list"),
        (b'a', b"ask-password"),
        (b'd', b"directory"),
        (b'e', b"enable-binlog"),
        (b'h', b"host"),
        (b'o', b"overwrite-tables"),
        (b'p', b"password"),
        (b's', b"source-db"),
        (b't', b"threads"),
        (b'u', b"user"),
        (b'v', b"verbose"),
        (b'x', b"regex"),
    ],
};

/// A command that starts myloader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderCommand {
    line: Vec<OsString>,
    /// Where myloader stands in it.
    program: usize,
}

impl LoaderCommand {
    /// Checks what was typed. Wrappers are looked through, as in `nice myloader -h db`.
    pub fn parse(line: &[OsString]) -> Result<Self, UsageError> {
        let refuse = |message: &str, hint: &str| Err(UsageError::new(message, hint));
        let Some(program) = position_of("myloader", line) else {
            let hint = "end the command with `-- myloader --host db …`; a script of your own cannot be looked into";
            return refuse("what follows `--` does not start myloader", hint);
        };
        let command = Self { line: line.to_vec(), program };
        for option in command.options() {
            match option.name {
                b"directory" => return refuse("myloader's -d is chosen by this program", "leave it away"),
                b"stream" | b"fifodir" => {
                    let name = String::from_utf8_lossy(option.name);
                    return refuse(&format!("myloader's --{name} cannot be had here"), "leave it away");
                }
                b"logfile" => return refuse("myloader's errors must be seen here", "leave --logfile away"),
                b"verbose" if option.value.is_some_and(|value| value == "0") => {
                    return refuse("myloader's errors must be seen here", "leave `-v 0` away");
                }
                b"resume" => {
                    let hint = "leave it away: a load begins anew, and --tables chooses what is missing";
                    return refuse("myloader's --resume needs a directory that lasts", hint);
                }
                b"ask-password" => {
                    let hint = "put user and password into a file and add --defaults-file FILE";
                    return refuse("myloader cannot ask for a password: its input is /dev/null", hint);
                }
                b"database" => {
                    return refuse("the database is chosen by this program", "use --tables and --into of `load`");
                }
                b"regex" | b"tables-list" | b"omit-from-file" | b"source-db" => {
                    let hint = "leave it away, and choose with --tables of this program: else files that myloader passes \
                                over would look like files that it forgot";
                    return refuse("tables are chosen by myloader's own options", hint);
                }
                _ => {}
            }
        }
        Ok(command)
    }

    fn options(&self) -> Vec<GivenOption<'_>> {
        options_of(&self.line[self.program + 1..], &MYLOADER)
    }

    /// The value of the last option of that long name.
    pub fn value_of(&self, name: &str) -> Option<&OsStr> {
        self.options().iter().rev().find(|option| option.name == name.as_bytes()).and_then(|option| option.value)
    }

    /// Whether there is an option of that long name.
    pub fn has(&self, name: &str) -> bool {
        self.options().iter().any(|option| option.name == name.as_bytes())
    }

    /// myloader, as it was typed.
    pub fn program(&self) -> &OsStr {
        &self.line[self.program]
    }

    /// How many connections load at a time.
    pub fn threads(&self) -> u32 {
        self.value_of("threads").and_then(|text| text.to_str()?.parse().ok()).unwrap_or(THREADS)
    }

    /// Whether it says which server is meant, or who connects there.
    pub fn names_server(&self) -> bool {
        ["host", "port", "socket", "protocol", "user", "password", "defaults-file", "defaults-extra-file"]
            .iter()
            .any(|name| self.has(name))
    }

    /// The same command with these options beside its own.
    pub fn with(&self, options: Vec<OsString>) -> Self {
        let mut line = self.line.clone();
        let end = self.end();
        line.splice(end..end, options);
        Self { line, program: self.program }
    }

    /// Where its options end.
    fn end(&self) -> usize {
        let end = self.line[self.program..].iter().position(|argument| argument == "--");
        end.map_or(self.line.len(), |at| self.program + at)
    }

    /// The command, with the directory that it is to load; where tables are to be replaced, with what drops them first; where
    /// they go into another database, with its name.
    pub fn complete(&self, directory: &Path, replace: bool, into: Option<&str>) -> Vec<OsString> {
        let mut line = self.line.clone();
        let end = self.end();
        let drops = ["overwrite-tables", "drop-table", "overwrite-unsafe"].iter().any(|name| self.has(name));
        // 0.10 calls it --overwrite-tables and 1.x --drop-table; the letter is the same.
        let replace = (replace && !drops).then(|| "-o".into());
        let into = into.into_iter().flat_map(|into| ["--database".into(), into.into()]);
        let directory = ["--directory".into(), directory.as_os_str().to_owned()];
        line.splice(end..end, replace.into_iter().chain(into).chain(directory));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<LoaderCommand, UsageError> {
        let line: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
        LoaderCommand::parse(&line)
    }

    #[test]
    fn the_directory_is_ours_and_comes_last() {
        let command = parse("nice -n 19 myloader -h db -t 8").expect("a command");
        let line = command.complete(Path::new("/tmp/x"), false, None);
        assert_eq!(line.join(OsStr::new(" ")), "nice -n 19 myloader -h db -t 8 --directory /tmp/x");
        let line = command.complete(Path::new("/tmp/x"), true, None);
        assert_eq!(line.join(OsStr::new(" ")), "nice -n 19 myloader -h db -t 8 -o --directory /tmp/x");
        let line = command.complete(Path::new("/tmp/x"), false, Some("rescue"));
        assert!(line.join(OsStr::new(" ")).to_string_lossy().ends_with("--database rescue --directory /tmp/x"));
        assert_eq!((command.threads(), command.value_of("host")), (8, Some(OsStr::new("db"))));
        assert_eq!((command.program(), parse("myloader").expect("a command").threads()), (OsStr::new("myloader"), 4));
    }

    #[test]
    fn options_of_ours_stand_among_its_own() {
        let command = parse("nice myloader -t 2 -- x").expect("a command");
        assert!(!command.names_server() && !command.has("socket"));
        let command = command.with(vec!["--socket".into(), "/run/s".into()]);
        assert!(command.names_server() && parse("myloader -u root").expect("a command").names_server());
        let line = command.complete(Path::new("/tmp/x"), false, None);
        assert_eq!(line.join(OsStr::new(" ")), "nice myloader -t 2 --socket /run/s --directory /tmp/x -- x");
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_hint() {
        for text in [
            "myloader -d /x",
            "myloader --directory=/x",
            "myloader --stream",
            "myloader -a",
            "./load.sh",
            "myloader -s shop",
            "myloader --resume",
            "myloader -x shop",
        ] {
            let error = parse(text).expect_err(text);
            assert!(!error.hint().is_empty(), "{text}");
        }
        // The value of another option.
        assert!(parse("myloader -u --directory").is_ok());
    }
}
