//! Whole rollouts over an engine that moves when the test says so, seen from the store, the engine and a router.

mod aftercare;
mod phases;
mod ports;
mod releases;
mod room;
mod scale;
mod strategies;
mod volumes;

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
use crate::formation::ScaleRequest;
use crate::releases::RollbackWish;
use crate::sizes::DEFAULT_SIZE;
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
        let release = make_deploy(&self.test.controller.store, &self.app, &image(types)).await;
        self.test.controller.changed.app(self.app.id);
        release
    }

    /// Sets a config var.
    async fn configure(&self, name: &str, value: &str) -> Release {
        let vars = [(name.parse().expect("a name"), Some(value.to_owned()))].into_iter().collect();
        let description = "Set config";
        let change = Change::Config(&vars, &BTreeMap::new());
        let new = NewRelease { app: self.app.id, user: self.app.owner.id, description, reason: None, change };
        let controller = &self.test.controller;
        let release = controller.store.create_release(new, &crate::testing::stamp()).await.expect("a release");
        controller.changed.app(self.app.id);
        release.expect("a change")
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

    /// Lets the rollout do what is due by now, though nobody said that anything changed.
    async fn look_at_the_clock(&mut self) {
        self.rollout.kept_time = None;
        self.look().await;
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
