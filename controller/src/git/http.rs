//! Smart HTTP (git's http-protocol(5)). The token is the password.

use std::io;
use std::path::Path as FilePath;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use model::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::hook::Push;
use super::{hooks, repository, variable};
use crate::api::{Credentials, origin};
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
        Some("git-receive-pack") => "receive-pack",
        Some("git-upload-pack") => "upload-pack",
        _ => return refusal(StatusCode::FORBIDDEN, "Use a git that speaks smart HTTP (1.6.6 or later)."),
    };
    let need = if service == "receive-pack" { Role::Deploy } else { Role::View };
    let (_, app) = match authorise(&controller, &parts, (&name, need)).await {
        Ok(access) => access,
        Err(response) => return response,
    };
    let repository = repository(&controller.settings, app.id);
    let output = async {
        prepare(&repository).await?;
        let mut git = git(&controller, &parts.headers);
        let output = git.args([service, "--stateless-rpc", "--advertise-refs"]).arg(&repository).output().await?;
        if output.status.success() { Ok(output.stdout) } else { Err(io::Error::other(lossy(&output.stderr))) }
    };
    match output.await {
        Ok(advertised) => {
            let line = format!("# service=git-{service}\n");
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
    let (actor, app) = match authorise(&controller, &parts, (&name, Role::Deploy)).await {
        Ok(access) => access,
        Err(response) => return response,
    };
    let push = Push { app: app.id, by: actor.by(), began: controller.clock.now() };
    let mut command = git(&controller, &parts.headers);
    let limit = format!("receive.maxInputSize={}", controller.settings.push_limit);
    command
        // Packs stay packs: git names the limit only where it does not unpack.
        .args(["-c", &limit, "-c", "receive.unpackLimit=1", "-c"])
        .arg(format!("core.hooksPath={}", hooks(&controller.settings).display()))
        .args(["receive-pack", "--stateless-rpc"])
        .arg(repository(&controller.settings, app.id))
        .env(variable::PROGRAM, &controller.settings.program)
        .env(variable::SOCKET, &controller.settings.control_socket)
        .env(variable::PUSH, push.to_env());
    match start(&mut command) {
        Ok((child, stdin, stdout)) => {
            tokio::spawn(feed(body, stdin));
            let (sender, receiver) = mpsc::channel(16);
            tokio::spawn(drain(child, stdout, sender));
            answer("receive-pack", "result", Body::from_stream(ReceiverStream::new(receiver)))
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
    let (_, app) = match authorise(&controller, &parts, (&name, Role::View)).await {
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
    let mut command = git(&controller, &parts.headers);
    command.args(["upload-pack", "--stateless-rpc"]).arg(repository(&controller.settings, app.id));
    match start(&mut command) {
        Ok((child, stdin, stdout)) => {
            tokio::spawn(feed(Body::from(wants), stdin));
            let (sender, receiver) = mpsc::channel(16);
            tokio::spawn(drain(child, stdout, sender));
            answer("upload-pack", "result", Body::from_stream(ReceiverStream::new(receiver)))
        }
        Err(error) => broken(&app, &error),
    }
}

async fn authorise(
    controller: &Controller,
    parts: &axum::http::request::Parts,
    (name, need): (&str, Role),
) -> Result<(Actor, App), Response> {
    let Some(credentials) = Credentials::of(parts) else { return Err(challenge()) };
    let actor = controller.authenticate(credentials.token(), origin(parts)).await.map_err(|_| challenge())?;
    let Some(name) = name.strip_suffix(".git") else {
        return Err(refusal(StatusCode::NOT_FOUND, "Not found. An app's repository is <app>.git."));
    };
    let refuse = |error: Error| match error {
        Error::Forbidden(reason) => refusal(StatusCode::FORBIDDEN, &reason),
        error => refusal(StatusCode::NOT_FOUND, &format!("{error} Its name is part of the remote's URL.")),
    };
    let app = controller.find_app(&actor, name, need).await.map_err(refuse)?;
    Ok((actor, app))
}

fn challenge() -> Response {
    let text = "The password is an API token: `platform login` makes git use it.\n";
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"platform\"")], text).into_response()
}

fn refusal(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{text}\n")).into_response()
}

fn broken(app: &App, error: &io::Error) -> Response {
    tracing::error!(app.name = %app.name, error = %error, "git does not work");
    refusal(
        StatusCode::INTERNAL_SERVER_ERROR,
        "git does not work on the platform. Its operator finds the reason in the log.",
    )
}

fn answer(service: &str, kind: &str, body: Body) -> Response {
    let content_type = format!("application/x-git-{service}-{kind}");
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache".to_owned())], body).into_response()
}

/// A git that is not swayed by the settings of whoever runs the platform.
fn git(controller: &Controller, headers: &HeaderMap) -> Command {
    let mut command = Command::new("git");
    command.env("HOME", &controller.settings.home).env("GIT_CONFIG_NOSYSTEM", "1").stderr(Stdio::piped());
    if let Some(protocol) = headers.get("git-protocol").and_then(|value| value.to_str().ok()) {
        command.env("GIT_PROTOCOL", protocol);
    }
    command
}

/// Makes the repository if it is missing.
async fn prepare(repository: &FilePath) -> io::Result<()> {
    if repository.join("HEAD").exists() {
        return Ok(());
    }
    let output = Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(repository).output().await?;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(lossy(&output.stderr))) }
}

fn start(command: &mut Command) -> io::Result<(Child, ChildStdin, ChildStdout)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let missing = || io::Error::other("git has no pipes");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    Ok((child, stdin, stdout))
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

/// Reads all that git says; what the client is not there to hear is dropped.
async fn drain(mut child: Child, mut stdout: ChildStdout, sender: mpsc::Sender<io::Result<Bytes>>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
        let _ = sender.send(Ok(Bytes::copy_from_slice(&buffer[..count]))).await;
    }
    let _ = child.wait().await;
}

fn gunzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).take(FETCH_LIMIT as u64).read_to_end(&mut plain)?;
    Ok(plain)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
