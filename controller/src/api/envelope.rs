//! What every answer has around it: `Request-Id`, `RateLimit-Remaining`, `ETag`, and JSON also when a handler panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::Controller;

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// The client sends a growing list of ids; of that, so much is given back.
const MAX_REQUEST_ID: usize = 7 * 1024;
/// Larger answers get no `ETag`.
const MAX_TAGGED: u64 = 4 << 20;

/// How many requests are left to whoever sent one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remaining(pub(super) u32);

/// The id of a request, without those that its client sent.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

pub(super) async fn wrap(State(controller): State<Arc<Controller>>, mut request: Request, next: Next) -> Response {
    let own_id = controller.new_uuid();
    request.extensions_mut().insert(RequestId(own_id.clone()));
    let request_id = append_id(request.headers(), &own_id);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let if_none_match = request.headers().get(header::IF_NONE_MATCH).cloned();
    let response = AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(http.method = %method, http.path = path, request.id = own_id, "A handler panicked");
        ApiError::internal().into_response()
    });
    let mut response = if method == Method::GET { tag(response, if_none_match.as_ref()).await } else { response };
    let remaining = response.extensions().get::<Remaining>().copied();
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    if let Some(Remaining(remaining)) = remaining {
        headers.insert(RATE_LIMIT, HeaderValue::from(remaining));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    response
}

/// The client's ids with ours behind them.
fn append_id(headers: &HeaderMap, own: &str) -> HeaderValue {
    let theirs = headers.get(REQUEST_ID).map(HeaderValue::as_bytes).unwrap_or_default();
    let joined = match theirs {
        [] => own.as_bytes().to_vec(),
        theirs if theirs.len() > MAX_REQUEST_ID => own.as_bytes().to_vec(),
        theirs => [theirs, b",", own.as_bytes()].concat(),
    };
    HeaderValue::from_bytes(&joined).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
}

/// Gives a whole JSON answer its `ETag`, or takes the body away if the client has it already.
async fn tag(response: Response, if_none_match: Option<&HeaderValue>) -> Response {
    let is_whole = response.body().size_hint().exact().is_some_and(|size| size <= MAX_TAGGED);
    if response.status() != StatusCode::OK || !is_whole || !is_json(response.headers()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // A body of known size is in memory already: this reads nothing and cannot fail.
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else { return ApiError::internal().into_response() };
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(&bytes)[..16]));
    let Ok(tag) = HeaderValue::from_str(&tag) else { return Response::from_parts(parts, bytes.into()) };
    let matches = if_none_match.is_some_and(|known| is_listed(known, &tag));
    parts.headers.insert(header::ETAG, tag);
    if matches {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, bytes.into())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

/// `"a", W/"b"` or `*` (RFC 9110, section 13.1.2).
fn is_listed(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else { return false };
    known.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}
