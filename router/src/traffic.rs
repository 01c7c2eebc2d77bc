//! Counts what becomes of the requests to each workload, and what else workers have to say to publishers. Each worker counts for itself
//! and hands over now and then what it has: no request writes to anything that another core uses.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::RandomState;
use model::routes::{Ack, WorkloadId};
use model::traffic::Counts;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use crate::table::Label;

/// Workers hand over what they counted so often, and publishers are told of that so often: what they know is about a second old.
const INTERVAL: Duration = Duration::from_millis(500);
/// What a workload got is forgotten once it got nothing for so long; another request begins a new count.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Between two looks for what is to be forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// What workers say to the control thread.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// No request is left on an instance that left the table.
    Drained(String),
    /// A request waits for a workload without instances.
    Wanted(WorkloadId),
    /// What a worker counted since it last said so.
    Counted(Vec<(WorkloadId, Counts)>),
}

/// What one worker counted since it last handed it over.
#[derive(Default)]
pub(crate) struct Tally {
    /// By the workload's serial.
    rows: RefCell<HashMap<u64, (WorkloadId, Counts), RandomState>>,
    begun: Notify,
}

impl Tally {
    pub(crate) fn count(&self, workload: &Label, count: impl FnOnce(&mut Counts)) {
        let mut rows = self.rows.borrow_mut();
        if rows.is_empty() {
            self.begun.notify_one();
        }
        count(&mut rows.entry(workload.serial).or_insert_with(|| (workload.id.clone(), Counts::default())).1);
    }

    /// Hands over what is counted, for as long as somebody takes it.
    pub(crate) async fn deliver(&self, to: &mpsc::UnboundedSender<News>) {
        loop {
            self.begun.notified().await;
            sleep(INTERVAL).await;
            let rows = self.rows.take();
            if to.send(News::Counted(rows.into_values().collect())).is_err() {
                return;
            }
        }
    }
}

/// What all workers counted since the router started.
pub(crate) struct Totals {
    rows: HashMap<WorkloadId, Total>,
    next_life: u64,
    swept: Instant,
}

struct Total {
    counts: Counts,
    moved: Instant,
}

impl Totals {
    /// None yet. Counts get numbers from `first_life` on, which no earlier router gave out.
    pub(crate) fn new(first_life: u64) -> Self {
        Self { rows: HashMap::new(), next_life: first_life, swept: Instant::now() }
    }

    fn add(&mut self, rows: &[(WorkloadId, Counts)]) {
        let now = Instant::now();
        for (workload, counts) in rows {
            if !self.rows.contains_key(workload) {
                let counts = Counts { life: self.next_life, ..Counts::default() };
                self.next_life = self.next_life.wrapping_add(1);
                self.rows.insert(workload.clone(), Total { counts, moved: now });
            }
            if let Some(total) = self.rows.get_mut(workload) {
                total.counts.add(counts);
                total.moved = now;
            }
        }
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.rows.retain(|_, total| now.duration_since(total.moved) < REMEMBERED);
        }
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
}

impl Outbox {
    /// A publisher was just reached. What was drained while nobody followed concerns nobody, for a publisher waits only for who follows it; and
    /// it knows no counts.
    pub(crate) fn begin(&self, totals: &RefCell<Totals>) {
        let moved: BTreeSet<WorkloadId> = totals.borrow().rows.keys().cloned().collect();
        let since = (!moved.is_empty()).then(Instant::now);
        *self.waiting.borrow_mut() = Waiting { moved, since, ..Waiting::default() };
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
            News::Counted(rows) => {
                totals.borrow_mut().add(&rows);
                for outbox in [names, addresses] {
                    let mut waiting = outbox.waiting.borrow_mut();
                    waiting.moved.extend(rows.iter().map(|(id, _)| id.clone()));
                    waiting.since.get_or_insert_with(Instant::now);
                }
            }
        }
        names.filled.notify_one();
        addresses.filled.notify_one();
    }
}
