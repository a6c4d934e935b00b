//! Who writes: how a file is known to be closed.
//!
//! Three methods, the first that works is chosen on `metadata.partial` when a dump is seen: a read lease, `/proc`, or
//! waiting for the dump's end. A file on which the method fails counts as open. The order within a scan matters: list
//! the directory, then ask who writes, then stat, then read. A size taken before the question may be stale.

use std::collections::HashSet;
use std::fs::File;

use crate::model::manifest::ClosedBy;
use crate::model::state::Writers;
use crate::platform::{self, Lease};

/// Chooses the method for a dump by its `metadata.partial`, and says why not a better one.
///
/// A finished dump has no writers left to ask for, but the choice is made in the same way: a compressor may still be
/// writing for a moment.
pub fn choose(partial: &File, dumper_is_visible: bool) -> (ClosedBy, &'static str) {
    if platform::lease_filesystem(partial).is_none() {
        return without_lease(dumper_is_visible, "leases tell nothing on this filesystem");
    }
    match platform::probe_lease(partial) {
        Lease::NoWriter | Lease::Writer => (ClosedBy::Lease, "the kernel tells for each file"),
        Lease::NotPermitted => without_lease(dumper_is_visible, "the dump belongs to another user"),
        Lease::Unsupported => without_lease(dumper_is_visible, "the filesystem has no leases"),
    }
}

fn without_lease(dumper_is_visible: bool, why: &'static str) -> (ClosedBy, &'static str) {
    (if dumper_is_visible { ClosedBy::Proc } else { ClosedBy::End }, why)
}

/// What one scan can ask about writers.
#[derive(Debug)]
pub struct WriterTable {
    lease: bool,
    /// Files open for writing by visible processes; `None` where that proves nothing.
    written: Option<HashSet<(u64, u64)>>,
    ended: bool,
}

impl WriterTable {
    /// Made anew for each scan, after the directory was listed. `partial` is device and inode of `metadata.partial`:
    /// while the dump lives, what `/proc` shows counts only if it shows that file, too.
    pub fn for_scan(method: ClosedBy, partial: (u64, u64), ended: bool) -> Self {
        let written = (method == ClosedBy::Proc).then(written_files);
        Self {
            lease: method == ClosedBy::Lease,
            written: written.filter(|written| ended || written.contains(&partial)),
            ended,
        }
    }

    /// Who writes this file.
    pub fn writers(&self, file: &File) -> Writers {
        // Where nothing can be told, the dump's end must do.
        let unknown = if self.ended { Writers::Ended } else { Writers::Some };
        if self.lease {
            return match platform::probe_lease(file) {
                Lease::NoWriter => Writers::None,
                Lease::Writer => Writers::Some,
                Lease::NotPermitted | Lease::Unsupported => unknown,
            };
        }
        match (&self.written, platform::device_and_inode(file)) {
            (Some(written), Ok(file)) if written.contains(&file) => Writers::Some,
            // After the end nothing proves any more that we see the writers.
            (Some(_), Ok(_)) if !self.ended => Writers::None,
            _ => unknown,
        }
    }
}

/// Every file that a visible process has open for writing. Processes that do not let us look are left out: the caller
/// proves by `metadata.partial` that the dumper is not among them.
fn written_files() -> HashSet<(u64, u64)> {
    platform::processes().iter().filter_map(|process| process.written_files().ok()).flatten().collect()
}
