//! Which ids of the machine the users of a container are.
//!
//! Every container has a user namespace. An app's own uid is the same inside and outside, so that its files need no other owner; all
//! other users inside, root among them, are ids of a range that only this one container has, and that are nobody outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::{Container, NESTED_IDS};
use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use crate::error::Fault;

/// The first id of the first range: beyond the ids of all apps, and before those of containers that make images.
const FIRST: u32 = 1 << 29;
/// How many ranges there are.
const RANGES: u32 = (1 << 29) / NESTED_IDS;

/// The users of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Users {
    /// Who root inside is outside; the next ids follow it.
    pub(crate) root: u32,
    /// Who its processes are, inside and outside, unless they are root inside.
    app: Option<u32>,
}

impl Users {
    /// Those of a container that has this range. A nested one brings its own.
    pub(crate) fn of(container: &Container, range: u32) -> Self {
        if container.nested {
            Self { root: container.uid, app: None }
        } else {
            Self { root: FIRST + range * NESTED_IDS, app: Some(container.uid) }
        }
    }

    /// As the runtime is told.
    pub(crate) fn mappings(self) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
        let mapping = |inside: u32, outside: u32, size: u32| {
            LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(size).build()
        };
        let app = self.app.map(|uid| mapping(uid, uid, 1));
        std::iter::once(mapping(0, self.root, NESTED_IDS)).chain(app).collect()
    }
}

/// Who has which range.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    taken: Mutex<BTreeMap<String, u32>>,
}

impl Ranges {
    /// With what containers have that are there.
    pub(crate) fn new(taken: BTreeMap<String, u32>) -> Self {
        Self { taken: Mutex::new(taken) }
    }

    /// A range for a container, of which nobody else has one id.
    pub(crate) fn take(&self, id: &str) -> Result<u32, Fault> {
        let mut taken = self.lock();
        let all: BTreeSet<u32> = taken.values().copied().collect();
        let free = (0..RANGES).find(|range| !all.contains(range));
        let free = free.ok_or_else(|| Fault::Refused(format!("all {RANGES} ranges of users are taken")))?;
        taken.insert(id.to_owned(), free);
        Ok(free)
    }

    /// Nothing is left of a container.
    pub(crate) fn give_back(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        // Nothing panics while it holds the lock, and each change is one statement.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_containers_have_a_user_in_common() {
        let ranges = Ranges::new(BTreeMap::from([("old".to_owned(), 0)]));
        assert_eq!((ranges.take("a").ok(), ranges.take("b").ok()), (Some(1), Some(2)));
        ranges.give_back("a");
        assert_eq!((ranges.take("c").ok(), ranges.take("d").ok()), (Some(1), Some(3)));
        let last = FIRST + (RANGES - 1) * NESTED_IDS + (NESTED_IDS - 1);
        assert_eq!(last, (1 << 30) - 1, "then come those of builds");
    }
}
