//! Listings come in pages, in order, and whole.

use super::{BUCKET, S3Server, Upload, client, outcome};
use crate::support::s3_server::Limits;
use aws_sdk_s3::types::EncodingType;

#[tokio::test]
async fn more_than_1000_keys_come_in_pages() {
    let server = S3Server::start();
    let expected: Vec<_> = (0..1003).map(|number| format!("dump/{number:04}")).collect();
    for key in expected.iter().map(String::as_str).chain(["dumps", "other"]) {
        server.put_directly(BUCKET, key, b"");
    }
    let mut pages = client(&server).list_objects_v2().bucket(BUCKET).prefix("dump/").into_paginator().send();
    let mut sizes = Vec::new();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.expect("the page comes");
        sizes.push(page.contents().len());
        keys.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
    }
    assert_eq!((sizes, keys), (vec![1000, 3], expected));
}

#[tokio::test]
async fn what_lies_below_a_delimiter_is_one_entry() {
    let server = S3Server::start();
    for key in ["p/a", "p/b/1", "p/b/2", "p/c", "p/d/1", "q"] {
        server.put_directly(BUCKET, key, b"");
    }
    let client = client(&server);
    let mut entries = Vec::new();
    let mut token = None;
    loop {
        let page = client.list_objects_v2().bucket(BUCKET).prefix("p/").delimiter("/").max_keys(1);
        let page = page.set_continuation_token(token).send().await.expect("the page comes");
        entries.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
        entries.extend(page.common_prefixes().iter().filter_map(|prefix| prefix.prefix().map(str::to_owned)));
        token = page.next_continuation_token().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    assert_eq!(entries, ["p/a", "p/b/", "p/c", "p/d/"]);
}

#[tokio::test]
async fn keys_that_xml_cannot_carry_are_encoded_if_asked() {
    let server = S3Server::start();
    server.put_directly(BUCKET, "a b/\u{1}", b"");
    let listed = client(&server).list_objects_v2().bucket(BUCKET).encoding_type(EncodingType::Url).send().await;
    assert_eq!(listed.expect("listed").contents()[0].key(), Some("a+b/%01"));
}

#[tokio::test]
async fn open_uploads_and_their_parts_come_in_pages() {
    let server = S3Server::builder().limits(Limits { min_part_size: 1, ..Limits::default() }).start();
    let client = client(&server);
    let mut upload = Upload::begin(&client, "p/b").await;
    for number in 1..=3 {
        upload.part(number, b"hello".to_vec()).await;
    }
    Upload::begin(&client, "p/a").await;
    Upload::begin(&client, "q").await;
    let page = client.list_multipart_uploads().bucket(BUCKET).prefix("p/").max_uploads(1);
    let page = page.send().await.expect("listed");
    assert_eq!((page.uploads()[0].key(), page.is_truncated()), (Some("p/a"), Some(true)));
    let rest = client.list_multipart_uploads().bucket(BUCKET).prefix("p/");
    let rest = rest.set_key_marker(page.next_key_marker).set_upload_id_marker(page.next_upload_id_marker);
    let rest = rest.send().await.expect("listed");
    let keys: Vec<_> = rest.uploads().iter().filter_map(|upload| upload.key()).collect();
    assert_eq!((keys, rest.is_truncated()), (vec!["p/b"], Some(false)));

    let parts = || client.list_parts().bucket(BUCKET).key("p/b").upload_id(&upload.id);
    let page = parts().max_parts(2).send().await.expect("listed");
    assert_eq!((page.parts().len(), page.next_part_number_marker()), (2, Some("2")));
    let rest = parts().part_number_marker("2").send().await.expect("listed");
    assert_eq!((rest.parts()[0].part_number(), rest.parts()[0].size()), (Some(3), Some(5)));
    assert_eq!(rest.parts()[0].e_tag(), upload.parts[2].e_tag());
    let other = client.list_parts().bucket(BUCKET).key("q").upload_id(&upload.id);
    assert_eq!(outcome(other.send().await), "NoSuchUpload");
}
