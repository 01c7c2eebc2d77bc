//! Whether a candidate can go on, take over, or never will.

use std::time::Duration;

use engine::{Instance, InstanceState, WorkloadStatus};
use model::{Pause, ProcessType, Strategy, Timestamp};

use super::{Cause, Desired, Scale, Sick, Stage, Step, Target, count, find, goal, is_healthy, size_of};

/// A candidate whose instance crashed this often in a row will not get healthy, unless somebody set another number.
const CRASHES: u32 = 2;
/// One that took this long to crash is not given a second try: whoever pushed it is waiting.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A candidate's instances.
struct Looked {
    /// All that there should be in the end are healthy.
    complete: bool,
    /// All that there should be now are.
    at_goal: bool,
    /// The slowest boot.
    boot: Duration,
    /// One that crashed too often.
    hopeless: Option<Sick>,
    /// One that is not healthy.
    missing: Option<Sick>,
}

/// The next step of a candidate, if one is due. A candidate that runs nothing takes over at once.
pub(super) fn verdict(
    desired: &Desired,
    candidate: &Target,
    observed: &[WorkloadStatus],
    now: Timestamp,
) -> Option<Step> {
    let (progress, release) = (&desired.progress, candidate.release);
    let is_late = progress.stalled >= progress.policy.deadline;
    if matches!(progress.stage, Stage::Returning { .. }) {
        // What was there before may never have been well.
        return (is_restored(desired, observed) || is_late).then_some(Step::Fail(release, None));
    }
    let looked = look(desired, candidate, observed);
    let worse = || progress.traffic.worse(&progress.policy).map(|(old, new)| Cause::Errors { old, new });
    let fault =
        if progress.aborted { Some(Cause::Aborted) } else { looked.hopeless.map(Cause::Crashed).or_else(worse) };
    if let Some(cause) = fault {
        return Some(end(desired, observed, candidate, cause));
    }
    if let Some((step, reached_at)) = step(desired) {
        if looked.at_goal {
            return match (reached_at, progress.policy.pause) {
                (None, _) => Some(Step::Reach(release)),
                (Some(since), Pause::For(pause)) if now.since(since) >= pause => Some(Step::Advance(release, step + 1)),
                (Some(_), _) => None,
            };
        }
    } else if looked.complete {
        return Some(Step::Promote { release, boot: looked.boot });
    }
    let cause = Cause::Stalled { waited: progress.stalled, missing: looked.missing };
    is_late.then(|| end(desired, observed, candidate, cause))
}

/// The step at which a canary is, if the candidate is one that has to take them.
fn step(desired: &Desired) -> Option<(usize, Option<Timestamp>)> {
    let replaces = |target: &Target| !target.processes.is_empty();
    let policy = &desired.progress.policy;
    match desired.progress.stage {
        Stage::Running { step, reached_at }
            if policy.strategy == Strategy::Canary
                && step < policy.steps.len()
                && desired.current.as_ref().is_some_and(replaces)
                && desired.candidate.as_ref().is_some_and(replaces) =>
        {
            Some((step, reached_at))
        }
        _ => None,
    }
}

fn look(desired: &Desired, candidate: &Target, observed: &[WorkloadStatus]) -> Looked {
    let max_crashes = desired.progress.policy.max_crashes;
    let mut looked = Looked { complete: true, at_goal: true, boot: Duration::ZERO, hopeless: None, missing: None };
    for (process_type, scale) in &candidate.processes {
        let status = desired.candidate_of(process_type).and_then(|(workload, _)| find(observed, &workload));
        let instances = status.map(|status| status.instances.as_slice()).unwrap_or_default();
        let goal = goal(desired, process_type, observed).new;
        let has = |quantity: u32| {
            quantity == 0 || status.is_some_and(|status| status.quantity == quantity && is_healthy(status))
        };
        looked.complete &= has(scale.quantity);
        looked.at_goal &= has(goal);
        looked.boot = instances.iter().filter_map(|instance| instance.booted_in).fold(looked.boot, Duration::max);
        let mut unwell = instances.iter().filter(|instance| !instance.is_healthy());
        let hopeless = unwell.clone().find(|instance| is_hopeless(instance, max_crashes));
        looked.hopeless = looked.hopeless.or_else(|| hopeless.map(|instance| sick(instance, &scale.size)));
        looked.missing = looked.missing.or_else(|| unwell.next().map(|instance| sick(instance, &scale.size)));
    }
    looked
}

/// What a fault leads to: what the candidate took the place of comes back before it is said that it failed.
fn end(desired: &Desired, observed: &[WorkloadStatus], candidate: &Target, cause: Cause) -> Step {
    let is_whole = |(process_type, scale): (&ProcessType, &Scale)| {
        let status = desired.current_of(process_type).and_then(|(workload, _)| find(observed, &workload));
        status.is_some_and(|status| !status.deleting && status.quantity >= scale.quantity)
    };
    let is_untouched = desired.current.iter().flat_map(|target| &target.processes).all(is_whole);
    if is_untouched { Step::Fail(candidate.release, Some(cause)) } else { Step::Withdraw(candidate.release, cause) }
}

/// Whether as many instances of the current release run as should, and none of them is still to show what becomes of it.
fn is_restored(desired: &Desired, observed: &[WorkloadStatus]) -> bool {
    let is_back = |(process_type, scale): (&ProcessType, &Scale)| {
        let status = desired.current_of(process_type).and_then(|(workload, _)| find(observed, &workload));
        status.is_some_and(|status| {
            let settled =
                |instance: &Instance| !matches!(instance.state, InstanceState::Starting | InstanceState::Stopping);
            let is_settled = status.asleep.is_some() || count(status, settled) >= scale.quantity;
            !status.deleting && status.quantity == scale.quantity && is_settled
        })
    };
    desired.current.iter().flat_map(|target| &target.processes).all(is_back)
}

/// Whether an instance crashed too often. Without a number that somebody set, once is enough for one that took its time: whoever
/// pushed it is waiting.
fn is_hopeless(instance: &Instance, max_crashes: Option<u32>) -> bool {
    let slow = instance.probe.as_ref().is_some_and(|probe| probe.after >= PATIENCE);
    let too_often = match max_crashes {
        Some(most) => instance.crashes > most,
        None => instance.crashes >= CRASHES || (instance.crashes > 0 && slow),
    };
    instance.state != InstanceState::Up && too_often
}

/// An instance of a workload that crashed too often.
pub(crate) fn hopeless(status: &WorkloadStatus, max_crashes: Option<u32>) -> Option<Sick> {
    let mut unwell = status.instances.iter().filter(|instance| instance.state != InstanceState::Up);
    let found = unwell.find(|instance| is_hopeless(instance, max_crashes))?;
    Some(sick(found, size_of(&status.id)))
}

fn sick(instance: &Instance, size: &str) -> Sick {
    let (dyno, size) = (instance.dyno.clone(), size.to_owned());
    let state = match instance.state {
        InstanceState::Starting => "starting",
        InstanceState::Up => "up, but not ready",
        InstanceState::Crashed { .. } | InstanceState::GaveUp => "crashed",
        InstanceState::Stopping => "stopping",
    };
    Sick { dyno, size, state, exit: instance.last_exit, probe: instance.probe.clone() }
}
