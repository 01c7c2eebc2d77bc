//! The role's state, and the one path that brings what runs to what is desired.

mod capacity;
mod oneoffs;
mod removal;
mod services;
mod sleep;
mod state;
mod volumes;
mod wishes;
mod within;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use engine::feed::Feed;
use engine::{Change, Changes, Instance, WorkloadId};
use model::routes::{Proof, WorkloadAddresses};
use model::{AppId, DynoName, LogSource, Timestamp};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::state::Switch;
use self::state::{Held, State, addresses};
pub(crate) use self::wishes::ABLE;
pub(crate) use self::within::Within;
use crate::cgroup;
use crate::containerd::Containerd;
use crate::disk::Blanks;
use crate::error::{Fault, HostError};
use crate::exec;
use crate::files::{self, Folder, Record, Running, Wish};
use crate::logs::Watcher;
use crate::netns;
use crate::network::Network;
use crate::oneoff;
use crate::orphans;
use crate::past::{self, Past};
use crate::settings::HostSettings;
use crate::shims;
use crate::slot::{self, Slot};
use crate::tenants::{Tenant, Tenants};
use crate::users::Ranges;
use crate::volumes::Volumes;

/// Containers that are made at once, for each processor. More take no less time together, and the first of them as long as the last.
const STARTS_PER_CORE: usize = 2;

/// The role.
pub(crate) struct Host {
    pub(crate) settings: HostSettings,
    pub(crate) containerd: Containerd,
    pub(crate) network: Network,
    pub(crate) blanks: Blanks,
    pub(crate) volumes: Volumes,
    pub(crate) tenants: Tenants,
    pub(crate) ranges: Ranges,
    pub(crate) watcher: Watcher,
    pub(crate) cgroups: cgroup::Version,
    /// One for each container that may be in the making.
    starts: Semaphore,
    /// Routers follow this.
    pub(crate) feed: Feed<WorkloadId, WorkloadAddresses>,
    /// Told after each removal: what it may have left shows soon.
    pub(crate) removed: Notify,
    state: Mutex<State>,
    /// For those who follow from outside.
    changes: Changes,
    /// For those who wait in here.
    changed: watch::Sender<u64>,
    /// Held while a wish is made durable, so that the files agree with `state.desired`.
    wishes: tokio::sync::Mutex<()>,
}

/// A container of which an earlier life left something.
pub(crate) struct Left {
    id: String,
    record: Record,
    /// Only if its process still lives.
    running: Option<Running>,
}

/// How keeping a number of a workload alive begins.
enum Begin {
    /// With a new container. `replaces` is told to stop once it is up or has failed.
    Anew { number: u32, replaces: Option<CancellationToken> },
    /// With one that runs already.
    With(Box<Instance>, Option<Proof>),
}

impl Host {
    /// Reads what is desired and what an earlier life left, and sets up what all containers share.
    pub(crate) async fn open(settings: HostSettings) -> Result<(Arc<Self>, Vec<Left>), HostError> {
        let trouble = |fault| match fault {
            Fault::Files { action, path, source } => HostError::Files { action, path, source },
            other => HostError::Network(other.to_string()),
        };
        let [workloads, instances, ended] = [settings.workloads(), settings.instances(), settings.ended()];
        let (asleep, egress) = (settings.asleep(), settings.egress());
        for dir in [workloads, instances, ended, settings.pasts(), asleep, egress, settings.netns(), settings.leases()]
        {
            files::make_private(&dir).map_err(trouble)?;
        }
        let blanks = Blanks::open(settings.blanks()).map_err(trouble)?;
        let volumes = Volumes::open(settings.volumes()).map_err(trouble)?;
        let pasts = past::load(&settings.pasts());
        let mut state = State::new(files::load_wishes(&settings.workloads()), pasts, sleep::load(&settings.asleep()));
        state.egress = files::load_egress(&settings.egress()).map_err(trouble)?;
        state.links = files::load_links(&settings.links());
        let left = left(&settings);
        let tenant = |left: &Left| Tenant::of(&left.record).at(left.running.map(|running| running.address));
        let tenants = Tenants::new(left.iter().map(|left| (left.id.clone(), tenant(left))).collect());
        let ranges = ranges(&settings);
        let containerd = Containerd::new(&settings)?;
        let network = Network::open(&settings, services::passages(&state, &tenants)).await?;
        let feed = Feed::new(BTreeMap::new());
        feed.expect_return(&settings.addresses_socket());
        let watcher = Watcher::start().map_err(|source| HostError::Files {
            action: "watch",
            path: settings.instances(),
            source,
        })?;
        let host = Arc::new(Self {
            settings,
            containerd,
            network,
            blanks,
            volumes,
            tenants,
            ranges,
            watcher,
            cgroups: cgroup::Version::detect(),
            starts: Semaphore::new(available_parallelism().map_or(1, NonZero::get).max(2) * STARTS_PER_CORE),
            feed,
            removed: Notify::new(),
            state: Mutex::new(state),
            changes: Changes::default(),
            changed: watch::Sender::new(0),
            wishes: tokio::sync::Mutex::new(()),
        });
        Ok((host, left))
    }

    /// Takes over the containers that an earlier life of this role left running, starts what is missing, and removes the
    /// rest. Takes over first: a healthy instance is in the route table before anybody can ask for it.
    pub(crate) fn recover(self: &Arc<Self>, left: Vec<Left>) {
        for Left { id, record, running } in left {
            match (record, running) {
                // That of one with a log is still to be told, though it has ended.
                (Record::OneOff { oneoff, deadline }, _) => oneoff::adopt(self, *oneoff, deadline, running),
                (Record::Instance { wish, number }, Some(running)) => {
                    exec::clear(self, &id);
                    let wish = self.newest(*wish);
                    let instance = slot::as_left(&self.folder(&id), &wish.workload, number, (id, running));
                    self.spawn_slot(&Arc::new(wish), Begin::With(Box::new(instance), netns::proof(running.pid)));
                }
                (Record::Instance { .. }, None) => {}
            }
        }
        self.reconcile_all();
        let gone = std::mem::take(&mut self.lock().pasts);
        for number in gone.keys() {
            self.forget_past(number);
        }
        tokio::spawn(orphans::remove(Arc::clone(self)));
        let host = Arc::clone(self);
        tokio::spawn(async move { host.network.firewall.keep().await });
    }

    /// The wish as it is now, if an instance that was started by an earlier one is still what it asks for.
    fn newest(&self, started_by: Wish) -> Wish {
        let now = self.wish_of(&started_by.workload.id);
        let same = |now: &Wish| started_by.workload.changed_to(now.workload.clone()).is_ok();
        now.filter(same).unwrap_or(started_by)
    }

    /// Brings what runs to what is desired, of every app.
    pub(crate) fn reconcile_all(self: &Arc<Self>) {
        let apps = self.lock().apps();
        for app in apps {
            self.reconcile(app);
        }
    }

    /// Brings what runs of an app to what is desired: the same after an apply, a crash, and a restart of this role.
    pub(crate) fn reconcile(self: &Arc<Self>, app: AppId) {
        let missing = {
            let state = self.lock();
            for held in state.slots_of(app) {
                if held.instance.dyno.number > state.wanted(&held.wish.workload.id) {
                    held.stop.cancel();
                }
            }
            let kept: BTreeSet<(&WorkloadId, u32)> = state
                .slots_of(app)
                .filter(|held| !held.stop.is_cancelled())
                .map(|held| (&held.wish.workload.id, held.instance.dyno.number))
                .collect();
            let mut missing = Vec::new();
            for wish in state.wishes_of(app) {
                let id = &wish.workload.id;
                let numbers: Vec<u32> =
                    (1..=state.wanted(id)).filter(|number| !kept.contains(&(id, *number))).collect();
                if !numbers.is_empty() {
                    missing.push((Arc::new(wish.clone()), numbers));
                }
            }
            missing
        };
        for (wish, numbers) in missing {
            for number in numbers {
                self.spawn_slot(&wish, Begin::Anew { number, replaces: None });
            }
        }
    }

    /// Keeps one number of a workload alive from now on.
    fn spawn_slot(self: &Arc<Self>, wish: &Arc<Wish>, begin: Begin) {
        let (mut instance, proof, adopted, replaces) = match begin {
            Begin::Anew { number, replaces } => {
                (Instance::new(self.new_id(), wish.workload.dyno(number), self.now()), None, false, replaces)
            }
            Begin::With(instance, proof) => (*instance, proof, true, None),
        };
        let (number, stop) = (instance.dyno.number, CancellationToken::new());
        let whose = (wish.workload.id.clone(), number);
        let past = self.lock().pasts.remove(&whose).unwrap_or_default();
        past.show(&mut instance);
        if !adopted && past.waits() {
            instance.state = Past::state(past.pause(&wish.workload.restart), self.now());
        } else if past == Past::default() {
            // What is noted is of one before, and whoever asked for another one mended it, too.
            self.forget_past(&whose);
        }
        let key =
            self.lock().hold(Held { wish: Arc::clone(wish), instance, proof, rested_in: None, stop: stop.clone() });
        let (app, id) = (wish.workload.app, wish.workload.id.clone());
        self.publish(app, &id);
        let slot = Slot { host: Arc::clone(self), key, wish: Arc::clone(wish), number, stop, replaces };
        let host = Arc::clone(self);
        tokio::spawn(async move {
            // In a task of its own, so that a slot whose code panics is replaced like one that ended.
            if let Err(panic) = tokio::spawn(slot::keep_alive(slot, past, adopted)).await {
                tracing::error!(workload.id = %id, error = %panic, "an instance's keeper died");
            }
            if host.lock().let_go(key) {
                host.forget_past(&whose);
            }
            host.publish(app, &id);
            host.reconcile(app);
        });
    }

    fn forget_past(&self, number: &past::Number) {
        if let Err(fault) = past::forget(&self.settings.pasts(), number) {
            tracing::warn!(workload.id = %number.0, error = %fault, "crashes cannot be forgotten");
        }
    }

    /// The ids of all containers that belong to somebody, if only to who removes them.
    pub(crate) fn known(&self) -> BTreeSet<String> {
        let state = self.lock();
        let instances = state.slots().map(|held| held.instance.id.clone());
        let oneoffs = state.oneoffs.keys().map(|oneoff| oneoff.0.clone());
        instances.chain(oneoffs).chain(state.doomed.iter().cloned()).collect()
    }

    /// Changes what is known of a slot's instance, from now on unless it says since when, tells routers and callers, and returns the version of the route table
    /// that says so.
    pub(crate) fn update(&self, key: u64, change: impl FnOnce(&mut Instance)) -> u64 {
        let workload = {
            let mut state = self.lock();
            let Some(held) = state.slot_mut(key) else { return 0 };
            let before = (held.instance.state, held.instance.since);
            change(&mut held.instance);
            if held.instance.state != before.0 && held.instance.since == before.1 {
                held.instance.since = self.now();
            }
            (held.wish.workload.app, held.wish.workload.id.clone())
        };
        self.publish(workload.0, &workload.1)
    }

    /// Notes which process it is that a slot's instance runs: routers prove its address by it.
    pub(crate) fn set_process(&self, key: u64, pid: u32) {
        if let Some(held) = self.lock().slot_mut(key) {
            held.proof = netns::proof(pid);
        }
    }

    /// The version of the route table by which every router let go of a slot's instance, if that is why it stops.
    pub(crate) fn rested_in(&self, key: u64) -> Option<u64> {
        self.lock().slot(key).and_then(|held| held.rested_in)
    }

    /// What is wished of a slot's workload now.
    pub(crate) fn wish(&self, key: u64) -> Option<Arc<Wish>> {
        self.lock().slot(key).map(|held| Arc::clone(&held.wish))
    }

    /// What is known of a slot's instance.
    pub(crate) fn instance(&self, key: u64) -> Option<Instance> {
        self.lock().slot(key).map(|held| held.instance.clone())
    }

    fn publish(&self, app: AppId, id: &WorkloadId) -> u64 {
        let version = {
            let mut state = self.lock();
            let slots = state.slots_of(app).filter(|held| held.wish.workload.id == *id);
            let routed = slots.filter(|held| held.wish.workload.is_routed()).collect::<Vec<_>>();
            let row = (!routed.is_empty()).then(|| addresses(&routed, state.is_resting(id)));
            state.shown.extend(row.iter().flat_map(|row| &row.healthy).map(|endpoint| endpoint.instance.clone()));
            self.feed.set(id, row)
        };
        self.notify(app);
        version
    }

    /// Tells everybody that something of an app changed.
    fn notify(&self, app: AppId) {
        self.changes.tell(Change::App(app));
        self.moved();
    }

    /// Tells those who wait in here.
    fn moved(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Writes a line of the platform about a dyno into its app's log.
    pub(crate) fn say(&self, app: AppId, dyno: &DynoName, line: &str) {
        self.settings.log.write(app, self.now(), &LogSource::platform(dyno), line);
    }

    /// Waits until one more container may be made, which is so as long as the answer is held.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.starts.acquire().await.ok()
    }

    pub(crate) fn folder(&self, id: &str) -> Folder {
        Folder::new(&self.settings.instances(), id)
    }

    /// The cgroup of a container, from the hierarchy's root.
    pub(crate) fn cgroup(&self, id: &str) -> PathBuf {
        PathBuf::from(format!("/{}/{id}", self.settings.namespace))
    }

    /// By what our shims are told from others.
    pub(crate) fn shims(&self) -> shims::Owner<'_> {
        shims::Owner { socket: &self.settings.containerd_socket, namespace: &self.settings.namespace }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    pub(crate) fn new_id(&self) -> String {
        let mut bytes = [0; 8];
        self.settings.random.fill(&mut bytes);
        hex::encode(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the state is whole after every statement anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has which range of users. Also a folder without a record may still have files of one.
fn ranges(settings: &HostSettings) -> Ranges {
    let ids = files::names(&settings.instances()).into_iter();
    Ranges::new(ids.filter_map(|id| Some((id.clone(), Folder::new(&settings.instances(), &id).range()?))).collect())
}

/// What is there of containers, by their folders.
fn left(settings: &HostSettings) -> Vec<Left> {
    let ids = files::names(&settings.instances()).into_iter();
    ids.filter_map(|id| {
        let folder = Folder::new(&settings.instances(), &id);
        let record = folder.record()?;
        let lives = |running: &Running| netns::holds(&settings.netns().join(&id), running.pid);
        let running = folder.running().filter(lives);
        Some(Left { id, record, running })
    })
    .collect()
}
