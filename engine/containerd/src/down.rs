//! Going down: everything stops, nothing starts, and what is desired stays, so that the next life of this role starts it
//! again.

use std::sync::Arc;
use std::time::Duration;

use engine::{EngineError, OneOffId};
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use crate::host::Host;
use crate::orphans::Orphans;
use crate::shims;
use crate::volumes::Volumes;

/// From SIGTERM to SIGKILL for one-offs that have less time otherwise.
const ONE_OFF_GRACE: Duration = Duration::from_secs(10);
/// Between two looks at what the dead still leave.
const PAUSE: Duration = Duration::from_millis(50);

impl Host {
    /// Stops every instance and one-off, gracefully, and returns once nothing of them is left: no process, mount, namespace,
    /// cgroup or firewall rule. Nothing starts any more in this life of the role. Doing it again is no error.
    pub(crate) async fn stop_all(self: &Arc<Self>) -> Result<(), EngineError> {
        self.start_nothing_more();
        self.reconcile_all();
        for id in self.oneoffs() {
            tokio::spawn(Arc::clone(self).end(id));
        }
        self.until_idle().await;
        // What an earlier life or a lost containerd left goes as well.
        let mut orphans = Orphans::default();
        while orphans.sweep(self).await || self.is_removing() || shims::exist(self.shims()) {
            sleep(PAUSE).await;
        }
        self.with_volumes(Volumes::unmount_all).await.map_err(|fault| EngineError::Failed(fault.to_string()))?;
        let parent = self.cgroup("");
        let removed = self.cgroups.remove_empty(&parent);
        self.network.firewall.close().await.and(removed).map_err(|fault| EngineError::Failed(fault.to_string()))
    }

    async fn end(self: Arc<Self>, id: OneOffId) {
        let grace = self.grace_of(&id).unwrap_or_default();
        self.signal(&id.0, Signal::SIGTERM).await;
        if timeout(grace.max(ONE_OFF_GRACE), self.until_gone(&id)).await.is_err() {
            self.kill(&id).await;
        }
    }
}
