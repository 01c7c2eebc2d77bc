//! Connections that are no HTTP: a port leads to an app, and what comes there to one of its instances, as it is.

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
use tokio::time::Instant;

pub(crate) use ports::{Landing, Ports, Stand};

use crate::failure::Failure;
use crate::policy::ejection;
use crate::proxy::Worker;
use crate::search::Search;
use crate::seats::Seat;
use crate::socket::Activity;
use crate::table::{App, InFlight, Instance, Label, Shares};
use crate::traffic::Whose;
use crate::tunnel::{self, Terms};
use crate::upstream;

/// After so many seconds of silence it is looked whether the other side is still there, then after so many each.
const PROBE: (u32, u32) = (60, 15);
/// So many looks in a row without an answer end a connection.
const PROBES: u32 = 4;
/// How connections that were passed on are counted: as what left HTTP behind.
const PASSED: u16 = 101;
/// And those that were not let in.
const BARRED: u16 = 403;

/// A port, and the host name that has its connections if it has not all.
pub(crate) type Wanted = (u16, Option<Hostname>);

/// What takes an app's connections of one route.
pub(crate) struct Entry {
    /// Without its shares.
    pub(crate) route: TcpRoute,
    pub(crate) shares: Shares,
}

/// Passes a connection of this client to this port on.
pub(crate) async fn serve((stream, seat): (TcpStream, Rc<Seat>), port: u16, client: SocketAddr, worker: Rc<Worker>) {
    let _seat = seat;
    let find = || {
        let (id, wanted) = worker.shared.table.ports.find(port, None)?;
        Some((worker.shared.table.app(id)?, wanted))
    };
    // The port is about to be shut.
    let Some((app, wanted)) = find() else { return };
    let mut passage = Passage::begin(Rc::clone(&worker), app.id, port, client);
    passage.end = Some(match pass(&mut passage, (stream, client), (&app, wanted)).await {
        Ok(()) => End::Well,
        Err(end) => end,
    });
}

async fn pass(
    passage: &mut Passage,
    (stream, client): (TcpStream, SocketAddr),
    (app, wanted): (&Arc<App>, Wanted),
) -> Result<(), End> {
    let worker = Rc::clone(&passage.worker);
    if let Some(rules) = &app.rules {
        rules.admit_connection(client.ip().to_canonical()).map_err(End::Barred)?;
    }
    let route = app.entry(&wanted).map(|entry| entry.route.clone()).ok_or(End::Failed(Failure::NoWeb))?;
    keep_alive(&stream);
    let (mut server, in_flight, _seat) =
        connect(passage, app, (wanted, route.target_port)).await.map_err(End::Failed)?;
    if let Some(version) = route.introduce {
        let header = introduction(version, client, &stream).map_err(|_| End::Failed(Failure::ClientInterrupted))?;
        server.write_all(&header).await.map_err(|_| End::Failed(Failure::NoResponse))?;
    }
    let activity = Arc::new(Activity::of_stream());
    let terms = Terms { in_flight, activity, idle: route.idle, stop: worker.stop.clone() };
    let carried = tunnel::carry((stream, server), &worker.scratch, terms).await;
    (passage.received, passage.sent) = (carried.received, carried.sent);
    carried.failure.map_or(Ok(()), |failure| Err(End::Failed(failure)))
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
fn introduction(version: Introduction, client: SocketAddr, stream: &TcpStream) -> io::Result<Vec<u8>> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (from, mut to) = (canonical(client), canonical(stream.local_addr()?));
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
    fn begin(worker: Rc<Worker>, app: AppId, port: u16, client: SocketAddr) -> Self {
        let started = worker.shared.clock.now().as_millis();
        let (instance, label, connected, end) = (None, None, None, None);
        let (held, received, sent, arrived) = (false, 0, 0, Instant::now());
        Self { worker, app, port, client, arrived, started, instance, label, held, connected, received, sent, end }
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
