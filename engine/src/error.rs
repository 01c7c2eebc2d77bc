use model::routes::WorkloadId;

/// Why an engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine's own process or daemon does not answer. Asking again later is right.
    #[error("{engine} is out of reach")]
    Unreachable {
        /// Which part does not answer: `the host role`, `containerd`.
        engine: &'static str,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An applied workload runs something else than the one of the same id, see [`crate::Workload::changed_to`].
    #[error("workload {0} exists with other contents; what a workload runs never changes")]
    Immutable(WorkloadId),
    /// It asks for something that this engine cannot do (yet). Asking again is of no use.
    #[error("{what} needs {needs}, which this engine cannot give yet")]
    Unsupported {
        /// Which workload or container.
        what: String,
        /// All that it asks for in vain.
        needs: String,
    },
    /// The container could not be made or started.
    #[error("cannot start {what}: {reason}")]
    Start {
        /// Which container.
        what: String,
        /// In the runtime's words.
        reason: String,
    },
    /// Something is to be done in an instance that does not run (any more).
    #[error("instance {0} does not run")]
    NotRunning(String),
    /// Too little disk or memory is left to start more.
    #[error("{0}")]
    Exhausted(String),
    /// A volume cannot be removed while something mounts it.
    #[error("volume {volume} is in use by {user}")]
    InUse {
        /// Which volume.
        volume: String,
        /// The workload or one-off that mounts it.
        user: String,
    },
    /// Anything else, in the engine's words.
    #[error("{0}")]
    Failed(String),
}
