//! How long a rollout has come no further.

use std::time::Duration;

use model::Timestamp;

/// Longest time between two looks that counts: while nobody looked, or the clock was set, nothing could have come further as far
/// as anybody knows.
const LONGEST: Duration = Duration::from_secs(10);

/// Counts the time in which a rollout was looked at and had come no further.
#[derive(Debug, Default)]
pub(super) struct Stall {
    reached: u64,
    waited: Duration,
    looked: Option<Timestamp>,
}

impl Stall {
    /// For how long it has come no further than `reached`, which grows as it does.
    pub(super) fn look(&mut self, reached: u64, now: Timestamp) -> Duration {
        let since = self.looked.replace(now).map_or(Duration::ZERO, |looked| now.since(looked).min(LONGEST));
        if reached > self.reached {
            (self.reached, self.waited) = (reached, Duration::ZERO);
        } else {
            self.waited += since;
        }
        self.waited
    }

    /// Somebody waits for it: no time counts.
    pub(super) fn rest(&mut self, now: Timestamp) -> Duration {
        (self.looked, self.waited) = (Some(now), Duration::ZERO);
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_somebody_looked_counts() {
        let mut stall = Stall::default();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let mut look = |reached, second| stall.look(reached, at(second)).as_secs();
        assert_eq!([look(0, 0), look(0, 5), look(0, 10)], [0, 5, 10]);
        assert_eq!([look(0, 3610), look(0, 10), look(0, 15)], [20, 20, 25], "a clock that was set there and back");
        assert_eq!([look(1, 20), look(1, 25), look(0, 30)], [0, 5, 10], "it came further, once");
    }
}
