//! What is said at the end.

use std::fmt::Write as _;
use std::time::Duration;

use super::escape::escape;
use super::json::Fields;
use crate::model::full_disk::FullDisk;
use crate::model::left_out::{LeftOut, in_words};
use crate::model::manifest::DumperExit;
use crate::model::units::{ByteSize, Rate, human_duration};

/// Failed files that are named; the others are counted. All of them were logged.
const NAMED_MAX: usize = 20;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Our exit status.
    pub status: u8,
    /// In one sentence: "the dump is whole and verified".
    pub outcome: String,
    /// Why it is no better, where it is not.
    pub reason: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The doubt that a full disk leaves in a committed dump.
    pub full_disk: Option<FullDisk>,
    /// Files in the bucket, verified.
    pub files: usize,
    pub bytes: u64,
    /// Bytes that this run sent: an earlier one may have sent the others.
    pub sent_bytes: u64,
    pub duration: Duration,
    /// The most that the dump took on the local disk.
    pub peak_local_bytes: Option<u64>,
    /// What was given back of files before they were whole in the bucket.
    pub given_back_bytes: u64,
    /// What is still local, where the run did not end well.
    pub local: Option<LocalFiles>,
    /// mydumper. `None` where there was no dump.
    pub dumper: Option<DumperSummary>,
    /// `s3://bucket/prefix/`
    pub destination: Option<String>,
    pub manifest_sha256: Option<String>,
    /// Names with the reason.
    pub failed: Vec<(String, String)>,
}

/// Files that stand in the dump directory.
#[derive(Clone, Debug)]
pub struct LocalFiles {
    /// How many.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Where.
    pub directory: String,
}

/// What is known of mydumper at the end.
#[derive(Clone, Debug)]
pub struct DumperSummary {
    /// Its end.
    pub exit: DumperExit,
    /// How long it was paused, in all.
    pub held: Duration,
    /// What it was not asked for, where that is known.
    pub left_out: Option<Vec<LeftOut>>,
}

impl Summary {
    fn rate(&self) -> Rate {
        Rate::of(self.sent_bytes, self.duration)
    }

    /// For people: an outcome, then names and values in two columns.
    pub fn text(&self) -> String {
        let mut rows: Vec<(&str, String)> = Vec::new();
        if let Some(destination) = &self.destination {
            rows.push(("destination", escape(destination).into_owned()));
        }
        // Where no dump found its place there is nothing to count.
        if self.destination.is_some() || self.files > 0 {
            rows.extend(self.counted());
        }
        if let Some(local) = self.local.as_ref().filter(|local| local.count > 0) {
            let files = if local.count == 1 { "file" } else { "files" };
            let (bytes, directory) = (ByteSize(local.bytes).human(), escape(&local.directory));
            rows.push(("still local", format!("{} {files} ({bytes}) in '{directory}'", local.count)));
        }
        if let Some(DumperSummary { exit, held, left_out }) = &self.dumper {
            let status = if exit.status.is_some() { "exit status " } else { "" };
            let not_seen = if exit.status.or(exit.signal).is_none() { "exit status " } else { "" };
            let paused = match held.is_zero() {
                true => String::new(),
                false => format!(", paused for {}", human_duration(*held)),
            };
            rows.push(("mydumper", format!("{status}{not_seen}{exit}{paused}")));
            rows.push(("left out", left_out.as_deref().map_or_else(|| "not known".to_owned(), or_nothing)));
        }
        if let Some(hash) = &self.manifest_sha256 {
            rows.push(("manifest", format!("SHA-256 {hash}")));
        }
        for (at, (name, why)) in self.failed.iter().take(NAMED_MAX).enumerate() {
            rows.push((if at == 0 { "failed" } else { "" }, format!("{}: {}", escape(name), escape(why))));
        }
        if let Some(more) = self.failed.len().checked_sub(NAMED_MAX + 1) {
            rows.push(("", format!("and {} more", more + 1)));
        }
        let mut text = format!("mydumper2s3: {}", escape(&self.outcome));
        if let Some(reason) = &self.reason {
            let _ = write!(text, ": {}", escape(reason));
        }
        for (name, value) in rows {
            let _ = write!(text, "\n  {name:<15}  {value}");
        }
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\nhint: {}", escape(hint));
        }
        text
    }

    fn counted(&self) -> Vec<(&'static str, String)> {
        let sent = match self.sent_bytes < self.bytes {
            true => format!(" for the {} that this run sent", ByteSize(self.sent_bytes).human()),
            false => String::new(),
        };
        let mut rows = vec![
            ("files", self.files.to_string()),
            ("bytes", format!("{} ({})", ByteSize(self.bytes).human(), self.bytes)),
            ("duration", format!("{}, {}{sent}", human_duration(self.duration), self.rate().human())),
        ];
        rows.extend(self.peak_local_bytes.map(|peak| ("peak local disk", ByteSize(peak).human())));
        if self.given_back_bytes > 0 {
            rows.push(("given back early", ByteSize(self.given_back_bytes).human()));
        }
        rows
    }

    /// For programs: one object, and the same names always.
    pub(super) fn json(&self) -> Fields {
        let exit = self.dumper.as_ref().map(|dumper| dumper.exit);
        let left_out = self.dumper.as_ref().and_then(|dumper| dumper.left_out.as_ref());
        let named: Vec<String> =
            self.failed.iter().take(NAMED_MAX).map(|(name, why)| format!("{name}: {why}")).collect();
        vec![
            ("event", "summary".into()),
            ("exit_status", self.status.into()),
            ("outcome", self.outcome.clone().into()),
            ("reason", self.reason.clone().into()),
            ("hint", self.hint.clone().into()),
            ("full_disk", serde_json::to_value(self.full_disk).unwrap_or_default()),
            ("files", self.files.into()),
            ("bytes", self.bytes.into()),
            ("sent_bytes", self.sent_bytes.into()),
            ("duration_seconds", (self.duration.as_millis() as f64 / 1000.0).into()),
            ("bytes_per_second", self.rate().0.into()),
            ("peak_local_bytes", self.peak_local_bytes.into()),
            ("given_back_bytes", self.given_back_bytes.into()),
            ("local_files", self.local.as_ref().map(|local| local.count).into()),
            ("local_bytes", self.local.as_ref().map(|local| local.bytes).into()),
            ("mydumper_paused_seconds", self.dumper.as_ref().map(|dumper| dumper.held.as_secs_f64()).into()),
            ("mydumper_exit_status", exit.and_then(|exit| exit.status).into()),
            ("mydumper_signal", exit.and_then(|exit| exit.signal).into()),
            ("mydumper_exit_seen", serde_json::to_value(exit.map(|exit| exit.seen)).unwrap_or_default()),
            ("mydumper_exit_through", exit.is_some_and(|exit| exit.through).into()),
            ("left_out", serde_json::to_value(left_out).unwrap_or_default()),
            ("destination", self.destination.clone().into()),
            ("manifest_sha256", self.manifest_sha256.clone().into()),
            ("failed", self.failed.len().into()),
            ("failed_files", named.into()),
        ]
    }
}

fn or_nothing(left_out: &[LeftOut]) -> String {
    if left_out.is_empty() { "nothing".to_owned() } else { in_words(left_out) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;
    use crate::model::manifest::ExitSeen;

    fn object(summary: &Summary) -> Map<String, Value> {
        summary.json().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn of(exit: DumperExit) -> Option<DumperSummary> {
        Some(DumperSummary { exit, held: Duration::ZERO, left_out: Some(Vec::new()) })
    }

    fn complete() -> Summary {
        Summary {
            status: 0,
            outcome: "the dump is whole and verified".into(),
            reason: None,
            hint: None,
            full_disk: None,
            files: 348,
            bytes: 3_435_973_836,
            sent_bytes: 3_435_973_836,
            duration: Duration::from_millis(133_250),
            peak_local_bytes: Some(1_181_116_006),
            given_back_bytes: 0,
            local: None,
            dumper: of(DumperExit { status: Some(0), ..DumperExit::seen(ExitSeen::Child) }),
            destination: Some("s3://b/db1/2026-11-22T020000Z/".into()),
            manifest_sha256: Some("ab".repeat(32)),
            failed: Vec::new(),
        }
    }

    #[test]
    fn a_whole_dump() {
        let expected = "\
mydumper2s3: the dump is whole and verified
  destination      s3://b/db1/2026-11-22T020000Z/
  files            348
  bytes            3.2 GiB (3435973836)
  duration         2m 13s, 24.6 MiB/s
  peak local disk  1.1 GiB
  mydumper         exit status 0
  left out         nothing
  manifest         SHA-256 abababababababababababababababababababababababababababababababab";
        assert_eq!(complete().text(), expected);
    }

    #[test]
    fn a_failure_names_reason_files_and_hint() {
        let summary = Summary {
            status: 1,
            outcome: "2 files are not in the bucket".into(),
            reason: Some("the store did not answer for 1h".into()),
            hint: Some("run the same command again without the part after --".into()),
            manifest_sha256: None,
            sent_bytes: 1_073_741_824,
            local: Some(LocalFiles { count: 2, bytes: 4096, directory: "/backup".into() }),
            dumper: of(DumperExit { signal: Some(9), ..DumperExit::seen(ExitSeen::Child) }),
            failed: vec![("a\n.sql".into(), "access denied".into()), ("b.sql".into(), "time-out".into())],
            ..complete()
        };
        let expected = "\
mydumper2s3: 2 files are not in the bucket: the store did not answer for 1h
  destination      s3://b/db1/2026-11-22T020000Z/
  files            348
  bytes            3.2 GiB (3435973836)
  duration         2m 13s, 7.7 MiB/s for the 1.0 GiB that this run sent
  peak local disk  1.1 GiB
  still local      2 files (4.0 KiB) in '/backup'
  mydumper         signal 9
  left out         nothing
  failed           a\\n.sql: access denied
                   b.sql: time-out
hint: run the same command again without the part after --";
        assert_eq!(summary.text(), expected);
    }

    #[test]
    fn no_more_than_twenty_files_are_named() {
        let failed = (0..25).map(|number| (format!("{number}.sql"), "no".to_owned())).collect();
        let text = Summary { failed, ..complete() }.text();
        assert!(text.ends_with("                   19.sql: no\n                   and 5 more"), "{text}");
        let failed = (0..20).map(|number| (format!("{number}.sql"), "no".to_owned())).collect();
        assert!(!Summary { failed, ..complete() }.text().contains("more"));
    }

    #[test]
    fn what_was_not_seen_is_said() {
        let summary = Summary { dumper: of(DumperExit::NOT_SEEN), ..complete() };
        assert!(summary.text().contains("\n  mydumper         exit status not seen\n"));
        assert_eq!(object(&summary)["mydumper_exit_seen"], "not-seen");
        assert_eq!(object(&summary)["mydumper_exit_status"], Value::Null);
    }

    #[test]
    fn a_wrappers_status_is_not_shown_as_mydumpers() {
        let through = DumperExit { status: Some(0), through: true, ..DumperExit::NOT_SEEN };
        let summary = Summary { dumper: of(through), ..complete() };
        assert!(summary.text().contains("\n  mydumper         exit status 0, of the program that started it\n"));
        assert_eq!(object(&summary)["mydumper_exit_seen"], "not-seen");
        assert_eq!(object(&summary)["mydumper_exit_through"], true);
    }

    #[test]
    fn what_was_left_out_is_said() {
        let summary = |left_out| Summary {
            dumper: Some(DumperSummary { exit: DumperExit::NOT_SEEN, held: Duration::from_secs(200), left_out }),
            ..complete()
        };
        let partial = summary(Some(vec![LeftOut::Triggers, LeftOut::Rows]));
        assert!(partial.text().contains("\n  left out         triggers, some rows\n"));
        assert_eq!(object(&partial)["left_out"], serde_json::json!(["triggers", "rows"]));
        assert!(partial.text().contains("\n  mydumper         exit status not seen, paused for 3m 20s\n"));
        assert!(summary(None).text().contains("\n  left out         not known\n"));
        assert_eq!(object(&summary(None))["left_out"], Value::Null);
    }

    #[test]
    fn json_has_the_same_names_always() {
        let empty =
            Summary { peak_local_bytes: None, dumper: None, destination: None, manifest_sha256: None, ..complete() };
        let names = |summary: &Summary| object(summary).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&empty), names(&complete()));
        let object = object(&complete());
        assert_eq!(object["event"], "summary");
        assert_eq!(object["duration_seconds"], 133.25);
        assert_eq!(object["bytes"], 3_435_973_836_u64);
    }
}
