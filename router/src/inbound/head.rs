//! Reads the head of a request. No I/O: bytes come from a buffer, and it says whether they are enough.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri, Version};

use crate::response::HeadReader;
use crate::server::HEAD_LIMIT;
use crate::strict::Refusal;

/// Most headers of a request, as on Heroku.
const HEADERS_LIMIT: usize = 1000;
/// How a connection of HTTP/2 begins (RFC 9113 section 3.4).
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n";

const TOO_LARGE: Refusal = Refusal(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "The head of the request is too large: 64 KiB and 1000 headers at most.",
);

/// What bytes of a client begin with.
#[expect(clippy::large_enum_variant, reason = "nearly always the large one, and never kept")]
pub(super) enum Begin {
    /// A whole head, of this length.
    Request(Request<()>, usize),
    Partial,
    /// Not HTTP/1 at all.
    Http2,
}

pub(super) fn read(reader: &mut HeadReader, bytes: &[u8]) -> Result<Begin, Refusal> {
    if reader.may_be_whole(bytes) {
        #[expect(
            clippy::large_stack_arrays,
            reason = "32 KiB that nobody clears: who sends few headers touches little of it"
        )]
        let mut space = [const { MaybeUninit::uninit() }; HEADERS_LIMIT];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(bytes, &mut space) {
            Ok(httparse::Status::Complete(length)) if length <= HEAD_LIMIT => {
                *reader = HeadReader::default();
                return request(&parsed, &bytes[..length]).map(|request| Begin::Request(request, length));
            }
            Ok(httparse::Status::Partial) => reader.is_partial(bytes),
            Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
            Err(httparse::Error::Version) if bytes.starts_with(HTTP_2) => return Ok(Begin::Http2),
            Err(error) => return Err(Refusal(StatusCode::BAD_REQUEST, reason(error))),
        }
    }
    if bytes.len() > HEAD_LIMIT { Err(TOO_LARGE) } else { Ok(Begin::Partial) }
}

fn reason(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "The name of a header has a character that none may have.",
        httparse::Error::HeaderValue => "The value of a header has a character that none may have.",
        httparse::Error::NewLine => "A line of the request ends in a way that no line may end.",
        httparse::Error::Version => "This is no version of HTTP that is spoken here.",
        _ => "The request line is not one of HTTP/1.1.",
    }
}

/// What `httparse` found in a head.
fn request(parsed: &httparse::Request<'_, '_>, head: &[u8]) -> Result<Request<()>, Refusal> {
    const NO_HEADER: Refusal = Refusal(StatusCode::BAD_REQUEST, "A header is not one of HTTP.");
    const NO_TARGET: Refusal = Refusal(StatusCode::BAD_REQUEST, "The request target is not one of HTTP.");
    let bytes = Bytes::copy_from_slice(head);
    let start = head.as_ptr() as usize;
    let range = |part: &[u8]| -> Range<usize> {
        let from = part.as_ptr() as usize - start;
        from..from + part.len()
    };
    let (Some(method), Some(path)) = (parsed.method, parsed.path) else { return Err(NO_TARGET) };
    if path.contains('#') {
        // `Uri` would leave it out, and whoever is in front of us may have looked at what it has.
        return Err(Refusal(StatusCode::BAD_REQUEST, "The request target must have no fragment (#)."));
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| NO_TARGET)?;
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice(range(path.as_bytes()))).map_err(|_| NO_TARGET)?;
    *request.version_mut() = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| NO_HEADER)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(range(header.value))).map_err(|_| NO_HEADER)?;
        headers.append(name, value);
    }
    *request.headers_mut() = headers;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(text: &str) -> Result<Begin, Refusal> {
        read(&mut HeadReader::default(), text.as_bytes())
    }

    #[test]
    fn a_head_has_a_thousand_headers_and_no_more() {
        let with = |count: usize| begin(&format!("GET /x HTTP/1.1\r\n{}\r\nrest", "x: y\r\n".repeat(count)));
        let Ok(Begin::Request(request, length)) = with(1000) else { panic!("it is refused") };
        assert_eq!((request.headers().len(), request.uri().path(), length), (1000, "/x", 17 + 6000 + 2));
        assert_eq!(with(1001).err().map(|refusal| refusal.0), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        let large = begin(&format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(HEAD_LIMIT)));
        assert_eq!(large.err().map(|refusal| refusal.0), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }

    #[test]
    fn a_head_may_come_byte_by_byte_and_after_empty_lines() {
        let text = b"\r\n\r\nGET / HTTP/1.0\r\nhost: a.test\r\n\r\n";
        let mut reader = HeadReader::default();
        for end in 1..text.len() {
            assert!(matches!(read(&mut reader, &text[..end]), Ok(Begin::Partial)), "{end}");
        }
        let Ok(Begin::Request(request, length)) = read(&mut reader, text) else { panic!("it is whole") };
        assert_eq!((request.version(), length), (Version::HTTP_10, text.len()));
        assert!(matches!(begin("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Ok(Begin::Http2)));
        assert!(begin("GET / HTTP/2.0\r\n\r\n").is_err());
    }
}
