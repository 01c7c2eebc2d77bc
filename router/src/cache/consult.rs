//! Looks for the answer to a request before anybody is asked for it.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{Method, Request, Response};
use hyper::body::Body;
use model::Timestamp;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::fetch::{Address, Purpose, Served};
use super::flight::{End, Flight, Joined};
use super::serve::{self, Stored};
use super::store::{Cache, Entry};
use super::{Caching, Fetch};
use crate::access_log::Cached;
use crate::compress::{self, Packed};
use crate::exchange::{Answer, Exchange};
use crate::failure::Failure;
use crate::h2c;
use crate::inbound::Inbound;
use crate::policy::Rules;
use crate::proxy::request_head;
use crate::reply::{Plain, Reply};
use crate::table::{App, InFlight, Mode};
use crate::upload::Upload;

/// By these a client asks for less than the whole, or for nothing if it has it.
const CONDITIONS: [HeaderName; 4] = [RANGE, IF_RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE];

/// What is to be done with a request.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it comes from")]
pub(crate) enum Consulted {
    Ask(Upload),
    Serve(Served),
}

/// What becomes of a look.
enum Look {
    Serve(Served),
    /// Ask, and for others as well if there is a flight.
    Ask(Option<Flight>),
    /// Somebody else asked meanwhile.
    Again,
}

impl Exchange {
    /// Looks for an answer that is kept. Somebody who asks for the same may have to be waited for.
    pub(crate) async fn consult(&mut self, app: &Arc<App>, caching: &Arc<Caching>, request: Upload) -> Consulted {
        let Some(purpose) = self.purpose() else { return Consulted::Ask(request) };
        let facts = &self.record.request;
        let address = Address::new(&self.client.hop, (&facts.host, &facts.uri), self.mounted, &self.headers);
        let mut fetch = Fetch::new(caching, address, purpose, self.now());
        fetch.is_personal = self.client.wanted.is_some() || self.headers.contains_key(AUTHORIZATION);
        let cache = if matches!(purpose, Purpose::Look | Purpose::Keep) { self.choose(app, caching) } else { None };
        let Some(cache) = cache else {
            if purpose != Purpose::Change {
                (fetch.purpose, self.record.cached) = (Purpose::Pass, Some(Cached::Pass));
            }
            self.fetch = Some(Box::new(fetch));
            return Consulted::Ask(request);
        };
        let (until, mut has_waited) = (Instant::now() + self.patience.first_byte, false);
        fetch.flight = loop {
            match self.look(app, (&mut fetch, &cache), (until, has_waited)).await {
                Look::Serve(served) => return Consulted::Serve(served),
                Look::Ask(flight) => break flight,
                Look::Again => has_waited = true,
            }
        };
        fetch.cache = Some(cache);
        (fetch.asked, self.record.cached) = (self.now(), Some(Cached::Miss));
        let request = if self.may_validate(&fetch) { self.request(app, &mut fetch) } else { request };
        self.fetch = Some(Box::new(fetch));
        Consulted::Ask(request)
    }

    fn now(&self) -> Timestamp {
        self.worker.shared.clock.now()
    }

    /// What a request is to the cache; none if nothing.
    fn purpose(&self) -> Option<Purpose> {
        let has = |name| self.headers.contains_key(name);
        match self.record.request.method {
            Method::OPTIONS | Method::TRACE | Method::CONNECT => None,
            Method::GET | Method::HEAD
                if self.upgrade.is_some()
                    || self.record.incoming.is_some()
                    || has(IF_MATCH)
                    || has(IF_UNMODIFIED_SINCE) =>
            {
                Some(Purpose::Pass)
            }
            Method::GET => Some(Purpose::Keep),
            Method::HEAD => Some(Purpose::Look),
            _ => Some(Purpose::Change),
        }
    }

    fn choose(&self, app: &App, caching: &Caching) -> Option<Arc<Cache>> {
        let Mode::Serve(shares) = &app.mode else { return None };
        caching.choose(shares, self.visit.as_deref(), &mut self.worker.dice.borrow_mut()).map(Arc::clone)
    }

    /// Whether the app can be asked if what is kept is still so.
    fn may_validate(&self, fetch: &Fetch) -> bool {
        self.record.request.method == Method::GET
            && !self.headers.contains_key(RANGE)
            && fetch.stale.as_ref().is_some_and(|entry| serve::can_validate(entry))
    }

    async fn look(
        &self,
        app: &Arc<App>,
        (fetch, cache): (&mut Fetch, &Arc<Cache>),
        (until, has_waited): (Instant, bool),
    ) -> Look {
        let now = self.now();
        let found = cache.find(fetch.primary(), &self.headers, now);
        fetch.key = found.key;
        let has_any = found.entry.is_some();
        let entry = found.entry.filter(|entry| !fetch.is_personal || entry.allowed.is_for_all);
        fetch.why = match &entry {
            Some(_) => "stale",
            None if has_any => "request",
            None if found.is_variant => "vary-miss",
            None => "miss",
        };
        if let Some(entry) = &entry {
            if entry.is_fresh(now) {
                let how = if has_waited { "fwd=miss; collapsed" } else { "hit" };
                return Look::Serve(Served::new(entry, how.to_owned(), Cached::Hit));
            }
            if entry.is_within(entry.allowed.while_revalidate, now) {
                if let Joined::First(flight) = cache.join(&fetch.key, true) {
                    self.refresh(app, fetch.to_refresh((cache, entry), flight, now));
                }
                let late = entry.age(now).saturating_sub(entry.allowed.lifetime);
                let how = format!("hit; ttl=-{}; detail=stale-while-revalidate", late.as_secs());
                return Look::Serve(Served::new(entry, how, Cached::Stale));
            }
        }
        fetch.stale = entry;
        fetch.moment = fetch.caching.store.moment();
        let may_join = !found.passes
            && !fetch.is_personal
            && fetch.caching.is_of_one()
            && self.record.request.method == Method::GET;
        if !may_join {
            return Look::Ask(None);
        }
        let is_plain = !CONDITIONS.iter().any(|name| self.headers.contains_key(name));
        match cache.join(&fetch.key, is_plain || self.may_validate(fetch)) {
            Joined::First(flight) => Look::Ask(Some(flight)),
            Joined::Alone => Look::Ask(None),
            Joined::Other(waiting) => match waiting.end(until).await {
                End::Kept | End::Left if Instant::now() < until => Look::Again,
                _ => Look::Ask(None),
            },
        }
    }

    /// The request as the app gets it that is asked whether what is kept is still so, or else for all of it.
    fn request(&self, app: &App, fetch: &mut Fetch) -> Upload {
        let (mut parts, ()) = Request::new(()).into_parts();
        let facts = &self.record.request;
        (parts.method, parts.uri, parts.headers) = (facts.method.clone(), facts.uri.clone(), self.headers.clone());
        fetch.validates = fetch.stale.as_ref().is_some_and(|entry| serve::validate(entry, &mut parts.headers));
        let (seen, id) = ((&parts, self.mounted), || facts.request_id.clone());
        let upload = |head| Upload::new(head, &parts, Inbound::Nothing, &self.client.activity);
        if Rules::speak_h2c(app) {
            let (_, request) = h2c::request(seen, &self.client.hop, facts.started, id);
            return upload(Bytes::new()).in_frames(request);
        }
        upload(request_head(seen, false, &self.client.hop, facts.started, id).1)
    }

    /// What is served in the place of a failure, if the app lets its answers be shown then.
    pub(crate) fn instead(&mut self, failure: Failure) -> Option<Served> {
        let fetch = self.fetch.as_mut()?;
        fetch.instead(failure.look().status.as_u16(), self.worker.shared.clock.now())
    }

    /// Takes note of an answer. What is given is served in its place.
    pub(crate) fn learn(&mut self, answer: &mut Answer, in_flight: &InFlight) -> Option<Served> {
        let fetch = self.fetch.as_mut()?;
        let now = self.worker.shared.clock.now();
        if answer.source.ends_by_closing() && fetch.purpose == Purpose::Keep {
            // Whether it was whole nobody can say.
            fetch.purpose = Purpose::Look;
        }
        let length = answer.source.size_hint().exact();
        fetch.learn(&mut answer.head, (&self.headers, &in_flight.instance().label.id), (length, now))
    }

    /// Answers with what is kept.
    pub(crate) fn serve(mut self: Box<Self>, served: Served, app: &App) -> Response<Reply> {
        let Served { entry, how, outcome } = served;
        let asked = (&self.record.request.method, &self.headers);
        let (status, mut headers, body) = serve::head(&entry, asked, self.now());
        serve::say(&mut headers, &how);
        let record = &mut self.record;
        (record.cached, record.status) = (Some(outcome), status.as_u16());
        record.answered.get_or_insert_with(Instant::now);
        record.connected.get_or_insert(record.request.arrived);
        if let Some(visit) = &self.visit {
            visit.finish(&mut headers, None);
        }
        let is_wanted = app.rules.as_ref().is_some_and(|rules| rules.policy.compress);
        let coding = if is_wanted { compress::prepare(&self.headers, status, &mut headers) } else { None };
        let stored = Box::new(Stored::new(body, self.record));
        let reply = match coding.filter(|_| !stored.is_over()) {
            None => Reply::Stored(stored),
            Some(coding) => Reply::Packed(Box::new(Packed::new(Plain::Stored(stored), coding))),
        };
        let mut response = Response::new(reply);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response
    }

    /// Asks anew for what is kept, while a client is served what there is.
    fn refresh(&self, app: &Arc<App>, fetch: Fetch) {
        let worker = Rc::clone(&self.worker);
        let mut headers = self.headers.clone();
        for name in &CONDITIONS {
            headers.remove(name);
        }
        let mut record = self.record.again(worker.new_request_id(), self.now());
        record.request.method = Method::GET;
        record.cached = Some(Cached::Refresh);
        let (connections, app) = (worker.connections.clone(), Arc::clone(app));
        let exchange = Box::new(Self {
            worker,
            client: Rc::new(self.client.alone()),
            record,
            upgrade: None,
            headers,
            patience: self.patience,
            mounted: self.mounted,
            visit: self.visit.clone(),
            fetch: None,
        });
        spawn_local(connections.track_future(exchange.fetch_anew(app, fetch)));
    }

    async fn fetch_anew(mut self: Box<Self>, app: Arc<App>, mut fetch: Fetch) {
        let request = self.request(&app, &mut fetch);
        self.fetch = Some(Box::new(fetch));
        let (mut answer, in_flight) = match self.dispatch(&app, request).await {
            Ok(found) => found,
            Err(failure) => {
                self.blame(&app, failure);
                self.record.fail(failure);
                return;
            }
        };
        self.note(&app, &answer, &in_flight);
        if self.learn(&mut answer, &in_flight).is_some() {
            self.record.complete = true;
            self.put_back(answer, &in_flight);
        } else if self.fetch.as_ref().is_none_or(|fetch| fetch.collector.is_none()) {
            self.record.complete = true;
        } else {
            let mut body = self.pass(answer, in_flight, None).into_body();
            while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {}
        }
    }
}

impl Served {
    fn new(entry: &Arc<Entry>, how: String, outcome: Cached) -> Self {
        Self { entry: Arc::clone(entry), how, outcome }
    }
}
