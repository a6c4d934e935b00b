//! How fast the pure parts are: MD5 in lanes, the state of a dump with many files, the parts of a file.
//!
//!     cargo bench                   all of them
//!     cargo bench -- 'md5/avx2'     those whose names have this in them
//!
//! Figures, not tests: nothing fails here. What must not grow is counted by `tests/it/costs.rs`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use md5_lanes::{Block, Implementation, Lanes, Message};
use mydumper2s3::model::etag::{ETag, Md5Digest};
use mydumper2s3::model::file_name::FileName;
use mydumper2s3::model::identity::FileIdentity;
use mydumper2s3::model::listing::Listing;
use mydumper2s3::model::manifest::{self, ContentHash, ObjectRecord, Proof};
use mydumper2s3::model::part_plan::{MIB, PARTS_MAX, PartPlan};
use mydumper2s3::model::record::{Kind, Objects, Place, Record};
use mydumper2s3::model::row_count::RowCounter;
use mydumper2s3::model::state::{DumpState, Local, Phase, Probe, Scan, UploadJob, Uploaded, Writers};
use mydumper2s3::recorder::Recorder;

/// As much of each message as the hasher reads at a time.
const PIECE: usize = 64 * 1024;
/// Files of the largest dump that the program is made for.
const FILES: u64 = 100_000;
/// Files that turn up between two looks at such a dump.
const NEW_FILES: u64 = 1_000;

/// Bytes per second of all messages together: one file alone, a few, and as many as there are lanes.
fn md5(criterion: &mut Criterion) {
    for lanes in Implementation::ALL.into_iter().filter_map(Lanes::new) {
        let mut group = criterion.benchmark_group(format!("md5/{}", lanes.implementation()));
        for messages in [1, 4, 16] {
            let piece: Vec<Block> = (0..PIECE / size_of::<Block>()).map(|at| [at as u8; size_of::<Block>()]).collect();
            // Each message has bytes of its own, as files have: one piece for all would stay in the nearest cache.
            let pieces = vec![piece; messages];
            group.throughput(Throughput::Bytes((messages * PIECE) as u64));
            group.bench_function(BenchmarkId::new("messages", messages), |bencher| {
                let mut under_way = vec![Message::default(); messages];
                bencher.iter(|| {
                    let mut steps: Vec<_> =
                        under_way.iter_mut().zip(&pieces).map(|(message, piece)| (message, piece.as_slice())).collect();
                    lanes.update(black_box(&mut steps));
                });
            });
        }
        group.finish();
    }
}

/// One look at a directory whose files are all uploaded and kept: the most that `--keep` can cost.
fn state(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state/100,000 files");
    group.sampling_mode(SamplingMode::Flat).sample_size(20).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements(FILES));
    let mut state = all_kept();
    group.bench_function("nothing new", |bencher| {
        let names = || listing(0..FILES);
        bencher.iter_batched(names, |listing| look(&mut state, listing), BatchSize::PerIteration);
    });
    group.bench_function("1,000 new", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| time_to_find_new(&mut state)).sum());
    });
    group.finish();
}

/// The plan of the largest file, each part once.
fn part_plan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("part plan");
    group.throughput(Throughput::Elements(PARTS_MAX.into()));
    group.bench_function("10,000 parts", |bencher| {
        bencher.iter(|| {
            let plan = PartPlan::new(black_box(u64::from(PARTS_MAX) * 16 * MIB), 16 * MIB, PARTS_MAX);
            plan.into_iter().flat_map(PartPlan::parts).map(|part| black_box(part).length).sum::<u64>()
        });
    });
    group.finish();
}

/// Bytes per second of a data file's text whose rows are counted: rows of a few numbers, and of half a kilobyte.
fn row_count(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("row count");
    for (rows, row) in [
        ("rows of 22 bytes", ",(1234567,8641969,12)\n".to_owned()),
        ("rows of 525 bytes", { format!(",(1234567,\"{}\")\n", "0123456789abcdef".repeat(32)) }),
    ] {
        let text = format!("INSERT INTO `t` VALUES(1)\n{}", row.repeat(MIB as usize / row.len()));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(rows, |bencher| {
            bencher.iter(|| {
                let mut counter = RowCounter::of("shop.t.00000.sql").expect("a data file");
                text.as_bytes().chunks(PIECE).for_each(|bytes| counter.update(black_box(bytes)));
                counter.finish()
            });
        });
    }
    group.finish();
}

/// What the record of what is gone costs for each file that is removed: one write of an attribute, by the kernel, too. In the
/// build's directory, so that the filesystem is one of a disk.
fn record(criterion: &mut Criterion) {
    let lead = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
    let text = r#"{"format":1,"state":"uploading","dump_id":"4bb2a0f2-7d2f-4d5a-9d4f-0a4f5f2f1c55","version":"0.1.0",
        "identity":{"host":"h","started":"s","inode":1},"started":"2026-11-22T02:00:00Z",
        "dumper_exit":{"seen":"not-seen"},"directory":"/d","closed_by":"lease","files":[]}"#;
    let header = manifest::read(text.as_bytes(), drop).expect("a header");
    let place = Place { endpoint: None, uri: "s3://backups/db1.example.com/2026-11-22T020000Z/".into() };
    let recorder = Recorder::new(lead, Record::new(Kind::Directory, &header, place));
    let names: Vec<FileName> =
        (0..1_000).map(|number| format!("shop.order_items.{number:05}.sql.zst").parse().expect("a name")).collect();
    let etag = Some(ETag::of_single_put(Md5Digest::of(b"x")));
    let mut next = names.iter().cycle();
    criterion.bench_function("record/a file is removed", |bencher| {
        bencher.iter(|| {
            let name = next.next().expect("a cycle");
            recorder.begin_removals(&[(name.clone(), Objects::one(name.as_str(), 1_000_000, etag.as_ref()))]);
            recorder.end_removal(name, true);
        });
    });
}

/// What [`mydumper2s3::scan::Look`] does with the state, apart from asking the kernel.
fn look(state: &mut DumpState, listing: Listing) -> Vec<UploadJob> {
    let probe = |name| (name, Probe { identity: identity(FILES), born: None, writers: Writers::None });
    let probes = state.unfinished(&listing).into_iter().map(probe).collect();
    state.observe(Scan { now: Instant::now(), phase: Phase::Writing, listing, probes, vanished: Vec::new() }).jobs
}

/// Finds them, and forgets them again, so that each time is like the first.
fn time_to_find_new(state: &mut DumpState) -> Duration {
    let listing = listing(0..FILES + NEW_FILES);
    let began = Instant::now();
    let jobs = black_box(look(state, listing));
    let took = began.elapsed();
    assert_eq!(jobs.len() as u64, NEW_FILES);
    jobs.into_iter().for_each(|job| state.gone(job, false));
    took
}

fn all_kept() -> DumpState {
    // Without a wait, so that one look makes jobs of what is new.
    let mut state = DumpState::new(Duration::ZERO);
    for (name, number) in listing(0..FILES).iter() {
        let object = ObjectRecord {
            size: 1,
            hash: ContentHash::Whole { md5: Md5Digest([0; 16]) },
            etag: None,
            version_id: None,
            sha256: None,
            proof: Proof::EtagMd5,
            is_read_back: false,
        };
        let local = Local::Kept(Box::new(identity(number)));
        state.adopt(name.parse().expect("a file name"), Uploaded { object, local, broken: None, rows: None });
    }
    state
}

/// Names as mydumper makes them.
fn listing(files: std::ops::Range<u64>) -> Listing {
    let mut listing = Listing::default();
    for number in files {
        listing.push(&format!("shop.orders.{number:05}.sql"), number).expect("a file name");
    }
    listing
}

fn identity(inode: u64) -> FileIdentity {
    FileIdentity { device: 1, inode, size: 1, modified: 0, changed: 0 }
}

criterion_group!(benches, md5, state, part_plan, row_count, record);
criterion_main!(benches);
