//! By which part size an object may have been uploaded, when only its ETag is known.
//!
//! The ETag's `-N` narrows it down: a file of so many bytes has N parts only for some part sizes. Of these, those come
//! first that tools are known to use.

use super::etag::ETag;
use super::part_plan::{CutInto, MIB, PART_SIZE_MAX, PARTS_MAX};
use super::part_sizes::PartSizes;

/// Part sizes that tools use when nobody tells them otherwise, in MiB; the most likely first.
///
/// 16: this program, and minio-go, thus `mc`. 8: AWS CLI and boto3, so the Python predecessor. 5: rclone and the older
/// AWS SDKs. 15: s3cmd. 50: s5cmd. 10: xbcloud, s3fs and Cyberduck. 64 and 128: what storage vendors recommend.
const OF_TOOLS_MIB: [u64; 14] = [16, 8, 5, 15, 50, 10, 64, 128, 32, 100, 25, 20, 256, 512];

/// The same in millions of bytes, for settings that were written as `50MB`.
const DECIMAL_MB: [u64; 12] = [8, 10, 15, 16, 20, 25, 50, 64, 100, 128, 250, 500];

/// All ways of uploading `size` bytes that could have given this ETag: sizes of tools, then decimal ones, then what
/// cuts the file evenly (what is grown for 10,000 parts is cut so), then every whole MiB up to the most that S3 takes.
pub fn part_sizes_of(size: u64, etag: &ETag) -> Vec<CutInto> {
    let Some(count) = etag.part_count() else {
        return vec![CutInto::OnePut];
    };
    let count = u64::from(count);
    if count == 1 || size == 0 {
        // One part holds everything, whatever its size could have been. No bytes make at most one part.
        return if count == 1 { vec![CutInto::Parts(PartSizes::equal(size.max(1)))] } else { Vec::new() };
    }
    let fits = |part_size: u64| part_size > 0 && size.div_ceil(part_size) == count;
    let even = [size.div_ceil(count), size.div_ceil(u64::from(PARTS_MAX))];
    // ceil(size / p) = count holds exactly for size / count <= p < size / (count - 1).
    let whole = size.div_ceil(count).div_ceil(MIB)..=((size - 1) / (count - 1)).min(PART_SIZE_MAX) / MIB;
    let candidates = OF_TOOLS_MIB.iter().map(|mib| mib * MIB);
    let candidates = candidates.chain(DECIMAL_MB.iter().map(|mb| mb * 1_000_000)).chain(even);
    let mut fitting = Vec::new();
    for part_size in candidates.chain(whole.map(|mib| mib * MIB)).filter(|part_size| fits(*part_size)) {
        // The first ones are few, and the whole MiB do not repeat themselves.
        if !fitting.iter().take(OF_TOOLS_MIB.len() + DECIMAL_MB.len() + 2).any(|known| *known == part_size) {
            fitting.push(part_size);
        }
    }
    fitting.into_iter().map(|part_size| CutInto::Parts(PartSizes::equal(part_size))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes(size: u64, count: u32) -> Vec<u64> {
        let etag = ETag::from_store(&format!("{}-{count}", "0".repeat(32))).expect("an etag");
        let parts = part_sizes_of(size, &etag).into_iter().map(|candidate| match candidate {
            CutInto::Parts(sizes) => sizes.first(),
            CutInto::OnePut => panic!("the ETag has parts"),
        });
        parts.collect()
    }

    #[test]
    fn an_md5_is_of_one_put() {
        let etag = ETag::from_store(&"0".repeat(32)).expect("an etag");
        assert_eq!(part_sizes_of(5, &etag), [CutInto::OnePut]);
    }

    #[test]
    fn what_tools_use_comes_first_and_all_whole_mib_follow() {
        // 40 MiB in three parts: 14 to 19 MiB
        let mib: Vec<u64> =
            sizes(40 * MIB, 3).into_iter().filter(|size| size % MIB == 0).map(|size| size / MIB).collect();
        assert_eq!(mib, [16, 15, 14, 17, 18, 19]);
        assert!(sizes(40 * MIB, 3).contains(&16_000_000));
    }

    #[test]
    fn one_part_holds_everything_and_nothing_has_no_second_part() {
        assert_eq!(sizes(7, 1), [7]);
        assert_eq!(sizes(0, 1), [1]);
        assert!(sizes(0, 2).is_empty());
        assert!(sizes(1, 2).is_empty());
    }

    proptest! {
        #[test]
        fn every_candidate_fits_comes_once_and_no_whole_mib_is_left_out(
            size in 1_u64..1 << 33, count in 2_u32..400, mib in 1_u64..600,
        ) {
            let found = sizes(size, count);
            for part_size in &found {
                prop_assert_eq!(size.div_ceil(*part_size), u64::from(count));
            }
            let mut once = found.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), found.len());
            let fits = size.div_ceil(mib * MIB) == u64::from(count);
            prop_assert_eq!(found.contains(&(mib * MIB)), fits);
        }
    }
}
