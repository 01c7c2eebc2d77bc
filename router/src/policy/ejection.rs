//! Instances that fail again and again get no requests for a while, and then one, by whose answer it is known whether they are well again.
//! How often, how many and for how long is as Envoy has it ("outlier detection").

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::table::{App, Instance, Mode};

/// Failures in a row, where the app says nothing else.
const USUAL_STRIKES: u32 = 5;
/// Each ejection lasts twice as long as the one before, up to so many times the first.
const LONGEST: u32 = 10;
/// Per cent of a workload's instances that may be out; one may always, if there are others.
const MOST: usize = 10;
/// A probe of which nothing was heard for so long is forgotten.
const PROBE: Duration = Duration::from_secs(60);

/// How an instance did lately.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Failures in a row.
    strikes: AtomicU32,
    /// How often it was ejected without having been well for long since.
    ejections: AtomicU32,
    /// Milliseconds of its age until which it is ejected; zero while it is not.
    until: AtomicU64,
    /// When the last ejection ended.
    ended: AtomicU64,
    /// When the request was sent by whose answer it is known; zero is none.
    probed: AtomicU64,
}

impl Standing {
    /// Whether it is not ejected, which nearly every instance is not.
    #[inline]
    pub(crate) fn is_in(&self) -> bool {
        self.until.load(Ordering::Relaxed) == 0
    }

    /// Whether a request may be sent at this age: it is not ejected, or nobody probes it yet.
    pub(crate) fn is_open(&self, age: impl Fn() -> Duration) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let (now, probed) = (millis(age()), self.probed.load(Ordering::Relaxed));
        now >= until && (probed == 0 || now.saturating_sub(probed) >= millis(PROBE))
    }

    /// A request is sent to it: of one that is ejected, it is the only one until its answer is there. False: somebody else's is that one.
    pub(crate) fn claim(&self, age: impl Fn() -> Duration) -> bool {
        if self.is_in() {
            return true;
        }
        let (now, probed) = (millis(age()).max(1), self.probed.load(Ordering::Acquire));
        let is_free = probed == 0 || now.saturating_sub(probed) >= millis(PROBE);
        is_free && self.probed.compare_exchange(probed, now, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// It answered.
    #[inline]
    pub(crate) fn is_well(&self, age: impl Fn() -> Duration) {
        if self.strikes.load(Ordering::Relaxed) != 0 {
            self.strikes.store(0, Ordering::Relaxed);
        }
        // What was sent before it was ejected says nothing of how it is now.
        if !self.is_in() && self.probed.swap(0, Ordering::AcqRel) != 0 {
            self.until.store(0, Ordering::Release);
            self.ended.store(millis(age()), Ordering::Relaxed);
        }
    }

    /// It failed, or answered that it did. True: it is ejected now, for `base` at first. `may` says whether one more may be.
    pub(crate) fn failed(&self, limit: u32, base: Duration, age: Duration, may: impl FnOnce() -> bool) -> bool {
        let strikes = self.strikes.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let now = millis(age);
        if self.is_in() {
            if strikes < limit || !may() {
                return false;
            }
            // Well for as long as an ejection lasts takes one off.
            let well = now.saturating_sub(self.ended.load(Ordering::Relaxed)) / millis(base).max(1);
            let before = self.ejections.load(Ordering::Relaxed);
            self.ejections.store(before.saturating_sub(u32::try_from(well).unwrap_or(u32::MAX)), Ordering::Relaxed);
        } else if self.probed.swap(0, Ordering::AcqRel) == 0 {
            return false;
        }
        let count = self.ejections.fetch_add(1, Ordering::AcqRel);
        let times = 1_u32.checked_shl(count).unwrap_or(LONGEST).min(LONGEST);
        self.strikes.store(0, Ordering::Relaxed);
        self.until.store((now + millis(base * times)).max(1), Ordering::Release);
        true
    }
}

/// What became of a request says something of the instance that had it. An ejection lasts for `base` at first.
#[inline]
pub(crate) fn judge(app: &App, instance: &Instance, failed: bool, base: Duration) {
    if !failed {
        return instance.standing.is_well(|| instance.age());
    }
    let limit = app.rules.as_ref().map_or(Some(USUAL_STRIKES), |rules| rules.policy.ejection);
    let Some(limit) = limit else { return };
    if instance.standing.failed(limit, base, instance.age(), || may_lose(app, instance)) {
        tracing::info!(
            app.name = %app.name,
            dyno = %instance.endpoint.dyno,
            "an instance failed again and again, and gets no requests for a while"
        );
    }
}

/// Whether one more of the instances of its workload may be ejected: one of two or more, a tenth of many.
fn may_lose(app: &App, instance: &Instance) -> bool {
    let Mode::Serve(shares) = &app.mode else { return false };
    let Some(workload) = shares.iter().find(|workload| workload.label.serial == instance.label.serial) else {
        return false;
    };
    let instances = workload.instances.load();
    let (all, out) = (instances.healthy.len(), instances.healthy.iter().filter(|it| !it.standing.is_in()).count());
    all > 1 && out < (all * MOST / 100).max(1)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_in_a_row_is_out_for_a_time_that_doubles_and_one_request_says_when_it_is_over() {
        let (standing, base) = (Standing::default(), Duration::from_secs(30));
        let at = Duration::from_secs;
        let fail = |second| standing.failed(3, base, at(second), || true);
        assert_eq!([fail(1), fail(1)], [false, false]);
        standing.is_well(|| at(1));
        assert_eq!([fail(1), fail(1), fail(1)], [false, false, true], "in a row");
        assert!(!standing.is_open(|| at(30)) && standing.is_open(|| at(31)));
        assert!(!fail(20), "what was sent before says nothing new");
        standing.is_well(|| at(20));
        assert!(!standing.is_in(), "nor does its answer");
        assert!(standing.claim(|| at(31)) && !standing.claim(|| at(31)), "one request probes it");
        assert!(!standing.is_open(|| at(32)));
        assert!(fail(33), "it failed");
        assert!(!standing.is_open(|| at(92)) && standing.is_open(|| at(93)), "twice as long");
        assert!(standing.claim(|| at(93)));
        standing.is_well(|| at(94));
        assert!(standing.is_in() && standing.claim(|| at(94)) && standing.claim(|| at(94)));
        let nobody_else = (0..5).all(|_| !standing.failed(3, base, at(95), || false));
        assert!(nobody_else && standing.is_in(), "the last ones stay");
    }
}
