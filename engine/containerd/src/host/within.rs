//! What is needed to do something in an instance that runs.

use std::net::Ipv4Addr;

use engine::{Container, EngineError};

use super::Host;
use crate::files::Running;
use crate::netns;
use crate::slot::hostname;

/// An instance whose process lives.
pub(crate) struct Within {
    /// Of its first process.
    pub(crate) pid: u32,
    /// Where its network is reached.
    pub(crate) address: Ipv4Addr,
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
        let lives = |running: &Running| netns::holds(&self.network.namespace(instance), running.pid);
        let running = found.as_ref().and_then(|_| self.folder(instance).running()).filter(lives);
        let (Some((wish, dyno)), Some(running)) = (found, running) else {
            return Err(EngineError::NotRunning(instance.to_owned()));
        };
        let (container, hostname) = (wish.workload.container_of(dyno.number), hostname(&dyno));
        Ok(Within { pid: running.pid, address: running.address, container, hostname })
    }
}
