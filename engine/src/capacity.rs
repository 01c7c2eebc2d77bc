//! What there is to run containers in, and what is asked of it.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::{Limits, OneOff, Workload};

/// What containers may use at most, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Bytes of memory of those that have theirs to themselves ([`Limits::dedicated`]).
    pub dedicated_memory: u64,
    /// Bytes of memory of the others.
    pub shared_memory: u64,
    /// Bytes of disk, of those that have a limit.
    pub disk: u64,
    /// How many they are.
    pub containers: u64,
}

impl Demand {
    /// What so many containers with these limits may use.
    pub fn of(limits: &Limits, quantity: u32) -> Self {
        let quantity = u64::from(quantity);
        let memory = limits.memory_bytes.saturating_mul(quantity);
        Self {
            dedicated_memory: if limits.dedicated { memory } else { 0 },
            shared_memory: if limits.dedicated { 0 } else { memory },
            disk: limits.disk_bytes.unwrap_or(0).saturating_mul(quantity),
            containers: quantity,
        }
    }

    /// What is left of it without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self {
            dedicated_memory: self.dedicated_memory.saturating_sub(other.dedicated_memory),
            shared_memory: self.shared_memory.saturating_sub(other.shared_memory),
            disk: self.disk.saturating_sub(other.disk),
            containers: self.containers.saturating_sub(other.containers),
        }
    }
}

impl From<&Workload> for Demand {
    fn from(workload: &Workload) -> Self {
        Self::of(&workload.container.limits, workload.quantity)
    }
}

impl From<&OneOff> for Demand {
    fn from(oneoff: &OneOff) -> Self {
        Self::of(&oneoff.container.limits, 1)
    }
}

impl AddAssign for Demand {
    fn add_assign(&mut self, other: Self) {
        self.dedicated_memory = self.dedicated_memory.saturating_add(other.dedicated_memory);
        self.shared_memory = self.shared_memory.saturating_add(other.shared_memory);
        self.disk = self.disk.saturating_add(other.disk);
        self.containers = self.containers.saturating_add(other.containers);
    }
}

impl std::iter::Sum for Demand {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

/// What an engine has, all its machines together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: u64,
    /// Containers for which there is an address.
    pub containers: u64,
    /// What the workloads that are desired and the one-offs that exist may use of it.
    pub demand: Demand,
}
