//! Requests that are to come again: over TLS, or for another host.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HeaderValue, LOCATION};
use http::{Method, Response, StatusCode};
use model::{Hostname, PathPrefix, RoutePolicy};

use super::Asked;

/// Where a request should have gone.
pub(super) fn target(policy: &RoutePolicy, asked: &Asked<'_>) -> Option<String> {
    let is_secure = asked.hop.scheme == "https";
    // Where no TLS is taken there is nothing to send anybody to.
    let tls_port = asked.tls_port.filter(|_| policy.https && !is_secure);
    let canonical = policy.canonical_host.as_ref().filter(|host| host.as_str() != asked.host);
    if tls_port.is_none() && canonical.is_none() {
        return None;
    }
    let own_port = asked.hop.port.to_str().ok().and_then(|port| port.parse::<u16>().ok());
    let (scheme, usual, port) = match tls_port {
        Some(port) => ("https", 443, port),
        None if is_secure => ("https", 443, own_port.unwrap_or(443)),
        None => ("http", 80, own_port.unwrap_or(80)),
    };
    let path = asked.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = canonical.map_or(Cow::Borrowed(path), |host| there(host, path, asked));
    let host = canonical.map_or(asked.host, Hostname::as_str);
    let port = if port == usual { String::new() } else { format!(":{port}") };
    Some(format!("{scheme}://{host}{port}{path}"))
}

/// A path as it is on another host: what the app sees of it, below the path that the app has there.
fn there<'a>(host: &Hostname, path: &'a str, asked: &Asked<'_>) -> Cow<'a, str> {
    let (app, mounted) = asked.app;
    let parts = asked.table.parts(host).unwrap_or_default();
    let is_same = |place: &(Option<&PathPrefix>, bool)| place.0.map(PathPrefix::as_str) == asked.prefix();
    match parts.of(app).next().filter(|_| !parts.of(app).any(|place| is_same(&place))) {
        // It has the same path there, or none that anybody knows of: a wildcard has it, or the host is not its own.
        None => path.into(),
        Some((prefix, strip)) => {
            let seen = mounted.map_or(Cow::Borrowed(path), |mounted| mounted.seen(path));
            match prefix.filter(|_| strip) {
                None => seen,
                Some(prefix) => format!("{prefix}{seen}").into(),
            }
        }
    }
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
