//! A real router for the tests of this crate.

use std::path::Path;
use std::sync::Arc;

use model::clock::{Clock, SystemClock, SystemRandom};
use model::{AppId, LogSink, LogSource, Timestamp};
use router::tls::Authority;
use router::{RouterSettings, Timeouts, TlsEntrance};

struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _: AppId, _: Timestamp, _: &LogSource, _: &str) {}
}

/// At free ports of this machine, with and without TLS; its files and sockets are in a folder.
pub(crate) fn settings(folder: &Path) -> RouterSettings {
    let path = |name: &str| folder.join(name);
    let own = Authority::new(&path("tls"));
    own.ensure(&"localhost".parse().expect("a host name"), SystemClock.now()).expect("certificates");
    let listen = vec![([127, 0, 0, 1], 0).into()];
    let tls = TlsEntrance { listen: listen.clone(), certificate: own.server(), tickets: path("tickets.json") };
    RouterSettings {
        listen,
        tls: Some(tls),
        ssh: None,
        tcp: None,
        inner: None,
        domain: "localhost".parse().expect("a host name"),
        names_socket: path("names.sock"),
        addresses_socket: path("addresses.sock"),
        controller_socket: path("controller.sock"),
        on_demand_socket: path("on-demand.sock"),
        snapshot: path("table.json"),
        certificates_socket: path("certificates.sock"),
        certificates: path("certificates"),
        takeover: None,
        proxy_protocol: Vec::new(),
        trusted_proxies: Vec::new(),
        tracing: None,
        cache_limit: 0,
        workers: 2,
        timeouts: Timeouts::default(),
        log: Arc::new(NoLog),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    }
}
