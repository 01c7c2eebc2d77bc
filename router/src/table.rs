//! The route table: host → app → workload → healthy instances, read by every worker without a lock.
//!
//! It is rows of few bytes ([`Rows`]): what each app is by name, whose each host is, and where each workload's instances are. What a request
//! needs, an [`App`] and its [`Workload`]s, is made of them when the first one comes, once for all workers, and hangs there until the row
//! goes; a change of a row changes what was made of it. That a router knows a million apps costs what their rows do. A request that began
//! with an older value is still safe: an instance that left the table refuses new requests ([`Instance::enter`]), and the request then looks
//! the table up again.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::routes::{AppRoute, Endpoint, Place, RouteMode, WorkloadId};
use model::{AppId, AppName, Hostname};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::balance::Dice;
use crate::cache::{Caching, Store};
use crate::making::Making;
use crate::on_demand::Askers;
use crate::pack::Packed;
use crate::place::{self, Chosen, Mounted, Parts, Slot};
use crate::policy::ejection::Standing;
use crate::policy::{Gate, Rules, sticky};
use crate::rows::{Draft, Rows};
use crate::tcp;
use crate::tcp::{Entry, Ports};
use crate::traffic::News;

/// What all workers read and one control thread writes.
pub(crate) struct Table {
    /// By the id of the app.
    pub(crate) names: Rows<App>,
    /// By the id of the workload.
    pub(crate) addresses: Rows<Workload>,
    /// The id of the app that a host means, or the [`Parts`] of a host that several share.
    exact: Rows<()>,
    /// By what follows `*.`.
    wildcard: Rows<()>,
    /// There are or were hosts that several share.
    has_parts: AtomicBool,
    /// Apps that want to be asked about names that nobody knows.
    pub(crate) askers: Askers,
    /// Ports whose connections are passed on as they are.
    pub(crate) ports: Ports,
    /// Where answers of apps are kept that want it.
    pub(crate) store: Arc<Store>,
    /// Whoever makes something of a row holds this, as does who changes rows.
    making: Mutex<Making>,
    /// Says "something changed" to requests that wait for an instance, and to who keeps the table on disk.
    pub(crate) changed: watch::Sender<()>,
}

impl Table {
    /// An empty one. Workers say by `news` what publishers are to know.
    pub(crate) fn new(news: mpsc::UnboundedSender<News>) -> Self {
        let (names, addresses, exact, wildcard) = (Rows::new(), Rows::new(), Rows::new(), Rows::new());
        Self {
            names,
            addresses,
            exact,
            wildcard,
            has_parts: AtomicBool::new(false),
            askers: Askers::default(),
            ports: Ports::default(),
            store: Store::new(0),
            making: Mutex::new(Making::new(news)),
            changed: watch::Sender::new(()),
        }
    }

    /// The app that `host` (lower case, no port) means for this path: by its exact name, else by the closest wildcard above it.
    #[inline]
    pub(crate) fn find(&self, host: &str, path: &str) -> Result<(Arc<App>, Option<Mounted>), Nowhere> {
        let Chosen { app, is_shared } = self.choose(host, path.as_bytes());
        if is_shared && place::readings(path).iter().any(|reading| self.choose(host, reading).app != app) {
            return Err(Nowhere::Unclear);
        }
        let (id, mounted) = app.ok_or(Nowhere::Unknown)?;
        self.app(id).map(|app| (app, mounted)).ok_or(Nowhere::Unknown)
    }

    /// The app with this id.
    pub(crate) fn app(&self, id: AppId) -> Option<Arc<App>> {
        let key = id.to_bytes();
        self.names.live(&key).or_else(|| {
            let mut making = self.making();
            self.names.liven(&key, |row| Some(self.make_app(&mut making, id, AppRoute::unpack(row)?, None)))
        })
    }

    fn choose(&self, host: &str, path: &[u8]) -> Chosen {
        let choose = |rows: &Rows<()>, host: &str| {
            rows.read(host.as_bytes(), |row| place::choose(row, path)).unwrap_or_default()
        };
        let mut chosen = choose(&self.exact, host);
        let mut rest = host;
        while let (None, Some((_, parent))) = (chosen.app, rest.split_once('.')) {
            let above = choose(&self.wildcard, parent);
            chosen = Chosen { app: above.app, is_shared: chosen.is_shared || above.is_shared };
            rest = parent;
        }
        chosen
    }

    /// Whose a place is by the table; not by a wildcard above it.
    pub(crate) fn slot(&self, place: &Place) -> Option<Slot> {
        self.parts(&place.host)?.get(place.path.as_ref())
    }

    /// Whose the parts of a host are.
    pub(crate) fn parts(&self, host: &Hostname) -> Option<Parts> {
        let (rows, name) = self.row_of(host);
        rows.read(name.as_bytes(), Parts::unpack)?
    }

    /// Takes places from the apps that had them, then gives places to apps. One that another app has by now stays there.
    pub(crate) fn move_places(&self, taken: &[(Place, AppId)], given: &[(Place, AppId)]) {
        let mut shared = self.shared(taken, given);
        let (mut exact, mut wildcard) = (Draft::default(), Draft::default());
        let mut set = |host: &Hostname, row: Option<&[u8]>| {
            let (rows, name) = self.row_of(host);
            let draft = if std::ptr::eq(rows, &raw const self.exact) { &mut exact } else { &mut wildcard };
            draft.set(name.as_bytes(), row);
        };
        for (place, id) in taken {
            match shared.get_mut(&place.host) {
                Some(parts) => parts.take(place, *id),
                None if self.slot(place).is_some_and(|slot| slot.app == *id) => set(&place.host, None),
                None => {}
            }
        }
        for (place, id) in given {
            match shared.get_mut(&place.host) {
                Some(parts) => parts.give(place, *id),
                None => set(&place.host, Some(&id.to_bytes())),
            }
        }
        for (host, parts) in shared {
            set(host, (!parts.is_empty()).then(|| parts.packed()).as_deref());
        }
        for (rows, draft) in [(&self.exact, exact), (&self.wildcard, wildcard)] {
            rows.change(&draft, 0, |change| change(&mut |_, _, _| None));
        }
    }

    /// Those of the hosts that several share, or are to share, as they are now.
    fn shared<'a>(&self, taken: &'a [(Place, AppId)], given: &'a [(Place, AppId)]) -> HashMap<&'a Hostname, Parts> {
        let is_part = |(place, _): &(Place, AppId)| place.path.is_some();
        let mut shared = HashMap::new();
        // Most routers know of none, and have no time to look.
        if !self.has_parts.load(Ordering::Relaxed) && !given.iter().any(is_part) {
            return shared;
        }
        self.has_parts.store(true, Ordering::Relaxed);
        for (place, _) in taken.iter().chain(given) {
            let (rows, name) = self.row_of(&place.host);
            if place.path.is_some() || rows.read(name.as_bytes(), place::is_shared) == Some(true) {
                shared.entry(&place.host).or_insert_with(|| self.parts(&place.host).unwrap_or_default());
            }
        }
        shared
    }

    pub(crate) fn making(&self) -> MutexGuard<'_, Making> {
        // Nothing panics while it holds the lock, and what it guards is whole after every statement anyway.
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What requests need of an app. One that is made anew goes on with the rules that it had, if it has the same policy, and with the answers
    /// that are kept of it, as far as they are still its own.
    pub(crate) fn make_app(
        &self,
        making: &mut Making,
        id: AppId,
        route: AppRoute,
        before: Option<&Arc<App>>,
    ) -> Arc<App> {
        let rules = route.policy.map(|policy| {
            let known = before.and_then(|app| app.rules.as_ref()).filter(|rules| rules.policy == *policy);
            known.map_or_else(|| Arc::new(Rules::new(*policy)), Arc::clone)
        });
        let mode = match route.mode {
            RouteMode::Blank => Mode::Blank,
            RouteMode::Maintenance => Mode::Maintenance,
            RouteMode::NoWeb => Mode::NoWeb,
            RouteMode::Serve(shares) => {
                let shares = shares.into_iter().map(|share| (self.workload(making, share.workload), share.weight));
                Mode::Serve(Shares::new(shares))
            }
        };
        let entries = route.tcp.into_iter().map(|mut tcp| {
            let shares = std::mem::take(&mut tcp.shares).into_iter();
            let shares = Shares::new(shares.map(|share| (self.workload(making, share.workload), share.weight)));
            Entry { route: tcp, shares }
        });
        let entries = entries.collect();
        let kept = before.and_then(|app| app.caching.as_ref());
        let caching = match (&rules, &mode) {
            (Some(rules), Mode::Serve(shares)) => Caching::new(&self.store, (&route.name, &rules.policy), shares, kept),
            _ => None,
        };
        Arc::new(App { id, name: route.name, mode, rules, caching, entries })
    }

    /// What requests need of a workload.
    pub(crate) fn workload(&self, making: &mut Making, id: WorkloadId) -> Arc<Workload> {
        let known = self.addresses.liven(&id.packed(), |row| making.workload_of(&id, row));
        known.unwrap_or_else(|| making.workload_without_row(id))
    }

    /// Bytes that rows take.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.names.size() + self.addresses.size() + self.exact.size() + self.wildcard.size()
    }

    fn row_of<'a>(&'a self, host: &'a Hostname) -> (&'a Rows<()>, &'a str) {
        match host.as_str().strip_prefix("*.") {
            Some(parent) => (&self.wildcard, parent),
            None => (&self.exact, host.as_str()),
        }
    }
}

/// Why a request belongs to no app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nowhere {
    /// No app has the host, or none has this path of it.
    Unknown,
    /// Its path can be read as that of another app.
    Unclear,
}

pub(crate) struct App {
    pub(crate) id: AppId,
    pub(crate) name: AppName,
    pub(crate) mode: Mode,
    /// What its owner says of its requests, if anything.
    pub(crate) rules: Option<Arc<Rules>>,
    /// Its answers that are kept for others, if it wants that.
    pub(crate) caching: Option<Arc<Caching>>,
    /// What takes connections that are no requests.
    pub(crate) entries: Box<[Entry]>,
}

impl App {
    /// What takes the connections to this port that want this host.
    pub(crate) fn entry(&self, (port, host): &tcp::Wanted) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.route.port == *port && entry.route.host == *host)
    }
}

pub(crate) enum Mode {
    Blank,
    Maintenance,
    NoWeb,
    Serve(Shares),
}

/// The workloads that take an app's requests, each with its weight.
pub(crate) struct Shares {
    all: Vec<(Arc<Workload>, usize)>,
    total: usize,
}

impl Shares {
    /// Without those that are to take none.
    pub(crate) fn new(shares: impl IntoIterator<Item = (Arc<Workload>, u32)>) -> Self {
        let weight = |weight| usize::try_from(weight).unwrap_or(usize::MAX);
        let all: Vec<_> = shares.into_iter().map(|(workload, part)| (workload, weight(part))).collect();
        let all: Vec<_> = all.into_iter().filter(|(_, weight)| *weight > 0).collect();
        let total = all.iter().fold(0, |sum: usize, (_, weight)| sum.saturating_add(*weight));
        Self { all, total }
    }

    /// All of them, that of the newest release first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.all.iter().rev().map(|(workload, _)| workload)
    }

    /// All of them in the order in which one request asks them: by chance which is the first.
    pub(crate) fn in_turn<'a>(&'a self, dice: &mut Dice) -> impl Iterator<Item = &'a Arc<Workload>> + use<'a> {
        let first = if self.all.len() < 2 { 0 } else { self.at(dice.below(self.total)) };
        let (before, from) = self.all.split_at(first);
        from.iter().chain(before).map(|(workload, _)| workload)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.all.iter().map(|(workload, _)| workload)
    }

    /// Whose part of the whole this point is in.
    fn at(&self, mut point: usize) -> usize {
        let holds = |(_, weight): &(Arc<Workload>, usize)| {
            let found = point < *weight;
            point = point.saturating_sub(*weight);
            found
        };
        self.all.iter().position(holds).unwrap_or_default()
    }
}

/// What a workload's requests are counted under.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) id: WorkloadId,
    /// Unique in this process.
    pub(crate) serial: u64,
}

/// The instances of one workload, swapped as a whole.
pub(crate) struct Workload {
    pub(crate) label: Arc<Label>,
    pub(crate) instances: ArcSwap<Instances>,
    /// Its instances are fewer than its row says, because nobody but that says so.
    pub(crate) is_doubtful: AtomicBool,
    /// Publishers were told that it is wanted, since its instances last changed.
    asked: AtomicBool,
    news: mpsc::UnboundedSender<News>,
}

impl Workload {
    pub(crate) fn new(label: Label, news: mpsc::UnboundedSender<News>) -> Self {
        let (is_doubtful, asked) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { label: Arc::new(label), instances: ArcSwap::default(), is_doubtful, asked, news }
    }

    pub(crate) fn set(&self, instances: Instances) {
        self.instances.store(Arc::new(instances));
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Whoever was told that it is wanted may not know it any more.
    pub(crate) fn ask_again(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    /// A request waits, and there is no instance.
    pub(crate) fn ask(&self) {
        if !self.asked.swap(true, Ordering::Relaxed) {
            // Without a receiver the router is stopping.
            let _ = self.news.send(News::Wanted(self.label.id.clone()));
        }
    }
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
    /// Of its workload.
    pub(crate) label: Arc<Label>,
    /// How it did lately.
    pub(crate) standing: Standing,
    born: Instant,
    /// It gets as much as the others.
    settled: AtomicBool,
    /// What the cookies of those say that come back to it.
    token: OnceLock<String>,
    /// Requests in flight, among them upgraded connections that are open, and [`RETIRED`].
    state: AtomicU64,
    /// Tells tunnels that the instance has left the table.
    left: Notify,
    /// Milliseconds that it has to drain.
    drain: AtomicU64,
    /// Milliseconds after `born`; zero is never.
    quarantined_until: AtomicU64,
    news: mpsc::UnboundedSender<News>,
}

/// Set in [`Instance::state`] once the table has let go of the instance.
const RETIRED: u64 = 1 << 63;
/// Per cent of what the others get that the youngest instance gets.
const LEAST_SHARE: usize = 10;

impl Instance {
    pub(crate) fn new(endpoint: Endpoint, serial: u64, label: Arc<Label>, news: mpsc::UnboundedSender<News>) -> Self {
        Self {
            endpoint,
            serial,
            label,
            standing: Standing::default(),
            born: Instant::now(),
            settled: AtomicBool::new(false),
            token: OnceLock::new(),
            state: AtomicU64::new(0),
            left: Notify::new(),
            drain: AtomicU64::new(0),
            quarantined_until: AtomicU64::new(0),
            news,
        }
    }

    /// Counts one more request in flight, of `limit` at most; none if there are as many, or if the instance has left the table, and the caller
    /// must look again.
    pub(crate) fn enter(self: &Arc<Self>, limit: u64) -> Option<InFlight> {
        let mut state = self.state.load(Ordering::Acquire);
        while state & RETIRED == 0 && state < limit {
            match self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(InFlight { instance: Arc::clone(self), gate: None }),
                Err(now) => state = now,
            }
        }
        None
    }

    /// How long the table has held it.
    pub(crate) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Per cent of what the others get that it gets, while it is younger than `slow_start`.
    pub(crate) fn share(&self, slow_start: Duration) -> Option<usize> {
        if self.settled.load(Ordering::Relaxed) {
            return None;
        }
        let age = self.age();
        if age >= slow_start {
            self.settled.store(true, Ordering::Relaxed);
            return None;
        }
        let percent = age.as_millis() * 100 / slow_start.as_millis().max(1);
        Some(usize::try_from(percent).unwrap_or(100).max(LEAST_SHARE))
    }

    /// What cookies say of it.
    pub(crate) fn token(&self) -> &str {
        self.token.get_or_init(|| sticky::token(&self.endpoint.instance))
    }

    /// Lets no new request in if none is in flight, and says whether that is so.
    pub(crate) fn rest(&self) -> bool {
        self.state.compare_exchange(0, RETIRED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Lets no new request in, and tells the publisher once the last one has left.
    pub(crate) fn retire(&self) {
        if self.state.fetch_or(RETIRED, Ordering::AcqRel) == 0 {
            self.say_drained();
        }
        self.left.notify_waiters();
    }

    /// Says how long it will have to drain.
    pub(crate) fn set_drain(&self, time: Duration) {
        self.drain.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Waits until it has left the table and of its time to drain only `rest` is left.
    pub(crate) async fn is_over(&self, rest: Duration) {
        let mut left = pin!(self.left.notified());
        left.as_mut().enable();
        if !self.is_retired() {
            left.await;
        }
        sleep(Duration::from_millis(self.drain.load(Ordering::Relaxed)).saturating_sub(rest)).await;
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.state.load(Ordering::Acquire) & RETIRED != 0
    }

    /// Whether it has left the table, and its last request has left it.
    pub(crate) fn is_drained(&self) -> bool {
        self.state.load(Ordering::Acquire) == RETIRED
    }

    /// What the balancer compares: requests in flight and open tunnels.
    pub(crate) fn load(&self) -> u64 {
        self.state.load(Ordering::Relaxed) & !RETIRED
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
        let _ = self.news.send(News::Drained(self.endpoint.instance.clone()));
    }
}

/// A request in flight on an instance, until it is dropped.
pub(crate) struct InFlight {
    instance: Arc<Instance>,
    /// Where others wait for its place.
    gate: Option<Arc<Gate>>,
}

impl InFlight {
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Says at this gate when it is over.
    pub(crate) fn leave_by(self, gate: Option<&Arc<Gate>>) -> Self {
        let mut this = self;
        this.gate = gate.map(Arc::clone);
        this
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.instance.state.fetch_sub(1, Ordering::AcqRel) == RETIRED | 1 {
            self.instance.say_drained();
        }
        if let Some(gate) = &self.gate {
            gate.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn label(name: &str) -> Label {
        Label { id: WorkloadId(name.to_owned()), serial: 1 }
    }

    fn drained() -> News {
        News::Drained("i1".to_owned())
    }

    fn instance() -> (Arc<Instance>, mpsc::UnboundedReceiver<News>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let endpoint = Endpoint {
            instance: "i1".to_owned(),
            dyno: "web.1".to_owned(),
            address: ([127, 0, 0, 1], 1).into(),
            proof: None,
        };
        (Arc::new(Instance::new(endpoint, 1, Arc::new(label("shop")), sender)), receiver)
    }

    #[test]
    fn requests_are_shared_by_weight_and_who_weighs_nothing_gets_none() {
        let (news, mut told) = mpsc::unbounded_channel();
        let workload = |name| Arc::new(Workload::new(label(name), news.clone()));
        let shares = Shares::new([(workload("none"), 0), (workload("many"), 95), (workload("few"), 5)]);
        let mut dice = Dice::new(&model::clock::SystemRandom);
        let first = |dice: &mut Dice| shares.in_turn(dice).next().map(|workload| workload.label.id.0.clone());
        let few = (0..10_000).filter(|_| first(&mut dice).as_deref() == Some("few")).count();
        assert!((350..650).contains(&few), "5 of 100, not {few} of 10,000");
        for _ in 0..100 {
            let mut all: Vec<_> = shares.in_turn(&mut dice).map(|workload| workload.label.id.0.as_str()).collect();
            all.sort_unstable();
            assert_eq!(all, ["few", "many"], "whoever is first, the other one is asked next");
        }
        assert!(Shares::new([]).in_turn(&mut dice).next().is_none());
        let asleep = workload("asleep");
        asleep.ask();
        asleep.ask();
        assert_eq!(told.try_recv(), Ok(News::Wanted(WorkloadId("asleep".to_owned()))));
        assert!(told.try_recv().is_err(), "said once");
        asleep.set(Instances::default());
        asleep.ask();
        assert!(told.try_recv().is_ok(), "until something changed");
    }

    #[test]
    fn an_instance_is_drained_once_when_its_last_request_left() {
        let (instance, mut told) = instance();
        let first = instance.enter(u64::MAX).expect("in the table");
        let second = instance.enter(u64::MAX).expect("in the table");
        drop(first);
        instance.retire();
        assert!(instance.enter(u64::MAX).is_none(), "no request begins on an instance that left the table");
        assert!(told.try_recv().is_err());
        drop(second);
        assert_eq!(told.try_recv(), Ok(drained()));
        instance.retire();
        assert!(told.try_recv().is_err(), "said once");
    }

    #[tokio::test]
    async fn an_idle_instance_is_drained_at_once_and_its_tunnels_are_told() {
        let (instance, mut told) = instance();
        instance.set_drain(Duration::from_secs(2));
        assert!(timeout(Duration::ZERO, instance.is_over(Duration::from_secs(2))).await.is_err(), "it is in the table");
        let mut over = pin!(instance.is_over(Duration::from_secs(2)));
        assert!(timeout(Duration::ZERO, &mut over).await.is_err());
        instance.retire();
        assert_eq!(told.try_recv(), Ok(drained()));
        over.await;
        instance.is_over(Duration::from_secs(3)).await;
    }
}
