//! A request on its way to an instance: its head, and its body as it comes from the client.

mod frames;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::Method;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderMap,
    HeaderName, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::request::Parts;
use hyper::body::{Body, Frame};
use tokio::io::AsyncWrite;

use crate::failure::Failure;
use crate::inbound::{Broken, Inbound};
use crate::socket::Activity;

/// So many bytes are collected for one write, if the client has sent as many.
const ENOUGH: usize = 64 << 10;
/// Most of a body that is kept until there is an answer, in case that it has to be sent once more.
const KEPT: usize = 64 << 10;
/// Pieces of one write.
const SLICES: usize = 16;

/// These say something about the message itself, which is decided before its trailers come (RFC 9110 section 6.5.1).
const NO_TRAILERS: [HeaderName; 12] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The instance has yet to take what there is.
    Passing,
    /// The client has yet to send more.
    Waiting,
    Done,
}

/// How an instance learns where the body ends.
#[derive(Debug, Default)]
enum Framing {
    #[default]
    Nothing,
    /// So many bytes are yet to come.
    Length(u64),
    /// With these trailers at most.
    Chunked(Vec<HeaderName>),
    /// HTTP/2 says so itself.
    Frames,
}

/// A request that is being sent.
#[derive(Default)]
pub(crate) struct Upload {
    head: Bytes,
    pub(crate) method: Method,
    /// None once it has ended.
    body: Option<Inbound>,
    /// Told of what comes of it.
    activity: Option<Arc<Activity>>,
    framing: Framing,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// So many bytes of the body may still come, if there is a limit.
    left: Option<u64>,
    /// A byte of it was sent.
    begun: bool,
    /// What was sent, or is to be, as long as all of it is at hand and may be sent twice.
    kept: Option<Kept>,
    /// The whole of it, when the instance took no more and may have answered all the same.
    rest: Option<Box<Self>>,
    /// It goes as a stream of HTTP/2, and has no other head.
    stream: Option<Box<frames::Stream>>,
}

/// The beginning of a request, as it was before anything of it was sent.
#[derive(Default)]
struct Kept {
    head: Bytes,
    pieces: Vec<Bytes>,
    size: usize,
}

impl Upload {
    /// With the head as it is sent; `headers` say what it says of the body.
    pub(crate) fn new(head: Bytes, parts: &Parts, body: Inbound, activity: &Arc<Activity>) -> Self {
        let Parts { method, headers, .. } = parts;
        let length = || headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let framing = if body.is_end_stream() {
            Framing::Nothing
        } else if is_chunked(headers, &body) {
            Framing::Chunked(announced(headers))
        } else {
            length().map_or(Framing::Nothing, Framing::Length)
        };
        let body = (!body.is_end_stream()).then_some(body);
        let activity = body.is_some().then(|| Arc::clone(activity));
        let kept = is_idempotent(method).then(|| Kept { head: head.clone(), ..Kept::default() });
        Self { head, method: method.clone(), body, activity, framing, kept, ..Self::default() }
    }

    /// With a body of so many bytes at most.
    pub(crate) fn at_most(self, limit: Option<u64>) -> Self {
        Self { left: limit, ..self }
    }

    /// It can be sent twice, whatever comes: its method is idempotent, and nothing of it is yet to come.
    pub(crate) fn is_whole(&self) -> bool {
        self.kept.is_some() && self.body.is_none()
    }

    /// The same from its beginning, if it may be sent twice and everything that was sent of it is at hand. What the client has yet to
    /// send follows.
    pub(crate) fn again(&mut self) -> Option<Self> {
        if let Some(rest) = self.rest.take() {
            return Some(*rest);
        }
        let kept = self.kept.take()?;
        Some(Self {
            head: kept.head.clone(),
            method: std::mem::take(&mut self.method),
            body: self.body.take(),
            activity: self.activity.take(),
            framing: std::mem::take(&mut self.framing),
            queue: kept.pieces.iter().cloned().collect(),
            queued: kept.size,
            left: self.left,
            kept: Some(kept),
            stream: self.stream.as_ref().map(|stream| Box::new(stream.again())),
            ..Self::default()
        })
    }

    /// Says something else in a place of its head, of the same length: of what is sent next, and again.
    pub(crate) fn rename(&mut self, before: &[u8], now: &[u8]) {
        let said = |head: &mut Bytes| {
            if let Some(at) = memchr::memmem::rfind(head, before) {
                let mut new = head.to_vec();
                new[at..at + before.len()].copy_from_slice(now);
                *head = new.into();
            }
        };
        said(&mut self.head);
        if let Some(kept) = &mut self.kept {
            kept.head = self.head.clone();
        }
        if let Some(stream) = &mut self.stream {
            stream.rename(before, now);
        }
    }

    /// There is an answer: it is not sent again.
    pub(crate) fn forget(&mut self) {
        (self.kept, self.rest) = (None, None);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    pub(crate) fn progress(&self) -> Progress {
        match (self.head.is_empty() && self.queue.is_empty(), &self.body) {
            (true, None) => Progress::Done,
            (true, Some(_)) => Progress::Waiting,
            (false, _) => Progress::Passing,
        }
    }

    /// Nobody takes the rest of it. Who may send it again needs it all the same.
    pub(crate) fn give_up(&mut self) {
        let rest = self.again();
        let method = rest.as_ref().map_or_else(|| std::mem::take(&mut self.method), |rest| rest.method.clone());
        let stream = self.stream.take().map(|stream| Box::new(stream.ended()));
        *self = Self { method, begun: true, rest: rest.map(Box::new), stream, ..Self::default() };
    }

    /// Sends what there is. Fails with what is wrong with the client, or with the connection.
    pub(crate) fn poll<S: AsyncWrite + Unpin>(&mut self, context: &mut Context<'_>, to: &mut S) -> Result<(), Stop> {
        loop {
            self.collect(context).map_err(Stop::Client)?;
            if self.head.is_empty() && self.queue.is_empty() {
                return Ok(());
            }
            match self.write(context, to) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(length @ 1..)) => self.sent(length),
                Poll::Ready(Ok(0) | Err(_)) => return Err(Stop::Server),
            }
        }
    }

    /// Takes from the client what it has sent.
    fn collect(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        while let Some(body) = &mut self.body {
            if self.queued >= ENOUGH {
                return Ok(());
            }
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(activity) = &self.activity {
                        activity.pass();
                        activity.take(frame.data_ref().map_or(0, Bytes::len));
                    }
                    let is_last = body.is_end_stream();
                    self.push(frame)?;
                    if is_last {
                        self.end(None)?;
                    }
                }
                Poll::Ready(None) => self.end(None)?,
                Poll::Ready(Some(Err(Broken::Malformed))) => return Err(Failure::BadChunk),
                Poll::Ready(Some(Err(Broken::Gone))) => return Err(Failure::ClientInterrupted),
            }
        }
        Ok(())
    }

    fn push(&mut self, frame: Frame<Bytes>) -> Result<(), Failure> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref()),
        };
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(data.len() as u64).ok_or(Failure::BodyTooLarge)?;
        }
        match &mut self.framing {
            _ if data.is_empty() => return Ok(()),
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Failure::BadChunk)?;
                self.enqueue(data);
            }
            Framing::Chunked(_) => {
                self.enqueue(format!("{:x}\r\n", data.len()).into());
                self.enqueue(data);
                self.enqueue(Bytes::from_static(b"\r\n"));
            }
            Framing::Frames => self.enqueue(data),
            // Nobody gives what the head did not announce.
            Framing::Nothing => return Err(Failure::BadChunk),
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Failure> {
        if self.body.take().is_none() {
            return Ok(());
        }
        match &self.framing {
            Framing::Length(1..) => Err(Failure::ClientInterrupted),
            Framing::Length(0) | Framing::Nothing | Framing::Frames => {
                if let (Some(stream), Some(trailers)) = (&mut self.stream, trailers) {
                    stream.end_with(trailers);
                }
                Ok(())
            }
            Framing::Chunked(announced) => {
                let mut last = b"0\r\n".to_vec();
                for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| announced.contains(name)) {
                    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                        last.extend_from_slice(part);
                    }
                }
                last.extend_from_slice(b"\r\n");
                self.enqueue(last.into());
                Ok(())
            }
        }
    }

    fn enqueue(&mut self, bytes: Bytes) {
        self.queued += bytes.len();
        self.kept.take_if(|kept| kept.size + bytes.len() > KEPT);
        if let Some(kept) = &mut self.kept {
            kept.size += bytes.len();
            kept.pieces.push(bytes.clone());
        }
        self.queue.push_back(bytes);
    }

    fn write<S: AsyncWrite + Unpin>(&self, context: &mut Context<'_>, to: &mut S) -> Poll<io::Result<usize>> {
        if self.queue.is_empty() {
            return Pin::new(to).poll_write(context, &self.head);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let head = (!self.head.is_empty()).then_some(&self.head);
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(head.into_iter().chain(&self.queue)) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        Pin::new(to).poll_write_vectored(context, &slices[..count])
    }

    fn sent(&mut self, mut length: usize) {
        self.begun = true;
        let of_head = length.min(self.head.len());
        self.head.advance(of_head);
        length -= of_head;
        self.queued -= length;
        while let Some(first) = self.queue.front_mut() {
            if length < first.len() {
                first.advance(length);
                return;
            }
            length -= first.len();
            self.queue.pop_front();
        }
    }
}

/// Why a request cannot be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The client's fault.
    Client(Failure),
    /// The instance takes no more of it. It may have answered all the same.
    Server,
}

/// Whether it makes no difference how often a request with this method comes (RFC 9110 section 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}

/// Whether the length of a body is yet to be known.
pub(crate) fn is_chunked(headers: &HeaderMap, body: &Inbound) -> bool {
    !body.is_end_stream() && !headers.contains_key(CONTENT_LENGTH)
}

/// The trailers that a head announces, as far as there may be such.
pub(crate) fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let names = headers.get_all(TRAILER).iter().flat_map(crate::headers::tokens);
    names.filter_map(|name| name.parse().ok()).filter(|name| !NO_TRAILERS.contains(name)).collect()
}
