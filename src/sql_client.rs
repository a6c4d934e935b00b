//! A server that is asked through its own client, `mariadb` or `mysql`: no driver of ours, and whatever way to connect it has.
//!
//! How to connect goes to the client's standard input in the form of an option file, so that no password stands in a command
//! line, an environment or a file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::program::give_environment;

/// The clients that are looked for, in this order: MySQL's own does not know all of MariaDB's ways to log in.
const NAMES: [&str; 2] = ["mariadb", "mysql"];
/// How long a question may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may take, in seconds.
const CONNECT_TIMEOUT: u32 = 15;
/// The longest answer, in bytes.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;
/// The longest complaint.
const COMPLAINT_MAX: u64 = 16 * 1024;

/// How to connect: option files to read first, and options over them. It holds secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// Read in place of the client's own option files.
    pub only_file: Option<PathBuf>,
    /// Read beside them.
    pub extra_file: Option<PathBuf>,
    /// Whether no option file at all is read.
    pub is_alone: bool,
    /// Names as the client has them, and values; a switch has none.
    pub options: Vec<(&'static str, Option<String>)>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// As an option file.
    fn text(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        for file in self.only_file.iter().chain(&self.extra_file) {
            let file = std::path::absolute(file).context("no current directory")?;
            let file =
                file.to_str().filter(|file| !file.contains('\n')).context("the option file's path is no text")?;
            text.push_str(&format!("!include {file}\n"));
        }
        text.push_str("[client]\n");
        for (name, value) in &self.options {
            match value {
                None => text.push_str(&format!("{name}\n")),
                Some(value) => text.push_str(&format!("{name}={}\n", quoted(value))),
            }
        }
        Ok(text)
    }
}

/// A value that an option file gives back as it is.
fn quoted(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A client, and where it connects to.
#[derive(Debug, Clone)]
pub struct SqlClient {
    program: PathBuf,
    connection: Connection,
}

/// A row; `None` is NULL.
pub type Row = Vec<Option<String>>;

impl SqlClient {
    /// The client that PATH has, if it has one.
    pub fn find(connection: Connection) -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let mut candidates =
            NAMES.iter().flat_map(|name| std::env::split_paths(&path).map(move |path| path.join(name)));
        candidates.find(|program| is_program(program)).map(|program| Self { program, connection })
    }

    /// What a statement answers.
    pub async fn ask(&self, statement: &str) -> anyhow::Result<Vec<Row>> {
        self.ask_within(TIMEOUT, statement).await
    }

    /// The same for a statement that takes its time.
    pub async fn ask_within(&self, time: Duration, statement: &str) -> anyhow::Result<Vec<Row>> {
        let answered = tokio::time::timeout(time, self.run(statement)).await;
        answered.map_err(|_| anyhow!("the server did not answer within {} s", time.as_secs()))?
    }

    async fn run(&self, statement: &str) -> anyhow::Result<Vec<Row>> {
        let file = match self.connection.only_file.is_some() || self.connection.is_alone {
            true => "--defaults-file=/dev/stdin",
            false => "--defaults-extra-file=/dev/stdin",
        };
        let mut command = Command::new(&self.program);
        command.args([file, "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
        command.arg(format!("--connect-timeout={CONNECT_TIMEOUT}")).arg(format!("--execute={statement}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        give_environment(command.as_std_mut(), false);
        let name = self.program.display();
        let mut child = command.spawn().with_context(|| format!("cannot start '{name}'"))?;
        let (Some(mut input), Some(output), Some(complaints)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(anyhow!("'{name}' has no pipes"));
        };
        let text = self.connection.text()?;
        let told = async move {
            // It may end before it has read all of it, for a reason that it says.
            let _ = input.write_all(text.as_bytes()).await;
        };
        let ((), answer, complaint) = tokio::join!(told, read(output, ANSWER_MAX), read(complaints, COMPLAINT_MAX));
        let status = child.wait().await.with_context(|| format!("'{name}' was lost"))?;
        if !status.success() {
            let complaint = complaint.unwrap_or_default();
            return Err(anyhow!("{}", complaint.trim().escape_debug())).context(format!("'{name}' failed"));
        }
        Ok(answer.context("the answer cannot be read")?.lines().map(row).collect())
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|there| there.is_file() && there.permissions().mode() & 0o111 != 0)
}

async fn read(pipe: impl tokio::io::AsyncRead + Unpin, limit: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    pipe.take(limit + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is longer than {limit} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line of `--batch`: columns between tabs, with `\t`, `\n`, `\0` and `\\` for what would be mistaken, and `NULL`.
fn row(line: &str) -> Row {
    let column = |text: &str| {
        if text == "NULL" {
            return None;
        }
        let mut plain = String::with_capacity(text.len());
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match (c, if c == '\\' { rest.next() } else { None }) {
                ('\\', Some('n')) => plain.push('\n'),
                ('\\', Some('t')) => plain.push('\t'),
                ('\\', Some('0')) => plain.push('\0'),
                ('\\', Some(other)) => plain.push(other),
                (c, _) => plain.push(c),
            }
        }
        Some(plain)
    };
    line.split('\t').map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_file_keeps_what_is_typed() {
        let options =
            vec![("user", Some("a b".to_owned())), ("password", Some("#x\"y\\z\n".to_owned())), ("ssl", None)];
        let connection = Connection { options, ..Connection::default() };
        assert_eq!(connection.text().expect("text"), "[client]\nuser=\"a b\"\npassword=\"#x\\\"y\\\\z\\n\"\nssl\n");
        assert_eq!(format!("{connection:?}"), "Connection { .. }");
        let connection = Connection { only_file: Some("/etc/x.cnf".into()), ..Connection::default() };
        assert_eq!(connection.text().expect("text"), "!include /etc/x.cnf\n[client]\n");
    }

    #[test]
    fn rows_are_read_as_the_client_writes_them() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(row("shop\tNULL\ta\\tb\\\\n"), [text("shop"), None, text("a\tb\\n")]);
        assert_eq!(row(""), [text("")]);
    }
}
