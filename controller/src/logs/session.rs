//! Log sessions: a URL with a secret that opens one app's stream to whoever has it, as the Heroku API hands it out.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::{AppId, Timestamp};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Filter, Reader, Tail};
use crate::Controller;

/// How long a URL opens the stream after it was made; a stream that is open then stays so.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Sessions at once; the oldest go first.
const MAX_SESSIONS: usize = 10_000;
/// Lines that a session begins with, if nobody says how many, and at most.
const LINES: u32 = 100;
const MAX_LINES: u32 = 1500;
/// How often a tail looks for news.
const POLL: Duration = Duration::from_millis(100);
/// How often a silent stream of events shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct LogSessionRequest {
    /// How many lines to begin with: 100 if not said, at most 1500.
    pub lines: Option<u32>,
    /// Whether to go on with what comes.
    pub tail: bool,
    /// Which lines.
    pub filter: Filter,
}

/// A session that was made.
#[derive(Debug, Clone)]
pub struct LogSession {
    /// Its id, which opens nothing.
    pub id: String,
    /// Opens it, without a token.
    pub url: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The sessions that can be opened. In memory only: after a restart, clients ask for another.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<BTreeMap<String, Session>>);

#[derive(Debug, Clone)]
struct Session {
    app: AppId,
    request: LogSessionRequest,
    created_at: Timestamp,
}

impl Controller {
    /// Makes a URL that shows the log of an app or an add-on.
    pub fn create_log_session(&self, app: AppId, request: LogSessionRequest) -> LogSession {
        let now = self.clock.now();
        let secret = self.new_secret();
        let url = format!("{}/logs/{secret}", self.settings.api_url());
        self.log_sessions.insert(secret, Session { app, request, created_at: now });
        LogSession { id: self.new_uuid(), url, created_at: now }
    }

    /// The streams of all apps.
    pub fn log_reader(&self) -> Reader {
        Reader::new(&self.settings.home.join("logs"))
    }
}

impl Sessions {
    fn insert(&self, secret: String, session: Session) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = session.created_at;
        sessions.retain(|_, session| now.since(session.created_at) < LIFETIME);
        if sessions.len() >= MAX_SESSIONS {
            let oldest =
                sessions.iter().min_by_key(|(_, session)| session.created_at).map(|(secret, _)| secret.clone());
            oldest.and_then(|secret| sessions.remove(&secret));
        }
        sessions.insert(secret, session);
    }

    fn get(&self, secret: &str, now: Timestamp) -> Option<Session> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(secret).filter(|session| now.since(session.created_at) < LIFETIME).cloned()
    }
}

/// `GET /logs/<secret>`, without a token.
pub fn routes(controller: Arc<Controller>) -> Router {
    Router::new().route("/logs/{secret}", get(open)).with_state(controller)
}

async fn open(State(controller): State<Arc<Controller>>, Path(secret): Path<String>, headers: HeaderMap) -> Response {
    let Some(session) = controller.log_sessions.get(&secret, controller.clock.now()) else {
        return (StatusCode::NOT_FOUND, "This log session does not exist or has expired.\n").into_response();
    };
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = if accept.contains("text/event-stream") { Format::Events } else { Format::Text };
    // A client that comes back goes on after the last line it has; the time of a line is its event's id.
    let after = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    match start(&controller, session, after).await {
        Ok(stream) => {
            let content_type = match format {
                Format::Events => "text/event-stream",
                Format::Text => "text/plain; charset=utf-8",
            };
            let (sender, body) = mpsc::channel(16);
            tokio::spawn(send(stream, format, sender));
            let body = Body::from_stream(ReceiverStream::new(body));
            ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")], body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a log cannot be read");
            (StatusCode::INTERNAL_SERVER_ERROR, "The log cannot be read.\n").into_response()
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Events,
    Text,
}

impl Format {
    fn write(self, lines: &[String]) -> Bytes {
        let mut text = String::new();
        for line in lines {
            match self {
                Self::Events => {
                    let time = line.split(' ').next().unwrap_or_default();
                    // A carriage return would end the field (HTML standard, "Parsing an event stream").
                    let line = line.replace('\r', "");
                    text.extend(["id: ", time, "\ndata: ", &line, "\n\n"]);
                }
                Self::Text => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        text.into()
    }
}

struct Stream {
    first: Vec<String>,
    tail: Option<Tail>,
}

async fn start(controller: &Controller, session: Session, after: Option<String>) -> io::Result<Stream> {
    let reader = controller.log_reader();
    let LogSessionRequest { lines, tail, filter } = session.request;
    let lines = if after.is_some() { MAX_LINES } else { lines.unwrap_or(LINES).min(MAX_LINES) };
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    let (mut first, news) = blocking(move || reader.last(session.app, lines, filter)).await?;
    if let Some(after) = after {
        first.retain(|line| line.split(' ').next().is_some_and(|time| *time > *after));
    }
    Ok(Stream { first, tail: tail.then_some(news) })
}

/// Until the client is gone, or all is said.
async fn send(stream: Stream, format: Format, client: mpsc::Sender<io::Result<Bytes>>) {
    let mut first = match format {
        // Or Heroku's client lingers for seconds after the end, to connect again.
        Format::Events => b"retry: 10\n\n".to_vec(),
        Format::Text => Vec::new(),
    };
    first.extend_from_slice(&format.write(&stream.first));
    if client.send(Ok(first.into())).await.is_err() {
        return;
    }
    let Some(mut tail) = stream.tail else { return };
    let mut silent = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = client.closed() => return,
            () = tokio::time::sleep(POLL) => {}
        }
        let polled = blocking(move || tail.poll().map(|lines| (lines, tail))).await;
        let lines;
        (lines, tail) = match polled {
            Ok(polled) => polled,
            Err(error) => {
                tracing::error!(%error, "a log cannot be read");
                return;
            }
        };
        let bytes = match format {
            _ if !lines.is_empty() => format.write(&lines),
            Format::Events if silent.elapsed() >= HEARTBEAT => Bytes::from_static(b": heartbeat\n\n"),
            _ => continue,
        };
        silent = tokio::time::Instant::now();
        if client.send(Ok(bytes)).await.is_err() {
            return;
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
