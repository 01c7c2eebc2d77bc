//! One timer that is moved, not made: to put it off costs next to nothing.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// None until somebody has to wait.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// As [`poll`](Self::poll), for a task that nobody shares it with: who has waited once is woken, and need not say again who it is.
    pub(crate) fn poll_own(&mut self, context: &mut Context<'_>, end: Instant) -> Poll<()> {
        match &self.0 {
            Some(sleep) if sleep.deadline() <= end && !sleep.is_elapsed() => Poll::Pending,
            _ => self.poll(context, end),
        }
    }

    /// Waits until `end`, which may be another moment with every call.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, end: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if sleep.deadline() > end {
            sleep.as_mut().reset(end);
        }
        loop {
            // A task that has done much in one turn is to be woken all the same.
            ready!(pin!(unconstrained(sleep.as_mut())).poll(context));
            if sleep.deadline() >= end {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(end);
        }
    }
}
