//! `--exec-per-thread` as mydumper 1.0.1 does it (`m_open_pipe` and `m_close_pipe` in `mydumper_file_handler.c`): a program
//! for each file, with the rows as its standard input and the file as its standard output. mydumper holds the pipe's other
//! end itself, so that it never breaks, and does not look at the program's exit status.

use std::ffi::OsString;
use std::fs::File;
use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use crate::{Outcome, argument, words};

/// The program and its arguments, split as mydumper splits them; none where files are wanted.
pub fn program_per_file() -> Outcome<Option<Vec<OsString>>> {
    let program = argument(&["--exec-per-thread"])?;
    let split = |line: OsString| line.to_string_lossy().split(' ').map(OsString::from).collect();
    Ok(program.map(split))
}

/// A file whose rows go to a program.
pub struct HandedOver {
    rows: PipeReader,
    file: File,
    program: Child,
}

impl HandedOver {
    /// Starts the program; what is returned first is where rows are written to.
    pub fn begin(program: &[OsString], file: File) -> Outcome<(File, Self)> {
        let (rows, writer) = std::io::pipe().map_err(words)?;
        let (name, arguments) = program.split_first().ok_or("no program")?;
        let started = Command::new(name)
            .args(arguments)
            .stdin(Stdio::from(rows.try_clone().map_err(words)?))
            .stdout(Stdio::from(file.try_clone().map_err(words)?))
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", name.display()))?;
        Ok((File::from(OwnedFd::from(writer)), Self { rows, file, program: started }))
    }

    /// The file is closed, after the pipe and the program's end.
    pub fn end(self) -> Outcome<()> {
        let Self { rows, file, mut program } = self;
        drop(rows);
        program.wait().map_err(words)?;
        file.sync_all().map_err(words)
    }
}
