//! Keeps one number of a workload alive: one life after another until it is told to stop.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use engine::{DRAIN_LIMIT, Instance, InstanceState, Probe, ProbeReport, Workload};
use model::{DynoName, Exit, LogSource, Timestamp};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::container::NewContainer;
use crate::containerd::Stdio;
use crate::error::Fault;
use crate::files::{Folder, Record, Running, Wish};
use crate::host::Host;
use crate::logs;
use crate::probe::{LastFailure, accepts};
use crate::tenants::Tenant;

/// The pause after a first crash; the next is [`SECOND_PAUSE`], and each later one twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const SECOND_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// An instance that was up for this long crashed for a new reason.
const STABLE: Duration = Duration::from_secs(60);
/// How long the last lines of a dead instance are waited for.
const LAST_LINES: Duration = Duration::from_secs(5);

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
    ended: CancellationToken,
    log: tokio::task::JoinHandle<()>,
}

/// Lives until told to stop. With `adopted`, the first life runs already, as the instance that is known of the slot.
pub(crate) async fn keep_alive(slot: Slot, adopted: bool) {
    let mut crashes = 0_u32;
    let mut adopted = adopted;
    loop {
        let ended = slot.live(std::mem::take(&mut adopted)).await;
        slot.release_predecessor();
        let crash = match ended {
            Ended::Stopped => return,
            Ended::Crashed(crash) => crash,
        };
        crashes = if crash.lived >= STABLE { 1 } else { crashes.saturating_add(1) };
        let pause = restart_pause(crashes);
        slot.update(|instance| {
            instance.state = InstanceState::Crashed { retry_at: slot.host.now().after(pause) };
            instance.crashes = crashes;
            instance.last_exit = Some(crash.exit);
            instance.probe = crash.report;
        });
        tokio::select! {
            () = slot.stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        let id = slot.host.new_id();
        slot.update(|instance| {
            instance.id = id;
            instance.state = InstanceState::Starting;
            instance.address = None;
        });
        slot.say("State changed from crashed to starting");
    }
}

impl Slot {
    async fn live(&self, adopted: bool) -> Ended {
        let life = if adopted { self.resume() } else { self.begin().await };
        match life {
            Ok(Some(life)) => self.watch(life).await,
            Ok(None) => Ended::Stopped,
            Err(fault) => {
                tracing::warn!(workload.id = %self.workload().id, error = %fault, "an instance did not start");
                self.say(&format!("Process could not be started: {fault}"));
                let report =
                    ProbeReport { result: format!("not started: {fault}"), listening: vec![], after: Duration::ZERO };
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
            let fault = match self.try_begin(&id, &record).await {
                Ok(life) => return Ok(Some(life)),
                Err(fault) => fault,
            };
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
        let (host, workload) = (&self.host, self.workload());
        let container = workload.container_of(self.number);
        let output = host.folder(id).output();
        let new = NewContainer {
            id,
            record,
            container: &container,
            app: workload.app,
            hostname: &self.dyno().to_string(),
            tty: None,
            stdio: Stdio::File { output },
        };
        host.prepare(&new)?;
        let running = host.create(new).await?;
        let address = address(workload, &running);
        self.update(|instance| instance.address = Some(address));
        let life = self.follow(id, running)?;
        match host.start(id, &life.running).await {
            Ok(()) => Ok(life),
            Err(fault) => {
                life.ended.cancel();
                Err(fault)
            }
        }
    }

    fn resume(&self) -> Result<Option<Life>, Fault> {
        let id = self.instance_id();
        let running = self.host.folder(&id).running();
        let running = running.ok_or_else(|| Fault::Refused("its record is gone".to_owned()))?;
        self.follow(&id, running).map(Some)
    }

    /// Sends the container's output to the app's log.
    fn follow(&self, id: &str, running: Running) -> Result<Life, Fault> {
        let folder = self.host.folder(id);
        let (output, offset) = (folder.output(), folder.offset());
        let ended = CancellationToken::new();
        let reader = self.host.watcher.follow(&output, logs::saved_offset(&offset), ended.clone());
        let reader = reader.map_err(Fault::on("follow", &output))?;
        let (settings, app, source) = (self.host.settings.clone(), self.workload().app, LogSource::app(self.dyno()));
        let log = tokio::spawn(async move {
            logs::forward(reader, &offset, |line| settings.log.write(app, settings.clock.now(), &source, line)).await;
        });
        Ok(Life { id: id.to_owned(), running, ended, log })
    }

    /// From start to end, whoever ends it.
    async fn watch(&self, life: Life) -> Ended {
        let failure = LastFailure::default();
        let id = life.id.clone();
        let mut ended = pin!(self.host.ended(&id));
        let healthy = tokio::select! {
            status = &mut ended => return self.crashed(life, status, &failure).await,
            () = self.stop.cancelled() => None,
            healthy = self.healthy(&life, &failure) => Some(healthy),
        };
        match healthy {
            Some(true) => {
                self.up(&life);
                tokio::select! {
                    status = &mut ended => return self.crashed(life, status, &LastFailure::default()).await,
                    () = self.stop.cancelled() => {}
                }
            }
            Some(false) => return self.boot_timeout(life, &failure).await,
            None => {}
        }
        let status = self.stop(&life, ended).await;
        self.bury(life, status).await;
        Ended::Stopped
    }

    /// True once it is healthy, false when it took too long.
    async fn healthy(&self, life: &Life, failure: &LastFailure) -> bool {
        if self.host.folder(&life.id).is_healthy() {
            return true;
        }
        let age = self.host.now().since(life.running.started);
        match self.workload().probe {
            Probe::Alive { settle } => {
                sleep(settle.saturating_sub(age)).await;
                true
            }
            Probe::Tcp { port, boot_timeout } => {
                let deadline = Instant::now() + boot_timeout.saturating_sub(age);
                accepts(SocketAddr::from((life.running.address, port)), deadline, failure).await
            }
        }
    }

    fn up(&self, life: &Life) {
        let folder = self.host.folder(&life.id);
        if !folder.is_healthy() {
            let now = self.host.now();
            if let Err(fault) = folder.set_healthy(now) {
                // The next life of this role would only have to probe it again.
                tracing::warn!(container.id = %life.id, error = %fault, "health cannot be noted");
            }
            self.say("State changed from starting to up");
            self.update(|instance| {
                (instance.state, instance.since) = (InstanceState::Up, now);
                instance.booted_in = Some(now.since(life.running.started));
                instance.probe = None;
            });
        }
        self.release_predecessor();
    }

    async fn crashed(&self, life: Life, status: Option<u32>, failure: &LastFailure) -> Ended {
        let before = self.state_name();
        let lived = self.host.now().since(life.running.started);
        let report = failure.report(life.running.pid, lived);
        self.update(|instance| instance.state = InstanceState::Stopping);
        let exit = self.bury(life, status).await;
        self.say(&format!("State changed from {before} to crashed"));
        Ended::Crashed(Crash { exit, report, lived })
    }

    async fn boot_timeout(&self, life: Life, failure: &LastFailure) -> Ended {
        let lived = self.host.now().since(life.running.started);
        let report = failure.report(life.running.pid, lived);
        self.update(|instance| instance.state = InstanceState::Stopping);
        let (limit, kind) = match self.workload().probe {
            Probe::Tcp { boot_timeout, .. } => (boot_timeout.as_secs(), &self.workload().process_type),
            Probe::Alive { settle } => (settle.as_secs(), &self.workload().process_type),
        };
        self.say(&format!(
            "Error R10 (Boot timeout) -> {kind} process failed to bind to $PORT within {limit} seconds of launch"
        ));
        self.say("Stopping process with SIGKILL");
        self.host.signal(&life.id, Signal::SIGKILL).await;
        let status = self.host.ended(&life.id).await;
        let exit = self.bury(life, status).await;
        self.say("State changed from starting to crashed");
        Ended::Crashed(Crash { exit, report, lived })
    }

    /// Out of the route table, then SIGTERM, then SIGKILL. Returns how it ended.
    async fn stop(&self, life: &Life, ended: impl Future<Output = Option<u32>>) -> Option<u32> {
        let mut ended = pin!(ended);
        let served = self.state_name() == "up" && is_routed(self.workload());
        let version = self.update(|instance| instance.state = InstanceState::Stopping);
        if served {
            tokio::select! {
                status = &mut ended => return status,
                _ = self.host.feed.drained(&life.id, version, DRAIN_LIMIT) => {}
            }
        }
        self.say("Stopping all processes with SIGTERM");
        tokio::select! {
            status = &mut ended => return status,
            () = self.host.signal(&life.id, Signal::SIGTERM) => {}
        }
        if let Ok(status) = timeout(self.workload().stop_grace, &mut ended).await {
            return status;
        }
        let seconds = self.workload().stop_grace.as_secs();
        self.say(&format!(
            "Error R12 (Exit timeout) -> At least one process failed to exit within {seconds} seconds of SIGTERM"
        ));
        self.say("Stopping remaining processes with SIGKILL");
        self.host.signal(&life.id, Signal::SIGKILL).await;
        ended.await
    }

    /// Takes the dead container's last lines and says how it ended; the rest of it goes in the background.
    async fn bury(&self, life: Life, status: Option<u32>) -> Exit {
        let exit = self.host.exit(&life.id, status);
        let host = Arc::clone(&self.host);
        host.doom(&life.id);
        let (taken, last_lines) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            // Once the task is gone, all its output is in the file.
            host.insist(&life.id, || host.containerd.remove(&life.id)).await;
            life.ended.cancel();
            // It fails only if it panicked, and then there is nothing more to take.
            let _ = life.log.await;
            let _ = taken.send(());
            host.destroy(life.id).await;
        });
        let _ = timeout(LAST_LINES, last_lines).await;
        if exit == Exit::OutOfMemory {
            let megabytes = self.workload().container.limits.memory_bytes >> 20;
            self.say(&format!("Process ran out of its {megabytes} MB of memory"));
            self.say("Error R15 (Memory quota vastly exceeded)");
        }
        self.say(&format!("Process exited with status {}", exit.shell_status()));
        exit
    }

    fn release_predecessor(&self) {
        if let Some(predecessor) = &self.replaces {
            predecessor.cancel();
        }
    }

    fn workload(&self) -> &Workload {
        &self.wish.workload
    }

    fn dyno(&self) -> DynoName {
        self.workload().dyno(self.number)
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
        self.host.say(self.workload().app, &self.dyno(), line);
    }
}

/// An instance that is about to be made.
pub(crate) fn anew(id: String, dyno: DynoName, now: Timestamp) -> Instance {
    Instance {
        id,
        dyno,
        state: InstanceState::Starting,
        since: now,
        address: None,
        crashes: 0,
        last_exit: None,
        booted_in: None,
        probe: None,
    }
}

/// An instance that runs already, as an earlier life of this role knew it.
pub(crate) fn as_left(folder: &Folder, workload: &Workload, number: u32, (id, running): (String, Running)) -> Instance {
    let healthy_since = folder.healthy_since();
    Instance {
        state: if folder.is_healthy() { InstanceState::Up } else { InstanceState::Starting },
        address: Some(address(workload, &running)),
        booted_in: healthy_since.map(|healthy| healthy.since(running.started)),
        ..anew(id, workload.dyno(number), healthy_since.unwrap_or(running.started))
    }
}

/// Whether routers send it requests.
pub(crate) fn is_routed(workload: &Workload) -> bool {
    matches!(workload.probe, Probe::Tcp { .. }) && workload.service.is_none()
}

/// Requests go to the port of the probe; what has none still shows its network's address, with port 0.
fn address(workload: &Workload, running: &Running) -> SocketAddr {
    let port = match workload.probe {
        Probe::Tcp { port, .. } => port,
        Probe::Alive { .. } => 0,
    };
    SocketAddr::from((running.address, port))
}

/// Nearly at once after a first crash, then 1 s, 2 s, 4 s … up to 5 minutes.
fn restart_pause(crashes: u32) -> Duration {
    match crashes {
        0 | 1 => FIRST_PAUSE,
        more => (SECOND_PAUSE * 2_u32.saturating_pow((more - 2).min(16))).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes() {
        let pauses: Vec<u128> = [1, 2, 3, 4, 10, 11, 12, 4_000_000].map(|n| restart_pause(n).as_millis()).to_vec();
        assert_eq!(pauses, [100, 1000, 2000, 4000, 256_000, 300_000, 300_000, 300_000]);
    }
}
