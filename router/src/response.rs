//! Reads what an instance says: the head of an answer, and where its body ends, as does a request's of HTTP/1. No I/O: bytes come from
//! a buffer, and it says whether they are enough. Whatever two readers could read differently is refused here, or becomes something with one meaning.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, StatusCode};
use hyper::body::SizeHint;

use crate::failure::Failure;
use crate::headers;

/// Most bytes of a head. Heroku takes header lines of 512 KB.
pub(crate) const HEAD_LIMIT: usize = 576 << 10;
/// Longest header line, as on Heroku.
pub(crate) const LINE_LIMIT: usize = 512 << 10;
/// Longest cookie and longest status line, as on Heroku.
pub(crate) const COOKIE_LIMIT: usize = 8192;
const STATUS_LINE_LIMIT: usize = 8192;
/// Most headers.
pub(crate) const HEADERS_LIMIT: usize = 256;
/// Longest line of a chunk's size with its extensions, and most bytes of all extensions of a body.
const EXTENSIONS_LIMIT: usize = 16 << 10;
/// Most bytes of trailers, and most of them.
const TRAILERS_LIMIT: usize = 16 << 10;
const TRAILER_COUNT: usize = 100;

/// What is between the status line and the body, made fit for a client.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    /// Without those that are for one hop only.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// The protocol that it changes to, if it changes.
    pub(crate) upgrade: Option<HeaderValue>,
    /// The connection can take another request after this one.
    pub(crate) stays: bool,
    /// How long the instance says that it keeps the connection.
    pub(crate) keep_alive: Option<Duration>,
}

/// Where a body ends.
#[derive(Debug)]
pub(crate) enum Body {
    /// After so many bytes more.
    Length(u64),
    Chunked(Chunks),
    /// With the connection.
    UntilEnd,
    Over,
}

/// Looks for a head in bytes that come piece by piece.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    /// So many bytes were looked through for the end of a head, which was not there.
    searched: usize,
}

impl HeadReader {
    /// How many of the bytes are done with, and the head that ends there if a whole one is among them. Interim answers are passed over.
    pub(crate) fn read(&mut self, bytes: &[u8], method: &Method) -> Result<(usize, Option<Head>), Failure> {
        let mut done = 0;
        while self.may_be_whole(&bytes[done..]) {
            let Some((length, head)) = Head::read(&bytes[done..], method)? else {
                self.is_partial(&bytes[done..]);
                break;
            };
            self.searched = 0;
            done += length;
            if head.is_some() {
                return Ok((done, head));
            }
        }
        if bytes.len() - done > HEAD_LIMIT { Err(Failure::OversizedHeader) } else { Ok((done, None)) }
    }

    /// Whether it is worth parsing: whoever sends a head byte by byte does not have it parsed as often.
    pub(crate) fn may_be_whole(&mut self, buffer: &[u8]) -> bool {
        !buffer.is_empty() && (self.searched == 0 || self.finds_end(buffer))
    }

    /// It was parsed, and is not whole.
    pub(crate) fn is_partial(&mut self, buffer: &[u8]) {
        self.searched = buffer.len();
    }

    fn finds_end(&mut self, buffer: &[u8]) -> bool {
        let from = self.searched.saturating_sub(3);
        self.searched = buffer.len();
        let new = &buffer[from..];
        new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
    }
}

impl Head {
    /// The head that `bytes` begin with, if it is whole, and its length. Of an interim one only the length matters.
    fn read(bytes: &[u8], method: &Method) -> Result<Option<(usize, Option<Self>)>, Failure> {
        let mut space = [const { MaybeUninit::uninit() }; HEADERS_LIMIT];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let length = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut space) {
            Ok(httparse::Status::Complete(length)) if length <= HEAD_LIMIT => length,
            Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
                return Err(Failure::OversizedHeader);
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Failure::BadResponse),
        };
        let (Some(code), Some(version)) = (response.code, response.version) else { return Ok(None) };
        let status = StatusCode::from_u16(code).map_err(|_| Failure::BadResponse)?;
        if response.reason.is_some_and(|reason| reason.len() > STATUS_LINE_LIMIT) {
            return Err(Failure::OversizedStatusLine);
        }
        let whole = Bytes::copy_from_slice(&bytes[..length]);
        let mut headers = HeaderMap::with_capacity(response.headers.len() + 1);
        let mut hop = Hop::default();
        for header in response.headers.iter() {
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| Failure::BadResponse)?;
            let (limit, failure) = if name == SET_COOKIE {
                (COOKIE_LIMIT, Failure::OversizedCookie)
            } else {
                (LINE_LIMIT, Failure::OversizedHeader)
            };
            if header.name.len() + header.value.len() > limit {
                return Err(failure);
            }
            let start = header.value.as_ptr() as usize - bytes.as_ptr() as usize;
            let value = HeaderValue::from_maybe_shared(whole.slice(start..start + header.value.len()));
            let value = value.map_err(|_| Failure::BadResponse)?;
            if headers::is_hop_by_hop(&name) {
                hop.note(&name, value);
            } else {
                headers.append(name, value);
            }
        }
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Some((length, None)));
        }
        hop.named.iter().for_each(|name| drop(headers.remove(name)));
        let mut stays = !hop.closes && (version == 1 || hop.keeps);
        let body = body((status, version), method, &hop, &mut headers, &mut stays)?;
        stays &= !matches!(body, Body::UntilEnd) && status != StatusCode::SWITCHING_PROTOCOLS;
        headers::add_via(&mut headers);
        let Hop { upgrade, keep_alive, .. } = hop;
        Ok(Some((length, Some(Self { status, headers, body, upgrade, stays, keep_alive }))))
    }
}

/// Where the body of an answer ends (RFC 9112 section 6.3).
fn body(
    (status, version): (StatusCode, u8),
    method: &Method,
    hop: &Hop,
    headers: &mut HeaderMap,
    stays: &mut bool,
) -> Result<Body, Failure> {
    let code = status.as_u16();
    if code == 101 {
        headers.remove(CONTENT_LENGTH);
        return Ok(Body::Over);
    }
    let has_none = matches!(code, 204 | 304) || method == Method::HEAD;
    if let Some(is_chunked) = hop.is_chunked {
        if headers.remove(CONTENT_LENGTH).is_some() {
            // Chunks win, as on Heroku. But of two readers of both, one may look for the next answer elsewhere.
            *stays = false;
        }
        return match is_chunked {
            _ if has_none => Ok(Body::Over),
            _ if version == 0 => Err(Failure::BadResponse),
            true => Ok(Body::Chunked(Chunks::default())),
            false => Ok(Body::UntilEnd),
        };
    }
    Ok(match content_length(headers)? {
        _ if has_none => Body::Over,
        Some(0) => Body::Over,
        Some(length) => Body::Length(length),
        None => Body::UntilEnd,
    })
}

/// What the headers of one hop say.
#[derive(Default)]
struct Hop {
    /// What `Connection` says.
    closes: bool,
    keeps: bool,
    named: Vec<HeaderName>,
    upgrade: Option<HeaderValue>,
    keep_alive: Option<Duration>,
    /// Whether the last transfer encoding is `chunked`, if there is one.
    is_chunked: Option<bool>,
}

impl Hop {
    fn note(&mut self, name: &HeaderName, value: HeaderValue) {
        if name == CONNECTION {
            for token in headers::tokens(&value) {
                if token.eq_ignore_ascii_case("close") {
                    self.closes = true;
                } else if token.eq_ignore_ascii_case("keep-alive") {
                    self.keeps = true;
                } else {
                    self.named.extend(headers::named(token));
                }
            }
        } else if name == UPGRADE {
            self.upgrade = Some(value);
        } else if name == TRANSFER_ENCODING {
            let last = value.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
            self.is_chunked = Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        } else if name == headers::KEEP_ALIVE {
            self.keep_alive = headers::keep_alive(&value);
        }
    }
}

/// The one length that all `Content-Length`s agree on, if there are any; only one of them is left.
fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, Failure> {
    let (mut length, mut is_plain) = (None, true);
    for value in headers.get_all(CONTENT_LENGTH) {
        for part in value.as_bytes().split(|byte| *byte == b',') {
            let part = part.trim_ascii();
            if part.is_empty() || !part.iter().all(u8::is_ascii_digit) {
                return Err(Failure::InvalidLength);
            }
            let number = std::str::from_utf8(part).ok().and_then(|part| part.parse::<u64>().ok());
            let number = number.ok_or(Failure::InvalidLength)?;
            if length.is_some_and(|length| length != number) {
                return Err(Failure::InvalidLength);
            }
            is_plain &= length.is_none() && part.len() == value.len() && (part[0] != b'0' || number == 0);
            length = Some(number);
        }
    }
    if let Some(length) = length.filter(|_| !is_plain) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    Ok(length)
}

/// A chunked body (RFC 9112 section 7.1).
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Size,
    Data(u64),
    /// The end of line after a chunk's data.
    DataEnd,
    Trailers,
}

/// What comes next of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    /// It is over.
    End,
    /// What is there is not enough.
    More,
}

impl Body {
    /// Takes the next piece out of `buffer`.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Failure> {
        let piece = match self {
            Self::Over => return Ok(Piece::End),
            _ if buffer.is_empty() => return Ok(Piece::More),
            Self::UntilEnd => Piece::Data(buffer.split().freeze()),
            Self::Length(left) => {
                let data = take(buffer, left);
                if *left == 0 {
                    *self = Self::Over;
                }
                Piece::Data(data)
            }
            Self::Chunked(chunks) => chunks.next(buffer)?,
        };
        if matches!(piece, Piece::End | Piece::Trailers(_)) {
            *self = Self::Over;
        }
        Ok(piece)
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// How many bytes are yet to come, as far as that is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Over => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(_) | Self::UntilEnd => SizeHint::default(),
        }
    }
}

impl Chunks {
    fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Failure> {
        loop {
            match &mut self.state {
                State::Size => {
                    let Some(end) = memchr::memchr(b'\n', buffer) else {
                        return if buffer.len() > EXTENSIONS_LIMIT {
                            Err(Failure::Interrupted)
                        } else {
                            Ok(Piece::More)
                        };
                    };
                    let (size, extensions) = chunk_size(&buffer[..end]).ok_or(Failure::Interrupted)?;
                    self.extensions += extensions;
                    if self.extensions > EXTENSIONS_LIMIT {
                        return Err(Failure::Interrupted);
                    }
                    buffer.advance(end + 1);
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(_) if buffer.is_empty() => return Ok(Piece::More),
                State::Data(left) => {
                    let data = take(buffer, left);
                    if *left == 0 {
                        self.state = State::DataEnd;
                        // The end of line, too, if it is there: nothing may come after it. If it is another one, that is told next.
                        let _ = self.end_data(buffer);
                    }
                    return Ok(Piece::Data(data));
                }
                State::DataEnd => {
                    if !self.end_data(buffer)? {
                        return Ok(Piece::More);
                    }
                }
                State::Trailers => return trailers(buffer),
            }
        }
    }

    /// Takes the end of line after data, if it is whole.
    fn end_data(&mut self, buffer: &mut BytesMut) -> Result<bool, Failure> {
        match buffer.get(..2) {
            Some(b"\r\n") => {
                buffer.advance(2);
                self.state = State::Size;
                Ok(true)
            }
            None if matches!(&buffer[..], b"" | b"\r") => Ok(false),
            _ => Err(Failure::Interrupted),
        }
    }

    /// Whether nothing but the last line is to come, which is there.
    fn ends_with(&self, buffer: &[u8]) -> bool {
        matches!(self.state, State::Size) && buffer == b"0\r\n\r\n"
    }
}

impl Body {
    /// After this piece there is nothing, and that is certain already: the end needs no further look.
    pub(crate) fn finish_early(&mut self, buffer: &mut BytesMut) {
        if matches!(self, Self::Chunked(chunks) if chunks.ends_with(buffer)) {
            buffer.clear();
            *self = Self::Over;
        }
    }
}

fn take(buffer: &mut BytesMut, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= length as u64;
    if length == buffer.len() { buffer.split().freeze() } else { buffer.split_to(length).freeze() }
}

/// The number at the beginning of a chunk's first line (up to its LF), and how many bytes of extensions follow it.
fn chunk_size(line: &[u8]) -> Option<(u64, usize)> {
    let line = line.strip_suffix(b"\r")?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at(digits);
    if number.is_empty() || number.iter().skip_while(|byte| **byte == b'0').count() > 16 {
        return None;
    }
    // Space may follow the number, extensions may, and nothing else; a lone CR is no end of line.
    let after_space = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    if after_space.is_some_and(|byte| *byte != b';') || rest.contains(&b'\r') {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map_or(0, u64::from);
    Some((number.iter().fold(0, |sum, byte| sum << 4 | digit(byte)), rest.len()))
}

fn trailers(buffer: &mut BytesMut) -> Result<Piece, Failure> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Piece::End);
    }
    let mut space = [httparse::EMPTY_HEADER; TRAILER_COUNT];
    let end = memchr::memmem::find(buffer, b"\r\n\r\n").map(|at| at + 4);
    let Some(end) = end.filter(|end| *end <= TRAILERS_LIMIT) else {
        return if buffer.len() > TRAILERS_LIMIT { Err(Failure::Interrupted) } else { Ok(Piece::More) };
    };
    let mut map = HeaderMap::new();
    match httparse::parse_headers(&buffer[..end], &mut space) {
        Ok(httparse::Status::Complete((length, parsed))) if length == end => {
            for header in parsed {
                let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| Failure::Interrupted)?;
                let value = HeaderValue::from_bytes(header.value).map_err(|_| Failure::Interrupted)?;
                map.append(name, value);
            }
        }
        _ => return Err(Failure::Interrupted),
    }
    buffer.advance(end);
    Ok(Piece::Trailers(map))
}

#[cfg(test)]
mod tests;
