//! A dump that the real program brought into a bucket of the strict server: what verify and restore begin with.

use std::collections::BTreeMap;
use std::path::Path;

use super::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use super::sandbox::{Endpoint, Finished, Program, Sandbox};

/// Where the dump goes, unless a test says otherwise.
pub const PREFIX: &str = "db1/night";

/// Free text, as 0.10.1 writes it.
pub const METADATA: &str = "Started dump at: 2026-11-22 02:00:01\nSHOW MASTER STATUS:\n\tLog: binlog.000001\n\tPos: 343\n\
                            \nFinished dump at: 2026-11-22 02:00:09\n";

pub struct StoredDump {
    pub server: S3Server,
    pub sandbox: Sandbox,
    /// What was dumped.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl StoredDump {
    /// An empty bucket, and nothing dumped yet.
    pub fn none() -> Self {
        StoredDump { server: S3Server::start(), sandbox: Sandbox::new(), files: BTreeMap::new() }
    }

    /// A database with two tables, one of them in a file that goes up in parts; uploaded, and gone locally.
    #[track_caller]
    pub fn new() -> Self {
        let mut dump = StoredDump::none();
        dump.dump("shop-schema-create.sql", "CREATE DATABASE `shop`;\n");
        dump.dump("shop.orders-schema.sql", "CREATE TABLE `orders` (id INT);\n");
        dump.dump("shop.orders.sql", bytes(12 << 20));
        dump.dump("shop.people-schema.sql", "CREATE TABLE `people` (id INT);\n");
        dump.dump("shop.people.sql", "INSERT INTO `people` VALUES (1);\n");
        dump.dump("metadata", METADATA);
        dump.upload().assert_status(0);
        dump
    }

    /// A file of a finished dump.
    pub fn dump(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        self.sandbox.put_local(name, &bytes);
        self.files.insert(name.to_owned(), bytes.as_ref().to_vec());
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: self.server.endpoint(),
            bucket: BUCKET.to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
        }
    }

    /// Brings what was dumped to [`PREFIX`], in parts of 5 MiB.
    #[track_caller]
    pub fn upload(&self) -> Finished {
        self.upload_to(PREFIX).run()
    }

    pub fn upload_to(&self, prefix: &str) -> Program<'_> {
        let program = self.sandbox.mydumper2s3().upload_to(&self.endpoint());
        program.args(["--prefix", prefix, "--part-size", "5MiB", "--settle", "0", "--wait", "5"])
    }

    /// A command about the dump at [`PREFIX`].
    pub fn command(&self, command: &str) -> Program<'_> {
        self.command_at(command, PREFIX)
    }

    pub fn command_at(&self, command: &str, prefix: &str) -> Program<'_> {
        self.command_on_bucket(command).args(["--prefix", prefix])
    }

    /// A command about the bucket, of no dump yet.
    pub fn command_on_bucket(&self, command: &str) -> Program<'_> {
        self.sandbox.mydumper2s3().args([command, "--bucket", BUCKET]).connect_to(&self.endpoint())
    }

    /// The key of a file.
    pub fn key(&self, name: &str) -> String {
        format!("{PREFIX}/{name}")
    }

    pub fn corrupt(&self, name: &str) {
        self.server.corrupt(BUCKET, &self.key(name));
    }

    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.server.put_directly(BUCKET, &self.key(name), bytes.as_ref());
    }

    pub fn remove(&self, name: &str) {
        self.server.remove_directly(BUCKET, &self.key(name));
    }

    /// Writes the dump's files into a directory, as they were.
    #[track_caller]
    pub fn write_files(&self, dir: &Path) {
        std::fs::create_dir_all(dir).expect("a directory");
        for (name, bytes) in &self.files {
            std::fs::write(dir.join(name), bytes).expect("a file of the dump");
        }
    }
}

/// Bytes that do not repeat, so that no two parts are the same.
pub fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32 / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}
