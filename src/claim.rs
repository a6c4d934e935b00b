//! The claim: a prefix belongs to one dump, and the first object under it says to which.
//!
//! [`Claim`] is the only writer of manifests, and only claiming makes one: who holds it may renew it, note in it what
//! became known, and write the last manifest over it; each time it is looked at whether it is still ours, by a condition
//! of the request where the store knows conditions. Once it is lost or the last manifest is written, nothing is written.

mod digests;
mod place;
mod writing;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard};
use tracing::{debug, info, warn};

use self::digests::Digests;
use self::place::{Holes, clear, unclaimed};
pub use self::place::{Occupied, check_free, may_clear};
pub use self::writing::is_another;
use self::writing::{Text, Unanswered};
use crate::bucket_dump::{Listed, Listing};
use crate::bucket_manifest::read_current;
use crate::cli::DestinationArgs;
use crate::exit_status::Failure;
use crate::model::etag::ETag;
use crate::model::file_name::FileName;
use crate::model::manifest::{DumperExit, ManifestHeader, ObjectRecord};
use crate::model::object_key::Prefix;
use crate::s3::{Condition, ErrorKind, ListedObject, Store, StoreError, TRIES};
use crate::trial::{check_settings, not_again, not_as_asked};

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
    /// What may stand there though no answer said so.
    unanswered: Unanswered,
    /// Nobody may be asked.
    write_only: bool,
    /// Nothing is written any more: the last manifest is, or the prefix is another's.
    is_closed: bool,
    /// Whether the prefix is another's.
    is_lost: bool,
    written: Instant,
}

/// The claim as those share it who write in it: what is learned of the dump's end, the renewal, the commit, a stop.
#[derive(Debug, Clone)]
pub struct SharedClaim(Arc<Mutex<Claim>>);

impl SharedClaim {
    /// What was claimed.
    pub fn new(claim: Claim) -> Self {
        Self(Arc::new(Mutex::new(claim)))
    }

    /// For as long as the guard lives nobody else looks at it or writes in it.
    pub async fn lock(&self) -> MutexGuard<'_, Claim> {
        self.0.lock().await
    }

    /// [`Claim::note`], and it is carried through also where nobody waits for it any more: a request that is dropped may
    /// still be carried out by the store, whenever it likes.
    pub async fn note(&self, change: impl FnOnce(&mut ManifestHeader) + 'static) -> Result<(), ClaimError> {
        let mut claim = Arc::clone(&self.0).lock_owned().await;
        match tokio::task::spawn_local(async move { claim.note(change).await }).await {
            Ok(noted) => noted,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The program is at its end.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

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
            unanswered: Unanswered::default(),
            write_only,
            is_closed: false,
            is_lost: false,
            written: Instant::now(),
        }
    }

    /// What is claimed.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
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

    /// Where nothing may be looked at, the answer to the claim has to tell whether objects become what was asked for. To be
    /// asked when it is noted that the prefix is ours: the claim stays.
    pub fn check_asked(&self) -> Result<(), Failure> {
        if self.write_only { not_as_asked(&self.digests.otherwise) } else { Ok(()) }
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

    /// Notes in the claim what became known, for a run that may come after this one, and shows that this one lives. Without
    /// effect once the last manifest is written.
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
        self.write(&text).await
    }

    /// Writes the last manifest over the claim. Nothing is written after it. `put` puts a file under the claim's key, on a
    /// condition, and is told whether the store is known to check Content-MD5.
    pub async fn finish(
        &mut self,
        file: File,
        put: impl AsyncFn(&str, File, Condition, Option<bool>) -> anyhow::Result<ObjectRecord>,
    ) -> Result<ObjectRecord, ClaimError> {
        if self.is_lost {
            return Err(self.lost());
        }
        // Later it cannot be tried any more.
        let is_checked = if self.has_opaque_etags() { self.refuses_wrong_md5().await? } else { None };
        for _ in 0..TRIES {
            let condition = self.condition().await?;
            let file = file.try_clone().map_err(|error| self.unwritable(error))?;
            match put(&self.prefix.manifest_key(), file, condition, is_checked).await {
                Ok(object) => {
                    self.etag = object.etag.clone().or_else(|| object.hash.etag());
                    self.is_closed = true;
                    self.written = Instant::now();
                    return Ok(object);
                }
                Err(error) => match error.downcast::<StoreError>() {
                    // It may be a text of ours that nothing was heard of.
                    Ok(error) if is_another(&error) => self.check().await?,
                    Ok(error) => return Err(error.into()),
                    Err(error) => return Err(self.unwritable(error)),
                },
            }
        }
        Err(self.lost())
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
            if is_refused { not_again(&uri, error) } else { Failure::failed(error) }
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
            answer => self.take_in(answer, &sent).await.map(drop).map_err(Failure::failed),
        }
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

/// A store that does not know a condition refuses the request.
fn is_unknown(error: &StoreError) -> bool {
    matches!(error.kind, ErrorKind::NotImplemented | ErrorKind::Invalid)
}

/// What is known beside the dump of the place that it is to go to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// Whether an earlier run for the same dump chose it.
    pub is_ours: bool,
    /// So many files of the dump were removed here after their upload to it.
    pub given_up: u64,
}

/// Claims a prefix where nothing may be asked. What an earlier run claimed is written over; what is claimed and of which
/// nothing is known is another's.
async fn claim_unseen(mut claim: Claim, known: Known) -> Result<Claimed, Failure> {
    let (store, prefix) = (claim.store.clone(), claim.prefix.clone());
    let written = match known.is_ours {
        true => claim.note(|_| {}).await,
        false => claim.begin().await.map_err(ClaimError::Store),
    };
    match written {
        Err(ClaimError::Store(error)) if !known.is_ours && error.kind == ErrorKind::Precondition => {
            return Err(Occupied::new(&store, &prefix, "it is claimed", true).failure_unseen());
        }
        written => written.map_err(Failure::failed)?,
    }
    if store.has_settings_beside_encryption() {
        info!(
            "whether objects become what was asked for is not checked, but for their encryption: with --write-only none is \
             looked at"
        );
    }
    Ok(Claimed { claim, earlier: HashMap::new(), before: None, is_complete: false })
}

/// Claims a prefix for a dump, or finds it claimed by an earlier run for the same dump. `header` is what to write.
pub async fn claim(
    store: &Store,
    destination: &DestinationArgs,
    prefix: &Prefix,
    header: &ManifestHeader,
    known: Known,
) -> Result<Claimed, Failure> {
    let fresh = |etag| Claim::new(store, prefix, header.clone(), etag, destination.write_only);
    if destination.write_only {
        return claim_unseen(fresh(None), known).await;
    }
    let mut unlisted = None;
    for _ in 0..2 {
        let mut listing = Listing::of(store, prefix).await.map_err(Failure::failed)?;
        listing.manifest = listing.manifest.or(unlisted);
        if let Some(claimed) = claimed_before(store, prefix, &listing, header).await? {
            return Ok(claimed);
        }
        if !listing.is_empty() {
            if known.given_up > 0 {
                return Err(unclaimed(store, prefix, known.given_up));
            }
            let me = (header.identity.host.as_str(), header.directory.as_str());
            may_clear(store, destination, prefix, &listing, me).await?;
            clear(store, prefix, me).await?;
        }
        let mut claim = fresh(None);
        match claim.begin().await {
            Ok(()) => {}
            // Somebody was faster, or an answer to us was lost, or the listing lags behind.
            Err(error) if error.kind == ErrorKind::Precondition => {
                unlisted = manifest_there(store, prefix).await.map_err(Failure::failed)?;
                continue;
            }
            Err(error) => return Err(Failure::failed(error)),
        }
        claim.probe().await?;
        if let Err(failure) = check_settings(store, &prefix.manifest_key()).await {
            // Nothing of the dump is there; the prefix is left as it was found.
            if claim.check().await.is_ok()
                && let Err(error) = store.delete(&prefix.manifest_key()).await
            {
                warn!("the claim stays: {error}");
            }
            return Err(failure);
        }
        info!("claimed {}", store.uri(&prefix.directory()));
        return Ok(Claimed { claim, earlier: HashMap::new(), before: None, is_complete: false });
    }
    Err(Occupied::new(store, prefix, "another program claimed it just now", true).failure())
}

/// The manifest as the store itself shows it.
async fn manifest_there(store: &Store, prefix: &Prefix) -> Result<Option<ListedObject>, StoreError> {
    let key = prefix.manifest_key();
    Ok(store.head(&key).await?.map(|head| ListedObject::of_head(key, head)))
}

/// The claim of an earlier run for the same dump.
async fn claimed_before(
    store: &Store,
    prefix: &Prefix,
    listing: &Listing,
    ours: &ManifestHeader,
) -> Result<Option<Claimed>, Failure> {
    let key = prefix.manifest_key();
    let Some(mut manifest) = listing.manifest.clone() else { return Ok(None) };
    let mut holes = Holes::default();
    let each = |file| holes.see(listing, file);
    let header = match read_current(store, &mut manifest, each).await.map_err(Failure::failed)? {
        Some(Ok(header)) if header.identity == ours.identity => header,
        Some(Ok(_)) | None => return Ok(None),
        Some(Err(error)) => {
            warn!("{} cannot be read: {error}", store.uri(&key));
            return Ok(None);
        }
    };
    let is_complete = header.is_committed(listing.has_metadata());
    let mut earlier: HashMap<_, _> =
        listing.objects().iter().map(|object| (object.name.clone(), object.clone())).collect();
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
    let mut claim = Claim::new(store, prefix, going_on, manifest.etag, false);
    if is_complete {
        let unlisted = holes.check(store, prefix).await?;
        earlier.extend(unlisted.into_iter().map(|object| (object.name.clone(), object)));
        claim.is_closed = true;
    } else {
        info!("going on at {}", store.uri(&prefix.directory()));
        claim.probe().await?;
        check_settings(store, &prefix.manifest_key()).await?;
    }
    Ok(Some(Claimed { claim, earlier, before: Some(header), is_complete }))
}
