//! A dump into a server without a disk that holds it: real MariaDB, mydumper, myloader and SeaweedFS.

use crate::support::bucket::Bucket;
use crate::support::mariadb::{MariaDb, mydumper};
use crate::support::sandbox::{PeakLocalBytes, Program, Sandbox, eventually_some};
use crate::support::seaweedfs::SeaweedFs;

/// A dump of a database of its own in a bucket of its own.
struct Story {
    database: &'static str,
    sandbox: Sandbox,
    bucket: Bucket,
}

impl Story {
    fn new(database: &'static str, rows: u32, options: &[&str]) -> Self {
        let bucket = SeaweedFs::shared().bucket(&format!("load-{}", database.replace('_', "-")));
        MariaDb::shared().create_sample(database, rows);
        let story = Self { database, sandbox: Sandbox::new(), bucket };
        let upload = story.sandbox.mydumper2s3().upload_to(&story.bucket.endpoint).args(["--prefix", "dump"]);
        let dump =
            with_real_programs(upload).arg("--").arg(mydumper()).args(MariaDb::shared().mydumper_arguments(database));
        dump.args(options).run().assert_status(0);
        std::fs::create_dir_all(story.sandbox.path("tmp")).expect("a directory");
        story
    }

    fn load(&self) -> Program<'_> {
        let program = self.sandbox.mydumper2s3().arg("load").args(["--bucket", &self.bucket.endpoint.bucket]);
        let program = program.args(["--prefix", "dump"]).connect_to(&self.bucket.endpoint);
        with_real_programs(program).env("TMPDIR", self.sandbox.path("tmp"))
    }

    fn assert_loaded(&self) {
        let (here, there) = (MariaDb::shared(), MariaDb::second());
        assert_eq!(there.checksums(self.database), here.checksums(self.database));
        assert_eq!(there.programs(self.database), here.programs(self.database));
        assert_eq!(std::fs::read_dir(self.sandbox.path("tmp")).expect("a directory").count(), 0, "nothing is left");
    }

    /// Where myloader looks, once that is there.
    fn stage(&self) -> std::path::PathBuf {
        eventually_some("a directory for myloader", || {
            let made = std::fs::read_dir(self.sandbox.path("tmp")).expect("a directory").flatten().next()?;
            Some(made.path().join("dump"))
        })
    }
}

/// 1.x runs compressors: not the scripted ones that a sandbox has.
fn with_real_programs(program: Program<'_>) -> Program<'_> {
    program.env("PATH", std::env::var_os("PATH").unwrap_or_default())
}

#[test]
fn a_dump_is_loaded_and_no_disk_holds_it() {
    let story = Story::new("load_plain", 80_000, &[]);
    let run = story.load().arg("--").args(MariaDb::second().myloader()).start();
    let disk = PeakLocalBytes::watch(story.stage());
    run.finish().assert_status(0).assert_says("loaded");
    story.assert_loaded();
    println!("at most {} bytes on the disk", disk.bytes());
    assert!(disk.bytes() < 1024 * 1024, "{}", disk.bytes());
}

#[test]
fn a_compressed_dump_is_loaded() {
    let story = Story::new("load_compressed", 20_000, &["-c"]);
    story.load().arg("--").args(MariaDb::second().myloader()).run().assert_status(0);
    story.assert_loaded();
}
