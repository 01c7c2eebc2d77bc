//! What to do next for one app: a pure function of what should run and what runs.
//!
//! [`goals`] says how many instances of which release there should be right now, [`shares`] which part of the requests each gets,
//! [`judge`] whether a candidate can go on, take over, or never will.

mod goals;
mod judge;
mod shares;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::{Instance, ProbeReport, WorkloadId, WorkloadStatus};
use model::{AppId, DynoName, Exit, ProcessType, ReleaseId, RolloutPolicy, Timestamp};

use super::traffic::{Tally, Traffic};
use goals::goal;
pub(crate) use judge::hopeless;
pub(crate) use shares::{shares, shares_of};

/// What should run of one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) app: AppId,
    /// The release that serves; none if nothing was ever deployed.
    pub(crate) current: Option<Target>,
    /// The release that is to replace it, once its release phase is over.
    pub(crate) candidate: Option<Target>,
    /// How far the candidate is.
    pub(crate) progress: Progress,
}

/// How far a candidate is, and what it must keep to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) policy: RolloutPolicy,
    pub(crate) stage: Stage,
    /// Somebody wants it to end.
    pub(crate) aborted: bool,
    /// For how long it has come no further.
    pub(crate) stalled: Duration,
    /// What its requests came to.
    pub(crate) traffic: Traffic,
}

/// How far a candidate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its instances take the place of those before them.
    Running {
        /// Of a canary: which of the policy's steps; behind the last one it is finished as a rolling one is.
        step: usize,
        /// Since when that step's instances have their part of the requests.
        reached_at: Option<Timestamp>,
    },
    /// All requests go to it; it is current once routers say so.
    Routing,
    /// It failed: what it took the place of comes back first.
    Returning {
        /// It gets no more requests, whatever that costs.
        condemned: bool,
    },
}

impl Default for Stage {
    fn default() -> Self {
        Self::Running { step: 0, reached_at: None }
    }
}

/// One release as it should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) release: ReleaseId,
    pub(crate) version: u64,
    /// Every process type that should have instances.
    pub(crate) processes: BTreeMap<ProcessType, Scale>,
}

/// How many instances, and of which size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scale {
    /// At least 1.
    pub(crate) quantity: u32,
    /// Canonical name of the dyno size.
    pub(crate) size: String,
    /// Never more than one instance runs, whichever release it is of: it has a volume. The old one stops first.
    pub(crate) exclusive: bool,
    /// After how long without a request it sleeps, if it may.
    pub(crate) idle: Option<Duration>,
}

/// One idempotent step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make this workload desired, with this many instances; there is none of its id yet.
    Apply { workload: WorkloadId, release: ReleaseId, process_type: ProcessType, scale: Scale },
    /// Give what runs this many instances. It stays what it is: it may be an earlier version of this program that started it.
    Scale(WorkloadId, u32),
    /// Let what runs sleep once it got no request for so long, or never.
    Idle(WorkloadId, Option<Duration>),
    /// Stop and forget it. Routers must have let go of it first.
    Delete(WorkloadId),
    /// The instances of a canary's step are healthy and get their requests: its pause begins.
    Reach(ReleaseId),
    /// A canary goes on to this step.
    Advance(ReleaseId, usize),
    /// The candidate is healthy: it becomes current.
    Promote {
        /// Which release.
        release: ReleaseId,
        /// How long its slowest instance took to boot: the app's own time.
        boot: Duration,
    },
    /// The candidate will not get live, and has taken the place of others: they come back before that is said.
    Withdraw(ReleaseId, Cause),
    /// The candidate will not get live; none for a cause that was noted when it was withdrawn.
    Fail(ReleaseId, Option<Cause>),
}

/// Why a candidate will not get live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// This instance crashed too often.
    Crashed(Sick),
    /// It came no further for so long.
    Stalled {
        waited: Duration,
        /// An instance that is not healthy; none if not all that there should be are even made.
        missing: Option<Sick>,
    },
    /// Too many of its requests went wrong, compared with those of the release before it.
    Errors { old: Tally, new: Tally },
    /// Somebody ended it.
    Aborted,
}

/// An instance that is not healthy, and what was seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sick {
    pub(crate) dyno: DynoName,
    /// Name of its size, in any case.
    pub(crate) size: String,
    /// The word for what it is doing.
    pub(crate) state: &'static str,
    pub(crate) exit: Option<Exit>,
    pub(crate) probe: Option<ProbeReport>,
}

/// The workload of one process type of one release in one size. What a workload runs never changes, so another size is another
/// workload. It follows from the store alone: routers are told what serves also while the engine is away.
pub(crate) fn workload_id(app: AppId, version: u64, process_type: &ProcessType, size: &str) -> WorkloadId {
    WorkloadId(format!("{app}.v{version}.{process_type}.{}", size.to_ascii_lowercase()))
}

/// The size of what a workload of [`workload_id`] runs, in lower case. Of what older programs wished it is none that exists.
pub(crate) fn size_of(workload: &WorkloadId) -> &str {
    workload.0.rsplit('.').next().unwrap_or_default()
}

/// The next steps for one app, given every workload that the engine knows of it.
pub(crate) fn plan(desired: &Desired, observed: &[WorkloadStatus], now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut wanted = Vec::new();
    for process_type in desired.process_types() {
        let goal = goal(desired, process_type, observed);
        for (target, quantity) in [(&desired.current, goal.old), (&desired.candidate, goal.new)] {
            let Some(target) = target else { continue };
            let Some(scale) = target.processes.get(process_type) else { continue };
            let workload = workload_id(desired.app, target.version, process_type, &scale.size);
            match find(observed, &workload) {
                // One that is being deleted must be gone before it can be wanted again.
                Some(status) if status.deleting => {}
                Some(status) if status.quantity == quantity => {
                    if quantity > 0 && status.idle != scale.idle {
                        steps.push(Step::Idle(workload.clone(), scale.idle));
                    }
                }
                Some(_) if quantity == 0 => steps.push(Step::Delete(workload.clone())),
                Some(_) => steps.push(Step::Scale(workload.clone(), quantity)),
                None if quantity == 0 => {}
                None => {
                    let (release, process_type) = (target.release, process_type.clone());
                    let scale = Scale { quantity, ..scale.clone() };
                    steps.push(Step::Apply { workload: workload.clone(), release, process_type, scale });
                }
            }
            wanted.push(workload);
        }
    }
    if let Some(candidate) = &desired.candidate {
        steps.extend(judge::verdict(desired, candidate, observed, now));
    }
    let obsolete = observed.iter().filter(|status| {
        !status.deleting && !wanted.contains(&status.id) && !is_replaced_by_size(desired, status, observed)
    });
    steps.extend(obsolete.map(|status| Step::Delete(status.id.clone())));
    steps
}

impl Desired {
    /// Every process type that either release has.
    fn process_types(&self) -> BTreeSet<&ProcessType> {
        self.current.iter().chain(&self.candidate).flat_map(|target| target.processes.keys()).collect()
    }

    /// The workload of a process type of the current release in its wanted size, and how it is scaled.
    fn current_of(&self, process_type: &ProcessType) -> Option<(WorkloadId, &Scale)> {
        self.current.as_ref().and_then(|target| self.of(target, process_type))
    }

    /// The same of the candidate.
    fn candidate_of(&self, process_type: &ProcessType) -> Option<(WorkloadId, &Scale)> {
        self.candidate.as_ref().and_then(|target| self.of(target, process_type))
    }

    fn of<'a>(&self, target: &'a Target, process_type: &ProcessType) -> Option<(WorkloadId, &'a Scale)> {
        let scale = target.processes.get(process_type)?;
        Some((workload_id(self.app, target.version, process_type, &scale.size), scale))
    }
}

/// Whether a workload is of the current release in a size that is wanted no more, and what replaces it is not healthy yet.
fn is_replaced_by_size(desired: &Desired, status: &WorkloadStatus, observed: &[WorkloadStatus]) -> bool {
    let Some((successor, scale)) = desired.current_of(&status.process_type) else { return false };
    if scale.exclusive {
        // The other one waits until this one is gone.
        return false;
    }
    let is_current = desired.current.as_ref().is_some_and(|current| current.version == status.release);
    is_current
        && goal(desired, &status.process_type, observed).old > 0
        && !find(observed, &successor).is_some_and(is_healthy)
}

/// How many instances of a release are healthy.
pub(crate) fn count_healthy(version: u64, observed: &[WorkloadStatus]) -> u32 {
    observed.iter().filter(|status| status.release == version).map(healthy).sum()
}

/// How many healthy instances a workload has that is to stay. One that sleeps is as it was before: a request finds it so.
fn healthy(status: &WorkloadStatus) -> u32 {
    match (status.deleting, status.asleep) {
        (true, _) => 0,
        (false, Some(_)) => status.quantity,
        (false, None) => count(status, Instance::is_healthy),
    }
}

fn count(status: &WorkloadStatus, is_meant: impl Fn(&Instance) -> bool) -> u32 {
    u32::try_from(status.instances.iter().filter(|instance| is_meant(instance)).count()).unwrap_or(u32::MAX)
}

/// How many instances the engine was told to keep.
fn quantity(status: Option<&WorkloadStatus>) -> u32 {
    status.filter(|status| !status.deleting).map_or(0, |status| status.quantity)
}

fn is_healthy(status: &WorkloadStatus) -> bool {
    !status.deleting && healthy(status) >= status.quantity
}

fn find<'a>(observed: &'a [WorkloadStatus], workload: &WorkloadId) -> Option<&'a WorkloadStatus> {
    observed.iter().find(|status| status.id == *workload)
}
