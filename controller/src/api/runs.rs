//! One-off dynos, those that have ended among them. Heroku shows them only while they run.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::output::{Accepted, Id, Named, Time};
use super::range::{Page, Range};
use crate::store::{App, Run};
use crate::{Controller, Error};

/// A one-off dyno.
#[derive(Serialize, ToSchema)]
#[schema(as = Run)]
pub(super) struct RunAnswer {
    app: Named,
    /// Whether somebody is at its input and output, with whom it ends.
    attached: bool,
    command: String,
    created_at: Time,
    ended_at: Option<Time>,
    /// As a shell would give it, 255 if it is lost; null while it runs, and if `failure` says why there is none.
    exit_status: Option<i32>,
    /// Why it never ran, or why nobody knows how it ended.
    failure: Option<String>,
    /// That of its dyno.
    id: Id,
    /// As `run.1234`.
    name: String,
    /// The number of the release that it runs.
    release_version: u64,
    size: String,
    started_at: Option<Time>,
    /// `starting`, `up` or `complete`.
    state: String,
    /// It is stopped after so many seconds.
    time_to_live: u64,
    r#type: String,
    /// Who started it, by their address then.
    user: Option<String>,
}

/// `GET /apps/{app}/runs`: the last two hundred, and those that run.
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<RunAnswer>, ApiError> {
    let part = controller.store.runs_slice(access.app.id, &range.0).await?;
    Ok(range.part(part.map(|run| answer(&access.app, &run))))
}

/// `GET /apps/{app}/runs/{run}`: by its id, or the newest of a name.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<RunAnswer>, ApiError> {
    let run = find(&controller, &access.app, &reference).await?;
    Ok(Json(answer(&access.app, &run)))
}

/// `POST /apps/{app}/runs/{run}/actions/stop`: SIGTERM, and SIGKILL once its time for that is over.
pub(super) async fn stop(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Accepted, ApiError> {
    let run = find(&controller, &access.app, &reference).await?;
    controller.stop_run(&access.app, &access.actor, &run).await?;
    Ok(Accepted {})
}

async fn find(controller: &Controller, app: &App, reference: &str) -> Result<Run, Error> {
    controller.store.run(app.id, reference).await?.ok_or(Error::NotFound("run"))
}

fn answer(app: &App, run: &Run) -> RunAnswer {
    RunAnswer {
        app: Named::from(app),
        attached: run.attached,
        command: run.command.clone(),
        created_at: run.created_at.into(),
        ended_at: run.ended_at.map(Time::from),
        exit_status: run.exit.map(model::Exit::shell_status),
        failure: run.failure.clone(),
        id: Id::of(&run.id),
        name: run.dyno.to_string(),
        release_version: run.release,
        size: run.size.clone(),
        started_at: run.started_at.map(Time::from),
        state: run.state.to_string(),
        time_to_live: run.time_limit.as_secs(),
        r#type: run.dyno.process_type.to_string(),
        user: run.user.clone(),
    }
}
