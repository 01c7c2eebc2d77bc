//! A rollout begins only if its release fits on the machine, and with no more beside each other than does.

use engine::Demand;
use model::{Amount, LogSource, RolloutPolicy, Strategy};

use super::plan::Target;
use super::worker::{Observed, Rollout, of};
use crate::Error;
use crate::admission::{demand_now, demand_of, words};
use crate::sizes::Sizes;
use crate::store::Release;

impl Rollout {
    /// The policy with which a release can be rolled out now, or why it cannot.
    pub(super) async fn fitted(
        &mut self,
        release: &Release,
        policy: RolloutPolicy,
        observed: &Observed,
    ) -> Result<Result<RolloutPolicy, String>, Error> {
        let Some(target) = self.reader.target_of(release).await? else { return Ok(Ok(policy)) };
        let controller = &self.controller;
        let mut promised = controller.live.promised.lock().await;
        let Some(beside) = controller.room_beside(Some(release.app), &mut promised).await? else {
            return Ok(Ok(policy));
        };
        drop(promised);
        let sizes = controller.sizes().await?;
        let now = demand_now(&sizes, of(observed, release.app));
        let all = needs(&sizes, &target, |quantity| quantity);
        let who: Vec<_> =
            target.processes.iter().map(|(name, scale)| words(name, scale.quantity, &scale.size)).collect();
        // What an app has it keeps, whatever became of the machine.
        if all.without(now) != Demand::default()
            && let Err(refusal) = beside.admit(&who.join(" and "), all)
        {
            return Ok(Err(refusal));
        }
        if now == Demand::default() {
            return Ok(Ok(policy));
        }
        let fits = |more: Demand| beside.admit("", [now, more].into_iter().sum()).is_ok();
        let less = less(&policy, &target, |quantity_of| fits(needs(&sizes, &target, quantity_of)));
        let Some(less) = less else { return Ok(Ok(policy)) };
        let text = format!(
            "v{} takes over with strategy={} max_surge={}: the machine has no room for more dynos beside each other",
            release.version,
            less.get("strategy"),
            less.get("max_surge")
        );
        controller.logs.write(release.app, controller.clock.now(), &LogSource::app("api"), &text);
        Ok(Ok(less))
    }
}

/// What dynos of a release may use, if there are so many of each process type as a function of its quantity says.
fn needs(sizes: &Sizes, target: &Target, quantity_of: impl Fn(u32) -> u32) -> Demand {
    let of = |scale: &super::plan::Scale| demand_of(sizes, &scale.size, quantity_of(scale.quantity));
    target.processes.values().filter(|scale| !scale.exclusive).map(of).sum()
}

/// A policy that has fewer dynos beside each other, if this one has too many: `fits` says so of how many more there would be by the
/// quantity of a process type.
fn less(policy: &RolloutPolicy, target: &Target, fits: impl Fn(&dyn Fn(u32) -> u32) -> bool) -> Option<RolloutPolicy> {
    let is_rolling = policy.strategy == Strategy::Rolling;
    if !is_rolling && fits(&|quantity| quantity) {
        return None;
    }
    if is_rolling && fits(&|quantity| policy.surge(quantity)) {
        return None;
    }
    let surges = target.processes.values().map(|scale| policy.surge(scale.quantity));
    let most = surges.max().unwrap_or(0);
    let count = (1..=most).rev().find(|most| fits(&|quantity| policy.surge(quantity).min(*most)));
    Some(RolloutPolicy { strategy: Strategy::Rolling, max_surge: Amount::Count(count.unwrap_or(0)), ..policy.clone() })
}

#[cfg(test)]
mod tests {
    use model::ReleaseId;
    use model::clock::SystemRandom;

    use super::*;
    use crate::rollout::plan::Scale;

    #[test]
    fn as_many_are_started_beside_each_other_as_there_is_room_for() {
        let scale = Scale { quantity: 8, size: "basic".to_owned(), exclusive: false, idle: None };
        let processes = [("web".parse().expect("a name"), scale)].into();
        let target = Target { release: ReleaseId::random(&SystemRandom), version: 2, processes };
        let with = |settings: &str, room: u32| {
            let mut policy = RolloutPolicy::default();
            for setting in settings.split_whitespace() {
                let (name, text) = setting.split_once('=').expect("a setting");
                policy.set(name, text).expect("good");
            }
            let less = less(&policy, &target, |quantity_of| quantity_of(8) <= room);
            less.map(|less| (less.get("strategy"), less.get("max_surge"), less.unavailable(8)))
        };
        let rolling = |surge: &str, unavailable| Some(("rolling".to_owned(), surge.to_owned(), unavailable));
        assert_eq!(with("", 2), None, "a quarter of 8 is all it wants");
        assert_eq!(with("", 1), rolling("1", 0));
        assert_eq!(with("", 0), rolling("0", 1), "then one at a time makes room first");
        assert_eq!(with("max_surge=5", 3), rolling("3", 0));
        assert_eq!(with("strategy=all-at-once", 8), None);
        assert_eq!(with("strategy=all-at-once", 7), rolling("2", 0));
        assert_eq!(with("strategy=canary max_surge=0 max_unavailable=3", 7), rolling("0", 3));
    }
}
