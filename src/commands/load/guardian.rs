//! Sees to it that nothing is left if we die: myloader would take files for whole that are not, and the pipes would stay.
//!
//! A parent-death signal ends myloader itself, but neither what it started nor one behind `sudo`; and nothing tidies up. So
//! a helper, this same program, waits at the end of a pipe.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::process::{Pid, Signal};

use crate::program::Helper;

/// The first argument that makes this program the helper; the second one is the directory.
pub const HELPER_ARGUMENT: &str = "--tidy-when-the-pipe-breaks";
/// What is written at an orderly end.
const DONE: &str = "done";

/// The helper, and the pipe to it.
pub struct Guardian(Helper);

impl Guardian {
    /// Starts it.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let arguments = [HELPER_ARGUMENT.as_ref(), directory.as_os_str()];
        Helper::start(arguments).map(Self).context("cannot start the helper that tidies up if we die")
    }

    /// This process, the first of its group, is to be killed, too.
    pub fn watch(&mut self, pid: i32) {
        self.tell(&pid.to_string());
    }

    /// All has ended in an orderly way.
    pub fn dismiss(mut self) {
        self.tell(DONE);
        let Helper { mut process, pipe } = self.0;
        drop(pipe);
        let _ = process.wait();
    }

    fn tell(&mut self, word: &str) {
        // Where the helper is dead there is nobody to tell.
        let _ = writeln!(self.0.pipe, "{word}");
    }
}

/// What the helper does: waits for our end, and does then what we cannot do any more.
pub fn tidy_when_the_pipe_breaks(pipe: impl Read, directory: Option<OsString>) {
    let mut group = None;
    for word in BufReader::new(pipe).lines().map_while(Result::ok) {
        match word.parse() {
            Ok(pid) => group = Pid::from_raw(pid),
            Err(_) if word == DONE => return,
            Err(_) => {}
        }
    }
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    let directory = directory.map(PathBuf::from);
    if let Some(directory) = directory.filter(|directory| super::stage::is_ours(directory)) {
        let _ = std::fs::remove_dir_all(directory);
    }
}
