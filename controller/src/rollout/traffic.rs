//! What the requests came to that an app got during a rollout: by the routers' own counters.

use std::collections::{BTreeMap, BTreeSet};

use engine::traffic::Traffic as Counters;
use engine::{WorkloadId, WorkloadStatus};
use model::RolloutPolicy;
use model::traffic::Counts;
use serde::{Deserialize, Serialize};

use crate::formation::WEB;

/// What some requests came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All of them.
    pub requests: u64,
    /// Those that got no answer of the app, or not all of it.
    pub lost: u64,
    /// Those that the app itself answered with a status of 500 or above.
    pub errors: u64,
}

/// What the requests of an app came to since a rollout of it began. As it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// What had been counted before of each workload that took requests then.
    base: BTreeMap<WorkloadId, Tally>,
    /// Of the releases before it.
    pub old: Tally,
    /// Of the release itself.
    pub new: Tally,
    /// Nothing of the releases before it ran any more when this was noted: it is what the deploy came to.
    pub closed: bool,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.lost += other.lost;
        self.errors += other.errors;
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            lost: self.lost.saturating_sub(earlier.lost),
            errors: self.errors.saturating_sub(earlier.errors),
        }
    }

    /// Those of a hundred thousand that went wrong, one way or the other.
    fn badness(self) -> u64 {
        let bad = u128::from(self.lost) + u128::from(self.errors);
        let badness = (bad * 100_000).checked_div(u128::from(self.requests)).unwrap_or(0);
        u64::try_from(badness).unwrap_or(u64::MAX)
    }
}

impl From<Counts> for Tally {
    fn from(counts: Counts) -> Self {
        let Counts { requests, lost, errors, .. } = counts;
        Self { requests, lost, errors }
    }
}

/// A release without errors is taken to have so many of a hundred thousand: otherwise the first error of the next one would be
/// infinitely worse.
const FAULTLESS: u64 = 1000;

impl Traffic {
    /// Begins to count: `observed` is what runs of the app.
    pub(super) fn begin(observed: &[WorkloadStatus], counters: &Counters) -> Self {
        let base = web(observed).map(|status| (status.id.clone(), counters.of(&status.id).into()));
        Self { base: base.collect(), ..Self::default() }
    }

    /// What was counted until now, for the release of this number.
    pub(crate) fn until_now(&self, version: u64, observed: &[WorkloadStatus], counters: &Counters) -> Self {
        let own: BTreeSet<_> = web(observed).filter(|status| status.release == version).map(|it| &it.id).collect();
        let mut now = Self { base: self.base.clone(), ..Self::default() };
        let all: BTreeSet<&WorkloadId> = self.base.keys().chain(own.iter().copied()).collect();
        for workload in all {
            let base = self.base.get(workload).copied().unwrap_or_default();
            let tally = Tally::from(counters.of(workload)).since(base);
            if own.contains(workload) { now.new.add(tally) } else { now.old.add(tally) }
        }
        now
    }

    /// The same, as what the deploy came to.
    pub(super) fn close(self) -> Self {
        Self { closed: true, ..self }
    }

    /// How many requests there were, and how many of them got no answer of the app.
    pub fn sum(&self) -> Tally {
        let mut sum = self.old;
        sum.add(self.new);
        sum
    }

    /// What the releases before it came to, and it, if it is so much worse than they as its policy forbids. They are looked at in
    /// the same time, or in all their time if they got few requests in that.
    pub(super) fn worse(&self, policy: &RolloutPolicy) -> Option<(Tally, Tally)> {
        let (mut old, new) = (self.old, self.new);
        if old.requests < policy.error_requests {
            self.base.values().for_each(|before| old.add(*before));
        }
        let limit = old.badness().max(FAULTLESS).saturating_mul(u64::from(policy.error_factor));
        let is_worse = policy.error_requests > 0 && new.requests >= policy.error_requests && new.badness() > limit;
        is_worse.then_some((old, new))
    }
}

fn web(observed: &[WorkloadStatus]) -> impl Iterator<Item = &WorkloadStatus> {
    observed.iter().filter(|status| status.process_type.as_str() == WEB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_worse_by_a_factor_and_with_enough_requests() {
        let policy = RolloutPolicy::default();
        let is_worse = |old: (u64, u64), new: (u64, u64)| {
            let tally = |(requests, errors)| Tally { requests, errors, lost: 0 };
            Traffic { old: tally(old), new: tally(new), ..Traffic::default() }.worse(&policy).is_some()
        };
        assert!(!is_worse((1000, 0), (99, 99)), "too few to say so");
        assert!(is_worse((1000, 0), (100, 6)));
        assert!(!is_worse((1000, 0), (100, 5)), "five times one of a hundred");
        assert!(!is_worse((1000, 100), (1000, 500)) && is_worse((1000, 100), (1000, 501)));
        assert!(is_worse((0, 0), (100, 100)), "there was nothing before");
        let never = RolloutPolicy { error_requests: 0, ..policy };
        let all = Tally { requests: 1000, lost: 1000, errors: 0 };
        assert_eq!(Traffic { new: all, ..Traffic::default() }.worse(&never), None);
        // What was as bad before, when there was more to do.
        let base = BTreeMap::from([(WorkloadId("web".to_owned()), Tally { requests: 100, lost: 0, errors: 90 })]);
        let policy = RolloutPolicy::default();
        assert_eq!(Traffic { base, new: all, ..Traffic::default() }.worse(&policy), None);
    }
}
