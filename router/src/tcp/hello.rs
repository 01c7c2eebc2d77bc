//! What a client says that begins TLS, as far as it tells which app it wants.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

/// Most bytes of it. With keys that withstand quantum computers it has two thousand.
const MOST: usize = 32 << 10;
/// For a client to have said it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first byte of a record of a handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// What a client of PostgreSQL asks first: whether it may begin TLS, or encrypt by GSSAPI (`SSLRequest`, `GSSENCRequest`).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
/// An alert that ends a connection: "I know nobody of that name" (RFC 6066 section 3).
pub(super) const NOBODY: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// Another one: "what you say is no handshake" (RFC 8446 section 6.2).
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// What a client said first.
pub(super) struct Hello {
    /// All that was read.
    pub(super) begin: Bytes,
    /// It asked as a client of PostgreSQL whether it may, and was told so.
    pub(super) asked: bool,
    pub(super) wants: Wants,
}

impl Hello {
    /// Whom it wants.
    pub(super) fn host(&self) -> Option<&str> {
        match &self.wants {
            Wants::Host(host) => Some(host),
            Wants::Anybody | Wants::Other => None,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// TLS, with this host in lower case.
    Host(String),
    /// TLS, with nobody in particular.
    Anybody,
    /// Something else.
    Other,
}

/// Why that could not be read.
pub(super) enum Unread {
    /// The client broke off or said nothing for too long.
    Gone,
    /// It began TLS in a way that nobody may; with what it is answered.
    Garbled(Vec<u8>),
}

/// Reads what a client says first, and not more than that needs.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Hello, Unread> {
    timeout(PATIENCE, read_all(stream)).await.unwrap_or(Err(Unread::Gone))
}

async fn read_all(stream: &mut TcpStream) -> Result<Hello, Unread> {
    let (mut acceptor, mut begin, mut asked) = (Acceptor::default(), BytesMut::new(), false);
    loop {
        let before = begin.len();
        let length = stream.read_buf(&mut begin).await.map_err(|_| Unread::Gone)?;
        if length == 0 {
            return Err(Unread::Gone);
        }
        if !asked && is_question(&begin) {
            if begin.len() < SSL_REQUEST.len() {
                continue;
            }
            asked = begin[..] == SSL_REQUEST;
            let answer: &[u8] = if asked { b"S" } else { b"N" };
            stream.write_all(answer).await.map_err(|_| Unread::Gone)?;
            begin.clear();
            continue;
        }
        let hello = |wants| Hello { begin: begin.clone().freeze(), asked, wants };
        if begin[0] != HANDSHAKE {
            return Ok(hello(Wants::Other));
        }
        match accept(&mut acceptor, &begin[before..]) {
            Ok(Some(accepted)) => {
                let host = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                return Ok(hello(host.map_or(Wants::Anybody, Wants::Host)));
            }
            Ok(None) if begin.len() >= MOST => return Err(Unread::Garbled(DECODE_ERROR.to_vec())),
            Ok(None) => {}
            Err(alert) => return Err(Unread::Garbled(alert)),
        }
    }
}

/// Whether these are the first bytes of a question of PostgreSQL's, or all of it.
fn is_question(bytes: &[u8]) -> bool {
    SSL_REQUEST.starts_with(bytes) || GSS_REQUEST.starts_with(bytes)
}

/// What comes next of a handshake; with an error, what the client is to be told.
fn accept(acceptor: &mut Acceptor, mut bytes: &[u8]) -> Result<Option<Accepted>, Vec<u8>> {
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Err(DECODE_ERROR.to_vec());
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(accepted) => return Ok(accepted),
            Err((_, mut alert)) => {
                let mut told = Vec::new();
                // Writing to a vector cannot fail.
                let _ = alert.write_all(&mut told);
                return Err(if told.is_empty() { DECODE_ERROR.to_vec() } else { told });
            }
        }
    }
    Ok(None)
}

/// Ends TLS of a client, in which whatever it offers first is spoken (ALPN): what that is the app and its clients know.
pub(super) async fn end_tls<S>(acceptor: &TlsAcceptor, begun: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let start = LazyConfigAcceptor::new(Acceptor::default(), begun).await?;
    let mut config = ServerConfig::clone(acceptor.config());
    config.alpn_protocols =
        start.client_hello().alpn().and_then(|mut all| all.next()).into_iter().map(<[u8]>::to_vec).collect();
    start.into_stream(Arc::new(config)).await
}

/// Asks an instance what a client of PostgreSQL asked, who was answered already.
pub(super) async fn ask(server: &mut TcpStream) -> io::Result<()> {
    server.write_all(&SSL_REQUEST).await?;
    match server.read_u8().await? {
        b'S' => Ok(()),
        _ => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

/// Tells a client that nobody here has the name that it wants.
pub(super) async fn refuse(mut stream: TcpStream, alert: &[u8]) {
    let _: io::Result<()> = async {
        stream.write_all(alert).await?;
        stream.shutdown().await
    }
    .await;
}
