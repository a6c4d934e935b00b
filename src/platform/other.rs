//! Where the kernel tells nothing: every answer is "unknown".

use std::fs::File;
use std::io;

use super::{Exit, Kinship, Lease};

/// No leases here.
pub fn probe_lease(_file: &File) -> Lease {
    Lease::Unsupported
}

/// Nothing is known of filesystems here.
pub fn lease_filesystem(_file: &File) -> Option<&'static str> {
    None
}

/// No birth times here.
pub fn birth_time(_file: &File) -> Option<i128> {
    None
}

/// Not known.
pub fn read_cached(_file: &File, _bytes: &mut [u8], _offset: u64) -> Option<usize> {
    None
}

/// Left to the kernel.
pub fn read_ahead(_file: &File, _offset: u64, _length: u64) {}

/// Left to the kernel.
pub fn drop_cached(_file: &File, _offset: u64, _length: u64) {}

/// There is no such signal here.
pub fn ignore_lease_breaks() {}

/// Left as they are.
pub fn ignore_requests_to_end() {}

/// A process group of its own.
pub fn own_session(command: &mut tokio::process::Command) {
    command.process_group(0);
}

/// Left as it is: nothing tells it.
pub fn die_with_us(_command: &mut tokio::process::Command) {}

/// Left as it is.
pub fn ignore_broken_pipes(_command: &mut tokio::process::Command) {}

/// No process is visible.
pub fn processes() -> Vec<Process> {
    Vec::new()
}

/// Nothing tells it.
#[derive(Debug)]
pub struct Openings;

impl Openings {
    /// Nothing tells it.
    pub fn of(_pid: i32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// None is known.
    pub fn paths(&self) -> io::Result<Vec<OsString>> {
        Ok(Vec::new())
    }
}

/// None is visible.
pub fn children(_pid: i32) -> Vec<i32> {
    Vec::new()
}

/// No process is visible.
pub fn kinships() -> Vec<Kinship> {
    Vec::new()
}

impl Kinship {
    /// Never known.
    pub fn of(_pid: i32) -> Option<Self> {
        None
    }
}

/// Orphans are not ours here.
pub fn adopt_orphans() {}

/// There are none.
pub fn reap_orphan(_pid: i32) {}

/// A process; here there is none to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its short name.
    pub name: String,
}

impl Process {
    /// Never known.
    pub fn find(_pid: i32) -> Option<Self> {
        None
    }

    /// Never known.
    pub fn program(&self) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never known.
    pub fn has_open_in(&self, _directory: &std::path::Path) -> bool {
        false
    }

    /// Never known.
    pub fn arguments(&self) -> Vec<std::ffi::OsString> {
        Vec::new()
    }

    /// Never known.
    pub fn working_directory(&self) -> io::Result<std::path::PathBuf> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never known.
    pub fn written_files(&self) -> io::Result<Vec<(u64, u64)>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A handle on a process; here it cannot be had.
#[derive(Debug)]
pub struct ProcessHandle;

impl ProcessHandle {
    /// Always fails.
    pub fn open(_pid: i32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never known.
    pub fn has_ended(&self) -> bool {
        false
    }

    /// Never known.
    pub fn exit(&self) -> Option<Exit> {
        None
    }
}

impl ProcessHandle {
    /// Never known.
    pub fn exit_of_orphan(&self) -> Option<Exit> {
        None
    }

    /// There is nobody.
    pub fn signal(&self, _signal: rustix::process::Signal) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A file without a name: from the system's temporary directory.
pub fn memory_file(name: &str) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("{name}.{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}
