//! Directories for the processes that we start, below the system's place for such (`TMPDIR`): gone when we are, whatever
//! those processes are doing.

mod guardian;

use std::fs::{DirBuilder, remove_dir_all};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;

use self::guardian::Guardian;
pub use self::guardian::{HELPER_ARGUMENT, Holds, tidy_when_the_pipe_breaks};

/// How the directories' names begin: before what for.
const PREFIX: &str = "mydumper2s3-";
/// How often it is tried to remove one, and the pause between.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(20);

/// What one is for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// What myloader reads.
    Load,
    /// A server's own files.
    Drill,
    /// The socket that rows come through.
    Rows,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Load, Self::Drill, Self::Rows];

    fn prefix(self) -> String {
        let purpose = match self {
            Self::Load => "load",
            Self::Drill => "drill",
            Self::Rows => "rows",
        };
        format!("{PREFIX}{purpose}-")
    }
}

/// A directory that nobody else may read. Whatever becomes of us, its helper removes it.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
    guardian: Guardian,
}

impl ScratchDir {
    /// Makes it, with these directories in it. Blocks.
    pub fn make(purpose: Purpose, names: &[&str]) -> anyhow::Result<Self> {
        let place = std::env::temp_dir();
        let random = RandomState::new().hash_one(std::process::id());
        let path = place.join(format!("{}{random:016x}", purpose.prefix()));
        // The helper comes first: we may be killed at any moment.
        let guardian = Guardian::start(&path)?;
        let private = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        private(&path).with_context(|| format!("cannot make a directory in '{}'", place.display()))?;
        let made = Self { path, guardian };
        for name in names {
            let path = made.path.join(name);
            private(&path).with_context(|| format!("cannot make the directory '{}'", path.display()))?;
        }
        Ok(made)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// This process, the first of its group, is to be killed if we die.
    pub fn watch(&self, pid: i32) {
        self.guardian.watch(pid);
    }

    /// The process that removes it: it has a session of its own.
    pub fn helper(&self) -> i32 {
        self.guardian.pid()
    }

    /// To hold pipes with.
    pub fn holds(&self) -> Holds {
        self.guardian.holds()
    }

    /// Removes it after its processes ended or were killed. Blocks.
    pub fn remove(self) -> anyhow::Result<()> {
        let removed = remove_after(&self.path, || ());
        self.guardian.dismiss();
        removed.with_context(|| format!("cannot remove '{}'", self.path.display()))
    }
}

/// Whether a path is that of such a directory.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Purpose::ALL.iter().any(|purpose| name.starts_with(&purpose.prefix()))
}

/// Removes a directory whose processes were killed: who was killed a moment ago may not have ended yet, and make files
/// meanwhile. `kill` is called between two tries. Blocks, for ten seconds at most.
fn remove_after(path: &Path, mut kill: impl FnMut()) -> io::Result<()> {
    for _ in 1..TRIES {
        match remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ => return Ok(()),
        }
        sleep(PAUSE);
        kill();
    }
    remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_removed_yet_is_tried_again() {
        let directory = tempfile::tempdir().expect("a directory");
        // No directory can be removed there, until somebody has looked twice.
        let stubborn = directory.path().join("stubborn");
        std::fs::write(&stubborn, "").expect("a file");
        let mut looks = 0;
        let kill = || {
            looks += 1;
            if looks == 2 {
                std::fs::remove_file(&stubborn).expect("the file");
                std::fs::create_dir(&stubborn).expect("a directory in its place");
            }
        };
        remove_after(&stubborn, kill).expect("removed at last");
        assert_eq!(looks, 2);
        remove_after(&stubborn, || looks += 1).expect("what is not there is gone");
        assert_eq!(looks, 2);
    }
}
