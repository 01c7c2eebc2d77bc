//! What changes in a message's headers on its way through: hop-by-hop ones go, the router's own are added.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers of one hop only (RFC 9110 section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];

/// What decides where a request goes, or what an app trusts: `Connection` cannot name these away.
const KEPT: [HeaderName; 7] =
    [HOST, CONTENT_LENGTH, FORWARDED_FOR, FORWARDED_PORT, FORWARDED_PROTO, REQUEST_ID, REQUEST_START];

/// What a client's connection adds to each of its requests.
pub(crate) struct Hop {
    pub(crate) address: HeaderValue,
    pub(crate) port: HeaderValue,
    /// `http` or `https`
    pub(crate) scheme: HeaderValue,
}

impl Hop {
    pub(crate) fn new(client: IpAddr, port: u16, scheme: &'static str) -> Self {
        // An address printed as text is a valid header value; the other arm cannot happen.
        let address = HeaderValue::try_from(client.to_canonical().to_string());
        Self {
            address: address.unwrap_or(HeaderValue::from_static("unknown")),
            port: port.into(),
            scheme: HeaderValue::from_static(scheme),
        }
    }
}

/// What every request gets, and the access log repeats.
pub(crate) struct Stamp {
    pub(crate) request_id: HeaderValue,
    pub(crate) forwarded_for: HeaderValue,
}

/// Makes the headers of a client's request those of ours. `started` is in milliseconds since the epoch; `new_id` makes a
/// request id if the client sent no good one.
pub(crate) fn forward_request(
    headers: &mut HeaderMap,
    hop: &Hop,
    started: i64,
    new_id: impl FnOnce() -> HeaderValue,
) -> Stamp {
    let upgrade = upgrade_wanted(headers).cloned();
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    remove_hop_by_hop(headers);
    remove_look_alikes(headers);
    headers.remove(EXPECT);
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
    if chunked {
        // Left to itself hyper takes a GET for one without a body.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(length) = headers.get(CONTENT_LENGTH).cloned() {
        // Equal lengths, sent twice, become one.
        headers.insert(CONTENT_LENGTH, length);
    }
    let forwarded_for = append_address(headers, &hop.address);
    headers.insert(FORWARDED_FOR, forwarded_for.clone());
    headers.insert(FORWARDED_PROTO, hop.scheme.clone());
    headers.insert(FORWARDED_PORT, hop.port.clone());
    headers.insert(REQUEST_START, started.into());
    headers.append(VIA, HeaderValue::from_static("1.1 platform"));
    let request_id = match headers.get(REQUEST_ID) {
        Some(id) if is_request_id(id.as_bytes()) => id.clone(),
        _ => new_id(),
    };
    headers.insert(REQUEST_ID, request_id.clone());
    Stamp { request_id, forwarded_for }
}

/// Makes the headers of an instance's response those of ours.
pub(crate) fn forward_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    headers.append(VIA, HeaderValue::from_static("1.1 platform"));
}

/// The protocol that a request wants to change to, if it wants to. Not `h2c`: inside it requests would pass that nobody
/// here checked or counted, and RFC 9113 took it out of the protocol.
pub(crate) fn upgrade_wanted(headers: &HeaderMap) -> Option<&HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    let names_it = tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    (names_it && !upgrade.as_bytes().eq_ignore_ascii_case(b"h2c")).then_some(upgrade)
}

/// Whether an answer changes to the protocol of `WebSocket`s.
pub(crate) fn is_web_socket(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// How many seconds a server says it keeps an idle connection open (`Keep-Alive: timeout=5`).
pub(crate) fn keep_alive_seconds(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?.parse().ok()
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> =
            tokens(headers).filter_map(|token| token.parse().ok()).filter(|name| !KEPT.contains(name)).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Many servers read `X_Forwarded_For` as `X-Forwarded-For` (both are `HTTP_X_FORWARDED_FOR` in CGI): such a header would
/// pass a client's word off as ours.
fn remove_look_alikes(headers: &mut HeaderMap) {
    let is_fake = |name: &&HeaderName| {
        let name = name.as_str();
        let dashed = || name.replace('_', "-");
        name.contains('_') && KEPT.iter().chain(&HOP_BY_HOP).any(|kept| kept.as_str() == dashed())
    };
    let fakes: Vec<HeaderName> = headers.keys().filter(is_fake).cloned().collect();
    for name in fakes {
        headers.remove(name);
    }
}

fn append_address(headers: &HeaderMap, address: &HeaderValue) -> HeaderValue {
    if !headers.contains_key(FORWARDED_FOR) {
        return address.clone();
    }
    let mut joined = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        joined.extend_from_slice(value.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(address.as_bytes());
    // Valid values joined by a comma are a valid value.
    HeaderValue::try_from(joined).unwrap_or_else(|_| address.clone())
}

fn is_request_id(id: &[u8]) -> bool {
    (20..=200).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        let hop = Hop::new(IpAddr::from([9, 9, 9, 9]), 8080, "http");
        forward_request(&mut headers, &hop, 1_000, || HeaderValue::from_static("made-up"));
        headers
    }

    #[test]
    fn the_router_says_who_asked_and_believes_no_one_else() {
        let headers = forwarded(&[
            ("host", "a.test"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("x_forwarded_proto", "https"),
            ("x-request-id", "short"),
            ("connection", "close, X-Forwarded-For, host, x-secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
        ]);
        let get = |name: &str| headers.get(name).map(|value| value.to_str().expect("text"));
        assert_eq!(get("x-forwarded-for"), Some("1.1.1.1, 2.2.2.2, 9.9.9.9"));
        assert_eq!((get("x-forwarded-proto"), get("x-forwarded-port")), (Some("http"), Some("8080")));
        assert_eq!((get("x-request-id"), get("x-request-start")), (Some("made-up"), Some("1000")));
        assert_eq!((get("via"), get("host")), (Some("1.1 platform"), Some("a.test")));
        for name in ["x_forwarded_proto", "connection", "x-secret", "te"] {
            assert_eq!(get(name), None, "{name}");
        }
    }

    #[test]
    fn a_good_request_id_and_an_upgrade_pass() {
        let id = "0123456789-0123456789";
        let headers = forwarded(&[("x-request-id", id), ("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(headers["x-request-id"], id);
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&"upgrade".parse().expect("a value"), &"websocket".parse().expect("a value"))
        );
        let headers =
            forwarded(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "x")]);
        assert!(!headers.contains_key("upgrade") && !headers.contains_key("http2-settings"));
    }
}
