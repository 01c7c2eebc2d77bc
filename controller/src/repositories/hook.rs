//! What code hosts tell: GitHub, GitLab, Gitea and Forgejo sign what they send with the secret of the linked repository.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hmac::{Hmac, Mac};
use model::RepositoryId;
use serde::Deserialize;
use sha2::Sha256;

use crate::accounts::digest;
use crate::{Controller, Origin};

/// Begins the path of every webhook.
pub(super) const PATH: &str = "/repositories/";
/// GitHub's limit for what it sends.
const LARGEST: usize = 25 << 20;

/// What is read of a push.
#[derive(Deserialize)]
struct Pushed {
    /// The branch that moved, by its full name.
    r#ref: String,
}

/// `POST /repositories/<id>`, signed.
pub(crate) fn routes(controller: Arc<Controller>) -> Router {
    Router::new().route("/repositories/{id}", post(told)).with_state(controller)
}

async fn told(
    State(controller): State<Arc<Controller>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Ok(id) = id.parse::<RepositoryId>() else { return say(StatusCode::NOT_FOUND, "There is no such webhook.") };
    let linked = match controller.store.repository(id).await {
        Ok(Some(linked)) => linked,
        Ok(None) => return say(StatusCode::NOT_FOUND, "There is no such webhook."),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "A linked repository cannot be looked up");
            return say(StatusCode::SERVICE_UNAVAILABLE, "The platform cannot look it up just now.");
        }
    };
    // Not before it is known whom it is for: it may be long, and anybody may send it.
    let Ok(body) = to_bytes(body, LARGEST).await else {
        return say(StatusCode::PAYLOAD_TOO_LARGE, "The body did not come whole, or is longer than 25 MiB.");
    };
    if !is_signed(&headers, &body, &linked.secret) {
        return say(
            StatusCode::UNAUTHORIZED,
            "The signature is missing or wrong: see `platform repository` for the secret.",
        );
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let event = ["x-gitea-event", "x-github-event", "x-gitlab-event"].into_iter().find_map(text).unwrap_or_default();
    if !["push", "Push Hook"].contains(&event) {
        return say(StatusCode::OK, "Heard. Only pushes are deployed.");
    }
    let Some(pushed) = pushed(&body) else {
        return say(StatusCode::BAD_REQUEST, "The body is not what a push looks like: it must be JSON with `ref`.");
    };
    if pushed.r#ref.strip_prefix("refs/heads/") != Some(&linked.branch) {
        return say(StatusCode::OK, &format!("Heard. Only the branch {} is deployed.", linked.branch));
    }
    controller.follow(linked, Origin::default());
    say(StatusCode::ACCEPTED, "It will be fetched and deployed.")
}

fn say(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}

/// JSON, or a form with it in `payload`.
fn pushed(body: &[u8]) -> Option<Pushed> {
    let form =
        || url::form_urlencoded::parse(body).find(|(name, _)| name == "payload").map(|(_, value)| value.into_owned());
    serde_json::from_slice(body).ok().or_else(|| serde_json::from_str(&form()?).ok())
}

/// Whether whoever sent this knows the secret.
fn is_signed(headers: &HeaderMap, body: &[u8], secret: &str) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let github = || text("x-hub-signature-256").and_then(|value| value.strip_prefix("sha256="));
    if let Some(signature) = github().or_else(|| text("x-gitea-signature")) {
        // A key of any length is good.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
        mac.update(body);
        return hex::decode(signature).is_ok_and(|signature| mac.verify_slice(&signature).is_ok());
    }
    // GitLab sends the secret itself. Of digests the time that a comparison takes tells nothing.
    text("x-gitlab-token").is_some_and(|token| digest(token) == digest(secret))
}
