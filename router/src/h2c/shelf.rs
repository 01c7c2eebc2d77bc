//! The connections of one worker that requests share, by instance.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Trunk;
use crate::failure::Failure;
use crate::table::Instance;

#[derive(Default)]
pub(crate) struct Shelf {
    /// By the instance's serial.
    lines: HashMap<u64, Line, RandomState>,
}

#[derive(Default)]
struct Line {
    trunks: Vec<Rc<Trunk>>,
    turn: Rc<Turn>,
}

/// Whoever connects holds it, and says when that last failed.
pub(crate) type Turn = Mutex<Option<(Instant, Failure)>>;

impl Shelf {
    /// The first that takes one more request, so that those which are not needed come to rest. Also says how many rested that are over.
    pub(crate) fn find(&mut self, instance: &Instance) -> (Option<Rc<Trunk>>, usize) {
        let Some(line) = self.lines.get_mut(&instance.serial) else { return (None, 0) };
        let gone = line.keep(Trunk::is_open);
        (line.trunks.iter().find(|trunk| trunk.may_have_room()).cloned(), gone)
    }

    pub(crate) fn turn(&mut self, instance: &Instance) -> Rc<Turn> {
        Rc::clone(&self.lines.entry(instance.serial).or_default().turn)
    }

    pub(crate) fn add(&mut self, trunk: Rc<Trunk>) {
        self.lines.entry(trunk.instance.serial).or_default().trunks.push(trunk);
    }

    pub(crate) fn has(&self, trunk: &Rc<Trunk>) -> bool {
        let line = self.lines.get(&trunk.instance.serial);
        line.is_some_and(|line| line.trunks.iter().any(|one| Rc::ptr_eq(one, trunk)))
    }

    pub(crate) fn remove(&mut self, trunk: &Rc<Trunk>) {
        if let Some(line) = self.lines.get_mut(&trunk.instance.serial) {
            line.trunks.retain(|one| !Rc::ptr_eq(one, trunk));
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.values().all(|line| line.trunks.is_empty())
    }

    /// Whether one rests with this ticket.
    pub(crate) fn rests(&self, serial: u64, ticket: u64) -> bool {
        let line = self.lines.get(&serial);
        line.is_some_and(|line| line.trunks.iter().any(|trunk| trunk.ticket.get() == Some(ticket)))
    }

    /// Lets go of the one that rests with this ticket, if it does.
    pub(crate) fn drop(&mut self, serial: u64, ticket: u64) -> bool {
        self.lines.get_mut(&serial).is_some_and(|line| line.keep(|trunk| trunk.ticket.get() != Some(ticket)) > 0)
    }

    /// Lets go of what rested too long, of what is over, and of what belongs to instances that left the table. Returns how many rest.
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        let is_good = |trunk: &Trunk| {
            let is_tired = trunk.ticket.get().is_some() && now >= trunk.since.get() + trunk.patience;
            !is_tired && !trunk.instance.is_retired() && trunk.is_open()
        };
        let mut count = 0;
        self.lines.retain(|_, line| {
            line.keep(is_good);
            count += line.trunks.iter().filter(|trunk| trunk.ticket.get().is_some()).count();
            !line.trunks.is_empty() || Rc::strong_count(&line.turn) > 1
        });
        count
    }
}

impl Line {
    /// Keeps those, and says how many of the others rested.
    fn keep(&mut self, is_good: impl Fn(&Trunk) -> bool) -> usize {
        let mut count = 0;
        self.trunks.retain(|trunk| {
            let stays = is_good(trunk);
            // It is counted no more, whoever still holds it.
            count += usize::from(!stays && trunk.ticket.take().is_some());
            stays
        });
        count
    }
}
