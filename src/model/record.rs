//! What a dump directory remembers of what is gone from it.
//!
//! The bucket alone cannot tell a restart what an earlier run gave up locally: the claim may have been pruned, the prefix
//! or the host name may be another today, an object may be gone or another one. So this small text stands beside the
//! dump itself, as an extended attribute of its lead, and is written before the first local byte is given up.

use serde::{Deserialize, Serialize};

use super::etag::{ETag, Md5Digest};
use super::file_name::FileName;
use super::full_disk::FullDisk;
use super::left_out::LeftOut;
use super::manifest::{DumperExit, ManifestHeader, ObjectRecord};

/// The form that is written, and the newest that is read.
const VERSION: u32 = 1;

/// Where the files of a dump come from. What a later program may write here is not ours to touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A directory that mydumper writes its files into.
    Directory,
    /// Rows that mydumper hands over: its directory has names of 0 bytes, which are never uploaded.
    Streams,
}

/// Where the files went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The store; absent for AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The dump's directory there, as `s3://bucket/prefix/`.
    pub uri: String,
}

impl Place {
    /// For a place whose name does not fit: its hash.
    fn hashed(&self) -> Self {
        let text = format!("{}\n{}", self.endpoint.as_deref().unwrap_or_default(), self.uri);
        Self { endpoint: None, uri: format!("md5:{}", Md5Digest::of(text.as_bytes())) }
    }

    /// Whether both are one place.
    pub fn is(&self, other: &Self) -> bool {
        self == other || *self == other.hashed() || self.hashed() == *other
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.endpoint {
            _ if self.uri.starts_with("md5:") => formatter.write_str("a place whose name was too long to be kept"),
            Some(endpoint) => write!(formatter, "{} at {endpoint}", self.uri),
            None => formatter.write_str(&self.uri),
        }
    }
}

/// A set of objects in a few bytes: how many, their bytes, and a digest that does not depend on their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The sum of one number for each, made of its name, size and ETag.
    #[serde(with = "hex")]
    digest: u128,
}

impl Objects {
    /// One object.
    pub fn one(name: &str, size: u64, etag: Option<&ETag>) -> Self {
        let etag = etag.map(ToString::to_string).unwrap_or_default();
        let text = format!("{name}\n{size}\n{etag}");
        Self { files: 1, bytes: size, digest: u128::from_be_bytes(Md5Digest::of(text.as_bytes()).0) }
    }

    /// One proved object, by the ETag that the store gave or must give.
    pub fn of(name: &FileName, object: &ObjectRecord) -> Self {
        let etag = object.etag.clone().or_else(|| object.hash.etag());
        Self::one(name.as_str(), object.size, etag.as_ref())
    }

    /// Both sets together.
    pub fn with(self, other: Self) -> Self {
        Self {
            files: self.files.wrapping_add(other.files),
            bytes: self.bytes.wrapping_add(other.bytes),
            digest: self.digest.wrapping_add(other.digest),
        }
    }

    /// This set without the other, which is part of it.
    pub fn without(self, other: Self) -> Self {
        Self {
            files: self.files.wrapping_sub(other.files),
            bytes: self.bytes.wrapping_sub(other.bytes),
            digest: self.digest.wrapping_sub(other.digest),
        }
    }
}

/// How many files runs saw of a dump, and the latest birth among them: what was born later they cannot have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Files that mydumper does not take back.
    pub files: u64,
    /// Nanoseconds since 1970; absent where the filesystem does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_born: Option<i64>,
}

/// 128 bits as text: JSON numbers lose digits beyond 2^53.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        u128::from_str_radix(&String::deserialize(deserializer)?, 16).map_err(D::Error::custom)
    }
}

/// By what a multipart upload is known again: a short hash of its key and its id, which the store gave to us alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UploadMark(u64);

impl UploadMark {
    /// Of that upload.
    pub fn of(key: &str, id: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = Md5Digest::of(format!("{key}\n{id}").as_bytes()).0;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl From<UploadMark> for String {
    fn from(mark: UploadMark) -> Self {
        format!("{:016x}", mark.0)
    }
}

impl TryFrom<String> for UploadMark {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

/// What became known of mydumper, and what only the run can tell that saw it live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumperFacts {
    /// Whether it was told to stop through us.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told_to_stop: bool,
    /// Its exit status, once it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<DumperExit>,
    /// How full the disk was at its fullest while it wrote, if it ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_disk: Option<FullDisk>,
    /// Its version.
    #[serde(rename = "dumper_version", default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it leaves out, where its command line told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<Vec<LeftOut>>,
}

impl DumperFacts {
    /// What the header of this run tells beside what earlier ones wrote down.
    pub fn take_in(&mut self, header: &ManifestHeader) {
        let facts = self.clone();
        *self = Self {
            version: header.dumper_version.clone().or(facts.version),
            left_out: header.left_out.clone().or(facts.left_out),
            ..facts
        };
    }

    /// Says in a header what was written down.
    pub fn tell(&self, header: &mut ManifestHeader) {
        header.told_to_stop |= self.told_to_stop;
        header.dumper_exit = self.exit.unwrap_or(header.dumper_exit);
        header.full_disk = header.full_disk.max(self.full_disk);
        header.dumper_version = header.dumper_version.take().or_else(|| self.version.clone());
        header.left_out = header.left_out.take().or_else(|| self.left_out.clone());
    }
}

/// More uploads than this are not remembered: there are never so many at a time.
const UPLOADS_MAX: usize = 512;

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// What kind of source this is.
    pub kind: Kind,
    /// Which dump: [`super::identity::DumpIdentity::id`].
    pub dump: String,
    /// The host in that identity: it may be called otherwise today.
    pub host: String,
    /// Where the files went.
    pub to: Place,
    /// Whether that place was claimed for the dump.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claimed: bool,
    /// What became known of mydumper.
    #[serde(flatten)]
    pub dumper: DumperFacts,
    /// Whether the dump is committed: what is left here only waits for its removal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub committed: bool,
    /// What was given up locally.
    pub given: Objects,
    /// What was seen in all.
    #[serde(default)]
    pub seen: Seen,
    /// What is being removed just now: gone if it is not there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub going: Vec<(FileName, Objects)>,
    /// Multipart uploads that were begun, and are not known to have ended: any other is somebody else's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uploads: Vec<UploadMark>,
    /// Files of which bytes were given back here before they were whole there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_copies: Vec<OnlyCopy>,
}

/// A file of which bytes were given back before its object was there: an unfinished upload has the only copy, so nobody may
/// abort that. It stands here until its object is proved and its content was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlyCopy {
    /// The file.
    pub name: FileName,
    /// The upload.
    pub upload: UploadMark,
}

impl Record {
    /// Of a dump of which nothing was given up yet.
    pub fn new(kind: Kind, header: &ManifestHeader, to: Place) -> Self {
        Self {
            version: VERSION,
            kind,
            dump: header.dump_id.clone(),
            host: header.identity.host.clone(),
            to,
            claimed: false,
            dumper: DumperFacts::default(),
            committed: false,
            given: Objects::default(),
            seen: Seen::default(),
            going: Vec::new(),
            uploads: Vec::new(),
            only_copies: Vec::new(),
        }
    }

    /// As text of at most `limit` bytes where that is possible: the place as its hash where its name does not fit, and as
    /// many uploads, the newest, as there is room for. What is forgotten of these is sent again, and nothing is lost.
    pub fn to_text(&self, limit: usize) -> Vec<u8> {
        let text = |record: &Self| serde_json::to_vec(record).unwrap_or_default();
        let whole = text(self);
        if whole.len() <= limit {
            return whole;
        }
        let mut short = Self { to: self.to.hashed(), ..self.clone() };
        loop {
            let shorter = text(&short);
            if shorter.len() <= limit || short.uploads.is_empty() {
                return shorter;
            }
            short.uploads.remove(0);
        }
    }

    /// An upload was begun. Returns whether that is new.
    pub fn begin_upload(&mut self, upload: UploadMark) -> bool {
        if self.uploads.contains(&upload) {
            return false;
        }
        if self.uploads.len() == UPLOADS_MAX {
            self.uploads.remove(0);
        }
        self.uploads.push(upload);
        true
    }

    /// Reads a text; an error says why it cannot be used.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Form {
            version: u32,
        }
        let form: Form = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if form.version > VERSION {
            return Err(format!("it has form {}, this program reads up to {VERSION}", form.version));
        }
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }

    /// Whether anything that an earlier run knew must not be forgotten: then the files belong to this place alone.
    pub fn binds(&self) -> bool {
        self.given.files > 0 || !self.going.is_empty() || self.committed || !self.only_copies.is_empty()
    }

    /// What is gone by now: `is_there` tells of what was being removed.
    pub fn settle(&mut self, is_there: impl Fn(&FileName) -> bool) {
        for (name, object) in std::mem::take(&mut self.going) {
            if !is_there(&name) {
                self.given = self.given.with(object);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record {
        Record {
            version: VERSION,
            kind: Kind::Directory,
            dump: "d".repeat(32),
            host: "db1".into(),
            to: Place { endpoint: Some("http://127.0.0.1:9000".into()), uri: "s3://b/db1/2026-11-22T020001Z/".into() },
            claimed: true,
            dumper: DumperFacts {
                full_disk: Some(FullDisk::MayHaveBeen),
                version: Some("0.21.4-5".into()),
                left_out: Some(vec![LeftOut::Triggers, LeftOut::IgnoredErrors]),
                ..DumperFacts::default()
            },
            committed: false,
            given: Objects::one("a.sql", 3, None),
            seen: Seen { files: 4, last_born: Some(i64::MAX) },
            going: vec![("b.sql".parse().expect("a name"), Objects::one("b.sql", 4, None))],
            uploads: vec![UploadMark::of("p/c.sql", "id")],
            only_copies: vec![OnlyCopy {
                name: "d.sql".parse().expect("a name"),
                upload: UploadMark::of("p/d.sql", "id"),
            }],
        }
    }

    #[test]
    fn it_survives_being_written() {
        let text = record().to_text(960);
        assert!(text.len() < 600, "{} bytes", text.len());
        assert_eq!(Record::read(&text), Ok(record()));
    }

    #[test]
    fn a_place_that_does_not_fit_stands_as_its_hash() {
        let mut long = record();
        long.to.uri = format!("s3://b/{}/", "p".repeat(900));
        let text = long.to_text(960);
        assert!(text.len() <= 960);
        let read = Record::read(&text).expect("a record");
        assert!(read.to.is(&long.to) && !read.to.is(&record().to));
        assert!(record().to.is(&record().to));
    }

    #[test]
    fn the_newest_uploads_are_remembered_as_far_as_there_is_room() {
        let mut many = record();
        let marks: Vec<_> = (0..100).map(|number| UploadMark::of("p/c.sql", &number.to_string())).collect();
        assert!(marks.iter().all(|mark| many.begin_upload(*mark)));
        assert!(!many.begin_upload(marks[99]), "it is there already");
        let read = Record::read(&many.to_text(960)).expect("a record");
        assert!((10..50).contains(&read.uploads.len()), "{}", read.uploads.len());
        assert_eq!(read.uploads.last(), marks.last());
        assert_eq!((read.given, read.going), (many.given, many.going.clone()));
        for number in 0..1000 {
            many.begin_upload(UploadMark::of("p/d.sql", &number.to_string()));
        }
        assert_eq!(many.uploads.len(), UPLOADS_MAX);
    }

    #[test]
    fn what_was_being_removed_counts_when_it_is_gone() {
        let (a, b) = (Objects::one("a.sql", 3, None), Objects::one("b.sql", 4, None));
        let settled = |is_there| {
            let mut record = record();
            record.settle(|_| is_there);
            record.given
        };
        assert_eq!(settled(true), a);
        assert_eq!(settled(false), b.with(a));
        assert_eq!(b.with(a).without(b), a);
    }

    #[test]
    fn each_of_name_size_and_etag_counts() {
        let etag = ETag::of_single_put(Md5Digest::of(b"x"));
        let one = Objects::one("a.sql", 3, Some(&etag));
        for other in [
            Objects::one("b.sql", 3, Some(&etag)),
            Objects::one("a.sql", 4, Some(&etag)),
            Objects::one("a.sql", 3, None),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_newer_form_or_another_kind_is_refused() {
        let text = String::from_utf8(record().to_text(960)).expect("text");
        assert!(Record::read(text.replace("\"version\":1", "\"version\":2").as_bytes()).is_err());
        assert!(Record::read(text.replace("\"directory\"", "\"pipe\"").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Record::read(&bytes);
        }
    }
}
