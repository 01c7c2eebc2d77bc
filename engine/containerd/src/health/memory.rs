//! Who was killed for memory: the whole instance, or one of its processes while the others live on.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cgroup;

/// What ends so soon after such a kill ended because of it: a master goes when its worker went.
const BECAUSE: Duration = Duration::from_secs(5);

/// The kernel's count of kills in one instance's cgroup, as far as it was looked at. On cgroup v1 the count never goes back, so
/// an exit means nothing by itself once any process was killed.
#[derive(Debug)]
pub(crate) struct Memory {
    cgroup: PathBuf,
    cgroups: cgroup::Version,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    kills: u64,
    /// When the last of them was seen.
    at: Option<Instant>,
}

impl Memory {
    /// Of an instance that may run already: what was killed before is not news.
    pub(crate) fn new(cgroup: PathBuf, cgroups: cgroup::Version) -> Self {
        let seen = Seen { kills: cgroups.memory_kills(&cgroup), at: None };
        Self { cgroup, cgroups, seen: Mutex::new(seen) }
    }

    /// Whether any process was killed since this was asked last.
    pub(crate) fn look(&self) -> bool {
        let kills = self.cgroups.memory_kills(&self.cgroup);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = kills > seen.kills;
        if is_news {
            *seen = Seen { kills, at: Some(Instant::now()) };
        }
        is_news
    }

    /// Whether an instance that ended just now ended by it. Must be asked before its cgroup is removed.
    pub(crate) fn ended_it(&self) -> bool {
        let is_news = self.look();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        is_news || seen.at.is_some_and(|at| at.elapsed() < BECAUSE)
    }
}
