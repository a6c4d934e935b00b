//! FIFOs in place of data files, and which of them somebody opens to read.
//!
//! A FIFO cannot be opened for writing without waiting before somebody reads it (ENXIO): that tells which file is wanted
//! now. 100,000 such questions take 0.36 s. So those are asked that the reader waits for, as the kernel tells (`openers`),
//! and few others in each round, so that all are. Where it does not tell, those that are likely are asked in each round; of
//! all others many, as long as files are opened, and few while those that are open keep their reader busy.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat, openat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::openers::Openers;
use crate::model::file_name::FileName;

/// Between two rounds of questions.
const ROUND: Duration = Duration::from_millis(5);
/// The same where the kernel tells who waits, while files are opened.
const SHORT_ROUND: Duration = Duration::from_millis(1);
/// The same while those that are open keep their reader busy.
const LONG_ROUND: Duration = Duration::from_millis(20);
/// Rounds in which every FIFO is asked once, while nothing is opened.
const SWEEP_ROUNDS: usize = 400;
/// The same where the kernel tells who waits.
const SLOW_SWEEP_ROUNDS: usize = 1_000;
/// The most questions of a round while files are opened: they take less time than the round.
const QUESTIONS_MAX: usize = 1_000;
/// How many rounds without a file that was opened make rounds long.
const BUSY_AFTER: u32 = 500;
/// How many rounds without a file that was opened count as nothing being opened.
const QUIET_AFTER: u32 = 100;
/// So many of those that were opened last are remembered.
const RECENT_MAX: usize = 32;
/// So many behind each of them are likely to be next.
const LIKELY: usize = 4;
/// What a pipe holds, in bytes, where the kernel allows it: the fewer times a reader waits, the better.
const CAPACITY: usize = 1024 * 1024;

/// FIFOs of a private directory, each under its number.
#[derive(Debug)]
pub struct Pipes {
    directory: OwnedFd,
    count: usize,
    reader: Arc<AtomicI32>,
    openers: Openers,
}

/// A FIFO that somebody reads.
#[derive(Debug)]
pub struct Opened {
    /// Its number.
    pub number: usize,
    /// Its writing end. Closing it says that all was written.
    pub writer: OwnedFd,
}

/// The questions, on a thread of their own; they end when it is dropped.
#[derive(Debug)]
pub struct Watch {
    is_over: Arc<AtomicBool>,
    reader: Arc<AtomicI32>,
    opened: mpsc::Receiver<io::Result<Opened>>,
}

/// What a FIFO of that number is called.
pub fn name_of(number: usize) -> String {
    format!("{number:06}")
}

impl Pipes {
    /// Makes FIFOs in an empty directory, one for each of the names under which they will be read.
    pub fn make(directory: &Path, names: &[FileName]) -> io::Result<Self> {
        let count = names.len();
        let directory = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for number in 0..count {
            mkfifoat(&directory, name_of(number), Mode::RUSR | Mode::WUSR)?;
        }
        let reader = Arc::default();
        let openers = Openers::new(names, Arc::clone(&reader));
        Ok(Self { directory, count, reader, openers })
    }

    /// Asks from now on which of them are read. `on_open`, which may block, gets each that is, before anybody else does.
    pub fn watch(self, on_open: impl Fn(&Opened) + Send + 'static) -> io::Result<Watch> {
        let (is_over, reader) = (Arc::new(AtomicBool::new(false)), Arc::clone(&self.reader));
        let (sender, opened) = mpsc::channel(RECENT_MAX);
        let mut asking = Asking::new(self, Arc::clone(&is_over), sender, Box::new(on_open));
        std::thread::Builder::new().name("pipes".to_owned()).spawn(move || asking.run())?;
        Ok(Watch { is_over, reader, opened })
    }
}

impl Watch {
    /// This process, or what it starts, will read them.
    pub fn follow(&self, pid: i32) {
        self.reader.store(pid, Ordering::Relaxed);
    }

    /// The next one that somebody reads; `None` when all were.
    pub async fn next(&mut self) -> Option<io::Result<Opened>> {
        self.opened.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

struct Asking {
    pipes: Pipes,
    is_over: Arc<AtomicBool>,
    sender: mpsc::Sender<io::Result<Opened>>,
    on_open: Box<dyn Fn(&Opened) + Send>,
    /// Whether each was opened.
    is_opened: Vec<bool>,
    left: usize,
    recent: VecDeque<usize>,
    /// Where the sweep goes on.
    sweep: usize,
    /// Rounds since a file was opened.
    quiet: u32,
    /// Whether the kernel tells who waits.
    is_told: bool,
}

impl Asking {
    fn new(
        pipes: Pipes,
        is_over: Arc<AtomicBool>,
        sender: mpsc::Sender<io::Result<Opened>>,
        on_open: Box<dyn Fn(&Opened) + Send>,
    ) -> Self {
        let (is_opened, left) = (vec![false; pipes.count], pipes.count);
        Self {
            pipes,
            is_over,
            sender,
            on_open,
            is_opened,
            left,
            recent: VecDeque::new(),
            sweep: 0,
            quiet: 0,
            is_told: false,
        }
    }

    fn run(&mut self) {
        while self.left > 0 && !self.is_over.load(Ordering::Relaxed) {
            match self.round() {
                Ok(0) => std::thread::sleep(match self.quiet {
                    ..QUIET_AFTER if self.is_told => SHORT_ROUND,
                    BUSY_AFTER.. if self.is_told => LONG_ROUND,
                    _ => ROUND,
                }),
                // Whoever opened one may be about to open the next.
                Ok(_) => {}
                Err(error) => {
                    let _ = self.sender.blocking_send(Err(error));
                    return;
                }
            }
        }
    }

    /// Asks the likely ones, and some of all; returns how many were opened.
    fn round(&mut self) -> io::Result<usize> {
        let count = self.pipes.count;
        let wanted = self.pipes.openers.wanted();
        self.is_told = wanted.is_some();
        let questions = match self.quiet {
            _ if self.is_told => count.div_ceil(SLOW_SWEEP_ROUNDS),
            ..QUIET_AFTER => QUESTIONS_MAX,
            _ => count.div_ceil(SWEEP_ROUNDS).max(LIKELY),
        };
        let likely = || self.recent.iter().flat_map(|last| self.behind(*last)).collect();
        let likely: Vec<usize> = wanted.unwrap_or_else(likely);
        let some: Vec<usize> = (0..questions.min(count)).map(|step| (self.sweep + step) % count).collect();
        self.sweep = (self.sweep + some.len()) % count.max(1);
        let mut opened = 0;
        for number in likely.into_iter().chain(some) {
            opened += usize::from(!self.is_opened[number] && self.ask(number)?);
        }
        self.quiet = if opened > 0 { 0 } else { self.quiet.saturating_add(1) };
        Ok(opened)
    }

    fn behind(&self, last: usize) -> impl Iterator<Item = usize> + '_ {
        (last + 1..self.pipes.count).filter(|number| !self.is_opened[*number]).take(LIKELY)
    }

    fn ask(&mut self, number: usize) -> io::Result<bool> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let writer = match openat(&self.pipes.directory, name_of(number), flags, Mode::empty()) {
            Ok(writer) => writer,
            Err(Errno::NXIO | Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let opened = Opened { number, writer };
        (self.on_open)(&opened);
        let _ = rustix::pipe::fcntl_setpipe_size(&opened.writer, CAPACITY);
        self.is_opened[number] = true;
        self.left -= 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(number);
        // Nobody takes it where all is over: then it is closed, and whoever reads it is dead.
        let _ = self.sender.blocking_send(Ok(opened));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    fn names(count: usize) -> Vec<FileName> {
        (0..count).map(|number| FileName::try_from(format!("shop.t{number}.sql")).expect("a name")).collect()
    }

    /// Whoever reads, in whatever order: each is found once, and gets its own bytes and its end; also where the kernel tells
    /// who waits.
    #[tokio::test]
    async fn each_pipe_is_found_when_somebody_reads_it() {
        const COUNT: usize = 1_000;
        for is_told in [false, true] {
            let directory = tempfile::tempdir().expect("a directory");
            let (pipes, links) = (directory.path().join("pipes"), directory.path().join("links"));
            for directory in [&pipes, &links] {
                std::fs::create_dir(directory).expect("a directory");
            }
            let names = names(COUNT);
            let mut watch = Pipes::make(&pipes, &names).expect("pipes").watch(|_| ()).expect("a watch");
            for (number, name) in names.iter().enumerate() {
                std::os::unix::fs::symlink(pipes.join(name_of(number)), links.join(name.as_str())).expect("a link");
            }
            if is_told {
                watch.follow(std::process::id().cast_signed());
            }
            // One after the other, from both ends.
            let order: Vec<usize> = (0..COUNT / 2).flat_map(|number| [number, COUNT - 1 - number]).collect();
            let wanted = order.clone();
            let reader = std::thread::spawn(move || {
                let read = |number: &usize| {
                    let mut text = String::new();
                    let mut pipe = File::open(links.join(names[*number].as_str())).expect("a pipe");
                    pipe.read_to_string(&mut text).expect("text");
                    text
                };
                wanted.iter().map(read).collect::<Vec<_>>()
            });
            let mut found = Vec::new();
            while let Some(opened) = watch.next().await {
                let Opened { number, writer } = opened.expect("a pipe");
                found.push(number);
                File::from(writer).write_all(number.to_string().as_bytes()).expect("written");
            }
            assert_eq!(found, order);
            let texts = reader.join().expect("the reader");
            assert_eq!(texts, order.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn without_a_file_nothing_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut watch = Pipes::make(directory.path(), &[]).expect("no pipe").watch(|_| ()).expect("a watch");
        assert!(watch.next().await.is_none());
    }
}
