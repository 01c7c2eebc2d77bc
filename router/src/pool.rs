//! Connections to instances that rest between requests. Each worker has its own.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use crate::table::Instance;
use crate::upstream::Upstream;

pub(crate) struct Pool {
    /// Most connections that it keeps. The one that rested longest makes room.
    limit: usize,
    shelves: RefCell<Shelves>,
}

#[derive(Default)]
struct Shelves {
    next_ticket: u64,
    count: usize,
    /// By the instance's serial, those that rested longest first.
    resting: HashMap<u64, Vec<Resting>, RandomState>,
    /// Serials and tickets in the order in which they came to rest. Some do not rest any more.
    order: VecDeque<(u64, u64)>,
}

struct Resting {
    ticket: u64,
    upstream: Box<Upstream>,
    instance: Arc<Instance>,
    since: Instant,
    until: Instant,
}

impl Pool {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, shelves: RefCell::default() }
    }

    /// The open connection to `instance` that rested least, and how long it did.
    pub(crate) fn take(&self, instance: &Instance, now: Instant) -> Option<(Box<Upstream>, Duration)> {
        let mut shelves = self.shelves.borrow_mut();
        loop {
            let resting = shelves.resting.get_mut(&instance.serial)?.pop()?;
            shelves.count -= 1;
            if resting.until > now && resting.upstream.is_quiet() {
                return Some((resting.upstream, now.saturating_duration_since(resting.since)));
            }
        }
    }

    /// Keeps a connection for the next request, for `time` at most, if it can take one and its instance is still there.
    pub(crate) fn put(&self, instance: &Arc<Instance>, mut upstream: Box<Upstream>, time: Duration, now: Instant) {
        if instance.is_retired() || !upstream.rest() {
            return;
        }
        let mut shelves = self.shelves.borrow_mut();
        if shelves.count >= self.limit {
            shelves.drop_oldest();
        }
        shelves.next_ticket += 1;
        shelves.count += 1;
        let ticket = shelves.next_ticket;
        let resting = Resting { ticket, upstream, instance: Arc::clone(instance), since: now, until: now + time };
        shelves.resting.entry(instance.serial).or_default().push(resting);
        shelves.order.push_back((instance.serial, ticket));
        if shelves.order.len() > 2 * self.limit {
            shelves.forget_taken();
        }
    }

    /// Closes the connection that rested longest, so that there is a file for another one. False if none rests.
    pub(crate) fn make_room(&self) -> bool {
        self.shelves.borrow_mut().drop_oldest()
    }

    /// Closes what rested too long, what its instance has closed, and what belongs to instances that left the table.
    pub(crate) fn sweep(&self) {
        let (mut shelves, now) = (self.shelves.borrow_mut(), Instant::now());
        let is_good =
            |resting: &Resting| resting.until > now && !resting.instance.is_retired() && resting.upstream.is_quiet();
        let mut count = 0;
        shelves.resting.retain(|_, shelf| {
            shelf.retain(is_good);
            count += shelf.len();
            !shelf.is_empty()
        });
        shelves.count = count;
        shelves.forget_taken();
    }
}

impl Shelves {
    fn drop_oldest(&mut self) -> bool {
        while let Some((serial, ticket)) = self.order.pop_front() {
            let Some(line) = self.resting.get_mut(&serial) else { continue };
            if line.first().is_some_and(|oldest| oldest.ticket == ticket) {
                line.remove(0);
                self.count -= 1;
                return true;
            }
        }
        false
    }

    fn forget_taken(&mut self) {
        let resting = &self.resting;
        let rests = |serial: &u64, ticket: &u64| {
            resting.get(serial).is_some_and(|shelf| shelf.binary_search_by_key(ticket, |one| one.ticket).is_ok())
        };
        self.order.retain(|(serial, ticket)| rests(serial, ticket));
    }
}

#[cfg(test)]
mod tests {
    use model::routes::{Endpoint, WorkloadId};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::table::Label;
    use crate::upstream::Scratch;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_connection_at_rest_takes_less_than_a_kilobyte() {
        // Its timer, and what the runtime knows of its socket, are beside it.
        let timer_and_socket = size_of::<tokio::time::Sleep>() + 256;
        let resting = size_of::<Resting>() + size_of::<Upstream>() + size_of::<(u64, u64)>() * 2;
        assert!(resting + timer_and_socket < 1024, "{resting} and {timer_and_socket}");
    }

    #[tokio::test]
    async fn of_all_connections_the_one_that_rested_longest_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (news, label) =
            (mpsc::unbounded_channel().0, Arc::new(Label { id: WorkloadId("w".to_owned()), serial: 1 }));
        let instance = |serial: u64| {
            let endpoint = Endpoint { instance: format!("i{serial}"), dyno: "web.1".to_owned(), address, proof: None };
            Arc::new(Instance::new(endpoint, serial, Arc::clone(&label), news.clone()))
        };
        let (pool, scratch) = (Pool::new(3), Scratch::default());
        let (a, b, now) = (instance(1), instance(2), Instant::now());
        let mut far_ends = Vec::new();
        for (owner, count) in [(&a, 2), (&b, 2)] {
            for _ in 0..count {
                let near = Upstream::connect(address, LONG, &scratch).await.expect("a connection");
                far_ends.push(listener.accept().await.expect("a connection").0);
                pool.put(owner, near, LONG, now);
            }
        }
        assert!(pool.take(&a, now).is_some(), "the second one");
        assert!(pool.take(&a, now).is_none(), "the first one made room");
        for _ in 0..100 {
            let again = pool.take(&b, now).expect("it rests").0;
            pool.put(&b, again, LONG, now);
        }
        assert!(pool.shelves.borrow().order.len() <= 6, "what was taken is forgotten");
        let late = pool.take(&b, now).expect("it rests").0;
        pool.put(&a, late, LONG / 2, now);
        assert!(pool.take(&a, now + LONG / 2).is_none(), "its time is over");
        drop(far_ends);
        assert_eq!(pool.shelves.borrow().count, 1);
        while pool.shelves.borrow().count > 0 {
            tokio::task::yield_now().await;
            pool.sweep();
        }
    }
}
