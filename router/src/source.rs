//! What an answer comes from: a connection that is the request's alone, or one of many streams of a connection that others share.

use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::exchange::Left;
use crate::failure::Failure;
use crate::h2c::Stream;
use crate::reply::Failed;
use crate::response::Head;
use crate::upload::Progress;
use crate::upstream::Upstream;

pub(crate) enum Source {
    Http1(Box<Upstream>),
    Http2(Box<Stream>),
}

impl Source {
    pub(crate) fn progress(&self) -> Progress {
        match self {
            Self::Http1(upstream) => upstream.progress(),
            Self::Http2(stream) => stream.progress(),
        }
    }

    /// Sends what can be sent, and waits for the head of the answer.
    pub(crate) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        match self {
            Self::Http1(upstream) => upstream.poll_head(context),
            Self::Http2(stream) => stream.poll_head(context),
        }
    }

    /// Sends what is left of the request, and waits for more of the answer's body.
    pub(crate) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self {
            Self::Http1(upstream) => upstream.poll_body(context),
            Self::Http2(stream) => stream.poll_body(context),
        }
    }

    /// Waits until `end`, which may be another moment with every call.
    pub(crate) fn poll_timer(&mut self, context: &mut Context<'_>, end: Instant) -> Poll<()> {
        match self {
            Self::Http1(upstream) => upstream.poll_timer(context, end),
            Self::Http2(stream) => stream.poll_timer(context, end),
        }
    }

    /// Nothing more of the answer's body will come.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Http1(upstream) => upstream.is_over(),
            Self::Http2(stream) => stream.is_over(),
        }
    }

    /// Only the end of the connection tells where the answer ends, which may come early.
    pub(crate) fn ends_by_closing(&self) -> bool {
        matches!(self, Self::Http1(upstream) if upstream.ends_by_closing())
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(upstream) => upstream.size_hint(),
            Self::Http2(stream) => stream.size_hint(),
        }
    }

    /// What is left of the request, of which there is no answer.
    pub(crate) fn left(&mut self) -> Left {
        match self {
            Self::Http1(upstream) => match upstream.take_back() {
                Some(unsent) => Left::Unsent(unsent),
                None => upstream.again().map_or(Left::Nothing, Left::Sent),
            },
            Self::Http2(stream) => stream.left(),
        }
    }

    /// What a client is told whose answer breaks off.
    pub(crate) fn error(&self, failure: Failure) -> Failed {
        match self {
            Self::Http1(_) => failure.look().description.into(),
            Self::Http2(stream) => stream.error(failure),
        }
    }

    /// Nobody is heard there any more.
    pub(crate) fn shun(&self) {
        if let Self::Http2(stream) = self {
            stream.place().trunk().shun();
        }
    }
}
