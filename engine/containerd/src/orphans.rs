//! What belongs to nobody: what an earlier life of this role had begun when it was killed, and what containerd lost when a
//! connection to it broke in the middle of a step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::files;
use crate::host::Host;
use crate::shims::Idle;

/// First and longest pause between looks. What was begun by another process may come to an end only after we looked.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Removes what belongs to nobody, now and from time to time: often after a removal and for as long as there is something.
pub(crate) async fn remove(host: Arc<Host>) {
    let mut orphans = Orphans::default();
    let mut pause = PAUSE.0;
    loop {
        if orphans.sweep(&host).await {
            pause = PAUSE.0;
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            () = host.removed.notified() => {
                sleep(PAUSE.0).await;
                pause = PAUSE.0;
            }
        }
    }
}

/// Remembers what earlier looks saw.
#[derive(Default)]
pub(crate) struct Orphans {
    shims: Idle,
}

impl Orphans {
    /// Looks once and removes what it can; true if there was something, which needs another look.
    pub(crate) async fn sweep(&mut self, host: &Arc<Host>) -> bool {
        let strangers = strangers(host).await;
        let idle = self.shims.sweep(host.shims());
        let found = idle || !strangers.is_empty();
        for id in strangers {
            tracing::info!(container.id = %id, "removing a container that nobody wants");
            tokio::spawn(Arc::clone(host).destroy(id));
        }
        found
    }
}

/// Ids of all containers that left anything anywhere, are not known, and are not being removed already.
async fn strangers(host: &Host) -> BTreeSet<String> {
    // A container that goes away while we look was known before, and the next one of its name is known after: a build's have one name.
    let before = host.known();
    let mut found: BTreeSet<String> = host.insist("all", || host.containerd.ids()).await.into_iter().collect();
    found.extend(host.containerd.runtime_ids());
    found.extend(host.network.ids());
    found.extend(host.tenants.ids());
    found.extend(host.cgroups.children(&host.cgroup("")));
    found.extend(files::names(&host.settings.instances()));
    let known = &before | &host.known();
    found.retain(|id| !known.contains(id));
    found
}
