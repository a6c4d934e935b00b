//! The store is tried before anything else: settings, credentials, rights. So wrong ones fail within seconds, and mydumper
//! is not started.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use tracing::{info, warn};

use crate::cli::{ConnectionArgs, DestinationArgs, TransferArgs, UploadArgs};
use crate::commands::reach::usage_or_outage;
use crate::exit_status::{Failure, Status};
use crate::hint::{HintExt, hinted};
use crate::model::destination::is_archive;
use crate::platform;
use crate::s3::{ConnectionSettings, ErrorKind, ObjectSettings, RateLimiter, Store};
use crate::trial::{self, Right};

/// Finds the way to the bucket and tries everything that an upload needs. A wrong setting fails at once; a store that is
/// away is waited for like later, since one night's hiccup must not cost the night.
pub async fn connect(args: &UploadArgs) -> Result<(Store, Vec<Right>), Failure> {
    let demands = Demands {
        destination: &args.destination,
        transfer: &args.transfer,
        connection: &args.connection,
        is_dry_run: args.dry_run,
        needs_object: needs_an_object(args),
        gives_back: args.dump.give_back,
    };
    demands.connect().await
}

/// What is to be found in a store.
pub struct Demands<'a> {
    /// Where a dump goes.
    pub destination: &'a DestinationArgs,
    /// How it goes there.
    pub transfer: &'a TransferArgs,
    /// How the store is reached.
    pub connection: &'a ConnectionArgs,
    /// Nothing may be changed, and nothing is waited for.
    pub is_dry_run: bool,
    /// Whether an object must be made to see what becomes of it.
    pub needs_object: bool,
    /// Whether unfinished uploads will have the only copy of something.
    pub gives_back: bool,
}

impl Demands<'_> {
    /// The same for these.
    pub async fn connect(&self) -> Result<(Store, Vec<Right>), Failure> {
        self.connect_and_try().await.map_err(|error| {
            let mut failure = usage_or_outage(error);
            if failure.status == Status::Failure {
                failure.error = failure.error.context("nothing was begun");
            }
            failure
        })
    }

    async fn connect_and_try(&self) -> anyhow::Result<(Store, Vec<Right>)> {
        let Self { destination, transfer, .. } = *self;
        let objects = ObjectSettings {
            storage_class: destination.storage_class.as_ref().map(ToString::to_string),
            encryption: destination.sse.map(|kind| kind.as_str().to_owned()),
            kms_key_id: destination.sse_kms_key_id.clone(),
            acl: destination.acl.map(|acl| acl.as_str().to_owned()),
            tags: destination.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
        };
        let limiter = transfer.limit_rate.map(|rate| Arc::new(RateLimiter::new(rate.0)));
        let (connection, workers) = (ConnectionSettings::from(self.connection), transfer.workers);
        let store = Store::connect(connection, destination.bucket.as_str(), objects, limiter, workers).await?;
        if !self.is_dry_run {
            store.wait_for(Instant::now(), transfer.retry_for);
        }
        store.find_credentials().await?;
        // Any prefix of ours will do, so let it be the one that a dump of this second would get.
        let prefix = destination.prefix.expand(&platform::host_name(), Timestamp::now())?;
        let rights = if destination.write_only {
            trial::try_a_refused_put(&store, &prefix.trial_key()).await?;
            Vec::new()
        } else {
            self.check_bucket(&store).await?;
            trial::try_rights(&store, &prefix).await?
        };
        for Right { what, missing, consequence } in &rights {
            if let Some(why) = missing {
                warn!("the right to {what} is missing: {consequence} ({why})");
            }
        }
        if self.gives_back {
            refuse_short_life(destination, &store).await?;
        }
        if self.needs_object {
            let key = destination.prefix.trial_key(&platform::host_name());
            trial::try_an_object(&store, &key).await.map_err(|failure| failure.error)?;
        }
        store.settings_are_right();
        Ok((store, rights))
    }

    async fn check_bucket(&self, store: &Store) -> anyhow::Result<()> {
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
        if !self.destination.create_bucket {
            return Err(anyhow!("there is no bucket '{}'", store.bucket()))
                .hint("check --bucket and --endpoint-url, or create it with --create-bucket");
        }
        if self.is_dry_run {
            return Err(anyhow!("there is no bucket '{}', and a dry run creates none", store.bucket()));
        }
        store.create_bucket().await.context("cannot create the bucket")?;
        info!("created the bucket '{}'", store.bucket());
        Ok(())
    }
}

/// An unfinished upload may hold the only copy of some bytes for as long as the dump takes, and a restart after that.
const LIFE_MIN_DAYS: i32 = 8;

async fn refuse_short_life(destination: &DestinationArgs, store: &Store) -> anyhow::Result<()> {
    let under = destination.prefix.fixed_directory(&platform::host_name());
    match store.aborts_uploads_after(&under).await {
        Some(days) if days < LIFE_MIN_DAYS => {
            let error = anyhow!("a lifecycle rule of the bucket aborts unfinished uploads after {days} days");
            let hint = format!(
                "with --give-back they hold the only copy of what is not local any more: let the rule wait for \
                 {LIFE_MIN_DAYS} days at least, or leave --give-back away"
            );
            Err(hinted(error, hint))
        }
        _ => Ok(()),
    }
}

/// The claim, the first object of a dump, tells all that an object can tell. But then mydumper runs already, if we start
/// it; and a claim is not archived.
fn needs_an_object(args: &UploadArgs) -> bool {
    let is_archived = args.destination.storage_class.as_ref().is_some_and(|class| is_archive(class.as_str()));
    !args.destination.write_only && !args.dry_run && (args.starts_mydumper() || is_archived)
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
