use std::time::Duration;

use model::routes::WorkloadId;
use serde::{Deserialize, Serialize};

/// What an instance uses of what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Which.
    pub instance: String,
    /// Of which workload.
    pub workload: WorkloadId,
    /// How much time of processors it used since it exists.
    pub cpu: Duration,
    /// Thousandths of a core that it may use.
    pub cpu_millis: u32,
    /// Bytes of memory that the kernel could not take back.
    pub memory_bytes: u64,
    /// Bytes that it may have.
    pub memory_limit: u64,
    /// Bytes of what it wrote to its own disk and did not take back; of none if that has no limit, where nobody counts.
    pub disk_bytes: Option<u64>,
}
