//! Who may do what, and until when.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, Region, SharedCredentialsProvider};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY, Upload, client, config, outcome, put};
use crate::support::s3_server::{AccessKey, Permission};

fn client_with_key(server: &S3Server, access_key: &str, secret_key: &str) -> Client {
    Client::from_conf(config(server, access_key, secret_key).build())
}

#[tokio::test]
async fn only_who_knows_the_secret_is_heard() {
    let server = S3Server::start();
    let attempt = async |access_key, secret_key| {
        let client = client_with_key(&server, access_key, secret_key);
        outcome(put(&client, "key", "hello").send().await)
    };
    assert_eq!(attempt(ACCESS_KEY, "wrong").await, "SignatureDoesNotMatch");
    assert_eq!(attempt("NOBODY", SECRET_KEY).await, "InvalidAccessKeyId");
    assert!(server.keys(BUCKET).is_empty());
    assert_eq!(attempt(ACCESS_KEY, SECRET_KEY).await, "ok");
    let keys: Vec<_> = server.requests().iter().map(|request| request.access_key().map(str::to_owned)).collect();
    assert_eq!(keys, [ACCESS_KEY, "NOBODY", ACCESS_KEY].map(|key| Some(key.to_owned())));
}

#[tokio::test]
async fn a_key_that_may_only_put_can_upload_and_nothing_else() {
    let server = S3Server::start();
    server.set_key(AccessKey::new("WRITER", "secret").only([Permission::PutObject]));
    let client = client_with_key(&server, "WRITER", "secret");
    assert_eq!(outcome(put(&client, "key", "hello").send().await), "ok");
    let mut upload = Upload::begin(&client, "big").await;
    assert_eq!(upload.part(1, b"hello".to_vec()).await, "ok");
    assert_eq!(outcome(upload.complete().send().await), "ok");
    assert_eq!(outcome(put(&client, "key", "hello").tagging("a=b").send().await), "AccessDenied");
    assert_eq!(outcome(client.get_object().bucket(BUCKET).key("key").send().await), "AccessDenied");
    assert_eq!(outcome(client.list_objects_v2().bucket(BUCKET).send().await), "AccessDenied");
    assert_eq!(outcome(client.delete_object().bucket(BUCKET).key("key").send().await), "AccessDenied");
    let key = ObjectIdentifier::builder().key("key").build().expect("has a key");
    let keys = Delete::builder().objects(key).build().expect("has keys");
    let deleted = client.delete_objects().bucket(BUCKET).delete(keys).send().await.expect("answered per key");
    assert_eq!(deleted.errors()[0].code(), Some("AccessDenied"));
    assert_eq!(server.keys(BUCKET), ["big", "key"]);
}

#[tokio::test]
async fn who_may_not_list_is_not_told_that_a_key_is_missing() {
    let server = S3Server::start();
    server.set_key(AccessKey::new("READER", "secret").without([Permission::ListBucket]));
    let missing = client_with_key(&server, "READER", "secret").get_object().bucket(BUCKET).key("key");
    assert_eq!(outcome(missing.send().await), "AccessDenied");
    let missing = client(&server).get_object().bucket(BUCKET).key("key");
    assert_eq!(outcome(missing.send().await), "NoSuchKey");
}

#[tokio::test]
async fn temporary_credentials_need_their_token_and_end() {
    let server = S3Server::start();
    let key = || AccessKey::new("TEMPORARY", "secret").with_session_token("token");
    server.set_key(key().expiring_at(SystemTime::now() + Duration::from_secs(3600)));
    let without = client_with_key(&server, "TEMPORARY", "secret");
    assert_eq!(outcome(put(&without, "key", "hello").send().await), "InvalidToken");
    let credentials = Credentials::new("TEMPORARY", "secret", Some("token".to_owned()), None, "test");
    let config = config(&server, "", "").credentials_provider(SharedCredentialsProvider::new(credentials));
    let with = Client::from_conf(config.build());
    assert_eq!(outcome(put(&with, "key", "hello").send().await), "ok");
    server.set_key(key().expiring_at(SystemTime::now()));
    assert_eq!(outcome(put(&with, "key", "hello").send().await), "ExpiredToken");
}

#[tokio::test]
async fn a_clock_that_is_an_hour_off_is_refused_with_the_date_to_correct_it() {
    let server = S3Server::start();
    server.set_clock_offset(3600);
    let refused = put(&client(&server), "key", "hello").send().await.expect_err("refused");
    let date = refused.raw_response().and_then(|response| response.headers().get("date").map(str::to_owned));
    let date = jiff::fmt::rfc2822::parse(&date.expect("the answer has a date")).expect("it is a date");
    let ahead = date.timestamp().duration_since(jiff::Timestamp::now());
    assert!((3500..3700).contains(&ahead.as_secs()), "{ahead:?}");
    assert_eq!(outcome::<(), _, _>(Err(refused)), "RequestTimeTooSkewed");
    assert!(server.keys(BUCKET).is_empty());
    let config = config(&server, ACCESS_KEY, SECRET_KEY);
    let retrying = Client::from_conf(config.retry_config(aws_sdk_s3::config::retry::RetryConfig::standard()).build());
    assert_eq!(outcome(put(&retrying, "key", "hello").send().await), "ok");
}

#[tokio::test]
async fn a_store_with_a_region_wants_requests_for_that_region() {
    let server = S3Server::builder().region("eu-central-1").start();
    assert_eq!(outcome(put(&client(&server), "key", "hello").send().await), "AuthorizationHeaderMalformed");
    let config = config(&server, ACCESS_KEY, SECRET_KEY).region(Region::new("eu-central-1"));
    assert_eq!(outcome(put(&Client::from_conf(config.build()), "key", "hello").send().await), "ok");
}
