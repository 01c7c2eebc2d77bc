//! One request to an app: which instance gets it, and what becomes of the answer.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderMap};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Body;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::access_log::{Facts, Record};
use crate::cache::{Consulted, Fetch};
use crate::compress::{self, Coding, Packed};
use crate::error_page::{self, Wants};
use crate::failure::Failure;
use crate::h2c::{self, Place, Stream, Trunk};
use crate::headers;
use crate::inbound::Inbound;
use crate::place::Mounted;
use crate::policy::{Asked, Patience, Refused, Rules, Visit, ejection};
use crate::proxy::{Client, Worker, request_head, switching};
use crate::reply::{Download, Plain, Reply};
use crate::response::Head;
use crate::search::Search;
use crate::seats::Seat;
use crate::source::Source;
use crate::table::{App, InFlight, Instance};
use crate::tunnel::{self, ClientEnd, Ends, Watched};
use crate::upload::{self, Progress, Upload};
use crate::upstream::{self, Upstream};

/// A connection that rested less than this is not one that an instance is about to close.
const FRESH: Duration = Duration::from_secs(1);
/// How often an instance may say of one request that it did not look at it.
const SHARED_TURNS: usize = 5;

/// A request to an app.
pub(crate) struct Exchange {
    pub(crate) worker: Rc<Worker>,
    pub(crate) client: Rc<Client>,
    pub(crate) record: Record,
    pub(crate) upgrade: Option<ClientEnd>,
    /// Of the request, as the client sent them.
    pub(crate) headers: HeaderMap,
    pub(crate) patience: Patience,
    /// By which part of its path it came, if the app has only that of its host.
    pub(crate) mounted: Option<Mounted>,
    /// What to do with the answer, if the app has rules.
    pub(crate) visit: Option<Rc<Visit>>,
    /// The same, if answers of the app are kept.
    pub(crate) fetch: Option<Box<Fetch>>,
}

/// An instance's answer, and what the rest of it comes from.
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) source: Source,
}

/// Why an attempt brought no answer, and what is left of the request.
struct Missed(Failure, Left);

pub(crate) enum Left {
    /// It cannot be sent again.
    Nothing,
    /// Nothing of it was sent.
    Unsent(Upload),
    /// It was sent, and the instance says that it did not look at it.
    Unseen(Upload),
    /// It was sent, but may be sent twice, and not a byte of an answer came.
    Sent(Upload),
    /// The same, and the instance may have been about to close the connection, which it had others on before.
    Crossed(Upload),
}

impl Exchange {
    pub(crate) fn begin(
        worker: Rc<Worker>,
        client: Rc<Client>,
        (app, mounted): (&App, Option<Mounted>),
        mut request: Request<Inbound>,
    ) -> (Box<Self>, Upload) {
        let arrived = Instant::now();
        let upgrade = headers::upgrade_wanted(request.headers()).is_some().then(|| client.upgrade(&mut request));
        let started = worker.shared.clock.now().as_millis();
        let (mut parts, body) = request.into_parts();
        let span = worker.shared.spans.as_ref().and_then(|spans| {
            let roll = || worker.dice.borrow_mut().roll();
            spans.begin(&mut parts.headers, (&app.name, &client.hop), roll)
        });
        let (seen, new_id) = ((&parts, mounted), || worker.new_request_id());
        // What may change to another protocol needs a connection of its own.
        let (stamp, head, stream) = if upgrade.is_none() && Rules::speak_h2c(app) {
            let (stamp, request) = h2c::request(seen, &client.hop, started, new_id);
            (stamp, Bytes::new(), Some(request))
        } else {
            let is_chunked = upload::is_chunked(&parts.headers, &body);
            let (stamp, head) = request_head(seen, is_chunked, &client.hop, started, new_id);
            (stamp, head, None)
        };
        let patience = Patience::of(app.rules.as_ref(), &worker.shared.timeouts);
        client.activity.set_patience(Some(patience.idle));
        let limit = app.rules.as_ref().and_then(|rules| rules.policy.max_body);
        let incoming = (!body.is_end_stream()).then(|| Arc::clone(&client.activity));
        if let Some(activity) = &incoming {
            activity.begin_body();
        }
        let mut upload = Upload::new(head, &parts, body, &client.activity).at_most(limit);
        if let Some(request) = stream {
            upload = upload.in_frames(request);
        }
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
        (record.incoming, record.span) = (incoming, span);
        let headers = parts.headers;
        // It goes from hand to hand.
        let exchange = Self { worker, client, record, upgrade, headers, patience, mounted, visit: None, fetch: None };
        (Box::new(exchange), upload)
    }

    pub(crate) async fn run(mut self: Box<Self>, host: &str, owner: Arc<App>, request: Upload) -> Response<Reply> {
        if let Err(refused) = self.admit(&owner, host).await {
            return self.refuse(refused, &owner);
        }
        let mut request = request;
        if let Some(caching) = &owner.caching {
            match Box::pin(self.consult(&owner, caching, request)).await {
                Consulted::Ask(asked) => request = asked,
                Consulted::Serve(served) => return self.serve(served, &owner),
            }
        }
        let (mut answer, in_flight) = match self.dispatch(&owner, request).await {
            Ok(found) => found,
            Err(failure) => match self.instead(failure) {
                Some(served) => {
                    self.blame(&owner, failure);
                    return self.serve(served, &owner);
                }
                None => return self.refuse(Refused::Failure(failure), &owner),
            },
        };
        self.note(&owner, &answer, &in_flight);
        if let Some(served) = self.learn(&mut answer, &in_flight) {
            self.put_back(answer, &in_flight);
            return self.serve(served, &owner);
        }
        let status = answer.head.status;
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

    /// Takes note of how an instance answered.
    pub(crate) fn note(&mut self, app: &App, answer: &Answer, in_flight: &InFlight) {
        let status = answer.head.status;
        self.record.answered = Some(Instant::now());
        self.record.status = status.as_u16();
        ejection::judge(app, in_flight.instance(), status.is_server_error(), self.worker.shared.timeouts.ejection);
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
    fn refuse(mut self: Box<Self>, refused: Refused, app: &App) -> Response<Reply> {
        let mut page = match refused {
            Refused::Page(page) => {
                self.record.status = page.status().as_u16();
                self.record.complete = true;
                *page
            }
            Refused::Failure(failure) => {
                self.blame(app, failure);
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
    pub(crate) async fn dispatch(
        &mut self,
        app: &Arc<App>,
        mut request: Upload,
    ) -> Result<(Answer, InFlight), Failure> {
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
            self.begin_attempt(in_flight.instance(), &mut request);
            let tried = self.attempt(in_flight.instance(), request).await;
            if let (Some(span), Err(Missed(failure, _))) = (&mut self.record.span, &tried) {
                span.missed(*failure);
            }
            match tried {
                Ok(answer) => return Ok((answer, in_flight)),
                Err(Missed(failure, Left::Unsent(unsent))) => {
                    request = unsent;
                    search.refused_by(in_flight.instance(), failure);
                }
                Err(Missed(failure, Left::Unseen(unseen))) => {
                    request = unseen;
                    search.broken_by(in_flight.instance(), failure);
                }
                Err(Missed(_, Left::Crossed(again))) if self.may_retry(app) => {
                    // The same instance may have it, on a new connection.
                    request = again;
                    self.record.retries = 1;
                }
                Err(Missed(failure, Left::Sent(again))) if self.may_retry(app) => {
                    request = again;
                    search.broken_by(in_flight.instance(), failure);
                    broken = Some(Arc::clone(in_flight.instance()));
                }
                Err(Missed(failure, Left::Nothing | Left::Sent(_) | Left::Crossed(_))) => return Err(failure),
            }
        }
    }

    /// Has the instance go on with a span of its own, if there is one of the request.
    fn begin_attempt(&mut self, instance: &Arc<Instance>, request: &mut Upload) {
        let Some(span) = &mut self.record.span else { return };
        let roll = || self.worker.dice.borrow_mut().roll();
        if let Some((before, now)) = span.attempt(instance, roll) {
            request.rename(&before, &now);
        }
    }

    /// Whether it may be sent to another instance though one has had it.
    fn may_retry(&self, app: &App) -> bool {
        let withdraw = |share| self.worker.budgets.withdraw(app.id, share, Instant::now());
        self.record.retries == 0 && Rules::retries(app).is_some_and(withdraw)
    }

    /// Notes that a failure was that of the instance, if it was.
    pub(crate) fn blame(&self, app: &App, failure: Failure) {
        if let Some(instance) = self.record.instance.as_deref().filter(|_| failure.is_of_instance()) {
            self.judge(app, instance);
        }
    }

    /// Notes that `instance` failed.
    fn judge(&self, app: &App, instance: &Instance) {
        ejection::judge(app, instance, true, self.worker.shared.timeouts.ejection);
    }

    /// Sends the request to one instance: over a connection that rested, else over a new one.
    async fn attempt(&mut self, instance: &Arc<Instance>, mut request: Upload) -> Result<Answer, Missed> {
        if request.request().is_some() {
            // In its own place in memory, which other requests then need not have.
            return Box::pin(self.attempt_shared(instance, request)).await;
        }
        let worker = Rc::clone(&self.worker);
        // Of a request that nothing held up so far this is when it arrived.
        let now = if self.record.held || self.record.connected.is_some() {
            Instant::now()
        } else {
            self.record.request.arrived
        };
        while self.upgrade.is_none()
            && self.record.retries == 0
            && let Some((upstream, rested)) = worker.pool.take(instance, now)
        {
            // An instance may close a connection in the moment in which a request is sent on it. A request that may be
            // repeated (RFC 9110 section 9.2.2) then is; one that may not takes no such risk.
            if rested >= FRESH && !request.is_whole() {
                break;
            }
            match self.send_alone(upstream, request, now).await {
                Err(Missed(_, Left::Unsent(unsent))) => request = unsent,
                Err(Missed(_, Left::Sent(again))) if rested >= FRESH => {
                    request = again;
                    break;
                }
                Err(Missed(failure, Left::Sent(again))) => return Err(Missed(failure, Left::Crossed(again))),
                result => return result,
            }
        }
        match connect(&worker, instance).await {
            Ok((stream, seat)) => {
                let upstream = Upstream::new(stream, Some(seat), &worker.scratch);
                self.send_alone(upstream, request, Instant::now()).await
            }
            Err(failure) => Err(Missed(failure, Left::Unsent(request))),
        }
    }

    /// Sends the request to one instance as a stream of a connection that others share.
    async fn attempt_shared(&mut self, instance: &Arc<Instance>, mut request: Upload) -> Result<Answer, Missed> {
        for turn in 1.. {
            let (place, rested) = match self.place(instance).await {
                Ok(found) => found,
                Err(failure @ (Failure::RequestTimeout | Failure::BadResponse)) => {
                    return Err(Missed(failure, Left::Nothing));
                }
                Err(failure) => return Err(Missed(failure, Left::Unsent(request))),
            };
            let trunk = Rc::clone(place.trunk());
            let result = match Stream::begin(place, request) {
                Ok(stream) => self.send(Source::Http2(stream), Instant::now()).await,
                Err(unsent) => Err(Missed(Failure::NoResponse, Left::Unseen(*unsent))),
            };
            match result {
                // The instance is done with this connection, or it has enough there; perhaps not elsewhere.
                Err(Missed(_, Left::Unseen(again))) if turn < SHARED_TURNS => {
                    trunk.fill();
                    request = again;
                }
                Err(Missed(_, Left::Sent(again))) if turn == 1 && rested >= FRESH && !trunk.is_open() => {
                    request = again;
                }
                result => return result,
            }
        }
        Err(Missed(Failure::NoResponse, Left::Nothing))
    }

    /// A place on a connection to an instance that others share, and how long nobody had one.
    async fn place(&self, instance: &Arc<Instance>) -> Result<(Place, Duration), Failure> {
        let worker = &*self.worker;
        let rest = worker.shared.timeouts.upstream_idle;
        loop {
            let make = async |shelves: &_| Trunk::new(connect(worker, instance).await?, instance, rest, shelves).await;
            let trunk = worker.pool.share(instance, make).await?;
            trunk.settled(self.patience.first_byte).await?;
            // Those who waited for it, too, may be more than it takes.
            if let Some(found) = trunk.enter() {
                return Ok(found);
            }
        }
    }

    async fn send_alone(
        &mut self,
        mut upstream: Box<Upstream>,
        request: Upload,
        sent: Instant,
    ) -> Result<Answer, Missed> {
        upstream.begin(request);
        self.send(Source::Http1(upstream), sent).await
    }

    async fn send(&mut self, mut source: Source, sent: Instant) -> Result<Answer, Missed> {
        self.record.connected = Some(sent);
        let result = poll_fn(|context| {
            if let Poll::Ready(result) = source.poll_head(context) {
                return Poll::Ready(result);
            }
            let (end, failure) = self.patience(source.progress(), sent);
            source.poll_timer(context, end).map(|()| Err(failure))
        });
        match result.await {
            // It changes to a protocol that nobody asked for.
            Ok(head) if head.status == StatusCode::SWITCHING_PROTOCOLS && self.upgrade.is_none() => {
                Err(Missed(Failure::BadResponse, Left::Nothing))
            }
            Ok(head) => Ok(Answer { head, source }),
            Err(failure @ Failure::NoResponse) => Err(Missed(failure, source.left())),
            Err(failure) => {
                if failure == Failure::RequestTimeout {
                    source.shun();
                }
                Err(Missed(failure, Left::Nothing))
            }
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

    /// How long the connection of an answer may rest afterwards: a second less than the instance says, so that it is us who close first.
    fn rest(&self, head: &Head) -> Duration {
        let limit = self.worker.shared.timeouts.upstream_idle;
        head.keep_alive.map_or(limit, |time| limit.min(time.saturating_sub(Duration::from_secs(1))))
    }

    /// Gives the connection of an answer back that nobody is shown, if nothing more comes on it.
    pub(crate) fn put_back(&self, answer: Answer, in_flight: &InFlight) {
        let rest = self.rest(&answer.head);
        if let Source::Http1(upstream) = answer.source
            && upstream.is_over()
        {
            self.worker.pool.put(in_flight.instance(), upstream, rest, Instant::now());
        }
    }

    /// Streams the answer to the client.
    pub(crate) fn pass(
        self: Box<Self>,
        answer: Answer,
        in_flight: InFlight,
        coding: Option<Coding>,
    ) -> Response<Reply> {
        let rest = self.rest(&answer.head);
        let Self { worker, client, record, patience, fetch, .. } = *self;
        let Answer { head, source } = answer;
        let download = Download {
            source: Some(source),
            in_flight,
            record,
            worker,
            activity: Arc::clone(&client.activity),
            patience: patience.idle,
            rest,
            broken: None,
            collector: fetch.and_then(|fetch| fetch.collector),
        };
        let download = Box::new(download);
        let reply = match coding.filter(|_| !download.is_over()) {
            None => Reply::App(download),
            Some(coding) => Reply::Packed(Box::new(Packed::new(Plain::App(download), coding))),
        };
        let mut response = Response::new(reply);
        (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
        response
    }

    /// Answers 101 and makes the two connections one tunnel.
    fn switch(self: Box<Self>, answer: Answer, in_flight: InFlight) -> Response<Reply> {
        let Answer { head, source } = answer;
        if let (Some(client), Source::Http1(upstream)) = (self.upgrade, source) {
            let worker = &self.worker;
            let watched = Watched {
                in_flight,
                record: self.record,
                activity: Arc::clone(&self.client.activity),
                idle: self.patience.idle,
                is_web_socket: head.upgrade.as_ref().is_some_and(headers::is_web_socket),
                stop: worker.stop.clone(),
                scratch: worker.scratch.clone(),
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

/// A new connection to an instance, and its place among all.
async fn connect(worker: &Worker, instance: &Instance) -> Result<(TcpStream, Seat), Failure> {
    let (seats, limit) = (&worker.shared.seats, worker.shared.timeouts.connect);
    // Whoever has a request is more than who may have one some time.
    let seat = seats.for_instance().or_else(|| if worker.pool.make_room() { seats.for_instance() } else { None });
    let connected = match seat {
        Some(seat) => upstream::connect(instance.endpoint.address, limit).await.map(|stream| (stream, seat)),
        None => Err(Failure::Exhausted),
    };
    match connected {
        // It left the table meanwhile. Another one may have its address by now, and may be who answered.
        Ok(_) if instance.is_retired() => Err(Failure::ConnectRefused),
        Err(Failure::Exhausted) => {
            worker.complain(instance);
            Err(Failure::Exhausted)
        }
        connected => connected,
    }
}
