//! Whole rollouts over an engine that moves when the test says so, seen from the store, the engine and a router.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::{InstanceState, WorkloadId};
use model::routes::{Ack, AppRoute, NamesUpdate, RouteMode, Share};
use model::traffic::Counts;
use model::{AppId, Exit};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::watch;

use super::Rollout;
use super::plan::workload_id;
use crate::Error;
use crate::addons::AddonRequest;
use crate::formation::{DEFAULT_SIZE, ScaleRequest};
use crate::releases::RollbackWish;
use crate::store::{App, Change, NewRelease, Quantity, Release, RolloutRow, RolloutState, Scale, Status};
use crate::testing::{TestController, image, make_deploy};

/// One app on a platform with one router.
struct World {
    test: TestController,
    rollout: Rollout,
    router: Router,
    app: App,
    /// Controllers that lived until now. The test's own process holds the sockets of all of them.
    lives: u32,
}

/// A router, as far as a rollout sees it: it serves what it is told, and says so.
struct Router {
    told: watch::Receiver<BTreeMap<AppId, AppRoute>>,
    /// Holds acknowledgements back while it is true.
    slow: watch::Sender<bool>,
    writer: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
}

impl Router {
    async fn follow(test: &TestController, socket: PathBuf) -> Self {
        let (names, path) = (test.controller.live.names.clone(), socket.clone());
        tokio::spawn(async move { names.serve(&path).await });
        let stream = connect(&socket).await;
        let (told, mut receiver) = watch::channel(BTreeMap::new());
        let (slow, mut may_acknowledge) = watch::channel(false);
        let (reader, writer) = stream.into_split();
        let writer = Arc::new(tokio::sync::Mutex::new(writer));
        let acknowledges = Arc::clone(&writer);
        let (version, mut versions) = watch::channel(0);
        tokio::spawn(async move {
            while versions.changed().await.is_ok() {
                may_acknowledge.wait_for(|slow| !slow).await.expect("a router");
                let newest = *versions.borrow_and_update();
                say(&acknowledges, &Ack::Serving(newest)).await;
            }
        });
        tokio::spawn(async move {
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let update: NamesUpdate = serde_json::from_str(&line).expect("an update");
                told.send_modify(|rows: &mut BTreeMap<_, _>| {
                    if update.reset {
                        rows.clear();
                    }
                    rows.retain(|app, _| !update.unset.contains(app));
                    rows.extend(update.set);
                });
                version.send_replace(update.version);
            }
        });
        receiver.changed().await.expect("the whole table");
        Self { told: receiver, slow, writer }
    }

    /// Says what it counted of these workloads' requests: all, lost, answered with an error.
    async fn counted(&self, test: &TestController, counts: &[(WorkloadId, [u64; 3])]) {
        let row = |(workload, [requests, lost, errors]): &(WorkloadId, [u64; 3])| {
            let counts = Counts { life: 1, requests: *requests, lost: *lost, errors: *errors, ..Counts::default() };
            (workload.clone(), counts)
        };
        say(&self.writer, &Ack::Traffic(counts.iter().map(row).collect())).await;
        let heard = |(workload, [requests, ..]): &(WorkloadId, [u64; 3])| {
            test.controller.live.names.traffic().of(workload).requests == *requests
        };
        while !counts.iter().all(heard) {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until this router was told that the app is in this mode; none is an app that it does not know.
    async fn until(&self, app: AppId, mode: Option<&RouteMode>) {
        let mut told = self.told.clone();
        told.wait_for(|rows| rows.get(&app).map(|row| &row.mode) == mode).await.expect("a router");
    }
}

async fn say(writer: &tokio::sync::Mutex<OwnedWriteHalf>, ack: &Ack) {
    let line = format!("{}\n", serde_json::to_string(ack).expect("JSON"));
    writer.lock().await.write_all(line.as_bytes()).await.expect("written");
}

async fn connect(socket: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return stream,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

impl World {
    async fn new() -> Self {
        let test = TestController::manual().await;
        let ada = test.user("ada@example.com").await;
        let app = test.app(&ada, "shop").await;
        Self::with(test, app, 1).await
    }

    /// The same with a web process of v2 that serves.
    async fn live() -> Self {
        let mut world = Self::new().await;
        world.deploy(&["web"]).await;
        world.look().await;
        world.up(2, "web");
        world.look().await;
        assert_eq!(world.runs().await, ["v2.web up"]);
        world
    }

    async fn with(test: TestController, app: App, lives: u32) -> Self {
        let mut rollout = Rollout::new(test.controller.clone());
        rollout.begin().await.expect("a readable store");
        let router = Router::follow(&test, test.controller.settings.home.join(format!("names-{lives}.sock"))).await;
        Self { test, rollout, router, app, lives }
    }

    /// Kills the controller and starts another.
    async fn restart(self) -> Self {
        Self::with(self.test.next_life().await, self.app, self.lives + 1).await
    }

    /// Builds and releases.
    async fn deploy(&self, types: &[&str]) -> Release {
        make_deploy(&self.test.controller.store, &self.app, &image(types)).await
    }

    /// Sets a config var.
    async fn configure(&self, name: &str, value: &str) -> Release {
        let vars = [(name.parse().expect("a name"), Some(value.to_owned()))].into_iter().collect();
        let description = "Set config";
        let change = Change::Config(&vars, &BTreeMap::new());
        let new = NewRelease { app: self.app.id, user: self.app.owner.id, description, reason: None, change };
        self.test
            .controller
            .store
            .create_release(new, &crate::testing::stamp())
            .await
            .expect("a release")
            .expect("a change")
    }

    /// Gives web so many dynos, of the release that is live.
    async fn scale(&mut self, version: u64, quantity: u32) {
        let actor = self.test.owner_of(&self.app);
        let request = ScaleRequest { process_type: "web".to_owned(), quantity: Some(quantity.to_string()), size: None };
        self.test.controller.scale(&self.app, &actor, &[request]).await.expect("scaled");
        self.look().await;
        self.up(version, "web");
        self.look().await;
    }

    /// Lets every dyno of a release get up until it has taken over.
    async fn roll(&mut self, version: u64) {
        while !self.release(version).await.current {
            self.look().await;
            self.up(version, "web");
        }
        self.look().await;
    }

    /// Sets the rollout policy.
    async fn policy(&self, settings: &[(&str, &str)]) {
        let actor = self.test.owner_of(&self.app);
        let changes = settings.iter().map(|(name, text)| ((*name).to_owned(), Some((*text).to_owned()))).collect();
        self.test.controller.set_rollout_policy(&self.app, &actor, &changes).await.expect("set");
    }

    /// Waits until visitors get this.
    async fn gets(&self, mode: RouteMode) {
        self.router.until(self.app.id, Some(&mode)).await;
    }

    fn parts(&self, old: u32, new: u32) -> RouteMode {
        let share = |version, weight| Share { workload: self.id(version, "web"), weight };
        RouteMode::Serve(vec![share(2, old), share(3, new)])
    }

    /// Lets the rollout do what is due.
    async fn look(&mut self) {
        self.rollout.tick().await.expect("no trouble");
    }

    /// Looks whenever something changed until `holds`.
    async fn look_until(&mut self, holds: impl AsyncFn(&Self) -> bool) {
        loop {
            self.look().await;
            if holds(self).await {
                return;
            }
            self.test.controller.changed.notified().await;
        }
    }

    fn id(&self, version: u64, process_type: &str) -> WorkloadId {
        workload_id(self.app.id, version, &process_type.parse().expect("a process type"), DEFAULT_SIZE)
    }

    fn up(&self, version: u64, process_type: &str) {
        self.test.engine.make_all_up(&self.id(version, process_type));
    }

    fn crash(&self, version: u64, process_type: &str) {
        self.test.engine.crash(&self.id(version, process_type), 1, Exit::Code(7));
    }

    fn serve(&self, version: u64) -> RouteMode {
        RouteMode::serve(self.id(version, "web"))
    }

    /// What visitors get; none if routers do not know the app.
    fn route(&self) -> Option<RouteMode> {
        self.router.told.borrow().get(&self.app.id).map(|row| row.mode.clone())
    }

    /// Every instance that there is.
    async fn runs(&self) -> Vec<String> {
        let all = engine::Engine::list(&self.test.engine).await.expect("reachable");
        let word = |state| match state {
            InstanceState::Starting => "starting",
            InstanceState::Up => "up",
            InstanceState::Stopping => "stopping",
            InstanceState::GaveUp => "given up",
            InstanceState::Crashed { .. } => "crashed",
        };
        let lines = all.iter().flat_map(|workload| {
            let name = format!("v{}.{}", workload.release, workload.process_type);
            workload.instances.iter().map(move |instance| format!("{name} {}", word(instance.state)))
        });
        lines.collect()
    }

    /// Every instance that is to stay.
    async fn stay(&self) -> Vec<String> {
        let mut all = self.runs().await;
        all.retain(|line| !line.ends_with("stopping"));
        all
    }

    /// The dynos that get requests, as routers say.
    async fn routed(&self) -> Vec<String> {
        let dynos = self.test.controller.dynos(&self.app).await.expect("readable");
        let routed = dynos.iter().filter(|dyno| dyno.routed == Some(true));
        routed.map(|dyno| format!("v{}.{}", dyno.release.version, dyno.name)).collect()
    }

    async fn rollout_of(&self, version: u64) -> RolloutRow {
        let release = self.release(version).await;
        self.test.controller.store.rollout(release.id).await.expect("readable").expect("a rollout")
    }

    async fn release(&self, version: u64) -> Release {
        let found = self.test.controller.store.release_by_version(self.app.id, version).await;
        found.expect("readable").expect("a release")
    }
}

#[tokio::test]
async fn a_healthy_release_takes_over_and_only_then_the_old_one_stops() {
    let mut world = World::new().await;
    assert_eq!(world.route(), Some(RouteMode::Blank));
    world.deploy(&["web"]).await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web starting"]);
    assert_eq!((world.release(2).await.status, world.route()), (Status::Pending, Some(RouteMode::Blank)));
    world.up(2, "web");
    world.look().await;
    assert!(world.release(2).await.current);
    assert_eq!(world.route(), Some(world.serve(2)));

    world.deploy(&["web", "worker"]).await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v3.web starting"], "a worker starts when it is scaled");
    assert_eq!(world.route(), Some(world.serve(2)));
    world.up(3, "web");
    world.look().await;
    assert_eq!((world.release(3).await.status, world.release(3).await.current), (Status::Succeeded, true));
    assert_eq!(
        (world.route(), world.runs().await),
        (Some(world.serve(3)), vec!["v2.web up".into(), "v3.web up".into()])
    );
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping", "v3.web up"]);
}

#[tokio::test]
async fn nothing_is_live_and_nothing_old_stops_before_every_router_says_so() {
    let mut world = World::live().await;
    let release = world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.router.slow.send_replace(true);
    let (id, serves) = (world.app.id, world.serve(3));
    tokio::select! {
        biased;
        result = world.rollout.tick() => panic!("it went on without its router: {result:?}"),
        () = world.router.until(id, Some(&serves)) => {}
    }
    assert_eq!(world.runs().await, ["v2.web up", "v3.web up"]);
    let said = (world.release(3).await.status, world.release(2).await.current);
    assert_eq!(said, (Status::Pending, true), "nobody serves it yet, as far as anybody knows");
    assert!(world.routed().await.is_empty());
    world.router.slow.send_replace(false);
    world.look().await;
    assert!(!world.rollout_of(3).await.unconfirmed);
    assert_eq!(world.routed().await, ["v3.web.1"]);
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping", "v3.web up"]);
    assert!(world.release(3).await.current && world.release(3).await.id == release.id);
}

#[tokio::test]
async fn whoever_goes_on_while_routers_are_told_goes_on_with_that() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.router.slow.send_replace(true);
    let (id, serves) = (world.app.id, world.serve(3));
    tokio::select! {
        biased;
        result = world.rollout.tick() => panic!("it went on without its router: {result:?}"),
        () = world.router.until(id, Some(&serves)) => {}
    }
    let mut world = world.restart().await;
    assert_eq!(world.route(), Some(world.serve(3)), "nobody is sent back");
    world.look().await;
    assert!(world.release(3).await.current);
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping", "v3.web up"]);
}

#[tokio::test]
async fn a_router_that_says_nothing_is_given_up_and_that_is_said() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.router.slow.send_replace(true);
    *world.test.controller.live.router_patience.lock() = std::time::Duration::ZERO;
    world.look().await;
    assert!(world.release(3).await.current && world.rollout_of(3).await.unconfirmed);
    assert!(world.routed().await.is_empty(), "nothing else is said before the router does");
}

#[tokio::test]
async fn a_dyno_has_the_size_and_the_release_that_it_runs() {
    let mut world = World::live().await;
    let dynos = async |world: &World| -> Vec<String> {
        let all = world.test.controller.dynos(&world.app).await.expect("readable");
        all.iter().map(|dyno| format!("v{} {} {:?}", dyno.release.version, dyno.size, dyno.routed)).collect()
    };
    assert_eq!(dynos(&world).await, ["v2 Standard-1X Some(true)"]);
    let larger = ScaleRequest { process_type: "web".to_owned(), quantity: None, size: Some("standard-2x".to_owned()) };
    let actor = world.test.owner_of(&world.app);
    world.test.controller.scale(&world.app, &actor, &[larger]).await.expect("resized");
    assert_eq!(dynos(&world).await, ["v2 Standard-1X Some(true)"], "a wish changes nothing yet");
    world.look().await;
    assert_eq!(dynos(&world).await, ["v2 Standard-1X Some(true)", "v2 Standard-2X Some(false)"]);
}

#[tokio::test]
async fn a_candidate_that_crashes_fails_and_the_old_release_keeps_serving() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.crash(3, "web");
    world.look().await;
    assert_eq!(world.release(3).await.status, Status::Pending, "once may be chance");
    world.test.engine.retry(&world.id(3, "web"), 1);
    world.crash(3, "web");
    world.look().await;
    let failed = world.release(3).await;
    assert_eq!(failed.status, Status::Failed);
    let reason = failed.failure.expect("a reason");
    assert!(reason.contains("web.1 exited with code 7") && reason.contains("v2 keeps serving"), "{reason}");
    let known = world.rollout_of(3).await.failure().expect("a failure");
    assert_eq!((known.cause.as_str(), known.exit_code), ("crashed", Some(7)));
    assert_eq!((known.dyno.as_deref(), known.sentence.lines().count()), (Some("web.1"), 1));
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v3.web stopping"]);
    assert_eq!((world.route(), world.release(2).await.current), (Some(world.serve(2)), true));
}

#[tokio::test]
async fn a_release_that_comes_no_further_fails_at_its_deadline() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    let wait = async |world: &mut World, looks| {
        for _ in 0..looks {
            world.test.clock.advance(std::time::Duration::from_secs(10));
            world.look().await;
        }
    };
    wait(&mut world, 59).await;
    let mut world = world.restart().await;
    world.look().await;
    wait(&mut world, 59).await;
    assert_eq!(world.release(3).await.status, Status::Pending, "a platform that was away counts anew");
    wait(&mut world, 1).await;
    let failed = world.release(3).await;
    assert_eq!(failed.status, Status::Failed);
    let known = world.rollout_of(3).await.failure().expect("a failure");
    assert_eq!((known.cause.as_str(), known.dyno.as_deref()), ("stalled", Some("web.1")));
    assert!(failed.failure.expect("a reason").starts_with(&known.sentence), "{}", known.sentence);
    world.look().await;
    assert_eq!(
        (world.route(), world.runs().await),
        (Some(world.serve(2)), vec!["v2.web up".into(), "v3.web stopping".into()])
    );
}

#[tokio::test]
async fn a_release_that_the_engine_refuses_fails_in_its_words() {
    let mut world = World::live().await;
    world.test.engine.refuse(Some("the disk is full"));
    world.deploy(&["web"]).await;
    world.look().await;
    let failed = world.release(3).await;
    assert!(failed.failure.is_some_and(|reason| reason.contains("the disk is full")));
    assert_eq!((world.route(), world.runs().await), (Some(world.serve(2)), vec!["v2.web up".to_owned()]));
}

#[tokio::test]
async fn the_next_life_of_a_controller_carries_on_with_a_rollout() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    let mut world = world.restart().await;
    assert_eq!(world.route(), Some(world.serve(2)), "the first thing that routers hear");
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v3.web starting"], "nothing twice");
    world.up(3, "web");
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!((world.route(), world.release(3).await.current), (Some(world.serve(3)), true));
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping", "v3.web up"]);
}

#[tokio::test]
async fn what_an_older_program_wished_is_scaled_as_it_is_and_replaced_by_the_next_release() {
    let mut world = World::new().await;
    world.deploy(&["web"]).await;
    world.look().await;
    let mut older = world.test.engine.applied().remove(0);
    engine::Engine::delete(&world.test.engine, &older.id).await.expect("deleted");
    world.test.engine.finish_stopping(&older.id);
    // Another size and another port than this program would wish.
    older.container.limits.pids += 1;
    older.health = engine::Health::listening(4000, std::time::Duration::from_secs(1));
    engine::Engine::apply(&world.test.engine, older.clone()).await.expect("applied");
    world.up(2, "web");
    world.look().await;
    assert_eq!(world.route(), Some(world.serve(2)));

    let actor = world.test.owner_of(&world.app);
    let twice = ScaleRequest { process_type: "web".to_owned(), quantity: Some("2".to_owned()), size: None };
    world.test.controller.scale(&world.app, &actor, &[twice]).await.expect("scaled");
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v2.web starting"]);
    assert_eq!(world.test.engine.applied(), [engine::Workload { quantity: 2, ..older.clone() }]);

    world.configure("A", "1").await;
    world.roll(3).await;
    assert_eq!(world.stay().await, ["v3.web up", "v3.web up"]);
    assert_eq!(world.test.engine.applied()[0].container.limits.pids, older.container.limits.pids - 1);
}

#[tokio::test]
async fn a_release_phase_comes_first_and_begins_anew_in_the_next_life() {
    let mut world = World::live().await;
    world.deploy(&["release", "web"]).await;
    world.look().await;
    let lost = world.test.engine.next_run().await;
    assert_eq!(world.runs().await, ["v2.web up"]);

    let mut world = world.restart().await;
    world.test.controller.clean_up().await.expect("ended");
    drop(lost);
    world.look().await;
    let phase = world.test.engine.next_run().await;
    assert_eq!(phase.oneoff.container.args.last().map(String::as_str), Some("/cnb/process/release"));
    assert_eq!(phase.oneoff.container.env.get("DYNO").map(String::as_str), Some("release.1"));
    phase.output.send(Bytes::from_static("moved 3 täb".as_bytes())).await.expect("a reader");
    phase.output.send(Bytes::from_static(b"les\n")).await.expect("a reader");
    phase.exit(Exit::Code(0));
    world.look_until(async |world| world.runs().await == ["v2.web up", "v3.web starting"]).await;
    let release = world.release(3).await;
    let output = std::fs::read_to_string(world.test.controller.release_output(world.app.id, release.id));
    assert_eq!(output.expect("its output"), "moved 3 täbles\n");
}

#[tokio::test]
async fn a_release_phase_that_fails_replaces_nothing() {
    let mut world = World::live().await;
    world.deploy(&["release", "web"]).await;
    world.look().await;
    world.test.engine.next_run().await.exit(Exit::Code(3));
    world.look_until(async |world| world.release(3).await.status != Status::Pending).await;
    let reason = world.release(3).await.failure.expect("a reason");
    assert!(reason.contains("exited with code 3"), "{reason}");
    world.look().await;
    assert_eq!((world.route(), world.runs().await), (Some(world.serve(2)), vec!["v2.web up".to_owned()]));
}

#[tokio::test]
async fn a_config_change_during_a_rollout_comes_after_it() {
    let mut world = World::live().await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.configure("COLOUR", "green").await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v3.web starting"]);
    world.up(3, "web");
    world.look().await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping", "v3.web up", "v4.web starting"]);
    let applied = world.test.engine.applied();
    let colour = |version| {
        let id = world.id(version, "web");
        applied.iter().find(|workload| workload.id == id)?.container.env.get("COLOUR").cloned()
    };
    assert_eq!((colour(3), colour(4)), (None, Some("green".to_owned())));
    world.up(4, "web");
    world.look().await;
    assert_eq!((world.route(), world.release(4).await.current), (Some(world.serve(4)), true));
}

#[tokio::test]
async fn an_app_is_looked_at_for_a_reason_and_a_look_at_all_finds_what_nobody_told() {
    let mut world = World::live().await;
    // What became live was said to have changed.
    world.look().await;
    let store = &world.test.controller.store;
    let two = Scale {
        process_type: "web".parse().expect("a process type"),
        quantity: Some(Quantity::Exactly(2)),
        size: None,
    };
    store.scale(world.app.id, &[two], 100, &crate::testing::stamp()).await.expect("scaled");
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up"], "it is one of many that do not change");
    world.test.controller.changed.notify_one();
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v2.web starting"]);
}

#[tokio::test]
async fn an_app_that_is_removed_during_its_rollout_leaves_nothing() {
    let mut world = World::live().await;
    world.deploy(&["release", "web"]).await;
    world.look().await;
    let owner = world.test.actor(&world.test.user("eve@example.com").await);
    world.test.controller.delete_app(&world.app, &owner).await.expect("removed");
    assert_eq!(world.route(), None, "nobody is sent there when the verb returns");
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web stopping"]);
    world.test.engine.finish_stopping(&world.id(2, "web"));
    world.test.controller.sweep().await.expect("swept");
    assert_eq!(engine::Engine::oneoffs(&world.test.engine).await.expect("reachable"), []);
    world.look().await;
    assert!(world.runs().await.is_empty());
}

#[tokio::test]
async fn while_the_engine_is_away_visitors_stay_and_then_the_rollout_goes_on() {
    let mut world = World::live().await;
    world.test.engine.set_reachable(false);
    let release = world.deploy(&["web"]).await;
    assert!(matches!(world.rollout.tick().await, Err(Error::Engine(_))));
    assert_eq!((world.route(), world.release(3).await.status), (Some(world.serve(2)), Status::Pending));

    let World { test, rollout, router, app, .. } = world.restart().await;
    router
        .until(app.id, Some(&RouteMode::serve(workload_id(app.id, 2, &"web".parse().expect("web"), DEFAULT_SIZE))))
        .await;
    let engine = test.engine.clone();
    let loop_of_its_own = tokio::spawn(rollout.run());
    engine.set_reachable(true);
    let id = workload_id(app.id, 3, &"web".parse().expect("web"), DEFAULT_SIZE);
    while !engine.applied().iter().any(|workload| workload.id == id) {
        tokio::task::yield_now().await;
    }
    engine.make_all_up(&id);
    test.controller.live.settled(release.id).await;
    assert!(test.controller.store.release(release.id).await.expect("readable").expect("there").current);
    loop_of_its_own.abort();
}

#[tokio::test]
async fn a_rollback_is_scaled_as_its_release_was_and_the_old_one_stays_as_it_is() {
    let mut world = World::live().await;
    let first = world.release(2).await;
    let actor = world.test.owner_of(&world.app);
    let controller = world.test.controller.clone();
    let twice = ScaleRequest { process_type: "web".to_owned(), quantity: Some("2".to_owned()), size: None };
    controller.scale(&world.app, &actor, &[twice]).await.expect("scaled");
    world.configure("A", "1").await;
    world.look().await;
    world.up(2, "web");
    world.roll(3).await;
    assert_eq!(world.stay().await, ["v3.web up", "v3.web up"]);

    let wish = RollbackWish::default();
    controller.rollback((&world.app, &actor), &first, &wish).await.expect("rolled back");
    world.look().await;
    assert_eq!(world.stay().await, ["v3.web up", "v3.web up", "v4.web starting"]);
    world.up(4, "web");
    world.look().await;
    world.look().await;
    assert_eq!(world.stay().await, ["v4.web up"]);
}

#[tokio::test]
async fn a_rollback_waits_until_its_add_ons_let_the_app_through() {
    let test = TestController::new().await;
    let ada = test.user("ada@example.com").await;
    let app = test.app(&ada, "shop").await;
    let mut world = World::with(test, app, 1).await;
    let actor = world.test.owner_of(&world.app);
    let controller = world.test.controller.clone();
    let request = AddonRequest { plan: "postgres".to_owned(), ..AddonRequest::default() };
    controller.create_addon(&world.app, &actor, request).await.expect("an add-on");
    let attached = async || controller.store.attached(world.app.id).await.expect("readable");
    // The image is made on a thread of its own.
    while attached().await.is_empty() {
        controller.settle_addons().await;
        tokio::task::yield_now().await;
    }
    world.deploy(&["web"]).await;
    world.look_until(async |world| world.release(3).await.current).await;
    let attachments = controller.store.attachments_of_app(world.app.id).await.expect("readable");
    controller.detach_addon(&attachments[0], &actor).await.expect("detached");
    let is_out = async |world: &World| !world.runs().await.iter().any(|line| line.starts_with("v3."));
    world.look_until(async |world| world.release(4).await.current && is_out(world).await).await;
    controller.settle_addons().await;

    let with = world.release(3).await;
    controller.rollback((&world.app, &actor), &with, &RollbackWish::default()).await.expect("rolled back");
    world.look().await;
    assert_eq!(world.runs().await.iter().filter(|line| line.starts_with("v5.")).count(), 0, "not told yet");
    controller.settle_addons().await;
    world.look_until(async |world| world.release(5).await.current).await;
}

#[tokio::test]
async fn a_rolling_deploy_keeps_to_its_room_and_goes_on_in_every_next_life() {
    let mut world = World::live().await;
    world.scale(2, 4).await;
    world.deploy(&["web"]).await;
    for _ in 0..40 {
        world = world.restart().await;
        world.look().await;
        let stay = world.stay().await;
        let up = stay.iter().filter(|line| line.ends_with(" up")).count();
        assert!(stay.len() <= 5 && up >= 4, "{stay:?}");
        if world.release(3).await.current {
            break;
        }
        world.up(3, "web");
    }
    assert!(world.release(3).await.current, "{:?}", world.stay().await);
    world.look().await;
    assert_eq!(world.stay().await, ["v3.web up"; 4]);
}

#[tokio::test]
async fn a_rolling_deploy_that_fails_half_way_gives_back_what_it_took() {
    let mut world = World::live().await;
    world.scale(2, 4).await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    for _ in 0..3 {
        world.look().await;
    }
    assert_eq!(world.stay().await, ["v2.web up", "v2.web up", "v2.web up", "v3.web up", "v3.web starting"]);
    let id = world.id(3, "web");
    world.test.engine.crash(&id, 2, Exit::Code(7));
    world.test.engine.retry(&id, 2);
    world.test.engine.crash(&id, 2, Exit::Code(7));
    world.look().await;
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!(world.release(3).await.status, Status::Pending, "v2 has three of four");
    world.look().await;
    world.up(2, "web");
    for _ in 0..3 {
        world.look().await;
    }
    assert_eq!(world.release(3).await.status, Status::Failed);
    assert_eq!(world.rollout_of(3).await.failure().expect("a failure").exit_code, Some(7));
    world.look().await;
    assert_eq!((world.stay().await, world.route()), (vec!["v2.web up".to_owned(); 4], Some(world.serve(2))));
}

#[tokio::test]
async fn a_canary_waits_for_a_word_at_each_step_whoever_controls() {
    let mut world = World::live().await;
    world.policy(&[("strategy", "canary"), ("steps", "10,50"), ("pause", "manual")]).await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.gets(world.serve(2)).await;
    world.up(3, "web");
    world.look().await;
    world.gets(world.parts(90, 10)).await;
    assert_eq!(world.rollout_of(3).await.percent(), Some(10));
    let mut world = world.restart().await;
    world.gets(world.parts(90, 10)).await;
    world.test.clock.advance(Duration::from_secs(100_000));
    world.look().await;
    assert_eq!(world.rollout_of(3).await.step, 0, "a word, not a time");

    let actor = world.test.owner_of(&world.app);
    let controller = world.test.controller.clone();
    controller.continue_rollout(&world.app, &actor, "v3").await.expect("continued");
    let again = controller.continue_rollout(&world.app, &actor, "v3").await;
    assert!(matches!(again, Err(Error::Conflict(_))), "it does not wait now: {again:?}");
    world.look().await;
    world.gets(world.parts(50, 50)).await;
    controller.continue_rollout(&world.app, &actor, "v3").await.expect("continued");
    world.look().await;
    assert!(world.release(3).await.current);
    world.gets(world.serve(3)).await;
}

#[tokio::test]
async fn a_canary_goes_on_by_itself_after_its_pause_and_ends_when_somebody_says_so() {
    let mut world = World::live().await;
    world.policy(&[("strategy", "canary"), ("steps", "10,50"), ("pause", "60s")]).await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.look().await;
    world.test.clock.advance(Duration::from_secs(60));
    world.look().await;
    world.look().await;
    world.gets(world.parts(50, 50)).await;
    let actor = world.test.owner_of(&world.app);
    let controller = world.test.controller.clone();
    controller.abort_rollout(&world.app, &actor, "3").await.expect("aborted");
    world.look().await;
    assert_eq!(world.release(3).await.status, Status::Failed);
    assert_eq!(world.rollout_of(3).await.failure().expect("a failure").cause, "aborted");
    world.look().await;
    assert_eq!((world.route(), world.stay().await), (Some(world.serve(2)), vec!["v2.web up".to_owned()]));
    let again = controller.abort_rollout(&world.app, &actor, "3").await;
    assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
}

#[tokio::test]
async fn a_release_command_that_is_over_is_not_run_again() {
    let mut world = World::live().await;
    world.deploy(&["release", "web"]).await;
    world.look().await;
    world.test.engine.next_run().await.exit(Exit::Code(0));
    world.look_until(async |world| world.runs().await == ["v2.web up", "v3.web starting"]).await;
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!(world.runs().await, ["v2.web up", "v3.web starting"]);
    assert_eq!(engine::Engine::oneoffs(&world.test.engine).await.expect("reachable"), []);
}

/// v3 with another config is live, and nothing of v2 runs any more.
async fn changed() -> World {
    let mut world = World::live().await;
    world.configure("A", "1").await;
    world.look().await;
    world.up(3, "web");
    world.look().await;
    world.look().await;
    world.test.engine.finish_stopping(&world.id(2, "web"));
    world.look().await;
    assert_eq!(world.runs().await, ["v3.web up"]);
    world
}

fn crash_twice(world: &World, version: u64) {
    let id = world.id(version, "web");
    world.test.engine.crash(&id, 1, Exit::Code(7));
    world.test.engine.retry(&id, 1);
    world.test.engine.crash(&id, 1, Exit::Code(7));
}

#[tokio::test]
async fn a_release_that_crashes_soon_after_it_was_live_is_left_once() {
    let mut world = changed().await;
    crash_twice(&world, 3);
    world.look().await;
    let back = world.release(4).await;
    assert_eq!((back.description.as_str(), back.status), ("Return to v2", Status::Pending));
    assert!(back.reason.expect("a reason").contains("exited with code 7"));
    let left = world.rollout_of(3).await;
    assert_eq!((left.state, left.returned_by), (RolloutState::Returned, Some(4)));
    let mut world = world.restart().await;
    world.look().await;
    world.up(4, "web");
    world.look().await;
    assert!(world.release(4).await.current);
    let config = world.test.controller.store.config(world.app.id).await.expect("readable");
    assert_eq!(serde_json::to_string(&config).expect("JSON"), "{}", "as v2 was");
    world.look().await;
    crash_twice(&world, 4);
    for _ in 0..3 {
        world.look().await;
    }
    assert_eq!(world.test.controller.store.newest_version(world.app.id).await.expect("readable"), 4, "no loop");
}

#[tokio::test]
async fn a_release_is_not_left_while_a_newer_one_is_on_its_way() {
    let mut world = changed().await;
    world.deploy(&["web"]).await;
    crash_twice(&world, 3);
    world.look().await;
    assert_eq!(world.test.controller.store.newest_version(world.app.id).await.expect("readable"), 4, "the new one");
    assert_eq!(world.rollout_of(3).await.state, RolloutState::Watching);
    assert_eq!(world.release(4).await.reason, None, "it is what somebody deployed");
}

#[tokio::test]
async fn whoever_goes_on_while_an_app_is_taken_back_does_it_once() {
    let world = changed().await;
    let release = world.release(3).await;
    let store = world.test.controller.store.clone();
    store.leave_rollout(release.id, r#"{"cause": "crashed", "sentence": "It crashed."}"#).await.expect("noted");
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!(world.release(4).await.reason.as_deref(), Some("It crashed."));
    // As if nobody had got to note that.
    store.leave_rollout(release.id, "").await.expect("noted");
    let mut world = world.restart().await;
    world.look().await;
    assert_eq!(store.newest_version(world.app.id).await.expect("readable"), 4);
}

#[tokio::test]
async fn behind_its_watch_a_release_stays() {
    let mut world = changed().await;
    world.test.clock.advance(Duration::from_secs(300));
    world.look().await;
    assert_eq!(world.rollout_of(3).await.state, RolloutState::Succeeded);
    crash_twice(&world, 3);
    world.look().await;
    assert_eq!(world.test.controller.store.newest_version(world.app.id).await.expect("readable"), 3);
}

#[tokio::test]
async fn a_canary_that_answers_with_errors_fails() {
    let mut world = World::live().await;
    world.policy(&[("strategy", "canary"), ("steps", "10"), ("pause", "manual")]).await;
    world.router.counted(&world.test, &[(world.id(2, "web"), [5000, 0, 2500])]).await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.look().await;
    world
        .router
        .counted(&world.test, &[(world.id(2, "web"), [6000, 0, 2500]), (world.id(3, "web"), [100, 3, 2])])
        .await;
    world.look().await;
    assert_eq!(world.release(3).await.status, Status::Pending, "what went wrong before it began does not count");
    world.router.counted(&world.test, &[(world.id(3, "web"), [100, 3, 3])]).await;
    world.router.counted(&world.test, &[(world.id(3, "web"), [101, 3, 3])]).await;
    world.look().await;
    let failed = world.release(3).await;
    assert_eq!(
        (failed.status, world.rollout_of(3).await.failure().expect("a failure").cause.as_str()),
        (Status::Failed, "errors")
    );
    assert!(failed.failure.expect("a reason").contains("5.9 % of 101 requests went wrong, against 0.0 % of 1000"));
    world.look().await;
    world.gets(world.serve(2)).await;
}

#[tokio::test]
async fn a_deploy_says_how_many_requests_it_saw_and_lost() {
    let mut world = World::live().await;
    let (old, new) = (world.id(2, "web"), world.id(3, "web"));
    world.router.counted(&world.test, &[(old.clone(), [1000, 7, 0])]).await;
    world.deploy(&["web"]).await;
    world.look().await;
    world.up(3, "web");
    world.router.counted(&world.test, &[(old.clone(), [1200, 7, 0])]).await;
    world.look().await;
    let tally = async |world: &World| {
        let rollout = world.rollout_of(3).await;
        let tally = world.test.controller.rollout_traffic(&rollout).await.expect("readable");
        (tally.requests, tally.lost)
    };
    assert_eq!(tally(&world).await, (200, 0));
    world.look().await;
    world.router.counted(&world.test, &[(old.clone(), [1210, 8, 0]), (new.clone(), [40, 0, 0])]).await;
    assert_eq!(tally(&world).await, (250, 1), "the old one still has some");
    world.test.engine.finish_stopping(&old);
    world.look().await;
    world.router.counted(&world.test, &[(new, [5000, 3, 0])]).await;
    world.look().await;
    assert_eq!(tally(&world).await, (250, 1), "what comes later is no part of the deploy");
}

#[tokio::test]
async fn a_release_command_has_the_size_and_the_time_that_its_app_gives_it() {
    let mut world = World::live().await;
    world.policy(&[("release_timeout", "90s")]).await;
    world.deploy(&["release", "web"]).await;
    let larger = Some("standard-2x".to_owned());
    let request = ScaleRequest { process_type: "release".to_owned(), quantity: None, size: larger };
    let actor = world.test.owner_of(&world.app);
    world.test.controller.scale(&world.app, &actor, &[request]).await.expect("resized");
    world.look().await;
    let phase = world.test.engine.next_run().await;
    let limits = (phase.oneoff.time_limit, phase.oneoff.container.limits.memory_bytes);
    assert_eq!(limits, (Duration::from_secs(90), 1024 << 20));
}
