use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::AppId;
use serde_json::{Value, json};

use super::addons::AddonAccess;
use super::auth::Access;
use super::error::ApiError;
use super::fields::Fields;
use crate::Controller;
use crate::logs::{Filter, LogSessionRequest};

/// `POST /apps/{app}/log-sessions`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    open(&controller, access.app.id, &fields)
}

/// `POST /apps/{app}/addons/{addon}/log-sessions`: what an add-on's server says.
pub(super) async fn create_of_addon(
    State(controller): State<Arc<Controller>>,
    access: AddonAccess,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    open(&controller, access.addon.id.into(), &fields)
}

fn open(controller: &Controller, owner: AppId, fields: &Fields) -> Result<(StatusCode, Json<Value>), ApiError> {
    let lines = fields.number("lines")?.map(|lines| u32::try_from(lines).unwrap_or(u32::MAX));
    let process = fields.text("dyno")?.or(fields.text("type")?);
    let filter = Filter { source: fields.text("source")?, process };
    let request = LogSessionRequest { lines, tail: fields.flag("tail")?.unwrap_or_default(), filter };
    let session = controller.create_log_session(owner, request);
    let created_at = session.created_at.to_rfc3339();
    let body = json!({
        "created_at": created_at,
        "id": session.id,
        "logplex_url": session.url,
        "updated_at": created_at,
    });
    Ok((StatusCode::CREATED, Json(body)))
}
