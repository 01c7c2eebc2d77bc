//! Which part of an app's requests each release gets.

use engine::{WorkloadId, WorkloadStatus};
use model::routes::Share;
use model::{ProcessType, RolloutPolicy, Strategy};

use super::goals::{Goal, goal};
use super::{Desired, Stage, count, find, healthy, is_healthy};
use crate::formation::WEB;

/// The web workloads that take an app's requests, and in which proportion. None at all if there is none.
pub(crate) fn shares(desired: &Desired, observed: &[WorkloadStatus]) -> Vec<Share> {
    let is_web = |process_type: &&&ProcessType| process_type.as_str() == WEB;
    let types = desired.process_types();
    types.iter().find(is_web).map(|web| shares_of(desired, web, observed)).unwrap_or_default()
}

/// The workloads that take what comes to one process type, and in which proportion.
pub(crate) fn shares_of(desired: &Desired, process_type: &ProcessType, observed: &[WorkloadStatus]) -> Vec<Share> {
    let new = desired.candidate_of(process_type).map(|(workload, _)| workload);
    let old =
        desired.current_of(process_type).map(|(wanted, _)| in_which_size(desired, process_type, wanted, observed));
    let weights = match (&old, &new) {
        (_, None) => (1, 0),
        (None, Some(_)) => (0, u32::from(desired.progress.stage == Stage::Routing)),
        (Some(old), Some(new)) => weights(desired, process_type, (old, new), observed),
    };
    let are_both = weights.0 > 0 && weights.1 > 0;
    let share = |(workload, weight): (Option<WorkloadId>, u32)| {
        let weight = if are_both { weight } else { weight.min(1) };
        workload.filter(|_| weight > 0).map(|workload| Share { workload, weight })
    };
    [(old, weights.0), (new, weights.1)].into_iter().filter_map(share).collect()
}

/// The current release's workload in its wanted size, unless only instances of the size before are healthy yet.
fn in_which_size(
    desired: &Desired,
    process_type: &ProcessType,
    wanted: WorkloadId,
    observed: &[WorkloadStatus],
) -> WorkloadId {
    if find(observed, &wanted).is_some_and(is_healthy) {
        return wanted;
    }
    let version = desired.current.as_ref().map(|target| target.version);
    let before = observed.iter().find(|status| {
        status.process_type == *process_type
            && Some(status.release) == version
            && !status.deleting
            && status.id != wanted
    });
    before.map_or(wanted, |status| status.id.clone())
}

fn weights(
    desired: &Desired,
    process_type: &ProcessType,
    (old, new): (&WorkloadId, &WorkloadId),
    observed: &[WorkloadStatus],
) -> (u32, u32) {
    let goal = goal(desired, process_type, observed);
    let old = find(observed, old);
    let up = find(observed, new).map_or(0, healthy);
    let is_back = matches!(desired.progress.stage, Stage::Returning { .. });
    let by_number = || {
        let stays = |status: &WorkloadStatus| {
            count(status, |instance| instance.is_healthy() && instance.dyno.number <= goal.old)
        };
        match (old.filter(|status| !status.deleting).map_or(0, stays), up) {
            // On the way back, nothing waits for what goes.
            _ if goal.new == 0 && is_back => (1, 0),
            _ if goal.old == 0 => (0, 1),
            _ if goal.new == 0 => (1, 0),
            (_, 0) => (1, 0),
            counts => counts,
        }
    };
    let policy = &desired.progress.policy;
    match &desired.progress.stage {
        Stage::Routing => (0, 1),
        Stage::Returning { condemned: true } => (1, 0),
        Stage::Returning { .. } => by_number(),
        Stage::Running { step, .. } => match policy.strategy {
            Strategy::AllAtOnce if goal.old > 0 => (1, 0),
            Strategy::Canary => canary(policy, *step, (goal, up), by_number()),
            Strategy::Rolling | Strategy::AllAtOnce => by_number(),
        },
    }
}

/// A step's part is given once all its instances are healthy; until then, that of the step before.
fn canary(policy: &RolloutPolicy, step: usize, (goal, up): (Goal, u32), by_number: (u32, u32)) -> (u32, u32) {
    let percent = |step: usize| policy.steps.get(step).copied().map_or(0, u32::from);
    let before = step.min(policy.steps.len()).checked_sub(1).map_or(0, percent);
    if goal.old == 0 {
        return (0, 1);
    }
    if up == 0 {
        return (1, 0);
    }
    if step < policy.steps.len() {
        let part = if up >= goal.new { percent(step) } else { before };
        return (100 - part, part);
    }
    // Behind the last step it never gets less than it had.
    let (old, new) = by_number;
    let part = before.max((new * 100).checked_div(old + new).unwrap_or(100));
    (100 - part, part)
}
