//! A dump whose rows come as streams: here are names of 0 bytes, and they are never uploaded.
//!
//! mydumper makes each file, hands its rows over, closes it, and takes back those without a row. So the names that are left
//! in the end say what belongs to the dump, and each of them must have been handed over.

use std::collections::HashSet;

use super::gone::Beside;
use super::known::{Lost, Stage};
use super::{DumpState, Local, Uploaded};
use crate::model::file_name::FileName;
use crate::model::identity::FileIdentity;
use crate::model::taken_back::may_be_empty;

/// The right and the duty to make an object of what comes under one name.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamJob {
    name: FileName,
}

impl StreamJob {
    /// The file's name.
    pub fn name(&self) -> &FileName {
        &self.name
    }
}

/// What is known of the streams of a dump.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Those that had no byte: mydumper takes most of these back.
    empty: HashSet<FileName>,
    /// How many have begun and not ended.
    underway: usize,
}

impl DumpState {
    /// From now on what is in the directory is names: nothing but `metadata` is uploaded from there.
    pub fn take_streams(&mut self) {
        self.streams.get_or_insert_default();
    }

    /// Whether files here are only names.
    pub fn has_streams(&self) -> bool {
        self.streams.is_some()
    }

    /// Rows come for that name. `None` if they did before: no file is written twice.
    pub fn begin_stream(&mut self, name: &FileName) -> Option<StreamJob> {
        let is_known = self.files.get(name).is_some_and(|known| !matches!(known.stage, Stage::Open(_)));
        let streams = self.streams.as_mut().filter(|streams| !is_known && !streams.empty.contains(name))?;
        streams.underway += 1;
        // It is there just now. Absent at the next look, it must be missed.
        let scans = self.scans;
        if self.files.get(name).is_none_or(|known| known.seen != scans) {
            self.present.push(name.clone());
        }
        self.change(name, |known| {
            known.seen = scans;
            known.stage = Stage::Uploading(0);
        });
        Some(StreamJob { name: name.clone() })
    }

    /// Its rows are in the bucket, proved. Without its name, unless mydumper took it back, the dump lacks it.
    pub fn end_stream(&mut self, job: StreamJob, uploaded: Uploaded) {
        self.one_less_underway();
        self.has_rows_beside |= job.name.as_str().contains(".dat");
        self.adopt(job.name, uploaded);
    }

    /// It had no byte, and mydumper may take it back: what it is its name tells in the end.
    pub fn end_empty_stream(&mut self, job: StreamJob) {
        self.one_less_underway();
        // As if it was not seen yet: if its name is still there, the next look finds it.
        self.reopen(&job.name);
        if let Some(streams) = &mut self.streams {
            streams.empty.insert(job.name);
        }
    }

    fn one_less_underway(&mut self) {
        if let Some(streams) = &mut self.streams {
            streams.underway -= 1;
        }
    }

    /// How many streams have begun and not ended.
    pub fn streams_underway(&self) -> usize {
        self.streams.as_ref().map_or(0, |streams| streams.underway)
    }

    /// Names of which no rows came.
    pub fn without_rows(&self) -> Vec<FileName> {
        let Some(streams) = &self.streams else { return Vec::new() };
        let is_one = |name: &&FileName| !name.is_metadata() && !streams.empty.contains(*name);
        self.waiting().filter(is_one).cloned().collect()
    }

    /// Judges all names, after a look that was made when mydumper had ended and no stream was underway. `why` says of names
    /// of which no rows came what the dump lacks. Returns those that had no byte and are still there: they belong to the
    /// dump, and have no object yet.
    pub fn settle_streams(&mut self, why: &str) -> Vec<StreamJob> {
        for name in self.without_rows() {
            let lost = Lost { why: why.to_owned(), unless_rows_are_beside: false };
            self.change(&name, |known| known.stage = Stage::Lost(Box::new(lost)));
        }
        for name in self.names_gone() {
            let stage = match self.rows_beside(&name) {
                Beside::MayBeEmpty => Stage::TakenBack(Some(0)),
                Beside::Nothing | Beside::Rows => {
                    let why = "its rows were handed over, and its name is gone".to_owned();
                    Stage::Lost(Box::new(Lost { why, unless_rows_are_beside: false }))
                }
            };
            self.change(&name, |known| known.stage = stage);
        }
        let empty = self.streams.as_mut().map(|streams| std::mem::take(&mut streams.empty)).unwrap_or_default();
        let is_here = |name: &FileName| self.files.get(name).is_some_and(|known| matches!(known.stage, Stage::Open(_)));
        let here: Vec<_> = empty.into_iter().filter(is_here).collect();
        here.iter().filter_map(|name| self.begin_stream(name)).collect()
    }

    /// A look found the name of an object that an earlier one did not: that one was made before mydumper made the file.
    pub(super) fn found_again<T>(&mut self, name: &FileName, identity: FileIdentity) -> Option<T> {
        self.change(name, |known| {
            if let Stage::Uploaded(uploaded) = &mut known.stage
                && identity.size == 0
            {
                uploaded.local = Local::Kept(Box::new(identity));
            }
        });
        None
    }

    /// Objects whose names are not here any more.
    fn names_gone(&self) -> Vec<FileName> {
        let is_gone = |(name, uploaded): &(&FileName, &Uploaded)| {
            !name.is_metadata() && uploaded.local == Local::Removed && self.streams.is_some()
        };
        self.uploaded().filter(is_gone).map(|(name, _)| name.clone()).collect()
    }
}

/// Whether mydumper may take back a file of which no byte came.
pub fn may_be_taken_back(name: &FileName) -> bool {
    may_be_empty(name.as_str(), 0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, uploaded};
    use super::super::{Phase, UploadJob};
    use super::*;

    const WHY: &str = "no rows of it were handed over";

    fn world() -> World {
        let mut world = World::new();
        world.state.take_streams();
        world
    }

    fn name(name: &str) -> FileName {
        name.parse().expect("a name")
    }

    impl World {
        fn make(&mut self, name: &str) -> FileIdentity {
            self.put(name, false);
            self.resize(name, 0);
            self.files[name].0
        }

        fn hand_over(&mut self, of: &str) -> (StreamJob, FileIdentity) {
            let identity = self.make(of);
            (self.state.begin_stream(&name(of)).expect("a new name"), identity)
        }

        fn whole(&mut self, of: &str) {
            let (job, identity) = self.hand_over(of);
            self.state.end_stream(job, uploaded(Local::Kept(Box::new(identity))));
        }

        fn lost(&self) -> Vec<String> {
            self.state.lost().into_iter().map(|(name, why)| format!("{name}: {why}")).collect()
        }
    }

    fn names(jobs: &[UploadJob]) -> Vec<&str> {
        jobs.iter().map(|job| job.name().as_str()).collect()
    }

    /// The directory has names of 0 bytes: over the good objects they would destroy them.
    #[test]
    fn a_name_of_0_bytes_is_never_uploaded() {
        let mut world = world();
        world.make("s.t.00000.sql.zst");
        world.make("s.t-schema.sql.zst");
        world.whole("s.u.00000.sql.zst");
        world.put("metadata", true);
        world.close("s.t.00000.sql.zst");
        world.close("s.t-schema.sql.zst");
        world.close("s.u.00000.sql.zst");
        for phase in [Phase::Writing, Phase::Ended, Phase::Ended] {
            assert_eq!(names(&world.scan(phase, 100)), [""; 0]);
        }
        assert_eq!(names(&world.scan(Phase::Committing, 100)), ["metadata"]);
        assert_eq!(world.state.local_bytes(), 10, "those of metadata");
    }

    #[test]
    fn a_name_without_a_hand_over_is_a_file_that_the_dump_lacks() {
        let mut world = world();
        world.whole("s.t.00000.sql.zst");
        world.make("s.u.00000.sql.zst");
        world.scan(Phase::Ended, 0);
        assert_eq!(world.state.without_rows(), [name("s.u.00000.sql.zst")]);
        assert_eq!(world.state.outstanding(), 1);
        assert_eq!(world.state.settle_streams(WHY), []);
        assert_eq!(world.lost(), [format!("s.u.00000.sql.zst: {WHY}")]);
        assert_eq!(world.state.outstanding(), 0);
    }

    #[test]
    fn nobody_hands_a_name_over_twice() {
        let mut world = world();
        let (job, identity) = world.hand_over("s.t.00000.sql");
        assert_eq!(world.state.begin_stream(job.name()), None);
        assert_eq!(world.state.streams_underway(), 1);
        world.state.end_stream(job, uploaded(Local::Kept(Box::new(identity))));
        assert_eq!(world.state.begin_stream(&name("s.t.00000.sql")), None);
        let (empty, _) = world.hand_over("s.u.00000.sql");
        world.state.end_empty_stream(empty);
        assert_eq!(world.state.begin_stream(&name("s.u.00000.sql")), None);
        assert_eq!(world.state.streams_underway(), 0);
    }

    #[test]
    fn what_had_no_byte_goes_up_only_if_its_name_stays() {
        let mut world = world();
        for of in ["s.gone.00000.sql.zst", "s.stays.00000.sql.zst"] {
            let (job, _) = world.hand_over(of);
            world.state.end_empty_stream(job);
        }
        world.scan(Phase::Writing, 0);
        assert_eq!(world.state.without_rows(), [], "rows were handed over, though none");
        world.files.remove("s.gone.00000.sql.zst");
        world.scan(Phase::Ended, 1);
        let jobs = world.state.settle_streams(WHY);
        assert_eq!(jobs.iter().map(|job| job.name().as_str()).collect::<Vec<_>>(), ["s.stays.00000.sql.zst"]);
        assert_eq!((world.state.outstanding(), world.lost()), (1, vec![]));
    }

    /// mydumper takes the statement beside an empty `.dat` back, and nothing else that had a byte.
    #[test]
    fn an_object_whose_name_is_gone_is_deleted_or_missed() {
        let mut world = world();
        world.whole("s.t.00000.sql.zst");
        let (empty, _) = world.hand_over("s.t.00000.dat.zst");
        world.state.end_empty_stream(empty);
        world.whole("s.u.00000.sql.zst");
        world.whole("s.u.00000.dat.zst");
        world.whole("s.v.00000.sql.zst");
        let (late, _) = world.hand_over("s.w.00000.sql.zst");
        world.state.end_stream(late, uploaded(Local::Removed));
        for gone in ["s.t.00000.sql.zst", "s.t.00000.dat.zst", "s.v.00000.sql.zst", "s.w.00000.sql.zst"] {
            world.files.remove(gone);
        }
        world.scan(Phase::Ended, 0);
        world.state.settle_streams(WHY);
        let withdrawn = world.look(Phase::Ended, 1).withdrawn;
        assert_eq!(withdrawn, [name("s.t.00000.sql.zst")]);
        let why = "its rows were handed over, and its name is gone";
        assert_eq!(world.lost(), [format!("s.v.00000.sql.zst: {why}"), format!("s.w.00000.sql.zst: {why}")]);
    }

    /// A look may be older than a stream that began and ended meanwhile.
    #[test]
    fn a_look_that_was_too_early_takes_nothing_away() {
        let mut world = world();
        world.whole("s.t.00000.sql.zst");
        let (identity, closed) = world.files.remove("s.t.00000.sql.zst").expect("the file");
        world.scan(Phase::Writing, 0);
        world.files.insert("s.t.00000.sql.zst".to_owned(), (identity, closed));
        world.scan(Phase::Ended, 1);
        assert_eq!(world.state.settle_streams(WHY), []);
        assert_eq!(world.lost(), [""; 0]);
        assert_eq!(world.state.kept(), [(name("s.t.00000.sql.zst"), identity)]);
    }
}
