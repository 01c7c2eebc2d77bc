use std::sync::Arc;

use axum::extract::State;
use model::AppId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::addons::AddonAccess;
use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Count, Flag, Text};
use super::output::{Created, Id, Time};
use crate::Controller;
use crate::logs::{Filter, LogSessionRequest};

/// Which lines of a log are wanted.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateLogSession {
    /// How many lines to begin with: 100 if not said, at most 1500.
    lines: Option<Count>,
    /// Whether to go on with what comes.
    tail: Option<Flag>,
    /// `app` or `heroku`.
    source: Option<Text>,
    /// A dyno, as `web.1`, or a process type; several, with commas.
    dyno: Option<Text>,
    /// A process type.
    r#type: Option<Text>,
}

/// A way to read a log.
#[derive(Serialize, ToSchema)]
#[schema(as = LogSession)]
pub(super) struct LogSessionAnswer {
    created_at: Time,
    id: Id,
    /// Opens the log without a token, for an hour.
    logplex_url: String,
    updated_at: Time,
}

/// `POST /apps/{app}/log-sessions`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CreateLogSession>,
) -> Result<Created<LogSessionAnswer>, ApiError> {
    Ok(open(&controller, access.app.id, wish))
}

/// `POST /apps/{app}/addons/{addon}/log-sessions`: what an add-on's server says.
pub(super) async fn create_of_addon(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    Body(wish): Body<CreateLogSession>,
) -> Result<Created<LogSessionAnswer>, ApiError> {
    Ok(open(&controller, access.addon.id.into(), wish))
}

fn open(controller: &Controller, owner: AppId, wish: CreateLogSession) -> Created<LogSessionAnswer> {
    let lines = wish.lines.map(|Count(lines)| u32::try_from(lines).unwrap_or(u32::MAX));
    let process = wish.dyno.or(wish.r#type).map(|it| it.0);
    let filter = Filter { source: wish.source.map(|it| it.0), process };
    let request = LogSessionRequest { lines, tail: wish.tail.is_some_and(|it| it.0), filter };
    let session = controller.create_log_session(owner, request);
    let created_at = Time::from(session.created_at);
    let id = Id::of(&session.id);
    Created(LogSessionAnswer { created_at, id, logplex_url: session.url, updated_at: created_at })
}
