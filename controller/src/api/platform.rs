//! The platform itself, as its clients must know it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Controller;

/// The platform.
#[derive(Serialize, ToSchema)]
#[schema(as = Platform)]
pub(super) struct PlatformAnswer {
    /// Where the API answers.
    url: String,
    /// The same over https, with a certificate of the authority at `/tls/ca.pem`; null if there is no such entrance.
    https_url: Option<String>,
    version: String,
}

/// `GET /platform`
pub(super) async fn info(State(controller): State<Arc<Controller>>) -> Json<PlatformAnswer> {
    let settings = &controller.settings;
    Json(PlatformAnswer {
        url: settings.api_url(),
        https_url: settings.https_url(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
