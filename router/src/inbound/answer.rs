//! Writes an answer: its head, and where its body ends.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, TRANSFER_ENCODING};
use http::{Response, StatusCode};
use hyper::body::{Body, Frame};
use model::Clock;
use tokio::io::AsyncWrite;

use super::wire::Wire;
use crate::reply::Reply;
use crate::upload::announced;

/// What is smaller is copied, to be written with what comes before it: cheaper than to have the system walk through a list.
const SMALL: usize = 4096;
/// So many bytes are collected for one write, if they are there.
const ENOUGH: usize = 32 << 10;
/// A buffer that is larger is not kept.
const KEPT: usize = 64 << 10;

/// What matters of a request to its answer.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the request, and none depends on another")]
pub(super) struct Asked {
    pub(super) is_head: bool,
    pub(super) is_http_10: bool,
    /// The client and we can go on after it.
    pub(super) stays: bool,
    /// The client understands trailers.
    pub(super) takes_trailers: bool,
}

/// How the client learns where the body ends.
#[derive(Debug)]
enum Framing {
    /// By its length, or because there can be none.
    Length,
    /// With these trailers at most.
    Chunked(Vec<HeaderName>),
    /// With the connection.
    UntilEnd,
}

/// What the answers of one worker share.
#[derive(Default)]
pub(super) struct Desk {
    /// For what is written at once. Somebody may have it.
    space: RefCell<Vec<u8>>,
    /// The second since the epoch that `date` is.
    second: Cell<i64>,
    date: RefCell<String>,
}

impl Desk {
    fn write_date(&self, clock: &dyn Clock, out: &mut Vec<u8>) {
        let now = clock.now();
        let mut date = self.date.borrow_mut();
        if self.second.replace(now.as_millis() / 1000) != now.as_millis() / 1000 {
            *date = now.to_http_date();
        }
        line(out, &[b"date: ", date.as_bytes(), b"\r\n"]);
    }
}

/// An answer on its way.
pub(super) struct Answer<'a> {
    desk: &'a Desk,
    reply: Reply,
    framing: Framing,
    /// The connection can take another request.
    pub(super) stays: bool,
    /// To be written: this, then what is large, then the rest.
    before: Vec<u8>,
    written: usize,
    large: Bytes,
    after: Vec<u8>,
    unflushed: bool,
    has_ended: bool,
    /// It ended before its end.
    broken: Option<io::Error>,
}

impl<'a> Answer<'a> {
    /// `unsaid` is still to be written before it.
    pub(super) fn new(
        desk: &'a Desk,
        clock: &dyn Clock,
        unsaid: &[u8],
        response: Response<Reply>,
        asked: Asked,
    ) -> Self {
        let (parts, reply) = response.into_parts();
        let status = parts.status;
        let has_none = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
        let may_have_length = !status.is_informational() && status != StatusCode::NO_CONTENT;
        let mut out = desk.space.take();
        let code = status.as_str().as_bytes();
        let reason = status.canonical_reason().unwrap_or_default().as_bytes();
        line(&mut out, &[unsaid, b"HTTP/1.1 ", code, b" ", reason, b"\r\n"]);
        let (mut stays, mut has_length, mut has_date) = (asked.stays, false, false);
        for (name, value) in &parts.headers {
            if name == CONTENT_LENGTH {
                if !may_have_length {
                    continue;
                }
                has_length = true;
            } else if name == DATE {
                has_date = true;
            } else if name == CONNECTION && !is_switch {
                stays = false;
                continue;
            } else if name == TRANSFER_ENCODING {
                continue;
            }
            line(&mut out, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        let has_body = !has_none && !asked.is_head && !reply.is_end_stream();
        let framing = match reply.size_hint().exact() {
            _ if has_length || has_none => Framing::Length,
            // Of an answer to HEAD the app has said what there is to say.
            Some(0) if asked.is_head => Framing::Length,
            Some(length) => {
                line(&mut out, &[b"content-length: ", itoa::Buffer::new().format(length).as_bytes(), b"\r\n"]);
                Framing::Length
            }
            None if asked.is_http_10 => Framing::UntilEnd,
            None => {
                line(&mut out, &[b"transfer-encoding: chunked\r\n"]);
                Framing::Chunked(if asked.takes_trailers { announced(&parts.headers) } else { Vec::new() })
            }
        };
        stays &= !matches!(framing, Framing::UntilEnd);
        if is_switch {
            stays = false;
        } else if !stays {
            line(&mut out, &[b"connection: close\r\n"]);
        } else if asked.is_http_10 {
            line(&mut out, &[b"connection: keep-alive\r\n"]);
        }
        if !has_date && !status.is_informational() {
            desk.write_date(clock, &mut out);
        }
        out.extend_from_slice(b"\r\n");
        Self {
            desk,
            reply,
            framing,
            stays,
            before: out,
            written: 0,
            large: Bytes::new(),
            after: Vec::new(),
            unflushed: false,
            has_ended: !has_body,
            broken: None,
        }
    }

    /// Writes it. If it breaks off, what was there is written all the same.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, wire: &RefCell<Wire>) -> Poll<io::Result<()>> {
        loop {
            while !self.has_ended && self.large.is_empty() && self.before.len() < ENOUGH {
                match Pin::new(&mut self.reply).poll_frame(context) {
                    Poll::Pending => break,
                    Poll::Ready(None) => self.end(None),
                    Poll::Ready(Some(Ok(frame))) => self.push(frame),
                    Poll::Ready(Some(Err(error))) => {
                        (self.has_ended, self.broken) = (true, Some(io::Error::other(error)));
                    }
                }
            }
            if self.before.is_empty() && self.large.is_empty() {
                if self.unflushed {
                    ready!(Pin::new(&mut wire.borrow_mut().stream).poll_flush(context))?;
                    self.unflushed = false;
                }
                return match self.broken.take() {
                    Some(error) => Poll::Ready(Err(error)),
                    None if self.has_ended => Poll::Ready(Ok(())),
                    None => Poll::Pending,
                };
            }
            // What is polled above may read the same connection.
            match ready!(self.write(context, &mut wire.borrow_mut().stream))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.wrote(length),
            }
        }
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref()),
        };
        if data.is_empty() {
            return;
        }
        let is_chunked = matches!(self.framing, Framing::Chunked(_));
        if is_chunked {
            // Writing to a Vec cannot fail.
            let _ = write!(self.before, "{:x}\r\n", data.len());
        }
        if data.len() <= SMALL {
            self.before.extend_from_slice(&data);
        } else {
            self.large = data;
        }
        if is_chunked {
            self.last().extend_from_slice(b"\r\n");
        }
        if self.reply.is_end_stream() {
            self.end(None);
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.has_ended = true;
        let Framing::Chunked(announced) = std::mem::replace(&mut self.framing, Framing::Length) else { return };
        let last = self.last();
        last.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| announced.contains(name)) {
            line(last, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        last.extend_from_slice(b"\r\n");
    }

    /// Where to put what comes after all that is there.
    fn last(&mut self) -> &mut Vec<u8> {
        if self.large.is_empty() { &mut self.before } else { &mut self.after }
    }

    fn write<S: AsyncWrite + Unpin>(&self, context: &mut Context<'_>, to: &mut S) -> Poll<io::Result<usize>> {
        let before = &self.before[self.written..];
        if self.large.is_empty() {
            return Pin::new(to).poll_write(context, before);
        }
        let slices = [before, &self.large, &self.after].map(IoSlice::new);
        Pin::new(to).poll_write_vectored(context, &slices)
    }

    fn wrote(&mut self, mut length: usize) {
        self.unflushed = true;
        let of_before = length.min(self.before.len() - self.written);
        self.written += of_before;
        length -= of_before;
        let of_large = length.min(self.large.len());
        self.large.advance(of_large);
        self.after.drain(..length - of_large);
        if self.written == self.before.len() && self.large.is_empty() {
            (self.written, self.large) = (0, Bytes::new());
            self.before.clear();
            self.before.append(&mut self.after);
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if self.before.capacity() <= KEPT {
            self.before.clear();
            self.desk.space.replace(std::mem::take(&mut self.before));
        }
    }
}

fn line(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}
