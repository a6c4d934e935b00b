//! What a mydumper leaves out, from its command line and its defaults file.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::writer::{is_called, is_program_file};
use crate::model::child_arguments::mydumper_in;
use crate::model::left_out::{self, LeftOut};
use crate::model::no_disk;

/// The most of a defaults file that is read, in bytes.
const DEFAULTS_FILE_MAX: u64 = 1 << 20;

/// What a mydumper leaves out that runs with these arguments, its own name the first. `None` where that is not known:
/// it is something else, or a defaults file is there and cannot be read.
pub fn left_out_by(arguments: &[OsString], directory: &Path, version: Option<&str>) -> Option<Vec<LeftOut>> {
    let (program, arguments) = arguments.split_first()?;
    if !is_called(Path::new(program).file_name()?.to_str()?) {
        return None;
    }
    let mut defaults = Vec::new();
    for path in left_out::defaults_files(arguments) {
        match read_short(&directory.join(path)) {
            Ok(text) => defaults.push(text),
            // Where it was named by hand mydumper has ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(left_out::left_out(arguments, &defaults, version))
}

/// What the mydumper leaves out that a command starts, directly or behind a wrapper.
pub fn left_out_by_command(command: &[OsString]) -> Option<Vec<LeftOut>> {
    let (program, arguments) = mydumper_in(command)?;
    if !is_program_file(Path::new(program)) {
        return None;
    }
    let line: Vec<OsString> = std::iter::once(program.to_owned()).chain(arguments.iter().cloned()).collect();
    left_out_by(&line, &std::env::current_dir().unwrap_or_default(), None)
}

/// How many threads the mydumper will have that a command starts, or more. Reads its defaults files.
pub fn threads_by_command(command: &[OsString]) -> usize {
    let Some((_, arguments)) = mydumper_in(command) else { return no_disk::threads(&[], &[], 0) };
    let files = left_out::defaults_files(arguments);
    let defaults: Vec<_> = files.iter().filter_map(|path| read_short(path).ok()).collect();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    no_disk::threads(arguments, &defaults, processors)
}

/// A text file of ordinary size. It is opened so that neither a FIFO nor a device keeps us.
fn read_short(path: &Path) -> io::Result<String> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;

    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > DEFAULTS_FILE_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(DEFAULTS_FILE_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
