//! A multipart upload becomes an object only when all that S3 asks of it is right.

use super::{BUCKET, MIB, S3Server, Upload, client, outcome};
use crate::support::s3_server::Limits;

/// An ETag that no part has.
const OTHER_ETAG: &str = "\"00000000000000000000000000000000\"";

#[tokio::test]
async fn the_etag_of_a_multipart_object_is_composite() {
    let server = S3Server::start();
    let client = client(&server);
    let mut upload = Upload::begin(&client, "big").await;
    upload.part(2, vec![b'b'; 3]).await;
    upload.part(1, vec![b'a'; 5 * MIB]).await;
    assert_eq!(server.open_multipart_uploads(BUCKET), [("big".to_owned(), upload.id.clone())]);
    upload.parts.reverse();
    let done = upload.complete().send().await.expect("completed");
    // md5(md5("a" * 5 MiB) + md5("bbb")), as another program computes it.
    assert_eq!(done.e_tag(), Some("\"06a6ca67e53064f3f30a42ee29a62f5d-2\""));
    let object = server.object(BUCKET, "big").expect("stored");
    assert_eq!((object.size, object.parts_count), (5 * MIB as u64 + 3, Some(2)));
    assert!(object.bytes().ends_with(b"aabbb"));
    assert!(server.open_multipart_uploads(BUCKET).is_empty());
    assert_eq!(outcome(upload.complete().send().await), "NoSuchUpload");
}

#[tokio::test]
async fn a_part_that_is_not_the_last_has_at_least_5_mib() {
    let server = S3Server::start();
    let mut upload = Upload::begin(&client(&server), "key").await;
    upload.part(1, vec![b'a'; 5 * MIB - 1]).await;
    upload.part(2, vec![b'b'; 1]).await;
    assert_eq!(outcome(upload.complete().send().await), "EntityTooSmall");
    assert_eq!(server.open_multipart_uploads(BUCKET).len(), 1);
    assert!(server.keys(BUCKET).is_empty());
}

#[tokio::test]
async fn an_upload_is_completed_only_with_its_own_parts_in_order() {
    let limits = Limits { min_part_size: 1, ..Limits::default() };
    let server = S3Server::builder().limits(limits).start();
    let client = client(&server);
    let mut upload = Upload::begin(&client, "key").await;
    assert_eq!(outcome(upload.complete().send().await), "MalformedXML");
    upload.part(2, b"b".to_vec()).await;
    upload.part(1, b"a".to_vec()).await;
    assert_eq!(outcome(upload.complete().send().await), "InvalidPartOrder");
    upload.parts.clear();
    upload.name(1, OTHER_ETAG);
    assert_eq!(outcome(upload.complete().send().await), "InvalidPart");
    upload.parts.clear();
    upload.name(3, OTHER_ETAG);
    assert_eq!(outcome(upload.complete().send().await), "InvalidPart");
    let abort = client.abort_multipart_upload().bucket(BUCKET).key("key").upload_id(&upload.id);
    assert_eq!(outcome(abort.send().await), "ok");
    assert_eq!(upload.part(1, b"a".to_vec()).await, "NoSuchUpload");
}

#[tokio::test]
async fn no_more_parts_than_the_store_takes() {
    let limits = Limits { max_parts: 3, ..Limits::default() };
    let server = S3Server::builder().limits(limits).start();
    let mut upload = Upload::begin(&client(&server), "key").await;
    assert_eq!(upload.part(3, b"a".to_vec()).await, "ok");
    assert_eq!(upload.part(4, b"a".to_vec()).await, "InvalidArgument");
    assert_eq!(upload.part(0, b"a".to_vec()).await, "InvalidArgument");
}

#[tokio::test]
async fn a_part_can_be_sent_again_and_the_last_one_counts() {
    let server = S3Server::start();
    let mut upload = Upload::begin(&client(&server), "key").await;
    upload.part(1, b"first".to_vec()).await;
    upload.parts.clear();
    upload.part(1, b"second".to_vec()).await;
    assert_eq!(outcome(upload.complete().send().await), "ok");
    assert_eq!(server.object(BUCKET, "key").expect("stored").bytes(), b"second");
}
