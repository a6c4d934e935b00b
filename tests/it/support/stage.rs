//! Where most stories play: a sandbox, and a strict S3 server beside it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::dir_watch::DirWatch;
use super::fake_dumper::FakeDumper;
use super::s3_server::{ACCESS_KEY, BUCKET, LoggedRequest, Operation, S3Server, SECRET_KEY};
use super::sandbox::{Endpoint, Program, Sandbox, eventually};

/// The object of ours beside the dump's.
pub const MANIFEST: &str = "mydumper2s3.json";

pub struct Stage {
    pub sandbox: Sandbox,
    pub server: S3Server,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(S3Server::start())
    }

    pub fn with(server: S3Server) -> Self {
        Stage { sandbox: Sandbox::new(), server }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: self.server.endpoint(),
            bucket: BUCKET.to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
        }
    }

    /// The main job, in a hurry.
    pub fn upload(&self) -> Program<'_> {
        self.upload_with_defaults().args(["--interval", "0.1", "--settle", "0.2"])
    }

    /// The main job as it is typed.
    pub fn upload_with_defaults(&self) -> Program<'_> {
        let program = self.sandbox.mydumper2s3().arg("--dir").arg(self.sandbox.dump_dir());
        program.args(["--bucket", BUCKET]).connect_to(&self.endpoint())
    }

    /// A subcommand on the bucket.
    pub fn command(&self, name: &str) -> Program<'_> {
        self.sandbox.mydumper2s3().args([name, "--bucket", BUCKET]).connect_to(&self.endpoint())
    }

    /// The prefixes that somebody claimed, sorted.
    pub fn prefixes(&self) -> Vec<String> {
        let manifest = format!("/{MANIFEST}");
        let keys = self.server.keys(BUCKET);
        keys.iter().filter_map(|key| key.strip_suffix(&manifest).map(str::to_owned)).collect()
    }

    /// The prefix of a story with one dump.
    #[track_caller]
    pub fn prefix(&self) -> String {
        let mut prefixes = self.prefixes();
        assert_eq!(prefixes.len(), 1, "{prefixes:?}");
        prefixes.remove(0)
    }

    /// The files of a dump in the bucket, without the manifest.
    #[track_caller]
    pub fn files(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let directory = format!("{prefix}/");
        let keys = self.server.keys(BUCKET).into_iter();
        let mut files: BTreeMap<_, _> = keys
            .filter_map(|key| Some((key.strip_prefix(&directory)?.to_owned(), self.bytes(&key))))
            .filter(|(name, _)| !name.contains('/'))
            .collect();
        files.remove(MANIFEST);
        files
    }

    /// The names of a story's one dump in the bucket, without the manifest.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        self.files(&self.prefix()).into_keys().collect()
    }

    #[track_caller]
    pub fn manifest(&self) -> Value {
        self.manifest_of(&self.prefix())
    }

    #[track_caller]
    pub fn manifest_of(&self, prefix: &str) -> Value {
        serde_json::from_slice(&self.bytes(&format!("{prefix}/{MANIFEST}"))).expect("a manifest in JSON")
    }

    #[track_caller]
    fn bytes(&self, key: &str) -> Vec<u8> {
        self.server.object(BUCKET, key).unwrap_or_else(|| panic!("there is no {key}")).bytes()
    }

    /// Whether the bucket has a file of that name, in whatever dump.
    pub fn has(&self, name: &str) -> bool {
        let end = format!("/{name}");
        self.server.keys(BUCKET).iter().any(|key| key.ends_with(&end))
    }

    #[track_caller]
    pub fn wait_for(&self, name: &str) {
        eventually(&format!("{name} is in the bucket"), || self.has(name));
    }

    /// Waits until the file is in the bucket, and is here no more.
    #[track_caller]
    pub fn wait_until_moved(&self, name: &str) {
        self.wait_for(name);
        let local = self.sandbox.dump_dir().join(name);
        eventually(&format!("{name} is removed here"), || !local.exists());
    }

    /// Some more looks at the directory, each long enough after the last for a file to settle: whatever is ready by
    /// then is on its way.
    #[track_caller]
    pub fn let_looks_pass(&self) {
        // In a look the directory is opened up to three times; looks are a tenth of a second apart, and a file settles
        // in two.
        DirWatch::on(&self.sandbox.dump_dir()).wait_for_opens(15);
    }

    /// The requests that put bytes under that name: PUTs, parts, and the beginnings of multipart uploads.
    pub fn uploads_of(&self, name: &str) -> Vec<LoggedRequest> {
        let writes = [Operation::PutObject, Operation::CreateMultipartUpload, Operation::UploadPart];
        let end = format!("/{name}");
        let mut requests = self.server.requests();
        requests.retain(|request| writes.contains(&request.operation) && request.key.ends_with(&end));
        requests
    }

    /// The bucket has one whole dump, and it is this one; here is nothing left of it.
    #[track_caller]
    pub fn assert_whole(&self, dumper: &FakeDumper) {
        self.assert_whole_at(&self.prefix(), dumper);
        self.sandbox.assert_local_names([] as [&str; 0]);
    }

    #[track_caller]
    pub fn assert_whole_at(&self, prefix: &str, dumper: &FakeDumper) {
        self.assert_committed_at(prefix, dumper);
        assert_eq!(self.server.open_multipart_uploads(BUCKET), []);
    }

    /// The same, where uploads may be left that nobody ended.
    #[track_caller]
    pub fn assert_committed_at(&self, prefix: &str, dumper: &FakeDumper) {
        let (there, wanted) = (self.files(prefix), dumper.files());
        assert!(there == wanted, "in the bucket {:?}, dumped {:?}", sizes(&there), sizes(&wanted));
        assert!(there.contains_key("metadata"));
        let manifest = self.manifest_of(prefix);
        assert_eq!(manifest["state"], "complete", "{manifest}");
        let listed = manifest["files"].as_array().expect("files in the manifest");
        let listed: Vec<_> = listed.iter().filter_map(|file| file["name"].as_str()).collect();
        assert_eq!(listed, wanted.keys().collect::<Vec<_>>(), "the manifest's files");
    }

    /// The bucket has one dump that is not committed, with these files.
    #[track_caller]
    pub fn assert_incomplete<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) {
        let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
        assert_eq!(self.names(), names, "the files in the bucket");
        let manifest = self.manifest();
        assert_eq!(manifest["state"], "incomplete", "{manifest}");
        assert!(manifest["reason"].is_string(), "{manifest}");
    }
}

fn sizes(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<&str, usize> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.len())).collect()
}
