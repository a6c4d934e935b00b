//! Errors that carry what the user can do about them; printed once, on a line of its own.

use std::error::Error as StdError;
use std::fmt;

use crate::model::usage_error::UsageError;

/// An error with a hint. It reads as the error alone; [`hint_of`] finds the hint.
#[derive(Debug)]
struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, formatter)
    }
}

impl StdError for Hinted {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

/// Adds a hint to the error of a result.
pub trait HintExt<T> {
    /// Adds what the user can do about it.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> HintExt<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| hinted(error, hint))
    }
}

/// An error with what the user can do about it.
pub fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted { error: error.into(), hint: hint.into() })
}

/// The hint nearest to the top of an error's chain.
pub fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let own = cause.downcast_ref::<Hinted>().map(|hinted| hinted.hint.clone());
        own.or_else(|| cause.downcast_ref::<crate::s3::StoreError>().and_then(crate::s3::StoreError::hint))
            .or_else(|| cause.downcast_ref::<UsageError>().map(|error| error.hint().to_owned()))
    })
}

/// The error of this type among the causes, also where a hint was given to it: `downcast_ref` would see only the hint.
pub fn find<T: StdError + 'static>(error: &anyhow::Error) -> Option<&T> {
    error.chain().find_map(|cause| cause.downcast_ref::<T>().or_else(|| find(&cause.downcast_ref::<Hinted>()?.error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn a_hint_is_found_under_contexts_and_said_apart() {
        let error = Err::<(), _>(anyhow!("denied").context("cannot list")).hint("ask").context("no start");
        let error = error.expect_err("an error");
        assert_eq!(format!("{error:#}"), "no start: cannot list: denied");
        assert_eq!(hint_of(&error).as_deref(), Some("ask"));
    }

    #[test]
    fn the_hint_nearest_to_the_surface_wins() {
        let error = Err::<(), _>(anyhow!("denied")).hint("inner").context("x").hint("outer").expect_err("an error");
        assert_eq!(hint_of(&error).as_deref(), Some("outer"));
        assert_eq!(format!("{error:#}"), "x: denied");
    }

    #[test]
    fn usage_errors_bring_theirs() {
        let error = anyhow::Error::from(UsageError::new("a", "b"));
        assert_eq!(hint_of(&error).as_deref(), Some("b"));
    }

    #[test]
    fn errors_are_found_through_hints() {
        let missing = || Err::<(), _>(std::io::Error::from_raw_os_error(2));
        let error = missing().hint("a").context("b").hint("c").expect_err("an error");
        assert_eq!(find::<std::io::Error>(&error).map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
        assert!(find::<fmt::Error>(&error).is_none());
    }
}
