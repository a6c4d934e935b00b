//! Who tells the credentials of a role may be away for the moment, like a store; who refuses them is a wrong setting.

use rustix::process::Signal;

use crate::settings::small_dump;
use crate::support::fake_dumper::{FakeDumper, Generation};
use crate::support::role_agent::{Mood, RoleAgent};
use crate::support::s3_server::{BUCKET, S3Server};
use crate::support::sandbox::Program;
use crate::support::stage::Stage;
use crate::support::tls_front::TlsFront;

const AWAY: &str = "credentials cannot be had for the moment";

/// The main job of a machine that has a role and no keys.
fn upload<'a>(stage: &'a Stage, agent: &RoleAgent, source: Source) -> Program<'a> {
    agent.is_trusted_by(&stage.server);
    let upload = stage.upload().without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY");
    source.of(upload, stage, agent)
}

/// From where the credentials come.
#[derive(Clone, Copy, Debug)]
enum Source {
    Container,
    Machine,
    Sts,
}

impl Source {
    fn of<'a>(self, upload: Program<'a>, stage: &Stage, agent: &RoleAgent) -> Program<'a> {
        match self {
            Source::Container => {
                upload.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/role/creds", agent.url()))
            }
            Source::Machine => {
                let upload = upload.env("AWS_EC2_METADATA_DISABLED", "false");
                upload.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", agent.url())
            }
            Source::Sts => {
                let token = stage.sandbox.path("token");
                std::fs::write(&token, "eyJ").expect("a token");
                let upload = upload.env("AWS_WEB_IDENTITY_TOKEN_FILE", token).env("AWS_REGION", "us-east-1");
                let upload = upload.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup");
                upload.env("AWS_ENDPOINT_URL_STS", agent.url())
            }
        }
    }
}

/// "A hiccup costs the night": not that of who tells the credentials either.
#[test]
fn who_tells_the_credentials_is_waited_for_at_the_start() {
    let outages = [
        (Source::Container, Mood::Answers(503)),
        (Source::Container, Mood::Answers(429)),
        (Source::Container, Mood::Cuts),
        (Source::Machine, Mood::Answers(500)),
        (Source::Sts, Mood::Answers(503)),
        (Source::Sts, Mood::Cuts),
    ];
    std::thread::scope(|scope| {
        for (source, mood) in outages {
            scope.spawn(move || {
                let (stage, agent) = (Stage::new(), RoleAgent::start(mood));
                let mut run = upload(&stage, &agent, source).args(["--", "mydumper", "-B", "shop"]).start();
                let line = run.wait_for_line(AWAY);
                assert!(line.contains("will be retried") && line.contains(&agent.host()), "{source:?}: {line}");
                assert!(!run.text_so_far().contains("started mydumper"));
                agent.become_one_that(Mood::Tells);
                let mut dumper = FakeDumper::accept(&stage.sandbox);
                dumper.begin(Generation::V1_0);
                dumper.file("shop.t.00000.sql", 10_000);
                dumper.finish_and_exit();
                run.finish().assert_status(0).assert_says("credentials can be had again after");
                stage.assert_whole(&dumper);
            });
        }
    });
}

/// The program that a profile names says why it has none: so much can be told from its words.
#[test]
fn a_credential_process_that_is_out_of_reach_is_waited_for() {
    let stage = Stage::new();
    let (config, there) = (stage.sandbox.path("config"), stage.sandbox.path("there"));
    let endpoint = stage.endpoint();
    let told = format!(
        r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}"}}"#,
        endpoint.access_key, endpoint.secret_key
    );
    let program = stage.sandbox.path("tell");
    let script = |otherwise: &str| {
        let there = there.display();
        let text = format!("if [ -e '{there}' ]; then cat '{there}'; else echo '{otherwise}' >&2; exit 1; fi\n");
        std::fs::write(&program, text).expect("a program");
    };
    std::fs::write(&config, format!("[default]\ncredential_process = sh {}\n", program.display())).expect("a profile");
    let dumper = small_dump(&stage);
    let upload = || {
        let upload = stage.upload().without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY");
        upload.env("AWS_CONFIG_FILE", &config)
    };
    script("no such account");
    upload().run().assert_status(2).assert_says("no such account").assert_does_not_say("will be retried");
    script("vault: connection refused");
    let mut run = upload().start();
    assert!(run.wait_for_line(AWAY).contains("the credential_process"));
    std::fs::write(there.with_extension("new"), told).expect("credentials");
    std::fs::rename(there.with_extension("new"), &there).expect("credentials that can be told");
    run.finish().assert_status(0);
    stage.assert_whole(&dumper);
}

/// While the dump lives there is no end to the patience, and files wait locally.
#[test]
fn who_tells_the_credentials_is_waited_for_while_the_dump_lives() {
    for mood in [Mood::Answers(503), Mood::Answers(403), Mood::Cuts] {
        let (stage, agent) = (Stage::new(), RoleAgent::start(Mood::Tells));
        let mut run = upload(&stage, &agent, Source::Container).args(["--retry-for", "1m"]).start();
        let mut dumper = FakeDumper::start(&stage.sandbox, Generation::V1_0);
        run.wait_for_line("claimed");
        agent.become_one_that(mood);
        dumper.file("shop.t.00000.sql", 10_000);
        run.wait_for_line("files wait locally (will be retried)");
        dumper.finish_and_exit();
        assert!(stage.sandbox.local_files().contains_key("shop.t.00000.sql"));
        agent.become_one_that(Mood::Tells);
        let finished = run.finish().assert_status(0);
        assert_eq!(finished.text().matches("files wait locally").count(), 1, "{finished:?}");
        stage.assert_whole(&dumper);
    }
}

/// In the end it is a failure and no wrong setting, mydumper was never started, and a stop ends the wait at once.
#[test]
fn who_tells_the_credentials_and_stays_away_is_status_1() {
    let (stage, agent) = (Stage::new(), RoleAgent::start(Mood::Answers(503)));
    let upload = |patience| {
        let upload = upload(&stage, &agent, Source::Container).args(["--retry-for", patience]);
        upload.args(["--", "mydumper", "-B", "shop"])
    };
    let gave_up = upload("1s").run().assert_status(1).assert_says("cannot find credentials");
    gave_up.assert_says("nothing was begun").assert_does_not_say("started mydumper");
    let mut run = upload("1h").start();
    run.wait_for_line(AWAY);
    run.signal(Signal::TERM);
    run.finish().assert_status(143);
    let list = stage.sandbox.mydumper2s3().args(["list", "--bucket", BUCKET]).connect_to(&stage.endpoint());
    let list = list.without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY");
    Source::Container.of(list, &stage, &agent).run().assert_status(1).assert_says("cannot find credentials");
    assert_eq!(stage.server.requests().len(), 0);
}

/// "A wrong setting fails at once": who refuses, a profile that is none, and nothing at all.
#[test]
fn credentials_that_are_refused_or_nowhere_are_a_wrong_setting() {
    let (stage, agent) = (Stage::new(), RoleAgent::start(Mood::Answers(403)));
    small_dump(&stage);
    for source in [Source::Container, Source::Machine, Source::Sts] {
        let refused = upload(&stage, &agent, source).run().assert_status(2);
        refused.assert_says("cannot find credentials").assert_does_not_say("will be retried");
    }
    let upload = || stage.upload().without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY");
    upload().args(["--profile", "nobody"]).run().assert_status(2).assert_does_not_say("will be retried");
    upload().run().assert_status(2).assert_does_not_say("will be retried");
    let malformed = upload().env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://[").run().assert_status(2);
    malformed.assert_does_not_say("will be retried");
    assert_eq!(stage.server.requests().len(), 0);
}

/// A proxy cannot reach the addresses at which a container is told its credentials. The store is behind TLS here, and for
/// that no proxy is set.
#[test]
fn role_credentials_are_asked_for_past_a_proxy() {
    let (stage, agent) = (Stage::new(), RoleAgent::start(Mood::Tells));
    let dumper = small_dump(&stage);
    agent.is_trusted_by(&stage.server);
    let proxy = RoleAgent::start(Mood::Answers(403));
    let front = TlsFront::before(stage.server.port());
    let upload = stage.sandbox.mydumper2s3().arg("--dir").arg(stage.sandbox.dump_dir()).args(["--bucket", BUCKET]);
    let upload = upload.args(["--endpoint-url", &front.url("localhost"), "--path-style", "--ca-bundle"]);
    let upload = upload.arg(front.write_certificate(stage.sandbox.path("ca.pem"))).env("HTTP_PROXY", proxy.url());
    Source::Container.of(upload, &stage, &agent).run().assert_status(0);
    assert_eq!(proxy.requests(), [] as [String; 0]);
    stage.assert_whole(&dumper);
}

/// `AWS_ENDPOINT_URL` names the store; STS is asked at its own place, here through a proxy that has no way to it.
#[test]
fn sts_is_not_asked_at_the_endpoint_of_the_store() {
    let (stage, agent) = (Stage::new(), RoleAgent::start(Mood::Tells));
    small_dump(&stage);
    let proxy = RoleAgent::start(Mood::Answers(503));
    let store = S3Server::start();
    let upload = stage.sandbox.mydumper2s3().arg("--dir").arg(stage.sandbox.dump_dir()).args(["--bucket", BUCKET]);
    let upload = Source::Sts.of(upload, &stage, &agent).without_env("AWS_ENDPOINT_URL_STS");
    let upload = upload.env("AWS_ENDPOINT_URL", store.endpoint()).env("HTTPS_PROXY", proxy.url());
    let away = upload.args(["--retry-for", "1s"]).run().assert_status(1).assert_says("sts.us-east-1.amazonaws.com");
    away.assert_says("cannot find credentials");
    assert!(proxy.requests().iter().all(|line| line.starts_with("CONNECT sts.us-east-1.amazonaws.com:443")));
    assert!(!proxy.requests().is_empty() && store.requests().is_empty());
}
