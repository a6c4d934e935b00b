//! How much is taken of an answer, whatever a store sends: one place for all requests.
//!
//! The SDK reads answers whole into memory. How long one may take is bounded by `Store::persist`; an object's own bytes
//! are a stream, and bounded by their receiver (`download`).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The most of an answer. The largest is a page of a listing: 1,000 keys of 1,024 bytes, encoded, are some 3.5 MB.
const ANSWER_MAX: u64 = 8 * 1024 * 1024;
/// The most of an error's text. What is longer is cut, and then the status alone tells.
const ERROR_MAX: u64 = 64 * 1024;

/// An answer that is larger than any that was asked for.
#[derive(Debug)]
pub(super) struct AnswerTooLarge;

impl fmt::Display for AnswerTooLarge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the answer is larger than {} MiB", ANSWER_MAX / 1024 / 1024)
    }
}

impl std::error::Error for AnswerTooLarge {}

/// Bounds the body of each answer.
#[derive(Debug)]
pub(super) struct BoundedAnswers;

impl Intercept for BoundedAnswers {
    fn name(&self) -> &'static str {
        "BoundedAnswers"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response_mut();
        let is_success = answer.status().is_success();
        if is_success && config.load::<Metadata>().is_some_and(|operation| operation.name() == "GetObject") {
            return Ok(());
        }
        let limit = if is_success { ANSWER_MAX } else { ERROR_MAX };
        if answer.body().content_length().is_some_and(|length| length <= limit) {
            return Ok(());
        }
        let body = std::mem::replace(answer.body_mut(), SdkBody::taken());
        *answer.body_mut() = SdkBody::from_body_1_x(Bounded { body, left: limit, is_cut: !is_success });
        Ok(())
    }
}

/// A body of which no more than so many bytes are taken.
struct Bounded {
    body: SdkBody,
    left: u64,
    /// Whether it ends there; else it fails.
    is_cut: bool,
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 && self.is_cut {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
        if data.len() as u64 > self.left {
            if !self.is_cut {
                return Poll::Ready(Some(Err(AnswerTooLarge.into())));
            }
            data = data.slice(..self.left as usize);
        }
        self.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
