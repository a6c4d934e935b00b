//! Which tables are taken where not all of them fit, by a number that repeats the choice.

/// The order of `count` things that belongs to a seed: the same for each machine and version (splitmix64, Fisher and Yates).
pub fn order(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = seed;
    for at in (1..count).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut number = state;
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^= number >> 31;
        order.swap(at, (number % (at as u64 + 1)) as usize);
    }
    order
}

/// Of things of these sizes, in a fixed order: those that are taken, sorted. One that does not fit any more is passed over.
pub fn chosen(sizes: &[u64], limit: u64, seed: u64) -> Vec<usize> {
    let mut left = limit;
    let mut taken: Vec<usize> = order(sizes.len(), seed)
        .into_iter()
        .filter(|at| match left.checked_sub(sizes[*at]) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        })
        .collect();
    taken.sort_unstable();
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_seed_repeats_the_choice_and_others_choose_otherwise() {
        let sizes = [100; 20];
        assert_eq!(chosen(&sizes, 500, 7), chosen(&sizes, 500, 7));
        assert_eq!(chosen(&sizes, 500, 7).len(), 5);
        let different = (0..20).map(|seed| chosen(&sizes, 500, seed)).collect::<std::collections::BTreeSet<_>>();
        assert!(different.len() > 10, "{different:?}");
        // What this seed has always meant.
        assert_eq!(order(8, 1), order(8, 1));
    }

    proptest! {
        #[test]
        fn as_many_as_fit_and_no_more(sizes in proptest::collection::vec(0u64..1000, 0..30), limit in 0u64..5000, seed: u64) {
            let taken = chosen(&sizes, limit, seed);
            let sum: u64 = taken.iter().map(|at| sizes[*at]).sum();
            prop_assert!(sum <= limit);
            let fits = |at: &usize| !taken.contains(at) && sum + sizes[*at] <= limit;
            prop_assert!(!(0..sizes.len()).any(|at| fits(&at)));
        }
    }
}
