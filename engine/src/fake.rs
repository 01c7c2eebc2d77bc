//! An engine that runs nothing: a deterministic world in memory, moved by the test that holds it.
//!
//! ```
//! # use std::sync::Arc;
//! # use engine::fake::FakeEngine;
//! # use model::clock::SystemClock;
//! let manual = FakeEngine::new(Arc::new(SystemClock)); // instances start and stop when the test says so
//! let prompt = FakeEngine::prompt(Arc::new(SystemClock)); // instances are up, and gone, at once
//! ```

mod execs;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
pub use execs::{FakeExec, Inside};
use futures::StreamExt;
use futures::stream::BoxStream;
use model::{AppId, Clock, Egress, Exit};
use tokio::sync::{mpsc, oneshot, watch};
use world::World;

use crate::{
    Archive, Capacity, Change, Changes, Demand, Ended, Engine, EngineError, Exec, Input, Instance, InstanceState, Link,
    Need, OneOff, OneOffId, ProbeReport, RunningOneOff, Stat, VolumeStatus, Workload, WorkloadId, WorkloadStatus,
    check_volume_name,
};

/// What this engine is able to do of what not every one is.
const ABLE: &[Need] = &[
    Need::HttpChecks,
    Need::CommandChecks,
    Need::Readiness,
    Need::Liveness,
    Need::DiskLimit,
    Need::FileLimit,
    Need::Sleep,
];

/// The pause before a crashed instance is due again; in this world it starts only when [`FakeEngine::retry`] says so.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Answers a one-off with its whole output and how it ends; `None` leaves it to [`FakeEngine::next_run`].
type Answer = Box<dyn Fn(&OneOff) -> Option<(Bytes, Exit)> + Send>;

/// The engine. Clones share one world.
#[derive(Clone)]
pub struct FakeEngine {
    world: Arc<Mutex<World>>,
    changes: Changes,
    started: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    prompt: bool,
}

struct Running {
    app: AppId,
    demand: Demand,
    has_log: bool,
    exit: oneshot::Sender<Exit>,
    volumes: Vec<String>,
}

/// A one-off that waits for the test to play its process.
#[derive(Debug)]
pub struct FakeRun {
    /// What was asked for.
    pub oneoff: OneOff,
    /// What the caller sends.
    pub input: mpsc::Receiver<Input>,
    /// The process's output.
    pub output: mpsc::Sender<Bytes>,
    engine_exit: ExitSwitch,
}

impl FakeRun {
    /// Ends the process, and its output with it.
    pub fn exit(self, exit: Exit) {
        drop(self.output);
        (self.engine_exit.0)(exit);
    }
}

struct ExitSwitch(Box<dyn FnOnce(Exit) + Send>);

impl std::fmt::Debug for ExitSwitch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExitSwitch")
    }
}

impl FakeEngine {
    /// A world that moves only when the test moves it.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            world: Arc::new(Mutex::new(World::new())),
            changes: Changes::default(),
            started: watch::Sender::new(0),
            clock,
            prompt: false,
        }
    }

    /// A world in which instances are up as soon as they are wanted and gone as soon as they are not.
    pub fn prompt(clock: Arc<dyn Clock>) -> Self {
        Self { prompt: true, ..Self::new(clock) }
    }

    /// Takes the engine out of reach (`false`): every call fails and streams of changes end. Instances live on.
    pub fn set_reachable(&self, reachable: bool) {
        self.lock().reachable = reachable;
        self.changes.tell(Change::All);
    }

    /// Makes every [`Engine::apply`] and [`Engine::run`] fail with [`EngineError::Exhausted`] in these words; `None` ends it.
    pub fn refuse(&self, reason: Option<&str>) {
        self.lock().refusal = reason.map(str::to_owned);
    }

    /// Says what there is, from now on.
    pub fn set_capacity(&self, memory: u64, disk: u64, containers: u64) {
        self.lock().has = (memory, disk, containers);
    }

    /// The workloads that are desired now, by id.
    pub fn applied(&self) -> Vec<Workload> {
        let world = self.lock();
        world.workloads.values().filter(|held| !held.deleting).map(|held| held.workload.clone()).collect()
    }

    /// The volumes that exist, by name.
    pub fn volumes(&self) -> Vec<String> {
        self.lock().volumes.iter().cloned().collect()
    }

    /// Makes a starting instance healthy, `number` counting from 1. What does not exist is left alone, here and below.
    pub fn make_up(&self, workload: &WorkloadId, number: u32) {
        let now = self.clock.now();
        self.change(workload, number, |instance, _| {
            instance.state = InstanceState::Up;
            instance.since = now;
        });
    }

    /// Lets each instance of a workload have used so much time of processors by now, and so much memory.
    pub fn set_used(&self, workload: &WorkloadId, cpu: Duration, memory_bytes: u64) {
        if let Some(held) = self.lock().workloads.get_mut(workload) {
            held.used = (cpu, memory_bytes);
        }
    }

    /// Puts a workload to sleep, as if nobody had used it for long.
    pub fn put_to_sleep(&self, workload: &WorkloadId) {
        let now = self.clock.now();
        if let Some(held) = self.lock().workloads.get_mut(workload) {
            held.asleep = held.workload.idle.map(|_| now);
        }
        self.settle(workload);
    }

    /// Wakes a workload, as if a request waited for it.
    pub fn wake(&self, workload: &WorkloadId) {
        if let Some(held) = self.lock().workloads.get_mut(workload) {
            held.asleep = None;
        }
        self.settle(workload);
    }

    /// Lets the readiness checks of an instance pass, or fail.
    pub fn set_ready(&self, workload: &WorkloadId, number: u32, ready: bool) {
        self.change(workload, number, |instance, _| instance.ready = ready);
    }

    /// Makes all starting instances of a workload healthy.
    pub fn make_all_up(&self, workload: &WorkloadId) {
        let starting: Vec<u32> = self.lock().workloads.get(workload).map_or_else(Vec::new, |held| {
            let starting = |instance: &&Instance| instance.state == InstanceState::Starting;
            held.instances.iter().filter(starting).map(|instance| instance.dyno.number).collect()
        });
        for number in starting {
            self.make_up(workload, number);
        }
    }

    /// Ends an instance by itself; it waits for [`FakeEngine::retry`].
    pub fn crash(&self, workload: &WorkloadId, number: u32, exit: Exit) {
        let now = self.clock.now();
        self.change(workload, number, |instance, _| {
            instance.state = InstanceState::Crashed { retry_at: now.after(RETRY_PAUSE) };
            instance.since = now;
            instance.crashes += 1;
            instance.last_exit = Some(exit);
        });
    }

    /// Fails the probe of a starting instance for good (R10): it crashes, with `report`.
    pub fn fail_boot(&self, workload: &WorkloadId, number: u32, report: ProbeReport) {
        self.crash(workload, number, Exit::Signal(9));
        self.change(workload, number, |instance, _| instance.probe = Some(report));
    }

    /// Ends an instance by itself once too often: it stays down.
    pub fn give_up(&self, workload: &WorkloadId, number: u32, exit: Exit) {
        self.crash(workload, number, exit);
        self.change(workload, number, |instance, _| instance.state = InstanceState::GaveUp);
    }

    /// Starts a crashed instance again, as a new one.
    pub fn retry(&self, workload: &WorkloadId, number: u32) {
        let (id, now) = (self.lock().new_id(), self.clock.now());
        self.change(workload, number, |instance, _| {
            instance.id = id;
            instance.state = InstanceState::Starting;
            instance.since = now;
            instance.restarts += 1;
        });
    }

    /// Lets all stopping instances of a workload end; with the last one a deleted workload is gone, and what waited for its
    /// address or its volumes starts.
    pub fn finish_stopping(&self, workload: &WorkloadId) {
        if let Some(held) = self.lock().workloads.get_mut(workload) {
            held.instances.retain(|instance| instance.state != InstanceState::Stopping);
        }
        self.settle(workload);
    }

    /// Answers the one-offs that start from now on, without a test having to play each.
    pub fn answer_runs(&self, answer: impl Fn(&OneOff) -> Option<(Bytes, Exit)> + Send + 'static) {
        self.lock().answer = Some(Box::new(answer));
    }

    /// The next one-off that nobody answered; waits until there is one.
    pub async fn next_run(&self) -> FakeRun {
        let mut started = self.started.subscribe();
        loop {
            if let Some(run) = self.lock().runs.pop_front() {
                return run;
            }
            // The sender lives in `self`, so this cannot fail while we wait.
            let _ = started.changed().await;
        }
    }

    fn change(&self, workload: &WorkloadId, number: u32, change: impl FnOnce(&mut Instance, &Workload)) {
        let app = {
            let mut world = self.lock();
            let Some(held) = world.workloads.get_mut(workload) else { return };
            let live =
                |instance: &&mut Instance| instance.dyno.number == number && instance.state != InstanceState::Stopping;
            let Some(instance) = held.instances.iter_mut().find(live) else { return };
            change(instance, &held.workload);
            held.workload.app
        };
        self.changes.tell(Change::App(app));
    }

    /// Brings the instances of a workload to its quantity.
    fn settle(&self, workload: &WorkloadId) {
        let mut world = self.lock();
        let Some(held) = world.workloads.get(workload) else { return };
        let (app, is_exclusive) = (held.workload.app, held.workload.is_exclusive());
        world.settle(workload, self.prompt, self.clock.now());
        drop(world);
        // With one that is exclusive, another app's may have started.
        self.changes.tell(if is_exclusive { Change::All } else { Change::App(app) });
    }

    fn reach(&self) -> Result<MutexGuard<'_, World>, EngineError> {
        let world = self.lock();
        if world.reachable {
            Ok(world)
        } else {
            Err(EngineError::Unreachable { engine: "the fake engine", source: "taken out of reach by the test".into() })
        }
    }

    fn accept(&self) -> Result<MutexGuard<'_, World>, EngineError> {
        let world = self.reach()?;
        match &world.refusal {
            Some(reason) => Err(EngineError::Exhausted(reason.clone())),
            None => Ok(world),
        }
    }

    fn end_oneoff(&self, id: &OneOffId, exit: Exit) {
        let running = {
            let mut world = self.lock();
            let Some(running) = world.oneoffs.remove(id) else { return };
            if running.has_log {
                let ended = Ended { id: id.clone(), app: running.app, exit, at: self.clock.now() };
                world.ended.insert(id.clone(), ended);
            }
            running
        };
        // The caller may have gone; the process ends all the same.
        let _ = running.exit.send(exit);
        self.changes.tell(Change::App(running.app));
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Engine for FakeEngine {
    async fn apply(&self, workload: Workload) -> Result<(), EngineError> {
        workload.check(ABLE)?;
        let id = workload.id.clone();
        {
            let mut world = self.accept()?;
            match world.workloads.get_mut(&id) {
                Some(held) if !held.deleting => held.workload = held.workload.changed_to(workload)?,
                _ => world.add(workload),
            }
        }
        self.settle(&id);
        Ok(())
    }

    async fn scale(&self, workload: &WorkloadId, quantity: u32) -> Result<(), EngineError> {
        if let Some(held) = self.accept()?.workloads.get_mut(workload).filter(|held| !held.deleting) {
            held.workload = held.workload.scaled_to(quantity, ABLE)?;
        }
        self.settle(workload);
        Ok(())
    }

    async fn set_idle(&self, workload: &WorkloadId, idle: Option<Duration>) -> Result<(), EngineError> {
        if let Some(held) = self.accept()?.workloads.get_mut(workload).filter(|held| !held.deleting) {
            held.workload = held.workload.idle_after(idle, ABLE)?;
            held.asleep = held.asleep.filter(|_| idle.is_some());
        }
        self.settle(workload);
        Ok(())
    }

    async fn delete(&self, workload: &WorkloadId) -> Result<(), EngineError> {
        if let Some(held) = self.reach()?.workloads.get_mut(workload) {
            held.deleting = true;
        }
        self.settle(workload);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<WorkloadStatus>, EngineError> {
        Ok(self.reach()?.list(None))
    }

    async fn list_of(&self, apps: &[AppId]) -> Result<Vec<WorkloadStatus>, EngineError> {
        Ok(self.reach()?.list(Some(apps)))
    }

    async fn stats(&self, apps: &[AppId]) -> Result<Vec<Stat>, EngineError> {
        Ok(self.reach()?.stats(apps))
    }

    async fn changes(&self) -> Result<BoxStream<'static, Change>, EngineError> {
        drop(self.reach()?);
        let world = Arc::clone(&self.world);
        let reachable = move || world.lock().unwrap_or_else(PoisonError::into_inner).reachable;
        Ok(self.changes.follow().take_while(move |_| futures::future::ready(reachable())).boxed())
    }

    async fn restart(&self, instance: &str) -> Result<(), EngineError> {
        let found = {
            let mut world = self.reach()?;
            let mut live = world.workloads.values_mut().filter(|held| !held.deleting);
            live.find_map(|held| {
                let old = held.instances.iter_mut().find(|held| held.id == instance)?;
                old.state = InstanceState::Stopping;
                Some(held.workload.id.clone())
            })
        };
        if let Some(workload) = found {
            self.settle(&workload);
        }
        Ok(())
    }

    async fn run(&self, oneoff: OneOff) -> Result<RunningOneOff, EngineError> {
        oneoff.container.check(ABLE)?;
        let (input, input_end) = mpsc::channel(64);
        let (output, output_end) = mpsc::channel(64);
        let (exit, exit_end) = oneshot::channel();
        let id = oneoff.id.clone();
        let answer = {
            let mut world = self.accept()?;
            let volumes: Vec<String> = oneoff.container.volumes().map(str::to_owned).collect();
            world.volumes.extend(volumes.iter().cloned());
            let has_log = oneoff.log.is_some();
            world
                .oneoffs
                .insert(id.clone(), Running { app: oneoff.app, demand: (&oneoff).into(), has_log, exit, volumes });
            world.answer.as_ref().and_then(|answer| answer(&oneoff))
        };
        if let Some((bytes, exit)) = answer {
            // The channel is empty and its receiver is in our hands: there is room.
            let _ = output.try_send(bytes);
            self.end_oneoff(&id, exit);
        } else {
            let engine = self.clone();
            let engine_exit = ExitSwitch(Box::new(move |exit| engine.end_oneoff(&id, exit)));
            self.lock().runs.push_back(FakeRun { oneoff, input: input_end, output, engine_exit });
            self.started.send_modify(|count| *count += 1);
        }
        Ok(RunningOneOff { input, output: output_end, exit: exit_end })
    }

    async fn stop(&self, oneoff: &OneOffId) -> Result<(), EngineError> {
        drop(self.reach()?);
        self.lock().runs.retain(|run| run.oneoff.id != *oneoff);
        self.end_oneoff(oneoff, Exit::Signal(15));
        Ok(())
    }

    async fn ended(&self) -> Result<Vec<Ended>, EngineError> {
        Ok(self.reach()?.ended.values().cloned().collect())
    }

    async fn forget(&self, oneoff: &OneOffId) -> Result<(), EngineError> {
        self.reach()?.ended.remove(oneoff);
        Ok(())
    }

    async fn kill(&self, oneoff: &OneOffId) -> Result<(), EngineError> {
        drop(self.reach()?);
        self.lock().runs.retain(|run| run.oneoff.id != *oneoff);
        self.end_oneoff(oneoff, Exit::Signal(9));
        Ok(())
    }

    async fn oneoffs(&self) -> Result<Vec<OneOffId>, EngineError> {
        Ok(self.reach()?.oneoffs.keys().cloned().collect())
    }

    async fn exec(&self, instance: &str, exec: Exec) -> Result<RunningOneOff, EngineError> {
        self.join(instance, Inside::Exec(exec))
    }

    async fn connect(&self, instance: &str, port: u16) -> Result<RunningOneOff, EngineError> {
        self.join(instance, Inside::Port(port))
    }

    async fn files(&self, instance: &str, path: &str) -> Result<Archive, EngineError> {
        self.read_file(instance, path)
    }

    async fn put_files(&self, instance: &str, path: &str, archive: Archive) -> Result<(), EngineError> {
        self.write_file(instance, path, archive).await
    }

    async fn set_egress(&self, app: AppId, policy: Option<Egress>) -> Result<(), EngineError> {
        let mut world = self.reach()?;
        match policy {
            Some(policy) => drop(world.egress.insert(app, policy)),
            None => drop(world.egress.remove(&app)),
        }
        Ok(())
    }

    async fn egress(&self) -> Result<BTreeMap<AppId, Egress>, EngineError> {
        Ok(self.reach()?.egress.clone())
    }

    async fn capacity(&self) -> Result<Capacity, EngineError> {
        Ok(self.reach()?.capacity())
    }

    async fn make_volume(&self, name: &str, bytes: u64) -> Result<(), EngineError> {
        check_volume_name(name)?;
        let mut world = self.reach()?;
        if world.volumes.insert(name.to_owned()) {
            world.sizes.insert(name.to_owned(), bytes);
        }
        match world.sizes.get(name) {
            Some(before) if *before > bytes => Err(EngineError::Failed(format!("volume {name} cannot shrink"))),
            Some(_) => {
                world.sizes.insert(name.to_owned(), bytes);
                Ok(())
            }
            None => Err(EngineError::Failed(format!("volume {name} has no size"))),
        }
    }

    async fn volumes(&self) -> Result<Vec<VolumeStatus>, EngineError> {
        let world = self.reach()?;
        let status = |name: &String| VolumeStatus { name: name.clone(), used: world.sizes.get(name).map(|_| 0) };
        Ok(world.volumes.iter().map(status).collect())
    }

    async fn copy_volume(&self, from: &str, to: &str) -> Result<(), EngineError> {
        check_volume_name(from).and(check_volume_name(to))?;
        let mut world = self.reach()?;
        if let Some(user) = world.user_of(to) {
            return Err(EngineError::InUse { volume: to.to_owned(), user });
        }
        let none = || EngineError::Failed(format!("volume {from} has no size"));
        let bytes = *world.sizes.get(from).ok_or_else(none)?;
        world.volumes.insert(to.to_owned());
        world.sizes.insert(to.to_owned(), bytes);
        Ok(())
    }

    async fn volume_files(&self, name: &str) -> Result<Archive, EngineError> {
        check_volume_name(name)?;
        let none = || EngineError::Failed(format!("there is no volume {name}"));
        let found = self.reach()?.volumes.contains(name);
        found.then(|| futures::stream::iter([Ok(Bytes::from(name.to_owned()))]).boxed()).ok_or_else(none)
    }

    async fn set_links(&self, links: BTreeSet<Link>) -> Result<(), EngineError> {
        self.reach()?.links = links;
        Ok(())
    }

    async fn links(&self) -> Result<BTreeSet<Link>, EngineError> {
        Ok(self.reach()?.links.clone())
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        check_volume_name(name)?;
        let mut world = self.reach()?;
        if let Some(user) = world.user_of(name) {
            return Err(EngineError::InUse { volume: name.to_owned(), user });
        }
        world.volumes.remove(name);
        world.sizes.remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {

    use model::AppId;
    use model::clock::SystemClock;

    use super::*;
    use crate::conformance::{Subject, on_paper};
    use crate::{Container, DRAIN_LIMIT, Health, Limits, Mount, Restart, RootFs, Service};

    fn container() -> Container {
        Container {
            rootfs: RootFs::Layers(Vec::new()),
            args: vec!["true".to_owned()],
            env: BTreeMap::new(),
            working_dir: "/".to_owned(),
            uid: 100_000,
            nested: false,
            limits: Limits::new(1 << 20, 1000, 16),
            mounts: Vec::new(),
        }
    }

    fn app() -> AppId {
        "00000000-0000-4000-8000-000000000001".parse().expect("an id")
    }

    fn web(quantity: u32) -> Workload {
        Workload {
            id: WorkloadId("app.v1.web".to_owned()),
            app: app(),
            release: 1,
            process_type: "web".parse().expect("a process type"),
            quantity,
            container: container(),
            health: Health::listening(5000, Duration::from_secs(60)),
            restart: Restart::default(),
            drain: DRAIN_LIMIT,
            stop_grace: Duration::from_secs(30),
            idle: None,
            larger: None,
            service: None,
        }
    }

    fn database(version: u64) -> Workload {
        let data = Mount::Volume { name: "data".to_owned(), target: "/data".into() };
        Workload {
            id: WorkloadId(format!("addon.v{version}.postgres")),
            release: version,
            process_type: "postgres".parse().expect("a process type"),
            container: Container { mounts: vec![data], ..container() },
            service: Some(Service { port: 5432, clients: BTreeSet::new() }),
            ..web(1)
        }
    }

    #[tokio::test]
    async fn it_is_an_engine_as_far_as_nothing_runs() {
        let engine = Arc::new(FakeEngine::prompt(Arc::new(SystemClock)));
        on_paper(Subject { engine, container: container(), scratch: "/nowhere".into() }).await;
    }

    async fn states(engine: &FakeEngine) -> Vec<(String, InstanceState)> {
        let list = engine.list().await.expect("reachable");
        list.into_iter().flat_map(|status| status.instances).map(|i| (i.dyno.to_string(), i.state)).collect()
    }

    #[tokio::test]
    async fn a_test_moves_instances_through_their_life() {
        let engine = FakeEngine::new(Arc::new(SystemClock));
        let mut changes = engine.changes().await.expect("reachable");
        let web = web(2);
        engine.apply(web.clone()).await.expect("applied");
        changes.next().await.expect("a change");
        engine.make_up(&web.id, 1);
        engine.crash(&web.id, 2, Exit::Code(1));
        let list = engine.list().await.expect("reachable");
        assert_eq!(list[0].instances[0].state, InstanceState::Up);
        assert!(matches!(list[0].instances[1].state, InstanceState::Crashed { .. }));
        assert_eq!((list[0].instances[1].crashes, list[0].instances[1].last_exit), (1, Some(Exit::Code(1))));

        engine.retry(&web.id, 2);
        engine.apply(Workload { quantity: 1, ..web.clone() }).await.expect("scaled");
        let up_and_stopping = [("web.1".to_owned(), InstanceState::Up), ("web.2".to_owned(), InstanceState::Stopping)];
        assert_eq!(states(&engine).await, up_and_stopping);
        engine.delete(&web.id).await.expect("deleted");
        assert!(engine.list().await.expect("reachable")[0].deleting);
        engine.finish_stopping(&web.id);
        assert!(engine.list().await.expect("reachable").is_empty());

        let other = Workload { release: 2, ..web.clone() };
        engine.apply(web).await.expect("applied");
        assert!(matches!(engine.apply(other).await, Err(EngineError::Immutable(_))));
        engine.set_reachable(false);
        assert!(matches!(engine.list().await, Err(EngineError::Unreachable { .. })));
        while changes.next().await.is_some() {}
    }

    #[tokio::test]
    async fn an_instance_is_healthy_once_it_is_up_and_ready() {
        let engine = FakeEngine::new(Arc::new(SystemClock));
        let mut web = web(1);
        web.health.readiness = web.health.startup.clone();
        engine.apply(web.clone()).await.expect("applied");
        let is_healthy = async || engine.list().await.expect("reachable")[0].instances[0].is_healthy();
        engine.set_ready(&web.id, 1, false);
        engine.make_up(&web.id, 1);
        assert!(!is_healthy().await);
        engine.set_ready(&web.id, 1, true);
        assert!(is_healthy().await);
    }

    #[tokio::test]
    async fn a_service_keeps_its_address_and_has_one_instance_at_a_time() {
        let engine = FakeEngine::new(Arc::new(SystemClock));
        let (first, second) = (database(1), database(2));
        engine.apply(first.clone()).await.expect("applied");
        engine.make_up(&first.id, 1);
        let address = engine.list().await.expect("reachable")[0].address.clone();
        assert_eq!(address.as_deref(), Some("10.210.240.1"));

        let old = engine.list().await.expect("reachable")[0].instances[0].id.clone();
        engine.restart(&old).await.expect("restarted");
        assert_eq!(states(&engine).await, [("postgres.1".to_owned(), InstanceState::Stopping)]);
        engine.finish_stopping(&first.id);
        assert_eq!(states(&engine).await, [("postgres.1".to_owned(), InstanceState::Starting)]);

        engine.apply(second.clone()).await.expect("applied");
        assert_eq!(states(&engine).await.len(), 1, "the second waits for the first");
        engine.delete(&first.id).await.expect("deleted");
        engine.finish_stopping(&first.id);
        let list = engine.list().await.expect("reachable");
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].instances.len(), &list[0].address), (1, &address));

        let clients = BTreeSet::from([app()]);
        let attached = Workload { service: Some(Service { port: 5432, clients }), ..second.clone() };
        engine.apply(attached.clone()).await.expect("clients may change");
        assert_eq!(engine.applied(), [attached]);
        let moved = Workload { service: Some(Service { port: 1, clients: BTreeSet::new() }), ..second.clone() };
        assert!(matches!(engine.apply(moved).await, Err(EngineError::Immutable(_))));
        assert!(engine.apply(Workload { quantity: 2, ..second }).await.is_err(), "one at most");
    }

    #[tokio::test]
    async fn a_volume_goes_once_nothing_mounts_it() {
        let engine = FakeEngine::prompt(Arc::new(SystemClock));
        let workload = Workload { quantity: 0, ..database(1) };
        engine.apply(database(1)).await.expect("applied");
        engine.apply(workload.clone()).await.expect("stopped");
        let refused = engine.remove_volume("data").await.expect_err("in use");
        assert_eq!(refused.to_string(), "volume data is in use by workload addon.v1.postgres");
        engine.delete(&workload.id).await.expect("deleted");
        assert_eq!(engine.volumes(), ["data"]);
        engine.remove_volume("data").await.expect("removed");
        engine.remove_volume("data").await.expect("removing again is no error");
        assert!(engine.volumes().is_empty());
        assert!(engine.remove_volume("../data").await.is_err());
    }

    #[tokio::test]
    async fn a_test_plays_the_process_of_a_one_off() {
        let engine = FakeEngine::prompt(Arc::new(SystemClock));
        let id = OneOffId("run-1".to_owned());
        let oneoff = OneOff {
            id: id.clone(),
            app: app(),
            container: container(),
            tty: None,
            time_limit: Duration::from_secs(60),
            stop_grace: Duration::ZERO,
            is_build: false,
            log: None,
        };
        let mut running = engine.run(oneoff.clone()).await.expect("started");
        let run = engine.next_run().await;
        run.output.send(Bytes::from_static(b"hello")).await.expect("a reader");
        assert_eq!(engine.oneoffs().await.expect("reachable"), [id]);
        run.exit(Exit::Code(3));
        assert_eq!(running.output.recv().await.as_deref(), Some(b"hello".as_slice()));
        assert_eq!(running.output.recv().await, None);
        assert_eq!(running.exit.await, Ok(Exit::Code(3)));

        engine.answer_runs(|_| Some((Bytes::from_static(b"ok"), Exit::Code(0))));
        let mut running = engine.run(oneoff).await.expect("started");
        assert_eq!(running.output.recv().await.as_deref(), Some(b"ok".as_slice()));
        assert_eq!(running.exit.await, Ok(Exit::Code(0)));
    }
}
