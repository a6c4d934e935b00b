//! What the program's exit status tells, and a failure that carries one.

use std::fmt;

/// The exit statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The dump is whole and every file is in the bucket, verified.
    Success,
    /// Some files could not be uploaded, downloaded or removed; they are still where they were.
    Failure,
    /// Wrong usage or settings, found before anything was touched.
    Usage,
    /// The dump itself is incomplete or failed, or none was found.
    Incomplete,
    /// Verification found a difference.
    Difference,
    /// Ended by this signal, after an orderly stop.
    Signal(i32),
}

impl Status {
    /// As the shell sees it.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Incomplete => 3,
            Self::Difference => 4,
            Self::Signal(signal) => (128 + signal).clamp(0, 255) as u8,
        }
    }
}

/// An error that ends the program, and with which status.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub status: Status,
    /// What happened.
    pub error: anyhow::Error,
}

impl Failure {
    /// Wrong usage or settings.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { status: Status::Usage, error: error.into() }
    }

    /// Something could not be done.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { status: Status::Failure, error: error.into() }
    }

    /// The dump is not whole.
    pub fn incomplete(error: impl Into<anyhow::Error>) -> Self {
        Self { status: Status::Incomplete, error: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#}", self.error)
    }
}
