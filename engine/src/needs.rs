//! What not every engine can do yet. It is refused by name, never left out in silence.

use std::collections::BTreeSet;
use std::fmt;

use crate::{Container, EngineError, Look, Workload};

/// Something that a container or a workload asks for and an engine may not be able to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// [`Look::Http`]
    HttpChecks,
    /// [`Look::Command`]
    CommandChecks,
    /// [`crate::Health::readiness`]
    Readiness,
    /// [`crate::Health::liveness`]
    Liveness,
    /// [`crate::Limits::disk_bytes`]
    DiskLimit,
    /// [`crate::Limits::files`]
    FileLimit,
    /// [`Workload::idle`]
    Sleep,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpChecks => "health checks by HTTP",
            Self::CommandChecks => "health checks by a command",
            Self::Readiness => "readiness checks",
            Self::Liveness => "liveness checks",
            Self::DiskLimit => "a limit of its disk space",
            Self::FileLimit => "a limit of its files",
            Self::Sleep => "sleep when idle",
        })
    }
}

impl Workload {
    /// What it asks for of that which an engine may not be able to do.
    pub fn needs(&self) -> BTreeSet<Need> {
        let mut needs = self.container.needs();
        needs.extend(self.health.checks().filter_map(|check| match check.look {
            Look::Http(_) => Some(Need::HttpChecks),
            Look::Command(_) => Some(Need::CommandChecks),
            Look::Listening | Look::Uptime(_) => None,
        }));
        let asked = [
            (Need::Readiness, !self.health.readiness.is_empty()),
            (Need::Liveness, !self.health.liveness.is_empty()),
            (Need::Sleep, self.idle.is_some()),
        ];
        needs.extend(asked.into_iter().filter_map(|(need, is_asked)| is_asked.then_some(need)));
        needs
    }
}

impl Container {
    /// What it asks for of that which an engine may not be able to do.
    pub fn needs(&self) -> BTreeSet<Need> {
        let asked = [(Need::DiskLimit, self.limits.disk_bytes), (Need::FileLimit, self.limits.files)];
        asked.into_iter().filter_map(|(need, limit)| limit.map(|_| need)).collect()
    }
}

/// Refuses what `needs` has and `able` has not.
pub(crate) fn refuse(what: &impl fmt::Display, needs: &BTreeSet<Need>, able: &[Need]) -> Result<(), EngineError> {
    let missing: Vec<_> = needs.iter().filter(|need| !able.contains(need)).map(Need::to_string).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(EngineError::Unsupported { what: what.to_string(), needs: missing.join(" and ") })
}
