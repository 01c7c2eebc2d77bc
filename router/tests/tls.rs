//! The https entrance, with the certificates that `platform up` makes, and clients that check them.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use model::clock::{Clock, SystemClock};
use router::tls::Authority;
use router::{RouterSettings, Timeouts, TlsEntrance};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::{LONG, World, mirror, read_head, settings};

const SECRET: &str = "0123456789012345678901234567890123456789";

pub(crate) struct Secure {
    pub(crate) world: World,
    connector: TlsConnector,
    trusted: RootCertStore,
}

impl Secure {
    pub(crate) async fn new(timeouts: Timeouts) -> Self {
        Self::with(|settings| settings.timeouts = timeouts).await
    }

    pub(crate) async fn with(set: impl FnOnce(&mut RouterSettings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(&folder.path().join("tls"));
        authority.ensure(&"platform.example".parse().expect("a host name"), SystemClock.now()).expect("certificates");
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_file(authority.certificate()).expect("a certificate")).expect("trusted");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
        let config = config.with_root_certificates(trusted.clone()).with_no_client_auth();
        let tickets = folder.path().join("tickets.json");
        let listen = vec![([127, 0, 0, 1], 0).into()];
        let tls = Some(TlsEntrance { listen, certificate: authority.server(), tickets });
        let mut settings = RouterSettings { tls, ..settings(folder.path()) };
        set(&mut settings);
        Self { world: World::with(folder, settings).await, connector: TlsConnector::from(Arc::new(config)), trusted }
    }

    async fn connect(&self, name: &'static str) -> TlsStream<TcpStream> {
        self.connect_after(b"", name).await
    }

    /// A connection on which something is sent before TLS begins.
    pub(crate) async fn connect_after(&self, begin: &[u8], name: &'static str) -> TlsStream<TcpStream> {
        let address = self.world.tls_address.expect("an https entrance");
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(begin).await.expect("sent");
        let name = ServerName::try_from(name).expect("a name");
        self.connector.connect(name, stream).await.expect("a certificate for this name")
    }

    /// Begins TLS with whoever has this name.
    pub(crate) async fn begin(&self, stream: TcpStream, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(ServerName::try_from(name).expect("a name"), stream).await
    }

    /// The platform's key and certificates.
    pub(crate) fn certificate(&self) -> PathBuf {
        Authority::new(&self.world.folder.path().join("tls")).server()
    }

    /// A connection of a client that speaks HTTP/2.
    pub(crate) async fn connect_http2(&self) -> TlsStream<TcpStream> {
        let mut config = ClientConfig::clone(self.connector.config());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream =
            TcpStream::connect(self.world.tls_address.expect("an https entrance")).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a certificate")
    }

    /// A controller that does `then` with the connection of each request, once it has read its head.
    fn controller<F>(&self, then: impl Fn(String, tokio::net::UnixStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = UnixListener::bind(self.world.folder.path().join("controller.sock")).expect("a socket");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = read_head(&mut stream).await;
                tokio::spawn(then(head, stream));
            }
        });
    }
}

async fn rest(stream: &mut TlsStream<TcpStream>) -> String {
    let mut text = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut text)).await.expect("it ends").expect("readable");
    String::from_utf8_lossy(&text).into_owned()
}

/// What each TLS record holds that has any data, to the end of the connection.
async fn records(stream: TlsStream<TcpStream>) -> Vec<String> {
    let (mut socket, mut session) = stream.into_inner();
    let mut texts = Vec::new();
    let read = async {
        let mut head = [0; 5];
        // Type, version, length (RFC 8446, section 5.1).
        while socket.read_exact(&mut head).await.is_ok() {
            let mut record = head.to_vec();
            record.resize(5 + usize::from(u16::from_be_bytes([head[3], head[4]])), 0);
            socket.read_exact(&mut record[5..]).await.expect("a whole record");
            session.read_tls(&mut record.as_slice()).expect("room");
            session.process_new_packets().expect("no fault");
            let mut text = String::new();
            // Until the end there is more to come, which is an error to whoever reads.
            let _ = session.reader().read_to_string(&mut text);
            texts.extend((!text.is_empty()).then_some(text));
        }
    };
    tokio::time::timeout(LONG, read).await.expect("it ends");
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_and_the_platform_answer_over_tls_and_apps_are_told() {
    let secure = Secure::new(Timeouts::default()).await;
    secure.world.serve("shop", &[&mirror("one").await]).await;
    for name in ["platform.example", "shop.platform.example", "localhost", "127.0.0.1", "::1"] {
        let mut stream = secure.connect(name).await;
        let request = "GET /x HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("sent");
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-forwarded-proto: https"), "{answer}");
    }
    let mut stream = secure.connect("localhost").await;
    stream.write_all(b"GET /apps HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("sent");
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 503"), "the platform itself, without its controller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_greeted_in_a_record_of_its_own_and_hears_everything() {
    let secure = Secure::new(Timeouts::default()).await;
    secure.controller(|head, mut stream| async move {
        assert!(head.starts_with(&format!("GET /attach/{SECRET} HTTP/1.1")), "{head}");
        assert!(head.contains("upgrade: rendezvous") && head.contains("x-forwarded-for: 127.0.0.1"), "{head}");
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: rendezvous\r\n\r\nhello ";
        stream.write_all(answer).await.expect("sent");
        let mut said = [0; 3];
        stream.read_exact(&mut said).await.expect("input");
        stream.write_all(&said).await.expect("sent");
    });
    // Some clients leave the line's end out.
    for end in ["\r\n", ""] {
        let mut stream = secure.connect("localhost").await;
        stream.write_all(format!("attach/{SECRET}{end}").as_bytes()).await.expect("sent");
        // Before it is greeted, and more than the dyno reads before it ends.
        stream.write_all(b"abcdefgh").await.expect("sent");
        let said = records(stream).await;
        assert_eq!((said[0].as_str(), said[1..].concat().as_str()), ("rendezvous\r\n", "hello abc"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_terminal_hears_why_after_the_greeting() {
    let secure = Secure::new(Timeouts::default()).await;
    let come = async || {
        let mut stream = secure.connect("localhost").await;
        stream.write_all(format!("attach/{SECRET}\r\n").as_bytes()).await.expect("sent");
        let said = records(stream).await;
        assert_eq!(said[0], "rendezvous\r\n");
        said[1..].concat()
    };
    assert!(come().await.starts_with("The platform is starting"));
    secure.controller(|_, mut stream| async move {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nexpired\n";
        stream.write_all(answer).await.expect("sent");
    });
    assert_eq!(come().await, "expired\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_chooses_the_cipher() {
    let secure = Secure::new(Timeouts::default()).await;
    let mut chosen = Vec::new();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for is_reversed in [false, true] {
            let mut provider = rustls::crypto::aws_lc_rs::default_provider();
            if is_reversed {
                provider.cipher_suites.reverse();
            }
            let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]);
            let config = config.expect("TLS").with_root_certificates(secure.trusted.clone()).with_no_client_auth();
            let stream =
                TcpStream::connect(secure.world.tls_address.expect("an entrance")).await.expect("a connection");
            let name = ServerName::try_from("localhost").expect("a name");
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a certificate");
            chosen.push(stream.get_ref().1.negotiated_cipher_suite().expect("a cipher").suite());
        }
    }
    assert!(chosen[0] == chosen[1] && chosen[2] == chosen[3], "{chosen:?}");
}
