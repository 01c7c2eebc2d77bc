//! What should run: wishes are taken, kept and told of.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{EngineError, InstanceState, Probe, Workload, WorkloadId, WorkloadStatus};
use tokio::sync::watch;

use super::{Begin, Host};
use crate::files::{self, Wish};
use crate::rootfs::is_safe_id;

/// What callers ask for; see [`engine::Engine`].
impl Host {
    pub(crate) async fn apply(self: &Arc<Self>, workload: Workload) -> Result<(), EngineError> {
        if !is_safe_id(&workload.id.0) {
            return Err(EngineError::Failed(format!("{:?} cannot be a workload's id", workload.id.0)));
        }
        workload.check()?;
        workload.check()?;
        {
            let _wish = self.wishes.lock().await;
            let known = self.lock().desired.get(&workload.id).cloned();
            let wish = match known {
                Some(known) => Wish { workload: known.workload.changed_to(workload)?, ..known },
                None => Wish { address: self.address_for(&workload)?, workload },
            };
            files::save_wish(&self.settings.workloads(), &wish)
                .map_err(|fault| fault.into_engine(&wish.workload.id.0))?;
            self.lock().desired.insert(wish.workload.id.clone(), wish);
        }
        self.update_reach().await.map_err(|fault| EngineError::Failed(fault.to_string()))?;
        self.reconcile();
        self.notify();
        Ok(())
    }

    pub(crate) async fn delete(self: &Arc<Self>, id: &WorkloadId) -> Result<(), EngineError> {
        if is_safe_id(&id.0) {
            let _wish = self.wishes.lock().await;
            files::forget_wish(&self.settings.workloads(), id)
                .map_err(|fault| EngineError::Failed(fault.to_string()))?;
            self.lock().desired.remove(id);
            self.update_reach().await.map_err(|fault| EngineError::Failed(fault.to_string()))?;
        }
        self.reconcile();
        self.notify();
        Ok(())
    }

    pub(crate) fn list(&self) -> Vec<WorkloadStatus> {
        let state = self.lock();
        let status = |wish: &Wish, quantity, deleting| WorkloadStatus {
            id: wish.workload.id.clone(),
            app: wish.workload.app,
            release: wish.workload.release,
            process_type: wish.workload.process_type.clone(),
            quantity,
            deleting,
            address: wish.address.map(|address| address.to_string()),
            instances: Vec::new(),
        };
        let desired = state.desired.values().map(|wish| status(wish, wish.workload.quantity, false));
        let mut known: BTreeMap<WorkloadId, WorkloadStatus> =
            desired.map(|status| (status.id.clone(), status)).collect();
        for held in state.slots.values() {
            let known = known.entry(held.wish.workload.id.clone()).or_insert_with(|| status(&held.wish, 0, true));
            known.instances.push(held.instance.clone());
        }
        for status in known.values_mut() {
            status.instances.sort_by_key(|instance| instance.dyno.number);
        }
        known.into_values().collect()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Replaces an instance. One that serves requests serves on until its successor is up, if there may be two.
    pub(crate) fn restart(self: &Arc<Self>, instance: &str) {
        let found = {
            let state = self.lock();
            let mut running = state.slots.values().filter(|held| !held.stop.is_cancelled());
            let held = running.find(|held| held.instance.id == instance);
            held.map(|held| (Arc::clone(&held.wish), held.instance.clone(), held.stop.clone()))
        };
        let Some((wish, instance, stop)) = found else { return };
        let serves = instance.state == InstanceState::Up && matches!(wish.workload.probe, Probe::Tcp { .. });
        if serves && !wish.workload.is_exclusive() {
            self.spawn_slot(&wish, Begin::Anew { number: instance.dyno.number, replaces: Some(stop) });
        } else {
            stop.cancel();
            self.reconcile();
        }
    }
}
