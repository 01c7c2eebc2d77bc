//! Bills of materials: what a build's image is made of.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::output::List;
use super::slugs;
use crate::{Controller, Error};

/// A bill of materials.
#[derive(Serialize, ToSchema)]
#[schema(as = Sbom)]
pub(super) struct SbomAnswer {
    /// Id of the buildpack that wrote it, or the name of the stack.
    buildpack: String,
    /// The document itself, in the format of `media_type`.
    #[schema(value_type = Object)]
    document: Value,
    /// Whether what it lists is part of the image, and not only of its build.
    launch: bool,
    /// Name of the layer that it is about.
    layer: Option<String>,
    /// `application/vnd.cyclonedx+json`, `application/spdx+json` or `application/vnd.syft+json`.
    media_type: String,
}

/// `GET /apps/{app}/builds/{build}/sbom`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<List<SbomAnswer>, ApiError> {
    let (_, image) =
        slugs::result(&controller, &access, &reference).await?.ok_or(Error::NotFound("bill of materials"))?;
    if let Some(foreign) = &image.foreign {
        let why = "was not built here, so the platform does not know what is in it. Ask those who made it";
        return Err(Error::Invalid(format!("The image {} {why}", foreign.name)).into());
    }
    let failed =
        |source: builder::BuildError| Error::System { action: "read the bills of materials", source: source.into() };
    let sboms = controller.builder.sboms(access.app.id, &image).await.map_err(failed)?;
    let answer = |sbom: builder::Sbom| SbomAnswer {
        buildpack: sbom.buildpack,
        document: serde_json::from_str(&sbom.document).unwrap_or(Value::Null),
        launch: sbom.launch,
        layer: sbom.layer,
        media_type: sbom.media_type.to_owned(),
    };
    Ok(List(sboms.into_iter().map(answer).collect()))
}
