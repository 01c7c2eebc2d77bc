//! The HTTP edge: host → app → healthy instance.
//!
//! A router merges the two halves of the route table ([`model::routes`]), which it follows from the controller and from the
//! host role, and asks nobody during a request, but for a host name that nobody knows and an app may want ([`model::DomainAsk`]). It works without either: the last good table is on disk. Each
//! core has a worker of its own (listeners, connections, pool, counts); one more thread follows the table, another one writes
//! the access log. Errors have Heroku's codes and look like Heroku's.
//!
//! After a crash or a reboot, what is on disk may be old, and addresses may belong to somebody else by now. So a router that starts
//! takes of its addresses only those that are proven ([`model::routes::Proof`]); requests to the others wait until the host role speaks. While that
//! is away, the router looks itself whether the proofs still hold.
//!
//! What draining means: an instance that leaves the table gets no new request, and is reported drained when its last
//! request has its answer and its last `WebSocket` is closed. Those have the drain time that the host role gives the instance; then the router
//! closes them, with a close frame. Other upgraded connections are let go of at that moment: the SIGTERM that comes after the drain is how an app
//! learns to close them.

mod access_log;
mod balance;
mod cache;
mod compress;
mod control;
mod cork;
mod error_page;
mod exchange;
mod failure;
mod follow;
mod frames;
mod h2c;
mod headers;
mod host;
mod http2;
mod inbound;
mod making;
mod merge;
mod on_demand;
mod otlp;
mod pack;
mod paths;
mod place;
mod platform;
mod policy;
mod pool;
mod proof;
mod proxy;
mod rendezvous;
mod reply;
mod response;
mod rows;
mod search;
mod seats;
mod server;
mod snapshot;
mod socket;
mod source;
mod spans;
mod split;
mod ssh;
mod strict;
mod table;
mod takeover;
mod tcp;
mod timer;
pub mod tls;
mod tracing_settings;
mod traffic;
mod trust;
mod tunnel;
mod upload;
mod upstream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use model::{Clock, Hostname, LogSink, Random, TcpPorts};

pub use control::{Router, serve};
pub use tracing_settings::{Sampler, TracingError, TracingSettings};

/// Panics if an instance would read another request than the router does of what a client sends. For fuzzing.
#[cfg(fuzzing)]
pub fn check_head(bytes: &[u8]) -> bool {
    inbound::check(bytes)
}

/// All that a router needs to know.
pub struct RouterSettings {
    /// Where it listens. Port 0 takes a free one. `::1` is left out on a machine without IPv6, if there is another address.
    pub listen: Vec<SocketAddr>,
    /// The https entrance; `None` leaves it shut.
    pub tls: Option<TlsEntrance>,
    /// Where git over SSH is taken for the controller; `None` leaves it shut.
    pub ssh: Option<SshEntrance>,
    /// Where connections are taken that are passed on as they are; `None` takes none.
    pub tcp: Option<TcpEntrance>,
    /// Where apps come that are linked to others: for the port that one asked for, the host name of [`inner_host`] is what it wants.
    /// `None` leaves it shut.
    pub inner: Option<SocketAddr>,
    /// The platform's own domain: this host and `api.` before it mean the platform itself, as does any bare address.
    pub domain: Hostname,
    /// Socket of the controller's half of the route table.
    pub names_socket: PathBuf,
    /// Socket of the host role's half.
    pub addresses_socket: PathBuf,
    /// Socket of the platform's own API.
    pub controller_socket: PathBuf,
    /// Socket of the controller for names that nobody knows.
    pub on_demand_socket: PathBuf,
    /// The last good route table is kept in this file.
    pub snapshot: PathBuf,
    /// Socket of the certificates of apps.
    pub certificates_socket: PathBuf,
    /// The last certificates of apps are kept in this folder, with their keys.
    pub certificates: PathBuf,
    /// The next router finds this one here, takes its listening sockets and lets it go; `None` lets no other one beside it. A
    /// folder that is missing is no reason not to serve.
    pub takeover: Option<PathBuf>,
    /// Load balancers: a connection from there begins with a header of the PROXY protocol, version 1 or 2, or is closed.
    pub proxy_protocol: Vec<IpNet>,
    /// Proxies whose headers say whose a request is; those of everybody else are replaced.
    pub trusted_proxies: Vec<IpNet>,
    /// Most bytes of answers that are kept for apps which want that, of all of them.
    pub cache_limit: u64,
    /// Where trace spans go; without it none is made, and what clients say of their traces is the app's matter.
    pub tracing: Option<TracingSettings>,
    /// Threads that serve requests; 0 is one a core.
    pub workers: usize,
    /// When to lose patience.
    pub timeouts: Timeouts,
    /// Takes the access log.
    pub log: Arc<dyn LogSink>,
    /// For `X-Request-Start` and log lines.
    pub clock: Arc<dyn Clock>,
    /// Seeds request ids and the choice of instances.
    pub random: Arc<dyn Random>,
}

/// Where a router takes requests over TLS, and with what.
#[derive(Debug, Clone)]
pub struct TlsEntrance {
    /// Where it listens, as [`RouterSettings::listen`].
    pub listen: Vec<SocketAddr>,
    /// PEM of the platform's own key and its certificates; read again when it changes.
    pub certificate: PathBuf,
    /// The keys of session tickets are in this file, which is not to outlive the machine's memory.
    pub tickets: PathBuf,
}

/// The host name by which an app is known to those that are linked to it, which come by this port.
pub fn inner_host(port: u16) -> String {
    format!("link-{port}.internal")
}

/// Where a router takes connections for apps that speak something else than HTTP.
#[derive(Debug, Clone)]
pub struct TcpEntrance {
    /// At these addresses of the machine. `::1` is left out on one without IPv6, if there is another one.
    pub listen: Vec<IpAddr>,
    /// No other ports than these, whatever the route table says.
    pub ports: TcpPorts,
}

/// Where a router takes connections of git over SSH, and who gets them.
#[derive(Debug, Clone)]
pub struct SshEntrance {
    /// Where it listens. A port that somebody else has is tried again.
    pub listen: Vec<SocketAddr>,
    /// The controller's socket for them.
    pub socket: PathBuf,
}

/// When a router loses patience. The defaults are Heroku's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect to an instance.
    pub connect: Duration,
    /// From the whole request having been sent to the first byte of the answer (H12).
    pub response: Duration,
    /// Without a byte in either direction, once an answer has begun or while a request is being sent (H15, H28).
    pub idle: Duration,
    /// For an instance while all are booting or out of reach (H20, H99).
    pub boot: Duration,
    /// For the table to change, once every instance has refused a request (H19, H21).
    pub settle: Duration,
    /// How long an instance that refused a request gets no other one.
    pub quarantine: Duration,
    /// How long an instance that failed again and again gets no requests, the first time.
    pub ejection: Duration,
    /// For a client to send the head of its first or next request.
    pub client_idle: Duration,
    /// How long a connection to an instance may rest between requests.
    pub upstream_idle: Duration,
    /// For a host name that nobody knows to become an app's, and to have a certificate.
    pub on_demand: Duration,
    /// For requests in flight when the router stops.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(30),
            idle: Duration::from_secs(55),
            boot: Duration::from_secs(75),
            settle: Duration::from_secs(1),
            quarantine: Duration::from_secs(5),
            ejection: Duration::from_secs(30),
            client_idle: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(90),
            on_demand: Duration::from_secs(20),
            drain: Duration::from_secs(30),
        }
    }
}

/// Why a router cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The address is taken, not this machine's, or not allowed.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The https entrance has nothing to serve with.
    #[error("cannot use TLS")]
    Certificate(#[from] tls::CertificateError),
    /// The settings of TLS contradict each other.
    #[error("cannot use TLS")]
    Tls(#[from] rustls::Error),
    /// The system refuses threads, timers or signals.
    #[error("cannot start a thread of the router")]
    Thread(#[source] io::Error),
}
