//! One worker: a core's own runtime, listeners, pool and connections. Nothing in it is shared with another core but the
//! route table and the queue of log lines.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use model::Random;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use rustls::{ProtocolVersion, ServerConnection};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::Lines;
use crate::balance::Dice;
use crate::headers::Hop;
use crate::inbound::Inbox;
use crate::policy::budget::Budgets;
use crate::pool::Pool;
use crate::proxy::{Shared, Worker};
use crate::rendezvous;
use crate::seats::Seat;
use crate::socket::Stream;
use crate::tcp::{self, Berth, Landing};
use crate::upstream::Scratch;
use crate::{http2, inbound, inner_host, on_demand, tls, trust};

/// What is spoken over TLS, the best first.
pub(crate) const PROTOCOLS: &[&[u8]] = &[tls::HTTP_2, b"http/1.1"];
/// Connections that may wait to be accepted, for each worker and address.
const BACKLOG: u32 = 4096;
/// Largest head of a request in bytes.
pub(crate) const HEAD_LIMIT: usize = 65_536;
/// How often resting connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// Pause after the process ran out of file descriptors: some will be free by then.
const OUT_OF_FILES: Duration = Duration::from_millis(20);

/// What listeners of [`Entrance::Tcp`] are called where one process hands them to the next.
pub(crate) const TCP: u8 = b'd';
/// The last part of the drain time of a router that has a successor: whoever is still there is told to go.
const LAST_CALL: Duration = Duration::from_secs(3);

/// How the connections of a listener begin.
#[derive(Clone)]
pub(crate) enum Entrance {
    Plain,
    Tls(TlsAcceptor),
    /// For apps that are linked to others.
    Inner,
    /// What comes to this port is passed on as it is.
    Tcp(Berth),
}

impl Entrance {
    /// As it is called where one process hands its listeners to the next.
    pub(crate) fn letter(&self) -> u8 {
        match self {
            Self::Plain => b'p',
            Self::Tls(_) => b't',
            Self::Inner => b'i',
            Self::Tcp(_) => TCP,
        }
    }
}

/// How a router ends.
#[derive(Clone, Default)]
pub(crate) struct Leave {
    /// Cancelled when it is to accept nothing more.
    pub(crate) stop: CancellationToken,
    /// Another one has its listeners, and takes whoever comes back.
    pub(crate) has_successor: Arc<AtomicBool>,
}

/// Listens on `address` beside other workers of this process, but never beside another process. An address that is not there yet may
/// come later.
pub(crate) fn listen(address: SocketAddr, beside_others: bool, is_there: bool) -> io::Result<TcpListener> {
    if !beside_others && address.port() != 0 {
        // With SO_REUSEPORT alone a second router would take half of the first one's connections, unnoticed.
        socket(address, is_there)?.bind(address)?;
    }
    let socket = socket(address, is_there)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn socket(address: SocketAddr, is_there: bool) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !is_there {
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
    }
    socket.set_reuseaddr(true)?;
    // What is accepted inherits it. It only costs speed if it fails.
    let _ = socket.set_nodelay(true);
    Ok(socket)
}

/// Serves on `listeners` until `stop`, and then as long as requests in flight need, within the limit.
pub(crate) fn run(
    runtime: &Runtime,
    (listeners, landings): (Vec<(TcpListener, Entrance)>, UnboundedReceiver<Landing>),
    shared: Arc<Shared>,
    random: &dyn Random,
    leave: &Leave,
) {
    let drain = shared.timeouts.drain;
    // Each looks at its own.
    let stop = &leave.stop.child_token();
    let (pool, dice, tally) = (Pool::new(shared.pool_limit), Dice::new(random).into(), Rc::default());
    let (connections, scratch, inbox) = (TaskTracker::new(), Scratch::default(), Inbox::default());
    let lines = Rc::new(Lines::new(Arc::clone(&shared.log)));
    let (open, hurry, complained) = (connections.clone(), CancellationToken::new(), Cell::default());
    let budgets = Budgets::new();
    let worker = Rc::new(Worker {
        shared,
        pool,
        dice,
        tally,
        lines,
        scratch,
        inbox,
        budgets,
        connections: open,
        stop: hurry,
        complained,
    });
    LocalSet::new().block_on(runtime, async {
        spawn_local(sweep(Rc::clone(&worker)));
        spawn_local({
            let worker = Rc::clone(&worker);
            async move { worker.tally.deliver(&worker.shared.news).await }
        });
        spawn_local({
            let worker = Rc::clone(&worker);
            async move { worker.tally.paths.deliver(&worker.shared.news).await }
        });
        spawn_local({
            let lines = Rc::clone(&worker.lines);
            async move { lines.deliver().await }
        });
        for listener in listeners {
            spawn_local(accept(listener, Rc::clone(&worker), connections.clone(), stop.clone()));
        }
        spawn_local(land(landings, Rc::clone(&worker), connections.clone(), stop.clone()));
        stop.cancelled().await;
        connections.close();
        let mut rest = drain;
        if leave.has_successor.load(Ordering::Relaxed) {
            // Whoever is here may finish; nothing is closed under the hands of a client that is about to ask again.
            rest = LAST_CALL.min(drain);
            let _ = tokio::time::timeout(drain.saturating_sub(rest), connections.wait()).await;
        }
        worker.stop.cancel();
        if tokio::time::timeout(rest, connections.wait()).await.is_err() {
            tracing::warn!(connections.open = connections.len(), "requests took too long; they are cut off");
        }
    });
}

/// Accepts at ports that come and go.
async fn land(
    mut landings: UnboundedReceiver<Landing>,
    worker: Rc<Worker>,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(Landing { berth, listener, closed }) = landings.recv().await {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(port = berth.0, error = %error, "a worker cannot accept connections at a port");
                continue;
            }
        };
        let accepts =
            accept((listener, Entrance::Tcp(berth)), Rc::clone(&worker), connections.clone(), stop.child_token());
        spawn_local(async move {
            tokio::select! {
                () = accepts => {}
                () = closed.cancelled() => {}
            }
        });
    }
}

async fn accept(
    (listener, entrance): (TcpListener, Entrance),
    worker: Rc<Worker>,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let local = listener.local_addr().map_or(0, |address| address.port());
    let is_plain = matches!(entrance, Entrance::Plain | Entrance::Inner);
    let seats = Arc::clone(&worker.shared.seats);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(seat) = seats.for_client().map(Rc::new) else {
                    seats.refuse(stream, is_plain);
                    continue;
                };
                let (worker, stop) = (Rc::clone(&worker), stop.clone());
                let ends = (peer, local);
                if !matches!(entrance, Entrance::Inner) && worker.shared.trust.is_balancer(peer.ip()) {
                    let introduced = introduced((stream, seat), entrance.clone(), ends, worker, stop);
                    spawn_local(connections.track_future(introduced));
                } else {
                    begin((stream, seat), entrance.clone(), ends, worker, stop);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                seats.complain(Some(&error));
                tokio::time::sleep(OUT_OF_FILES).await;
            }
        }
    }
}

/// Begins a connection that a load balancer has to introduce.
async fn introduced(
    (mut stream, seat): (TcpStream, Rc<Seat>),
    entrance: Entrance,
    own: (SocketAddr, u16),
    worker: Rc<Worker>,
    stop: CancellationToken,
) {
    match timeout(worker.shared.timeouts.client_idle, trust::introduction(&mut stream)).await {
        Ok(Ok(ends)) => {
            let ends = ends.map_or(own, |ends| (ends.client, ends.asked.port()));
            begin((stream, seat), entrance, ends, worker, stop);
        }
        Ok(Err(error)) => {
            tracing::debug!(peer = %own.0.ip(), error = %error, "a load balancer did not say whose a connection is");
        }
        Err(_) => {}
    }
}

/// Serves a connection of this client to this port, in a task of its own.
fn begin(
    (stream, seat): (TcpStream, Rc<Seat>),
    entrance: Entrance,
    (client, local): (SocketAddr, u16),
    worker: Rc<Worker>,
    stop: CancellationToken,
) {
    let ends = (client.ip(), local);
    let connections = worker.connections.clone();
    // What is spawned is moved a few times, and a connection is several KiB.
    match entrance {
        Entrance::Plain => {
            let hop = Hop::new(ends.0, ends.1, None).seated(&seat);
            let served = Box::pin(inbound::serve(Stream::Plain(stream), (hop, None), worker, stop));
            spawn_local(connections.track_future(served));
        }
        Entrance::Inner => {
            // Whoever was not sent here by the firewall comes to nobody.
            let asked = getsockopt(&stream, sockopt::OriginalDst).map_or(0, |to| u16::from_be(to.sin_port));
            let hop = Hop::new(ends.0, asked, None).seated(&seat);
            let wanted = Some(inner_host(asked));
            let served = Box::pin(inbound::serve(Stream::Plain(stream), (hop, wanted), worker, stop));
            spawn_local(connections.track_future(served));
        }
        Entrance::Tcp(berth) => {
            spawn_local(connections.track_future(tcp::serve((stream, seat), berth, client, worker)));
        }
        Entrance::Tls(acceptor) => {
            let served = Box::pin(serve_tls(acceptor, (stream, seat), ends, worker, stop));
            spawn_local(connections.track_future(served));
        }
    }
}

/// Serves one client's connection over TLS: HTTP, or a terminal, which its first bytes tell.
async fn serve_tls(
    acceptor: TlsAcceptor,
    (stream, seat): (TcpStream, Rc<Seat>),
    (peer, local): (IpAddr, u16),
    worker: Rc<Worker>,
    stop: CancellationToken,
) {
    let limit = worker.shared.timeouts.client_idle;
    let begin = async {
        let stream = on_demand::accept(&worker, &acceptor, stream).await?;
        let session = stream.get_ref().1;
        if session.alpn_protocol() == Some(tls::ACME_TLS) {
            // The certificate was the answer.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let hop = Hop::new(peer, local, Some(tls_version(session))).seated(&seat);
        if session.alpn_protocol() == Some(tls::HTTP_2) {
            return Ok(Greeted::Http2(stream, hop));
        }
        let mut stream = BufReader::new(stream);
        let is_terminal = rendezvous::is_meant(stream.fill_buf().await?);
        Ok::<_, io::Error>(if is_terminal { Greeted::Terminal(stream, hop) } else { Greeted::Http(stream, hop) })
    };
    match timeout(limit, begin).await {
        Ok(Ok(Greeted::Terminal(stream, hop))) => rendezvous::serve(worker, hop, stream).await,
        Ok(Ok(Greeted::Http2(stream, hop))) => http2::serve(stream, (Rc::new(hop), None), worker, stop).await,
        Ok(Ok(Greeted::Http(stream, hop))) => {
            let read = BytesMut::from(stream.buffer());
            let stream = Stream::Tls(Box::new(stream.into_inner()));
            inbound::resume(stream, read, (hop, None), worker, stop).await;
        }
        Ok(Err(error)) => tracing::trace!(error = %error, "a client's connection broke before it said anything"),
        Err(_) => {}
    }
}

/// What is spoken inside of TLS.
enum Greeted {
    Http(BufReader<TlsStream<TcpStream>>, Hop),
    Http2(TlsStream<TcpStream>, Hop),
    Terminal(BufReader<TlsStream<TcpStream>>, Hop),
}

/// As in the access log. Versions before 1.2 are not spoken.
pub(crate) fn tls_version(session: &ServerConnection) -> &'static str {
    match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "tls1.2",
        _ => "tls1.3",
    }
}

/// Closes resting connections when their instance leaves the table or their time is over.
async fn sweep(worker: Rc<Worker>) {
    let mut changes = worker.shared.table.changed.subscribe();
    loop {
        // Ending with the table means ending with the router.
        let _ = tokio::time::timeout(SWEEP, changes.changed()).await;
        worker.pool.sweep();
    }
}
