//! What a dump is uploaded with, made of the settings and of what is known of the dump.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::aside::Trips;
use crate::bucket_dump::Listed;
use crate::claim::SharedClaim;
use crate::cli::UploadArgs;
use crate::content::Closeness;
use crate::dump_dir::DumpDir;
use crate::dumper::{LivingDump, Role};
use crate::hasher::Hasher;
use crate::model::dumper_version::survives_full_disk;
use crate::model::file_name::FileName;
use crate::model::manifest::ManifestHeader;
use crate::model::no_disk::StreamMemory;
use crate::model::object_key::Prefix;
use crate::object_writer::{Cut, Gate, ObjectWriter, Uploads};
use crate::recorder::Recorder;
use crate::s3::Store;
use crate::transfer::{Disposal, GivingBack, Looks, Transfer};

/// A dump whose prefix is ours.
pub struct Ours<'a> {
    /// The settings.
    pub args: &'a UploadArgs,
    /// Where it goes.
    pub prefix: Prefix,
    /// By what it is ours.
    pub claim: SharedClaim,
    /// What it is.
    pub header: &'a ManifestHeader,
    /// What the run after this one must know.
    pub recorder: Arc<Recorder>,
    /// Whether nothing may be sent yet.
    pub is_to_wait: bool,
    /// Whether the bucket holds the dump as a whole already.
    pub is_complete: bool,
    /// What is held in memory, where there are no files.
    pub memory: Option<StreamMemory>,
}

impl Ours<'_> {
    /// What uploads the files of a directory.
    pub fn transfer(
        self,
        store: &Store,
        directory: &Arc<DumpDir>,
        dump: &LivingDump,
        earlier: HashMap<FileName, Listed>,
    ) -> Transfer {
        let destination = &self.args.destination;
        let prove_only = self.is_complete && !destination.write_only;
        // Nothing in a store that is only written to tells a restart what was there: it must find all of it here.
        let keep = self.args.dump.keep || (destination.write_only && !self.is_complete);
        let (args, least) = (self.args, self.least_closeness(dump));
        let disposal = Disposal::new(Arc::clone(&self.recorder), keep);
        let survives_full_disk = survives_full_disk(self.header.dumper_version.as_deref());
        let writer = self.object_writer(store);
        let looks = Looks {
            least,
            survives_full_disk,
            sha256: destination.sha256,
            at_a_time: Semaphore::new(args.transfer.workers),
            long: Semaphore::new(args.transfer.workers + writer.hasher.side_by_side()),
            short: Trips::default(),
        };
        Transfer {
            writer,
            directory: Arc::clone(directory),
            looks,
            disposal,
            prove_only,
            withdrawn: Mutex::default(),
            commit: Mutex::default(),
            earlier,
            followed: Mutex::default(),
            giving_back: GivingBack::default(),
        }
    }

    /// Where the exit status will be seen, it tells of a compressor that failed; inflating everything costs CPU.
    fn least_closeness(&self, dump: &LivingDump) -> Closeness {
        let header = self.header;
        let is_in_doubt = header.full_disk.is_some() && !survives_full_disk(header.dumper_version.as_deref());
        match will_be_seen(self.args, dump) {
            _ if self.args.dump.content_check || is_in_doubt => Closeness::Whole,
            true => Closeness::Ends,
            false => Closeness::Inflated,
        }
    }

    fn object_writer(self, store: &Store) -> ObjectWriter {
        let settings = &self.args.transfer;
        ObjectWriter {
            store: store.clone(),
            prefix: self.prefix,
            dump_id: self.header.dump_id.clone(),
            cut: Cut {
                part_size: self.memory.map_or(settings.part_size.0, |memory| memory.part_size),
                max_parts: settings.max_parts,
            },
            write_only: self.args.destination.write_only,
            claim: self.claim,
            hasher: Hasher::new(settings.workers),
            gate: Gate::new(settings.workers, !self.is_to_wait),
            uploads: Uploads::new(self.recorder),
            has_opaque_parts: AtomicBool::new(false),
        }
    }
}

/// Whether mydumper's exit status can be expected to become known.
fn will_be_seen(args: &UploadArgs, dump: &LivingDump) -> bool {
    let of_writer = dump.writer().is_some_and(|writer| match writer.role {
        Role::Child => true,
        Role::Holder | Role::Named => !writer.has_ended() || writer.exit().is_some(),
        Role::Launcher => false,
    });
    of_writer || args.dump.exit_status_file.is_some()
}
