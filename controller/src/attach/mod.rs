//! People at the terminal of a one-off dyno. `/attach/<secret>` is theirs who were told the secret, once, for a minute: over a
//! WebSocket, as the `platform` program does it, or in Heroku's rendezvous protocol, which routers pass on from TLS connections.

mod rendezvous;
#[cfg(test)]
mod tests;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request, State, WebSocketUpgrade};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::{EngineError, Exec, OneOff, RunningOneOff};
use model::{AppId, Timestamp};

use crate::errors::chain;
use crate::store::Run;
use crate::{Controller, Error};

/// A terminal that nobody opened for this long is forgotten.
const LIMIT: Duration = Duration::from_secs(60);

/// What a client is told whose process ended unseen.
const LOST: &str = "Nobody saw how the process ended: the part of the platform that ran it was restarted, or lost it. \
                    Some of what it printed may be missing.";

/// A port that nobody used for this long is forgotten.
const PORT_LIMIT: Duration = Duration::from_secs(60 * 60);

/// What a client speaks once it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Frames: bytes as binary ones, sizes and the exit status as JSON in text ones.
    WebSocket,
    /// Heroku's: TLS, a secret, a greeting, and bytes.
    Rendezvous,
}

/// A process that starts when its client comes.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    what: What,
    /// As which run of its app it is noted.
    run: Option<Run>,
    until: Timestamp,
}

/// What a client is joined to.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A container of its own.
    OneOff(Box<OneOff>),
    /// A process in an instance that runs.
    Exec { instance: String, exec: Exec },
    /// A port of whichever dyno has this name, as often as somebody comes.
    Port { app: AppId, dyno: String, port: u16 },
}

impl Attachment {
    /// What its client is told if there is nothing to be joined to.
    fn refusal(&self, error: &EngineError) -> String {
        let reason = chain(error);
        match &self.what {
            What::OneOff(_) => format!("The dyno could not be started: {reason}"),
            What::Exec { .. } => format!("The command could not be started: {reason}"),
            What::Port { port, .. } => format!("Port {port} cannot be reached: {reason}"),
        }
    }

    fn has_tty(&self) -> bool {
        match &self.what {
            What::OneOff(oneoff) => oneoff.tty.is_some(),
            What::Exec { exec, .. } => exec.tty.is_some(),
            What::Port { .. } => false,
        }
    }
}

/// The client is gone.
struct Gone;

impl Controller {
    /// Keeps a process until its client comes to the address that this returns.
    pub(crate) fn open_attachment(&self, what: What, run: Option<Run>, protocol: Protocol) -> Result<String, Error> {
        let secret = self.new_secret();
        let url = match protocol {
            Protocol::WebSocket => format!("{}/attach/{secret}", self.settings.api_url().replacen("http", "ws", 1)),
            Protocol::Rendezvous => {
                let port = self.settings.tls_port.ok_or_else(no_tls)?;
                format!("rendezvous://{}:{port}/attach/{secret}", self.settings.domain)
            }
        };
        let now = self.clock.now();
        let limit = if matches!(what, What::Port { .. }) { PORT_LIMIT } else { LIMIT };
        let mut all = self.live.attachments.lock();
        all.retain(|_, attachment| attachment.until > now);
        all.insert(secret, Attachment { what, run, until: now.after(limit) });
        Ok(url)
    }

    /// What the secret was told for: a process once, a port again and again.
    fn take_attachment(&self, secret: &str) -> Option<Attachment> {
        let now = self.clock.now();
        let mut all = self.live.attachments.lock();
        let attachment = all.remove(secret).filter(|attachment| attachment.until > now)?;
        if let What::Port { .. } = attachment.what {
            all.insert(secret.to_owned(), Attachment { until: now.after(PORT_LIMIT), ..attachment.clone() });
        }
        Some(attachment)
    }

    /// Starts a process and lets `join` bring it and its client together, or tell the client why it did not start. A client that
    /// went away takes its one-off with it, as closing a terminal does.
    async fn attend<F>(self: Arc<Self>, attachment: Attachment, join: impl FnOnce(Result<RunningOneOff, String>) -> F)
    where
        F: Future<Output = Result<(), Gone>>,
    {
        let running = self.start(&attachment).await.map_err(|error| attachment.refusal(&error));
        if join(running).await.is_ok() {
            return;
        }
        // What runs in an instance has ended already: nobody listens to it any more.
        if let What::OneOff(oneoff) = &attachment.what
            && let Err(error) = self.engine.stop(&oneoff.id).await
        {
            tracing::warn!(oneoff.id = %oneoff.id, error = chain(&error), "A one-off could not be ended");
        }
    }

    async fn start(self: &Arc<Self>, attachment: &Attachment) -> Result<RunningOneOff, EngineError> {
        let Attachment { what, run, .. } = attachment;
        if let Some(run) = run {
            self.note_attached(run).await.map_err(|error| EngineError::Failed(chain(&error)))?;
        }
        let running = match what {
            What::OneOff(oneoff) => self.engine.run(oneoff.as_ref().clone()).await,
            What::Exec { instance, exec } => self.engine.exec(instance, exec.clone()).await,
            What::Port { app, dyno, port } => self.connect(*app, dyno, *port).await,
        };
        match run {
            Some(run) => Ok(self.note_end(run, self.note_start(run, running).await?)),
            None => running,
        }
    }
}

/// `/attach/<secret>`, for whoever has the secret.
pub fn routes(controller: Arc<Controller>) -> Router {
    Router::new().route("/attach/{secret}", get(attach)).with_state(controller)
}

async fn attach(
    State(controller): State<Arc<Controller>>,
    Path(secret): Path<String>,
    mut request: Request,
) -> Response {
    let is_rendezvous = request.headers().get(header::UPGRADE).is_some_and(|protocol| protocol == rendezvous::UPGRADE);
    if is_rendezvous {
        let Some(attachment) = controller.take_attachment(&secret) else { return expired() };
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(rendezvous::serve(controller, attachment, upgrade));
        let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, rendezvous::UPGRADE)];
        return (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    }
    let (mut parts, _) = request.into_parts();
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Err(rejection) => rejection.into_response(),
        Ok(upgrade) => match controller.take_attachment(&secret) {
            None => expired(),
            Some(attachment) => upgrade.on_upgrade(|socket| websocket::serve(controller, attachment, socket)),
        },
    }
}

fn expired() -> Response {
    (StatusCode::NOT_FOUND, "This address has expired; run the command again.\r\n").into_response()
}

fn no_tls() -> Error {
    Error::Invalid(
        "attach needs the platform's https entrance, which its operator has shut (`tls_listen`); \
         `platform run` does without"
            .to_owned(),
    )
}
