//! One look at the dump directory, in the order that matters: list, ask who writes, stat.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::FileType;

use crate::dump_dir::{DumpDir, Entry, identity_and_birth_of, identity_of, unmoved};
use crate::model::file_kind::{is_never_data, is_of_the_filesystem};
use crate::model::file_name::{BadName, FileName, METADATA, METADATA_PARTIAL};
use crate::model::identity::FileIdentity;
use crate::model::listing::Listing;
use crate::model::manifest::ClosedBy;
use crate::model::object_key::Prefix;
use crate::model::state::{DumpState, Phase, Probe, Scan, Writers};
use crate::writers::WriterTable;

/// What a look needs to know of the dump.
#[derive(Debug, Clone)]
pub struct Look {
    /// Where the dump is in its life.
    pub phase: Phase,
    /// How closed files are known.
    pub closed_by: ClosedBy,
    /// Device and inode of `metadata.partial`, and of `metadata` after the rename.
    pub lead: (u64, u64),
    /// Files last changed before this moment (nanoseconds since 1970) belong to something else.
    pub not_before: Option<i128>,
    /// Where the dump goes: a name must make a key.
    pub prefix: Prefix,
    /// What earlier looks hold open.
    pub held: Held,
}

/// Files that wait, held open from look to look while the dump lives: when one's name is gone, what it last was can be
/// told, where a look saw only what it was then. Shared by all looks at one dump.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<Mutex<HashMap<FileName, File>>>);

/// So many descriptors at most: a quarter of what a process has at least (`RLIMIT_NOFILE`, 1,024 in most places).
const HELD_MAX: usize = 256;

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<FileName, File>> {
        self.0.lock()
    }

    /// Lets go of all that does not wait any more; returns those whose names are gone, each with what it last was.
    fn let_go(&self, waiting: &HashSet<&str>, listing: &Listing) -> Vec<(FileName, FileIdentity)> {
        let mut held = self.lock();
        let released: Vec<_> = held.extract_if(|name, _| !waiting.contains(name.as_str())).collect();
        if released.is_empty() {
            return Vec::new();
        }
        let there: HashSet<&str> = listing.iter().map(|(name, _)| name).collect();
        let gone = released.into_iter().filter(|(name, _)| !there.contains(name.as_str()));
        gone.filter_map(|(name, file)| Some((name, identity_of(&file).ok()?))).collect()
    }

    fn hold(&self, name: &FileName, file: File) {
        let mut held = self.lock();
        if held.len() < HELD_MAX || held.contains_key(name) {
            held.insert(name.clone(), file);
        }
    }
}

/// What a look found beside the dump's files: names that cannot be or are not the dump's, each with why.
pub type Strangers = BTreeMap<OsString, String>;

impl Look {
    /// Looks at the directory. Blocks.
    pub fn at(&self, directory: &DumpDir, state: &Mutex<DumpState>) -> io::Result<(Scan, Strangers)> {
        let (mut listing, mut strangers) = (Listing::default(), Strangers::new());
        directory.each(|entry| {
            if let Err(why) = self.sort(directory, entry, &mut listing) {
                strangers.insert(entry.name.to_owned(), why);
            }
        })?;
        let ended = self.phase != Phase::Writing;
        let table = WriterTable::for_scan(self.closed_by, self.lead, ended);
        let unfinished = {
            let state = state.lock();
            let mut unfinished = state.unfinished(&listing);
            // The manifest is written: what turns up now does not belong to this dump.
            unfinished.retain(|name| self.phase != Phase::Committing || name.is_metadata());
            unfinished
        };
        let waiting = unfinished.iter().map(FileName::as_str).collect();
        let vanished = self.held.let_go(&waiting, &listing);
        let (mut probes, mut rejected) = (Vec::with_capacity(unfinished.len()), HashSet::new());
        for name in unfinished {
            match self.probe(directory, &table, &name) {
                Ok(Some(probe)) => probes.push((name, probe)),
                Ok(None) => {}
                Err(why) => {
                    rejected.insert(name.clone());
                    strangers.insert((&name).into(), why);
                }
            }
        }
        if !rejected.is_empty() {
            listing = listing.filtered(|name| !rejected.contains(name));
        }
        Ok((Scan { now: Instant::now(), phase: self.phase, listing, probes, vanished }, strangers))
    }

    /// Lists an entry if it is a file of the dump; if not, says why it stands in the way, where it does.
    fn sort(&self, directory: &DumpDir, entry: Entry<'_>, listing: &mut Listing) -> Result<(), String> {
        let text = entry.name.to_str();
        let name = text.unwrap_or_default();
        if name == METADATA_PARTIAL || is_never_data(name) || (name == METADATA && !self.is_the_dumps(directory)) {
            return Ok(());
        }
        match entry.file_type {
            FileType::RegularFile => {}
            // Some versions write through FIFOs while they dump.
            FileType::Fifo if self.phase == Phase::Writing => return Ok(()),
            FileType::Directory if is_of_the_filesystem(name) => return Ok(()),
            other => return Err(format!("it is {}, not a file; move it away", describe(other))),
        }
        let name = text.ok_or(BadName::NotUtf8);
        let listed = name.and_then(|name| self.prefix.check(name).and_then(|()| listing.push(name, entry.inode)));
        listed.map_err(|error| error.to_string())
    }

    /// Whether `metadata` is this dump's: beside a living `metadata.partial` it is of an earlier one. Asked of the file
    /// itself: some filesystems number their directory entries otherwise than their files.
    fn is_the_dumps(&self, directory: &DumpDir) -> bool {
        let there = directory.identity(METADATA);
        self.phase != Phase::Writing && there.is_ok_and(|there| (there.device, there.inode) == self.lead)
    }

    fn probe(&self, directory: &DumpDir, table: &WriterTable, name: &FileName) -> Result<Option<Probe>, String> {
        let file = match directory.open_file(name.as_str()) {
            Ok(file) => file,
            // Taken back between listing and opening.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read it: {error}")),
        };
        let examined = self.examine(name, &file, table).map_err(|error| format!("cannot look at it: {error}"))?;
        if self.phase == Phase::Writing && examined.is_ok() {
            self.held.hold(name, file);
        }
        examined
    }

    fn examine(&self, name: &FileName, file: &File, table: &WriterTable) -> io::Result<Result<Option<Probe>, String>> {
        // First who writes it, then what it is: a size taken before may be stale.
        let writers: Writers = table.writers(file);
        let (identity, born) = identity_and_birth_of(file)?;
        let identity = unmoved(name.as_str().as_ref(), identity);
        if self.not_before.is_some_and(|dump_began| i128::from(identity.modified) < dump_began) {
            let why = "it is older than the dump and belongs to something else; move it away, or use --include-older";
            return Ok(Err(why.to_owned()));
        }
        Ok(Ok(Some(Probe { identity, born, writers })))
    }
}

fn describe(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        _ => "something else",
    }
}
