//! What happens after a crash.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When an instance that ended by itself is started again: a few times at once, then after pauses that double, and at last no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// So many crashes in a row are followed by a restart at once.
    pub at_once: u32,
    /// The pause after the next one; each later pause is twice as long as the one before.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
    /// After so many restarts in a row the next crash is the last one. None: it never is.
    pub give_up: Option<u32>,
    /// An instance that ran for this long crashed for a new reason: its crash is the first in a row again.
    pub stable: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            at_once: 3,
            first: Duration::from_secs(30),
            longest: Duration::from_secs(16 * 60),
            give_up: Some(200),
            stable: Duration::from_secs(5 * 60),
        }
    }
}

impl Restart {
    /// How long to wait after the crash of this number in a row, counting from 1; none if it is not started again.
    pub fn pause(&self, crashes: u32) -> Option<Duration> {
        if self.give_up.is_some_and(|restarts| crashes > restarts) {
            return None;
        }
        let doubled = crashes.checked_sub(self.at_once + 1).map(|times| 2_u32.saturating_pow(times.min(31)));
        Some(doubled.map_or(Duration::ZERO, |factor| self.first.saturating_mul(factor).min(self.longest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_at_once_then_half_a_minute_doubling_to_sixteen_and_an_end() {
        let pauses = [1, 3, 4, 5, 6, 8, 9, 200, 201].map(|crashes| Restart::default().pause(crashes));
        let seconds = pauses.map(|pause| pause.map(|pause| pause.as_secs()));
        assert_eq!(seconds, [Some(0), Some(0), Some(30), Some(60), Some(120), Some(480), Some(960), Some(960), None]);
        let patient = Restart { give_up: None, ..Restart::default() };
        assert_eq!(patient.pause(u32::MAX), Some(patient.longest));
    }
}
