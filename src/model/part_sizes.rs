//! How long each part of an object is, by its number: the rule that an upload follows and everybody else computes from.
//!
//! Parts are equal where the size is known when an upload begins; some stores want no other (Cloudflare R2). Where it is not
//! known, because a file still grows or comes out of a pipe, equal parts would limit it: 10,000 of 16 MiB are 156 GiB. So
//! from half of the parts on each is longer than the one before, by one step, which makes the largest object of S3 fit.

use serde::{Deserialize, Serialize};

use super::part_plan::{PART_SIZE_MAX, PARTS_MAX, Part};

/// The largest object that every store takes that calls itself S3: 5 TiB.
pub const OBJECT_SIZE_MAX: u64 = 5 << 40;
/// Steps are multiples of this, in bytes.
const STEP_UNIT: u64 = 64 * 1024;

/// The rule. Its fields stand in the manifest and in the object's user metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartSizes {
    /// Bytes of the first part, and of all others but the last where parts are equal.
    part_size: u64,
    /// Where parts grow: how many there may be. They grow from half of them on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_parts: Option<u32>,
}

impl PartSizes {
    /// Parts of one size; the last one may be shorter.
    pub fn equal(part_size: u64) -> Self {
        Self { part_size, max_parts: None }
    }

    /// Parts of an object whose size is not known when it is begun.
    pub fn growing(part_size: u64, max_parts: u32) -> Self {
        Self { part_size, max_parts: Some(max_parts.clamp(1, PARTS_MAX)) }
    }

    /// Bytes of the first part.
    pub fn first(self) -> u64 {
        self.part_size
    }

    /// Where parts grow: how many there may be.
    pub fn max_parts(self) -> Option<u32> {
        self.max_parts
    }

    /// The same rule for an object of that size, in the simplest words: equal, if it is over before any part grew.
    pub fn of_object(self, size: u64) -> Self {
        let is_over = self.max_parts.is_none_or(|max| size <= u64::from(max / 2).saturating_mul(self.part_size));
        if is_over { Self::equal(self.part_size) } else { self }
    }

    /// Whether an upload can have cut so many bytes so. Manifests and objects say anything: by a part size of 1 each byte
    /// would be a request, and a hash to be kept.
    pub fn is_possible(self, size: u64) -> bool {
        let sane = self.part_size > 0 && self.part_size <= OBJECT_SIZE_MAX && self.max_parts != Some(0);
        sane && self.count(size).is_some_and(|count| count <= PARTS_MAX)
    }

    /// How many parts carry so many bytes: at least one. `None` if they do not fit.
    pub fn count(self, size: u64) -> Option<u32> {
        if self.part_size == 0 {
            return None;
        }
        let Some(max_parts) = self.max_parts else {
            return u32::try_from(size.div_ceil(self.part_size).max(1)).ok();
        };
        // The first part that ends at or behind the size. Ends grow with the number, so halving finds it.
        let (mut low, mut high) = (1, max_parts);
        if self.end(max_parts) < size {
            return None;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.end(middle) < size { low = middle + 1 } else { high = middle }
        }
        Some(low)
    }

    /// The part of that number, from 1, of an object that has not ended yet.
    pub fn part(self, number: u32) -> Option<Part> {
        if number == 0 || self.max_parts.is_some_and(|max| number > max) {
            return None;
        }
        let offset = self.end(number - 1);
        Some(Part { number, offset, length: self.end(number) - offset })
    }

    /// The largest object, in bytes.
    pub fn largest(self) -> u64 {
        self.end(self.max_parts.unwrap_or(PARTS_MAX))
    }

    /// Where the part of that number ends, in bytes; 0 for none.
    fn end(self, number: u32) -> u64 {
        let equal = self.max_parts.map_or(number, |max| number.min(max / 2));
        let growing = u64::from(number - equal);
        // As many as grow before S3's limit is met; the rest have its size.
        let rising =
            growing.min(PART_SIZE_MAX.saturating_sub(self.part_size).checked_div(self.step()).unwrap_or(growing));
        let end = u128::from(number - (growing - rising) as u32) * u128::from(self.part_size)
            + u128::from(self.step()) * u128::from(rising) * u128::from(rising + 1) / 2
            + u128::from(growing - rising) * u128::from(PART_SIZE_MAX);
        u64::try_from(end).unwrap_or(u64::MAX)
    }

    /// By how much each growing part is longer than the one before: so that [`OBJECT_SIZE_MAX`] fits, if it can.
    fn step(self) -> u64 {
        let Some(max_parts) = self.max_parts.map(u64::from) else { return 0 };
        let growing = max_parts - max_parts / 2;
        let missing = OBJECT_SIZE_MAX.saturating_sub(self.part_size.saturating_mul(max_parts));
        missing.div_ceil((growing * (growing + 1) / 2).max(1)).next_multiple_of(STEP_UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::part_plan::MIB;
    use proptest::prelude::*;

    #[test]
    fn with_the_defaults_5_tib_fit_and_80_gb_are_in_equal_parts() {
        let sizes = PartSizes::growing(16 * MIB, PARTS_MAX);
        assert!(sizes.largest() >= OBJECT_SIZE_MAX, "{}", sizes.largest());
        assert!((1..=5_000).all(|number| sizes.part(number).is_some_and(|part| part.length == 16 * MIB)));
        let next = sizes.part(5_001).expect("a part");
        assert_eq!((next.offset, next.length % STEP_UNIT), (5_000 * 16 * MIB, 0));
        assert!(next.length > 16 * MIB && next.length < 17 * MIB, "{}", next.length);
        assert!(sizes.part(PARTS_MAX).is_some_and(|part| part.length < PART_SIZE_MAX));
        assert_eq!(sizes.part(PARTS_MAX + 1), None);
        assert_eq!(sizes.of_object(5_000 * 16 * MIB), PartSizes::equal(16 * MIB));
        assert_eq!(sizes.of_object(5_000 * 16 * MIB + 1), sizes);
    }

    #[test]
    fn no_part_is_larger_than_s3_takes() {
        let sizes = PartSizes::growing(16 * MIB, 1_000);
        assert_eq!(sizes.part(1_000).map(|part| part.length), Some(PART_SIZE_MAX));
        assert!(sizes.largest() < OBJECT_SIZE_MAX, "1,000 parts do not hold it");
        assert_eq!(sizes.count(sizes.largest()), Some(1_000));
        assert_eq!(sizes.count(sizes.largest() + 1), None);
    }

    #[test]
    fn no_upload_has_more_parts_than_s3_takes() {
        let is_possible = |size, part_size| PartSizes::equal(part_size).is_possible(size);
        assert!(is_possible(12 * MIB, 5 * MIB) && is_possible(0, 1));
        assert!(is_possible(10_000, 1) && !is_possible(10_001, 1));
        assert!(!is_possible(1, 0) && !is_possible(u64::MAX, 1) && !is_possible(1, u64::MAX));
    }

    proptest! {
        #[test]
        fn parts_follow_each_other(part_mib in 5_u64..5_000, max_parts in 1_u32..=PARTS_MAX, number in 1_u32..PARTS_MAX) {
            let sizes = PartSizes::growing(part_mib * MIB, max_parts);
            if let (Some(part), Some(next)) = (sizes.part(number), sizes.part(number + 1)) {
                prop_assert_eq!(part.offset + part.length, next.offset);
                prop_assert!(part.length <= next.length && next.length <= PART_SIZE_MAX);
                prop_assert_eq!(sizes.count(next.offset), Some(number));
                prop_assert_eq!(sizes.count(next.offset + 1), Some(number + 1));
            }
        }

        #[test]
        fn no_rule_of_a_manifest_makes_it_panic(part_size: u64, max_parts: Option<u32>, size: u64, number: u32) {
            let sizes = PartSizes { part_size, max_parts };
            if sizes.is_possible(size) {
                sizes.of_object(size).part(number);
                sizes.largest();
            }
        }
    }
}
