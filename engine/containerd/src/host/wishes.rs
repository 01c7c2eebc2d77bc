//! What should run: wishes are taken, kept and told of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::{Change, EngineError, InstanceState, Need, Stat, Workload, WorkloadId, WorkloadStatus, is_workload_id};
use futures::stream::BoxStream;
use model::AppId;

use super::{Begin, Host};
use crate::files::{self, Wish};

/// What this engine is able to do of what not every one is.
pub(crate) const ABLE: &[Need] = &[
    Need::HttpChecks,
    Need::CommandChecks,
    Need::Readiness,
    Need::Liveness,
    Need::DiskLimit,
    Need::FileLimit,
    Need::Sleep,
];

/// What callers ask for; see [`engine::Engine`].
impl Host {
    pub(crate) async fn apply(self: &Arc<Self>, workload: Workload) -> Result<(), EngineError> {
        workload.check(ABLE)?;
        let app = workload.app;
        {
            let _wish = self.wishes.lock().await;
            let known = self.wish_of(&workload.id);
            let wish = match known {
                Some(known) => Wish { workload: known.workload.changed_to(workload)?, ..known },
                None => Wish { address: self.address_for(&workload)?, workload },
            };
            self.keep(wish)?;
        }
        self.update_passages().await.map_err(|fault| EngineError::Failed(fault.to_string()))?;
        self.reconcile(app);
        self.notify(app);
        Ok(())
    }

    pub(crate) async fn scale(self: &Arc<Self>, id: &WorkloadId, quantity: u32) -> Result<(), EngineError> {
        let app = {
            let _wish = self.wishes.lock().await;
            let Some(known) = self.wish_of(id) else { return Ok(()) };
            let app = known.workload.app;
            self.keep(Wish { workload: known.workload.scaled_to(quantity, ABLE)?, ..known })?;
            app
        };
        self.reconcile(app);
        self.notify(app);
        Ok(())
    }

    pub(crate) async fn set_idle(self: &Arc<Self>, id: &WorkloadId, idle: Option<Duration>) -> Result<(), EngineError> {
        let app = {
            let _wish = self.wishes.lock().await;
            let Some(known) = self.wish_of(id) else { return Ok(()) };
            let app = known.workload.app;
            self.keep(Wish { workload: known.workload.idle_after(idle, ABLE)?, ..known })?;
            app
        };
        self.publish(app, id);
        self.reconcile(app);
        Ok(())
    }

    /// What is wished of a workload now.
    pub(super) fn wish_of(&self, id: &WorkloadId) -> Option<Wish> {
        self.lock().wish_of(id).cloned()
    }

    /// Makes a wish durable, then known to those who keep its instances alive.
    fn keep(&self, wish: Wish) -> Result<(), EngineError> {
        let id = &wish.workload.id;
        files::save_wish(&self.settings.workloads(), &wish).map_err(|fault| fault.into_engine(&id.0))?;
        if wish.workload.idle.is_none() {
            self.forget_sleep(id);
        }
        self.lock().wish(wish);
        Ok(())
    }

    pub(crate) async fn delete(self: &Arc<Self>, id: &WorkloadId) -> Result<(), EngineError> {
        if !is_workload_id(&id.0) {
            return Ok(());
        }
        let gone = {
            let _wish = self.wishes.lock().await;
            files::forget_wish(&self.settings.workloads(), id)
                .map_err(|fault| EngineError::Failed(fault.to_string()))?;
            self.forget_sleep(id);
            self.lock().forget(id)
        };
        self.update_passages().await.map_err(|fault| EngineError::Failed(fault.to_string()))?;
        if let Some(Wish { workload, .. }) = gone {
            self.reconcile(workload.app);
            self.notify(workload.app);
        }
        Ok(())
    }

    /// All workloads, or those of some apps.
    pub(crate) fn list(&self, apps: Option<&BTreeSet<AppId>>) -> Vec<WorkloadStatus> {
        let state = self.lock();
        let status = |wish: &Wish, quantity, deleting| WorkloadStatus {
            id: wish.workload.id.clone(),
            app: wish.workload.app,
            release: wish.workload.release,
            process_type: wish.workload.process_type.clone(),
            quantity,
            deleting,
            address: wish.address.map(|address| address.to_string()),
            idle: wish.workload.idle,
            asleep: state.asleep(&wish.workload.id),
            instances: Vec::new(),
        };
        let all = apps.is_none().then(|| state.apps());
        let apps = all.iter().flatten().chain(apps.into_iter().flatten());
        let mut known: BTreeMap<WorkloadId, WorkloadStatus> = BTreeMap::new();
        for app in apps {
            let desired = state.wishes_of(*app).map(|wish| status(wish, wish.workload.quantity, false));
            known.extend(desired.map(|status| (status.id.clone(), status)));
            for held in state.slots_of(*app) {
                let known = known.entry(held.wish.workload.id.clone()).or_insert_with(|| status(&held.wish, 0, true));
                known.instances.push(held.instance.clone());
            }
        }
        for status in known.values_mut() {
            status.instances.sort_by_key(|instance| instance.dyno.number);
        }
        known.into_values().collect()
    }

    /// What the instances of some apps use that run.
    pub(crate) fn stats(&self, apps: &BTreeSet<AppId>) -> Vec<Stat> {
        let running: Vec<_> = {
            let state = self.lock();
            let held = apps.iter().flat_map(|app| state.slots_of(*app));
            held.map(|held| (held.instance.id.clone(), Arc::clone(&held.wish))).collect()
        };
        let stat = |(instance, wish): (String, Arc<Wish>)| {
            let (cpu, memory_bytes) = self.cgroups.usage(&self.cgroup(&instance))?;
            let limits = &wish.workload.container.limits;
            let (cpu_millis, memory_limit) = (limits.cpu_millis, limits.memory_bytes);
            let disk_bytes = self.folder(&instance).disk_taken();
            let workload = wish.workload.id.clone();
            Some(Stat { instance, workload, cpu, cpu_millis, memory_bytes, memory_limit, disk_bytes })
        };
        running.into_iter().filter_map(stat).collect()
    }

    pub(crate) fn changes(&self) -> BoxStream<'static, Change> {
        self.changes.follow()
    }

    /// Replaces an instance. One that serves requests serves on until its successor is up, if there may be two.
    pub(crate) fn restart(self: &Arc<Self>, instance: &str) {
        let found = {
            let state = self.lock();
            let mut running = state.slots().filter(|held| !held.stop.is_cancelled());
            let held = running.find(|held| held.instance.id == instance);
            held.map(|held| (Arc::clone(&held.wish), held.instance.clone(), held.stop.clone()))
        };
        let Some((wish, instance, stop)) = found else { return };
        let serves = instance.state == InstanceState::Up && wish.workload.health.port.is_some();
        if serves && !wish.workload.is_exclusive() {
            self.spawn_slot(&wish, Begin::Anew { number: instance.dyno.number, replaces: Some(stop) });
        } else {
            stop.cancel();
            self.reconcile(wish.workload.app);
        }
    }
}
