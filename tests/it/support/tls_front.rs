//! TLS before a server that has none, with a certificate that nobody but its own maker vouches for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Lives as long as the tests.
pub struct TlsFront {
    address: SocketAddr,
    certificate: String,
}

impl TlsFront {
    /// For the host name `localhost`, and no other.
    pub fn before(server: u16) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("its key");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions of TLS").with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a key that fits");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a port");
        let address = listener.local_addr().expect("its address");
        thread::spawn(move || runtime.block_on(serve(listener, TlsAcceptor::from(Arc::new(config)), server)));
        TlsFront { address, certificate: made.cert.pem() }
    }

    pub fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    /// Writes the certificate there, in PEM form.
    pub fn write_certificate(&self, path: PathBuf) -> PathBuf {
        std::fs::write(&path, &self.certificate).expect("a certificate in a file");
        path
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, server: u16) {
    while let Ok((client, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust us ends here, as it should.
            let Ok(mut client) = acceptor.accept(client).await else { return };
            let mut server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server behind TLS");
            // Ends with either end.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
