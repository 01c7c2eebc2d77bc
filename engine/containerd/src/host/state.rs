//! What the role knows while it lives; all but the wishes can be found out again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::{Instance, InstanceState, OneOffId, WorkloadId};
use model::routes::{Endpoint, WorkloadAddresses};
use tokio_util::sync::CancellationToken;

use crate::files::Wish;

#[derive(Default)]
pub(super) struct State {
    pub(super) desired: BTreeMap<WorkloadId, Wish>,
    pub(super) slots: BTreeMap<u64, Held>,
    pub(super) next_slot: u64,
    pub(super) oneoffs: BTreeMap<OneOffId, CancellationToken>,
    /// Containers that are being removed.
    pub(super) doomed: BTreeSet<String>,
    /// Nothing may start any more in this life.
    pub(super) going_down: bool,
}

impl State {
    /// How many instances of a workload shall run now.
    pub(super) fn wanted(&self, id: &WorkloadId) -> u32 {
        if self.going_down { 0 } else { self.desired.get(id).map_or(0, |wish| wish.workload.quantity) }
    }
}

/// One number of a workload that is kept alive, or on its way down.
pub(super) struct Held {
    pub(super) wish: Arc<Wish>,
    pub(super) instance: Instance,
    pub(super) stop: CancellationToken,
}

/// What routers are told of a workload.
pub(super) fn addresses(slots: &[&Held]) -> WorkloadAddresses {
    let mut row = WorkloadAddresses::default();
    for held in slots {
        let instance = &held.instance;
        match (instance.state, instance.address) {
            (InstanceState::Up, Some(address)) => {
                let (instance, dyno) = (instance.id.clone(), instance.dyno.to_string());
                row.healthy.push(Endpoint { instance, dyno, address });
            }
            (InstanceState::Up | InstanceState::Starting, _) => row.starting += 1,
            (InstanceState::Crashed { .. } | InstanceState::GaveUp, _) => row.crashed += 1,
            // On its way down without having been told to: it ended by itself and is being cleaned up.
            (InstanceState::Stopping, _) if !held.stop.is_cancelled() => row.crashed += 1,
            (InstanceState::Stopping, _) => {}
        }
    }
    row
}
