//! What was received.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

#[derive(Default)]
pub struct Counters(Mutex<Counts>);

#[derive(Default, Clone, Serialize)]
pub struct Counts {
    pub requests: u64,
    pub requests_by_operation: BTreeMap<&'static str, u64>,
    /// Answers that were not as wished: 400 and above, those that say "not found" among them.
    pub refusals: u64,
    /// Bytes of bodies as they came, with the framing of aws-chunked.
    pub body_bytes: u64,
    pub connections_opened: u64,
    pub connections_now: u64,
    pub connections_at_once: u64,
    pub first_request_unix_ns: u64,
    pub last_answer_unix_ns: u64,
}

impl Counters {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Counts {
        self.lock().clone()
    }

    /// Connections that are open stay counted.
    pub fn reset(&self) {
        let mut counts = self.lock();
        let open = counts.connections_now;
        *counts = Counts { connections_now: open, connections_at_once: open, ..Counts::default() };
    }

    pub fn connection_opened(&self) {
        let mut counts = self.lock();
        counts.connections_opened += 1;
        counts.connections_now += 1;
        counts.connections_at_once = counts.connections_at_once.max(counts.connections_now);
    }

    pub fn connection_closed(&self) {
        self.lock().connections_now -= 1;
    }

    pub fn request(&self, operation: &'static str) {
        let mut counts = self.lock();
        if counts.requests == 0 {
            counts.first_request_unix_ns = unix_ns();
        }
        counts.requests += 1;
        *counts.requests_by_operation.entry(operation).or_default() += 1;
    }

    pub fn answered(&self, status: u16, body_bytes: u64) {
        let mut counts = self.lock();
        counts.body_bytes += body_bytes;
        counts.refusals += u64::from(status >= 400);
        counts.last_answer_unix_ns = unix_ns();
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
