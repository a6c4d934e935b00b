//! Where a dump stands, apart from its single files: complete, on its way, given up, or without a manifest.

use anyhow::anyhow;
use tracing::{info, warn};

use crate::bucket_dump::Listing;
use crate::exit_status::{Failure, Status};
use crate::hint::hinted;
use crate::model::dump_metadata::DumpMetadata;
use crate::model::file_name::METADATA;
use crate::model::full_disk::FullDisk;
use crate::model::manifest::{DumpStateWord, DumperExit, ManifestHeader};
use crate::model::missing_files::missing_files;
use crate::model::object_key::Prefix;
use crate::s3::{Store, StoreError};

/// The largest `metadata` that is read into memory: some 200 bytes a table.
const METADATA_SIZE_MAX: u64 = 256 * 1024 * 1024;

/// Where a dump stands.
#[derive(Debug)]
pub enum Standing {
    /// Committed.
    Complete { exit: DumperExit, full_disk: Option<FullDisk>, metadata: Option<DumpMetadata>, missing: Vec<Missing> },
    /// The manifest is the last one, and there is no `metadata`.
    NotCommitted,
    /// Given up, and why.
    Incomplete(String),
    /// On its way, or its upload died.
    Uploading { objects: usize },
    /// No manifest: made by another tool, or by hand.
    Unnamed { metadata: Option<DumpMetadata>, missing: Vec<Missing> },
}

/// A file that `metadata` promises and nobody has.
#[derive(Debug, Clone)]
pub struct Missing {
    pub name: String,
    pub why: String,
}

impl Standing {
    /// Finds out.
    pub async fn of(
        store: &Store,
        prefix: &Prefix,
        listing: &Listing,
        header: Option<&ManifestHeader>,
    ) -> Result<Self, StoreError> {
        let Some(header) = header else {
            return Self::unnamed(store, prefix, listing).await;
        };
        Ok(match header.state {
            DumpStateWord::Uploading => Self::Uploading { objects: listing.len() },
            DumpStateWord::Incomplete => {
                Self::Incomplete(header.reason.clone().unwrap_or_else(|| "no reason was written down".to_owned()))
            }
            DumpStateWord::Complete if !header.is_committed(listing.has_metadata()) => Self::NotCommitted,
            DumpStateWord::Complete => {
                let metadata = metadata_of(store, prefix, listing).await?;
                let missing = metadata.as_ref().map_or_else(Vec::new, |metadata| missing(metadata, listing));
                Self::Complete { exit: header.dumper_exit, full_disk: header.full_disk, metadata, missing }
            }
        })
    }

    async fn unnamed(store: &Store, prefix: &Prefix, listing: &Listing) -> Result<Self, StoreError> {
        let metadata = metadata_of(store, prefix, listing).await?;
        let missing = metadata.as_ref().map_or_else(Vec::new, |metadata| missing(metadata, listing));
        Ok(Self::Unnamed { metadata, missing })
    }

    /// Says what is to be known before the files.
    pub fn say(&self) {
        if let Self::Complete { full_disk: Some(full), .. } = self {
            warn!(
                "{full} while mydumper wrote this dump, and one before 0.20.1 then writes garbage: nothing here can prove \
                 that it did not; load it somewhere to be sure"
            );
        }
        match self {
            Self::Complete { exit, .. } if exit.through => {
                info!("only the exit status of the program that started mydumper was seen when this dump was made");
            }
            Self::Complete { exit, .. } if exit.is_unseen() => {
                info!("the exit status of what wrote this dump was not seen");
            }
            Self::Unnamed { metadata: Some(_), .. } => warn!(
                "there is no manifest: --dir compares with local files, --deep proves that each object holds the bytes \
                 that were uploaded; that no file is missing can be proved by nothing here"
            ),
            _ => {}
        }
    }

    /// What `metadata` says, where there is one.
    pub fn metadata(&self) -> Option<&DumpMetadata> {
        match self {
            Self::Unnamed { metadata, .. } | Self::Complete { metadata, .. } => metadata.as_ref(),
            _ => None,
        }
    }

    /// Files that `metadata` asks for and nobody has.
    pub fn missing(&self) -> &[Missing] {
        match self {
            Self::Unnamed { missing, .. } | Self::Complete { missing, .. } => missing,
            _ => &[],
        }
    }

    /// The end of it: a dump that is not whole is that before all else.
    pub fn judge(self, files: Status) -> Result<Status, Failure> {
        let again = "run the upload again if its files are still there; `mydumper2s3 delete` removes what is here";
        let error = match self {
            Self::Complete { .. } => return Ok(files),
            Self::Unnamed { metadata: Some(metadata), .. } if metadata.finished.is_some() => return Ok(files),
            Self::NotCommitted => hinted(
                anyhow!("the dump is not committed: its manifest is the last one, but there is no metadata"),
                again,
            ),
            Self::Incomplete(reason) => {
                hinted(anyhow!("the dump is incomplete: {reason}"), "`restore --incomplete` takes what there is")
            }
            Self::Uploading { objects } => hinted(
                anyhow!("the dump is still being uploaded, or its upload died: {objects} objects so far, no metadata"),
                again,
            ),
            Self::Unnamed { metadata: Some(_), .. } => {
                anyhow!("the dump is incomplete: metadata has no line 'Finished dump at'")
            }
            Self::Unnamed { metadata: None, .. } => {
                anyhow!("there is neither a manifest nor metadata: this is no whole dump")
            }
        };
        Err(Failure::incomplete(error))
    }
}

/// What `metadata` says, where there is one.
async fn metadata_of(store: &Store, prefix: &Prefix, listing: &Listing) -> Result<Option<DumpMetadata>, StoreError> {
    let text = match listing.find(METADATA) {
        Some(_) => store.read(&format!("{}{METADATA}", prefix.directory()), METADATA_SIZE_MAX).await?,
        None => None,
    };
    Ok(text.map(|text| DumpMetadata::parse(&text)))
}

fn missing(metadata: &DumpMetadata, listing: &Listing) -> Vec<Missing> {
    let missing = missing_files(metadata, listing.names().map(|name| name.as_str()));
    let schemas = missing.schemas.into_iter().map(|missing| {
        let why = "metadata names its table or view, and it is not in the bucket".to_owned();
        Missing { name: missing.expected, why }
    });
    let data = missing.data.into_iter().map(|missing| {
        let why =
            format!("metadata counts {} rows of its table, and no data file of it is in the bucket", missing.rows);
        Missing { name: missing.expected, why }
    });
    schemas.chain(data).collect()
}
