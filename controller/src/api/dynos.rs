use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::dyno_health::HealthAnswer;
use super::error::ApiError;
use super::input::{Body, Count, Flag, Text, Texts};
use super::output::{Accepted, Created, Id, Named, Time};
use super::range::{Page, Range};
use crate::attach::Protocol;
use crate::dynos::{Dyno, ExecRequest, RunRequest};
use crate::store::App;
use crate::{Controller, Error};

/// A command to run beside the app.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateDyno {
    /// The command, as a shell takes it, or the name of a process type.
    command: Text,
    size: Option<Text>,
    /// Environment beside the config vars.
    env: Option<Texts>,
    /// Whether somebody connects to its input and output; if not, its output goes to the log.
    attach: Option<Flag>,
    /// What whoever connects will speak. Heroku's clients know rendezvous alone, and do not say so.
    attach_protocol: Option<AttachProtocol>,
    /// Whether it gets pipes, even if somebody connects.
    force_no_tty: Option<Flag>,
    /// It is stopped after so many seconds: a day, unless this is less.
    time_to_live: Option<Count>,
    /// The first part of its name: `run`, unless this says another.
    r#type: Option<Text>,
}

/// A command to run in a dyno that runs.
#[derive(Deserialize, ToSchema)]
pub(super) struct RunInside {
    /// The command, as a shell takes it.
    command: Text,
    /// Environment beside the dyno's own.
    env: Option<Texts>,
    /// What whoever connects will speak. Heroku's clients know rendezvous alone, and do not say so.
    attach_protocol: Option<AttachProtocol>,
    /// Whether it gets pipes.
    force_no_tty: Option<Flag>,
}

/// How a client is joined to a dyno.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AttachProtocol {
    Rendezvous,
    Websocket,
}

impl From<AttachProtocol> for Protocol {
    fn from(protocol: AttachProtocol) -> Self {
        match protocol {
            AttachProtocol::Rendezvous => Self::Rendezvous,
            AttachProtocol::Websocket => Self::WebSocket,
        }
    }
}

/// A dyno.
#[derive(Serialize, ToSchema)]
#[schema(as = Dyno)]
pub(super) struct DynoAnswer {
    app: Named,
    /// Where to connect to it, once.
    attach_url: Option<String>,
    command: String,
    created_at: Time,
    /// How it fares; null for one-offs.
    health: Option<HealthAnswer>,
    id: Id,
    /// As `web.1`.
    name: String,
    /// The release that it really runs.
    release: ReleaseReference,
    /// Whether routers send it requests, as they say themselves; null of what never gets any. Heroku has no word for it.
    routed: Option<bool>,
    /// The size that it really has.
    size: String,
    state: String,
    r#type: String,
    updated_at: Time,
}

/// A release, in short.
#[derive(Serialize, ToSchema)]
pub(super) struct ReleaseReference {
    id: Id,
    version: u64,
}

/// `GET /apps/{app}/dynos`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<DynoAnswer>, ApiError> {
    let dynos = controller.dynos(&access.app).await?;
    Ok(range.page(dynos.iter().map(|dyno| answer(&access.app, dyno, None)), "name"))
}

/// `GET /apps/{app}/dynos/{dyno}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Json<DynoAnswer>, ApiError> {
    let wanted = path.get("dyno").map(String::as_str).unwrap_or_default();
    let is_wanted = |dyno: &Dyno| dyno.name.to_string() == wanted || dyno.uuid() == wanted;
    let dyno = controller.dynos(&access.app).await?.into_iter().find(is_wanted);
    Ok(Json(answer(&access.app, &dyno.ok_or(Error::NotFound("dyno"))?, None)))
}

/// `POST /apps/{app}/dynos`: `run`.
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CreateDyno>,
) -> Result<Created<DynoAnswer>, ApiError> {
    let is_attached = wish.attach.is_some_and(|it| it.0);
    let request = RunRequest {
        command: wish.command.0,
        size: wish.size.map(|it| it.0),
        env: wish.env.unwrap_or_default().0.into_iter().collect(),
        attach: is_attached.then(|| wish.attach_protocol.map_or(Protocol::Rendezvous, Protocol::from)),
        no_tty: wish.force_no_tty.is_some_and(|it| it.0),
        process_type: wish.r#type.map(|it| it.0),
        time_limit: wish.time_to_live.map(|it| Duration::from_secs(it.0)),
    };
    let started = controller.run(&access.app, &access.actor, request).await?;
    Ok(Created(answer(&access.app, &started.dyno, started.attach_url)))
}

/// `POST /apps/{app}/dynos/{dyno}`: `run:inside`, `ps:exec`. The command starts when somebody connects.
pub(super) async fn run_inside(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, dyno)): Path<(String, String)>,
    Body(wish): Body<RunInside>,
) -> Result<Created<DynoAnswer>, ApiError> {
    let request = ExecRequest {
        command: wish.command.0,
        env: wish.env.unwrap_or_default().0.into_iter().collect(),
        protocol: wish.attach_protocol.map_or(Protocol::Rendezvous, Protocol::from),
        no_tty: wish.force_no_tty.is_some_and(|it| it.0),
    };
    let started = controller.exec((&access.app, &access.actor), &dyno, request).await?;
    Ok(Created(answer(&access.app, &started.dyno, started.attach_url)))
}

/// `DELETE /apps/{app}/dynos`: restarts all of them.
pub(super) async fn restart_all(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Accepted, ApiError> {
    controller.restart_dynos(&access.app, &access.actor, None).await?;
    Ok(Accepted {})
}

/// `DELETE /apps/{app}/dynos/{dyno}` and `DELETE /apps/{app}/formations/{dyno}`: restarts one dyno, or a process type's.
pub(super) async fn restart(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Accepted, ApiError> {
    let which = path.get("dyno").map(String::as_str);
    controller.restart_dynos(&access.app, &access.actor, which).await?;
    Ok(Accepted {})
}

/// `POST /apps/{app}/dynos/{dyno}/actions/stop` and `POST /apps/{app}/formations/{dyno}/actions/stop`
pub(super) async fn stop(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path(path): Path<BTreeMap<String, String>>,
) -> Result<Accepted, ApiError> {
    let which = path.get("dyno").map(String::as_str).unwrap_or_default();
    controller.stop_dynos(&access.app, &access.actor, which).await?;
    Ok(Accepted {})
}

fn answer(app: &App, dyno: &Dyno, attach_url: Option<String>) -> DynoAnswer {
    DynoAnswer {
        app: Named::from(app),
        attach_url,
        command: dyno.command.clone(),
        created_at: dyno.since.into(),
        health: dyno.instance.as_ref().map(HealthAnswer::from),
        id: Id::of(&dyno.uuid()),
        name: dyno.name.to_string(),
        release: ReleaseReference { id: Id::of(&dyno.release.id), version: dyno.release.version },
        routed: dyno.routed,
        size: dyno.size.clone(),
        state: dyno.state.to_owned(),
        r#type: dyno.name.process_type.to_string(),
        updated_at: dyno.since.into(),
    }
}
