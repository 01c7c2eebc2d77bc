//! What a person sees when a page cannot be shown.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use controller::Error;
use controller::store::StoreError;
use serde::Serialize;

use crate::respond;
use crate::templates;
use crate::view::Outside;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// Nobody is signed in; `Some` is where to come back to.
    #[error("nobody is signed in")]
    SignIn {
        /// Where to come back to.
        back: Option<String>,
        /// Whether htmx asks, which must be told to leave the page.
        htmx: bool,
    },
    /// The form did not come from a page of ours, or from one of another session.
    #[error("the form was not ours")]
    Forged,
    /// There is no such page.
    #[error("there is no such page")]
    NoPage,
    /// The form is too long or unreadable.
    #[error("the form cannot be read")]
    BadForm,
    /// A verb refused or failed.
    #[error(transparent)]
    Verb(#[from] Error),
    /// A template is wrong: a fault of ours.
    #[error("a template is wrong: {0}")]
    Template(String),
}

impl From<tera::Error> for PageError {
    fn from(error: tera::Error) -> Self {
        Self::Template(error.to_string())
    }
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Self::Verb(error.into())
    }
}

#[derive(Debug, Serialize)]
struct ErrorPage {
    page: Outside,
    code: u16,
    heading: &'static str,
    text: String,
}

impl PageError {
    /// Status, heading and what to do.
    fn words(&self) -> (StatusCode, &'static str, String) {
        let fault = || {
            let text = "The fault is ours, and its cause is in the platform's log. Nothing was changed that you did not see change.";
            (StatusCode::INTERNAL_SERVER_ERROR, "Something broke", text.to_owned())
        };
        match self {
            Self::SignIn { .. } => (StatusCode::UNAUTHORIZED, "Sign in", "Sign in to see this page.".to_owned()),
            Self::Forged => {
                let text = "This form was made in another session, or by another site. Nothing was changed. Go back, reload the page and try again.";
                (StatusCode::FORBIDDEN, "This form has expired", text.to_owned())
            }
            Self::NoPage | Self::Verb(Error::NotFound(_) | Error::Store(StoreError::Missing(_))) => {
                let text = "It does not exist, or it is not yours. It may have been renamed or deleted.";
                (StatusCode::NOT_FOUND, "There is nothing here", text.to_owned())
            }
            Self::BadForm => (StatusCode::BAD_REQUEST, "That form cannot be read", "Go back and try again.".to_owned()),
            Self::Verb(Error::Engine(_)) => {
                let text = "What runs the apps does not answer just now; the apps themselves are not affected. Reload in a moment.";
                (StatusCode::SERVICE_UNAVAILABLE, "One moment", text.to_owned())
            }
            Self::Verb(error @ (Error::StoreAway(_) | Error::DiskFull(_))) => {
                (StatusCode::SERVICE_UNAVAILABLE, "One moment", error.to_string())
            }
            Self::Verb(Error::TooMany { message, .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "Too many attempts", (*message).to_owned())
            }
            Self::Verb(Error::Forbidden(text)) => (StatusCode::FORBIDDEN, "That is not for you to do", text.clone()),
            Self::Verb(Error::Store(_) | Error::System { .. }) | Self::Template(_) => fault(),
            Self::Verb(error) => (StatusCode::UNPROCESSABLE_ENTITY, "That is not possible", error.to_string()),
        }
    }
}

/// What a verb says to the person who can mend it; other failures stay errors.
pub(crate) fn refusal(error: Error) -> Result<String, PageError> {
    match error {
        Error::Invalid(text)
        | Error::Ambiguous(text)
        | Error::Conflict(text)
        | Error::Forbidden(text)
        | Error::Held(text) => Ok(text),
        Error::Unauthorized(text) | Error::TooMany { message: text, .. } => Ok(text.to_owned()),
        other => Err(other.into()),
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        if let Self::SignIn { back, htmx } = &self {
            return respond::to_sign_in(back.as_deref(), *htmx);
        }
        let (status, heading, text) = self.words();
        if status.is_server_error() {
            tracing::error!(error = &self as &dyn std::error::Error, "A page could not be shown");
        }
        let page = ErrorPage { page: Outside::new(heading), code: status.as_u16(), heading, text };
        match templates::page("error.html", &page) {
            Ok(html) => respond::html(status, html),
            Err(_) => (status, heading).into_response(),
        }
    }
}
