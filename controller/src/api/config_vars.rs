use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::{Access, MayBeHeld};
use super::error::ApiError;
use super::input::{Body, Scalar};
use crate::Controller;
use crate::config_vars::ConfigVars;

/// Config vars and their values.
#[derive(Serialize, ToSchema)]
#[schema(as = ConfigVars, value_type = BTreeMap<String, String>)]
pub(super) struct ConfigVarsAnswer(pub(super) ConfigVars);

/// Config vars to set, or with null to unset.
#[derive(Deserialize, ToSchema)]
#[schema(value_type = BTreeMap<String, Scalar>)]
pub(super) struct UpdateConfigVars(BTreeMap<String, Option<Scalar>>);

/// `GET /apps/{app}/config-vars`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<ConfigVarsAnswer>, ApiError> {
    Ok(Json(ConfigVarsAnswer(controller.store.config(access.app.id).await?)))
}

/// `PATCH /apps/{app}/config-vars`: `null` unsets.
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    _: MayBeHeld,
    Body(wish): Body<UpdateConfigVars>,
) -> Result<Json<ConfigVarsAnswer>, ApiError> {
    let patch = wish.0.into_iter().map(|(name, value)| (name, value.map(|it| it.0))).collect();
    controller.set_config(&access.app, &access.actor, &patch).await?;
    Ok(Json(ConfigVarsAnswer(controller.store.config(access.app.id).await?)))
}
