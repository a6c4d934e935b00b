//! The manifest, `mydumper2s3.json`: first the claim of a prefix, in the end the record of its dump.
//!
//! It is JSON: the fields of [`ManifestHeader`], then `files`, one file a line, so that a dump of 100,000 files is
//! written and read as a stream. Unknown fields are ignored; a newer `format` is refused.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read, Write};
use std::rc::Rc;

use jiff::Timestamp;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::dump_kind::DumpKind;
use super::dump_metadata::ReplicationSource;
use super::etag::{ETag, Md5Digest};
use super::file_name::FileName;
use super::full_disk::FullDisk;
use super::identity::DumpIdentity;
use super::left_out::LeftOut;
use super::part_sizes::PartSizes;

/// The newest format that is read. It is written only where a file needs it: see [`ContentHash::format`].
pub const FORMAT: u32 = 2;
/// The format of a directory of files in equal parts, which every version of this program reads.
pub const FORMAT_OF_EQUAL_PARTS: u32 = 1;

/// The largest manifest that is read, in bytes. A file takes some 250 of them, and 35 more for each part.
pub const SIZE_MAX: u64 = 512 * 1024 * 1024;
/// The most bytes that one file takes: 10,000 parts are 350,000.
const FILE_SIZE_MAX: u64 = 1024 * 1024;
/// The most bytes that one field of the header takes. The longest are the text of a `metadata.partial` and the names of
/// withdrawn objects.
const FIELD_SIZE_MAX: u64 = 64 * 1024 * 1024;

/// Where a dump stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpStateWord {
    /// The prefix is claimed; files are on their way.
    Uploading,
    /// Every file is in the bucket, verified, and the dump ended well as far as it could be seen.
    Complete,
    /// The dump failed or is not whole; `reason` says why. There is no `metadata`.
    Incomplete,
}

/// How a file is known to be closed; the first method that works is chosen when the dump is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClosedBy {
    /// A read lease: the kernel grants it only while nobody has the file open for writing.
    Lease,
    /// `/proc`: the open files of every process, and the dumper's are among those we may read.
    Proc,
    /// Not at all: files are taken only after the dump has ended.
    End,
}

/// How mydumper's exit status became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitSeen {
    /// mydumper was our child.
    Child,
    /// From a pidfd that was opened while it ran.
    Pidfd,
    /// A script wrote it into the file given with `--exit-status-file`.
    File,
    /// Nobody told us.
    NotSeen,
}

/// mydumper's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumperExit {
    /// Exit status; absent when it was not seen or a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How this is known.
    pub seen: ExitSeen,
    /// The status is that of a program that started mydumper. Then mydumper's own was not seen, and `seen` says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub through: bool,
}

impl DumperExit {
    /// Nobody told us.
    pub const NOT_SEEN: Self = Self::seen(ExitSeen::NotSeen);

    /// Known in that way; what is known is to be filled in.
    pub const fn seen(seen: ExitSeen) -> Self {
        Self { status: None, signal: None, seen, through: false }
    }

    /// Whether mydumper's own end was not seen.
    pub fn is_unseen(self) -> bool {
        self.seen == ExitSeen::NotSeen
    }

    /// Whether it is known to have failed.
    pub fn is_failure(self) -> bool {
        self.signal.is_some() || self.status.is_some_and(|status| status != 0)
    }
}

impl fmt::Display for DumperExit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, self.signal) {
            (_, Some(signal)) => write!(formatter, "signal {signal}"),
            (Some(0), None) if self.through => formatter.write_str("0, of the program that started it"),
            (Some(status), None) => write!(formatter, "{status}"),
            (None, None) => formatter.write_str("not seen"),
        }
    }
}

/// Everything but the files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ManifestHeader {
    /// The format: as old as what is in it allows, since an older program calls what it cannot read damaged.
    pub format: u32,
    /// What it is.
    #[serde(default, skip_serializing_if = "DumpKind::is_directory")]
    pub kind: DumpKind,
    /// The name of a stream's object: from the claim on, so that what is left of it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<FileName>,
    /// Where the dump stands.
    pub state: DumpStateWord,
    /// Why the dump is incomplete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which dump this is.
    pub identity: DumpIdentity,
    /// [`DumpIdentity::id`]; also in the user metadata of each object.
    pub dump_id: String,
    /// What is dumped again and again: `--series`, else the fixed part of the prefix. Absent where neither was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// When the dump began, UTC.
    pub started: Timestamp,
    /// When the last file was verified, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
    /// What mydumper wrote behind `Finished dump at:`; its local time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dumper_finished: Option<String>,
    /// mydumper's version, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dumper_version: Option<String>,
    /// What mydumper was not asked for, or was told to leave out. `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<Vec<LeftOut>>,
    /// mydumper's exit status, and how it was seen.
    pub dumper_exit: DumperExit,
    /// How full the disk was at its fullest while a mydumper wrote that does not survive that, where the rows in the
    /// files do not prove that nothing came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_disk: Option<FullDisk>,
    /// The dump directory.
    pub directory: String,
    /// How closed files were known.
    pub closed_by: ClosedBy,
    /// Whether the dump was seen alive. Then files older than it belong to something else, also after a restart.
    #[serde(default)]
    pub seen_alive: bool,
    /// Whether mydumper was told to stop through us. Such a dump is never whole, however its files look: mydumper 1.0.1
    /// writes a final `metadata` then and exits with 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told_to_stop: bool,
    /// When the claim was last written, UTC: a living upload writes it anew when it completed nothing for ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<Timestamp>,
    /// This program's version.
    pub version: String,
    /// Files of the dump, `metadata` among them.
    #[serde(default)]
    pub total_files: u64,
    /// Their bytes.
    #[serde(default)]
    pub total_bytes: u64,
    /// Replication coordinates that `metadata` names.
    #[serde(default)]
    pub sources: Vec<ReplicationSource>,
    /// Of an incomplete dump: the text of its `metadata.partial`, of which there is no object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_text: Option<String>,
    /// Objects that are there but do not belong to the dump: mydumper took their files back, and where only putting is
    /// allowed they could not be deleted. Verify and restore skip them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withdrawn: Vec<FileName>,
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The object's ETag is the MD5 of the bytes that were read here.
    EtagMd5,
    /// The object's ETag is the composite of the MD5s of the parts that were read here.
    EtagComposite,
    /// The ETag is no MD5 (SSE-KMS, SSE-C, some stores): the store checked Content-MD5 of every request, and the size is
    /// right; or, with [`ObjectRecord::is_read_back`], the object was read.
    ContentMd5,
}

/// The hash of a file's content, as the upload made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ContentHash {
    /// Of a file that went up in one PUT.
    Whole {
        /// MD5 of all bytes.
        md5: Md5Digest,
    },
    /// Of a file that went up in parts.
    Parts {
        /// The sizes of the parts.
        #[serde(flatten)]
        sizes: PartSizes,
        /// MD5 of each part. Empty where an earlier run uploaded the file: then the ETag and the part size tell.
        #[serde(default)]
        part_md5s: Vec<Md5Digest>,
    },
    /// An object of which nothing but its ETag is known.
    Unknown {},
}

impl ContentHash {
    /// The least format that can say this: an older program would take growing parts for equal ones.
    pub fn format(&self) -> u32 {
        match self {
            Self::Parts { sizes, .. } if sizes.max_parts().is_some() => 2,
            Self::Parts { .. } | Self::Whole { .. } | Self::Unknown {} => FORMAT_OF_EQUAL_PARTS,
        }
    }

    /// The ETag that a store must give to these bytes, where it gives MD5s at all.
    pub fn etag(&self) -> Option<ETag> {
        match self {
            Self::Whole { md5 } => Some(ETag::of_single_put(*md5)),
            Self::Parts { part_md5s, .. } if !part_md5s.is_empty() => Some(ETag::of_parts(part_md5s)),
            Self::Parts { .. } | Self::Unknown {} => None,
        }
    }
}

/// An object that is proved to hold a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Bytes.
    pub size: u64,
    /// The content's hash.
    #[serde(flatten)]
    pub hash: ContentHash,
    /// The ETag that the store gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<ETag>,
    /// The version id, on a versioned bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// SHA-256 in hexadecimal, with `--sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the verdict rests on.
    pub proof: Proof,
    /// Whether the object was read back and had the bytes that were read here, since nothing else proved it. A field of
    /// its own: a proof that an older program does not know would make the manifest a damaged one to it.
    #[serde(default, rename = "read_back", skip_serializing_if = "std::ops::Not::not")]
    pub is_read_back: bool,
}

/// One file of the dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name, here and in the bucket.
    pub name: FileName,
    /// What it holds, such as `schema` or `data`.
    pub kind: String,
    /// The database's real name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The table's or view's real name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The table's rows, where `metadata` tells; of the whole table, not of this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Object and proof.
    #[serde(flatten)]
    pub object: ObjectRecord,
}

/// Writes a manifest as a stream.
pub fn write<W: Write>(
    mut writer: W,
    header: &ManifestHeader,
    files: impl Iterator<Item = ManifestFile>,
) -> io::Result<()> {
    let head = serde_json::to_string_pretty(header)?;
    // The header is an object with fields, so it ends in "\n}".
    let head = head.strip_suffix("\n}").unwrap_or(&head);
    write!(writer, "{head},\n  \"files\": [")?;
    for (index, file) in files.enumerate() {
        writer.write_all(if index == 0 { b"\n    " } else { b",\n    " })?;
        serde_json::to_writer(&mut writer, &file)?;
    }
    writer.write_all(b"\n  ]\n}\n")?;
    writer.flush()
}

/// Why a manifest cannot be used.
#[derive(Debug)]
pub enum BadManifest {
    /// Written by a newer program.
    Newer(u64),
    /// More than this program reads. What it would say is not known.
    TooLarge(&'static str),
    /// No manifest, or a damaged one.
    Damaged(serde_json::Error),
}

impl fmt::Display for BadManifest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer(format) => {
                write!(
                    formatter,
                    "the manifest has format {format}, this program reads up to {FORMAT}; use a newer mydumper2s3"
                )
            }
            Self::TooLarge(what) => write!(formatter, "{MANIFEST_NAME} is larger than what is read: {what}"),
            Self::Damaged(_) => write!(formatter, "{MANIFEST_NAME} is no manifest or is damaged"),
        }
    }
}

const MANIFEST_NAME: &str = super::file_name::MANIFEST;

impl std::error::Error for BadManifest {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Newer(_) | Self::TooLarge(_) => None,
            Self::Damaged(error) => Some(error),
        }
    }
}

/// Reads a manifest as a stream: `each` gets every file as it comes, the header is returned at the end.
///
/// Memory: a file, or a field of the header. Whoever may write to the bucket may write anything here; so the whole, each
/// file and each field have limits, and what is no field of a header is passed over.
pub fn read(reader: impl Read, each: impl FnMut(ManifestFile)) -> Result<ManifestHeader, BadManifest> {
    let allowance = Allowance::default();
    let mut fields = serde_json::Map::new();
    let mut deserializer = serde_json::Deserializer::from_reader(Limited { reader, allowance: allowance.clone() });
    let document = Document { fields: &mut fields, each, known: field_names(), allowance: &allowance };
    let result = document.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    // The format is looked at first: what a newer one holds may well look damaged to us.
    if let Some(format) = fields.get("format").and_then(serde_json::Value::as_u64)
        && format > u64::from(FORMAT)
    {
        return Err(BadManifest::Newer(format));
    }
    if let Some(what) = allowance.exceeded.get() {
        return Err(BadManifest::TooLarge(what));
    }
    result.map_err(BadManifest::Damaged)?;
    serde_json::from_value(serde_json::Value::Object(fields)).map_err(BadManifest::Damaged)
}

/// Bytes that may still be read.
#[derive(Clone)]
struct Allowance {
    whole: Rc<Cell<u64>>,
    value: Rc<Cell<u64>>,
    /// What was larger than its limit.
    exceeded: Rc<Cell<Option<&'static str>>>,
}

impl Default for Allowance {
    fn default() -> Self {
        let cell = |bytes| Rc::new(Cell::new(bytes));
        Self { whole: cell(SIZE_MAX), value: cell(FIELD_SIZE_MAX), exceeded: Rc::default() }
    }
}

impl Allowance {
    /// The next value begins, or the name of the next field.
    fn begin(&self, bytes: u64) {
        self.value.set(bytes);
    }

    fn spend(&self, bytes: u64) -> io::Result<()> {
        for (left, what) in [(&self.whole, "the whole of it"), (&self.value, "one of its values")] {
            let Some(rest) = left.get().checked_sub(bytes) else {
                self.exceeded.set(Some(what));
                return Err(io::Error::other("too large"));
            };
            left.set(rest);
        }
        Ok(())
    }
}

/// A reader that ends where the allowance does. The JSON reader above it asks for single bytes.
struct Limited<R> {
    reader: R,
    allowance: Allowance,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(bytes)?;
        self.allowance.spend(count as u64)?;
        Ok(count)
    }
}

/// The names of a header's fields, from the type itself. What else a newer program may write is passed over.
fn field_names() -> &'static [&'static str] {
    struct Names(Cell<&'static [&'static str]>);
    impl<'de> Deserializer<'de> for &Names {
        type Error = serde::de::value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.set(fields);
            Err(Self::Error::custom("only the names were asked for"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("a header is a struct"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let names = Names(Cell::default());
    let _ = ManifestHeader::deserialize(&names);
    names.0.get()
}

/// The whole document: `files` goes to `each`, the header's fields into `fields`.
struct Document<'a, F> {
    fields: &'a mut serde_json::Map<String, serde_json::Value>,
    each: F,
    known: &'static [&'static str],
    allowance: &'a Allowance,
}

impl<'de, F: FnMut(ManifestFile)> DeserializeSeed<'de> for Document<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(ManifestFile)> Visitor<'de> for Document<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            self.allowance.begin(FIELD_SIZE_MAX);
            if key == "files" {
                let newer = self.fields.get("format").and_then(serde_json::Value::as_u64);
                if newer.is_some_and(|format| format > u64::from(FORMAT)) {
                    return Err(A::Error::custom("a newer format"));
                }
                map.next_value_seed(Files { each: &mut self.each, allowance: self.allowance })?;
            } else if self.known.contains(&key.as_str()) {
                self.fields.insert(key, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            self.allowance.begin(FIELD_SIZE_MAX);
        }
        Ok(())
    }
}

struct Files<'a, F> {
    each: &'a mut F,
    allowance: &'a Allowance,
}

impl<'de, F: FnMut(ManifestFile)> DeserializeSeed<'de> for Files<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(ManifestFile)> Visitor<'de> for Files<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        self.allowance.begin(FILE_SIZE_MAX);
        while let Some(file) = sequence.next_element()? {
            (self.each)(file);
            self.allowance.begin(FILE_SIZE_MAX);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
