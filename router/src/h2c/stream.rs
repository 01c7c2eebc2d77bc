//! One request to an instance and its answer: a stream of a connection that others share.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, StatusCode};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use super::{Place, head};
use crate::exchange::Left;
use crate::failure::Failure;
use crate::reply::Failed;
use crate::response::Head;
use crate::timer::Timer;
use crate::upload::{Progress, Stop, Upload, is_idempotent};

pub(crate) struct Stream {
    upload: Upload,
    sender: SendStream<Bytes>,
    answer: Answer,
    /// So many bytes of the answer are yet to come, if it says so.
    left: Option<u64>,
    /// Nothing more of the answer will come.
    is_over: bool,
    /// Why the instance, or who speaks for it, ended the stream.
    reason: Option<Reason>,
    /// The instance has not looked at the request (RFC 9113 section 8.7).
    is_unseen: bool,
    timer: Timer,
    /// Given back when the stream is gone.
    place: Place,
}

/// What is waited for.
enum Answer {
    Head(ResponseFuture),
    Body(RecvStream),
}

impl Stream {
    /// Begins it; the request is given back if the connection takes none any more.
    pub(crate) fn begin(place: Place, mut upload: Upload) -> Result<Box<Self>, Box<Upload>> {
        let Some(request) = upload.request().cloned() else { return Err(Box::new(upload)) };
        // Of its own: what the library keeps of a stream with who sent it would keep the stream from being cancelled.
        let (answer, sender) = match place.trunk().sender.clone().send_request(request, upload.is_head_only()) {
            Ok(begun) => begun,
            Err(error) => {
                tracing::debug!(%error, "an instance's connection took no request");
                return Err(Box::new(upload));
            }
        };
        upload.begin_stream();
        let answer = Answer::Head(answer);
        let (left, reason, timer) = (None, None, Timer::default());
        Ok(Box::new(Self { upload, sender, answer, left, is_over: false, reason, is_unseen: false, timer, place }))
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn progress(&self) -> Progress {
        self.upload.progress()
    }

    /// Sends what can be sent, and waits for the head of the answer.
    pub(crate) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        self.send(context)?;
        let Answer::Head(answer) = &mut self.answer else { return Poll::Ready(Err(Failure::NoResponse)) };
        let (parts, body) = match ready!(Pin::new(answer).poll(context)) {
            Ok(answer) => answer.into_parts(),
            Err(error) => return Poll::Ready(Err(self.lose(&error))),
        };
        let has_none = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || self.upload.method == Method::HEAD;
        let (head, length) = head::answer(parts)?;
        self.upload.forget();
        self.left = length.filter(|_| !has_none);
        self.is_over = has_none || body.is_end_stream();
        self.answer = Answer::Body(body);
        Poll::Ready(Ok(head))
    }

    /// Sends what is left of the request, and waits for more of the answer's body.
    pub(crate) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.send(context)?;
        let Answer::Body(body) = &mut self.answer else { return Poll::Ready(None) };
        loop {
            match ready!(body.poll_data(context)) {
                Some(Ok(data)) if data.is_empty() && !body.is_end_stream() => {}
                Some(Ok(data)) => {
                    // Whoever wants more comes when this is on its way. It fails if the stream is over, when nobody counts any more.
                    let _ = body.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    self.is_over = body.is_end_stream();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.break_off(&error)))),
                None => break,
            }
        }
        match ready!(body.poll_trailers(context)) {
            Ok(Some(trailers)) if !head::are_few(&trailers) => Poll::Ready(Some(Err(Failure::Interrupted))),
            Ok(trailers) => {
                self.is_over = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => Poll::Ready(Some(Err(self.break_off(&error)))),
        }
    }

    fn send(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        match self.upload.poll_frames(context, &mut self.sender) {
            Ok(()) => Ok(()),
            Err(Stop::Client(failure)) => Err(failure),
            Err(Stop::Server) => {
                // It needs no more of it, or why it takes no more is told with the answer.
                self.upload.give_up();
                Ok(())
            }
        }
    }

    /// There is no answer.
    fn lose(&mut self, error: &h2::Error) -> Failure {
        let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // A GOAWAY is told to those streams alone that are above the last one it names.
        self.is_unseen = error.is_remote() && (is_refused || error.is_go_away());
        tracing::debug!(%error, "an instance's stream has no answer");
        if error.is_library() { Failure::BadResponse } else { Failure::NoResponse }
    }

    /// There is no more of the answer.
    fn break_off(&mut self, error: &h2::Error) -> Failure {
        self.reason = error.reason().filter(|_| error.is_reset() && error.is_remote());
        tracing::debug!(%error, "an instance's stream broke off");
        Failure::Interrupted
    }

    /// What is left of the request, of which there is no answer.
    pub(crate) fn left(&mut self) -> Left {
        let may_come_twice = self.is_unseen || is_idempotent(&self.upload.method);
        match if may_come_twice { self.upload.again() } else { None } {
            Some(again) if self.is_unseen => Left::Unseen(again),
            Some(again) => Left::Sent(again),
            None => Left::Nothing,
        }
    }

    /// What a client is told whose answer breaks off: what the instance said, if that may be said to others.
    pub(crate) fn error(&self, failure: Failure) -> Failed {
        match self.reason {
            Some(reason @ (Reason::CANCEL | Reason::ENHANCE_YOUR_CALM)) => h2::Error::from(reason).into(),
            _ => failure.look().description.into(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_over => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }

    /// Waits until `end`, which may be another moment with every call.
    pub(crate) fn poll_timer(&mut self, context: &mut Context<'_>, end: Instant) -> Poll<()> {
        self.timer.poll(context, end)
    }
}
