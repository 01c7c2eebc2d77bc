//! Starts and stops a router, and follows the route table for its workers.

use std::cell::RefCell;
use std::io;
use std::mem::discriminant;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::host::OwnHosts;
use crate::merge::{Addresses, Names};
use crate::on_demand::OnDemand;
use crate::proxy::Shared;
use crate::seats::Seats;
use crate::server::{Entrance, Leave};
use crate::spans::{Sending, Spans};
use crate::ssh::Door;
use crate::table::Table;
use crate::takeover::{Offer, Taken};
use crate::tcp::{Landing, Stand};
use crate::tls::{self, Certificate, Kept, Shown, Tickets};
use crate::traffic::{self, News, Outbox, Totals};
use crate::trust::Trust;
use crate::{RouterError, RouterSettings, TcpEntrance, follow, server, snapshot, ssh};

/// What listeners for git over SSH are called where one process hands them to the next; the others see [`Entrance::letter`].
const SSH: u8 = b's';
/// No worker lets more connections to instances rest; each takes less than 1 KiB.
const MOST_RESTING: usize = 4096;

/// Runs a router until SIGTERM or SIGINT, then until its requests in flight have their answers. It has threads of its own:
/// call it outside of any async runtime.
pub fn serve(settings: RouterSettings) -> Result<(), RouterError> {
    raise_file_limit();
    let runtime = runtime()?;
    let listen = |kind| {
        let _context = runtime.enter();
        signal(kind).map_err(RouterError::Thread)
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let router = Router::start(settings)?;
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = router.replaced() => tracing::info!("another router has taken over"),
        }
    });
    router.stop();
    Ok(())
}

/// A router at work.
pub struct Router {
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    leave: Leave,
    /// For what works until the last answer is given.
    end: CancellationToken,
    workers: Vec<JoinHandle<()>>,
    control: JoinHandle<()>,
    log: Arc<AccessLog>,
    log_writer: JoinHandle<()>,
    /// Of trace spans.
    sending: Option<JoinHandle<()>>,
}

impl Router {
    /// Starts one with the last table that was kept. Once this returns it serves, and a router that was there before does not.
    pub fn start(settings: RouterSettings) -> Result<Self, RouterError> {
        let log = Arc::new(AccessLog::default());
        let (sender, news) = mpsc::unbounded_channel();
        let table = Arc::new(Table::new(sender.clone()));
        table.store.set_limit(settings.cache_limit);
        let kept = Kept::new(&settings.certificates);
        let shown = Arc::new(Shown::new(kept.load(), Arc::clone(&settings.clock)));
        let (spans, sending) = settings.tracing.as_ref().map(|to| Spans::new(to, sender.clone())).unzip();
        let shared = Arc::new(Shared {
            table: Arc::clone(&table),
            shown: Arc::clone(&shown),
            own_hosts: OwnHosts::new(&settings.domain),
            seats: Seats::new(workers(&settings)),
            trust: Trust { balancers: settings.proxy_protocol.clone(), proxies: settings.trusted_proxies.clone() },
            tls_port: settings.tls.as_ref().and_then(|tls| tls.listen.first()).map(SocketAddr::port),
            controller_socket: settings.controller_socket.clone(),
            on_demand: OnDemand::new(settings.on_demand_socket.clone(), settings.timeouts.on_demand),
            timeouts: settings.timeouts.clone(),
            pool_limit: pool_limit(workers(&settings)),
            clock: Arc::clone(&settings.clock),
            log: Arc::clone(&log),
            spans,
            news: sender.clone(),
        });
        let mut life = [0; 8];
        settings.random.fill(&mut life);
        let totals = Totals::new(u64::from_le_bytes(life));
        let mut halves = (Names::new(Arc::clone(&table)), Addresses::new(Arc::clone(&table), sender));
        let take = |from: &_| snapshot::receive(from, &table, (&mut halves.0, &mut halves.1));
        let mut before = settings.takeover.as_deref().and_then(|socket| Taken::ask(socket, take));
        if before.is_none() {
            snapshot::load(&settings.snapshot, &table, (&mut halves.0, &mut halves.1));
        }
        let inherited = before.as_mut().map(|before| std::mem::take(&mut before.listeners)).unwrap_or_default();
        let certificate = settings.tls.as_ref().map(|tls| Certificate::open(&tls.certificate)).transpose()?;
        let acceptor = acceptor(&settings, certificate.as_ref(), &shown)?;
        let (of_ssh, inherited): (Vec<_>, Vec<_>) = inherited.into_iter().partition(|(letter, _)| *letter == SSH);
        let (of_ports, inherited) = inherited.into_iter().partition(|(letter, _)| *letter == server::TCP);
        let Listening { sites, addresses, tls_addresses } = listen(&settings, acceptor.as_ref(), inherited)?;
        let of_ssh = of_ssh.into_iter().map(|(_, listener)| listener).collect();
        let door = settings.ssh.map(|entrance| Door::open(entrance, of_ssh));
        let offer = offer(settings.takeover.as_deref(), &sites, door.as_ref());
        let (leave, end) = (Leave::default(), CancellationToken::new());
        let landings = open_ports((settings.tcp.as_ref(), acceptor), of_ports, (&shared, &sites));
        let mut workers = Vec::new();
        for ((runtime, listeners), landings) in sites.into_iter().zip(landings) {
            let (shared, random, leave) = (Arc::clone(&shared), Arc::clone(&settings.random), leave.clone());
            workers.push(spawn("router-worker", move || {
                server::run(&runtime, (listeners, landings), shared, random.as_ref(), &leave);
            })?);
        }
        if let Some(door) = door {
            let (runtime, shared, stop) = (runtime()?, Arc::clone(&shared), leave.stop.clone());
            workers.push(spawn("router-ssh", move || ssh::run(&runtime, door, &shared, &stop))?);
        }
        let log_writer = spawn("router-log", {
            let (log, sink, news) = (Arc::clone(&log), Arc::clone(&settings.log), shared.news.clone());
            move || log.write_to(sink.as_ref(), &news)
        })?;
        let runtime = runtime()?;
        let control = spawn("router-control", {
            let (names, addresses) = ((halves.0, settings.names_socket), (halves.1, settings.addresses_socket));
            let certificates = Certificates { own: certificate, shown, kept, socket: settings.certificates_socket };
            let feeds = Feeds { table, news, totals, names, addresses, certificates };
            let (leave, end) = (leave.clone(), end.clone());
            move || feeds.follow(&runtime, &settings.snapshot, offer, (&leave, &end))
        })?;
        let sending = sending.map(|sending| send_spans(sending, end.clone())).transpose()?;
        if let Some(before) = before {
            before.serve();
        }
        Ok(Self { addresses, tls_addresses, leave, end, workers, control, log, log_writer, sending })
    }

    /// Where it listens, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where it listens for TLS, in the order of the settings.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// Waits until another router has taken over. There is nothing left to do then but to [stop](Self::stop).
    pub async fn replaced(&self) {
        self.leave.stop.cancelled().await;
    }

    /// Accepts nothing more, lets requests in flight have their answers within [`Timeouts::drain`](crate::Timeouts),
    /// writes what is left of the log, and ends. Whoever keeps a connection has until then to come back if another router has taken over, and is
    /// told to go at once else.
    pub fn stop(self) {
        self.leave.stop.cancel();
        for worker in self.workers {
            end(worker);
        }
        self.end.cancel();
        end(self.control);
        self.sending.into_iter().for_each(end);
        self.log.close();
        end(self.log_writer);
    }
}

/// Sends trace spans on a thread of its own: a batch of them takes a while to be written.
fn send_spans(sending: Sending, end: CancellationToken) -> Result<JoinHandle<()>, RouterError> {
    let runtime = runtime()?;
    spawn("router-spans", move || runtime.block_on(sending.work(end)))
}

fn end(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the router ended by a panic");
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RouterError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(RouterError::Thread)
}

fn runtime() -> Result<Runtime, RouterError> {
    Builder::new_current_thread().enable_all().build().map_err(RouterError::Thread)
}

/// Opens the ports of routes, where there may be any, with the sockets of the router before. Each worker gets its own from what is returned for it.
fn open_ports(
    (entrance, tls): (Option<&TcpEntrance>, Option<TlsAcceptor>),
    inherited: Vec<(u8, std::net::TcpListener)>,
    (shared, sites): (&Shared, &[Site]),
) -> Vec<mpsc::UnboundedReceiver<Landing>> {
    let (workers, landings) = sites.iter().map(|_| mpsc::unbounded_channel()).unzip();
    if let (Some(TcpEntrance { listen, ports }), Some((runtime, _))) = (entrance, sites.first()) {
        let _context = runtime.enter();
        let inherited = inherited.into_iter().map(|(_, listener)| listener).collect();
        let seats = Arc::clone(&shared.seats);
        let (listen, ports) = (listen.clone(), ports.clone());
        shared.table.ports.begin(Stand { listen, ports, workers, seats, tls, inherited });
    }
    landings
}

/// What makes TLS of connections, where there is an entrance for it.
fn acceptor(
    settings: &RouterSettings,
    own: Option<&Arc<Certificate>>,
    shown: &Arc<Shown>,
) -> Result<Option<TlsAcceptor>, RouterError> {
    let (Some(entrance), Some(own)) = (&settings.tls, own) else { return Ok(None) };
    let tickets = Tickets::open(&entrance.tickets, Arc::clone(&settings.clock), Arc::clone(&settings.random));
    Ok(Some(tls::acceptor(own, shown, tickets, server::PROTOCOLS)?))
}

fn workers(settings: &RouterSettings) -> usize {
    match settings.workers {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        workers => workers,
    }
}

/// Most connections that one worker lets rest. All together leave most files to requests.
fn pool_limit(workers: usize) -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    (usize::try_from(files).unwrap_or(usize::MAX) / 4 / workers).clamp(16, MOST_RESTING)
}

type Site = (Runtime, Vec<(TcpListener, Entrance)>);

/// A runtime for each worker with listeners on all addresses, and the addresses with their real ports.
struct Listening {
    sites: Vec<Site>,
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
}

/// The listeners of all workers, for the next router. One that cannot have them listens by itself, later: that is no reason to serve nobody.
fn offer(path: Option<&Path>, sites: &[Site], door: Option<&Door>) -> Option<Offer> {
    let path = path?;
    let all = sites.iter().flat_map(|(_, listeners)| listeners);
    let all = all.map(|(listener, entrance)| (entrance.letter(), listener.as_fd()));
    let of_ssh = door.into_iter().flat_map(Door::listeners).map(|listener| (SSH, listener.as_fd()));
    let listeners: io::Result<Vec<_>> =
        all.chain(of_ssh).map(|(letter, listener)| Ok((letter, listener.try_clone_to_owned()?))).collect();
    let offer = listeners.and_then(|listeners| Offer::bind(path, listeners));
    offer
        .inspect_err(|error| {
            tracing::warn!(error = %error, path = %path.display(), "no other router will be able to take over from this one");
        })
        .ok()
}

fn listen(
    settings: &RouterSettings,
    acceptor: Option<&TlsAcceptor>,
    mut inherited: Vec<(u8, std::net::TcpListener)>,
) -> Result<Listening, RouterError> {
    let workers = workers(settings);
    let mut entrances = vec![(Entrance::Plain, settings.listen.clone())];
    if let (Some(tls), Some(acceptor)) = (&settings.tls, acceptor) {
        entrances.push((Entrance::Tls(acceptor.clone()), tls.listen.clone()));
    }
    entrances.extend(settings.inner.map(|address| (Entrance::Inner, vec![address])));
    let mut sites = vec![site(&entrances, false, &mut inherited)?];
    // What the first worker got: a port that was free to choose, and no address that this machine lacks.
    for (entrance, addresses) in &mut entrances {
        let same = |(_, other): &&(TcpListener, Entrance)| discriminant(other) == discriminant(entrance);
        let bound: io::Result<_> = sites[0].1.iter().filter(same).map(|(listener, _)| listener.local_addr()).collect();
        *addresses = bound.map_err(RouterError::Thread)?;
    }
    for _ in 1..workers {
        sites.push(site(&entrances, true, &mut inherited)?);
    }
    adopt(&mut sites[0], &entrances, inherited);
    let mut of = |wanted: fn(&Entrance) -> bool| {
        let found = entrances.iter_mut().find(|(entrance, _)| wanted(entrance));
        found.map(|(_, addresses)| std::mem::take(addresses)).unwrap_or_default()
    };
    let addresses = of(|entrance| matches!(entrance, Entrance::Plain));
    let tls_addresses = of(|entrance| matches!(entrance, Entrance::Tls(_)));
    Ok(Listening { sites, addresses, tls_addresses })
}

/// Whoever waits in the queue of a listener that is one too many waits for the first worker.
fn adopt(site: &mut Site, entrances: &[(Entrance, Vec<SocketAddr>)], rest: Vec<(u8, std::net::TcpListener)>) {
    let _context = site.0.enter();
    for (letter, listener) in rest {
        let wanted = listener.local_addr().ok().and_then(|address| {
            entrances.iter().find(|(entrance, all)| entrance.letter() == letter && all.contains(&address))
        });
        if let Some((entrance, _)) = wanted
            && let Ok(listener) = TcpListener::from_std(listener)
        {
            site.1.push((listener, entrance.clone()));
        }
    }
}

fn site(
    entrances: &[(Entrance, Vec<SocketAddr>)],
    beside_others: bool,
    inherited: &mut Vec<(u8, std::net::TcpListener)>,
) -> Result<Site, RouterError> {
    let runtime = runtime()?;
    let context = runtime.enter();
    let mut listeners = Vec::new();
    for (entrance, addresses) in entrances {
        for address in addresses {
            let is_this = |(letter, listener): &(u8, std::net::TcpListener)| {
                *letter == entrance.letter() && listener.local_addr().is_ok_and(|local| local == *address)
            };
            let begun = match inherited.iter().position(is_this) {
                Some(index) => TcpListener::from_std(inherited.swap_remove(index).1),
                None => server::listen(*address, beside_others, !matches!(entrance, Entrance::Inner)),
            };
            match begun {
                Ok(listener) => listeners.push((listener, entrance.clone())),
                Err(error) if has_no_ipv6(*address, &error) && addresses.iter().any(SocketAddr::is_ipv4) => {
                    tracing::info!(address = %address, error = %error, "this machine has no IPv6 to listen on");
                }
                Err(error) if matches!(entrance, Entrance::Inner) => {
                    tracing::warn!(address = %address, error = %error, "apps cannot reach those that they are linked to (setting link_port)");
                }
                Err(source) => return Err(RouterError::Listen { address: *address, source }),
            }
        }
    }
    drop(context);
    Ok((runtime, listeners))
}

pub(crate) fn has_no_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let absent = [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT].map(|errno| Some(errno as i32));
    address.ip() == Ipv6Addr::LOCALHOST && absent.contains(&error.raw_os_error())
}

/// Every request takes two file descriptors, and the usual soft limit of 1024 is meant for programs that use select(2).
fn raise_file_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(error = %error, "cannot raise the limit of open files");
    }
}

/// Returns once another router serves in the place of this one.
async fn hand_over(offer: Option<Offer>, table: &Arc<Table>) {
    if let Some(offer) = offer {
        match offer.hand_over(table).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(error = %error, "no other router can take over from this one"),
        }
    }
    std::future::pending::<()>().await;
}

/// What the control thread works with.
struct Feeds {
    table: Arc<Table>,
    news: mpsc::UnboundedReceiver<News>,
    totals: Totals,
    names: (Names, PathBuf),
    addresses: (Addresses, PathBuf),
    certificates: Certificates,
}

/// What TLS is served with, and where news of it come from.
struct Certificates {
    /// The platform's.
    own: Option<Arc<Certificate>>,
    shown: Arc<Shown>,
    kept: Kept,
    socket: PathBuf,
}

impl Certificates {
    /// Follows the controller's and the file of the platform's.
    async fn follow(self) {
        if let Some(own) = self.own {
            spawn_local(async move { own.follow().await });
        }
        // Of certificates, nothing is to be said.
        let (outbox, totals) = (Outbox::default(), RefCell::new(Totals::new(0)));
        let (writer, changed) = mpsc::unbounded_channel();
        spawn_local(follow::keep_certificates(self.kept, Arc::clone(&self.shown), changed));
        let mut half = follow::Certificates::new(self.shown, writer);
        follow::follow(&self.socket, (&outbox, &totals), &mut half).await;
    }
}

impl Feeds {
    fn follow(
        self,
        runtime: &Runtime,
        snapshot: &Path,
        offer: Option<Offer>,
        (leave, end): (&Leave, &CancellationToken),
    ) {
        let totals = Rc::new(RefCell::new(self.totals));
        let (to_names, to_addresses) = (Rc::new(Outbox::default()), Rc::new(Outbox::default()));
        let ((mut names, at_names), (mut addresses, at_addresses)) = (self.names, self.addresses);
        let (news, changed) = (self.news, self.table.changed.subscribe());
        LocalSet::new().block_on(runtime, async {
            spawn_local({
                let (totals, names, addresses) = (Rc::clone(&totals), Rc::clone(&to_names), Rc::clone(&to_addresses));
                async move { traffic::sort(news, &totals, &names, &addresses).await }
            });
            spawn_local({
                let totals = Rc::clone(&totals);
                async move { follow::follow(&at_names, (&to_names, &totals), &mut names).await }
            });
            spawn_local({
                let totals = Rc::clone(&totals);
                async move { follow::follow(&at_addresses, (&to_addresses, &totals), &mut addresses).await }
            });
            spawn_local(self.certificates.follow());
            spawn_local({
                let table = Arc::clone(&self.table);
                async move { table.ports.retry().await }
            });
            tokio::select! {
                () = follow::keep(snapshot, &self.table, changed) => {}
                () = hand_over(offer, &self.table) => {
                    leave.has_successor.store(true, Ordering::Relaxed);
                    leave.stop.cancel();
                }
                () = leave.stop.cancelled() => {}
            }
            self.table.ports.end();
            // The last requests may still wait for an instance, and their instances for them. What is on disk is the successor's.
            end.cancelled().await;
        });
    }
}
