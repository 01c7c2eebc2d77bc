//! What to do next for one app: a pure function of what should run and what runs.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::{Instance, InstanceState, ProbeReport, WorkloadId, WorkloadStatus};
use model::{AppId, DynoName, DynoSize, Exit, ProcessType, ReleaseId, RolloutPolicy};

use crate::formation::dyno_size;

/// A candidate whose instance crashed this often in a row will not get healthy.
const CRASHES: u32 = 2;
/// One that took this long to crash is not given a second try: whoever pushed it is waiting.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// All requests go to it already; it is current once routers say so.
    pub(crate) routing: bool,
    /// For how long it has come no further.
    pub(crate) stalled: Duration,
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
}

/// One idempotent step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make this workload desired, with this many instances; there is none of its id yet.
    Apply { workload: WorkloadId, release: ReleaseId, process_type: ProcessType, scale: Scale },
    /// Give what runs this many instances. It stays what it is: it may be an earlier version of this program that started it.
    Scale(WorkloadId, u32),
    /// Stop and forget it. Routers must have let go of it first.
    Delete(WorkloadId),
    /// The candidate is healthy: it becomes current.
    Promote {
        /// Which release.
        release: ReleaseId,
        /// How long its slowest instance took to boot: the app's own time.
        boot: Duration,
    },
    /// The candidate will not get healthy.
    Fail(ReleaseId, Cause),
}

/// Why a candidate will not get healthy.
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
}

/// An instance that is not healthy, and what was seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sick {
    pub(crate) dyno: DynoName,
    /// Name of its size.
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

/// The size of what a workload of [`workload_id`] runs.
pub(crate) fn size_of(workload: &WorkloadId) -> Option<&'static DynoSize> {
    workload.0.rsplit('.').next().and_then(dyno_size)
}

/// The next steps for one app, given every workload that the engine knows of it.
pub(crate) fn plan(desired: &Desired, observed: &[WorkloadStatus]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut wanted = Vec::new();
    for target in desired.current.iter().chain(&desired.candidate) {
        for (process_type, scale) in &target.processes {
            let workload = workload_id(desired.app, target.version, process_type, &scale.size);
            match find(observed, &workload) {
                // One that is being deleted must be gone before it can be wanted again.
                Some(status) if status.deleting || status.quantity == scale.quantity => {}
                Some(_) => steps.push(Step::Scale(workload.clone(), scale.quantity)),
                None => {
                    let (release, process_type, scale) = (target.release, process_type.clone(), scale.clone());
                    steps.push(Step::Apply { workload: workload.clone(), release, process_type, scale });
                }
            }
            wanted.push(workload);
        }
    }
    if let Some(candidate) = &desired.candidate {
        steps.extend(verdict(desired, candidate, observed));
    }
    let resized = |status: &WorkloadStatus| {
        let Some(current) = &desired.current else { return false };
        let Some(scale) = current.processes.get(&status.process_type) else { return false };
        let successor = workload_id(desired.app, current.version, &status.process_type, &scale.size);
        status.release == current.version && !find(observed, &successor).is_some_and(is_healthy)
    };
    let obsolete =
        observed.iter().filter(|status| !status.deleting && !wanted.contains(&status.id) && !resized(status));
    steps.extend(obsolete.map(|status| Step::Delete(status.id.clone())));
    steps
}

/// The web workload that takes an app's requests: the current release's in its wanted size, unless only instances of the size
/// before are healthy yet; the candidate's once it was decided that it replaces that. None if there is none.
pub(crate) fn serving(desired: &Desired, observed: &[WorkloadStatus]) -> Option<WorkloadId> {
    let next = desired.candidate.as_ref().filter(|_| desired.progress.routing);
    let current = next.or(desired.current.as_ref())?;
    let (web, scale) = current.processes.iter().find(|(process_type, _)| process_type.as_str() == "web")?;
    let wanted = workload_id(desired.app, current.version, web, &scale.size);
    if find(observed, &wanted).is_some_and(is_healthy) {
        return Some(wanted);
    }
    let before = observed.iter().find(|status| {
        status.process_type == *web && status.release == current.version && !status.deleting && status.id != wanted
    });
    Some(before.map_or(wanted, |status| status.id.clone()))
}

/// Whether the candidate can take over, or never will. A candidate that runs nothing can at once.
fn verdict(desired: &Desired, candidate: &Target, observed: &[WorkloadStatus]) -> Option<Step> {
    let progress = &desired.progress;
    let (mut healthy, mut boot, mut missing) = (true, Duration::ZERO, None);
    for (process_type, scale) in &candidate.processes {
        let status = find(observed, &workload_id(desired.app, candidate.version, process_type, &scale.size));
        let instances = status.map(|status| status.instances.as_slice()).unwrap_or_default();
        if let Some(instance) = instances.iter().find(|instance| is_hopeless(instance, progress.policy.max_crashes)) {
            return Some(Step::Fail(candidate.release, Cause::Crashed(sick(instance, scale))));
        }
        boot = instances.iter().filter_map(|instance| instance.booted_in).fold(boot, Duration::max);
        healthy &= status.is_some_and(|status| status.quantity == scale.quantity && is_healthy(status));
        let unwell = || instances.iter().find(|instance| instance.state != InstanceState::Up);
        missing = missing.or_else(|| unwell().map(|instance| sick(instance, scale)));
    }
    if healthy {
        return Some(Step::Promote { release: candidate.release, boot });
    }
    let waited = progress.stalled;
    (waited >= progress.policy.deadline).then_some(Step::Fail(candidate.release, Cause::Stalled { waited, missing }))
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

fn sick(instance: &Instance, scale: &Scale) -> Sick {
    let (dyno, size) = (instance.dyno.clone(), scale.size.clone());
    let state = match instance.state {
        InstanceState::Starting => "starting",
        InstanceState::Up => "up",
        InstanceState::Crashed { .. } | InstanceState::GaveUp => "crashed",
        InstanceState::Stopping => "stopping",
    };
    Sick { dyno, size, state, exit: instance.last_exit, probe: instance.probe.clone() }
}

/// How many instances of a release are healthy.
pub(crate) fn count_healthy(version: u64, observed: &[WorkloadStatus]) -> u64 {
    let own = observed.iter().filter(|status| status.release == version && !status.deleting);
    own.flat_map(|status| &status.instances).filter(|instance| instance.state == InstanceState::Up).count() as u64
}

fn is_healthy(status: &WorkloadStatus) -> bool {
    let up = status.instances.iter().filter(|instance| instance.is_healthy()).count();
    !status.deleting && u32::try_from(up).is_ok_and(|up| up >= status.quantity)
}

fn find<'a>(observed: &'a [WorkloadStatus], workload: &WorkloadId) -> Option<&'a WorkloadStatus> {
    observed.iter().find(|status| status.id == *workload)
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use model::clock::SystemRandom;

    use super::*;

    struct World {
        desired: Desired,
        observed: Vec<WorkloadStatus>,
    }

    fn target(version: u64, processes: &[(&str, u32)]) -> Target {
        let scale = |quantity| Scale { quantity, size: "Basic".to_owned() };
        let processes = processes.iter().map(|(name, quantity)| (name.parse().expect("a type"), scale(*quantity)));
        Target { release: ReleaseId::random(&SystemRandom), version, processes: processes.collect() }
    }

    impl World {
        fn new(current: Option<Target>, candidate: Option<Target>) -> Self {
            let app = AppId::random(&SystemRandom);
            Self { desired: Desired { app, current, candidate, progress: Progress::default() }, observed: Vec::new() }
        }

        fn runs(mut self, version: u64, name: &str, size: &str, states: &[InstanceState]) -> Self {
            let process_type: ProcessType = name.parse().expect("a type");
            let instance = |(number, state): (u32, &InstanceState)| {
                let (id, dyno) =
                    (format!("{version}-{name}-{number}"), DynoName { process_type: process_type.clone(), number });
                Instance { state: *state, ..Instance::new(id, dyno, Timestamp::from_millis(0)) }
            };
            self.observed.push(WorkloadStatus {
                id: workload_id(self.desired.app, version, &process_type, size),
                app: self.desired.app,
                release: version,
                process_type: process_type.clone(),
                quantity: u32::try_from(states.len()).expect("few"),
                deleting: false,
                address: None,
                instances: (1..).zip(states).map(instance).collect(),
            });
            self
        }

        /// Steps and route as one line each, without the app's id.
        fn plan(&self) -> Vec<String> {
            let steps = plan(&self.desired, &self.observed);
            let short = |id: &WorkloadId| id.0[37..].to_owned();
            let line = |step: &Step| match step {
                Step::Apply { workload, scale, .. } => format!("apply {} x{}", short(workload), scale.quantity),
                Step::Scale(workload, quantity) => format!("scale {} x{quantity}", short(workload)),
                Step::Delete(workload) => format!("delete {}", short(workload)),
                Step::Promote { .. } => "promote".to_owned(),
                Step::Fail(_, Cause::Crashed(sick)) => format!("fail {} {:?}", sick.dyno, sick.exit),
                Step::Fail(_, Cause::Stalled { missing, .. }) => {
                    format!("stalled {:?}", missing.as_ref().map(|sick| sick.dyno.to_string()))
                }
            };
            let route = serving(&self.desired, &self.observed).as_ref().map(|id| format!("serve {}", short(id)));
            steps.iter().map(line).chain(route).collect()
        }
    }

    use InstanceState::{Starting, Up};

    #[test]
    fn a_first_release_is_started_then_promoted() {
        let candidate = || Some(target(2, &[("web", 2), ("worker", 1)]));
        let empty = World::new(None, candidate());
        assert_eq!(empty.plan(), ["apply v2.web.basic x2", "apply v2.worker.basic x1"]);
        let booting =
            World::new(None, candidate()).runs(2, "web", "basic", &[Up, Starting]).runs(2, "worker", "basic", &[Up]);
        assert!(booting.plan().is_empty());
        let healthy =
            World::new(None, candidate()).runs(2, "web", "basic", &[Up, Up]).runs(2, "worker", "basic", &[Up]);
        assert_eq!(healthy.plan(), ["promote"]);
    }

    #[test]
    fn the_old_release_serves_untouched_until_it_is_replaced() {
        let deploying = World::new(Some(target(2, &[("web", 1)])), Some(target(3, &[("web", 1)])))
            .runs(2, "web", "basic", &[Up])
            .runs(3, "web", "basic", &[Up]);
        assert_eq!(deploying.plan(), ["promote", "serve v2.web.basic"], "nothing is deleted in the same breath");
        let promoted = World::new(Some(target(3, &[("web", 1)])), None).runs(2, "web", "basic", &[Up]).runs(
            3,
            "web",
            "basic",
            &[Up],
        );
        assert_eq!(promoted.plan(), ["delete v2.web.basic", "serve v3.web.basic"]);
    }

    #[test]
    fn a_candidate_that_crashes_twice_fails_and_the_old_one_stays() {
        let mut world = World::new(Some(target(2, &[("web", 1)])), Some(target(3, &[("web", 1)])))
            .runs(2, "web", "basic", &[Up])
            .runs(3, "web", "basic", &[Starting]);
        let instance = &mut world.observed[1].instances[0];
        (instance.crashes, instance.last_exit) = (1, Some(Exit::Code(7)));
        assert_eq!(world.plan(), ["serve v2.web.basic"], "once may be chance");
        world.observed[1].instances[0].crashes = 2;
        assert_eq!(world.plan(), ["fail web.1 Some(Code(7))", "serve v2.web.basic"]);
    }

    #[test]
    fn a_candidate_that_was_chosen_serves_before_it_is_current() {
        let mut world = World::new(Some(target(2, &[("web", 1)])), Some(target(3, &[("web", 1)])))
            .runs(2, "web", "basic", &[Up])
            .runs(3, "web", "basic", &[Up]);
        world.desired.progress.routing = true;
        assert_eq!(world.plan(), ["promote", "serve v3.web.basic"]);
        let size = size_of(&world.observed[1].id).expect("a size");
        assert_eq!(size.name, "Basic");
    }

    #[test]
    fn a_candidate_that_comes_no_further_fails_at_its_deadline() {
        let mut world = World::new(Some(target(2, &[("web", 1)])), Some(target(3, &[("web", 1), ("worker", 1)])))
            .runs(2, "web", "basic", &[Up])
            .runs(3, "web", "basic", &[Up]);
        world.desired.progress.stalled = Duration::from_secs(599);
        assert_eq!(world.plan(), ["apply v3.worker.basic x1", "serve v2.web.basic"]);
        world.desired.progress.stalled = Duration::from_secs(600);
        assert_eq!(world.plan()[1], "stalled None", "nobody made its worker");
        let world = World { desired: world.desired, observed: world.observed }.runs(3, "worker", "basic", &[Starting]);
        assert_eq!(world.plan()[0], "stalled Some(\"worker.1\")");
    }

    #[test]
    fn who_sets_how_often_it_may_crash_is_obeyed() {
        let mut world = World::new(None, Some(target(3, &[("web", 1)]))).runs(3, "web", "basic", &[Starting]);
        world.desired.progress.policy.max_crashes = Some(3);
        let instance = &mut world.observed[0].instances[0];
        let report = ProbeReport { after: PATIENCE, ..ProbeReport::not_started("") };
        (instance.crashes, instance.probe) = (3, Some(report));
        assert!(world.plan().is_empty());
        world.observed[0].instances[0].crashes = 4;
        assert_eq!(world.plan(), ["fail web.1 None"]);
    }

    #[test]
    fn scaling_applies_the_new_quantity_and_zero_deletes() {
        let up = World::new(Some(target(2, &[("web", 3)])), None).runs(2, "web", "basic", &[Up]);
        assert_eq!(up.plan(), ["scale v2.web.basic x3", "serve v2.web.basic"]);
        let zero = World::new(Some(target(2, &[])), None).runs(2, "web", "basic", &[Up]);
        assert_eq!(zero.plan(), ["delete v2.web.basic"]);
    }

    #[test]
    fn another_size_replaces_the_old_one_only_once_it_is_healthy() {
        let resizing = |state| {
            World::new(Some(target(2, &[("web", 1)])), None).runs(2, "web", "standard-1x", &[Up]).runs(
                2,
                "web",
                "basic",
                &[state],
            )
        };
        assert_eq!(resizing(Starting).plan(), ["serve v2.web.standard-1x"]);
        assert_eq!(resizing(Up).plan(), ["delete v2.web.standard-1x", "serve v2.web.basic"]);
    }

    proptest::proptest! {
        #[test]
        fn what_serves_is_never_deleted(web in 0_u32..3, candidate in proptest::option::of(0_u32..3), up: [bool; 4]) {
            let state = |up| if up { Up } else { Starting };
            let scaled = |version, quantity: u32| target(version, if quantity == 0 { vec![] } else { vec![("web", quantity)] }.as_slice());
            let world = World::new(Some(scaled(2, web)), candidate.map(|quantity| scaled(3, quantity)))
                .runs(1, "web", "basic", &[state(up[0])])
                .runs(2, "web", "basic", &[state(up[1])])
                .runs(2, "web", "standard-1x", &[state(up[2])])
                .runs(3, "web", "basic", &[state(up[3])]);
            if let Some(serving) = serving(&world.desired, &world.observed) {
                proptest::prop_assert!(!plan(&world.desired, &world.observed).contains(&Step::Delete(serving)));
            }
        }
    }
}
