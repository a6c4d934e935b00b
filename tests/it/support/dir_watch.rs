//! What happens to a directory, as the kernel tells it: whether somebody looks at it, and who makes and changes files.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::sandbox::eventually;

pub struct DirWatch {
    inotify: OwnedFd,
    opens: usize,
    made: BTreeMap<String, usize>,
    written: BTreeMap<String, usize>,
}

impl DirWatch {
    pub fn on(dir: &Path) -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("an inotify descriptor");
        let wanted = WatchFlags::OPEN | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&inotify, dir, wanted).expect("a watch on a directory");
        DirWatch { inotify, opens: 0, made: BTreeMap::new(), written: BTreeMap::new() }
    }

    /// Waits until the directory itself was opened so many times from now on. The program does it in each of its looks.
    #[track_caller]
    pub fn wait_for_opens(&mut self, count: usize) {
        self.take_in();
        let wanted = self.opens + count;
        eventually("the program looks at the directory", || {
            self.take_in();
            self.opens >= wanted
        });
    }

    /// How often a file of each name was made or moved there, by whomever.
    pub fn made(&mut self) -> BTreeMap<String, usize> {
        self.take_in();
        self.made.clone()
    }

    /// How often a file of each name was closed after it was open for writing, by whomever.
    pub fn written(&mut self) -> BTreeMap<String, usize> {
        self.take_in();
        self.written.clone()
    }

    fn take_in(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return,
                Err(error) => panic!("an inotify event: {error}"),
            };
            let flags = event.events();
            assert!(!flags.contains(ReadFlags::QUEUE_OVERFLOW), "more happened than the kernel could tell");
            match event.file_name() {
                None if flags.contains(ReadFlags::OPEN) => self.opens += 1,
                Some(name) if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) => {
                    *self.made.entry(name.to_string_lossy().into_owned()).or_default() += 1;
                }
                Some(name) if flags.contains(ReadFlags::CLOSE_WRITE) => {
                    *self.written.entry(name.to_string_lossy().into_owned()).or_default() += 1;
                }
                _ => {}
            }
        }
    }
}
