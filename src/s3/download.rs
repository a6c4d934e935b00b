//! Bytes out of the bucket: an object or a stretch of it, as a stream.
//!
//! A download that breaks in the middle goes on where it was. `If-Match` and the ETag of each answer make sure that all
//! pieces are of one object, also when it is replaced meanwhile.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tracing::debug;

use super::error::{ErrorKind, StoreError};
use super::store::Store;
use crate::model::etag::ETag;

/// How long the next [`STRETCH`] of a body may take to come.
const STRETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// The slowest that a body may be, in bytes for each time-out: one that comes byte by byte would last for ever.
const STRETCH: u64 = 64 * 1024;
/// How often one download goes on after its body broke off. Requests that fail are waited out apart from this.
const RESUMPTIONS_MAX: u32 = 10;
/// The wait before the first resumption; it doubles to a few seconds.
const RESUMPTION_DELAY: Duration = Duration::from_millis(50);

/// Which object is meant: not only its key, but the very bytes that were listed.
#[derive(Debug, Clone)]
pub struct ObjectRef {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Its ETag; without one a replaced object of the same size cannot be noticed.
    pub etag: Option<ETag>,
}

impl ObjectRef {
    /// For `If-Match`. Only ETags of digits: of any other kind ours is in small letters, which the store's need not be.
    fn condition(&self) -> Option<String> {
        let etag = self.etag.as_ref().filter(|etag| etag.as_md5().is_some() || etag.part_count().is_some());
        etag.map(|etag| format!("\"{etag}\""))
    }
}

/// Whether the receiver of bytes wants more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Go on.
    More,
    /// What comes is of no use any more.
    Lost,
}

/// How a body comes. What its receiver takes to work on it does not count.
#[derive(Debug)]
pub(super) struct Pace {
    /// Of the stretch that is coming.
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub fn begin() -> Self {
        Self { waited: Duration::ZERO, bytes: 0 }
    }

    /// The next piece; `None` at the end. An error says why none comes.
    pub async fn next(&mut self, body: &mut ByteStream) -> Result<Option<Bytes>, String> {
        let begun = tokio::time::Instant::now();
        let Ok(piece) = tokio::time::timeout(STRETCH_TIMEOUT.saturating_sub(self.waited), body.next()).await else {
            return Err(format!("only {} bytes came within {} s", self.bytes, STRETCH_TIMEOUT.as_secs()));
        };
        self.waited += begun.elapsed();
        let piece = piece.transpose().map_err(|error| error.to_string())?;
        self.bytes += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        if self.bytes >= STRETCH {
            *self = Self::begin();
        }
        Ok(piece)
    }
}

/// Why a body ended before its end.
enum Broken {
    /// May go on.
    Off(String),
    /// Cannot.
    Wrong(StoreError),
    /// The receiver wants no more.
    NotWanted,
}

impl Store {
    /// Hands a stretch of an object to `each`, piece by piece and in order, each byte once.
    ///
    /// Memory: the piece at hand and what the connection holds. Ends early where `each` loses interest.
    pub async fn download(
        &self,
        object: &ObjectRef,
        range: Range<u64>,
        mut each: impl AsyncFnMut(Bytes) -> Interest,
    ) -> Result<(), StoreError> {
        let mut at = range.start;
        let mut resumptions = 0;
        loop {
            let mut answer = self.get(object, at..range.end).await?;
            let why = match self.receive(object, &mut answer, &mut at, range.end, &mut each).await {
                Ok(()) | Err(Broken::NotWanted) => return Ok(()),
                Err(Broken::Wrong(error)) => return Err(error),
                Err(Broken::Off(why)) => why,
            };
            resumptions += 1;
            if resumptions > RESUMPTIONS_MAX {
                let detail = format!("broken off {resumptions} times, last at byte {at}: {why}");
                return Err(self.get_failed(ErrorKind::Unavailable, object, detail));
            }
            debug!("{} broke off at byte {at} and goes on: {why}", self.uri(&object.key));
            tokio::time::sleep(RESUMPTION_DELAY * 2_u32.pow(resumptions.min(6))).await;
        }
    }

    /// The size of the first part of an object that went up in parts, where the store tells.
    pub async fn first_part_size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let request =
            async |client: Client| client.head_object().bucket(self.bucket()).key(key).part_number(1).send().await;
        match self.persist("HeadObject", &self.uri(key), request).await {
            Ok(answer) => Ok(answer.content_length().and_then(|size| u64::try_from(size).ok())),
            // Stores that do not know part numbers in a HEAD say so in different ways.
            Err(error)
                if matches!(error.kind, ErrorKind::Invalid | ErrorKind::NotImplemented | ErrorKind::NoSuchKey) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for a stretch, and makes sure that the answer is what was asked for.
    async fn get(&self, object: &ObjectRef, range: Range<u64>) -> Result<GetObjectOutput, StoreError> {
        // Not for a whole object: a range of an empty one does not exist, and some proxies cannot cache ranges.
        let is_part = range.start > 0 || range.end < object.size;
        let header = is_part.then(|| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        let request = async |client: Client| {
            client
                .get_object()
                .bucket(self.bucket())
                .key(&object.key)
                .set_range(header.clone())
                .set_if_match(object.condition())
                .send()
                .await
        };
        let answer = match self.persist("GetObject", &self.uri(&object.key), request).await {
            Err(error) if error.kind == ErrorKind::Precondition => return Err(self.replaced(object)),
            answer => answer?,
        };
        // Some stores ignore conditions, and some ranges.
        let etag = answer.e_tag().and_then(ETag::from_store);
        if object.etag.is_some() && etag.is_some() && etag != object.etag {
            return Err(self.replaced(object));
        }
        let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
        let wanted = range.end - range.start;
        if length.is_some_and(|length| length != wanted) {
            let detail = format!("{} bytes came, {wanted} were asked for", length.unwrap_or_default());
            return Err(self.get_failed(ErrorKind::Invalid, object, detail));
        }
        Ok(answer)
    }

    async fn receive(
        &self,
        object: &ObjectRef,
        answer: &mut GetObjectOutput,
        at: &mut u64,
        end: u64,
        each: &mut impl AsyncFnMut(Bytes) -> Interest,
    ) -> Result<(), Broken> {
        let mut pace = Pace::begin();
        loop {
            let piece = match pace.next(&mut answer.body).await {
                Ok(Some(piece)) => piece,
                Ok(None) if *at == end => return Ok(()),
                Ok(None) => return Err(Broken::Off("the body ended early".to_owned())),
                Err(why) => return Err(Broken::Off(why)),
            };
            *at += piece.len() as u64;
            if *at > end {
                let detail = "more bytes came than were asked for";
                return Err(Broken::Wrong(self.get_failed(ErrorKind::Invalid, object, detail)));
            }
            if each(piece).await == Interest::Lost {
                return Err(Broken::NotWanted);
            }
        }
    }

    fn replaced(&self, object: &ObjectRef) -> StoreError {
        self.get_failed(ErrorKind::Precondition, object, "it was replaced while it was read")
    }

    fn get_failed(&self, kind: ErrorKind, object: &ObjectRef, detail: impl Into<String>) -> StoreError {
        StoreError::of_answer(kind, "GetObject", &self.uri(&object.key), detail)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use aws_sdk_s3::primitives::SdkBody;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    /// A body of pieces of so many bytes, one each second.
    fn body(piece: usize) -> ByteStream {
        let pieces = stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; piece]))), ()))
        });
        let body =
            StreamBody::new(Box::pin(pieces) as std::pin::Pin<Box<dyn futures_util::Stream<Item = _> + Send + Sync>>);
        ByteStream::new(SdkBody::from_body_1_x(body))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_byte_by_byte_is_a_stalled_one() {
        let (mut pace, mut body) = (Pace::begin(), body(1));
        let begun = tokio::time::Instant::now();
        let why = loop {
            match pace.next(&mut body).await {
                Ok(piece) => assert_eq!(piece.map(|piece| piece.len()), Some(1)),
                Err(why) => break why,
            }
        };
        assert_eq!(begun.elapsed(), STRETCH_TIMEOUT);
        assert!(why == "only 59 bytes came within 60 s" || why == "only 60 bytes came within 60 s", "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_link_is_no_stalled_one_and_neither_is_a_slow_receiver() {
        let (mut pace, mut body) = (Pace::begin(), body(2048));
        for _ in 0..1000 {
            let piece = pace.next(&mut body).await.expect("a piece");
            assert_eq!(piece.map(|piece| piece.len()), Some(2048));
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    }
}
