//! Smart HTTP (git's http-protocol(5)). The token is the password.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::repository;
use super::service::{Service, check_room, deed, drain, git, lossy, prepare, serving, start};
use crate::api::{Credentials, origin};
use crate::errors::chain;
use crate::store::App;
use crate::{Actor, Controller, Error};

/// Most bytes of a request for a fetch, which only names commits.
const FETCH_LIMIT: usize = 10 << 20;

/// What git asks with.
#[derive(Debug, serde::Deserialize)]
struct Refs {
    service: Option<String>,
}

/// `/<app>.git/…`
pub fn routes(controller: Arc<Controller>) -> Router {
    Router::new()
        .route("/{repository}/info/refs", get(refs))
        .route("/{repository}/git-receive-pack", post(receive_pack))
        .route("/{repository}/git-upload-pack", post(upload_pack))
        .with_state(controller)
}

async fn refs(
    State(controller): State<Arc<Controller>>,
    Path(name): Path<String>,
    Query(query): Query<Refs>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let service = match query.service.as_deref() {
        Some("git-receive-pack") => Service::ReceivePack,
        Some("git-upload-pack") => Service::UploadPack,
        _ => return refusal(StatusCode::FORBIDDEN, "Use a git that speaks smart HTTP (1.6.6 or later)."),
    };
    let (_, app) = match authorise(&controller, &parts, (&name, service)).await {
        Ok(access) => access,
        Err(response) => return response,
    };
    let repository = repository(&controller.settings, app.id);
    let output = async {
        prepare(&repository).await?;
        let mut git = git(&controller);
        let git = speaking(&mut git, &parts.headers).args([service.name(), "--stateless-rpc", "--advertise-refs"]);
        let output = git.arg(&repository).output().await?;
        if output.status.success() { Ok(output.stdout) } else { Err(io::Error::other(lossy(&output.stderr))) }
    };
    match output.await {
        Ok(advertised) => {
            let line = format!("# service=git-{}\n", service.name());
            let mut body = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
            body.extend(advertised);
            answer(service, "advertisement", Body::from(body))
        }
        Err(error) => broken(&app, &error),
    }
}

/// A push. From here on it does not depend on the client: git runs on, and what it says is read, whether or not anybody listens.
async fn receive_pack(
    State(controller): State<Arc<Controller>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let (actor, app) = match authorise(&controller, &parts, (&name, Service::ReceivePack)).await {
        Ok(access) => access,
        Err(response) => return response,
    };
    let mut command = serving(&controller, Service::ReceivePack, (&app, &actor)).await;
    speaking(&mut command, &parts.headers).arg("--stateless-rpc").arg(repository(&controller.settings, app.id));
    match start(&mut command) {
        Ok((child, stdin, stdout)) => {
            tokio::spawn(feed(body, stdin));
            answer(Service::ReceivePack, "result", said(child, stdout))
        }
        Err(error) => broken(&app, &error),
    }
}

async fn upload_pack(
    State(controller): State<Arc<Controller>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let (actor, app) = match authorise(&controller, &parts, (&name, Service::UploadPack)).await {
        Ok(access) => access,
        Err(response) => return response,
    };
    let Ok(wants) = axum::body::to_bytes(body, FETCH_LIMIT).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "A fetch may name commits in at most 10 MiB.");
    };
    let is_gzip = parts.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    let Ok(wants) = (if is_gzip { gunzip(&wants) } else { Ok(wants.to_vec()) }) else {
        return refusal(StatusCode::BAD_REQUEST, "The request is not the gzip that it says it is.");
    };
    let mut command = serving(&controller, Service::UploadPack, (&app, &actor)).await;
    speaking(&mut command, &parts.headers).arg("--stateless-rpc").arg(repository(&controller.settings, app.id));
    match start(&mut command) {
        Ok((child, stdin, stdout)) => {
            tokio::spawn(feed(Body::from(wants), stdin));
            answer(Service::UploadPack, "result", said(child, stdout))
        }
        Err(error) => broken(&app, &error),
    }
}

async fn authorise(
    controller: &Controller,
    parts: &axum::http::request::Parts,
    (name, service): (&str, Service),
) -> Result<(Actor, App), Response> {
    let Some(credentials) = Credentials::of(parts) else { return Err(challenge()) };
    let actor = controller.authenticate(credentials.token(), origin(parts)).await.map_err(|error| match error {
        Error::Unauthorized(_) => challenge(),
        error => failed(&error),
    })?;
    let Some(name) = name.strip_suffix(".git") else {
        return Err(refusal(StatusCode::NOT_FOUND, "Not found. An app's repository is <app>.git."));
    };
    let refuse = |error: Error| match error {
        Error::Forbidden(reason) => refusal(StatusCode::FORBIDDEN, &reason),
        Error::NotFound(_) => refusal(StatusCode::NOT_FOUND, &format!("{error} Its name is part of the remote's URL.")),
        error => failed(&error),
    };
    actor.grant.check(deed(service)).map_err(refuse)?;
    let app = controller.find_app(&actor, name, service.need()).await.map_err(refuse)?;
    check_room(service, &controller.settings.home).map_err(refuse)?;
    Ok((actor, app))
}

fn challenge() -> Response {
    let text = "The password is an API token: `platform login` makes git use it.\n";
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"platform\"")], text).into_response()
}

fn refusal(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{text}\n")).into_response()
}

/// What cannot be done for now, in words for who pushes; other causes are for the log alone.
fn failed(error: &Error) -> Response {
    tracing::error!(error = chain(error), "A request of git failed");
    match error {
        Error::StoreAway(_) | Error::DiskFull(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        _ => {
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "The platform failed. Its operator finds the reason in the log.")
        }
    }
}

fn broken(app: &App, error: &io::Error) -> Response {
    tracing::error!(app.name = %app.name, error = %error, "git does not work");
    refusal(
        StatusCode::INTERNAL_SERVER_ERROR,
        "git does not work on the platform. Its operator finds the reason in the log.",
    )
}

fn answer(service: Service, kind: &str, body: Body) -> Response {
    let content_type = format!("application/x-git-{}-{kind}", service.name());
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache".to_owned())], body).into_response()
}

/// Tells git which version of its protocol the client speaks.
fn speaking<'a>(command: &'a mut Command, headers: &HeaderMap) -> &'a mut Command {
    if let Some(protocol) = headers.get("git-protocol").and_then(|value| value.to_str().ok()) {
        command.env("GIT_PROTOCOL", protocol);
    }
    command
}

/// Gives git the request's body. When the client is lost, git's input ends, and it refuses the half pack. What git does not
/// want to hear to its end is read all the same: a client takes no answer before it has said everything.
async fn feed(body: Body, stdin: ChildStdin) {
    let mut body = body.into_data_stream();
    let mut stdin = Some(stdin);
    while let Some(Ok(bytes)) = body.next().await {
        if let Some(git) = &mut stdin
            && git.write_all(&bytes).await.is_err()
        {
            stdin = None;
        }
    }
}

/// What git says, for the client.
fn said(mut child: Child, stdout: ChildStdout) -> Body {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        drain(stdout, sender).await;
        let _ = child.wait().await;
    });
    Body::from_stream(ReceiverStream::new(receiver))
}

fn gunzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).take(FETCH_LIMIT as u64).read_to_end(&mut plain)?;
    Ok(plain)
}
