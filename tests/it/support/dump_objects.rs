//! Dumps as they lie in a bucket, put there directly: of any time and in any state, without waiting for one.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use super::sandbox::{Endpoint, Program, Sandbox};

/// The files that each dump has beside `metadata` and the manifest.
pub const FILES: [&str; 3] = ["shop-schema-create.sql", "shop.t-schema.sql", "shop.t.00000.sql"];

/// How the program reaches a server's first bucket.
pub fn endpoint(server: &S3Server) -> Endpoint {
    Endpoint {
        url: server.endpoint(),
        bucket: BUCKET.to_owned(),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
    }
}

/// A bucket of a strict server, and a place to run the program in.
pub struct Vault {
    pub server: S3Server,
    pub sandbox: Sandbox,
}

impl Vault {
    pub fn new() -> Self {
        Vault { server: S3Server::start(), sandbox: Sandbox::new() }
    }

    /// A subcommand on the bucket.
    pub fn command(&self, name: &str) -> Program<'_> {
        self.sandbox.mydumper2s3().args([name, "--bucket", BUCKET]).connect_to(&endpoint(&self.server))
    }

    pub fn put(&self, key: &str, bytes: &str) {
        self.server.put_directly(BUCKET, key, bytes.as_bytes());
    }

    pub fn keys(&self) -> Vec<String> {
        self.server.keys(BUCKET)
    }

    /// The keys in a directory and below it.
    pub fn keys_under(&self, prefix: &str) -> Vec<String> {
        let directory = format!("{prefix}/");
        self.keys().into_iter().filter(|key| key.starts_with(&directory)).collect()
    }

    /// A whole dump.
    pub fn put_complete(&self, prefix: &str, started: &str) {
        self.put_dump(prefix, started, "complete");
    }

    /// A dump whose manifest has this state. Only a complete one has `metadata`, and one on its way names no files.
    pub fn put_dump(&self, prefix: &str, started: &str, state: &str) {
        self.put_dump_that_says(prefix, started, state, &json!({}));
    }

    /// The same with these fields in its manifest.
    pub fn put_dump_that_says(&self, prefix: &str, started: &str, state: &str, more: &Value) {
        let started: Timestamp = started.parse().expect("a time");
        let key = |name: &str| format!("{prefix}/{name}");
        let mut names = FILES.to_vec();
        if state == "complete" {
            names.push("metadata");
        }
        let mut files = Vec::new();
        for name in names {
            let stored = self.server.put_directly(BUCKET, &key(name), name.as_bytes());
            files.push(json!({
                "name": name, "kind": "data", "size": name.len(), "database": "shop", "table": "t",
                "md5": stored.etag, "etag": stored.etag, "proof": "etag-md5",
            }));
        }
        if state == "uploading" {
            files.clear();
        }
        let mut manifest = json!({
            "format": 1, "state": state, "reason": (state == "incomplete").then_some("mydumper's exit status was 1"),
            "identity": {"host": "db1", "started": started.to_string(), "inode": 7}, "dump_id": started.to_string(),
            "started": started, "finished": (state != "uploading").then(|| started + SignedDuration::from_secs(90)),
            "dumper_exit": {"status": 0, "seen": "child"}, "directory": "/backup", "closed_by": "lease",
            "version": "0.1.0", "total_files": files.len(), "total_bytes": 1, "files": files,
        });
        let more = more.as_object().expect("fields").clone();
        manifest.as_object_mut().expect("fields").extend(more);
        self.put(&key("mydumper2s3.json"), &manifest.to_string());
    }
}
