//! Where requests wait while every instance has as many as it may.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::failure::Failure;

pub(crate) struct Gate {
    /// Told of every request that has left an instance.
    pub(crate) freed: Notify,
    /// How long a request waits.
    pub(crate) patience: Duration,
    limit: u32,
    waiting: AtomicU32,
}

/// A place in the queue, until it is dropped.
pub(crate) struct Place<'a>(&'a Gate);

impl Gate {
    pub(super) fn new(limit: u32, patience: Duration) -> Self {
        Self { freed: Notify::new(), patience, limit, waiting: AtomicU32::new(0) }
    }

    /// Takes a place, if there is one.
    pub(crate) fn join(&self) -> Result<Place<'_>, Failure> {
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let place = Place(self);
        if before < self.limit { Ok(place) } else { Err(Failure::Backlog) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
