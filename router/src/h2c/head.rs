//! Heads of messages, from HTTP/1 to HTTP/2 and back.

use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, TE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, StatusCode, Uri};

use crate::failure::Failure;
use crate::headers::{self, Hop, Stamp};
use crate::place::Mounted;
use crate::proxy::{forward, seen_path};
use crate::response::{self, COOKIE_LIMIT, HEAD_LIMIT, HEADERS_LIMIT, Head, LINE_LIMIT};

/// Most bytes of trailers. Those of gRPC may hold what went wrong.
const TRAILERS_LIMIT: usize = 64 << 10;

/// The head of a request as an instance gets it.
pub(crate) fn request(
    (parts, mounted): (&Parts, Option<Mounted>),
    hop: &Hop,
    started: i64,
    new_id: impl FnOnce() -> HeaderValue,
) -> (Stamp, Request<()>) {
    let mut headers = HeaderMap::with_capacity(parts.headers.len() + 8);
    let stamp = forward((parts, mounted), hop, started, new_id, |name, value| {
        // It was a value before.
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    });
    // The only thing that may be said here, and gRPC wants it said.
    let te = parts.headers.get_all(TE).iter().flat_map(headers::tokens);
    if te.into_iter().any(|token| token.eq_ignore_ascii_case("trailers")) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let mut request = Request::new(());
    if let Some(uri) = target(&headers, &seen_path(parts, mounted)) {
        headers.remove(HOST);
        *request.uri_mut() = uri;
    }
    *request.method_mut() = parts.method.clone();
    *request.headers_mut() = headers;
    (stamp, request)
}

/// What `Host` says and the path, as one.
fn target(headers: &HeaderMap, path: &str) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::try_from(headers.get(HOST)?.as_bytes()).ok()?);
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// The head of an answer, made fit for a client, and how long its body is, if it says so.
pub(super) fn answer(answer: http::response::Parts) -> Result<(Head, Option<u64>), Failure> {
    let http::response::Parts { status, mut headers, .. } = answer;
    let mut size = 0;
    for (name, value) in &headers {
        let length = line(name, value);
        if name == SET_COOKIE && length > COOKIE_LIMIT {
            return Err(Failure::OversizedCookie);
        }
        size += length;
        if length > LINE_LIMIT || size > HEAD_LIMIT {
            return Err(Failure::OversizedHeader);
        }
    }
    if headers.len() > HEADERS_LIMIT {
        return Err(Failure::OversizedHeader);
    }
    if status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if let Some(length) = length {
        // Equal lengths, sent twice, become one.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers::forward_response(&mut headers);
    let body = response::Body::Over;
    Ok((Head { status, headers, body, upgrade: None, stays: false, keep_alive: None }, length))
}

/// Whether trailers are as few as there may be.
pub(super) fn are_few(trailers: &HeaderMap) -> bool {
    trailers.iter().map(|(name, value)| line(name, value)).sum::<usize>() <= TRAILERS_LIMIT
}

fn line(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + value.len()
}
