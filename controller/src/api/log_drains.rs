use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Text};
use super::output::{Created, Id, Named, Time};
use super::range::{Page, Range};
use crate::Controller;
use crate::store::{App, Drain};

/// A new log drain.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateDrain {
    /// Where to: `syslog://host:514`, `syslog+tls://host:6514` or `https://host/path`.
    url: Text,
}

/// Where an app's log is sent.
#[derive(Serialize, ToSchema)]
#[schema(as = LogDrain)]
pub(super) struct DrainAnswer {
    /// The add-on that takes the log; null, since users make all drains.
    addon: Option<Named>,
    app: Named,
    created_at: Time,
    id: Id,
    /// Tells the receiver whose log it is.
    token: String,
    updated_at: Time,
    url: String,
}

/// `GET /apps/{app}/log-drains`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<DrainAnswer>, ApiError> {
    let drains = controller.store.drains(access.app.id).await?;
    Ok(range.page(drains.iter().map(|drain| answer(&access.app, drain)), "created_at"))
}

/// `POST /apps/{app}/log-drains`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CreateDrain>,
) -> Result<Created<DrainAnswer>, ApiError> {
    let drain = controller.add_drain(&access.app, &access.actor, &wish.url.0).await?;
    Ok(Created(answer(&access.app, &drain)))
}

/// `GET /apps/{app}/log-drains/{drain}`, by id, token or URL.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<DrainAnswer>, ApiError> {
    Ok(Json(answer(&access.app, &controller.find_drain(&access.app, &reference).await?)))
}

/// `DELETE /apps/{app}/log-drains/{drain}`, by id, token or URL.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<DrainAnswer>, ApiError> {
    let drain = controller.find_drain(&access.app, &reference).await?;
    controller.remove_drain(&access.app, &access.actor, &drain).await?;
    Ok(Json(answer(&access.app, &drain)))
}

fn answer(app: &App, drain: &Drain) -> DrainAnswer {
    DrainAnswer {
        addon: None,
        app: Named::from(app),
        created_at: drain.created_at.into(),
        id: Id::of(&drain.id),
        token: drain.token.clone(),
        updated_at: drain.created_at.into(),
        url: drain.url.clone(),
    }
}
