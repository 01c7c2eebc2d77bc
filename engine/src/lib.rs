//! The seam between what should run and what runs it.
//!
//! An [`Engine`] keeps instances of [`Workload`]s alive; it decides nothing about releases. Keeping alive is the
//! engine's job, deciding what should be alive is the controller's. Every engine must pass [`conformance`]; [`fake`] serves the tests of those
//! who only talk to one.

mod capacity;
mod changes;
pub mod conformance;
pub mod details;
mod error;
mod evidence;
pub mod fake;
pub mod feed;
mod health;
mod layers;
mod limits;
mod lines;
mod needs;
mod oneoff;
mod paths;
mod restart;
mod stats;
pub mod traffic;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
pub use model::routes::WorkloadId;
use model::{AppId, Egress};
use serde::{Deserialize, Serialize};

pub use capacity::{Capacity, Demand};
pub use changes::{Change, Changes};
pub use error::EngineError;
pub use evidence::{ProbeReport, Purpose};
pub use health::{Check, Health, Look};
pub use layers::{LayerError, LayerStore};
pub use limits::Limits;
pub use lines::Lines;
pub use needs::Need;
pub use oneoff::{Ended, Exec, Input, OneOff, OneOffId, RunningOneOff, TtySize};
pub use restart::Restart;
pub use stats::Stat;
pub use workload::{
    Container, Instance, InstanceState, Larger, Mount, NESTED_IDS, RootFs, Service, VolumeStatus, Workload,
    WorkloadStatus, check_volume_name, is_workload_id,
};

/// A tar archive on its way. An error means that the rest is lost.
pub type Archive = BoxStream<'static, std::io::Result<Bytes>>;

/// Runs containers. Everything is idempotent and level-triggered: a caller that lost the answer calls again.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Makes `workload` desired: its `quantity` of instances is started and kept alive, through crashes (see [`Restart`])
    /// and reboots, until [`Engine::delete`]. Applying the same id again changes what is done around its instances, such
    /// as their quantity and a service's clients; what they run is immutable and a difference is refused with
    /// [`EngineError::Immutable`] ([`Workload::changed_to`]). What the engine
    /// cannot do (yet) is refused by name, with [`EngineError::Unsupported`]. Returns once
    /// the wish is durable and its clients are those that get through, not once instances run.
    async fn apply(&self, workload: Workload) -> Result<(), EngineError>;

    /// Changes how many instances a workload has, and nothing else of it, whatever it was applied as and by whichever version of
    /// the platform. One that does not exist (any more) is no error: [`Engine::list`] says so.
    async fn scale(&self, workload: &WorkloadId, quantity: u32) -> Result<(), EngineError>;

    /// Changes after how long without a request a workload sleeps, and nothing else of it; none: it never does, and wakes if it
    /// sleeps. A workload that sleeps keeps its quantity and has no instance until a request waits for it; then it is as it was
    /// before. Refused with [`EngineError::Unsupported`] by an engine that cannot, for whatever is not none. One that does not exist is
    /// no error.
    async fn set_idle(&self, workload: &WorkloadId, idle: Option<Duration>) -> Result<(), EngineError>;

    /// Stops all instances of a workload, out of the table first, then SIGTERM, then SIGKILL after the grace period, and
    /// forgets it. Returns once the wish is durable. Deleting what does not exist is no error.
    async fn delete(&self, workload: &WorkloadId) -> Result<(), EngineError>;

    /// Every workload the engine knows, those being deleted included, with the instances that exist right now.
    async fn list(&self) -> Result<Vec<WorkloadStatus>, EngineError>;

    /// Those of [`Engine::list`] that are of these apps. What it costs does not grow with the number of others.
    async fn list_of(&self, apps: &[AppId]) -> Result<Vec<WorkloadStatus>, EngineError>;

    /// What the instances of these apps use that run. One of which nothing can be said is left out.
    async fn stats(&self, apps: &[AppId]) -> Result<Vec<Stat>, EngineError>;

    /// Says of which app something changed, after any change of any workload, instance or one-off: then [`Engine::list_of`] says
    /// what. It may say so too often, never too seldom; it ends when the engine is out of reach, and the caller then calls again, and
    /// [`Engine::list`] once.
    async fn changes(&self) -> Result<BoxStream<'static, Change>, EngineError>;

    /// Replaces one instance by a new one, gracefully (`ps:restart`): the old one serves until the new one is up, unless only
    /// one may run at a time ([`Workload::is_exclusive`]). Unknown instances are no error.
    async fn restart(&self, instance: &str) -> Result<(), EngineError>;

    /// Starts a container once: a build, a release phase, `run`. It ends with its process, its time limit, or with
    /// [`Engine::stop`] or [`Engine::kill`]. The streams of one with a [`OneOff::log`] are empty.
    async fn run(&self, oneoff: OneOff) -> Result<RunningOneOff, EngineError>;

    /// Tells a one-off to end: SIGTERM, and after its grace period SIGKILL. Returns at once. Unknown ids are no error.
    async fn stop(&self, oneoff: &OneOffId) -> Result<(), EngineError>;

    /// Ends a one-off at once and removes what it left. Unknown ids are no error.
    async fn kill(&self, oneoff: &OneOffId) -> Result<(), EngineError>;

    /// One-offs that exist right now, so that a caller that restarted can end those it no longer knows.
    async fn oneoffs(&self) -> Result<Vec<OneOffId>, EngineError>;

    /// How those with a [`OneOff::log`] ended that were not forgotten yet. One that is no longer among [`Engine::oneoffs`] is here.
    async fn ended(&self) -> Result<Vec<Ended>, EngineError>;

    /// Forgets how a one-off ended. Unknown ids are no error.
    async fn forget(&self, oneoff: &OneOffId) -> Result<(), EngineError>;

    /// Starts one more process in an instance that runs. It ends by itself, at its time limit, with its instance, or once nobody
    /// listens to its output any more: then it is told to end, and is killed soon after. Refused with
    /// [`EngineError::NotRunning`] if there is no such instance, or none whose process lives.
    async fn exec(&self, instance: &str, exec: Exec) -> Result<RunningOneOff, EngineError>;

    /// Connects to a port of an instance, also to one that only the instance itself reaches. Its streams are those of the connection;
    /// `exit` is a success once the other side has closed it. Nobody listening to its output closes it.
    async fn connect(&self, instance: &str, port: u16) -> Result<RunningOneOff, EngineError>;

    /// A file or folder of an instance, with what is in it, as a tar archive: files, folders and symbolic links, and of those only what
    /// the instance's own user may read. An absolute path, which leads where it leads inside.
    async fn files(&self, instance: &str, path: &str) -> Result<Archive, EngineError>;

    /// Unpacks a tar archive in an instance, as its own user: into the folder at `path`, or, if there is none, beside where it would be,
    /// under its name. What has the same name is replaced.
    async fn put_files(&self, instance: &str, path: &str, archive: Archive) -> Result<(), EngineError>;

    /// From now on this policy says what instances and one-offs of an app reach outside, those that run already included; none: everything
    /// that any app may reach. Builds may reach that in any case. Returns once it is durable and in force.
    async fn set_egress(&self, app: AppId, policy: Option<Egress>) -> Result<(), EngineError>;

    /// The policies that are in force.
    async fn egress(&self) -> Result<BTreeMap<AppId, Egress>, EngineError>;

    /// What there is, and what all that is desired or runs may use of it.
    async fn capacity(&self) -> Result<Capacity, EngineError>;

    /// Makes a volume that holds so many bytes, or lets one hold as many. Refused with [`EngineError::InUse`] while something mounts it,
    /// where it cannot grow under that; and if there is one that holds more, or one that was made by being mounted alone: that is as
    /// large as the disk.
    async fn make_volume(&self, name: &str, bytes: u64) -> Result<(), EngineError>;

    /// The volumes that exist.
    async fn volumes(&self) -> Result<Vec<VolumeStatus>, EngineError>;

    /// Makes the volume `to` the same as `from` is at one moment, also while something writes to that, which may have to wait meanwhile.
    /// What was in `to` is gone for good. Refused with [`EngineError::InUse`] while something mounts `to`. Only what was made by
    /// [`Engine::make_volume`], or by this, can be copied.
    async fn copy_volume(&self, from: &str, to: &str) -> Result<(), EngineError>;

    /// All that is in a volume, as a tar archive.
    async fn volume_files(&self, name: &str) -> Result<Archive, EngineError>;

    /// From now on instances and one-offs of these apps, and no others, reach these apps through routers: all links that there are.
    /// Returns once it is durable and in force.
    async fn set_links(&self, links: BTreeSet<Link>) -> Result<(), EngineError>;

    /// The links that are in force.
    async fn links(&self) -> Result<BTreeSet<Link>, EngineError>;

    /// Removes a volume with all that is in it, for good. Refused with [`EngineError::InUse`] while a workload, even one without
    /// instances, or a one-off mounts it. One that does not exist is no error.
    async fn remove_volume(&self, name: &str) -> Result<(), EngineError>;
}

/// An app that reaches another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// Whose instances and one-offs come.
    pub client: AppId,
    /// The port by which routers know whom they want.
    pub port: u16,
}

/// How long an engine waits for routers to let go of an instance before it stops it anyway.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);
