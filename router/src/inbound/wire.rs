//! A client's connection: heads and bodies of its requests come out of it, whoever reads them.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::Request;
use hyper::body::{self, Frame, Incoming, SizeHint};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::head::{self, Begin};
use crate::response::{Body, HeadReader, Piece};
use crate::socket::{ClientStream, Rewound, Stream};
use crate::strict::Refusal;
use crate::upstream::Scratch;

/// Most of a body that is read at once.
const LARGE_READ: usize = 256 << 10;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The body of a request.
pub(crate) enum Inbound {
    Nothing,
    Http1(Rc<RefCell<Wire>>),
    Http2(Incoming),
}

/// Why there is no more of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It is not what it should be.
    Malformed,
    /// The client is gone.
    Gone,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the body of the request is malformed",
            Self::Gone => "the client is gone",
        })
    }
}

impl std::error::Error for Broken {}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Self::Http1(wire) = self {
            let watcher = wire.try_borrow_mut().ok().and_then(|mut wire| wire.watcher.take());
            watcher.into_iter().for_each(Waker::wake);
        }
    }
}

impl body::Body for Inbound {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Nothing => Poll::Ready(None),
            Self::Http1(wire) => wire.borrow_mut().poll_body(context),
            Self::Http2(body) => Pin::new(body).poll_frame(context).map_err(|_| Broken::Gone),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Http1(wire) => wire.borrow().body.is_over(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Http1(wire) => wire.borrow().body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

pub(crate) struct Wire {
    pub(super) stream: ClientStream<Stream>,
    /// What was read and belongs to nobody yet. At rest there is nothing in it.
    pub(super) buffer: BytesMut,
    scratch: Scratch,
    reader: HeadReader,
    /// What is yet to come of a request's body.
    pub(super) body: Body,
    /// What is yet to be said before the client sends a body.
    invitation: &'static [u8],
    /// Whoever is to hear of the end of the body.
    watcher: Option<Waker>,
}

impl Wire {
    pub(super) fn new(stream: ClientStream<Stream>, buffer: BytesMut, scratch: Scratch) -> Self {
        let reader = HeadReader::default();
        Self { stream, buffer, scratch, reader, body: Body::Over, invitation: b"", watcher: None }
    }

    /// The next request. None if the client is gone.
    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Next, Refusal>>> {
        if !self.buffer.is_empty()
            && let Some(next) = self.next()?
        {
            return Poll::Ready(Some(Ok(next)));
        }
        loop {
            let Ok(read) = ready!(self.scratch.poll_read(context, &mut self.stream)) else {
                return Poll::Ready(None);
            };
            if read.is_empty() {
                return Poll::Ready(None);
            }
            if !self.buffer.is_empty() {
                self.buffer.extend_from_slice(&read);
                drop(read);
                if let Some(next) = self.next()? {
                    return Poll::Ready(Some(Ok(next)));
                }
                continue;
            }
            // Most often all of it is there, and needs no buffer.
            match head::read(&mut self.reader, &read)? {
                Begin::Request(request, length) => {
                    self.buffer.extend_from_slice(&read[length..]);
                    return Poll::Ready(Some(Ok(Next::Request(request))));
                }
                begin => {
                    self.buffer.extend_from_slice(&read);
                    if matches!(begin, Begin::Http2) {
                        return Poll::Ready(Some(Ok(Next::Http2)));
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Result<Option<Next>, Refusal> {
        Ok(match head::read(&mut self.reader, &self.buffer)? {
            Begin::Request(request, length) => {
                self.buffer.advance(length);
                self.let_go();
                Some(Next::Request(request))
            }
            Begin::Http2 => Some(Next::Http2),
            Begin::Partial => None,
        })
    }

    /// Gives the memory back of what was taken out.
    fn let_go(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// From now on there is a body to read. Before the first byte of one that is `expected` the client is told to send it.
    pub(super) fn begin_body(&mut self, body: Body, expected: bool) {
        self.invitation = if expected && !body.is_over() { CONTINUE } else { b"" };
        (self.body, self.watcher) = (body, None);
    }

    /// The client waits to be told to send a body, and now never will be.
    pub(super) fn withdraw(&mut self) -> bool {
        let waits = self.invitation.len() == CONTINUE.len();
        if waits {
            self.invitation = b"";
        }
        waits
    }

    /// What is left to be said before an answer.
    pub(super) fn unsaid(&mut self) -> &'static [u8] {
        std::mem::take(&mut self.invitation)
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            let piece = match self.body.next(&mut self.buffer) {
                Ok(Piece::More) => None,
                Ok(piece) => Some(piece),
                Err(_) => return Poll::Ready(Some(Err(Broken::Malformed))),
            };
            let Some(piece) = piece else {
                ready!(self.poll_invite(context)).map_err(|_| Broken::Gone)?;
                match ready!(self.poll_read(context)) {
                    Ok(1..) => continue,
                    Ok(0) | Err(_) => return Poll::Ready(Some(Err(Broken::Gone))),
                }
            };
            let frame = match piece {
                Piece::Data(data) => {
                    self.body.finish_early(&mut self.buffer);
                    Some(Ok(Frame::data(data)))
                }
                Piece::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
                Piece::End | Piece::More => None,
            };
            if self.body.is_over() {
                self.let_go();
                // Who waits for an answer watches the client from here on, and may be another task.
                self.watcher
                    .take()
                    .filter(|watcher| !watcher.will_wake(context.waker()))
                    .into_iter()
                    .for_each(Waker::wake);
            }
            return Poll::Ready(frame);
        }
    }

    fn poll_invite(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.invitation.is_empty() || !self.buffer.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.invitation.is_empty() {
            let length = ready!(Pin::new(&mut self.stream).poll_write(context, self.invitation))?;
            self.invitation = &self.invitation[length..];
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Reads more of a body.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let expected = match self.body {
            Body::Length(left) => usize::try_from(left).unwrap_or(LARGE_READ).min(LARGE_READ),
            _ => 0,
        };
        // No memory for what is yet to come, and records of TLS are small.
        if expected > self.scratch.size()
            && let Stream::Plain(stream) = self.stream.get_ref()
        {
            ready!(stream.poll_read_ready(context))?;
        } else {
            let read = ready!(self.scratch.poll_read(context, &mut self.stream))?;
            self.buffer.extend_from_slice(&read);
            return Poll::Ready(Ok(read.len()));
        }
        let mut large = BytesMut::with_capacity(expected);
        let length = ready!(poll_read_buf(Pin::new(&mut self.stream), context, &mut large))?;
        self.buffer.unsplit(large);
        Poll::Ready(Ok(length))
    }

    /// Ready when the body has been read. Who waits is woken as well when nobody reads it any more.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.body.is_over() {
            return Poll::Ready(());
        }
        match &mut self.watcher {
            Some(watcher) => watcher.clone_from(context.waker()),
            None => self.watcher = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Ready when a client has gone whose request is here and that has sent nothing since.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_over(context));
        if !self.buffer.is_empty() {
            // The next request is there.
            return Poll::Pending;
        }
        match ready!(self.poll_read(context)) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(()),
        }
    }

    /// Throws away what the client sends, until it goes or has sent more than `patience` bytes.
    pub(super) fn poll_discard(&mut self, context: &mut Context<'_>, patience: &mut usize) -> Poll<()> {
        loop {
            let left = match ready!(self.scratch.poll_read(context, &mut self.stream)) {
                Ok(read) if !read.is_empty() => patience.checked_sub(read.len()),
                _ => None,
            };
            match left {
                Some(left) => *patience = left,
                None => return Poll::Ready(()),
            }
        }
    }

    /// The connection, for another protocol, with what was read of that already.
    pub(super) fn into_stream(self) -> Rewound<ClientStream<Stream>> {
        Rewound { begin: self.buffer.freeze(), stream: self.stream }
    }
}

/// What comes of a connection.
#[expect(clippy::large_enum_variant, reason = "nearly always the large one, and never kept")]
pub(super) enum Next {
    Request(Request<()>),
    Http2,
}
