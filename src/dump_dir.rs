//! The dump directory: list, open, stat, and remove what is proved. Nothing of ours is ever written into it.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{Access, AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::model::disk_forecast::Space;
use crate::model::file_name::{METADATA, METADATA_PARTIAL};
use crate::model::full_disk::{FullDisk, Looks};
use crate::model::identity::FileIdentity;

/// A directory that is held open, so that all that follows means this directory, whatever stands at its path by then.
#[derive(Debug)]
pub struct DumpDir {
    descriptor: OwnedFd,
    path: PathBuf,
    /// What is seen of the free space while a dump is being written here. Held while the filesystem is asked, which may
    /// take its time; what came of it is beside it.
    looks: Mutex<Option<Looks>>,
    full_disk: Fullest,
}

/// An entry of the directory.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a OsStr,
    /// Its inode number, as the directory has it.
    pub inode: u64,
    /// What it is.
    pub file_type: FileType,
}

/// What became of a file that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, by us.
    Removed,
    /// It was gone already.
    Absent,
    /// Another file stands there, or the file was changed: it was left alone.
    Changed,
}

/// What became of blocks that were to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// They are.
    Given,
    /// Nothing, this time.
    NotNow,
    /// The filesystem cannot.
    Unsupported,
}

/// Up to where a file has no data: what was given back of it, where that was not written anew since.
pub fn hole_at_start(file: &File) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(0)) {
        Ok(data) => Ok(data),
        // There is none at all.
        Err(Errno::NXIO) => Ok(file.metadata()?.len()),
        Err(error) => Err(error.into()),
    }
}

impl DumpDir {
    /// Opens the directory that stands at `path` now.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { descriptor, path: path.to_owned(), looks: Mutex::default(), full_disk: Fullest::default() })
    }

    /// Its path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `path` still leads to this directory: a script may have removed it and made it again.
    pub fn is_current(&self) -> bool {
        Self::open(&self.path).is_ok_and(|there| self.is_same(&there))
    }

    /// Whether both are one directory.
    pub fn is_same(&self, other: &Self) -> bool {
        let both = (rustix::fs::fstat(&self.descriptor), rustix::fs::fstat(&other.descriptor));
        matches!(both, (Ok(one), Ok(two)) if (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino))
    }

    /// Takes the lock that keeps a second program off this directory; false if another holds it. It is a lock on the
    /// directory itself, so there is no file to leave behind, and it ends with this value or this process.
    pub fn lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.descriptor, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of everything in the directory, in no order.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.each(|entry| names.push(entry.name.to_owned()))?;
        Ok(names)
    }

    /// Everything in the directory, in no order.
    pub fn each(&self, mut visit: impl FnMut(Entry<'_>)) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.descriptor)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let file_type = match entry.file_type() {
                // Some filesystems leave the type out of the directory.
                FileType::Unknown => match self.file_type(name) {
                    Ok(there) => there,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                },
                known => known,
            };
            visit(Entry { name, inode: entry.ino(), file_type });
        }
        Ok(())
    }

    /// Opens a regular file for reading. Never through a symlink, and without waiting: opening a FIFO would block, or
    /// steal what its reader waits for.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_identified(name).map(|(file, _)| file)
    }

    /// The same, and what the file is now.
    pub fn open_identified(&self, name: impl AsRef<OsStr>) -> io::Result<(File, FileIdentity)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let name = name.as_ref();
        let file: File = rustix::fs::openat(&self.descriptor, name, flags, Mode::empty())?.into();
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        Ok((file, unmoved(name, identity_of_metadata(&metadata))))
    }

    /// What stands under that name, without following a symlink.
    pub fn file_type(&self, name: impl AsRef<OsStr>) -> io::Result<FileType> {
        let stat = rustix::fs::statat(&self.descriptor, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// The identity of what stands under that name, without following a symlink.
    pub fn identity(&self, name: impl AsRef<OsStr>) -> io::Result<FileIdentity> {
        let stat = rustix::fs::statat(&self.descriptor, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(unmoved(name.as_ref(), identity_of_stat(&stat)))
    }

    /// Removes a file whose object is proved, but only if it is still the file that was read.
    pub fn remove_verified(&self, name: impl AsRef<OsStr>, read: &FileIdentity) -> io::Result<Removal> {
        match self.identity(name.as_ref()) {
            Ok(there) if there == *read => {}
            Ok(_) => return Ok(Removal::Changed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Removal::Absent),
            Err(error) => return Err(error),
        }
        // What is freed here must not hide what mydumper writes.
        self.look_at_space();
        let removal = match rustix::fs::unlinkat(&self.descriptor, name.as_ref(), AtFlags::empty()) {
            Ok(()) => Ok(Removal::Removed),
            Err(Errno::NOENT) => Ok(Removal::Absent),
            Err(error) => Err(error.into()),
        };
        self.with_looks(|looks, space| looks.after_removal(space));
        removal
    }

    /// Why blocks of files could not be given back here, tried with a file that has no name.
    pub fn why_not_given_back(&self) -> Option<String> {
        const HOLE: u64 = 64 * 1024;
        let tried = || -> io::Result<bool> {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let file: File = rustix::fs::openat(&self.descriptor, ".", flags, Mode::RUSR | Mode::WUSR)?.into();
            file.write_all_at(&[1; 2 * HOLE as usize], 0)?;
            rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, HOLE)?;
            Ok(hole_at_start(&file)? == HOLE)
        };
        match tried() {
            Ok(true) => None,
            Ok(false) => Some("the filesystem does not tell what was given back".to_owned()),
            Err(error) => Some(format!("the filesystem cannot: {error}")),
        }
    }

    /// Gives the blocks of a file's first `to` bytes back to the filesystem; its size stays, and whoever writes it is not
    /// disturbed. `file` is the one that was read. Nobody else may think meanwhile that we write it, so what is opened for
    /// that is closed at once.
    pub fn give_back(&self, name: impl AsRef<OsStr>, file: &File, to: u64) -> io::Result<GivenBack> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let writable: File = match rustix::fs::openat(&self.descriptor, name.as_ref(), flags, Mode::empty()) {
            Ok(writable) => writable.into(),
            // A lease of our own, for a moment.
            Err(Errno::WOULDBLOCK) => return Ok(GivenBack::NotNow),
            Err(error) => return Err(error.into()),
        };
        let (there, read) = (identity_of(&writable)?, identity_of(file)?);
        if (there.device, there.inode) != (read.device, read.inode) || there.size <= to {
            return Ok(GivenBack::NotNow);
        }
        // What is freed here must not hide what mydumper writes.
        self.look_at_space();
        let given = rustix::fs::fallocate(&writable, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, to);
        self.with_looks(|looks, space| looks.after_removal(space));
        match given {
            Ok(()) => Ok(GivenBack::Given),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(GivenBack::Unsupported),
            Err(error) => Err(error.into()),
        }
    }

    /// Why files cannot be removed here, found without removing one: `name` is an example of them.
    pub fn why_not_removable(&self, name: impl AsRef<OsStr>) -> Option<String> {
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        if let Err(error) = rustix::fs::accessat(&self.descriptor, ".", wanted, AtFlags::EACCESS) {
            return Some(format!("this user may not write to the directory ({})", io::Error::from(error)));
        }
        let directory = rustix::fs::fstat(&self.descriptor).ok()?;
        let file = rustix::fs::statat(&self.descriptor, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let sticky = Mode::from_raw_mode(directory.st_mode).contains(Mode::SVTX);
        let user = rustix::process::geteuid();
        let owner = user.is_root() || [directory.st_uid, file.st_uid].contains(&user.as_raw());
        (sticky && !owner)
            .then(|| "the directory is sticky, and neither it nor the file belongs to this user".to_owned())
    }

    /// The user id that owns a file.
    pub fn owner_of(&self, name: impl AsRef<OsStr>) -> Option<u32> {
        rustix::fs::statat(&self.descriptor, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_uid)
    }

    /// The room on its filesystem.
    pub fn space(&self) -> io::Result<Space> {
        let filesystem = rustix::fs::fstatvfs(&self.descriptor)?;
        let bytes = |blocks: u64| blocks.saturating_mul(filesystem.f_frsize);
        Ok(Space {
            free: bytes(filesystem.f_bavail),
            free_for_root: bytes(filesystem.f_bfree),
            total: bytes(filesystem.f_blocks),
        })
    }

    /// From now on free space is looked at, for a dump that is being written and has this lead.
    pub fn begin_looks(&self, lead: &str) {
        let mut looks = self.looks();
        *looks = Some(Looks::new(self.owner_of(lead) == Some(0)));
        self.full_disk.set(None);
    }

    /// The dump has ended: what its files free says nothing any more.
    pub fn end_looks(&self) {
        *self.looks() = None;
    }

    /// Looks at the free space, where that was begun; returns how full the disk was at its fullest.
    pub fn look_at_space(&self) -> Option<FullDisk> {
        self.with_looks(|looks, space| looks.look(space, Instant::now()));
        self.full_disk()
    }

    /// How full the disk was at its fullest, as far as was looked.
    pub fn full_disk(&self) -> Option<FullDisk> {
        self.full_disk.get()
    }

    fn with_looks(&self, change: impl FnOnce(&mut Looks, Space)) {
        let mut looks = self.looks();
        if let Some(looks) = looks.as_mut()
            && let Ok(space) = self.space()
        {
            change(looks, space);
            self.full_disk.set(looks.worst());
        }
    }

    fn looks(&self) -> MutexGuard<'_, Option<Looks>> {
        // They change in single steps, so a panic elsewhere leaves them usable.
        self.looks.lock()
    }

    /// The directory's own descriptor.
    pub fn descriptor(&self) -> impl AsFd + '_ {
        self.descriptor.as_fd()
    }
}

/// How full the disk was at its fullest, to be read without waiting.
#[derive(Debug, Default)]
struct Fullest(AtomicU8);

impl Fullest {
    fn set(&self, worst: Option<FullDisk>) {
        let level = match worst {
            None => 0,
            Some(FullDisk::MayHaveBeen) => 1,
            Some(FullDisk::Was) => 2,
        };
        self.0.store(level, Ordering::Relaxed);
    }

    fn get(&self) -> Option<FullDisk> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(FullDisk::MayHaveBeen),
            _ => Some(FullDisk::Was),
        }
    }
}

/// The identity of a file by its name. Our own record on the dump's lead moves that file's `ctime`, so of the lead it
/// says nothing: its text is compared, and its `mtime`.
pub fn unmoved(name: &OsStr, identity: FileIdentity) -> FileIdentity {
    if name == METADATA || name == METADATA_PARTIAL { FileIdentity { changed: 0, ..identity } } else { identity }
}

/// The identity of an open file.
pub fn identity_of(file: &File) -> io::Result<FileIdentity> {
    file.metadata().map(|metadata| identity_of_metadata(&metadata))
}

/// The identity of an open file, and when it was born, in nanoseconds since 1970, where the filesystem says.
pub fn identity_and_birth_of(file: &File) -> io::Result<(FileIdentity, Option<i64>)> {
    let metadata = file.metadata()?;
    let born = metadata.created().ok().and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
    let born = born.and_then(|born| born.as_nanos().try_into().ok());
    Ok((identity_of_metadata(&metadata), born))
}

fn identity_of_metadata(metadata: &Metadata) -> FileIdentity {
    FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    }
}

#[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
fn identity_of_stat(stat: &rustix::fs::Stat) -> FileIdentity {
    FileIdentity {
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
        size: stat.st_size as u64,
        modified: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        changed: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    }
}

/// Enough until the year 2262.
fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}
