use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::output::Created;
use crate::{Actor, Controller};

/// Room for an archive.
#[derive(Serialize, ToSchema)]
#[schema(as = Source)]
pub(super) struct SourceAnswer {
    source_blob: SourceUrlsAnswer,
}

/// Where it goes. Whoever has these needs no token; they are good for an hour.
#[derive(Serialize, ToSchema)]
#[schema(as = SourceUrls)]
pub(super) struct SourceUrlsAnswer {
    /// Name it in a build.
    get_url: String,
    /// PUT the archive here.
    put_url: String,
}

/// `POST /sources`, `POST /apps/{app}/sources`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    actor: Actor,
) -> Result<Created<SourceAnswer>, ApiError> {
    let urls = controller.create_source(&actor).await?;
    Ok(Created(SourceAnswer { source_blob: SourceUrlsAnswer { get_url: urls.get, put_url: urls.put } }))
}
