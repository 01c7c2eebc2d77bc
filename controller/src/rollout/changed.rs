//! Which apps the rollout has to look at: those that somebody says have changed.

use std::collections::BTreeSet;

use model::AppId;
use tokio::sync::Notify;

use crate::live::Locked;

/// Tells the rollout of every committed change of what should run.
#[derive(Debug, Default)]
pub struct Changed {
    due: Locked<Due>,
    wake: Notify,
}

/// Apps to look at.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Every app there is, whichever are named.
    pub(super) all: bool,
    pub(super) apps: BTreeSet<AppId>,
}

impl Changed {
    /// This app changed.
    pub fn app(&self, app: AppId) {
        self.due.lock().apps.insert(app);
        self.wake.notify_one();
    }

    /// Something changed that may concern every app: a look that takes long where there are many.
    pub fn notify_one(&self) {
        self.due.lock().all = true;
        self.wake.notify_one();
    }

    /// Waits for the next change.
    pub(crate) async fn notified(&self) {
        self.wake.notified().await;
    }

    /// What changed since it was last asked.
    pub(super) fn take(&self) -> Due {
        std::mem::take(&mut self.due.lock())
    }
}

impl Due {
    pub(super) fn add(&mut self, other: Self) {
        self.all |= other.all;
        self.apps.extend(other.apps);
    }
}
