//! The certificates of apps: which host shows which, and what becomes of them when the controller or the router goes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use engine::feed::Feed;
use model::certificate::{AppCertificates, Challenge, ChallengeKind, HostCertificate, PrivateKey, Staple};
use model::clock::{Clock, SystemClock};
use model::{AppId, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use router::tls::Authority;
use router::{Router, RouterSettings, Timeouts, TlsEntrance};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::world::{LONG, World, named, send, settings, until};

/// Whom the owners of domains have their certificates from.
pub(crate) struct Signer {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Signer {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Signer");
        let key = KeyPair::generate().expect("a key");
        Self { authority: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    /// A certificate for these hosts, whose subject is `name`.
    pub(crate) fn sign(&self, name: &str, hosts: &[&str]) -> HostCertificate {
        let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let chain = params.signed_by(&key, &self.authority).expect("signed").pem();
        let hosts = hosts.iter().map(|host| host.parse().expect("a host name")).collect();
        HostCertificate { hosts, chain, key: PrivateKey(key.serialize_pem()), staple: None }
    }
}

pub(crate) struct Secure {
    pub(crate) world: World,
    certificates: Feed<AppId, AppCertificates>,
    pub(crate) signer: Signer,
    roots: RootCertStore,
}

fn with_tls(folder: &Path) -> RouterSettings {
    let authority = Authority::new(&folder.join("tls"));
    authority.ensure(&"platform.example".parse().expect("a host name"), SystemClock.now()).expect("certificates");
    let (listen, tickets) = (vec![([127, 0, 0, 1], 0).into()], folder.join("tickets.json"));
    let tls = Some(TlsEntrance { listen, certificate: authority.server(), tickets });
    RouterSettings { tls, ..settings(folder) }
}

impl Secure {
    async fn new() -> Self {
        Self::with(Timeouts::default()).await
    }

    pub(crate) async fn with(timeouts: Timeouts) -> Self {
        Self::started(|settings| RouterSettings { timeouts, ..settings }).await
    }

    async fn started(change: impl FnOnce(RouterSettings) -> RouterSettings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = change(with_tls(folder.path()));
        let signer = Signer::new();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.path().join("tls/ca.pem")).expect("one")).expect("trusted");
        roots.add(signer.authority.der().clone()).expect("trusted");
        let certificates = Feed::new(BTreeMap::new());
        let (feed, socket) = (certificates.clone(), folder.path().join("certificates.sock"));
        tokio::spawn(async move { feed.serve(&socket).await });
        let world = World::with(folder, settings).await;
        until(async || certificates.is_followed()).await;
        Self { world, certificates, signer, roots }
    }

    /// Returns once the router shows them.
    pub(crate) async fn show(&self, app: u32, certificates: Vec<HostCertificate>) {
        self.set(app, Some(AppCertificates { certificates, challenges: vec![] })).await;
    }

    async fn set(&self, app: u32, row: Option<AppCertificates>) {
        let version = self.certificates.set(&id(app), row);
        assert!(self.certificates.served(version, LONG).await);
    }

    fn address(&self) -> SocketAddr {
        self.world.tls_address.expect("an https entrance")
    }

    fn client(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("TLS");
        config.with_root_certificates(self.roots.clone()).with_no_client_auth()
    }

    /// The subject of what `host` shows; none if a client does not trust that.
    pub(crate) async fn subject(&self, host: &str) -> Option<String> {
        subject(self.address(), self.client(rustls::ALL_VERSIONS), host).await
    }
}

fn id(number: u32) -> AppId {
    format!("00000000-0000-4000-8000-{number:012}").parse().expect("an id")
}

async fn connect(address: SocketAddr, config: ClientConfig, host: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn subject(address: SocketAddr, config: ClientConfig, host: &str) -> Option<String> {
    let stream = connect(address, config, host).await.ok()?;
    let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
    let (_, parsed) = X509Certificate::from_der(&shown).expect("a certificate");
    let name = parsed.subject().iter_common_name().next().expect("a name").as_str().expect("text");
    Some(name.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_shows_its_own_certificate_from_the_moment_that_it_has_one() {
    let secure = Secure::new().await;
    let platform = Some("Platform".to_owned());
    assert_eq!(secure.subject("shop.platform.example").await, platform);
    assert_eq!(secure.subject("www.example.com").await, None, "the platform's is not for this name");
    let sign = |name, hosts: &[&str]| secure.signer.sign(name, hosts);
    secure.show(1, vec![sign("one", &["www.example.com"]), sign("wild", &["*.example.com"])]).await;
    assert_eq!(secure.subject("www.example.com").await.as_deref(), Some("one"));
    assert_eq!(secure.subject("WWW.Example.com").await.as_deref(), Some("one"));
    assert_eq!(secure.subject("other.example.com").await.as_deref(), Some("wild"));
    assert_eq!(secure.subject("shop.platform.example").await, platform);

    secure.show(1, vec![sign("two", &["www.example.com"])]).await;
    assert_eq!(secure.subject("www.example.com").await.as_deref(), Some("two"), "without a restart");
    assert_eq!(secure.subject("other.example.com").await, None);
    // A domain that moves is the new app's, whichever is told first.
    secure.show(2, vec![sign("moved", &["www.example.com"])]).await;
    secure.set(1, None).await;
    assert_eq!(secure.subject("www.example.com").await.as_deref(), Some("moved"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_concerns_its_own_hosts_alone() {
    let secure = Secure::new().await;
    let good = secure.signer.sign("good", &["good.example.com"]);
    let HostCertificate { key, .. } = secure.signer.sign("other", &["bad.example.com"]);
    let strange = HostCertificate { key, ..secure.signer.sign("strange", &["bad.example.com"]) };
    let broken =
        HostCertificate { chain: "nothing".to_owned(), ..secure.signer.sign("b", &["broken.platform.example"]) };
    secure.show(1, vec![strange]).await;
    secure.show(2, vec![broken]).await;
    secure.show(3, vec![good]).await;
    assert_eq!(secure.subject("bad.example.com").await, None);
    assert_eq!(secure.subject("broken.platform.example").await.as_deref(), Some("Platform"));
    assert_eq!(secure.subject("good.example.com").await.as_deref(), Some("good"));
    assert_eq!(secure.subject("shop.platform.example").await.as_deref(), Some("Platform"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_starts_without_a_controller_shows_what_the_last_one_did() {
    let mut secure = Secure::new().await;
    let folder = secure.world.folder.path().to_owned();
    secure.show(1, vec![secure.signer.sign("one", &["www.example.com"])]).await;
    secure.show(2, vec![secure.signer.sign("gone", &["gone.example.com"])]).await;
    let file = |app| folder.join(format!("certificates/{}.json", id(app)));
    until(async || file(2).exists()).await;
    secure.set(2, None).await;
    until(async || file(1).exists() && !file(2).exists()).await;
    secure.world.stop().await;
    // One that follows nobody.
    let nobody = folder.join("nobody.sock");
    let alone = Router::start(RouterSettings { certificates_socket: nobody, ..with_tls(&folder) }).expect("a router");
    let address = alone.tls_addresses()[0];
    let config = || secure.client(rustls::ALL_VERSIONS);
    assert_eq!(subject(address, config(), "www.example.com").await.as_deref(), Some("one"));
    assert_eq!(subject(address, config(), "gone.example.com").await, None);
    tokio::task::spawn_blocking(move || alone.stop()).await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_again_is_known_to_every_worker_and_after_a_restart() {
    let mut secure = Secure::new().await;
    secure.world.serve("shop", &[&named("one").await]).await;
    secure.show(1, vec![secure.signer.sign("one", &["www.example.com"])]).await;
    let visit = async |address: SocketAddr, config: &ClientConfig, host: &str| {
        let mut stream = connect(address, config.clone(), host).await.expect("trusted");
        let request = "GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with("one"), "{answer}");
        stream.get_ref().1.handshake_kind().expect("a handshake")
    };
    let mut configs = [&version::TLS12, &version::TLS13].map(|version| secure.client(&[version]));
    for config in &mut configs {
        config.resumption = Resumption::in_memory_sessions(64);
        assert_eq!(visit(secure.address(), config, "www.example.com").await, HandshakeKind::Full);
        // Connections are spread over both workers by chance.
        for _ in 0..8 {
            assert_eq!(visit(secure.address(), config, "www.example.com").await, HandshakeKind::Resumed);
        }
        assert_eq!(visit(secure.address(), config, "shop.platform.example").await, HandshakeKind::Full, "another name");
    }
    let folder = secure.world.folder.path().to_owned();
    secure.world.end_with_table_on_disk(&["shop.localhost", "healthy"]).await;
    let again = Router::start(with_tls(&folder)).expect("a router");
    for config in &configs {
        assert_eq!(visit(again.tls_addresses()[0], config, "www.example.com").await, HandshakeKind::Resumed);
    }
    tokio::task::spawn_blocking(move || again.stop()).await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_asks_is_answered_by_http_and_by_tls_and_apps_get_the_rest() {
    let secure = Secure::new().await;
    secure.world.serve("shop", &[&named("the app").await]).await;
    let challenge = |kind, token: &str| Challenge {
        host: "shop.localhost".parse().expect("a host name"),
        kind,
        token: token.to_owned(),
        answer: format!("{token}.thumb"),
    };
    let challenges = vec![challenge(ChallengeKind::Http, "abc"), challenge(ChallengeKind::TlsAlpn, "def")];
    let row = AppCertificates { certificates: vec![], challenges };
    secure.set(1, Some(row)).await;
    let ask = async |host: &str, token: &str| {
        let path = format!("/.well-known/acme-challenge/{token}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        send(secure.world.address, request.as_bytes()).await
    };
    let answer = ask("shop.localhost", "abc").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nabc.thumb"), "{answer}");
    assert!(ask("shop.localhost", "other").await.ends_with("the app"), "an app may have certificates of its own");
    assert!(!ask("other.localhost", "abc").await.contains("thumb"), "the token of another host");

    let mut config = secure.client(&[&version::TLS13]);
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    config.dangerous().set_certificate_verifier(Arc::new(Anybody));
    let stream = connect(secure.address(), config.clone(), "shop.localhost").await.expect("a handshake");
    let session = stream.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    let shown = session.peer_certificates().expect("a certificate")[0].clone();
    let (_, parsed) = X509Certificate::from_der(&shown).expect("a certificate");
    let identifier = parsed.extensions().iter().find(|it| it.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
    let identifier = identifier.expect("an identifier");
    let digest = <sha2::Sha256 as sha2::Digest>::digest(b"def.thumb");
    assert!(identifier.critical);
    assert_eq!(identifier.value[2..], digest[..], "an octet string of the digest (RFC 8737, section 3)");
    assert!(connect(secure.address(), config.clone(), "other.localhost").await.is_err(), "there is no proof for it");
    // A browser never sees it.
    assert_ne!(secure.subject("shop.platform.example").await, None);
    secure.set(1, None).await;
    assert!(connect(secure.address(), config, "shop.localhost").await.is_err());
    assert!(ask("shop.localhost", "abc").await.ends_with("the app"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_authority_said_of_a_certificate_goes_with_it_until_it_expires() {
    let clock = Arc::new(Stopped::default());
    let of_router = Arc::clone(&clock);
    let secure = Secure::started(|settings| RouterSettings { clock: of_router, ..settings }).await;
    let staple = |answer: &str| Some(Staple { answer: answer.to_owned(), expires_at: Timestamp::from_millis(1000) });
    let good = HostCertificate { staple: staple("c3RhcGxl"), ..secure.signer.sign("one", &["www.example.com"]) };
    let broken = HostCertificate { staple: staple("?"), ..secure.signer.sign("two", &["two.example.com"]) };
    let none = secure.signer.sign("three", &["three.example.com"]);
    secure.show(1, vec![good, broken, none]).await;
    for version in [&version::TLS12, &version::TLS13] {
        let stapled = async |host: &str| {
            let mut config = secure.client(&[version]);
            let heard = Arc::new(Heard::default());
            config.dangerous().set_certificate_verifier(heard.clone());
            connect(secure.address(), config, host).await.expect("a handshake");
            heard.0.lock().expect("no panic").take().expect("a handshake")
        };
        clock.0.store(999, Ordering::Relaxed);
        assert_eq!(stapled("www.example.com").await, b"staple");
        assert_eq!(stapled("two.example.com").await, b"", "the certificate is good without");
        assert_eq!(stapled("three.example.com").await, b"");
        clock.0.store(1000, Ordering::Relaxed);
        assert_eq!(stapled("www.example.com").await, b"", "it has expired, and nobody had to say so");
    }
}

/// A clock that a test sets.
#[derive(Default)]
struct Stopped(AtomicI64);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Trusts whoever there is, and keeps the staple.
#[derive(Debug, Default)]
struct Heard(Mutex<Option<Vec<u8>>>);

impl rustls::client::danger::ServerCertVerifier for Heard {
    fn verify_server_cert(
        &self,
        one: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        staple: &[u8],
        now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.0.lock().expect("no panic") = Some(staple.to_vec());
        Anybody.verify_server_cert(one, rest, name, staple, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Anybody.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Anybody.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        Anybody.supported_verify_schemes()
    }
}

/// Trusts whoever there is, as an authority that looks for its proof does.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
