//! How process types scale by themselves. Heroku's word for it is on another host.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::formation::find;
use super::input::{Body, Scalar};
use super::output::List;
use super::rollouts::SettingAnswer;
use crate::Controller;
use crate::store::App;

/// Settings of a policy, or null to leave them to app.json again.
#[derive(Deserialize, ToSchema)]
#[schema(value_type = BTreeMap<String, Scalar>)]
pub(super) struct UpdateScalingPolicy(BTreeMap<String, Option<Scalar>>);

/// `GET /apps/{app}/formation/{type}/scaling-policy`
pub(super) async fn policy(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<List<SettingAnswer>, ApiError> {
    settings(&controller, &access.app, &reference).await
}

/// `PATCH /apps/{app}/formation/{type}/scaling-policy`: from now on.
pub(super) async fn set_policy(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
    Body(wish): Body<UpdateScalingPolicy>,
) -> Result<List<SettingAnswer>, ApiError> {
    let process = find(&controller, &access.app, &reference).await?;
    let changes = wish.0.into_iter().map(|(name, value)| (name, value.map(|it| it.0))).collect();
    controller.set_scaling_policy((&access.app, &access.actor), &process.row.process_type, &changes).await?;
    settings(&controller, &access.app, &reference).await
}

async fn settings(controller: &Controller, app: &App, reference: &str) -> Result<List<SettingAnswer>, ApiError> {
    let process = find(controller, app, reference).await?;
    let settings = controller.scaling_policy(app, &process.row.process_type).await?.into_iter();
    Ok(List(settings.map(SettingAnswer::from).collect()))
}
