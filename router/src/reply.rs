//! The bodies of the router's answers.

use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use crate::access_log::Record;
use crate::cache::{Collector, Stored};
use crate::compress::Packed;
use crate::failure::Failure;
use crate::proxy::Worker;
use crate::socket::Activity;
use crate::source::Source;
use crate::table::InFlight;

pub(crate) type Failed = Box<dyn Error + Send + Sync>;

pub(crate) enum Reply {
    /// One of our own pages.
    Page(Full<Bytes>),
    /// From an app's instance.
    App(Box<Download>),
    /// What an app's instance said before.
    Stored(Box<Stored>),
    /// Either of them, compressed.
    Packed(Box<Packed>),
    /// From the platform's own API.
    Platform(Incoming),
}

impl Reply {
    pub(crate) fn page(response: Response<Bytes>) -> Response<Self> {
        response.map(|body| Self::Page(Full::new(body)))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        match &mut *self {
            Self::Page(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::App(body) => body.poll_frame(context),
            Self::Stored(body) => Poll::Ready(body.next().map(Ok)),
            Self::Packed(body) => body.poll_frame(context),
            Self::Platform(body) => Pin::new(body).poll_frame(context).map_err(Failed::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Page(body) => body.is_end_stream(),
            Self::App(download) => download.is_over(),
            Self::Stored(body) => body.is_over(),
            Self::Packed(body) => body.is_over(),
            Self::Platform(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Page(body) => body.size_hint(),
            Self::App(download) => download.size_hint(),
            Self::Stored(body) => body.size_hint(),
            Self::Packed(_) => SizeHint::default(),
            Self::Platform(body) => body.size_hint(),
        }
    }
}

/// What is to be compressed.
pub(crate) enum Plain {
    App(Box<Download>),
    Stored(Box<Stored>),
}

impl Plain {
    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        match self {
            Self::App(body) => body.poll_frame(context),
            Self::Stored(body) => Poll::Ready(body.next().map(Ok)),
        }
    }
}

/// The body of an instance's answer on its way to a client. It drives the connection that it comes from, counts as a
/// request in flight as long as it lives, and gives the connection back when it has passed.
pub(crate) struct Download {
    /// None once it has passed.
    pub(crate) source: Option<Source>,
    pub(crate) in_flight: InFlight,
    pub(crate) record: Record,
    pub(crate) worker: Rc<Worker>,
    pub(crate) activity: Arc<Activity>,
    /// How long neither side may have nothing to say.
    pub(crate) patience: Duration,
    /// How long the connection may rest afterwards.
    pub(crate) rest: Duration,
    /// The instance's connection broke, and the client is yet to be told.
    pub(crate) broken: Option<Failed>,
    /// Keeps it for others.
    pub(crate) collector: Option<Box<Collector>>,
}

impl Download {
    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        match source.poll_body(context) {
            Poll::Pending => self.poll_idle(context),
            Poll::Ready(Some(Ok(frame))) => {
                self.activity.pass();
                self.record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.collector.take_if(|collector| !collector.take(&frame));
                if source.is_over() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(failure))) => {
                self.record.fail(failure);
                // The client's connection drops what it has yet to write when it hears of an error. It writes when there
                // is nothing to read, so it hears one turn later.
                self.broken = Some(source.error(failure));
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    /// Every byte, either way, is a sign of life; without one for too long the answer is cut off.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let end = self.activity.last() + self.patience;
        let Some(source) = &mut self.source else { return Poll::Pending };
        ready!(source.poll_timer(context, end));
        self.record.fail(Failure::IdleConnection);
        Poll::Ready(Some(Err("the instance has nothing to say".into())))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.broken.is_none() && self.source.as_ref().is_none_or(Source::is_over)
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or(SizeHint::with_exact(0), Source::size_hint)
    }

    fn finish(&mut self) {
        self.record.complete = true;
        if let Some(collector) = self.collector.take() {
            collector.finish();
        }
        if let Some(source) = self.source.take() {
            let now = Instant::now();
            self.record.ended = Some(now);
            // A stream gives its place back itself.
            if let Source::Http1(upstream) = source {
                self.worker.pool.put(self.in_flight.instance(), upstream, self.rest, now);
            }
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Nobody polls a body that has ended before it began: an answer to HEAD, a 204, a 304.
        if !self.record.complete && self.is_over() {
            self.finish();
        }
    }
}
