//! Files that go up while they are still being written: part by part, each when it lies wholly below what is there.

use std::time::Instant;

use super::gone::Beside;
use super::known::{Known, Setback, Stage};
use super::{DumpState, Phase, Probe, Writers};
use crate::model::file_name::FileName;
use crate::model::identity::FileIdentity;
use crate::model::part_sizes::PartSizes;
use crate::model::taken_back::renamed_to;

/// So many files are followed at a time: each is held open.
const FOLLOWED_MAX: usize = 128;

/// The right and the duty to send what there is by now of a file that is still being written.
#[derive(Debug, PartialEq, Eq)]
pub struct GrowthJob {
    name: FileName,
    identity: FileIdentity,
    gives_back: bool,
}

impl GrowthJob {
    /// Whether what went up of it is to be given back.
    pub fn gives_back(&self) -> bool {
        self.gives_back
    }

    /// The file's name.
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// What the file was when it was looked at. It grows.
    pub fn identity(&self) -> &FileIdentity {
        &self.identity
    }
}

/// How far a file went up while it is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    device: u64,
    inode: u64,
    /// So many bytes of it are in the store.
    taken: u64,
    /// So many of these are not here any more.
    given: u64,
    /// What waits of it counts, since it can be given back.
    counts: bool,
    /// More is on its way just now.
    is_underway: bool,
}

/// What came of a [`GrowthJob`].
#[derive(Debug, PartialEq, Eq)]
pub enum Grown {
    /// Of the file.
    Taken {
        /// So many bytes are in the store, in whole parts.
        taken: u64,
        /// So many of these are not here any more.
        given: u64,
    },
    /// None of them are any more: it is begun anew, and why.
    Failed(String),
}

impl DumpState {
    /// From now on files that are being written go up in parts of these sizes.
    pub fn follow_growing(&mut self, sizes: PartSizes) {
        self.growing = Some(sizes);
    }

    /// What went up of such files is given back where more than so many bytes are local.
    pub fn give_back_above(&mut self, bytes: u64) {
        self.give_back_above = Some(bytes);
    }

    /// Whether there is a whole part more of a file that is still being written: then it is marked as on its way.
    pub(super) fn consider_growing(
        &mut self,
        name: &FileName,
        probe: &Probe,
        now: Instant,
        phase: Phase,
    ) -> Option<GrowthJob> {
        let sizes = self.growing.filter(|_| phase == Phase::Writing && probe.writers == Writers::Some)?;
        let identity = probe.identity;
        let known = self.files.get(name)?;
        let growth = known.growth.filter(|growth| (growth.device, growth.inode) == (identity.device, identity.inode));
        let (taken, given) = growth.map_or((0, 0), |growth| (growth.taken, growth.given));
        let gives_back = self.give_back_above.is_some_and(|above| self.local_bytes() > above);
        let number = if taken == 0 { 1 } else { sizes.count(taken)? + 1 };
        let part = sizes.part(number)?;
        let has_room = known.growth.is_some() || self.sums.followed < FOLLOWED_MAX;
        let is_underway = known.growth.is_some_and(|growth| growth.is_underway);
        let held_back = known.setback.as_ref().is_some_and(|setback| now < setback.not_before);
        let has_whole_part = part.offset + part.length < identity.size;
        let has_work = has_whole_part || gives_back && given < taken;
        if !matches!(known.stage, Stage::Open(_)) || is_underway || held_back || !has_room || !has_work {
            return None;
        }
        if name.is_metadata() || self.rows_beside(name) == Beside::MayBeEmpty || self.may_be_renamed(name) {
            return None;
        }
        let FileIdentity { device, inode, .. } = identity;
        let counts = self.give_back_above.is_some();
        self.change(name, |known| {
            known.growth = Some(Growth { device, inode, taken, given, counts, is_underway: true });
        });
        Some(GrowthJob { name: name.clone(), identity, gives_back })
    }

    /// Up to 0.10.5 a table's first file loses its number when it turns out to be the only one: not before a second one
    /// is there its name is known to stay.
    fn may_be_renamed(&self, name: &FileName) -> bool {
        let Some(only) = renamed_to(name.as_str()) else { return false };
        let Some((table, rest)) = only.rsplit_once(".sql") else { return false };
        let sibling = |number: u32| format!("{table}.{number:05}.sql{rest}");
        ![0, 2].into_iter().any(|number| self.files.contains_key(sibling(number).as_str()))
    }

    /// What there was of a file went up, or could not. Returns whether more of it is wanted: the file is still there.
    pub fn grown(&mut self, job: GrowthJob, now: Instant, grown: Grown) -> bool {
        let is_it = |growth: &Growth| (growth.device, growth.inode) == (job.identity.device, job.identity.inode);
        let is_wanted = self.files.get(&job.name).and_then(|known| known.growth.as_ref()).is_some_and(is_it);
        if !is_wanted {
            return false;
        }
        self.change(&job.name, |known| match grown {
            Grown::Taken { taken, given } => {
                if let Some(growth) = &mut known.growth {
                    (growth.taken, growth.given, growth.is_underway) = (taken, given, false);
                }
            }
            Grown::Failed(why) => {
                known.growth = None;
                known.setback = Some(Setback::after(known.setback.take(), now, false, why));
            }
        });
        true
    }
}

impl Known {
    /// So many bytes of it are not here any more.
    pub(super) fn given(&self) -> u64 {
        self.growth.map_or(0, |growth| growth.given)
    }

    /// Whether what waits of it while it is written counts.
    pub(super) fn counts_while_it_grows(&self) -> bool {
        self.growth.is_some_and(|growth| growth.counts)
    }

    /// Whether some of it is on its way while it grows: its end must wait for that.
    pub(super) fn is_growing_up(&self) -> bool {
        self.growth.is_some_and(|growth| growth.is_underway)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::World;
    use super::*;

    const PART: u64 = 5 << 20;
    const LARGE: &str = "s.t.00000.sql";

    fn world() -> World {
        let mut world = World::new();
        world.state.follow_growing(PartSizes::growing(PART, 10));
        world.put(LARGE, false);
        world
    }

    fn taken(taken: u64) -> Grown {
        Grown::Taken { taken, given: 0 }
    }

    /// The jobs of a look, by name.
    fn growing(world: &mut World, size: u64) -> Vec<GrowthJob> {
        world.resize(LARGE, size);
        world.look(Phase::Writing, 1).growing
    }

    #[test]
    fn each_whole_part_of_an_open_file_is_sent_once() {
        let mut world = world();
        assert_eq!(growing(&mut world, PART), []);
        let job = growing(&mut world, PART + 1).pop().expect("its first part");
        assert_eq!(growing(&mut world, 3 * PART), [], "marked as on its way");
        assert!(world.state.grown(job, world.now, taken(PART)));
        let job = growing(&mut world, 3 * PART).pop().expect("its second part");
        assert!(world.state.grown(job, world.now, taken(2 * PART)));
        assert_eq!(growing(&mut world, 3 * PART), [], "the third may be the last");
        // Parts grow from half of them on.
        let job = growing(&mut world, 5 * PART + 1).pop().expect("three more");
        assert!(world.state.grown(job, world.now, taken(5 * PART)));
        assert_eq!(growing(&mut world, 6 * PART + 1), []);
    }

    #[test]
    fn a_file_that_is_closed_waits_for_what_is_on_its_way() {
        let mut world = world();
        let job = growing(&mut world, PART + 1).pop().expect("its first part");
        world.close(LARGE);
        assert!(world.scan(Phase::Writing, 1).is_empty() && world.scan(Phase::Ended, 100).is_empty());
        assert!(world.state.grown(job, world.now, taken(PART)));
        assert_eq!(world.scan(Phase::Ended, 1).len(), 1);
        assert_eq!(world.look(Phase::Ended, 1).growing, []);
    }

    #[test]
    fn what_failed_is_begun_anew_after_a_while() {
        let mut world = world();
        let job = growing(&mut world, 2 * PART).pop().expect("its first part");
        assert!(world.state.grown(job, world.now, Grown::Failed("no".to_owned())));
        world.now -= Duration::from_secs(1);
        assert_eq!(growing(&mut world, 2 * PART), []);
        assert_eq!(growing(&mut world, 2 * PART).len(), 1);
    }

    #[test]
    fn a_file_that_is_gone_is_forsaken_whatever_is_on_its_way() {
        for is_underway in [true, false] {
            let mut world = world();
            let job = growing(&mut world, 2 * PART).pop().expect("its first part");
            let mut job = Some(job);
            if !is_underway {
                assert!(world.state.grown(job.take().expect("the job"), world.now, taken(PART)));
            }
            world.files.remove(LARGE);
            let forsaken = world.look(Phase::Writing, 1).forsaken;
            assert_eq!(forsaken.iter().map(FileName::as_str).collect::<Vec<_>>(), [LARGE]);
            if let Some(job) = job {
                assert!(!world.state.grown(job, world.now, taken(PART)), "nobody wants it any more");
            }
            assert_eq!(world.state.sums.followed, 0);
        }
    }

    #[test]
    fn another_file_under_the_name_begins_anew() {
        let mut world = world();
        let job = growing(&mut world, 2 * PART).pop().expect("its first part");
        world.put(LARGE, false);
        assert_eq!(growing(&mut world, 2 * PART), [], "what is on its way ends first");
        assert!(world.state.grown(job, world.now, taken(PART)));
        let again = growing(&mut world, 2 * PART).pop().expect("its first part");
        assert_eq!(again.identity().inode, 2);
    }

    #[test]
    fn what_went_up_is_given_back_where_more_than_that_is_local() {
        let mut world = world();
        world.state.give_back_above(2 * PART);
        let job = growing(&mut world, 2 * PART).pop().expect("its first part");
        assert!(!job.gives_back());
        assert!(world.state.grown(job, world.now, taken(PART)));
        let job = growing(&mut world, 2 * PART + 1).pop().expect("too much is local");
        assert!(job.gives_back());
        assert_eq!(world.state.waiting_bytes(), 2 * PART + 1, "mydumper is held by it");
        assert!(world.state.grown(job, world.now, Grown::Taken { taken: 2 * PART, given: 2 * PART }));
        assert_eq!((world.state.local_bytes(), world.state.waiting_bytes()), (1, 1));
        // Closed, what is not here any more does not count either.
        world.close(LARGE);
        world.scan(Phase::Writing, 1);
        assert_eq!(world.scan(Phase::Writing, 1).len(), 1);
        assert_eq!((world.state.local_bytes(), world.state.waiting_bytes()), (1, 1));
    }

    #[test]
    fn names_that_may_change_are_not_followed() {
        let mut world = World::new();
        world.state.follow_growing(PartSizes::growing(PART, 10));
        for name in ["s.t.00001.sql", "metadata", "s.u.00001.sql.zst"] {
            world.put(name, false);
            world.resize(name, 2 * PART);
        }
        let followed = |world: &mut World| {
            let jobs = world.look(Phase::Writing, 1).growing.into_iter();
            jobs.map(|job| job.name().as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(followed(&mut world), ["s.u.00001.sql.zst"]);
        world.put("s.t.00002.sql", false);
        assert_eq!(followed(&mut world), ["s.t.00001.sql"]);
    }
}
