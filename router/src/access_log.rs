//! One line per request in the app's stream, as Heroku's router writes it. A request never waits for its line: workers
//! hand it to one writer thread, and what does not fit is counted and told later.

use std::fmt::{self, Write};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Method, Uri};
use model::{AppId, Clock, LogSink, LogSource, Timestamp};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::table::{Instance, Label};
use crate::traffic::Tally;

/// Lines that may wait for the writer; at 300 bytes each they take 20 MB.
const WAITING_LIMIT: usize = 65_536;
/// The writer collects for so long before it writes again, so that under load it is not woken for every line.
const COLLECT: Duration = Duration::from_millis(10);

/// The way of lines from the workers to the sink.
pub(crate) struct AccessLog {
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: Vec<Line>,
    dropped: u64,
    asleep: bool,
    closed: bool,
}

struct Line {
    app: AppId,
    time: Timestamp,
    text: String,
}

impl AccessLog {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, queue: Mutex::default(), wake: Condvar::new() }
    }

    fn push(&self, app: AppId, text: String) {
        let line = Line { app, time: self.clock.now(), text };
        let mut queue = self.lock();
        if queue.lines.len() < WAITING_LIMIT {
            queue.lines.push(line);
        } else {
            queue.dropped += 1;
        }
        // Waking a thread is a system call; one that is about to look again anyway needs none.
        let wake = std::mem::take(&mut queue.asleep);
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Writes lines to `sink` until [`AccessLog::close`], and then what is left.
    pub(crate) fn write_to(&self, sink: &dyn LogSink) {
        let source = LogSource::platform("router");
        loop {
            let mut queue = self.lock();
            while queue.lines.is_empty() && !queue.closed {
                queue.asleep = true;
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let (lines, dropped) = (std::mem::take(&mut queue.lines), std::mem::take(&mut queue.dropped));
            let closed = queue.closed;
            drop(queue);
            if dropped > 0 {
                tracing::warn!(lines.dropped = dropped, "router log lines came faster than they could be written");
            }
            for line in &lines {
                sink.write(line.app, line.time, &source, &line.text);
            }
            if closed {
                return;
            }
            std::thread::sleep(COLLECT);
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

/// What is known of a request so far. Its line is written, and it is counted, when it is dropped, that is, when the last byte has passed
/// or nobody can pass one any more.
pub(crate) struct Record {
    pub(crate) log: Arc<AccessLog>,
    pub(crate) tally: Rc<Tally>,
    pub(crate) request: Facts,
    pub(crate) instance: Option<Arc<Instance>>,
    /// What it is counted under while there is no instance. An instance has its own, for that one need not be shared by cores anew.
    pub(crate) label: Option<Arc<Label>>,
    /// It had to wait for an instance.
    pub(crate) held: bool,
    /// When the instance was connected; until then the request waited.
    pub(crate) connected: Option<Instant>,
    /// When the head of the answer came.
    pub(crate) answered: Option<Instant>,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) failure: Option<Failure>,
    /// The whole answer was passed on, or the failure says why not.
    pub(crate) complete: bool,
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
    /// What the client speaks, as on Heroku: `http1.1`, `http2.0`.
    pub(crate) protocol: &'static str,
    /// And inside of which TLS.
    pub(crate) tls: Option<&'static str>,
}

impl Record {
    pub(crate) fn new(log: Arc<AccessLog>, tally: Rc<Tally>, request: Facts) -> Self {
        Self {
            log,
            tally,
            request,
            instance: None,
            label: None,
            held: false,
            connected: None,
            answered: None,
            status: 0,
            bytes: 0,
            failure: None,
            complete: false,
        }
    }

    /// Notes why the request has no answer, or not all of it.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
        self.complete = true;
    }

    fn count(&self, failure: Option<Failure>, now: Instant) {
        let Some(label) = self.instance.as_ref().map(|instance| &instance.label).or(self.label.as_ref()) else {
            return;
        };
        let waited = self.answered.unwrap_or(now).saturating_duration_since(self.request.arrived);
        self.tally.count(label, |counts| {
            counts.requests += 1;
            counts.lost += u64::from(failure.is_some_and(Failure::is_loss));
            counts.errors += u64::from(self.status >= 500);
            counts.held += u64::from(self.held);
            counts.add_latency(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
        });
    }

    fn line(&self, failure: Option<Failure>, now: Instant) -> String {
        let (request, code) = (&self.request, failure.map(Failure::look));
        let mut line = String::with_capacity(320);
        let mut write = |part: fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = line.write_fmt(part);
        };
        match &code {
            None => write(format_args!("at=info")),
            Some(code) => write(format_args!("at={} code={} desc=\"{}\"", code.at, code.code, code.description)),
        }
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        write(format_args!(
            " method={} path=\"{}\" host={} request_id={} fwd=\"{}\"",
            request.method,
            Quoted(path.as_bytes()),
            Quoted(request.host.as_bytes()),
            Quoted(request.request_id.as_bytes()),
            Quoted(request.forwarded_for.as_bytes()),
        ));
        let dyno = self.instance.as_ref().map_or("", |instance| &instance.endpoint.dyno);
        let connected = self.connected.unwrap_or(now);
        write(format_args!(
            " dyno={dyno} connect={}ms service={}ms",
            connected.saturating_duration_since(request.arrived).as_millis(),
            now.saturating_duration_since(connected).as_millis(),
        ));
        let status = if self.status == 0 { code.as_ref().map_or(0, |code| code.status.as_u16()) } else { self.status };
        write(format_args!(" status={status} bytes={}", self.bytes));
        if let Some(socket) = code.and_then(|code| code.socket) {
            write(format_args!(" sock={socket}"));
        }
        match request.tls {
            None => write(format_args!(" protocol={} tls=false", request.protocol)),
            Some(version) => write(format_args!(" protocol={} tls=true tls_version={version}", request.protocol)),
        }
        line
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (now, failure) = (Instant::now(), self.failure);
        let failure = failure.or(if self.complete { None } else { Some(Failure::ClientInterrupted) });
        self.count(failure, now);
        self.log.push(self.request.app, self.line(failure, now));
    }
}

/// Bytes of a client inside a log line: they end neither a value nor the line.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if let (true, Ok(text)) = (self.0.iter().all(plain), std::str::from_utf8(self.0)) {
            return f.write_str(text);
        }
        for byte in self.0 {
            if plain(byte) { f.write_char(char::from(*byte))? } else { write!(f, "%{byte:02X}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl LogSink for Lines {
        fn write(&self, _: AppId, _: Timestamp, source: &LogSource, line: &str) {
            self.0.lock().expect("no panic").push(format!("{source}: {line}"));
        }
    }

    #[test]
    fn a_line_reads_as_herokus_and_nothing_in_it_can_forge_another() {
        let log = Arc::new(AccessLog::new(Arc::new(model::clock::SystemClock)));
        let facts = Facts {
            app: "00000000-0000-4000-8000-000000000001".parse().expect("an id"),
            method: Method::GET,
            uri: Uri::from_static("/a\"b?c=d"),
            host: HeaderValue::from_static("shop.localhost"),
            request_id: HeaderValue::from_static("8601b555-6a83-4c12-8269-97c8e32cdb22"),
            forwarded_for: HeaderValue::from_bytes(b"1.2.3.4\t\" at=x").expect("a value"),
            arrived: Instant::now(),
            protocol: "http1.1",
            tls: None,
        };
        let mut record = Record::new(Arc::clone(&log), Rc::default(), facts);
        record.fail(Failure::NoWeb);
        drop(record);
        log.close();
        let lines = Lines::default();
        log.write_to(&lines);
        let lines = lines.0.into_inner().expect("no panic");
        let (start, end) = lines[0].split_once(" dyno=").expect("a dyno");
        assert_eq!(
            start,
            "heroku[router]: at=error code=H14 desc=\"No web processes running\" method=GET path=\"/a%22b?c=d\" \
             host=shop.localhost request_id=8601b555-6a83-4c12-8269-97c8e32cdb22 fwd=\"1.2.3.4%09%22 at=x\""
        );
        assert!(end.ends_with(" status=503 bytes=0 protocol=http1.1 tls=false"), "{end}");
    }
}
