//! What stands between the wire and `s3s`: the request log, the faults, the server's clock, pace and latency.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, DATE, ETAG, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3Result, s3_error};
use tokio::time::sleep;

use super::body::{self, Pace};
use super::faults::{Afterwards, ErrorAnswer, Faults, Instead, Rule, Strike};
use super::lock;
use super::log::{Record, RequestLog};
use super::operation::{Operation, Target};
use super::store::Store;

/// S3 refuses requests whose date is further away from its own clock:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html>
const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

/// The server's idea of the time.
#[derive(Default)]
pub struct Clock {
    offset_seconds: AtomicI64,
}

impl Clock {
    pub fn set_offset(&self, seconds: i64) {
        self.offset_seconds.store(seconds, Ordering::Relaxed);
    }

    pub fn now(&self) -> SystemTime {
        let offset = self.offset_seconds.load(Ordering::Relaxed);
        let distance = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
    }
}

/// The connection is closed without an answer.
#[derive(Debug)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is cut by the test")
    }
}

impl std::error::Error for Cut {}

type Answer = Result<Response<Body>, Cut>;

pub struct Front {
    pub s3: S3Service,
    pub store: Arc<Store>,
    pub log: Arc<RequestLog>,
    pub faults: Faults,
    pub pace: Arc<Pace>,
    pub clock: Arc<Clock>,
    pub latency: Mutex<Duration>,
    /// Requests that are signed for another region are refused, if set.
    pub region: Option<String>,
}

impl Front {
    pub async fn serve(&self, request: Request<Incoming>) -> Answer {
        let target = Target::of(request.method(), request.uri(), request.headers());
        let record = self.log.begin(target.clone(), request.headers().clone());
        let answer = self.answer(request, &target, &record).await?;
        Ok(self.finish(answer, record))
    }

    async fn answer(&self, request: Request<Incoming>, target: &Target, record: &Record) -> Answer {
        let plan = self.faults.plan(target);
        let latency = *lock(&self.latency);
        sleep(latency + plan.delay).await;
        match (self.refusal(request.headers(), target), plan.strike) {
            (Err(error), _) => Ok(self.refuse(error, request, record).await),
            (Ok(()), None) => self.pass(request, record, false).await,
            (Ok(()), Some((rule, strike))) => self.struck(request, target, record, &rule, strike).await,
        }
    }

    /// What a store checks before `s3s` sees the request, and `s3s` does not check or not as we need it.
    fn refusal(&self, headers: &HeaderMap, target: &Target) -> S3Result {
        if let Some(date) = headers.get("x-amz-date").and_then(parse_amz_date)
            && distance(date, self.clock.now()) > MAX_SKEW
        {
            let message = "The difference between the request time and the server's time is too large.";
            return Err(s3_error!(RequestTimeTooSkewed, "{message}"));
        }
        if let (Some(wanted), Some(signed)) = (&self.region, signed_region(headers))
            && wanted != signed
        {
            return Err(s3_error!(
                AuthorizationHeaderMalformed,
                "the region '{signed}' is wrong; expecting '{wanted}'"
            ));
        }
        let has_digest = |name: &HeaderName| name == "content-md5" || name.as_str().starts_with("x-amz-checksum-");
        if target.operation == Operation::DeleteObjects && !headers.keys().any(has_digest) {
            return Err(s3_error!(
                InvalidRequest,
                "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
            ));
        }
        Ok(())
    }

    async fn refuse(&self, error: S3Error, request: Request<Incoming>, record: &Record) -> Response<Body> {
        record.received(body::drain(request.into_body(), &self.pace).await);
        error_response(error)
    }

    /// Gives the request to `s3s`, and the body piece by piece as it comes.
    async fn pass(&self, request: Request<Incoming>, record: &Record, damage: bool) -> Answer {
        let (parts, incoming) = request.into_parts();
        let (sender, body) = body::channel(&incoming);
        let request = Request::from_parts(parts, body);
        let (response, received) =
            tokio::join!(self.s3.call(request), body::pump(incoming, sender, &self.pace, damage));
        record.received(received);
        response.map_err(|_| Cut)
    }

    async fn struck(
        &self,
        request: Request<Incoming>,
        target: &Target,
        record: &Record,
        rule: &Rule,
        strike: Strike,
    ) -> Answer {
        match strike {
            Strike::Instead(instead) => self.instead(request, record, rule, instead).await,
            Strike::Afterwards(afterwards) => {
                let response = self.pass(request, record, false).await?;
                if !response.status().is_success() {
                    return Ok(response);
                }
                self.afterwards(response, target, rule, afterwards).await
            }
            Strike::DamageInTransit => {
                rule.hit();
                self.pass(request, record, true).await
            }
            Strike::Hold => {
                rule.hit();
                rule.cleared().await;
                self.pass(request, record, false).await
            }
        }
    }

    async fn instead(&self, request: Request<Incoming>, record: &Record, rule: &Rule, instead: Instead) -> Answer {
        let body = request.into_body();
        record.received(match instead {
            Instead::Answer(_) | Instead::Hang => body::drain(body, &self.pace).await,
            Instead::CutInBody => body::read_half(body).await,
            Instead::CutBeforeBody => 0,
        });
        rule.hit();
        match instead {
            Instead::Answer(answer) => Ok(injected_response(&answer)),
            Instead::Hang => std::future::pending().await,
            Instead::CutInBody | Instead::CutBeforeBody => Err(Cut),
        }
    }

    async fn afterwards(
        &self,
        response: Response<Body>,
        target: &Target,
        rule: &Rule,
        afterwards: Afterwards,
    ) -> Answer {
        rule.hit();
        match afterwards {
            Afterwards::Answer(answer) => Ok(injected_response(&answer)),
            Afterwards::Hang => std::future::pending().await,
            Afterwards::Hold => {
                rule.cleared().await;
                Ok(response)
            }
            Afterwards::LoseAnswer => Err(Cut),
            Afterwards::DamageStored => {
                self.store.damage(target);
                Ok(response)
            }
            Afterwards::Etag(etag) => Ok(with_etag(response, etag)),
            Afterwards::InAnswer(middle) => {
                let length = content_length(&response);
                Ok(response.map(|body| body::with_fault(body, length, middle)))
            }
        }
    }

    fn finish(&self, mut response: Response<Body>, record: Record) -> Response<Body> {
        let bytes = response.body().bytes();
        let error_code = bytes.as_ref().and_then(|bytes| element(bytes, "Code"));
        record.answered(response.status().as_u16(), error_code);
        let headers = response.headers_mut();
        headers.insert("x-amz-request-id", header_value(&format!("{:016X}", record.number())));
        headers.insert(DATE, header_value(&http_date(self.clock.now())));
        match bytes {
            Some(_) => response,
            None => {
                let length = content_length(&response);
                response.map(|body| body::outgoing(body, length, Arc::clone(&self.pace), record))
            }
        }
    }
}

/// Of an object; other answers are small and have none yet.
fn content_length(response: &Response<Body>) -> u64 {
    let length = response.headers().get(CONTENT_LENGTH);
    length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or_default()
}

fn error_response(error: S3Error) -> Response<Body> {
    error.to_http_response().expect("an S3 error can be written as XML")
}

fn injected_response(answer: &ErrorAnswer) -> Response<Body> {
    let mut response = error_response(answer.error());
    for (name, value) in &answer.headers {
        response.headers_mut().insert(*name, header_value(value));
    }
    response
}

/// The answer with another ETag, in its header or, where the ETag stands in the body, there.
fn with_etag(mut response: Response<Body>, etag: &str) -> Response<Body> {
    if let Some(header) = response.headers_mut().get_mut(ETAG) {
        *header = header_value(&format!("\"{etag}\""));
        // The answer to a HEAD has the length of a body that it has not.
        return response;
    }
    let Some(bytes) = response.body().bytes() else {
        return response;
    };
    response.headers_mut().remove(CONTENT_LENGTH);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    response.map(|_| replace_elements(&text, "ETag", etag).into())
}

fn replace_elements(xml: &str, name: &str, content: &str) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut pieces = xml.split(&open);
    let mut replaced = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.split_once(&close).map_or("", |(_, rest)| rest);
        replaced += &format!("{open}{content}{close}{rest}");
    }
    replaced
}

fn element(xml: &Bytes, name: &str) -> Option<String> {
    let text = std::str::from_utf8(xml).ok()?;
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once('<')?.0.to_owned())
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("the server writes only what may stand in a header")
}

fn http_date(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).expect("the time is within the calendar");
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// `20260131T235959Z`
fn parse_amz_date(value: &HeaderValue) -> Option<SystemTime> {
    let time = DateTime::strptime("%Y%m%dT%H%M%SZ", value.to_str().ok()?).ok()?;
    time.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp().try_into().ok()
}

/// `Credential=KEY/20260131/us-east-1/s3/aws4_request`
fn signed_region(headers: &HeaderMap) -> Option<&str> {
    let (_, credential) = headers.get("authorization")?.to_str().ok()?.split_once("Credential=")?;
    credential.split('/').nth(2)
}

fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|error| error.duration())
}
