//! Listings come page by page, and one that may leave something out, or has no end, is an error.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::error::{ErrorKind, StoreError};

/// The pages of a listing: each must say where the next one begins, at a place that was not there before.
pub(super) struct Pages {
    operation: &'static str,
    uri: String,
    /// Hashes of the places that pages began at.
    begun: HashSet<u64>,
    /// Pages in a row that held nothing.
    empty: u32,
}

/// Some stores answer with an empty page now and then, where deleted keys were; none with so many.
const EMPTY_PAGES_MAX: u32 = 100;
/// Pages of one listing: a hundred million keys, where a page has as many as it may.
const PAGES_MAX: usize = 100_000;

impl Pages {
    pub fn of(operation: &'static str, uri: String) -> Self {
        Self { operation, uri, begun: HashSet::new(), empty: 0 }
    }

    /// Where the next page begins, if there is one. "There is more" without a place to go on at is no end.
    pub fn next(
        &mut self,
        is_truncated: Option<bool>,
        place: Option<String>,
        is_empty: bool,
    ) -> Result<Option<String>, StoreError> {
        if is_truncated != Some(true) {
            return Ok(None);
        }
        self.empty = if is_empty { self.empty + 1 } else { 0 };
        let Some(place) = place.filter(|place| !place.trim().is_empty()) else {
            return Err(self.wrong("it says that there is more, and not where".to_owned()));
        };
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        let is_new = self.begun.insert(hasher.finish());
        if !is_new || self.empty > EMPTY_PAGES_MAX || self.begun.len() > PAGES_MAX {
            return Err(self.wrong("its pages have no end".to_owned()));
        }
        Ok(Some(place))
    }

    /// There is more than is taken in.
    pub fn too_many(&self, what: String) -> StoreError {
        StoreError::of_answer(ErrorKind::TooLarge, self.operation, &self.uri, what)
    }

    /// What the store said is no listing of what was asked for.
    pub fn wrong(&self, why: String) -> StoreError {
        let detail = format!("the answer of the store is no listing of what was asked for: {why}");
        StoreError::of_answer(ErrorKind::Invalid, self.operation, &self.uri, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_end_only_where_the_store_says_so() {
        let pages = || Pages::of("ListObjectsV2", "s3://b/".into());
        assert_eq!(pages().next(Some(false), None, false).expect("an end"), None);
        assert_eq!(pages().next(None, Some("a".into()), false).expect("an end"), None);
        assert!(pages().next(Some(true), None, false).is_err(), "more, and not where");
        assert!(pages().next(Some(true), Some(String::new()), false).is_err(), "more, and not where");
        let mut circle = pages();
        for place in ["a", "b", "c"] {
            assert_eq!(circle.next(Some(true), Some(place.into()), false).expect("a page").as_deref(), Some(place));
        }
        assert!(circle.next(Some(true), Some("a".into()), false).is_err(), "back at an earlier one");
        let mut empty = pages();
        let ends = (0..=EMPTY_PAGES_MAX).any(|page| empty.next(Some(true), Some(format!("{page}")), true).is_err());
        assert!(ends, "pages without anything");
        let mut endless = pages();
        let ends = (0..=PAGES_MAX).any(|page| endless.next(Some(true), Some(format!("{page}")), false).is_err());
        assert!(ends, "pages without end, each at a place of its own");
    }
}
