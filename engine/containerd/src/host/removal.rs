//! Taking away what a container left: step by step, each until it succeeds.

use std::sync::Arc;
use std::time::Duration;

use super::Host;
use crate::error::Fault;
use crate::network::Network;

/// First and longest pause before asking a silent containerd again.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A router that takes longer than this to follow is told of in the log.
const ROUTER_LIMIT: Duration = Duration::from_secs(10);

impl Host {
    /// Notes that a container is being removed; [`Host::destroy`] must follow.
    pub(crate) fn doom(&self, id: &str) {
        self.lock().doomed.insert(id.to_owned());
    }

    /// Removes all that a container left, asking again for as long as it takes.
    pub(crate) async fn destroy(self: Arc<Self>, id: String) {
        self.doom(&id);
        self.insist(&id, || self.containerd.remove(&id)).await;
        let cgroup = self.cgroup(&id);
        self.insist(&id, || self.containerd.remove_lost(&id)).await;
        self.insist(&id, || async { self.cgroups.clear(&cgroup) }).await;
        let folder = self.folder(&id);
        // An earlier life may have left no more than its address.
        let was_routed = self.lock().shown.remove(&id) || folder.is_healthy() || folder.record().is_none();
        // First nobody may get through by its address, then another container may have it.
        self.insist(&id, || self.locate(&id, None)).await;
        self.insist(&id, || self.network.unlink(&id)).await;
        self.insist(&id, || async { self.folder(&id).remove().await }).await;
        self.ranges.give_back(&id);
        self.tenants.move_out(&id);
        let leases = self.network.leases_of(&id);
        if was_routed && !leases.is_empty() {
            self.let_address_rest(&id).await;
        }
        self.insist(&id, || async { Network::give_back(&leases) }).await;
        self.lock().doomed.remove(&id);
        self.removed.notify_one();
        self.moved();
    }

    /// Waits until no router sends anything to what has left the route table by now: its address is to be nobody else's before.
    async fn let_address_rest(&self, id: &str) {
        let version = self.feed.version();
        while !self.lock().going_down && !self.feed.served(version, ROUTER_LIMIT).await {
            tracing::warn!(container.id = %id, "a router does not let go of an address, which goes on resting");
        }
    }

    /// Whether this container is being removed.
    pub(super) fn is_doomed(&self, id: &str) -> bool {
        self.lock().doomed.contains(id)
    }

    /// Whether any container is being removed right now.
    pub(crate) fn is_removing(&self) -> bool {
        !self.lock().doomed.is_empty()
    }

    /// Repeats one step of a removal until it succeeds. Whatever does not is there again after a restart of this role.
    pub(crate) async fn insist<F, T>(&self, id: &str, step: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut pause = ASK_AGAIN.0;
        loop {
            match step().await {
                Ok(value) => return value,
                Err(fault) if fault.is_passing() => {
                    tracing::debug!(container.id = %id, error = %fault, "trying again soon");
                }
                Err(fault) => tracing::warn!(container.id = %id, error = %fault, "trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ASK_AGAIN.1);
        }
    }
}
