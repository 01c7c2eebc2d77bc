//! Connections that left HTTP behind: `WebSocket` and whatever else answers 101.
//!
//! A tunnel has no end of its own. So when its instance leaves the table, it has the drain time, and then a `WebSocket` is ended by its protocol:
//! the client gets a close frame that tells it to go elsewhere, and answers it. Of other protocols nobody here knows the words: their tunnels
//! go on until the app, which gets SIGTERM then, ends them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::access_log::Record;
use crate::failure::Failure;
use crate::frames::{Frames, GOING_AWAY};
use crate::inbound::Handed;
use crate::socket::Activity;
use crate::table::InFlight;
use crate::upstream::Scratch;

/// For a client to answer a close frame. It is the last part of the drain time.
const GOODBYE: Duration = Duration::from_secs(2);

/// The two ends, once both sides have agreed.
pub(crate) struct Ends<S> {
    pub(crate) client: ClientEnd,
    pub(crate) server: S,
}

/// The client's end, which is there once it has its 101.
pub(crate) enum ClientEnd {
    Http1(oneshot::Receiver<Handed>),
    /// A stream among others.
    Http2(OnUpgrade),
}

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

impl ClientEnd {
    async fn open(self) -> Option<Box<dyn Duplex>> {
        Some(match self {
            Self::Http1(handed) => Box::new(handed.await.ok()?),
            Self::Http2(upgraded) => Box::new(TokioIo::new(upgraded.await.ok()?)),
        })
    }
}

/// What comes of a tunnel to an app: its instance, its line in the log, its limits.
pub(crate) struct Watched {
    pub(crate) in_flight: InFlight,
    pub(crate) record: Record,
    pub(crate) activity: Arc<Activity>,
    pub(crate) idle: Duration,
    pub(crate) is_web_socket: bool,
    /// Cancelled when the router stops.
    pub(crate) stop: CancellationToken,
    /// What passes goes through here.
    pub(crate) scratch: Scratch,
}

/// Until when a tunnel may be.
pub(crate) struct Terms {
    pub(crate) in_flight: InFlight,
    /// Told of what passes.
    pub(crate) activity: Arc<Activity>,
    pub(crate) idle: Duration,
    /// Cancelled when the router stops.
    pub(crate) stop: CancellationToken,
}

/// How a tunnel came to its end.
enum End {
    /// Both sides have ended, one after the other or by breaking off.
    Passed(Passed),
    /// Nobody has said anything for too long.
    Idle,
    /// Its instance or the router goes away.
    Called,
}

/// Passes bytes of an app's tunnel until it ends or has to.
pub(crate) async fn watched<S: AsyncRead + AsyncWrite + Unpin>(ends: Ends<S>, watched: Watched) {
    let Watched { in_flight, mut record, activity, idle, is_web_socket, stop, scratch } = watched;
    let Some(client) = ends.client.open().await else { return };
    let mut tunnel = Tunnel::new(client, ends.server, (is_web_socket, &scratch));
    match tunnel.run(Terms { in_flight, activity, idle, stop }).await {
        End::Passed(Passed::Well) => record.complete = true,
        End::Idle => {
            tunnel.say_goodbye().await;
            record.fail(Failure::IdleTunnel);
        }
        End::Called if tunnel.say_goodbye().await => record.complete = true,
        End::Passed(Passed::CutByServer) | End::Called => record.fail(Failure::Interrupted),
    }
    (record.tunneled, record.bytes) = (tunnel.up.passed, tunnel.down.passed);
}

/// Passes bytes until both sides have ended.
pub(crate) async fn pass<S: AsyncRead + AsyncWrite + Unpin>(ends: Ends<S>, scratch: &Scratch) {
    if let Some(client) = ends.client.open().await {
        Tunnel::new(client, ends.server, (false, scratch)).pass().await;
    }
}

/// What passed by a connection that was never HTTP, and what went wrong with it, if anything.
pub(crate) struct Carried {
    /// From the client.
    pub(crate) received: u64,
    /// To the client.
    pub(crate) sent: u64,
    pub(crate) failure: Option<Failure>,
}

/// Passes bytes of a connection that was never HTTP until it ends or has to.
pub(crate) async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    (client, server): (Box<dyn Duplex>, S),
    scratch: &Scratch,
    terms: Terms,
) -> Carried {
    let mut tunnel = Tunnel::new(client, server, (false, scratch));
    let failure = match tunnel.run(terms).await {
        End::Passed(Passed::Well) => None,
        End::Idle => Some(Failure::IdleTunnel),
        End::Passed(Passed::CutByServer) | End::Called => Some(Failure::Interrupted),
    };
    Carried { received: tunnel.up.passed, sent: tunnel.down.passed, failure }
}

/// How both sides ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    Well,
    /// The server broke it off, or ended a `WebSocket` that nobody had closed.
    CutByServer,
}

struct Tunnel<S> {
    client: Box<dyn Duplex>,
    server: S,
    /// From the client to the server.
    up: Way,
    down: Way,
    /// The server ended a `WebSocket` that nobody had closed.
    was_cut: bool,
    /// To be told of bytes that pass.
    activity: Option<Arc<Activity>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tunnel<S> {
    fn new(client: Box<dyn Duplex>, server: S, (is_web_socket, scratch): (bool, &Scratch)) -> Self {
        let (up, down) = (Way::new(is_web_socket, scratch), Way::new(is_web_socket, scratch));
        Self { client, server, up, down, was_cut: false, activity: None }
    }

    /// Passes bytes until it ends or has to.
    async fn run(&mut self, terms: Terms) -> End {
        let Terms { in_flight, activity, idle, stop } = terms;
        self.activity = Some(Arc::clone(&activity));
        let end = tokio::select! {
            passed = self.pass() => End::Passed(passed),
            () = activity.idle_for(idle) => End::Idle,
            () = in_flight.instance().is_over(GOODBYE) => End::Called,
            () = stop.cancelled() => End::Called,
        };
        if !matches!(end, End::Called) || self.down.frames.is_some() || stop.is_cancelled() {
            return end;
        }
        // The instance is drained as far as we are concerned.
        drop(in_flight);
        tokio::select! {
            passed = self.pass() => End::Passed(passed),
            () = activity.idle_for(idle) => End::Idle,
            () = stop.cancelled() => End::Called,
        }
    }

    /// Passes bytes both ways. May be dropped at any moment: what was read and is yet to be written is still there.
    async fn pass(&mut self) -> Passed {
        let Self { client, server, up, down, was_cut, activity } = self;
        poll_fn(|context| {
            let before = (up.passed, down.passed);
            let to_server = up.poll(context, client, server);
            // Whoever ends without a word has cut it off, if nobody had said that it is over and the other side is still there.
            let cut = |up: &Way, down: &Way| !up.ended && !up.is_closed() && !down.is_closed();
            let to_client = down.poll(context, server, client);
            if let (Some(activity), true) = (&*activity, before != (up.passed, down.passed)) {
                activity.pass();
            }
            match (&to_server, &to_client) {
                (Poll::Ready(Err(Broken::Writing)), _) | (_, Poll::Ready(Err(Broken::Reading))) => {
                    return Poll::Ready(if cut(up, down) { Passed::CutByServer } else { Passed::Well });
                }
                (Poll::Ready(Err(Broken::Reading)), _) | (_, Poll::Ready(Err(Broken::Writing))) => {
                    return Poll::Ready(Passed::Well);
                }
                _ => {}
            }
            if down.ended && down.frames.is_some() && !*was_cut {
                *was_cut = cut(up, down);
            }
            // A `WebSocket` ends with its server, whether its client hangs up, too, or not.
            let over = to_client.is_ready() && (to_server.is_ready() || down.frames.is_some());
            if over { Poll::Ready(if *was_cut { Passed::CutByServer } else { Passed::Well }) } else { Poll::Pending }
        })
        .await
    }

    /// Ends a `WebSocket` as its protocol wants it. False if its client could not be told.
    async fn say_goodbye(&mut self) -> bool {
        let mut told = false;
        let goodbye = async {
            if !self.down.is_closed() {
                self.finish_frame().await?;
                self.client.write_all(&GOING_AWAY).await?;
                self.client.flush().await?;
            }
            told = true;
            self.listen_for_goodbye().await;
            Ok::<_, io::Error>(())
        };
        // Whatever is left unsaid by then, it ends here.
        let _ = timeout(GOODBYE, goodbye).await;
        let _ = self.client.shutdown().await;
        told
    }

    /// Passes the rest of the frame that the client is being sent.
    async fn finish_frame(&mut self) -> io::Result<()> {
        let Self { client, server, down, .. } = self;
        let unsupported = || io::Error::from(io::ErrorKind::Unsupported);
        while !down.frames.as_ref().ok_or_else(unsupported)?.is_between() {
            if down.is_empty() && down.read(server).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut after = down.frames.clone().unwrap_or_default();
            let length = after.pass_one(down.rest());
            client.write_all(&down.rest()[..length]).await?;
            down.start += length;
            down.passed += length as u64;
            down.frames = Some(after);
        }
        Ok(())
    }

    /// Passes what the client says until it has said goodbye, and throws away what the server says to a client that was told to go.
    async fn listen_for_goodbye(&mut self) {
        let Self { client, server, up, down, .. } = self;
        down.forget();
        poll_fn(|context| {
            if up.poll(context, client, server).is_ready() || (up.is_closed() && up.is_empty()) {
                return Poll::Ready(());
            }
            loop {
                match down.poll_read(context, server) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(1..)) => down.forget(),
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                }
            }
        })
        .await;
        let _ = server.flush().await;
    }
}

/// At which end a direction broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Reading,
    Writing,
}

/// One direction. What is read is written from where the whole worker reads into; only what cannot be written at once has memory of its own.
struct Way {
    scratch: Scratch,
    buffer: Vec<u8>,
    start: usize,
    /// Bytes that were written.
    passed: u64,
    unflushed: bool,
    /// There is nothing more to read.
    ended: bool,
    /// And that has been passed on.
    done: bool,
    /// What was written of a `WebSocket`.
    frames: Option<Frames>,
}

impl Way {
    fn new(is_web_socket: bool, scratch: &Scratch) -> Self {
        let (scratch, frames) = (scratch.clone(), is_web_socket.then(Frames::default));
        Self { scratch, buffer: Vec::new(), start: 0, passed: 0, unflushed: false, ended: false, done: false, frames }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        while !self.done {
            while !self.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(context, self.rest()));
                let Ok(length @ 1..) = written else { return Poll::Ready(Err(Broken::Writing)) };
                if let Some(frames) = &mut self.frames {
                    frames.pass(&self.buffer[self.start..self.start + length]);
                }
                self.start += length;
                self.note(length);
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(context)).map_err(|_| Broken::Writing)?;
                self.done = true;
            } else if self.poll_pass(context, from, to)?.is_pending() {
                self.buffer = Vec::new();
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(context)).map_err(|_| Broken::Writing)?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is there, and writes what can be written of it. All that was read before must have been written.
    fn poll_pass(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        let scratch = self.scratch.clone();
        let read = ready!(scratch.poll_read(context, from)).map_err(|_| Broken::Reading)?;
        self.ended = read.is_empty();
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let length = match Pin::new(to).poll_write(context, &read) {
            Poll::Pending => 0,
            Poll::Ready(Ok(length @ 1..)) => length,
            Poll::Ready(_) => return Poll::Ready(Err(Broken::Writing)),
        };
        if let Some(frames) = &mut self.frames {
            frames.pass(&read[..length]);
        }
        self.note(length);
        self.keep(&read[length..]);
        Poll::Ready(Ok(()))
    }

    /// So many bytes were written.
    fn note(&mut self, length: usize) {
        self.passed += length as u64;
        self.unflushed |= length > 0;
    }

    /// This is yet to be written.
    fn keep(&mut self, rest: &[u8]) {
        self.start = 0;
        self.buffer.clear();
        self.buffer.extend_from_slice(rest);
    }

    /// Fills the buffer anew; all of it must have been written.
    fn poll_read(&mut self, context: &mut Context<'_>, from: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<usize>> {
        let scratch = self.scratch.clone();
        let read = ready!(scratch.poll_read(context, from))?;
        self.ended = read.is_empty();
        self.keep(&read);
        Poll::Ready(Ok(read.len()))
    }

    async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, from)).await
    }

    /// What was read is written to nobody.
    fn forget(&mut self) {
        self.keep(&[]);
    }

    /// What is yet to be written.
    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    fn is_closed(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::is_closed)
    }
}
