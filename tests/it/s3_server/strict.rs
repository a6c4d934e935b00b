//! What a real store refuses is refused, and what it keeps is kept.

use std::io;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{Delete, ObjectIdentifier, ServerSideEncryption, StorageClass};
use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use md5::{Digest, Md5};

use super::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY, Upload, client, config, outcome, put};
use crate::support::s3_server::{Encryption, Limits, Operation};

/// The MD5 of `hello`, as `md5sum` gives it.
const HELLO_ETAG: &str = "\"5d41402abc4b2a76b9719d911017c592\"";

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let server = S3Server::start();
    let client = client(&server);
    let done = put(&client, "a b/ü+&.sql", "hello").send().await.expect("the object is put");
    assert_eq!(done.e_tag(), Some(HELLO_ETAG));
    let got = client.get_object().bucket(BUCKET).key("a b/ü+&.sql").send().await.expect("it is there");
    assert_eq!((got.content_length(), got.e_tag()), (Some(5), Some(HELLO_ETAG)));
    assert_eq!(got.body.collect().await.expect("the body comes").to_vec(), b"hello");
    assert_eq!(server.keys(BUCKET), ["a b/ü+&.sql"]);
}

#[tokio::test]
async fn an_empty_object_is_an_object() {
    let server = S3Server::start();
    assert_eq!(outcome(put(&client(&server), "empty", "").send().await), "ok");
    let object = server.object(BUCKET, "empty").expect("it is stored");
    assert_eq!((object.size, object.etag.as_str()), (0, "d41d8cd98f00b204e9800998ecf8427e"));
}

#[tokio::test]
async fn a_body_that_is_not_what_content_md5_says_is_refused_and_replaces_nothing() {
    let server = S3Server::start();
    server.put_directly(BUCKET, "key", b"old");
    let client = client(&server);
    let hello = |md5: &str| put(&client, "key", "hello").content_md5(md5).send();
    assert_eq!(outcome(hello("MTIzNDU2Nzg5MDEyMzQ1Ng==").await), "BadDigest");
    assert_eq!(outcome(hello("5d41402abc4b2a76b9719d911017c592").await), "InvalidDigest");
    assert_eq!(server.object(BUCKET, "key").expect("it was there").bytes(), b"old");
    assert_eq!(outcome(hello("XUFAKrxLKna5cZ2REBfFkg==").await), "ok");
    assert_eq!(server.object(BUCKET, "key").expect("it is there").bytes(), b"hello");
    assert!(server.requests_of(Operation::PutObject).iter().all(|request| request.has_content_md5()));
}

#[tokio::test]
async fn a_body_that_is_not_what_its_checksum_says_is_refused() {
    let server = S3Server::start();
    let client = client(&server);
    assert_eq!(outcome(put(&client, "key", "hello").checksum_crc32("AAAAAA==").send().await), "BadDigest");
    assert!(server.keys(BUCKET).is_empty());
    assert_eq!(outcome(put(&client, "key", "hello").checksum_crc32("NhCmhg==").send().await), "ok");
}

#[tokio::test]
async fn chunked_bodies_with_a_checksum_after_them_are_unpacked_and_logged_as_such() {
    let server = S3Server::start();
    let config =
        config(&server, ACCESS_KEY, SECRET_KEY).request_checksum_calculation(RequestChecksumCalculation::WhenSupported);
    let client = Client::from_conf(config.build());
    let body = Frame::data(Bytes::from_static(b"hello"));
    let body = StreamBody::new(futures_util::stream::iter([Ok::<_, io::Error>(body)]));
    let request = client.put_object().bucket(BUCKET).key("key").content_length(5);
    let body = ByteStream::new(SdkBody::from_body_1_x(body));
    assert_eq!(outcome(request.body(body).send().await), "ok");
    assert_eq!(server.object(BUCKET, "key").expect("it is stored").bytes(), b"hello");
    assert!(server.requests()[0].is_aws_chunked());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_not_stored() {
    let server = S3Server::start();
    let client = client(&server);
    let pieces = [Ok(Frame::data(Bytes::from_static(b"hel"))), Err(io::Error::other("the file shrank"))];
    let body = SdkBody::from_body_1_x(StreamBody::new(futures_util::stream::iter(pieces)));
    let request = client.put_object().bucket(BUCKET).key("key").content_length(5).body(ByteStream::new(body));
    let sent = request.customize().disable_payload_signing().send().await;
    assert_eq!(outcome(sent), "no answer");
    server.wait_until("the request ends", |requests| requests.iter().all(|request| request.took.is_some()));
    assert!(server.keys(BUCKET).is_empty());
}

#[tokio::test]
async fn if_none_match_writes_only_what_is_not_there() {
    let server = S3Server::start();
    let client = client(&server);
    let write = || put(&client, "key", "hello").if_none_match("*").send();
    assert_eq!(outcome(write().await), "ok");
    assert_eq!(outcome(write().await), "PreconditionFailed");
    let mut upload = Upload::begin(&client, "key").await;
    upload.part(1, b"a".to_vec()).await;
    assert_eq!(outcome(upload.complete().if_none_match("*").send().await), "PreconditionFailed");
    assert_eq!(server.object(BUCKET, "key").expect("stored").bytes(), b"hello");
}

#[tokio::test]
async fn ranges_and_parts_can_be_read() {
    let limits = Limits { min_part_size: 1, ..Limits::default() };
    let server = S3Server::builder().limits(limits).start();
    let client = client(&server);
    let mut upload = Upload::begin(&client, "key").await;
    upload.part(1, b"abc".to_vec()).await;
    upload.part(2, b"defgh".to_vec()).await;
    assert_eq!(outcome(upload.complete().send().await), "ok");
    let read = async |range: &str| {
        let got = client.get_object().bucket(BUCKET).key("key").range(range).send().await.expect("readable");
        let content_range = got.content_range().map(str::to_owned);
        (got.body.collect().await.expect("the body comes").to_vec(), content_range)
    };
    assert_eq!(read("bytes=1-4").await, (b"bcde".to_vec(), Some("bytes 1-4/8".to_owned())));
    assert_eq!(read("bytes=-2").await, (b"gh".to_vec(), Some("bytes 6-7/8".to_owned())));
    let beyond = client.get_object().bucket(BUCKET).key("key").range("bytes=8-").send().await;
    assert_eq!(outcome(beyond), "InvalidRange");
    let part = client.head_object().bucket(BUCKET).key("key").part_number(2).send().await.expect("it has a part 2");
    assert_eq!((part.content_length(), part.parts_count()), (Some(5), Some(2)));
    let whole = client.head_object().bucket(BUCKET).key("key").send().await.expect("it is there");
    assert_eq!((whole.content_length(), whole.parts_count()), (Some(8), None));
}

#[tokio::test]
async fn what_a_request_says_about_an_object_is_kept() {
    let server = S3Server::start();
    let client = client(&server);
    let request = put(&client, "key", "hello").metadata("part-size", "8388608").content_type("text/plain");
    let request = request.storage_class(StorageClass::StandardIa).tagging("team=db&note=a%20b");
    assert_eq!(outcome(request.server_side_encryption(ServerSideEncryption::Aes256).send().await), "ok");
    let head = client.head_object().bucket(BUCKET).key("key").send().await.expect("it is there");
    assert_eq!(head.metadata().and_then(|all| all.get("part-size")).map(String::as_str), Some("8388608"));
    assert_eq!(head.storage_class(), Some(&StorageClass::StandardIa));
    assert_eq!(head.server_side_encryption(), Some(&ServerSideEncryption::Aes256));
    assert_eq!(head.content_type(), Some("text/plain"));
    let tags = &server.object(BUCKET, "key").expect("stored").attributes.tags;
    assert_eq!((tags["team"].as_str(), tags["note"].as_str()), ("db", "a b"));
    let unknown = put(&client, "key", "hello").storage_class(StorageClass::from("COLD"));
    assert_eq!(outcome(unknown.send().await), "InvalidStorageClass");
}

#[tokio::test]
async fn under_a_kms_key_the_etag_is_not_an_md5() {
    let server = S3Server::start();
    server.set_default_encryption(BUCKET, Encryption::Kms { key_id: "my-key".to_owned() });
    let client = client(&server);
    let done = put(&client, "key", "hello").send().await.expect("the object is put");
    assert_eq!(done.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    assert_eq!(done.ssekms_key_id(), Some("my-key"));
    assert_ne!(done.e_tag(), Some(HELLO_ETAG));
    let mut upload = Upload::begin(&client, "big").await;
    upload.part(1, b"hello".to_vec()).await;
    assert_ne!(upload.parts[0].e_tag(), Some(HELLO_ETAG));
    let done = upload.complete().send().await.expect("completed");
    assert_eq!(done.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
}

#[tokio::test]
async fn an_object_under_a_customers_key_is_read_only_with_that_key() {
    let server = S3Server::start();
    let client = client(&server);
    let key = aws_smithy_types::base64::encode([7; 32]);
    let key_md5 = aws_smithy_types::base64::encode(Md5::digest([7; 32]));
    let request = put(&client, "key", "hello").sse_customer_algorithm("AES256");
    let request = request.sse_customer_key(&key).sse_customer_key_md5(&key_md5);
    let done = request.send().await.expect("the object is put");
    assert_eq!(done.sse_customer_key_md5(), Some(key_md5.as_str()));
    assert_ne!(done.e_tag(), Some(HELLO_ETAG));
    let get = || client.get_object().bucket(BUCKET).key("key");
    assert_eq!(outcome(get().send().await), "InvalidRequest");
    let with_key = get().sse_customer_algorithm("AES256").sse_customer_key(&key);
    assert_eq!(outcome(with_key.sse_customer_key_md5(&key_md5).send().await), "ok");
}

#[tokio::test]
async fn with_versioning_nothing_is_lost() {
    let server = S3Server::start();
    server.enable_versioning(BUCKET);
    let client = client(&server);
    let first = put(&client, "key", "first").send().await.expect("put").version_id.expect("a version");
    assert_eq!(outcome(put(&client, "key", "second").send().await), "ok");
    let deleted = client.delete_object().bucket(BUCKET).key("key").send().await.expect("deleted");
    assert_eq!(deleted.delete_marker(), Some(true));
    assert_eq!(outcome(client.get_object().bucket(BUCKET).key("key").send().await), "NoSuchKey");
    assert!(server.keys(BUCKET).is_empty());
    assert_eq!(server.versions(BUCKET, "key").len(), 2);
    let old = client.get_object().bucket(BUCKET).key("key").version_id(first).send().await.expect("kept");
    assert_eq!(old.body.collect().await.expect("the body comes").to_vec(), b"first");
    let listed = client.list_object_versions().bucket(BUCKET).send().await.expect("listed");
    assert_eq!((listed.versions().len(), listed.delete_markers().len()), (2, 1));
}

#[tokio::test]
async fn a_key_has_at_most_1024_bytes() {
    let server = S3Server::start();
    let client = client(&server);
    assert_eq!(outcome(put(&client, &"k".repeat(1024), "hello").send().await), "ok");
    assert_eq!(outcome(put(&client, &"k".repeat(1025), "hello").send().await), "KeyTooLongError");
}

#[tokio::test]
async fn what_is_deleted_is_gone_and_may_be_deleted_again() {
    let server = S3Server::start();
    let client = client(&server);
    for key in ["a", "b", "c"] {
        server.put_directly(BUCKET, key, b"hello");
    }
    let delete = || client.delete_object().bucket(BUCKET).key("a").send();
    assert_eq!([outcome(delete().await), outcome(delete().await)], ["ok", "ok"]);
    let keys = ["b", "nothing"].map(|key| ObjectIdentifier::builder().key(key).build().expect("has a key"));
    let keys = Delete::builder().set_objects(Some(keys.into())).build().expect("has keys");
    let deleted = client.delete_objects().bucket(BUCKET).delete(keys).send().await.expect("deleted");
    assert_eq!((deleted.deleted().len(), deleted.errors().len()), (2, 0));
    assert_eq!(server.keys(BUCKET), ["c"]);
    assert_eq!(outcome(client.delete_bucket().bucket(BUCKET).send().await), "BucketNotEmpty");
}

#[tokio::test]
async fn there_is_no_bucket_that_was_not_made() {
    let server = S3Server::start();
    let client = client(&server);
    assert_eq!(outcome(client.list_objects_v2().bucket("other").send().await), "NoSuchBucket");
    assert_eq!(outcome(client.head_bucket().bucket("other").send().await), "NotFound");
    assert_eq!(outcome(client.create_bucket().bucket("other").send().await), "ok");
    assert_eq!(outcome(client.create_bucket().bucket("other").send().await), "BucketAlreadyOwnedByYou");
    assert_eq!(outcome(client.head_bucket().bucket("other").send().await), "ok");
    assert_eq!(outcome(client.get_bucket_location().bucket("other").send().await), "ok");
}

#[tokio::test]
async fn a_damage_in_the_storage_shows_only_in_the_bytes() {
    let server = S3Server::start();
    let client = client(&server);
    server.put_directly(BUCKET, "key", b"hello");
    server.corrupt(BUCKET, "key");
    let got = client.get_object().bucket(BUCKET).key("key").send().await.expect("it is there");
    assert_eq!((got.e_tag(), got.content_length()), (Some(HELLO_ETAG), Some(5)));
    assert_ne!(got.body.collect().await.expect("the body comes").to_vec(), b"hello");
}
