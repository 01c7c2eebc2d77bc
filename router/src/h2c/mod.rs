//! HTTP/2 to apps that ask for it, in plain text and from the first byte on (RFC 9113 section 3.3): requests to one instance are streams of
//! few connections. A connection has a task of its own, which reads and writes for all of its streams; it ends by itself when nobody holds it
//! any more: neither the pool nor a stream.

mod head;
mod shelf;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::cork::Cork;
use crate::failure::Failure;
use crate::pool::Shelves;
use crate::seats::Seat;
use crate::table::Instance;

pub(crate) use head::request;
pub(crate) use shelf::Shelf;
pub(crate) use stream::Stream;

/// Requests at once on one connection, if the instance takes as many.
const STREAMS: u32 = 128;
/// Bytes of one answer that wait for a client which does not read. All streams together never fill the connection, so that none of them is
/// held up by another one's client.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;
/// Bytes of one request that wait to be written.
const SEND_BUFFER: usize = 64 << 10;
/// Largest frame in bytes.
const FRAME: u32 = 16 << 10;
/// Most bytes of a head as HTTP/2 counts them. What is larger than a head may be in HTTP/1 is told from what makes no sense below this.
const HEADER_LIST: u32 = 1 << 20;
/// Streams that were ended for a fault of the instance; one more ends the connection.
const RESET_FOR_FAULT: usize = 256;
/// Streams that we ended, of which frames may still come, and for how long they may.
const RESET_AWAITED: usize = 256;
const RESET_AWAITED_FOR: Duration = Duration::from_secs(5);

/// A connection to an instance that many requests share.
pub(crate) struct Trunk {
    sender: SendRequest<Bytes>,
    pub(crate) instance: Arc<Instance>,
    life: Rc<Life>,
    /// Requests that have a place on it.
    taken: Cell<usize>,
    /// It gets no more requests.
    is_shunned: Cell<bool>,
    /// It refused one: it gets no other one before one of those that it has is over.
    is_full: Cell<bool>,
    /// While it rests: its ticket among all connections that do.
    ticket: Cell<Option<u64>>,
    since: Cell<Instant>,
    /// How long it may rest.
    patience: Duration,
    shelves: Weak<RefCell<Shelves>>,
}

/// What the task of a connection tells.
#[derive(Default)]
struct Life {
    /// The instance has said how many streams it takes, so it does speak HTTP/2.
    is_settled: Cell<bool>,
    /// It is over, and what that means to a request which had no answer.
    end: Cell<Option<Failure>>,
    changed: Notify,
}

impl Trunk {
    /// Speaks HTTP/2 on a new connection.
    pub(crate) async fn new(
        (stream, seat): (TcpStream, Seat),
        instance: &Arc<Instance>,
        patience: Duration,
        shelves: &Rc<RefCell<Shelves>>,
    ) -> Result<Rc<Self>, Failure> {
        let (stream, cork) = Cork::new(stream);
        let (sender, connection) = builder().handshake(stream).await.map_err(|_| Failure::NoResponse)?;
        let life = Rc::<Life>::default();
        spawn_local(drive(connection, cork, Rc::clone(&life), seat));
        Ok(Rc::new(Self {
            sender,
            instance: Arc::clone(instance),
            life,
            taken: Cell::default(),
            is_shunned: Cell::default(),
            is_full: Cell::default(),
            ticket: Cell::default(),
            since: Cell::new(Instant::now()),
            patience,
            shelves: Rc::downgrade(shelves),
        }))
    }

    /// Waits until the instance has said how many streams it takes.
    pub(crate) async fn settled(&self, limit: Duration) -> Result<(), Failure> {
        let settled = async {
            loop {
                match self.life.end.get() {
                    Some(failure) => return Err(failure),
                    None if self.life.is_settled.get() => return Ok(()),
                    None => self.life.changed.notified().await,
                }
            }
        };
        if self.life.is_settled.get() {
            return Ok(());
        }
        tokio::time::timeout(limit, settled).await.unwrap_or_else(|_| {
            self.shun();
            Err(Failure::RequestTimeout)
        })
    }

    /// A place for one more request, and how long nobody had one; none if it takes no more.
    pub(crate) fn enter(self: &Rc<Self>) -> Option<(Place, Duration)> {
        if !self.is_open() || !self.has_room() {
            return None;
        }
        if self.ticket.take().is_some()
            && let Some(shelves) = self.shelves.upgrade()
        {
            shelves.borrow_mut().wake();
        }
        let rested = if self.taken.get() == 0 { self.since.get().elapsed() } else { Duration::ZERO };
        self.taken.set(self.taken.get() + 1);
        Some((Place(Rc::clone(self)), rested))
    }

    /// It rests from now on.
    pub(crate) fn rest(&self, ticket: u64) {
        self.ticket.set(Some(ticket));
        self.since.set(Instant::now());
    }

    /// It may be that nobody is there any more: no other request is to wait for that.
    pub(crate) fn shun(&self) {
        self.is_shunned.set(true);
    }

    /// It refused a request, though it has fewer than it said: servers let go of one a moment after it is answered.
    pub(crate) fn fill(&self) {
        self.is_full.set(self.taken.get() > 0);
    }

    /// It takes requests, now or when one of those it has is over: neither side has ended it.
    pub(crate) fn is_open(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        // A clone waits for none of the streams that others opened: it is ready, or there was a GOAWAY, or an end.
        let mut is_ready = || matches!(self.sender.clone().poll_ready(&mut context), Poll::Ready(Ok(())));
        !self.is_shunned.get() && self.life.end.get().is_none() && is_ready()
    }

    /// It takes one more request, or may when it has said how many it takes.
    fn may_have_room(&self) -> bool {
        !self.life.is_settled.get() || self.has_room()
    }

    fn has_room(&self) -> bool {
        !self.is_full.get() && self.taken.get() < self.sender.current_max_send_streams().min(STREAMS as usize)
    }
}

/// What one request has of a connection, until it is dropped.
pub(crate) struct Place(Rc<Trunk>);

impl Place {
    pub(crate) fn trunk(&self) -> &Rc<Trunk> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let trunk = &self.0;
        trunk.taken.set(trunk.taken.get() - 1);
        trunk.is_full.set(false);
        if trunk.taken.get() == 0
            && let Some(shelves) = trunk.shelves.upgrade()
        {
            shelves.borrow_mut().rest(trunk);
        }
    }
}

/// Runs a connection to its end. What its streams said goes when all that can be done at the moment is done.
async fn drive(connection: Connection<Cork<TcpStream>, Bytes>, cork: Cork<TcpStream>, life: Rc<Life>, seat: Seat) {
    let failure = {
        let mut connection = pin!(connection);
        poll_fn(|context| {
            if let Poll::Ready(end) = connection.as_mut().poll(context) {
                tracing::trace!(?end, "a connection to an instance ended");
                let is_nonsense = end.is_err_and(|error| error.is_library());
                return Poll::Ready(if is_nonsense { Failure::BadResponse } else { Failure::NoResponse });
            }
            if !life.is_settled.get() && connection.max_concurrent_send_streams() > 0 {
                life.is_settled.set(true);
                life.changed.notify_waiters();
            }
            match cork.poll_pull(context) {
                Poll::Ready(Err(_)) => Poll::Ready(Failure::NoResponse),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    life.end.set(Some(failure));
    life.changed.notify_waiters();
    drop(seat);
}

/// Every bound by name, so that none is one of a library that may change it. Streams wait until the instance has said how many it takes.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .max_concurrent_streams(0)
        .initial_max_send_streams(0)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(RESET_FOR_FAULT))
        .max_concurrent_reset_streams(RESET_AWAITED)
        .reset_stream_duration(RESET_AWAITED_FOR);
    builder
}
