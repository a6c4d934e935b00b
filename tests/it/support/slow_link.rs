//! A network between mydumper and its server: so a dump has the speed that the test says, on whatever machine.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// What comes to us late may be made up for: a thread never wakes exactly when it is to.
const LATE: Duration = Duration::from_millis(10);

/// Passes connections on for as long as the tests run, and lets so many bytes a second through to whoever connects.
pub struct SlowLink {
    port: u16,
}

impl SlowLink {
    pub fn to(server: u16, bytes_per_second: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port for the link");
        let port = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                join(client, server, bytes_per_second);
            }
        });
        SlowLink { port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

fn join(client: TcpStream, server: u16, bytes_per_second: u64) {
    let server = TcpStream::connect(("127.0.0.1", server)).expect("the server behind the link");
    // What lies in the link's own buffer would come all at once when a stopped client goes on.
    rustix::net::sockopt::set_socket_send_buffer_size(&client, 64 * 1024).expect("a small buffer");
    let (from_client, to_server) = (client.try_clone(), server.try_clone());
    let (mut from_client, mut to_server) = (from_client.expect("a socket"), to_server.expect("a socket"));
    thread::spawn(move || {
        // Ends with either end; the other then hears of it.
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Both);
    });
    thread::spawn(move || {
        pass(server, &client, bytes_per_second);
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
}

fn pass(mut from: TcpStream, mut to: &TcpStream, bytes_per_second: u64) {
    let mut bytes = vec![0; 64 * 1024];
    let mut due = Instant::now();
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        due = due.max(Instant::now() - LATE) + Duration::from_secs_f64(count as f64 / bytes_per_second as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
