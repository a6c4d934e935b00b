//! What comes next: myloader, and whether it can read this dump.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tracing::{info, warn};

use crate::model::dump_metadata::Generation;
use crate::program::give_environment;

/// How long a program may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// The command that loads what was fetched, ready for a shell.
pub fn command_line(directory: &Path) -> String {
    format!("myloader --directory {}", quoted(&directory.display().to_string()))
}

/// Free text was the form of `metadata` to 0.12; the myloader of 1.x expects sections in it.
pub async fn warn_of_generations(dump: Option<Generation>) {
    if dump != Some(Generation::FreeText) {
        return;
    }
    match major_version().await {
        Some(0) => {}
        Some(major) => warn!(
            "mydumper 0.12 or older made this dump, and the myloader here is {major}.x, which does not understand its \
             metadata: load it with a myloader of 0.x"
        ),
        None => info!("mydumper 0.12 or older made this dump: load it with a myloader of 0.x, not 1.x"),
    }
}

/// The version of the myloader that the shell would find.
async fn major_version() -> Option<u64> {
    let mut command = tokio::process::Command::new("myloader");
    give_environment(command.as_std_mut(), false);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await.ok()?.ok()?;
    major_of(&String::from_utf8_lossy(&output.stdout))
}

/// `myloader 0.10.0, built against …` or `myloader v1.0.1-1, …`
fn major_of(text: &str) -> Option<u64> {
    let version = text.split_whitespace().nth(1)?;
    let version = version.trim_start_matches('v');
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// As one word for a POSIX shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_both_generations_are_read() {
        assert_eq!(major_of("myloader 0.10.0, built against MySQL 10.11.14"), Some(0));
        assert_eq!(major_of("myloader v1.0.1-1, built against MySQL 8"), Some(1));
        assert_eq!(major_of("myloader"), None);
        assert_eq!(major_of("what else"), None);
    }

    #[test]
    fn the_directory_is_one_word() {
        assert_eq!(command_line(Path::new("/backup/db-1")), "myloader --directory /backup/db-1");
        assert_eq!(command_line(Path::new("it's here")), "myloader --directory 'it'\\''s here'");
    }
}
