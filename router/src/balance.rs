//! Which instance gets a request: the less loaded of two taken at random.

use std::sync::Arc;

use model::Random;

use crate::table::Instance;

/// A fast generator of one worker, seeded from the real one. For choices and request ids, never for secrets.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(random: &dyn Random) -> Self {
        let mut seed = [0; 8];
        random.fill(&mut seed);
        Self(u64::from_le_bytes(seed))
    }

    /// The next 64 bits (`SplitMix64`).
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `limit`, which must not be zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let limit = limit as u64;
        // The bias of a remainder is 2^-64 times the number of instances. It is below `limit`, so it fits.
        usize::try_from(self.roll() % limit).unwrap_or(0)
    }
}

/// One of `instances` that is not in quarantine and whose serial is not in `tried`.
pub(crate) fn pick<'a>(instances: &'a [Arc<Instance>], tried: &[u64], dice: &mut Dice) -> Option<&'a Arc<Instance>> {
    let open = |instance: &&Arc<Instance>| !tried.contains(&instance.serial) && instance.quarantined().is_none();
    let count = instances.len();
    if count < 2 {
        return instances.first().filter(open);
    }
    let first = dice.below(count);
    // Never the same one twice: the second is taken from the others.
    let second = (first + 1 + dice.below(count - 1)) % count;
    let pair = (Some(&instances[first]).filter(open), Some(&instances[second]).filter(open));
    match pair {
        (Some(a), Some(b)) => Some(if b.load() < a.load() { b } else { a }),
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => instances[first..].iter().chain(&instances[..first]).find(open),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::routes::{Endpoint, WorkloadId};
    use tokio::sync::mpsc;

    use super::*;
    use crate::table::Label;

    fn instances(count: u64) -> Vec<Arc<Instance>> {
        let (news, _) = mpsc::unbounded_channel();
        let label = Arc::new(Label { id: WorkloadId("shop".to_owned()), serial: 1 });
        let endpoint = |id: u64| Endpoint {
            instance: format!("i{id}"),
            dyno: format!("web.{id}"),
            address: ([127, 0, 0, 1], 80).into(),
            proof: None,
        };
        (1..=count).map(|id| Arc::new(Instance::new(endpoint(id), id, Arc::clone(&label), news.clone()))).collect()
    }

    #[test]
    fn of_two_instances_the_less_loaded_one_gets_every_request() {
        let pair = instances(2);
        let _busy = pair[0].enter();
        let mut dice = Dice(7);
        for _ in 0..100 {
            assert_eq!(pick(&pair, &[], &mut dice).expect("one is open").serial, 2);
        }
    }

    #[test]
    fn all_instances_get_their_share() {
        let many = instances(5);
        let mut dice = Dice(1);
        let mut held = Vec::new();
        for _ in 0..100 {
            held.push(pick(&many, &[], &mut dice).expect("one is open").enter());
        }
        assert!(many.iter().all(|instance| instance.load() >= 15), "two choices keep loads close together");
    }

    #[test]
    fn what_was_tried_or_is_in_quarantine_gets_nothing() {
        let many = instances(4);
        many[2].quarantine(Duration::from_secs(60));
        let mut dice = Dice(3);
        for _ in 0..100 {
            assert_eq!(pick(&many, &[1, 4], &mut dice).expect("one is open").serial, 2);
        }
        assert!(pick(&many, &[1, 2, 4], &mut dice).is_none());
        assert!(pick(&[], &[], &mut dice).is_none());
    }
}
