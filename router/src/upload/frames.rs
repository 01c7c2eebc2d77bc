//! The same as a stream of HTTP/2: its body and its trailers go as they are.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use http::Request;
use http::header::{HeaderMap, HeaderValue};

use super::{Framing, NO_TRAILERS, Stop, Upload};
use crate::headers;

/// What there is of such a request beside its body.
#[derive(Clone)]
pub(super) struct Stream {
    request: Rc<Request<()>>,
    trailers: Option<HeaderMap>,
    /// Its end was sent.
    has_ended: bool,
}

impl Stream {
    /// Before anything of it was sent.
    pub(super) fn again(&self) -> Self {
        Self { has_ended: false, ..self.clone() }
    }

    /// After all of it was sent that will be.
    pub(super) fn ended(self) -> Self {
        Self { has_ended: true, ..self }
    }

    /// With these trailers, as far as there may be such; nobody has to announce them.
    pub(super) fn end_with(&mut self, trailers: &HeaderMap) {
        let may = |name| !NO_TRAILERS.contains(name) && !headers::is_hop_by_hop(name);
        let trailers = trailers.iter().filter(|(name, _)| may(name));
        self.trailers = Some(trailers.map(|(name, value)| (name.clone(), value.clone())).collect());
    }

    /// See [`Upload::rename`].
    pub(super) fn rename(&mut self, before: &[u8], now: &[u8]) {
        let Ok(now) = HeaderValue::from_bytes(now) else { return };
        let mut request = Request::clone(&self.request);
        request.headers_mut().values_mut().filter(|value| value.as_bytes() == before).for_each(|it| *it = now.clone());
        self.request = Rc::new(request);
    }

    fn end(&mut self, sender: &mut SendStream<Bytes>) -> Result<(), Stop> {
        self.has_ended = true;
        let sent = match self.trailers.clone() {
            Some(trailers) => sender.send_trailers(trailers),
            None => sender.send_data(Bytes::new(), true),
        };
        sent.map_err(|_| Stop::Server)
    }
}

impl Upload {
    /// With this head, as a stream. An instance can say of any such request that it did not look at it, so the beginning of each is kept.
    pub(crate) fn in_frames(mut self, request: Request<()>) -> Self {
        if matches!(self.framing, Framing::Chunked(_)) {
            self.framing = Framing::Frames;
        }
        self.kept.get_or_insert_default();
        Self { stream: Some(Box::new(Stream { request: Rc::new(request), trailers: None, has_ended: false })), ..self }
    }

    /// Its head, if it goes as a stream.
    pub(crate) fn request(&self) -> Option<&Request<()>> {
        self.stream.as_ref().map(|stream| &*stream.request)
    }

    /// There is nothing but its head.
    pub(crate) fn is_head_only(&self) -> bool {
        let has_trailers = self.stream.as_ref().is_some_and(|stream| stream.trailers.is_some());
        self.body.is_none() && self.queue.is_empty() && !has_trailers
    }

    /// Its head goes.
    pub(crate) fn begin_stream(&mut self) {
        self.begun = true;
        let has_ended = self.is_head_only();
        if let Some(stream) = &mut self.stream {
            stream.has_ended = has_ended;
        }
    }

    /// Sends what there is, as far as the instance takes it. Fails with what is wrong with the client, or with the stream.
    pub(crate) fn poll_frames(
        &mut self,
        context: &mut Context<'_>,
        sender: &mut SendStream<Bytes>,
    ) -> Result<(), Stop> {
        while self.stream.as_ref().is_some_and(|stream| !stream.has_ended) {
            self.collect(context).map_err(Stop::Client)?;
            let (is_all, Some(stream)) = (self.body.is_none(), &mut self.stream) else { return Ok(()) };
            let Some(front) = self.queue.front() else {
                return if is_all { stream.end(sender) } else { Ok(()) };
            };
            sender.reserve_capacity(self.queued);
            let Some(room) = room(context, sender)? else { return Ok(()) };
            let length = room.min(front.len());
            let piece = front.slice(..length);
            let is_last = is_all && self.queued == length && stream.trailers.is_none();
            stream.has_ended = is_last;
            self.sent(length);
            sender.send_data(piece, is_last).map_err(|_| Stop::Server)?;
        }
        Ok(())
    }
}

/// How many bytes the stream takes at the moment; none before it wakes who waits for that.
fn room(context: &mut Context<'_>, sender: &mut SendStream<Bytes>) -> Result<Option<usize>, Stop> {
    loop {
        match sender.capacity() {
            0 => match sender.poll_capacity(context) {
                Poll::Pending => return Ok(None),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Err(Stop::Server),
            },
            room => return Ok(Some(room)),
        }
    }
}
