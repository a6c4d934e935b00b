//! Every request the server got, as it came over the wire.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::HeaderMap;

use super::operation::{Operation, Target};
use super::{PATIENCE, lock};

/// One request. Written when its headers have come, completed when it ends, so that a request that hangs is seen too.
#[derive(Clone, Debug)]
pub struct LoggedRequest {
    pub operation: Operation,
    pub bucket: String,
    pub key: String,
    pub part: Option<u32>,
    pub upload_id: Option<String>,
    pub headers: HeaderMap,
    pub arrived: Instant,
    /// Bytes of the body that were read, as they came over the wire (with the framing of `aws-chunked`).
    pub received: u64,
    /// `None` while the request is being served, and for ever when it got no answer.
    pub status: Option<u16>,
    /// The S3 error code of the answer.
    pub error_code: Option<String>,
    /// From arrival to answer, or to the end without one.
    pub took: Option<Duration>,
}

impl LoggedRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn has_content_md5(&self) -> bool {
        self.headers.contains_key("content-md5")
    }

    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Whether the body is framed in chunks that the store has to unpack, which several stores refuse.
    pub fn is_aws_chunked(&self) -> bool {
        self.header("content-encoding").is_some_and(|encoding| encoding.contains("aws-chunked"))
            || self.header("x-amz-content-sha256").is_some_and(|hash| hash.starts_with("STREAMING-"))
    }

    /// The access key that signed the request: `Credential=KEY/20260101/us-east-1/s3/aws4_request`.
    pub fn access_key(&self) -> Option<&str> {
        let (_, credential) = self.header("authorization")?.split_once("Credential=")?;
        Some(credential.split_once('/')?.0)
    }

    pub fn is_ok(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

#[derive(Default)]
pub struct RequestLog {
    state: Mutex<State>,
    changed: Condvar,
}

/// Changed only by [`Record`], under one lock, so that what a test waits for and what it then reads are the same.
#[derive(Default)]
struct State {
    requests: Vec<LoggedRequest>,
    in_flight: usize,
    peak_in_flight: usize,
}

impl RequestLog {
    pub fn begin(self: &Arc<Self>, target: Target, headers: HeaderMap) -> Record {
        let mut state = lock(&self.state);
        let index = state.requests.len();
        state.requests.push(LoggedRequest {
            operation: target.operation,
            bucket: target.bucket,
            key: target.key,
            part: target.part,
            upload_id: target.upload_id,
            headers,
            arrived: Instant::now(),
            received: 0,
            status: None,
            error_code: None,
            took: None,
        });
        state.in_flight += 1;
        state.peak_in_flight = state.peak_in_flight.max(state.in_flight);
        self.changed.notify_all();
        Record { log: Arc::clone(self), index }
    }

    pub fn requests(&self) -> Vec<LoggedRequest> {
        lock(&self.state).requests.clone()
    }

    pub fn peak_in_flight(&self) -> usize {
        lock(&self.state).peak_in_flight
    }

    /// Waits until the requests so far satisfy `condition`; false when that takes too long.
    pub fn wait_until(&self, mut condition: impl FnMut(&[LoggedRequest]) -> bool) -> bool {
        let state = lock(&self.state);
        let not_yet = |state: &mut State| !condition(&state.requests);
        let waited = self.changed.wait_timeout_while(state, PATIENCE, not_yet);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// The right to complete one entry. When it is dropped the request has ended, with an answer or without.
pub struct Record {
    log: Arc<RequestLog>,
    index: usize,
}

impl Record {
    pub fn number(&self) -> usize {
        self.index
    }

    pub fn received(&self, bytes: u64) {
        self.update(|request| request.received = bytes);
    }

    pub fn answered(&self, status: u16, error_code: Option<String>) {
        self.update(|request| {
            request.status = Some(status);
            request.error_code = error_code;
        });
    }

    fn update(&self, change: impl FnOnce(&mut LoggedRequest)) {
        change(&mut lock(&self.log.state).requests[self.index]);
        self.log.changed.notify_all();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let mut state = lock(&self.log.state);
        state.in_flight -= 1;
        let request = &mut state.requests[self.index];
        request.took = Some(request.arrived.elapsed());
        drop(state);
        self.log.changed.notify_all();
    }
}
