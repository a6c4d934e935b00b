//! What a comparison of a file with its object says.

use serde::Serialize;

use super::manifest::{ObjectRecord, Proof};

/// The verdict on one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Proved to be what it must be.
    Match,
    /// Nothing speaks against it, and nothing proves it: never called a match.
    Unproved,
    /// There, and nothing names it.
    Extra,
    /// Named, and not there.
    Missing,
    /// There, and not what it must be.
    Mismatch,
}

impl Verdict {
    /// In the order in which counts are told.
    pub const ALL: [Self; 5] = [Self::Match, Self::Mismatch, Self::Missing, Self::Extra, Self::Unproved];

    /// As reports have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Unproved => "unproved",
            Self::Extra => "extra",
            Self::Missing => "missing",
            Self::Mismatch => "mismatch",
        }
    }
}

/// What a match rests on; a later one tells more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// Size and ETag are those that the upload proved.
    Etag,
    /// The local file has what the object's ETag tells.
    LocalFile,
    /// Its bytes were read.
    Bytes,
}

impl By {
    /// In the order in which counts are told.
    pub const ALL: [Self; 3] = [Self::Bytes, Self::LocalFile, Self::Etag];

    /// As summaries have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Etag => "by size and ETag, as the upload proved them",
            Self::LocalFile => "by the local file",
            Self::Bytes => "by their bytes",
        }
    }
}

/// One judgement: the verdict, and what it rests on or why it is no better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What a match rests on; why it is none otherwise.
    pub why: String,
    /// The kind of a match.
    pub by: Option<By>,
}

impl Judgement {
    /// A match, and its proof.
    pub fn matches(by: By, proof: impl Into<String>) -> Self {
        Self { verdict: Verdict::Match, why: proof.into(), by: Some(by) }
    }

    /// Any other verdict, and why.
    pub fn of(verdict: Verdict, why: impl Into<String>) -> Self {
        Self { verdict, why: why.into(), by: None }
    }

    /// Both hold: the worse verdict wins, but a proof makes up for what could not be told.
    pub fn and(self, other: Self) -> Self {
        match (self.verdict, other.verdict) {
            (Verdict::Match, Verdict::Match) => {
                let by = self.by.max(other.by);
                Self { verdict: Verdict::Match, why: format!("{}, {}", self.why, other.why), by }
            }
            (Verdict::Unproved, Verdict::Match) => other,
            (Verdict::Match, Verdict::Unproved) => self,
            (one, two) if one == two => Self::of(one, format!("{}; {}", self.why, other.why)),
            (one, two) if one > two => self,
            _ => other,
        }
    }
}

/// How the proof that an upload left in the manifest is called in reports.
pub fn name_of(record: &ObjectRecord) -> &'static str {
    match record.proof {
        _ if record.is_read_back => "read-back",
        Proof::EtagMd5 => "etag-md5",
        Proof::EtagComposite => "etag-composite",
        Proof::ContentMd5 => "content-md5",
    }
}

/// How many files got which verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u64; Verdict::ALL.len()]);

impl Counts {
    /// One more.
    pub fn add(&mut self, verdict: Verdict) {
        for (count, known) in self.0.iter_mut().zip(Verdict::ALL) {
            *count += u64::from(known == verdict);
        }
    }

    /// How many got this one.
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.0.iter().zip(Verdict::ALL).filter(|(_, known)| *known == verdict).map(|(count, _)| *count).sum()
    }

    /// Whether every file is proved.
    pub fn is_all_match(&self) -> bool {
        self.total() == self.of(Verdict::Match)
    }

    /// All files.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// `12 match, 1 mismatch, 0 missing, 0 extra, 0 unproved`
    pub fn in_words(&self) -> String {
        let counts = self.0.iter().zip(Verdict::ALL).map(|(count, verdict)| format!("{count} {}", verdict.as_str()));
        counts.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_verdict() -> impl Strategy<Value = Verdict> {
        proptest::sample::select(Verdict::ALL.to_vec())
    }

    #[test]
    fn counts_are_told_in_one_line() {
        let mut counts = Counts::default();
        [Verdict::Match, Verdict::Match, Verdict::Missing].into_iter().for_each(|verdict| counts.add(verdict));
        assert_eq!(counts.in_words(), "2 match, 0 mismatch, 1 missing, 0 extra, 0 unproved");
        assert!(!counts.is_all_match());
    }

    proptest! {
        #[test]
        fn a_fault_is_never_lost(one in any_verdict(), two in any_verdict()) {
            let both = Judgement::of(one, "a").and(Judgement::of(two, "b")).verdict;
            prop_assert_eq!(both, Judgement::of(two, "b").and(Judgement::of(one, "a")).verdict);
            let is_fault = |verdict| !matches!(verdict, Verdict::Match | Verdict::Unproved);
            prop_assert_eq!(is_fault(both), is_fault(one) || is_fault(two));
            prop_assert_eq!(both == Verdict::Unproved, one == two && one == Verdict::Unproved);
        }
    }
}
