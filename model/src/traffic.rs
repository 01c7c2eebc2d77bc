//! What routers count of the requests to a workload.

use serde::{Deserialize, Serialize};

/// Where the parts end into which [`Counts::latency`] sorts answers, in milliseconds; the last part, after these, has no end.
pub const LATENCY_ENDS_MS: [u64; 23] =
    [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10_000];

/// How many requests a workload got, and what became of them. A request is counted once, when it is over: when its answer has passed, its
/// tunnel has ended, or nobody waits for it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Which count this is. It grows for as long as its number stays the same; a router that starts again counts from zero
    /// under another number.
    pub life: u64,
    /// All requests that are over, also those that got no answer of the app.
    pub requests: u64,
    /// Of these, the ones that got no answer of the app or not all of it, without it being the client's doing: the router answered in its place
    /// (H10 to H13, H17 to H21, H25, H99), the answer broke off, or a tunnel was cut without a word.
    pub lost: u64,
    /// Of these, the ones that the app itself answered with a status of 500 or above.
    pub errors: u64,
    /// Of these, the ones that had to wait because no instance could take them.
    pub held: u64,
    /// How long clients waited for the head of an answer, or in vain. Each request is in the first part at whose end it was over; see
    /// [`LATENCY_ENDS_MS`].
    pub latency: [u64; LATENCY_ENDS_MS.len() + 1],
}

impl Counts {
    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        self.change(other, u64::saturating_add);
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        self.change(earlier, u64::saturating_sub);
        self
    }

    /// Puts a request into [`Counts::latency`].
    pub fn add_latency(&mut self, milliseconds: u64) {
        self.latency[LATENCY_ENDS_MS.partition_point(|end| *end < milliseconds)] += 1;
    }

    fn change(&mut self, other: &Self, operation: fn(u64, u64) -> u64) {
        let Self { life: _, requests, lost, errors, held, latency } = self;
        let pairs = [(requests, other.requests), (lost, other.lost), (errors, other.errors), (held, other.held)];
        for (own, other) in pairs.into_iter().chain(latency.iter_mut().zip(other.latency)) {
            *own = operation(*own, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_each_wait_has_its_part() {
        let mut counts = Counts { life: 7, requests: 3, lost: 1, errors: 1, held: 1, ..Counts::default() };
        for milliseconds in [0, 1, 2, 10_000, 10_001, u64::MAX] {
            counts.add_latency(milliseconds);
        }
        assert_eq!((counts.latency[0], counts.latency[1], counts.latency[22], counts.latency[23]), (2, 1, 1, 2));
        let earlier = counts;
        counts.add(&Counts { life: 8, requests: 2, lost: 1, ..Counts::default() });
        assert_eq!((counts.life, counts.requests, counts.lost, counts.held), (7, 5, 2, 1));
        let since = counts.since(&earlier);
        assert_eq!((since.requests, since.lost, since.errors, since.latency), (2, 1, 0, [0; 24]));
    }
}
