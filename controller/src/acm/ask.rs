//! Asks apps whether a host name is one of their customers'.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use model::routes::AppRoute;
use model::{AppId, DomainAsk, Hostname};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::Controller;
use crate::outbound::{Connection, Outbound};

/// How long an app has for its answer: it may have to wake up first.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an app says of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Yes,
    No,
    /// Neither, and why.
    Nothing(String),
}

/// An app that wants to be asked.
pub(super) struct Asker {
    pub(super) app: AppId,
    ask: DomainAsk,
    /// The name that it wants all requests for.
    host: Hostname,
    is_https: bool,
}

impl Asker {
    fn of(app: AppId, route: &AppRoute) -> Option<Self> {
        let policy = route.policy.as_ref()?;
        let (ask, own) = (policy.domain_ask.clone()?, route.hosts.first()?);
        let host = policy.canonical_host.as_ref().unwrap_or(own).clone();
        Some(Self { app, ask, host, is_https: policy.https })
    }
}

impl Controller {
    /// The apps that want to be asked.
    pub(super) fn askers(&self) -> Vec<Asker> {
        self.live.names.pick(|app, route| Asker::of(*app, route))
    }

    /// The app that wants to be asked, if it still does.
    pub(super) fn asker(&self, app: AppId) -> Option<Asker> {
        Asker::of(app, &self.live.names.row(&app)?)
    }

    /// What each of them says, all asked at once.
    pub(super) async fn ask_all(&self, askers: &[Asker], host: &Hostname) -> Vec<Said> {
        join_all(askers.iter().map(|asker| self.ask_app(asker, host))).await
    }

    /// What an app says.
    pub(super) async fn ask_app(&self, asker: &Asker, host: &Hostname) -> Said {
        let answer = async {
            let answer = match &asker.ask {
                DomainAsk::Url(url) => self.outbound.send(&question(url, host)?, Request::default()).await?,
                DomainAsk::Path(path) => self.ask_itself(asker, path, host).await?,
            };
            Ok::<_, io::Error>(answer.status())
        };
        match timeout(PATIENCE, answer).await {
            Ok(Ok(status)) if status.is_success() => Said::Yes,
            Ok(Ok(status)) if status.is_server_error() => Said::Nothing(format!("it answered {status}")),
            Ok(Ok(_)) => Said::No,
            Ok(Err(error)) => Said::Nothing(error.to_string()),
            Err(_) => Said::Nothing(format!("it did not answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// Asks by the router on this machine, as a visitor would: an app that sleeps wakes up.
    async fn ask_itself(&self, asker: &Asker, path: &str, host: &Hostname) -> io::Result<Response<Incoming>> {
        let tls = self.settings.tls_entrance.filter(|_| asker.is_https);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = question(&format!("{scheme}://{}{path}", asker.host), host)?;
        let entrance = tls.or(self.settings.entrance).ok_or_else(|| io::Error::other("there is no router"))?;
        let stream = TcpStream::connect(reachable(entrance)).await?;
        let stream: Box<dyn Connection> = match tls {
            Some(_) => Box::new(self.secured(stream).await?),
            None => Box::new(stream),
        };
        Outbound::exchange(stream, &url, Request::<Full<Bytes>>::default(), (PATIENCE, || false)).await
    }

    /// TLS to the router, which shows its own certificate for the platform's domain. That of an app below it is there as well, but nobody takes
    /// `*.localhost` for a name.
    async fn secured(&self, stream: TcpStream) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(&self.settings.authority).map_err(io::Error::other)?;
        roots.add(authority).map_err(io::Error::other)?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(self.settings.domain.to_string()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

fn question(url: &str, host: &Hostname) -> io::Result<Url> {
    let mut url: Url = url.parse().map_err(io::Error::other)?;
    url.query_pairs_mut().append_pair("domain", host.as_str());
    Ok(url)
}

/// Where whoever is on this machine finds what listens there.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
