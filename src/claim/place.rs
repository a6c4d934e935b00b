//! Whether a prefix is free for a dump, and what may be done to make it so.

use std::fmt;

use anyhow::anyhow;
use jiff::Timestamp;
use tracing::warn;

use crate::bucket_dump::{Listed, Listing};
use crate::bucket_manifest::read_manifest;
use crate::cli::DestinationArgs;
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::etag::ETag;
use crate::model::file_kind::could_be_dump_file;
use crate::model::file_name::METADATA;
use crate::model::manifest::{BadManifest, ManifestFile, ManifestHeader};
use crate::model::object_key::Prefix;
use crate::model::standing::may_be_alive;
use crate::model::units::first_few;
use crate::removal::Removal;
use crate::s3::{ListedObject, Store};

/// Files that differ and are asked for one by one.
const KEPT_MAX: usize = 100;
/// So many of them are named.
const NAMED_MAX: usize = 5;

/// Files that a manifest has and that a listing shows otherwise.
#[derive(Default)]
pub(super) struct Holes {
    /// As far as they were kept.
    kept: Vec<ManifestFile>,
    /// How many there are.
    count: usize,
}

/// Whether an object can be the one that the manifest means.
fn can_be(file: &ManifestFile, size: u64, etag: Option<&ETag>) -> bool {
    let etags = etag.zip(file.object.etag.as_ref());
    size == file.object.size && etags.is_none_or(|(there, ours)| there == ours)
}

impl Holes {
    /// Compares one file.
    pub fn see(&mut self, listing: &Listing, file: ManifestFile) {
        let listed = listing.find(file.name.as_str());
        if listed.is_some_and(|there| can_be(&file, there.size, there.etag.as_ref())) {
            return;
        }
        self.count += 1;
        if self.kept.len() < KEPT_MAX {
            self.kept.push(file);
        }
    }

    /// A dump that was committed must be there still before it is called so. A listing may leave something out or lag
    /// behind: the objects themselves are asked, and those that are right are returned.
    pub async fn check(self, store: &Store, prefix: &Prefix) -> Result<Vec<Listed>, Failure> {
        let uri = store.uri(&prefix.directory());
        let unasked = self.count - self.kept.len();
        let (mut there, mut differing) = (Vec::new(), Vec::new());
        for file in self.kept {
            let key = format!("{}{}", prefix.directory(), file.name);
            match store.head(&key).await.map_err(Failure::failed)? {
                None => differing.push(format!("'{}' is missing", file.name)),
                Some(head) if can_be(&file, head.size, head.etag.as_ref()) => {
                    there.push(Listed::new(file.name, ListedObject::of_head(key, head)));
                }
                Some(_) => differing.push(format!("'{}' is another object", file.name)),
            }
        }
        if !differing.is_empty() {
            let what = first_few(&differing, NAMED_MAX);
            let error = anyhow!("the bucket had this dump as a whole, and has not any more: {what}");
            let hint = format!(
                "nothing was touched, here or there; `mydumper2s3 verify` tells all that differs at {uri}; where all files \
                 of the dump are still here, they can go up under another --prefix"
            );
            return Err(Failure::incomplete(hinted(error, hint)));
        }
        if unasked > 0 {
            let error = anyhow!("a listing of {uri} leaves out {} files of the dump, or has others there", self.count);
            let hint = "nothing was touched; `mydumper2s3 verify` tells whether they are there";
            return Err(Failure::failed(hinted(error, hint)));
        }
        Ok(there)
    }
}

/// What stands there may be all that there is of those files, so no option clears it.
pub(super) fn unclaimed(store: &Store, prefix: &Prefix, given_up: u64) -> Failure {
    let uri = store.uri(&prefix.directory());
    let error = anyhow!(
        "{uri} holds objects and not the claim of this dump, of which {given_up} files were removed here after their \
         upload to it"
    );
    let hint = "nothing was touched, here or there: these objects may be all that there is of the files, so save them \
                first; the dump can be continued only where its mydumper2s3.json is put back";
    Failure::usage(hinted(error, hint))
}

/// Whether a dump that has not begun yet could go to this prefix. `me`: as for [`may_clear`].
pub async fn check_free(
    store: &Store,
    destination: &DestinationArgs,
    prefix: &Prefix,
    me: (&str, &str),
) -> Result<(), Failure> {
    let listing = Listing::of(store, prefix).await.map_err(Failure::usage)?;
    if listing.is_empty() { Ok(()) } else { may_clear(store, destination, prefix, &listing, me).await }
}

/// Deletes the dump under the prefix: `metadata` before all else, so that half of it is never taken for a whole one. What
/// is there now is what counts: somebody may have claimed it since it was judged.
pub(super) async fn clear(store: &Store, prefix: &Prefix, me: (&str, &str)) -> Result<(), Failure> {
    let removal = Removal::plan(store, prefix).await.map_err(Failure::failed)?;
    check_dead(store, prefix, removal.header.as_ref(), removal.newest, me)?;
    let uri = store.uri(&prefix.directory());
    warn!("deleting {} objects under {uri}", removal.objects());
    let removed = removal.carry_out(store, || None).await.map_err(Failure::failed)?;
    match removed.what_is_left() {
        None => Ok(()),
        Some(left) => Err(Failure::failed(anyhow!("not all under {uri} could be deleted: {left}"))),
    }
}

/// Whether what lies under the prefix may be deleted: the user allowed it, all of it is of dumps, and no upload may be at
/// work there. `me` is the host and the dump directory: whoever uploaded from there is dead, since we have its lock.
pub async fn may_clear(
    store: &Store,
    destination: &DestinationArgs,
    prefix: &Prefix,
    listing: &Listing,
    me: (&str, &str),
) -> Result<(), Failure> {
    let manifest = read_manifest(store, listing.manifest.as_ref(), drop).await.map_err(Failure::failed)?;
    let header = manifest.as_ref().and_then(|manifest| manifest.as_ref().ok());
    let of_stream = header.and_then(|header| header.name.as_ref());
    let foreign = listing.names().find(|name| !could_be_dump_file(name.as_str()) && Some(*name) != of_stream);
    let foreign = foreign.map(|name| name.as_str().to_owned()).or_else(|| listing.strangers.named.first().cloned());
    // A listing may leave out what is there, and a whole dump must not be taken for half of one.
    let asked = async || store.head(&format!("{}{METADATA}", prefix.directory())).await.map(|head| head.is_some());
    // A stream has none; and what a newer program wrote may be whole without any.
    let is_whole_without = match &manifest {
        Some(Ok(header)) => header.is_committed(false),
        Some(Err(BadManifest::Newer(_) | BadManifest::TooLarge(_))) => true,
        Some(Err(BadManifest::Damaged(_))) | None => false,
    };
    let whole = is_whole_without || listing.has_metadata() || asked().await.map_err(Failure::failed)?;
    let allowed = destination.overwrite || (destination.replace_incomplete && !whole);
    match foreign {
        Some(name) if allowed => {
            let (uri, name) = (store.uri(&prefix.directory()), name.escape_debug());
            let error = anyhow!("{uri} holds '{name}', which is no file of a dump, and is not deleted");
            Err(Failure::usage(hinted(error, "choose another --prefix, or move it away")))
        }
        _ if allowed => check_dead(store, prefix, header, listing.times().max(), me),
        _ => {
            let why = if whole { "it holds another dump" } else { "it holds other objects" };
            Err(Occupied::new(store, prefix, why, listing.manifest.is_some()).failure())
        }
    }
}

fn check_dead(
    store: &Store,
    prefix: &Prefix,
    header: Option<&ManifestHeader>,
    newest: Option<Timestamp>,
    me: (&str, &str),
) -> Result<(), Failure> {
    let Some(header) = header else { return Ok(()) };
    let host = &header.identity.host;
    if (host.as_str(), header.directory.as_str()) == me || !may_be_alive(header, newest, Timestamp::now()) {
        return Ok(());
    }
    let uri = store.uri(&prefix.directory());
    let error = anyhow!(
        "{uri} is occupied: the upload of '{}' on {} may be at work there",
        header.directory.escape_debug(),
        host.escape_debug()
    );
    let hint = "choose another --prefix; an upload that gave no sign of life for an hour counts as dead";
    Err(Failure::usage(hinted(error, hint)))
}

/// A prefix that is another's, as far as can be seen.
#[derive(Debug)]
pub struct Occupied {
    uri: String,
    why: &'static str,
    /// Whether a claim stands there that is not ours.
    pub is_claimed: bool,
}

impl fmt::Display for Occupied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is occupied: {}", self.uri, self.why)
    }
}

impl std::error::Error for Occupied {}

impl Occupied {
    pub(super) fn new(store: &Store, prefix: &Prefix, why: &'static str, is_claimed: bool) -> Self {
        Self { uri: store.uri(&prefix.directory()), why, is_claimed }
    }

    pub(super) fn failure(self) -> Failure {
        let hint =
            "choose another --prefix; --replace-incomplete deletes what has no metadata, --overwrite deletes all of it";
        Failure::usage(hinted(self, hint))
    }

    /// Where nothing may be asked of the store, and nothing deleted.
    pub(super) fn failure_unseen(self) -> Failure {
        let hint = "choose another --prefix; if an earlier run of this dump claimed it, what that run uploaded is there, \
                    and the record beside the dump, which would tell so, is missing";
        Failure::usage(hinted(self, hint))
    }
}
