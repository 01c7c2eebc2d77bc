//! Counts what becomes of the requests to each workload, and what else workers have to say to publishers. Each worker counts for itself
//! and hands over now and then what it has: no request writes to anything that another core uses.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use model::AppId;
use model::routes::{Ack, WorkloadId};
use model::traffic::{Counts, Detail, Dropped, PathCount, Place};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use crate::paths::Paths;
use crate::table::{Instance, Label};

/// Workers hand over what they counted so often, and publishers are told of that so often: what they know is about a second old.
const INTERVAL: Duration = Duration::from_millis(500);
/// What a workload got is forgotten once it got nothing for so long; another request begins a new count.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Between two looks for what is to be forgotten.
const SWEEP: Duration = Duration::from_secs(60);
/// Most places that are told apart; at half a kilobyte each they take 10 MB. What comes after them is counted together.
const PLACES: usize = 20_000;

/// Most apps whose paths wait to be told of.
const APPS_WAITING: usize = 10_000;

/// What workers say to the control thread.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// No request is left on an instance that left the table.
    Drained(String),
    /// A request waits for a workload without instances.
    Wanted(WorkloadId),
    /// What a worker counted since it last said so.
    Counted(Vec<Counted>),
    /// What came of requests by path since it last said so.
    Asked(Vec<(AppId, Vec<PathCount>)>),
    /// What was left out since this was last said.
    Dropped(Dropped),
}

/// What became of the requests to one place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    place: Place,
    counts: Counts,
    detail: Detail,
}

/// What one worker counted since it last handed it over.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) paths: Paths,
    rows: RefCell<HashMap<Key, Row, RandomState>>,
    /// Something was counted since.
    is_begun: Cell<bool>,
    begun: Notify,
}

/// Whose requests a row counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// Of an instance, or of a workload: serials of both are of one kind.
    Serial(u64),
    /// Nobody looked for an instance.
    App(AppId),
}

/// It stays for as long as requests come: of those, the next one needs no memory of its own.
struct Row {
    app: AppId,
    workload: Option<Arc<Label>>,
    dyno: String,
    counts: Counts,
    detail: Detail,
}

/// Who had a request.
#[derive(Clone, Copy)]
pub(crate) struct Whose<'a> {
    pub(crate) app: AppId,
    pub(crate) instance: Option<&'a Instance>,
    /// Whose instances were looked for.
    pub(crate) workload: Option<&'a Arc<Label>>,
}

impl Tally {
    /// Counts a request. How long it waited is only in the [`Counts`].
    pub(crate) fn count(&self, whose: Whose<'_>, count: impl FnOnce(&mut Counts, &mut Detail)) {
        let Whose { app, instance, workload } = whose;
        let serial = instance.map(|it| it.serial).or(workload.map(|it| it.serial));
        let mut rows = self.rows.borrow_mut();
        let row = rows.entry(serial.map_or(Key::App(app), Key::Serial)).or_insert_with(|| Row {
            app,
            workload: instance.map(|it| &it.label).or(workload).map(Arc::clone),
            dyno: instance.map(|it| it.endpoint.dyno.clone()).unwrap_or_default(),
            counts: Counts::default(),
            detail: Detail::default(),
        });
        count(&mut row.counts, &mut row.detail);
        if !self.is_begun.replace(true) {
            self.begun.notify_one();
        }
    }

    /// Hands over what is counted, for as long as somebody takes it.
    pub(crate) async fn deliver(&self, to: &mpsc::UnboundedSender<News>) {
        loop {
            self.begun.notified().await;
            sleep(INTERVAL).await;
            if to.send(News::Counted(self.take())).is_err() {
                return;
            }
        }
    }

    fn take(&self) -> Vec<Counted> {
        self.is_begun.set(false);
        let mut counted = Vec::new();
        self.rows.borrow_mut().retain(|_, row| {
            let has_any = row.counts.requests > 0;
            if has_any {
                counted.push(row.take());
            }
            has_any
        });
        counted
    }
}

impl Row {
    fn take(&mut self) -> Counted {
        let counts = std::mem::take(&mut self.counts);
        let workload = self.workload.as_ref().map(|label| label.id.clone());
        let place = Place { app: Some(self.app), workload, dyno: self.dyno.clone() };
        let detail = Detail { latency: counts.latency, ..self.detail.clone() };
        self.detail.clear();
        Counted { place, counts, detail }
    }
}

/// What all workers counted since the router started.
pub(crate) struct Totals {
    rows: HashMap<WorkloadId, Total<Counts>>,
    details: HashMap<Place, Total<Detail>>,
    dropped: Dropped,
    next_life: u64,
    swept: Instant,
}

struct Total<C> {
    counts: C,
    moved: Instant,
}

impl Totals {
    /// None yet. Counts get numbers from `first_life` on, which no earlier router gave out.
    pub(crate) fn new(first_life: u64) -> Self {
        let dropped = Dropped { life: first_life, ..Dropped::default() };
        let (rows, details) = (HashMap::new(), HashMap::new());
        Self { rows, details, dropped, next_life: first_life.wrapping_add(1), swept: Instant::now() }
    }

    /// The answer is under which places what was counted is remembered.
    fn add(&mut self, counted: Vec<Counted>) -> Vec<Place> {
        let now = Instant::now();
        let places = counted.into_iter().map(|Counted { place, counts, detail }| {
            if let Some(workload) = &place.workload {
                if !self.rows.contains_key(workload) {
                    let total = Total { counts: Counts { life: self.new_life(), ..Counts::default() }, moved: now };
                    self.rows.insert(workload.clone(), total);
                }
                if let Some(total) = self.rows.get_mut(workload) {
                    total.counts.add(&counts);
                    total.moved = now;
                }
            }
            self.add_detail(place, &detail, now)
        });
        let places = places.collect();
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.rows.retain(|_, total| now.duration_since(total.moved) < REMEMBERED);
            self.details.retain(|_, total| now.duration_since(total.moved) < REMEMBERED);
        }
        places
    }

    fn add_detail(&mut self, mut place: Place, detail: &Detail, now: Instant) -> Place {
        if !self.details.contains_key(&place) {
            if self.details.len() >= PLACES {
                place = Place { app: None, workload: None, dyno: String::new() };
            }
            let life = self.new_life();
            let new = || Total { counts: Detail { life, ..Detail::default() }, moved: now };
            self.details.entry(place.clone()).or_insert_with(new);
        }
        if let Some(total) = self.details.get_mut(&place) {
            total.counts.add(detail);
            total.moved = now;
        }
        place
    }

    fn new_life(&mut self) -> u64 {
        let life = self.next_life;
        self.next_life = life.wrapping_add(1);
        life
    }
}

/// What waits to be said to one publisher.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: RefCell<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    drained: Vec<String>,
    wanted: BTreeSet<WorkloadId>,
    /// Whose counts changed, and since when that is to be said.
    moved: BTreeSet<WorkloadId>,
    since: Option<Instant>,
    /// What else is to be said of counts, if the publisher asked for that.
    details: Option<Details>,
}

struct Details {
    /// Nothing of it was said yet.
    is_whole: bool,
    moved: HashSet<Place>,
    /// What is to be said of paths: it is known nowhere else.
    paths: Vec<(AppId, Vec<PathCount>)>,
}

impl Outbox {
    /// A publisher was just reached. What was drained while nobody followed concerns nobody, for a publisher waits only for who follows it; and
    /// it knows no counts.
    pub(crate) fn begin(&self, totals: &RefCell<Totals>) {
        let moved: BTreeSet<WorkloadId> = totals.borrow().rows.keys().cloned().collect();
        let since = (!moved.is_empty()).then(Instant::now);
        *self.waiting.borrow_mut() = Waiting { moved, since, ..Waiting::default() };
    }

    /// The publisher asks for details.
    pub(crate) fn ask(&self, totals: &RefCell<Totals>) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.details.is_none() {
            let moved: HashSet<Place> = totals.borrow().details.keys().cloned().collect();
            if !moved.is_empty() || !totals.borrow().dropped.is_none() {
                waiting.since.get_or_insert_with(Instant::now);
            }
            waiting.details = Some(Details { is_whole: !moved.is_empty(), moved, paths: Vec::new() });
        }
    }

    /// What is to be said next; waits until there is something.
    pub(crate) async fn next(&self, totals: &RefCell<Totals>) -> Vec<Ack> {
        loop {
            let due = match self.take(&totals.borrow()) {
                Ok(acks) => return acks,
                Err(due) => due,
            };
            let filled = self.filled.notified();
            match due {
                Some(due) => {
                    let _ = timeout_at(due, filled).await;
                }
                None => filled.await,
            }
        }
    }

    /// What is to be said now, or when there will be something if nothing else comes.
    fn take(&self, totals: &Totals) -> Result<Vec<Ack>, Option<Instant>> {
        let mut waiting = self.waiting.borrow_mut();
        let mut acks: Vec<Ack> = waiting.drained.drain(..).map(Ack::Drained).collect();
        acks.extend(std::mem::take(&mut waiting.wanted).into_iter().map(Ack::Wanted));
        let due = waiting.since.map(|since| since + INTERVAL);
        if due.is_some_and(|due| due <= Instant::now()) {
            waiting.since = None;
            let counts = |id: WorkloadId| totals.rows.get(&id).map(|total| (id, total.counts));
            acks.push(Ack::Traffic(std::mem::take(&mut waiting.moved).into_iter().filter_map(counts).collect()));
            if let Some(details) = &mut waiting.details {
                let detail = |place: Place| totals.details.get(&place).map(|total| (place, total.counts.clone()));
                let rows = std::mem::take(&mut details.moved).into_iter().filter_map(detail).collect();
                let whole = std::mem::take(&mut details.is_whole);
                acks.push(Ack::Details { whole, rows, dropped: totals.dropped });
                let paths = std::mem::take(&mut details.paths);
                acks.extend((!paths.is_empty()).then_some(Ack::Paths(paths)));
            }
        }
        if acks.is_empty() { Err(due) } else { Ok(acks) }
    }
}

/// Sorts what workers say: counts are added up, and publishers are told what concerns them.
pub(crate) async fn sort(
    mut news: mpsc::UnboundedReceiver<News>,
    totals: &RefCell<Totals>,
    names: &Outbox,
    addresses: &Outbox,
) {
    while let Some(item) = news.recv().await {
        match item {
            News::Drained(instance) => addresses.waiting.borrow_mut().drained.push(instance),
            News::Wanted(workload) => {
                for outbox in [names, addresses] {
                    outbox.waiting.borrow_mut().wanted.insert(workload.clone());
                }
            }
            News::Asked(paths) => {
                for outbox in [names, addresses] {
                    let mut waiting = outbox.waiting.borrow_mut();
                    let Some(details) = &mut waiting.details else { continue };
                    // It is said within half a second, or the publisher is going away.
                    if details.paths.len() < APPS_WAITING {
                        details.paths.extend(paths.iter().cloned());
                    }
                    waiting.since.get_or_insert_with(Instant::now);
                }
            }
            News::Dropped(dropped) => {
                totals.borrow_mut().dropped.add(&dropped);
                for outbox in [names, addresses] {
                    outbox.waiting.borrow_mut().since.get_or_insert_with(Instant::now);
                }
            }
            News::Counted(counted) => {
                let workloads: BTreeSet<WorkloadId> =
                    counted.iter().filter_map(|counted| counted.place.workload.clone()).collect();
                let places = totals.borrow_mut().add(counted);
                for outbox in [names, addresses] {
                    let mut waiting = outbox.waiting.borrow_mut();
                    waiting.moved.extend(workloads.iter().cloned());
                    waiting.since.get_or_insert_with(Instant::now);
                    waiting.details.iter_mut().for_each(|details| details.moved.extend(places.iter().cloned()));
                }
            }
        }
        names.filled.notify_one();
        addresses.filled.notify_one();
    }
}
