//! A look into a bucket from outside the program: what is really there, through a client of our own.

use std::collections::BTreeMap;
use std::path::Path;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use tokio::runtime::Runtime;

use super::sandbox::Endpoint;

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub bytes: u64,
    /// Without its quotes.
    pub etag: String,
}

/// The calls block; they are for tests that are not asynchronous themselves.
pub struct Bucket {
    pub endpoint: Endpoint,
    client: Client,
    runtime: Runtime,
}

impl Bucket {
    pub fn new(endpoint: Endpoint) -> Self {
        let credentials = Credentials::new(&endpoint.access_key, &endpoint.secret_key, None, None, "the test");
        let http = aws_smithy_http_client::Builder::new().build_http();
        let settings = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(credentials)
            .endpoint_url(&endpoint.url)
            .force_path_style(true)
            .http_client(http)
            .region(Region::from_static("us-east-1"))
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Bucket { endpoint, client: Client::from_conf(settings), runtime }
    }

    /// The same bucket, asked by somebody else.
    pub fn asked_with(&self, access_key: &str, secret_key: &str) -> Bucket {
        Bucket::new(Endpoint {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            ..self.endpoint.clone()
        })
    }

    #[track_caller]
    pub fn create(&self) {
        let request = self.client.create_bucket().bucket(&self.endpoint.bucket);
        self.expect("create the bucket", self.runtime.block_on(request.send()));
    }

    /// Whether the store is up and lets us in.
    pub fn answers(&self) -> bool {
        let request = self.client.head_bucket().bucket(&self.endpoint.bucket);
        self.runtime.block_on(request.send()).is_ok()
    }

    /// Every object whose key begins with `prefix`, by its key.
    #[track_caller]
    pub fn objects(&self, prefix: &str) -> BTreeMap<String, Object> {
        let mut objects = BTreeMap::new();
        let request = self.client.list_objects_v2().bucket(&self.endpoint.bucket).prefix(prefix);
        let mut pages = request.into_paginator().send();
        while let Some(page) = self.runtime.block_on(pages.next()) {
            for object in self.expect("list", page).contents() {
                let bytes = object.size().unwrap_or_default() as u64;
                let etag = object.e_tag().unwrap_or_default().trim_matches('"').to_owned();
                objects.insert(object.key().unwrap_or_default().to_owned(), Object { bytes, etag });
            }
        }
        objects
    }

    #[track_caller]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.objects(prefix).into_keys().collect()
    }

    /// The bytes of an object; nothing where there is none.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let request = self.client.get_object().bucket(&self.endpoint.bucket).key(key);
        let answer = match self.runtime.block_on(request.send()) {
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => {
                return None;
            }
            answer => self.expect(key, answer),
        };
        let body = self.runtime.block_on(answer.body.collect());
        Some(body.unwrap_or_else(|error| panic!("the body of {key}: {error}")).to_vec())
    }

    #[track_caller]
    pub fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        let body = bytes.into().into();
        let request = self.client.put_object().bucket(&self.endpoint.bucket).key(key).body(body);
        self.expect(key, self.runtime.block_on(request.send()));
    }

    /// Whether we may put an object there.
    pub fn may_put(&self, key: &str) -> bool {
        let body = b"an attempt".to_vec().into();
        let request = self.client.put_object().bucket(&self.endpoint.bucket).key(key).body(body);
        self.runtime.block_on(request.send()).is_ok()
    }

    #[track_caller]
    pub fn delete(&self, key: &str) {
        let request = self.client.delete_object().bucket(&self.endpoint.bucket).key(key);
        self.expect(key, self.runtime.block_on(request.send()));
    }

    /// The keys of the multipart uploads that were begun and neither completed nor aborted.
    #[track_caller]
    pub fn open_uploads(&self) -> Vec<String> {
        let request = self.client.list_multipart_uploads().bucket(&self.endpoint.bucket);
        let answer = self.expect("list uploads", self.runtime.block_on(request.send()));
        answer.uploads().iter().filter_map(|upload| upload.key().map(str::to_owned)).collect()
    }

    /// Whether a part has come for any of them: then its id is written down at the uploader's.
    #[track_caller]
    pub fn has_open_parts(&self) -> bool {
        let bucket = &self.endpoint.bucket;
        let request = self.client.list_multipart_uploads().bucket(bucket);
        let uploads = self.expect("list uploads", self.runtime.block_on(request.send()));
        uploads.uploads().iter().any(|upload| {
            let (key, id) = (upload.key().unwrap_or_default(), upload.upload_id().unwrap_or_default());
            let request = self.client.list_parts().bucket(bucket).key(key).upload_id(id);
            // It may be ended just now.
            self.runtime.block_on(request.send()).is_ok_and(|parts| !parts.parts().is_empty())
        })
    }

    /// The objects directly in a prefix, by file name, as [`super::sandbox::Sandbox::local_files`] has them.
    #[track_caller]
    pub fn files(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let directory = format!("{prefix}/");
        let mut files = BTreeMap::new();
        for key in self.keys(&directory) {
            let name = &key[directory.len()..];
            if !name.contains('/') {
                files.insert(name.to_owned(), self.get(&key).expect("an object that was listed"));
            }
        }
        files
    }

    /// A plain download of a prefix, as anyone's tool would do it.
    #[track_caller]
    pub fn download(&self, prefix: &str, dir: &Path) {
        std::fs::create_dir_all(dir).expect("a directory for the download");
        for (name, bytes) in self.files(prefix) {
            std::fs::write(dir.join(name), bytes).expect("a downloaded file");
        }
    }

    #[track_caller]
    fn expect<T, E>(&self, what: &str, answer: Result<T, SdkError<E>>) -> T
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        answer.unwrap_or_else(|error| {
            let bucket = &self.endpoint.bucket;
            panic!("'{what}' in bucket {bucket}: {}", DisplayErrorContext(&error))
        })
    }
}
