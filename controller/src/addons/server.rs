//! An add-on's containers as the engine gets them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use engine::{
    Container, DRAIN_LIMIT, Demand, Health, Limits, Mount, OneOff, OneOffId, Restart, RootFs, Service, Workload,
    WorkloadId,
};
use model::{AddonId, AppId, Digest};

use super::kind::{Kind, Plan, Server, find};
use crate::store::Addon;
use crate::{Controller, Error};

/// A server that was killed may have to read its log again before it listens.
const BOOT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Time to write down what is in memory.
const STOP_GRACE: Duration = Duration::from_secs(60);
/// Many apps may wait for a server: it is started again soon, and for ever.
const RESTART: Restart = Restart {
    at_once: 1,
    first: Duration::from_secs(1),
    longest: Duration::from_secs(5 * 60),
    give_up: None,
    stable: Duration::from_secs(60),
};
/// Processes and threads: a server may have one for each client.
const PIDS: u32 = 512;
/// What it may write beside its volume: whoever has a client of it open has a shell there.
const DISK: u64 = 4 << 30;
const FILES: u64 = 65_536;
/// Memory of a client, of `pg_dump` for instance.
const CLIENT_MEMORY: u64 = 512 << 20;
/// Begins the ids of an add-on's one-offs.
const ONEOFF_PREFIX: &str = "addon-";

/// A process beside the server.
pub(super) struct Client {
    /// Program and arguments.
    pub(super) args: Vec<String>,
    /// More environment.
    pub(super) env: BTreeMap<String, String>,
    pub(super) mounts: Vec<Mount>,
    pub(super) time_limit: Duration,
}

impl Controller {
    /// The workload that keeps an add-on's server alive.
    pub(super) async fn addon_workload(
        &self,
        addon: &Addon,
        (server, layer): (&Server, &Digest),
        clients: BTreeSet<AppId>,
    ) -> Result<Workload, Error> {
        let (kind, plan) = kind_of(addon)?;
        let mut env = (server.env)(&self.store.addon_credentials(addon.id).await?);
        env.insert("MEMORY_MIB".to_owned(), plan.memory_mib.to_string());
        let script = ["/bin/sh", "-euc", server.script];
        let mut container = container(addon, layer, server.init.iter().chain(&script), env);
        container.limits = limits(u64::from(plan.memory_mib) << 20, plan.cpu_millis);
        container.mounts.push(Mount::Volume { name: volume(addon.id), target: PathBuf::from("/data") });
        Ok(Workload {
            id: workload_id(addon),
            app: addon.id.into(),
            release: addon.generation,
            process_type: kind.slug().parse()?,
            quantity: 1,
            container,
            health: Health::listening(server.port, BOOT_TIMEOUT),
            restart: RESTART,
            drain: DRAIN_LIMIT,
            stop_grace: STOP_GRACE,
            idle: None,
            larger: None,
            service: Some(Service { port: server.port, clients }),
        })
    }

    /// A process that talks to an add-on's server.
    pub(super) async fn addon_client(&self, addon: &Addon, server: &Server, client: Client) -> Result<OneOff, Error> {
        let (Some(layer), Some(address)) = (&addon.layer, &addon.address) else {
            return Err(Error::Conflict(format!("{} is not up yet. Try again in a moment.", addon.name)));
        };
        self.live.ready().await?;
        let mut env = (server.env)(&self.store.addon_credentials(addon.id).await?);
        env.extend((server.client_env)(address));
        env.extend(client.env);
        let args = ["/usr/bin/tini", "-g", "--"].into_iter().chain(client.args.iter().map(String::as_str));
        let mut container = container(addon, layer, args.collect::<Vec<_>>().iter(), env);
        container.mounts = client.mounts;
        let id = OneOffId(format!("{}{}", oneoff_prefix(addon.id), &self.new_secret()[..8]));
        let (time_limit, stop_grace) = (client.time_limit, self.settings.stop_grace);
        Ok(OneOff {
            id,
            app: addon.id.into(),
            container,
            tty: None,
            time_limit,
            stop_grace,
            is_build: false,
            log: None,
        })
    }
}

/// What the engine calls the server of an add-on.
pub(super) fn workload_id(addon: &Addon) -> WorkloadId {
    WorkloadId(format!("{}.v{}.{}", addon.id, addon.generation, addon.kind))
}

/// Begins the ids of an add-on's one-offs.
pub(super) fn oneoff_prefix(addon: AddonId) -> String {
    format!("{ONEOFF_PREFIX}{addon}-")
}

/// Where an add-on's data is.
pub(super) fn volume(addon: AddonId) -> String {
    addon.to_string()
}

/// An add-on's kind and plan.
pub(super) fn kind_of(addon: &Addon) -> Result<(&'static dyn Kind, &'static Plan), Error> {
    find(&format!("{}:{}", addon.kind, addon.plan))
}

/// The server of an add-on; refused for services that somebody else runs.
pub(super) fn server_of(addon: &Addon) -> Result<Server, Error> {
    let kind = kind_of(addon)?.0;
    kind.server().ok_or_else(|| Error::Invalid(format!("{} is not run by this platform", addon.name)))
}

fn container<'a>(
    addon: &Addon,
    layer: &Digest,
    args: impl Iterator<Item = &'a &'a str>,
    mut env: BTreeMap<String, String>,
) -> Container {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let common = [("PATH", path), ("LANG", "C.UTF-8"), ("HOME", "/tmp")];
    env.extend(common.map(|(name, value)| (name.to_owned(), value.to_owned())));
    Container {
        rootfs: RootFs::Layers(vec![layer.clone()]),
        args: args.map(|arg| (*arg).to_owned()).collect(),
        env,
        working_dir: "/".to_owned(),
        uid: addon.uid,
        nested: false,
        limits: limits(CLIENT_MEMORY, 1000),
        mounts: Vec::new(),
    }
}

fn limits(memory_bytes: u64, cpu_millis: u32) -> Limits {
    Limits { disk_bytes: Some(DISK), files: Some(FILES), ..Limits::new(memory_bytes, cpu_millis, PIDS) }
}

/// What the server of a plan may use; nothing if somebody else runs it.
pub(super) fn demand(kind: &dyn Kind, plan: &Plan) -> Demand {
    let of = |_| Demand::of(&limits(u64::from(plan.memory_mib) << 20, plan.cpu_millis), 1);
    kind.server().map_or_else(Demand::default, of)
}

/// Who asks for room: `postgres:mini`.
pub(super) fn words(kind: &dyn Kind, plan: &Plan) -> String {
    format!("{}:{}", kind.slug(), plan.name)
}
