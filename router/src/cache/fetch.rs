//! A request to an app that keeps answers: under which key its answer is, and what becomes of it.

use std::sync::Arc;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue,
    LOCATION, VIA,
};
use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use model::Timestamp;
use model::routes::WorkloadId;

use super::collect::{Begun, Collector, PASSES, Place};
use super::flight::{End, Flight};
use super::serve::opaque;
use super::store::{Cache, Entry};
use super::{Caching, rules, serve};
use crate::access_log::Cached;
use crate::headers::Hop;
use crate::place::Mounted;
use crate::response::Head;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// What a 304 says of these is about the body that it has not.
const NOT_OF_304: [HeaderName; 4] = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, VIA];

/// What a request asks for, as far as that makes another answer.
#[derive(Clone)]
pub(super) struct Address {
    key: Box<[u8]>,
    /// So much of the key stands before the path.
    stem: usize,
    host: HeaderValue,
}

impl Address {
    /// What an app is told of where a request came: the same path may be something else there.
    pub(super) fn new(
        hop: &Hop,
        (host, uri): (&HeaderValue, &Uri),
        mounted: Option<Mounted>,
        headers: &HeaderMap,
    ) -> Self {
        let mut key = Vec::with_capacity(128);
        let mut say = |part: &[u8]| {
            key.extend_from_slice(part);
            key.push(b'\n');
        };
        say(hop.scheme.as_bytes());
        say(hop.port.as_bytes());
        say(host.as_bytes());
        say(mounted.filter(|mounted| mounted.strip).map_or("", |mounted| mounted.prefix(uri.path())).as_bytes());
        if hop.is_behind() {
            // Of proxies that are trusted the app believes these.
            for name in [FORWARDED_HOST, FORWARDED_PREFIX] {
                say(name.as_str().as_bytes());
                headers.get_all(name).iter().for_each(|value| say(value.as_bytes()));
            }
        }
        say(b"");
        let stem = key.len();
        key.extend_from_slice(path(uri).as_bytes());
        Self { key: key.into(), stem, host: host.clone() }
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The key of something else on the same host that a header names.
    fn other(&self, value: &HeaderValue) -> Option<Box<[u8]>> {
        let uri: Uri = value.to_str().ok()?.parse().ok()?;
        let is_here =
            uri.authority().is_none_or(|it| it.as_str().as_bytes().eq_ignore_ascii_case(self.host.as_bytes()));
        let key = || [&self.key[..self.stem], path(&uri).as_bytes()].concat().into();
        (is_here && uri.path().starts_with('/')).then(key)
    }
}

fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// What a request does to what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Its method changes something.
    Change,
    /// It passes by.
    Pass,
    /// It looks, and its answer may not be kept.
    Look,
    /// The same, and it may.
    Keep,
}

/// A request on its way to an instance, whose answer concerns the cache.
pub(crate) struct Fetch {
    pub(super) caching: Arc<Caching>,
    pub(super) address: Address,
    pub(super) purpose: Purpose,
    /// When it was sent.
    pub(super) moment: u64,
    pub(super) asked: Timestamp,
    pub(super) is_personal: bool,
    /// Under which its answer was looked for.
    pub(super) key: Box<[u8]>,
    /// Where, if anywhere.
    pub(super) cache: Option<Arc<Cache>>,
    /// What is kept, and was too old.
    pub(super) stale: Option<Arc<Entry>>,
    /// Whether that is still so is what is asked.
    pub(super) validates: bool,
    /// Others wait for it.
    pub(super) flight: Option<Flight>,
    /// Why it went to the app, as `Cache-Status` has it.
    pub(super) why: &'static str,
    pub(crate) collector: Option<Box<Collector>>,
}

/// What is served in the place of an answer.
pub(crate) struct Served {
    pub(super) entry: Arc<Entry>,
    /// As `Cache-Status` has it.
    pub(super) how: String,
    pub(super) outcome: Cached,
}

impl Fetch {
    pub(super) fn new(caching: &Arc<Caching>, address: Address, purpose: Purpose, asked: Timestamp) -> Self {
        Self {
            caching: Arc::clone(caching),
            key: address.key.clone(),
            address,
            purpose,
            moment: caching.store.moment(),
            asked,
            is_personal: false,
            cache: None,
            stale: None,
            validates: false,
            flight: None,
            why: "bypass",
            collector: None,
        }
    }

    /// Asks for others what is too old, and may be shown until there is another one.
    pub(super) fn to_refresh(
        &self,
        (cache, stale): (&Arc<Cache>, &Arc<Entry>),
        flight: Flight,
        now: Timestamp,
    ) -> Self {
        Self {
            is_personal: self.is_personal,
            key: self.key.clone(),
            cache: Some(Arc::clone(cache)),
            stale: Some(Arc::clone(stale)),
            flight: Some(flight),
            why: "stale",
            ..Self::new(&self.caching, self.address.clone(), Purpose::Keep, now)
        }
    }

    pub(super) fn primary(&self) -> &[u8] {
        self.address.key()
    }

    /// What a client gets in the place of a failure, if what is kept may be shown then.
    pub(super) fn instead(&mut self, status: u16, now: Timestamp) -> Option<Served> {
        let entry = self.stale.as_ref().filter(|entry| entry.is_within(entry.allowed.if_error, now)).map(Arc::clone)?;
        if let Some(flight) = self.flight.take() {
            flight.end(End::Nothing);
        }
        let how = format!("fwd=stale; fwd-status={status}; detail=stale-if-error");
        Some(Served { entry, how, outcome: Cached::Stale })
    }

    /// Takes note of the head of an answer of this workload. What is given is served in its place.
    pub(super) fn learn(
        &mut self,
        head: &mut Head,
        (request, workload): (&HeaderMap, &WorkloadId),
        (length, now): (Option<u64>, Timestamp),
    ) -> Option<Served> {
        match self.purpose {
            Purpose::Change => {
                self.invalidate(head);
                return None;
            }
            Purpose::Pass => {
                serve::say(&mut head.headers, &format!("fwd={}", self.why));
                return None;
            }
            Purpose::Look | Purpose::Keep => {}
        }
        if self.validates && head.status == StatusCode::NOT_MODIFIED {
            return self.freshen(&head.headers, (request, workload), now);
        }
        if matches!(head.status.as_u16(), 500 | 502 | 503 | 504)
            && let Some(served) = self.instead(head.status.as_u16(), now)
        {
            return Some(served);
        }
        let mut what = format!("fwd={}", self.why);
        if self.why == "stale" {
            what.push_str("; fwd-status=");
            what.push_str(head.status.as_str());
        }
        self.collector = self.collect(head, (request, workload), (length, now)).map(Box::new);
        if self.collector.is_some() {
            what.push_str("; stored");
        } else if let Some(flight) = self.flight.take() {
            // An answer that fails says nothing of the next one.
            if let (Some(cache), false) = (&self.cache, head.status.is_server_error()) {
                cache.pass(&self.key, now.after(PASSES));
            }
            flight.end(End::Nothing);
        }
        serve::say(&mut head.headers, &what);
        None
    }

    /// RFC 9111 section 4.4.
    fn invalidate(&self, head: &mut Head) {
        if head.status.is_success() || head.status.is_redirection() {
            self.caching.forget(self.primary());
            for name in [LOCATION, CONTENT_LOCATION] {
                let others = head.headers.get_all(name).iter().filter_map(|value| self.address.other(value));
                others.for_each(|key| self.caching.forget(&key));
            }
        }
        serve::say(&mut head.headers, "fwd=method");
    }

    fn place(&self, (request, workload): (&HeaderMap, &WorkloadId), headers: &HeaderMap) -> Option<Place> {
        let cache = self.caching.of(workload)?;
        let names = rules::vary(headers)?;
        Some(Place::new(Arc::clone(cache), (self.primary(), &self.key), (request, names), self.moment))
    }

    fn collect(
        &mut self,
        head: &Head,
        (request, workload): (&HeaderMap, &WorkloadId),
        (length, now): (Option<u64>, Timestamp),
    ) -> Option<Collector> {
        let most = self.caching.wanted.most.min(self.caching.of(workload)?.most());
        if self.purpose != Purpose::Keep || length.is_some_and(|length| length > most) {
            return None;
        }
        let allowed = rules::allowed((request, self.is_personal), head.status, &head.headers, now)?;
        let begun = Begun::new(head.status, head.headers.clone(), allowed, (self.asked, now));
        let place = self.place((request, workload), &head.headers)?;
        let collector = Collector::new(place, begun, (length, most))?;
        Some(collector.for_others(self.flight.take()))
    }

    /// What is kept is still so (RFC 9111 section 4.3.4).
    fn freshen(
        &mut self,
        news: &HeaderMap,
        (request, workload): (&HeaderMap, &WorkloadId),
        now: Timestamp,
    ) -> Option<Served> {
        let old = self.stale.clone()?;
        let tag =
            |headers: &HeaderMap| headers.get(ETAG).and_then(|tag| tag.to_str().ok()).map(|it| opaque(it).to_owned());
        let is_same = tag(news).is_none_or(|new| tag(&old.headers) == Some(new));
        let mut headers = old.headers.clone();
        // What says no date says it now.
        headers.remove(DATE);
        for name in news.keys().filter(|name| !NOT_OF_304.contains(name)) {
            headers.remove(name);
            for value in news.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let allowed = rules::allowed((request, self.is_personal), old.status, &headers, now).filter(|_| is_same);
        let mut entry = Arc::clone(&old);
        match (allowed, self.place((request, workload), &headers)) {
            (Some(allowed), Some(place)) => {
                let begun = Begun::new(old.status, headers, allowed, (self.asked, now));
                entry = Arc::new(begun.with(Arc::clone(&old.body)));
                place.put(&entry);
            }
            // It is still so this time, and nobody may know that later.
            _ => self.caching.forget(self.primary()),
        }
        if let Some(flight) = self.flight.take() {
            flight.end(if allowed.is_some() { End::Kept } else { End::Nothing });
        }
        let how = "fwd=stale; fwd-status=304".to_owned();
        Some(Served { entry, how, outcome: Cached::Revalidated })
    }
}
