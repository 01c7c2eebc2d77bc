//! What the owner of an app says of its requests ([`model::RoutePolicy`]), at work: who is let in, to which instance, within which
//! limits, and what an answer gets on its way out. An app about which nobody says anything has no [`Rules`], and pays nothing.

mod auth;
pub(crate) mod budget;
mod cors;
pub(crate) mod ejection;
mod gate;
mod lock;
mod rate;
mod redirect;
pub(crate) mod sticky;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, RETRY_AFTER, STRICT_TRANSPORT_SECURITY};
use http::{Method, Response, StatusCode, Uri};
use model::{AppId, AppProtocol, Match, RoutePolicy};

use crate::Timeouts;
use crate::error_page::{self, Wants};
use crate::failure::Failure;
use crate::headers::Hop;
use crate::place::Mounted;
use crate::table::{App, Instance, Table};

pub(crate) use gate::Gate;

/// A policy and what it has to remember.
pub(crate) struct Rules {
    pub(crate) policy: RoutePolicy,
    /// Whose turn it is.
    turn: AtomicUsize,
    gate: Option<Arc<Gate>>,
    rates: Option<rate::Rates>,
    guard: Option<auth::Guard>,
    hsts: Option<HeaderValue>,
}

/// A request, as far as it matters who asks for what.
pub(crate) struct Asked<'a> {
    pub(crate) hop: &'a Hop,
    /// It comes from another app, which its owner linked to this one: nobody has to be kept out.
    pub(crate) is_linked: bool,
    pub(crate) host: &'a str,
    /// Whose it is, and by which part of its path.
    pub(crate) app: (AppId, Option<Mounted>),
    pub(crate) table: &'a Table,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    /// Where TLS is taken, if it is.
    pub(crate) tls_port: Option<u16>,
}

impl<'a> Asked<'a> {
    /// The path of its host that the app has, if not all.
    pub(crate) fn prefix(&self) -> Option<&'a str> {
        self.app.1.map(|mounted| mounted.prefix(self.uri.path()))
    }
}

/// What is remembered of a request that was let in until its answer is there.
#[derive(Default)]
pub(crate) struct Visit {
    /// It goes to the newer of two releases.
    pub(crate) wants_newest: bool,
    /// Where the client was before, as its cookie says.
    pub(crate) came_back: Option<String>,
    /// Its answer says where it was, to whoever asks for something below this path.
    sticky: Option<Box<str>>,
    is_secure: bool,
    cors: Option<HeaderValue>,
    hsts: Option<HeaderValue>,
}

/// Why a request is not let in.
pub(crate) enum Refused {
    /// With an answer of ours.
    Page(Box<Response<Bytes>>),
    /// As a failure.
    Failure(Failure),
}

impl Refused {
    fn page(page: Response<Bytes>) -> Self {
        Self::Page(Box::new(page))
    }
}

/// When to lose patience with one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) first_byte: Duration,
    pub(crate) idle: Duration,
}

impl Patience {
    /// As the app says, else as the router does.
    pub(crate) fn of(rules: Option<&Arc<Rules>>, timeouts: &Timeouts) -> Self {
        match rules {
            None => Self { first_byte: timeouts.response, idle: timeouts.idle },
            Some(rules) => Self { first_byte: rules.policy.first_byte_timeout, idle: rules.policy.idle_timeout },
        }
    }
}

impl Rules {
    pub(crate) fn new(policy: RoutePolicy) -> Self {
        let gate = policy.max_concurrency.map(|_| Arc::new(Gate::new(policy.queue, policy.queue_timeout)));
        let rates = policy.rate_limit.map(rate::Rates::new);
        let guard = (!policy.basic_auth.is_empty()).then(|| auth::Guard::new(policy.basic_auth.clone()));
        let hsts = policy.hsts.map(|time| format!("max-age={}", time.as_secs()));
        // Digits: the other arm cannot happen.
        let hsts = hsts.and_then(|text| HeaderValue::try_from(text).ok());
        Self { policy, turn: AtomicUsize::new(0), gate, rates, guard, hsts }
    }

    /// Per cent of an app's requests that may be sent twice, if any.
    pub(crate) fn retries(app: &App) -> Option<u8> {
        app.rules.as_ref().map_or(Some(budget::USUAL), |rules| rules.policy.retries)
    }

    /// Whether an app's instances speak HTTP/2.
    pub(crate) fn speak_h2c(app: &App) -> bool {
        app.rules.as_ref().is_some_and(|rules| rules.policy.app_protocol == AppProtocol::H2c)
    }

    /// The next one in turn.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Where requests wait while every instance has as many as it may.
    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.gate.as_ref()
    }

    /// Lets a request in, or says why not.
    pub(crate) async fn admit(&self, asked: &Asked<'_>) -> Result<Visit, Refused> {
        let wants = Wants::of(asked.headers);
        if !asked.is_linked {
            self.keep_out(asked, wants).await?;
        }
        let too_large = |limit: u64| length(asked.headers) > limit;
        if self.policy.max_body.is_some_and(too_large) {
            return Err(Refused::Failure(Failure::BodyTooLarge));
        }
        let is_secure = asked.hop.scheme == "https";
        Ok(Visit {
            wants_newest: self.policy.canary_match.as_ref().is_some_and(|wanted| matches(wanted, asked.headers)),
            came_back: self.policy.affinity.then(|| sticky::read(asked.headers)).flatten(),
            sticky: self.policy.affinity.then(|| asked.prefix().unwrap_or("/").into()),
            is_secure,
            cors: cors::allowed(&self.policy.cors, asked.headers),
            hsts: self.hsts.clone().filter(|_| is_secure),
        })
    }

    /// Lets a connection in that is no request, or says why not.
    pub(crate) fn admit_connection(&self, client: IpAddr) -> Result<(), &'static str> {
        if !self.policy.admits(client) {
            return Err("Address not allowed");
        }
        match &self.rates {
            Some(rates) if rates.take(client).is_err() => Err("Too many connections from this address"),
            _ => Ok(()),
        }
    }

    async fn keep_out(&self, asked: &Asked<'_>, wants: Wants) -> Result<(), Refused> {
        let refuse = |status, reason| Err(Refused::page(error_page::refused(status, reason, wants)));
        // The router's own word for an address; the other arm cannot happen.
        let client: Option<IpAddr> = asked.hop.address.to_str().ok().and_then(|text| text.parse().ok());
        if !client.is_some_and(|client| self.policy.admits(client)) {
            return refuse(StatusCode::FORBIDDEN, "This address may not use this application.");
        }
        if let Some(location) = redirect::target(&self.policy, asked) {
            return Err(Refused::page(redirect::page(&location, asked.method)));
        }
        if let (Some(rates), Some(client)) = (&self.rates, client)
            && let Err(seconds) = rates.take(client)
        {
            let reason = "This address asked too often. Please try again in a moment.";
            let mut page = error_page::refused(StatusCode::TOO_MANY_REQUESTS, reason, wants);
            page.headers_mut().insert(RETRY_AFTER, seconds.into());
            return Err(Refused::page(page));
        }
        // A browser asks without saying who it is.
        if let Some(page) = cors::preflight(&self.policy.cors, asked) {
            return Err(Refused::page(page));
        }
        match &self.guard {
            Some(guard) => guard.check(asked.headers, wants).await.map_err(Refused::page),
            None => Ok(()),
        }
    }
}

impl Visit {
    /// Adds to an answer what its client is to have of us.
    pub(crate) fn finish(&self, headers: &mut HeaderMap, instance: Option<&Instance>) {
        if let Some(hsts) = &self.hsts {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        if let Some(origin) = &self.cors {
            cors::allow(headers, origin);
        }
        if let (Some(instance), Some(path)) = (instance, &self.sticky)
            && self.came_back.as_deref() != Some(instance.token())
        {
            sticky::write(headers, (instance.token(), path), self.is_secure);
        }
    }
}

/// How long a request says its body is. A body that says nothing is counted as it passes.
fn length(headers: &HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

fn matches(wanted: &Match, headers: &HeaderMap) -> bool {
    match wanted {
        Match::Header(name, value) => headers.get_all(name.as_str()).iter().any(|found| found == value.as_str()),
        Match::Cookie(name, value) => sticky::cookie(headers, name) == Some(value),
    }
}
