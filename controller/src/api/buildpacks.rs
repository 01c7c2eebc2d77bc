//! The buildpacks of the platform, and what Heroku's clients ask the buildpack registry.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use builder::is_known;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::output::List;
use crate::{Controller, Error};

/// A buildpack of the registry.
#[derive(Serialize, ToSchema)]
#[schema(as = RegistryBuildpack)]
pub(super) struct RegistryAnswer {
    /// What an app names to be built by it.
    blob_url: String,
}

/// A buildpack of the platform.
#[derive(Serialize, ToSchema)]
#[schema(as = PlatformBuildpack)]
pub(super) struct OfferedAnswer {
    /// What it builds.
    description: Option<String>,
    /// Heroku's name for one that does the same, which means this one.
    heroku_name: Option<&'static str>,
    homepage: Option<String>,
    id: String,
    name: Option<String>,
    version: String,
}

/// `GET /buildpacks`
pub(super) async fn list(State(controller): State<Arc<Controller>>) -> Result<List<OfferedAnswer>, ApiError> {
    let failed = |source: builder::BuildError| Error::System { action: "list the buildpacks", source: source.into() };
    let answer = |offered: builder::Offered| OfferedAnswer {
        description: offered.description,
        heroku_name: offered.heroku,
        homepage: offered.homepage,
        id: offered.id,
        name: offered.name,
        version: offered.version,
    };
    Ok(List(controller.builder.offered().map_err(failed)?.into_iter().map(answer).collect()))
}

/// `GET /buildpacks/{buildpack}`: the name, as one segment of the path, is all that an app needs to say.
pub(super) async fn registry(Path(buildpack): Path<String>) -> Result<Json<RegistryAnswer>, ApiError> {
    if is_known(&buildpack) {
        return Ok(Json(RegistryAnswer { blob_url: buildpack }));
    }
    Err(ApiError::not_found("buildpack", "Couldn't find that buildpack. An app can name one by its id."))
}
