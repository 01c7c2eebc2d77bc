//! How routers treat the requests to an app. Heroku has no word for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Scalar};
use super::output::List;
use super::rollouts::SettingAnswer;
use crate::Controller;
use crate::store::App;

/// Settings of a policy, or null to leave them to app.json again.
#[derive(Deserialize, ToSchema)]
#[schema(value_type = BTreeMap<String, Scalar>)]
pub(super) struct UpdateRoutingPolicy(BTreeMap<String, Option<Scalar>>);

/// `GET /apps/{app}/routing-policy`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<SettingAnswer>, ApiError> {
    settings(&controller, &access.app).await
}

/// `PATCH /apps/{app}/routing-policy`: from now on.
pub(super) async fn set(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<UpdateRoutingPolicy>,
) -> Result<List<SettingAnswer>, ApiError> {
    let changes = wish.0.into_iter().map(|(name, value)| (name, value.map(|it| it.0))).collect();
    controller.set_routing_policy(&access.app, &access.actor, &changes).await?;
    settings(&controller, &access.app).await
}

async fn settings(controller: &Controller, app: &App) -> Result<List<SettingAnswer>, ApiError> {
    let settings = controller.routing_policy(app).await?.into_iter();
    Ok(List(settings.map(SettingAnswer::from).collect()))
}
