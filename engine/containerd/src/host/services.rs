//! What backing services need beyond staying alive: an address of their own, the right clients, and volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use engine::{EngineError, Link, Workload, check_volume_name};
use model::{AppId, Egress};

use super::Host;
use super::state::State;
use crate::error::Fault;
use crate::files::{self, Wish};
use crate::firewall::Passages;
use crate::tenants::Tenants;

impl Host {
    /// The address of a new workload's service: that of an earlier workload of the same app and process type, or a free one.
    pub(super) fn address_for(&self, workload: &Workload) -> Result<Option<Ipv4Addr>, EngineError> {
        if workload.service.is_none() {
            return Ok(None);
        }
        // An instance that still stops keeps its address, and must not be taken for its successor.
        let mut taken: BTreeSet<Ipv4Addr> = self.tenants.services();
        let state = self.lock();
        let same =
            |wish: &&Wish| (wish.workload.app, &wish.workload.process_type) == (workload.app, &workload.process_type);
        if let Some(address) = state.services().filter(same).find_map(|wish| wish.address) {
            return Ok(Some(address));
        }
        taken.extend(state.services().filter_map(|wish| wish.address));
        let mut free = self.settings.subnet.of_services().filter(|address| !taken.contains(address));
        let free = free.find(|&address| !self.network.is_leased(address));
        let none = || EngineError::Exhausted(format!("all {} addresses of services are taken", taken.len()));
        free.ok_or_else(none).map(Some)
    }

    /// Notes where a container is reached now, if anywhere, and lets it through to the services whose client it is.
    pub(crate) async fn locate(&self, id: &str, address: Option<Ipv4Addr>) -> Result<(), Fault> {
        self.tenants.locate(id, address);
        self.update_passages().await
    }

    /// Lets exactly the clients of today through to each service, and everybody to what they may reach outside.
    pub(super) async fn update_passages(&self) -> Result<(), Fault> {
        self.network.firewall.set(|| passages(&self.lock(), &self.tenants)).await
    }

    /// What instances and one-offs of an app reach outside from now on.
    pub(crate) async fn set_egress(&self, app: AppId, policy: Option<Egress>) -> Result<(), Fault> {
        {
            let _one_at_a_time = self.wishes.lock().await;
            files::save_egress(&self.settings.egress(), app, policy.as_ref())?;
            let mut state = self.lock();
            match policy {
                Some(policy) => drop(state.egress.insert(app, policy)),
                None => drop(state.egress.remove(&app)),
            }
        }
        self.update_passages().await
    }

    /// Which apps reach which others from now on.
    pub(crate) async fn set_links(&self, links: BTreeSet<Link>) -> Result<(), Fault> {
        {
            let _one_at_a_time = self.wishes.lock().await;
            files::save_links(&self.settings.links(), &links)?;
            self.lock().links = links;
        }
        self.update_passages().await
    }

    /// The links that hold.
    pub(crate) fn links(&self) -> BTreeSet<Link> {
        self.lock().links.clone()
    }

    /// The policies that hold.
    pub(crate) fn egress(&self) -> BTreeMap<AppId, Egress> {
        self.lock().egress.clone()
    }

    pub(crate) async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        check_volume_name(name)?;
        let failed = |fault: Fault| EngineError::Failed(fault.to_string());
        self.with_unused_volume(name, || self.volumes.remove(name, &self.new_id()).map_err(failed)).await
    }

    /// Does something quick with a volume that nobody mounts, and that nobody can mount meanwhile.
    pub(super) async fn with_unused_volume(
        &self,
        name: &str,
        action: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let in_use = |user| EngineError::InUse { volume: name.to_owned(), user };
        let mounts = |wish: &&Wish| wish.workload.container.volumes().any(|volume| volume == name);
        let wished = || self.lock().wishes().find(mounts).map(|wish| format!("workload {}", wish.workload.id));
        let act = || match wished() {
            Some(user) => Err(in_use(user)),
            None => action(),
        };
        // Who wishes it must not wait for those who leave, and none of them may come while it goes.
        self.tenants.with_free_volume(name, |id| self.is_doomed(id), act).await.map_err(in_use)?
    }
}

/// A service's way in.
struct Door {
    /// Whose instances and one-offs may come.
    apps: BTreeSet<AppId>,
    address: Ipv4Addr,
    port: u16,
}

/// The services that are desired: each is open to its clients and its own app.
fn doors(state: &State) -> Vec<Door> {
    let door = |wish: &Wish| {
        let (service, address) = (wish.workload.service.as_ref()?, wish.address?);
        let apps = service.clients.iter().copied().chain([wish.workload.app]).collect();
        Some(Door { apps, address, port: service.port })
    };
    state.services().filter_map(door).collect()
}

/// Who gets through to what, of those who are there now.
pub(super) fn passages(state: &State, tenants: &Tenants) -> Passages {
    let mut passages = Passages { policies: state.egress.clone(), ..Passages::default() };
    passages.sources = tenants.bound(|app| passages.policies.contains_key(&app));
    let clients = tenants.bound(|app| state.links.iter().any(|link| link.client == app));
    for (address, app) in clients {
        let ports = state.links.iter().filter(|link| link.client == app).map(|link| link.port);
        passages.links.extend(ports.map(|port| (address, port)));
    }
    for Door { apps, address, port } in doors(state) {
        passages.reach.extend(tenants.addresses(&apps).into_iter().map(|client| (client, address, port)));
    }
    passages
}
