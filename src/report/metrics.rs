//! `--metrics-file`: what node_exporter's textfile collector reads.

use std::fmt::Write as _;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

/// Ours are a kilobyte. What is larger is not one of ours, and is not read.
const READ_MAX: u64 = 64 << 10;

/// What comes before the names of a drill's metrics, behind that of all.
const DRILL: &str = "drill_";

/// The figures of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunMetrics {
    /// What tells this job from others on the same host: the collector drops series that two files have in common.
    pub dir: PathBuf,
    pub bucket: String,
    pub exit_status: u8,
    pub files: usize,
    pub bytes: u64,
    pub duration: Duration,
    pub peak_local_bytes: u64,
}

/// The figures of one drill.
#[derive(Clone, Debug, PartialEq)]
pub struct DrillMetrics {
    pub bucket: String,
    /// As it was typed: with `--latest` the same for each dump.
    pub prefix: String,
    pub exit_status: u8,
    pub tables: u64,
    pub bytes: u64,
    pub differences: u64,
    pub duration: Duration,
}

/// A name behind what all have in common, what it means, and its value.
type Metric = (&'static str, &'static str, Option<String>);

impl RunMetrics {
    /// Replaces the file at once: a half-written one is never seen. The last success survives a failure.
    pub fn write(&self, path: &Path, now: Timestamp) -> io::Result<()> {
        let labels = self.labels();
        let last_success = kept_success(path, "", &labels, self.exit_status, now);
        let text = text("", &labels, &self.metrics(last_success, now));
        replace(path, text.as_bytes())
    }

    fn labels(&self) -> String {
        format!("{{dir=\"{}\",bucket=\"{}\"}}", label(&self.dir.to_string_lossy()), label(&self.bucket))
    }

    fn metrics(&self, last_success: Option<String>, now: Timestamp) -> [Metric; 7] {
        [
            ("last_run_timestamp_seconds", "When the last run ended.", Some(now.as_second().to_string())),
            (
                "last_success_timestamp_seconds",
                "When a run last ended with the whole dump verified in the bucket.",
                last_success,
            ),
            ("exit_status", "Exit status of the last run; 0 is success.", Some(self.exit_status.to_string())),
            ("files", "Files that the last run left in the bucket, verified.", Some(self.files.to_string())),
            ("bytes", "Bytes of these files.", Some(self.bytes.to_string())),
            ("duration_seconds", "How long the last run took.", Some(seconds(self.duration))),
            (
                "peak_local_bytes",
                "The most that the dump of the last run took on the local disk.",
                Some(self.peak_local_bytes.to_string()),
            ),
        ]
    }
}

impl DrillMetrics {
    /// Replaces the file at once. The last success survives a failure.
    pub fn write(&self, path: &Path, now: Timestamp) -> io::Result<()> {
        let labels = format!("{{bucket=\"{}\",prefix=\"{}\"}}", label(&self.bucket), label(&self.prefix));
        let last_success = kept_success(path, DRILL, &labels, self.exit_status, now);
        let metrics: [Metric; 7] = [
            ("last_run_timestamp_seconds", "When the last drill ended.", Some(now.as_second().to_string())),
            ("last_success_timestamp_seconds", "When a drill last found a backup.", last_success),
            ("exit_status", "Exit status of the last drill; 0 is success.", Some(self.exit_status.to_string())),
            ("tables", "Tables that the last drill found as they should be.", Some(self.tables.to_string())),
            ("bytes", "Bytes of the data files that it loaded.", Some(self.bytes.to_string())),
            ("differences", "Differences that it found.", Some(self.differences.to_string())),
            ("duration_seconds", "How long it took.", Some(seconds(self.duration))),
        ];
        replace(path, text(DRILL, &labels, &metrics).as_bytes())
    }
}

fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

fn text(family: &str, labels: &str, metrics: &[Metric]) -> String {
    let mut text = String::new();
    for (name, help, value) in metrics {
        let Some(value) = value else { continue };
        // Writing into a string cannot fail.
        let _ = write!(text, "# HELP mydumper2s3_{family}{name} {help}\n# TYPE mydumper2s3_{family}{name} gauge\n");
        let _ = writeln!(text, "mydumper2s3_{family}{name}{labels} {value}");
    }
    text
}

/// Now, after a success; else what an earlier file says.
fn kept_success(path: &Path, family: &str, labels: &str, exit_status: u8, now: Timestamp) -> Option<String> {
    match exit_status {
        0 => Some(now.as_second().to_string()),
        _ => read_small(path).ok().and_then(|text| last_success(&text, family, labels, now)),
    }
}

/// The time in an earlier file, if it is this job's and can be one. What is damaged counts as not there.
fn last_success(text: &str, family: &str, labels: &str, now: Timestamp) -> Option<String> {
    let name = format!("mydumper2s3_{family}last_success_timestamp_seconds");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(labels))?;
    let second: i64 = line.trim().parse().ok()?;
    (1..=now.as_second()).contains(&second).then(|| second.to_string())
}

fn read_small(path: &Path) -> io::Result<String> {
    // A FIFO there must not make us wait, nor a symlink lead elsewhere.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    file.take(READ_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes beside the file and renames. The collector reads `*.prom` only, so it does not see the other name.
///
/// Nobody can know that name before: in a directory that others may write into, something of theirs could stand there.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file() && !there.is_symlink()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(".tmp").tempfile_in(directory)?;
    // node_exporter runs as another user, whatever our umask is.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(exit_status: u8) -> RunMetrics {
        RunMetrics {
            dir: "/backup".into(),
            bucket: "b".into(),
            exit_status,
            files: 348,
            bytes: 3_435_973_836,
            duration: Duration::from_millis(133_250),
            peak_local_bytes: 1_181_116_006,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// A directory that ends with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mydumper2s3-metrics-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("x.prom")
        }

        fn read(&self) -> String {
            std::fs::read_to_string(self.file()).expect("a file")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_success_writes_everything() {
        let directory = Directory::new("success");
        run(0).write(&directory.file(), at(1_795_340_000)).expect("written");
        let expected = r#"# HELP mydumper2s3_last_run_timestamp_seconds When the last run ended.
# TYPE mydumper2s3_last_run_timestamp_seconds gauge
mydumper2s3_last_run_timestamp_seconds{dir="/backup",bucket="b"} 1795340000
# HELP mydumper2s3_last_success_timestamp_seconds When a run last ended with the whole dump verified in the bucket.
# TYPE mydumper2s3_last_success_timestamp_seconds gauge
mydumper2s3_last_success_timestamp_seconds{dir="/backup",bucket="b"} 1795340000
# HELP mydumper2s3_exit_status Exit status of the last run; 0 is success.
# TYPE mydumper2s3_exit_status gauge
mydumper2s3_exit_status{dir="/backup",bucket="b"} 0
# HELP mydumper2s3_files Files that the last run left in the bucket, verified.
# TYPE mydumper2s3_files gauge
mydumper2s3_files{dir="/backup",bucket="b"} 348
# HELP mydumper2s3_bytes Bytes of these files.
# TYPE mydumper2s3_bytes gauge
mydumper2s3_bytes{dir="/backup",bucket="b"} 3435973836
# HELP mydumper2s3_duration_seconds How long the last run took.
# TYPE mydumper2s3_duration_seconds gauge
mydumper2s3_duration_seconds{dir="/backup",bucket="b"} 133.250
# HELP mydumper2s3_peak_local_bytes The most that the dump of the last run took on the local disk.
# TYPE mydumper2s3_peak_local_bytes gauge
mydumper2s3_peak_local_bytes{dir="/backup",bucket="b"} 1181116006
"#;
        assert_eq!(directory.read(), expected);
        let mode = std::fs::metadata(directory.file()).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        let names: Vec<_> = std::fs::read_dir(&directory.0).expect("a directory").flatten().collect();
        assert_eq!(names.len(), 1, "nothing is left beside it");
    }

    #[test]
    fn the_last_success_survives_failures() {
        let directory = Directory::new("survives");
        let success = "mydumper2s3_last_success_timestamp_seconds{dir=\"/backup\",bucket=\"b\"} 1000\n";
        run(0).write(&directory.file(), at(1_000)).expect("written");
        run(1).write(&directory.file(), at(2_000)).expect("written");
        run(3).write(&directory.file(), at(3_000)).expect("written");
        assert!(directory.read().contains(success));
        assert!(directory.read().contains("mydumper2s3_exit_status{dir=\"/backup\",bucket=\"b\"} 3\n"));
    }

    #[test]
    fn a_drill_has_metrics_of_its_own() {
        let directory = Directory::new("drill");
        let drill = |exit_status| DrillMetrics {
            bucket: "b".into(),
            prefix: "db1".into(),
            exit_status,
            tables: 12,
            bytes: 7_000,
            differences: 0,
            duration: Duration::from_millis(1_500),
        };
        drill(0).write(&directory.file(), at(1_000)).expect("written");
        drill(4).write(&directory.file(), at(2_000)).expect("written");
        let text = directory.read();
        let line =
            |name: &str, value: &str| format!("mydumper2s3_drill_{name}{{bucket=\"b\",prefix=\"db1\"}} {value}\n");
        for (name, value) in [
            ("last_run_timestamp_seconds", "2000"),
            ("last_success_timestamp_seconds", "1000"),
            ("exit_status", "4"),
            ("tables", "12"),
            ("bytes", "7000"),
            ("differences", "0"),
            ("duration_seconds", "1.500"),
        ] {
            assert!(text.contains(&line(name, value)), "{name}: {text}");
        }
    }

    #[test]
    fn a_damaged_or_foreign_file_has_no_last_success() {
        let directory = Directory::new("damaged");
        let name = "mydumper2s3_last_success_timestamp_seconds";
        let labels = "{dir=\"/backup\",bucket=\"b\"}";
        for earlier in [
            String::new(),
            "\u{0}\u{1}".into(),
            format!("{name}{labels} NaN"),
            format!("{name}{labels} -5"),
            format!("{name}{labels} 99999"),
            format!("{name}{labels}"),
            format!("{name}{{dir=\"/other\",bucket=\"b\"}} 1000"),
        ] {
            std::fs::write(directory.file(), &earlier).expect("written");
            run(1).write(&directory.file(), at(2_000)).expect("written");
            assert!(!directory.read().contains(name), "{earlier:?}");
        }
        std::fs::write(directory.file(), [0xff, 0xfe]).expect("written");
        run(1).write(&directory.file(), at(2_000)).expect("written");
        assert!(!directory.read().contains(name));
    }

    #[test]
    fn labels_are_escaped() {
        let run = RunMetrics { dir: "/a\"b\\c\nd".into(), ..run(0) };
        assert_eq!(run.labels(), r#"{dir="/a\"b\\c\nd",bucket="b"}"#);
    }

    #[test]
    fn a_symlink_in_the_way_is_not_followed() {
        let directory = Directory::new("symlink");
        let victim = directory.0.join("victim");
        std::fs::write(&victim, "mine").expect("a file");
        // Where the name of the other file was once fixed, and in the place of the file itself.
        std::os::unix::fs::symlink(&victim, directory.0.join(".x.prom.tmp")).expect("a symlink");
        std::os::unix::fs::symlink(&victim, directory.file()).expect("a symlink");
        run(0).write(&directory.file(), at(1_000)).expect("written in its place");
        assert_eq!(std::fs::read_to_string(&victim).expect("a file"), "mine");
        assert!(std::fs::symlink_metadata(directory.file()).expect("a file").is_file());
    }

    #[test]
    fn what_is_no_file_is_left_alone_and_not_waited_for() {
        let directory = Directory::new("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, directory.file(), rustix::fs::Mode::from_raw_mode(0o644))
            .expect("a FIFO");
        for status in [0, 1] {
            assert!(run(status).write(&directory.file(), at(1_000)).is_err());
        }
        assert_eq!(std::fs::read_dir(&directory.0).expect("a directory").count(), 1, "nothing is left beside it");
    }
}
