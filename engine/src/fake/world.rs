//! What there is in a world that only a test moves.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use model::{AppId, Egress, Timestamp};

use super::{Answer, FakeExec, FakeRun, Running};
use crate::{
    Capacity, Demand, Ended, Instance, InstanceState, Link, OneOffId, Stat, Workload, WorkloadId, WorkloadStatus,
};

pub(super) struct World {
    pub(super) reachable: bool,
    pub(super) refusal: Option<String>,
    /// Memory, disk and addresses.
    pub(super) has: (u64, u64, u64),
    lives: u32,
    pub(super) workloads: BTreeMap<WorkloadId, Held>,
    /// The workloads of each app that has any, so that what is done for one does not grow with the others.
    own: BTreeMap<AppId, BTreeSet<WorkloadId>>,
    /// Those that others may have to wait for.
    exclusive: BTreeSet<WorkloadId>,
    pub(super) oneoffs: BTreeMap<OneOffId, Running>,
    pub(super) ended: BTreeMap<OneOffId, Ended>,
    pub(super) volumes: BTreeSet<String>,
    /// Of those that have one.
    pub(super) sizes: BTreeMap<String, u64>,
    /// What apps may reach outside, where that is not everything.
    pub(super) egress: BTreeMap<AppId, Egress>,
    pub(super) links: BTreeSet<Link>,
    /// Addresses of services, by app and process type.
    services: BTreeMap<(AppId, String), Ipv4Addr>,
    pub(super) runs: VecDeque<FakeRun>,
    pub(super) execs: VecDeque<FakeExec>,
    /// By instance and path.
    pub(super) files: BTreeMap<(String, String), Bytes>,
    pub(super) answer: Option<Answer>,
}

pub(super) struct Held {
    pub(super) workload: Workload,
    pub(super) deleting: bool,
    pub(super) asleep: Option<Timestamp>,
    /// What each instance used: time of processors, and memory.
    pub(super) used: (Duration, u64),
    pub(super) instances: Vec<Instance>,
}

impl Held {
    pub(super) fn wanted(&self) -> u32 {
        if self.deleting { 0 } else { self.workload.quantity }
    }

    /// How many instances there should be right now.
    fn wanted_now(&self) -> u32 {
        if self.asleep.is_some() { 0 } else { self.wanted() }
    }

    fn owner(&self) -> (AppId, String) {
        (self.workload.app, self.workload.process_type.to_string())
    }

    /// Whether no instance of one may run while one of the other does.
    fn excludes(&self, other: &Self) -> bool {
        let is_service = |held: &Self| held.workload.service.is_some();
        let volumes: BTreeSet<&str> = self.workload.container.volumes().collect();
        other.workload.container.volumes().any(|volume| volumes.contains(volume))
            || (is_service(self) && is_service(other) && self.owner() == other.owner())
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            reachable: true,
            refusal: None,
            has: (1 << 60, 1 << 60, 1 << 60),
            lives: 0,
            workloads: BTreeMap::new(),
            own: BTreeMap::new(),
            exclusive: BTreeSet::new(),
            oneoffs: BTreeMap::new(),
            ended: BTreeMap::new(),
            volumes: BTreeSet::new(),
            sizes: BTreeMap::new(),
            egress: BTreeMap::new(),
            links: BTreeSet::new(),
            services: BTreeMap::new(),
            runs: VecDeque::new(),
            execs: VecDeque::new(),
            files: BTreeMap::new(),
            answer: None,
        }
    }

    /// Wishes a workload that is not wished.
    pub(super) fn add(&mut self, workload: Workload) {
        let id = workload.id.clone();
        self.own.entry(workload.app).or_default().insert(id.clone());
        if workload.is_exclusive() {
            self.exclusive.insert(id.clone());
        }
        let instances = self.workloads.remove(&id).map_or_else(Vec::new, |held| held.instances);
        self.workloads
            .insert(id, Held { workload, deleting: false, asleep: None, used: (Duration::ZERO, 0), instances });
    }

    /// What there is, and what is asked of it.
    pub(super) fn capacity(&self) -> Capacity {
        let desired = self.workloads.values().filter(|held| !held.deleting).map(|held| Demand::from(&held.workload));
        let (memory, disk, containers) = self.has;
        let demand = desired.chain(self.oneoffs.values().map(|oneoff| oneoff.demand)).sum();
        Capacity { memory, disk, containers, demand }
    }

    /// All workloads, or those of some apps.
    pub(super) fn list(&self, apps: Option<&[AppId]>) -> Vec<WorkloadStatus> {
        let Some(apps) = apps else { return self.workloads.values().map(|held| self.status(held)).collect() };
        let apps: BTreeSet<_> = apps.iter().collect();
        let own = apps.into_iter().filter_map(|app| self.own.get(app)).flatten();
        own.filter_map(|id| self.workloads.get(id)).map(|held| self.status(held)).collect()
    }

    /// What the instances of some apps use.
    pub(super) fn stats(&self, apps: &[AppId]) -> Vec<Stat> {
        let held = apps.iter().filter_map(|app| self.own.get(app)).flatten().filter_map(|id| self.workloads.get(id));
        let stats = held.flat_map(|held| {
            let limits = &held.workload.container.limits;
            held.instances.iter().map(|instance| Stat {
                instance: instance.id.clone(),
                workload: held.workload.id.clone(),
                cpu: held.used.0,
                cpu_millis: limits.cpu_millis,
                memory_bytes: held.used.1,
                memory_limit: limits.memory_bytes,
                disk_bytes: limits.disk_bytes.map(|_| 0),
            })
        });
        stats.collect()
    }

    fn status(&self, held: &Held) -> WorkloadStatus {
        WorkloadStatus {
            id: held.workload.id.clone(),
            app: held.workload.app,
            release: held.workload.release,
            process_type: held.workload.process_type.clone(),
            quantity: held.wanted(),
            deleting: held.deleting,
            address: held.workload.service.as_ref().and(self.services.get(&held.owner())).map(Ipv4Addr::to_string),
            idle: held.workload.idle,
            asleep: held.asleep,
            instances: held.instances.clone(),
        }
    }

    /// Brings the instances of a workload, and of those that may have waited for it, to their quantities.
    pub(super) fn settle(&mut self, id: &WorkloadId, prompt: bool, now: Timestamp) {
        let Some(held) = self.workloads.get_mut(id) else { return };
        let (app, wanted, is_service) = (held.workload.app, held.wanted_now(), held.workload.service.is_some());
        for instance in held.instances.iter_mut().filter(|instance| instance.dyno.number > wanted) {
            instance.state = InstanceState::Stopping;
        }
        held.instances.retain(|instance| !(prompt && instance.state == InstanceState::Stopping));
        let mut due = BTreeSet::from([id.clone()]);
        if held.workload.is_exclusive() {
            due.extend(self.exclusive.iter().cloned());
        }
        if held.deleting && held.instances.is_empty() {
            self.workloads.remove(id);
            self.exclusive.remove(id);
            if let Entry::Occupied(mut own) = self.own.entry(app) {
                own.get_mut().remove(id);
                if own.get().is_empty() {
                    own.remove();
                }
            }
        }
        if is_service {
            self.allot_addresses();
        }
        for id in due {
            for number in self.missing(&id) {
                let instance_id = self.new_id();
                let Some(held) = self.workloads.get_mut(&id) else { continue };
                self.volumes.extend(held.workload.container.volumes().map(str::to_owned));
                held.instances.push(new_instance(&held.workload, instance_id, number, now, prompt));
                held.instances.sort_by_key(|instance| instance.dyno.number);
            }
        }
    }

    /// The numbers of a workload that shall start now: none while an instance runs that excludes them.
    fn missing(&self, id: &WorkloadId) -> Vec<u32> {
        let Some(held) = self.workloads.get(id) else { return Vec::new() };
        let occupied = |other: &Held| !other.instances.is_empty() && held.excludes(other);
        let mut others = self.exclusive.iter().filter_map(|other| self.workloads.get(other));
        if held.workload.is_exclusive() && others.any(occupied) {
            return Vec::new();
        }
        let live = held.instances.iter().filter(|instance| instance.state != InstanceState::Stopping);
        let live: BTreeSet<u32> = live.map(|instance| instance.dyno.number).collect();
        (1..=held.wanted_now()).filter(|number| !live.contains(number)).collect()
    }

    /// Gives each service an address, the lowest free one, and takes those back that nobody has any more.
    fn allot_addresses(&mut self) {
        let exclusive = self.exclusive.iter().filter_map(|id| self.workloads.get(id));
        let services = exclusive.filter(|held| held.workload.service.is_some());
        let owners: BTreeSet<(AppId, String)> = services.map(Held::owner).collect();
        self.services.retain(|owner, _| owners.contains(owner));
        for owner in owners {
            let taken: BTreeSet<Ipv4Addr> = self.services.values().copied().collect();
            let free = (1..=u8::MAX).map(|host| Ipv4Addr::new(10, 210, 240, host)).find(|ip| !taken.contains(ip));
            self.services.entry(owner).or_insert(free.unwrap_or(Ipv4Addr::UNSPECIFIED));
        }
    }

    /// Who mounts a volume.
    pub(super) fn user_of(&self, volume: &str) -> Option<String> {
        let mounts = |held: &&Held| held.workload.container.volumes().any(|name| name == volume);
        let workload = self.workloads.values().find(mounts).map(|held| format!("workload {}", held.workload.id));
        let mut oneoffs = self.oneoffs.iter();
        let oneoff = oneoffs.find(|(_, running)| running.volumes.iter().any(|name| name == volume));
        workload.or_else(|| oneoff.map(|(id, _)| format!("one-off {id}")))
    }

    pub(super) fn new_id(&mut self) -> String {
        self.lives += 1;
        format!("instance-{}", self.lives)
    }
}

fn new_instance(workload: &Workload, id: String, number: u32, now: Timestamp, up: bool) -> Instance {
    let host = u8::try_from(number).unwrap_or(u8::MAX);
    Instance {
        state: if up { InstanceState::Up } else { InstanceState::Starting },
        address: workload.health.port.map(|port| SocketAddr::from((Ipv4Addr::new(10, 210, 0, host), port))),
        ..Instance::new(id, workload.dyno(number), now)
    }
}
