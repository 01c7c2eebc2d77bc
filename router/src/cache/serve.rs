//! An answer that is kept, as a client gets it.

use bytes::Bytes;
use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{Method, StatusCode};
use hyper::body::{Frame, SizeHint};
use model::Timestamp;

use super::rules;
use super::store::Entry;
use crate::access_log::Record;
use crate::headers::tokens;

/// What was kept, and how it comes to be served (RFC 9211).
pub(super) const STATUS: HeaderName = HeaderName::from_static("cache-status");

/// These describe a body, which a 304 has not.
const OF_BODY: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_LANGUAGE];

/// The head and the body for a request.
pub(super) fn head(
    entry: &Entry,
    (method, request): (&Method, &HeaderMap),
    now: Timestamp,
) -> (StatusCode, HeaderMap, Bytes) {
    let mut headers = entry.headers.clone();
    headers.insert(AGE, entry.age(now).as_secs().into());
    if is_known(entry, request) {
        for name in &OF_BODY {
            headers.remove(name);
        }
        return (StatusCode::NOT_MODIFIED, headers, Bytes::new());
    }
    let body = if method == Method::HEAD { Bytes::new() } else { entry.body.bytes.clone() };
    (entry.status, headers, body)
}

/// Whether the client has it already (RFC 9110 section 13.2.2).
fn is_known(entry: &Entry, request: &HeaderMap) -> bool {
    if entry.status != StatusCode::OK {
        return false;
    }
    if request.contains_key(IF_NONE_MATCH) {
        let own = entry.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).map(opaque);
        let mut all = request.get_all(IF_NONE_MATCH).iter().flat_map(tokens);
        return all.any(|tag| tag == "*" || (own.is_some() && Some(opaque(tag)) == own));
    }
    let Some(since) = request.get(IF_MODIFIED_SINCE) else { return false };
    let Some(modified) = entry.headers.get(LAST_MODIFIED) else { return false };
    since == modified
        || rules::of(request, &IF_MODIFIED_SINCE)
            .zip(rules::of(&entry.headers, &LAST_MODIFIED))
            .is_some_and(|(since, modified)| modified <= since)
}

/// An entity tag, as far as weak ones are compared.
pub(super) fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// Whether there is something to ask by whether an answer is still the one that is kept.
pub(super) fn can_validate(entry: &Entry) -> bool {
    entry.headers.contains_key(ETAG) || entry.headers.contains_key(LAST_MODIFIED)
}

/// Puts that into a request; false if there is nothing.
pub(super) fn validate(entry: &Entry, request: &mut HeaderMap) -> bool {
    if !can_validate(entry) {
        return false;
    }
    for (asks, said) in [(IF_NONE_MATCH, ETAG), (IF_MODIFIED_SINCE, LAST_MODIFIED)] {
        request.remove(&asks);
        request.extend(entry.headers.get(said).map(|value| (asks, value.clone())));
    }
    true
}

/// `platform; ` and what became of the request here, behind what others say.
pub(super) fn say(headers: &mut HeaderMap, what: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("platform; {what}")) {
        headers.append(STATUS, value);
    }
}

/// A body that is kept, on its way to a client.
pub(crate) struct Stored {
    body: Bytes,
    record: Record,
}

impl Stored {
    pub(super) fn new(body: Bytes, mut record: Record) -> Self {
        record.complete = body.is_empty();
        Self { body, record }
    }

    pub(crate) fn next(&mut self) -> Option<Frame<Bytes>> {
        if self.body.is_empty() {
            return None;
        }
        self.record.bytes = self.body.len() as u64;
        self.record.complete = true;
        Some(Frame::data(std::mem::take(&mut self.body)))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.body.is_empty()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.len() as u64)
    }
}
