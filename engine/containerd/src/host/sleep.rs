//! Stops what nobody uses, and starts it again when a request waits for it. The controller is not needed for either.
//!
//! A workload that may sleep and got no request for its time *rests* first: routers are told to let go of its instances, which one that
//! has a request or a tunnel on them does not. Once all have let go no request can reach them, and they are stopped; a request that comes
//! from then on waits in its router, which says so. It wakes what sleeps, and ends what rests, whichever it finds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::WorkloadId;
use model::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Host;
use crate::error::Fault;
use crate::files;

/// Between two looks at who is not used.
const LOOK: Duration = Duration::from_secs(1);
/// How long routers are waited for, that they say whether they let go.
const ANSWERS: Duration = Duration::from_secs(5);

/// That a workload sleeps, as it is written down.
#[derive(Serialize, Deserialize)]
struct Asleep {
    workload: WorkloadId,
    since: Timestamp,
}

/// How many requests a workload had got when it was last seen to get one, and when that was.
struct Quiet {
    requests: u64,
    since: Instant,
}

/// Who sleeps, and since when. What is written is what counts: a wake removes it before anything starts.
pub(super) fn load(dir: &Path) -> BTreeMap<WorkloadId, Timestamp> {
    let asleep = files::names(dir).into_iter().filter_map(|name| files::read_json::<Asleep>(&dir.join(name)));
    asleep.map(|asleep| (asleep.workload, asleep.since)).collect()
}

fn path(dir: &Path, id: &WorkloadId) -> PathBuf {
    dir.join(format!("{id}.json"))
}

impl Host {
    /// Puts to sleep and wakes for as long as the process lives.
    pub(crate) async fn keep_asleep(self: &Arc<Self>) {
        let mut quiet = BTreeMap::new();
        let mut news = self.feed.traffic().news();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            for wanted in self.feed.traffic().take_wanted() {
                self.wake(&wanted);
            }
            tokio::select! {
                // The sender lives in `self`.
                _ = news.changed() => {}
                _ = looks.tick() => self.look_for_unused(&mut quiet),
            }
        }
    }

    fn look_for_unused(self: &Arc<Self>, quiet: &mut BTreeMap<WorkloadId, Quiet>) {
        let now = Instant::now();
        let mut unused = Vec::new();
        let mut seen = BTreeMap::new();
        {
            let state = self.lock();
            for (wish, healthy) in state.awake() {
                let (id, Some(idle)) = (&wish.workload.id, wish.workload.idle) else { continue };
                let requests = self.feed.traffic().of(id).requests;
                let before = quiet.remove(id).filter(|before| healthy.is_some() && before.requests >= requests);
                // Counts are forgotten in time: fewer than before are no news.
                let before = before.unwrap_or(Quiet { requests, since: now });
                let is_due = healthy.is_some() && now.duration_since(before.since) >= idle;
                let since = if is_due { now } else { before.since };
                if is_due {
                    unused.push(id.clone());
                }
                seen.insert(id.clone(), Quiet { requests, since });
            }
        }
        *quiet = seen;
        for id in unused {
            let host = Arc::clone(self);
            tokio::spawn(async move { host.rest(id).await });
        }
    }

    /// Puts a workload to sleep if no router has any use for it.
    async fn rest(self: Arc<Self>, id: WorkloadId) {
        let Some(wish) = self.wish_of(&id) else { return };
        let (app, number) = (wish.workload.app, wish.workload.quantity);
        let instances = self.lock().begin_rest(&id);
        let Some(instances) = instances else { return };
        let version = self.publish(app, &id);
        let let_go = self.feed.rested(&instances, version, ANSWERS).await;
        let since = self.now();
        let noted = let_go && self.note_asleep(&id, since);
        let sleeps = {
            let mut state = self.lock();
            let sleeps = noted && state.fall_asleep(&id, (&instances, version), since);
            state.end_rest(&id);
            sleeps
        };
        if sleeps {
            let idle = wish.workload.idle.unwrap_or_default().as_secs();
            for number in 1..=number {
                self.say(app, &wish.workload.dyno(number), &format!("Idling: no request for {idle} s"));
            }
            self.reconcile(app);
            self.notify(app);
        } else {
            if noted {
                self.forget_sleep(&id);
            }
            self.publish(app, &id);
        }
    }

    /// A request waits for a workload that has no instance which could take it.
    fn wake(self: &Arc<Self>, id: &WorkloadId) {
        let Some(wish) = self.wish_of(id) else { return };
        let app = wish.workload.app;
        let (rested, slept) = {
            let mut state = self.lock();
            (state.end_rest(id), state.wake(id))
        };
        if slept {
            self.forget_sleep(id);
            for number in 1..=wish.workload.quantity {
                self.say(app, &wish.workload.dyno(number), "Unidling: a request waits");
            }
            self.reconcile(app);
            self.notify(app);
        } else if rested {
            self.publish(app, id);
        }
    }

    /// Notes that a workload sleeps, for another life of this role; false if that cannot be.
    fn note_asleep(&self, id: &WorkloadId, since: Timestamp) -> bool {
        let asleep = Asleep { workload: id.clone(), since };
        let noted = files::write_json(&path(&self.settings.asleep(), id), &asleep);
        if let Err(fault) = &noted {
            tracing::warn!(workload.id = %id, error = %fault, "cannot note that a workload sleeps, so it does not");
        }
        noted.is_ok()
    }

    /// Notes that a workload does not sleep.
    pub(super) fn forget_sleep(&self, id: &WorkloadId) {
        let forgotten: Result<(), Fault> = files::forget_json(&path(&self.settings.asleep(), id));
        if let Err(fault) = forgotten {
            tracing::warn!(workload.id = %id, error = %fault, "cannot note that a workload is awake");
        }
    }
}
