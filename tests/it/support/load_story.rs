//! A dump of a real MariaDB in a bucket, to be loaded into a second one.

use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::mariadb::{MariaDb, mydumper};
use super::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use super::sandbox::{Endpoint, Program, Sandbox, eventually, eventually_some};

/// So many rows of the large table are more than one part of the smallest size, in one file.
pub const ROWS: u32 = 40_000;

/// A dump of a database of its own in the bucket, and the second server to load it into.
pub struct Story {
    pub database: &'static str,
    pub sandbox: Sandbox,
    endpoint: Endpoint,
}

/// 1.x runs compressors: not the scripted ones that a sandbox has.
pub fn with_real_programs(program: Program<'_>) -> Program<'_> {
    program.env("PATH", std::env::var_os("PATH").unwrap_or_default())
}

/// The strict server, as an endpoint.
pub fn endpoint_of(server: &S3Server) -> Endpoint {
    Endpoint {
        url: server.endpoint(),
        bucket: BUCKET.to_owned(),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
    }
}

impl Story {
    pub fn new(endpoint: Endpoint, database: &'static str, options: &[&str]) -> Self {
        Self::new_with(endpoint, database, options, |_| String::new())
    }

    /// With so many rows in the large table.
    pub fn with_rows(endpoint: Endpoint, database: &'static str, rows: u32) -> Self {
        MariaDb::shared().create_sample(database, rows);
        Self::dumped(endpoint, database, &[])
    }

    /// With what else is to be in the database.
    pub fn new_with(
        endpoint: Endpoint,
        database: &'static str,
        options: &[&str],
        more: impl Fn(&str) -> String,
    ) -> Self {
        MariaDb::shared().create_sample(database, ROWS);
        MariaDb::shared().sql(&more(database));
        Self::dumped(endpoint, database, options)
    }

    fn dumped(endpoint: Endpoint, database: &'static str, options: &[&str]) -> Self {
        let story = Self { database, sandbox: Sandbox::new(), endpoint };
        let upload = story.sandbox.mydumper2s3().upload_to(&story.endpoint).args(["--prefix", "dump"]);
        let upload = with_real_programs(upload.args(["--part-size", "5MiB"])).arg("--").arg(mydumper());
        upload.args(MariaDb::shared().mydumper_arguments(database)).args(options).run().assert_status(0);
        std::fs::create_dir_all(story.sandbox.path("tmp")).expect("a directory");
        story
    }

    pub fn load(&self) -> Program<'_> {
        self.command("load")
    }

    /// A command on the dump.
    pub fn command(&self, name: &str) -> Program<'_> {
        let program = self.sandbox.mydumper2s3().arg(name).args(["--bucket", &self.endpoint.bucket]);
        let program = program.args(["--prefix", "dump"]).connect_to(&self.endpoint);
        with_real_programs(program).env("TMPDIR", self.sandbox.path("tmp"))
    }

    pub fn load_all(&self) -> Program<'_> {
        self.load().arg("--").args(MariaDb::second().myloader())
    }

    pub fn assert_loaded(&self) {
        let (here, there) = (MariaDb::shared(), MariaDb::second());
        assert_eq!(there.checksums(self.database), here.checksums(self.database));
        assert_eq!(there.programs(self.database), here.programs(self.database));
        self.assert_nothing_is_left();
    }

    pub fn assert_nothing_is_left(&self) {
        assert_nothing_is_left(&self.tmp());
    }

    /// What `TMPDIR` names for the program.
    pub fn tmp(&self) -> PathBuf {
        self.sandbox.path("tmp")
    }

    /// Where myloader looks, once that is there.
    pub fn stage(&self) -> PathBuf {
        eventually_some("a directory for myloader", || {
            let made = std::fs::read_dir(self.sandbox.path("tmp")).expect("a directory").flatten().next()?;
            Some(made.path().join("dump"))
        })
    }

    /// The process that loads out of the stage, once it runs.
    pub fn loader(&self) -> Pid {
        let stage = self.stage().display().to_string();
        let is_loader = |line: &[String]| line.contains(&stage) && line.iter().any(|word| word == "--directory");
        eventually_some("myloader", || processes().into_iter().find(|(_, line)| is_loader(line)).map(|(pid, _)| pid))
    }
}

/// Each process with its command line.
pub fn processes() -> Vec<(Pid, Vec<String>)> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let of = |entry: std::fs::DirEntry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        Some((pid, words.collect()))
    };
    processes.filter_map(of).collect()
}

/// No pipe, no directory, and no process that has one of them on its command line.
#[track_caller]
pub fn assert_nothing_is_left(tmp: &Path) {
    let left: Vec<_> = std::fs::read_dir(tmp).expect("a directory").flatten().map(|entry| entry.path()).collect();
    assert_eq!(left, [] as [PathBuf; 0]);
    assert_eq!(processes_at(tmp), [] as [Vec<String>; 0]);
}

/// The same, as soon as it is so.
#[track_caller]
pub fn eventually_nothing_is_left(tmp: &Path) {
    eventually("no process is left", || processes_at(tmp).is_empty());
    eventually("no pipe is left", || std::fs::read_dir(tmp).expect("a directory").next().is_none());
}

fn processes_at(tmp: &Path) -> Vec<Vec<String>> {
    let tmp = tmp.display().to_string();
    let lines = processes().into_iter().map(|(_, line)| line);
    lines.filter(|line| line.iter().any(|word| word.contains(&tmp))).collect()
}
