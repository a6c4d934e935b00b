//! A connection, plain or with TLS.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::net::RecvFlags;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Most bytes that one call drops.
const DROP_AT_ONCE: usize = 4 * 1024 * 1024;

#[derive(Clone)]
pub struct TlsSettings(Arc<ServerConfig>);

impl TlsSettings {
    pub fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("cannot read the certificate in '{}'", certificate.display()))?;
        let key =
            PrivateKeyDer::from_pem_file(key).with_context(|| format!("cannot read the key in '{}'", key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self(Arc::new(config)))
    }
}

pub enum Transport {
    Plain {
        stream: TcpStream,
        /// Its length tells how much to drop; nothing is ever written into it, so it takes no memory.
        untouched: Vec<u8>,
    },
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

pub fn accept(stream: TcpStream, tls: Option<TlsSettings>) -> io::Result<Transport> {
    stream.set_nodelay(true)?;
    match tls {
        None => Ok(Transport::Plain { stream, untouched: vec![0; DROP_AT_ONCE] }),
        Some(settings) => {
            let connection = ServerConnection::new(settings.0).map_err(io::Error::other)?;
            Ok(Transport::Tls(Box::new(StreamOwned::new(connection, stream))))
        }
    }
}

impl Transport {
    /// Drops up to `most` bytes, and says how many: those of a plain connection are never copied out of the kernel.
    pub fn drop_some(&mut self, most: u64) -> io::Result<u64> {
        match self {
            Transport::Plain { stream, untouched } => {
                let most = usize::try_from(most).unwrap_or(usize::MAX).min(untouched.len());
                // tcp(7): MSG_TRUNC drops the bytes in place of storing them.
                let (_, dropped) = rustix::net::recv(&*stream, &mut untouched[..most], RecvFlags::TRUNC)?;
                Ok(dropped as u64)
            }
            Transport::Tls(stream) => {
                let mut piece = [0; 32 * 1024];
                let most = usize::try_from(most).unwrap_or(usize::MAX).min(piece.len());
                Ok(stream.read(&mut piece[..most])? as u64)
            }
        }
    }

    /// For `sendfile`, where nothing has to be encrypted.
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Transport::Plain { stream, .. } => Some(stream),
            Transport::Tls(_) => None,
        }
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain { stream, .. } => stream.read(buffer),
            Transport::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain { stream, .. } => stream.write(bytes),
            Transport::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Plain { stream, .. } => stream.flush(),
            Transport::Tls(stream) => stream.flush(),
        }
    }
}
