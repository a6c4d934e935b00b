//! How a file is cut into the requests that upload it.
//!
//! Limits of S3 (AWS, "Amazon S3 multipart upload limits"): 10,000 parts at most, each of 5 MiB to 5 GiB, the last
//! one of any size.

use std::fmt;

use super::part_sizes::PartSizes;

/// One mebibyte.
pub const MIB: u64 = 1024 * 1024;
/// The least that S3 takes as a part that is not the last.
pub const PART_SIZE_MIN: u64 = 5 * MIB;
/// The most that S3 takes as one part, and as one PUT.
pub const PART_SIZE_MAX: u64 = 5 * 1024 * MIB;
/// The most parts that S3 takes; some stores take fewer.
pub const PARTS_MAX: u32 = 10_000;

/// A stretch of a file that travels in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// S3's part number, from 1.
    pub number: u32,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// How one file is uploaded: in one PUT, or in parts.
///
/// Parts are made one by one from their number, so that nothing needs all of them at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartPlan {
    size: u64,
    sizes: PartSizes,
}

/// How an object was uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutInto {
    /// One PUT.
    OnePut,
    /// A multipart upload.
    Parts(PartSizes),
}

/// The file is larger than this many parts of the largest size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    size: u64,
    max_parts: u32,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, max_parts } = self;
        write!(
            formatter,
            "{size} bytes do not fit into {max_parts} parts of 5 GiB; raise --max-parts, or let mydumper cut its files with -F"
        )
    }
}

impl std::error::Error for TooLarge {}

impl PartPlan {
    /// Plans a file of `size` bytes: one PUT up to `part_size`, and parts above it. The part size grows by whole MiB
    /// until `max_parts` are enough.
    pub fn new(size: u64, part_size: u64, max_parts: u32) -> Result<Self, TooLarge> {
        let needed = size.div_ceil(u64::from(max_parts.max(1)));
        let grown = if needed <= part_size { part_size } else { needed.next_multiple_of(MIB) };
        if grown > PART_SIZE_MAX {
            return Err(TooLarge { size, max_parts });
        }
        Ok(Self { size, sizes: PartSizes::equal(grown.max(1)) })
    }

    /// How a file was cut that is in the bucket already, if an upload can have done so.
    pub fn of_object(size: u64, sizes: PartSizes) -> Option<Self> {
        sizes.is_possible(size).then_some(Self { size, sizes })
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The sizes of its parts.
    pub fn sizes(&self) -> PartSizes {
        self.sizes
    }

    /// Whether the file travels as a multipart upload.
    pub fn is_multipart(&self) -> bool {
        self.size > self.sizes.first()
    }

    /// The same in a word.
    pub fn cut(&self) -> CutInto {
        if self.is_multipart() { CutInto::Parts(self.sizes) } else { CutInto::OnePut }
    }

    /// The number of requests that carry bytes; an empty file needs one too.
    pub fn count(&self) -> u32 {
        // Both makers have seen that the bytes fit.
        self.sizes.count(self.size).unwrap_or(1)
    }

    /// The part of that number, if the file has so many.
    pub fn part(self, number: u32) -> Option<Part> {
        let part = self.sizes.part(number).filter(|_| number <= self.count())?;
        Some(Part { length: part.length.min(self.size - part.offset), ..part })
    }

    /// The parts in order. A single PUT is one part with the number 1.
    pub fn parts(self) -> impl Iterator<Item = Part> {
        (1..=self.count()).filter_map(move |number| self.part(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 16 * MIB;

    #[test]
    fn a_file_up_to_the_part_size_is_one_put() {
        for size in [0, 1, SIZE - 1, SIZE] {
            let plan = PartPlan::new(size, SIZE, PARTS_MAX).expect("a plan");
            assert!(!plan.is_multipart(), "{size}");
            assert_eq!(plan.parts().collect::<Vec<_>>(), [Part { number: 1, offset: 0, length: size }]);
        }
    }

    #[test]
    fn one_byte_more_makes_a_second_part() {
        let plan = PartPlan::new(SIZE + 1, SIZE, PARTS_MAX).expect("a plan");
        assert!(plan.is_multipart());
        assert_eq!(plan.parts().last(), Some(Part { number: 2, offset: SIZE, length: 1 }));
    }

    #[test]
    fn the_part_size_grows_so_that_the_parts_are_enough() {
        let plan = PartPlan::new(5 * 1024 * 1024 * MIB, SIZE, PARTS_MAX).expect("5 TiB fit");
        assert!(plan.count() <= PARTS_MAX);
        assert_eq!(plan.sizes().first() % MIB, 0);
        let capped = PartPlan::new(100 * SIZE, SIZE, 10).expect("a plan");
        assert_eq!((capped.count(), capped.sizes().first()), (10, 10 * SIZE));
        assert!(PartPlan::new(u64::MAX, SIZE, PARTS_MAX).is_err());
    }

    proptest! {
        #[test]
        fn parts_cover_the_file_once(size in 0_u64..1 << 40, part_mib in 5_u64..64, max_parts in 1_u32..=PARTS_MAX) {
            if let Ok(plan) = PartPlan::new(size, part_mib * MIB, max_parts) {
                let mut end = 0;
                for part in plan.parts() {
                    prop_assert_eq!(part.offset, end);
                    end += part.length;
                }
                prop_assert_eq!(end, size);
                prop_assert!(plan.count() <= max_parts);
            }
        }
    }
}
