//! What Heroku's clients ask the buildpack registry.

use axum::Json;
use axum::extract::Path;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use crate::buildpacks::is_known;

/// A buildpack of the registry.
#[derive(Serialize, ToSchema)]
#[schema(as = RegistryBuildpack)]
pub(super) struct RegistryAnswer {
    /// What an app names to be built by it.
    blob_url: String,
}

/// `GET /buildpacks/{buildpack}`: the name, as one segment of the path, is all that an app needs to say.
pub(super) async fn registry(Path(buildpack): Path<String>) -> Result<Json<RegistryAnswer>, ApiError> {
    if is_known(&buildpack) {
        return Ok(Json(RegistryAnswer { blob_url: buildpack }));
    }
    Err(ApiError::not_found("buildpack", "Couldn't find that buildpack. An app can name one by its id."))
}
