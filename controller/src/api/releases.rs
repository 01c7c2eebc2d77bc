use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::config_vars::ConfigVarsAnswer;
use super::error::ApiError;
use super::input::{Body, Reference};
use super::output::{Created, Id, Identified, Named, Time, UserAnswer};
use super::range::{Page, Range};
use crate::Controller;
use crate::releases::is_eligible;
use crate::store::{App, Release};

/// The way back to an earlier release.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateRelease {
    /// Its id or version.
    release: Reference,
}

/// A release.
#[derive(Serialize, ToSchema)]
#[schema(as = Release)]
pub(super) struct ReleaseAnswer {
    addon_plan_names: Vec<String>,
    app: Named,
    artifacts: Vec<Identified>,
    created_at: Time,
    /// Whether it is the one that runs.
    current: bool,
    /// What it changed.
    description: String,
    /// Whether one can go back to it.
    eligible_for_rollback: bool,
    /// Why it failed; Heroku has no word for it.
    failure: Option<String>,
    id: Id,
    oci_image: Option<Identified>,
    /// Where the output of its release phase is.
    output_stream_url: Option<String>,
    slug: Option<Identified>,
    status: String,
    updated_at: Time,
    user: UserAnswer,
    version: u64,
}

/// `GET /apps/{app}/releases`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
    range: Range,
) -> Result<Page<ReleaseAnswer>, ApiError> {
    let part = controller.store.releases_slice(access.app.id, &range.0).await?;
    let deployed = controller.store.was_deployed(access.app.id).await?;
    Ok(range.part(part.map(|release| answer(&access.app, &release, deployed))))
}

/// `GET /apps/{app}/releases/{release}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<ReleaseAnswer>, ApiError> {
    let release = controller.find_release(&access.app, &reference).await?;
    Ok(Json(answer(&access.app, &release, controller.store.was_deployed(access.app.id).await?)))
}

/// `GET /apps/{app}/releases/{release}/config-vars`
pub(super) async fn config_vars(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<ConfigVarsAnswer>, ApiError> {
    let release = controller.find_release(&access.app, &reference).await?;
    Ok(Json(ConfigVarsAnswer(controller.store.release_config(release.id).await?)))
}

/// `POST /apps/{app}/releases`: back to `release`.
pub(super) async fn rollback(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CreateRelease>,
) -> Result<Created<ReleaseAnswer>, ApiError> {
    let target = controller.find_release(&access.app, &wish.release.0).await?;
    let release = controller.rollback(&access.app, &access.actor, &target).await?;
    let deployed = controller.store.was_deployed(access.app.id).await?;
    Ok(Created(answer(&access.app, &release, deployed)))
}

fn answer(app: &App, release: &Release, app_was_deployed: bool) -> ReleaseAnswer {
    ReleaseAnswer {
        addon_plan_names: Vec::new(),
        app: Named::from(app),
        artifacts: Vec::new(),
        created_at: release.created_at.into(),
        current: release.current,
        description: release.description.clone(),
        eligible_for_rollback: is_eligible(release, app_was_deployed),
        failure: release.failure.clone(),
        id: Id::of(&release.id),
        oci_image: None,
        output_stream_url: None,
        slug: None,
        status: release.status.to_string(),
        updated_at: release.updated_at.into(),
        user: UserAnswer::from(&release.user),
        version: release.version,
    }
}
