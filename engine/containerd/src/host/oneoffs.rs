//! Which one-offs there are, and waiting until there are none.

use engine::{EngineError, OneOff, OneOffId};
use tokio_util::sync::CancellationToken;

use super::Host;
use super::state::State;
use crate::rootfs::is_safe_id;

impl Host {
    /// Notes a new one-off; the token is how [`Host::kill`] ends it.
    pub(crate) fn register_oneoff(&self, oneoff: &OneOff) -> Result<CancellationToken, EngineError> {
        let id = &oneoff.id;
        if !is_safe_id(&id.0) {
            return Err(EngineError::Failed(format!("{:?} cannot be a one-off's id", id.0)));
        }
        let mut state = self.lock();
        if state.going_down {
            return Err(EngineError::Failed("the platform is going down and starts nothing more".to_owned()));
        }
        if state.oneoffs.contains_key(id) {
            return Err(EngineError::Failed(format!("one-off {id} exists already")));
        }
        let kill = CancellationToken::new();
        state.oneoffs.insert(id.clone(), (oneoff.app, kill.clone()));
        Ok(kill)
    }

    pub(crate) fn forget_oneoff(&self, id: &OneOffId) {
        let removed = self.lock().oneoffs.remove(id);
        if let Some((app, _)) = removed {
            self.notify(app);
        }
    }

    /// Ends a one-off and returns once nothing of it is left.
    pub(crate) async fn kill(&self, id: &OneOffId) {
        if let Some((_, kill)) = self.lock().oneoffs.get(id) {
            kill.cancel();
        }
        self.until_gone(id).await;
    }

    /// Waits until nothing of a one-off is left.
    pub(crate) async fn until_gone(&self, id: &OneOffId) {
        self.until(|state| !state.oneoffs.contains_key(id)).await;
    }

    /// From now on nothing starts; [`Host::reconcile`] then stops what runs.
    pub(crate) fn start_nothing_more(&self) {
        self.lock().going_down = true;
    }

    /// Waits until no instance and no one-off is left.
    pub(crate) async fn until_idle(&self) {
        self.until(State::is_idle).await;
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        // The sender lives in `self`, so this cannot fail while we wait.
        while !holds(&self.lock()) && changed.changed().await.is_ok() {}
    }

    pub(crate) fn oneoffs(&self) -> Vec<OneOffId> {
        self.lock().oneoffs.keys().cloned().collect()
    }
}
