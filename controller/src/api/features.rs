use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::catalog::SINCE;
use super::error::ApiError;
use super::input::{Body, Flag};
use super::output::{Id, List};
use crate::features::{FEATURES, Feature};
use crate::store::App;
use crate::{Actor, Controller, Error};

/// What can be changed of a feature.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateFeature {
    /// On or off, from the next release on.
    enabled: Flag,
}

/// Something that can be switched on.
#[derive(Serialize, ToSchema)]
#[schema(as = Feature)]
pub(super) struct FeatureAnswer {
    #[schema(value_type = super::output::Time)]
    created_at: &'static str,
    description: &'static str,
    display_name: &'static str,
    doc_url: String,
    enabled: bool,
    feedback_email: &'static str,
    id: Id,
    name: &'static str,
    /// `general`: for everybody.
    state: &'static str,
    #[schema(value_type = super::output::Time)]
    updated_at: String,
}

/// `GET /apps/{app}/features`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<FeatureAnswer>, ApiError> {
    let mut features = Vec::new();
    for feature in FEATURES {
        features.push(answer(&controller, &access.app, feature).await?);
    }
    Ok(List(features))
}

/// `GET /apps/{app}/features/{feature}`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<FeatureAnswer>, ApiError> {
    Ok(Json(answer(&controller, &access.app, controller.find_feature(&reference)?).await?))
}

/// `PATCH /apps/{app}/features/{feature}`
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
    Body(wish): Body<UpdateFeature>,
) -> Result<Json<FeatureAnswer>, ApiError> {
    let feature = controller.find_feature(&reference)?;
    controller.set_feature(&access.app, &access.actor, (feature, wish.enabled.0)).await?;
    Ok(Json(answer(&controller, &access.app, feature).await?))
}

/// `GET /account/features`: users have no switches.
pub(super) async fn list_of_user(_: Actor) -> List<FeatureAnswer> {
    List(Vec::new())
}

/// `GET /account/features/{feature}`, `PATCH /account/features/{feature}`
pub(super) async fn none_of_user(_: Actor) -> ApiError {
    Error::NotFound("feature").into()
}

async fn answer(controller: &Controller, app: &App, feature: &'static Feature) -> Result<FeatureAnswer, ApiError> {
    let (enabled, since) = controller.feature_of(app, feature).await?;
    Ok(FeatureAnswer {
        created_at: SINCE,
        description: feature.description,
        display_name: feature.display_name,
        doc_url: format!("{}/openapi.json", controller.settings.api_url()),
        enabled,
        feedback_email: "",
        id: Id::of(feature.id),
        name: feature.name,
        state: "general",
        updated_at: since.map_or_else(|| SINCE.to_owned(), model::Timestamp::to_rfc3339),
    })
}
