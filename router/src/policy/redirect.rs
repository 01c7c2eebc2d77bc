//! Requests that are to come again: over TLS, or for another host.

use bytes::Bytes;
use http::header::{HeaderValue, LOCATION};
use http::{Method, Response, StatusCode};
use model::RoutePolicy;

use super::Asked;

/// Where a request should have gone.
pub(super) fn target(policy: &RoutePolicy, asked: &Asked<'_>) -> Option<String> {
    let is_secure = asked.hop.scheme == "https";
    // Where no TLS is taken there is nothing to send anybody to.
    let tls_port = asked.tls_port.filter(|_| policy.https && !is_secure);
    let canonical = policy.canonical_host.as_ref().map(model::Hostname::as_str).filter(|host| *host != asked.host);
    if tls_port.is_none() && canonical.is_none() {
        return None;
    }
    let own_port = asked.hop.port.to_str().ok().and_then(|port| port.parse::<u16>().ok());
    let (scheme, usual, port) = match tls_port {
        Some(port) => ("https", 443, port),
        None if is_secure => ("https", 443, own_port.unwrap_or(443)),
        None => ("http", 80, own_port.unwrap_or(80)),
    };
    let host = canonical.unwrap_or(asked.host);
    let path = asked.uri.path_and_query().map_or("/", |path| path.as_str());
    let port = if port == usual { String::new() } else { format!(":{port}") };
    Some(format!("{scheme}://{host}{port}{path}"))
}

/// Sends there. A client may make a GET of anything that was answered with a 301.
pub(super) fn page(location: &str, method: &Method) -> Response<Bytes> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = if is_read { StatusCode::MOVED_PERMANENTLY } else { StatusCode::PERMANENT_REDIRECT };
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
