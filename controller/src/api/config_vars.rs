use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::auth::Access;
use super::error::ApiError;
use super::fields::Fields;
use crate::Controller;
use crate::config_vars::ConfigVars;

/// `GET /apps/{app}/config-vars`
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<Json<ConfigVars>, ApiError> {
    Ok(Json(controller.store.config(access.app.id).await?))
}

/// `PATCH /apps/{app}/config-vars`: `null` unsets.
pub(super) async fn update(
    State(controller): State<Arc<Controller>>,
    access: Access,
    fields: Fields,
) -> Result<Json<ConfigVars>, ApiError> {
    let patch = fields.into_entries().map(read).collect::<Result<_, ApiError>>()?;
    controller.set_config(&access.app, &access.session.user, &patch).await?;
    Ok(Json(controller.store.config(access.app.id).await?))
}

fn read((name, value): (String, Value)) -> Result<(String, Option<String>), ApiError> {
    match value {
        Value::Null => Ok((name, None)),
        Value::String(text) => Ok((name, Some(text))),
        Value::Number(number) => Ok((name, Some(number.to_string()))),
        Value::Bool(flag) => Ok((name, Some(flag.to_string()))),
        Value::Array(_) | Value::Object(_) => {
            Err(ApiError::invalid(format!("Config var {name:?} must be a string, or null to unset it")))
        }
    }
}
