//! Writes the record of what is gone from a dump directory: an extended attribute of the dump's lead.
//!
//! An attribute, because no file of ours may stand in the directory, and because it goes wherever the lead goes: it
//! survives the rename to `metadata`. ext4, xfs, btrfs, overlayfs and tmpfs (since Linux 6.6) have such attributes. ext4
//! keeps little more than a block of them: 960 bytes where blocks have 1 KiB, 4,032 where they have 4 KiB (measured).
//! One write costs 3 to 13 microseconds, and changes the lead's `ctime`.

use std::fs::File;
use std::io;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use tracing::warn;

use crate::model::file_name::FileName;
use crate::model::given_back::GivenBack;
use crate::model::record::{Kind, Objects, OnlyCopy, Place, Record, Seen, UploadMark};

/// The attribute's name.
pub const ATTRIBUTE: &str = "user.mydumper2s3";
/// The attribute's name beside a file that is given back part by part.
const GIVEN_BACK: &str = "user.mydumper2s3.parts";
/// What an attribute may have at most (Linux, `XATTR_SIZE_MAX`), in bytes.
const SIZE_MAX: usize = 64 * 1024;
/// What fits everywhere.
const SIZE_SMALL: usize = 960;
/// What fits where blocks have 4 KiB, as nearly everywhere: a record of more than one file that goes is kept below.
const SIZE_USUAL: usize = 4_000;
/// So many files are removed at a time.
const GOING_MAX: usize = 16;

/// Reads the record on a lead. `Ok(None)`: there is none, or there cannot be one.
pub fn read(lead: &File) -> Result<Option<Record>, String> {
    let mut text = vec![0; SIZE_MAX];
    match rustix::fs::fgetxattr(lead, ATTRIBUTE, &mut text) {
        Ok(length) => Record::read(&text[..length]).map(Some),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(None),
        Err(error) => Err(io::Error::from(error).to_string()),
    }
}

/// What stands beside a file of which blocks were given back. `Ok(None)`: none were, as far as can be told. Blocks.
pub fn read_given_back(file: &File) -> Result<Option<GivenBack>, String> {
    let mut text = vec![0; SIZE_MAX];
    match rustix::fs::fgetxattr(file, GIVEN_BACK, &mut text) {
        Ok(length) => GivenBack::read(&text[..length]).map(Some),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(None),
        Err(error) => Err(io::Error::from(error).to_string()),
    }
}

/// Writes beside a file what is about to be given back of it. Blocks.
pub fn write_given_back(file: &File, given: &GivenBack) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(file, GIVEN_BACK, &given.to_text(), XattrFlags::empty())?)
}

/// The record of one dump, and the only one that writes it. What writes blocks for as long as the filesystem takes.
#[derive(Debug)]
pub struct Recorder {
    lead: File,
    /// Never held while the filesystem is asked.
    inner: Mutex<Inner>,
    /// Held while the attribute is written, so that what stands there is always the newest.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    record: Record,
    limit: usize,
    /// Why there is no record, if there can be none.
    unsupported: Option<(io::ErrorKind, String)>,
    /// Whether that was said.
    is_said: bool,
    /// The disk was too full for the last change.
    is_behind: bool,
}

impl Recorder {
    /// Goes on with a record, or begins one. Nothing is written yet.
    pub fn new(lead: File, record: Record) -> Self {
        let inner = Inner { record, limit: SIZE_MAX, unsupported: None, is_said: false, is_behind: false };
        Self { lead, inner: Mutex::new(inner), writing: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The record is changed in single steps, so a panic elsewhere leaves it usable.
        self.inner.lock()
    }

    /// Settles what was being removed when an earlier run was interrupted, and returns the record. Blocks.
    pub fn settle(&self, is_there: impl Fn(&FileName) -> bool) -> Record {
        let mut record = self.lock().record.clone();
        record.settle(is_there);
        self.lock().record.clone_from(&record);
        record
    }

    /// The place was claimed: the files go there. Written with the next change.
    pub fn claimed(&self, place: &Place) {
        let record = &mut self.lock().record;
        (record.to, record.claimed) = (place.clone(), true);
    }

    /// Changes the record and writes it. Returns whether it stands there now. Blocks.
    pub fn note(&self, change: impl FnOnce(&mut Record)) -> bool {
        change(&mut self.lock().record);
        self.write().is_ok()
    }

    /// What kind of source it is of.
    pub fn kind(&self) -> Kind {
        self.lock().record.kind
    }

    /// Whether what is removed can be written down, as far as that was tried.
    pub fn is_possible(&self) -> bool {
        self.lock().unsupported.is_none()
    }

    /// Whether that is what was seen in all, by the record.
    pub fn has_seen(&self, seen: Seen) -> bool {
        self.lock().record.seen == seen
    }

    /// What was seen in all. Blocks.
    pub fn note_seen(&self, seen: Seen) {
        self.lock().record.seen = seen;
        // Said where it matters: at the first removal.
        let _ = self.write_if_supported();
    }

    /// A multipart upload was begun. Where that cannot be written down the next run leaves it alone, and begins anew. Blocks.
    pub fn begin_upload(&self, upload: UploadMark) {
        let is_new = self.lock().record.begin_upload(upload);
        if is_new {
            let _ = self.write_if_supported();
        }
    }

    /// It has ended; written with the next change.
    pub fn end_upload(&self, upload: UploadMark) {
        self.lock().record.uploads.retain(|known| *known != upload);
    }

    /// From now on an upload may hold the only copy of some bytes of a file. Returns whether that is written down. Blocks.
    pub fn keep_upload(&self, name: &FileName, upload: UploadMark) -> bool {
        if self.is_only_copy(upload) {
            return true;
        }
        self.lock().record.only_copies.push(OnlyCopy { name: name.clone(), upload });
        let is_written = self.write_if_supported().is_ok();
        if !is_written {
            self.lock().record.only_copies.retain(|kept| kept.upload != upload);
        }
        is_written
    }

    /// Whether an upload may hold the only copy of some bytes.
    pub fn is_only_copy(&self, upload: UploadMark) -> bool {
        self.lock().record.only_copies.iter().any(|kept| kept.upload == upload)
    }

    /// The object of such a file is proved, and its content was looked at; written with the next change.
    pub fn end_only_copy(&self, name: &FileName) {
        self.lock().record.only_copies.retain(|kept| kept.name != *name);
    }

    /// Files whose objects were made of what was given back, and whose content nobody looked at as a whole.
    pub fn unseen(&self) -> Vec<FileName> {
        self.lock().record.only_copies.iter().map(|kept| kept.name.clone()).collect()
    }

    /// Whether an upload was begun here or by an earlier run.
    pub fn has_upload(&self, upload: UploadMark) -> bool {
        self.lock().record.uploads.contains(&upload)
    }

    /// Proved files are about to be removed: the first ones of these, as many as can be written down at once, and at least
    /// one. Returns how many. Where that cannot be written down it is said once, and they are removed all the same. Blocks.
    pub fn begin_removals(&self, files: &[(FileName, Objects)]) -> usize {
        let mut count = files.len().min(GOING_MAX);
        let written = loop {
            let is_too_much = {
                let mut inner = self.lock();
                inner.record.going.extend_from_slice(&files[..count]);
                let limit = inner.limit.min(SIZE_USUAL);
                count > 1 && inner.record.to_text(limit).len() > limit
            };
            let written = if is_too_much { Ok(()) } else { self.write_if_supported() };
            // A smaller limit may have been met just now.
            let does_not_fit = is_too_much || (written.is_err() && self.is_possible());
            if count == 1 || !does_not_fit {
                break written;
            }
            self.lock().record.going.retain(|going| !files[..count].contains(going));
            count /= 2;
        };
        if let Err(error) = written {
            let mut inner = self.lock();
            if inner.unsupported.is_some() && !std::mem::replace(&mut inner.is_said, true) {
                drop(inner);
                warn!(
                    "what is removed here cannot be written down beside the dump ({error}): if this run is interrupted, \
                     the next one cannot know that nothing is missing, and does not commit"
                );
            }
        }
        count
    }

    /// It is removed, or it was left there after all. Blocks.
    pub fn end_removal(&self, name: &FileName, is_removed: bool) {
        let mut inner = self.lock();
        let Some(at) = inner.record.going.iter().position(|(going, _)| going == name) else { return };
        let (_, object) = inner.record.going.swap_remove(at);
        if is_removed {
            inner.record.given = inner.record.given.with(object);
        }
        if inner.is_behind {
            drop(inner);
            // A full disk refused it before the removal; now there may be room.
            let _ = self.write_if_supported();
        }
    }

    fn write_if_supported(&self) -> io::Result<()> {
        let unsupported = self.lock().unsupported.clone();
        match unsupported {
            Some((kind, why)) => Err(io::Error::new(kind, why)),
            None => self.write(),
        }
    }

    fn write(&self) -> io::Result<()> {
        let _turn = self.writing.lock();
        loop {
            let text = {
                let inner = self.lock();
                inner.record.to_text(inner.limit)
            };
            let written = rustix::fs::fsetxattr(&self.lead, ATTRIBUTE, &text, XattrFlags::empty());
            let mut inner = self.lock();
            match written {
                Ok(()) => {
                    inner.is_behind = false;
                    return Ok(());
                }
                // Too large for this filesystem, or the disk is full.
                Err(Errno::NOSPC | Errno::RANGE | Errno::TOOBIG | Errno::DQUOT) if inner.limit > SIZE_SMALL => {
                    inner.limit = SIZE_SMALL;
                }
                Err(error @ (Errno::NOSPC | Errno::RANGE | Errno::TOOBIG | Errno::DQUOT)) => {
                    inner.is_behind = true;
                    return Err(error.into());
                }
                Err(error) => {
                    let error = io::Error::from(error);
                    inner.unsupported = Some((error.kind(), error.to_string()));
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::manifest::{self, ManifestHeader};

    fn header() -> ManifestHeader {
        let text = r#"{"format":1,"state":"uploading","dump_id":"x","version":"0.1.0",
            "identity":{"host":"h","started":"s","inode":1},"started":"2026-11-22T02:00:00Z",
            "dumper_exit":{"seen":"not-seen"},"directory":"/d","closed_by":"lease","files":[]}"#;
        manifest::read(text.as_bytes(), drop).expect("a header")
    }

    fn recorder(lead: &File) -> Recorder {
        let place = Place { endpoint: None, uri: "s3://b/p/".into() };
        Recorder::new(lead.try_clone().expect("a descriptor"), Record::new(Kind::Directory, &header(), place))
    }

    /// "As many names as fit": however long they are, none goes that does not stand there.
    #[test]
    fn of_many_files_as_many_go_at_a_time_as_can_be_written_down() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let lead = File::create(directory.path().join("metadata")).expect("a lead");
        let recorder = recorder(&lead);
        let name = |number: usize| format!("{number:0200}.sql").parse::<FileName>().expect("a name");
        let files: Vec<_> =
            (0..40).map(name).map(|name| (name.clone(), Objects::one(name.as_str(), 3, None))).collect();
        let (mut rest, mut trips) = (&files[..], 0);
        while !rest.is_empty() {
            let begun = recorder.begin_removals(rest);
            let there = read(&lead).expect("it can be read").expect("a record");
            assert!((1..=16).contains(&begun));
            assert_eq!(there.going, rest[..begun]);
            rest[..begun].iter().for_each(|(name, _)| recorder.end_removal(name, true));
            rest = &rest[begun..];
            trips += 1;
        }
        assert!((3..40).contains(&trips), "{trips}");
        assert!(recorder.note(|_| ()));
        let there = read(&lead).expect("it can be read").expect("a record");
        assert_eq!((there.given.files, there.going.len()), (40, 0));
    }

    #[test]
    fn what_is_removed_stands_beside_the_dump_before_and_after() {
        let lead = tempfile::tempfile().expect("a file");
        assert_eq!(read(&lead), Ok(None));
        let recorder = recorder(&lead);
        let (a, b): (FileName, FileName) = ("a.sql".parse().expect("a name"), "b.sql".parse().expect("a name"));
        let object = |name: &str| Objects::one(name, 3, None);
        assert_eq!(recorder.begin_removals(&[(a.clone(), object("a.sql"))]), 1);
        let there = read(&lead).expect("a record").expect("a record");
        assert_eq!((there.going.len(), there.given.files), (1, 0), "before the removal");
        recorder.end_removal(&a, true);
        assert_eq!(recorder.begin_removals(&[(b.clone(), object("b.sql"))]), 1);
        let there = read(&lead).expect("a record").expect("a record");
        assert_eq!((there.going.len(), there.given), (1, object("a.sql")), "the next write closes the last removal");
        recorder.end_removal(&b, false);
        assert!(recorder.note(|record| record.committed = true));
        let there = read(&lead).expect("a record").expect("a record");
        assert_eq!((there.going.len(), there.given, there.committed), (0, object("a.sql"), true));
    }

    #[test]
    fn a_file_without_attributes_is_no_trouble() {
        // The kernel keeps none on what is no regular file of a disk.
        let lead = File::open("/proc/self/status").expect("a file");
        assert_eq!(read(&lead), Ok(None));
        let recorder = recorder(&lead);
        let name: FileName = "a.sql".parse().expect("a name");
        recorder.begin_removals(&[(name.clone(), Objects::one("a.sql", 3, None))]);
        recorder.end_removal(&name, true);
        assert!(!recorder.note(|record| record.committed = true));
        assert_eq!(recorder.settle(|_| true).given.files, 1);
    }
}
