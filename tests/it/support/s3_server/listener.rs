//! The thread of the server, its port and its connections.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::{self, JoinHandle};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::front::Front;

#[derive(Clone, Copy)]
enum Command {
    Down,
    Up,
    CutConnections,
}

/// A command, and where to say that it is done.
type Order = (Command, std_mpsc::Sender<Infallible>);

/// A server that listens until it is dropped. It has its own thread and runtime, so that tests need none.
pub struct Listener {
    pub address: SocketAddr,
    pub connections: Arc<ConnectionCount>,
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub fn start(port: u16, front: Arc<Front>) -> io::Result<Self> {
        // Two threads, so that a write to a slow disk does not stop everything else.
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("s3-server").enable_all().build()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Entered, not blocked on: the caller may be inside a runtime of its own.
        let entered = runtime.enter();
        let socket = reserve(address)?.listen(BACKLOG)?;
        drop(entered);
        let address = socket.local_addr()?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let connections = Arc::new(ConnectionCount::default());
        let server = Server { address, front, connections: Arc::clone(&connections), open: JoinSet::new() };
        let thread =
            thread::Builder::new().name("s3-server".into()).spawn(move || run(runtime, server, socket, inbox))?;
        Ok(Self { address, connections, orders: Some(orders), thread: Some(thread) })
    }

    pub fn down(&self) {
        self.order(Command::Down);
    }

    pub fn up(&self) {
        self.order(Command::Up);
    }

    pub fn cut_connections(&self) {
        self.order(Command::CutConnections);
    }

    /// Returns when it is done. The server has its own threads: blocking this one cannot stop it.
    fn order(&self, command: Command) {
        let (done, wait) = std_mpsc::channel();
        let orders = self.orders.as_ref().expect("the server runs until it is dropped");
        orders.send((command, done)).expect("the server runs until it is dropped");
        // Nothing is ever sent: the server drops its end when the command is done.
        let _ = wait.recv();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It panics only if a test has already been told so.
            let _ = thread.join();
        }
    }
}

const BACKLOG: u32 = 1024;

/// A socket that has the port but does not listen yet: connections are refused, and nobody else gets the port.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of the listener that was there before may still be closing.
    socket.set_reuseaddr(true)?;
    // So that it can be had beside the listener that is about to go.
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

enum Port {
    Listening(TcpListener),
    Reserved(TcpSocket),
}

struct Server {
    address: SocketAddr,
    front: Arc<Front>,
    connections: Arc<ConnectionCount>,
    open: JoinSet<()>,
}

fn run(runtime: Runtime, server: Server, socket: TcpListener, inbox: mpsc::UnboundedReceiver<Order>) {
    runtime.block_on(server.serve(Port::Listening(socket), inbox)).expect("the port of the server stays its own");
}

impl Server {
    async fn serve(mut self, mut port: Port, mut inbox: mpsc::UnboundedReceiver<Order>) -> io::Result<()> {
        loop {
            tokio::select! {
                order = inbox.recv() => match order {
                    Some((command, _done)) => port = self.obey(command, port).await?,
                    None => {
                        // Waited for, so that the files are gone when the test is.
                        self.open.shutdown().await;
                        return Ok(());
                    }
                },
                stream = accept(&port) => self.spawn(stream),
                Some(_) = self.open.join_next() => {}
            }
        }
    }

    async fn obey(&mut self, command: Command, port: Port) -> io::Result<Port> {
        match (command, port) {
            (Command::Down, Port::Listening(listener)) => {
                // Before it is let go: another program may be looking for a port just now.
                let socket = reserve(self.address)?;
                drop(listener);
                self.open.shutdown().await;
                Ok(Port::Reserved(socket))
            }
            (Command::Up, Port::Reserved(socket)) => Ok(Port::Listening(socket.listen(BACKLOG)?)),
            (Command::CutConnections, port) => {
                self.open.shutdown().await;
                Ok(port)
            }
            (Command::Down | Command::Up, port) => Ok(port),
        }
    }

    fn spawn(&mut self, stream: TcpStream) {
        let front = Arc::clone(&self.front);
        let counted = ConnectionCount::enter(&self.connections);
        self.open.spawn(async move {
            let _counted = counted;
            let service = service_fn(|request| front.serve(request));
            // A connection that breaks is what half of the tests are about.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn accept(port: &Port) -> TcpStream {
    let Port::Listening(listener) = port else {
        return pending().await;
    };
    loop {
        // An error here is one of the connection that was about to be made.
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            return stream;
        }
    }
}

/// How many connections there are, and were at most.
#[derive(Default)]
pub struct ConnectionCount {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl ConnectionCount {
    pub fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    fn enter(this: &Arc<Self>) -> Counted {
        let now = this.now.fetch_add(1, Ordering::SeqCst) + 1;
        this.peak.fetch_max(now, Ordering::SeqCst);
        Counted(Arc::clone(this))
    }
}

struct Counted(Arc<ConnectionCount>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}
