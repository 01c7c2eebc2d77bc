//! HTTP/1 with clients. One task for each connection, which drives a request to its end and then waits for the next one: it reads the head, asks
//! [`proxy::answer`], and writes what comes of it. The body of a request is read by whoever wants it, straight from the connection.

mod answer;
mod head;
#[cfg(any(test, fuzzing))]
mod twice;
mod wire;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use http::header::HeaderMap;
use http::{Method, Request, Response, StatusCode, Version};
use tokio::io::AsyncWrite;
use tokio::task::coop::unconstrained;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error_page::Wants;
use crate::headers::Hop;
use crate::http2;
use crate::proxy::{self, Client, Worker, refuse};
use crate::reply::Reply;
use crate::socket::{Activity, ClientStream, Rewound, Stream};
use crate::strict::{self, Refusal};
use crate::timer::Timer;
use crate::upstream::Scratch;
use answer::{Answer, Asked, Desk};
use wire::{Next, Wire};

#[cfg(fuzzing)]
pub(crate) use twice::check;
pub(crate) use wire::{Broken, Inbound};

/// What is read of a client at once, if nothing tells of more.
const READ: usize = 32 << 10;
/// For a client to take note of an answer before which it had not sent all of its request. Closing on what it still sends would take
/// from it what it has not read yet.
const FAREWELL: Duration = Duration::from_secs(5);
const FAREWELL_BYTES: usize = 1 << 20;

/// A client's connection after it was one of HTTP/1.
pub(crate) type Handed = Rewound<ClientStream<Stream>>;

/// What the connections of one worker share.
pub(crate) struct Inbox {
    scratch: Scratch,
    desk: Desk,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { scratch: Scratch::new(READ), desk: Desk::default() }
    }
}

/// Serves one client's connection. Once `stop` is cancelled an answer is the last one.
pub(crate) async fn serve(stream: Stream, who: (Hop, Option<String>), worker: Rc<Worker>, stop: CancellationToken) {
    resume(stream, BytesMut::new(), who, worker, stop).await;
}

/// The same, where some of it was read already.
pub(crate) async fn resume(
    stream: Stream,
    begun: BytesMut,
    (hop, wanted): (Hop, Option<String>),
    worker: Rc<Worker>,
    stop: CancellationToken,
) {
    let (hop, activity) = (Rc::new(hop), Arc::new(Activity::new()));
    let stream = ClientStream::new(stream, Arc::clone(&activity));
    let wire = Wire::new(stream, begun, worker.inbox.scratch.clone());
    let handover = Rc::default();
    let client = Client { hop: Rc::clone(&hop), wanted: wanted.clone(), activity, http2: false, handover };
    let connection = Connection { wire: Rc::new(RefCell::new(wire)), client: Rc::new(client), worker, stop };
    let (worker, stop) = (Rc::clone(&connection.worker), connection.stop.clone());
    if let Some(stream) = connection.run().await {
        http2::serve(stream, (hop, wanted), worker, stop).await;
    }
}

struct Connection {
    wire: Rc<RefCell<Wire>>,
    client: Rc<Client>,
    worker: Rc<Worker>,
    stop: CancellationToken,
}

/// How a connection goes on.
enum Then {
    Stay,
    Close,
    /// The client may be about to send what nobody wants.
    Linger,
    Switch,
}

impl Connection {
    /// Answers one request after the other. Returns a connection whose client speaks HTTP/2.
    async fn run(self) -> Option<Handed> {
        let (mut timer, mut is_first) = (Timer::default(), true);
        let worker = Rc::clone(&self.worker);
        let mut stopped = pin!(unconstrained(worker.stop.cancelled()));
        let mut listens = false;
        let then = loop {
            let mut on_stop = |context: &mut Context<'_>| {
                // Who has listened once is woken.
                if !std::mem::replace(&mut listens, true) {
                    let _ = stopped.as_mut().poll(context);
                }
                worker.stop.is_cancelled()
            };
            let then = match self.next(&mut timer, &mut on_stop).await {
                Some(Ok(Next::Request(request))) => self.exchange(request).await,
                Some(Ok(Next::Http2)) if is_first => return self.into_stream(),
                Some(Err(refusal)) => self.refuse(&refusal, &HeaderMap::new(), LAST).await,
                Some(Ok(Next::Http2)) | None => Then::Close,
            };
            if !matches!(then, Then::Stay) {
                break then;
            }
            is_first = false;
        };
        match then {
            Then::Switch => {
                let handover = self.client.handover.take();
                if let (Some(handover), Some(stream)) = (handover, self.into_stream()) {
                    // A tunnel that does not wait for it any more has come to its end.
                    let _ = handover.send(stream);
                }
            }
            Then::Linger => self.linger().await,
            Then::Stay | Then::Close => self.close(),
        }
        None
    }

    /// Waits for the next request. None when there will be no other one.
    async fn next(
        &self,
        timer: &mut Timer,
        is_over: &mut impl FnMut(&mut Context<'_>) -> bool,
    ) -> Option<Result<Next, Refusal>> {
        let limit = self.worker.shared.timeouts.client_idle;
        // Bytes of the answer before, if there was one, passed last.
        let (mut end, mut has_begun) = (self.client.activity.last() + limit, false);
        poll_fn(move |context| {
            let mut wire = self.wire.borrow_mut();
            if let Poll::Ready(next) = wire.poll_head(context) {
                return Poll::Ready(next);
            }
            if !wire.buffer.is_empty() && !std::mem::replace(&mut has_begun, true) {
                end = self.client.activity.last() + limit;
            }
            if timer.poll_own(context, end).is_ready() {
                return Poll::Ready(None);
            }
            // Who has begun to ask is answered.
            if is_over(context) && wire.buffer.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    async fn exchange(&self, request: Request<()>) -> Then {
        let is_head = request.method() == Method::HEAD;
        let clear = match strict::check(&request) {
            Ok(clear) => clear,
            Err(refusal) => return self.refuse(&refusal, request.headers(), Asked { is_head, ..LAST }).await,
        };
        let is_http_10 = request.version() == Version::HTTP_10;
        let asked = Asked { is_head, is_http_10, stays: clear.stays, takes_trailers: clear.takes_trailers };
        let inbound = if clear.body.is_over() { Inbound::Nothing } else { Inbound::Http1(Rc::clone(&self.wire)) };
        self.wire.borrow_mut().begin_body(clear.body, clear.is_expected);
        let request = request.map(|()| inbound);
        let mut answer = pin!(proxy::answer(Rc::clone(&self.worker), Rc::clone(&self.client), request));
        let response = poll_fn(|context| match answer.as_mut().poll(context) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => self.wire.borrow_mut().poll_gone(context).map(|()| None),
        });
        match response.await {
            Some(response) => self.answer(response, asked).await,
            None => Then::Close,
        }
    }

    async fn refuse(&self, refusal: &Refusal, headers: &HeaderMap, asked: Asked) -> Then {
        match self.answer(refuse(refusal, Wants::of(headers)), asked).await {
            // Nothing after it can be trusted.
            Then::Stay | Then::Linger => Then::Linger,
            other => other,
        }
    }

    /// Writes an answer, and says how the connection goes on.
    async fn answer(&self, response: Response<Reply>, mut asked: Asked) -> Then {
        let is_switch = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let mut answer = {
            let mut wire = self.wire.borrow_mut();
            // Whoever waits to be told to send a body may send it now or not: nobody can know where the next request begins.
            asked.stays &= !wire.withdraw() && !self.stop.is_cancelled();
            let unsaid = wire.unsaid();
            let clock = &*self.worker.shared.clock;
            Answer::new(&self.worker.inbox.desk, clock, unsaid, response, asked)
        };
        let result = poll_fn(|context| {
            if let Poll::Ready(result) = answer.poll(context, &self.wire) {
                return Poll::Ready(result);
            }
            let gone = self.wire.borrow_mut().poll_gone(context);
            gone.map(|()| Err(std::io::ErrorKind::ConnectionReset.into()))
        });
        let result = result.await;
        let stays = answer.stays;
        drop(answer);
        if result.is_ok() && !is_switch {
            // Whoever has answered may want the rest of the request all the same.
            let is_unread = || Rc::strong_count(&self.wire) == 1;
            poll_fn(|context| if is_unread() { Poll::Ready(()) } else { self.wire.borrow_mut().poll_over(context) })
                .await;
        }
        let is_read = self.wire.borrow().body.is_over();
        match result {
            Err(error) => {
                tracing::trace!(error = %error, "a client's connection broke");
                Then::Close
            }
            Ok(()) if is_switch => Then::Switch,
            Ok(()) if !is_read => Then::Linger,
            Ok(()) if stays => Then::Stay,
            Ok(()) => Then::Close,
        }
    }

    fn into_stream(self) -> Option<Handed> {
        // Nobody reads a body any more.
        Rc::try_unwrap(self.wire).ok().map(|wire| wire.into_inner().into_stream())
    }

    /// Says goodbye where that has to be said; a socket is closed when it is dropped.
    fn close(&self) {
        let mut wire = self.wire.borrow_mut();
        if wire.stream.get_ref().is_tls() {
            // What cannot be written at once is nothing to wait for.
            let _ = Pin::new(&mut wire.stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }

    async fn linger(&self) {
        let farewell = async {
            let shut = poll_fn(|context| Pin::new(&mut self.wire.borrow_mut().stream).poll_shutdown(context));
            if shut.await.is_ok() {
                let mut left = FAREWELL_BYTES;
                poll_fn(|context| self.wire.borrow_mut().poll_discard(context, &mut left)).await;
            }
        };
        // Whether it goes or not is its own matter.
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// Of a request that is not answered by an app.
const LAST: Asked = Asked { is_head: false, is_http_10: false, stays: false, takes_trailers: false };
