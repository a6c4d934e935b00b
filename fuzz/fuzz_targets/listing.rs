//! What a store may answer to a listing: a page of whatever bytes, then the page that ends it. Nothing is found in it that
//! does not lie directly under what was asked for.
#![no_main]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use mydumper2s3::s3::{ConnectionSettings, ObjectSettings, Store};
use tokio::runtime::Runtime;

const DIRECTORY: &str = "nightly/";
const LAST: &[u8] = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

/// What the next listing is answered with.
static PAGE: Mutex<Option<Vec<u8>>> = Mutex::new(None);

static STORE: LazyLock<(Runtime, Store)> = LazyLock::new(|| {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || serve(&listener));
    // SAFETY: no other thread reads the environment yet.
    unsafe {
        std::env::set_var("AWS_ACCESS_KEY_ID", "fuzz");
        std::env::set_var("AWS_SECRET_ACCESS_KEY", "fuzz");
        std::env::set_var("AWS_EC2_METADATA_DISABLED", "true");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connection = ConnectionSettings { endpoint_url: Some(format!("http://127.0.0.1:{port}")), ..Default::default() };
    let store = Store::connect(connection, "bucket", ObjectSettings::default(), None, 1);
    let store = runtime.block_on(store).expect("a store");
    store.wait_for(Instant::now(), std::time::Duration::ZERO);
    (runtime, store)
});

/// Answers each request of a connection with the page, then with the last one.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            let mut writer = stream.try_clone().expect("a socket");
            let mut lines = BufReader::new(stream).lines();
            while let Some(Ok(line)) = lines.next() {
                if !line.is_empty() {
                    continue;
                }
                let page = PAGE.lock().expect("nobody panics with it").take().unwrap_or_else(|| LAST.to_vec());
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
                if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&page)).is_err() {
                    return;
                }
            }
        });
    }
}

fuzz_target!(|page: &[u8]| {
    let (runtime, store) = &*STORE;
    *PAGE.lock().expect("nobody panics with it") = Some(page.to_vec());
    let listed = runtime.block_on(store.list(DIRECTORY, |object| {
        let rest = object.key.strip_prefix(DIRECTORY).expect("it lies under what was asked for");
        assert!(!rest.contains('/'));
        ControlFlow::Continue(())
    }));
    for directory in listed.unwrap_or_default() {
        let rest = directory.strip_prefix(DIRECTORY).and_then(|rest| rest.strip_suffix('/'));
        assert!(rest.is_some_and(|rest| !rest.contains('/')));
    }
});
