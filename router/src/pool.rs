//! Connections to instances that rest between requests. Each worker has its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::table::Instance;
use crate::upstream::Upstream;

/// Most connections that one worker keeps. The one that rested longest makes room.
const LIMIT: usize = 1024;

#[derive(Default)]
pub(crate) struct Pool(RefCell<Shelves>);

#[derive(Default)]
struct Shelves {
    next_ticket: u64,
    /// By ticket, that is, in the order in which they came to rest.
    resting: BTreeMap<u64, Resting>,
    /// Tickets by the instance's serial, oldest first.
    tickets: HashMap<u64, Vec<u64>>,
}

struct Resting {
    upstream: Upstream,
    instance: Arc<Instance>,
    since: Instant,
    until: Instant,
}

impl Pool {
    /// The open connection to `instance` that rested least, and how long it did.
    pub(crate) fn take(&self, instance: &Instance) -> Option<(Upstream, Duration)> {
        let mut shelves = self.0.borrow_mut();
        loop {
            let ticket = shelves.tickets.get_mut(&instance.serial)?.pop()?;
            let resting = shelves.resting.remove(&ticket)?;
            let now = Instant::now();
            if resting.until > now && resting.upstream.is_quiet() {
                return Some((resting.upstream, now.duration_since(resting.since)));
            }
        }
    }

    /// Keeps a connection for the next request, for `time` at most, if it can take one and its instance is still there.
    pub(crate) fn put(&self, instance: &Arc<Instance>, mut upstream: Upstream, time: Duration) {
        if instance.is_retired() || !upstream.rest() {
            return;
        }
        let mut shelves = self.0.borrow_mut();
        if shelves.resting.len() >= LIMIT
            && let Some((ticket, oldest)) = shelves.resting.pop_first()
        {
            shelves.forget(&oldest.instance, ticket);
        }
        let ticket = shelves.next_ticket;
        shelves.next_ticket += 1;
        shelves.tickets.entry(instance.serial).or_default().push(ticket);
        let since = Instant::now();
        let resting = Resting { upstream, instance: Arc::clone(instance), since, until: since + time };
        shelves.resting.insert(ticket, resting);
    }

    /// Closes what rested too long, what its instance has closed, and what belongs to instances that left the table.
    pub(crate) fn sweep(&self) {
        let mut shelves = self.0.borrow_mut();
        let now = Instant::now();
        let is_good =
            |resting: &Resting| resting.until > now && !resting.instance.is_retired() && resting.upstream.is_quiet();
        shelves.resting.retain(|_, resting| is_good(resting));
        let Shelves { resting, tickets, .. } = &mut *shelves;
        tickets.retain(|_, tickets| {
            tickets.retain(|ticket| resting.contains_key(ticket));
            !tickets.is_empty()
        });
    }
}

impl Shelves {
    fn forget(&mut self, instance: &Instance, ticket: u64) {
        if let Some(tickets) = self.tickets.get_mut(&instance.serial) {
            tickets.retain(|other| *other != ticket);
        }
    }
}
