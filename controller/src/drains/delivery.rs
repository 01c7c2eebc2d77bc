//! One task for each drain: reads what is new in the app's log and sends it until the receiver has it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use model::{DrainId, LogSource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use url::Url;

use super::Protocol;
use super::buffer::{Buffer, Dropped};
use super::frame::{Format, frame, overflow};
use crate::Controller;
use crate::live::Locked;
use crate::logs::{Filter, Marks};
use crate::outbound::Connection;
use crate::store::Drain;

/// Drains may have been changed by another process.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often a log is looked at.
const POLL: Duration = Duration::from_millis(250);
/// Pauses between attempts: the first, and the longest.
const RETRY: Duration = Duration::from_millis(250);
const MAX_RETRY: Duration = Duration::from_secs(60);
/// A receiver that takes nothing for this long is tried again on another connection.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of lines in one request or one write.
const BATCH: usize = 256 << 10;

/// Delivers for as long as the process lives.
pub(crate) async fn work(controller: Arc<Controller>) {
    let mut tasks = JoinSet::new();
    let mut running = BTreeMap::new();
    loop {
        match controller.store.all_drains().await {
            Ok(drains) => {
                let wanted: BTreeMap<DrainId, Drain> = drains.into_iter().map(|drain| (drain.id, drain)).collect();
                running.retain(|id, task: &mut tokio::task::AbortHandle| {
                    let stays = wanted.contains_key(id) && !task.is_finished();
                    if !stays {
                        task.abort();
                    }
                    stays
                });
                for (id, drain) in wanted {
                    running.entry(id).or_insert_with(|| tasks.spawn(deliver(Arc::clone(&controller), drain)));
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "The log drains cannot be read; will try again"
                );
            }
        }
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            () = controller.drains.changed.notified() => {}
            () = sleep(INTERVAL) => {}
        }
    }
}

/// What both halves of a drain's task know.
struct Delivery {
    controller: Arc<Controller>,
    drain: Drain,
    url: Url,
    protocol: Protocol,
    buffer: Locked<Buffer>,
    /// How far the log was read when the buffer was filled last; none once it is on disk.
    marks: Locked<Option<Marks>>,
    filled: Notify,
}

/// A batch that the receiver does not have yet.
struct Batch {
    lines: Vec<String>,
    dropped: Option<Dropped>,
}

/// Why a batch was not taken.
enum Failure {
    /// Another attempt may help.
    Later(String),
    /// The receiver does not want it.
    Never(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Later(error.to_string())
    }
}

async fn deliver(controller: Arc<Controller>, drain: Drain) {
    let Ok(url) = Url::parse(&drain.url) else { return };
    let Some(protocol) = Protocol::of(&url) else { return };
    let delivery = Delivery {
        controller,
        drain,
        url,
        protocol,
        buffer: Locked::default(),
        marks: Locked::default(),
        filled: Notify::new(),
    };
    tokio::select! {
        Err(error) = delivery.collect() => {
            tracing::warn!(drain.token = delivery.drain.token, %error, "A log cannot be read for its drain; will try again");
        }
        () = delivery.send() => {}
    }
}

impl Delivery {
    /// Moves what is new into the buffer. Fails only if the log cannot be read.
    async fn collect(&self) -> io::Result<()> {
        let (reader, app, path) = (self.controller.log_reader(), self.drain.app, self.path());
        let mut tail =
            blocking(move || match std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                Some(marks) => Ok(reader.resume(app, marks)),
                None => reader.last(app, 0, Filter::default()).map(|(_, tail)| tail),
            })
            .await?;
        // Where it begins: a line that is written before the first batch is delivered is not lost with this process.
        self.save(tail.marks()).await;
        loop {
            let lines: Vec<String>;
            (lines, tail) = blocking(move || tail.poll().map(|lines| (lines, tail))).await?;
            if !lines.is_empty() {
                *self.marks.lock() = Some(tail.marks());
                self.buffer.lock().push(lines, self.controller.clock.now());
                self.filled.notify_one();
            }
            sleep(POLL).await;
        }
    }

    /// Sends what is in the buffer, for ever.
    async fn send(&self) {
        let mut connection = None;
        loop {
            if self.buffer.lock().is_empty() {
                self.filled.notified().await;
            }
            let (lines, dropped) = self.buffer.lock().take(BATCH);
            let batch = Batch { lines, dropped };
            if batch.lines.is_empty() && batch.dropped.is_none() {
                continue;
            }
            self.send_until_taken(&batch, &mut connection).await;
            let marks = if self.buffer.lock().is_empty() { self.marks.lock().take() } else { None };
            if let Some(marks) = marks {
                self.save(marks).await;
            }
        }
    }

    async fn send_until_taken(&self, batch: &Batch, connection: &mut Option<Box<dyn Connection>>) {
        let id = self.controller.new_uuid();
        let mut pause = RETRY;
        loop {
            let result = match self.protocol {
                Protocol::Syslog { tls } => self.write(batch, (connection, tls)).await,
                Protocol::Http => self.post(batch, &id).await,
            };
            match result {
                Ok(()) => return,
                Err(Failure::Never(reason)) => {
                    self.tell(&format!("{reason}; {} lines were dropped", batch.lines.len()));
                    let dropped = batch.dropped.map_or(0, |dropped| dropped.count) + batch.lines.len() as u64;
                    self.buffer.lock().drop_more(dropped, self.controller.clock.now());
                    sleep(MAX_RETRY).await;
                    return;
                }
                Err(Failure::Later(reason)) => {
                    if pause == RETRY {
                        self.tell(&format!("{reason}; it is tried again"));
                    }
                    *connection = None;
                    sleep(pause).await;
                    pause = (pause * 2).min(MAX_RETRY);
                }
            }
        }
    }

    async fn write(
        &self,
        batch: &Batch,
        (connection, tls): (&mut Option<Box<dyn Connection>>, bool),
    ) -> Result<(), Failure> {
        // Nothing ever comes back on such a connection but its end.
        if let Some(open) = connection
            && open.read(&mut [0]).now_or_never().is_some()
        {
            *connection = None;
        }
        let open = if let Some(open) = connection {
            open
        } else {
            let port = self.url.port().unwrap_or(if tls { 6514 } else { 514 });
            connection.insert(self.controller.outbound.connect(&self.url, port, tls).await?)
        };
        let (bytes, _) = self.frames(batch, Format::Syslog);
        let write = async {
            open.write_all(&bytes).await?;
            open.flush().await
        };
        Ok(timeout(WRITE_LIMIT, write).await.map_err(|_| Failure::Later("the receiver takes nothing".to_owned()))??)
    }

    async fn post(&self, batch: &Batch, id: &str) -> Result<(), Failure> {
        let (bytes, count) = self.frames(batch, Format::Logplex);
        let mut request = Request::post("/").body(Full::new(Bytes::from(bytes))).map_err(io::Error::other)?;
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/logplex-1"));
        headers.insert("logplex-msg-count", count.into());
        for (name, value) in [("logplex-frame-id", id), ("logplex-drain-token", &self.drain.token)] {
            headers.insert(name, HeaderValue::from_str(value).map_err(io::Error::other)?);
        }
        let answer = self.controller.outbound.send(&self.url, request).await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => {
                Err(Failure::Later(format!("the receiver answered {status}")))
            }
            status if status.is_server_error() => Err(Failure::Later(format!("the receiver answered {status}"))),
            status => Err(Failure::Never(format!("the receiver answered {status}"))),
        }
    }

    /// A batch on the wire, and how many messages that are.
    fn frames(&self, batch: &Batch, format: Format) -> (Vec<u8>, u32) {
        let token = &self.drain.token;
        let told = batch
            .dropped
            .map(|Dropped { count, since }| overflow((count, since), self.controller.clock.now(), token, format));
        let frames = told.into_iter().chain(batch.lines.iter().filter_map(|line| frame(line, token, format)));
        frames.fold((Vec::new(), 0), |(mut bytes, count), frame| {
            bytes.extend(frame);
            (bytes, count + 1)
        })
    }

    /// Tells the app's users, in its log.
    fn tell(&self, what: &str) {
        let line = format!("Drain {} does not take the log: {what}", self.drain.token);
        let now = self.controller.clock.now();
        self.controller.logs.write(self.drain.app, now, &LogSource::platform("logplex"), &line);
    }

    /// Notes how far the receiver has the log. What comes after that is sent again if this process is killed meanwhile.
    async fn save(&self, marks: Marks) {
        let path = self.path();
        let saved = blocking(move || {
            let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
            std::fs::create_dir_all(folder)?;
            let draft = path.with_extension("new");
            std::fs::write(&draft, serde_json::to_vec(&marks)?)?;
            std::fs::rename(&draft, &path)
        });
        if let Err(error) = saved.await {
            tracing::warn!(drain.token = self.drain.token, %error, "How far a drain is cannot be noted");
        }
    }

    fn path(&self) -> PathBuf {
        let Drain { app, id, .. } = &self.drain;
        self.controller.settings.home.join("drains").join(app.to_string()).join(format!("{id}.json"))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
