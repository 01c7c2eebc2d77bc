//! Connections to instances that rest between requests. Each worker has its own.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::h2c::{Shelf, Trunk};
use crate::table::Instance;
use crate::upstream::Upstream;

pub(crate) struct Pool {
    shelves: Rc<RefCell<Shelves>>,
}

#[derive(Default)]
pub(crate) struct Shelves {
    /// Most connections that it keeps. The one that rested longest makes room.
    limit: usize,
    next_ticket: u64,
    count: usize,
    /// By the instance's serial, those that rested longest first.
    resting: HashMap<u64, Vec<Resting>, RandomState>,
    /// Those that many requests share, whether they rest or not.
    shared: Shelf,
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
        Self { shelves: Rc::new(RefCell::new(Shelves { limit, ..Shelves::default() })) }
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
        let ticket = shelves.ticket(instance);
        let resting = Resting { ticket, upstream, instance: Arc::clone(instance), since: now, until: now + time };
        shelves.resting.entry(instance.serial).or_default().push(resting);
    }

    /// A connection to `instance` that takes one more request, or will when it is made: who finds none makes one, and who comes meanwhile
    /// waits for that.
    pub(crate) async fn share(
        &self,
        instance: &Instance,
        make: impl AsyncFnOnce(&Rc<RefCell<Shelves>>) -> Result<Rc<Trunk>, Failure>,
    ) -> Result<Rc<Trunk>, Failure> {
        if let Some(trunk) = self.find(instance) {
            return Ok(trunk);
        }
        let (came, turn) = (Instant::now(), self.shelves.borrow_mut().shared.turn(instance));
        let mut failed = turn.lock().await;
        if let Some(trunk) = self.find(instance) {
            return Ok(trunk);
        }
        if let Some((_, failure)) = failed.filter(|(at, _)| *at > came) {
            return Err(failure);
        }
        let trunk = make(&self.shelves).await.inspect_err(|failure| *failed = Some((Instant::now(), *failure)))?;
        let mut shelves = self.shelves.borrow_mut();
        shelves.shared.add(Rc::clone(&trunk));
        shelves.rest(&trunk);
        Ok(trunk)
    }

    fn find(&self, instance: &Instance) -> Option<Rc<Trunk>> {
        let mut shelves = self.shelves.borrow_mut();
        let (found, gone) = shelves.shared.find(instance);
        shelves.count -= gone;
        found
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
        shelves.count = count + shelves.shared.sweep(now);
        shelves.forget_taken();
    }
}

impl Shelves {
    /// For one more connection that comes to rest.
    fn ticket(&mut self, instance: &Instance) -> u64 {
        if self.count >= self.limit {
            self.drop_oldest();
        }
        self.next_ticket += 1;
        self.count += 1;
        self.order.push_back((instance.serial, self.next_ticket));
        if self.order.len() > 2 * self.limit {
            self.forget_taken();
        }
        self.next_ticket
    }

    /// Nobody has a place on this connection any more. It rests if it can take requests.
    pub(crate) fn rest(&mut self, trunk: &Rc<Trunk>) {
        if trunk.instance.is_retired() || !trunk.is_open() {
            self.shared.remove(trunk);
        } else if self.shared.has(trunk) {
            let ticket = self.ticket(&trunk.instance);
            trunk.rest(ticket);
        }
    }

    /// One of those that rested does not any more.
    pub(crate) fn wake(&mut self) {
        self.count -= 1;
    }

    fn drop_oldest(&mut self) -> bool {
        while let Some((serial, ticket)) = self.order.pop_front() {
            let line = self.resting.get_mut(&serial);
            if let Some(line) = line.filter(|line| line.first().is_some_and(|oldest| oldest.ticket == ticket)) {
                line.remove(0);
            } else if !self.shared.drop(serial, ticket) {
                continue;
            }
            self.count -= 1;
            return true;
        }
        false
    }

    fn forget_taken(&mut self) {
        let (resting, shared) = (&self.resting, &self.shared);
        let rests = |serial: &u64, ticket: &u64| {
            resting.get(serial).is_some_and(|shelf| shelf.binary_search_by_key(ticket, |one| one.ticket).is_ok())
                || shared.rests(*serial, *ticket)
        };
        self.order.retain(|(serial, ticket)| rests(serial, ticket));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use model::routes::{Endpoint, WorkloadId};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::task::LocalSet;

    use super::*;
    use crate::seats::Seats;
    use crate::table::Label;
    use crate::upstream::{self, Scratch};

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_connection_at_rest_takes_less_than_a_kilobyte() {
        // Its timer, and what the runtime knows of its socket, are beside it.
        let timer_and_socket = size_of::<tokio::time::Sleep>() + 256;
        let resting = size_of::<Resting>() + size_of::<Upstream>() + size_of::<(u64, u64)>() * 2;
        assert!(resting + timer_and_socket < 1024, "{resting} and {timer_and_socket}");
    }

    fn instances(address: SocketAddr) -> impl Fn(u64) -> Arc<Instance> {
        let label = Arc::new(Label { id: WorkloadId("w".to_owned()), serial: 1 });
        let news = mpsc::unbounded_channel().0;
        move |serial| {
            let endpoint = Endpoint { instance: format!("i{serial}"), dyno: "web.1".to_owned(), address, proof: None };
            Arc::new(Instance::new(endpoint, serial, Arc::clone(&label), news.clone()))
        }
    }

    #[tokio::test]
    async fn connections_that_are_shared_make_room_too_while_nobody_uses_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(
                    async move { h2::server::handshake(stream).await.expect("HTTP/2").accept().await.is_none() },
                );
            }
        });
        let (instance, pool, scratch, now) = (instances(address), Pool::new(2), Scratch::default(), Instant::now());
        let (a, b) = (instance(1), instance(2));
        let connect = || upstream::connect(address, LONG);
        let share = async |pool: &Pool| {
            let make = async |shelves: &_| {
                let seat = Seats::new(1).for_instance().expect("a seat");
                Trunk::new((connect().await?, seat), &a, LONG, shelves).await
            };
            let trunk = pool.share(&a, make).await.expect("a connection");
            trunk.settled(LONG).await.expect("it speaks HTTP/2");
            trunk
        };
        LocalSet::new()
            .run_until(async {
                let used = share(&pool).await;
                let place = used.enter().expect("a place").0;
                for _ in 0..3 {
                    pool.put(&b, Upstream::new(connect().await.expect("a connection"), None, &scratch), LONG, now);
                }
                assert!(Rc::ptr_eq(&share(&pool).await, &used), "what is in use makes no room");
                drop(place);
                assert_eq!(pool.shelves.borrow().count, 2, "that it rests makes the oldest one go");
                assert!(Rc::ptr_eq(&share(&pool).await, &used));
                for _ in 0..2 {
                    pool.put(&b, Upstream::new(connect().await.expect("a connection"), None, &scratch), LONG, now);
                }
                let new = share(&pool).await;
                assert!(!Rc::ptr_eq(&new, &used), "then it was the oldest");
                assert!(pool.make_room() && pool.make_room() && !pool.make_room());
                drop((used, new));
                assert!(pool.shelves.borrow().shared.is_empty());
            })
            .await;
    }

    #[tokio::test]
    async fn of_all_connections_the_one_that_rested_longest_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let instance = instances(address);
        let (pool, scratch) = (Pool::new(3), Scratch::default());
        let (a, b, now) = (instance(1), instance(2), Instant::now());
        let mut far_ends = Vec::new();
        for (owner, count) in [(&a, 2), (&b, 2)] {
            for _ in 0..count {
                let stream = upstream::connect(address, LONG).await.expect("a connection");
                let near = Upstream::new(stream, None, &scratch);
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
