//! Right answers about things that do not exist here yet: empty lists, and "not found" where a client expects that.

use axum::Json;
use serde_json::Value;

use super::auth::Access;
use super::error::ApiError;
use crate::accounts::Session;

/// Nothing of this kind exists.
pub(super) async fn list(_: Session) -> Json<Vec<Value>> {
    Json(Vec::new())
}

/// Nothing of this kind belongs to the app.
pub(super) async fn list_of_app(_: Access) -> Json<Vec<Value>> {
    Json(Vec::new())
}

/// `DELETE /oauth/sessions/~`: tokens belong to no browser session; `heroku logout` expects this answer.
pub(super) async fn no_session(_: Session) -> ApiError {
    ApiError::not_found("session", "Couldn't find that session.")
}

/// `GET /apps/{app}/pipeline-couplings`: the app is in no pipeline.
pub(super) async fn no_pipeline(_: Access) -> ApiError {
    ApiError::not_found("pipeline_coupling", "Couldn't find that pipeline coupling.")
}
