//! Connections that are no HTTP: a port leads to an app, and what comes there to one of its instances, as it is.

mod hello;
mod ports;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::{AppId, Hostname, Introduction, TcpRoute, Timestamp};
use nix::sys::socket::{setsockopt, sockopt};
use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

pub(crate) use ports::{Landing, Ports, Stand};

use hello::{Hello, Unread, Wants};

use crate::access_log::quoted;
use crate::failure::Failure;
use crate::policy::ejection;
use crate::proxy::Worker;
use crate::search::Search;
use crate::seats::Seat;
use crate::server::tls_version;
use crate::socket::{Activity, Rewound};
use crate::table::{App, InFlight, Instance, Label, Shares};
use crate::traffic::Whose;
use crate::tunnel::{self, Duplex, Terms};
use crate::upstream;

/// After so many seconds of silence it is looked whether the other side is still there, then after so many each.
const PROBE: (u32, u32) = (60, 15);
/// So many looks in a row without an answer end a connection.
const PROBES: u32 = 4;
/// How connections that were passed on are counted: as what left HTTP behind.
const PASSED: u16 = 101;
/// And those that were not let in.
const BARRED: u16 = 403;
/// In the log line, of TLS that the app ends.
const PASSED_THROUGH: &str = "passthrough";

/// A port, and the host name that has its connections if it has not all.
pub(crate) type Wanted = (u16, Option<Hostname>);

/// What takes an app's connections of one route.
pub(crate) struct Entry {
    /// Without its shares.
    pub(crate) route: TcpRoute,
    pub(crate) shares: Shares,
}

/// A port as a worker has it, with what ends TLS there, if anything can.
pub(crate) type Berth = (u16, Option<TlsAcceptor>);

/// Passes a connection of this client to this port on.
pub(crate) async fn serve(
    (mut stream, seat): (TcpStream, Rc<Seat>),
    (port, tls): Berth,
    client: SocketAddr,
    worker: Rc<Worker>,
) {
    let (_seat, table, arrived) = (seat, Arc::clone(&worker.shared.table), Instant::now());
    let hello = if table.ports.is_tls(port) {
        match hello::read(&mut stream).await {
            Ok(hello) => Some(hello),
            Err(Unread::Gone) => return,
            Err(Unread::Garbled(alert)) => return hello::refuse(stream, &alert).await,
        }
    } else {
        None
    };
    let host = hello.as_ref().and_then(Hello::host).map(str::to_owned);
    let found = table.ports.find(port, host.as_deref()).and_then(|(id, wanted)| Some((table.app(id)?, wanted)));
    let Some((app, wanted)) = found else {
        table.ports.complain((port, host.as_deref()), client);
        // Who speaks no TLS would not understand.
        let alert = if hello.is_some_and(|hello| hello.wants != Wants::Other) { hello::NOBODY } else { &[] };
        return hello::refuse(stream, alert).await;
    };
    let mut passage = Passage::begin(Rc::clone(&worker), app.id, port, (client, arrived));
    passage.host = host;
    let who = Visitor { stream, client, hello, tls };
    passage.end = Some(match pass(&mut passage, who, (&app, wanted)).await {
        Ok(()) => End::Well,
        Err(end) => end,
    });
}

/// Who comes.
struct Visitor {
    stream: TcpStream,
    client: SocketAddr,
    /// What it said, where that tells whom it wants.
    hello: Option<Hello>,
    /// What can end its TLS.
    tls: Option<TlsAcceptor>,
}

async fn pass(passage: &mut Passage, who: Visitor, (app, wanted): (&Arc<App>, Wanted)) -> Result<(), End> {
    let worker = Rc::clone(&passage.worker);
    if let Some(rules) = &app.rules {
        rules.admit_connection(who.client.ip().to_canonical()).map_err(End::Barred)?;
    }
    let route = app.entry(&wanted).map(|entry| entry.route.clone()).ok_or(End::Failed(Failure::NoWeb))?;
    keep_alive(&who.stream);
    let here = who.stream.local_addr().map_err(|_| End::Failed(Failure::ClientInterrupted))?;
    // A client of PostgreSQL was told already that it may begin TLS: the app has to be asked.
    let is_asked = !route.terminate && who.hello.as_ref().is_some_and(|hello| hello.asked);
    let client = who.client;
    let visitor = begin(passage, who, route.terminate).await?;
    let connected = connect(passage, app, (wanted, route.target_port)).await;
    let (mut server, in_flight, _seat) = connected.map_err(End::Failed)?;
    if let Some(version) = route.introduce {
        let header = introduction(version, client, here).map_err(|_| End::Failed(Failure::ClientInterrupted))?;
        server.write_all(&header).await.map_err(|_| End::Failed(Failure::NoResponse))?;
    }
    if is_asked {
        let asked = timeout(worker.shared.timeouts.connect, hello::ask(&mut server)).await;
        asked.ok().and_then(Result::ok).ok_or(End::Failed(Failure::NoResponse))?;
    }
    let activity = Arc::new(Activity::of_stream());
    let terms = Terms { in_flight, activity, idle: route.idle, stop: worker.stop.clone() };
    let carried = tunnel::carry((visitor, server), &worker.scratch, terms).await;
    (passage.received, passage.sent) = (carried.received, carried.sent);
    carried.failure.map_or(Ok(()), |failure| Err(End::Failed(failure)))
}

/// What a client's bytes are read from and written to: as they come, or what is inside of its TLS.
async fn begin(passage: &mut Passage, who: Visitor, terminate: bool) -> Result<Box<dyn Duplex>, End> {
    let Visitor { stream, hello, tls, .. } = who;
    let Some(hello) = hello else { return Ok(Box::new(stream)) };
    let begun = Rewound { begin: hello.begin, stream };
    if !terminate {
        passage.tls = (hello.wants != Wants::Other).then_some(PASSED_THROUGH);
        return Ok(Box::new(begun));
    }
    if hello.wants == Wants::Other {
        return Err(End::Barred("No TLS"));
    }
    let acceptor = tls.ok_or(End::Barred("No certificate to end TLS with"))?;
    let limit = passage.worker.shared.timeouts.client_idle;
    match timeout(limit, hello::end_tls(&acceptor, begun)).await {
        Ok(Ok(ended)) => {
            passage.tls = Some(tls_version(ended.get_ref().1));
            Ok(Box::new(ended))
        }
        _ => Err(End::Failed(Failure::ClientInterrupted)),
    }
}

/// Connects to an instance, and to another one if one does not take it.
async fn connect(
    passage: &mut Passage,
    app: &Arc<App>,
    (wanted, target_port): (Wanted, Option<u16>),
) -> Result<(TcpStream, InFlight, Seat), Failure> {
    let worker = Rc::clone(&passage.worker);
    let (timeouts, seats) = (&worker.shared.timeouts, &worker.shared.seats);
    let search = Search::new((&worker.shared.table, timeouts), (Arc::clone(app), None), passage.arrived);
    let mut search = search.by_port(wanted);
    loop {
        let found = search.next(&worker.dice).await;
        passage.held = search.has_waited();
        let in_flight = found.inspect_err(|_| passage.label = search.label())?;
        let instance = Arc::clone(in_flight.instance());
        passage.instance = Some(Arc::clone(&instance));
        let mut address = instance.endpoint.address;
        address.set_port(target_port.unwrap_or(address.port()));
        let seat = seats.for_instance().or_else(|| if worker.pool.make_room() { seats.for_instance() } else { None });
        let connected = match seat {
            Some(seat) => upstream::connect(address, timeouts.connect).await.map(|server| (server, seat)),
            None => Err(Failure::Exhausted),
        };
        match connected {
            // It left the table meanwhile. Another one may have its address by now, and may be who answered.
            Ok(_) if instance.is_retired() => search.passed_by(&instance, Failure::ConnectRefused),
            Ok((server, seat)) => {
                if !instance.standing.is_in() {
                    ejection::judge(app, &instance, false, timeouts.ejection);
                }
                keep_alive(&server);
                passage.connected = Some(Instant::now());
                return Ok((server, in_flight, seat));
            }
            Err(failure) => {
                if failure == Failure::Exhausted {
                    worker.complain(&instance);
                }
                // At its other port it may answer all the same.
                if target_port.is_some() {
                    search.passed_by(&instance, failure);
                } else {
                    search.refused_by(&instance, failure);
                }
            }
        }
    }
}

/// Lets the kernel find out that the other side is gone without a word.
fn keep_alive(stream: &TcpStream) {
    // Where that cannot be, the limit of silence ends it.
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &PROBE.0);
    let _ = setsockopt(stream, sockopt::TcpKeepInterval, &PROBE.1);
    let _ = setsockopt(stream, sockopt::TcpKeepCount, &PROBES);
}

/// Who comes, and where to.
fn introduction(version: Introduction, client: SocketAddr, here: SocketAddr) -> io::Result<Vec<u8>> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (from, mut to) = (canonical(client), canonical(here));
    if from.is_ipv4() != to.is_ipv4() {
        // A load balancer spoke IPv4 to its client and IPv6 to us: the protocol knows no such pair.
        to = match from {
            SocketAddr::V4(_) => SocketAddr::new([0, 0, 0, 0].into(), to.port()),
            SocketAddr::V6(_) => SocketAddr::new([0_u16; 8].into(), to.port()),
        };
    }
    let (header, mut bytes) = (ProxyHeader::with_address(ProxiedAddress::stream(from, to)), Vec::new());
    let encoded = match version {
        Introduction::V1 => header.encode_v1(&mut bytes),
        Introduction::V2 => header.encode_v2(&mut bytes),
    };
    encoded.map(|()| bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// How a connection ended.
enum End {
    /// By its client or its instance.
    Well,
    Failed(Failure),
    /// Its app does not let it in.
    Barred(&'static str),
}

/// What is known of a connection so far. Its line is written, and it is counted, when it is dropped.
struct Passage {
    worker: Rc<Worker>,
    app: AppId,
    port: u16,
    client: SocketAddr,
    /// That it wants.
    host: Option<String>,
    /// Which it speaks, or who ends it.
    tls: Option<&'static str>,
    arrived: Instant,
    /// The same in milliseconds since the epoch.
    started: i64,
    instance: Option<Arc<Instance>>,
    label: Option<Arc<Label>>,
    held: bool,
    connected: Option<Instant>,
    received: u64,
    sent: u64,
    /// None while it goes on: what ends now is cut off by the end of the router.
    end: Option<End>,
}

impl Passage {
    fn begin(worker: Rc<Worker>, app: AppId, port: u16, (client, arrived): (SocketAddr, Instant)) -> Self {
        let began = i64::try_from(arrived.elapsed().as_millis()).unwrap_or_default();
        let started = worker.shared.clock.now().as_millis().saturating_sub(began);
        let (instance, label, connected, end) = (None, None, None, None);
        let (host, tls, held, received, sent) = (None, None, false, 0, 0);
        Self {
            worker,
            app,
            port,
            client,
            host,
            tls,
            arrived,
            started,
            instance,
            label,
            held,
            connected,
            received,
            sent,
            end,
        }
    }

    fn failure(&self) -> Option<Failure> {
        match self.end {
            Some(End::Well | End::Barred(_)) => None,
            Some(End::Failed(failure)) => Some(failure),
            None => Some(Failure::Interrupted),
        }
    }

    fn count(&self, now: Instant) {
        let (failure, instance) = (self.failure(), self.instance.as_deref());
        let waited = self.connected.unwrap_or(now).saturating_duration_since(self.arrived);
        let whose = Whose { app: self.app, instance, workload: self.label.as_ref() };
        self.worker.tally.count(whose, |counts, detail| {
            counts.requests += 1;
            counts.lost += u64::from(failure.is_some_and(Failure::is_loss));
            counts.held += u64::from(self.held);
            counts.add_latency(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
            let (status, code) = match (failure.map(Failure::look), &self.end) {
                (Some(look), _) => (look.status.as_u16(), look.number()),
                (None, Some(End::Barred(_))) => (BARRED, 0),
                (None, _) => (PASSED, 0),
            };
            detail.end(status, code, 1);
            detail.waited_us += u64::try_from(waited.as_micros()).unwrap_or(0);
            detail.received += self.received;
            detail.sent += self.sent;
        });
    }

    fn write_line(&self, line: &mut String, now: Instant) {
        use std::fmt::Write;
        let look = self.failure().map(Failure::look);
        // Writing to a String cannot fail.
        let _ = match (&look, &self.end, self.failure()) {
            (None, Some(End::Barred(why)), _) => write!(line, "at=warning desc=\"{why}\""),
            (None, ..) => write!(line, "at=info"),
            (Some(look), _, Some(Failure::NoWeb)) => {
                write!(line, "at={} code={} desc=\"No processes running\"", look.at, look.code)
            }
            (Some(look), ..) => write!(line, "at={} code={} desc=\"{}\"", look.at, look.code, look.description),
        };
        let dyno = self.instance.as_ref().map_or("", |instance| &instance.endpoint.dyno);
        let connected = self.connected.unwrap_or(now);
        let waited = connected.saturating_duration_since(self.arrived).as_millis();
        let served = now.saturating_duration_since(connected).as_millis();
        let (port, client) = (self.port, self.client.ip().to_canonical());
        let _ = write!(
            line,
            " protocol=tcp port={port} fwd=\"{client}\" dyno={dyno} connect={waited}ms service={served}ms received={} bytes={}",
            self.received, self.sent
        );
        if let Some(host) = &self.host {
            let _ = write!(line, " host={}", quoted(host.as_bytes()));
        }
        let _ = match self.tls {
            None => Ok(()),
            Some(PASSED_THROUGH) => write!(line, " tls={PASSED_THROUGH}"),
            Some(version) => write!(line, " tls=true tls_version={version}"),
        };
        if let Some(socket) = look.and_then(|look| look.socket) {
            let _ = write!(line, " sock={socket}");
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let now = Instant::now();
        self.count(now);
        let took: Duration = now.saturating_duration_since(self.arrived);
        let time = self.started.saturating_add(i64::try_from(took.as_millis()).unwrap_or(i64::MAX));
        self.worker.lines.write(self.app, Timestamp::from_millis(time), |line| self.write_line(line, now));
    }
}
