//! How many instances of which release there should be right now.

use engine::{Instance, InstanceState, WorkloadStatus};
use model::{ProcessType, RolloutPolicy, Strategy};

use super::{Desired, Scale, Stage, count, find, healthy, quantity};
use crate::formation::WEB;

/// Of one process type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Goal {
    /// Of the current release.
    pub(super) old: u32,
    /// Of the candidate.
    pub(super) new: u32,
}

/// One side of a rollout: what runs of it, and how many of it there should be if it were alone.
type Side<'a> = (Option<&'a WorkloadStatus>, u32);

/// One process type in the middle of a rollout.
struct Scene<'a> {
    policy: &'a RolloutPolicy,
    is_web: bool,
    exclusive: bool,
    /// How many there should be of each in the end, if it were alone.
    wanted: Goal,
    old: Option<&'a WorkloadStatus>,
    new: Option<&'a WorkloadStatus>,
}

/// How many instances of a process type each release should have. What there should be never depends on time: a look that is
/// repeated finds the same.
pub(super) fn goal(desired: &Desired, process_type: &ProcessType, observed: &[WorkloadStatus]) -> Goal {
    let (old, new) = (desired.current_of(process_type), desired.candidate_of(process_type));
    let wanted_of = |scale: Option<&Scale>| scale.map_or(0, |scale| scale.quantity);
    let scales = (old.as_ref().map(|(_, scale)| *scale), new.as_ref().map(|(_, scale)| *scale));
    let wanted = Goal { old: wanted_of(scales.0), new: wanted_of(scales.1) };
    if desired.candidate.is_none() {
        return wanted;
    }
    let scene = Scene {
        policy: &desired.progress.policy,
        is_web: process_type.as_str() == WEB,
        exclusive: [scales.0, scales.1].into_iter().flatten().any(|scale| scale.exclusive),
        wanted,
        old: old.and_then(|(workload, _)| find(observed, &workload)),
        new: new.and_then(|(workload, _)| find(observed, &workload)),
    };
    match &desired.progress.stage {
        Stage::Running { step, .. } => scene.running(*step),
        // Nothing is started or stopped for it any more.
        Stage::Routing => Goal { old: quantity(scene.old), new: wanted.new },
        Stage::Returning { condemned } if *condemned || scene.exclusive => Goal { old: wanted.old, new: 0 },
        // The same way back.
        Stage::Returning { .. } if scene.new.is_none() => Goal { old: wanted.old, new: 0 },
        Stage::Returning { .. } => {
            let (new, old) = scene.roll((scene.new, wanted.new), (scene.old, wanted.old));
            Goal { old, new }
        }
    }
}

impl Scene<'_> {
    fn running(&self, step: usize) -> Goal {
        // There is nothing to replace, or nothing to replace it with: that goes once the new release is current.
        if self.wanted.old == 0 || self.wanted.new == 0 {
            return self.wanted;
        }
        match (self.policy.strategy, self.policy.steps.get(step)) {
            (Strategy::AllAtOnce, _) if !self.exclusive => self.wanted,
            (Strategy::Canary, Some(percent)) => self.canary(*percent),
            _ => self.rolling(),
        }
    }

    /// A part of the instances that there will be; of those before, all stay that may have to take every request again.
    fn canary(&self, percent: u8) -> Goal {
        if self.exclusive {
            return Goal { new: 0, ..self.wanted };
        }
        let part = part(self.wanted.new, percent).max(quantity(self.new).min(self.wanted.new));
        let old = if self.is_web { self.wanted.old } else { self.wanted.old.saturating_sub(self.up()).max(1) };
        Goal { old, new: part }
    }

    fn rolling(&self) -> Goal {
        let (old, new) = self.roll((self.old, self.wanted.old), (self.new, self.wanted.new));
        Goal { old, new }
    }

    /// How many there should be of what goes and of what comes: as many of this as there may be beside the other, and of that as
    /// few as there must be.
    fn roll(&self, (goes, had): Side<'_>, (comes, wanted): Side<'_>) -> (u32, u32) {
        // Until the new release is current, the app is scaled as it is with the old one.
        let (low, high) = (self.wanted.old, had.max(wanted));
        let (surge, unavailable) =
            if self.exclusive { (0, low) } else { (self.policy.surge(high), self.policy.unavailable(low)) };
        let room = high.saturating_add(surge);
        let present = quantity(comes).min(wanted);
        // The last one goes when the other side has won, unless there is no room for both.
        let least = u32::from(surge > 0);
        let stay = match goes.filter(|status| !status.deleting) {
            Some(goes) => fewest(goes, least, low.saturating_sub(unavailable), comes.map_or(0, healthy)),
            None if surge == 0 => 0,
            None => had.min(room.saturating_sub(present)).max(least),
        };
        // One with a volume has it to itself until it has stopped.
        let leaves = goes.filter(|_| self.exclusive).map_or(0, |status| count(status, |_| true));
        (stay, room.saturating_sub(quantity(goes).max(leaves)).min(wanted).max(present))
    }

    /// How many new instances are healthy.
    fn up(&self) -> u32 {
        self.new.map_or(0, healthy)
    }
}

/// As few instances as can be without having fewer than `needed` with the `others`, or than there are now. Those that start count
/// as those that are up do, but not in their place. The engine ends those with the highest numbers first.
fn fewest(status: &WorkloadStatus, least: u32, needed: u32, others: u32) -> u32 {
    let up = Instance::is_healthy;
    let works = |instance: &Instance| matches!(instance.state, InstanceState::Up | InstanceState::Starting);
    let keeps = |most: u32, is_meant: &dyn Fn(&Instance) -> bool| {
        let first = |most: u32| count(status, |instance| instance.dyno.number <= most && is_meant(instance));
        let needed = needed.min(first(status.quantity).saturating_add(others));
        first(most).saturating_add(others) >= needed
    };
    let least = least.min(status.quantity);
    let fewest = (least..status.quantity).find(|most| keeps(*most, &up) && keeps(*most, &works));
    fewest.unwrap_or(status.quantity)
}

/// Per cent of a number, at least one of it.
fn part(number: u32, percent: u8) -> u32 {
    let part = (u64::from(number) * u64::from(percent)).div_ceil(100);
    u32::try_from(part).unwrap_or(number).clamp(number.min(1), number)
}
