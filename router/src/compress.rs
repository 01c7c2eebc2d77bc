//! Compresses answers of apps that want that. What an instance has said so far is never held back: whenever nothing more is here, the
//! client gets all of it.

use std::io::{self, Write};
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::StatusCode;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, Entry,
    HeaderMap, HeaderName, HeaderValue, VARY,
};
use hyper::body::Frame;
use zstd::zstd_safe::CParameter;

use crate::headers::tokens;
use crate::reply::{Failed, Plain};

/// Shorter answers are not worth it.
const LEAST: u64 = 1024;
/// So much is compressed before others have their turn.
const PIECE: usize = 16 << 10;
/// Fast, and nearly as good as it gets for texts. Windows of 128 KiB keep it at some hundred KiB of memory for each answer.
const GZIP_LEVEL: u32 = 5;
const BROTLI_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
const WINDOW_BITS: u32 = 17;
/// What is said of the bytes that were sent before, and is not true of others.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// How an answer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    /// The best first.
    const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The best that a client takes, if it takes any rather than none (RFC 9110 section 12.5.3).
    fn wanted(request: &HeaderMap) -> Option<Self> {
        let weights: Vec<(&str, f32)> = request.get_all(ACCEPT_ENCODING).iter().flat_map(tokens).map(weight).collect();
        let of = |name: &str| weights.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, it)| *it);
        let rest = of("*").unwrap_or(0.0);
        let least = of("identity").unwrap_or(0.0);
        let mut best = None;
        for coding in Self::ALL {
            let weight = of(coding.name()).unwrap_or(rest);
            if weight > 0.0 && weight >= least && best.is_none_or(|(_, most)| weight > most) {
                best = Some((coding, weight));
            }
        }
        best.map(|(coding, _)| coding)
    }
}

/// `gzip;q=0.5`
fn weight(element: &str) -> (&str, f32) {
    let (name, rest) = element.split_once(';').unwrap_or((element, ""));
    let weight = rest.trim().strip_prefix("q=").and_then(|text| text.parse().ok());
    (name.trim(), weight.unwrap_or(1.0))
}

/// Makes of an answer's head that of a compressed one, and says how it is; none if it stays as it is.
pub(crate) fn prepare(request: &HeaderMap, status: StatusCode, headers: &mut HeaderMap) -> Option<Coding> {
    if !is_worth_it(status, headers) {
        return None;
    }
    let is_said =
        headers.get_all(VARY).iter().flat_map(tokens).any(|it| it == "*" || it.eq_ignore_ascii_case("accept-encoding"));
    if !is_said {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
    let coding = Coding::wanted(request)?;
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    for gone in [CONTENT_LENGTH, ACCEPT_RANGES].iter().chain(&DIGESTS) {
        headers.remove(gone);
    }
    // The same in meaning, no longer byte for byte.
    if let Entry::Occupied(mut tag) = headers.entry(ETAG)
        && tag.get().as_bytes().starts_with(b"\"")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.get().as_bytes()].concat())
    {
        tag.insert(weak);
    }
    Some(coding)
}

fn is_worth_it(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_whole = !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
    );
    let is_free =
        !headers.get_all(CACHE_CONTROL).iter().flat_map(tokens).any(|it| it.eq_ignore_ascii_case("no-transform"));
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    is_whole
        && is_free
        && !status.is_informational()
        && !headers.contains_key(CONTENT_ENCODING)
        && length.is_none_or(|length| length >= LEAST)
        && kind.is_some_and(is_compressible)
}

/// Whether what is of this kind becomes much smaller. Events are small, and streams of them many.
fn is_compressible(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.split_once('/') {
        Some(("text", what)) => what != "event-stream",
        Some(
            ("application", "json" | "javascript" | "xml" | "wasm" | "x-ndjson" | "x-javascript" | "graphql")
            | ("font", "ttf" | "otf")
            | ("image", "bmp" | "x-icon" | "vnd.microsoft.icon"),
        ) => true,
        Some((_, what)) => what.ends_with("+json") || what.ends_with("+xml"),
        None => false,
    }
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
            Coding::Brotli => {
                Self::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_LEVEL, WINDOW_BITS)))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_BITS))?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write(&mut self, data: &[u8]) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(data)?,
            Self::Brotli(encoder) => encoder.write_all(data)?,
            Self::Zstd(encoder) => encoder.write_all(data)?,
        }
        Ok(self.take())
    }

    fn flush(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.flush()?,
            Self::Brotli(encoder) => encoder.flush()?,
            Self::Zstd(encoder) => encoder.flush()?,
        }
        Ok(self.take())
    }

    fn take(&mut self) -> Bytes {
        let made = match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        std::mem::take(made).into()
    }

    fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
        .map(Bytes::from)
    }
}

/// An answer's body on its way to a client, compressed.
pub(crate) struct Packed {
    plain: Plain,
    /// None once it has begun.
    begin: Option<Coding>,
    /// None before that, and once it is finished.
    encoder: Option<Encoder>,
    /// Yet to be compressed.
    left: Bytes,
    /// Something of what was compressed is not passed on.
    is_behind: bool,
    trailers: Option<HeaderMap>,
}

impl Packed {
    pub(crate) fn new(plain: Plain, coding: Coding) -> Self {
        Self { plain, begin: Some(coding), encoder: None, left: Bytes::new(), is_behind: false, trailers: None }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.begin.is_none() && self.encoder.is_none() && self.trailers.is_none()
    }

    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        if let Some(coding) = self.begin.take() {
            self.encoder = Some(Encoder::new(coding)?);
        }
        loop {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            };
            if !self.left.is_empty() {
                let piece = self.left.split_to(self.left.len().min(PIECE));
                let made = encoder.write(&piece)?;
                self.is_behind = true;
                if !made.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(made))));
                }
                if !self.left.is_empty() {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            match self.plain.poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.left = data,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => {
                    let rest = self.encoder.take().map(Encoder::finish).transpose()?.unwrap_or_default();
                    return Poll::Ready(Some(Ok(Frame::data(rest))));
                }
                Poll::Pending if std::mem::take(&mut self.is_behind) => {
                    let made = encoder.flush()?;
                    return if made.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(made)))) };
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Option<Coding> {
        Coding::wanted(&HeaderMap::from_iter([(ACCEPT_ENCODING, text.parse().expect("a value"))]))
    }

    #[test]
    fn a_client_gets_what_it_takes() {
        assert_eq!(wanted("gzip, deflate, br, zstd"), Some(Coding::Zstd));
        assert_eq!(wanted("gzip, br"), Some(Coding::Brotli));
        assert_eq!(wanted("GZIP"), Some(Coding::Gzip));
        assert_eq!(wanted("br;q=0.5, gzip"), Some(Coding::Gzip));
        assert_eq!(wanted("*"), Some(Coding::Zstd));
        assert_eq!(wanted("*, zstd;q=0"), Some(Coding::Brotli));
        assert_eq!(wanted("identity, gzip;q=0.5"), None);
        for none in ["deflate", "", "gzip;q=0", "identity"] {
            assert_eq!(wanted(none), None, "{none}");
        }
    }

    #[test]
    fn only_what_becomes_smaller_is_compressed() {
        for yes in ["text/html; charset=utf-8", "application/json", "Application/LD+json", "image/svg+xml"] {
            assert!(is_compressible(yes), "{yes}");
        }
        for no in ["text/event-stream", "image/png", "application/zip", "video/mp4", "font/woff2", "nothing"] {
            assert!(!is_compressible(no), "{no}");
        }
    }
}
