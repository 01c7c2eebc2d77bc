//! `GET /tls/ca.pem`: the certificate that whoever wants to speak TLS to the platform must trust. It is no secret; that it is the
//! right one, a client can only know from a connection it trusts already, or from the operator.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::Controller;

/// `/tls/ca.pem`, for everybody.
pub(crate) fn routes(controller: Arc<Controller>) -> Router {
    Router::new().route("/tls/ca.pem", get(authority)).with_state(controller)
}

async fn authority(State(controller): State<Arc<Controller>>) -> Response {
    match tokio::fs::read(&controller.settings.authority).await {
        Ok(pem) => ([(header::CONTENT_TYPE, "application/x-pem-file")], pem).into_response(),
        Err(_) => (StatusCode::NOT_FOUND, "This platform has no certificate authority of its own.\n").into_response(),
    }
}
