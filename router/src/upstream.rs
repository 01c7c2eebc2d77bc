//! One HTTP/1 connection to an instance.
//!
//! The request's own task drives it: no task of its own, no wake-up across tasks. It is polled while the request waits
//! for its answer and while the answer's body passes, and rests in the [`Pool`](crate::pool::Pool) in between. At rest it holds no
//! buffer: small answers are read into one that the whole worker has, large ones into buffers of their own size.

use std::cell::{Ref, RefCell};
use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use nix::errno::Errno;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, join};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use crate::failure::Failure;
use crate::response::{Body, Head, HeadReader, Piece};
use crate::seats::Seat;
use crate::timer::Timer;
use crate::upload::{Progress, Stop, Upload};

/// What is read at once, if nothing tells of more.
const SMALL_READ: usize = 16 << 10;
/// Most that is read at once.
const LARGE_READ: usize = 256 << 10;

/// Where one worker reads into what is small.
#[derive(Clone)]
pub(crate) struct Scratch(Rc<RefCell<Box<[u8]>>>);

impl Default for Scratch {
    fn default() -> Self {
        Self::new(SMALL_READ)
    }
}

impl Scratch {
    pub(crate) fn new(size: usize) -> Self {
        Self(Rc::new(RefCell::new(vec![0; size].into())))
    }

    pub(crate) fn size(&self) -> usize {
        self.0.borrow().len()
    }

    /// Reads what is there. It has to be taken out before anybody reads again.
    pub(crate) fn poll_read(
        &self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<Ref<'_, [u8]>>> {
        let mut scratch = self.0.borrow_mut();
        let mut space = ReadBuf::new(&mut scratch);
        ready!(Pin::new(from).poll_read(context, &mut space))?;
        let length = space.filled().len();
        drop(scratch);
        Poll::Ready(Ok(Ref::map(self.0.borrow(), |scratch| &scratch[..length])))
    }
}

pub(crate) struct Upstream {
    stream: TcpStream,
    seat: Option<Seat>,
    scratch: Scratch,
    /// The request that it was given last.
    upload: Upload,
    reader: HeadReader,
    /// What is yet to come of its answer.
    body: Body,
    /// What was read and belongs to nobody yet.
    buffer: BytesMut,
    /// So much is read next time.
    appetite: usize,
    /// Bytes of this answer so far.
    read: usize,
    /// It can take another request after this one.
    stays: bool,
    /// Kept between requests.
    timer: Timer,
}

impl Upstream {
    /// Speaks HTTP/1 on a new connection, which holds its place.
    pub(crate) fn new(stream: TcpStream, seat: Option<Seat>, scratch: &Scratch) -> Box<Self> {
        Box::new(Self {
            stream,
            seat,
            scratch: scratch.clone(),
            upload: Upload::default(),
            reader: HeadReader::default(),
            body: Body::Over,
            buffer: BytesMut::new(),
            appetite: SMALL_READ,
            read: 0,
            stays: true,
            timer: Timer::default(),
        })
    }

    /// Gives it the next request.
    pub(crate) fn begin(&mut self, upload: Upload) {
        (self.upload, self.stays, self.read) = (upload, false, 0);
    }

    /// The request, if not a byte of it was sent.
    pub(crate) fn take_back(&mut self) -> Option<Upload> {
        (!self.upload.has_begun()).then(|| std::mem::take(&mut self.upload))
    }

    /// The request from its beginning, if not a byte of an answer came and it may be sent twice.
    pub(crate) fn again(&mut self) -> Option<Upload> {
        if self.read == 0 { self.upload.again() } else { None }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.upload.progress()
    }

    /// Sends what can be sent, and waits for the head of the answer.
    pub(crate) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        self.send(context)?;
        loop {
            if let Some(mut head) = ready!(self.poll_more_head(context))? {
                self.upload.forget();
                self.body = std::mem::replace(&mut head.body, Body::Over);
                self.stays = head.stays;
                if let Body::Length(length) = self.body {
                    let length = usize::try_from(length).unwrap_or(LARGE_READ);
                    self.appetite = length.clamp(SMALL_READ, LARGE_READ);
                }
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// Reads on, and looks whether the head of the answer is there.
    fn poll_more_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Head>, Failure>> {
        const GONE: Poll<Result<Option<Head>, Failure>> = Poll::Ready(Err(Failure::NoResponse));
        if self.appetite > SMALL_READ || !self.buffer.is_empty() {
            if !matches!(ready!(self.poll_read(context)), Ok(1..)) {
                return GONE;
            }
            let (done, head) = self.reader.read(&self.buffer, &self.upload.method)?;
            self.buffer.advance(done);
            return Poll::Ready(Ok(head));
        }
        let Ok(read) = ready!(self.scratch.poll_read(context, &mut self.stream)) else { return GONE };
        if read.is_empty() {
            return GONE;
        }
        // Most often all of it is there, and needs no buffer.
        let (done, head) = self.reader.read(&read, &self.upload.method)?;
        self.buffer.extend_from_slice(&read[done..]);
        let length = read.len();
        drop(read);
        self.has_read(length, SMALL_READ);
        Poll::Ready(Ok(head))
    }

    /// Sends what is left of the request, and waits for more of the answer's body.
    pub(crate) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.upload.progress() != Progress::Done {
            self.send(context)?;
        }
        loop {
            match self.body.next(&mut self.buffer)? {
                Piece::Data(data) => {
                    self.body.finish_early(&mut self.buffer);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Piece::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Piece::End => return Poll::Ready(None),
                Piece::More => match ready!(self.poll_read(context)) {
                    Ok(1..) => {}
                    Ok(0) if matches!(self.body, Body::UntilEnd) => self.body = Body::Over,
                    Ok(0) | Err(_) => return Poll::Ready(Some(Err(Failure::Interrupted))),
                },
            }
        }
    }

    fn send(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        match self.upload.poll(context, &mut self.stream) {
            Ok(()) => Ok(()),
            Err(Stop::Client(failure)) => Err(failure),
            Err(Stop::Server) if self.upload.has_begun() => {
                // Its answer may be here already.
                self.upload.give_up();
                self.stays = false;
                Ok(())
            }
            Err(Stop::Server) => Err(Failure::NoResponse),
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (length, limit) = if self.appetite <= SMALL_READ {
            let read = ready!(self.scratch.poll_read(context, &mut self.stream))?;
            self.buffer.extend_from_slice(&read);
            (read.len(), SMALL_READ)
        } else {
            // No memory for what is yet to come.
            ready!(self.stream.poll_read_ready(context))?;
            self.buffer.reserve(self.appetite);
            let result = poll_read_buf(Pin::new(&mut self.stream), context, &mut self.buffer);
            if result.is_pending() && self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            (ready!(result)?, self.appetite)
        };
        self.has_read(length, limit);
        Poll::Ready(Ok(length))
    }

    /// Notes that so much came, of so much that might have.
    fn has_read(&mut self, length: usize, limit: usize) {
        if length >= limit {
            self.appetite = (limit * 2).min(LARGE_READ);
        }
        self.read += length;
    }

    /// Nothing more of the answer's body will come.
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_over()
    }

    /// Only the end of the connection tells where the answer ends, which may come early.
    pub(crate) fn ends_by_closing(&self) -> bool {
        matches!(self.body, Body::UntilEnd)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// Waits until `end`, which may be another moment with every call.
    pub(crate) fn poll_timer(&mut self, context: &mut Context<'_>, end: Instant) -> Poll<()> {
        self.timer.poll(context, end)
    }

    /// True if it can take another request: open, and done with the one before. It is given back what it held for that one.
    pub(crate) fn rest(&mut self) -> bool {
        let is_done = self.stays && self.is_over() && self.buffer.is_empty() && self.progress() == Progress::Done;
        self.buffer = BytesMut::new();
        self.upload = Upload::default();
        // The next answer will be as large as this one.
        let appetite = self.read.next_power_of_two();
        self.appetite = appetite.clamp(SMALL_READ, LARGE_READ);
        is_done
    }

    /// Whether nothing has come since it rests, not even its end.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The connection itself, for another protocol, with what was read of that already; and its place.
    pub(crate) fn into_stream(self: Box<Self>) -> (impl AsyncRead + AsyncWrite + Unpin, Option<Seat>) {
        let (reader, writer) = self.stream.into_split();
        (join(AsyncReadExt::chain(Cursor::new(self.buffer.freeze()), reader), writer), self.seat)
    }
}

/// Connects within `limit`.
pub(crate) async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, Failure> {
    let stream = match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Err(_) => return Err(Failure::ConnectTimeout),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => return Err(Failure::ConnectTimeout),
        Ok(Err(error)) if is_exhausted(&error) => return Err(Failure::Exhausted),
        Ok(Err(_)) => return Err(Failure::ConnectRefused),
        Ok(Ok(stream)) => stream,
    };
    // It only costs speed if it fails.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Whether a connection failed for what this machine has not got (connect(2), socket(2)): the instance knows nothing of it.
fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EADDRNOTAVAIL | Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}
