//! The operations that list, page by page.

use std::ops::Bound;

use s3s::dto::*;
use s3s::{S3Result, s3_error};

use super::object::StoredObject;
use super::store::{Bucket, Version};
use super::uploads::Upload;

/// S3 lists, and deletes, at most this many at once.
pub const MAX_PAGE: usize = 1000;

/// What listings of objects do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// The first entries, more to come, and no token to go on with.
    NoToken,
    /// The same page, and the same token, again and again.
    SameToken,
    /// No entry, and a new token, without end.
    EmptyPages,
    /// A key of another place among those that were asked for.
    OutsideKey,
    /// The same of a common prefix.
    OutsidePrefix,
    /// A plus stands for itself, though all else is encoded; a space is `%20`.
    RawPlus,
    /// Unfinished uploads of a dump's files, a full page of new ones again and again.
    EndlessUploads,
}

impl Oddity {
    fn spoil(self, output: &mut ListObjectsV2Output) {
        let contents = output.contents.get_or_insert_default();
        let common = output.common_prefixes.get_or_insert_default();
        match self {
            Self::NoToken => {
                contents.truncate(1);
                common.truncate(1);
                output.is_truncated = Some(true);
            }
            Self::SameToken => {
                output.is_truncated = Some(true);
                output.next_continuation_token = Some(encode_token(output.prefix.as_deref().unwrap_or_default()));
            }
            Self::EmptyPages => {
                contents.clear();
                common.clear();
                let before = output.continuation_token.as_deref().and_then(|token| decode_token(token).ok());
                output.is_truncated = Some(true);
                output.next_continuation_token = Some(encode_token(&format!("{}~", before.unwrap_or_default())));
            }
            Self::OutsideKey => {
                contents.push(Object { key: Some("elsewhere/metadata".into()), size: Some(1), ..Object::default() })
            }
            Self::OutsidePrefix => common.push(CommonPrefix { prefix: Some("elsewhere/deep/".into()) }),
            Self::EndlessUploads => {}
            Self::RawPlus => {
                for key in contents.iter_mut().filter_map(|object| object.key.as_mut()) {
                    *key = key.replace('+', "%20").replace("%2B", "+");
                }
            }
        }
    }
}

pub fn objects(bucket: &Bucket, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    let encoder = Encoder::new(input.encoding_type.as_ref())?;
    let token = input.continuation_token.as_deref().map(decode_token).transpose()?;
    let after = token.or(input.start_after.clone()).unwrap_or_default();
    let query = PageQuery {
        prefix: input.prefix.as_deref().unwrap_or_default(),
        delimiter: input.delimiter.as_deref(),
        after: &after,
        max: page_size(input.max_keys)?,
    };
    // From where it goes on: a listing of 100,000 keys would otherwise look at each of them a hundred times.
    let rest = bucket.objects.range::<str, _>((Bound::Included(after.as_str().max(query.prefix)), Bound::Unbounded));
    let shown = rest.filter(|(key, _)| !bucket.hidden.contains(*key));
    let current = shown.filter_map(|(key, _)| Some((key.as_str(), (key, bucket.current(key)?))));
    let page = query.page(current);
    let contents: Vec<_> = page.entries.iter().map(|(key, object)| object_entry(encoder.text(key), object)).collect();
    let mut output = ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encoder.text(query.prefix)),
        delimiter: query.delimiter.map(|delimiter| encoder.text(delimiter)),
        start_after: input.start_after.as_deref().map(|key| encoder.text(key)),
        max_keys: Some(query.max as i32),
        key_count: Some((contents.len() + page.common_prefixes.len()) as i32),
        contents: Some(contents),
        common_prefixes: Some(common_prefixes(&page.common_prefixes, &encoder)),
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_deref().map(encode_token),
        continuation_token: input.continuation_token,
        encoding_type: input.encoding_type,
        ..ListObjectsV2Output::default()
    };
    if let Some(oddity) = bucket.oddity {
        oddity.spoil(&mut output);
    }
    Ok(output)
}

fn object_entry(key: String, object: &StoredObject) -> Object {
    Object {
        key: Some(key),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        size: Some(object.size as i64),
        last_modified: Some(object.last_modified.into()),
        storage_class: Some(storage_class(object).into()),
        ..Object::default()
    }
}

fn storage_class(object: &StoredObject) -> String {
    object.attributes.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned())
}

/// Without delimiter, which nothing of ours uses here; refused rather than ignored.
pub fn versions(bucket: &Bucket, input: ListObjectVersionsInput) -> S3Result<ListObjectVersionsOutput> {
    if input.delimiter.is_some() {
        return Err(s3_error!(NotImplemented, "ListObjectVersions with a delimiter"));
    }
    let encoder = Encoder::new(input.encoding_type.as_ref())?;
    let marker = input.key_marker.as_deref().zip(input.version_id_marker.as_deref());
    let all =
        bucket.objects.iter().flat_map(|(key, versions)| versions.iter().rev().map(move |version| (key, version)));
    let passed = |key: &str, version: &Version| Some((key, version.id().unwrap_or("null"))) == marker;
    let all: Vec<_> = all.filter(|(key, _)| key.starts_with(input.prefix.as_deref().unwrap_or_default())).collect();
    let start = match marker {
        Some(_) => all.iter().position(|(key, version)| passed(key, version)).map_or(all.len(), |index| index + 1),
        None => 0,
    };
    let end = all.len().min(start + page_size(input.max_keys)?);
    let mut output = ListObjectVersionsOutput {
        name: Some(input.bucket.clone()),
        is_truncated: Some(end < all.len()),
        versions: Some(Vec::new()),
        delete_markers: Some(Vec::new()),
        ..ListObjectVersionsOutput::default()
    };
    for (key, version) in &all[start..end] {
        let latest = bucket.objects[*key].last().and_then(Version::id) == version.id();
        add_version(&mut output, encoder.text(key), version, latest);
    }
    if let Some((key, version)) = all[..end].last().filter(|_| end < all.len()) {
        output.next_key_marker = Some(encoder.text(key));
        output.next_version_id_marker = Some(version.id().unwrap_or("null").to_owned());
    }
    Ok(output)
}

fn add_version(output: &mut ListObjectVersionsOutput, key: String, version: &Version, latest: bool) {
    let id = version.id().unwrap_or("null").to_owned();
    match version {
        Version::Object(object) => output.versions.get_or_insert_default().push(ObjectVersion {
            key: Some(key),
            version_id: Some(id),
            is_latest: Some(latest),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            size: Some(object.size as i64),
            last_modified: Some(object.last_modified.into()),
            storage_class: Some(storage_class(object).into()),
            ..ObjectVersion::default()
        }),
        Version::DeleteMarker { last_modified, .. } => {
            output.delete_markers.get_or_insert_default().push(DeleteMarkerEntry {
                key: Some(key),
                version_id: Some(id),
                is_latest: Some(latest),
                last_modified: Some((*last_modified).into()),
                ..DeleteMarkerEntry::default()
            })
        }
    }
}

/// Sorted by key, and the uploads of a key by id, which grows with the time they began.
pub fn uploads(bucket: &Bucket, input: ListMultipartUploadsInput) -> S3Result<ListMultipartUploadsOutput> {
    if input.delimiter.is_some() {
        return Err(s3_error!(NotImplemented, "ListMultipartUploads with a delimiter"));
    }
    let encoder = Encoder::new(input.encoding_type.as_ref())?;
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let key_marker = input.key_marker.as_deref().unwrap_or_default();
    let max = page_size(input.max_uploads)?;
    if bucket.oddity == Some(Oddity::EndlessUploads) {
        return Ok(endless_uploads(&input, prefix, key_marker, max));
    }
    // Without an upload id the marker stands for all uploads of its key.
    let passed = |key: &str, id: &str| match input.upload_id_marker.as_deref() {
        Some(id_marker) => (key, id) <= (key_marker, id_marker),
        None => key <= key_marker,
    };
    let mut open: Vec<(&str, &str, &Upload)> =
        bucket.uploads.iter().map(|(id, upload)| (upload.key.as_str(), id.as_str(), upload)).collect();
    open.retain(|(key, id, _)| key.starts_with(prefix) && !passed(key, id));
    open.sort_by_key(|(key, id, _)| (*key, *id));
    let truncated = open.len() > max;
    open.truncate(max);
    let last = open.last().filter(|_| truncated);
    Ok(ListMultipartUploadsOutput {
        bucket: Some(input.bucket.clone()),
        prefix: Some(encoder.text(prefix)),
        max_uploads: Some(max as i32),
        is_truncated: Some(truncated),
        next_key_marker: last.map(|(key, _, _)| encoder.text(key)),
        next_upload_id_marker: last.map(|(_, id, _)| (*id).to_owned()),
        uploads: Some(open.iter().map(|(key, id, upload)| upload_entry(encoder.text(key), id, upload)).collect()),
        encoding_type: input.encoding_type.clone(),
        ..ListMultipartUploadsOutput::default()
    })
}

/// As if there were more of them than anybody can count.
fn endless_uploads(
    input: &ListMultipartUploadsInput,
    prefix: &str,
    after: &str,
    max: usize,
) -> ListMultipartUploadsOutput {
    let last =
        after.strip_prefix(prefix).and_then(|name| name.split('.').nth(2)).and_then(|number| number.parse().ok());
    let first = last.map_or(0, |last: usize| last + 1);
    let key = |number: usize| format!("{prefix}shop.t.{number:09}.sql");
    let entry = |number| MultipartUpload {
        key: Some(key(number)),
        upload_id: Some(format!("endless-{number}")),
        initiated: Some(std::time::SystemTime::now().into()),
        ..MultipartUpload::default()
    };
    ListMultipartUploadsOutput {
        bucket: Some(input.bucket.clone()),
        prefix: Some(prefix.to_owned()),
        max_uploads: Some(max as i32),
        is_truncated: Some(true),
        next_key_marker: Some(key(first + max - 1)),
        next_upload_id_marker: Some(format!("endless-{}", first + max - 1)),
        uploads: Some((first..first + max).map(entry).collect()),
        ..ListMultipartUploadsOutput::default()
    }
}

fn upload_entry(key: String, id: &str, upload: &Upload) -> MultipartUpload {
    MultipartUpload {
        key: Some(key),
        upload_id: Some(id.to_owned()),
        initiated: Some(upload.initiated.into()),
        storage_class: Some(upload.attributes.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()).into()),
        ..MultipartUpload::default()
    }
}

pub fn parts(bucket: &mut Bucket, input: ListPartsInput) -> S3Result<ListPartsOutput> {
    let upload = bucket.upload(&input.key, &input.upload_id)?;
    let marker = input.part_number_marker.unwrap_or_default().max(0) as u32;
    let max = page_size(input.max_parts)?;
    let mut later = upload.parts.range(marker.saturating_add(1)..);
    let parts: Vec<_> = later
        .by_ref()
        .take(max)
        .map(|(number, part)| Part {
            part_number: Some(*number as i32),
            e_tag: Some(ETag::Strong(part.etag.clone())),
            size: Some(part.blob.size as i64),
            last_modified: Some(part.last_modified.into()),
            ..Part::default()
        })
        .collect();
    let truncated = later.next().is_some();
    Ok(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        part_number_marker: Some(marker as i32),
        next_part_number_marker: parts.last().and_then(|part| part.part_number).filter(|_| truncated),
        max_parts: Some(max as i32),
        is_truncated: Some(truncated),
        parts: Some(parts),
        ..ListPartsOutput::default()
    })
}

fn page_size(asked: Option<i32>) -> S3Result<usize> {
    match asked.map(usize::try_from) {
        None => Ok(MAX_PAGE),
        Some(Ok(asked)) => Ok(asked.min(MAX_PAGE)),
        Some(Err(_)) => Err(s3_error!(InvalidArgument, "the size of a page must not be negative")),
    }
}

fn common_prefixes(prefixes: &[String], encoder: &Encoder) -> Vec<CommonPrefix> {
    prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(encoder.text(prefix)) }).collect()
}

/// Not the key itself, so that nobody comes to rely on it.
fn encode_token(last: &str) -> String {
    aws_smithy_types::base64::encode(last)
}

fn decode_token(token: &str) -> S3Result<String> {
    let bytes = aws_smithy_types::base64::decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
}

/// `encoding-type=url`: for keys with characters that XML 1.0 has not.
struct Encoder {
    url: bool,
}

impl Encoder {
    fn new(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    /// S3 leaves the slash as it is, and writes a space as a plus.
    fn text(&self, text: &str) -> String {
        if !self.url {
            return text.to_owned();
        }
        urlencoding::encode(text).replace("%2F", "/").replace("%20", "+")
    }
}

/// What ListObjectsV2 and ListMultipartUploads ask for.
pub struct PageQuery<'a> {
    pub prefix: &'a str,
    pub delimiter: Option<&'a str>,
    /// Only names after this one; a common prefix ends with the delimiter and stands for all names below it.
    pub after: &'a str,
    pub max: usize,
}

pub struct Page<T> {
    pub entries: Vec<T>,
    pub common_prefixes: Vec<String>,
    /// The last name or common prefix of the page, if there is more.
    pub next: Option<String>,
}

impl PageQuery<'_> {
    /// `entries` are sorted by name. A common prefix counts as one entry.
    pub fn page<'e, T>(&self, entries: impl Iterator<Item = (&'e str, T)>) -> Page<T> {
        let mut page = Page { entries: Vec::new(), common_prefixes: Vec::new(), next: None };
        let mut last = String::new();
        let wanted = entries.filter(|(name, _)| name.starts_with(self.prefix) && *name > self.after);
        for (name, entry) in wanted {
            let common = self.common_prefix(name);
            if common.is_some_and(|common| common == last || common == self.after) {
                continue;
            }
            if page.entries.len() + page.common_prefixes.len() == self.max {
                page.next = Some(last);
                break;
            }
            last = common.unwrap_or(name).to_owned();
            match common {
                Some(common) => page.common_prefixes.push(common.to_owned()),
                None => page.entries.push(entry),
            }
        }
        page
    }

    fn common_prefix<'n>(&self, name: &'n str) -> Option<&'n str> {
        let delimiter = self.delimiter.filter(|delimiter| !delimiter.is_empty())?;
        let index = name[self.prefix.len()..].find(delimiter)?;
        Some(&name[..self.prefix.len() + index + delimiter.len()])
    }
}
