//! Where a dump in the bucket stands, judged by its manifest and a listing.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::manifest::{BadManifest, DumpStateWord, ManifestHeader};

/// An upload that gave no sign of life for so long is taken for dead: it stores an object every few seconds, and writes
/// its manifest anew where it stored none for ten minutes.
pub const STALLED_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// The same where the manifest is not written anew: by version 0.1, and where objects may only be put.
const SILENT_STALLED_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// A start that is later than now by more than this is a wrong clock's.
pub const FUTURE_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// Where a dump stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Every file was verified, mydumper ended with 0, and as many files of the same sizes are there.
    Complete,
    /// The same, but nobody saw mydumper's exit status.
    ExitNotSeen,
    /// The same, but only a program that started mydumper was seen to end with 0.
    ExitThroughWrapper,
    /// The same, but the disk may have been full under a mydumper that then writes garbage, and no rows were counted.
    DiskMayHaveBeenFull,
    /// The dump failed, with the reason.
    Incomplete(String),
    /// Its files are on their way.
    Uploading,
    /// It says so, and gave no sign of life for [`STALLED_AFTER`] or longer.
    Stalled,
    /// It was complete once. What is wrong with it now.
    Damaged(String),
    /// Not made by this program, or not by this alone: nothing says what belongs to it.
    NoManifest {
        /// Whether there is `metadata`, which mydumper makes at the end.
        has_metadata: bool,
    },
    /// A newer program wrote the manifest; what it means is not known.
    Unknown(String),
}

/// [`Standing`] in one word each, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StandingWord {
    Complete,
    CompleteExitNotSeen,
    CompleteDiskMayHaveBeenFull,
    Incomplete,
    Uploading,
    Stalled,
    Damaged,
    NoManifest,
    Unknown,
}

impl Standing {
    /// Whether this is a whole, verified dump as far as a listing tells.
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete | Self::ExitNotSeen | Self::ExitThroughWrapper | Self::DiskMayHaveBeenFull)
    }

    /// Without the details.
    pub fn word(&self) -> StandingWord {
        match self {
            Self::Complete => StandingWord::Complete,
            Self::ExitNotSeen | Self::ExitThroughWrapper => StandingWord::CompleteExitNotSeen,
            Self::DiskMayHaveBeenFull => StandingWord::CompleteDiskMayHaveBeenFull,
            Self::Incomplete(_) => StandingWord::Incomplete,
            Self::Uploading => StandingWord::Uploading,
            Self::Stalled => StandingWord::Stalled,
            Self::Damaged(_) => StandingWord::Damaged,
            Self::NoManifest { .. } => StandingWord::NoManifest,
            Self::Unknown(_) => StandingWord::Unknown,
        }
    }

    /// The details, where there are some.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Incomplete(reason) | Self::Damaged(reason) | Self::Unknown(reason) => Some(reason),
            _ => None,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => formatter.write_str("complete"),
            Self::ExitNotSeen => formatter.write_str("complete, exit status not seen"),
            Self::ExitThroughWrapper => formatter.write_str("complete, exit status of its wrapper only"),
            Self::DiskMayHaveBeenFull => formatter.write_str("complete, the disk may have been full"),
            Self::Incomplete(reason) => write!(formatter, "incomplete: {reason}"),
            Self::Uploading => formatter.write_str("uploading"),
            Self::Stalled => formatter.write_str("stalled: uploading, and no sign of life for an hour or longer"),
            Self::Damaged(reason) => write!(formatter, "damaged: {reason}"),
            Self::NoManifest { has_metadata: true } => formatter.write_str("no manifest"),
            Self::NoManifest { has_metadata: false } => formatter.write_str("no manifest, no metadata"),
            Self::Unknown(reason) => write!(formatter, "unknown: {reason}"),
        }
    }
}

/// What a listing shows beside the manifest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Whether there is `metadata`, the commit.
    pub has_metadata: bool,
    /// Files of the manifest that are not there.
    pub missing: u64,
    /// Files of the manifest that have another size.
    pub resized: u64,
    /// When the newest object was stored.
    pub newest: Option<Timestamp>,
}

/// Whether the upload that wrote this manifest may still be at work: it says so, and gave a sign of life not long ago.
/// `newest` is when the newest object was stored.
pub fn may_be_alive(header: &ManifestHeader, newest: Option<Timestamp>, now: Timestamp) -> bool {
    // Each by the clock of who wrote it: the later one counts.
    let last_sign = newest.max(header.renewed);
    let patience = if header.renewed.is_some() { STALLED_AFTER } else { SILENT_STALLED_AFTER };
    header.state == DumpStateWord::Uploading && last_sign.is_none_or(|sign| now.duration_since(sign) <= patience)
}

/// Judges a dump. `manifest` is what came of reading it, if there is one.
pub fn standing(manifest: Option<&Result<ManifestHeader, BadManifest>>, seen: Seen, now: Timestamp) -> Standing {
    let header = match manifest {
        None => return Standing::NoManifest { has_metadata: seen.has_metadata },
        Some(Err(error @ (BadManifest::Newer(_) | BadManifest::TooLarge(_)))) => {
            return Standing::Unknown(error.to_string());
        }
        Some(Err(error)) => return Standing::Damaged(error.to_string()),
        Some(Ok(header)) => header,
    };
    match header.state {
        DumpStateWord::Incomplete => {
            Standing::Incomplete(header.reason.clone().unwrap_or_else(|| "no reason is known".to_owned()))
        }
        DumpStateWord::Uploading if may_be_alive(header, seen.newest, now) => Standing::Uploading,
        DumpStateWord::Uploading => Standing::Stalled,
        DumpStateWord::Complete => {
            match what_is_wrong(Seen { has_metadata: header.is_committed(seen.has_metadata), ..seen }) {
                Some(wrong) => Standing::Damaged(wrong),
                None if header.full_disk.is_some() => Standing::DiskMayHaveBeenFull,
                None if header.dumper_exit.through => Standing::ExitThroughWrapper,
                None if header.dumper_exit.is_unseen() => Standing::ExitNotSeen,
                None => Standing::Complete,
            }
        }
    }
}

/// What a dump that was complete lacks now.
fn what_is_wrong(seen: Seen) -> Option<String> {
    let files = |count: u64| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    match seen {
        Seen { has_metadata: false, missing: 0 | 1, .. } => Some("metadata is missing".to_owned()),
        Seen { has_metadata: false, missing, .. } => Some(format!("metadata and {} are missing", files(missing - 1))),
        Seen { missing: 1, .. } => Some("1 file is missing".to_owned()),
        Seen { missing: 2.., .. } => Some(format!("{} are missing", files(seen.missing))),
        Seen { resized: 1.., .. } => Some(format!("{} of another size", files(seen.resized))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::full_disk::FullDisk;
    use crate::model::manifest::read;

    fn manifest(state: &str, exit: &str) -> Result<ManifestHeader, BadManifest> {
        let text = format!(
            r#"{{"format":1,"state":"{state}","reason":"disk full","dump_id":"x","version":"0.1.0",
                "identity":{{"host":"h","started":"s","inode":1}},"started":"2026-11-22T02:00:00Z",
                "dumper_exit":{{"seen":"{exit}"}},"directory":"/d","closed_by":"lease","files":[]}}"#
        );
        read(text.as_bytes(), drop)
    }

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    fn judged(state: &str, seen: Seen) -> String {
        standing(Some(&manifest(state, "child")), seen, at("2026-11-22T04:00:00Z")).to_string()
    }

    const WHOLE: Seen = Seen { has_metadata: true, missing: 0, resized: 0, newest: None };

    #[test]
    fn a_whole_dump_is_complete_and_says_if_the_exit_status_was_not_seen() {
        assert_eq!(judged("complete", WHOLE), "complete");
        let not_seen = standing(Some(&manifest("complete", "not-seen")), WHOLE, at("2026-11-22T04:00:00Z"));
        assert_eq!(not_seen, Standing::ExitNotSeen);
        assert!(not_seen.is_complete());
        let mut manifest = manifest("complete", "not-seen");
        if let Ok(header) = &mut manifest {
            header.dumper_exit.through = true;
        }
        let wrapped = standing(Some(&manifest), WHOLE, at("2026-11-22T04:00:00Z"));
        assert_eq!(wrapped.to_string(), "complete, exit status of its wrapper only");
        assert_eq!(wrapped.word(), StandingWord::CompleteExitNotSeen);
    }

    #[test]
    fn a_whole_dump_says_if_the_disk_may_have_been_full() {
        let mut manifest = manifest("complete", "child");
        if let Ok(header) = &mut manifest {
            header.full_disk = Some(FullDisk::MayHaveBeen);
        }
        let doubtful = standing(Some(&manifest), WHOLE, at("2026-11-22T04:00:00Z"));
        assert_eq!(doubtful.to_string(), "complete, the disk may have been full");
        assert!(doubtful.is_complete());
    }

    #[test]
    fn a_complete_dump_that_lacks_something_is_damaged() {
        for (seen, text) in [
            (Seen { missing: 1, ..WHOLE }, "damaged: 1 file is missing"),
            (Seen { missing: 2, ..WHOLE }, "damaged: 2 files are missing"),
            (Seen { resized: 1, ..WHOLE }, "damaged: 1 file of another size"),
            (Seen { has_metadata: false, missing: 1, ..WHOLE }, "damaged: metadata is missing"),
            (Seen { has_metadata: false, missing: 3, ..WHOLE }, "damaged: metadata and 2 files are missing"),
        ] {
            assert_eq!(judged("complete", seen), text);
        }
    }

    #[test]
    fn an_upload_without_a_sign_of_life_is_stalled() {
        let judge = |newest: Option<&str>, renewed: Option<&str>| {
            let mut manifest = manifest("uploading", "child");
            if let Ok(header) = &mut manifest {
                header.renewed = renewed.map(at);
            }
            let seen = Seen { newest: newest.map(at), ..Seen::default() };
            standing(Some(&manifest), seen, at("2026-11-22T04:00:00Z"))
        };
        let long_ago = Some("2026-11-22T01:00:00Z");
        assert_eq!(judge(Some("2026-11-22T03:00:00Z"), long_ago), Standing::Uploading);
        assert_eq!(judge(long_ago, Some("2026-11-22T03:00:00Z")), Standing::Uploading);
        assert_eq!(judge(Some("2026-11-22T02:59:59Z"), long_ago), Standing::Stalled);
        // Whoever does not write the manifest anew may live, and send a file for hours.
        assert_eq!(judge(long_ago, None), Standing::Uploading);
        assert_eq!(judge(Some("2026-11-21T03:59:59Z"), None), Standing::Stalled);
        assert_eq!(judge(None, None), Standing::Uploading);
    }

    #[test]
    fn a_failed_dump_says_why_and_what_cannot_be_read_is_no_dump_of_ours() {
        assert_eq!(judged("incomplete", Seen::default()), "incomplete: disk full");
        let now = at("2026-11-22T04:00:00Z");
        assert_eq!(standing(None, WHOLE, now).to_string(), "no manifest");
        assert_eq!(standing(None, Seen::default(), now).to_string(), "no manifest, no metadata");
        let newer = standing(Some(&read(&br#"{"format":3}"#[..], drop)), WHOLE, now);
        assert_eq!(newer.word(), StandingWord::Unknown);
        let larger = standing(Some(&Err(BadManifest::TooLarge("the whole of it"))), WHOLE, now);
        assert_eq!(larger.word(), StandingWord::Unknown);
        let broken = standing(Some(&read(&b"{"[..], drop)), WHOLE, now);
        assert_eq!(broken.word(), StandingWord::Damaged);
    }
}
