//! Faults on demand. A test injects a [`Fault`]; each request takes the first that matches it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use s3s::{S3Error, S3ErrorCode};
use tokio::sync::watch;

use super::body::Middle;
use super::operation::{Operation, Target};
use super::{PATIENCE, lock};

enum Action {
    Delay(Duration),
    Strike(Strike),
}

/// What goes wrong, and when. The constructors of [`Fault`] say it in words.
#[derive(Clone, Debug)]
pub enum Strike {
    /// Nothing is done.
    Instead(Instead),
    /// It is done when the test clears the fault.
    Hold,
    /// It is done with other bytes than were sent.
    DamageInTransit,
    /// It is done, and then this happens. A request that fails by itself is left alone.
    Afterwards(Afterwards),
}

#[derive(Clone, Debug)]
pub enum Instead {
    Answer(ErrorAnswer),
    Hang,
    CutBeforeBody,
    CutInBody,
}

#[derive(Clone, Debug)]
pub enum Afterwards {
    Answer(ErrorAnswer),
    Hang,
    Hold,
    LoseAnswer,
    DamageStored,
    /// The answer gives this ETag.
    Etag(&'static str),
    /// Something happens in the middle of the answer's body.
    InAnswer(Middle),
}

/// An ETag that no bytes of any test have.
const WRONG_ETAG: &str = "00000000000000000000000000000bad";

/// An S3 error as it is sent.
#[derive(Clone, Debug)]
pub struct ErrorAnswer {
    pub status: StatusCode,
    pub code: String,
    pub headers: Vec<(&'static str, String)>,
}

impl ErrorAnswer {
    fn new(status: u16, code: &str) -> Self {
        let status = StatusCode::from_u16(status).expect("a fault has an HTTP status");
        Self { status, code: code.to_owned(), headers: Vec::new() }
    }

    pub fn error(&self) -> S3Error {
        let code = S3ErrorCode::from_bytes(self.code.as_bytes()).expect("an error code is text");
        let mut error = S3Error::with_message(code, "injected by the test");
        error.set_status_code(self.status);
        error
    }
}

type KeyMatcher = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Which requests something happens to, and what. Without further conditions: to all of them, until it is cleared.
/// The keys of a DeleteObjects are in its body, where no fault looks.
pub struct Fault {
    action: Action,
    operations: Option<Vec<Operation>>,
    key: Option<KeyMatcher>,
    part: Option<u32>,
    skip: usize,
    times: Option<usize>,
}

/// What happens.
impl Fault {
    /// Answers with this error instead of doing anything; the body is read first.
    pub fn answer(status: u16, code: &str) -> Self {
        Self::strike(Strike::Instead(Instead::Answer(ErrorAnswer::new(status, code))))
    }

    /// The answer of a bucket that lives in another region.
    pub fn permanent_redirect(region: &str) -> Self {
        let mut answer = ErrorAnswer::new(301, "PermanentRedirect");
        answer.headers.push(("x-amz-bucket-region", region.to_owned()));
        Self::strike(Strike::Instead(Instead::Answer(answer)))
    }

    /// Does nothing, and answers 200 with an error in the body, as CompleteMultipartUpload may.
    pub fn error_inside_ok(code: &str) -> Self {
        Self::strike(Strike::Instead(Instead::Answer(ErrorAnswer::new(200, code))))
    }

    /// Does what was asked, and then answers with an error.
    pub fn store_then_answer(status: u16, code: &str) -> Self {
        Self::strike(Strike::Afterwards(Afterwards::Answer(ErrorAnswer::new(status, code))))
    }

    /// Does what was asked, and then answers 200 with an error in the body.
    pub fn store_then_error_inside_ok(code: &str) -> Self {
        Self::strike(Strike::Afterwards(Afterwards::Answer(ErrorAnswer::new(200, code))))
    }

    /// Waits, and goes on as if nothing had been. Adds to whatever else happens to the request.
    pub fn delay(duration: Duration) -> Self {
        Self::new(Action::Delay(duration))
    }

    /// Takes the request with its body, does nothing, never answers.
    pub fn hang() -> Self {
        Self::strike(Strike::Instead(Instead::Hang))
    }

    /// Does what was asked, and never answers.
    pub fn store_then_hang() -> Self {
        Self::strike(Strike::Afterwards(Afterwards::Hang))
    }

    /// Waits before the body is read until the test clears the fault, and goes on as if nothing had been.
    pub fn hold() -> Self {
        Self::strike(Strike::Hold)
    }

    /// Does what was asked, and holds the answer until the test clears the fault.
    pub fn store_then_hold() -> Self {
        Self::strike(Strike::Afterwards(Afterwards::Hold))
    }

    pub fn cut_before_body() -> Self {
        Self::strike(Strike::Instead(Instead::CutBeforeBody))
    }

    /// Closes the connection when half of the body has come.
    pub fn cut_in_body() -> Self {
        Self::strike(Strike::Instead(Instead::CutInBody))
    }

    /// Does what was asked, and closes the connection instead of answering.
    pub fn lose_answer() -> Self {
        Self::strike(Strike::Afterwards(Afterwards::LoseAnswer))
    }

    /// Changes a byte of the body on its way in, before anything is checked.
    pub fn damage_in_transit() -> Self {
        Self::strike(Strike::DamageInTransit)
    }

    /// Changes a byte in the storage after it was stored. The answers go on giving the ETag of what was sent.
    pub fn damage_stored() -> Self {
        Self::strike(Strike::Afterwards(Afterwards::DamageStored))
    }

    /// Does what was asked, and answers with an ETag that belongs to other bytes.
    pub fn wrong_etag() -> Self {
        Self::strike(Strike::Afterwards(Afterwards::Etag(WRONG_ETAG)))
    }

    /// Does what was asked, and answers with an ETag that is empty.
    pub fn empty_etag() -> Self {
        Self::strike(Strike::Afterwards(Afterwards::Etag("")))
    }

    /// Changes a byte of the body of the answer; what is stored stays right.
    pub fn damage_answer() -> Self {
        Self::strike(Strike::Afterwards(Afterwards::InAnswer(Middle::Damage)))
    }

    /// Closes the connection when half of the answer has been sent.
    pub fn cut_in_answer() -> Self {
        Self::strike(Strike::Afterwards(Afterwards::InAnswer(Middle::Cut)))
    }

    /// Sends half of the answer, and then nothing more.
    pub fn hang_in_answer() -> Self {
        Self::strike(Strike::Afterwards(Afterwards::InAnswer(Middle::Hang)))
    }

    fn strike(strike: Strike) -> Self {
        Self::new(Action::Strike(strike))
    }

    fn new(action: Action) -> Self {
        Self { action, operations: None, key: None, part: None, skip: 0, times: None }
    }
}

/// To which requests.
impl Fault {
    pub fn on(self, operation: Operation) -> Self {
        self.on_any_of([operation])
    }

    pub fn on_any_of(mut self, operations: impl IntoIterator<Item = Operation>) -> Self {
        self.operations = Some(operations.into_iter().collect());
        self
    }

    pub fn key(self, key: &str) -> Self {
        let wanted = key.to_owned();
        self.key_where(move |key| key == wanted)
    }

    pub fn key_where(mut self, matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(matches));
        self
    }

    pub fn part(mut self, number: u32) -> Self {
        self.part = Some(number);
        self
    }

    /// Leaves the first `count` matching requests alone.
    pub fn after(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }

    pub fn times(mut self, count: usize) -> Self {
        self.times = Some(count);
        self
    }

    pub fn once(self) -> Self {
        self.times(1)
    }

    fn matches(&self, target: &Target) -> bool {
        self.operations.as_ref().is_none_or(|operations| operations.contains(&target.operation))
            && self.key.as_ref().is_none_or(|matches| matches(&target.key))
            && self.part.is_none_or(|part| target.part == Some(part))
    }
}

/// A fault in force, and how often it has struck.
pub struct Rule {
    fault: Fault,
    counts: Mutex<Counts>,
    changed: Condvar,
    cleared: watch::Sender<bool>,
}

#[derive(Default)]
struct Counts {
    matched: usize,
    /// Requests that it takes, counted when they arrive, so that it never takes too many.
    taken: usize,
    /// Of these, those that it has struck: a test that waits for a hit must find what the fault does.
    hits: usize,
}

impl Rule {
    fn new(fault: Fault) -> Self {
        Self { fault, counts: Mutex::default(), changed: Condvar::new(), cleared: watch::Sender::new(false) }
    }

    /// Whether the rule takes this request; counts it in the same step.
    fn takes(&self, target: &Target) -> bool {
        if *self.cleared.borrow() || !self.fault.matches(target) {
            return false;
        }
        let mut counts = lock(&self.counts);
        counts.matched += 1;
        let exhausted = self.fault.times.is_some_and(|times| counts.taken >= times);
        if counts.matched <= self.fault.skip || exhausted {
            return false;
        }
        counts.taken += 1;
        true
    }

    /// To be said when it has happened.
    pub fn hit(&self) {
        lock(&self.counts).hits += 1;
        self.changed.notify_all();
    }

    pub async fn cleared(&self) {
        let mut cleared = self.cleared.subscribe();
        // The sender is in `self`: it cannot be gone.
        let _ = cleared.wait_for(|cleared| *cleared).await;
    }
}

/// The test's hold on a fault that it injected. Dropping it leaves the fault in force.
pub struct FaultHandle(Arc<Rule>);

impl FaultHandle {
    /// How many requests it has struck so far. One that it was to strike afterwards, and that failed by itself, is not
    /// among them, though it counts for [`Fault::times`].
    pub fn hits(&self) -> usize {
        lock(&self.0.counts).hits
    }

    /// Ends the fault, and lets go the requests that it holds.
    pub fn clear(&self) {
        self.0.cleared.send_replace(true);
    }

    /// Blocks until the fault has struck `count` requests: what was to be stored before is stored by then.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait_for_hits(&self, count: usize) {
        let counts = lock(&self.0.counts);
        let too_few = |counts: &mut Counts| counts.hits < count;
        let waited = self.0.changed.wait_timeout_while(counts, PATIENCE, too_few);
        let (counts, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let hits = counts.hits;
        assert!(!timeout.timed_out(), "a fault struck {hits} of {count} requests in {PATIENCE:?}");
    }
}

/// What is to happen to one request.
#[derive(Default)]
pub struct Plan {
    pub delay: Duration,
    pub strike: Option<(Arc<Rule>, Strike)>,
}

#[derive(Default)]
pub struct Faults(Mutex<Vec<Arc<Rule>>>);

impl Faults {
    pub fn inject(&self, fault: Fault) -> FaultHandle {
        let rule = Arc::new(Rule::new(fault));
        lock(&self.0).push(Arc::clone(&rule));
        FaultHandle(rule)
    }

    pub fn clear(&self) {
        for rule in lock(&self.0).drain(..) {
            rule.cleared.send_replace(true);
        }
    }

    /// Delays add up; of the others the first that strikes is the only one, and the only one that counts the request.
    pub fn plan(&self, target: &Target) -> Plan {
        let mut plan = Plan::default();
        for rule in lock(&self.0).iter() {
            match &rule.fault.action {
                Action::Delay(duration) if rule.takes(target) => {
                    plan.delay += *duration;
                    rule.hit();
                }
                Action::Strike(strike) if plan.strike.is_none() && rule.takes(target) => {
                    plan.strike = Some((Arc::clone(rule), strike.clone()));
                }
                _ => {}
            }
        }
        plan
    }
}
