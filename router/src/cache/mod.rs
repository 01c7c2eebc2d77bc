//! Answers that are kept for others, where an app turns that on: a shared cache by RFC 9111. An app that does not pays nothing.
//!
//! Only what an answer itself allows is kept, for as long as it says ([`rules`]). What is kept is one for all cores ([`store`]); a request that
//! finds nothing asks the app while others wait for its answer ([`flight`]), and what comes is collected while its client gets it ([`collect`]).
//! The rules of an app come first: nobody is served who would not be let in.

mod collect;
mod consult;
mod directives;
mod fetch;
mod flight;
mod rules;
mod serve;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use model::routes::WorkloadId;
use model::{AppName, RoutePolicy, Timestamp};

use crate::balance::Dice;
use crate::policy::Visit;
use crate::table::Shares;

pub(crate) use collect::Collector;
pub(crate) use consult::Consulted;
pub(crate) use fetch::Fetch;
pub(crate) use serve::Stored;
pub(crate) use store::Store;

use store::Cache;

/// The answers of one app.
pub(crate) struct Caching {
    store: Arc<Store>,
    name: AppName,
    wanted: Wanted,
    /// One for each workload that takes requests.
    caches: Vec<(WorkloadId, Arc<Cache>)>,
}

/// What the app's owner says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    /// Most bytes of all answers.
    size: u64,
    /// Most bytes of one.
    most: u64,
    /// Answers from before that are forgotten.
    purged: Option<Timestamp>,
}

impl Caching {
    /// Of an app that wants it. What was kept before stays, of workloads that stay, if nothing else is said now.
    pub(crate) fn new(
        store: &Arc<Store>,
        (name, policy): (&AppName, &RoutePolicy),
        shares: &Shares,
        before: Option<&Arc<Self>>,
    ) -> Option<Arc<Self>> {
        if !policy.cache {
            return None;
        }
        let wanted = Wanted { size: policy.cache_size, most: policy.cache_max_answer, purged: policy.cache_purged };
        let known = before.filter(|before| before.name == *name && before.wanted == wanted);
        let each = wanted.size / (shares.iter().count().max(1) as u64);
        let cache = |id: &WorkloadId| match known.and_then(|known| known.of(id)) {
            Some(cache) => {
                cache.resize(each);
                Some(Arc::clone(cache))
            }
            None => Cache::new(store, each),
        };
        let ids = shares.iter().map(|workload| &workload.label.id);
        let caches = ids.filter_map(|id| Some((id.clone(), cache(id)?))).collect();
        Some(Arc::new(Self { store: Arc::clone(store), name: name.clone(), wanted, caches }))
    }

    fn of(&self, workload: &WorkloadId) -> Option<&Arc<Cache>> {
        self.caches.iter().find(|(id, _)| id == workload).map(|(_, cache)| cache)
    }

    /// All requests see one release.
    fn is_of_one(&self) -> bool {
        self.caches.len() == 1
    }

    /// In which to look for a request's answer: that of the workload that would get it; none if that is where the client was before.
    fn choose(&self, shares: &Shares, visit: Option<&Visit>, dice: &mut Dice) -> Option<&Arc<Cache>> {
        if let [(_, only)] = &self.caches[..] {
            return Some(only);
        }
        let visit = visit.filter(|visit| visit.wants_newest || visit.came_back.is_some());
        let workload = match visit {
            None => shares.in_turn(dice).next(),
            Some(visit) if visit.wants_newest => shares.newest_first().next(),
            Some(_) => None,
        };
        self.of(&workload?.label.id)
    }

    fn forget(&self, primary: &[u8]) {
        self.caches.iter().for_each(|(_, cache)| cache.forget(primary));
    }
}
