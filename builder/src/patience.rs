//! How long somebody waits for a program of the platform's own: the thread that runs it cannot be dropped like a future.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Over when whoever waits goes away, or when their time is up. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    gone: Arc<AtomicBool>,
    until: Option<Instant>,
}

/// Somebody who waits.
pub(crate) struct Waiting(Patience);

impl Patience {
    /// Of somebody who waits this long at most, and not once what is returned besides is dropped.
    pub(crate) fn for_at_most(time: Duration) -> (Self, Waiting) {
        let patience = Self { until: Instant::now().checked_add(time), ..Self::default() };
        (patience.clone(), Waiting(patience))
    }

    /// Whether nobody waits any more.
    pub fn is_over(&self) -> bool {
        self.gone.load(Ordering::Relaxed) || self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether it may ever be over.
    pub(crate) fn is_limited(&self) -> bool {
        self.until.is_some()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Relaxed);
    }
}
