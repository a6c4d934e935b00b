//! What only the operating system can tell: who writes a file, which process is mydumper, how it ended.
//!
//! Linux tells all of it. Elsewhere nothing is known, and then a dump is taken only after it has ended.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::process::Command;

use parking_lot::Mutex;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::*;

#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
pub use other::*;

/// What the kernel answers when it is asked for a read lease on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// Granted (and given back at once): nobody has the file open for writing.
    NoWriter,
    /// Refused because somebody has it open for writing, in whatever process or namespace.
    Writer,
    /// It cannot be asked: not the file's owner and without CAP_LEASE.
    NotPermitted,
    /// The filesystem has no leases.
    Unsupported,
}

/// What [`set_variable`] changed, as it was.
static AS_GIVEN: Mutex<Vec<(String, Option<OsString>)>> = Mutex::new(Vec::new());

/// Sets a variable of our environment, or takes it out. Only for the very beginning, and each only once.
#[allow(unsafe_code, reason = "the environment can be changed in no other way")]
pub fn set_variable(name: &str, value: Option<&OsStr>) {
    let before = (name.to_owned(), std::env::var_os(name));
    AS_GIVEN.lock().push(before);
    // SAFETY: called first in `main`, when there is no other thread that could read the environment meanwhile.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

/// Gives a program that we start for somebody the environment that we were given: what we changed is for us alone.
pub fn environment_as_given(command: &mut Command) {
    for (name, value) in AS_GIVEN.lock().iter() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it ended itself by one of the signals of a program that gives up: `abort` and GLib's `g_error`.
    pub fn is_own_abort(self) -> bool {
        matches!(self, Self::Signal(libc::SIGABRT | libc::SIGTRAP))
    }
}

/// How a process stands to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinship {
    /// Its number.
    pub pid: i32,
    /// The process that started it, or adopted it.
    pub parent: i32,
    /// Its session, which a process leaves only for a new one of its own.
    pub session: i32,
    /// Whether it has ended, and nobody has asked yet how.
    pub is_gone: bool,
}

/// This host's name, for the prefix and the dump's identity.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// The device and inode of an open file.
pub fn device_and_inode(file: &File) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}
