//! The store is tried before anything else: settings, credentials, rights. So wrong ones fail within seconds, and mydumper
//! is not started.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use tracing::{info, warn};

use crate::cli::UploadArgs;
use crate::exit_status::Failure;
use crate::hint::{HintExt, find};
use crate::model::etag::Md5Digest;
use crate::model::object_key::Prefix;
use crate::platform;
use crate::s3::{Condition, ConnectionSettings, ErrorKind, FileRange, ObjectSettings, RateLimiter, Store, StoreError};

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

/// Finds the way to the bucket and tries everything that an upload needs. A wrong setting fails at once; a store that is
/// away is waited for like later, since one night's hiccup must not cost the night.
pub async fn connect(args: &UploadArgs) -> Result<(Store, Vec<Right>), Failure> {
    let is_outage = |error: &anyhow::Error| find::<StoreError>(error).is_some_and(StoreError::is_outage);
    connect_and_try(args).await.map_err(|error| match is_outage(&error) {
        true => Failure::failed(error.context("nothing was begun")),
        false => Failure::usage(error),
    })
}

async fn connect_and_try(args: &UploadArgs) -> anyhow::Result<(Store, Vec<Right>)> {
    let destination = &args.destination;
    let objects = ObjectSettings {
        storage_class: destination.storage_class.as_ref().map(ToString::to_string),
        encryption: destination.sse.map(|kind| kind.as_str().to_owned()),
        kms_key_id: destination.sse_kms_key_id.clone(),
        acl: destination.acl.map(|acl| acl.as_str().to_owned()),
        tags: destination.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
    };
    let limiter = args.transfer.limit_rate.map(|rate| Arc::new(RateLimiter::new(rate.0)));
    let (connection, workers) = (ConnectionSettings::from(&args.connection), args.transfer.workers);
    let store = Store::connect(connection, destination.bucket.as_str(), objects, limiter, workers).await?;
    if !args.dry_run {
        store.wait_for(Instant::now(), args.transfer.retry_for);
    }
    // Any prefix of ours will do, so let it be the one that a dump of this second would get.
    let prefix = destination.prefix.expand(&platform::host_name(), Timestamp::now())?;
    let rights = if destination.write_only {
        try_a_refused_put(&store, &prefix).await?;
        Vec::new()
    } else {
        check_bucket(args, &store).await?;
        try_rights(&store, &prefix).await?
    };
    for Right { what, missing, consequence } in &rights {
        if let Some(why) = missing {
            warn!("the right to {what} is missing: {consequence} ({why})");
        }
    }
    store.settings_are_right();
    Ok((store, rights))
}

async fn check_bucket(args: &UploadArgs, store: &Store) -> anyhow::Result<()> {
    let answer = store.bucket_exists().await;
    if let Err(error) = &answer
        && error.kind == ErrorKind::AccessDenied
    {
        return answer.map(drop).context("cannot list the bucket").hint(
            "the credentials need the permission s3:ListBucket; where only s3:PutObject is allowed, use --write-only",
        );
    }
    if answer.context("cannot use the bucket")? {
        return Ok(());
    }
    if !args.destination.create_bucket {
        return Err(anyhow!("there is no bucket '{}'", store.bucket()))
            .hint("check --bucket and --endpoint-url, or create it with --create-bucket");
    }
    if args.dry_run {
        return Err(anyhow!("there is no bucket '{}', and a dry run creates none", store.bucket()));
    }
    store.create_bucket().await.context("cannot create the bucket")?;
    info!("created the bucket '{}'", store.bucket());
    Ok(())
}

/// A multipart upload is begun and given up: it needs the same rights and settings as a PUT, and leaves no object.
/// What else may be missing is only named.
async fn try_rights(store: &Store, prefix: &Prefix) -> anyhow::Result<Vec<Right>> {
    let key = prefix.manifest_key();
    let upload = match store.begin_upload(&key, &Default::default()).await {
        Err(error) if error.kind == ErrorKind::AccessDenied && store.has_object_settings() => {
            let hint = "the credentials need the permission s3:PutObject; or what was asked for is not allowed: --tag needs \
                        s3:PutObjectTagging, --acl s3:PutObjectAcl, --sse aws:kms the use of the key";
            return Err(anyhow::Error::new(error).context("cannot upload to the bucket")).hint(hint);
        }
        begun => begun.context("cannot upload to the bucket")?.as_open(),
    };
    let missing = |answer: Result<(), StoreError>| answer.err().map(|error| error.to_string());
    let rights = vec![
        Right {
            what: "abort uploads",
            missing: missing(store.abort_upload(&upload).await),
            consequence: "parts of unfinished uploads cost storage until the bucket's rules remove them",
        },
        Right {
            what: "list unfinished uploads",
            missing: missing(store.open_uploads(&key).await.map(drop)),
            consequence: "parts that a killed run left behind stay, and are sent again",
        },
    ];
    match store.head(&key).await {
        // Before a local file is given up it is looked at whether the prefix is still ours.
        Err(error) if error.kind == ErrorKind::AccessDenied => Err(
            anyhow::Error::new(error).context("cannot read objects in the bucket")
        )
        .hint("the credentials need the permission s3:GetObject; where only s3:PutObject is allowed, use --write-only"),
        looked => looked.map(|_| rights).context("cannot read objects in the bucket"),
    }
}

/// Where nothing but PutObject is allowed: a PUT whose Content-MD5 is wrong. Who may not put is told so; who may is told
/// that the digest is bad. No object is left either way.
async fn try_a_refused_put(store: &Store, prefix: &Prefix) -> anyhow::Result<()> {
    let mut file = platform::memory_file("check")?;
    std::io::Write::write_all(&mut file, b"x")?;
    let range = FileRange { file: file.into(), offset: 0, length: 1, content: None };
    let wrong = Md5Digest::of(b"not x");
    match store.put(&prefix.manifest_key(), range, wrong, &Default::default(), &Condition::None).await {
        Err(error) if matches!(error.kind, ErrorKind::BadDigest | ErrorKind::Invalid) => Ok(()),
        Err(error) => Err(error).context("cannot upload to the bucket"),
        Ok(_) => {
            warn!("the store does not check Content-MD5; only its ETags prove an upload");
            Ok(())
        }
    }
}

impl From<&crate::cli::ConnectionArgs> for ConnectionSettings {
    fn from(args: &crate::cli::ConnectionArgs) -> Self {
        Self {
            endpoint_url: args.endpoint_url.as_ref().map(ToString::to_string),
            region: args.region.clone(),
            profile: args.profile.clone(),
            path_style: args.path_style,
            ca_bundle: args.ca_bundle.clone(),
        }
    }
}
