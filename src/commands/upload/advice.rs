//! What to do after an upload that did not end well, by how it ended: each sentence is true where it is said.

use std::path::Path;

use crate::dump_dir::DumpDir;
use crate::exit_status::Status;
use crate::model::file_kind::{is_never_data, is_of_the_filesystem};
use crate::report::LocalFiles;

/// Where each status is told at length, and what to do about it.
const PAGE: &str = "docs/when-it-fails.md";

/// How far a run came with its dump.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// No dump was found.
    #[default]
    Nothing,
    /// It was found, and nothing speaks against its commit.
    Underway,
    /// mydumper was told to stop through us.
    Stopped,
    /// It is not whole.
    Broken,
    /// The directory was moved or removed.
    Moved,
    /// Another dump has begun in the directory.
    Overwritten,
    /// The prefix is another's.
    Taken,
    /// It is in the bucket as a whole.
    Committed,
}

/// How an upload ended.
pub struct End<'a> {
    /// Its status.
    pub status: Status,
    /// How far it came.
    pub standing: Standing,
    /// What the error itself says to do.
    pub own: Option<String>,
    /// Whether the command has '--' and a mydumper behind it.
    pub starts_mydumper: bool,
    /// The dump directory.
    pub directory: &'a Path,
}

impl End<'_> {
    /// What to do now, and where more is said of it.
    pub fn advice(&self) -> String {
        let page = format!("{PAGE}#status-{}", anchor(self.status));
        match (self.own.as_deref(), self.next_step().as_deref()) {
            (Some(own), Some(step)) => format!("{own}; then {step} (more: {page})"),
            (Some(step), None) | (None, Some(step)) => format!("{step} (more: {page})"),
            (None, None) => format!("see {page}"),
        }
    }

    fn next_step(&self) -> Option<String> {
        let directory = self.directory.display();
        let same_command = match self.starts_mydumper {
            true => "run the same command again without '--' and what follows",
            false => "run the same command again",
        };
        match self.standing {
            Standing::Nothing if self.own.is_none() => matches!(self.status, Status::Signal(_))
                .then(|| "no dump was found yet, and nothing was touched: run the same command again".to_owned()),
            Standing::Nothing | Standing::Taken => None,
            Standing::Stopped => Some(
                "run the same command again, with its '--', for a new dump: mydumper was stopped, so this one can never \
                 be whole, and what it left here goes to the bucket first, without metadata"
                    .to_owned(),
            ),
            Standing::Underway if self.status == Status::Incomplete => None,
            Standing::Underway => {
                Some(format!("{same_command}: it goes on where it was; leave '{directory}' as it is until then"))
            }
            Standing::Committed => {
                Some(format!("{same_command}: the dump is in the bucket as a whole, and what is left here is removed"))
            }
            Standing::Broken if self.status == Status::Incomplete => Some(
                "what there was is in the bucket, without metadata, and can never be whole; the next dump needs a prefix \
                 of its own, and earlier ones are as they were"
                    .to_owned(),
            ),
            Standing::Broken => Some(format!(
                "{same_command}: what is left here is uploaded or removed, but this dump can never be whole; make a new one"
            )),
            Standing::Moved => Some(
                "nothing was touched here after that; where the directory was only moved, run the same command with the \
                 --dir where it is now"
                    .to_owned(),
            ),
            Standing::Overwritten => Some(
                "nothing was touched here after that; give each dump a directory of its own, or start it with '-- \
                 mydumper …', which finishes an earlier one first"
                    .to_owned(),
            ),
        }
    }
}

fn anchor(status: Status) -> String {
    match status {
        Status::Signal(_) => "128n".to_owned(),
        status => status.code().to_string(),
    }
}

/// What stands in the dump directory now. Blocks.
pub fn local_files(path: &Path) -> Option<LocalFiles> {
    let directory = DumpDir::open(path).ok()?;
    let names = directory.names().ok()?;
    let names = names.iter().filter_map(|name| name.to_str());
    let names = names.filter(|name| !is_never_data(name) && !is_of_the_filesystem(name));
    let sizes = names.filter_map(|name| directory.identity(name).ok()).map(|identity| identity.size);
    let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
    Some(LocalFiles { count, bytes, directory: path.display().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Standing; 8] = [
        Standing::Nothing,
        Standing::Underway,
        Standing::Stopped,
        Standing::Broken,
        Standing::Moved,
        Standing::Overwritten,
        Standing::Taken,
        Standing::Committed,
    ];
    const STATUSES: [Status; 3] = [Status::Failure, Status::Incomplete, Status::Signal(15)];

    fn advice(status: Status, standing: Standing, own: Option<&str>, starts_mydumper: bool) -> String {
        let own = own.map(str::to_owned);
        End { status, standing, own, starts_mydumper, directory: Path::new("/backup") }.advice()
    }

    #[test]
    fn only_what_can_become_whole_is_said_to_go_on() {
        for (status, standing) in STATUSES.iter().flat_map(|status| ALL.map(|standing| (*status, standing))) {
            let goes_on = advice(status, standing, None, true).contains("it goes on where it was");
            assert_eq!(
                goes_on,
                standing == Standing::Underway && status != Status::Incomplete,
                "{status:?} {standing:?}"
            );
        }
    }

    #[test]
    fn only_a_command_that_has_dashes_is_told_to_leave_them_away() {
        let (with, without) =
            [true, false].map(|dashes| advice(Status::Failure, Standing::Underway, None, dashes)).into();
        assert!(with.contains("without '--'"), "{with}");
        assert!(!without.contains("--"), "{without}");
        assert!(without.contains("leave '/backup' as it is"), "{without}");
    }

    #[test]
    fn what_the_error_says_comes_first() {
        let both = advice(Status::Failure, Standing::Underway, Some("allow s3:PutObject"), false);
        assert!(both.starts_with("allow s3:PutObject; then run the same command again: "), "{both}");
        let alone = advice(Status::Incomplete, Standing::Nothing, Some("check --dir"), false);
        assert_eq!(alone, "check --dir (more: docs/when-it-fails.md#status-3)");
    }

    /// The page is part of the repository; whoever has only the program reads the hint itself.
    #[test]
    fn each_hint_leads_to_a_heading_of_the_page() {
        let page = include_str!("../../../docs/when-it-fails.md");
        for (status, standing) in STATUSES.iter().flat_map(|status| ALL.map(|standing| (*status, standing))) {
            let text = advice(status, standing, None, true);
            let anchor = text.rsplit_once("#").expect("an anchor").1.trim_end_matches(')');
            let is_heading = |line: &str| {
                let heading = line.strip_prefix("## ").unwrap_or_default().to_lowercase().replace(' ', "-");
                heading.replace('+', "") == anchor
            };
            assert!(page.lines().any(is_heading), "no heading for #{anchor}");
        }
    }
}
