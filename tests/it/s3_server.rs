//! The server of the tests is as strict as a real store, and its faults do what they say.
//! The client is `aws-sdk-s3` alone: nothing of the program under test.

mod access;
mod faults;
mod listing;
mod multipart;
mod strict;

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, SharedCredentialsProvider,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use crate::support::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

const MIB: usize = 1024 * 1024;

fn client(server: &S3Server) -> Client {
    Client::from_conf(config(server, ACCESS_KEY, SECRET_KEY).build())
}

/// Without retries, so that each test sees each answer; and with the request as plain as our program sends it.
fn config(server: &S3Server, access_key: &str, secret_key: &str) -> Builder {
    let credentials = Credentials::new(access_key, secret_key, None, None, "test");
    aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(server.endpoint())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(60)).build())
        .retry_config(RetryConfig::disabled())
}

fn put(client: &Client, key: &str, body: impl Into<Vec<u8>>) -> PutObjectFluentBuilder {
    client.put_object().bucket(BUCKET).key(key).body(body.into().into())
}

/// What came of a request: `ok`, the S3 error code, or `no answer`.
fn outcome<T, E: ProvideErrorMetadata, R>(result: Result<T, SdkError<E, R>>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(SdkError::ServiceError(error)) => error.err().code().unwrap_or("no code").to_owned(),
        Err(_) => "no answer".to_owned(),
    }
}

/// A multipart upload in the making.
struct Upload {
    client: Client,
    key: String,
    id: String,
    parts: Vec<CompletedPart>,
}

impl Upload {
    async fn begin(client: &Client, key: &str) -> Self {
        let created = client.create_multipart_upload().bucket(BUCKET).key(key).send().await;
        let id = created.expect("the upload is created").upload_id.expect("it has an id");
        Self { client: client.clone(), key: key.to_owned(), id, parts: Vec::new() }
    }

    async fn part(&mut self, number: i32, body: Vec<u8>) -> String {
        let sent = self.client.upload_part().bucket(BUCKET).key(&self.key).upload_id(&self.id);
        let sent = sent.part_number(number).body(body.into()).send().await;
        if let Ok(part) = &sent {
            self.name(number, part.e_tag().expect("a part has an ETag"));
        }
        outcome(sent)
    }

    fn name(&mut self, number: i32, etag: &str) {
        self.parts.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
    }

    fn complete(&self) -> CompleteMultipartUploadFluentBuilder {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let complete = self.client.complete_multipart_upload().bucket(BUCKET).key(&self.key);
        complete.upload_id(&self.id).multipart_upload(parts)
    }
}
