//! HTTP/2 with clients. Apps are spoken to in HTTP/1.1, so each stream becomes a request of that, and the rest of the router never
//! learns the difference. What is here is what a connection with many requests needs beside: translation, bounds, and limits of time
//! for each of its streams.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use hyper::ext::Protocol;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cork::Cork;
use crate::error_page::{self, Wants};
use crate::headers::Hop;
use crate::inbound::Inbound;
use crate::proxy::{self, Client, Worker, refuse};
use crate::reply::Reply;
use crate::server::HEAD_LIMIT;
use crate::socket::{Activity, ClientStream};
use crate::strict::{self, Refusal};

/// Requests at once on one connection; one more is refused, and its client may send it again.
const STREAMS: u32 = 128;
/// Bytes that may be on their way from a client: of one request's body, and of all on the connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of one answer that wait for a client which does not read.
const SEND_BUFFER: usize = 64 << 10;
/// Largest frame in bytes.
const FRAME: u32 = 16 << 10;
/// Streams that were reset before anybody looked at them, and streams that were ended for a fault of the client; one more ends the connection.
const RESET_UNSEEN: usize = 20;
const RESET_FOR_FAULT: usize = 256;
/// So many requests may be taken back before they have an answer, and more only while they are less than half of all.
const TAKEN_BACK: u64 = 500;
/// For a client to go once it was told to.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a `WebSocket` server appends to a key before it hashes it (RFC 6455 section 1.3).
const ACCEPT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Serves one client's connection.
pub(crate) async fn serve<S>(
    stream: S,
    (hop, wanted): (Rc<Hop>, Option<String>),
    worker: Rc<Worker>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let timeouts = worker.shared.timeouts.clone();
    let activity = Arc::new(Activity::new());
    activity.set_patience(Some(timeouts.idle));
    let streams = Rc::new(Streams::new());
    let service = service_fn({
        let streams = Rc::clone(&streams);
        move |request| {
            let stream = streams.begin();
            let activity = Arc::clone(&stream.activity);
            let (hop, wanted, handover) = (Rc::clone(&hop), wanted.clone(), Rc::default());
            let client = Client { hop, wanted, activity, http2: true, handover };
            let (worker, client) = (Rc::clone(&worker), Rc::new(client));
            // In its own place in memory: hyper and tokio hand it on four times, and it is large.
            Box::pin(async move {
                let response = answer(worker, client, request).await;
                stream.has_answer.set(true);
                Ok::<_, Infallible>(response)
            })
        }
    });
    let (stream, cork) = Cork::new(ClientStream::new(stream, activity));
    let connection = builder(Spawn(Rc::clone(&streams))).serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        () = drive(connection.as_mut(), &cork) => return,
        () = streams.taken_back() => {
            tracing::debug!("a client took back its requests, one after the other");
            return;
        }
        () = stop.cancelled() => {}
        () = streams.rest(timeouts.client_idle) => {}
    }
    connection.as_mut().graceful_shutdown();
    streams.changed_at.set(Instant::now());
    tokio::select! {
        biased;
        () = drive(connection, &cork) => {}
        () = streams.rest(FAREWELL) => {}
    }
}

/// Runs a connection to its end. What its streams said goes when all that can be done at the moment is done.
async fn drive<C, S>(mut connection: Pin<&mut C>, cork: &Cork<S>)
where
    C: Future<Output = hyper::Result<()>>,
    S: AsyncWrite + Unpin,
{
    let end = poll_fn(|context| {
        if let Poll::Ready(end) = connection.as_mut().poll(context) {
            return Poll::Ready(end.map_err(Box::<dyn Error>::from));
        }
        match cork.poll_pull(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    });
    if let Err(error) = end.await {
        tracing::trace!(%error, "a client's connection broke");
    }
}

/// Every bound by name, so that none is one of a library that may change it.
fn builder(spawn: Spawn) -> http2::Builder<Spawn> {
    let mut builder = http2::Builder::new(spawn);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_LIMIT).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(RESET_FOR_FAULT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_frame_size(FRAME);
    builder
}

/// The streams of one connection.
struct Streams {
    open: Cell<usize>,
    changed_at: Cell<Instant>,
    seen: Cell<u64>,
    taken_back: Cell<u64>,
    too_many: Notify,
    /// The stream whose task comes next: a request and its task are made in one go.
    begun: RefCell<Option<Rc<Stream>>>,
}

/// One request and its answer.
struct Stream {
    activity: Arc<Activity>,
    has_answer: Cell<bool>,
}

impl Streams {
    fn new() -> Self {
        Self {
            open: Cell::default(),
            changed_at: Cell::new(Instant::now()),
            seen: Cell::default(),
            taken_back: Cell::default(),
            too_many: Notify::new(),
            begun: RefCell::default(),
        }
    }

    fn begin(&self) -> Rc<Stream> {
        let stream = Rc::new(Stream { activity: Arc::new(Activity::of_stream()), has_answer: Cell::new(false) });
        *self.begun.borrow_mut() = Some(Rc::clone(&stream));
        stream
    }

    /// Waits until there has been no stream for `limit`.
    async fn rest(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let end = if self.open.get() == 0 { self.changed_at.get() } else { now } + limit;
            if end <= now {
                return;
            }
            sleep_until(end).await;
        }
    }

    /// Waits until a client has taken back more requests than anybody does who wants answers.
    async fn taken_back(&self) {
        self.too_many.notified().await;
    }

    fn end(&self, stream: Option<&Stream>) {
        self.open.set(self.open.get() - 1);
        self.changed_at.set(Instant::now());
        let Some(stream) = stream else { return };
        self.seen.set(self.seen.get() + 1);
        if !stream.has_answer.get() {
            let count = self.taken_back.get() + 1;
            self.taken_back.set(count);
            if count > TAKEN_BACK && count * 2 > self.seen.get() {
                self.too_many.notify_one();
            }
        }
    }
}

impl Stream {
    /// Ready when its client leaves an answer lying for too long. Until there is one others look at the time.
    fn poll_abandoned(&self, context: &mut Context<'_>, sleep: &mut Option<Pin<Box<Sleep>>>) -> Poll<()> {
        let (true, Some(patience)) = (self.has_answer.get(), self.activity.patience()) else { return Poll::Pending };
        loop {
            let end = self.activity.last() + patience;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if sleep.deadline() != end {
                sleep.as_mut().reset(end);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Runs the streams on the connection's own core, each as long as its client wants it.
#[derive(Clone)]
struct Spawn(Rc<Streams>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Spawn {
    fn execute(&self, future: F) {
        self.0.open.set(self.0.open.get() + 1);
        // None is the way of a tunnel to its client, which looks at the time itself.
        let open = Open { streams: Rc::clone(&self.0), stream: self.0.begun.take() };
        spawn_local(async move {
            let (mut future, mut sleep) = (pin!(future), None);
            poll_fn(|context| {
                if future.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                open.stream.as_ref().map_or(Poll::Pending, |stream| stream.poll_abandoned(context, &mut sleep))
            })
            .await;
        });
    }
}

/// Counts as an open stream until it is dropped.
struct Open {
    streams: Rc<Streams>,
    stream: Option<Rc<Stream>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.end(self.stream.as_deref());
    }
}

/// Answers one request as if it had come in HTTP/1.1.
async fn answer(worker: Rc<Worker>, client: Rc<Client>, mut request: Request<Incoming>) -> Response<Reply> {
    let key = match translate(&mut request, || worker.new_key()) {
        Ok(key) => key,
        Err(refusal) => return refuse(&refusal, Wants::of(request.headers())),
    };
    if let Err(refusal) = strict::check(&request) {
        return refuse(&refusal, Wants::of(request.headers()));
    }
    let mut response = proxy::answer(worker, client, request.map(Inbound::Http2)).await;
    if let Some(key) = key {
        response = open_web_socket(response, &key);
    }
    response.headers_mut().remove(CONNECTION);
    response
}

/// Makes a request one of HTTP/1.1. For a `WebSocket` (RFC 8441) it returns the key that its server has to know an answer to.
fn translate(
    request: &mut Request<Incoming>,
    new_key: impl FnOnce() -> HeaderValue,
) -> Result<Option<HeaderValue>, Refusal> {
    let authority = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let (Some(Ok(authority)), false) = (authority, request.headers().contains_key(HOST)) {
        request.headers_mut().insert(HOST, authority);
    }
    join_cookies(request.headers_mut());
    if !request.body().is_end_stream() && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    *request.version_mut() = Version::HTTP_11;
    let protocol = request.extensions_mut().remove::<Protocol>();
    let Some(protocol) = protocol.filter(|_| request.method() == Method::CONNECT) else { return Ok(None) };
    if protocol.as_str() != "websocket" {
        return Err(Refusal(
            StatusCode::NOT_IMPLEMENTED,
            "The only protocol that a stream can change to is websocket.",
        ));
    }
    let key = new_key();
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_KEY, key.clone());
    Ok(Some(key))
}

/// Clients may send each cookie by itself, which apps do not expect (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Valid values joined by a semicolon are a valid value.
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// The answer to a `WebSocket` that wants to be opened.
fn open_web_socket(mut response: Response<Reply>, key: &HeaderValue) -> Response<Reply> {
    const OF_HTTP1: [HeaderName; 3] = [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT];
    let status = response.status();
    let accept = BASE64.encode(Sha1::new().chain_update(key.as_bytes()).chain_update(ACCEPT).finalize());
    let headers = response.headers_mut();
    let is_accepted = headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|value| value.as_bytes() == accept.as_bytes());
    if status.is_success() || (status == StatusCode::SWITCHING_PROTOCOLS && !is_accepted) {
        // Passed on it would say that there is a WebSocket.
        let page = error_page::refused(
            StatusCode::BAD_GATEWAY,
            "The application did not answer as a WebSocket does.",
            Wants::Text,
        );
        return Reply::page(page);
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        for name in &OF_HTTP1 {
            headers.remove(name);
        }
        *response.status_mut() = StatusCode::OK;
    }
    response
}
