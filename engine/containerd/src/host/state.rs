//! What the role knows while it lives; all but the wishes can be found out again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::{Demand, Instance, InstanceState, Link, OneOffId, Workload, WorkloadId};
use model::routes::{Endpoint, Proof, WorkloadAddresses};
use model::{AppId, Egress, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::files::Wish;
use crate::past::{Number, Past};

#[derive(Default)]
pub(super) struct State {
    desired: BTreeMap<WorkloadId, Wish>,
    slots: BTreeMap<u64, Held>,
    next_slot: u64,
    /// What of both each app has, so that what is done for one does not grow with the others.
    own: BTreeMap<AppId, Own>,
    /// The wishes for services.
    services: BTreeSet<WorkloadId>,
    /// What all wishes may use, so that it need not be summed up each time.
    demand: Demand,
    pub(super) oneoffs: BTreeMap<OneOffId, Switch>,
    /// Containers that are being removed.
    pub(super) doomed: BTreeSet<String>,
    /// Containers that routers were told of.
    pub(super) shown: BTreeSet<String>,
    /// What an earlier life knew of numbers that this one has not begun to keep.
    pub(super) pasts: BTreeMap<Number, Past>,
    /// The wishes of which the last instance stops when nobody uses them.
    sleepy: BTreeSet<WorkloadId>,
    /// Those of them that sleep, and since when.
    asleep: BTreeMap<WorkloadId, Timestamp>,
    /// Those whose instances are to rest: routers are asked whether they let go of them.
    resting: BTreeSet<WorkloadId>,
    /// What apps may reach outside, where that is not everything.
    pub(super) egress: BTreeMap<AppId, Egress>,
    /// Which apps reach which others.
    pub(super) links: BTreeSet<Link>,
    /// Nothing may start any more in this life.
    pub(super) going_down: bool,
}

#[derive(Default)]
struct Own {
    desired: BTreeSet<WorkloadId>,
    slots: BTreeSet<u64>,
}

impl State {
    pub(super) fn new(
        wishes: Vec<Wish>,
        pasts: BTreeMap<Number, Past>,
        asleep: BTreeMap<WorkloadId, Timestamp>,
    ) -> Self {
        let mut state = Self { pasts, asleep, ..Self::default() };
        for wish in wishes {
            state.wish(wish);
        }
        let sleepy = &state.sleepy;
        state.asleep.retain(|id, _| sleepy.contains(id));
        state
    }

    /// How many instances of a workload shall run now.
    pub(super) fn wanted(&self, id: &WorkloadId) -> u32 {
        if self.going_down || self.asleep.contains_key(id) {
            return 0;
        }
        self.desired.get(id).map_or(0, |wish| wish.workload.quantity)
    }

    /// Takes a wish in, and tells those who keep its instances alive.
    pub(super) fn wish(&mut self, wish: Wish) {
        let (app, id) = (wish.workload.app, wish.workload.id.clone());
        let own = self.own.entry(app).or_default();
        own.desired.insert(id.clone());
        let shared = Arc::new(wish.clone());
        for key in &own.slots {
            if let Some(held) = self.slots.get_mut(key).filter(|held| held.wish.workload.id == id) {
                held.wish = Arc::clone(&shared);
            }
        }
        if wish.workload.service.is_some() {
            self.services.insert(id.clone());
        }
        if wish.workload.idle.is_some() {
            self.sleepy.insert(id.clone());
        } else {
            self.forget_sleep(&id);
        }
        self.demand += Demand::from(&wish.workload);
        if let Some(before) = self.desired.insert(id, wish) {
            self.demand = self.demand.without((&before.workload).into());
        }
    }

    fn forget_sleep(&mut self, id: &WorkloadId) {
        self.sleepy.remove(id);
        self.asleep.remove(id);
        self.resting.remove(id);
    }

    /// Gives a wish up.
    pub(super) fn forget(&mut self, id: &WorkloadId) -> Option<Wish> {
        let wish = self.desired.remove(id)?;
        self.services.remove(id);
        self.forget_sleep(id);
        self.demand = self.demand.without((&wish.workload).into());
        self.change_own(wish.workload.app, |own| {
            own.desired.remove(id);
        });
        Some(wish)
    }

    /// What all wishes and all one-offs may use.
    pub(super) fn demand(&self) -> Demand {
        let oneoffs = self.oneoffs.values().map(|switch| switch.demand);
        oneoffs.chain([self.demand]).sum()
    }

    /// Keeps a number of a workload; the answer is how to get at it.
    pub(super) fn hold(&mut self, held: Held) -> u64 {
        let key = self.next_slot;
        self.next_slot += 1;
        self.own.entry(held.wish.workload.app).or_default().slots.insert(key);
        self.slots.insert(key, held);
        key
    }

    /// Keeps a number no more; says whether nobody else keeps it.
    pub(super) fn let_go(&mut self, key: u64) -> bool {
        let Some(held) = self.slots.remove(&key) else { return false };
        let (app, id, number) = (held.wish.workload.app, &held.wish.workload.id, held.instance.dyno.number);
        self.change_own(app, |own| {
            own.slots.remove(&key);
        });
        !self.slots_of(app).any(|other| other.wish.workload.id == *id && other.instance.dyno.number == number)
    }

    fn change_own(&mut self, app: AppId, change: impl FnOnce(&mut Own)) {
        if let Entry::Occupied(mut own) = self.own.entry(app) {
            change(own.get_mut());
            if own.get().desired.is_empty() && own.get().slots.is_empty() {
                own.remove();
            }
        }
    }

    pub(super) fn wish_of(&self, id: &WorkloadId) -> Option<&Wish> {
        self.desired.get(id)
    }

    pub(super) fn wishes(&self) -> impl Iterator<Item = &Wish> {
        self.desired.values()
    }

    /// The wishes for services.
    pub(super) fn services(&self) -> impl Iterator<Item = &Wish> {
        self.services.iter().filter_map(|id| self.desired.get(id))
    }

    pub(super) fn wishes_of(&self, app: AppId) -> impl Iterator<Item = &Wish> {
        let own = self.own.get(&app).into_iter().flat_map(|own| &own.desired);
        own.filter_map(|id| self.desired.get(id))
    }

    /// Since when a workload sleeps, if it does.
    pub(super) fn asleep(&self, id: &WorkloadId) -> Option<Timestamp> {
        self.asleep.get(id).copied()
    }

    /// The wishes that may sleep and do not, each with its instances if all that there should be are there and healthy.
    pub(super) fn awake(&self) -> impl Iterator<Item = (&Wish, Option<Vec<&Held>>)> {
        let awake = self.sleepy.iter().filter(|id| !self.asleep.contains_key(*id));
        awake.filter_map(|id| self.desired.get(id)).map(|wish| (wish, self.all_healthy(wish)))
    }

    fn all_healthy(&self, wish: &Wish) -> Option<Vec<&Held>> {
        let Workload { id, app, quantity, .. } = &wish.workload;
        let slots: Vec<_> = self.slots_of(*app).filter(|held| held.wish.workload.id == *id).collect();
        let works = |held: &&Held| held.instance.is_healthy() && !held.stop.is_cancelled();
        let are_all = usize::try_from(*quantity).is_ok_and(|quantity| slots.len() == quantity);
        (are_all && *quantity > 0 && !self.going_down && slots.iter().all(works)).then_some(slots)
    }

    /// Begins to ask whether a workload may sleep; the answer is who would stop. None if something is not as it should be, or
    /// somebody asks already.
    pub(super) fn begin_rest(&mut self, id: &WorkloadId) -> Option<Vec<String>> {
        let wish = self.desired.get(id).filter(|wish| wish.workload.idle.is_some() && !self.asleep.contains_key(id))?;
        let instances = self.all_healthy(wish)?.iter().map(|held| held.instance.id.clone()).collect();
        self.resting.insert(id.clone()).then_some(instances)
    }

    /// Puts a workload to sleep whose routers let go of these instances in this version of their table; false if it is wanted, or no
    /// longer as it was.
    pub(super) fn fall_asleep(&mut self, id: &WorkloadId, rest: (&[String], u64), now: Timestamp) -> bool {
        let (instances, version) = rest;
        let wish = self.desired.get(id).filter(|_| self.resting.contains(id));
        let slots = wish.and_then(|wish| self.all_healthy(wish)).unwrap_or_default();
        let are_same = slots.len() == instances.len() && slots.iter().all(|held| instances.contains(&held.instance.id));
        let app = wish.map(|wish| wish.workload.app).filter(|_| are_same && !instances.is_empty());
        let Some(app) = app else { return false };
        let keys: Vec<u64> = self.own.get(&app).into_iter().flat_map(|own| own.slots.iter().copied()).collect();
        for key in keys {
            if let Some(held) = self.slots.get_mut(&key).filter(|held| held.wish.workload.id == *id) {
                held.rested_in = Some(version);
            }
        }
        self.asleep.insert(id.clone(), now);
        true
    }

    /// Asks no longer whether a workload may sleep; false if nobody did.
    pub(super) fn end_rest(&mut self, id: &WorkloadId) -> bool {
        self.resting.remove(id)
    }

    /// Wakes a workload; false if it does not sleep.
    pub(super) fn wake(&mut self, id: &WorkloadId) -> bool {
        self.asleep.remove(id).is_some()
    }

    /// Whether routers are asked to let go of a workload's instances.
    pub(super) fn is_resting(&self, id: &WorkloadId) -> bool {
        self.resting.contains(id)
    }

    pub(super) fn slot(&self, key: u64) -> Option<&Held> {
        self.slots.get(&key)
    }

    pub(super) fn slot_mut(&mut self, key: u64) -> Option<&mut Held> {
        self.slots.get_mut(&key)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Held> {
        self.slots.values()
    }

    pub(super) fn slots_of(&self, app: AppId) -> impl Iterator<Item = &Held> {
        let own = self.own.get(&app).into_iter().flat_map(|own| &own.slots);
        own.filter_map(|key| self.slots.get(key))
    }

    /// The apps of which anything is wished or held.
    pub(super) fn apps(&self) -> Vec<AppId> {
        self.own.keys().copied().collect()
    }

    /// Whether no instance and no one-off is left.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.oneoffs.is_empty()
    }
}

/// How a one-off is told to end.
#[derive(Debug, Clone)]
pub(crate) struct Switch {
    pub(crate) app: AppId,
    pub(crate) demand: Demand,
    /// Gracefully.
    pub(crate) stop: CancellationToken,
    /// At once.
    pub(crate) kill: CancellationToken,
    /// From SIGTERM to SIGKILL.
    pub(crate) grace: Duration,
}

/// One number of a workload that is kept alive, or on its way down.
pub(super) struct Held {
    pub(super) wish: Arc<Wish>,
    pub(super) instance: Instance,
    /// That the instance has its address, once its process is there.
    pub(super) proof: Option<Proof>,
    /// The version of the route table by which every router let go of it, if that is why it stops.
    pub(super) rested_in: Option<u64>,
    pub(super) stop: CancellationToken,
}

/// What routers are told of a workload; with `resting`, its healthy instances are to stop if nobody uses them.
pub(super) fn addresses(slots: &[&Held], resting: bool) -> WorkloadAddresses {
    let mut row = WorkloadAddresses::default();
    for held in slots {
        row.drain = held.wish.workload.drain;
        let instance = &held.instance;
        match (instance.state, instance.address) {
            (InstanceState::Up, Some(address)) if instance.ready => {
                let (instance, dyno) = (instance.id.clone(), instance.dyno.to_string());
                let endpoint = Endpoint { instance, dyno, address, proof: held.proof };
                if resting { row.resting.push(endpoint) } else { row.healthy.push(endpoint) }
            }
            // One that is not ready may be soon, like one that starts.
            (InstanceState::Up | InstanceState::Starting, _) => row.starting += 1,
            (InstanceState::Crashed { .. } | InstanceState::GaveUp, _) => row.crashed += 1,
            // On its way down without having been told to: it ended by itself and is being cleaned up.
            (InstanceState::Stopping, _) if !held.stop.is_cancelled() => row.crashed += 1,
            (InstanceState::Stopping, _) => {}
        }
    }
    row
}
