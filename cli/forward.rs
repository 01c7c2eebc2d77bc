//! A door on this machine's loopback to a platform that may be anywhere.
//!
//! The `heroku` program sends its token to Heroku's own hosts and to `localhost`, and nowhere else. So its requests come in
//! here and are passed on. Other users of this machine could come in as well: only requests that bring the token already are
//! passed on, and nothing is ever added to one.

use std::io::Read;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use ureq::Agent;
use url::Url;

/// Largest request that is passed on, in bytes: what is larger goes elsewhere by itself.
const LIMIT: usize = 64 << 20;

/// Headers that are about one connection and not the request (RFC 9110, section 7.6.1), or that whoever sends it on writes itself.
const NOT_PASSED: [HeaderName; 7] = [
    header::HOST,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::ACCEPT_ENCODING,
    header::CONTENT_ENCODING,
    header::UPGRADE,
];

/// Where requests go, and what they must bring.
pub(crate) struct Door {
    /// The platform.
    pub(crate) base: Url,
    /// Speaks to it.
    pub(crate) agent: Agent,
    /// The token that lets a request through.
    pub(crate) token: String,
}

/// Passes requests on for as long as this is awaited.
pub(crate) async fn serve(listener: TcpListener, door: Door) -> std::io::Result<()> {
    axum::serve(listener, Router::new().fallback(forward).with_state(Arc::new(door))).await
}

async fn forward(State(door): State<Arc<Door>>, request: Request) -> Response {
    if !brings(&door.token, request.headers()) {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "This port is for one run of `platform heroku` alone.",
        );
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, LIMIT).await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "The request is too large.");
    };
    let mut target = door.base.clone();
    target.set_path(parts.uri.path());
    target.set_query(parts.uri.query());
    let mut onward = ureq::http::Request::builder().method(parts.method).uri(target.as_str());
    for (name, value) in &parts.headers {
        if !NOT_PASSED.contains(name) {
            onward = onward.header(name, value);
        }
    }
    let answer = tokio::task::spawn_blocking(move || send(&door.agent, onward, &body)).await;
    match answer.map_err(|error| error.to_string()).flatten() {
        Ok(response) => response,
        Err(error) => {
            let message = format!("The platform at {} cannot be reached: {error}", door_name(&target));
            refuse(StatusCode::BAD_GATEWAY, "bad_gateway", &message)
        }
    }
}

fn send(agent: &Agent, request: ureq::http::request::Builder, body: &Bytes) -> Result<Response, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let answer = if body.is_empty() {
        agent.run(request.body(()).map_err(|error| text(&error))?)
    } else {
        agent.run(request.body(&body[..]).map_err(|error| text(&error))?)
    };
    let (parts, body) = answer.map_err(|error| text(&error))?.into_parts();
    let mut bytes = Vec::new();
    body.into_reader().read_to_end(&mut bytes).map_err(|error| text(&error))?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = parts.status;
    for (name, value) in &parts.headers {
        if !NOT_PASSED.contains(name) {
            response.headers_mut().append(name, value.clone());
        }
    }
    Ok(response)
}

/// Whether a request brings the token: as `Bearer`, or where a password goes.
fn brings(token: &str, headers: &HeaderMap) -> bool {
    let brought = headers.get(header::AUTHORIZATION).and_then(token_of);
    // Hashes, so that the time to compare them tells nothing.
    brought.is_some_and(|brought| Sha256::digest(brought) == Sha256::digest(token))
}

fn token_of(value: &HeaderValue) -> Option<String> {
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let decoded = String::from_utf8(BASE64.decode(rest.trim()).ok()?).ok()?;
    Some(decoded.split_once(':')?.1.to_owned())
}

fn door_name(target: &Url) -> String {
    target.origin().ascii_serialization()
}

fn refuse(status: StatusCode, id: &str, message: &str) -> Response {
    (status, axum::Json(json!({ "id": id, "message": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_brings_the_token_gets_through() {
        let passes = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            brings("secret", &HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };
        let basic = |text: &str| passes(&format!("Basic {}", BASE64.encode(text)));
        assert!(passes("Bearer secret") && basic(":secret") && basic("me@example.com:secret"));
        assert!(!passes("Bearer other") && !basic("secret:") && !passes("secret"));
        assert!(!brings("secret", &HeaderMap::new()));
    }

    #[tokio::test]
    async fn requests_and_answers_pass_as_they_are() {
        let platform = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = Url::parse(&format!("http://{}/", platform.local_addr().unwrap())).unwrap();
        let echo = |request: Request| async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, LIMIT).await.unwrap();
            let range = parts.headers.get("range").cloned().unwrap();
            (StatusCode::PARTIAL_CONTENT, [("next-range", range)], format!("{} {} {body:?}", parts.method, parts.uri))
        };
        tokio::spawn(async move { axum::serve(platform, Router::new().fallback(echo)).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/apps/a%2Fb?x=y", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, Door { base, agent: Agent::new_with_defaults(), token: "secret".to_owned() }));
        let ask = |token: &'static str| {
            let request = ureq::http::Request::delete(&url).header("authorization", token).header("range", "id ..");
            let request = request.body("{}").unwrap();
            let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
            tokio::task::spawn_blocking(move || {
                let mut answer = agent.run(request).unwrap();
                let next = answer.headers().get("next-range").cloned();
                (answer.status().as_u16(), next, answer.body_mut().read_to_string().unwrap())
            })
        };
        let (status, next, text) = ask("Bearer secret").await.unwrap();
        assert_eq!((status, text.as_str()), (206, "DELETE /apps/a%2Fb?x=y b\"{}\""));
        assert_eq!(next.unwrap(), "id ..");
        assert_eq!(ask("Bearer guess").await.unwrap().0, 401);
    }
}
