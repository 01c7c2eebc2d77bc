//! Where a request of a client is answered: by the platform, by a page of the router, or by an app.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode};
use model::Clock;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Timeouts;
use crate::access_log::{AccessLog, Lines};
use crate::balance::Dice;
use crate::error_page::Wants;
use crate::exchange::Exchange;
use crate::headers::{self, Hop, Stamp};
use crate::host::{self, OwnHosts};
use crate::inbound::{Handed, Inbound, Inbox};
use crate::on_demand::OnDemand;
use crate::place::Mounted;
use crate::policy::budget::Budgets;
use crate::pool::Pool;
use crate::reply::Reply;
use crate::seats::Seats;
use crate::socket::Activity;
use crate::spans::Spans;
use crate::strict::Refusal;
use crate::table::{Instance, Nowhere, Table};
use crate::tls::Shown;
use crate::traffic::{News, Tally};
use crate::trust::Trust;
use crate::tunnel::ClientEnd;
use crate::upstream::Scratch;
use crate::{error_page, on_demand, platform};

/// How often it is said that no connection can be made.
const COMPLAINS: Duration = Duration::from_secs(10);
/// Of most heads of requests, with what is added to them.
const HEAD_SIZE: usize = 1024;
/// The part of the path that a request came with, and its app does not see.
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) table: Arc<Table>,
    pub(crate) shown: Arc<Shown>,
    pub(crate) own_hosts: OwnHosts,
    pub(crate) trust: Trust,
    pub(crate) seats: Arc<Seats>,
    /// Where TLS is taken, if it is.
    pub(crate) tls_port: Option<u16>,
    pub(crate) controller_socket: PathBuf,
    pub(crate) on_demand: OnDemand,
    pub(crate) timeouts: Timeouts,
    /// Most connections that one worker lets rest.
    pub(crate) pool_limit: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: Arc<AccessLog>,
    /// What becomes of trace spans, if any are made.
    pub(crate) spans: Option<Arc<Spans>>,
    /// To the control thread.
    pub(crate) news: mpsc::UnboundedSender<News>,
}

/// What all requests on one core share.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    pub(crate) dice: RefCell<Dice>,
    pub(crate) tally: Rc<Tally>,
    pub(crate) lines: Rc<Lines>,
    pub(crate) scratch: Scratch,
    pub(crate) inbox: Inbox,
    pub(crate) budgets: Budgets,
    /// What keeps the worker from ending: connections of clients, and tunnels.
    pub(crate) connections: TaskTracker,
    /// Cancelled when whoever is still there has to go.
    pub(crate) stop: CancellationToken,
    /// When it said last that it cannot connect any more.
    pub(crate) complained: Cell<Option<Instant>>,
}

impl Worker {
    /// Says, now and then, that this machine has no port or file left for a connection.
    pub(crate) fn complain(&self, instance: &Instance) {
        let now = Instant::now();
        if self.complained.get().is_none_or(|last| now.duration_since(last) >= COMPLAINS) {
            self.complained.set(Some(now));
            tracing::warn!(
                address = %instance.endpoint.address,
                "no port or file is free for one more connection to this address; for more ports widen net.ipv4.ip_local_port_range, \
                 for more files raise the hard limit of open files"
            );
        }
    }

    pub(crate) fn new_request_id(&self) -> HeaderValue {
        let mut text = uuid::Uuid::encode_buffer();
        let text = uuid::Builder::from_random_bytes(self.random()).into_uuid().hyphenated().encode_lower(&mut text);
        // Hexadecimal digits and dashes; the other arm cannot happen.
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
    }

    /// What opens a `WebSocket` (RFC 6455 section 4.1).
    pub(crate) fn new_key(&self) -> HeaderValue {
        // Letters, digits and a few signs; the other arm cannot happen.
        HeaderValue::try_from(BASE64.encode(self.random())).unwrap_or(HeaderValue::from_static(""))
    }

    fn random(&self) -> [u8; 16] {
        let mut dice = self.dice.borrow_mut();
        (u128::from(dice.roll()) << 64 | u128::from(dice.roll())).to_be_bytes()
    }
}

/// What all requests of one connection share.
pub(crate) struct Client {
    pub(crate) hop: Rc<Hop>,
    /// What it wants, whatever host it names.
    pub(crate) wanted: Option<String>,
    /// Of the connection, or of the one stream of it that the request is.
    pub(crate) activity: Arc<Activity>,
    /// Its requests were made of streams of HTTP/2.
    pub(crate) http2: bool,
    /// Who takes the connection if it changes to another protocol, which one of HTTP/1 can.
    pub(crate) handover: Rc<RefCell<Option<oneshot::Sender<Handed>>>>,
}

impl Client {
    /// Whose a request is, if it comes by a proxy that is trusted to say that.
    fn behind(self: Rc<Self>, trust: &Trust, headers: &HeaderMap) -> Rc<Self> {
        // Apps that are linked come by themselves.
        if self.wanted.is_some() || !trust.is_proxy(self.hop.peer) {
            return self;
        }
        let hop = Rc::new(self.hop.behind(headers, |address| trust.is_proxy(address)));
        let (activity, handover) = (Arc::clone(&self.activity), Rc::clone(&self.handover));
        Rc::new(Self { hop, wanted: None, activity, http2: self.http2, handover })
    }

    /// The same for a request of ours in the client's name, which it does not wait for.
    pub(crate) fn alone(&self) -> Self {
        let (activity, handover) = (Arc::new(Activity::of_stream()), Rc::default());
        Self { hop: Rc::clone(&self.hop), wanted: self.wanted.clone(), activity, http2: self.http2, handover }
    }

    /// What becomes of the client's end if `request` is answered with 101.
    pub(crate) fn upgrade<B>(&self, request: &mut Request<B>) -> ClientEnd {
        if self.http2 {
            return ClientEnd::Http2(hyper::upgrade::on(request));
        }
        let (sender, receiver) = oneshot::channel();
        *self.handover.borrow_mut() = Some(sender);
        ClientEnd::Http1(receiver)
    }
}

/// Answers one request that says clearly what it is ([`crate::strict`]).
pub(crate) async fn answer(worker: Rc<Worker>, client: Rc<Client>, request: Request<Inbound>) -> Response<Reply> {
    let client = client.behind(&worker.shared.trust, request.headers());
    let header = request.headers()[HOST].clone();
    let Some(host) = host::parse(header.as_bytes()) else {
        let refusal = Refusal(StatusCode::BAD_REQUEST, "The Host header is no host name.");
        return refuse(&refusal, Wants::of(request.headers()));
    };
    let host = client.wanted.clone().map_or(host, Cow::Owned);
    if let Some(answer) = acme(&worker.shared, &host, request.uri().path()) {
        return Reply::page(Response::new(answer.into()));
    }
    if worker.shared.own_hosts.contain(&host) {
        return platform::forward(&worker, &client, request).await;
    }
    let find = || worker.shared.table.find(&host, request.uri().path());
    let found = match find() {
        Err(Nowhere::Unknown) if on_demand::name(&worker, &host).await => find(),
        found => found,
    };
    let (app, mounted) = match found {
        Ok(found) => found,
        Err(Nowhere::Unknown) => return Reply::page(error_page::no_such_app(&host, Wants::of(request.headers()))),
        Err(Nowhere::Unclear) => {
            let reason = "The path can be read as that of another application.";
            return Reply::page(error_page::refused(StatusCode::BAD_REQUEST, reason, Wants::of(request.headers())));
        }
    };
    let (exchange, request) = Exchange::begin(worker, client, (&app, mounted), request);
    exchange.run(&host, app, request).await
}

/// What a certificate authority is answered that asks whether a host is this platform's (RFC 8555, section 8.3). What it does not ask for is
/// the app's.
fn acme(shared: &Shared, host: &str, path: &str) -> Option<String> {
    shared.shown.answer(host, path.strip_prefix("/.well-known/acme-challenge/")?)
}

/// A refused request may not be where its sender believes it ends: nothing after it on the connection can be trusted.
pub(crate) fn refuse(refusal: &Refusal, wants: Wants) -> Response<Reply> {
    let mut response = Reply::page(error_page::refused(refusal.0, refusal.1, wants));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The 101 for the client, with the end-to-end headers of the one of the server.
pub(crate) fn switching(mut headers: HeaderMap, upgrade: Option<HeaderValue>) -> Response<Reply> {
    headers.extend(upgrade.map(|upgrade| (UPGRADE, upgrade)));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let mut response = Response::new(Reply::Page(http_body_util::Full::default()));
    (*response.status_mut(), *response.headers_mut()) = (StatusCode::SWITCHING_PROTOCOLS, headers);
    response
}

/// The head of a request as an instance gets it in HTTP/1.
pub(crate) fn request_head(
    (parts, mounted): (&Parts, Option<Mounted>),
    is_chunked: bool,
    hop: &Hop,
    started: i64,
    new_id: impl FnOnce() -> HeaderValue,
) -> (Stamp, Bytes) {
    let mut head = Vec::with_capacity(HEAD_SIZE);
    let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| head.extend_from_slice(part));
    line(&[parts.method.as_str().as_bytes(), b" ", seen_path(parts, mounted).as_bytes(), b" HTTP/1.1\r\n"]);
    let give = |name: &HeaderName, value: &[u8]| line(&[name.as_str().as_bytes(), b": ", value, b"\r\n"]);
    let stamp = forward((parts, mounted), hop, started, new_id, give);
    if is_chunked {
        line(&[b"transfer-encoding: chunked\r\n"]);
    }
    line(&[b"\r\n"]);
    (stamp, head.into())
}

/// The path of a request as its app sees it.
pub(crate) fn seen_path(parts: &Parts, mounted: Option<Mounted>) -> Cow<'_, str> {
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    mounted.map_or(Cow::Borrowed(path), |mounted| mounted.seen(path))
}

/// Gives the headers of a request as an instance gets them. What its app does not see of the path it is told in a header, after what a proxy says
/// that is trusted and took something off the path before.
pub(crate) fn forward(
    (parts, mounted): (&Parts, Option<Mounted>),
    hop: &Hop,
    started: i64,
    new_id: impl FnOnce() -> HeaderValue,
    mut give: impl FnMut(&HeaderName, &[u8]),
) -> Stamp {
    let Some(mounted) = mounted.filter(|mounted| mounted.strip) else {
        return headers::forward_request(&parts.headers, hop, started, new_id, give);
    };
    let mut prefix = Vec::new();
    let give_other = |name: &HeaderName, value: &[u8]| {
        if *name == FORWARDED_PREFIX {
            prefix = value.to_vec();
        } else {
            give(name, value);
        }
    };
    let stamp = headers::forward_request(&parts.headers, hop, started, new_id, give_other);
    if prefix.ends_with(b"/") {
        prefix.pop();
    }
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    prefix.extend_from_slice(mounted.prefix(path).as_bytes());
    give(&FORWARDED_PREFIX, &prefix);
    stamp
}
