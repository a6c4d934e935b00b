//! What takes minutes at its real size: a store at a tenth of the dump's speed, and an outage, with a real MariaDB, Debian's
//! mydumper and myloader. Each run of the tests has it at a small size;
//! `MYDUMPER2S3_FULL_SIZE=1 scripts/test.sh full_size -- --nocapture --test-threads=1` at the full one, and prints figures.
//!
//! mydumper reads through a link of a given speed: the dump then needs no luck with the machine.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::disk_samples::DiskWatch;
use crate::support::mariadb::{MariaDb, mydumper};
use crate::support::s3_server::BUCKET;
use crate::support::sandbox::{Program, Run};
use crate::support::slow_link::SlowLink;
use crate::support::stage::Stage;

const MB: u64 = 1_000_000;
const DATABASE: &str = "full_size";
const TABLES: u64 = 6;
/// Of a row in the dump at the least: 128 digits eight times, a number, and what stands around them.
const ROW_BYTES: u64 = 1_030;
/// "Never before the first data file and 2 s after it."
const GRACE: Duration = Duration::from_secs(2);
/// "What is written in one look and one run slice."
const LOOK_AND_SLICE: Duration = Duration::from_millis(50 + 500);
/// Nothing here takes as long, on whatever machine.
const TIME_LIMIT: Duration = Duration::from_secs(2 * 3600);

pub fn is_full() -> bool {
    std::env::var_os("MYDUMPER2S3_FULL_SIZE").is_some_and(|value| !value.is_empty())
}

/// How large a story is.
struct Size {
    dump: u64,
    link: u64,
    file_mb: &'static str,
    mark: &'static str,
    mark_bytes: u64,
    outage: Duration,
    /// Objects in the bucket when the outage begins.
    before_outage: usize,
    /// How often one look and one slice are allowed for: a busy machine looks late.
    slices: u64,
}

impl Size {
    fn chosen() -> Size {
        if is_full() {
            // A Gigabit Ethernet, nearly.
            return Size {
                dump: 3_200 * MB,
                link: 100 * MB,
                file_mb: "16",
                mark: "500MiB",
                mark_bytes: 500 << 20,
                outage: Duration::from_secs(120),
                before_outage: 60,
                slices: 1,
            };
        }
        // The mark is more than what is written in the time in which no pause is allowed.
        Size {
            dump: 42 * MB,
            link: 8 * MB,
            file_mb: "1",
            mark: "20MiB",
            mark_bytes: 20 << 20,
            outage: Duration::from_secs(5),
            before_outage: 8,
            slices: 2,
        }
    }
}

struct Scene {
    size: Size,
    stage: Stage,
    link: SlowLink,
}

/// What the dump is like when nobody takes it away.
struct Alone {
    bytes: u64,
    took: Duration,
    largest_file: u64,
    most_in_a_slice: u64,
}

impl Alone {
    fn bytes_per_second(&self) -> u64 {
        (self.bytes as f64 / self.took.as_secs_f64()) as u64
    }
}

impl Scene {
    fn new() -> Scene {
        let size = Size::chosen();
        let link = SlowLink::to(database(&size).port(), size.link);
        Scene { size, stage: Stage::new(), link }
    }

    fn dump<'a>(&self, program: Program<'a>, dir: &Path) -> Program<'a> {
        let arguments = MariaDb::shared().mydumper_arguments(DATABASE);
        let port = self.link.port().to_string();
        // The last port counts.
        program.args(arguments).args(["-P", &port, "-F", self.size.file_mb, "-o"]).arg(dir).time_limit(TIME_LIMIT)
    }

    fn dump_alone(&self) -> Alone {
        let dir = self.stage.sandbox.path("alone");
        std::fs::create_dir(&dir).expect("a directory for the dump");
        let disk = DiskWatch::on(dir.clone());
        let began = Instant::now();
        self.dump(self.stage.sandbox.program(mydumper()), &dir).run().assert_status(0);
        let took = began.elapsed();
        let most_in_a_slice = disk.end().most_added_within(LOOK_AND_SLICE);
        let files = std::fs::read_dir(&dir).expect("the dump").map(|file| file.expect("a file").metadata());
        let sizes: Vec<u64> = files.map(|file| file.expect("its size").len()).collect();
        std::fs::remove_dir_all(&dir).expect("the dump");
        let largest_file = sizes.iter().copied().max().expect("a file");
        Alone { bytes: sizes.iter().sum(), took, largest_file, most_in_a_slice }
    }

    /// The program with mydumper as its child, and the mark.
    fn upload(&self) -> Run {
        let upload = self.stage.upload().args(["--max-local", self.size.mark, "--"]).arg(mydumper());
        self.dump(upload, &self.stage.sandbox.dump_dir()).start()
    }

    fn command(&self, words: &[&str]) -> Program<'_> {
        let prefix = self.stage.prefix();
        let program = self.stage.sandbox.mydumper2s3().args(words).args(["--bucket", BUCKET, "--prefix", &prefix]);
        program.connect_to(&self.stage.endpoint()).time_limit(TIME_LIMIT)
    }

    /// The directory is empty, every object is right to its last byte, and the database that it makes is the one that
    /// was dumped.
    fn assert_restorable(&self, copy: &str) {
        self.stage.sandbox.assert_local_names([] as [&str; 0]);
        let verified = self.command(&["verify", "--deep"]).run().assert_status(0);
        println!("verify --deep: {}", verified.text().lines().last().unwrap_or_default());
        let dir = self.stage.sandbox.path("restored");
        self.command(&["restore"]).arg("--dir").arg(&dir).run().assert_status(0);
        let mariadb = MariaDb::shared();
        mariadb.load(&dir, DATABASE, copy);
        assert_eq!(mariadb.checksums(copy), mariadb.checksums(DATABASE));
        assert_eq!(mariadb.programs(copy), mariadb.programs(DATABASE));
        println!("restored with myloader: CHECKSUM TABLE is equal for {} tables", mariadb.checksums(copy).len());
        mariadb.sql(&format!("DROP DATABASE {copy}"));
    }
}

/// One of everything, and some tables that are as large as all must be.
fn database(size: &Size) -> &'static MariaDb {
    static FILLED: OnceLock<()> = OnceLock::new();
    FILLED.get_or_init(|| {
        let mariadb = MariaDb::shared();
        mariadb.create_sample(DATABASE, 1_000);
        let rows = size.dump / TABLES / ROW_BYTES;
        for table in 1..=TABLES {
            mariadb.sql(&format!(
                "SET sql_log_bin = 0; USE {DATABASE};
                 CREATE TABLE wide_{table} (id INT PRIMARY KEY, v TEXT);
                 INSERT INTO wide_{table} SELECT seq, REPEAT(SHA2(seq * {table}, 512), 8) FROM seq_1_to_{rows}"
            ));
        }
    });
    MariaDb::shared()
}

/// "`--max-local 500MiB` with a dump of at least 3 GB into a store limited to a tenth of the dump's speed: from 2 s after
/// the first data file local disk stays below the mark plus the files open and what is written in one look and one run
/// slice; the dump succeeds, `myloader` restores it."
#[test]
fn a_store_at_a_tenth_of_the_dumps_speed_fills_no_disk() {
    let scene = Scene::new();
    let alone = scene.dump_alone();
    let rate = alone.bytes_per_second() / 10;
    scene.stage.server.set_rate_limit(Some(rate));
    let disk = DiskWatch::on(scene.stage.sandbox.dump_dir());
    let began = Instant::now();
    let run = scene.upload();
    if !is_full() {
        // What waits when mydumper has ended takes half a minute more, and shows nothing.
        scene.wait_for_the_end_of_the_dump();
        scene.stage.server.set_rate_limit(None);
    }
    let finished = run.finish().assert_status(0);
    let took = began.elapsed();
    scene.stage.server.set_rate_limit(None);
    let disk = disk.end();
    let (peak, most) = (disk.peak(), disk.peak_after_first_data(GRACE));
    let bound = scene.size.mark_bytes + alone.largest_file + scene.size.slices * alone.most_in_a_slice;
    println!(
        "dump alone: {} bytes in {:.1} s, {} bytes/s, at most {} bytes in {LOOK_AND_SLICE:?}, largest file {}",
        alone.bytes,
        alone.took.as_secs_f64(),
        alone.bytes_per_second(),
        alone.most_in_a_slice,
        alone.largest_file,
    );
    println!(
        "store at {rate} bytes/s: {:.0} s, {} pauses, local at most {most} from 2 s after the first data file \
         ({peak} before), allowed {bound}, mark {}",
        took.as_secs_f64(),
        finished.text().matches("mydumper is paused").count(),
        scene.size.mark_bytes,
    );
    assert!(alone.bytes > scene.size.dump, "a dump of {} bytes is too small", alone.bytes);
    assert!(most > scene.size.mark_bytes, "this proves nothing: {most} bytes were local");
    assert!(most < bound, "{most} bytes were local, {bound} may be");
    finished.assert_says("mydumper goes on");
    scene.assert_restorable("from_a_slow_store");
}

/// "An outage of two minutes in the middle of a real dump: status 0, nothing lost."
#[test]
fn an_outage_amid_a_real_dump_loses_nothing() {
    let scene = Scene::new();
    let (dir, outage) = (scene.stage.sandbox.dump_dir(), scene.size.outage);
    let disk = DiskWatch::on(dir.clone());
    let began = Instant::now();
    let mut run = scene.upload();
    scene.patiently("some objects are there", || scene.stage.server.keys(BUCKET).len() >= scene.size.before_outage);
    let before = scene.stage.server.keys(BUCKET).len();
    scene.stage.server.down();
    let down = began.elapsed();
    run.wait_for_line("files wait locally");
    // The outage itself.
    std::thread::sleep(outage);
    assert!(run.is_running(), "{}", run.text_so_far());
    assert!(dir.join("metadata.partial").exists(), "mydumper has ended: this was not amid the dump");
    scene.stage.server.up();
    let finished = run.finish().assert_status(0);
    let said = ["files wait locally", "the store is back"].map(|words| finished.text().matches(words).count());
    assert_eq!(said, [1, 1], "{finished:?}");
    println!(
        "down from {:.0} s on for {} s with {before} objects there, status 0 after {:.0} s, {} objects, \
         local at most {} bytes",
        down.as_secs_f64(),
        outage.as_secs(),
        began.elapsed().as_secs_f64(),
        scene.stage.server.keys(BUCKET).len(),
        disk.end().peak(),
    );
    scene.assert_restorable("from_an_outage");
}

impl Scene {
    fn wait_for_the_end_of_the_dump(&self) {
        let metadata = self.stage.sandbox.dump_dir().join("metadata");
        self.patiently("mydumper's end", || metadata.exists());
    }

    /// A condition that may take as long as the dump.
    #[track_caller]
    fn patiently(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + TIME_LIMIT;
        while !condition() {
            assert!(Instant::now() < deadline, "this never came true: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
