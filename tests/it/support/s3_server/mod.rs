//! A strict S3 server for tests: real HTTP on 127.0.0.1, in the process of the test, with faults on demand.
//!
//! `s3s` in front knows the protocol: routes, XML, signatures. Behind it is a [`store`] of our own that checks what a
//! real store checks, before it stores anything. Between the wire and `s3s` the [`front`] writes the request log and
//! strikes with the faults that a test has injected.
//!
//! The server runs on threads of its own, so that tests without a runtime can use it too.
//!
//! ```ignore
//! let server = S3Server::start();
//! let fault = server.inject(Fault::answer(503, "SlowDown").on(Operation::PutObject).times(2));
//! // … run the program with server.environment() and server.endpoint() …
//! assert_eq!(fault.hits(), 2);
//! assert_eq!(server.object(BUCKET, "dump/metadata").expect("uploaded").bytes(), b"…");
//! ```

// Not every test, and not the example that includes these files too, uses all of the interface.
#![allow(dead_code, unused_imports)]

mod answers;
mod blob;
mod body;
mod condition;
mod digest;
mod faults;
mod front;
mod keys;
mod listener;
mod listing;
mod log;
mod object;
mod operation;
mod request;
mod service;
mod store;
mod uploads;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};

pub use faults::{Fault, FaultHandle};
pub use keys::{AccessKey, Permission};
pub use listing::Oddity;
pub use log::LoggedRequest;
pub use object::{Attributes, Encryption, StoredObject};
pub use operation::Operation;
pub use store::{Limits, OpaqueEtags};

use blob::BlobDir;
use condition::Condition;
use faults::Faults;
use front::{Clock, Front};
use keys::Keys;
use listener::Listener;
use service::Service;
use store::Store;

/// The bucket of a server that was not told another.
pub const BUCKET: &str = "test-bucket";
pub const ACCESS_KEY: &str = "TESTACCESSKEY";
pub const SECRET_KEY: &str = "test-secret-key";

/// How long a test waits for what must happen. Long, because other tests may have the machine; never slept through.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. It ends, and its data with it, when it is dropped.
pub struct S3Server {
    front: Arc<Front>,
    keys: Keys,
    listener: Listener,
}

/// How a server is to be, before it starts.
pub struct Builder {
    port: u16,
    dir: Option<PathBuf>,
    buckets: Vec<String>,
    keys: Vec<AccessKey>,
    limits: Limits,
    region: Option<String>,
}

impl Builder {
    /// Any free one, if not said.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Where the bytes go; the system's temporary directory, if not said. They do not outlive the server.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Instead of [`BUCKET`]; may be said more than once.
    pub fn bucket(mut self, name: &str) -> Self {
        self.buckets.push(name.to_owned());
        self
    }

    /// Instead of [`ACCESS_KEY`]; may be said more than once.
    pub fn key(mut self, key: AccessKey) -> Self {
        self.keys.push(key);
        self
    }

    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Refuses requests that are signed for another region. If not said, any will do.
    pub fn region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    /// # Panics
    /// When the port or the directory cannot be used, which no test can do anything about.
    pub fn start(mut self) -> S3Server {
        if self.keys.is_empty() {
            self.keys.push(AccessKey::new(ACCESS_KEY, SECRET_KEY));
        }
        if self.buckets.is_empty() {
            self.buckets.push(BUCKET.to_owned());
        }
        let keys = Keys::default();
        for key in self.keys.drain(..) {
            keys.set(key);
        }
        let front = Arc::new(self.front(&keys));
        for bucket in &self.buckets {
            front.store.create_bucket(bucket).expect("each bucket is named once");
        }
        let listener = Listener::start(self.port, Arc::clone(&front));
        let listener = listener.unwrap_or_else(|error| panic!("cannot listen on port {}: {error}", self.port));
        S3Server { front, keys, listener }
    }

    fn front(&self, keys: &Keys) -> Front {
        let blobs = BlobDir::new(self.dir.clone()).expect("the directory for the bytes can be made");
        let store = Arc::new(Store::new(blobs, self.limits));
        let clock = Arc::new(Clock::default());
        let region = self.region.clone();
        let service = Service { store: Arc::clone(&store), keys: keys.clone(), clock: Arc::clone(&clock), region };
        Front {
            s3: s3_service(service, keys),
            store,
            log: Arc::default(),
            faults: Faults::default(),
            pace: Arc::default(),
            clock,
            latency: Mutex::default(),
            region: self.region.clone(),
        }
    }
}

fn s3_service(service: Service, keys: &Keys) -> S3Service {
    let mut config = S3Config::default();
    // The front compares the request's time with the server's own clock, which need not be that of this machine.
    config.presigned_url_max_skew_time_secs = u32::MAX;
    let mut builder = S3ServiceBuilder::new(service);
    builder.set_auth(keys.clone());
    builder.set_access(keys.clone());
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

/// Starting it, and reaching it.
impl S3Server {
    /// One bucket, [`BUCKET`], and one key that may do everything, [`ACCESS_KEY`].
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> Builder {
        Builder { port: 0, dir: None, buckets: Vec::new(), keys: Vec::new(), limits: Limits::default(), region: None }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.listener.address)
    }

    pub fn port(&self) -> u16 {
        self.listener.address.port()
    }

    /// What a program needs to sign its requests with [`ACCESS_KEY`], and nothing of the user's own settings.
    pub fn environment(&self) -> [(&'static str, &'static str); 5] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ]
    }
}

/// What it was asked.
impl S3Server {
    /// All requests so far, in the order of their arrival, those that are still being served too.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.front.log.requests()
    }

    pub fn requests_of(&self, operation: Operation) -> Vec<LoggedRequest> {
        let mut requests = self.requests();
        requests.retain(|request| request.operation == operation);
        requests
    }

    pub fn count(&self, operation: Operation) -> usize {
        self.requests_of(operation).len()
    }

    /// Blocks until the requests so far satisfy `condition`. An async test needs `flavor = "multi_thread"` for it, as for
    /// [`FaultHandle::wait_for_hits`], if its own runtime has to do something before that can be.
    ///
    /// # Panics
    /// When that takes too long; `what` says what was waited for.
    pub fn wait_until(&self, what: &str, condition: impl FnMut(&[LoggedRequest]) -> bool) {
        let in_time = self.front.log.wait_until(condition);
        assert!(in_time, "waited for {PATIENCE:?} in vain: {what}");
    }

    /// The most requests that were being served at the same time.
    pub fn peak_requests_in_flight(&self) -> usize {
        self.front.log.peak_in_flight()
    }

    pub fn open_connections(&self) -> usize {
        self.listener.connections.now()
    }

    /// An upper bound: a connection that the client has closed counts until the server has seen it.
    pub fn peak_connections(&self) -> usize {
        self.listener.connections.peak()
    }
}

/// What goes wrong.
impl S3Server {
    pub fn inject(&self, fault: Fault) -> FaultHandle {
        self.front.faults.inject(fault)
    }

    /// Ends all faults, and lets go the requests that they hold.
    pub fn clear_faults(&self) {
        self.front.faults.clear();
    }

    /// Refuses connections from now on and cuts those that are open. The port stays ours.
    pub fn down(&self) {
        self.listener.down();
    }

    /// Listens again, at the same port.
    pub fn up(&self) {
        self.listener.up();
    }

    pub fn cut_connections(&self) {
        self.listener.cut_connections();
    }

    /// Each request waits this long before it is looked at.
    pub fn set_latency(&self, latency: Duration) {
        *lock(&self.front.latency) = latency;
    }

    /// For all bodies together, in and out.
    pub fn set_rate_limit(&self, bytes_per_second: Option<u64>) {
        self.front.pace.set(bytes_per_second);
    }

    /// How much the server's clock is ahead of the real one.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.front.clock.set_offset(seconds);
    }

    /// Adds a key, or replaces the one with the same id.
    pub fn set_key(&self, key: AccessKey) {
        self.keys.set(key);
    }

    pub fn remove_key(&self, id: &str) {
        self.keys.remove(id);
    }
}

/// What it stores, directly.
impl S3Server {
    pub fn object(&self, bucket: &str, key: &str) -> Option<Arc<StoredObject>> {
        self.front.store.get(bucket, key, None).ok()
    }

    /// Sorted; without keys whose latest version is a delete marker.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.with_bucket(bucket, |bucket| {
            bucket.objects.keys().filter(|key| bucket.current(key).is_some()).cloned().collect()
        })
    }

    /// All versions of a key that have bytes, oldest first.
    pub fn versions(&self, bucket: &str, key: &str) -> Vec<Arc<StoredObject>> {
        self.with_bucket(bucket, |bucket| {
            let versions = bucket.objects.get(key).map(Vec::as_slice).unwrap_or_default();
            versions.iter().filter_map(|version| version.object().cloned()).collect()
        })
    }

    /// As one PUT of somebody else would.
    pub fn put_directly(&self, bucket: &str, key: &str, bytes: &[u8]) -> Arc<StoredObject> {
        let received = digest::received(bytes, &self.front.store.blobs).expect("bytes can be stored");
        let put = self.front.store.put(bucket, key, Attributes::default(), received, &Condition::default(), self.now());
        put.unwrap_or_else(|error| panic!("cannot put '{key}' into '{bucket}': {error}"))
    }

    /// Puts an object that says this of itself.
    pub fn put_with_metadata(&self, bucket: &str, key: &str, bytes: &[u8], metadata: &[(&str, &str)]) {
        let received = digest::received(bytes, &self.front.store.blobs).expect("bytes can be stored");
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let attributes = Attributes { metadata, ..Attributes::default() };
        let put = self.front.store.put(bucket, key, attributes, received, &Condition::default(), self.now());
        put.unwrap_or_else(|error| panic!("cannot put '{key}' into '{bucket}': {error}"));
    }

    /// Stores an object's bytes again, in parts of this size or in one PUT, as another program's copy would.
    pub fn copy_in_parts(&self, bucket: &str, key: &str, part_size: Option<usize>) {
        let store = &self.front.store;
        let there = self.object(bucket, key).unwrap_or_else(|| panic!("there is no '{key}' to copy"));
        let bytes = there.bytes();
        let Some(part_size) = part_size else {
            self.replace_directly(bucket, key, &bytes);
            return;
        };
        let (id, _) = store.create_upload(bucket, key, there.attributes.clone(), self.now()).expect("an upload");
        let put = |(number, part): (u32, &[u8])| {
            let received = digest::received(part, &store.blobs).expect("bytes can be stored");
            let part = store.put_part(bucket, key, &id, number, received, self.now()).expect("a part is stored");
            uploads::NamedPart { number, etag: part.etag }
        };
        let named: Vec<_> = (1..).zip(bytes.chunks(part_size)).map(put).collect();
        store.complete_upload(bucket, key, &id, &named, &Condition::default(), self.now()).expect("an object of parts");
    }

    /// Puts other bytes under a key, and keeps what the object said of itself: its user metadata above all.
    pub fn replace_directly(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let object = self.object(bucket, key).unwrap_or_else(|| panic!("there is no '{key}' in '{bucket}' to replace"));
        let received = digest::received(bytes, &self.front.store.blobs).expect("bytes can be stored");
        let attributes = object.attributes.clone();
        let put = self.front.store.put(bucket, key, attributes, received, &Condition::default(), self.now());
        put.unwrap_or_else(|error| panic!("cannot put '{key}' into '{bucket}': {error}"));
    }

    /// Gives many keys the object that one has: a hundred thousand of them in a second, on one file of bytes.
    pub fn copy_directly(&self, bucket: &str, key: &str, copies: impl IntoIterator<Item = String>) {
        let object = self.object(bucket, key).unwrap_or_else(|| panic!("there is no '{key}' in '{bucket}' to copy"));
        self.with_bucket(bucket, |bucket| {
            copies.into_iter().for_each(|copy| drop(bucket.insert(&copy, StoredObject::clone(&object))));
        });
    }

    pub fn remove_directly(&self, bucket: &str, key: &str) {
        self.front.store.delete(bucket, key, None, self.now()).expect("the test names a bucket that exists");
    }

    /// Changes a byte in the storage. Size, ETag and everything else the server says stay.
    ///
    /// # Panics
    /// When there is no such object, or it is empty.
    pub fn corrupt(&self, bucket: &str, key: &str) {
        let object = self.object(bucket, key);
        object.unwrap_or_else(|| panic!("there is no '{key}' in '{bucket}' to damage")).flip_byte();
    }

    /// The keys of the multipart uploads that were neither completed nor aborted, sorted, with their upload ids.
    pub fn open_multipart_uploads(&self, bucket: &str) -> Vec<(String, String)> {
        let mut open: Vec<_> = self.with_bucket(bucket, |bucket| {
            bucket.uploads.iter().map(|(id, upload)| (upload.key.clone(), id.clone())).collect()
        });
        open.sort();
        open
    }

    pub fn create_bucket(&self, bucket: &str) {
        self.front.store.create_bucket(bucket).expect("each bucket is made once");
    }

    pub fn enable_versioning(&self, bucket: &str) {
        self.with_bucket(bucket, |bucket| bucket.versioned = true);
    }

    /// Nobody may delete the object before that time.
    pub fn retain(&self, bucket: &str, key: &str, until: SystemTime) {
        self.with_bucket(bucket, |bucket| bucket.retained.insert(key.to_owned(), until));
    }

    pub fn has_bucket(&self, bucket: &str) -> bool {
        self.front.store.check_bucket(bucket).is_ok()
    }

    /// A multipart upload that somebody began and left.
    pub fn begin_upload_directly(&self, bucket: &str, key: &str) {
        self.begin_upload_at(bucket, key, self.now());
    }

    /// The same at that time.
    pub fn begin_upload_at(&self, bucket: &str, key: &str, time: SystemTime) {
        let begun = self.front.store.create_upload(bucket, key, Attributes::default(), time);
        begun.unwrap_or_else(|error| panic!("cannot begin an upload of '{key}' in '{bucket}': {error}"));
    }

    /// Somebody else's upload, with a note of theirs in the object's user metadata, and with these parts.
    pub fn begin_upload_of_a_stranger(&self, bucket: &str, key: &str, parts: &[&[u8]]) {
        let metadata = [("whose".to_owned(), "a stranger's".to_owned())].into();
        let attributes = Attributes { metadata, ..Attributes::default() };
        let (store, now) = (&self.front.store, self.now());
        let (id, _) = store.create_upload(bucket, key, attributes, now).expect("it is begun");
        for (number, bytes) in (1..).zip(parts) {
            let received = digest::received(bytes, &store.blobs).expect("bytes can be stored");
            store.put_part(bucket, key, &id, number, received, now).expect("a part can be put");
        }
    }

    /// What unfinished uploads have from their first part on, by key.
    pub fn open_upload_bytes(&self, bucket: &str) -> Vec<(String, Vec<u8>)> {
        let bytes_of = |upload: &uploads::Upload| {
            let parts = (1..).map_while(|number| upload.parts.get(&number));
            let mut bytes = Vec::new();
            for part in parts {
                let mut reader = part.blob.open_at(0, u64::MAX).expect("a stored part");
                std::io::Read::read_to_end(&mut reader, &mut bytes).expect("its bytes");
            }
            (upload.key.clone(), bytes)
        };
        self.with_bucket(bucket, |bucket| bucket.uploads.values().map(bytes_of).collect())
    }

    /// A lifecycle rule aborts unfinished uploads under that prefix after so many days.
    pub fn abort_uploads_after(&self, bucket: &str, prefix: &str, days: i32) {
        self.with_bucket(bucket, |bucket| bucket.aborts_after = Some((prefix.to_owned(), days)));
    }

    /// Somebody aborts all unfinished uploads.
    pub fn abort_uploads_directly(&self, bucket: &str) {
        self.with_bucket(bucket, |bucket| bucket.uploads.clear());
    }

    /// A part of an unfinished upload is not there any more.
    pub fn lose_part(&self, bucket: &str, number: u32) {
        self.with_bucket(bucket, |bucket| {
            bucket.uploads.values_mut().for_each(|upload| drop(upload.parts.remove(&number)));
        });
    }

    /// Leaves a key out of listings.
    pub fn hide_from_listings(&self, bucket: &str, key: &str) {
        self.with_bucket(bucket, |bucket| bucket.hidden.insert(key.to_owned()));
    }

    /// For objects whose request does not ask for another.
    pub fn set_default_encryption(&self, bucket: &str, encryption: Encryption) {
        self.with_bucket(bucket, |bucket| bucket.default_encryption = encryption);
    }

    /// From now on its listings of objects are no listings of what is asked for; or they are right again.
    pub fn set_oddity(&self, bucket: &str, oddity: Option<Oddity>) {
        self.with_bucket(bucket, |bucket| bucket.oddity = oddity);
    }

    fn with_bucket<T>(&self, name: &str, step: impl FnOnce(&mut store::Bucket) -> T) -> T {
        let done = self.front.store.with_bucket(name, |bucket| Ok(step(bucket)));
        done.unwrap_or_else(|error| panic!("bucket '{name}': {error}"))
    }

    fn now(&self) -> SystemTime {
        self.front.clock.now()
    }
}

/// What a thread that panicked leaves behind is still whole: each step under a lock is done or not begun.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
