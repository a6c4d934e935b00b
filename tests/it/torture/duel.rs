//! Two dumps that claim one prefix at the same time, on a store that does not look at conditions, so that both may believe
//! it theirs; and each may be killed amid it and started again.
//!
//! Whoever ends with 0 has exactly its dump in the bucket, and it stays there; and no byte of either is ever nowhere.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Count, Dice, Tally};
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::s3_server::{Fault, Limits, Operation, S3Server};
use crate::support::sandbox::{Program, Run, Sandbox};
use crate::support::stage::{MANIFEST, Stage};

const PREFIX: &str = "nightly/dump";

/// One of the two.
struct Side<'a> {
    sandbox: &'a Sandbox,
    stage: &'a Stage,
    dumper: FakeDumper,
    run: Option<Run>,
    status: Option<i32>,
}

impl<'a> Side<'a> {
    fn new(sandbox: &'a Sandbox, stage: &'a Stage, number: u64, dice: &mut Dice) -> Self {
        let mut dumper = FakeDumper::start(sandbox, Generation::V1_0);
        dumper.file_of("shop-schema-create.sql", format!("CREATE DATABASE `shop` /* {number} */;\n"));
        for table in 0..1 + dice.below(4) {
            // Of other bytes than the other's file of that name.
            dumper.file(format!("shop.t{table}.00000.sql"), 1_000 + 2 * dice.below(2_000) + number);
        }
        Self { sandbox, stage, dumper, run: None, status: None }
    }

    fn start(&mut self, tally: &Tally) {
        let program: Program<'_> = self.sandbox.mydumper2s3().upload_to(&self.stage.endpoint());
        let settings = ["--settle", "0.1", "--wait", "0", "--prefix", PREFIX, "--retry-for", "5s"];
        self.run = Some(program.args(settings).time_limit(Duration::from_secs(240)).start());
        tally.add(Count::Runs, 1);
    }

    fn kill(&mut self, tally: &Tally) {
        let Some(run) = self.run.take() else { return };
        let finished = run.kill();
        match finished.status.code() {
            Some(status) => self.status = Some(status),
            None => tally.add(Count::Kills, 1),
        }
    }

    fn finish(&mut self) {
        if let Some(run) = self.run.take() {
            let finished = run.finish();
            let status = finished.status.code();
            assert!(matches!(status, Some(0..=2)), "{finished:?}");
            self.status = status;
        }
    }

    #[track_caller]
    fn assert_nothing_lost(&self) {
        let (local, there) = (self.sandbox.local_files(), self.stage.files(PREFIX));
        for (name, bytes) in self.dumper.files() {
            let is_safe = local.get(&name) == Some(&bytes) || there.get(&name) == Some(&bytes);
            assert!(is_safe, "'{name}' is nowhere: local {:?}, there {:?}", local.keys(), there.keys());
        }
        if self.status == Some(0) {
            assert!(there == self.dumper.files(), "committed, and there are {:?}", there.keys());
        }
    }
}

/// Plays one, and returns nothing if all is right.
pub fn play(seed: u64, tally: &Tally) {
    let mut dice = Dice(seed);
    let limits = Limits { knows_conditions: false, ..Limits::default() };
    let stage = Stage::with(S3Server::builder().limits(limits).start());
    let other = Sandbox::new();
    let mut sides = [Side::new(&stage.sandbox, &stage, 0, &mut dice), Side::new(&other, &stage, 1, &mut dice)];
    let lives_on = dice.one_in(3);
    if !lives_on {
        sides.iter_mut().for_each(|side| side.dumper.finish_and_exit());
    }
    let claim = |key: &str| key.ends_with(MANIFEST);
    let fault = if dice.one_in(2) { Fault::hold() } else { Fault::store_then_hold() };
    let held = stage.server.inject(fault.on(Operation::PutObject).key_where(claim).times(1 + dice.below(2) as usize));
    for side in &mut sides {
        side.start(tally);
        std::thread::sleep(Duration::from_millis(dice.below(300)));
    }
    held.wait_for_hits(1);
    std::thread::sleep(Duration::from_millis(dice.below(500)));
    held.clear();
    // A claim is believed after 35 s: before, about then, and after it.
    for _ in 0..dice.below(3) {
        let wait = dice.of(&[100, 2_000, 34_000, 36_000]) + dice.below(2_000);
        std::thread::sleep(Duration::from_millis(wait));
        let victim = &mut sides[dice.below(2) as usize];
        if victim.run.is_some() {
            victim.kill(tally);
            if victim.status.is_none() {
                victim.start(tally);
            }
        }
        sides.iter().for_each(Side::assert_nothing_lost);
    }
    if lives_on {
        sides.iter_mut().for_each(|side| side.dumper.finish_and_exit());
    }
    sides.iter_mut().for_each(Side::finish);
    sides.iter().for_each(Side::assert_nothing_lost);
    // Once more, as the hint says: who has won stays, who has lost finds it occupied.
    for index in [0, 1] {
        let side = &mut sides[index];
        if side.status != Some(0) {
            side.start(tally);
            side.finish();
        }
        sides.iter().for_each(Side::assert_nothing_lost);
    }
    let statuses: BTreeMap<_, _> = sides.iter().map(|side| (side.status, ())).collect();
    let winners = sides.iter().filter(|side| side.status == Some(0)).count();
    assert!(winners <= 1, "{statuses:?}");
    tally.add(Count::Duels, 1);
    tally.add(Count::Undecided, 1 - winners as u64);
}
