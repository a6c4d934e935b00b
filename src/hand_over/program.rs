//! The program that mydumper starts for each of its files.

use std::ffi::OsString;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;
use rustix::stdio::stdout;

use super::{RIGHTS, TAKE, TAKEN};
use crate::platform::{Process, ProcessHandle};

/// The first argument that makes this program hand rows over; then come the socket, and the process behind it.
pub const HELPER_ARGUMENT: &str = "--hand-over";

/// Hands over standard input and standard output. Where that does not succeed mydumper is ended: it would go on, and take
/// what nobody has for dumped.
pub fn hand_over(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let socket = arguments.next().unwrap_or_default();
    let receiver = arguments.next().and_then(|pid| pid.to_str()?.parse().ok());
    match try_hand_over(Path::new(&socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => {
            end_dumper(receiver);
            ExitCode::FAILURE
        }
    }
}

fn try_hand_over(socket: &Path) -> io::Result<()> {
    let mut answer = pass(socket, io::stdin().as_fd(), stdout())?;
    let mut word = [0];
    answer.read_exact(&mut word)?;
    if word == [TAKEN] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Passes both on; what is returned is answered.
pub(super) fn pass(socket: &Path, rows: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    let rights = [rows, file];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RIGHTS))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    along.push(SendAncillaryMessage::ScmRights(&rights));
    sendmsg(&stream, &[IoSlice::new(&[TAKE])], &mut along, SendFlags::NOSIGNAL)?;
    Ok(stream)
}

/// Kills who started us, if it is mydumper. Where that has ended we may be anybody's child.
fn end_dumper(receiver: Option<i32>) {
    let parent = || rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    let Some(pid) = parent().filter(|pid| Some(*pid) != receiver) else { return };
    let Ok(handle) = ProcessHandle::open(pid) else { return };
    let is_dumper = |process: Process| process.name.starts_with("mydumper") && process.name != "mydumper2s3";
    // Asked after the handle was taken: so it is no other process that it names.
    if parent() == Some(pid) && Process::find(pid).is_some_and(is_dumper) {
        let _ = handle.signal(Signal::KILL);
    }
}
