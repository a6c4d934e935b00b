//! The process that writes a dump: it has the lead, `metadata.partial`, open from the dump's start to its end.
//!
//! Its exit status alone tells how the dump ended. What was started under the name of mydumper may be a script or a shell
//! that starts the real one, does not wait for it, or ends with the status of another program in a pipe.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arguments::left_out_by;
use super::kinship::{ancestors, offspring};
use crate::dump_dir::DumpDir;
use crate::model::child_arguments::{absolute, mydumper_in};
use crate::model::dumper_version::version_in_program;
use crate::model::left_out::LeftOut;
use crate::platform::{self, Exit, Process, ProcessHandle};

/// A larger program file is not read, in bytes. mydumper's is one MiB, and some more where its libraries are in it.
const PROGRAM_MAX: u64 = 16 << 20;

/// Whose process it is, and how far its status is the dump's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Our own child, seen to have the lead open, or mydumper by its name and its output directory.
    Child,
    /// Another process, seen to have the lead open.
    Holder,
    /// mydumper by its name and its output directory, or by `--pid`; it was not seen to have the lead open.
    Named,
    /// What `--pid` names, but it has not got the lead open: at best it started mydumper.
    Launcher,
}

/// A process that writes a dump, or is taken for it.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The process.
    pub process: Process,
    /// How far it is known to be the writer.
    pub role: Role,
    /// Outlives it.
    handle: Arc<ProcessHandle>,
    /// Its program file, where we may read it.
    program: Option<Arc<File>>,
    /// Its command line and its working directory, as far as they could be read while it lived.
    started: Arc<(Vec<OsString>, PathBuf)>,
}

impl Writer {
    /// Finds who writes the dump whose lead is `inode`. `child` is our child while it lives, `named` what `--pid` says.
    pub fn find(directory: &DumpDir, inode: (u64, u64), child: Option<i32>, named: Option<i32>) -> Option<Self> {
        let likely = child.or(named).and_then(|pid| Self::holding(pid, inode));
        // A short dump is over before all processes have been looked at: first those who come from us, nearest first.
        let ours = || offspring(own_pid()).into_iter().find_map(|pid| Self::holding(pid, inode));
        let holder = likely.or_else(ours).or_else(|| Self::holding(first_holder(inode)?, inode));
        if let Some(holder) = holder {
            let is_child = Some(holder.process.pid) == child;
            return Some(if is_child { Self { role: Role::Child, ..holder } } else { holder });
        }
        if let Some(pid) = named {
            let process = Process::find(pid)?;
            let is_open_to_us = process.written_files().is_ok();
            let role = if is_open_to_us && !is_dumper(&process, directory) { Role::Launcher } else { Role::Named };
            return Self::take(process, role);
        }
        let process = platform::processes().into_iter().find(|process| is_dumper(process, directory))?;
        let role = if Some(process.pid) == child { Role::Child } else { Role::Named };
        Self::take(process, role)
    }

    /// Our child or who descends from it, if it is mydumper by its name, no script of that name, and writes into this
    /// directory: all that can be known of one that has opened and closed its lead before anybody looked.
    pub fn by_name(child: i32, directory: &Path) -> Option<Self> {
        let current = std::env::current_dir().unwrap_or_default();
        let directory = absolute(&current, directory);
        let of_process = |pid: i32| {
            let process = Process::find(pid)?;
            let path = output_directory(&process)?;
            let role = if pid == child { Role::Child } else { Role::Named };
            // The directory may not be there yet.
            if absolute(&current, &path) == directory { Self::take(process, role) } else { None }
        };
        offspring(own_pid()).into_iter().find_map(of_process)
    }

    /// The same by what was started: it may have ended already. Its directory was checked before the start.
    pub fn by_command(child: i32, command: &[OsString]) -> Option<Self> {
        let program = Path::new(command.first()?);
        if !is_called(program.file_name()?.to_str()?) || !is_program_file(program) {
            return None;
        }
        let mut writer = Self::take(Process::find(child)?, Role::Child)?;
        writer.started = Arc::new((command.to_vec(), std::env::current_dir().unwrap_or_default()));
        Some(writer)
    }

    /// That process, if it has the lead open for writing. Looked at after the handle was taken, so it is no other one.
    fn holding(pid: i32, inode: (u64, u64)) -> Option<Self> {
        let writer = Self::take(Process::find(pid)?, Role::Holder)?;
        writes(&writer.process, inode).then_some(writer)
    }

    fn take(process: Process, role: Role) -> Option<Self> {
        let handle = Arc::new(ProcessHandle::open(process.pid).ok()?);
        let program = process.program().ok().map(Arc::new);
        let started = Arc::new((process.arguments(), process.working_directory().unwrap_or_default()));
        Some(Self { process, role, handle, program, started })
    }

    /// Its version, where its program file tells. Reads all of that.
    pub fn version(&self) -> Option<String> {
        version_of(self.program.as_ref()?)
    }

    /// What it leaves out of its dump, where its command line tells. Reads its defaults file.
    pub fn left_out(&self, version: Option<&str>) -> Option<Vec<LeftOut>> {
        left_out_by(&self.started.0, &self.started.1, version)
    }

    /// A handle on it.
    pub fn handle(&self) -> &Arc<ProcessHandle> {
        &self.handle
    }

    /// Whether it was seen to have the lead open: while it lives, its dump does.
    pub fn is_proved(&self) -> bool {
        matches!(self.role, Role::Child | Role::Holder)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.handle.has_ended()
    }

    /// How it ended, where the kernel tells.
    pub fn exit(&self) -> Option<Exit> {
        self.handle.exit()
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn writes(process: &Process, inode: (u64, u64)) -> bool {
    process.written_files().is_ok_and(|written| written.contains(&inode))
}

/// The one that opened the lead: its compressors have inherited it, so it is the one without an ancestor that has it.
fn first_holder(inode: (u64, u64)) -> Option<i32> {
    let ours = own_pid();
    let processes = platform::processes().into_iter().filter(|process| process.pid != ours);
    let holders: HashSet<i32> = processes.filter(|process| writes(process, inode)).map(|process| process.pid).collect();
    holders.iter().copied().find(|pid| !ancestors(*pid).iter().any(|ancestor| holders.contains(ancestor)))
}

/// Whether a process is called mydumper, is no script of that name, and writes into this directory by its command line.
fn is_dumper(process: &Process, directory: &DumpDir) -> bool {
    let path = output_directory(process);
    path.is_some_and(|path| DumpDir::open(&path).is_ok_and(|other| directory.is_same(&other)))
}

pub(super) fn is_called(name: &str) -> bool {
    // `mydumper2s3` begins so too, and names the directory.
    name.starts_with("mydumper") && !name.starts_with("mydumper2s3")
}

/// Whether what is started under that name is a program and no script.
pub(super) fn is_program_file(program: &Path) -> bool {
    let is_elf = |path: PathBuf| {
        let mut magic = [0; 4];
        File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"\x7fELF"
    };
    file_of(program).is_some_and(is_elf)
}

/// The file of a program that is started under that name.
fn file_of(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The version of the mydumper that a command starts, directly or behind a wrapper, where its program file tells. Reads all
/// of that.
pub fn version_by_command(command: &[OsString]) -> Option<String> {
    let (program, _) = mydumper_in(command)?;
    version_of(&File::open(file_of(Path::new(program))?).ok()?)
}

fn version_of(file: &File) -> Option<String> {
    let length = file.metadata().ok()?.len();
    if length > PROGRAM_MAX {
        return None;
    }
    let mut program = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut program, 0).ok()?;
    version_in_program(&program)
}

/// Where a process writes that is called mydumper and is no script of that name.
fn output_directory(process: &Process) -> Option<PathBuf> {
    if !is_called(&process.name) {
        return None;
    }
    let arguments = process.arguments();
    // A script has its interpreter there.
    let program = Path::new(arguments.first()?).file_name()?.to_str()?;
    let named = arguments.iter().enumerate().find_map(|(index, argument)| {
        let argument = argument.to_str()?;
        match argument {
            "-o" | "--outputdir" => arguments.get(index + 1)?.to_str().map(str::to_owned),
            _ => argument.strip_prefix("--outputdir=").map(str::to_owned),
        }
    })?;
    let path = process.working_directory().unwrap_or_default().join(named);
    (is_called(program) && path.is_absolute()).then_some(path)
}
