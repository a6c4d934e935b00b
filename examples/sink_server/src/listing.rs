//! Listings, of both versions.

use std::ops::Bound;

use crate::answer::Answer;
use crate::operations::Sink;
use crate::request::Request;
use crate::store::Object;
use crate::xml;

const PAGE_MAX: usize = 1000;

struct Page {
    xml: String,
    entries: usize,
    /// Where the next page begins, behind this name.
    next: Option<String>,
}

pub fn list(sink: &Sink, request: &Request) -> Answer {
    let is_second = request.parameter("list-type") == "2";
    let most = request.parameter("max-keys").parse().unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let after = ["continuation-token", "start-after", "marker"]
        .into_iter()
        .map(|name| request.parameter(name))
        .find(|value| !value.is_empty());
    let page = page(sink, request, after.unwrap_or_default(), most);
    let mut inner = format!(
        "<Name>{}</Name><Prefix>{}</Prefix><MaxKeys>{most}</MaxKeys><IsTruncated>{}</IsTruncated>",
        xml::escape(request.bucket()),
        encode(request, request.parameter("prefix")),
        page.next.is_some()
    );
    if request.parameter("encoding-type") == "url" {
        inner += "<EncodingType>url</EncodingType>";
    }
    if is_second {
        inner += &format!("<KeyCount>{}</KeyCount>", page.entries);
    }
    if let Some(next) = &page.next {
        // A token comes back as it is; a marker is a key.
        inner += &match is_second {
            true => format!("<NextContinuationToken>{}</NextContinuationToken>", xml::escape(next)),
            false => format!("<NextMarker>{}</NextMarker>", encode(request, next)),
        };
    }
    Answer::xml("ListBucketResult", &(inner + &page.xml))
}

fn page(sink: &Sink, request: &Request, after: &str, most: usize) -> Page {
    let bucket = format!("{}/", request.bucket());
    let (prefix, delimiter) = (request.parameter("prefix"), request.parameter("delimiter"));
    let inner = sink.store.lock();
    let mut page = Page { xml: String::new(), entries: 0, next: None };
    let mut last = String::new();
    // What was listed already lies below `after`, a directory with all that is in it.
    let mut from =
        if after < prefix { Bound::Included(format!("{bucket}{prefix}")) } else { behind(&bucket, after, delimiter) };
    while let Some((path, object)) = inner.objects.range((from, Bound::Unbounded)).next() {
        let Some(key) = path.strip_prefix(&bucket).filter(|key| key.starts_with(prefix)) else { break };
        if page.entries == most {
            page.next = Some(last);
            break;
        }
        let directory = key[prefix.len()..].split_once(delimiter).filter(|_| !delimiter.is_empty());
        last = match directory {
            Some((name, _)) => format!("{prefix}{name}{delimiter}"),
            None => key.to_owned(),
        };
        page.xml += &match directory {
            Some(_) => format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", encode(request, &last)),
            None => entry(request, key, object),
        };
        page.entries += 1;
        from = behind(&bucket, &last, delimiter);
    }
    page
}

/// The first name that does not lie in this directory, or that comes after this key.
fn behind(bucket: &str, name: &str, delimiter: &str) -> Bound<String> {
    if delimiter.is_empty() || !name.ends_with(delimiter) {
        return Bound::Excluded(format!("{bucket}{name}"));
    }
    // No key has this character.
    Bound::Excluded(format!("{bucket}{name}{}", char::MAX))
}

fn entry(request: &Request, key: &str, object: &Object) -> String {
    format!(
        "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>&quot;{}&quot;</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
        encode(request, key),
        object.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        object.etag,
        object.size
    )
}

fn encode(request: &Request, text: &str) -> String {
    if request.parameter("encoding-type") == "url" {
        return urlencoding::encode(text).replace("%2F", "/");
    }
    xml::escape(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;

    fn sink_with(keys: &[&str]) -> Sink {
        let sink = Sink::new(Duration::ZERO, false, None);
        for key in keys {
            let object = Object {
                etag: String::new(),
                size: 0,
                modified: Timestamp::UNIX_EPOCH,
                metadata: Vec::new(),
                pieces: Vec::new(),
            };
            sink.store.insert(format!("b/{key}"), object);
        }
        sink
    }

    /// What all pages of a listing name, with `most` on each.
    fn listed(sink: &Sink, query: &str, most: usize) -> Vec<String> {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let page = page(sink, &Request::get("b", query), &after, most);
            names.extend(xml::texts(&page.xml, "Key"));
            names.extend(xml::texts(&page.xml, "Prefix"));
            match page.next {
                Some(next) => after = next,
                None => return names,
            }
        }
    }

    #[test]
    fn pages_of_any_size_name_each_key_once() {
        let sink = sink_with(&["a", "d/1", "d/2", "d0", "e/1", "z"]);
        for most in 1..8 {
            assert_eq!(listed(&sink, "", most), ["a", "d/1", "d/2", "d0", "e/1", "z"], "{most}");
            assert_eq!(listed(&sink, "prefix=d/", most), ["d/1", "d/2"], "{most}");
            let mut names = listed(&sink, "delimiter=/", most);
            names.sort();
            assert_eq!(names, ["a", "d/", "d0", "e/", "z"], "{most}");
        }
    }
}
