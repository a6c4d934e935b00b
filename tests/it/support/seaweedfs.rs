//! SeaweedFS: a real S3 server, one for all tests of this process, and a bucket for each test.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;

use super::background::{Server, find_program, free_ports};
use super::bucket::Bucket;
use super::sandbox::Endpoint;

/// It takes 2 s on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Somebody who may ask the store for something.
pub struct Identity {
    name: &'static str,
    pub access_key: &'static str,
    pub secret_key: &'static str,
    /// SeaweedFS' words; `Read:bucket` is for that bucket only.
    actions: &'static [&'static str],
}

/// May do all.
pub const ADMIN: Identity = Identity {
    name: "admin",
    access_key: "ADMINACCESSKEY000000",
    secret_key: "admin/secret+key",
    actions: &["Admin", "Read", "List", "Tagging", "Write"],
};

/// May read and list every bucket, and change nothing.
pub const READER: Identity = Identity {
    name: "reader",
    access_key: "READERACCESSKEY00000",
    secret_key: "reader/secret+key",
    actions: &["Read", "List"],
};

/// May use the bucket [`TENANT_BUCKET`], and no other one.
pub const TENANT: Identity = Identity {
    name: "tenant",
    access_key: "TENANTACCESSKEY00000",
    secret_key: "tenant/secret+key",
    actions: &["Read:tenant-bucket", "List:tenant-bucket", "Tagging:tenant-bucket", "Write:tenant-bucket"],
};

/// Shared by the tests that come as [`TENANT`]: they need a prefix each.
pub const TENANT_BUCKET: &str = "tenant-bucket";

pub struct SeaweedFs {
    server: Server,
    url: String,
}

impl SeaweedFs {
    /// The server of this test process; the first who asks starts it.
    pub fn shared() -> &'static SeaweedFs {
        static SERVER: OnceLock<SeaweedFs> = OnceLock::new();
        SERVER.get_or_init(SeaweedFs::start)
    }

    /// A new bucket, as the administrator sees it. `name` must be unlike those of the other tests.
    #[track_caller]
    pub fn bucket(&self, name: &str) -> Bucket {
        self.server.assert_running();
        let bucket = Bucket::new(self.endpoint(name, &ADMIN));
        bucket.create();
        bucket
    }

    /// How somebody reaches a bucket, whether or not it exists.
    pub fn endpoint(&self, bucket: &str, identity: &Identity) -> Endpoint {
        Endpoint {
            url: self.url.clone(),
            bucket: bucket.to_owned(),
            access_key: identity.access_key.to_owned(),
            secret_key: identity.secret_key.to_owned(),
        }
    }

    fn start() -> SeaweedFs {
        // Somebody else may get a port between our choice and its use.
        for _ in 0..2 {
            if let Ok(server) = SeaweedFs::try_start() {
                return server;
            }
        }
        SeaweedFs::try_start().unwrap_or_else(|log| panic!("SeaweedFS does not start:\n{log}"))
    }

    fn try_start() -> Result<SeaweedFs, String> {
        let weed = find_program("weed", "WEED");
        let dir = Server::directory("seaweedfs");
        write_identities(&dir.join("identities.json"));
        let [s3, rest @ ..] = free_ports::<11>();
        let mut line = vec![weed.into_os_string(), "mini".into()];
        line.extend(options(&dir, s3, rest).into_iter().map(Into::into));
        let server = Server::start("SeaweedFS", dir, &line, &sockets(s3, rest));
        let seaweedfs = SeaweedFs { server, url: format!("http://127.0.0.1:{s3}") };
        seaweedfs.wait_until_ready()?;
        Ok(seaweedfs)
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let bucket = Bucket::new(self.endpoint(TENANT_BUCKET, &ADMIN));
        let deadline = Instant::now() + START_PATIENCE;
        while !bucket.answers() {
            if !self.server.is_running() || Instant::now() > deadline {
                return Err(self.server.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn options(dir: &Path, s3: u16, ports: [u16; 10]) -> Vec<String> {
    const PORT_OPTIONS: [&str; 10] = [
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port.grpc",
        "admin.port",
        "admin.port.grpc",
        "metricsPort",
    ];
    let mut options = vec![
        format!("-dir={}", dir.join("data").display()),
        format!("-s3.config={}", dir.join("identities.json").display()),
        format!("-bucket={TENANT_BUCKET}"),
        format!("-s3.port={s3}"),
    ];
    options.extend(PORT_OPTIONS.iter().zip(ports).map(|(name, port)| format!("-{name}={port}")));
    let fixed = [
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
    ];
    options.extend(fixed.map(str::to_owned));
    options
}

/// Where the parts of the server talk to each other: no option moves these out of `/tmp`.
fn sockets(s3: u16, ports: [u16; 10]) -> String {
    let socket = |port: u16| format!("/tmp/seaweedfs-*-{port}.sock ");
    ports.into_iter().chain([s3]).map(socket).collect()
}

fn write_identities(path: &Path) {
    let identity = |identity: &Identity| {
        json!({
            "name": identity.name,
            "credentials": [
                { "accessKey": identity.access_key, "secretKey": identity.secret_key },
            ],
            "actions": identity.actions,
        })
    };
    let identities = [&ADMIN, &READER, &TENANT].map(identity);
    let identities = json!({ "identities": identities });
    let dir = path.parent().expect("the server's directory");
    std::fs::create_dir(dir.join("data")).expect("a directory for the objects");
    std::fs::write(path, identities.to_string()).expect("the identities");
}
