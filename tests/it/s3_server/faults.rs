//! Faults strike what they are meant for, as often as they are meant to, and do what they say.

use std::time::{Duration, Instant};

use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::{Client, Config};

use super::{ACCESS_KEY, BUCKET, MIB, S3Server, SECRET_KEY, Upload, client, config, outcome, put};
use crate::support::s3_server::{Fault, Operation};

async fn body(got: GetObjectOutput) -> Option<Vec<u8>> {
    got.body.collect().await.ok().map(|body| body.to_vec())
}

#[tokio::test]
async fn a_fault_strikes_only_what_it_matches_and_only_so_often() {
    let server = S3Server::start();
    let client = client(&server);
    let slow_down = Fault::answer(503, "SlowDown").on(Operation::PutObject).key("a").after(1).times(2);
    let fault = server.inject(slow_down);
    let mut outcomes = Vec::new();
    for key in ["a", "b", "a", "a", "a"] {
        outcomes.push(outcome(put(&client, key, "hello").send().await));
    }
    assert_eq!(outcomes, ["ok", "ok", "SlowDown", "SlowDown", "ok"]);
    assert_eq!(fault.hits(), 2);
    let statuses: Vec<_> = server.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [200, 200, 503, 503, 200].map(Some));
    assert_eq!(server.requests()[2].error_code.as_deref(), Some("SlowDown"));
}

#[tokio::test]
async fn a_fault_may_be_about_one_part_and_lasts_until_it_is_cleared() {
    let server = S3Server::start();
    let fault = server.inject(Fault::answer(400, "ExpiredToken").on(Operation::UploadPart).part(2));
    let mut upload = Upload::begin(&client(&server), "key").await;
    assert_eq!(upload.part(1, b"a".to_vec()).await, "ok");
    assert_eq!(upload.part(2, b"b".to_vec()).await, "ExpiredToken");
    assert_eq!(upload.part(2, b"b".to_vec()).await, "ExpiredToken");
    fault.clear();
    assert_eq!(upload.part(2, b"b".to_vec()).await, "ok");
}

#[tokio::test]
async fn errors_with_status_200_and_301_are_seen_as_errors() {
    let server = S3Server::start();
    let client = client(&server);
    server.inject(Fault::permanent_redirect("eu-west-1").on(Operation::PutObject).once());
    let redirected = put(&client, "key", "hello").send().await.expect_err("redirected");
    let region = redirected.raw_response().and_then(|response| response.headers().get("x-amz-bucket-region"));
    assert_eq!(region, Some("eu-west-1"));
    let mut upload = Upload::begin(&client, "key").await;
    upload.part(1, b"a".to_vec()).await;
    server.inject(Fault::error_inside_ok("InternalError").on(Operation::CompleteMultipartUpload).once());
    assert_eq!(outcome(upload.complete().send().await), "InternalError");
    assert!(server.keys(BUCKET).is_empty());
    server.inject(Fault::store_then_error_inside_ok("InternalError").on(Operation::CompleteMultipartUpload).once());
    assert_eq!(outcome(upload.complete().send().await), "InternalError");
    assert_eq!(server.keys(BUCKET), ["key"]);
}

#[tokio::test]
async fn an_object_may_be_stored_although_the_answer_says_otherwise_or_is_lost() {
    let server = S3Server::start();
    let client = client(&server);
    server.inject(Fault::store_then_answer(500, "InternalError").key("a").once());
    assert_eq!(outcome(put(&client, "a", "hello").send().await), "InternalError");
    server.inject(Fault::lose_answer().key("b").once());
    assert_eq!(outcome(put(&client, "b", "hello").send().await), "no answer");
    assert_eq!(server.keys(BUCKET), ["a", "b"]);
}

#[tokio::test]
async fn a_connection_that_is_cut_stores_nothing() {
    let server = S3Server::start();
    let client = client(&server);
    for fault in [Fault::cut_before_body(), Fault::cut_in_body()] {
        server.inject(fault.once());
        assert_eq!(outcome(put(&client, "key", vec![b'a'; 4 * MIB]).send().await), "no answer");
    }
    assert!(server.keys(BUCKET).is_empty());
    assert_eq!(outcome(put(&client, "key", "hello").send().await), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_hangs_is_seen_and_never_answered() {
    let server = S3Server::start();
    let timeout = TimeoutConfig::builder().operation_timeout(Duration::from_millis(200)).build();
    let impatient: Config = config(&server, ACCESS_KEY, SECRET_KEY).timeout_config(timeout).build();
    let fault = server.inject(Fault::hang().once());
    assert_eq!(outcome(put(&Client::from_conf(impatient), "key", "hello").send().await), "no answer");
    fault.wait_for_hits(1);
    server.wait_until("the server sees that the client has gone", |requests| requests[0].took.is_some());
    assert_eq!(server.requests()[0].status, None);
    assert!(server.keys(BUCKET).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_can_be_held_while_the_test_does_something() {
    let server = S3Server::start();
    let client = client(&server);
    let before = server.inject(Fault::hold().key("a").once());
    let after = server.inject(Fault::store_then_hold().key("b").once());
    let sending = [put(&client, "a", "hello"), put(&client, "b", "hello")];
    let sending = sending.map(|request| tokio::spawn(async { outcome(request.send().await) }));
    before.wait_for_hits(1);
    after.wait_for_hits(1);
    assert_eq!(server.keys(BUCKET), ["b"]);
    before.clear();
    after.clear();
    for sent in sending {
        assert_eq!(sent.await.expect("sent"), "ok");
    }
    assert_eq!(server.keys(BUCKET), ["a", "b"]);
    assert!(server.peak_requests_in_flight() <= 2);
}

#[tokio::test]
async fn damage_on_the_way_is_found_by_content_md5_and_damage_in_the_storage_is_not() {
    let server = S3Server::start();
    let client = client(&server);
    let hello =
        |key| put(&client, key, "hello").content_md5("XUFAKrxLKna5cZ2REBfFkg==").customize().disable_payload_signing();
    server.inject(Fault::damage_in_transit().once());
    assert_eq!(outcome(hello("a").send().await), "BadDigest");
    assert!(server.keys(BUCKET).is_empty());
    server.inject(Fault::damage_stored().once());
    let done = hello("a").send().await.expect("the store notices nothing");
    assert_eq!(done.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    assert_ne!(server.object(BUCKET, "a").expect("stored").bytes(), b"hello");
    server.inject(Fault::damage_in_transit().once());
    assert_eq!(outcome(put(&client, "b", "hello").send().await), "XAmzContentSHA256Mismatch");
}

#[tokio::test]
async fn a_part_can_be_damaged_in_the_storage() {
    let server = S3Server::start();
    let mut upload = Upload::begin(&client(&server), "key").await;
    server.inject(Fault::damage_stored().on(Operation::UploadPart).once());
    assert_eq!(upload.part(1, b"hello".to_vec()).await, "ok");
    assert_eq!(outcome(upload.complete().send().await), "ok");
    assert_ne!(server.object(BUCKET, "key").expect("stored").bytes(), b"hello");
}

#[tokio::test]
async fn the_answer_may_have_a_wrong_etag_or_none() {
    let server = S3Server::start();
    let client = client(&server);
    server.inject(Fault::wrong_etag().on(Operation::PutObject).once());
    let done = put(&client, "key", "hello").send().await.expect("put");
    assert_eq!(done.e_tag(), Some("\"00000000000000000000000000000bad\""));
    server.inject(Fault::wrong_etag().on(Operation::ListObjectsV2).once());
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.expect("listed");
    assert_eq!(listed.contents()[0].e_tag(), Some("00000000000000000000000000000bad"));
    let mut upload = Upload::begin(&client, "big").await;
    upload.part(1, b"hello".to_vec()).await;
    server.inject(Fault::empty_etag().on(Operation::CompleteMultipartUpload).once());
    let done = upload.complete().send().await.expect("completed");
    assert_eq!(done.e_tag(), Some(""));
    assert_eq!(done.bucket(), Some(BUCKET));
}

#[tokio::test]
async fn a_download_can_be_damaged_or_cut() {
    let server = S3Server::start();
    let client = client(&server);
    let bytes: Vec<u8> = (0..MIB).map(|index| index as u8).collect();
    server.put_directly(BUCKET, "key", &bytes);
    let get = || client.get_object().bucket(BUCKET).key("key").send();
    server.inject(Fault::damage_answer().once());
    let damaged = body(get().await.expect("answered")).await.expect("whole");
    let differences = damaged.iter().zip(&bytes).filter(|(a, b)| a != b).count();
    assert_eq!((damaged.len(), differences), (MIB, 1));
    server.inject(Fault::cut_in_answer().once());
    assert_eq!(body(get().await.expect("answered")).await, None);
    assert_eq!(body(get().await.expect("answered")).await, Some(bytes));
}

#[tokio::test]
async fn a_download_can_stop_in_its_middle() {
    let server = S3Server::start();
    server.put_directly(BUCKET, "key", &vec![b'a'; MIB]);
    server.inject(Fault::hang_in_answer().once());
    let got = client(&server).get_object().bucket(BUCKET).key("key").send().await.expect("answered");
    let mut body = got.body;
    let mut received = 0;
    while received < MIB / 2 {
        received += body.next().await.expect("more to come").expect("readable").len();
    }
    let more = tokio::time::timeout(Duration::from_millis(100), body.next()).await;
    assert!(more.is_err(), "{more:?}");
    assert_eq!(received, MIB / 2);
}

#[tokio::test]
async fn a_server_that_is_down_refuses_connections_and_comes_back_at_the_same_port() {
    let server = S3Server::start();
    let client = client(&server);
    assert_eq!(outcome(put(&client, "a", "hello").send().await), "ok");
    server.down();
    assert_eq!(server.open_connections(), 0);
    let refused = std::net::TcpStream::connect(("127.0.0.1", server.port())).expect_err("refused");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(outcome(put(&client, "b", "hello").send().await), "no answer");
    server.up();
    assert_eq!(outcome(put(&client, "b", "hello").send().await), "ok");
    assert_eq!(server.keys(BUCKET), ["a", "b"]);
}

#[tokio::test]
async fn open_connections_can_be_cut_while_the_server_stays_up() {
    let server = S3Server::start();
    let client = client(&server);
    assert_eq!(outcome(put(&client, "a", "hello").send().await), "ok");
    let held = server.inject(Fault::hold().key("b").once());
    let sending = put(&client, "b", "hello");
    let sending = tokio::spawn(async { outcome(sending.send().await) });
    while held.hits() == 0 {
        tokio::task::yield_now().await;
    }
    server.cut_connections();
    assert_eq!(sending.await.expect("sent"), "no answer");
    assert_eq!(outcome(put(&client, "c", "hello").send().await), "ok");
    assert_eq!(server.keys(BUCKET), ["a", "c"]);
}

#[tokio::test]
async fn a_slow_server_is_slow() {
    let server = S3Server::start();
    let client = client(&server);
    let body = vec![b'a'; MIB];
    server.set_rate_limit(Some(4 * MIB as u64));
    let begin = Instant::now();
    assert_eq!(outcome(put(&client, "key", body.clone()).send().await), "ok");
    assert!(begin.elapsed() >= Duration::from_millis(200), "{:?}", begin.elapsed());
    server.set_rate_limit(None);
    server.set_latency(Duration::from_millis(100));
    server.inject(Fault::delay(Duration::from_millis(100)).once());
    let begin = Instant::now();
    assert_eq!(outcome(put(&client, "key", body).send().await), "ok");
    assert!(begin.elapsed() >= Duration::from_millis(200), "{:?}", begin.elapsed());
}
