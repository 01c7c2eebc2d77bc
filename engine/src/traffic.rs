//! What the routers that follow a [`Feed`](crate::feed::Feed) say of the requests that they pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::routes::WorkloadId;
use model::traffic::Counts;
use tokio::sync::watch;
use tokio::time::Instant;

/// What a workload got is forgotten once no router has said anything of it for so long.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Between two looks for what is to be forgotten.
const SWEEP: Duration = Duration::from_secs(60);
/// Most counts that are kept apart for one workload; what routers counted that went away longest ago becomes one.
const LIVES: usize = 8;

/// Counts of all followers. Clones share them.
#[derive(Debug, Clone)]
pub struct Traffic {
    book: Arc<Mutex<Book>>,
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Book {
    rows: BTreeMap<WorkloadId, Row>,
    wanted: BTreeSet<WorkloadId>,
    swept: Instant,
}

#[derive(Debug)]
struct Row {
    /// What the oldest lives counted that are not among `lives` any more.
    before: Counts,
    /// The latest word of each count, the one first that was silent longest.
    lives: Vec<Counts>,
    heard: Instant,
}

impl Default for Traffic {
    fn default() -> Self {
        let book = Book { rows: BTreeMap::new(), wanted: BTreeSet::new(), swept: Instant::now() };
        Self { book: Arc::new(Mutex::new(book)), news: watch::Sender::new(()) }
    }
}

impl Traffic {
    /// What all routers together counted of a workload's requests. It only grows, until nobody has asked for the workload for an hour: take
    /// [`Counts::since`] of two looks. It is about a second old.
    pub fn of(&self, workload: &WorkloadId) -> Counts {
        let book = self.lock();
        let mut sum = Counts::default();
        if let Some(row) = book.rows.get(workload) {
            row.lives.iter().chain([&row.before]).for_each(|counts| sum.add(counts));
        }
        sum
    }

    /// The workloads that requests waited for without there being any instance, since this was last asked.
    pub fn take_wanted(&self) -> BTreeSet<WorkloadId> {
        std::mem::take(&mut self.lock().wanted)
    }

    /// Tells whenever routers said something.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    pub(crate) fn note(&self, rows: Vec<(WorkloadId, Counts)>) {
        let now = Instant::now();
        let mut book = self.lock();
        for (workload, counts) in rows {
            let row = book.rows.entry(workload).or_insert_with(|| Row::new(now));
            row.heard = now;
            row.note(counts);
        }
        if now.duration_since(book.swept) >= SWEEP {
            book.swept = now;
            book.rows.retain(|_, row| now.duration_since(row.heard) < REMEMBERED);
        }
        drop(book);
        self.news.send_replace(());
    }

    pub(crate) fn want(&self, workload: WorkloadId) {
        self.lock().wanted.insert(workload);
        self.news.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Nothing panics while it holds the lock, and the book is whole after every statement.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn new(now: Instant) -> Self {
        Self { before: Counts::default(), lives: Vec::new(), heard: now }
    }

    fn note(&mut self, counts: Counts) {
        self.lives.retain(|known| known.life != counts.life);
        self.lives.push(counts);
        if self.lives.len() > LIVES {
            self.before.add(&self.lives.remove(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_routers_counted_adds_up_over_their_lives() {
        let traffic = Traffic::default();
        let id = |name: &str| WorkloadId(name.to_owned());
        let say = |life, requests| {
            traffic.note(vec![(id("web"), Counts { life, requests, ..Counts::default() })]);
            traffic.of(&id("web")).requests
        };
        assert_eq!([say(1, 10), say(1, 15), say(2, 1), say(1, 16), say(2, 4)], [10, 15, 16, 17, 20]);
        for life in 3..100 {
            say(life, 1);
        }
        assert_eq!(traffic.of(&id("web")).requests, 20 + 97, "however often a router starts again");
        assert_eq!(traffic.of(&id("other")), Counts::default());
        traffic.want(id("asleep"));
        assert_eq!(traffic.take_wanted(), BTreeSet::from([id("asleep")]));
        assert!(traffic.take_wanted().is_empty(), "said once");
    }
}
