//! How much one container gets.

use serde::{Deserialize, Serialize};

/// Limits of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory; over it, the kernel kills inside the container.
    pub memory_bytes: u64,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Weight against other containers when cores are short, 1 to 10,000; an app's is 100 (cgroup v2 `cpu.weight`).
    pub cpu_weight: u32,
    /// Whether its memory is kept free for it alone. That of others is a ceiling, and all of them together may be told more than there is.
    #[serde(default)]
    pub dedicated: bool,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes that its writable layer may have on the disk; none is no limit but the disk's.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// Files and directories that its writable layer may have; none is no limit but the disk's.
    #[serde(default)]
    pub files: Option<u64>,
    /// Files that one process may have open at a time; none is what the engine gives to all.
    #[serde(default)]
    pub open_files: Option<u64>,
}

impl Limits {
    /// These, with an app's weight, and no others.
    pub const fn new(memory_bytes: u64, cpu_millis: u32, pids: u32) -> Self {
        Self {
            memory_bytes,
            cpu_millis,
            cpu_weight: 100,
            dedicated: false,
            pids,
            disk_bytes: None,
            files: None,
            open_files: None,
        }
    }
}
