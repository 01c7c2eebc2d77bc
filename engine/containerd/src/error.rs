use std::io;
use std::path::{Path, PathBuf};

use engine::EngineError;

/// Why the host role could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file, folder or socket of its own.
    #[error("host: cannot {action} {path}")]
    Files {
        /// `make`, `read`, …
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The firewall rules that keep instances apart could not be set: nothing may run without them.
    #[error("host: cannot set up the network: {0}")]
    Network(String),
}

/// Why one step on one container failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Nobody knows what state the container is in; ask again.
    #[error("containerd does not answer")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("containerd cannot {action}: {reason}")]
    Containerd { action: &'static str, reason: String },
    #[error("cannot {action} {path}: {source}")]
    Files { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the network plugin failed: {0}")]
    Network(String),
    #[error("{0}")]
    Refused(String),
}

impl Fault {
    /// For `map_err`: names what failed on which path.
    pub(crate) fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Files { action, path, source }
    }

    /// Whether it is usual and passes by itself: containerd is restarting, or the dead are still leaving.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Files { source, .. } => source.kind() == io::ErrorKind::ResourceBusy,
            _ => false,
        }
    }

    /// As the seam says it.
    pub(crate) fn into_engine(self, what: &str) -> EngineError {
        match self {
            Self::Unreachable(source) => EngineError::Unreachable { engine: "containerd", source },
            Self::Files { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                EngineError::Exhausted(format!("cannot start {what}: the platform's disk is full"))
            }
            other => EngineError::Start { what: what.to_owned(), reason: other.to_string() },
        }
    }
}
