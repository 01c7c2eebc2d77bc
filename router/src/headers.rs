//! What changes in a message's headers on its way through: hop-by-hop ones go, the router's own are added.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};

use crate::seats::Seat;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
pub(crate) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers of one hop only (RFC 9110 section 7.6.1), besides those that `Connection` names.
static HOP_BY_HOP: [HeaderName; 8] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];

/// What decides where a request goes, or what an app trusts: `Connection` cannot name these away.
static KEPT: [HeaderName; 7] =
    [HOST, CONTENT_LENGTH, FORWARDED_FOR, FORWARDED_PORT, FORWARDED_PROTO, REQUEST_ID, REQUEST_START];

/// Those that an app gets from us alone.
static REPLACED: [HeaderName; 3] = [FORWARDED_FOR, FORWARDED_PORT, FORWARDED_PROTO];

const OUR_VIA: &str = "1.1 platform";

/// What a client's connection adds to each of its requests.
#[derive(Clone)]
pub(crate) struct Hop {
    /// Whoever made the connection.
    pub(crate) peer: IpAddr,
    /// The client's.
    pub(crate) address: HeaderValue,
    pub(crate) port: HeaderValue,
    /// `http` or `https`
    pub(crate) scheme: HeaderValue,
    /// As in the access log, if there is any.
    pub(crate) tls: Option<&'static str>,
    /// Whom a proxy forwarded the request for that is trusted, and that proxy. `None`: the client came by itself, and nobody has to be believed.
    forwarded_for: Option<HeaderValue>,
    /// The connection's, which whoever knows of it holds.
    seat: Option<Rc<Seat>>,
}

impl Hop {
    pub(crate) fn seated(self, seat: &Rc<Seat>) -> Self {
        Self { seat: Some(Rc::clone(seat)), ..self }
    }

    pub(crate) fn new(client: IpAddr, port: u16, tls: Option<&'static str>) -> Self {
        Self {
            peer: client,
            address: address(client),
            port: port.into(),
            scheme: HeaderValue::from_static(if tls.is_some() { "https" } else { "http" }),
            tls,
            forwarded_for: None,
            seat: None,
        }
    }

    /// A proxy that is trusted says whose the request is.
    pub(crate) fn is_behind(&self) -> bool {
        self.forwarded_for.is_some()
    }

    /// One request of a proxy that says truly whose it is: with the client's address in the place of the proxy's, and the scheme and port that the
    /// client used.
    pub(crate) fn behind(&self, headers: &HeaderMap, is_proxy: impl Fn(IpAddr) -> bool) -> Self {
        let items = headers.get_all(FORWARDED_FOR).iter().flat_map(tokens);
        let mut chain: Vec<IpAddr> = Vec::new();
        for item in items {
            match item.parse() {
                Ok(address) => chain.push(address),
                // Nobody is there whose word it could be what stands before it.
                Err(_) => chain.clear(),
            }
        }
        let client = chain.iter().rposition(|address| !is_proxy(*address)).or((!chain.is_empty()).then_some(0));
        let client = client.map(|index| chain.swap_remove(index));
        let scheme = match only(headers, &FORWARDED_PROTO) {
            Some(scheme) if scheme == "http" || scheme == "https" => Some(scheme.clone()),
            _ => None,
        };
        let port =
            only(headers, &FORWARDED_PORT).filter(|port| port.to_str().is_ok_and(|port| port.parse::<u16>().is_ok()));
        let usual = scheme.as_ref().map(|scheme| HeaderValue::from(if scheme == "https" { 443_u16 } else { 80 }));
        Self {
            peer: self.peer,
            address: client.map_or_else(|| self.address.clone(), address),
            port: port.cloned().or(usual).unwrap_or_else(|| self.port.clone()),
            scheme: scheme.unwrap_or_else(|| self.scheme.clone()),
            tls: self.tls,
            forwarded_for: Some(append_address(headers, &self.address)),
            seat: self.seat.clone(),
        }
    }
}

/// An address printed as text is a valid header value; the other one cannot happen.
fn address(client: IpAddr) -> HeaderValue {
    let text = match client.to_canonical() {
        // The standard library takes five times as long to print it, and each connection does.
        IpAddr::V4(address) => {
            let (mut text, mut number) = (String::with_capacity("255.255.255.255".len()), itoa::Buffer::new());
            for (index, octet) in address.octets().into_iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "." });
                text.push_str(number.format(octet));
            }
            text
        }
        IpAddr::V6(address) => address.to_string(),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
}

/// The value of a header that is there once.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// What every request gets, and the access log repeats.
pub(crate) struct Stamp {
    pub(crate) request_id: HeaderValue,
    pub(crate) forwarded_for: HeaderValue,
}

/// Gives the headers that an app is to get with a client's request: the end-to-end ones, and ours. `started` is in milliseconds since
/// the epoch; `new_id` makes a request id if the client sent no good one.
pub(crate) fn forward_request(
    headers: &HeaderMap,
    hop: &Hop,
    started: i64,
    new_id: impl FnOnce() -> HeaderValue,
    mut give: impl FnMut(&HeaderName, &[u8]),
) -> Stamp {
    let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(tokens).filter_map(self::named).collect();
    let (mut length, mut id, mut began, mut has_upgrade) = (None, None, None, false);
    for (name, value) in headers {
        if *name == CONTENT_LENGTH {
            length = length.or(Some(value));
        } else if *name == REQUEST_ID {
            id = id.or(Some(value));
        } else if *name == REQUEST_START {
            began = began.or(Some(value));
        } else if *name == UPGRADE {
            has_upgrade = true;
        } else if !(REPLACED.contains(name)
            || is_hop_by_hop(name)
            || *name == EXPECT
            || (hop.forwarded_for.is_none() && is_forwarding(name))
            || named.contains(name)
            || is_look_alike(name))
        {
            give(name, value.as_bytes());
        }
    }
    if let Some(length) = length {
        // Equal lengths, sent twice, become one.
        give(&CONTENT_LENGTH, length.as_bytes());
    }
    if has_upgrade && let Some(upgrade) = upgrade_wanted(headers) {
        give(&CONNECTION, b"upgrade");
        give(&UPGRADE, upgrade.as_bytes());
    }
    let forwarded_for = hop.forwarded_for.as_ref().unwrap_or(&hop.address).clone();
    let request_id = match id {
        Some(id) if is_request_id(id.as_bytes()) => id.clone(),
        _ => new_id(),
    };
    give(&FORWARDED_FOR, forwarded_for.as_bytes());
    give(&FORWARDED_PROTO, hop.scheme.as_bytes());
    give(&FORWARDED_PORT, hop.port.as_bytes());
    match began {
        Some(began) if hop.forwarded_for.is_some() => give(&REQUEST_START, began.as_bytes()),
        _ => give(&REQUEST_START, itoa::Buffer::new().format(started).as_bytes()),
    }
    give(&VIA, OUR_VIA.as_bytes());
    give(&REQUEST_ID, request_id.as_bytes());
    Stamp { request_id, forwarded_for }
}

/// Makes the headers of a response from the platform itself those of ours.
pub(crate) fn forward_response(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(tokens).filter_map(self::named).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    add_via(headers);
}

pub(crate) fn add_via(headers: &mut HeaderMap) {
    headers.append(VIA, HeaderValue::from_static(OUR_VIA));
}

/// The protocol that a request wants to change to, if it wants to. Not `h2c`: inside it requests would pass that nobody
/// here checked or counted, and RFC 9113 took it out of the protocol.
pub(crate) fn upgrade_wanted(headers: &HeaderMap) -> Option<&HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    let mut tokens = headers.get_all(CONNECTION).iter().flat_map(tokens);
    let names_it = tokens.any(|token| token.eq_ignore_ascii_case("upgrade"));
    (names_it && !upgrade.as_bytes().eq_ignore_ascii_case(b"h2c")).then_some(upgrade)
}

/// Whether a protocol is that of `WebSocket`s.
pub(crate) fn is_web_socket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// How long a server says it keeps an idle connection open (`Keep-Alive: timeout=5`).
pub(crate) fn keep_alive(value: &HeaderValue) -> Option<Duration> {
    let seconds = tokens(value).find_map(|part| part.strip_prefix("timeout="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// The items of a list in a header.
pub(crate) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim)
}

pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// The header that an item of `Connection` takes away, unless it goes or stays anyway.
pub(crate) fn named(token: &str) -> Option<HeaderName> {
    token.parse().ok().filter(|name| !KEPT.contains(name) && !is_hop_by_hop(name))
}

/// What else proxies say of a request, and frameworks believe.
fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-")
}

/// Many servers read `X_Forwarded_For` as `X-Forwarded-For` (both are `HTTP_X_FORWARDED_FOR` in CGI): such a header would
/// pass a client's word off as ours.
fn is_look_alike(name: &HeaderName) -> bool {
    let name = name.as_str();
    let dashed = || name.replace('_', "-");
    name.contains('_')
        && (KEPT.iter().chain(&HOP_BY_HOP).any(|kept| kept.as_str() == dashed())
            || dashed().parse().is_ok_and(|name| is_forwarding(&name)))
}

fn append_address(headers: &HeaderMap, address: &HeaderValue) -> HeaderValue {
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

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    fn forwarded(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        forwarded_by(&Hop::new(IpAddr::from([9, 9, 9, 9]), 8080, None), &headers(pairs))
    }

    fn forwarded_by(hop: &Hop, headers: &HeaderMap) -> HeaderMap {
        let mut forwarded = HeaderMap::new();
        let give = |name: &HeaderName, value: &[u8]| {
            forwarded.append(name, HeaderValue::from_bytes(value).expect("a value"));
        };
        forward_request(headers, hop, 1_000, || HeaderValue::from_static("made-up"), give);
        forwarded
    }

    #[test]
    fn the_router_says_who_asked_and_believes_no_one_else() {
        let headers = forwarded(&[
            ("host", "a.test"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b.test"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("x_forwarded_host", "b.test"),
            ("x_forwarded_proto", "https"),
            ("x-request-start", "1"),
            ("x-request-id", "short"),
            ("connection", "close, X-Forwarded-For, host, x-secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
        ]);
        let get = |name: &str| headers.get(name).map(|value| value.to_str().expect("text"));
        assert_eq!(get("x-forwarded-for"), Some("9.9.9.9"));
        assert_eq!((get("x-forwarded-proto"), get("x-forwarded-port")), (Some("http"), Some("8080")));
        assert_eq!((get("x-request-id"), get("x-request-start")), (Some("made-up"), Some("1000")));
        assert_eq!((get("via"), get("host")), (Some("1.1 platform"), Some("a.test")));
        let gone = ["x-forwarded-host", "forwarded", "x-real-ip", "x_forwarded_host", "x_forwarded_proto"];
        for name in gone.into_iter().chain(["connection", "x-secret", "te"]) {
            assert_eq!(get(name), None, "{name}");
        }
    }

    /// What an app and the router's rules take for the client of a request that came by proxies in 9.0.0.0/8.
    fn behind(pairs: &[(&'static str, &'static str)]) -> (Hop, HeaderMap) {
        let headers = headers(pairs);
        let is_proxy = |address: IpAddr| matches!(address, IpAddr::V4(address) if address.octets()[0] == 9);
        let hop = Hop::new(IpAddr::from([9, 9, 9, 9]), 8080, None).behind(&headers, is_proxy);
        let forwarded = forwarded_by(&hop, &headers);
        (hop, forwarded)
    }

    #[test]
    fn a_proxy_that_is_trusted_says_whose_a_request_is() {
        let (hop, headers) = behind(&[
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2"),
            ("x-forwarded-for", "9.8.7.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b.test"),
            ("x-request-start", "t=5"),
        ]);
        let get = |name: &str| headers.get(name).map(|value| value.to_str().expect("text"));
        assert_eq!(
            hop.address, "2.2.2.2",
            "the last one that is no proxy: what stands before it anybody may have said"
        );
        assert_eq!(get("x-forwarded-for"), Some("1.1.1.1, 2.2.2.2, 9.8.7.6, 9.9.9.9"));
        assert_eq!((get("x-forwarded-proto"), get("x-forwarded-port")), (Some("https"), Some("443")));
        assert_eq!((get("x-forwarded-host"), get("x-request-start")), (Some("b.test"), Some("t=5")));
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
    }

    #[test]
    fn what_a_trusted_proxy_does_not_say_clearly_is_what_the_connection_says() {
        let client = |list: &'static str| behind(&[("x-forwarded-for", list)]).0.address;
        assert_eq!(client(""), "9.9.9.9");
        assert_eq!(client("9.1.1.1, 9.2.2.2"), "9.1.1.1", "proxies alone: the first one asked");
        assert_eq!(client("1.1.1.1, unknown"), "9.9.9.9", "nobody says who spoke to the last proxy");
        assert_eq!(client("unknown, 1.1.1.1"), "1.1.1.1");
        assert_eq!(client("2001:db8::1"), "2001:db8::1");
        let (_, headers) = behind(&[("x-forwarded-proto", "ftp"), ("x-forwarded-port", "x")]);
        assert_eq!(
            (&headers["x-forwarded-proto"], &headers["x-forwarded-port"]),
            (&"http".parse().expect("a value"), &8080.into())
        );
        let (_, headers) = behind(&[("x-forwarded-proto", "http"), ("x-forwarded-port", "8443")]);
        assert_eq!(headers["x-forwarded-port"], "8443");
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
