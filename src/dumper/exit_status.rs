//! How mydumper ended: from our child, from a process handle, from a file that a script wrote, or not at all.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use tracing::warn;

use super::Child;
use super::writer::{Role, Writer};
use crate::model::manifest::{DumperExit, ExitSeen};
use crate::platform::Exit;

/// A process is gone about a millisecond after its last file, at most 80 ms were seen.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a process's parent may take to fetch its status: the kernel tells only then.
const REAP_WAIT: Duration = Duration::from_millis(300);
/// The most of an exit status file that is read, in bytes. A status is three digits.
const FILE_MAX: u64 = 4096;

/// Everything that may tell.
#[derive(Debug, Clone)]
pub struct ExitSources {
    /// What we started, if we started anything.
    pub child: Option<Child>,
    /// Who writes the dump, where that is known.
    pub writer: Option<Writer>,
    /// A file into which a script writes `$?`.
    pub file: Option<ExitStatusFile>,
}

impl ExitSources {
    /// Waits for whatever may tell, after the dump's end: for what we started as long as it takes, for others up to
    /// `patience`.
    pub async fn wait(&self, patience: Duration) -> DumperExit {
        match &self.child {
            Some(child) => self.of_child(child).await,
            None => self.of_others(patience).await,
        }
    }

    /// Our child's end is the dump's only where the child itself wrote it. Nothing is judged before the last of those
    /// whom it started can write no more.
    async fn of_child(&self, child: &Child) -> DumperExit {
        let ended = child.wait().await;
        let stray = self.writer.as_ref().filter(|writer| writer.role != Role::Child);
        let own = match stray {
            Some(writer) => Self::of_stray(writer).await,
            None => None,
        };
        let is_writer = self.writer.is_some() && stray.is_none();
        let exit = judged(ended, is_writer, child.was_left_early(), own);
        child.wait_until_over().await;
        exit
    }

    /// How a writer ended that our child started, or somebody else.
    async fn of_stray(writer: &Writer) -> Option<Exit> {
        while !writer.has_ended() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let deadline = Instant::now() + REAP_WAIT;
        loop {
            // An orphan waits for us to ask, others for their parent.
            let exit = writer.handle().exit_of_orphan();
            if exit.is_some() || Instant::now() >= deadline {
                return exit;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn of_others(&self, patience: Duration) -> DumperExit {
        let deadline = Instant::now() + patience;
        let mut ended_at = None;
        loop {
            if let Some(exit) = self.known(deadline).await {
                return exit;
            }
            let now = Instant::now();
            let is_running = self.writer.as_ref().is_some_and(|writer| !writer.has_ended());
            let may_tell = is_running || {
                let ended_at = *ended_at.get_or_insert(now);
                self.file.is_some() || (self.writer.is_some() && now < ended_at + REAP_WAIT)
            };
            if !may_tell || now >= deadline {
                return DumperExit::NOT_SEEN;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What a process that is not ours has told by now.
    async fn known(&self, deadline: Instant) -> Option<DumperExit> {
        if let Some((writer, exit)) = self.writer.as_ref().and_then(|writer| Some((writer, writer.exit()?))) {
            let seen = match writer.role {
                Role::Launcher => through(exit),
                _ => dumper_exit(exit, ExitSeen::Pidfd),
            };
            // A script that writes a status has the last word: nothing is committed before its file holds 0.
            if self.file.is_none() || seen.is_failure() {
                return Some(seen);
            }
        }
        let file = self.file.clone()?;
        // The file may lie on a filesystem that does not answer.
        let read = tokio::task::spawn_blocking(move || file.read());
        let status = tokio::time::timeout_at(deadline.into(), read).await.ok()?.ok()??;
        Some(DumperExit { status: Some(status), ..DumperExit::seen(ExitSeen::File) })
    }
}

/// What is known of a dump's end from the end of what we started.
///
/// `is_writer`: it wrote the dump itself. `was_left_early`: it ended before the dump did. `own` is how the writer ended,
/// where that is another process and the kernel tells. A failure counts, whosever it is.
pub(super) fn judged(child: Exit, is_writer: bool, was_left_early: bool, own: Option<Exit>) -> DumperExit {
    if is_writer {
        return dumper_exit(child, ExitSeen::Child);
    }
    let (own, child) = (own.map(|exit| dumper_exit(exit, ExitSeen::Pidfd)), through(child));
    match own {
        Some(own) if own.is_failure() => own,
        _ if child.is_failure() => child,
        Some(own) => own,
        None if was_left_early => DumperExit::NOT_SEEN,
        None => child,
    }
}

fn dumper_exit(exit: Exit, seen: ExitSeen) -> DumperExit {
    let known = DumperExit::seen(seen);
    match exit {
        Exit::Status(status) => DumperExit { status: Some(status), ..known },
        Exit::Signal(signal) => DumperExit { signal: Some(signal), ..known },
    }
}

/// The end of a program that started mydumper, or may have.
fn through(exit: Exit) -> DumperExit {
    DumperExit { through: true, ..dumper_exit(exit, ExitSeen::NotSeen) }
}

/// The file of `--exit-status-file`.
#[derive(Debug, Clone)]
pub struct ExitStatusFile {
    path: PathBuf,
    /// What is older than the dump is of an earlier night.
    not_before: SystemTime,
}

impl ExitStatusFile {
    /// The file, of which only what was written since `dump_started` counts.
    pub fn new(path: PathBuf, dump_started: SystemTime) -> Self {
        Self { path, not_before: dump_started }
    }

    /// The status in it; `None` while it is missing, old, empty or half written. Anything that is no number counts as
    /// a failure, and so does anything that is no file: a FIFO would make us wait, a symlink lead elsewhere.
    fn read(&self) -> Option<i32> {
        const FAILED: Option<i32> = Some(255);
        let is_file = std::fs::symlink_metadata(&self.path).ok()?.is_file();
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
        let file = is_file.then(|| File::options().read(true).custom_flags(flags).open(&self.path).ok());
        let Some(file) = file else {
            warn!("'{}' is no regular file, so it tells no exit status", self.path.display());
            return FAILED;
        };
        let file = file?;
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        if metadata.modified().ok()? < self.not_before {
            return None;
        }
        let mut text = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        let text = text.trim();
        if text.is_empty() { None } else { text.parse().ok().or(FAILED) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_writers_own_status_says_that_it_was_0() {
        let zero = Exit::Status(0);
        let (failed, killed) = (Exit::Status(1), Exit::Signal(9));
        let seen = |exit, seen| dumper_exit(exit, seen);
        for (child, is_writer, left_early, own, expected) in [
            (zero, true, false, None, seen(zero, ExitSeen::Child)),
            (killed, true, false, None, seen(killed, ExitSeen::Child)),
            // `sh -c 'mydumper; …'`, with a kernel that tells, and without.
            (zero, false, false, Some(zero), seen(zero, ExitSeen::Pidfd)),
            (zero, false, false, None, through(zero)),
            // `sh -c 'mydumper | cat'`.
            (zero, false, false, Some(failed), seen(failed, ExitSeen::Pidfd)),
            // `sh -c 'mydumper & exit 0'`.
            (zero, false, true, Some(failed), seen(failed, ExitSeen::Pidfd)),
            (zero, false, true, Some(zero), seen(zero, ExitSeen::Pidfd)),
            (zero, false, true, None, DumperExit::NOT_SEEN),
            // A failure counts, whosever it is.
            (failed, false, false, Some(zero), through(failed)),
            (failed, false, true, None, through(failed)),
            (failed, false, true, Some(killed), seen(killed, ExitSeen::Pidfd)),
        ] {
            let judged = judged(child, is_writer, left_early, own);
            assert_eq!(judged, expected, "{child:?} {is_writer} {left_early} {own:?}");
            assert_eq!(judged.is_failure(), child != zero || own.is_some_and(|own| own != zero));
        }
    }

    #[test]
    fn an_exit_status_file_is_a_small_regular_file_or_tells_a_failure() {
        let directory = std::env::temp_dir().join(format!("mydumper2s3-status-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("status");
        let read = || ExitStatusFile::new(path.clone(), SystemTime::UNIX_EPOCH).read();
        assert_eq!(read(), None, "missing");
        for (text, expected) in [("", None), (" \n", None), ("0\n", Some(0)), ("3", Some(3)), ("ok", Some(255))] {
            std::fs::write(&path, text).expect("a file");
            assert_eq!(read(), expected, "{text:?}");
        }
        // Huge: a terabyte without a block of it.
        File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
        assert_eq!(read(), Some(255));
        std::fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a symlink");
        assert_eq!(read(), Some(255), "a symlink");
        std::fs::remove_file(&path).expect("removed");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o644)).expect("a FIFO");
        assert_eq!(read(), Some(255), "a FIFO");
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
