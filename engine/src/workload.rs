//! What should run, and what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::routes::WorkloadId;
use model::{AppId, Digest, DynoName, Exit, ProcessType, Timestamp};
use serde::{Deserialize, Serialize};

use crate::EngineError;

/// "Keep `quantity` instances of this alive."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// `<app id>.v<release>.<process type>`
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
    pub probe: Probe,
    /// Time from SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// What others reach it by, if it is a backing service. It then gets no requests from routers.
    #[serde(default)]
    pub service: Option<Service>,
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
    /// This workload with the quantity and the clients of `wanted`, which must equal it in everything else.
    pub fn changed_to(&self, wanted: Self) -> Result<Self, EngineError> {
        let service = match (&self.service, &wanted.service) {
            (Some(service), Some(wanted)) => Some(Service { clients: wanted.clients.clone(), ..service.clone() }),
            (service, _) => service.clone(),
        };
        let same = Self { quantity: wanted.quantity, service, ..self.clone() };
        if same == wanted { Ok(wanted) } else { Err(EngineError::Immutable(wanted.id)) }
    }

    /// Whether it has never more than one instance at a time: a service has one address, and a volume one writer. A new instance
    /// starts once the old one has ended, also if that is one of another workload with the same address or volume.
    pub fn is_exclusive(&self) -> bool {
        self.service.is_some() || self.container.volumes().next().is_some()
    }

    /// Refuses what no engine may run: see [`Workload::is_exclusive`] and [`Container::check`].
    pub fn check(&self) -> Result<(), EngineError> {
        if self.is_exclusive() && self.quantity > 1 {
            let reason = "a workload with a service or a volume has at most one instance";
            return Err(EngineError::Failed(format!("{} cannot have {} instances: {reason}", self.id, self.quantity)));
        }
        self.container.check()
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

    /// Refuses names of volumes that cannot be one.
    pub fn check(&self) -> Result<(), EngineError> {
        self.volumes().try_for_each(check_volume_name)
    }
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

/// Limits of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory; over it, the kernel kills inside the container.
    pub memory_bytes: u64,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Weight against other containers when cores are short, 1 to 10,000; an app's is 100 (cgroup v2 `cpu.weight`).
    pub cpu_weight: u32,
    /// Processes and threads.
    pub pids: u32,
}

/// When an instance counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Once it accepts TCP connections on this port (Heroku's rule for `web`). One that does not within `boot_timeout` is
    /// stopped and counts as crashed (R10).
    Tcp {
        /// Also the value of `PORT` in the container's environment.
        port: u16,
        /// From start to the first accepted connection.
        boot_timeout: Duration,
    },
    /// Once it stayed up for this long.
    Alive {
        /// From start.
        settle: Duration,
    },
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
    /// How long it took from its process's start until it was healthy: the app's own part of a deploy. None before.
    pub booted_in: Option<Duration>,
    /// What the last failed probe saw, for the message of a deploy that does not get healthy.
    pub probe: Option<ProbeReport>,
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
    /// Out of the route table, on its way down.
    Stopping,
}

/// What a failed probe saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// `connection refused on port 5000`
    pub result: String,
    /// TCP ports that something in the container really listens on.
    pub listening: Vec<u16>,
    /// Seconds since start, when it was seen.
    pub after: Duration,
}
