use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::auth::Access;
use super::error::ApiError;
use super::range::{Page, Range};
use crate::store::{App, Build};
use crate::{Controller, Error, Settings};

/// `GET /apps/{app}/builds`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page, ApiError> {
    let builds = controller.store.builds(access.app.id).await?;
    let items = builds.iter().map(|build| wire(&controller.settings, &access.app, build)).collect();
    Ok(range.page(items, "created_at"))
}

/// `GET /apps/{app}/builds/{build}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let id = reference.parse().map_err(|_| Error::NotFound("build"))?;
    let build = controller.store.build(id).await?.filter(|build| build.app == access.app.id);
    Ok(Json(wire(&controller.settings, &access.app, &build.ok_or(Error::NotFound("build"))?)))
}

fn wire(settings: &Settings, app: &App, build: &Build) -> Value {
    let buildpacks: Vec<_> = build.buildpacks.iter().map(|name| json!({ "url": name, "name": name })).collect();
    json!({
        "app": { "id": app.id },
        "buildpacks": buildpacks,
        "created_at": build.created_at.to_rfc3339(),
        "id": build.id,
        "labs": {},
        "output_stream_url": format!("{}/streams/builds/{}", settings.api_url(), build.output_secret),
        "release": build.release.map(|id| json!({ "id": id })),
        "slug": null,
        "source_blob": { "checksum": null, "url": "", "version": build.commit, "version_description": build.subject },
        "stack": app.stack,
        "status": build.status.to_string(),
        "updated_at": build.updated_at.to_rfc3339(),
        "user": { "id": build.user.id, "email": build.user.email },
    })
}
