//! The ports whose connections are passed on as they are: whose they are, and the sockets that listen at them.
//!
//! A port that no route has is not listened to. The control thread opens and shuts ports, and says that it serves a table only once it listens
//! at its ports: whoever is told of a new one finds it open. Each worker has a socket of its own at each port (`SO_REUSEPORT`), of which a
//! second descriptor is kept here for the router that takes over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::{AppId, Hostname, TcpPorts, TcpRoute};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Berth, Wanted};
use crate::control::has_no_ipv6;
use crate::seats::Seats;
use crate::server;

/// Pause before a port is tried again that could not be had.
const RETRY: Duration = Duration::from_secs(5);
/// How often it is said that somebody wants what is not there.
const COMPLAINS: Duration = Duration::from_secs(10);
/// Each socket has a descriptor of its worker's and one here.
const FILES: usize = 2;

/// All of them.
#[derive(Default)]
pub(crate) struct Ports {
    plan: ArcSwap<BTreeMap<u16, Port>>,
    state: Mutex<State>,
    /// When it was last said that somebody wanted what is not there, and how many did since.
    unknown: Mutex<(Option<Instant>, u64)>,
    /// There is or was a route to one.
    any: AtomicBool,
}

/// Whose the connections to one port are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Port {
    /// Takes those that nobody else takes.
    rest: Option<AppId>,
    exact: HashMap<Hostname, AppId>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, (Hostname, AppId)>,
    /// Whoever comes says by TLS whom they want.
    is_tls: bool,
}

#[derive(Default)]
struct State {
    routes: BTreeMap<AppId, Vec<TcpRoute>>,
    /// None before the router listens, and once it does no more.
    stand: Option<Stand>,
    open: BTreeMap<u16, Open>,
    /// Ports that could not be had.
    lacking: BTreeSet<u16>,
}

/// Where to listen, and who accepts.
pub(crate) struct Stand {
    pub(crate) listen: Vec<IpAddr>,
    pub(crate) ports: TcpPorts,
    /// One of each worker.
    pub(crate) workers: Vec<mpsc::UnboundedSender<Landing>>,
    pub(crate) seats: Arc<Seats>,
    /// What ends TLS.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Of the router before.
    pub(crate) inherited: Vec<TcpListener>,
}

/// What a worker accepts connections from.
pub(crate) struct Landing {
    pub(crate) berth: Berth,
    pub(crate) listener: TcpListener,
    /// Cancelled when the port is shut.
    pub(crate) closed: CancellationToken,
}

/// A port that is listened to, until it is dropped.
struct Open {
    listeners: Vec<TcpListener>,
    seats: Arc<Seats>,
    _closed: DropGuard,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.seats.let_go(self.listeners.len() * FILES);
    }
}

impl Ports {
    /// Says which routes an app has. They are in force when it is [settled](Self::settle).
    pub(crate) fn set(&self, app: AppId, routes: &[TcpRoute]) {
        // Nearly no app has any.
        if routes.is_empty() && !self.any.load(Ordering::Relaxed) {
            return;
        }
        self.any.store(true, Ordering::Relaxed);
        let mut state = self.state();
        if routes.is_empty() {
            state.routes.remove(&app);
        } else {
            state.routes.insert(app, routes.to_vec());
        }
    }

    /// Lets what was said take effect, as far as ports can be had.
    pub(crate) fn settle(&self) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        let plan = plan(&state.routes);
        let ports: BTreeSet<u16> = plan.keys().copied().collect();
        if **self.plan.load() != plan {
            self.plan.store(Arc::new(plan));
        }
        let State { stand: Some(stand), open, lacking, .. } = &mut *state else { return };
        open.retain(|port, _| ports.contains(port));
        lacking.retain(|port| ports.contains(port));
        for port in ports {
            if open.contains_key(&port) || !stand.ports.contains(port) {
                continue;
            }
            match stand.open(port) {
                Ok(opened) => {
                    lacking.remove(&port);
                    open.insert(port, opened);
                }
                Err((address, error)) => {
                    if lacking.insert(port) {
                        tracing::warn!(address = %address, error = %error, "a TCP route waits for its port (setting tcp_ports)");
                    }
                }
            }
        }
    }

    /// From now on listens where routes are, beginning with those that there are. Call it in a runtime.
    pub(crate) fn begin(&self, stand: Stand) {
        self.state().stand = Some(stand);
        self.settle();
        if let Some(stand) = &mut self.state().stand {
            stand.inherited.clear();
        }
    }

    /// Tries again and again what could not be had.
    pub(crate) async fn retry(&self) {
        loop {
            sleep(RETRY).await;
            if !self.state().lacking.is_empty() {
                self.settle();
            }
        }
    }

    /// Listens nowhere any more.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.stand = None;
        state.open.clear();
    }

    /// All sockets, for the next router.
    pub(crate) fn listeners(&self) -> io::Result<Vec<OwnedFd>> {
        let state = self.state();
        let all = state.open.values().flat_map(|open| &open.listeners);
        all.map(|listener| listener.as_fd().try_clone_to_owned()).collect()
    }

    /// Whose a connection to this port is, which wants this host (lower case) if any.
    pub(crate) fn find(&self, port: u16, host: Option<&str>) -> Option<(AppId, Wanted)> {
        let plan = self.plan.load();
        let (app, host) = plan.get(&port)?.find(host)?;
        Some((app, (port, host)))
    }

    /// Whether whoever comes to this port says by TLS whom they want.
    pub(crate) fn is_tls(&self, port: u16) -> bool {
        self.plan.load().get(&port).is_some_and(|port| port.is_tls)
    }

    /// Says, now and then, that somebody wanted what is not there.
    pub(crate) fn complain(&self, (port, host): (u16, Option<&str>), client: SocketAddr) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.1 += 1;
        if unknown.0.is_none_or(|last| last.elapsed() >= COMPLAINS) {
            let connections = std::mem::take(&mut unknown.1);
            unknown.0 = Some(Instant::now());
            tracing::info!(port, host, client = %client.ip(), connections, "connections to a TCP port want a host that no app has there");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and what it guards is whole after every statement anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn plan(routes: &BTreeMap<AppId, Vec<TcpRoute>>) -> BTreeMap<u16, Port> {
    let mut plan: BTreeMap<u16, Port> = BTreeMap::new();
    for (app, route) in routes.iter().flat_map(|(app, routes)| routes.iter().map(|route| (*app, route))) {
        let port = plan.entry(route.port).or_default();
        port.is_tls |= route.host.is_some() || route.terminate;
        match &route.host {
            // What two apps claim for a moment goes to one of them.
            None => port.rest = port.rest.or(Some(app)),
            Some(host) => match host.as_str().strip_prefix("*.") {
                Some(parent) => drop(port.wildcard.entry(parent.into()).or_insert_with(|| (host.clone(), app))),
                None => drop(port.exact.entry(host.clone()).or_insert(app)),
            },
        }
    }
    plan
}

impl Port {
    fn find(&self, host: Option<&str>) -> Option<(AppId, Option<Hostname>)> {
        let named = host.and_then(|host| {
            let host: Hostname = host.parse().ok()?;
            if let Some(app) = self.exact.get(&host) {
                return Some((*app, host));
            }
            let mut rest = host.as_str();
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some((name, app)) = self.wildcard.get(parent) {
                    return Some((*app, name.clone()));
                }
                rest = parent;
            }
            None
        });
        let named = named.map(|(app, host)| (app, Some(host)));
        named.or_else(|| self.rest.map(|app| (app, None)))
    }
}

impl Stand {
    fn open(&mut self, port: u16) -> Result<Open, (SocketAddr, io::Error)> {
        let mut sockets: Vec<(usize, TcpListener)> = Vec::new();
        let addresses: Vec<SocketAddr> = self.listen.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        for address in &addresses {
            match self.sockets(*address) {
                Ok(found) => sockets.extend(found),
                Err(error) if has_no_ipv6(*address, &error) && addresses.iter().any(SocketAddr::is_ipv4) => {}
                Err(error) => return Err((*address, error)),
            }
        }
        // Before anybody accepts: half of a port is none.
        let listeners: io::Result<Vec<TcpListener>> =
            sockets.iter().map(|(_, listener)| listener.try_clone()).collect();
        let listeners = listeners.map_err(|error| (addresses[0], error))?;
        let closed = CancellationToken::new();
        for (worker, listener) in sockets {
            if let Some(worker) = self.workers.get(worker) {
                // One that is gone is stopping, as is the router.
                let _ = worker.send(Landing { berth: (port, self.tls.clone()), listener, closed: closed.clone() });
            }
        }
        self.seats.hold(listeners.len() * FILES);
        Ok(Open { listeners, seats: Arc::clone(&self.seats), _closed: closed.drop_guard() })
    }

    /// One socket of each worker at `address`, and those that are too many: whoever waits in their queues waits for one of the workers.
    fn sockets(&mut self, address: SocketAddr) -> io::Result<Vec<(usize, TcpListener)>> {
        let is_there = |listener: &mut TcpListener| listener.local_addr().is_ok_and(|local| local == address);
        let mut found: Vec<TcpListener> = self.inherited.extract_if(.., is_there).collect();
        while found.len() < self.workers.len() {
            found.push(server::listen(address, !found.is_empty(), true)?.into_std()?);
        }
        for listener in &found {
            listener.set_nonblocking(true)?;
        }
        let workers = self.workers.len();
        Ok(found.into_iter().enumerate().map(|(index, listener)| (index % workers, listener)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(number: u8) -> AppId {
        format!("00000000-0000-4000-8000-0000000000{number:02}").parse().expect("an id")
    }

    fn route(port: u16, host: Option<&str>) -> TcpRoute {
        TcpRoute {
            port,
            host: host.map(|host| host.parse().expect("a host name")),
            terminate: false,
            target_port: None,
            idle: Duration::from_secs(1),
            introduce: None,
            shares: Vec::new(),
        }
    }

    #[test]
    fn a_connection_goes_to_its_host_then_to_a_wildcard_then_to_who_has_the_port() {
        let ports = Ports::default();
        ports.set(app(1), &[route(5432, Some("db.example.com")), route(5432, Some("*.a.example.com"))]);
        ports.set(app(2), &[route(5432, None), route(3000, None)]);
        ports.set(app(3), &[route(5432, Some("*.example.com"))]);
        assert_eq!(ports.find(5432, None), None, "not before it is settled");
        ports.settle();
        let whose = |port, host| ports.find(port, host).map(|(app, (_, host))| (app, host.map(|it| it.to_string())));
        let named = |number, host: &str| Some((app(number), Some(host.to_owned())));
        assert_eq!(whose(5432, Some("db.example.com")), named(1, "db.example.com"));
        assert_eq!(whose(5432, Some("x.y.a.example.com")), named(1, "*.a.example.com"));
        assert_eq!(whose(5432, Some("other.example.com")), named(3, "*.example.com"));
        assert_eq!(whose(5432, Some("example.com")), Some((app(2), None)));
        assert_eq!((whose(5432, None), whose(3000, None)), (Some((app(2), None)), Some((app(2), None))));
        assert_eq!(whose(3001, None), None);
        ports.set(app(2), &[]);
        ports.settle();
        assert_eq!((whose(5432, None), whose(3000, None)), (None, None));
        assert!(whose(5432, Some("db.example.com")).is_some());
    }
}
