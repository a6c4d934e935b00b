//! Who waits to open which FIFO, as far as the kernel tells: a hint that spares asking each of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::model::file_name::FileName;
use crate::platform::{self, Openings};

/// After so many looks it is looked again which processes there are.
const FAMILY_EVERY: u32 = 50;
/// The most processes of a program that are looked at.
const FAMILY_MAX: usize = 256;

/// A program's processes, and the names that they may open.
#[derive(Debug)]
pub struct Openers {
    /// The process that was started; 0 before.
    root: Arc<AtomicI32>,
    numbers: HashMap<OsString, usize>,
    /// Whether each file is opened by a process that is started for it, as of a compressed one.
    has_helpers: bool,
    family: HashMap<i32, Openings>,
    looks: u32,
}

impl Openers {
    /// Of the program whose process number will stand in `root`; names in the order of their numbers.
    pub fn new(names: &[FileName], root: Arc<AtomicI32>) -> Self {
        let numbers = names.iter().enumerate();
        let numbers = numbers.map(|(number, name)| (OsString::from(name.as_str()), number)).collect();
        let is_compressed = |name: &FileName| matches!(name.as_str().rsplit_once('.'), Some((_, "gz" | "zst")));
        let has_helpers = names.iter().any(is_compressed);
        Self { root, numbers, has_helpers, family: HashMap::new(), looks: 0 }
    }

    /// The numbers of those that somebody waits for now; `None` where that cannot be told.
    pub fn wanted(&mut self) -> Option<Vec<usize>> {
        let root = self.root.load(Ordering::Relaxed);
        if root == 0 {
            return None;
        }
        // Threads come and go seldom.
        let is_due = self.looks.is_multiple_of(FAMILY_EVERY);
        if self.has_helpers || is_due {
            self.find_family(root, is_due).ok()?;
        }
        self.looks = self.looks.wrapping_add(1);
        let mut wanted = Vec::new();
        for openings in self.family.values() {
            let paths = openings.paths().ok()?;
            wanted.extend(paths.into_iter().filter_map(|path| self.number_of(path)));
        }
        Some(wanted)
    }

    fn find_family(&mut self, root: i32, is_due: bool) -> io::Result<()> {
        let family = family(root);
        self.family.retain(|pid, _| !is_due && family.contains(pid));
        for pid in family {
            if let Entry::Vacant(place) = self.family.entry(pid) {
                match Openings::of(pid) {
                    Ok(openings) => drop(place.insert(openings)),
                    // One that has ended is of no interest; the end of the first will be known soon.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn number_of(&self, path: OsString) -> Option<usize> {
        // Under whatever path: a wrong hint costs a question.
        self.numbers.get(Path::new(&path).file_name()?).copied()
    }
}

/// A process and all that it started.
fn family(root: i32) -> Vec<i32> {
    let mut family = vec![root];
    let mut at = 0;
    while at < family.len() && family.len() < FAMILY_MAX {
        family.extend(platform::children(family[at]));
        at += 1;
    }
    family
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::{File, OpenOptions};

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn who_waits_to_open_a_pipe_is_known() {
        let directory = tempfile::tempdir().expect("a directory");
        let names = ["shop.a.sql", "shop.b.sql"].map(|name| FileName::try_from(name.to_owned()).expect("a name"));
        let pipe = directory.path().join("shop.b.sql");
        mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).expect("a pipe");
        let root = Arc::new(AtomicI32::new(0));
        let mut openers = Openers::new(&names, Arc::clone(&root));
        assert_eq!(openers.wanted(), None, "nobody was started");
        root.store(std::process::id().cast_signed(), Ordering::Relaxed);
        let path = pipe.clone();
        let reader = std::thread::spawn(move || File::open(path).map(drop));
        while openers.wanted() != Some(vec![1]) {
            std::thread::yield_now();
        }
        drop(OpenOptions::new().write(true).open(&pipe).expect("the other end"));
        reader.join().expect("the reader").expect("opened");
        assert_eq!(openers.wanted(), Some(vec![]));
    }
}
