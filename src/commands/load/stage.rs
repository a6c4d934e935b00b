//! What myloader is shown: a private directory with schema files and `metadata`, and a link to a pipe for each data file.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

use crate::model::file_name::FileName;
use crate::retrieval::directory::RestoreDir;
use crate::retrieval::pipes::{self, Pipes};

/// The dump, as myloader sees it.
const DUMP: &str = "dump";
/// The pipes. Elsewhere, since myloader 1.x takes no pipe for a file of a dump, and a link to one for one.
const PIPES: &str = "pipes";

/// What myloader puts aside.
const TEMPORARY: &str = "tmp";
/// How the directory's name begins.
const PREFIX: &str = "mydumper2s3-load-";

/// Whether a path is that of such a directory.
pub fn is_ours(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
}

/// The directories. They go when this is dropped.
pub struct Stage {
    root: TempDir,
}

impl Stage {
    /// Makes them, with a link and a pipe for each data file. Blocks.
    pub fn make(data: &[FileName]) -> anyhow::Result<(Self, Pipes)> {
        let place = std::env::temp_dir();
        let private = std::fs::Permissions::from_mode(0o700);
        let root = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(&place);
        let root = root.with_context(|| format!("cannot make a directory in '{}'", place.display()))?;
        for name in [DUMP, PIPES, TEMPORARY] {
            std::fs::create_dir(root.path().join(name)).context("cannot make a directory")?;
        }
        let stage = Self { root };
        let pipes = Pipes::make(&stage.root.path().join(PIPES), data).context("cannot make a pipe")?;
        for (number, name) in data.iter().enumerate() {
            let pipe = stage.root.path().join(PIPES).join(pipes::name_of(number));
            symlink(pipe, stage.dump().join(name.as_str())).context("cannot make a link")?;
        }
        Ok((stage, pipes))
    }

    /// All of it.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where myloader finds the dump.
    pub fn dump(&self) -> PathBuf {
        self.root.path().join(DUMP)
    }

    /// Where myloader may put files aside.
    pub fn temporary(&self) -> PathBuf {
        self.root.path().join(TEMPORARY)
    }

    /// Where the dump is, for our own files.
    pub fn directory(&self) -> anyhow::Result<RestoreDir> {
        RestoreDir::open_private(&self.dump())
    }
}
