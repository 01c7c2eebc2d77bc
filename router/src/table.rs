//! The route table: host → app → workload → healthy instances, read by every worker without a lock.
//!
//! Names are many small immutable values behind atomic pointers, chosen by a hash of the host, so that what a change costs
//! does not grow with the number of apps; each workload's instances are another one inside, so a crash or a scale event
//! touches one app only. A request that began with an older value is still safe: an instance that left the table refuses new
//! requests ([`Instance::enter`]), and the request then looks the table up again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::routes::Endpoint;
use model::{AppId, AppName, Hostname};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Parts of the names: of 10,000 apps, 20 in each.
const PARTS: u64 = 512;

/// Host → app.
type Hosts = HashMap<Box<str>, Arc<App>>;

/// What all workers read and one control thread writes.
pub(crate) struct Table {
    exact: Vec<ArcSwap<Hosts>>,
    /// By what follows `*.`.
    wildcard: ArcSwap<Hosts>,
    /// Says "something changed" to requests that wait for an instance and to the pools.
    pub(crate) changed: watch::Sender<()>,
}

impl Table {
    pub(crate) fn new() -> Self {
        let exact = (0..PARTS).map(|_| ArcSwap::default()).collect();
        Self { exact, wildcard: ArcSwap::default(), changed: watch::Sender::new(()) }
    }

    /// The app that `host` (lower case, no port) means: by its exact name, else by the closest wildcard above it.
    pub(crate) fn find(&self, host: &str) -> Option<Arc<App>> {
        if let Some(app) = self.exact[part(host)].load().get(host) {
            return Some(Arc::clone(app));
        }
        let wildcard = self.wildcard.load();
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(app) = wildcard.get(parent) {
                return Some(Arc::clone(app));
            }
            rest = parent;
        }
        None
    }

    /// Takes hosts from the apps that had them, then gives hosts to apps. A host that another app has by now stays there.
    pub(crate) fn change(&self, taken: Vec<(Hostname, AppId)>, given: Vec<(Hostname, Arc<App>)>) {
        let mut touched: HashMap<Option<usize>, Hosts> = HashMap::new();
        let mut hosts_with = |host: &Hostname, act: &mut dyn FnMut(&mut Hosts, &str)| {
            let (place, name) = match host.as_str().strip_prefix("*.") {
                Some(parent) => (None, parent),
                None => (Some(part(host.as_str())), host.as_str()),
            };
            let copy = || Hosts::clone(&self.at(place).load());
            act(touched.entry(place).or_insert_with(copy), name);
        };
        for (host, app) in taken {
            hosts_with(&host, &mut |hosts, name| {
                if hosts.get(name).is_some_and(|known| known.id == app) {
                    hosts.remove(name);
                }
            });
        }
        for (host, app) in given {
            hosts_with(&host, &mut |hosts, name| drop(hosts.insert(name.into(), Arc::clone(&app))));
        }
        for (place, hosts) in touched {
            self.at(place).store(Arc::new(hosts));
        }
    }

    fn at(&self, place: Option<usize>) -> &ArcSwap<Hosts> {
        place.map_or(&self.wildcard, |part| &self.exact[part])
    }
}

fn part(host: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    host.hash(&mut hasher);
    usize::try_from(hasher.finish() % PARTS).unwrap_or_default()
}

pub(crate) struct App {
    pub(crate) id: AppId,
    pub(crate) name: AppName,
    pub(crate) mode: Mode,
}

pub(crate) enum Mode {
    Blank,
    Maintenance,
    NoWeb,
    Serve(Arc<Workload>),
}

/// The instances of one workload, swapped as a whole.
#[derive(Default)]
pub(crate) struct Workload {
    pub(crate) instances: ArcSwap<Instances>,
}

#[derive(Default)]
pub(crate) struct Instances {
    pub(crate) healthy: Vec<Arc<Instance>>,
    pub(crate) starting: u32,
    pub(crate) crashed: u32,
}

/// One instance for as long as the table holds it, and after that until its last request ended.
pub(crate) struct Instance {
    pub(crate) endpoint: Endpoint,
    /// Unique in this process: what pools and retries know it by.
    pub(crate) serial: u64,
    born: Instant,
    /// Requests in flight, and [`RETIRED`].
    state: AtomicU64,
    /// Upgraded connections that are open.
    tunnels: AtomicU32,
    /// Milliseconds after `born`; zero is never.
    quarantined_until: AtomicU64,
    drained: mpsc::UnboundedSender<String>,
}

/// Set in [`Instance::state`] once the table has let go of the instance.
const RETIRED: u64 = 1 << 63;

impl Instance {
    pub(crate) fn new(endpoint: Endpoint, serial: u64, drained: mpsc::UnboundedSender<String>) -> Self {
        Self {
            endpoint,
            serial,
            born: Instant::now(),
            state: AtomicU64::new(0),
            tunnels: AtomicU32::new(0),
            quarantined_until: AtomicU64::new(0),
            drained,
        }
    }

    /// Counts one more request in flight; none if the instance has left the table, and the caller must look again.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<InFlight> {
        let mut state = self.state.load(Ordering::Acquire);
        while state & RETIRED == 0 {
            match self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(InFlight(Arc::clone(self))),
                Err(now) => state = now,
            }
        }
        None
    }

    /// Lets no new request in, and tells the publisher once the last one has left.
    pub(crate) fn retire(&self) {
        if self.state.fetch_or(RETIRED, Ordering::AcqRel) == 0 {
            self.say_drained();
        }
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.state.load(Ordering::Relaxed) & RETIRED != 0
    }

    /// What the balancer compares: requests in flight and open tunnels.
    pub(crate) fn load(&self) -> u64 {
        (self.state.load(Ordering::Relaxed) & !RETIRED) + u64::from(self.tunnels.load(Ordering::Relaxed))
    }

    /// Keeps requests away for a while, because it refused one or did not answer.
    pub(crate) fn quarantine(&self, time: Duration) {
        let until = u64::try_from((self.born.elapsed() + time).as_millis()).unwrap_or(u64::MAX);
        self.quarantined_until.store(until, Ordering::Relaxed);
    }

    /// How long it still is in quarantine.
    pub(crate) fn quarantined(&self) -> Option<Duration> {
        let until = match self.quarantined_until.load(Ordering::Relaxed) {
            0 => return None,
            millis => Duration::from_millis(millis),
        };
        let left = until.checked_sub(self.born.elapsed()).filter(|left| !left.is_zero());
        if left.is_none() {
            self.quarantined_until.store(0, Ordering::Relaxed);
        }
        left
    }

    fn say_drained(&self) {
        // Without a receiver the router is stopping, and nobody waits for it.
        let _ = self.drained.send(self.endpoint.instance.clone());
    }
}

/// A request in flight on an instance, until it is dropped.
pub(crate) struct InFlight(Arc<Instance>);

impl InFlight {
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.0
    }

    /// The request became a tunnel. A tunnel is load, but it does not hold a drain back: it has no end of its own, and
    /// SIGTERM, which follows the drain, is how an app learns that it is time to close its tunnels properly.
    pub(crate) fn into_tunnel(self) -> Tunnel {
        self.0.tunnels.fetch_add(1, Ordering::Relaxed);
        Tunnel(Arc::clone(&self.0))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.state.fetch_sub(1, Ordering::AcqRel) == RETIRED | 1 {
            self.0.say_drained();
        }
    }
}

/// An open upgraded connection of an instance, until it is dropped.
pub(crate) struct Tunnel(Arc<Instance>);

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> (Arc<Instance>, mpsc::UnboundedReceiver<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let endpoint =
            Endpoint { instance: "i1".to_owned(), dyno: "web.1".to_owned(), address: ([127, 0, 0, 1], 1).into() };
        (Arc::new(Instance::new(endpoint, 1, sender)), receiver)
    }

    #[test]
    fn an_instance_is_drained_once_when_its_last_request_left() {
        let (instance, mut drained) = instance();
        let first = instance.enter().expect("in the table");
        let second = instance.enter().expect("in the table");
        drop(first);
        instance.retire();
        assert!(instance.enter().is_none(), "no request begins on an instance that left the table");
        assert!(drained.try_recv().is_err());
        drop(second);
        assert_eq!(drained.try_recv().as_deref(), Ok("i1"));
        instance.retire();
        assert!(drained.try_recv().is_err(), "said once");
    }

    #[test]
    fn an_idle_instance_is_drained_at_once_and_a_tunnel_does_not_hold_it_back() {
        let (instance, mut drained) = instance();
        let tunnel = instance.enter().expect("in the table").into_tunnel();
        assert_eq!(instance.load(), 1);
        instance.retire();
        assert_eq!(drained.try_recv().as_deref(), Ok("i1"));
        drop(tunnel);
        assert_eq!(instance.load(), 0);
    }
}
