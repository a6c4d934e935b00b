//! The server of the tests is as strict as a real store.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, SharedCredentialsProvider,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use crate::support::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

const MIB: usize = 1024 * 1024;

fn client(server: &S3Server) -> Client {
    client_with_key(server, ACCESS_KEY, SECRET_KEY)
}

/// Without retries, so that each test sees each answer.
fn client_with_key(server: &S3Server, access_key: &str, secret_key: &str) -> Client {
    let credentials = Credentials::new(access_key, secret_key, None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(server.endpoint())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

fn code<T, E: ProvideErrorMetadata, R>(result: Result<T, SdkError<E, R>>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(SdkError::ServiceError(error)) => error.err().code().unwrap_or("no code").to_owned(),
        Err(_) => "no answer".to_owned(),
    }
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let server = S3Server::start();
    let client = client(&server);
    let put = client
        .put_object()
        .bucket(BUCKET)
        .key("a b/ü+.sql")
        .body(ByteStream::from_static(b"hello"))
        .send()
        .await;
    let put = put.expect("the object is put");
    assert_eq!(put.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    let got = client
        .get_object()
        .bucket(BUCKET)
        .key("a b/ü+.sql")
        .send()
        .await
        .expect("the object is there");
    assert_eq!(got.content_length(), Some(5));
    assert_eq!(
        got.body.collect().await.expect("the body comes").to_vec(),
        b"hello"
    );
    assert_eq!(server.keys(BUCKET), ["a b/ü+.sql"]);
}

#[tokio::test]
async fn a_body_that_is_not_what_content_md5_says_is_refused_and_not_stored() {
    let server = S3Server::start();
    server.put_directly(BUCKET, "key", b"old");
    let client = client(&server);
    let put = || {
        client
            .put_object()
            .bucket(BUCKET)
            .key("key")
            .body(ByteStream::from_static(b"hello"))
    };
    assert_eq!(
        code(put().content_md5("MTIzNDU2Nzg5MDEyMzQ1Ng==").send().await),
        "BadDigest"
    );
    assert_eq!(
        code(
            put()
                .content_md5("5d41402abc4b2a76b9719d911017c592")
                .send()
                .await
        ),
        "InvalidDigest"
    );
    assert_eq!(
        server.object(BUCKET, "key").expect("it was there").bytes(),
        b"old"
    );
    assert_eq!(
        code(put().content_md5("XUFAKrxLKna5cZ2REBfFkg==").send().await),
        "ok"
    );
    assert_eq!(
        server.object(BUCKET, "key").expect("it is there").bytes(),
        b"hello"
    );
}

#[tokio::test]
async fn the_etag_of_a_multipart_object_is_composite() {
    let server = S3Server::start();
    let client = client(&server);
    let upload = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key("big")
        .send()
        .await
        .expect("created");
    let id = upload.upload_id().expect("an id").to_owned();
    let mut parts = Vec::new();
    for (number, body) in [(1, vec![b'a'; 5 * MIB]), (2, vec![b'b'; 3])] {
        let part = client
            .upload_part()
            .bucket(BUCKET)
            .key("big")
            .upload_id(&id)
            .part_number(number)
            .body(body.into());
        let part = part.send().await.expect("the part is stored");
        parts.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(part.e_tag)
                .build(),
        );
    }
    let upload = CompletedMultipartUpload::builder()
        .set_parts(Some(parts))
        .build();
    let done = client
        .complete_multipart_upload()
        .bucket(BUCKET)
        .key("big")
        .upload_id(&id)
        .multipart_upload(upload);
    let done = done.send().await.expect("completed");
    // md5(md5("a" * 5 MiB) + md5("bbb")), as another program computes it.
    assert_eq!(done.e_tag(), Some("\"06a6ca67e53064f3f30a42ee29a62f5d-2\""));
    assert_eq!(
        server.object(BUCKET, "big").expect("stored").size,
        5 * MIB as u64 + 3
    );
    assert!(server.open_multipart_uploads(BUCKET).is_empty());
}
