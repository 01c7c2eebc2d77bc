//! Several who want the same at once: one asks the app, the others wait for what comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::store::{Cache, lock};

/// How long others wait for a body once its head is there: it comes no faster than the client takes it that it is for.
const BODY: Duration = Duration::from_secs(5);

/// What is asked for now, by key.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Box<[u8]>, watch::Receiver<Progress>>>);

/// How far somebody is who asks for others, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Asking,
    /// The answer comes, and may be kept.
    Coming,
    Over(End),
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is there.
    Kept,
    /// There is nothing for others.
    Nothing,
    /// Who asked went away before it was known.
    Left,
    /// It takes too long.
    Late,
}

/// What somebody is to do who wants something that is not there.
pub(super) enum Joined {
    /// Ask, for others as well.
    First(Flight),
    /// Wait.
    Other(Waiting),
    /// Ask for oneself.
    Alone,
}

/// Held by who asks for others, too.
pub(super) struct Flight {
    cache: Arc<Cache>,
    key: Box<[u8]>,
    say: watch::Sender<Progress>,
}

impl Flight {
    /// The head is there, and the answer may be kept.
    pub(super) fn comes(&self) {
        self.say.send_replace(Progress::Coming);
    }

    pub(super) fn end(self, how: End) {
        self.over(how);
    }

    fn over(&self, how: End) {
        // Who comes from now on looks for what is there.
        lock(&self.cache.flights.0).remove(&self.key);
        self.say.send_replace(Progress::Over(how));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !matches!(*self.say.borrow(), Progress::Over(_)) {
            self.over(End::Left);
        }
    }
}

/// Somebody who waits for what another one asked for.
pub(super) struct Waiting(watch::Receiver<Progress>);

impl Waiting {
    pub(super) async fn end(mut self, mut until: Instant) -> End {
        let mut is_coming = false;
        loop {
            match *self.0.borrow_and_update() {
                Progress::Over(end) => return end,
                Progress::Coming if !is_coming => {
                    is_coming = true;
                    until = until.min(Instant::now() + BODY);
                }
                Progress::Asking | Progress::Coming => {}
            }
            match timeout_at(until, self.0.changed()).await {
                Err(_) => return End::Late,
                Ok(Err(_)) => return End::Left,
                Ok(Ok(())) => {}
            }
        }
    }
}

impl Cache {
    /// Who asks for what is under this key. Not everybody's answer is one that others can have: only who `may_lead` asks for them.
    pub(super) fn join(self: &Arc<Self>, key: &[u8], may_lead: bool) -> Joined {
        let mut flights = lock(&self.flights.0);
        if let Some(flight) = flights.get(key) {
            return Joined::Other(Waiting(flight.clone()));
        }
        if !may_lead {
            return Joined::Alone;
        }
        let (say, progress) = watch::channel(Progress::Asking);
        flights.insert(key.into(), progress);
        Joined::First(Flight { cache: Arc::clone(self), key: key.into(), say })
    }
}
