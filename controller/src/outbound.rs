//! Connections to places that users name: log drains, archives to build from, registries.
//!
//! Whoever owns an app is not trusted with the network that the platform is in. So a name is resolved here, and only addresses
//! of the public internet are connected to, and those that the operator allows; a name that means another address later gains
//! nothing, since what was checked is what is connected to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::body::{Bytes, HttpBody as Body};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

/// How long a connection may take, name and TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a server may take until its answer begins.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// What is no address of the public internet (IANA's special-purpose registries).
const RESERVED: [&str; 23] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// A connection, with or without TLS.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Connects to what users name.
pub struct Outbound {
    reserved: Vec<IpNet>,
    allowed: Vec<IpNet>,
    roots: Arc<RootCertStore>,
    tls: Arc<ClientConfig>,
}

impl Outbound {
    /// With the machine's certificate authorities. `allowed` are networks that may be reached although they are not public.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        // A machine without authorities can still be asked for what needs none; the others then say which certificate is unknown.
        Self::trusting(allowed, rustls_native_certs::load_native_certs().certs)
    }

    pub(crate) fn trusting(allowed: Vec<IpNet>, authorities: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        let roots = Arc::new(roots);
        let tls = Arc::new(ClientConfig::builder().with_root_certificates(Arc::clone(&roots)).with_no_client_auth());
        let reserved = RESERVED.iter().filter_map(|network| network.parse().ok()).collect();
        Self { reserved, allowed, roots, tls }
    }

    /// The machine's certificate authorities.
    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// Connects to the host and the port of a URL.
    pub(crate) async fn connect(&self, url: &Url, port: u16, tls: bool) -> io::Result<Box<dyn Connection>> {
        let connect = async {
            let stream = self.connect_tcp(url, port).await?;
            if !tls {
                return Ok(Box::new(stream) as Box<dyn Connection>);
            }
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        };
        timeout(CONNECT_LIMIT, connect).await.map_err(|_| io::Error::other("it took too long to connect"))?
    }

    /// Sends a request to an `http` or `https` URL; name and password in it become `Authorization`. The answer is there once its
    /// headers are.
    pub(crate) async fn send(&self, url: &Url, request: Request<Full<Bytes>>) -> io::Result<Response<Incoming>> {
        self.send_while(url, request, ANSWER_LIMIT, || false).await
    }

    /// The same of a body that takes its time. After every `patience` without an answer it is given up, unless something `moved`
    /// since that was asked before.
    pub(crate) async fn send_while<B>(
        &self,
        url: &Url,
        request: Request<B>,
        patience: Duration,
        moved: impl FnMut() -> bool,
    ) -> io::Result<Response<Incoming>>
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let tls = url.scheme() == "https";
        let port = url.port_or_known_default().unwrap_or(80);
        let stream = self.connect(url, port, tls).await?;
        Self::exchange(stream, url, request, (patience, moved)).await
    }

    /// The same over a connection to whoever answers for the host of the URL.
    pub(crate) async fn exchange<B>(
        stream: Box<dyn Connection>,
        url: &Url,
        mut request: Request<B>,
        (patience, mut moved): (Duration, impl FnMut() -> bool),
    ) -> io::Result<Response<Incoming>>
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let host = match (url.host_str().unwrap_or_default(), url.port()) {
            (host, None) => host.to_owned(),
            (host, Some(port)) => format!("{host}:{port}"),
        };
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        *request.uri_mut() = target.parse().map_err(io::Error::other)?;
        let headers = request.headers_mut();
        headers.insert(HOST, host.parse().map_err(io::Error::other)?);
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("platform/", env!("CARGO_PKG_VERSION"))));
        if let Some(credentials) = basic(url) {
            headers.insert(AUTHORIZATION, credentials);
        }
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // It ends with the answer, or with whoever holds that.
        tokio::spawn(connection);
        let mut answer = pin!(sender.send_request(request));
        loop {
            match timeout(patience, &mut answer).await {
                Ok(answer) => return answer.map_err(io::Error::other),
                Err(_) if moved() => {}
                Err(_) => return Err(io::Error::other("the server did not answer in time")),
            }
        }
    }

    /// An address of the host of an `http` or `https` URL, for a program that connects by itself.
    pub(crate) async fn resolve(&self, url: &Url) -> io::Result<SocketAddr> {
        let addresses = self.addresses(url, url.port_or_known_default().unwrap_or(80));
        let addresses =
            timeout(CONNECT_LIMIT, addresses).await.map_err(|_| io::Error::other("it took too long to find"))??;
        addresses.first().copied().ok_or_else(|| io::Error::other("it has no address"))
    }

    /// What a `GET` is answered with, redirects followed. From `https` they lead only to `https`; `headers` go only to the server
    /// that they are meant for.
    pub(crate) async fn get(&self, url: Url, headers: &HeaderMap) -> io::Result<Response<Incoming>> {
        self.read(Method::GET, url, headers).await
    }

    /// What a `HEAD` is answered with, as [`Self::get`].
    pub(crate) async fn head(&self, url: Url, headers: &HeaderMap) -> io::Result<Response<Incoming>> {
        self.read(Method::HEAD, url, headers).await
    }

    async fn read(&self, method: Method, mut url: Url, headers: &HeaderMap) -> io::Result<Response<Incoming>> {
        let origin = url.origin();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(Full::default());
            *request.method_mut() = method.clone();
            if url.origin() == origin {
                request.headers_mut().clone_from(headers);
            }
            let answer = self.send(&url, request).await?;
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.filter(|_| answer.status().is_redirection()).and_then(|to| url.join(to).ok());
            let Some(next) = next else { return Ok(answer) };
            let is_worse = url.scheme() == "https" && next.scheme() != "https";
            if is_worse || !["http", "https"].contains(&next.scheme()) {
                return Err(io::Error::other(format!("the server redirects to {}", next.scheme())));
            }
            url = next;
        }
        Err(io::Error::other(format!("the server redirects more than {MAX_REDIRECTS} times")))
    }

    /// Fetches into a file, which has at most `limit` bytes then.
    pub(crate) async fn download(&self, url: Url, headers: &HeaderMap, file: &Path, limit: u64) -> io::Result<()> {
        let answer = self.get(url, headers).await?;
        if !answer.status().is_success() {
            return Err(io::Error::other(format!("the server answered {}", answer.status())));
        }
        let mut file = tokio::fs::File::create(file).await?;
        let (mut body, mut bytes) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
            bytes += data.len() as u64;
            if bytes > limit {
                return Err(io::Error::other(format!("it has more than {limit} bytes")));
            }
            file.write_all(&data).await?;
        }
        file.flush().await
    }

    async fn connect_tcp(&self, url: &Url, port: u16) -> io::Result<TcpStream> {
        let mut failure = io::Error::other("it has no address");
        for address in self.addresses(url, port).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The addresses of a URL's host that may be reached.
    async fn addresses(&self, url: &Url, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses: Vec<SocketAddr> = match url.host() {
            Some(Host::Ipv4(address)) => vec![(address, port).into()],
            Some(Host::Ipv6(address)) => vec![(address, port).into()],
            // A URL of a scheme that is not the web's keeps an address as a name.
            Some(Host::Domain(name)) => tokio::net::lookup_host((name, port)).await?.collect(),
            None => Vec::new(),
        };
        let (reached, refused): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| self.may_reach(address.ip()));
        if reached.is_empty() && !refused.is_empty() {
            return Err(io::Error::other(
                "its address is not public: the platform's operator may allow it by the setting `outbound_networks`",
            ));
        }
        Ok(reached)
    }

    fn may_reach(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        is_in(&self.allowed) || !is_in(&self.reserved)
    }
}

/// `user:password@` of a URL as a header.
pub(crate) fn basic(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let user: Vec<u8> = percent_decode_str(url.username()).collect();
    let password: Vec<u8> = percent_decode_str(url.password().unwrap_or_default()).collect();
    basic_of(&user, &password)
}

/// Name and password as a header.
pub(crate) fn basic_of(user: &[u8], password: &[u8]) -> Option<HeaderValue> {
    let text = [user, password].join(&b':');
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64.encode(text))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_and_allowed_networks_are_reached() {
        let outbound = Outbound::trusting(vec!["10.1.0.0/16".parse().expect("a network")], Vec::new());
        assert_eq!(outbound.reserved.len(), RESERVED.len(), "every line of the table is a network");
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "10.1.2.3", "::ffff:10.1.2.3"] {
            assert!(outbound.may_reach(public.parse().expect("an address")), "{public}");
        }
        let private = [
            "127.0.0.1",
            "10.2.0.1",
            "172.31.255.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "fd00::1",
            "fe80::1",
        ];
        for private in private {
            assert!(!outbound.may_reach(private.parse().expect("an address")), "{private}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_refused_with_a_reason() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let outbound = Outbound::trusting(Vec::new(), Vec::new());
        for url in
            ["https://localhost/", "https://127.0.0.1/", "https://0x7f000001/", "syslog://127.0.0.1", "https://[::1]/"]
        {
            let url: Url = url.parse().expect("a URL");
            let Err(error) = outbound.connect(&url, port, false).await else { panic!("{url} was reached") };
            assert!(error.to_string().contains("not public"), "{url}: {error}");
        }
    }

    #[test]
    fn credentials_of_a_url_are_decoded() {
        let url: Url = "https://a%40b:c+d%3A&e=f@logs.example.com/".parse().expect("a URL");
        assert_eq!(basic(&url).expect("credentials"), format!("Basic {}", BASE64.encode("a@b:c+d:&e=f")));
        assert!(basic(&"https://logs.example.com".parse().expect("a URL")).is_none());
    }
}
