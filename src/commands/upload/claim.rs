//! The claim: a prefix belongs to one dump, and the first object under it says to which.

use std::collections::HashMap;

use anyhow::anyhow;
use tracing::{debug, info, warn};

use crate::bucket_dump::{Contents, contents, read_manifest};
use crate::cli::{DestinationArgs, UploadArgs};
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::etag::{ETag, Md5Digest};
use crate::model::file_kind::could_be_dump_file;
use crate::model::file_name::{FileName, MANIFEST, METADATA};
use crate::model::identity::DumpIdentity;
use crate::model::manifest::{self, DumpStateWord, ManifestHeader};
use crate::model::object_key::Prefix;
use crate::platform;
use crate::s3::{Condition, ErrorKind, FileRange, ListedObject, OpenUpload, Store, StoreError};

/// A prefix that is ours.
#[derive(Debug)]
pub struct Claim {
    /// The manifest's ETag: while it stays, nobody else claimed the prefix.
    pub etag: Option<ETag>,
    /// What an earlier run left there.
    pub earlier: HashMap<FileName, ListedObject>,
    /// The manifest of an earlier run.
    pub header: Option<ManifestHeader>,
    /// Whether the bucket holds this dump as a whole already.
    pub is_complete: bool,
}

/// Claims a prefix for a dump, or finds it claimed by an earlier run for the same dump. `header` is what to write.
pub async fn claim(
    store: &Store,
    destination: &DestinationArgs,
    prefix: &Prefix,
    header: &ManifestHeader,
) -> Result<Claim, Failure> {
    if destination.write_only {
        let etag = write_claim(store, prefix, header, false).await.map_err(Failure::failed)?;
        return Ok(Claim { etag, earlier: HashMap::new(), header: None, is_complete: false });
    }
    for _ in 0..2 {
        let contents = contents(store, prefix).await.map_err(Failure::failed)?;
        if let Some(claim) = claimed_before(store, prefix, &contents, &header.identity).await? {
            return Ok(claim);
        }
        if !contents.is_empty() {
            clear(store, destination, prefix, contents).await?;
        }
        match write_claim(store, prefix, header, true).await {
            Ok(etag) => {
                info!("claimed {}", store.uri(&prefix.directory()));
                return Ok(Claim { etag, earlier: HashMap::new(), header: None, is_complete: false });
            }
            // Somebody was faster, or an answer to us was lost: the listing tells.
            Err(error) if error.kind == ErrorKind::Precondition => {}
            Err(error) => return Err(Failure::failed(error)),
        }
    }
    Err(occupied(store, prefix, "another program claimed it just now"))
}

/// Whether a dump that has not begun yet could go to this prefix.
pub async fn check_free(store: &Store, destination: &DestinationArgs, prefix: &Prefix) -> Result<(), Failure> {
    let contents = contents(store, prefix).await.map_err(Failure::usage)?;
    if contents.is_empty() { Ok(()) } else { may_clear(store, destination, prefix, &contents) }
}

/// The claim of an earlier run for the same dump.
async fn claimed_before(
    store: &Store,
    prefix: &Prefix,
    contents: &Contents,
    identity: &DumpIdentity,
) -> Result<Option<Claim>, Failure> {
    let Some((_, listed)) = contents.objects.iter().find(|(name, _)| name.as_str() == MANIFEST) else {
        return Ok(None);
    };
    let key = prefix.manifest_key();
    let header = match read_manifest(store, prefix, drop).await.map_err(Failure::failed)? {
        Some(Ok(header)) if header.identity == *identity => header,
        Some(Ok(_)) | None => return Ok(None),
        Some(Err(error)) => {
            warn!("{} cannot be read: {error}", store.uri(&key));
            return Ok(None);
        }
    };
    let is_complete = header.state == DumpStateWord::Complete && contents.has(METADATA);
    if !is_complete {
        info!("going on at {}", store.uri(&prefix.directory()));
    }
    let mut earlier = contents.objects.clone();
    earlier.retain(|name, _| name.as_str() != MANIFEST);
    Ok(Some(Claim { etag: listed.etag.clone(), earlier, header: Some(header), is_complete }))
}

/// Whether the claim is still the one that we wrote or found: another's must not be written over.
pub async fn is_ours(store: &Store, prefix: &Prefix, claim: Option<&ETag>) -> bool {
    let there = store.head(&prefix.manifest_key()).await;
    claim.is_none() || there.is_ok_and(|there| there.is_some_and(|there| there.etag.as_ref() == claim))
}

/// Deletes what is under the prefix, where the user allowed it: `metadata` before all else, so that half of a dump is
/// never taken for a whole one.
async fn clear(
    store: &Store,
    destination: &DestinationArgs,
    prefix: &Prefix,
    contents: Contents,
) -> Result<(), Failure> {
    may_clear(store, destination, prefix, &contents)?;
    warn!("deleting {} objects under {}", contents.objects.len(), store.uri(&prefix.directory()));
    let (first, rest): (Vec<_>, Vec<_>) = contents.objects.into_iter().partition(|(name, _)| name.is_metadata());
    for (_, object) in first {
        store.delete(&object.key).await.map_err(Failure::failed)?;
    }
    let keys: Vec<_> = rest.into_iter().map(|(_, object)| object.key).collect();
    for batch in keys.chunks(crate::s3::DELETE_BATCH) {
        let refused = store.delete_batch(batch).await.map_err(Failure::failed)?;
        if let Some((key, why)) = refused.first() {
            return Err(Failure::failed(anyhow!("cannot delete {}: {why}", store.uri(key))));
        }
    }
    Ok(())
}

/// Whether what lies under the prefix may be deleted: the user allowed it, and all of it is of dumps.
pub fn may_clear(
    store: &Store,
    destination: &DestinationArgs,
    prefix: &Prefix,
    contents: &Contents,
) -> Result<(), Failure> {
    let foreign = contents.objects.keys().find(|name| !could_be_dump_file(name.as_str()));
    let foreign = foreign.map(|name| name.as_str().to_owned()).or_else(|| contents.strangers.first().cloned());
    let whole = contents.has(METADATA);
    let allowed = destination.overwrite || (destination.replace_incomplete && !whole);
    match foreign {
        Some(name) if allowed => {
            let (uri, name) = (store.uri(&prefix.directory()), name.escape_debug());
            let error = anyhow!("{uri} holds '{name}', which is no file of a dump, and is not deleted");
            Err(Failure::usage(hinted(error, "choose another --prefix, or move it away")))
        }
        _ if allowed => Ok(()),
        _ if whole => Err(occupied(store, prefix, "it holds another dump")),
        _ => Err(occupied(store, prefix, "it holds other objects")),
    }
}

fn occupied(store: &Store, prefix: &Prefix, why: &str) -> Failure {
    let uri = store.uri(&prefix.directory());
    let hint =
        "choose another --prefix; --replace-incomplete deletes what has no metadata, --overwrite deletes all of it";
    Failure::usage(hinted(anyhow!("{uri} is occupied: {why}"), hint))
}

/// Writes the claim; `only_if_absent` where nobody may have been faster, on stores that know such a condition.
pub async fn write_claim(
    store: &Store,
    prefix: &Prefix,
    header: &ManifestHeader,
    only_if_absent: bool,
) -> Result<Option<ETag>, StoreError> {
    let key = prefix.manifest_key();
    let failed = |error: std::io::Error| {
        StoreError::of_answer(ErrorKind::Invalid, "PutObject", &store.uri(&key), error.to_string())
    };
    let mut text = Vec::new();
    manifest::write(&mut text, header, std::iter::empty()).map_err(failed)?;
    let md5 = Md5Digest::of(&text);
    let mut file = platform::memory_file("manifest").map_err(failed)?;
    std::io::Write::write_all(&mut file, &text).map_err(failed)?;
    let range = FileRange { file: file.into(), offset: 0, length: text.len() as u64, content: None };
    let metadata = HashMap::from([(crate::transfer::DUMP_ID.to_owned(), header.dump_id.clone())]);
    let condition = if only_if_absent { Condition::Absent } else { Condition::None };
    let mut answer = store.put(&key, range.clone(), md5, &metadata, &condition).await;
    // Damaged on its way: once more, as for any file.
    for _ in 0..crate::transfer::TRIES {
        if !answer.as_ref().is_err_and(|error| error.kind == ErrorKind::BadDigest) {
            break;
        }
        answer = store.put(&key, range.clone(), md5, &metadata, &condition).await;
    }
    let answer = match answer {
        // Some stores refuse what they do not know.
        Err(error) if only_if_absent && matches!(error.kind, ErrorKind::NotImplemented | ErrorKind::Invalid) => {
            debug!("{error}; trying without a condition");
            store.put(&key, range, md5, &metadata, &Condition::None).await?
        }
        answer => answer?,
    };
    // Where the answer has none, the ETag is known all the same.
    Ok(answer.etag.or_else(|| Some(ETag::of_single_put(md5))))
}

/// Multipart uploads of this dump's files that an earlier run began and did not end.
pub async fn left_uploads(args: &UploadArgs, store: &Store, prefix: &Prefix) -> Vec<OpenUpload> {
    if args.destination.write_only {
        return Vec::new();
    }
    let directory = prefix.directory();
    // Only keys directly under the prefix are ours, and in the bucket's root not all of these.
    let is_ours = |upload: &OpenUpload| {
        upload.key.strip_prefix(&directory).is_some_and(|name| !name.contains('/') && could_be_dump_file(name))
    };
    match store.open_uploads(&directory).await {
        Ok(mut uploads) => {
            uploads.retain(is_ours);
            uploads
        }
        // Said once, when the rights were tried.
        Err(error) => {
            debug!("{error}");
            Vec::new()
        }
    }
}
