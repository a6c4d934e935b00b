//! Linux: leases, `/proc`, pidfds. The only file with `unsafe` for system calls.
//!
//! Sources: fcntl(2), proc(5), pidfd_open(2), and `include/uapi/linux/pidfd.h` of Linux 6.15.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, AtFlags, StatxFlags, fadvise};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions};

use super::{Exit, Kinship, Lease};

/// Asks for a read lease and gives it back at once.
///
/// The kernel refuses with EAGAIN exactly while anybody has the file open for writing. `file` must be open read-only.
/// A lease that is held while somebody opens the file for writing makes that open wait and sends SIGIO, so nothing
/// comes between the two calls; see [`ignore_lease_breaks`].
#[allow(unsafe_code, reason = "rustix has no F_SETLEASE")]
pub fn probe_lease(file: &File) -> Lease {
    // SAFETY: fcntl with these commands takes an integer and touches no memory; the descriptor is open.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    if answer == 0 {
        // SAFETY: as above. It cannot fail for a lease that was just granted.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        return Lease::NoWriter;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Lease::Writer,
        Some(libc::EACCES | libc::EPERM) => Lease::NotPermitted,
        _ => Lease::Unsupported,
    }
}

/// The filesystem's name, if it is a local one on which leases tell the truth.
///
/// Over NFSv4 every lease is refused with EAGAIN unless the server delegates, FUSE and SMB do as they like: there a
/// refusal means nothing, so only known local filesystems count. The numbers are from statfs(2) and the kernel's
/// `magic.h`; zfs names its own.
pub fn lease_filesystem(file: &File) -> Option<&'static str> {
    let filesystem = rustix::fs::fstatfs(file).ok()?;
    match filesystem.f_type as u64 & 0xFFFF_FFFF {
        0xEF53 => Some("ext4"),
        0x5846_5342 => Some("xfs"),
        0x9123_683E => Some("btrfs"),
        0x0102_1994 => Some("tmpfs"),
        0x794C_7630 => Some("overlayfs"),
        0xF2F5_2010 => Some("f2fs"),
        0x2FC1_2FC1 => Some("zfs"),
        _ => None,
    }
}

/// When the inode was born, in nanoseconds since 1970, where the filesystem says.
pub fn birth_time(file: &File) -> Option<i128> {
    let answer = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let known = answer.stx_mask & StatxFlags::BTIME.bits() != 0;
    let born = answer.stx_btime;
    known.then(|| i128::from(born.tv_sec) * 1_000_000_000 + i128::from(born.tv_nsec))
}

/// Reads what the page cache has of a stretch, from its start: fewer bytes than asked for, or none, where the disk would
/// have to be waited for. `None` where the filesystem cannot tell.
pub fn read_cached(file: &File, bytes: &mut [u8], offset: u64) -> Option<usize> {
    let mut slices = [io::IoSliceMut::new(bytes)];
    match rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
        Ok(length) => Some(length),
        Err(Errno::AGAIN) => Some(0),
        Err(_) => None,
    }
}

/// Asks the disk for a stretch, from its start to its end, and does not wait for it.
pub fn read_ahead(file: &File, offset: u64, length: u64) {
    // The kernel cuts a longer wish to its window for reading ahead, which is this by default.
    const WINDOW: u64 = 128 * 1024;
    for at in (offset..offset + length).step_by(WINDOW as usize) {
        if fadvise(file, at, NonZeroU64::new(WINDOW), Advice::WillNeed).is_err() {
            return;
        }
    }
}

/// Takes a stretch out of the page cache; a length of 0 means to the file's end.
pub fn drop_cached(file: &File, offset: u64, length: u64) {
    // A wish: where it cannot be had nothing is lost.
    let _ = fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
}

/// Ignores SIGIO: the kernel sends it to the holder of a lease when somebody opens the file, and its default action
/// ends the process.
#[allow(unsafe_code, reason = "no crate here sets a signal to be ignored")]
pub fn ignore_lease_breaks() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
}

/// Ignores the signals that ask a program to end: all processes of a service or a terminal get them, also one that must
/// outlive the others.
#[allow(unsafe_code, reason = "no crate here sets a signal to be ignored")]
pub fn ignore_requests_to_end() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Gives a child a session, and so a process group, of its own.
///
/// A group alone is not enough: if we die while it is stopped, the kernel finds a newly orphaned group with stopped
/// members in our session and sends it SIGHUP, which ends mydumper (setpgid(2), `kill_orphaned_pgrp` in the kernel).
#[allow(unsafe_code, reason = "the only way to act between fork and exec")]
pub fn own_session(command: &mut tokio::process::Command) {
    // SAFETY: setsid(2) may be called between fork and exec (signal-safety(7)), and nothing else is done there.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?));
    }
}

/// Has a child of ours killed when we die. It does not reach what the child starts, and it comes when the thread ends that
/// started the child: so that must be one that lives as long as we do.
#[allow(unsafe_code, reason = "the only way to act between fork and exec")]
pub fn die_with_us(command: &mut tokio::process::Command) {
    let parent = rustix::process::getpid();
    // SAFETY: prctl(2) and getppid(2) are plain system calls, and nothing else is done between fork and exec.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // We may have died before.
            if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        });
    }
}

/// Lets a child of ours go on when the pipe that takes its output breaks: SIGPIPE would end it. What is ignored stays
/// ignored across exec.
#[allow(unsafe_code, reason = "the only way to act between fork and exec")]
pub fn ignore_broken_pipes(command: &mut tokio::process::Command) {
    // SAFETY: signal(2) may be called between fork and exec (signal-safety(7)), and nothing else is done there.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            Ok(())
        });
    }
}

/// A process as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its short name, `comm`.
    pub name: String,
}

/// All processes that `/proc` shows to us.
pub fn processes() -> Vec<Process> {
    pids().filter_map(Process::find).collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let pid = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    std::fs::read_dir("/proc").into_iter().flatten().filter_map(pid)
}

/// A process's children, without a look at all other processes. Empty where the kernel has no such list.
pub fn children(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()).collect()
}

/// The threads of a process, looked at again and again: what each waits to open.
///
/// A thread that opens a FIFO waits in open(2) or openat(2) until somebody has the other end. `/proc/PID/task/TID/syscall`
/// tells call and arguments in hexadecimal, or that the thread runs (proc(5)). It is kept open: to read it again takes a
/// fraction of opening it.
#[derive(Debug)]
pub struct Openings {
    threads: Vec<File>,
    memory: File,
}

impl Openings {
    /// Of the threads that a process has now; an error where the kernel does not tell, as of another user's process.
    pub fn of(pid: i32) -> io::Result<Self> {
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let mut threads = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            match File::open(thread?.path().join("syscall")) {
                Ok(thread) => threads.push(thread),
                // It has ended meanwhile.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { threads, memory })
    }

    /// The paths that they wait to open at this moment, as they gave them.
    pub fn paths(&self) -> io::Result<Vec<OsString>> {
        let mut paths = Vec::new();
        for thread in &self.threads {
            // Nine words of at most eighteen characters.
            let mut call = [0; 256];
            let length = match thread.read_at(&mut call, 0) {
                Ok(length) => length,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            let address = std::str::from_utf8(&call[..length]).ok().and_then(path_argument);
            paths.extend(address.and_then(|address| text_at(&self.memory, address)));
        }
        Ok(paths)
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Where the path of an open stands in memory.
fn path_argument(call: &str) -> Option<u64> {
    let mut words = call.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let at = match number {
        libc::SYS_openat => 1,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => 0,
        _ => return None,
    };
    u64::from_str_radix(words.nth(at)?.strip_prefix("0x")?, 16).ok()
}

/// Text of another process, up to its final zero. It may have gone on meanwhile, so this is anything.
fn text_at(memory: &File, address: u64) -> Option<OsString> {
    let mut bytes = vec![0; libc::PATH_MAX as usize];
    // What follows the text may not be mapped: then less is read.
    let length = memory.read_at(&mut bytes, address).ok()?;
    let end = bytes[..length].iter().position(|byte| *byte == 0)?;
    Some(OsString::from_vec(bytes[..end].to_vec()))
}

/// How all processes stand to each other.
pub fn kinships() -> Vec<Kinship> {
    pids().filter_map(Kinship::of).collect()
}

impl Kinship {
    /// From a process's `stat`, which everybody may read.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name stands in parentheses and may hold some; then come state, parent, process group and session.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let is_gone = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        Some(Self { pid, parent, session, is_gone })
    }
}

/// From now on whoever is orphaned among our descendants becomes our child: so nobody whom our child started gets out
/// of sight, and how it ended can be seen.
pub fn adopt_orphans() {
    // The argument is only looked at for being there. Linux has this since 3.4.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Lets go of an orphan that we adopted, once it has ended.
pub fn reap_orphan(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

impl Process {
    /// The process of that number, if `/proc` shows it.
    pub fn find(pid: i32) -> Option<Self> {
        let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
        Some(Self { pid, name: String::from_utf8_lossy(&name).trim_end().to_owned() })
    }

    /// Its program file, also where that was replaced or removed; fails where we may not look.
    pub fn program(&self) -> io::Result<File> {
        File::open(format!("/proc/{}/exe", self.pid))
    }

    /// Whether it has a file open that lies directly in this directory, given by its real path.
    pub fn has_open_in(&self, directory: &Path) -> bool {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        descriptors
            .filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok())
            .any(|file| file.parent() == Some(directory))
    }

    /// Its command line; empty if we may not see it.
    pub fn arguments(&self) -> Vec<OsString> {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let line = line.strip_suffix(b"\0").unwrap_or(&line);
        line.split(|byte| *byte == 0).map(|argument| OsString::from_vec(argument.to_vec())).collect()
    }

    /// Its working directory; fails where we may not look.
    pub fn working_directory(&self) -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/{}/cwd", self.pid))
    }

    /// Device and inode of every file that it has open for writing. Fails where we may not look: an empty answer
    /// would read as "nothing is open".
    pub fn written_files(&self) -> io::Result<Vec<(u64, u64)>> {
        let mut written = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            let number = entry?.file_name();
            let number = number.to_string_lossy();
            match self.written_file(&number) {
                Ok(Some(file)) => written.push(file),
                Ok(None) => {}
                // Closed while we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn written_file(&self, number: &str) -> io::Result<Option<(u64, u64)>> {
        // Flags before the file: a descriptor that is closed and opened again in between then shows the newer file.
        let information = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", self.pid))?;
        let flags = information.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
        if flags.is_some_and(|flags| flags & libc::O_ACCMODE == libc::O_RDONLY) {
            return Ok(None);
        }
        let metadata = std::fs::metadata(format!("/proc/{}/fd/{number}", self.pid))?;
        Ok(Some((metadata.dev(), metadata.ino())))
    }
}

/// A handle that keeps meaning the same process after it has ended and its number is used again.
#[derive(Debug)]
pub struct ProcessHandle(OwnedFd, i32);

/// `struct pidfd_info` as of its first version, 64 bytes.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, and eight user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

/// Ask for the exit code; kept in the mask of the answer if it is known.
const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::c_ulong = (3 << 30) | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xFF << 8) | 11;

impl ProcessHandle {
    /// Takes hold of a process. It need not be ours: any user may hold any process that it can name.
    pub fn open(pid: i32) -> io::Result<Self> {
        let raw = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self(rustix::process::pidfd_open(raw, PidfdFlags::empty())?, pid))
    }

    /// Whether it has ended: a pidfd becomes readable then.
    pub fn has_ended(&self) -> bool {
        let mut descriptors = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut descriptors, Some(&now)), Ok(ready) if ready > 0)
    }

    /// How it ended, if it has ended and been reaped, and the kernel tells (Linux 6.15 and later).
    ///
    /// Before it is reaped only a failure is known: some containers' first process reaps orphans late or never.
    #[allow(unsafe_code, reason = "no crate has PIDFD_GET_INFO")]
    pub fn exit(&self) -> Option<Exit> {
        let mut information = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
        // SAFETY: the request's size field says 64 bytes, the size of the structure, which lives through the call.
        let answer = unsafe { libc::ioctl(self.0.as_fd().as_raw_fd(), PIDFD_GET_INFO as _, &raw mut information) };
        if answer != 0 || information.mask & PIDFD_INFO_EXIT == 0 {
            return self.failure_of_zombie();
        }
        Some(exit_of(information.exit_code))
    }

    /// The same for an orphan that we adopted: it waits to be reaped by us.
    pub fn exit_of_orphan(&self) -> Option<Exit> {
        let reaped =
            rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        let Ok(Some(status)) = reaped else { return self.exit() };
        match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => Some(Exit::Status(status)),
            (None, signal) => signal.map(Exit::Signal),
        }
    }

    /// Sends it a signal; never to another process that got its number.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.0, signal)?)
    }

    /// From `/proc/PID/stat`, where another user's zombie reads status 0 whatever it was; so 0 says nothing there.
    fn failure_of_zombie(&self) -> Option<Exit> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.1)).ok()?;
        // The name in brackets may hold anything; after it come the state, field 3, and so on to the exit code, field 52
        // (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
        let code: i32 = fields.get(49)?.parse().ok()?;
        (fields[0] == "Z" && code != 0).then(|| exit_of(code))
    }
}

fn exit_of(code: i32) -> Exit {
    if libc::WIFSIGNALED(code) { Exit::Signal(libc::WTERMSIG(code)) } else { Exit::Status(libc::WEXITSTATUS(code)) }
}

/// A file without a name and without a filesystem: works where nothing is writable.
pub fn memory_file(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?.into())
}
