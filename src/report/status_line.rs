//! The one line that tells how it stands.

use std::time::{Duration, Instant};

use super::escape::escape;
use super::json::Fields;
use crate::model::units::{ByteSize, Rate};

/// How the upload stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// A word or two: "waiting for a dump", "uploading", "committing".
    pub phase: &'static str,
    /// Files of the dump in the directory.
    pub present: usize,
    /// Those that may still be written.
    pub open: usize,
    /// Files that are closed and wait for their turn, or are being hashed.
    pub queued: usize,
    /// Files of which bytes are on their way.
    pub uploading: usize,
    /// Files that are verified in the bucket.
    pub uploaded: usize,
    pub uploaded_bytes: u64,
    pub rate: Rate,
    /// What the dump takes on the local disk.
    pub local_bytes: u64,
    /// What was given back of files before they were whole in the bucket.
    pub given_back_bytes: u64,
    /// Anything else that is worth knowing now, like a forecast or an outage.
    pub note: Option<String>,
}

const SEPARATOR: &str = " · ";

impl Status {
    /// The line in at most `width` columns: what matters least goes first. Only the phase is ever cut.
    pub fn line(&self, width: usize) -> String {
        let note = self.note.as_deref().map(escape);
        let given_back = match self.given_back_bytes {
            0 => String::new(),
            bytes => format!("given back {}", ByteSize(bytes).human()),
        };
        // Rank and text, in the order in which they stand. 0 stays longest.
        fit(
            vec![
                (0, self.phase.to_owned()),
                (8, format!("{} present", self.present)),
                (7, format!("{} open", self.open)),
                (9, format!("{} queued", self.queued)),
                (5, format!("{} uploading", self.uploading)),
                (1, format!("{} uploaded", self.uploaded)),
                (2, ByteSize(self.uploaded_bytes).human()),
                (3, self.rate.human()),
                (6, format!("local {}", ByteSize(self.local_bytes).human())),
                (10, given_back),
                (4, note.unwrap_or_default().into_owned()),
            ],
            width,
        )
    }

    pub(super) fn json(&self) -> Fields {
        vec![
            ("event", "status".into()),
            ("phase", self.phase.into()),
            ("present", self.present.into()),
            ("open", self.open.into()),
            ("queued", self.queued.into()),
            ("uploading", self.uploading.into()),
            ("uploaded", self.uploaded.into()),
            ("uploaded_bytes", self.uploaded_bytes.into()),
            ("bytes_per_second", self.rate.0.into()),
            ("local_bytes", self.local_bytes.into()),
            ("given_back_bytes", self.given_back_bytes.into()),
            ("note", self.note.clone().into()),
        ]
    }
}

/// Joins the pieces that are not empty; the highest ranks are left away until the rest fits.
pub fn fit(mut pieces: Vec<(u8, String)>, width: usize) -> String {
    pieces.retain(|(_, text)| !text.is_empty());
    loop {
        let line = pieces.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(SEPARATOR);
        if line.chars().count() <= width {
            return line;
        }
        if pieces.len() <= 1 {
            return line.chars().take(width).collect();
        }
        let last = pieces.iter().enumerate().max_by_key(|(_, (rank, _))| *rank).map_or(0, |(at, _)| at);
        pieces.remove(last);
    }
}

/// Lets something through at most once in a while.
#[derive(Debug)]
pub struct Throttle {
    every: Duration,
    last: Option<Instant>,
}

impl Throttle {
    pub const fn new(every: Duration) -> Self {
        Self { every, last: None }
    }

    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.every);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status() -> Status {
        Status {
            phase: "uploading",
            present: 12,
            open: 2,
            queued: 6,
            uploading: 4,
            uploaded: 348,
            uploaded_bytes: 3_435_973_836,
            rate: Rate(140 << 20),
            local_bytes: 1_181_116_006,
            given_back_bytes: 0,
            note: Some("full in 7 min".into()),
        }
    }

    #[test]
    fn a_wide_line_says_everything() {
        assert_eq!(
            status().line(200),
            "uploading · 12 present · 2 open · 6 queued · 4 uploading · 348 uploaded · 3.2 GiB · 140 MiB/s · local 1.1 GiB · \
             full in 7 min"
        );
    }

    #[test]
    fn a_narrow_line_says_what_matters() {
        let status = status();
        assert_eq!(status.line(78), "uploading · 4 uploading · 348 uploaded · 3.2 GiB · 140 MiB/s · full in 7 min");
        assert_eq!(status.line(60), "uploading · 348 uploaded · 3.2 GiB · 140 MiB/s");
        assert_eq!(status.line(24), "uploading · 348 uploaded");
        assert_eq!(status.line(4), "uplo");
        assert_eq!(status.line(0), "");
    }

    #[test]
    fn a_note_cannot_break_the_line() {
        let status = Status { note: Some("a\n\x1b[2J".into()), ..status() };
        assert!(status.line(200).ends_with(" · a\\n\\u{1b}[2J"));
    }

    #[test]
    fn a_throttle_opens_once_in_a_while() {
        let (mut throttle, start) = (Throttle::new(Duration::from_secs(10)), Instant::now());
        let open: Vec<u64> = (0..30).filter(|second| throttle.is_due(start + Duration::from_secs(*second))).collect();
        assert_eq!(open, [0, 10, 20]);
    }

    proptest! {
        #[test]
        fn a_line_never_wraps(width in 0_usize..200, note in proptest::option::of(any::<String>()), bytes: u64) {
            let status = Status { note, uploaded_bytes: bytes, ..status() };
            prop_assert!(status.line(width).chars().count() <= width);
        }
    }
}
