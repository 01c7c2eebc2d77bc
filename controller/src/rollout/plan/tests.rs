use engine::InstanceState;
use model::clock::SystemRandom;
use model::{Pause, Strategy};

use super::judge::PATIENCE;
use super::*;

#[derive(Clone)]
struct World {
    desired: Desired,
    observed: Vec<WorkloadStatus>,
}

fn target(version: u64, processes: &[(&str, u32)]) -> Target {
    let scale = |quantity| Scale { quantity, size: "Basic".to_owned(), exclusive: false, idle: None };
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
            idle: None,
            asleep: None,
            instances: (1..).zip(states).map(instance).collect(),
        });
        self
    }

    /// Steps and route as one line each, without the app's id.
    fn plan(&self) -> Vec<String> {
        self.plan_at(0)
    }

    fn plan_at(&self, second: i64) -> Vec<String> {
        let steps = plan(&self.desired, &self.observed, Timestamp::from_millis(second * 1000));
        let line = |step: &Step| match step {
            Step::Apply { workload, scale, .. } => format!("apply {} x{}", short(workload), scale.quantity),
            Step::Scale(workload, quantity) => format!("scale {} x{quantity}", short(workload)),
            Step::Idle(workload, idle) => format!("sleep {} after {idle:?}", short(workload)),
            Step::Delete(workload) => format!("delete {}", short(workload)),
            Step::Reach(_) => "reach".to_owned(),
            Step::Advance(_, step) => format!("advance to {step}"),
            Step::Promote { .. } => "promote".to_owned(),
            Step::Withdraw(_, cause) => format!("withdraw: {}", word(Some(cause))),
            Step::Fail(_, cause) => format!("fail: {}", word(cause.as_ref())),
        };
        let shares = shares(&self.desired, &self.observed);
        let serve = match shares.as_slice() {
            [] => None,
            [share] => Some(format!("serve {}", short(&share.workload))),
            both => {
                let part = |share: &model::routes::Share| format!("{}:{}", short(&share.workload), share.weight);
                Some(format!("serve {}", both.iter().map(part).collect::<Vec<_>>().join(" ")))
            }
        };
        steps.iter().map(line).chain(serve).collect()
    }

    /// The same world with other instances of a workload.
    fn now(mut self, version: u64, name: &str, states: &[InstanceState]) -> Self {
        let id = workload_id(self.desired.app, version, &name.parse().expect("a type"), "basic");
        self.observed.retain(|status| status.id != id);
        self.runs(version, name, "basic", states)
    }

    fn set(mut self, name: &str, text: &str) -> Self {
        self.desired.progress.policy.set(name, text).expect("a setting");
        self
    }

    fn at(mut self, stage: Stage) -> Self {
        self.desired.progress.stage = stage;
        self
    }
}

fn short(id: &WorkloadId) -> String {
    id.0[37..].to_owned()
}

fn word(cause: Option<&Cause>) -> String {
    match cause {
        Some(Cause::Crashed(sick)) => format!("{} {:?}", sick.dyno, sick.exit),
        Some(Cause::Stalled { missing, .. }) => {
            format!("stalled {:?}", missing.as_ref().map(|sick| sick.dyno.to_string()))
        }
        Some(Cause::Errors { new, .. }) => format!("{} errors", new.errors),
        Some(Cause::Aborted) => "aborted".to_owned(),
        None => "as noted".to_owned(),
    }
}

/// A deploy of as many web dynos as there are.
fn deploy(quantity: u32) -> World {
    World::new(Some(target(2, &[("web", quantity)])), Some(target(3, &[("web", quantity)])))
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
    let healthy = World::new(None, candidate()).runs(2, "web", "basic", &[Up, Up]).runs(2, "worker", "basic", &[Up]);
    assert_eq!(healthy.plan(), ["promote"]);
}

#[test]
fn the_old_release_serves_untouched_until_it_is_replaced() {
    let deploying = World::new(Some(target(2, &[("web", 1)])), Some(target(3, &[("web", 1)])))
        .runs(2, "web", "basic", &[Up])
        .runs(3, "web", "basic", &[Up]);
    assert_eq!(
        deploying.plan(),
        ["promote", "serve v2.web.basic:1 v3.web.basic:1"],
        "nothing is deleted in the same breath"
    );
    let promoted =
        World::new(Some(target(3, &[("web", 1)])), None).runs(2, "web", "basic", &[Up]).runs(3, "web", "basic", &[Up]);
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
    assert_eq!(world.plan(), ["fail: web.1 Some(Code(7))", "serve v2.web.basic"]);
}

#[test]
fn a_candidate_that_was_chosen_serves_before_it_is_current() {
    let mut world = World::new(Some(target(2, &[("web", 1)])), Some(target(3, &[("web", 1)])))
        .runs(2, "web", "basic", &[Up])
        .runs(3, "web", "basic", &[Up]);
    world.desired.progress.stage = Stage::Routing;
    assert_eq!(world.plan(), ["promote", "serve v3.web.basic"]);
    assert_eq!(size_of(&world.observed[1].id), "basic");
}

#[test]
fn a_candidate_that_comes_no_further_fails_at_its_deadline() {
    let mut world = World::new(Some(target(2, &[("web", 1)])), Some(target(3, &[("web", 1), ("worker", 1)])))
        .runs(2, "web", "basic", &[Up])
        .runs(3, "web", "basic", &[Up]);
    world.desired.progress.stalled = Duration::from_secs(599);
    assert_eq!(world.plan(), ["apply v3.worker.basic x1", "serve v2.web.basic:1 v3.web.basic:1"]);
    world.desired.progress.stalled = Duration::from_secs(600);
    assert_eq!(world.plan()[1], "fail: stalled None", "nobody made its worker");
    let world = World { desired: world.desired, observed: world.observed }.runs(3, "worker", "basic", &[Starting]);
    assert_eq!(world.plan()[0], "fail: stalled Some(\"worker.1\")");
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
    assert_eq!(world.plan(), ["fail: web.1 None"]);
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

#[test]
fn a_rolling_deploy_keeps_to_its_room() {
    let world = deploy(4).runs(2, "web", "basic", &[Up; 4]);
    assert_eq!(world.plan(), ["apply v3.web.basic x1", "serve v2.web.basic"]);
    let world = world.now(3, "web", &[Starting]);
    assert_eq!(world.plan(), ["serve v2.web.basic"]);
    let world = world.now(3, "web", &[Up]);
    assert_eq!(world.plan(), ["scale v2.web.basic x3", "serve v2.web.basic:3 v3.web.basic:1"]);
    let world = world.now(2, "web", &[Up, Up, Up]);
    assert_eq!(world.plan(), ["scale v3.web.basic x2", "serve v2.web.basic:3 v3.web.basic:1"]);
    let world = world.now(2, "web", &[Up]).now(3, "web", &[Up; 4]);
    assert_eq!(world.plan(), ["promote", "serve v2.web.basic:1 v3.web.basic:4"]);
    assert_eq!(world.at(Stage::Routing).plan(), ["promote", "serve v3.web.basic"]);
}

#[test]
fn without_room_beside_it_the_old_one_makes_room() {
    let world = deploy(4).set("max_surge", "0").set("max_unavailable", "50%").runs(2, "web", "basic", &[Up; 4]);
    assert_eq!(world.plan(), ["scale v2.web.basic x2", "serve v2.web.basic"]);
    let world = world.now(2, "web", &[Up, Up]);
    assert_eq!(world.plan(), ["apply v3.web.basic x2", "serve v2.web.basic"]);
    let world = world.now(3, "web", &[Up, Up]);
    assert_eq!(world.plan(), ["delete v2.web.basic", "serve v3.web.basic"], "routers let go of it first");
    let world = deploy(4).set("max_surge", "0").set("max_unavailable", "50%").runs(3, "web", "basic", &[Up, Up]);
    assert_eq!(world.plan(), ["scale v3.web.basic x4", "serve v3.web.basic"]);
}

#[test]
fn what_has_a_volume_stops_first() {
    let mut world = deploy(1).runs(2, "web", "basic", &[Up]);
    for target in world.desired.current.iter_mut().chain(&mut world.desired.candidate) {
        target.processes.values_mut().for_each(|scale| scale.exclusive = true);
    }
    for strategy in ["rolling", "all-at-once"] {
        let world = world.clone().set("strategy", strategy);
        assert_eq!(world.plan(), ["delete v2.web.basic", "serve v3.web.basic"], "{strategy}");
    }
    let canary = world.clone().set("strategy", "canary");
    assert_eq!(canary.plan(), ["reach", "serve v2.web.basic"], "one of it cannot be a part");
    let last = canary.at(Stage::Running { step: 3, reached_at: None });
    assert_eq!(last.plan(), ["delete v2.web.basic", "serve v3.web.basic"]);
    let gone = World { observed: Vec::new(), ..world.clone() };
    assert_eq!(gone.plan(), ["apply v3.web.basic x1", "serve v3.web.basic"]);
    let failed = gone.runs(3, "web", "basic", &[Up]).at(Stage::Returning { condemned: false });
    assert_eq!(failed.plan(), ["apply v2.web.basic x1", "delete v3.web.basic", "serve v2.web.basic"]);
}

#[test]
fn all_at_once_serves_nothing_of_the_new_one_before_all_of_it() {
    let world = deploy(3).set("strategy", "all-at-once").runs(2, "web", "basic", &[Up; 3]);
    assert_eq!(world.plan(), ["apply v3.web.basic x3", "serve v2.web.basic"]);
    let world = world.runs(3, "web", "basic", &[Up, Up, Starting]);
    assert_eq!(world.plan(), ["serve v2.web.basic"]);
    assert_eq!(world.now(3, "web", &[Up; 3]).plan(), ["promote", "serve v2.web.basic"]);
}

#[test]
fn a_canary_gets_its_part_step_by_step() {
    let processes = [("web", 10), ("worker", 10)];
    let at =
        |step, reached_at: Option<i64>| Stage::Running { step, reached_at: reached_at.map(Timestamp::from_millis) };
    let world = World::new(Some(target(2, &processes)), Some(target(3, &processes)))
        .set("strategy", "canary")
        .set("pause", "60s")
        .runs(2, "web", "basic", &[Up; 10])
        .runs(2, "worker", "basic", &[Up; 10]);
    assert_eq!(world.plan(), ["apply v3.web.basic x1", "apply v3.worker.basic x1", "serve v2.web.basic"]);
    let world = world.runs(3, "web", "basic", &[Up]).runs(3, "worker", "basic", &[Up]);
    let serve = "serve v2.web.basic:95 v3.web.basic:5";
    assert_eq!(world.plan(), ["scale v2.worker.basic x9", "reach", serve], "web may have to take all again");
    let world = world.now(2, "worker", &[Up; 9]).at(at(0, Some(0)));
    assert_eq!(world.plan_at(59), [serve]);
    assert_eq!(world.plan_at(60), ["advance to 1", serve]);
    let mut waits = world.clone();
    waits.desired.progress.policy.pause = Pause::UntilContinued;
    assert_eq!(waits.plan_at(100_000), [serve]);
    let world = world.at(at(1, None));
    let steps = ["scale v3.web.basic x2", "scale v3.worker.basic x2", serve];
    assert_eq!(world.plan(), steps, "20 % are for 20 % of the dynos");
    let world = world.now(3, "web", &[Up, Starting]).now(3, "worker", &[Up, Up]);
    assert_eq!(world.plan()[1..], [serve], "not all of them are there");
    let world = world.now(3, "web", &[Up, Up]);
    assert_eq!(world.plan()[1..], ["reach", "serve v2.web.basic:80 v3.web.basic:20"]);
    // Behind the last step it is finished as any rolling deploy.
    let world = world.now(3, "web", &[Up; 5]).now(2, "worker", &[Up; 5]).now(3, "worker", &[Up; 5]).at(at(3, None));
    let steps = ["scale v2.web.basic x5", "scale v3.worker.basic x8", "serve v2.web.basic:50 v3.web.basic:50"];
    assert_eq!(world.plan(), steps);
}

#[test]
fn a_canary_of_nothing_takes_no_steps() {
    let first = World::new(None, Some(target(2, &[("web", 2)]))).set("strategy", "canary");
    assert_eq!(first.plan(), ["apply v2.web.basic x2"]);
    assert_eq!(first.runs(2, "web", "basic", &[Up, Up]).plan(), ["promote"]);
    let off = World::new(Some(target(2, &[])), Some(target(3, &[]))).set("strategy", "canary");
    assert_eq!(off.plan(), ["promote"]);
}

#[test]
fn what_was_replaced_comes_back_before_a_failure_is_said() {
    let mut world = deploy(4).runs(2, "web", "basic", &[Up; 3]).runs(3, "web", "basic", &[Up, Starting]);
    world.observed[1].instances[1].crashes = 2;
    let steps = ["withdraw: web.2 None", "serve v2.web.basic:3 v3.web.basic:1"];
    assert_eq!(world.plan(), steps);
    let world = world.at(Stage::Returning { condemned: false });
    assert_eq!(world.plan(), ["scale v3.web.basic x1", "serve v2.web.basic:3 v3.web.basic:1"], "it makes room");
    let world = world.now(3, "web", &[Up]);
    assert_eq!(world.plan(), ["scale v2.web.basic x4", "serve v2.web.basic:3 v3.web.basic:1"]);
    let world = world.now(2, "web", &[Up, Up, Up, Starting]);
    assert_eq!(world.plan(), ["serve v2.web.basic:3 v3.web.basic:1"]);
    let world = world.now(2, "web", &[Up; 4]);
    assert_eq!(world.plan()[0], "fail: as noted");
}

#[test]
fn on_the_way_back_without_room_requests_wait_for_the_old_one() {
    let world = World::new(Some(target(2, &[("web", 1)])), Some(target(3, &[("web", 2)])));
    let world = world.set("max_surge", "0").runs(3, "web", "basic", &[Up, Starting]);
    let world = world.at(Stage::Returning { condemned: false });
    assert_eq!(world.plan(), ["delete v3.web.basic", "serve v2.web.basic"]);
    let gone = World { observed: Vec::new(), ..world };
    assert_eq!(gone.plan(), ["apply v2.web.basic x1", "serve v2.web.basic"]);
}

#[test]
fn who_is_scaled_down_by_a_release_is_not_before_it_is_live() {
    let world = World::new(Some(target(2, &[("web", 3), ("worker", 1)])), Some(target(3, &[("web", 1)])));
    let world = world.runs(2, "web", "basic", &[Up; 3]).runs(2, "worker", "basic", &[Up]);
    assert_eq!(world.plan(), ["apply v3.web.basic x1", "serve v2.web.basic"]);
    assert_eq!(world.now(3, "web", &[Starting]).plan(), ["serve v2.web.basic"]);
}

#[test]
fn what_somebody_ended_gets_no_more_requests() {
    let mut world =
        deploy(10).set("strategy", "canary").runs(2, "web", "basic", &[Up; 10]).runs(3, "web", "basic", &[Up]);
    world.desired.progress.aborted = true;
    assert_eq!(world.plan()[0], "fail: aborted");
    let mut world = deploy(4).runs(2, "web", "basic", &[Up; 3]).runs(3, "web", "basic", &[Up]);
    world.desired.progress.aborted = true;
    assert_eq!(world.plan()[1], "withdraw: aborted");
    let world = world.at(Stage::Returning { condemned: true });
    assert_eq!(world.plan(), ["scale v2.web.basic x4", "delete v3.web.basic", "serve v2.web.basic"]);
}

#[test]
fn a_canary_that_answers_worse_fails() {
    let canary = |errors| {
        let mut world =
            deploy(10).set("strategy", "canary").runs(2, "web", "basic", &[Up; 10]).runs(3, "web", "basic", &[Up]);
        world.desired.progress.traffic.old = Tally { requests: 10_000, lost: 0, errors: 10 };
        world.desired.progress.traffic.new = Tally { requests: 400, lost: 0, errors };
        world.plan()
    };
    assert_eq!(canary(20)[0], "reach", "5 % are not yet five times as bad as 1 %, which everybody may have");
    assert_eq!(canary(21)[0], "fail: 21 errors");
}

#[test]
fn an_app_that_is_down_is_not_kept_down_by_its_limits() {
    let crashed = InstanceState::Crashed { retry_at: Timestamp::from_millis(0) };
    let world = deploy(4).runs(2, "web", "basic", &[crashed; 4]);
    assert_eq!(world.plan(), ["scale v2.web.basic x1", "apply v3.web.basic x1", "serve v2.web.basic"]);
    let world = world.now(2, "web", &[crashed]).runs(3, "web", "basic", &[Up]);
    assert_eq!(world.plan(), ["scale v3.web.basic x4", "serve v3.web.basic"]);
}

#[test]
fn what_sleeps_is_as_healthy_as_it_was_and_is_replaced_without_being_woken() {
    let asleep = |mut world: World| {
        for status in world.observed.iter_mut().filter(|status| status.release == 2) {
            (status.asleep, status.instances) = (Some(Timestamp::from_millis(0)), Vec::new());
        }
        world
    };
    let alone = asleep(World::new(Some(target(2, &[("web", 2)])), None).runs(2, "web", "basic", &[Up, Up]));
    assert_eq!(alone.plan(), ["serve v2.web.basic"], "its route stays");
    let world = asleep(deploy(1).runs(2, "web", "basic", &[Up]));
    assert_eq!(world.plan(), ["apply v3.web.basic x1", "serve v2.web.basic"]);
    let world = world.runs(3, "web", "basic", &[Starting]);
    assert_eq!(world.plan(), ["serve v2.web.basic"]);
    assert_eq!(world.clone().now(3, "web", &[Up]).plan(), ["promote", "serve v3.web.basic"]);
    let failed = world.at(Stage::Returning { condemned: false });
    assert_eq!(failed.plan(), ["fail: as noted", "serve v2.web.basic"], "what it took the place of is back already");

    let mut world = World::new(Some(target(2, &[("web", 1)])), None).runs(2, "web", "basic", &[Up]);
    let web = |world: &mut World, idle| {
        let scale = world.desired.current.as_mut().and_then(|target| target.processes.values_mut().next());
        scale.expect("web").idle = idle;
    };
    web(&mut world, Some(Duration::from_secs(60)));
    assert_eq!(world.plan(), ["sleep v2.web.basic after Some(60s)", "serve v2.web.basic"]);
    world.observed[0].idle = Some(Duration::from_secs(60));
    assert_eq!(world.plan(), ["serve v2.web.basic"]);
    web(&mut world, None);
    assert_eq!(world.plan(), ["sleep v2.web.basic after None", "serve v2.web.basic"]);
}

/// An engine and a controller in small: every step is taken at once, instances get up or crash when chance says so.
struct Simulation {
    world: World,
    high: u32,
    surge: u32,
    least: u32,
    over: bool,
}

impl Simulation {
    fn take(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Apply { workload, scale, process_type, .. } => {
                    let version = if workload.0.contains(".v3.") { 3 } else { 2 };
                    let states = vec![Starting; scale.quantity as usize];
                    let world = std::mem::replace(&mut self.world, World::new(None, None));
                    self.world = world.runs(version, process_type.as_str(), "basic", &states);
                }
                Step::Scale(workload, quantity) => self.scale(&workload, quantity),
                Step::Idle(workload, idle) => {
                    let status = self.world.observed.iter_mut().find(|status| status.id == workload);
                    status.expect("it is there").idle = idle;
                }
                Step::Delete(workload) => self.world.observed.retain(|status| status.id != workload),
                Step::Reach(_) => {
                    self.stage(|step| Stage::Running { step, reached_at: Some(Timestamp::from_millis(0)) });
                }
                Step::Advance(_, step) => self.stage(|_| Stage::Running { step, reached_at: None }),
                Step::Withdraw(..) => self.world.desired.progress.stage = Stage::Returning { condemned: false },
                Step::Fail(..) => self.over = true,
                Step::Promote { .. } if self.world.desired.progress.stage != Stage::Routing => {
                    self.world.desired.progress.stage = Stage::Routing;
                }
                Step::Promote { .. } => {
                    self.world.desired.current = self.world.desired.candidate.take();
                    self.world.desired.progress = Progress::default();
                    self.over = true;
                }
            }
        }
    }

    fn stage(&mut self, next: impl Fn(usize) -> Stage) {
        if let Stage::Running { step, .. } = self.world.desired.progress.stage {
            self.world.desired.progress.stage = next(step);
        }
    }

    fn scale(&mut self, workload: &WorkloadId, quantity: u32) {
        let status = self.world.observed.iter_mut().find(|status| status.id == *workload).expect("it runs");
        status.instances.truncate(quantity as usize);
        let present = u32::try_from(status.instances.len()).expect("few");
        for number in present + 1..=quantity {
            let dyno = DynoName { process_type: status.process_type.clone(), number };
            status.instances.push(Instance::new(format!("{workload}-{number}"), dyno, Timestamp::from_millis(0)));
        }
        status.quantity = quantity;
    }

    /// The instance that chance means, if it is one that starts.
    fn starting(&mut self, chance: usize) -> Option<&mut Instance> {
        let all = self.world.observed.iter_mut().flat_map(|status| &mut status.instances);
        let mut starting: Vec<_> = all.filter(|instance| instance.state == Starting).collect();
        let number = starting.len();
        (number > 0).then(|| starting.swap_remove(chance % number))
    }

    fn check(&self) -> Result<(), proptest::test_runner::TestCaseError> {
        let all = self.world.observed.iter().filter(|status| !status.deleting);
        let total: u32 = all.map(|status| status.quantity).sum();
        let up: u32 = self.world.observed.iter().map(healthy).sum();
        proptest::prop_assert!(total <= self.high + self.surge, "{total} are too many: {:?}", self.world.plan());
        proptest::prop_assert!(up >= self.least, "{up} are too few: {:?}", self.world.plan());
        let shares = shares(&self.world.desired, &self.world.observed);
        let up = |share: &model::routes::Share| find(&self.world.observed, &share.workload).map_or(0, healthy);
        proptest::prop_assert!(self.least == 0 || shares.iter().map(up).sum::<u32>() > 0, "nothing serves");
        let steps = plan(&self.world.desired, &self.world.observed, Timestamp::from_millis(i64::MAX));
        for share in shares {
            proptest::prop_assert!(!steps.contains(&Step::Delete(share.workload)), "{:?}", self.world.plan());
        }
        Ok(())
    }
}

proptest::proptest! {
    #[test]
    fn what_serves_is_never_deleted(web in 0_u32..3, candidate in proptest::option::of(0_u32..3), up: [bool; 4], stage in 0..4_u8) {
        let state = |up| if up { Up } else { Starting };
        let scaled = |version, quantity: u32| target(version, if quantity == 0 { vec![] } else { vec![("web", quantity)] }.as_slice());
        let stage = [Stage::default(), Stage::Routing, Stage::Returning { condemned: true }, Stage::Returning { condemned: false }]
            [usize::from(stage)].clone();
        let world = World::new(Some(scaled(2, web)), candidate.map(|quantity| scaled(3, quantity)))
            .at(stage)
            .runs(1, "web", "basic", &[state(up[0])])
            .runs(2, "web", "basic", &[state(up[1])])
            .runs(2, "web", "standard-1x", &[state(up[2])])
            .runs(3, "web", "basic", &[state(up[3])]);
        let steps = plan(&world.desired, &world.observed, Timestamp::from_millis(0));
        for share in shares(&world.desired, &world.observed) {
            proptest::prop_assert!(!steps.contains(&Step::Delete(share.workload)));
        }
    }

    #[test]
    fn every_rollout_keeps_its_limits_and_comes_to_an_end(
        old in 1_u32..12,
        new in 1_u32..12,
        strategy in 0..3_usize,
        surge in "(0|1|2|25%|100%)",
        unavailable in "(0|1|25%|60%)",
        chances in proptest::collection::vec((0..100_usize, 0..100_u8), 400),
        crashes: bool,
    ) {
        let mut world = World::new(Some(target(2, &[("web", old)])), Some(target(3, &[("web", new)])))
            .set("max_surge", &surge)
            .set("max_unavailable", &unavailable)
            .set("pause", "0s")
            .runs(2, "web", "basic", &vec![Up; old as usize]);
        let strategy = [Strategy::Rolling, Strategy::Canary, Strategy::AllAtOnce][strategy];
        world.desired.progress.policy.strategy = strategy;
        let policy = world.desired.progress.policy.clone();
        let (low, high) = (old.min(new), old.max(new));
        let surge = match strategy {
            Strategy::Rolling => policy.surge(high),
            // All of the old ones stay until it is said to go on; all of both are there at once.
            Strategy::Canary => policy.surge(high).max(new.div_ceil(2)),
            Strategy::AllAtOnce => low,
        };
        let least = old.saturating_sub(policy.unavailable(old)).min(new);
        let mut simulation = Simulation { world, high, surge, least, over: false };
        for (chance, luck) in chances {
            let steps = plan(&simulation.world.desired, &simulation.world.observed, Timestamp::from_millis(i64::MAX));
            simulation.take(steps);
            simulation.check()?;
            if let Some(instance) = simulation.starting(chance) {
                if crashes && luck < 10 {
                    instance.crashes += 1;
                } else {
                    instance.state = Up;
                }
            }
            simulation.check()?;
        }
        proptest::prop_assert!(simulation.over, "it came to no end: {:?}", simulation.world.plan());
    }
}
