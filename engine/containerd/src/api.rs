//! The role's socket, which [`crate::HostClient`] speaks to. Only root may open it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use engine::{
    Capacity, Ended, EngineError, Exec, Link, OneOff, OneOffId, RunningOneOff, Stat, VolumeStatus, Workload,
    WorkloadId, WorkloadStatus,
};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use model::{AppId, Egress};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::host::Host;
use crate::remote::Hangup;
use crate::wire::{UPGRADE, WireError, decode_input, encode_exit, encode_output};

/// A workload carries its whole environment.
const LONGEST_REQUEST: usize = 64 << 20;

type Shared = State<Arc<Host>>;

pub(crate) fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/workloads", put(apply).get(list))
        .route("/workloads/{id}", delete(remove))
        .route("/workloads/{id}/quantity", put(scale))
        .route("/workloads/{id}/idle", put(set_idle))
        .route("/stats", get(stats))
        .route("/changes", get(changes))
        .route("/instances/{id}/restart", post(restart))
        .route("/instances/{id}/exec", post(exec))
        .route("/instances/{id}/ports/{port}", post(connect))
        .route("/instances/{id}/files", get(files).put(put_files))
        .route("/oneoffs", post(run).get(oneoffs))
        .route("/oneoffs/{id}", delete(kill))
        .route("/oneoffs/{id}/stop", post(stop))
        .route("/ended", get(ended))
        .route("/ended/{id}", delete(forget))
        .route("/links", get(links).put(set_links))
        .route("/egress", get(egress))
        .route("/egress/{app}", put(set_egress))
        .route("/volumes", get(volumes))
        .route("/volumes/{name}", put(make_volume).delete(remove_volume))
        .route("/volumes/{name}/copy", post(copy_volume))
        .route("/volumes/{name}/files", get(volume_files))
        .route("/capacity", get(capacity))
        .route("/stop", post(stop_all))
        .layer(DefaultBodyLimit::max(LONGEST_REQUEST))
        .with_state(host)
}

struct Refusal(EngineError);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0 {
            EngineError::Unreachable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            EngineError::Immutable(_) | EngineError::InUse { .. } | EngineError::NotRunning(_) => StatusCode::CONFLICT,
            EngineError::Start { .. } | EngineError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            EngineError::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
            EngineError::Exhausted(_) => StatusCode::INSUFFICIENT_STORAGE,
        };
        (status, Json(WireError::from(self.0))).into_response()
    }
}

async fn apply(State(host): Shared, Json(workload): Json<Workload>) -> Result<StatusCode, Refusal> {
    host.apply(workload).await.map_err(Refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn scale(
    State(host): Shared,
    Path(id): Path<WorkloadId>,
    Json(quantity): Json<u32>,
) -> Result<StatusCode, Refusal> {
    host.scale(&id, quantity).await.map_err(Refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_idle(
    State(host): Shared,
    Path(id): Path<WorkloadId>,
    Json(idle): Json<Option<Duration>>,
) -> Result<StatusCode, Refusal> {
    host.set_idle(&id, idle).await.map_err(Refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(State(host): Shared, Path(id): Path<WorkloadId>) -> Result<StatusCode, Refusal> {
    host.delete(&id).await.map_err(Refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

/// All, or those of the apps that the query names: `?apps=<id>,<id>`.
async fn list(State(host): Shared, Query(query): Query<Of>) -> Result<Json<Vec<WorkloadStatus>>, Refusal> {
    Ok(Json(host.list(query.apps()?.as_ref())))
}

/// Of the apps that the query names.
async fn stats(State(host): Shared, Query(query): Query<Of>) -> Result<Json<Vec<Stat>>, Refusal> {
    Ok(Json(host.stats(&query.apps()?.unwrap_or_default())))
}

#[derive(Deserialize)]
struct Of {
    apps: Option<String>,
}

impl Of {
    fn apps(&self) -> Result<Option<BTreeSet<AppId>>, Refusal> {
        let Some(apps) = &self.apps else { return Ok(None) };
        let apps: Result<BTreeSet<AppId>, _> =
            apps.split(',').filter(|app| !app.is_empty()).map(str::parse::<AppId>).collect();
        apps.map(Some).map_err(|error| Refusal(EngineError::Failed(error.to_string())))
    }
}

/// One line of JSON for each change.
async fn changes(State(host): Shared) -> Body {
    let line = |change| serde_json::to_vec(&change).map(|json| Bytes::from([json, b"\n".to_vec()].concat()));
    Body::from_stream(host.changes().map(line))
}

async fn restart(State(host): Shared, Path(id): Path<String>) -> StatusCode {
    host.restart(&id);
    StatusCode::NO_CONTENT
}

async fn oneoffs(State(host): Shared) -> Json<Vec<OneOffId>> {
    Json(host.oneoffs())
}

async fn kill(State(host): Shared, Path(id): Path<OneOffId>) -> StatusCode {
    host.kill(&id).await;
    StatusCode::NO_CONTENT
}

async fn stop(State(host): Shared, Path(id): Path<OneOffId>) -> StatusCode {
    host.stop(&id);
    StatusCode::NO_CONTENT
}

async fn ended(State(host): Shared) -> Json<Vec<Ended>> {
    Json(host.ended_oneoffs())
}

async fn forget(State(host): Shared, Path(id): Path<OneOffId>) -> Result<StatusCode, Refusal> {
    host.forget_ended(&id).map_err(Refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn links(State(host): Shared) -> Json<BTreeSet<Link>> {
    Json(host.links())
}

async fn set_links(State(host): Shared, Json(links): Json<BTreeSet<Link>>) -> Result<StatusCode, Refusal> {
    host.set_links(links).await.map_err(|fault| failed(&fault))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn egress(State(host): Shared) -> Json<BTreeMap<AppId, Egress>> {
    Json(host.egress())
}

async fn set_egress(
    State(host): Shared,
    Path(app): Path<AppId>,
    Json(policy): Json<Option<Egress>>,
) -> Result<StatusCode, Refusal> {
    host.set_egress(app, policy).await.map_err(|fault| failed(&fault))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_volume(State(host): Shared, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    host.remove_volume(&name).await.map_err(Refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop_all(State(host): Shared) -> Result<StatusCode, Refusal> {
    host.stop_all().await.map_err(Refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn volumes(State(host): Shared) -> Json<Vec<VolumeStatus>> {
    Json(host.list_volumes())
}

async fn make_volume(
    State(host): Shared,
    Path(name): Path<String>,
    Json(bytes): Json<u64>,
) -> Result<StatusCode, Refusal> {
    host.make_volume(&name, bytes).await.map_err(Refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes the volume that the path names a copy of the one that the body names.
async fn copy_volume(
    State(host): Shared,
    Path(to): Path<String>,
    Json(from): Json<String>,
) -> Result<StatusCode, Refusal> {
    // In a task of its own: a caller who hangs up now must not leave half a copy.
    let copied = tokio::spawn(async move { host.copy_volume(&from, &to).await }).await;
    copied.map_err(|error| failed(&error))?.map_err(Refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn volume_files(State(host): Shared, Path(name): Path<String>) -> Result<Body, Refusal> {
    let pieces = host.volume_files(&name).await.map_err(Refusal)?;
    Ok(Body::from_stream(ReceiverStream::new(pieces)))
}

async fn capacity(State(host): Shared) -> Result<Json<Capacity>, Refusal> {
    host.capacity().map(Json).map_err(Refusal)
}

/// Starts a one-off and turns the connection into its streams.
async fn run(State(host): Shared, mut request: Request) -> Result<Response, Refusal> {
    let upgrade = hyper::upgrade::on(&mut request);
    let oneoff: OneOff = body_of(request).await?;
    // In a task of its own: a caller who hangs up now must not leave half a container.
    let running = tokio::spawn(crate::oneoff::run(host, oneoff)).await.map_err(|error| failed(&error))?;
    Ok(join(upgrade, running.map_err(Refusal)?, Hangup::LeavesIt))
}

/// Starts a process in an instance and turns the connection into its streams.
async fn exec(State(host): Shared, Path(id): Path<String>, mut request: Request) -> Result<Response, Refusal> {
    let upgrade = hyper::upgrade::on(&mut request);
    let exec: Exec = body_of(request).await?;
    let running = tokio::spawn(crate::exec::run(host, id, exec)).await.map_err(|error| failed(&error))?;
    Ok(join(upgrade, running.map_err(Refusal)?, Hangup::EndsIt))
}

/// Connects to a port of an instance and turns the connection into one to there.
async fn connect(
    State(host): Shared,
    Path((id, port)): Path<(String, u16)>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let upgrade = hyper::upgrade::on(&mut request);
    let running = crate::forward::connect(&host, &id, port).await.map_err(Refusal)?;
    Ok(join(upgrade, running, Hangup::EndsIt))
}

/// A path inside.
#[derive(Deserialize)]
struct Inside {
    path: String,
}

async fn files(State(host): Shared, Path(id): Path<String>, Query(at): Query<Inside>) -> Result<Body, Refusal> {
    let pieces = crate::copy::read(&host, &id, &at.path).await.map_err(Refusal)?;
    Ok(Body::from_stream(ReceiverStream::new(pieces)))
}

async fn put_files(
    State(host): Shared,
    Path(id): Path<String>,
    Query(at): Query<Inside>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let (sender, pieces) = mpsc::channel(crate::copy::CHANNEL);
    let feed = async move {
        let mut body = body.into_data_stream();
        while let Some(piece) = body.next().await {
            if sender.send(piece.map_err(std::io::Error::other)).await.is_err() {
                return;
            }
        }
    };
    let mut writing = std::pin::pin!(crate::copy::write(&host, &id, &at.path, pieces));
    let written = tokio::select! {
        written = &mut writing => written,
        () = feed => writing.await,
    };
    written.map_err(Refusal)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn body_of<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let body = axum::body::to_bytes(request.into_body(), LONGEST_REQUEST).await.map_err(|error| failed(&error))?;
    serde_json::from_slice(&body).map_err(|error| failed(&error))
}

fn failed(error: &dyn std::fmt::Display) -> Refusal {
    Refusal(EngineError::Failed(error.to_string()))
}

fn join(upgrade: OnUpgrade, running: RunningOneOff, hangup: Hangup) -> Response {
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => attach(Framed::new(TokioIo::new(connection), codec()), running, hangup).await,
            // A one-off runs on; its input and output end here.
            Err(error) => tracing::debug!(error = %error, "a caller hung up before its process ran"),
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, UPGRADE)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn attach(
    connection: Framed<TokioIo<hyper::upgrade::Upgraded>, LengthDelimitedCodec>,
    running: RunningOneOff,
    hangup: Hangup,
) {
    let (mut to_client, mut from_client) = connection.split();
    let RunningOneOff { input, mut output, exit } = running;
    let sending = async {
        while let Some(bytes) = output.recv().await {
            to_client.send(encode_output(&bytes)).await?;
        }
        if let Ok(exit) = exit.await {
            to_client.send(encode_exit(exit)).await?;
        }
        to_client.close().await
    };
    let receiving = async {
        let mut input = Some(input);
        while let Some(Ok(mut frame)) = from_client.next().await {
            let Some(message) = decode_input(&mut frame) else { return };
            // A process that has ended takes no more; its end is on the way.
            if let Some(sender) = &input
                && sender.send(message).await.is_err()
            {
                input = None;
            }
        }
        // The caller's last word: no more input. Without a connection there is no more of it either.
        drop(input);
        if hangup == Hangup::LeavesIt {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // A caller who hung up leaves a one-off to itself.
        _ = sending => {}
        () = receiving => {}
    }
}

/// Frames may be as long as the longest piece of input that anybody sends at once.
pub(crate) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(LONGEST_REQUEST).new_codec()
}
