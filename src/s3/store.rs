//! A bucket, and how a request to it is made: with patience, with a time-out by its size, with fresh credentials.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::body::{Bodies, Progress, RateLimiter};
use super::connect::{self, ConnectionSettings, Way};
use super::error::{ErrorKind, StoreError};
use super::outage::{Change, Gate, Patience};
use super::settings::ObjectSettings;
use crate::hint::HintExt;

/// The slowest rate at which a request's bytes are waited for, in bytes a second: a slow link is healthy above it.
const SLOWEST_RATE: u64 = 256 * 1024;
/// How long an answer may take beside its request's bytes.
const GRACE: Duration = Duration::from_secs(30);
/// The most that the kernel takes of a body before the network does: the last of the defaults in `net.ipv4.tcp_wmem`.
const SOCKET_BUFFER: u64 = 4 * 1024 * 1024;

/// A bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    connection: ConnectionSettings,
    /// Whether a `+` in an encoded listing is one, once that is known.
    pub(super) plus_is_literal: OnceLock<bool>,
    pub(super) bucket: String,
    pub(super) objects: ObjectSettings,
    pub(super) bodies: Arc<Bodies>,
    /// How many requests share the link.
    sharing: u64,
    /// Replaced as a whole when new credentials are needed.
    way: Mutex<Way>,
    /// When it was last replaced, so that many workers do not replace it at once.
    refreshed: tokio::sync::Mutex<Instant>,
    gate: Gate,
    /// Whether a request that changes the bucket ever succeeded: then the settings are right, and what is refused
    /// later may be mended by somebody.
    proven: AtomicBool,
    /// Whether files wait for it locally, which is said of an outage.
    has_files: AtomicBool,
    /// Whether the outage, if there is one, is one of who tells the credentials.
    credentials_are_away: AtomicBool,
}

impl Store {
    /// Finds the way to a bucket. No request is made yet.
    pub async fn connect(
        connection: ConnectionSettings,
        bucket: &str,
        objects: ObjectSettings,
        limiter: Option<Arc<RateLimiter>>,
        requests_at_once: usize,
    ) -> anyhow::Result<Self> {
        let way = connect::connect(&connection).await?;
        connect::check(way.endpoint.as_deref(), bucket)?;
        Ok(Self(Arc::new(Inner {
            connection,
            plus_is_literal: OnceLock::new(),
            bucket: bucket.to_owned(),
            objects,
            bodies: Arc::new(Bodies::new(limiter)),
            sharing: requests_at_once as u64,
            way: Mutex::new(way),
            refreshed: tokio::sync::Mutex::new(Instant::now()),
            gate: Gate::new(),
            proven: AtomicBool::new(false),
            has_files: AtomicBool::new(false),
            credentials_are_away: AtomicBool::new(false),
        })))
    }

    /// Looks for credentials once, so that it shows now that there are none, and not at the first file.
    pub async fn find_credentials(&self) -> anyhow::Result<()> {
        let look = async |_, _| {
            let found = self.way().credentials.provide_credentials().await;
            found.map(drop).map_err(|error| StoreError::of_credentials(&error))
        };
        // Looking has a limit of its own.
        let found = self.persist_until("the request", "credentials", async |_| std::future::pending().await, look);
        found.await.context("cannot find credentials").hint(
            "looked in: environment (AWS_ACCESS_KEY_ID), profile files (~/.aws, AWS_PROFILE), web identity \
             (AWS_WEB_IDENTITY_TOKEN_FILE), SSO, credential_process, container and instance metadata",
        )
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.0.bucket
    }

    /// How an object is called in messages.
    pub fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.0.bucket)
    }

    /// Whether this is a directory bucket, whose ETags are never MD5s; its name ends so (AWS, "Directory bucket naming rules").
    pub fn has_no_md5_etags(&self) -> bool {
        self.0.bucket.ends_with("--x-s3")
    }

    /// The settings are tried and right: from now on outages are waited out.
    pub fn settings_are_right(&self) {
        self.0.proven.store(true, Ordering::Relaxed);
    }

    /// The settings are being tried: what is refused now is refused at once.
    pub fn settings_are_on_trial(&self) {
        self.0.proven.store(false, Ordering::Relaxed);
    }

    /// A dump is on its way: in an outage its files wait locally.
    pub fn has_files(&self) {
        self.0.has_files.store(true, Ordering::Relaxed);
    }

    /// The endpoint, where it is not AWS's own.
    pub fn endpoint(&self) -> Option<String> {
        self.way().endpoint
    }

    /// The dump lives: outages are waited out for ever.
    pub fn wait_for_ever(&self) {
        self.0.gate.set_patience(Patience::Endless);
    }

    /// The dump has ended: from the later of now and an outage's start, outages are waited out for `patience`.
    pub fn wait_for(&self, now: Instant, patience: Duration) {
        self.0.gate.set_patience(Patience::Since(now, patience));
    }

    /// Bytes of bodies that the network took since the start.
    pub fn sent_bytes(&self) -> u64 {
        self.0.bodies.sent()
    }

    /// How long the store has been down, if it is.
    pub fn down_for(&self) -> Option<Duration> {
        self.0.gate.down_for(Instant::now())
    }

    /// Makes a request until it succeeds, fails for a reason that waiting does not mend, or patience ends.
    ///
    /// `request` is called anew for each try and must be safe to repeat.
    pub(super) async fn persist<T, E>(
        &self,
        operation: &'static str,
        object: &str,
        request: impl AsyncFn(Client) -> Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, StoreError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.persist_sending(operation, object, 0, async |client, _| request(client).await).await
    }

    /// The same for a request that carries `body` bytes; it tells the progress that it is given.
    pub(super) async fn persist_sending<T, E>(
        &self,
        operation: &'static str,
        object: &str,
        body: u64,
        request: impl AsyncFn(Client, Progress) -> Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, StoreError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let limit = self.patience_with(body);
        let give_up = async |progress: &Progress| {
            progress.stalled(limit).await;
            Err(format!("no answer within {} s", limit.as_secs()))
        };
        let request = async |client, progress| {
            request(client, progress).await.map_err(|error| StoreError::of_sdk(operation, object, error))
        };
        // In a place of its own: the compiler gives up on futures that are nested too deep.
        Box::pin(self.persist_until(operation, object, give_up, request)).await
    }

    /// The same; `give_up` ends a try whose request gets no answer, with what was found out elsewhere or why it must end.
    pub(super) async fn persist_until<T>(
        &self,
        operation: &'static str,
        object: &str,
        give_up: impl AsyncFn(&Progress) -> Result<T, String>,
        request: impl AsyncFn(Client, Progress) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut failing_since = None;
        let mut last: Option<StoreError> = None;
        loop {
            let Some(pass) = self.0.gate.enter(failing_since).await else {
                return Err(last.unwrap_or_else(|| {
                    StoreError::of_answer(ErrorKind::Unavailable, operation, object, "the store is out of reach")
                }));
            };
            let progress = Progress::begin();
            let answer = tokio::select! {
                answer = request(self.client(), progress.clone()) => answer,
                end = give_up(&progress) => {
                    end.map_err(|why| StoreError::of_answer(ErrorKind::Unavailable, operation, object, why))
                }
            };
            let error = match answer {
                Ok(answer) => {
                    self.log(pass.succeeded(), None);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if let Some(why) = progress.unreadable() {
                // It says nothing about the store: the pass is given back without a word.
                let detail = format!("the file cannot be read: {why}");
                return Err(StoreError::of_answer(ErrorKind::Unreadable, operation, object, detail));
            }
            if !self.is_worth_waiting(&error) {
                // The store answered; what it said is for the caller.
                self.log(pass.succeeded(), None);
                return Err(error);
            }
            self.log(pass.failed(), Some(&error));
            if error.is_about_rights() || error.kind == ErrorKind::CredentialsAway {
                self.refresh().await;
            }
            failing_since.get_or_insert_with(Instant::now);
            last = Some(error);
        }
    }

    /// What is refused is a wrong setting before the first success, and an outage after it. But a right that only
    /// tidying up needs may never have been there: its lack is for the caller.
    fn is_worth_waiting(&self, error: &StoreError) -> bool {
        let proven = self.0.proven.load(Ordering::Relaxed);
        let was_allowed = error.kind != ErrorKind::AccessDenied || error.is_of_upload();
        error.is_outage() || (proven && error.is_about_rights() && was_allowed)
    }

    fn log(&self, change: Change, why: Option<&StoreError>) {
        match (change, why) {
            (Change::Down, Some(why)) => {
                let files = if self.0.has_files.load(Ordering::Relaxed) { ", files wait locally" } else { "" };
                let are_away = why.kind == ErrorKind::CredentialsAway;
                self.0.credentials_are_away.store(are_away, Ordering::Relaxed);
                if are_away {
                    return warn!("credentials cannot be had for the moment{files} (will be retried): {why}");
                }
                let hint = why.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                let place = self.endpoint().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
                warn!("the store{place} cannot be used{files} (will be retried): {why}{hint}");
            }
            (Change::Up(after), _) => {
                let were_away = self.0.credentials_are_away.load(Ordering::Relaxed);
                let what = if were_away { "credentials can be had again" } else { "the store is back" };
                info!("{what} after {:.0} s", after.as_secs_f64());
            }
            (Change::None | Change::Down, _) => {}
        }
    }

    /// A request that takes its time learnt that the store is up: others need not wait for it.
    pub(super) fn has_answered(&self) {
        self.log(self.0.gate.answered(), None);
    }

    pub(super) fn client(&self) -> Client {
        self.way().client
    }

    fn way(&self) -> Way {
        self.0.way.lock().clone()
    }

    /// Finds the way anew, so that the credentials are looked for again: the SDK keeps those that have no known end.
    async fn refresh(&self) {
        let mut refreshed = self.0.refreshed.lock().await;
        if refreshed.elapsed() < Duration::from_secs(1) {
            return;
        }
        if let Ok(way) = connect::connect(&self.0.connection).await {
            *self.0.way.lock() = way;
        }
        *refreshed = Instant::now();
    }

    /// How long a request may stand still that carries so many bytes.
    ///
    /// A server that takes a body and never answers would hang us for ever. A deadline by size alone would cut a slow
    /// link off that many requests share; so what counts is that the network takes the next piece. What it has taken
    /// may lie in the socket's buffer and must still cross the link.
    fn patience_with(&self, body: u64) -> Duration {
        let limit = self.0.bodies.limiter.as_ref().map_or(u64::MAX, |limiter| limiter.bytes_per_second());
        let share = SLOWEST_RATE.min(limit) / self.0.sharing.max(1);
        GRACE + Duration::from_secs(body.min(SOCKET_BUFFER) / share.max(1))
    }
}
