//! What myloader is shown: a private directory with schema files and `metadata`, and a link to a pipe for each data file.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::Context;

use crate::model::file_name::FileName;
use crate::retrieval::directory::RestoreDir;
use crate::retrieval::pipes::{self, Pipes};
use crate::scratch_dir::{Purpose, ScratchDir};

/// The dump, as myloader sees it.
const DUMP: &str = "dump";
/// The pipes. Elsewhere, since myloader 1.x takes no pipe for a file of a dump, and a link to one for one.
const PIPES: &str = "pipes";
/// What myloader puts aside.
const TEMPORARY: &str = "tmp";

/// The directories. They go when this is dropped.
pub struct Stage {
    root: ScratchDir,
}

impl Stage {
    /// Makes them, with a link and a pipe for each data file. Blocks.
    pub fn make(data: &[FileName]) -> anyhow::Result<(Self, Pipes)> {
        let stage = Self { root: ScratchDir::make(Purpose::Load, &[DUMP, PIPES, TEMPORARY])? };
        let pipes = Pipes::make(&stage.root.path().join(PIPES), data).context("cannot make a pipe")?;
        for (number, name) in data.iter().enumerate() {
            let pipe = stage.root.path().join(PIPES).join(pipes::name_of(number));
            symlink(pipe, stage.dump().join(name.as_str())).context("cannot make a link")?;
        }
        Ok((stage, pipes))
    }

    /// All of it.
    pub fn root(&self) -> &ScratchDir {
        &self.root
    }

    /// Where myloader finds the dump.
    pub fn dump(&self) -> PathBuf {
        self.root.path().join(DUMP)
    }

    /// Where myloader may put files aside.
    pub fn temporary(&self) -> PathBuf {
        self.root.path().join(TEMPORARY)
    }

    /// Removes them after myloader was killed. Blocks.
    pub fn remove(self) -> anyhow::Result<()> {
        self.root.remove()
    }

    /// Where the dump is, for our own files.
    pub fn directory(&self) -> anyhow::Result<RestoreDir> {
        RestoreDir::open_private(&self.dump())
    }
}
