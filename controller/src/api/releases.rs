use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::auth::Access;
use super::error::ApiError;
use super::fields::Fields;
use super::range::{Page, Range};
use crate::config_vars::ConfigVars;
use crate::releases::is_eligible;
use crate::store::{App, Release};
use crate::{Controller, Error};

/// `GET /apps/{app}/releases`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page, ApiError> {
    let releases = controller.store.releases(access.app.id).await?;
    let deployed = releases.iter().any(|release| release.image.is_some());
    let items = releases.iter().map(|release| wire(&access.app, release, deployed)).collect();
    Ok(range.page(items, "version"))
}

/// `GET /apps/{app}/releases/{release}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let release = controller.find_release(&access.app, &reference).await?;
    Ok(Json(wire(&access.app, &release, controller.store.was_deployed(access.app.id).await?)))
}

/// `GET /apps/{app}/releases/{release}/config-vars`
pub(super) async fn config_vars(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<ConfigVars>, ApiError> {
    let release = controller.find_release(&access.app, &reference).await?;
    Ok(Json(controller.store.release_config(release.id).await?))
}

/// `POST /apps/{app}/releases`: back to `release`.
pub(super) async fn rollback(
    State(controller): State<Arc<Controller>>,
    access: Access,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let reference = fields.reference("release")?;
    let reference = reference.ok_or_else(|| Error::Invalid("release is missing".to_owned()))?;
    let target = controller.find_release(&access.app, &reference).await?;
    let release = controller.rollback(&access.app, &access.session.user, &target).await?;
    let deployed = controller.store.was_deployed(access.app.id).await?;
    Ok((StatusCode::CREATED, Json(wire(&access.app, &release, deployed))))
}

fn wire(app: &App, release: &Release, app_was_deployed: bool) -> Value {
    json!({
        "addon_plan_names": [],
        "app": { "id": app.id, "name": app.name },
        "artifacts": [],
        "created_at": release.created_at.to_rfc3339(),
        "current": release.current,
        "description": release.description,
        "eligible_for_rollback": is_eligible(release, app_was_deployed),
        // Heroku has no word for it: why the release failed.
        "failure": release.failure,
        "id": release.id,
        "oci_image": null,
        "output_stream_url": null,
        "slug": null,
        "status": release.status.to_string(),
        "updated_at": release.updated_at.to_rfc3339(),
        "user": { "id": release.user.id, "email": release.user.email },
        "version": release.version,
    })
}
