//! A lock that nobody holds for long.

use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        // Nothing panics while it holds one; what it holds is whole at any moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
