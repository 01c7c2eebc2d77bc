//! Finds an instance for one request: at once if there is one, later if one is booting.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::Timeouts;
use crate::balance::{self, Dice, Way};
use crate::failure::Failure;
use crate::policy::{Rules, Visit};
use crate::table::{App, InFlight, Instance, Label, Mode, Shares, Table, Workload};
use crate::tcp;

/// Most instances that one request tries, as on Heroku.
const ATTEMPTS: usize = 10;

pub(crate) struct Search<'a> {
    table: &'a Table,
    timeouts: &'a Timeouts,
    app: Arc<App>,
    /// What the request wants of the app's rules.
    visit: Option<&'a Visit>,
    began: Instant,
    /// Serials of instances that did not take the request.
    tried: Vec<u64>,
    /// When the first of them did not, and why the last one did not.
    failed: Option<(Instant, Failure)>,
    changes: Option<watch::Receiver<()>>,
    /// By which port it came and for which host, if it is a connection and no request.
    wanted: Option<tcp::Wanted>,
}

/// What a look at the table says.
enum Look {
    Go(InFlight),
    /// Every instance that could take it has as much as it may.
    Full,
    /// Look again at a change or at `again`; give up at `until`.
    Hold {
        again: Instant,
        until: Instant,
        then: Failure,
    },
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        (table, timeouts): (&'a Table, &'a Timeouts),
        (app, visit): (Arc<App>, Option<&'a Visit>),
        began: Instant,
    ) -> Self {
        let (tried, failed, changes, wanted) = (Vec::new(), None, None, None);
        Self { table, timeouts, app, visit, began, tried, failed, changes, wanted }
    }

    /// For a connection, which is no request.
    pub(crate) fn by_port(self, wanted: tcp::Wanted) -> Self {
        Self { wanted: Some(wanted), ..self }
    }

    /// The next instance to try. Waits while one is booting, and gives up with what the client is told.
    pub(crate) async fn next(&mut self, dice: &std::cell::RefCell<Dice>) -> Result<InFlight, Failure> {
        loop {
            let (again, until, then) = match self.look(dice)? {
                Look::Go(in_flight) => return Ok(in_flight),
                Look::Full => match self.queue(dice).await? {
                    Some(in_flight) => return Ok(in_flight),
                    None => continue,
                },
                Look::Hold { again, until, then } => (again, until, then),
            };
            if Instant::now() >= until {
                return Err(then);
            }
            match &mut self.changes {
                Some(changes) => {
                    let _ = timeout_at(again.min(until), changes.changed()).await;
                }
                // What changed before somebody listened is not told, so the next turn looks before it waits.
                None => self.changes = Some(self.table.changed.subscribe()),
            }
            self.app = self.table.app(self.app.id).ok_or(Failure::NoWeb)?;
        }
    }

    /// Waits until one of the instances, all of which have as much as they may, has room; none if the table changed meanwhile.
    async fn queue(&mut self, dice: &std::cell::RefCell<Dice>) -> Result<Option<InFlight>, Failure> {
        let Some(gate) = self.app.rules.as_ref().and_then(|rules| rules.gate()).map(Arc::clone) else {
            return Ok(None);
        };
        let _place = gate.join()?;
        let until = Instant::now() + gate.patience;
        let changes = self.changes.get_or_insert_with(|| self.table.changed.subscribe());
        changes.mark_unchanged();
        loop {
            let mut freed = pin!(gate.freed.notified());
            freed.as_mut().enable();
            self.app = self.table.app(self.app.id).ok_or(Failure::NoWeb)?;
            match self.look(dice)? {
                Look::Go(in_flight) => return Ok(Some(in_flight)),
                Look::Hold { .. } => return Ok(None),
                Look::Full => {}
            }
            let Some(changes) = &mut self.changes else { return Ok(None) };
            tokio::select! {
                () = freed => {}
                _ = changes.changed() => {}
                () = sleep_until(until) => return Err(Failure::Backlog),
            }
        }
    }

    /// What the request is counted under if no instance took it: the first workload that could have.
    pub(crate) fn label(&self) -> Option<Arc<Label>> {
        self.shares().ok()?.iter().next().map(|workload| Arc::clone(&workload.label))
    }

    fn shares(&self) -> Result<&Shares, Failure> {
        match (&self.app.mode, &self.wanted) {
            (Mode::Blank, _) => Err(Failure::Blank),
            (Mode::Maintenance, _) => Err(Failure::Maintenance),
            (_, Some(wanted)) => self.app.entry(wanted).map(|entry| &entry.shares).ok_or(Failure::NoWeb),
            (Mode::NoWeb, None) => Err(Failure::NoWeb),
            (Mode::Serve(shares), None) => Ok(shares),
        }
    }

    /// Whether the request had to wait.
    pub(crate) fn has_waited(&self) -> bool {
        self.changes.is_some()
    }

    /// `instance` did not take the request, of which nothing was sent: stay away from it for a while, try another one.
    pub(crate) fn refused_by(&mut self, instance: &Instance, failure: Failure) {
        // It is not to blame for what this machine has not got; to another one there may be a port.
        if failure != Failure::Exhausted {
            instance.quarantine(self.timeouts.quarantine);
        }
        self.passed_by(instance, failure);
    }

    /// `instance` did not take what it was sent: try another one.
    pub(crate) fn passed_by(&mut self, instance: &Instance, failure: Failure) {
        self.tried.push(instance.serial);
        let since = self.failed.map_or_else(Instant::now, |(since, _)| since);
        self.failed = Some((since, failure));
    }

    /// `instance` took the request and gave no answer: another one may, if there is one now.
    pub(crate) fn broken_by(&mut self, instance: &Instance, failure: Failure) {
        self.tried.push(instance.serial);
        self.failed = Some((Instant::now(), failure));
    }

    fn look(&self, dice: &std::cell::RefCell<Dice>) -> Result<Look, Failure> {
        let shares = self.shares()?;
        if let Some((_, failure)) = self.failed.filter(|_| self.tried.len() >= ATTEMPTS) {
            return Err(failure);
        }
        let mut dice = dice.borrow_mut();
        let rules = self.app.rules.as_deref();
        let came_back = self.visit.and_then(|visit| visit.came_back.as_deref());
        let way = Way { tried: &self.tried, rules, came_back };
        let found = if self.visit.is_some_and(|visit| visit.wants_newest) {
            shares.newest_first().find_map(|workload| enter(workload, way, &mut dice))
        } else {
            let mut in_turn = shares.in_turn(&mut dice);
            in_turn.find_map(|workload| enter(workload, way, &mut dice))
        };
        match found {
            Some(in_flight) => Ok(Look::Go(in_flight.leave_by(rules.and_then(Rules::gate)))),
            None if let Some((_, failure @ Failure::NoResponse)) = self.failed => Err(failure),
            None if rules.is_some_and(|rules| rules.gate().is_some()) && is_full(shares, way) => Ok(Look::Full),
            None => self.hold(shares),
        }
    }

    fn hold(&self, shares: &Shares) -> Result<Look, Failure> {
        let give_up = self.began + self.timeouts.boot;
        let (mut healthy, mut starting, mut crashed) = (Vec::new(), 0, 0);
        for workload in shares.iter() {
            let instances = workload.instances.load();
            healthy.extend(instances.healthy.iter().map(|it| it.quarantined().unwrap_or(Duration::ZERO)));
            starting += instances.starting;
            crashed += instances.crashed;
            if instances.healthy.is_empty() && instances.starting == 0 && instances.crashed == 0 {
                workload.ask();
            }
        }
        if healthy.is_empty() {
            // Without any workload that is to take requests, nobody will come up.
            if shares.iter().next().is_none() {
                return Err(Failure::NoWeb);
            }
            if crashed > 0 && starting == 0 {
                return Err(Failure::AppCrashed);
            }
            return Ok(Look::Hold { again: give_up, until: give_up, then: Failure::BootTimeout });
        }
        if let Some((since, failure)) = self.failed {
            if failure == Failure::Exhausted {
                return Err(failure);
            }
            // An instance that has just died refuses before the table knows; who replaces it is told in a moment.
            let until = since + self.timeouts.settle;
            return Ok(Look::Hold { again: until, until, then: failure });
        }
        let again = Instant::now() + healthy.into_iter().min().unwrap_or_default();
        Ok(Look::Hold { again, until: give_up, then: Failure::Quarantined })
    }
}

/// Sends a request to an instance of this workload, if one can take it.
fn enter(workload: &Workload, way: Way<'_>, dice: &mut Dice) -> Option<InFlight> {
    let mut has_yielded = false;
    loop {
        let instances = workload.instances.load();
        let instance = balance::pick(&instances.healthy, way, dice)?;
        // Whether one that failed again and again is well is known by one request: another one goes elsewhere, if it can.
        if !instance.standing.claim(|| instance.age()) && !std::mem::replace(&mut has_yielded, true) {
            continue;
        }
        // None: it left the table in this very moment, and the table without it is there already; or somebody else took its last place.
        if let Some(in_flight) = instance.enter(way.limit()) {
            return Some(in_flight);
        }
    }
}

/// Whether there are instances that would take a request if they had room.
fn is_full(shares: &Shares, way: Way<'_>) -> bool {
    shares.iter().any(|workload| workload.instances.load().healthy.iter().any(|instance| way.is_up(instance)))
}
