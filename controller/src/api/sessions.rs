//! Browsers that are signed in to the console as whoever asks.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::output::{Id, Time};
use super::range::{Page, Range};
use crate::store::KnownSession;
use crate::{Actor, Controller, Error};

/// A browser that is signed in.
#[derive(Serialize, ToSchema)]
#[schema(as = OauthSession)]
pub(super) struct SessionAnswer {
    created_at: Time,
    /// The browser, in its own words.
    description: String,
    expires_at: Time,
    id: Id,
    /// Where it was begun.
    ip_address: Option<String>,
}

/// `GET /oauth/sessions`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    range: Range,
) -> Result<Page<SessionAnswer>, ApiError> {
    Ok(range.page(controller.sessions(&actor).await?.iter().map(answer), "created_at"))
}

/// `DELETE /oauth/sessions/{session}`. A token belongs to none, so `~` is not found; `heroku logout` expects that.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
    Path(session): Path<String>,
) -> Result<Json<SessionAnswer>, ApiError> {
    let id = session.parse().map_err(|_| Error::NotFound("session"))?;
    Ok(Json(answer(&controller.end_session(&actor, id).await?)))
}

fn answer(session: &KnownSession) -> SessionAnswer {
    SessionAnswer {
        created_at: session.created_at.into(),
        description: session.agent.clone().unwrap_or_default(),
        expires_at: session.expires_at.into(),
        id: Id::of(&session.id),
        ip_address: session.address.clone(),
    }
}
