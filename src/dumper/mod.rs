//! The dump's life: which dump stands in the directory, whether it is still being written, and how it ended.
//!
//! mydumper creates `metadata.partial` before any other file, holds it open for writing to the end, closes it and
//! renames it to `metadata`; so in every version. That one file says which dump this is and whether it lives.

mod arguments;
mod child;
mod exit_status;
mod kinship;
mod life;
mod reins;
mod witness;
mod writer;

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use anyhow::{Context, anyhow};

pub use arguments::{left_out_by_command, threads_by_command};
pub use child::{Child, Start};
pub use exit_status::{ExitSources, ExitStatusFile};
pub use kinship::ancestors;
pub use life::{Life, LivingDump, Signs, Standing};
pub use reins::{HELPER_ARGUMENT, Reins, Team, wake_when_the_pipe_breaks};
pub use writer::{Role, Writer, version_by_command};

use crate::dump_dir::DumpDir;
use crate::hint::hinted;
use crate::model::dump_metadata::DumpMetadata;
use crate::model::file_name::{METADATA, METADATA_PARTIAL};
use crate::model::identity::{DumpIdentity, FileIdentity};
use crate::model::record::Record;
use crate::platform::{self, Lease};
use crate::recorder;

/// The most of a `metadata` file that is read, in bytes; 100,000 tables need some 10 MB.
const METADATA_SIZE_MAX: u64 = 256 * 1024 * 1024;

/// What stands in the directory.
#[derive(Debug)]
pub enum Sight {
    /// No dump.
    Nothing,
    /// `metadata.partial` is there, but its first line is not whole yet.
    Starting,
    /// A dump that has not ended, or that died.
    Partial(Sighted),
    /// A dump with its final `metadata`.
    Finished(Sighted),
    /// Something that is not for us, and why.
    Refused(String),
}

/// The first file of a dump. Held open, so that its inode cannot be given to another file meanwhile.
#[derive(Debug)]
pub struct Lead {
    /// The file.
    pub file: File,
    /// Its device and inode.
    pub inode: (u64, u64),
}

/// A dump that was found.
#[derive(Debug)]
pub struct Sighted {
    /// Its `metadata.partial` or `metadata`.
    pub lead: Arc<Lead>,
    /// Which dump it is.
    pub identity: DumpIdentity,
    /// What that file said.
    pub metadata: DumpMetadata,
    /// What an earlier run wrote down of this dump.
    pub record: Option<Record>,
}

/// Looks which dump stands in the directory. `metadata.partial` comes first: a `metadata` beside it is of an earlier dump.
pub fn look(directory: &DumpDir, host: &str) -> anyhow::Result<Sight> {
    if let Some(file) = open_if_there(directory, METADATA_PARTIAL)? {
        return Ok(sighted(file, host)?.map_or(Sight::Starting, Sight::Partial));
    }
    if let Some(file) = open_if_there(directory, METADATA)? {
        return Ok(match sighted(file, host)? {
            Some(sighted) => Sight::Finished(sighted),
            None => Sight::Refused(format!(
                "'{}' has a '{METADATA}' without a 'Started dump at' line, so it is no dump of mydumper; move it away",
                directory.path().display()
            )),
        });
    }
    if is_daemon_directory(directory) {
        return Ok(Sight::Refused(format!(
            "'{0}' holds snapshots of mydumper's daemon mode (0, 1, last_dump), which are overwritten in turn; \
             run one mydumper2s3 for each snapshot directory, as --dir '{0}/0'",
            directory.path().display()
        )));
    }
    Ok(Sight::Nothing)
}

/// A `metadata.partial` without a byte that nobody writes: its dump failed before it began, as mydumper does when a query
/// runs for too long (0.10.1 to 1.0.1). `None` where it has bytes, or a writer, or where nothing tells.
pub fn failed_before_it_began(directory: &DumpDir) -> Option<FileIdentity> {
    let (file, identity) = directory.open_identified(METADATA_PARTIAL).ok()?;
    (identity.size == 0 && platform::probe_lease(&file) == Lease::NoWriter).then_some(identity)
}

fn open_if_there(directory: &DumpDir, name: &str) -> anyhow::Result<Option<File>> {
    match directory.open_file(name) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let hint = "run mydumper2s3 as the user that runs mydumper";
            Err(error).with_context(|| format!("cannot read '{}' ({hint})", directory.path().join(name).display()))
        }
    }
}

fn sighted(mut lead: File, host: &str) -> anyhow::Result<Option<Sighted>> {
    let text = read_text(&mut lead).context("cannot read the dump's metadata")?;
    let metadata = DumpMetadata::parse(&text);
    let Some(started) = metadata.started.clone() else {
        return Ok(None);
    };
    let inode = platform::device_and_inode(&lead)?;
    let identity = DumpIdentity { host: host.to_owned(), started, inode: inode.1, born: platform::birth_time(&lead) };
    let (identity, record) = recorded(&lead, identity)?;
    Ok(Some(Sighted { lead: Arc::new(Lead { file: lead, inode }), identity, metadata, record }))
}

/// What an earlier run wrote down of this dump. The host may be called otherwise today: the dump is the one of the record.
/// A record of another dump is of an earlier use of the same file, and is ignored.
fn recorded(lead: &File, identity: DumpIdentity) -> anyhow::Result<(DumpIdentity, Option<Record>)> {
    let record = recorder::read(lead).map_err(|why| {
        let error =
            anyhow!("the record of an earlier run beside this dump ({}) cannot be used: {why}", recorder::ATTRIBUTE);
        hinted(error, "use the mydumper2s3 that wrote it; it says which files are in the bucket alone")
    })?;
    let Some(record) = record else { return Ok((identity, None)) };
    let then = DumpIdentity { host: record.host.clone(), ..identity.clone() };
    Ok(if then.id() == record.dump { (then, Some(record)) } else { (identity, None) })
}

impl Lead {
    /// Reads the file again: it has grown since. Blocks.
    pub fn read_again(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut offset = 0;
        let mut buffer = vec![0; 64 * 1024];
        while offset < METADATA_SIZE_MAX {
            let length = std::os::unix::fs::FileExt::read_at(&self.file, &mut buffer, offset)?;
            if length == 0 {
                break;
            }
            text.extend_from_slice(&buffer[..length]);
            offset += length as u64;
        }
        Ok(text)
    }
}

fn read_text(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(METADATA_SIZE_MAX).read_to_end(&mut text)?;
    Ok(text)
}

fn is_daemon_directory(directory: &DumpDir) -> bool {
    let is = |name: &str, wanted| directory.file_type(name).is_ok_and(|there| there == wanted);
    is("last_dump", rustix::fs::FileType::Symlink)
        || (is("0", rustix::fs::FileType::Directory) && is("1", rustix::fs::FileType::Directory))
}
