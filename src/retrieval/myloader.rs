//! What comes next: myloader, and whether it can read this dump.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::anyhow;
use tracing::{info, warn};

use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::dump_metadata::Generation;
use crate::model::dumper_version;
use crate::program::give_environment;

/// How long a program may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
/// These fail on the schema files that mydumper of the same version writes for sequences.
const REFUSES_SEQUENCES: [[u32; 3]; 2] = [[0, 14, 5], [0, 15, 1]];

/// The command that loads what was fetched, ready for a shell.
pub fn command_line(directory: &Path) -> String {
    format!("myloader --directory {}", quoted(&directory.display().to_string()))
}

/// Free text was the form of `metadata` to 0.12; the myloader of 1.x expects sections in it.
pub async fn warn_of_generations(dump: Option<Generation>) {
    if dump != Some(Generation::FreeText) {
        return;
    }
    // The myloader that the shell would find.
    match version("myloader".as_ref()).await {
        Some([0, ..]) => {}
        Some([major, ..]) => warn!(
            "mydumper 0.12 or older made this dump, and the myloader here is {major}.x, which does not understand its \
             metadata: load it with a myloader of 0.x"
        ),
        None => info!("mydumper 0.12 or older made this dump: load it with a myloader of 0.x, not 1.x"),
    }
}

/// Refuses a dump that this myloader is known not to load; it would say so only when it has begun.
pub async fn refuse_unfit(program: &OsStr, dump: Option<Generation>, has_sequences: bool) -> Result<(), Failure> {
    let is_free_text = dump == Some(Generation::FreeText);
    // A program is not started for nothing.
    if !is_free_text && !has_sequences {
        return Ok(());
    }
    let Some(version) = version(program).await else { return Ok(()) };
    let [major, minor, patch] = version;
    let name = format!("myloader {major}.{minor}.{patch}");
    if is_free_text && major > 0 {
        let error = anyhow!("mydumper 0.12 or older made this dump, and {name} does not understand its metadata");
        return Err(Failure::usage(hinted(error, "name a myloader of 0.x after `--`")));
    }
    if has_sequences && REFUSES_SEQUENCES.contains(&version) {
        let error = anyhow!("the dump has sequences, and {name} refuses the schema files of sequences");
        return Err(Failure::usage(hinted(error, "name another myloader after `--`")));
    }
    Ok(())
}

/// The version that a program says.
async fn version(program: &OsStr) -> Option<[u32; 3]> {
    let mut command = tokio::process::Command::new(program);
    give_environment(command.as_std_mut(), false);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await.ok()?.ok()?;
    // `myloader 0.10.0, built against …` or `myloader v1.0.1-1, …`
    dumper_version::numbers(&String::from_utf8_lossy(&output.stdout))
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
    fn the_directory_is_one_word() {
        assert_eq!(command_line(Path::new("/backup/db-1")), "myloader --directory /backup/db-1");
        assert_eq!(command_line(Path::new("it's here")), "myloader --directory 'it'\\''s here'");
    }
}
