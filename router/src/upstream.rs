//! One HTTP/1 connection to an instance.
//!
//! The request's own task drives it: no task of its own, no wake-up across tasks. It is polled while the request waits
//! for its answer and while the answer's body passes, and rests in the [`Pool`](crate::pool::Pool) in between.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use tokio::net::TcpStream;

use crate::failure::Failure;

pub(crate) struct Upstream {
    sender: SendRequest<Upload>,
    /// None if it ended, or if a task of its own drives it because it may become a tunnel.
    connection: Option<Connection<TokioIo<TcpStream>, Upload>>,
}

impl Upstream {
    /// Connects within `limit`. An upgradable one is for one request only.
    pub(crate) async fn connect(address: SocketAddr, limit: Duration, upgradable: bool) -> Result<Self, Failure> {
        let stream = match tokio::time::timeout(limit, TcpStream::connect(address)).await {
            Err(_) => return Err(Failure::ConnectTimeout),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => return Err(Failure::ConnectTimeout),
            Ok(Err(error)) if is_exhausted(&error) => return Err(Failure::Exhausted),
            Ok(Err(_)) => return Err(Failure::ConnectRefused),
            Ok(Ok(stream)) => stream,
        };
        // It only costs speed if it fails.
        let _ = stream.set_nodelay(true);
        let handshake = Builder::new().handshake(TokioIo::new(stream)).await;
        let Ok((sender, connection)) = handshake else { return Err(Failure::ConnectRefused) };
        if !upgradable {
            return Ok(Self { sender, connection: Some(connection) });
        }
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(error = %error, "a connection to an instance broke");
            }
        });
        Ok(Self { sender, connection: None })
    }

    /// The answer to `request`, as long as somebody calls [`Upstream::drive`]. The error holds the request if not a byte of
    /// it was sent.
    pub(crate) fn send(
        &mut self,
        request: Request<Upload>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload>>>> + use<> {
        self.sender.try_send_request(request)
    }

    /// Reads and writes what can be.
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(result) = Pin::new(connection).poll(context)
        {
            if let Err(error) = result {
                tracing::trace!(error = %error, "a connection to an instance broke");
            }
            self.connection = None;
        }
    }

    /// True if it can take a request right now: open, and done with the one before.
    pub(crate) fn is_reusable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// Whether a connection failed for what this machine has not got (connect(2), socket(2)): the instance knows nothing of it.
fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EADDRNOTAVAIL | Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

/// How far a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The instance has yet to take what there is.
    Passing,
    /// The client has yet to send more.
    Waiting,
    Done,
    /// It is no valid body.
    Malformed,
    /// The client went away.
    Gone,
}

/// A request's body on its way from a client to an instance.
pub(crate) struct Upload {
    body: Option<Incoming>,
    progress: Rc<Cell<Progress>>,
}

impl Upload {
    pub(crate) fn new(body: Incoming) -> Self {
        let progress = if body.is_end_stream() { Progress::Done } else { Progress::Passing };
        Self { body: Some(body), progress: Rc::new(Cell::new(progress)) }
    }

    /// For a copy of a request that has no body.
    pub(crate) fn empty() -> Self {
        Self { body: None, progress: Rc::new(Cell::new(Progress::Done)) }
    }

    pub(crate) fn progress(&self) -> Rc<Cell<Progress>> {
        Rc::clone(&self.progress)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let result = Pin::new(&mut *body).poll_frame(context);
        let progress = match &result {
            Poll::Pending => Progress::Waiting,
            Poll::Ready(None) => Progress::Done,
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => Progress::Done,
            Poll::Ready(Some(Ok(_))) => Progress::Passing,
            Poll::Ready(Some(Err(error))) if is_malformed(error) => Progress::Malformed,
            Poll::Ready(Some(Err(_))) => Progress::Gone,
        };
        self.progress.set(progress);
        result
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// hyper tells of a bad chunk by an I/O error of these kinds; a client that went away is another kind.
fn is_malformed(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}
