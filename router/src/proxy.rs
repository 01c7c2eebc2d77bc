//! One request, from a client to an instance and back.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Body;
use model::Clock;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Timeouts;
use crate::access_log::{AccessLog, Facts, Lines, Record};
use crate::balance::Dice;
use crate::compress::{self, Coding, Packed};
use crate::error_page::Wants;
use crate::failure::Failure;
use crate::headers::{self, Hop, Stamp};
use crate::host::{self, OwnHosts};
use crate::inbound::{Handed, Inbound, Inbox};
use crate::on_demand::OnDemand;
use crate::place::Mounted;
use crate::policy::budget::Budgets;
use crate::policy::{Asked, Patience, Refused, Rules, Visit, ejection};
use crate::pool::Pool;
use crate::reply::{Download, Reply};
use crate::response::Head;
use crate::search::Search;
use crate::seats::Seats;
use crate::socket::Activity;
use crate::strict::Refusal;
use crate::table::{App, InFlight, Instance, Nowhere, Table};
use crate::tls::Shown;
use crate::traffic::{News, Tally};
use crate::trust::Trust;
use crate::tunnel::{self, ClientEnd, Ends, Watched};
use crate::upload::{self, Progress, Upload};
use crate::upstream::{Scratch, Upstream};
use crate::{error_page, on_demand, platform};

/// A connection that rested less than this is not one that an instance is about to close.
const FRESH: Duration = Duration::from_secs(1);
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
    fn complain(&self, instance: &Instance) {
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

/// A request to an app.
struct Exchange {
    worker: Rc<Worker>,
    client: Rc<Client>,
    record: Record,
    upgrade: Option<ClientEnd>,
    /// Of the request, as the client sent them.
    headers: HeaderMap,
    patience: Patience,
    /// By which part of its path it came, if the app has only that of its host.
    mounted: Option<Mounted>,
    /// What to do with the answer, if the app has rules.
    visit: Option<Rc<Visit>>,
}

/// An instance's answer, and what the rest of it comes from.
struct Answer {
    head: Head,
    upstream: Box<Upstream>,
}

/// Why an attempt brought no answer, and what is left of the request.
struct Missed(Failure, Left);

enum Left {
    /// It cannot be sent again.
    Nothing,
    /// Nothing of it was sent.
    Unsent(Upload),
    /// It was sent, but may be sent twice, and not a byte of an answer came.
    Sent(Upload),
}

impl Exchange {
    fn begin(
        worker: Rc<Worker>,
        client: Rc<Client>,
        (app, mounted): (&App, Option<Mounted>),
        mut request: Request<Inbound>,
    ) -> (Self, Upload) {
        let arrived = Instant::now();
        let upgrade = headers::upgrade_wanted(request.headers()).is_some().then(|| client.upgrade(&mut request));
        let started = worker.shared.clock.now().as_millis();
        let (parts, body) = request.into_parts();
        let (stamp, head) =
            request_head((&parts, mounted), upload::is_chunked(&parts.headers, &body), &client.hop, started, || {
                worker.new_request_id()
            });
        let patience = Patience::of(app.rules.as_ref(), &worker.shared.timeouts);
        client.activity.set_patience(Some(patience.idle));
        let limit = app.rules.as_ref().and_then(|rules| rules.policy.max_body);
        let incoming = (!body.is_end_stream()).then(|| Arc::clone(&client.activity));
        if let Some(activity) = &incoming {
            activity.begin_body();
        }
        let upload = Upload::new(head, &parts, body, &client.activity).at_most(limit);
        let facts = Facts {
            app: app.id,
            host: parts.headers[HOST].clone(),
            method: parts.method,
            uri: parts.uri,
            request_id: stamp.request_id,
            forwarded_for: stamp.forwarded_for,
            arrived,
            started,
            protocol: match parts.version {
                _ if client.http2 => "http2.0",
                Version::HTTP_10 => "http1.0",
                _ => "http1.1",
            },
            tls: client.hop.tls,
        };
        let mut record = Record::new(Rc::clone(&worker.lines), Rc::clone(&worker.tally), facts);
        record.incoming = incoming;
        (Self { worker, client, record, upgrade, headers: parts.headers, patience, mounted, visit: None }, upload)
    }

    async fn run(mut self, host: &str, owner: Arc<App>, request: Upload) -> Response<Reply> {
        let answered = match self.admit(&owner, host).await {
            Ok(()) => self.dispatch(&owner, request).await.map_err(Refused::Failure),
            Err(refused) => Err(refused),
        };
        let (mut answer, in_flight) = match answered {
            Ok(found) => found,
            Err(refused) => return self.refuse(refused, &owner),
        };
        let status = answer.head.status;
        self.record.answered = Some(Instant::now());
        self.record.status = status.as_u16();
        ejection::judge(&owner, in_flight.instance(), status.is_server_error(), self.worker.shared.timeouts.ejection);
        if let Some(visit) = &self.visit {
            visit.finish(&mut answer.head.headers, Some(in_flight.instance()));
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(answer, in_flight);
        }
        let is_wanted = owner.rules.as_ref().is_some_and(|rules| rules.policy.compress);
        let coding = if is_wanted { compress::prepare(&self.headers, status, &mut answer.head.headers) } else { None };
        self.pass(answer, in_flight, coding)
    }

    /// Lets the request in by the rules of its app, if that has any.
    async fn admit(&mut self, app: &App, host: &str) -> Result<(), Refused> {
        let Some(rules) = &app.rules else { return Ok(()) };
        let asked = Asked {
            hop: &self.client.hop,
            is_linked: self.client.wanted.is_some(),
            host,
            app: (app.id, self.mounted),
            table: &self.worker.shared.table,
            method: &self.record.request.method,
            uri: &self.record.request.uri,
            headers: &self.headers,
            tls_port: self.worker.shared.tls_port,
        };
        self.visit = Some(Rc::new(rules.admit(&asked).await?));
        Ok(())
    }

    /// Answers in the app's place.
    fn refuse(mut self, refused: Refused, app: &App) -> Response<Reply> {
        let mut page = match refused {
            Refused::Page(page) => {
                self.record.status = page.status().as_u16();
                self.record.complete = true;
                *page
            }
            Refused::Failure(failure) => {
                if let Some(instance) = self.record.instance.as_deref().filter(|_| failure.is_of_instance()) {
                    self.judge(app, instance);
                }
                self.record.fail(failure);
                let request_id = self.record.request.request_id.to_str().unwrap_or_default();
                let wants = Wants::of(&self.headers);
                let page = error_page::failure(failure, app.name.as_str(), request_id, wants);
                match &app.rules {
                    None => page,
                    Some(rules) => error_page::own(failure, &rules.policy, wants, page),
                }
            }
        };
        self.record.bytes = page.body().len() as u64;
        if let Some(visit) = &self.visit {
            visit.finish(page.headers_mut(), None);
        }
        Reply::page(page)
    }

    /// Tries instances until one has answered.
    async fn dispatch(&mut self, app: &Arc<App>, mut request: Upload) -> Result<(Answer, InFlight), Failure> {
        let worker = Rc::clone(&self.worker);
        let (visit, began) = (self.visit.clone(), self.record.request.arrived);
        let from = (&*worker.shared.table, &worker.shared.timeouts);
        let mut search = Search::new(from, (Arc::clone(app), visit.as_deref()), began);
        worker.budgets.deposit(app.id, began);
        let mut broken: Option<Arc<Instance>> = None;
        loop {
            let found = search.next(&worker.dice).await;
            self.record.held = search.has_waited();
            let in_flight = found.inspect_err(|_| self.record.label = search.label())?;
            if let Some(broken) = broken.take() {
                self.record.retries = 1;
                self.judge(app, &broken);
            }
            self.record.instance = Some(Arc::clone(in_flight.instance()));
            match self.attempt(in_flight.instance(), request).await {
                Ok(answer) => return Ok((answer, in_flight)),
                Err(Missed(failure, Left::Unsent(unsent))) => {
                    request = unsent;
                    search.refused_by(in_flight.instance(), failure);
                }
                Err(Missed(failure, Left::Sent(again))) if self.may_retry(app) => {
                    request = again;
                    search.broken_by(in_flight.instance(), failure);
                    broken = Some(Arc::clone(in_flight.instance()));
                }
                Err(Missed(failure, Left::Nothing | Left::Sent(_))) => return Err(failure),
            }
        }
    }

    /// Whether it may be sent to another instance though one has had it.
    fn may_retry(&self, app: &App) -> bool {
        let withdraw = |share| self.worker.budgets.withdraw(app.id, share, Instant::now());
        self.record.retries == 0 && Rules::retries(app).is_some_and(withdraw)
    }

    /// Notes that `instance` failed.
    fn judge(&self, app: &App, instance: &Instance) {
        ejection::judge(app, instance, true, self.worker.shared.timeouts.ejection);
    }

    /// Sends the request to one instance: over a connection that rested, else over a new one.
    async fn attempt(&mut self, instance: &Instance, mut request: Upload) -> Result<Answer, Missed> {
        let worker = Rc::clone(&self.worker);
        // Of a request that nothing held up so far this is when it arrived.
        let now = if self.record.held || self.record.connected.is_some() {
            Instant::now()
        } else {
            self.record.request.arrived
        };
        while self.upgrade.is_none()
            && let Some((upstream, rested)) = worker.pool.take(instance, now)
        {
            // An instance may close a connection in the moment in which a request is sent on it. A request that may be
            // repeated (RFC 9110 section 9.2.2) then is; one that may not takes no such risk.
            if rested >= FRESH && !request.is_whole() {
                break;
            }
            match self.send(upstream, request, now).await {
                Err(Missed(_, Left::Unsent(unsent))) => request = unsent,
                Err(Missed(_, Left::Sent(again))) if rested >= FRESH => {
                    request = again;
                    break;
                }
                result => return result,
            }
        }
        let limit = worker.shared.timeouts.connect;
        let seats = &worker.shared.seats;
        // Whoever has a request is more than who may have one some time.
        let seat = seats.for_instance().or_else(|| if worker.pool.make_room() { seats.for_instance() } else { None });
        let connected = match seat {
            Some(seat) => {
                let connected = Upstream::connect(instance.endpoint.address, limit, &worker.scratch).await;
                connected.map(|upstream| upstream.holding(seat))
            }
            None => Err(Failure::Exhausted),
        };
        match connected {
            // It left the table meanwhile. Another one may have its address by now, and may be who answered.
            Ok(_) if instance.is_retired() => Err(Missed(Failure::ConnectRefused, Left::Unsent(request))),
            Ok(upstream) => self.send(upstream, request, Instant::now()).await,
            Err(failure) => {
                if failure == Failure::Exhausted {
                    worker.complain(instance);
                }
                Err(Missed(failure, Left::Unsent(request)))
            }
        }
    }

    async fn send(&mut self, mut upstream: Box<Upstream>, request: Upload, sent: Instant) -> Result<Answer, Missed> {
        self.record.connected = Some(sent);
        upstream.begin(request);
        let result = poll_fn(|context| {
            if let Poll::Ready(result) = upstream.poll_head(context) {
                return Poll::Ready(result);
            }
            let (end, failure) = self.patience(upstream.progress(), sent);
            upstream.poll_timer(context, end).map(|()| Err(failure))
        });
        match result.await {
            // It changes to a protocol that nobody asked for.
            Ok(head) if head.status == StatusCode::SWITCHING_PROTOCOLS && self.upgrade.is_none() => {
                Err(Missed(Failure::BadResponse, Left::Nothing))
            }
            Ok(head) => Ok(Answer { head, upstream }),
            Err(failure @ Failure::NoResponse) => {
                let unsent = upstream.take_back().map(Left::Unsent);
                let left = unsent.or_else(|| upstream.again().map(Left::Sent));
                Err(Missed(failure, left.unwrap_or(Left::Nothing)))
            }
            Err(failure) => Err(Missed(failure, Left::Nothing)),
        }
    }

    /// Until when to wait for an answer if nothing else happens, and whose fault it is then.
    fn patience(&self, progress: Progress, sent: Instant) -> (Instant, Failure) {
        let Patience { first_byte, idle } = self.patience;
        let (limit, failure) = match progress {
            Progress::Done => (first_byte, Failure::RequestTimeout),
            Progress::Waiting => (idle, Failure::ClientIdle),
            Progress::Passing => (idle, Failure::RequestTimeout),
        };
        // Bytes of the client passed last; a request that was held for a while counts from when it was sent.
        (self.client.activity.last().max(sent) + limit, failure)
    }

    /// Streams the answer to the client.
    fn pass(self, answer: Answer, in_flight: InFlight, coding: Option<Coding>) -> Response<Reply> {
        let Self { worker, client, record, patience, .. } = self;
        let Answer { head, upstream } = answer;
        let idle_limit = worker.shared.timeouts.upstream_idle;
        // A second less than the instance says, so that it is us who close first.
        let rest =
            head.keep_alive.map_or(idle_limit, |time| idle_limit.min(time.saturating_sub(Duration::from_secs(1))));
        let download = Download {
            upstream: Some(upstream),
            in_flight,
            record,
            worker,
            activity: Arc::clone(&client.activity),
            patience: patience.idle,
            rest,
            broken: None,
        };
        let download = Box::new(download);
        let reply = match coding.filter(|_| !download.is_over()) {
            None => Reply::App(download),
            Some(coding) => Reply::Packed(Box::new(Packed::new(download, coding))),
        };
        let mut response = Response::new(reply);
        (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
        response
    }

    /// Answers 101 and makes the two connections one tunnel.
    fn switch(self, answer: Answer, in_flight: InFlight) -> Response<Reply> {
        let Answer { head, upstream } = answer;
        if let Some(client) = self.upgrade {
            let worker = &self.worker;
            let watched = Watched {
                in_flight,
                record: self.record,
                activity: Arc::clone(&self.client.activity),
                idle: self.patience.idle,
                is_web_socket: head.upgrade.as_ref().is_some_and(headers::is_web_socket),
                stop: worker.stop.clone(),
            };
            let (server, seat) = upstream.into_stream();
            let seats = (seat, Rc::clone(&self.client.hop));
            let tunnel = async move {
                tunnel::watched(Ends { client, server }, watched).await;
                drop(seats);
            };
            tokio::task::spawn_local(worker.connections.track_future(tunnel));
        }
        switching(head.headers, head.upgrade)
    }
}

/// The 101 for the client, with the end-to-end headers of the one of the server.
pub(crate) fn switching(mut headers: HeaderMap, upgrade: Option<HeaderValue>) -> Response<Reply> {
    headers.extend(upgrade.map(|upgrade| (UPGRADE, upgrade)));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let mut response = Response::new(Reply::Page(http_body_util::Full::default()));
    (*response.status_mut(), *response.headers_mut()) = (StatusCode::SWITCHING_PROTOCOLS, headers);
    response
}

/// The head of a request as an instance gets it. What its app does not see of the path it is told in a header, after what a proxy says that is
/// trusted and took something off the path before.
pub(crate) fn request_head(
    (parts, mounted): (&Parts, Option<Mounted>),
    is_chunked: bool,
    hop: &Hop,
    started: i64,
    new_id: impl FnOnce() -> HeaderValue,
) -> (Stamp, Bytes) {
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let stripped = mounted.filter(|mounted| mounted.strip);
    let seen = stripped.map_or(Cow::Borrowed(path), |mounted| mounted.seen(path));
    let mut head = Vec::with_capacity(HEAD_SIZE);
    let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| head.extend_from_slice(part));
    line(&[parts.method.as_str().as_bytes(), b" ", seen.as_bytes(), b" HTTP/1.1\r\n"]);
    let mut before = Vec::new();
    let give = |name: &HeaderName, value: &[u8]| {
        if stripped.is_some() && *name == FORWARDED_PREFIX {
            before = value.to_vec();
        } else {
            line(&[name.as_str().as_bytes(), b": ", value, b"\r\n"]);
        }
    };
    let stamp = headers::forward_request(&parts.headers, hop, started, new_id, give);
    if let Some(mounted) = stripped {
        let before = before.strip_suffix(b"/").unwrap_or(&before);
        line(&[b"x-forwarded-prefix: ", before, mounted.prefix(path).as_bytes(), b"\r\n"]);
    }
    if is_chunked {
        line(&[b"transfer-encoding: chunked\r\n"]);
    }
    line(&[b"\r\n"]);
    (stamp, head.into())
}
