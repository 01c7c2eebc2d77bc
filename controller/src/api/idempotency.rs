//! `Idempotency-Key`: a POST that is sent twice under one key is done once, and both get the same answer. A client that does
//! not know whether its request arrived sends it again.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use super::input::read_body;
use crate::store::Known;
use crate::{Actor, Controller, Error};

/// The header.
pub(super) const HEADER: &str = "idempotency-key";
/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// After so long, whoever took a request on is taken for dead: a controller that was killed answers nothing.
const OPEN: Duration = Duration::from_secs(10 * 60);
const MAX_KEY: usize = 255;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers a request that was answered before, and keeps the answer of one that was not.
pub(super) async fn once(
    State(controller): State<Arc<Controller>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (Some(key), Some((sender, is_known))) = (key(request.headers())?, sender(&request)) else {
        return Ok(next.run(request).await);
    };
    let id = hex::encode(Sha256::digest(format!("{sender}\n{key}")));
    let (parts, body) = request.into_parts();
    let body = read_body(body).await?;
    let mut digest = Sha256::new_with_prefix(format!("{} {}\n", parts.method, parts.uri));
    digest.update(&body);
    let digest = hex::encode(digest.finalize());
    let now = controller.clock.now();
    match controller.store.take_request((&id, &digest), now, now.after(OPEN)).await? {
        Known::New => {}
        Known::Answered { status, body } => {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            return Ok((status, [(CONTENT_TYPE, JSON)], body).into_response());
        }
        Known::Open => {
            let message = "A request with this Idempotency-Key is being answered; ask again in a moment.";
            return Err(Error::Conflict(message.to_owned()).into());
        }
        Known::Other => return Err(ApiError::invalid("The Idempotency-Key was used for another request")),
    }
    // It goes on when the client goes away: this is just for clients that come back.
    let answering = tokio::spawn(async move {
        let response = next.run(Request::from_parts(parts, Body::from(body))).await;
        keep(&controller, (&id, is_known), response).await
    });
    answering.await.unwrap_or_else(|failed| match failed.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(ApiError::internal()),
    })
}

/// Who sends a request, and whether that is proved by now. Routes that are open to anyone look at what it says themselves.
fn sender(request: &Request) -> Option<(String, bool)> {
    if let Some(actor) = request.extensions().get::<Actor>() {
        return Some((actor.user.id.to_string(), true));
    }
    let said = request.headers().get(AUTHORIZATION)?;
    Some((hex::encode(Sha256::digest(said.as_bytes())), false))
}

/// The key of a request. Uploads have none: their bodies are not read here.
fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get(HEADER) else { return Ok(None) };
    if headers.get(CONTENT_TYPE).is_some_and(|sent| sent == "application/octet-stream") {
        return Ok(None);
    }
    match key.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(ApiError::invalid(format!("Idempotency-Key must have 1 to {MAX_KEY} visible ASCII characters"))),
    }
}

/// Keeps what was done and what can never be done. What failed on our side can be tried again, and so can what was refused to
/// somebody who is not known: the next time there may be a code with the password.
async fn keep(controller: &Controller, (id, is_known): (&str, bool), response: Response) -> Result<Response, ApiError> {
    let status = response.status();
    let passing = [StatusCode::CONFLICT, StatusCode::REQUEST_TIMEOUT, StatusCode::LOCKED];
    let passes = status.is_server_error() || passing.contains(&status) || !(is_known || status.is_success());
    if passes || response.body().size_hint().exact().is_none() {
        controller.store.forget_request(id).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    // A body of known size is in memory already: this reads nothing and cannot fail.
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.map_err(|_| ApiError::internal())?;
    let end = controller.clock.now().after(KEPT);
    controller.store.keep_answer(id, (status.as_u16(), &body), end).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;

    use super::*;
    use crate::testing::PASSWORD;
    use crate::testing::http::Server;

    #[tokio::test]
    async fn a_request_that_is_sent_again_is_done_once() {
        let server = Server::start().await;
        let ada = server.user("ada@example.com").await;
        let create = async |key: &str, body: Value| ada.send("POST", "/apps", &[(HEADER, key)], body).await;
        let (one, other) = tokio::join!(create("k1", json!({})), create("k1", json!({})));
        let again = create("k1", json!({})).await;
        for answer in [&one, &other] {
            assert!(answer.status == 409 || (answer.status, &answer.body) == (201, &again.body), "{}", answer.text);
        }
        assert_eq!(again.status, 201);
        assert_eq!(ada.get("/apps").await.body.as_array().map(Vec::len), Some(1));

        let another = create("k1", json!({"name": "another"})).await;
        assert_eq!((another.status, another.id()), (422, "invalid_params"));
        assert_eq!(create("k2", json!({"name": "another"})).await.status, 201);
        assert_eq!(create("k2", json!({"name": "another"})).await.status, 201, "not that the name is taken");
        assert_eq!(create(&"k".repeat(300), json!({})).await.status, 422);
        let eve = server.user("eve@example.com").await;
        let hers = eve.send("POST", "/apps", &[(HEADER, "k1")], json!({})).await;
        assert_ne!(hers.body["id"], again.body["id"], "everybody has keys of their own");

        let refused = create("k3", json!({"name": "another"})).await;
        assert_eq!(refused.status, 422);
        ada.send("DELETE", "/apps/another", &[], Value::Null).await;
        assert_eq!(create("k3", json!({"name": "another"})).await.body, refused.body, "a refusal stays one");
        server.test.clock.advance(KEPT);
        assert_eq!(create("k3", json!({"name": "another"})).await.status, 201, "for a day");
    }

    #[tokio::test]
    async fn a_token_that_is_asked_for_twice_by_password_is_made_once() {
        let server = Server::start().await;
        let ada = server.user("ada@example.com").await;
        let login = async |password: &str| {
            let basic = format!("Basic {}", BASE64.encode(format!("ada@example.com:{password}")));
            let headers = [(HEADER, "k1"), ("authorization", basic.as_str())];
            server.stranger().send("POST", "/oauth/authorizations", &headers, json!({})).await
        };
        let (made, again) = (login(PASSWORD).await, login(PASSWORD).await);
        assert_eq!((made.status, &made.body), (201, &again.body));
        assert_eq!(ada.get("/oauth/authorizations").await.body.as_array().map(Vec::len), Some(2), "with hers before");
        assert_eq!(login("wrong").await.status, 401, "a key is no password");
        server.test.controller.set_password(&ada_email(), "another password").await.expect("set");
        assert_eq!(login("another password").await.status, 201);
    }

    #[tokio::test]
    async fn a_refusal_that_may_pass_is_not_kept() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        ada.send("PUT", "/apps/shop/lock", &[], json!({})).await;
        let change = async || {
            let body = json!({"vars": {"A": "1"}});
            ada.send("POST", "/apps/shop/config-changes", &[(HEADER, "k1")], body).await.status
        };
        assert_eq!(change().await, 423);
        ada.send("DELETE", "/apps/shop/lock", &[], Value::Null).await;
        assert_eq!(change().await, 201);
    }

    fn ada_email() -> model::Email {
        "ada@example.com".parse().expect("an address")
    }
}
