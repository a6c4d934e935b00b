//! What follows `--`: the command that starts mydumper, checked before anything is touched.
//!
//! How mydumper reads its options is in `dumper_options`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::dumper_options::{options, word};
use super::usage_error::UsageError;

/// Checks the command and completes it: where mydumper's arguments name no directory, `--dir` is passed on.
///
/// Wrappers are looked through: in `nice -n 19 mydumper -B shop` what follows `mydumper` is checked, and added to.
/// A command in which no `mydumper` is found (`sh -c '…'`, a script of one's own) is passed on as it is; it has to
/// know the directory by itself.
pub fn check_child_arguments(dir: &Path, command: &[OsString], current: &Path) -> Result<Vec<OsString>, UsageError> {
    let mut command = command.to_vec();
    let Some(program) = position_of("mydumper", &command) else {
        return Ok(command);
    };
    let options = Options::read(&command[program + 1..]);
    options.check()?;
    if let Some(word) = word(&command[program + 1..]) {
        return Err(by_position(word));
    }
    for given in &options.directories {
        let Some(given) = given else {
            return Err(UsageError::new("mydumper's -o has no directory", "leave -o away: --dir is passed on"));
        };
        if absolute(current, Path::new(given)) != absolute(current, dir) {
            return Err(UsageError::new(
                format!("mydumper is to write into '{}', but --dir is '{}'", text(given), text(dir.as_os_str())),
                "leave mydumper's -o away: --dir is passed on",
            ));
        }
    }
    if options.directories.is_empty() {
        // Options end at a `--`.
        let end =
            command[program..].iter().position(|argument| argument == "--").map_or(command.len(), |at| program + at);
        command.splice(end..end, ["-o".into(), dir.as_os_str().to_owned()]);
    }
    Ok(command)
}

/// The path from the root, without `.`, `..` and doubled slashes. Only the text is looked at: symlinks stay.
pub fn absolute(current: &Path, path: &Path) -> PathBuf {
    let mut absolute = PathBuf::new();
    for component in current.join(path).components() {
        match component {
            Component::CurDir => {}
            // Above the root is the root.
            Component::ParentDir => drop(absolute.pop()),
            component => absolute.push(component),
        }
    }
    absolute
}

/// The mydumper in a command, wrappers looked through, and its arguments.
pub fn mydumper_in(command: &[OsString]) -> Option<(&OsStr, &[OsString])> {
    program_in("mydumper", command)
}

/// A program in a command, wrappers looked through, and its arguments.
pub fn program_in<'a>(name: &str, command: &'a [OsString]) -> Option<(&'a OsStr, &'a [OsString])> {
    let program = position_of(name, command)?;
    Some((&command[program], &command[program + 1..]))
}

/// The program itself, or what a wrapper starts: the first `mydumper` that is followed by an option or by nothing.
/// In `sudo -u mydumper mydumper -B shop` that is the second one.
pub(super) fn position_of(name: &str, command: &[OsString]) -> Option<usize> {
    let is_followed_by_options = |at: usize| command.get(at + 1).is_none_or(|next| next.as_bytes().starts_with(b"-"));
    (0..command.len()).find(|at| is_called(name, &command[*at]) && (*at == 0 || is_followed_by_options(*at)))
}

/// `mydumper`, `/opt/mydumper/bin/mydumper`, `mydumper-1.0.1`; not `mydumper.sh`, whose arguments may mean anything.
fn is_called(program: &str, argument: &OsStr) -> bool {
    let name = Path::new(argument).file_name().map(OsStr::as_bytes).unwrap_or_default();
    match name.strip_prefix(program.as_bytes()) {
        Some(rest) => rest.iter().all(|byte| byte.is_ascii_digit() || b"-_.".contains(byte)),
        None => false,
    }
}

/// What is of interest among mydumper's options.
#[derive(Debug, Default)]
struct Options {
    /// Of each `-o`, its value, if it has one.
    directories: Vec<Option<OsString>>,
    attached_directory: Option<OsString>,
    daemon: bool,
    stream: bool,
    exec: bool,
    ask_password: bool,
}

impl Options {
    fn read(arguments: &[OsString]) -> Self {
        let mut read = Self::default();
        for option in options(arguments) {
            match option.name {
                b"daemon" => read.daemon = true,
                b"stream" => read.stream = true,
                b"exec" => read.exec = true,
                b"ask-password" => read.ask_password = true,
                b"outputdir" if option.is_attached => read.attached_directory = Some(option.argument.to_owned()),
                b"outputdir" => read.directories.push(option.value.map(OsStr::to_owned)),
                _ => {}
            }
        }
        read
    }

    fn check(&self) -> Result<(), UsageError> {
        let refuse = |message: &str, hint: &str| Err(UsageError::new(message, hint));
        if let Some(argument) = &self.attached_directory {
            return Err(UsageError::new(
                format!("mydumper does not read '{}' as -o and a directory", text(argument)),
                "leave it away: --dir is passed on",
            ));
        }
        if self.daemon {
            return refuse(
                "mydumper's --daemon cannot be followed: its snapshots replace each other without end",
                "leave --daemon away and start one run a snapshot, from cron or a systemd timer",
            );
        }
        if self.stream {
            return refuse(
                "mydumper's --stream removes files by itself, uploaded or not",
                "leave --stream away: files are uploaded while they are written, and removed once they are verified",
            );
        }
        if self.exec {
            return refuse(
                "mydumper's --exec removes files by itself, whatever its command did",
                "leave --exec away; --exec-per-thread is fine",
            );
        }
        if self.ask_password {
            return refuse(
                "mydumper cannot ask for a password: its input is /dev/null",
                "put user and password into a file and add --defaults-file FILE",
            );
        }
        Ok(())
    }
}

/// From 0.11.5 on a database by position means `--stream` (`main` in `mydumper.c`), which removes files by itself; before, it
/// is not looked at, and all databases are dumped.
fn by_position(word: &OsStr) -> UsageError {
    let word = text(word);
    UsageError::new(
        format!("mydumper takes '{word}' without an option before it for --stream, or not at all, by its version"),
        format!("write -B {word} if that is the database; tables go with -T"),
    )
}

fn text(argument: &OsStr) -> String {
    argument.to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(command: &str) -> Result<String, String> {
        let command: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        check_child_arguments(Path::new("/backup"), &command, Path::new("/home/me"))
            .map(|command| command.join(OsStr::new(" ")).to_string_lossy().into_owned())
            .map_err(|error| error.to_string())
    }

    fn unchanged(command: &str) {
        assert_eq!(check(command), Ok(command.into()));
    }

    fn completed(command: &str) {
        assert_eq!(check(command), Ok(format!("{command} -o /backup")));
    }

    fn refused(command: &str, word: &str) {
        let error = check(command).expect_err(command);
        assert!(error.contains(word), "{command}: {error}");
    }

    #[test]
    fn without_a_directory_ours_is_passed_on() {
        completed("mydumper");
        completed("mydumper -B shop");
        completed("/opt/mydumper/bin/mydumper -B shop");
        completed("mydumper-1.0.1 -c zstd");
        assert_eq!(check("mydumper -B shop --"), Ok("mydumper -B shop -o /backup --".into()));
    }

    #[test]
    fn the_same_directory_may_be_written_in_any_way() {
        for same in ["/backup", "/backup/", "//backup/.", "../../backup", "/backup/x/.."] {
            unchanged(&format!("mydumper -o {same} -B shop"));
            unchanged(&format!("mydumper --outputdir {same}"));
            unchanged(&format!("mydumper --outputdir={same}"));
            unchanged(&format!("mydumper -co {same}"));
        }
    }

    #[test]
    fn another_directory_is_refused() {
        for other in ["/backup2", "backup", "/", "/backup/x", "-D"] {
            refused(&format!("mydumper -o {other} -B shop"), "--dir is '/backup'");
            refused(&format!("mydumper --outputdir {other}"), "--dir is '/backup'");
            refused(&format!("mydumper --outputdir={other}"), "--dir is '/backup'");
        }
        refused("mydumper -o /backup -o /other", "'/other'");
        refused("mydumper -o", "no directory");
        refused("mydumper -o/backup", "does not read '-o/backup'");
    }

    #[test]
    fn what_would_lose_files_or_hang_is_refused() {
        for command in ["mydumper -D", "mydumper --daemon", "mydumper -vD 3", "mydumper -eD", "mydumper -B a -D"] {
            refused(command, "--daemon");
        }
        for command in ["mydumper --stream", "mydumper --stream=NO_DELETE", "mydumper --stream NO_STREAM"] {
            refused(command, "--stream");
        }
        refused("mydumper --exec /bin/x", "--exec");
        refused("mydumper --exec=/bin/x", "--exec");
        refused("mydumper -a", "password");
        refused("mydumper --ask-password", "password");
        refused("mydumper -va 3", "password");
    }

    #[test]
    fn values_are_not_taken_for_options() {
        completed("mydumper -p -D -x --daemon -B -a");
        completed("mydumper --password -Da --regex --stream --where --exec");
        completed("mydumper -vp -D");
        completed("mydumper --exec-per-thread zstd --exec-threads 4");
        completed("mydumper --defaults-file /etc/my.cnf");
        completed("mydumper -L o -T a,D");
    }

    #[test]
    fn a_database_by_position_is_refused() {
        for command in [
            "mydumper shop",
            "mydumper shop orders",
            "mydumper -B shop orders",
            "mydumper -v 3 shop",
            "mydumper -GER shop",
            "mydumper --triggers shop",
            "mydumper --host=db1 shop",
            "mydumper --host db1 shop -o /backup",
            "mydumper -B shop -- orders",
            "mydumper -- -D",
        ] {
            refused(command, "without an option before it");
        }
        for command in
            ["mydumper -c zstd -B shop", "mydumper --compress zstd", "mydumper --new-in-2 1", "mydumper -k x"]
        {
            completed(command);
        }
    }

    #[test]
    fn wrappers_are_looked_through() {
        completed("nice -n 19 mydumper -B shop");
        completed("nice -- mydumper -B shop");
        completed("sudo -u mydumper mydumper -B shop");
        completed("systemd-run --scope /usr/bin/mydumper");
        completed("mydumper -u mydumper -B shop");
        refused("ionice -c 3 nice mydumper -o /other", "'/other'");
        refused("nice mydumper -D", "--daemon");
    }

    #[test]
    fn what_cannot_be_read_is_passed_on() {
        unchanged("sh -c mydumper_and_more");
        unchanged("/usr/local/bin/nightly.sh -D");
        unchanged("mydumper.sh --daemon");
        unchanged("myloader -o x");
    }

    #[test]
    fn every_refusal_has_a_hint() {
        for command in ["mydumper -D", "mydumper --stream", "mydumper --exec x", "mydumper -a", "mydumper -o /x"] {
            let command: Vec<OsString> = command.split(' ').map(OsString::from).collect();
            let error = check_child_arguments(Path::new("/backup"), &command, Path::new("/")).expect_err("refused");
            assert!(!error.hint().is_empty());
        }
    }

    proptest! {
        #[test]
        fn whatever_follows_nothing_but_our_directory_is_added(
            arguments in proptest::collection::vec("(mydumper|-{0,2}[a-zA-Z]{0,3}|-o|--|--outputdir=/backup|/backup)", 0..8),
        ) {
            let command: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            if let Ok(checked) = check_child_arguments(Path::new("/backup"), &command, Path::new("/")) {
                prop_assert!(checked.len() == command.len() || checked.len() == command.len() + 2);
                let is_ours = |argument: &&OsString| **argument == "-o" || **argument == "/backup";
                let others: Vec<_> = checked.iter().filter(|argument| !is_ours(argument)).collect();
                prop_assert_eq!(others, command.iter().filter(|argument| !is_ours(argument)).collect::<Vec<_>>());
            }
        }
    }
}
