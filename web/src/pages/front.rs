//! Where people come in, and where nothing is.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::{IntoResponse, Response};
use controller::Error;
use controller::api::ApiError;

use crate::error::PageError;
use crate::respond::see_other;
use crate::session::Visit;

/// `GET /`: people go to the console; to programs this is no endpoint of the API.
pub(crate) async fn door(headers: HeaderMap) -> Response {
    let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/html") {
        return see_other("/console/apps");
    }
    ApiError::from(Error::NotFound("endpoint")).into_response()
}

/// `GET /console`
pub(crate) async fn start() -> Response {
    see_other("/console/apps")
}

/// Everything below `/console` that is no page.
pub(crate) async fn unknown(_: Visit) -> PageError {
    PageError::NoPage
}
