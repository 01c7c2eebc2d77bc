//! What is needed to do something in an instance that runs.

use engine::{Container, EngineError};

use super::Host;
use crate::netns;
use crate::slot::hostname;

/// An instance whose process lives.
pub(crate) struct Within {
    /// What it runs.
    pub(crate) container: Container,
    pub(crate) hostname: String,
}

impl Host {
    /// The instance of this id, if its process lives.
    pub(crate) fn within(&self, instance: &str) -> Result<Within, EngineError> {
        let found = {
            let state = self.lock();
            let held = state.slots().find(|held| held.instance.id == instance);
            held.map(|held| (held.wish.clone(), held.instance.dyno.clone()))
        };
        let lives = |pid: u32| netns::holds(&self.network.namespace(instance), pid);
        let runs = |_: &_| self.folder(instance).running().is_some_and(|running| lives(running.pid));
        let (wish, dyno) = found.filter(runs).ok_or_else(|| EngineError::NotRunning(instance.to_owned()))?;
        Ok(Within { container: wish.workload.container_of(dyno.number), hostname: hostname(&dyno) })
    }
}
