//! Gathers what many streams of one connection have to say, so that it takes one write and one record of TLS.
//!
//! The `h2` crate writes frame by frame, and asks for a flush after each body. Here a flush only means that the bytes may go: they go when
//! the connection's task has nothing more to do ([`Cork::poll_pull`]), or when there are too many.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait at most.
const LIMIT: usize = 64 << 10;

/// Two handles of one connection: who writes has one, who lets the bytes go has the other.
pub(crate) struct Cork<S>(Rc<RefCell<Corked<S>>>);

struct Corked<S> {
    stream: S,
    waiting: Vec<u8>,
    /// So many of `waiting` are gone.
    gone: usize,
    /// The stream may hold some of what it took.
    is_flushed: bool,
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    pub(crate) fn new(stream: S) -> (Self, Self) {
        let corked = Corked { stream, waiting: Vec::new(), gone: 0, is_flushed: true };
        let corked = Rc::new(RefCell::new(corked));
        (Self(Rc::clone(&corked)), Self(corked))
    }

    /// Lets go what waits.
    pub(crate) fn poll_pull(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_pull(context)
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    fn poll_pull(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        if !self.is_flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.waiting.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting[self.gone..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += written;
            self.is_flushed = false;
        }
        // A connection at rest holds no memory for this.
        (self.waiting, self.gone) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    fn poll_take(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= LIMIT {
            ready!(self.poll_drain(context))?;
        }
        let mut room = LIMIT - self.waiting.len();
        let before = self.waiting.len();
        for slice in slices {
            let length = slice.len().min(room);
            self.waiting.extend_from_slice(&slice[..length]);
            room -= length;
        }
        Poll::Ready(Ok(self.waiting.len() - before))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cork<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut corked = self.0.borrow_mut();
        ready!(corked.poll_pull(context))?;
        Pin::new(&mut corked.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_was_written_goes_when_it_is_let_go() {
        let (near, mut far) = duplex(1000);
        let (mut cork, pull) = Cork::new(near);
        for part in ["one, ", "two, ", "three"] {
            cork.write_all(part.as_bytes()).await.expect("written");
            cork.flush().await.expect("flushed");
        }
        let mut bytes = [0; 100];
        let nothing = poll_fn(|context| {
            Poll::Ready(Pin::new(&mut far).poll_read(context, &mut ReadBuf::new(&mut bytes)).is_pending())
        });
        assert!(nothing.await, "it went by itself");
        poll_fn(|context| pull.poll_pull(context)).await.expect("gone");
        let length = far.read(&mut bytes).await.expect("read");
        assert_eq!(&bytes[..length], b"one, two, three");
    }

    #[tokio::test]
    async fn more_than_may_wait_goes_as_far_as_there_is_room_and_all_of_it_before_the_end() {
        let sent: Vec<u8> = (0..3 * LIMIT + 17).map(|number| number.to_le_bytes()[0]).collect();
        let (near, mut far) = duplex(100);
        let (mut cork, pull) = Cork::new(near);
        let write = async {
            cork.write_all(&sent).await.expect("written");
            assert!(pull.0.borrow().waiting.len() <= LIMIT);
            cork.shutdown().await.expect("ended");
        };
        let mut read = Vec::new();
        let ((), length) = tokio::join!(write, far.read_to_end(&mut read));
        assert_eq!((length.expect("read"), read == sent), (sent.len(), true));
    }
}
