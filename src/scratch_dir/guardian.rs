//! Sees to it that nothing is left if we die: myloader would take files for whole that are not, and the pipes would stay.
//!
//! A parent-death signal ends myloader itself, but not what started it or what it started, and it comes after our ends of
//! the pipes are closed. So a helper, this same program, waits at a socket. It is given a hold on each pipe that is opened,
//! and no pipe ends before the helper lets it go: as long as we live when we say so, else when nobody reads it any more.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Pid, Signal};

use super::{is_ours, remove_after};
use crate::platform;
use crate::program::Helper;

/// The first argument that makes this program the helper; the second one is the directory.
pub const HELPER_ARGUMENT: &str = "--tidy-when-the-pipe-breaks";
/// Between two looks whether somebody reads a pipe after our death.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is said to the helper: a kind and a number, in so many bytes.
const WORD: usize = 5;
/// The number is the process to be killed.
const WATCH: u8 = b'w';
/// The number is that of a pipe, whose writing end comes along.
const HOLD: u8 = b'h';
/// The number is that of a pipe that may end.
const RELEASE: u8 = b'r';
/// All has ended in an orderly way.
const DONE: u8 = b'd';

/// The helper, and the socket to it.
#[derive(Debug)]
pub struct Guardian {
    helper: Helper<UnixStream>,
    holds: Holds,
}

/// What holds pipes in the helper.
#[derive(Debug, Clone)]
pub struct Holds(Arc<UnixStream>);

impl Guardian {
    /// Starts it.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let arguments = [HELPER_ARGUMENT.as_ref(), directory.as_os_str()];
        let helper = Helper::start_at_socket(arguments).context("cannot start the helper that tidies up if we die")?;
        let holds = Holds(Arc::new(helper.pipe.try_clone().context("cannot reach the helper")?));
        Ok(Self { helper, holds })
    }

    /// This process, the first of its group, is to be killed, too.
    pub fn watch(&self, pid: i32) {
        // Where the helper is dead there is nobody to tell; so below.
        let _ = self.holds.tell(WATCH, pid.unsigned_abs(), None, SendFlags::empty());
    }

    /// The helper's process number.
    pub fn pid(&self) -> i32 {
        self.helper.process.id().cast_signed()
    }

    /// To hold pipes with.
    pub fn holds(&self) -> Holds {
        self.holds.clone()
    }

    /// All has ended in an orderly way.
    pub fn dismiss(mut self) {
        let _ = self.holds.tell(DONE, 0, None, SendFlags::empty());
        let _ = self.helper.process.wait();
    }
}

impl Holds {
    /// From now on this pipe does not end before it is released, whatever becomes of us. Blocks.
    pub fn hold(&self, number: usize, writer: BorrowedFd<'_>) {
        let _ = self.tell(HOLD, word_of(number), Some(writer), SendFlags::empty());
    }

    /// This pipe may end, as far as the helper is asked.
    pub fn release(&self, number: usize) {
        if self.tell(RELEASE, word_of(number), None, SendFlags::DONTWAIT) == Err(Errno::AGAIN) {
            // Somebody stopped the helper: it reads on when it goes on.
            let holds = self.clone();
            tokio::task::spawn_blocking(move || holds.tell(RELEASE, word_of(number), None, SendFlags::empty()));
        }
    }

    fn tell(&self, kind: u8, number: u32, writer: Option<BorrowedFd<'_>>, flags: SendFlags) -> Result<(), Errno> {
        let mut word = [kind; WORD];
        word[1..].copy_from_slice(&number.to_ne_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let writer = writer.as_slice();
        if !writer.is_empty() {
            along.push(SendAncillaryMessage::ScmRights(writer));
        }
        let flags = flags | SendFlags::NOSIGNAL;
        // So few bytes go as a whole or not at all.
        sendmsg(&*self.0, &[IoSlice::new(&word)], &mut along, flags).map(drop)
    }
}

/// There are fewer files than that: each has its entry in a directory.
fn word_of(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What the helper does: waits for our end, and does then what we cannot do any more.
pub fn tidy_when_the_pipe_breaks(socket: impl AsFd, directory: Option<OsString>) {
    // It ends when we do, and only then.
    platform::ignore_requests_to_end();
    let _ = rustix::process::setsid();
    let mut group = None;
    let mut held = HashMap::new();
    while let Ok((word, writer)) = heard(socket.as_fd()) {
        let number = u32::from_ne_bytes([word[1], word[2], word[3], word[4]]);
        match (word[0], writer) {
            (WATCH, _) => group = Pid::from_raw(number.cast_signed()),
            (HOLD, Some(writer)) => drop(held.insert(number, writer)),
            (RELEASE, _) => drop(held.remove(&number)),
            (DONE, _) => return,
            _ => {}
        }
    }
    let kill = || group.is_some_and(|group| rustix::process::kill_process_group(group, Signal::KILL).is_ok());
    kill();
    // The end of a pipe says that its file is whole: nobody may read it.
    while held.values().any(is_read) {
        std::thread::sleep(LOOK_EVERY);
        kill();
    }
    if let Some(directory) = directory.map(PathBuf::from).filter(|path| is_ours(path)) {
        // Nobody is left to hear of it.
        let _ = remove_after(&directory, || _ = kill());
    }
}

/// The next word, and what came along; an error at the end of all.
fn heard(socket: BorrowedFd<'_>) -> io::Result<([u8; WORD], Option<OwnedFd>)> {
    let (mut word, mut length, mut writer) = ([0; WORD], 0, None);
    while length < WORD {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = RecvAncillaryBuffer::new(&mut space);
        let mut rest = [IoSliceMut::new(&mut word[length..])];
        let received = match recvmsg(socket, &mut rest, &mut along, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => continue,
            received => received?.bytes,
        };
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length += received;
        for message in along.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                writer = descriptors.last().or(writer);
            }
        }
    }
    Ok((word, writer))
}

/// Whether somebody has the other end of the pipe open.
fn is_read(writer: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut look = [PollFd::new(writer, PollFlags::empty())];
    match poll(&mut look, Some(&now)) {
        Ok(_) => !look[0].revents().contains(PollFlags::ERR),
        Err(_) => true,
    }
}
