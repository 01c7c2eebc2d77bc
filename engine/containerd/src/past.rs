//! What the lives of a number leave behind for the next one, also for another life of this role: how often it crashed, and since
//! when it waits to be tried again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::{Instance, InstanceState, ProbeReport, Restart, WorkloadId};
use model::{Exit, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::files::{forget_json, names, read_json, write_json};
use crate::moment::Moment;

/// Whose past it is.
pub(crate) type Number = (WorkloadId, u32);

/// The past of one number of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Past {
    /// Crashes in a row.
    pub(crate) crashes: u32,
    /// How often it was started again, in a row or not.
    pub(crate) restarts: u32,
    /// How the last life ended.
    pub(crate) last_exit: Option<Exit>,
    /// The limit that it outgrew, if it ended by that.
    #[serde(default)]
    pub(crate) oom_limit: Option<u64>,
    /// What its checks saw then.
    pub(crate) probe: Option<ProbeReport>,
    /// Since when it waits for its next life; none while it lives.
    pub(crate) waits_since: Option<Moment>,
}

/// As it is written down.
#[derive(Serialize, Deserialize)]
struct Kept {
    workload: WorkloadId,
    number: u32,
    past: Past,
}

impl Past {
    /// Counts a crash after a life of `lived`.
    pub(crate) fn crashed(&mut self, (exit, probe): (Exit, Option<ProbeReport>), lived: Duration, restart: &Restart) {
        self.crashes = if lived >= restart.stable { 1 } else { self.crashes.saturating_add(1) };
        self.last_exit = Some(exit);
        self.probe = probe;
        self.waits_since = Some(Moment::now());
    }

    /// How much longer it waits for its next life; none if it has none. What it lacked may be there after a reboot: it waits no
    /// longer, though nothing is forgotten.
    pub(crate) fn pause(&self, restart: &Restart) -> Option<Duration> {
        let waited = self.waits_since.and_then(|since| Moment::now().since(since));
        waited.map_or(Some(Duration::ZERO), |waited| Some(restart.pause(self.crashes)?.saturating_sub(waited)))
    }

    /// Whether the last life is over and no other has begun.
    pub(crate) fn waits(&self) -> bool {
        self.waits_since.is_some()
    }

    /// Shows it on the instance that waits, or that lives now.
    pub(crate) fn show(&self, instance: &mut Instance) {
        (instance.crashes, instance.restarts) = (self.crashes, self.restarts);
        (instance.last_exit, instance.oom_limit) = (self.last_exit, self.oom_limit);
        if self.waits() {
            instance.probe.clone_from(&self.probe);
        }
    }

    /// What an instance does that waits for so long.
    pub(crate) fn state(pause: Option<Duration>, now: Timestamp) -> InstanceState {
        pause.map_or(InstanceState::GaveUp, |pause| InstanceState::Crashed { retry_at: now.after(pause) })
    }
}

/// Everybody's past, in a folder.
pub(crate) fn load(dir: &Path) -> BTreeMap<Number, Past> {
    let kept = names(dir).into_iter().filter_map(|name| read_json::<Kept>(&dir.join(name)));
    kept.map(|kept| ((kept.workload, kept.number), kept.past)).collect()
}

/// Keeps a past.
pub(crate) fn save(dir: &Path, (workload, number): &Number, past: &Past) -> Result<(), Fault> {
    let kept = Kept { workload: workload.clone(), number: *number, past: past.clone() };
    write_json(&path(dir, (workload, *number)), &kept)
}

/// Forgets a past. One that does not exist is no error.
pub(crate) fn forget(dir: &Path, (workload, number): &Number) -> Result<(), Fault> {
    forget_json(&path(dir, (workload, *number)))
}

fn path(dir: &Path, (workload, number): (&WorkloadId, u32)) -> PathBuf {
    dir.join(format!("{workload}.{number}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_past_outlives_whoever_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let restart = Restart { at_once: 0, first: Duration::from_secs(600), give_up: Some(2), ..Restart::default() };
        let mut past = Past::default();
        assert_eq!(past.pause(&restart), Some(Duration::ZERO), "the first life waits for nothing");
        let crash = |past: &mut Past, lived| past.crashed((Exit::Code(3), None), Duration::from_secs(lived), &restart);
        crash(&mut past, 1);
        crash(&mut past, 1);
        let number = (WorkloadId("app.v1.web.basic".to_owned()), 2);
        save(folder.path(), &number, &past).expect("saved");
        let mut loaded = load(folder.path());
        assert_eq!(loaded.remove(&number), Some(past.clone()));
        let pause = past.pause(&restart).expect("it is tried again");
        assert!(pause > Duration::from_secs(900) && pause <= restart.longest, "{pause:?}");
        crash(&mut past, 1);
        assert_eq!(past.pause(&restart), None, "that was one too many");
        let rebooted = r#"{"boot":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"millis":1}"#;
        past.waits_since = Some(serde_json::from_str(rebooted).expect("a moment"));
        assert_eq!(past.pause(&restart), Some(Duration::ZERO), "after a reboot it is tried at once");
        crash(&mut past, 300);
        assert_eq!(past.crashes, 1, "after a long life it is the first in a row");
        forget(folder.path(), &number).expect("forgotten");
        forget(folder.path(), &number).expect("forgetting again is no error");
        assert!(load(folder.path()).is_empty());
    }
}
