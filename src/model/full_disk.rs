//! Whether the disk was full while a dump was written, as far as looks at its free space can tell.
//!
//! mydumper before 0.20.1 writes garbage after a write that a full disk cut short, and still ends with status 0. So such
//! a moment must be known. It may be shorter than the time between two looks; therefore a look that sees less free space
//! than twice what was written since the last one counts, too. Quotas show nowhere.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::disk_forecast::Space;

/// How full the disk was at its fullest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FullDisk {
    /// So little was free at a look that it may have been full before the next.
    MayHaveBeen,
    /// No byte was free at a look.
    Was,
}

impl fmt::Display for FullDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::MayHaveBeen => "the disk may have been full",
            Self::Was => "the disk was full (0 B free)",
        })
    }
}

/// For so long it is remembered how fast the disk was filled: what is freed at the same time hides what is written.
const MEMORY: Duration = Duration::from_secs(1);

/// Looks at the free space, taken in one by one. Time is passed in.
#[derive(Debug)]
pub struct Looks {
    /// Whether mydumper may use what is reserved for root.
    is_privileged: bool,
    free: Option<u64>,
    /// The most that was written between two looks, in this stretch of time and in the one before it.
    most: [u64; 2],
    stretch: Option<Instant>,
    worst: Option<FullDisk>,
}

impl Looks {
    /// None was made yet.
    pub fn new(is_privileged: bool) -> Self {
        Self { is_privileged, free: None, most: [0; 2], stretch: None, worst: None }
    }

    /// Takes a look in.
    pub fn look(&mut self, space: Space, now: Instant) {
        if space.total == 0 {
            // Such a filesystem tells nothing.
            return;
        }
        if self.stretch.is_none_or(|began| now.saturating_duration_since(began) >= MEMORY) {
            self.most = [0, self.most[0]];
            self.stretch = Some(now);
        }
        let before = self.free.unwrap_or(space.free);
        self.most[0] = self.most[0].max(before.saturating_sub(space.free));
        let written = self.most[0].max(self.most[1]);
        let is_full = if self.is_privileged { space.free_for_root == 0 } else { space.free == 0 };
        // What was freed since the last look came after what was written, for all that is known.
        let may_have_been = space.free == 0 || before.min(space.free) < written.saturating_mul(2);
        let seen = if is_full { Some(FullDisk::Was) } else { may_have_been.then_some(FullDisk::MayHaveBeen) };
        self.worst = self.worst.max(seen);
        self.free = Some(space.free);
    }

    /// Something was removed since a look just before: the disk was not fuller in between.
    pub fn after_removal(&mut self, space: Space) {
        self.free = Some(space.free);
    }

    /// How full it was at its fullest, if it ever was.
    pub fn worst(&self) -> Option<FullDisk> {
        self.worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The verdict after looks that are 50 ms apart and see so many MiB free.
    fn worst(is_privileged: bool, free: &[u64]) -> Option<FullDisk> {
        let (mut looks, start) = (Looks::new(is_privileged), Instant::now());
        for (at, free) in free.iter().enumerate() {
            let space = Space { free: free * MIB, free_for_root: (free + 5) * MIB, total: 10_000 * MIB };
            looks.look(space, start + Duration::from_millis(50) * at as u32);
        }
        looks.worst()
    }

    #[test]
    fn free_space_below_twice_what_was_written_may_have_been_none() {
        assert_eq!(worst(false, &[100, 90, 80, 70, 60, 50, 40, 30, 20]), None);
        assert_eq!(worst(false, &[40, 30, 20, 19]), Some(FullDisk::MayHaveBeen));
        assert_eq!(worst(false, &[100, 67]), None);
        assert_eq!(worst(false, &[100, 66]), Some(FullDisk::MayHaveBeen));
    }

    #[test]
    fn a_disk_that_is_small_or_nearly_full_and_at_rest_is_not_full() {
        assert_eq!(worst(false, &[1; 100]), None);
        assert_eq!(worst(false, &[1, 5, 1_000, 1_000]), None);
    }

    #[test]
    fn no_byte_free_is_full_even_at_the_first_look() {
        assert_eq!(worst(false, &[0]), Some(FullDisk::Was));
        assert_eq!(worst(false, &[0, 1_000, 1_000]), Some(FullDisk::Was));
    }

    #[test]
    fn what_is_freed_meanwhile_does_not_hide_what_was_written() {
        // 40 MiB were written in 50 ms just before, and by the next look something else had been removed.
        assert_eq!(worst(false, &[200, 160, 300, 70]), Some(FullDisk::MayHaveBeen));
        assert_eq!(worst(false, &[200, 160, 79, 300]), Some(FullDisk::MayHaveBeen));
    }

    #[test]
    fn how_fast_it_filled_is_forgotten_after_two_seconds() {
        let mut free = vec![1_000, 500];
        free.extend([499; 60]);
        free.push(498);
        assert_eq!(worst(false, &free), Some(FullDisk::MayHaveBeen));
        let mut free = vec![2_000, 1_500];
        free.extend([1_400; 60]);
        assert_eq!(worst(false, &[&free[..], &[900, 850]].concat()), Some(FullDisk::MayHaveBeen));
        let calm: Vec<u64> = (0..45).map(|at| 1_400 - at * 10).collect();
        assert_eq!(worst(false, &[&free[..], &calm[..], &[940]].concat()), None);
    }

    #[test]
    fn what_is_reserved_for_root_leaves_a_doubt_where_mydumper_may_use_it() {
        assert_eq!(worst(true, &[0]), Some(FullDisk::MayHaveBeen));
        let mut looks = Looks::new(true);
        looks.look(Space { free: 0, free_for_root: 0, total: MIB }, Instant::now());
        assert_eq!(looks.worst(), Some(FullDisk::Was));
    }

    #[test]
    fn a_filesystem_that_tells_no_size_tells_nothing() {
        let mut looks = Looks::new(false);
        looks.look(Space { free: 0, free_for_root: 0, total: 0 }, Instant::now());
        assert_eq!(looks.worst(), None);
    }

    #[test]
    fn a_removal_is_nothing_that_was_written() {
        let (mut looks, now) = (Looks::new(false), Instant::now());
        let space = |free| Space { free: free * MIB, free_for_root: free * MIB, total: 10_000 * MIB };
        looks.look(space(10), now);
        looks.after_removal(space(900));
        looks.look(space(899), now);
        assert_eq!(looks.worst(), None);
    }
}
