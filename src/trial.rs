//! What the store lets us do, tried before anything depends on it. Whatever is put for that is taken away again.

use anyhow::anyhow;
use tracing::{debug, info, warn};

use crate::exit_status::Failure;
use crate::hint::{HintExt, hinted};
use crate::model::etag::Md5Digest;
use crate::model::object_key::Prefix;
use crate::model::part_plan::Part;
use crate::s3::{Condition, ErrorKind, FileRange, Store, StoreError};

/// A right beside that to upload, and what its lack means.
#[derive(Debug)]
pub struct Right {
    /// What it allows.
    pub what: &'static str,
    /// Why it is missing, if it is.
    pub missing: Option<String>,
    /// What does not work without it.
    pub consequence: &'static str,
}

impl Right {
    fn new(what: &'static str, answer: Result<(), StoreError>, consequence: &'static str) -> Self {
        Self { what, missing: answer.err().map(|error| error.to_string()), consequence }
    }
}

/// A multipart upload is begun and given up: it needs the same rights and settings as a PUT, and leaves no object.
/// What else may be missing is only named.
pub async fn try_rights(store: &Store, prefix: &Prefix) -> anyhow::Result<Vec<Right>> {
    let key = prefix.manifest_key();
    let begun = store.begin_upload(&key, &Default::default()).await;
    let upload = begun.map_err(|error| cannot_upload(store, error))?.as_open();
    let rights = vec![
        Right::new(
            "abort uploads",
            store.abort_upload(&upload).await,
            "parts of unfinished uploads cost storage until the bucket's rules remove them",
        ),
        Right::new(
            "list unfinished uploads",
            store.open_uploads(&key, |_| false).await.map(drop),
            "parts that a killed run left behind stay, and are sent again",
        ),
    ];
    let unreadable = |error| anyhow::Error::new(error).context("cannot read objects in the bucket");
    match store.head(&key).await {
        // Before a local file is given up it is looked at whether the prefix is still ours.
        Err(error) if error.kind == ErrorKind::AccessDenied => Err(unreadable(error)).hint(
            "the credentials need the permission s3:GetObject; where only s3:PutObject is allowed, use --write-only",
        ),
        looked => looked.map(|_| rights).map_err(unreadable),
    }
}

/// What is refused may be what was asked for beside the upload itself.
fn cannot_upload(store: &Store, error: StoreError) -> anyhow::Error {
    let is_about_acl = error.is_about_acl();
    let asks_for_more = error.kind == ErrorKind::AccessDenied && store.has_object_settings();
    let error = anyhow::Error::new(error).context("cannot upload to the bucket");
    let hint = match () {
        () if is_about_acl => "the bucket takes no ACL (its owner has all objects): leave --acl out",
        () if asks_for_more => {
            "the credentials need the permission s3:PutObject; or what was asked for is not allowed: --tag needs \
             s3:PutObjectTagging, --acl s3:PutObjectAcl, --sse aws:kms the use of the key"
        }
        () => return error,
    };
    hinted(error, hint)
}

/// Where nothing but PutObject is allowed: a PUT whose Content-MD5 is wrong. Who may not put is told so; who may is told
/// that the digest is bad. No object is left either way, but by a store that does not check: there it stays under `key`.
pub async fn try_a_refused_put(store: &Store, key: &str) -> anyhow::Result<()> {
    let wrong = Md5Digest::of(b"not x");
    match store.put(key, FileRange::in_memory("trial", b"x")?, wrong, &Default::default(), &Condition::None).await {
        Err(error) if error.is_about_acl() => Err(cannot_upload(store, error)),
        Err(error) if matches!(error.kind, ErrorKind::BadDigest | ErrorKind::Invalid) => Ok(()),
        Err(error) => Err(cannot_upload(store, error)),
        Ok(_) => {
            warn!("the store does not check Content-MD5; only its ETags prove an upload");
            Ok(())
        }
    }
}

/// What only an object tells: whether it becomes what was asked for, and whether it can be overwritten, as the manifest
/// must be. It is put, looked at, and deleted; where it may not be deleted it stays, one for each series and no more.
///
/// Without the right to put this key, nothing is known.
pub async fn try_an_object(store: &Store, key: &str) -> Result<(), Failure> {
    let put = async |text: &'static [u8]| {
        let range = FileRange::in_memory("trial", text)?;
        Ok::<_, anyhow::Error>(store.put(key, range, Md5Digest::of(text), &Default::default(), &Condition::None).await)
    };
    let uri = store.uri(key);
    for text in [b"1", b"2"] {
        match put(text).await? {
            Ok(_) => {}
            Err(error) if error.is_outage() => return Err(Failure::failed(error)),
            // One that an earlier run could not delete is in the way as the manifest would be.
            Err(error) if store.head(key).await.is_ok_and(|there| there.is_some()) => {
                return Err(not_again(&uri, error));
            }
            Err(error) => {
                debug!("{uri} cannot be put, so nothing more is tried: {error}");
                return Ok(());
            }
        }
    }
    let as_asked = check_settings(store, key).await;
    if let Err(error) = store.delete(key).await {
        // An uploader that may delete nothing is a good one, so that is no warning.
        info!("{uri}, which the store was tried with, stays: {error}");
    }
    as_asked
}

/// Whether the store was seen to make an object of parts of unequal sizes: some find out only at the end that they want
/// equal ones. Where it cannot be seen it does not. Nothing is left.
pub async fn takes_unequal_parts(store: &Store, key: &str) -> bool {
    const SIZES: [u64; 3] = [5 << 20, 6 << 20, 1 << 20];
    let made = async {
        let upload = store.begin_upload(key, &Default::default()).await?;
        let (mut etags, mut offset) = (Vec::new(), 0);
        for (number, length) in (1..).zip(SIZES) {
            let bytes = vec![0; length as usize];
            let range = FileRange::in_memory("trial", &bytes)?;
            let answer = store.put_part(&upload, Part { number, offset, length }, range, Md5Digest::of(&bytes)).await?;
            etags.push((number, answer.given_etag));
            offset += length;
        }
        let ended = store.end_upload(&upload, &etags, &Condition::None, None).await;
        if ended.is_err() {
            store.abort_upload(&upload.as_open()).await?;
        }
        ended?;
        let there = store.head(key).await?;
        store.delete(key).await?;
        Ok::<_, anyhow::Error>(there.is_some_and(|there| there.size == SIZES.iter().sum::<u64>()))
    };
    made.await.unwrap_or_else(|error| {
        debug!("whether the store takes unequal parts cannot be seen: {error:#}");
        false
    })
}

/// Looks at an object of ours: what the store did not do for it, it does for none.
pub async fn check_settings(store: &Store, key: &str) -> Result<(), Failure> {
    let found = store.is_as_asked(key).await.map_err(Failure::failed)?;
    for unseen in found.unseen {
        warn!("whether the store does it cannot be looked at: {unseen}");
    }
    not_as_asked(&found.otherwise)
}

/// The failure of a store that takes a setting and does nothing of it, if there is any in these words.
pub fn not_as_asked(otherwise: &[String]) -> Result<(), Failure> {
    if otherwise.is_empty() {
        return Ok(());
    }
    let hint = "the store takes it and does not do it: leave it out, or ask for what the store has; this run uploaded and \
                removed nothing of a dump";
    Err(Failure::usage(hinted(anyhow!("{}", otherwise.join("; ")), hint)))
}

/// The failure of what was written once and cannot be written again.
pub fn not_again(uri: &str, error: StoreError) -> Failure {
    let error = anyhow::Error::new(error).context(format!("{uri} was written once, and cannot be written again"));
    let hint = "the manifest is written first and last under one key, so the store and its rules must let an object be \
                overwritten; nothing of a dump was uploaded or removed";
    Failure::usage(hinted(error, hint))
}
