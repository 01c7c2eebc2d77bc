//! Keeps one number of a workload alive: one life after another until it is told to stop.

mod checks;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use engine::{Instance, InstanceState, ProbeReport, Workload};
use model::{DynoName, Exit};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::container::{self, Followed, NewContainer};
use crate::containerd::Stdio;
use crate::error::Fault;
use crate::files::{Folder, Healthy, Record, Running, Wish};
use crate::health::{LastFailure, Memory};
use crate::host::Host;
use crate::moment::Moment;
use crate::past::{self, Past};
use crate::tenants::Tenant;
use checks::Unfit;

/// `HOST_NAME_MAX` of sethostname(2).
const LONGEST_HOSTNAME: usize = 64;
/// How long the last lines of a dead instance are waited for.
const LAST_LINES: Duration = Duration::from_secs(5);
/// How long routers are waited for, that they send no more to an instance that does not answer anyway.
const LET_GO: Duration = Duration::from_secs(2);

/// One number of a workload, and how to reach its keeper.
pub(crate) struct Slot {
    pub(crate) host: Arc<Host>,
    pub(crate) key: u64,
    pub(crate) wish: Arc<Wish>,
    pub(crate) number: u32,
    /// Cancelled when the number is no longer wanted.
    pub(crate) stop: CancellationToken,
    /// The instance that this one shall replace, to be stopped once this one is up or has failed.
    pub(crate) replaces: Option<CancellationToken>,
}

/// How a life ended.
enum Ended {
    /// It was told to.
    Stopped,
    Crashed(Crash),
}

struct Crash {
    exit: Exit,
    report: Option<ProbeReport>,
    lived: Duration,
}

/// A container whose process runs.
struct Life {
    id: String,
    running: Running,
    /// When it began, by a clock that nobody sets.
    begun: Instant,
    log: Followed,
    /// What its checks saw.
    failure: LastFailure,
    /// Who was killed for memory.
    memory: Memory,
}

impl Life {
    /// How long it lasts.
    fn age(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// What an instance is told before it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// Routers get time for the requests that it has.
    Drain,
    /// It does not do what it should: routers only send it no more.
    LetGo,
}

/// Lives until told to stop. With `adopted`, the first life runs already, as the instance that is known of the slot.
pub(crate) async fn keep_alive(slot: Slot, mut past: Past, adopted: bool) {
    let mut adopted = adopted;
    if !adopted && past.waits() && !slot.wait(&mut past).await {
        return;
    }
    loop {
        let ended = slot.live_on(&mut past, std::mem::take(&mut adopted)).await;
        slot.release_predecessor();
        let Ended::Crashed(crash) = ended else { return };
        let wish = slot.wished();
        let workload = &wish.workload;
        past.crashed((crash.exit, crash.report), crash.lived, &workload.restart);
        past.oom_limit = (crash.exit == Exit::OutOfMemory).then_some(workload.container.limits.memory_bytes);
        slot.keep(&past);
        if !slot.wait(&mut past).await {
            return;
        }
    }
}

impl Slot {
    /// Waits for the next life and makes ready for it; false if there will be none.
    async fn wait(&self, past: &mut Past) -> bool {
        let pause = past.pause(&self.wished().workload.restart);
        self.update(|instance| {
            instance.state = Past::state(pause, self.host.now());
            past.show(instance);
        });
        let Some(pause) = pause else {
            let crashes = past.crashes;
            self.say(&format!("Stays down after {crashes} crashes in a row. Restart it once it is mended."));
            self.stop.cancelled().await;
            return false;
        };
        tokio::select! {
            () = self.stop.cancelled() => return false,
            () = sleep(pause) => {}
        }
        past.restarts = past.restarts.saturating_add(1);
        past.waits_since = None;
        self.keep(past);
        let id = self.host.new_id();
        self.update(|instance| {
            instance.id = id;
            instance.state = InstanceState::Starting;
            instance.address = None;
            past.show(instance);
        });
        self.say("State changed from crashed to starting");
        true
    }

    /// One life. If it lasts, the crashes before it are over.
    async fn live_on(&self, past: &mut Past, adopted: bool) -> Ended {
        let mut life = pin!(self.live(adopted));
        if past.crashes > 0 {
            tokio::select! {
                ended = &mut life => return ended,
                () = sleep(self.wished().workload.restart.stable) => {}
            }
            past.crashes = 0;
            self.keep(past);
            self.update(|instance| past.show(instance));
        }
        life.await
    }

    /// Makes the past durable. Without it another life of this role would only begin to count anew.
    fn keep(&self, past: &Past) {
        if let Err(fault) = past::save(&self.host.settings.pasts(), &self.whose(), past) {
            tracing::warn!(workload.id = %self.wish.workload.id, error = %fault, "crashes cannot be noted");
        }
    }

    fn whose(&self) -> past::Number {
        (self.wish.workload.id.clone(), self.number)
    }

    async fn live(&self, adopted: bool) -> Ended {
        let life = if adopted { self.resume() } else { self.begin().await };
        match life {
            Ok(Some(life)) => self.watch(life).await,
            Ok(None) => Ended::Stopped,
            Err(fault) => {
                tracing::warn!(workload.id = %self.wished().workload.id, error = %fault, "an instance did not start");
                self.say(&format!("Process could not be started: {fault}"));
                let report = ProbeReport::not_started(&fault.to_string());
                Ended::Crashed(Crash { exit: Exit::Lost, report: Some(report), lived: Duration::ZERO })
            }
        }
    }

    /// Makes and starts the container; `None` if it is no longer wanted.
    async fn begin(&self) -> Result<Option<Life>, Fault> {
        let id = self.instance_id();
        loop {
            let record = Record::Instance { wish: Box::new(self.wish.as_ref().clone()), number: self.number };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                () = self.host.tenants.move_in(&id, Tenant::of(&record)) => {}
            }
            let turn = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.host.tenants.move_out(&id);
                    return Ok(None);
                }
                turn = self.host.turn() => turn,
            };
            let fault = match self.try_begin(&id, &record).await {
                Ok(life) => return Ok(Some(life)),
                Err(fault) => fault,
            };
            drop(turn);
            let removed = tokio::spawn(Arc::clone(&self.host).destroy(id.clone()));
            if !matches!(fault, Fault::Unreachable(_)) {
                return Err(fault);
            }
            // Without containerd nothing can be said about the app: no crash, no pause that grows.
            tokio::select! {
                _ = removed => {}
                () = self.stop.cancelled() => return Ok(None),
            }
        }
    }

    async fn try_begin(&self, id: &str, record: &Record) -> Result<Life, Fault> {
        let (host, wish) = (&self.host, self.wished());
        let workload = &wish.workload;
        let container = workload.container_of(self.number);
        let output = host.folder(id).output();
        let new = NewContainer {
            id,
            record,
            container: &container,
            app: workload.app,
            hostname: &hostname(&self.dyno()),
            tty: None,
            stdio: Stdio::File { output },
        };
        host.prepare(&new).await?;
        let running = host.create(new).await?;
        let address = address(workload, &running);
        host.set_process(self.key, running.pid);
        self.update(|instance| instance.address = Some(address));
        let life = self.follow(id, running)?;
        match host.start(id, &life.running).await {
            Ok(()) => Ok(life),
            Err(fault) => {
                life.log.finish().await;
                Err(fault)
            }
        }
    }

    fn resume(&self) -> Result<Option<Life>, Fault> {
        let id = self.instance_id();
        let running = self.host.folder(&id).running();
        let running = running.ok_or_else(|| Fault::Refused("its record is gone".to_owned()))?;
        let life = self.follow(&id, running)?;
        // The wall clock is good enough for what an older platform started.
        let begun = running.begun.and_then(|begun| Moment::now().since(begun));
        let age = begun.unwrap_or_else(|| self.host.now().since(running.started));
        Ok(Some(Life { begun: life.begun.checked_sub(age).unwrap_or(life.begun), ..life }))
    }

    /// Sends the container's output to the app's log.
    fn follow(&self, id: &str, running: Running) -> Result<Life, Fault> {
        let log = self.host.follow(id, self.wished().workload.app, &self.dyno())?;
        let begun = Instant::now();
        let memory = Memory::new(self.host.cgroup(id), self.host.cgroups);
        Ok(Life { id: id.to_owned(), running, begun, log, failure: LastFailure::default(), memory })
    }

    /// From start to end, whoever ends it.
    async fn watch(&self, life: Life) -> Ended {
        let id = life.id.clone();
        let mut ended = pin!(self.host.ended(&id));
        let unfit = tokio::select! {
            status = &mut ended => return self.crashed(life, status).await,
            () = self.stop.cancelled() => None,
            unfit = self.examine(&life) => Some(unfit),
        };
        if let Some(unfit) = unfit {
            return self.put_down(life, unfit, ended).await;
        }
        let status = self.stop(&life, Farewell::Drain, ended).await;
        self.bury(life, status).await;
        Ended::Stopped
    }

    fn up(&self, life: &Life) {
        let folder = self.host.folder(&life.id);
        if !folder.is_healthy() {
            let (now, booted_in) = (self.host.now(), life.age());
            let ready = self.wished().workload.health.readiness.is_empty();
            // First that it is not ready, or the next life of this role would send it requests.
            let noted = if ready { Ok(()) } else { folder.set_ready(false) };
            let healthy = Healthy { since: now, booted_in: Some(booted_in) };
            if let Err(fault) = noted.and_then(|()| folder.set_healthy(healthy)) {
                // The next life would only have to look again.
                tracing::warn!(container.id = %life.id, error = %fault, "health cannot be noted");
            }
            self.say("State changed from starting to up");
            self.update(|instance| {
                (instance.state, instance.since) = (InstanceState::Up, now);
                instance.booted_in = Some(booted_in);
                (instance.ready, instance.probe) = (ready, None);
            });
        }
    }

    async fn crashed(&self, life: Life, status: Option<u32>) -> Ended {
        let before = self.state_name();
        let (lived, report) = (life.age(), life.report());
        self.update(|instance| instance.state = InstanceState::Stopping);
        let exit = self.bury(life, status).await;
        self.say(&format!("State changed from {before} to crashed"));
        Ended::Crashed(Crash { exit, report, lived })
    }

    /// Ends a life that its checks gave up. However it ends, it counts as crashed.
    async fn put_down(&self, life: Life, unfit: Unfit, ended: impl Future<Output = Option<u32>>) -> Ended {
        let before = self.state_name();
        let lived = life.age();
        let report = life.report().map(|report| ProbeReport { purpose: unfit.purpose, fatal: true, ..report });
        self.say(&unfit.words);
        let status = self.stop(&life, Farewell::LetGo, ended).await;
        let exit = self.bury(life, status).await;
        self.say(&format!("State changed from {before} to crashed"));
        Ended::Crashed(Crash { exit, report, lived })
    }

    /// Out of the route table, then SIGTERM, then SIGKILL. Returns how it ended.
    async fn stop(&self, life: &Life, farewell: Farewell, ended: impl Future<Output = Option<u32>>) -> Option<u32> {
        let mut ended = pin!(ended);
        let served = self.state_name() == "up" && self.wished().workload.is_routed();
        let version = self.update(|instance| instance.state = InstanceState::Stopping);
        let let_go = async {
            match farewell {
                Farewell::Drain => {
                    let versions = (version, self.host.rested_in(self.key));
                    self.host.feed.drained_after_rest(&life.id, versions, self.wished().workload.drain).await
                }
                Farewell::LetGo => self.host.feed.served(version, LET_GO).await,
            }
        };
        if served {
            tokio::select! {
                status = &mut ended => return status,
                _ = let_go => {}
            }
        }
        self.say("Stopping all processes with SIGTERM");
        tokio::select! {
            status = &mut ended => return status,
            () = self.host.signal(&life.id, Signal::SIGTERM) => {}
        }
        let grace = self.wished().workload.stop_grace;
        if let Ok(status) = timeout(grace, &mut ended).await {
            return status;
        }
        let seconds = grace.as_secs();
        self.say(&format!(
            "Error R12 (Exit timeout) -> At least one process failed to exit within {seconds} seconds of SIGTERM"
        ));
        self.say("Stopping remaining processes with SIGKILL");
        self.host.signal(&life.id, Signal::SIGKILL).await;
        ended.await
    }

    /// Takes the dead container's last lines and says how it ended; the rest of it goes in the background.
    async fn bury(&self, life: Life, status: Option<u32>) -> Exit {
        let exit = container::exit(status, || life.memory.ended_it());
        let host = Arc::clone(&self.host);
        host.doom(&life.id);
        let (taken, last_lines) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            // Once the task is gone, all its output is in the file.
            host.insist(&life.id, || host.containerd.remove(&life.id)).await;
            life.log.finish().await;
            let _ = taken.send(());
            host.destroy(life.id).await;
        });
        let _ = timeout(LAST_LINES, last_lines).await;
        if exit == Exit::OutOfMemory {
            self.say(&format!("Process ran out of its {}", self.memory_words()));
            self.say("Error R15 (Memory quota vastly exceeded)");
        }
        self.say(&format!("Process exited with status {}", exit.shell_status()));
        exit
    }

    /// How much memory there is, and which size has more.
    fn memory_words(&self) -> String {
        let wish = self.wished();
        let limit = wish.workload.container.limits.memory_bytes >> 20;
        let next = wish.workload.larger.as_ref();
        let next = next.map(|next| format!("; {} has {} MB", next.name, next.memory_bytes >> 20)).unwrap_or_default();
        format!("{limit} MB of memory{next}")
    }

    fn release_predecessor(&self) {
        if let Some(predecessor) = &self.replaces {
            predecessor.cancel();
        }
    }

    /// The wish as it is now. What runs is the same as ever.
    fn wished(&self) -> Arc<Wish> {
        self.host.wish(self.key).unwrap_or_else(|| Arc::clone(&self.wish))
    }

    fn dyno(&self) -> DynoName {
        self.wish.workload.dyno(self.number)
    }

    fn instance_id(&self) -> String {
        self.host.instance(self.key).map(|instance| instance.id).unwrap_or_default()
    }

    fn state_name(&self) -> &'static str {
        match self.host.instance(self.key).map(|instance| instance.state) {
            Some(InstanceState::Up) => "up",
            _ => "starting",
        }
    }

    fn update(&self, change: impl FnOnce(&mut Instance)) -> u64 {
        self.host.update(self.key, change)
    }

    fn say(&self, line: &str) {
        self.host.say(self.wish.workload.app, &self.dyno(), line);
    }
}

/// An instance that runs already, as an earlier life of this role knew it.
pub(crate) fn as_left(folder: &Folder, workload: &Workload, number: u32, (id, running): (String, Running)) -> Instance {
    let healthy = folder.healthy();
    Instance {
        state: if folder.is_healthy() { InstanceState::Up } else { InstanceState::Starting },
        address: Some(address(workload, &running)),
        booted_in: healthy.and_then(|healthy| healthy.booted_in),
        ready: folder.is_ready(),
        ..Instance::new(id, workload.dyno(number), healthy.map_or(running.started, |healthy| healthy.since))
    }
}

/// Requests go to its port; what has none still shows its network's address, with port 0.
fn address(workload: &Workload, running: &Running) -> SocketAddr {
    SocketAddr::from((running.address, workload.health.port.unwrap_or(0)))
}

/// What a dyno is called inside: by its name, of which Linux takes [`LONGEST_HOSTNAME`] bytes. The number is kept.
pub(crate) fn hostname(dyno: &DynoName) -> String {
    let number = format!(".{}", dyno.number);
    let room = LONGEST_HOSTNAME - number.len();
    dyno.process_type.as_str().chars().take(room).collect::<String>() + &number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_process_type_still_has_a_hostname() {
        let dyno = |name: &str| -> DynoName { name.parse().expect("a dyno") };
        assert_eq!(hostname(&dyno("web.1")), "web.1");
        let long = hostname(&dyno(&format!("{}.100", "a".repeat(63))));
        assert_eq!(long, format!("{}.100", "a".repeat(60)));
    }
}
