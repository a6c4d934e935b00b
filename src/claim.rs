//! The claim: a prefix belongs to one dump, and the first object under it says to which.
//!
//! [`Claim`] is the only writer of manifests, and only claiming makes one: who holds it may renew it, note in it what
//! became known, and write the last manifest over it; each time it is looked at whether it is still ours, by a condition
//! of the request where the store knows conditions. Once it is lost or the last manifest is written, nothing is written.

mod digests;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use jiff::Timestamp;
use tracing::{debug, info, warn};

use self::digests::Digests;
use crate::bucket_dump::{Listed, Listing};
use crate::bucket_manifest::read_manifest;
use crate::cli::DestinationArgs;
use crate::exit_status::Failure;
use crate::hint::hinted;
use crate::model::etag::{ETag, Md5Digest};
use crate::model::file_kind::could_be_dump_file;
use crate::model::file_name::{FileName, METADATA};
use crate::model::manifest::{self, DumpStateWord, DumperExit, ManifestHeader, ObjectRecord};
use crate::model::object_key::Prefix;
use crate::model::standing::may_be_alive;
use crate::platform;
use crate::removal::Removal;
use crate::s3::{Condition, ErrorKind, FileRange, PutAnswer, Store, StoreError};
use crate::transfer::{DUMP_ID, TRIES, Transfer};

/// Where a store knows no conditions two dumps may claim one prefix at the same time, and both believe it. So long after
/// our claim was written no claim can be under way any more whose writer saw the prefix free: the time a request may take.
const UNCONDITIONAL_WAIT: Duration = Duration::from_secs(35);
/// A claim is renewed when nothing was completed for so long, so that others can tell a living upload from a dead one.
pub const RENEW_AFTER: Duration = Duration::from_secs(600);

/// What a store does with conditions, found out when the prefix is claimed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Conditions {
    /// It refuses `If-None-Match: *` where the key exists.
    absent: bool,
    /// It takes `If-Match`; that it looks at it is likely where it looks at the other.
    same: bool,
}

/// Why a claim could not be written.
#[derive(Debug)]
pub enum ClaimError {
    /// The prefix is another's by now: this object of ours is not what we wrote.
    Lost(String),
    /// The store.
    Store(StoreError),
}

impl fmt::Display for ClaimError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(uri) => {
                write!(formatter, "{uri} is not as this run wrote it: another program has claimed the prefix")
            }
            Self::Store(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for ClaimError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lost(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}

impl From<StoreError> for ClaimError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A prefix that is ours.
#[derive(Debug)]
pub struct Claim {
    store: Store,
    prefix: Prefix,
    /// What stands in it.
    header: ManifestHeader,
    /// The ETag of what we wrote or found: while it stays, nobody else claimed the prefix.
    etag: Option<ETag>,
    conditions: Conditions,
    /// What the store's answers prove.
    digests: Digests,
    /// Nobody may be asked.
    write_only: bool,
    /// Nothing is written any more: the last manifest is, or the prefix is another's.
    is_closed: bool,
    /// Whether the prefix is another's.
    is_lost: bool,
    written: Instant,
}

/// The claim as those share it who write in it: what is learned of the dump's end, the renewal, the commit, a stop.
pub type SharedClaim = Arc<tokio::sync::Mutex<Claim>>;

/// What claiming came to.
#[derive(Debug)]
pub struct Claimed {
    /// The claim.
    pub claim: Claim,
    /// What an earlier run left there.
    pub earlier: HashMap<FileName, Listed>,
    /// The manifest of an earlier run.
    pub before: Option<ManifestHeader>,
    /// Whether the bucket holds this dump as a whole already.
    pub is_complete: bool,
}

impl Claim {
    fn new(store: &Store, prefix: &Prefix, header: ManifestHeader, etag: Option<ETag>, write_only: bool) -> Self {
        Self {
            store: store.clone(),
            prefix: prefix.clone(),
            header,
            etag,
            conditions: Conditions::default(),
            digests: Digests::default(),
            write_only,
            is_closed: false,
            is_lost: false,
            written: Instant::now(),
        }
    }

    /// What stands in it.
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// The ETag of the manifest that is ours.
    pub fn etag(&self) -> Option<&ETag> {
        self.etag.as_ref()
    }

    /// Whether the prefix turned out to be another's.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// How `metadata` is to be put: another's must not be written over, where the store knows such a condition.
    pub fn commit_condition(&self) -> Condition {
        if self.conditions.absent { Condition::Absent } else { Condition::None }
    }

    /// How long to wait before the claim may be believed: nothing where the store knows conditions.
    pub fn wait_before_use(&self) -> Option<Duration> {
        (!self.conditions.absent && !self.write_only).then(|| UNCONDITIONAL_WAIT.saturating_sub(self.written.elapsed()))
    }

    /// Whether the claim is due to be renewed, if nothing was completed since then.
    pub fn is_due(&self, completed: Instant) -> bool {
        !self.write_only && completed.max(self.written).elapsed() >= RENEW_AFTER
    }

    /// Looks whether the claim is still what we wrote. An error of the store says nothing.
    pub async fn check(&mut self) -> Result<(), ClaimError> {
        if self.write_only {
            return Ok(());
        }
        if self.is_lost {
            return Err(self.lost());
        }
        let there = self.store.head(&self.prefix.manifest_key()).await?;
        let is_ours = match (&self.etag, there) {
            (_, None) => false,
            (Some(ours), Some(there)) => there.etag.as_ref() == Some(ours),
            // A store that tells no ETag: the dump's id has to do.
            (None, Some(there)) => there.metadata.get(DUMP_ID) == Some(&self.header.dump_id),
        };
        if is_ours { Ok(()) } else { Err(self.lost()) }
    }

    /// Notes in the claim what became known, for a run that may come after this one, and shows that this one lives. Without
    /// effect once the last
    /// manifest is written, or where this very thing stands there already.
    pub async fn note(&mut self, change: impl FnOnce(&mut ManifestHeader)) -> Result<(), ClaimError> {
        if self.is_lost {
            return Err(self.lost());
        }
        if self.is_closed {
            return Ok(());
        }
        change(&mut self.header);
        // Whoever may only put renews nothing; that nothing stands there says so.
        self.header.renewed = Some(Timestamp::now()).filter(|_| !self.write_only);
        let text = Text::of(&self.header).map_err(|error| self.unwritable(error))?;
        let condition = self.condition().await?;
        let answer = self.put(&text, &condition).await;
        self.take_in(answer, &ETag::of_single_put(text.md5)).await
    }

    /// Writes the last manifest over the claim. Nothing is written after it.
    pub async fn finish(&mut self, transfer: &Transfer, file: File) -> Result<ObjectRecord, ClaimError> {
        if self.is_lost {
            return Err(self.lost());
        }
        // Later it cannot be tried any more.
        let is_checked = if self.has_opaque_etags() { self.refuses_wrong_md5().await? } else { None };
        let condition = self.condition().await?;
        let key = self.prefix.manifest_key();
        let object = match transfer.put_own(&key, file, condition, is_checked).await {
            Ok(object) => object,
            Err(error) => match error.downcast::<StoreError>() {
                Ok(error) if is_another(&error) => return Err(self.lost()),
                Ok(error) => return Err(error.into()),
                Err(error) => return Err(self.unwritable(error)),
            },
        };
        self.etag = object.etag.clone().or_else(|| object.hash.etag());
        self.is_closed = true;
        self.written = Instant::now();
        Ok(object)
    }

    /// How the next manifest is to be put. Where the store knows no condition it is looked at just before.
    async fn condition(&mut self) -> Result<Condition, ClaimError> {
        match &self.etag {
            Some(etag) if self.conditions.same => Ok(Condition::Is(etag.clone())),
            _ => self.check().await.map(|()| Condition::None),
        }
    }

    async fn put(&self, text: &Text, condition: &Condition) -> Result<PutAnswer, StoreError> {
        let mut tries = 1;
        loop {
            match self.put_once(text, condition).await {
                // Damaged on its way: once more, as for any file.
                Err(error) if error.kind == ErrorKind::BadDigest && tries < TRIES => tries += 1,
                answer => return answer,
            }
        }
    }

    async fn put_once(&self, text: &Text, condition: &Condition) -> Result<PutAnswer, StoreError> {
        let metadata = HashMap::from([(DUMP_ID.to_owned(), self.header.dump_id.clone())]);
        self.store.put(&self.prefix.manifest_key(), text.range.clone(), text.md5, &metadata, condition).await
    }

    /// Writes the claim where nobody may have been faster.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let text = Text::of(&self.header).map_err(|error| {
            let uri = self.store.uri(&self.prefix.manifest_key());
            StoreError::of_answer(ErrorKind::Invalid, "PutObject", &uri, error.to_string())
        })?;
        let answer = match self.put(&text, &Condition::Absent).await {
            Err(error) if is_unknown(&error) => {
                debug!("{error}; trying without a condition");
                self.put(&text, &Condition::None).await?
            }
            answer => answer?,
        };
        let sent = ETag::of_single_put(text.md5);
        self.digests.observe(&answer, &sent);
        self.etag = Some(answer.etag.unwrap_or(sent));
        self.written = Instant::now();
        Ok(())
    }

    /// Finds out what the store does with conditions, and whether it lets a key be written twice: where it does not, the
    /// last manifest could never be written.
    async fn probe(&mut self) -> Result<(), Failure> {
        // What is refused now is a wrong setting, not an outage.
        self.store.settings_are_on_trial();
        let probed = self.probe_on_trial().await;
        self.store.settings_are_right();
        probed
    }

    async fn probe_on_trial(&mut self) -> Result<(), Failure> {
        let uri = self.store.uri(&self.prefix.manifest_key());
        let refused = |error: StoreError| {
            // Bytes that are damaged on their way again and again are no rule of the store's either.
            let is_refused = !error.is_outage() && error.kind != ErrorKind::BadDigest;
            if is_refused { twice_refused(&uri, error) } else { Failure::failed(error) }
        };
        let text = Text::of(&self.header).map_err(|error| Failure::failed(self.unwritable(error)))?;
        let sent = ETag::of_single_put(text.md5);
        match self.put(&text, &Condition::Absent).await {
            Ok(answer) => self.etag = Some(answer.etag.unwrap_or_else(|| sent.clone())),
            Err(error) if error.kind == ErrorKind::Precondition => self.conditions.absent = true,
            Err(error) if is_unknown(&error) => {}
            Err(error) => return Err(refused(error)),
        }
        let over = self.etag.clone().map_or(Condition::None, Condition::Is);
        let mut answer = self.put(&text, &over).await;
        // A store that does not look at the one condition need not look at the other.
        self.conditions.same = self.conditions.absent && !answer.as_ref().is_err_and(is_unknown);
        if answer.as_ref().is_err_and(is_unknown) {
            answer = self.put(&text, &Condition::None).await;
        }
        match answer {
            Err(error) if !is_another(&error) => Err(refused(error)),
            answer => self.take_in(answer, &sent).await.map_err(Failure::failed),
        }
    }

    fn lost(&mut self) -> ClaimError {
        (self.is_lost, self.is_closed) = (true, true);
        ClaimError::Lost(self.store.uri(&self.prefix.manifest_key()))
    }

    fn unwritable(&self, error: impl fmt::Display) -> ClaimError {
        let uri = self.store.uri(&self.prefix.manifest_key());
        StoreError::of_answer(ErrorKind::Invalid, "PutObject", &uri, error.to_string()).into()
    }
}

impl Claimed {
    /// A dump of which the record beside it says that it is committed, where nothing may be asked of the store.
    pub fn committed(store: &Store, prefix: &Prefix, header: &ManifestHeader) -> Self {
        let mut claim = Claim::new(store, prefix, header.clone(), None, true);
        claim.is_closed = true;
        Self { claim, earlier: HashMap::new(), before: None, is_complete: true }
    }
}

/// What a condition is refused with where another object stands there, or none any more.
pub fn is_another(error: &StoreError) -> bool {
    matches!(error.kind, ErrorKind::Precondition | ErrorKind::NoSuchKey)
}

/// A store that does not know a condition refuses the request.
fn is_unknown(error: &StoreError) -> bool {
    matches!(error.kind, ErrorKind::NotImplemented | ErrorKind::Invalid)
}

fn twice_refused(uri: &str, error: StoreError) -> Failure {
    let error = anyhow::Error::new(error).context(format!("{uri} was written once, and cannot be written again"));
    let hint = "the manifest is written first and last under one key, so the store and its rules must let an object be \
                overwritten; nothing was uploaded or removed";
    Failure::usage(hinted(error, hint))
}

/// A manifest without files, ready to be put.
struct Text {
    range: FileRange,
    md5: Md5Digest,
}

impl Text {
    fn of(header: &ManifestHeader) -> std::io::Result<Self> {
        let mut text = Vec::new();
        manifest::write(&mut text, header, std::iter::empty())?;
        let mut file = platform::memory_file("manifest")?;
        std::io::Write::write_all(&mut file, &text)?;
        let range = FileRange { file: file.into(), offset: 0, length: text.len() as u64, content: None };
        Ok(Self { range, md5: Md5Digest::of(&text) })
    }
}

/// Claims a prefix for a dump, or finds it claimed by an earlier run for the same dump. `header` is what to write, and
/// `given_up` how many files of the dump were removed here after their upload to this place.
pub async fn claim(
    store: &Store,
    destination: &DestinationArgs,
    prefix: &Prefix,
    header: &ManifestHeader,
    given_up: u64,
) -> Result<Claimed, Failure> {
    let fresh = |etag| Claim::new(store, prefix, header.clone(), etag, destination.write_only);
    if destination.write_only {
        let mut claim = fresh(None);
        claim.note(|_| {}).await.map_err(Failure::failed)?;
        return Ok(Claimed { claim, earlier: HashMap::new(), before: None, is_complete: false });
    }
    for _ in 0..2 {
        let listing = Listing::of(store, prefix).await.map_err(Failure::failed)?;
        if let Some(claimed) = claimed_before(store, prefix, &listing, header).await? {
            return Ok(claimed);
        }
        if !listing.is_empty() {
            if given_up > 0 {
                return Err(unclaimed(store, prefix, given_up));
            }
            let me = (header.identity.host.as_str(), header.directory.as_str());
            may_clear(store, destination, prefix, &listing, me).await?;
            clear(store, prefix, me).await?;
        }
        let mut claim = fresh(None);
        match claim.begin().await {
            Ok(()) => {}
            // Somebody was faster, or an answer to us was lost: the listing tells.
            Err(error) if error.kind == ErrorKind::Precondition => continue,
            Err(error) => return Err(Failure::failed(error)),
        }
        claim.probe().await?;
        info!("claimed {}", store.uri(&prefix.directory()));
        return Ok(Claimed { claim, earlier: HashMap::new(), before: None, is_complete: false });
    }
    Err(occupied(store, prefix, "another program claimed it just now"))
}

/// What stands there may be all that there is of those files, so no option clears it.
fn unclaimed(store: &Store, prefix: &Prefix, given_up: u64) -> Failure {
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

/// The claim of an earlier run for the same dump.
async fn claimed_before(
    store: &Store,
    prefix: &Prefix,
    listing: &Listing,
    ours: &ManifestHeader,
) -> Result<Option<Claimed>, Failure> {
    let key = prefix.manifest_key();
    let header = match read_manifest(store, listing.manifest.as_ref(), drop).await.map_err(Failure::failed)? {
        Some(Ok(header)) if header.identity == ours.identity => header,
        Some(Ok(_)) | None => return Ok(None),
        Some(Err(error)) => {
            warn!("{} cannot be read: {error}", store.uri(&key));
            return Ok(None);
        }
    };
    let is_complete = header.state == DumpStateWord::Complete && listing.has_metadata();
    let earlier = listing.objects().iter().map(|object| (object.name.clone(), object.clone())).collect();
    // What an earlier run saw of the dump's life still holds.
    let going_on = ManifestHeader {
        seen_alive: ours.seen_alive || header.seen_alive,
        told_to_stop: ours.told_to_stop || header.told_to_stop,
        dumper_exit: if ours.dumper_exit == DumperExit::NOT_SEEN { header.dumper_exit } else { ours.dumper_exit },
        dumper_version: ours.dumper_version.clone().or_else(|| header.dumper_version.clone()),
        full_disk: ours.full_disk.max(header.full_disk),
        left_out: ours.left_out.clone().or_else(|| header.left_out.clone()),
        ..ours.clone()
    };
    let etag = listing.manifest.as_ref().and_then(|manifest| manifest.etag.clone());
    let mut claim = Claim::new(store, prefix, going_on, etag, false);
    if is_complete {
        claim.is_closed = true;
    } else {
        info!("going on at {}", store.uri(&prefix.directory()));
        claim.probe().await?;
    }
    Ok(Some(Claimed { claim, earlier, before: Some(header), is_complete }))
}

/// Deletes the dump under the prefix: `metadata` before all else, so that half of it is never taken for a whole one. What
/// is there now is what counts: somebody may have claimed it since it was judged.
async fn clear(store: &Store, prefix: &Prefix, me: (&str, &str)) -> Result<(), Failure> {
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
    let foreign = listing.names().find(|name| !could_be_dump_file(name.as_str()));
    let foreign = foreign.map(|name| name.as_str().to_owned()).or_else(|| listing.strangers.named.first().cloned());
    // A listing may leave out what is there, and a whole dump must not be taken for half of one.
    let asked = async || store.head(&format!("{}{METADATA}", prefix.directory())).await.map(|head| head.is_some());
    let whole = listing.has_metadata() || asked().await.map_err(Failure::failed)?;
    let allowed = destination.overwrite || (destination.replace_incomplete && !whole);
    match foreign {
        Some(name) if allowed => {
            let (uri, name) = (store.uri(&prefix.directory()), name.escape_debug());
            let error = anyhow!("{uri} holds '{name}', which is no file of a dump, and is not deleted");
            Err(Failure::usage(hinted(error, "choose another --prefix, or move it away")))
        }
        _ if allowed => {
            let manifest = read_manifest(store, listing.manifest.as_ref(), drop).await.map_err(Failure::failed)?;
            check_dead(store, prefix, manifest.and_then(Result::ok).as_ref(), listing.times().max(), me)
        }
        _ if whole => Err(occupied(store, prefix, "it holds another dump")),
        _ => Err(occupied(store, prefix, "it holds other objects")),
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

fn occupied(store: &Store, prefix: &Prefix, why: &str) -> Failure {
    let uri = store.uri(&prefix.directory());
    let hint =
        "choose another --prefix; --replace-incomplete deletes what has no metadata, --overwrite deletes all of it";
    Failure::usage(hinted(anyhow!("{uri} is occupied: {why}"), hint))
}
