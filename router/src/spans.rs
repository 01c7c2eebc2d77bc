//! Trace spans: of each request one, and one of each instance that was asked, for the operator's OpenTelemetry collector (OTLP over HTTP, in Protobuf).
//!
//! A request that is sampled makes its spans when it is over and leaves them in a queue of bounded length; a thread of its own sends what is there. When the
//! collector is slow or away the queue fills, and what does not fit is counted and left out: no request waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use model::AppName;
use model::traffic::Dropped;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::access_log::Facts;
use crate::failure::{Failure, Look};
use crate::headers::{Hop, only};
use crate::otlp::{self, Exporter, KeyValue};
use crate::table::{Instance, Label};
use crate::traffic::News;
use crate::{Sampler, TracingSettings};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Spans that may wait to be sent; at 1.5 KB each they take 12 MB.
const WAITING: usize = 8192;
/// Spans that are sent at once.
const AT_ONCE: usize = 512;
/// A batch is collected for so long.
const COLLECT: Duration = Duration::from_secs(1);
/// How often it is told what was left out.
const TELLS: Duration = Duration::from_secs(1);
/// Between two words in the log on what was left out.
const COMPLAINS: Duration = Duration::from_secs(60);
/// For the last batches, when the router ends.
const GOODBYE: Duration = Duration::from_secs(3);
/// Bytes of a path, and of whatever else a client says, that a span has.
const LONGEST: usize = 1024;

/// What workers know of the collector.
pub(crate) struct Spans {
    queue: mpsc::Sender<otlp::Span>,
    /// What did not fit.
    dropped: Arc<AtomicU64>,
    sampler: Sampler,
}

/// Where a request is in its trace (W3C Trace Context).
struct Trace {
    id: [u8; 16],
    /// The router's own span.
    own: [u8; 8],
    /// That of the instance that is asked.
    asked: [u8; 8],
    is_sampled: bool,
}

/// What is known of the spans of a request that is not over.
pub(crate) struct Pending {
    trace: Trace,
    /// The span of whoever asked, and what they say besides.
    parent: Option<[u8; 8]>,
    state: String,
    spans: Arc<Spans>,
    app: AppName,
    client: HeaderValue,
    scheme: HeaderValue,
    agent: Option<HeaderValue>,
    attempts: Vec<Attempt>,
}

/// An instance that was asked.
struct Attempt {
    span: [u8; 8],
    instance: Arc<Instance>,
    began: Instant,
    /// It gave no answer.
    missed: Option<(Failure, Instant)>,
}

/// How a request ended.
pub(crate) struct Outcome<'a> {
    pub(crate) request: &'a Facts,
    /// What the client was answered.
    pub(crate) status: u16,
    pub(crate) failure: Option<Look>,
    pub(crate) instance: Option<&'a Instance>,
    pub(crate) label: Option<&'a Label>,
    /// What the instance answered.
    pub(crate) answered: Option<u16>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) now: Instant,
}

impl Spans {
    /// Spans that go to the collector of these settings, and what sends them there.
    pub(crate) fn new(settings: &TracingSettings, news: mpsc::UnboundedSender<News>) -> (Arc<Self>, Sending) {
        let (queue, waiting) = mpsc::channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let toll = Toll { dropped: Arc::clone(&dropped), news, untold: 0, told: None };
        let sending = Sending { waiting, toll, exporter: Exporter::new(settings) };
        (Arc::new(Self { queue, dropped, sampler: settings.sampler }), sending)
    }

    /// Begins the spans of a request: it goes on with the trace that its headers name, or begins one, and its headers say so from now on. None if the
    /// trace is not sampled.
    pub(crate) fn begin(
        self: &Arc<Self>,
        headers: &mut HeaderMap,
        (app, hop): (&AppName, &Hop),
        mut random: impl FnMut() -> u64,
    ) -> Option<Box<Pending>> {
        let known = only(headers, &TRACEPARENT).and_then(|value| parse(value.as_bytes()));
        if known.is_none() {
            // It belongs to the trace that nobody goes on with.
            headers.remove(&TRACESTATE);
        }
        let mut id = || (u128::from(random().max(1)) << 64 | u128::from(random())).to_be_bytes();
        let (id, parent) = known.map_or_else(|| (id(), None), |(id, parent, sampled)| (id, Some((parent, sampled))));
        let is_sampled = match parent {
            Some((_, sampled)) if self.sampler.parent_based => sampled,
            _ => number(id) < below(self.sampler.ratio),
        };
        let mut span = || random().max(1).to_be_bytes();
        let trace = Trace { id, own: span(), asked: span(), is_sampled };
        if let Ok(value) = HeaderValue::from_bytes(&trace.header()) {
            headers.insert(TRACEPARENT, value);
        }
        trace.is_sampled.then(|| {
            let state: Vec<&str> = headers.get_all(&TRACESTATE).iter().filter_map(|it| it.to_str().ok()).collect();
            Box::new(Pending {
                trace,
                parent: parent.map(|(parent, _)| parent),
                state: state.join(","),
                spans: Arc::clone(self),
                app: app.clone(),
                client: hop.address.clone(),
                scheme: hop.scheme.clone(),
                agent: headers.get(USER_AGENT).cloned(),
                attempts: Vec::with_capacity(1),
            })
        })
    }

    fn push(&self, span: otlp::Span) {
        if self.queue.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Of the 2^56 numbers that traces have, those below this one are sampled.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a part of 2^56"
)]
fn below(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * (1_u64 << 56) as f64) as u64
}

/// The part of a trace's id that is random (W3C Trace Context level 2), by which samplers agree.
fn number(id: [u8; 16]) -> u64 {
    id[9..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Trace {
    /// What the app is told, with the span of the instance as the parent of its own.
    fn header(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&mut text[3..35], &self.id);
        put_hex(&mut text[36..52], &self.asked);
        text[54] = b'0' + u8::from(self.is_sampled);
        text
    }
}

fn put_hex(to: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in to.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// The trace, the span and whether it is sampled, of a `traceparent` (W3C Trace Context section 3.2). Later versions may say more.
fn parse(header: &[u8]) -> Option<([u8; 16], [u8; 8], bool)> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let read = |from: usize, to: &mut [u8]| {
        for (index, byte) in to.iter_mut().enumerate() {
            let (high, low) = (header.get(from + 2 * index)?, header.get(from + 2 * index + 1)?);
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(())
    };
    let (mut version, mut id, mut span, mut flags) = ([0], [0; 16], [0; 8], [0]);
    read(0, &mut version)?;
    read(3, &mut id)?;
    read(36, &mut span)?;
    read(53, &mut flags)?;
    let has_dashes = [2, 35, 52].iter().all(|index| header[*index] == b'-');
    let ends_well = match (version[0], header.get(55)) {
        (0xff, _) => false,
        (_, None) => true,
        (version, Some(next)) => version > 0 && *next == b'-',
    };
    let is_good = has_dashes && ends_well && id != [0; 16] && span != [0; 8];
    is_good.then_some((id, span, flags[0] & 1 == 1))
}

impl Pending {
    /// An instance is asked. If another one was before, the answer is what its head said of the trace, and what this one's is to say.
    pub(crate) fn attempt(
        &mut self,
        instance: &Arc<Instance>,
        mut random: impl FnMut() -> u64,
    ) -> Option<([u8; 55], [u8; 55])> {
        let before = self.trace.header();
        let is_first = self.attempts.is_empty();
        if !is_first {
            self.trace.asked = random().max(1).to_be_bytes();
        }
        // Of a request that nothing held up this is when it arrived, or a moment later.
        let (instance, began) = (Arc::clone(instance), Instant::now());
        self.attempts.push(Attempt { span: self.trace.asked, instance, began, missed: None });
        (!is_first).then(|| (before, self.trace.header()))
    }

    /// The instance that was asked last gave no answer.
    pub(crate) fn missed(&mut self, failure: Failure) {
        if let Some(last) = self.attempts.last_mut() {
            last.missed = Some((failure, Instant::now()));
        }
    }

    /// The request is over.
    pub(crate) fn end(mut self, outcome: &Outcome<'_>) {
        let attempts = std::mem::take(&mut self.attempts);
        for (index, attempt) in attempts.iter().enumerate() {
            self.spans.push(self.attempt_span(index, attempt, outcome));
        }
        let is_failed = outcome.status >= 500 || outcome.failure.is_some_and(|look| look.at != "info");
        let mut span = self.span((self.trace.own, self.parent), (outcome.request.arrived, outcome.now), outcome);
        span.kind = otlp::SERVER;
        span.attributes = self.attributes(outcome);
        span.status = is_failed.then(|| status(outcome.failure));
        self.spans.push(span);
    }

    fn span(
        &self,
        (own, parent): ([u8; 8], Option<[u8; 8]>),
        (from, to): (Instant, Instant),
        outcome: &Outcome<'_>,
    ) -> otlp::Span {
        let Outcome { request, .. } = outcome;
        let arrived = u64::try_from(request.started).unwrap_or(0).saturating_mul(1_000_000);
        let at = |moment: Instant| {
            let since = moment.saturating_duration_since(request.arrived).as_nanos();
            arrived.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
        };
        otlp::Span {
            trace_id: self.trace.id.to_vec(),
            id: own.to_vec(),
            trace_state: self.state.clone(),
            parent_span_id: parent.map(|parent| parent.to_vec()).unwrap_or_default(),
            name: known(&request.method).unwrap_or("HTTP").to_owned(),
            start_time_unix_nano: at(from),
            end_time_unix_nano: at(to),
            // Sampled, and whether the parent is of another process is known (OTLP `SpanFlags`).
            flags: 0x101 | if parent == Some(self.trace.own) { 0 } else { 0x200 },
            ..otlp::Span::default()
        }
    }

    /// What the instance was asked, by the semantic conventions for HTTP clients.
    fn attempt_span(&self, index: usize, attempt: &Attempt, outcome: &Outcome<'_>) -> otlp::Span {
        let Attempt { span, instance, began, missed } = attempt;
        let address = instance.endpoint.address;
        let path = cut(outcome.request.uri.path().as_bytes());
        let mut attributes = method(&outcome.request.method);
        attributes.extend([
            otlp::text("url.full", format!("http://{address}{path}")),
            otlp::text("server.address", address.ip().to_string()),
            otlp::number("server.port", address.port().into()),
            otlp::text("platform.dyno", &*instance.endpoint.dyno),
        ]);
        if index > 0 {
            attributes.push(otlp::number("http.request.resend_count", index as u64));
        }
        let answered = if missed.is_none() { outcome.answered } else { None };
        attributes.extend(answered.map(|status| otlp::number("http.response.status_code", status.into())));
        let look = missed.map_or(outcome.failure, |(failure, _)| Some(failure.look()));
        let look = look.filter(|look| look.at != "info");
        // Of an answer, a client finds that 400 is a failure, too; that the app refuses something is none of the router's.
        let is_failed = look.is_some() || answered.is_some_and(|status| status >= 500);
        attributes.extend(error(look, answered.unwrap_or(0)));
        let end = missed.map_or(outcome.now, |(_, moment)| moment);
        let mut span = self.span((*span, Some(self.trace.own)), (*began, end), outcome);
        span.kind = otlp::CLIENT;
        span.attributes = attributes;
        span.status = is_failed.then(|| status(look));
        span
    }

    /// By the semantic conventions for HTTP servers, and what only the platform knows. Never what follows a `?`.
    fn attributes(&self, outcome: &Outcome<'_>) -> Vec<KeyValue> {
        let Outcome { request, .. } = outcome;
        let host = cut(request.host.as_bytes());
        let (server, port) = address(&host);
        let version = request.protocol.trim_start_matches("http");
        let mut all = method(&request.method);
        all.extend([
            otlp::text("url.path", cut(request.uri.path().as_bytes())),
            otlp::text("url.scheme", cut(self.scheme.as_bytes())),
            otlp::text("server.address", server),
            otlp::text("client.address", cut(self.client.as_bytes())),
            otlp::text("network.protocol.version", if version == "2.0" { "2" } else { version }),
            otlp::number("http.response.status_code", outcome.status.into()),
            otlp::number("http.request.body.size", outcome.received),
            otlp::number("http.response.body.size", outcome.sent),
            otlp::text("platform.app", self.app.as_str()),
            otlp::text("platform.app_id", request.app.to_string()),
            otlp::text("platform.request_id", cut(request.request_id.as_bytes())),
        ]);
        all.extend(self.agent.as_ref().map(|agent| otlp::text("user_agent.original", cut(agent.as_bytes()))));
        all.extend(port.and_then(|port| port.parse().ok()).map(|port| otlp::number("server.port", port)));
        all.extend(outcome.instance.map(|instance| otlp::text("platform.dyno", &*instance.endpoint.dyno)));
        let label = outcome.instance.map(|instance| &*instance.label).or(outcome.label);
        if let Some((release, process_type)) = label.and_then(|label| label.id.parts()) {
            all.extend([otlp::number("platform.release", release), otlp::text("platform.process_type", process_type)]);
        }
        all.extend(outcome.failure.map(|look| otlp::text("platform.error_code", look.code)));
        all.extend(error(outcome.failure.filter(|look| look.at != "info"), outcome.status));
        all
    }
}

/// What a client said, as far as it is text and not too long.
fn cut(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]).into_owned()
}

fn status(look: Option<Look>) -> otlp::Status {
    otlp::Status { message: look.map_or("", |look| look.description).to_owned(), code: otlp::ERROR }
}

fn error(look: Option<Look>, status: u16) -> Option<KeyValue> {
    let of_status = || (status >= 500).then(|| status.to_string());
    let kind = look.map(|look| look.code.to_owned()).or_else(of_status);
    kind.map(|kind| otlp::text("error.type", kind))
}

/// A host, and its port if it names one.
fn address(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn method(method: &Method) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(20);
    all.push(otlp::text("http.request.method", known(method).unwrap_or("_OTHER")));
    if known(method).is_none() {
        all.push(otlp::text("http.request.method_original", cut(method.as_str().as_bytes())));
    }
    all
}

/// A method that the conventions know.
fn known(method: &Method) -> Option<&str> {
    let all = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    all.contains(method).then(|| method.as_str())
}

/// What sends spans to the collector.
pub(crate) struct Sending {
    waiting: mpsc::Receiver<otlp::Span>,
    toll: Toll,
    exporter: Exporter,
}

/// What was left out, and who is told.
struct Toll {
    dropped: Arc<AtomicU64>,
    news: mpsc::UnboundedSender<News>,
    /// What the log does not say yet, and when it last said anything.
    untold: u64,
    told: Option<Instant>,
}

impl Toll {
    /// Tells what was left out since this was last called; `failure` is why, if it is known.
    fn tell(&mut self, failure: Option<&str>) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            // Whoever counts may be gone before the last span.
            let _ = self.news.send(News::Dropped(Dropped { spans: dropped, ..Dropped::default() }));
        }
        self.untold += dropped;
        if self.untold > 0 && self.told.is_none_or(|moment| moment.elapsed() >= COMPLAINS) {
            self.told = Some(Instant::now());
            let error = failure.unwrap_or("they come faster than it takes them");
            tracing::warn!(
                spans.dropped = self.untold,
                error,
                "trace spans did not reach the collector that OTEL_EXPORTER_OTLP_ENDPOINT names"
            );
            self.untold = 0;
        }
    }
}

impl Sending {
    /// Works until `end`, and then sends what is left if that is quick.
    pub(crate) async fn work(mut self, end: CancellationToken) {
        while !end.is_cancelled() {
            let mut batch = Vec::new();
            tokio::select! {
                count = self.waiting.recv_many(&mut batch, AT_ONCE) => if count == 0 { return },
                () = end.cancelled() => break,
            }
            if batch.len() < AT_ONCE {
                tokio::select! {
                    () = sleep(COLLECT) => {}
                    () = end.cancelled() => {}
                }
                self.fill(&mut batch);
            }
            self.send(batch, &end).await;
        }
        let mut batch = Vec::new();
        while self.waiting.try_recv().map(|span| batch.push(span)).is_ok() {}
        if !batch.is_empty() {
            self.send(batch, &end).await;
        }
    }

    async fn send(&mut self, batch: Vec<otlp::Span>, end: &CancellationToken) {
        let Self { toll, exporter, .. } = self;
        let count = batch.len() as u64;
        let mut ticks = interval(TELLS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let telling = async {
            loop {
                ticks.tick().await;
                toll.tell(None);
            }
        };
        let sent = tokio::select! {
            sent = exporter.send(batch) => sent.map_err(|error| error.to_string()),
            () = telling => Ok(()),
            () = async { end.cancelled().await; sleep(GOODBYE).await } => Err("the router ends".to_owned()),
        };
        if sent.is_err() {
            toll.dropped.fetch_add(count, Ordering::Relaxed);
        }
        toll.tell(sent.err().as_deref());
    }

    fn fill(&mut self, batch: &mut Vec<otlp::Span>) {
        while batch.len() < AT_ONCE
            && let Ok(span) = self.waiting.try_recv()
        {
            batch.push(span);
        }
    }
}
