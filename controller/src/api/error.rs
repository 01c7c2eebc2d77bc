//! Errors on the wire: `{id, message, resource?}`, as Heroku's clients read them. The one place where an [`Error`] gets a status.

use std::error::Error as StdError;
use std::fmt::Write;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Error;
use crate::store::StoreError;

/// When it is worth asking again what could not be done for a moment.
const RETRY: Duration = Duration::from_secs(5);

/// An answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    /// What kind of error, for programs: `not_found`, `invalid_params`, …
    id: &'static str,
    /// What is wrong and what to do, for people.
    message: String,
    /// Of what kind the thing is that was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    resource: Option<String>,
    /// When it is worth asking again.
    #[serde(skip)]
    retry_after: Option<Duration>,
}

impl ApiError {
    fn new(status: StatusCode, id: &'static str, message: impl Into<String>) -> Self {
        Self { status, id, message: message.into(), resource: None, retry_after: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// `resource` as clients expect it: `app`, `add_on`, …
    pub(super) fn not_found(resource: &str, message: &str) -> Self {
        let resource = match resource {
            // In the spelling that the heroku program looks for.
            "add-on" => "add_on".to_owned(),
            "add-on attachment" => "add_on attachment".to_owned(),
            other => other.replace(' ', "_"),
        };
        let resource = Some(resource);
        Self { resource, ..Self::new(StatusCode::NOT_FOUND, "not_found", message) }
    }

    pub(super) fn method_not_allowed(message: String) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(super) fn timeout(message: &str) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    /// `what` as in "This platform has no …".
    pub(super) fn not_implemented(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", format!("This platform has no {what}."))
    }

    pub(super) fn rate_limit(retry_after: Duration) -> Self {
        let message = "Your token reached the API rate limit. Wait a moment before you try again.";
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit", message) }
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("The request body has more than {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_params", message)
    }

    /// What a stranger may know of a failure that is ours. The cause goes to the log.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error", "Internal server error.")
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(message) => Self::invalid(message),
            Error::NotFound(what) => Self::not_found(what, &format!("Couldn't find that {what}.")),
            Error::Ambiguous(message) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "multiple_matches", message),
            Error::Held(message) => Self::new(StatusCode::LOCKED, "locked", message),
            Error::Forbidden(message) => Self::new(StatusCode::FORBIDDEN, "forbidden", message),
            Error::Conflict(message) => Self::new(StatusCode::CONFLICT, "conflict", message),
            Error::Unauthorized(message) => Self::unauthorized(message),
            Error::TwoFactor => Self::new(StatusCode::FORBIDDEN, "two_factor", error.to_string()),
            Error::TooMany { message, retry_after } => Self {
                retry_after: Some(retry_after),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit", message)
            },
            Error::Store(StoreError::Missing(what)) => {
                let what = what.to_lowercase();
                Self::not_found(&what, &format!("Couldn't find that {what}."))
            }
            Error::DiskFull(_) => {
                log(&error);
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "insufficient_storage", error.to_string())
            }
            Error::StoreAway(_) => {
                log(&error);
                let away = Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", error.to_string());
                Self { retry_after: Some(RETRY), ..away }
            }
            Error::Engine(engine::EngineError::Unreachable { .. }) => {
                log(&error);
                let message = "What runs the apps does not answer just now. Try again in a moment.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", message)
            }
            Error::Store(_) | Error::Engine(_) | Error::System { .. } => {
                log(&error);
                Self::internal()
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Error::from(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after;
        let mut response = (self.status, Json(self)).into_response();
        if let Some(wait) = retry_after {
            // In whole seconds, and not too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The whole chain of causes in one line, once.
fn log(error: &Error) {
    let mut causes = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(causes, ": {cause}");
        source = cause.source();
    }
    tracing::error!("A request failed: {error}{causes}");
}

#[cfg(test)]
mod tests {
    use crate::testing::TestController;
    use crate::testing::http::Server;

    #[tokio::test]
    async fn while_the_database_is_away_everybody_is_told_so() {
        let test = TestController::new().await;
        let routes = crate::git::routes(test.controller.clone()).merge(crate::api::routes(test.controller.clone()));
        let server = Server::serve(test, routes).await;
        let user = server.user_with_app("ada@example.com", "mine").await;
        server.test.controller.store.close().await;
        let answer = user.get("/apps").await;
        assert_eq!((answer.status, answer.id(), answer.header("retry-after")), (503, "service_unavailable", "5"));
        assert!(answer.body["message"].as_str().is_some_and(|text| text.contains("database does not answer")));
        let push = user.get("/mine.git/info/refs?service=git-receive-pack").await;
        assert_eq!(push.status, 503, "whose password is good is not told that it is not");
        assert!(push.text.contains("database does not answer"), "{}", push.text);
    }
}
