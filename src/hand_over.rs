//! Rows that mydumper hands over instead of writing them into files.
//!
//! With `--exec-per-thread PROGRAM` mydumper (from 0.15.1 on) starts a program once for each of its files: the rows are its
//! standard input, and the file is its standard output. Our program is this same one. It passes both on through a socket,
//! waits until that is answered, and ends; so the rows come to us, and the file stays empty.
//!
//! mydumper looks at nothing that the program does, not even its exit status. So a hand-over that does not succeed ends
//! mydumper, and whoever takes the rows counts: each file that is left in the end must have been handed over.

mod program;

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

pub use self::program::{HELPER_ARGUMENT, hand_over};
use crate::dump_dir::{DumpDir, identity_of};
use crate::model::file_name::FileName;
use crate::scratch_dir::{Purpose, ScratchDir};

/// The socket's name in its directory.
const SOCKET: &str = "rows";
/// What is said with the two descriptors, and what is answered.
const TAKE: u8 = b't';
const TAKEN: u8 = b'k';
/// Both descriptors.
const RIGHTS: usize = 2;

/// Where rows are handed over.
#[derive(Debug)]
pub struct Reception {
    listener: UnixListener,
    place: ScratchDir,
    /// The directory of the socket: its path through `/proc` is short and has no space, whatever its own is. mydumper
    /// splits what it is to start at spaces, and a socket's path may have 107 bytes.
    directory: OwnedFd,
}

/// Somebody who has rows.
#[derive(Debug)]
pub struct Caller(UnixStream);

/// The rows of one file.
#[derive(Debug)]
pub struct HandOver {
    /// They come out of this pipe. Its end says nothing: it comes when mydumper is killed, too.
    pub rows: File,
    /// The file that stays empty.
    pub file: File,
    caller: Caller,
}

impl Reception {
    /// Opens it, in a directory that nobody else may enter. Blocks; within a runtime.
    pub fn open() -> anyhow::Result<Self> {
        let place = ScratchDir::make(Purpose::Rows, &[])?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(place.path(), flags, Mode::empty());
        let directory = opened.with_context(|| format!("cannot open '{}'", place.path().display()))?;
        let listener =
            UnixListener::bind(socket_in(&directory)).context("cannot open the socket that rows come through")?;
        Ok(Self { listener, place, directory })
    }

    /// What mydumper is to start for each file.
    pub fn program(&self) -> String {
        let ours = own_pid();
        // By its path in /proc the program is the same even after an upgrade replaced the file.
        format!("/proc/{ours}/exe {HELPER_ARGUMENT} {} {ours}", socket_in(&self.directory).display())
    }

    /// This process, the first of its group, is to be killed if we die: it would wait for ever.
    pub fn watch(&self, pid: i32) {
        self.place.watch(pid);
    }

    /// The process that does so: none of mydumper's family.
    pub fn helper(&self) -> i32 {
        self.place.helper()
    }

    /// The next who has rows.
    pub async fn next(&self) -> io::Result<Caller> {
        self.listener.accept().await.map(|(stream, _)| Caller(stream))
    }

    /// Closes it after mydumper's end: nobody is to be killed any more. Blocks.
    pub fn close(self) -> anyhow::Result<()> {
        self.place.remove()
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn socket_in(directory: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}/{SOCKET}", own_pid(), directory.as_raw_fd()).into()
}

impl Caller {
    /// What it hands over; an error where it goes away before, or says anything else.
    pub async fn hand_over(self) -> io::Result<HandOver> {
        let received = self.0.async_io(Interest::READABLE, || received(&self.0)).await?;
        let [rows, file] = received.map(File::from);
        Ok(HandOver { rows, file, caller: self })
    }
}

impl HandOver {
    /// Which file of the directory it is; an error says why it is none. Blocks.
    pub fn name(&self, directory: &DumpDir) -> Result<FileName, String> {
        let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let path = std::fs::read_link(link).map_err(|error| format!("its file has no name: {error}"))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let here =
            directory.identity(&name).map_err(|error| format!("'{name}' is not in the dump directory: {error}"))?;
        let file = identity_of(&self.file).map_err(|error| format!("cannot look at '{name}': {error}"))?;
        if (here.device, here.inode) != (file.device, file.inode) {
            return Err(format!("'{}' is not in the dump directory", path.display()));
        }
        name.parse().map_err(|error| format!("'{name}' cannot be an object's name: {error}"))
    }

    /// Answers, so that mydumper goes on with its next file; what comes out of the pipe is the rest.
    pub fn taken(self) -> File {
        // So few bytes are written at once or not at all. Who does not wait for them any more was killed, with mydumper.
        let _ = self.caller.0.try_write(&[TAKEN]);
        self.rows
    }
}

/// Reads the two descriptors.
fn received(stream: &UnixStream) -> io::Result<[OwnedFd; RIGHTS]> {
    let mut word = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RIGHTS))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let count = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut word)], &mut along, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut descriptors = Vec::new();
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if (count, word) != (1, [TAKE]) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    descriptors.try_into().map_err(|_| io::Error::other("not a pipe and a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{Read, Write};
    use std::path::Path;

    fn pass(reception: &Reception, rows: impl AsFd, file: impl AsFd) -> std::os::unix::net::UnixStream {
        program::pass(&socket_in(&reception.directory), rows.as_fd(), file.as_fd()).expect("a hand-over")
    }

    #[tokio::test]
    async fn rows_and_their_file_are_handed_over_and_that_is_answered() {
        let dump = tempfile::tempdir().expect("a directory");
        let path = dump.path().join("s.t.00000.sql.zst");
        let file = File::create(&path).expect("a file");
        let (rows, mut writer) = io::pipe().expect("a pipe");
        let reception = Reception::open().expect("a reception");
        let mut answer = pass(&reception, rows, &file);
        let directory = DumpDir::open(dump.path()).expect("the directory");
        let handed = reception.next().await.expect("a caller").hand_over().await.expect("rows");
        assert_eq!(handed.name(&directory).expect("a name").as_str(), "s.t.00000.sql.zst");

        std::fs::rename(&path, dump.path().join("other")).expect("another name");
        assert_eq!(handed.name(&directory).expect("its name now").as_str(), "other");
        std::fs::remove_file(dump.path().join("other")).expect("removed");
        assert!(handed.name(&directory).is_err(), "nothing is there under that name");

        let mut rows = handed.taken();
        let mut word = [0];
        answer.read_exact(&mut word).expect("an answer");
        assert_eq!(word, [TAKEN]);
        writer.write_all(b"INSERT").expect("rows");
        drop(writer);
        let mut text = String::new();
        rows.read_to_string(&mut text).expect("rows");
        assert_eq!(text, "INSERT");
        let place = reception.place.path().to_owned();
        reception.close().expect("closed");
        assert!(!place.exists());
    }

    #[tokio::test]
    async fn who_hands_nothing_over_is_an_error_and_a_file_elsewhere_has_no_name() {
        let dump = tempfile::tempdir().expect("a directory");
        let directory = DumpDir::open(dump.path()).expect("the directory");
        let reception = Reception::open().expect("a reception");
        drop(std::os::unix::net::UnixStream::connect(socket_in(&reception.directory)).expect("a connection"));
        assert!(reception.next().await.expect("a caller").hand_over().await.is_err());

        let elsewhere = tempfile::NamedTempFile::new().expect("a file");
        let _answer = pass(&reception, io::pipe().expect("a pipe").0, elsewhere.as_file());
        let handed = reception.next().await.expect("a caller").hand_over().await.expect("rows");
        assert!(handed.name(&directory).is_err_and(|why| why.contains("not in the dump directory")));
        let program = reception.program();
        let words: Vec<_> = program.split(' ').collect();
        assert_eq!(words.len(), 4, "{program}");
        assert!(Path::new(words[0]).exists() && Path::new(words[2]).exists(), "{program}");
        reception.close().expect("closed");
    }
}
