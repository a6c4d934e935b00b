//! A network of a given speed: before a database, so that a dump takes its time on whatever machine; before a store, so that
//! it can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What comes to us late may be made up for: a thread never wakes exactly when it is to.
const LATE: Duration = Duration::from_millis(10);

/// Passes connections on for as long as the tests run, and lets so many bytes a second through to whoever connects.
pub struct SlowLink {
    port: u16,
    line: Arc<Mutex<Line>>,
}

#[derive(Default)]
struct Line {
    is_cut: bool,
    /// Both ends of every connection there was.
    ends: Vec<TcpStream>,
}

impl SlowLink {
    pub fn to(server: u16, bytes_per_second: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port for the link");
        let port = listener.local_addr().expect("its address").port();
        let line = Arc::<Mutex<Line>>::default();
        let shared = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut line = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if !line.is_cut {
                    line.ends.extend(join(client, server, bytes_per_second));
                }
            }
        });
        SlowLink { port, line }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections, and every new one at once.
    pub fn cut(&self) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.is_cut = true;
        // Most have ended before.
        line.ends.drain(..).for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }

    pub fn mend(&self) {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).is_cut = false;
    }
}

/// Returns both ends.
fn join(client: TcpStream, server: u16, bytes_per_second: u64) -> [TcpStream; 2] {
    let server = TcpStream::connect(("127.0.0.1", server)).expect("the server behind the link");
    // What lies in the link's own buffer would come all at once when a stopped client goes on.
    rustix::net::sockopt::set_socket_send_buffer_size(&client, 64 * 1024).expect("a small buffer");
    let another = |end: &TcpStream| end.try_clone().expect("a socket");
    let ends = [another(&client), another(&server)];
    let (mut from_client, mut to_server) = (another(&client), another(&server));
    thread::spawn(move || {
        // Ends with either end; the other then hears of it.
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        pass(server, &client, bytes_per_second);
        let _ = client.shutdown(Shutdown::Both);
    });
    ends
}

fn pass(mut from: TcpStream, mut to: &TcpStream, bytes_per_second: u64) {
    let mut bytes = vec![0; 64 * 1024];
    let mut due = Instant::now();
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        due = due.max(Instant::now() - LATE) + Duration::from_secs_f64(count as f64 / bytes_per_second as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // A server that waits for room in our buffer would not hear that the client is gone, and a database hold its locks for a
    // minute.
    let _ = std::io::copy(&mut from, &mut std::io::sink());
}
