//! Refuses requests that two readers could understand differently, before anything is routed, and says where their bodies end. `httparse`
//! knows what a line and a header look like, and hyper what HTTP/2 is; what is here is what both let through.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TE, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, StatusCode, Version};

use crate::headers::tokens;
use crate::response::{Body, Chunks};

/// Longest request line and header line in bytes, as on Heroku.
const LINE_LIMIT: usize = 8192;
/// Longest header name in bytes, as on Heroku.
const NAME_LIMIT: usize = 1000;
/// Longest method in bytes, as on Heroku.
const METHOD_LIMIT: usize = 127;

/// Why a request is not routed: the status, and one sentence for whoever sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) &'static str);

fn bad<T>(reason: &'static str) -> Result<T, Refusal> {
    Err(Refusal(StatusCode::BAD_REQUEST, reason))
}

/// A request with one meaning.
#[derive(Debug)]
pub(crate) struct Clear {
    pub(crate) body: Body,
    /// The client waits to be told to send it.
    pub(crate) is_expected: bool,
    /// The client and we can go on after it.
    pub(crate) stays: bool,
    /// The client understands trailers.
    pub(crate) takes_trailers: bool,
}

/// Looks at everything that decides where a request goes and where it ends, and says what it means to whoever reads it.
pub(crate) fn check<B>(request: &Request<B>) -> Result<Clear, Refusal> {
    let (said, is_http_10) = (Said::by(request.headers()), request.version() == Version::HTTP_10);
    check_target(request, &said)?;
    let body = said.body(request.version())?;
    if said.is_too_long {
        return bad("A header is too long: 8192 bytes at most, 1000 of them for the name.");
    }
    if said.expect.is_some_and(|expected| !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let reason = "The only expectation that is understood is 100-continue.";
        return Err(Refusal(StatusCode::EXPECTATION_FAILED, reason));
    }
    Ok(Clear {
        body,
        is_expected: said.expect.is_some() && !is_http_10,
        stays: !said.closes && (!is_http_10 || said.keeps),
        takes_trailers: said.takes_trailers,
    })
}

/// What of a request's headers matters here, in one look at each.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the request, and none depends on another")]
struct Said<'a> {
    host: Option<&'a HeaderValue>,
    /// There is another one.
    has_hosts: bool,
    encoding: Option<&'a HeaderValue>,
    has_encodings: bool,
    length: Option<&'a HeaderValue>,
    /// There is another one that says something else.
    has_lengths: bool,
    expect: Option<&'a HeaderValue>,
    closes: bool,
    keeps: bool,
    takes_trailers: bool,
    is_too_long: bool,
}

impl<'a> Said<'a> {
    fn by(headers: &'a HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            let length = name.as_str().len();
            said.is_too_long |= length > NAME_LIMIT || length + ": ".len() + value.len() > LINE_LIMIT;
            if *name == HOST {
                said.has_hosts |= said.host.replace(value).is_some();
            } else if *name == CONTENT_LENGTH {
                said.has_lengths |= said.length.replace(value).is_some_and(|other| other != value);
            } else if *name == TRANSFER_ENCODING {
                said.has_encodings |= said.encoding.replace(value).is_some();
            } else if *name == EXPECT {
                said.expect = said.expect.or(Some(value));
            } else if *name == TE {
                said.takes_trailers |= tokens(value).any(|token| token.starts_with("trailers"));
            } else if *name == CONNECTION {
                for token in tokens(value) {
                    said.closes |= token.eq_ignore_ascii_case("close");
                    said.keeps |= token.eq_ignore_ascii_case("keep-alive");
                }
            }
        }
        said
    }

    fn body(&self, version: Version) -> Result<Body, Refusal> {
        let is_chunked = match self.encoding {
            None => false,
            Some(one)
                if !self.has_encodings
                    && version == Version::HTTP_11
                    && one.as_bytes().eq_ignore_ascii_case(b"chunked") =>
            {
                true
            }
            Some(_) => return bad("The only transfer encoding that is understood is chunked, once, in HTTP/1.1."),
        };
        let Some(length) = self.length else {
            return Ok(if is_chunked { Body::Chunked(Chunks::default()) } else { Body::Over });
        };
        let number = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number: Option<u64> = number.and_then(|text| text.parse().ok());
        match number.filter(|_| !self.has_lengths) {
            None => bad("Content-Length must be one number."),
            Some(_) if is_chunked => bad("Content-Length and Transfer-Encoding exclude each other."),
            Some(0) => Ok(Body::Over),
            Some(number) => Ok(Body::Length(number)),
        }
    }
}

fn check_target<B>(request: &Request<B>, said: &Said<'_>) -> Result<(), Refusal> {
    let (method, uri) = (request.method(), request.uri());
    if method == Method::CONNECT {
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "This is no forward proxy: CONNECT is not allowed."));
    }
    let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if method.as_str().len() > METHOD_LIMIT || path.len() > LINE_LIMIT {
        return bad("The request line is too long: 8192 bytes at most, 127 of them for the method.");
    }
    let Some(host) = said.host.filter(|_| !said.has_hosts) else {
        return bad("A request must have one Host header.");
    };
    match (uri.scheme(), uri.authority()) {
        (None, None) if path.starts_with('/') || (path == "*" && method == Method::OPTIONS) => Ok(()),
        (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {
            if authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) {
                Ok(())
            } else {
                bad("The request target and the Host header name different hosts.")
            }
        }
        _ => bad("The request target must be a path."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        let host = ("host", "a.test");
        let long = "y".repeat(8192);
        for (method, target, headers) in [
            ("GET", "/", vec![]),
            ("GET", "/", vec![host, ("host", "b.test")]),
            ("GET", "http://b.test/", vec![host]),
            ("GET", "*", vec![host]),
            ("POST", "/", vec![host, ("transfer-encoding", ",chunked")]),
            ("POST", "/", vec![host, ("transfer-encoding", "chunked, chunked")]),
            ("POST", "/", vec![host, ("transfer-encoding", "chunked"), ("transfer-encoding", "identity")]),
            ("POST", "/", vec![host, ("transfer-encoding", "chunked"), ("content-length", "5")]),
            ("POST", "/", vec![host, ("content-length", "5"), ("content-length", "6")]),
            ("POST", "/", vec![host, ("content-length", "+5")]),
            ("POST", "/", vec![host, ("content-length", "99999999999999999999")]),
            ("GET", "/", vec![host, ("x", long.as_str())]),
        ] {
            let refusal = check(&request(method, target, &headers)).expect_err(target);
            assert_eq!(refusal.0, StatusCode::BAD_REQUEST, "{method} {target} {headers:?}");
        }
        let connect = check(&request("CONNECT", "a.test:80", &[host])).expect_err("CONNECT");
        assert_eq!(connect.0, StatusCode::METHOD_NOT_ALLOWED);
        let expect = check(&request("POST", "/", &[host, ("expect", "200-maybe")])).expect_err("Expect");
        assert_eq!(expect.0, StatusCode::EXPECTATION_FAILED);
    }

    #[test]
    fn lets_ordinary_requests_pass() {
        let host = ("host", "a.test");
        for (method, target, headers) in [
            ("GET", "/", vec![host]),
            ("PURGE", "/a?b=c", vec![host]),
            ("OPTIONS", "*", vec![host]),
            ("GET", "http://A.test/x", vec![host]),
            ("POST", "/", vec![host, ("content-length", "5"), ("content-length", "5")]),
            ("POST", "/", vec![host, ("transfer-encoding", "Chunked"), ("expect", "100-Continue")]),
        ] {
            assert!(check(&request(method, target, &headers)).is_ok(), "{method} {target}");
        }
    }
}
