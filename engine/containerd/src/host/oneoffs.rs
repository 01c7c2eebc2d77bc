//! Which one-offs there are, and waiting until there are none.

use std::sync::Arc;
use std::time::Duration;

use engine::{Ended, EngineError, OneOff, OneOffId};
use tokio_util::sync::CancellationToken;

use super::Host;
use super::state::{State, Switch};
use crate::files;
use crate::rootfs::is_safe_id;

impl Host {
    /// Notes a new one-off; the answer is how others tell it to end.
    pub(crate) fn register_oneoff(&self, oneoff: &OneOff) -> Result<Switch, EngineError> {
        let id = &oneoff.id;
        if !is_safe_id(&id.0) {
            return Err(EngineError::Failed(format!("{:?} cannot be a one-off's id", id.0)));
        }
        let mut state = self.lock();
        if state.going_down {
            return Err(EngineError::Failed("the platform is going down and starts nothing more".to_owned()));
        }
        if state.oneoffs.contains_key(id) || files::has_ended(&self.settings.ended(), id) {
            return Err(EngineError::Failed(format!("one-off {id} exists already")));
        }
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let switch = Switch { app: oneoff.app, demand: oneoff.into(), stop, kill, grace: oneoff.stop_grace };
        state.oneoffs.insert(id.clone(), switch.clone());
        Ok(switch)
    }

    /// Tells a one-off to end.
    pub(crate) fn stop(&self, id: &OneOffId) {
        if let Some(switch) = self.lock().oneoffs.get(id) {
            switch.stop.cancel();
        }
    }

    /// How those with a log ended.
    pub(crate) fn ended_oneoffs(&self) -> Vec<Ended> {
        files::load_ended(&self.settings.ended())
    }

    /// Forgets how a one-off ended.
    pub(crate) fn forget_ended(&self, id: &OneOffId) -> Result<(), EngineError> {
        if !is_safe_id(&id.0) {
            return Ok(());
        }
        files::forget_ended(&self.settings.ended(), id).map_err(|fault| EngineError::Failed(fault.to_string()))
    }

    /// Makes it known how a one-off with a log ended.
    pub(crate) async fn remember(self: &Arc<Self>, ended: &Ended) {
        self.insist(&ended.id.0, || async { files::save_ended(&self.settings.ended(), ended) }).await;
    }

    pub(crate) fn forget_oneoff(&self, id: &OneOffId) {
        let removed = self.lock().oneoffs.remove(id);
        if let Some(switch) = removed {
            self.notify(switch.app);
        }
    }

    /// Ends a one-off and returns once nothing of it is left.
    pub(crate) async fn kill(&self, id: &OneOffId) {
        if let Some(switch) = self.lock().oneoffs.get(id) {
            switch.kill.cancel();
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

    /// From SIGTERM to SIGKILL of a one-off; none if there is no such one.
    pub(crate) fn grace_of(&self, id: &OneOffId) -> Option<Duration> {
        self.lock().oneoffs.get(id).map(|switch| switch.grace)
    }

    pub(crate) fn oneoffs(&self) -> Vec<OneOffId> {
        self.lock().oneoffs.keys().cloned().collect()
    }
}
