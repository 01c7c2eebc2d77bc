//! One line per request in the app's stream, as Heroku's router writes it. A request never waits for its line: workers
//! collect them, hand them to one writer thread, and what does not fit is counted and told later.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Method, Uri};
use model::traffic::Dropped;
use model::{AppId, LogSink, LogSource, Timestamp};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};

use crate::failure::{Failure, Look};
use crate::paths::Asked;
use crate::socket::Activity;
use crate::spans::{Outcome, Pending};
use crate::table::{Instance, Label};
use crate::traffic::{News, Tally, Whose};

/// Lines that may wait for the writer; at 300 bytes each they take 20 MB.
const WAITING_LIMIT: usize = 65_536;
/// A worker collects for so long before it hands over, so that under load no thread is woken for every line.
const COLLECT: Duration = Duration::from_millis(20);
/// Lines that it hands over at once.
const ENOUGH: usize = 4096;

/// The way of lines from the workers to the sink.
#[derive(Default)]
pub(crate) struct AccessLog {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    batches: Vec<Batch>,
    lines: usize,
    dropped: usize,
    closed: bool,
}

/// Lines one after another.
#[derive(Default)]
struct Batch {
    text: String,
    /// Whose each is, when it was written, and where it ends.
    lines: Vec<(AppId, Timestamp, usize)>,
}

impl Batch {
    fn iter(&self) -> impl Iterator<Item = (AppId, Timestamp, &str)> {
        let mut start = 0;
        self.lines
            .iter()
            .map(move |(app, time, end)| (*app, *time, &self.text[std::mem::replace(&mut start, *end)..*end]))
    }
}

impl AccessLog {
    fn push(&self, batch: Batch) {
        let mut queue = self.lock();
        if queue.lines < WAITING_LIMIT {
            queue.lines += batch.lines.len();
            queue.batches.push(batch);
        } else {
            queue.dropped += batch.lines.len();
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Writes lines to `sink` until [`AccessLog::close`], and then what is left; says how many did not fit.
    pub(crate) fn write_to(&self, sink: &dyn LogSink, news: &mpsc::UnboundedSender<News>) {
        let source = LogSource::platform("router");
        loop {
            let mut queue = self.lock();
            while queue.batches.is_empty() && !queue.closed {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let closed = queue.closed;
            let Queue { batches, dropped, .. } = std::mem::replace(&mut *queue, Queue { closed, ..Queue::default() });
            drop(queue);
            if dropped > 0 {
                tracing::warn!(lines.dropped = dropped, "router log lines came faster than they could be written");
                // Whoever counts may be gone before the last line.
                let _ = news.send(News::Dropped(Dropped { lines: dropped as u64, ..Dropped::default() }));
            }
            for batch in &batches {
                sink.write_all(&source, &mut batch.iter());
            }
            if closed {
                return;
            }
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lines of one worker, which it hands over now and then.
pub(crate) struct Lines {
    log: Arc<AccessLog>,
    batch: RefCell<Batch>,
    begun: Notify,
}

impl Lines {
    pub(crate) fn new(log: Arc<AccessLog>) -> Self {
        Self { log, batch: RefCell::default(), begun: Notify::new() }
    }

    pub(crate) fn write(&self, app: AppId, time: Timestamp, write: impl FnOnce(&mut String)) {
        let mut batch = self.batch.borrow_mut();
        let Batch { text, lines } = &mut *batch;
        if lines.is_empty() {
            self.begun.notify_one();
        }
        write(text);
        lines.push((app, time, text.len()));
        if lines.len() >= ENOUGH {
            self.log.push(std::mem::take(&mut *batch));
        }
    }

    /// Hands over what is written, for as long as it is polled.
    pub(crate) async fn deliver(&self) {
        loop {
            self.begun.notified().await;
            sleep(COLLECT).await;
            self.hand_over();
        }
    }

    fn hand_over(&self) {
        let batch = self.batch.take();
        if !batch.lines.is_empty() {
            // There will be as many soon.
            *self.batch.borrow_mut() =
                Batch { text: String::with_capacity(batch.text.len()), lines: Vec::with_capacity(batch.lines.len()) };
            self.log.push(batch);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// What is known of a request so far. Its line is written, and it is counted, when it is dropped, that is, when the last byte has passed
/// or nobody can pass one any more.
pub(crate) struct Record {
    pub(crate) lines: Rc<Lines>,
    pub(crate) tally: Rc<Tally>,
    pub(crate) request: Facts,
    pub(crate) instance: Option<Arc<Instance>>,
    /// What it is counted under while there is no instance. An instance has its own, for that one need not be shared by cores anew.
    pub(crate) label: Option<Arc<Label>>,
    /// It had to wait for an instance.
    pub(crate) held: bool,
    /// It was sent to so many instances before this one, none of which answered.
    pub(crate) retries: u8,
    /// When the instance was connected; until then the request waited.
    pub(crate) connected: Option<Instant>,
    /// When the head of the answer came.
    pub(crate) answered: Option<Instant>,
    /// When the last of it came.
    pub(crate) ended: Option<Instant>,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    /// Who knows how many bytes of its body came, if it has one.
    pub(crate) incoming: Option<Arc<Activity>>,
    /// Bytes that came by a tunnel.
    pub(crate) tunneled: u64,
    /// Its span, if its trace is sampled.
    pub(crate) span: Option<Box<Pending>>,
    pub(crate) failure: Option<Failure>,
    /// What came of looking for a kept answer, if the app keeps any.
    pub(crate) cached: Option<Cached>,
    /// The whole answer was passed on, or the failure says why not.
    pub(crate) complete: bool,
}

/// What came of looking for a kept answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cached {
    /// Served, and the app knows nothing of it.
    Hit,
    /// The same, though it was too old.
    Stale,
    /// Served, for the app said that it is still so.
    Revalidated,
    /// The app answered.
    Miss,
    /// The same, and nobody looked.
    Pass,
    /// No client asked: what is kept was fetched anew.
    Refresh,
}

impl Cached {
    fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Pass => "pass",
            Self::Refresh => "refresh",
        }
    }
}

/// What a request says of itself.
pub(crate) struct Facts {
    pub(crate) app: AppId,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) host: HeaderValue,
    pub(crate) request_id: HeaderValue,
    pub(crate) forwarded_for: HeaderValue,
    pub(crate) arrived: Instant,
    /// The same in milliseconds since the epoch.
    pub(crate) started: i64,
    /// What the client speaks, as on Heroku: `http1.1`, `http2.0`.
    pub(crate) protocol: &'static str,
    /// And inside of which TLS.
    pub(crate) tls: Option<&'static str>,
}

impl Record {
    pub(crate) fn new(lines: Rc<Lines>, tally: Rc<Tally>, request: Facts) -> Self {
        Self {
            lines,
            tally,
            request,
            instance: None,
            label: None,
            held: false,
            retries: 0,
            connected: None,
            answered: None,
            ended: None,
            status: 0,
            bytes: 0,
            incoming: None,
            tunneled: 0,
            span: None,
            failure: None,
            cached: None,
            complete: false,
        }
    }

    /// Of another request for the same, which is made now.
    pub(crate) fn again(&self, request_id: HeaderValue, now: Timestamp) -> Self {
        let Facts { app, protocol, tls, .. } = self.request;
        let Facts { method, uri, host, forwarded_for, .. } = &self.request;
        let facts = Facts {
            app,
            method: method.clone(),
            uri: uri.clone(),
            host: host.clone(),
            request_id,
            forwarded_for: forwarded_for.clone(),
            arrived: Instant::now(),
            started: now.as_millis(),
            protocol,
            tls,
        };
        Self::new(Rc::clone(&self.lines), Rc::clone(&self.tally), facts)
    }

    /// Notes why the request has no answer, or not all of it.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
        self.complete = true;
    }

    fn count(&self, failure: Option<Failure>, now: Instant) {
        let (instance, workload) = (self.instance.as_deref(), self.label.as_ref());
        let look = failure.map(Failure::look);
        let waited = self.answered.unwrap_or(now).saturating_duration_since(self.request.arrived);
        let received = self.received();
        self.tally.count(Whose { app: self.request.app, instance, workload }, |counts, detail| {
            counts.requests += 1;
            counts.lost += u64::from(failure.is_some_and(Failure::is_loss));
            counts.errors += u64::from(self.status >= 500);
            counts.held += u64::from(self.held);
            counts.add_latency(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
            detail.end(self.shown_status(look.as_ref()), look.map_or(0, Look::number), 1);
            detail.waited_us += u64::try_from(waited.as_micros()).unwrap_or(0);
            detail.received += received;
            detail.sent += self.bytes;
            match self.cached {
                Some(Cached::Hit | Cached::Stale) => {
                    detail.cache.hits += 1;
                    detail.cache.bytes += self.bytes;
                }
                Some(Cached::Miss | Cached::Revalidated | Cached::Pass) => detail.cache.misses += 1,
                Some(Cached::Refresh) | None => {}
            }
        });
        self.tally.paths.count(Asked {
            app: self.request.app,
            method: &self.request.method,
            path: self.request.uri.path(),
            waited,
            failed: self.status >= 500 || failure.is_some_and(Failure::is_loss),
        });
    }

    /// Bytes of its body, or that came by its tunnel.
    fn received(&self) -> u64 {
        self.tunneled + self.incoming.as_ref().map_or(0, |activity| activity.taken())
    }

    fn end_span(&self, span: Pending, failure: Option<Failure>, now: Instant) {
        let look = failure.map(Failure::look);
        span.end(&Outcome {
            request: &self.request,
            status: self.shown_status(look.as_ref()),
            failure: look,
            instance: self.instance.as_deref(),
            label: self.label.as_deref(),
            answered: self.answered.is_some().then_some(self.status),
            received: self.received(),
            sent: self.bytes,
            now,
        });
    }

    /// What the client was answered, or would have been if it had waited for that.
    fn shown_status(&self, look: Option<&Look>) -> u16 {
        if self.status == 0 { look.map_or(0, |look| look.status.as_u16()) } else { self.status }
    }

    fn write_line(&self, line: &mut String, failure: Option<Failure>, now: Instant) {
        let (request, code) = (&self.request, failure.map(Failure::look));
        let (mut number, mut status_text) = (itoa::Buffer::new(), itoa::Buffer::new());
        let mut say = |parts: &[&str]| parts.iter().for_each(|part| line.push_str(part));
        match &code {
            None => say(&["at=info"]),
            Some(code) => say(&["at=", code.at, " code=", code.code, " desc=\"", code.description, "\""]),
        }
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        say(&[" method=", request.method.as_str(), " path=\"", &quoted(path.as_bytes())]);
        say(&["\" host=", &quoted(request.host.as_bytes()), " request_id=", &quoted(request.request_id.as_bytes())]);
        say(&[" fwd=\"", &quoted(request.forwarded_for.as_bytes()), "\" dyno="]);
        let dyno = self.instance.as_ref().map_or("", |instance| &instance.endpoint.dyno);
        let connected = self.connected.unwrap_or(now);
        let waited = connected.saturating_duration_since(request.arrived).as_millis();
        say(&[dyno, " connect=", number.format(waited), "ms service="]);
        let served = now.saturating_duration_since(connected).as_millis();
        let status = status_text.format(self.shown_status(code.as_ref()));
        say(&[number.format(served), "ms status=", status, " bytes="]);
        say(&[number.format(self.bytes)]);
        if let Some(socket) = code.and_then(|code| code.socket) {
            say(&[" sock=", socket]);
        }
        say(&[" protocol=", request.protocol]);
        match request.tls {
            None => say(&[" tls=false"]),
            Some(version) => say(&[" tls=true tls_version=", version]),
        }
        if self.retries > 0 {
            say(&[" retries=", number.format(self.retries)]);
        }
        if let Some(cached) = self.cached {
            say(&[" cache=", cached.word()]);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (now, failure) = (self.ended.unwrap_or_else(Instant::now), self.failure);
        let failure = failure.or(if self.complete { None } else { Some(Failure::ClientInterrupted) });
        self.count(failure, now);
        if let Some(span) = self.span.take() {
            self.end_span(*span, failure, now);
        }
        let took = now.saturating_duration_since(self.request.arrived).as_millis();
        let time = self.request.started.saturating_add(i64::try_from(took).unwrap_or(i64::MAX));
        self.lines.write(self.request.app, Timestamp::from_millis(time), |line| self.write_line(line, failure, now));
    }
}

/// Bytes of a client as they are inside a log line: they end neither a value nor the line.
pub(crate) fn quoted(bytes: &[u8]) -> Cow<'_, str> {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    // All of them, though one tells: so the processor looks at many at once.
    let is_plain = bytes.iter().fold(true, |is_plain, byte| is_plain & plain(byte));
    if let (true, Ok(text)) = (is_plain, std::str::from_utf8(bytes)) {
        return Cow::Borrowed(text);
    }
    let mut text = String::new();
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = if plain(byte) { text.write_char(char::from(*byte)) } else { write!(text, "%{byte:02X}") };
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Sink(Mutex<Vec<String>>);

    impl LogSink for Sink {
        fn write(&self, _: AppId, _: Timestamp, source: &LogSource, line: &str) {
            self.0.lock().expect("no panic").push(format!("{source}: {line}"));
        }
    }

    #[test]
    fn a_line_reads_as_herokus_and_nothing_in_it_can_forge_another() {
        let log = Arc::new(AccessLog::default());
        let facts = Facts {
            app: "00000000-0000-4000-8000-000000000001".parse().expect("an id"),
            method: Method::GET,
            uri: Uri::from_static("/a\"b?c=d"),
            host: HeaderValue::from_static("shop.localhost"),
            request_id: HeaderValue::from_static("8601b555-6a83-4c12-8269-97c8e32cdb22"),
            forwarded_for: HeaderValue::from_bytes(b"1.2.3.4\t\" at=x").expect("a value"),
            arrived: Instant::now(),
            started: 1_000,
            protocol: "http1.1",
            tls: None,
        };
        let lines = Rc::new(Lines::new(Arc::clone(&log)));
        let mut record = Record::new(lines, Rc::default(), facts);
        record.fail(Failure::NoWeb);
        drop(record);
        log.close();
        let sink = Sink::default();
        log.write_to(&sink, &mpsc::unbounded_channel().0);
        let lines = sink.0.into_inner().expect("no panic");
        let (start, end) = lines[0].split_once(" dyno=").expect("a dyno");
        assert_eq!(
            start,
            "heroku[router]: at=error code=H14 desc=\"No web processes running\" method=GET path=\"/a%22b?c=d\" \
             host=shop.localhost request_id=8601b555-6a83-4c12-8269-97c8e32cdb22 fwd=\"1.2.3.4%09%22 at=x\""
        );
        assert!(end.ends_with(" status=503 bytes=0 protocol=http1.1 tls=false"), "{end}");
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_told() {
        let log = AccessLog::default();
        let app = "00000000-0000-4000-8000-000000000001".parse().expect("an id");
        for count in [WAITING_LIMIT, 2, 1] {
            log.push(Batch { text: String::new(), lines: vec![(app, Timestamp::from_millis(0), 0); count] });
        }
        log.close();
        let (sender, mut news) = mpsc::unbounded_channel();
        let sink = Sink::default();
        log.write_to(&sink, &sender);
        assert_eq!(sink.0.into_inner().expect("no panic").len(), WAITING_LIMIT);
        assert_eq!(news.try_recv(), Ok(News::Dropped(Dropped { lines: 3, ..Dropped::default() })));
    }
}
