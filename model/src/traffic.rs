//! What routers count of the requests to a workload.

use serde::{Deserialize, Serialize};

use crate::id::AppId;
use crate::routes::WorkloadId;

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
        self.latency[latency_part(milliseconds)] += 1;
    }

    fn change(&mut self, other: &Self, operation: fn(u64, u64) -> u64) {
        let Self { life: _, requests, lost, errors, held, latency } = self;
        let pairs = [(requests, other.requests), (lost, other.lost), (errors, other.errors), (held, other.held)];
        for (own, other) in pairs.into_iter().chain(latency.iter_mut().zip(other.latency)) {
            *own = operation(*own, other);
        }
    }
}

/// Most different outcomes that are told apart of one place: an app cannot fill memory by answering with a thousand statuses.
const OUTCOMES: usize = 64;

/// Whose requests are counted together in a [`Detail`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// None for what was not told apart any more, because there were too many places.
    pub app: Option<AppId>,
    /// None for requests that the router answered without looking for an instance: rules, maintenance, no web process.
    pub workload: Option<WorkloadId>,
    /// `web.1`; empty if no instance had them.
    pub dyno: String,
}

/// How often requests ended in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What the client was answered, or would have been.
    pub status: u16,
    /// The number of the router's error: 12 is H12. Zero is none.
    pub code: u8,
    /// So often.
    pub count: u64,
}

/// What became of the requests of a [`Place`]: all that people and programs are shown of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Detail {
    /// See [`Counts::life`].
    pub life: u64,
    /// By status and error.
    pub outcomes: Vec<Outcome>,
    /// As [`Counts::latency`].
    pub latency: [u64; LATENCY_ENDS_MS.len() + 1],
    /// The sum of what is sorted in there, in microseconds.
    pub waited_us: u64,
    /// Bytes of bodies that clients sent.
    pub received: u64,
    /// Bytes of bodies that they were sent.
    pub sent: u64,
    /// What came of looking for kept answers.
    #[serde(default)]
    pub cache: CacheCounts,
}

/// What came of looking for kept answers, of an app that wants that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheCounts {
    /// Requests that were answered by what was kept, without the app.
    pub hits: u64,
    /// Requests that went to the app.
    pub misses: u64,
    /// Bytes of the bodies that the hits were sent.
    pub bytes: u64,
}

impl CacheCounts {
    fn change(&mut self, other: &Self, operation: fn(u64, u64) -> u64) {
        let Self { hits, misses, bytes } = self;
        for (own, other) in [(hits, other.hits), (misses, other.misses), (bytes, other.bytes)] {
            *own = operation(*own, other);
        }
    }
}

impl Detail {
    /// Notes so many requests that ended in one way.
    pub fn end(&mut self, status: u16, code: u8, count: u64) {
        let is_it = |outcome: &&mut Outcome| outcome.status == status && outcome.code == code;
        if let Some(known) = self.outcomes.iter_mut().find(is_it) {
            known.count = known.count.saturating_add(count);
        } else if self.outcomes.len() < OUTCOMES || status.is_multiple_of(100) {
            self.outcomes.push(Outcome { status, code, count });
        } else {
            // There are no more than ten of these.
            self.end(status / 100 * 100, 0, count);
        }
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.outcomes.iter().map(|outcome| outcome.count).sum()
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        other.outcomes.iter().for_each(|outcome| self.end(outcome.status, outcome.code, outcome.count));
        self.latency.iter_mut().zip(other.latency).for_each(|(own, other)| *own = own.saturating_add(other));
        self.waited_us = self.waited_us.saturating_add(other.waited_us);
        self.received = self.received.saturating_add(other.received);
        self.sent = self.sent.saturating_add(other.sent);
        self.cache.change(&other.cache, u64::saturating_add);
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        for outcome in &mut self.outcomes {
            let before = earlier.outcomes.iter().find(|it| (it.status, it.code) == (outcome.status, outcome.code));
            outcome.count = outcome.count.saturating_sub(before.map_or(0, |it| it.count));
        }
        self.outcomes.retain(|outcome| outcome.count > 0);
        self.latency.iter_mut().zip(earlier.latency).for_each(|(own, other)| *own = own.saturating_sub(other));
        self.waited_us = self.waited_us.saturating_sub(earlier.waited_us);
        self.received = self.received.saturating_sub(earlier.received);
        self.sent = self.sent.saturating_sub(earlier.sent);
        self.cache.change(&earlier.cache, u64::saturating_sub);
        self
    }

    /// How long so many per cent of the requests waited at most, in milliseconds; none without any. See [`percentile`].
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        percentile(&self.latency, percent)
    }

    /// Makes it nothing, and keeps its memory.
    pub fn clear(&mut self) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        outcomes.clear();
        *self = Self { outcomes, ..Self::default() };
    }
}

/// What a router left out since it started, because it came faster than somebody took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// See [`Counts::life`].
    pub life: u64,
    /// Lines of the access log.
    pub lines: u64,
    /// Trace spans.
    pub spans: u64,
}

impl Dropped {
    /// Nothing was left out.
    pub fn is_none(&self) -> bool {
        self.lines == 0 && self.spans == 0
    }

    /// Adds what was left out besides.
    pub fn add(&mut self, other: &Self) {
        self.lines = self.lines.saturating_add(other.lines);
        self.spans = self.spans.saturating_add(other.spans);
    }

    /// What was left out since `earlier`.
    #[must_use]
    pub fn since(self, earlier: &Self) -> Self {
        let (lines, spans) = (self.lines.saturating_sub(earlier.lines), self.spans.saturating_sub(earlier.spans));
        Self { lines, spans, ..self }
    }
}

/// What became of the requests for one path of an app, in some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathCount {
    /// The method and the path, without query, and with `:id` in the place of what differs from one request to the next.
    pub name: String,
    /// All that were counted.
    pub requests: u64,
    /// Of these, the ones that ended with a status of 500 or above, or with an error of the router that is no client's.
    pub errors: u64,
    /// How long all of them together waited for the head of an answer, or in vain, in microseconds.
    pub waited_us: u64,
    /// How long those may have waited besides that were not counted, because many other paths were asked for.
    pub missed_us: u64,
    /// As [`Counts::latency`].
    pub latency: [u32; LATENCY_ENDS_MS.len() + 1],
}

impl PathCount {
    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.waited_us = self.waited_us.saturating_add(other.waited_us);
        self.missed_us = self.missed_us.saturating_add(other.missed_us);
        self.latency.iter_mut().zip(other.latency).for_each(|(own, other)| *own = own.saturating_add(other));
    }

    /// See [`percentile`].
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        percentile(&self.latency.map(u64::from), percent)
    }
}

/// In which part of [`Counts::latency`] a request is that waited for so long.
pub fn latency_part(milliseconds: u64) -> usize {
    LATENCY_ENDS_MS.partition_point(|end| *end < milliseconds)
}

/// Where, in milliseconds, so many per cent of what is sorted into the parts of [`Counts::latency`] end: somewhere in a part, as if all in it
/// were as far from one another. Of the last part only its beginning is known.
pub fn percentile(latency: &[u64; LATENCY_ENDS_MS.len() + 1], percent: u64) -> Option<u64> {
    let all: u64 = latency.iter().sum();
    let wanted = all.saturating_mul(percent).div_ceil(100).max(1);
    let (mut before, mut start) = (0, 0);
    for (count, end) in latency.iter().zip(LATENCY_ENDS_MS) {
        if before + count >= wanted && *count > 0 {
            return Some(start + ((end - start) * (wanted - before)).div_ceil(*count));
        }
        (before, start) = (before + count, end);
    }
    (all > 0).then_some(start)
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

    #[test]
    fn details_add_up_and_tell_no_more_outcomes_apart_than_they_may() {
        let mut detail = Detail { received: 5, ..Detail::default() };
        (100..1000).for_each(|status| detail.end(status, 0, 1));
        detail.end(503, 12, 7);
        assert_eq!(detail.requests(), 907);
        assert!(detail.outcomes.len() <= 64 + 9, "{}", detail.outcomes.len());
        let earlier = detail.clone();
        detail.end(100, 0, 2);
        let cache = CacheCounts { hits: 2, misses: 1, bytes: 9 };
        detail.add(&Detail { sent: 3, waited_us: 4, cache, ..Detail::default() });
        let since = detail.clone().since(&earlier);
        assert_eq!(since.outcomes, [Outcome { status: 100, code: 0, count: 2 }]);
        assert_eq!((since.received, since.sent, since.waited_us, since.cache), (0, 3, 4, cache));
        detail.clear();
        assert_eq!(detail, Detail::default());
    }

    #[test]
    fn percentiles_lie_in_the_parts() {
        let mut counts = Counts::default();
        assert_eq!(percentile(&counts.latency, 50), None);
        (0..100).for_each(|_| counts.add_latency(40));
        assert_eq!(percentile(&counts.latency, 50), Some(40), "between 30 and 50");
        assert_eq!(percentile(&counts.latency, 100), Some(50));
        (0..100).for_each(|_| counts.add_latency(20_000));
        assert_eq!((percentile(&counts.latency, 50), percentile(&counts.latency, 99)), (Some(50), Some(10_000)));
    }
}
