//! How the store is reached: endpoint, region, credentials, and the rights to look.

use crate::settings::small_dump;
use crate::support::s3_server::{BUCKET, Fault, Operation, S3Server};
use crate::support::sandbox::Endpoint;
use crate::support::stage::Stage;

#[test]
fn a_bucket_in_another_region_is_a_wrong_setting() {
    let stage = Stage::with(S3Server::builder().region("eu-central-1").start());
    let dumper = small_dump(&stage);
    stage.upload().run().assert_status(2).assert_says("hint:").assert_says("set --region eu-central-1");
    stage.upload().args(["--region", "eu-central-1"]).run().assert_status(0);
    stage.assert_whole(&dumper);

    let stage = Stage::new();
    stage.server.inject(Fault::permanent_redirect("eu-central-1"));
    small_dump(&stage);
    stage.upload().run().assert_status(2).assert_says("--region eu-central-1");
}

#[test]
fn credentials_come_from_where_all_aws_programs_find_them() {
    let stage = Stage::new();
    let dumper = small_dump(&stage);
    let file = stage.sandbox.path("credentials");
    let endpoint = stage.endpoint();
    let text = format!(
        "[backup]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        endpoint.access_key, endpoint.secret_key
    );
    std::fs::write(&file, text).expect("a credentials file");
    let upload = || {
        let upload = stage.upload().without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY");
        upload.env("AWS_SHARED_CREDENTIALS_FILE", &file)
    };
    upload().run().assert_status(2).assert_says("cannot find credentials");
    let finished = upload().args(["--profile", "backup"]).run().assert_status(0);
    finished.assert_does_not_say(&endpoint.secret_key);
    stage.assert_whole(&dumper);
}

/// Credentials and regions come out of mounted secrets, and these end in a line break.
#[test]
fn credentials_that_end_in_a_line_break_are_trimmed_and_others_refused_by_name() {
    let stage = Stage::new();
    let dumper = small_dump(&stage);
    let Endpoint { access_key, secret_key, .. } = stage.endpoint();
    let upload = |key: &str, secret: &str, region: &str| {
        let upload = stage.upload().env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret);
        upload.env("AWS_REGION", region).run()
    };
    let (inner_key, inner_secret) = (format!("{access_key}\nx"), format!("hunter\u{e9}{secret_key}"));
    upload(&inner_key, &secret_key, "us-east-1").assert_status(2).assert_says("the access key id that was found has");
    let refused = upload(&access_key, &inner_secret, "us-east-1").assert_status(2);
    refused.assert_says("the secret access key that was found has").assert_does_not_say("hunter");
    upload(&access_key, &secret_key, "us east").assert_status(2).assert_says("'us east' cannot be a region");
    upload(&format!("{access_key}\n"), &format!("{secret_key}\r\n"), "us-east-1\n").assert_status(0);
    stage.assert_whole(&dumper);
}

/// A store behind a path, as several hosted ones are: the bucket comes after it, and never into the host's name.
#[test]
fn an_endpoint_may_have_a_path() {
    let stage = Stage::new();
    let url = format!("{}/storage/v1/s3", stage.endpoint().url);
    let endpoint = stage.endpoint();
    let list = |url: &str| {
        let list = stage.sandbox.mydumper2s3().args(["list", "--bucket", BUCKET, "--endpoint-url", url]);
        list.env("AWS_ACCESS_KEY_ID", &endpoint.access_key).env("AWS_SECRET_ACCESS_KEY", &endpoint.secret_key).run()
    };
    list(&url);
    let request = &stage.server.requests()[0];
    assert_eq!((request.bucket.as_str(), request.key.as_str()), ("storage", format!("v1/s3/{BUCKET}/").as_str()));
    let before = stage.server.requests().len();
    let refused = list(&format!("{}/{BUCKET}", endpoint.url)).assert_status(2);
    refused.assert_says(&format!("leave the bucket out: {}\n", endpoint.url));
    assert_eq!(stage.server.requests().len(), before);
}

/// The endpoint of S3 alone, from the environment and from a profile: found, and warned of like any other.
#[test]
fn the_endpoint_of_s3_alone_is_taken() {
    let stage = Stage::new();
    let endpoint = stage.endpoint();
    let list = || {
        let list = stage.sandbox.mydumper2s3().args(["list", "--bucket", BUCKET]);
        list.env("AWS_ACCESS_KEY_ID", &endpoint.access_key).env("AWS_SECRET_ACCESS_KEY", &endpoint.secret_key)
    };
    list().env("AWS_ENDPOINT_URL_S3", &endpoint.url).run().assert_status(0);
    let config = stage.sandbox.path("config");
    let profile = format!("[default]\nservices = stores\n[services stores]\ns3 =\n  endpoint_url = {}\n", endpoint.url);
    std::fs::write(&config, profile).expect("a profile");
    list().env("AWS_CONFIG_FILE", &config).arg("--region").arg("us-east-1").run().assert_status(0);
    let asked = stage.server.count(Operation::ListObjectsV2);
    assert_eq!(asked, 2);
    let finished = list().env("AWS_ENDPOINT_URL_S3", "http://s3.invalid").args(["--region", "us-east-1"]).run();
    finished.assert_status(1).assert_says("crosses the network unencrypted");
}

/// Without it no local file could be given up: said before anything is begun.
#[test]
fn who_may_not_read_objects_is_told_at_the_start() {
    let stage = Stage::new();
    small_dump(&stage);
    let local = stage.sandbox.local_files();
    stage.server.inject(Fault::answer(403, "AccessDenied").on(Operation::HeadObject));
    let finished = stage.upload().run().assert_status(2);
    finished.assert_says("the permission s3:GetObject").assert_says("--write-only");
    assert_eq!((stage.sandbox.local_files(), stage.server.keys(BUCKET)), (local, Vec::new()));
}
