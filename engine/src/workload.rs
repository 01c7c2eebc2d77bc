//! What should run, and what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::routes::WorkloadId;
use model::{AppId, Digest, DynoName, Exit, ProcessType, Timestamp};
use serde::{Deserialize, Serialize};

use crate::needs::{self, Need};
use crate::{Check, DRAIN_LIMIT, EngineError, Health, Limits, Look, ProbeReport, Restart};

/// "Keep `quantity` instances of this alive."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Chosen by the caller; see [`is_workload_id`].
    pub id: WorkloadId,
    /// Whose it is: instances of one app share a uid, a shim and a log stream, and nothing with other apps.
    pub app: AppId,
    /// Number of the release.
    pub release: u64,
    /// Names the instances: `web` makes `web.1`, `web.2`, …
    pub process_type: ProcessType,
    /// How many instances, each with a number from 1.
    pub quantity: u32,
    /// What each instance runs; see [`Workload::container_of`].
    pub container: Container,
    /// When an instance counts as healthy.
    #[serde(alias = "probe")]
    pub health: Health,
    /// When an instance that crashed is started again.
    #[serde(default)]
    pub restart: Restart,
    /// How long routers are waited for, that they let go of an instance, before it gets SIGTERM.
    #[serde(default = "drain")]
    pub drain: Duration,
    /// Time from SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// Its last instance is stopped once it had no request for so long, and started again by the next one; none: never.
    #[serde(default)]
    pub idle: Option<Duration>,
    /// What it could have instead of its memory; told when that does not suffice.
    #[serde(default)]
    pub larger: Option<Larger>,
    /// What others reach it by, if it is a backing service. It then gets no requests from routers.
    #[serde(default)]
    pub service: Option<Service>,
}

/// A size with more memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Larger {
    /// What people call it.
    pub name: String,
    /// Bytes.
    pub memory_bytes: u64,
}

/// What makes a workload a backing service: an address that never changes, and who may connect to it.
///
/// The address belongs to the workload's app and process type: a later workload of both, applied before the earlier one is
/// deleted, takes it over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The one TCP port that is open to clients.
    pub port: u16,
    /// The apps whose instances and one-offs get through, beside those of the workload's own app. Nobody else does. Who is taken
    /// out loses the connections that are open, too.
    pub clients: BTreeSet<AppId>,
}

impl Workload {
    /// `wanted`, if that is this workload but for what is done around its instances: how many there are and who their clients are,
    /// when they count as healthy, are started again, drained, stopped and put to sleep. What they run never changes.
    pub fn changed_to(&self, wanted: Self) -> Result<Self, EngineError> {
        let what_runs = |workload: &Self| {
            let service = workload.service.as_ref().map(|service| service.port);
            (workload.app, workload.release, workload.health.port, service)
        };
        let same = what_runs(self) == what_runs(&wanted)
            && self.process_type == wanted.process_type
            && self.container == wanted.container;
        if same { Ok(wanted) } else { Err(EngineError::Immutable(wanted.id)) }
    }

    /// This workload with another quantity; see [`crate::Engine::scale`].
    pub fn scaled_to(&self, quantity: u32, able: &[Need]) -> Result<Self, EngineError> {
        let scaled = Self { quantity, ..self.clone() };
        scaled.check(able)?;
        Ok(scaled)
    }

    /// Whether it has never more than one instance at a time: a service has one address, and a volume one writer. A new instance
    /// starts once the old one has ended, also if that is one of another workload with the same address or volume.
    pub fn is_exclusive(&self) -> bool {
        self.service.is_some() || self.container.volumes().next().is_some()
    }

    /// Whether routers send it requests.
    pub fn is_routed(&self) -> bool {
        self.health.port.is_some() && self.service.is_none()
    }

    /// Refuses what no engine may run, and what one that is `able` to do these cannot: see [`is_workload_id`],
    /// [`Workload::is_exclusive`] and [`Container::check`].
    pub fn check(&self, able: &[Need]) -> Result<(), EngineError> {
        if !is_workload_id(&self.id.0) {
            return Err(EngineError::Failed(format!("{:?} cannot be a workload's id", self.id.0)));
        }
        if self.is_exclusive() && self.quantity > 1 {
            let reason = "a workload with a service or a volume has at most one instance";
            return Err(EngineError::Failed(format!("{} cannot have {} instances: {reason}", self.id, self.quantity)));
        }
        let needs_port = |check: &Check| matches!(check.look, Look::Listening | Look::Http(_));
        if self.health.port.is_none()
            && let Some(check) = self.health.checks().find(|check| needs_port(check))
        {
            let reason = format!("check {:?} looks at a port, and it has none", check.name);
            return Err(EngineError::Failed(format!("{} cannot run: {reason}", self.id)));
        }
        if self.idle.is_some() && !self.is_routed() {
            let reason = "nothing would wake it: it gets no requests from routers";
            return Err(EngineError::Failed(format!("{} cannot sleep: {reason}", self.id)));
        }
        needs::refuse(&self.id, &self.needs(), able)?;
        self.container.check_volumes()
    }

    /// This workload with another time until it sleeps; see [`crate::Engine::set_idle`].
    pub fn idle_after(&self, idle: Option<Duration>, able: &[Need]) -> Result<Self, EngineError> {
        let changed = Self { idle, ..self.clone() };
        changed.check(able)?;
        Ok(changed)
    }

    /// What the instance of this number is called.
    pub fn dyno(&self, number: u32) -> DynoName {
        DynoName { process_type: self.process_type.clone(), number }
    }

    /// What the instance of this number runs: the workload's container that knows its own name by `DYNO`
    /// (Heroku's dyno metadata).
    pub fn container_of(&self, number: u32) -> Container {
        let mut container = self.container.clone();
        container.env.insert("DYNO".to_owned(), self.dyno(number).to_string());
        container
    }
}

/// One container: what to run, as whom, within which limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The root file system.
    pub rootfs: RootFs,
    /// Program and arguments, passed to execve as they are.
    pub args: Vec<String>,
    /// The whole environment, passed to execve byte for byte. The engine adds only `HOSTNAME` and `HOME`, and `TERM` with a
    /// terminal, if unset; and `DYNO` to instances of workloads.
    pub env: BTreeMap<String, String>,
    /// Absolute directory to start in.
    pub working_dir: String,
    /// The app's own uid and gid; never 0.
    pub uid: u32,
    /// Whether `uid` is root of a user namespace, whose other users are the [`NESTED_IDS`] − 1 ids after it: for what makes images,
    /// and nothing else. It may make namespaces and mounts in there; on the host it is as little root as anybody else.
    #[serde(default)]
    pub nested: bool,
    /// Limits of this one container.
    pub limits: Limits,
    /// What to mount; for the platform's own needs, never at an app's wish.
    pub mounts: Vec<Mount>,
}

/// How many users a [`Container::nested`] container has.
pub const NESTED_IDS: u32 = 65_536;

impl Container {
    /// Names of the volumes that it mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match mount {
            Mount::Volume { name, .. } => Some(name.as_str()),
            Mount::Bind { .. } | Mount::Overlay { .. } => None,
        })
    }

    /// Refuses what an engine that is `able` to do these cannot, and names of volumes that cannot be one.
    pub fn check(&self, able: &[Need]) -> Result<(), EngineError> {
        needs::refuse(&"the container", &self.needs(), able)?;
        self.check_volumes()
    }

    fn check_volumes(&self) -> Result<(), EngineError> {
        self.volumes().try_for_each(check_volume_name)
    }
}

/// Longest id of a workload. It names files, with some letters more.
const LONGEST_ID: usize = 200;

/// Whether this can be a workload's id: parts of letters, digits, `-` and `_`, joined by dots, with room for every process type that
/// there can be.
pub fn is_workload_id(id: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    id.len() <= LONGEST_ID && id.split('.').all(part)
}

/// What platforms before there was a choice waited.
fn drain() -> Duration {
    DRAIN_LIMIT
}

/// Refuses what cannot name a volume: up to 63 lowercase letters, digits and inner hyphens can (a DNS label, RFC 1123).
pub fn check_volume_name(name: &str) -> Result<(), EngineError> {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if name.len() <= 63 && name.split('-').all(part) {
        return Ok(());
    }
    Err(EngineError::Failed(format!("{name:?} cannot name a volume: use lowercase letters, digits and single hyphens")))
}

/// A container's root file system: a writable layer of its own over read-only ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFs {
    /// Layers of the layer store, from the base up.
    Layers(Vec<Digest>),
}

/// A mount into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A host path, read-only or writable.
    Bind {
        /// On the host.
        source: PathBuf,
        /// In the container.
        target: PathBuf,
        /// Whether writing is refused.
        read_only: bool,
    },
    /// An overlay of host directories: writes land in `upper`, where the caller finds them afterwards.
    Overlay {
        /// Read-only directories, the uppermost first (overlayfs order).
        lower: Vec<PathBuf>,
        /// Takes all writes.
        upper: PathBuf,
        /// An empty directory on the file system of `upper`.
        work: PathBuf,
        /// In the container.
        target: PathBuf,
    },
    /// A directory that the engine keeps: it is made when it is first mounted, owned by the container's uid, and outlives
    /// containers, workloads and reboots, until [`crate::Engine::remove_volume`].
    Volume {
        /// See [`check_volume_name`].
        name: String,
        /// In the container.
        target: PathBuf,
    },
}

/// What the engine knows of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// See [`check_volume_name`].
    pub name: String,
    /// Bytes that it takes on the disk; none if nobody counts them.
    pub used: Option<u64>,
}

/// What the engine knows of one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// Which.
    pub id: WorkloadId,
    /// Whose.
    pub app: AppId,
    /// Number of the release.
    pub release: u64,
    /// The process type.
    pub process_type: ProcessType,
    /// Desired instances; 0 when being deleted.
    pub quantity: u32,
    /// True after [`crate::Engine::delete`], while instances are still stopping.
    pub deleting: bool,
    /// The host (an IP address or a DNS name) under which clients reach a [`Service`], from its first [`crate::Engine::apply`] on.
    #[serde(default)]
    pub address: Option<String>,
    /// See [`Workload::idle`].
    #[serde(default)]
    pub idle: Option<Duration>,
    /// Since when it sleeps, if it does: it has no instance then, though some that were its own may still stop.
    #[serde(default)]
    pub asleep: Option<Timestamp>,
    /// The instances that exist, by number.
    pub instances: Vec<Instance>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Unique for ever; a restart makes a new one.
    pub id: String,
    /// `web.1`
    pub dyno: DynoName,
    /// What it is doing.
    pub state: InstanceState,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// Where it listens, once it has a network.
    pub address: Option<SocketAddr>,
    /// How often this number crashed in a row, the restarts of [`InstanceState::Crashed`] included.
    pub crashes: u32,
    /// How the last life of this number ended, if it crashed.
    pub last_exit: Option<Exit>,
    /// Bytes of memory that the last life of this number outgrew, if it ended by that.
    #[serde(default)]
    pub oom_limit: Option<u64>,
    /// How long it took from its process's start until it was healthy: the app's own part of a deploy. None before.
    pub booted_in: Option<Duration>,
    /// How often the engine started this number again because it had ended by itself, in a row or not.
    #[serde(default)]
    pub restarts: u32,
    /// What the check saw that fails now, or that failed when the last life of this number ended.
    pub probe: Option<ProbeReport>,
    /// Whether its readiness checks pass. Routers send requests to instances that are up and ready.
    #[serde(default = "yes")]
    pub ready: bool,
}

impl Instance {
    /// One that is about to be made.
    pub fn new(id: String, dyno: DynoName, now: Timestamp) -> Self {
        Self {
            id,
            dyno,
            state: InstanceState::Starting,
            since: now,
            address: None,
            crashes: 0,
            last_exit: None,
            oom_limit: None,
            booted_in: None,
            restarts: 0,
            probe: None,
            ready: true,
        }
    }

    /// Whether it takes over from another one, or gets requests if it has a port.
    pub fn is_healthy(&self) -> bool {
        self.state == InstanceState::Up && self.ready
    }
}

/// Instances from before there were readiness checks were ready once they were up.
fn yes() -> bool {
    true
}

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Being made, or running and not yet healthy.
    Starting,
    /// Running and healthy.
    Up,
    /// Ended by itself; the engine starts it again at this time.
    Crashed {
        /// When.
        retry_at: Timestamp,
    },
    /// Ended by itself once too often ([`Restart::give_up`]): it stays down until it is restarted on request, or replaced.
    GaveUp,
    /// Out of the route table, on its way down.
    Stopping,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As platforms wrote it down before there were checks, and policies of restarting.
    const BEFORE: &str = r#"{"id":"00000000-0000-4000-8000-000000000001.v12.web.basic",
        "app":"00000000-0000-4000-8000-000000000001","release":12,"process_type":"web","quantity":2,
        "container":{"rootfs":{"layers":[]},"args":["true"],"env":{"A":"1"},"working_dir":"/app","uid":100001,
            "limits":{"memory_bytes":536870912,"cpu_millis":1000,"cpu_weight":100,"pids":256},"mounts":[]},
        "probe":{"tcp":{"port":5000,"boot_timeout":{"secs":60,"nanos":0}}},"stop_grace":{"secs":30,"nanos":0}}"#;

    #[test]
    fn wishes_of_older_platforms_are_read_as_what_they_meant() {
        let before: Workload = serde_json::from_str(BEFORE).expect("readable");
        assert_eq!(before.health, Health::listening(5000, Duration::from_secs(60)));
        assert_eq!((&before.restart, before.drain, before.idle), (&Restart::default(), DRAIN_LIMIT, None));
        assert_eq!(before.container.limits, Limits::new(512 << 20, 1000, 256));
        let worker = BEFORE.replace(
            r#"{"tcp":{"port":5000,"boot_timeout":{"secs":60,"nanos":0}}}"#,
            r#"{"alive":{"settle":{"secs":1,"nanos":0}}}"#,
        );
        let worker: Workload = serde_json::from_str(&worker).expect("readable");
        assert_eq!(worker.health, Health::uptime(Duration::from_secs(1)));
        let again = serde_json::to_string(&before).expect("JSON");
        assert_eq!(serde_json::from_str::<Workload>(&again).expect("readable"), before);
    }

    #[test]
    fn what_an_engine_cannot_do_is_named() {
        let mut workload: Workload = serde_json::from_str(BEFORE).expect("readable");
        workload.check(&[]).expect("nothing special");
        let http = Check { look: Look::Http("/ok".to_owned()), ..workload.health.startup[0].clone() };
        workload.health.liveness.push(http);
        workload.container.limits.disk_bytes = Some(1 << 30);
        let refused = |able: &[Need]| workload.check(able).expect_err("refused").to_string();
        assert!(
            refused(&[]).ends_with(
                ".v12.web.basic needs health checks by HTTP and liveness checks and a limit of its disk space, \
                 which this engine cannot give yet"
            ),
            "{}",
            refused(&[])
        );
        let able = [Need::HttpChecks, Need::Liveness];
        assert!(refused(&able).contains("basic needs a limit of its disk space, which"), "{}", refused(&able));
    }

    #[test]
    fn every_process_type_fits_into_an_id() {
        let app = "00000000-0000-4000-8000-000000000001";
        let longest = format!("{app}.v18446744073709551615.{}.performance-l-ram", "a".repeat(63));
        for good in [longest.as_str(), "app.v1.a--b", "app.v1.web", "postgres.v1.db_1"] {
            assert!(is_workload_id(good), "{good}");
        }
        for bad in ["", ".", "..", "a..b", "a/b", "a b", "ä", ".a", "a.", &"a".repeat(LONGEST_ID + 1)] {
            assert!(!is_workload_id(bad), "{bad}");
        }
    }
}
