//! The directory that a dump is restored into. Files come into it under names that myloader ignores, and get their own
//! when they are proved.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, anyhow};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tracing::info;

use super::NAMED_MAX;
use super::plan::Plan;
use crate::dump_dir::DumpDir;
use crate::hint::{HintExt, hinted};
use crate::model::file_kind::{is_never_data, is_of_the_filesystem};
use crate::model::file_name::{FileName, METADATA};
use crate::model::units::first_few;

/// How a file is called until it is proved. myloader takes what has `.sql` or `.dat` in its name, `metadata…` and
/// `resume…`, and ignores all else.
const TEMPORARY: (&str, &str) = (".mydumper2s3-", ".download");

/// What stands in the directory under a wanted name.
#[derive(Debug, PartialEq, Eq)]
pub enum Local {
    /// Nothing.
    Absent,
    /// The file itself.
    Right,
    /// Another file, and how it differs.
    Different(String),
    /// Something that is no file: not even `--overwrite` touches it.
    Unfit(String),
}

/// The directory, held open and locked: all that follows means this one, whatever stands at its path by then.
#[derive(Debug)]
pub struct RestoreDir {
    directory: Arc<DumpDir>,
    next: AtomicU64,
    /// Whether it is to last through a power cut.
    lasts: bool,
}

/// A file that is not proved yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Temporary {
    /// There until it is dropped.
    file: Option<Arc<File>>,
    directory: Arc<DumpDir>,
    name: String,
}

/// Whether a name is one of ours for files that are not proved.
pub fn is_temporary(name: &str) -> bool {
    let number = name.strip_prefix(TEMPORARY.0).and_then(|rest| rest.strip_suffix(TEMPORARY.1));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

impl RestoreDir {
    /// Opens the directory, and makes it where there is none: for this user alone, as its files are.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make '{}'", parent.display()))?;
        }
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io::Error::from(error)).context(format!("cannot make '{}'", path.display())),
        }
        let directory = DumpDir::open(path).with_context(|| format!("cannot open '{}'", path.display()))?;
        if !directory.lock().context("cannot lock the directory")? {
            return Err(anyhow!("another mydumper2s3 works in '{}'", path.display()))
                .hint("wait for it, or choose another directory");
        }
        let directory = Self { directory: Arc::new(directory), next: AtomicU64::new(0), lasts: true };
        directory.remove_temporaries().context("cannot remove what a killed run left behind")?;
        Ok(directory)
    }

    /// The same for a directory that goes when we do: nothing need reach a disk.
    pub fn open_private(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { lasts: false, ..Self::open(path)? })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn free_space(&self) -> io::Result<u64> {
        self.directory.space().map(|space| space.free)
    }

    /// The regular file of that name, or what stands there instead.
    pub fn look(&self, name: &FileName) -> io::Result<Result<File, Local>> {
        let stat = match rustix::fs::statat(self.directory.descriptor(), name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Err(Local::Absent)),
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.directory.open_file(name.as_str()).map(Ok),
            FileType::Symlink => Ok(Err(Local::Unfit("is a symlink".to_owned()))),
            _ => Ok(Err(Local::Unfit("is no regular file".to_owned()))),
        }
    }

    /// Files that are not of this dump would be loaded with it; and a directory that holds other things, and nothing of
    /// this dump, was hardly meant.
    pub fn check_strangers(&self, plan: &Plan, overwrite: bool) -> anyhow::Result<()> {
        let path = self.path().display();
        let (mut strangers, mut others, mut is_begun) = (Vec::new(), Vec::new(), false);
        for name in self.directory.names().with_context(|| format!("cannot list '{path}'"))? {
            let name = name.to_string_lossy();
            let is_of_dump = name.parse().is_ok_and(|name: FileName| plan.of_dump.contains(&name));
            let is_ours =
                name == METADATA && plan.salvaged_metadata().is_some_and(|text| self.may_salvage(text, overwrite));
            let quoted = || format!("'{}'", name.escape_debug());
            match () {
                () if is_of_dump || is_ours => is_begun = true,
                () if is_read_by_myloader(&name) => strangers.push(quoted()),
                () if is_temporary(&name) || is_of_the_filesystem(&name) => {}
                () => others.push(quoted()),
            }
        }
        if !is_begun && !others.is_empty() && strangers.is_empty() {
            others.sort();
            let error =
                anyhow!("'{path}' holds other things, and nothing of this dump: {}", first_few(&others, NAMED_MAX));
            return Err(hinted(error, "choose an empty directory, or one that is not there yet"));
        }
        if strangers.is_empty() {
            return Ok(());
        }
        strangers.sort();
        let error = anyhow!("'{path}' holds files that are not of this dump: {}", first_few(&strangers, NAMED_MAX));
        Err(hinted(error, "myloader would read them, too: choose an empty directory"))
    }

    /// Whether a `metadata` that is no object may be written: over its like, or where files may be replaced.
    fn may_salvage(&self, text: &str, overwrite: bool) -> bool {
        let mut there = Vec::new();
        let read = self.directory.open_file(METADATA).and_then(|mut file| file.read_to_end(&mut there));
        read.is_ok() && (overwrite || there == text.as_bytes())
    }

    /// A new file for bytes that are not proved yet.
    pub fn create(&self) -> io::Result<Temporary> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}{number}{}", TEMPORARY.0, TEMPORARY.1);
            match rustix::fs::openat(self.directory.descriptor(), &name, flags, mode) {
                Ok(file) => {
                    let (file, directory) = (Some(Arc::new(file.into())), Arc::clone(&self.directory));
                    return Ok(Temporary { file, directory, name });
                }
                // Somebody else's, whatever it is.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives a file that is proved its name. Its bytes are on the disk before that. On a thread of its own: that takes its
    /// time, and so does what a large file leaves free that another one replaces.
    pub async fn accept(&self, temporary: Temporary, name: &FileName, overwrite: bool) -> io::Result<()> {
        let name = name.clone();
        let lasts = self.lasts;
        let accept = move || temporary.accept(name.as_str(), overwrite, lasts);
        tokio::task::spawn_blocking(accept).await.map_err(io::Error::other)?
    }

    /// Takes `metadata` away while the files that it stands for are not all there.
    pub fn remove_metadata(&self) -> io::Result<()> {
        match rustix::fs::unlinkat(self.directory.descriptor(), METADATA, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A small file that stands there, as a whole.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.directory.open_file(name)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes a `metadata` that is no object.
    pub fn write_metadata(&self, text: &[u8]) -> io::Result<()> {
        self.replace(METADATA, METADATA, text)
    }

    /// Writes a file in place of another one, under the same name or another.
    pub fn replace(&self, old: &str, new: &str, text: &[u8]) -> io::Result<()> {
        let temporary = self.create()?;
        (&**temporary.file()).write_all(text)?;
        if self.lasts {
            temporary.file().sync_all()?;
        }
        let directory = self.directory.descriptor();
        rustix::fs::renameat(&directory, &temporary.name, &directory, new)?;
        if old != new {
            rustix::fs::unlinkat(&directory, old, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Makes the names last through a power cut.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.directory.descriptor())?)
    }

    fn remove_temporaries(&self) -> io::Result<()> {
        let mut left = Vec::new();
        self.directory.each(|entry| {
            if entry.file_type == FileType::RegularFile && entry.name.to_str().is_some_and(is_temporary) {
                left.push(entry.name.to_owned());
            }
        })?;
        for name in &left {
            rustix::fs::unlinkat(self.directory.descriptor(), name, AtFlags::empty())?;
        }
        let removed = left.len();
        if removed > 0 {
            info!("removed {removed} unfinished downloads that a run left behind");
        }
        Ok(())
    }
}

impl Temporary {
    /// The file.
    pub fn file(&self) -> &Arc<File> {
        self.file.as_ref().expect("it is there until this is dropped")
    }

    fn accept(&self, name: &str, overwrite: bool, lasts: bool) -> io::Result<()> {
        if lasts {
            self.file().sync_all()?;
        }
        let (directory, from) = (self.directory.descriptor(), self.name.as_str());
        if overwrite {
            return Ok(rustix::fs::renameat(&directory, from, &directory, name)?);
        }
        match rustix::fs::renameat_with(&directory, from, &directory, name, RenameFlags::NOREPLACE) {
            // Some filesystems do not know this flag; a link refuses as well where something stands.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                Ok(rustix::fs::linkat(&directory, from, &directory, name, AtFlags::empty())?)
            }
            result => Ok(result?),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It has its own name by now where it was accepted.
        if rustix::fs::unlinkat(self.directory.descriptor(), &self.name, AtFlags::empty()).is_ok() {
            // Its bytes are freed with its last descriptor. Of a large file that takes seconds, and this may be the thread
            // that serves network and signals.
            let file = self.file.take();
            let _ = std::thread::Builder::new().name("close".to_owned()).spawn(move || drop(file));
        }
    }
}

/// What myloader looks at, of either generation.
fn is_read_by_myloader(name: &str) -> bool {
    name.contains(".sql") || name.contains(".dat") || name.starts_with(METADATA) || is_never_data(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn temporary_names_mean_nothing_to_myloader() {
        assert!(is_temporary(".mydumper2s3-7.download"));
        assert!(!is_read_by_myloader(".mydumper2s3-7.download"));
        for other in [".mydumper2s3-.download", ".mydumper2s3-a.sql.download", "x.mydumper2s3-1.download", "a.sql"] {
            assert!(!is_temporary(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_name_is_both(name in "(\\.mydumper2s3-)?[0-9a-z.]{0,8}(\\.download)?") {
            prop_assert!(!(is_temporary(&name) && is_read_by_myloader(&name)));
        }
    }
}
