//! Promise 6 under torture: "A crash, a kill or an outage at any moment loses nothing." Random dumps, random faults of
//! the store, the program killed with SIGKILL or told to stop at random moments; and between two runs somebody prunes the
//! prefix, deletes or replaces objects, removes a local file, or gives the host another name.
//!
//! What must come out is judged by the bytes alone: those that the dumper wrote, those in the directory, those in the
//! bucket. As long as nobody else destroyed any, each is always in one of both; what was destroyed, or not dumped to its
//! end, is never committed, and no run of it ends with status 0; all else is, and the bucket holds exactly the dump.
//!
//! One thing is let pass, and counted: the object of a file that mydumper took back between its upload and a kill may
//! stay; a restart cannot tell it from one whose file we removed.
//!
//! And two dumps claim one prefix at once on a store without conditional writes: a duel.
//!
//!     MYDUMPER2S3_TORTURE_ROUNDS=5000 MYDUMPER2S3_TORTURE_DUELS=50 cargo test --test it torture -- --nocapture
//!     MYDUMPER2S3_TORTURE_SEED=12345 MYDUMPER2S3_TORTURE_ROUNDS=1 MYDUMPER2S3_TORTURE_DUELS=0 cargo test --test it torture

mod duel;
mod mishap;
mod round;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use round::Round;

/// What fits into the suite's time.
const ROUNDS: u64 = 120;
/// In each two dumps claim one prefix. They take most of a minute, in which they wait.
const DUELS: u64 = 2;
/// Rounds mostly wait: for processes, for the store's faults to pass.
const AT_ONCE: u64 = 8;
const MIB: u64 = 1024 * 1024;

/// All that is random in a round comes from its seed, but for the scheduling of processes. (SplitMix64.)
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// What is counted over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Rounds,
    AsAChild,
    Runs,
    Kills,
    Faults,
    Pruned,
    Gone,
    Replaced,
    AnotherHost,
    Stops,
    StopsWhileDown,
    RemovedByAStranger,
    Files,
    Bytes,
    /// Dumps of which bytes were destroyed, or that mydumper was stopped in.
    Destroyed,
    Committed,
    /// All bytes are there, and the program could not know: status 3 was let pass.
    Doubted,
    TakenBack,
    UploadsLeft,
    Duels,
    /// Neither committed.
    Undecided,
}

const WORDS: [&str; 21] = [
    "rounds",
    "of them with mydumper as a child",
    "runs",
    "kills",
    "faults struck",
    "times the prefix was pruned",
    "objects deleted",
    "objects replaced",
    "runs under another host name",
    "stops",
    "stops while the store was away",
    "files removed by a stranger",
    "files",
    "bytes",
    "dumps that could not be whole any more",
    "dumps committed",
    "not committed though all bytes were there",
    "objects of files that were taken back left",
    "uploads of an unknown id left",
    "times that two dumps claimed one prefix at once",
    "of them in which neither was committed",
];

/// What all rounds came to.
#[derive(Default)]
struct Tally([AtomicU64; WORDS.len()]);

impl Tally {
    fn add(&self, what: Count, count: u64) {
        self.0[what as usize].fetch_add(count, Ordering::Relaxed);
    }

    fn of(&self, what: Count) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn torture() {
    let clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_micros() as u64);
    let seed = setting("MYDUMPER2S3_TORTURE_SEED").unwrap_or_else(clock);
    let rounds = setting("MYDUMPER2S3_TORTURE_ROUNDS").unwrap_or(ROUNDS);
    let duels = setting("MYDUMPER2S3_TORTURE_DUELS").unwrap_or(DUELS);
    let (begun, tally) = (Instant::now(), Tally::default());
    std::thread::scope(|scope| {
        scope.spawn(|| all("DUELS", seed, duels, |seed| duel::play(seed, &tally)));
        scope.spawn(|| all("ROUNDS", seed, rounds, |seed| Round::new(seed, &tally).play()));
    });
    println!("torture from seed {seed}, {:.0} s, nothing lost:", begun.elapsed().as_secs_f64());
    for (counter, words) in tally.0.iter().zip(WORDS) {
        println!("{:>12} {words}", counter.load(Ordering::Relaxed));
    }
    assert_eq!((tally.of(Count::Rounds), tally.of(Count::Duels)), (rounds, duels));
}

/// Plays so many, each from a seed of its own, some at once; `what` is the variable that says how many.
fn all(what: &str, seed: u64, count: u64, play: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let seed = seed.wrapping_add(number);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| play(seed))) {
                // The others need not go on.
                next.store(count, Ordering::Relaxed);
                eprintln!("again: MYDUMPER2S3_TORTURE_SEED={seed} MYDUMPER2S3_TORTURE_{what}=1");
                resume_unwind(panic);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(count) {
            scope.spawn(work);
        }
    });
}
