//! Which instance gets a request: the less loaded of two taken at random.

use std::sync::Arc;
use std::time::Duration;

use model::{Balance, Random};

use crate::policy::Rules;
use crate::table::Instance;

/// How long it takes until an instance that just came gets as much as the others, where the app says nothing else.
const SLOW_START: Duration = Duration::from_secs(10);

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

/// How one request is balanced.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    /// Serials of instances that did not take it.
    pub(crate) tried: &'a [u64],
    /// What the app's owner says, if anything.
    pub(crate) rules: Option<&'a Rules>,
    /// Where its client was before.
    pub(crate) came_back: Option<&'a str>,
}

impl Way<'_> {
    /// Most requests that an instance has at once.
    pub(crate) fn limit(&self) -> u64 {
        self.rules.and_then(|rules| rules.policy.max_concurrency).map_or(u64::MAX, u64::from)
    }

    fn slow_start(&self) -> Duration {
        self.rules.map_or(SLOW_START, |rules| rules.policy.slow_start)
    }

    /// Whether an instance may get it at all: it was not tried and is not in quarantine.
    pub(crate) fn is_up(&self, instance: &Instance) -> bool {
        !self.tried.contains(&instance.serial) && instance.quarantined().is_none()
    }

    /// Whether it may get it: also, it has room, and it did not fail again and again.
    fn is_open(&self, instance: &Instance) -> bool {
        self.is_up(instance)
            && instance.standing.is_open(|| instance.age())
            && self.rules.is_none_or(|_| instance.load() < self.limit())
    }
}

/// The instance that gets a request; none if none can take one. One that failed again and again gets some only if there is no other.
pub(crate) fn pick<'a>(instances: &'a [Arc<Instance>], way: Way<'_>, dice: &mut Dice) -> Option<&'a Arc<Instance>> {
    let found = match way.rules {
        None => two_choices(instances, way, dice),
        Some(rules) => by_rules(instances, way, (rules, dice)),
    };
    let has_room = |it: &&Arc<Instance>| way.is_up(it) && it.load() < way.limit();
    found.or_else(|| instances.iter().find(has_room))
}

fn by_rules<'a>(
    instances: &'a [Arc<Instance>],
    way: Way<'_>,
    (rules, dice): (&Rules, &mut Dice),
) -> Option<&'a Arc<Instance>> {
    let open = |instance: &&Arc<Instance>| way.is_open(instance);
    if let Some(token) = way.came_back
        && let Some(known) = instances.iter().filter(open).find(|instance| instance.token() == token)
    {
        return Some(known);
    }
    let from = match rules.policy.balance {
        Balance::TwoChoices => return two_choices(instances, way, dice),
        // Of equals not always the first.
        Balance::LeastConnections => dice.below(instances.len().max(1)),
        Balance::RoundRobin => rules.turn() % instances.len().max(1),
    };
    let in_turn = || instances[from..].iter().chain(&instances[..from]).filter(open);
    // Of those that just came, some requests go on to the others.
    let slow_start = way.slow_start();
    let mut takes = |instance: &Instance| instance.share(slow_start).is_none_or(|share| dice.below(100) < share);
    let mut settled = in_turn().filter(|instance| takes(instance));
    let found = match rules.policy.balance {
        Balance::RoundRobin => settled.next(),
        _ => settled.min_by_key(|instance| instance.load()),
    };
    found.or_else(|| in_turn().next())
}

/// The less loaded of two taken at random.
fn two_choices<'a>(instances: &'a [Arc<Instance>], way: Way<'_>, dice: &mut Dice) -> Option<&'a Arc<Instance>> {
    let open = |instance: &&Arc<Instance>| way.is_open(instance);
    let count = instances.len();
    if count < 2 {
        return instances.first().filter(open);
    }
    let first = dice.below(count);
    // Never the same one twice: the second is taken from the others.
    let second = (first + 1 + dice.below(count - 1)) % count;
    let pair = (Some(&instances[first]).filter(open), Some(&instances[second]).filter(open));
    match pair {
        (Some(a), Some(b)) => {
            let (less, more) = if b.load() < a.load() { (b, a) } else { (a, b) };
            Some(if is_spared(less, more, way.slow_start(), dice) { more } else { less })
        }
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => instances[first..].iter().chain(&instances[..first]).find(open),
    }
}

/// Whether a request passes an instance by, because that just came and the other one did not.
fn is_spared(instance: &Instance, other: &Instance, slow_start: Duration, dice: &mut Dice) -> bool {
    let Some(share) = instance.share(slow_start) else { return false };
    other.share(slow_start).is_none() && dice.below(100) >= share
}

#[cfg(test)]
mod tests {
    use model::RoutePolicy;
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

    const NEW: Way<'_> = Way { tried: &[], rules: None, came_back: None };

    fn rules(settings: &[(&str, &str)]) -> Rules {
        let mut policy = RoutePolicy::default();
        for (name, text) in settings {
            policy.set(name, text).expect(name);
        }
        Rules::new(policy)
    }

    /// How often each of these is picked in so many requests, each of which is over before the next.
    fn counts(instances: &[Arc<Instance>], way: Way<'_>, times: usize) -> Vec<usize> {
        let (mut dice, mut counts) = (Dice(5), vec![0; instances.len()]);
        for _ in 0..times {
            let picked = pick(instances, way, &mut dice).expect("one is open").serial;
            counts[usize::try_from(picked - 1).expect("small")] += 1;
        }
        counts
    }

    #[test]
    fn round_robin_asks_one_after_the_other_and_least_connections_the_least_loaded() {
        let three = instances(3);
        let robin = rules(&[("balance", "round-robin")]);
        let way = Way { rules: Some(&robin), ..NEW };
        let _busy = three[0].enter(u64::MAX);
        let mut dice = Dice(1);
        let turns: Vec<u64> =
            (0..6).filter_map(|_| Some(pick(&three, Way { tried: &[2], ..way }, &mut dice)?.serial)).collect();
        assert!(turns.windows(2).all(|pair| [1, 3].contains(&pair[0])), "{turns:?}");
        assert!(three.iter().all(|instance| instance.share(Duration::ZERO).is_none()));
        assert_eq!(counts(&three, way, 300), [100, 100, 100]);
        let least = rules(&[("balance", "least-connections")]);
        let _also = three[1].enter(u64::MAX);
        assert_eq!(counts(&three, Way { rules: Some(&least), ..NEW }, 100), [0, 0, 100]);
    }

    #[test]
    fn who_just_came_gets_a_share_that_grows() {
        for balance in ["two-choices", "least-connections", "round-robin"] {
            let pair = instances(2);
            let rules = rules(&[("balance", balance), ("slow_start", "1h")]);
            let way = Way { rules: Some(&rules), ..NEW };
            // The first one has been there for long.
            assert_eq!(pair[0].share(Duration::ZERO), None);
            let young = counts(&pair, way, 2000)[1];
            assert!((50..300).contains(&young), "{balance}: a tenth of its part, not {young} of 2000");
            assert_eq!(pair[1].share(Duration::ZERO), None);
            let grown = counts(&pair, way, 2000)[1];
            assert!((800..1200).contains(&grown), "{balance}: its part, not {grown} of 2000");
        }
    }

    #[test]
    fn a_client_comes_back_to_where_it_was_and_nobody_gets_more_than_it_may() {
        let three = instances(3);
        let rules = rules(&[("affinity", "on"), ("max_concurrency", "2")]);
        let way = Way { rules: Some(&rules), came_back: Some(three[1].token()), ..NEW };
        assert_eq!(counts(&three, way, 50), [0, 50, 0]);
        assert!(three[1].token().len() == 32 && three[1].token() != three[0].token());
        let _two = [three[1].enter(2), three[1].enter(2)].map(|it| it.expect("room"));
        assert!(three[1].enter(2).is_none());
        assert_eq!(counts(&three, way, 50)[1], 0, "it is full");
        let _four = [0, 0, 2, 2].map(|at: usize| three[at].enter(u64::MAX));
        assert!(pick(&three, way, &mut Dice(1)).is_none(), "all are");
    }

    #[test]
    fn who_failed_again_and_again_gets_nothing_while_there_is_another() {
        let pair = instances(2);
        let base = Duration::from_secs(60);
        assert!(pair[0].standing.failed(1, base, Duration::ZERO, || true));
        assert_eq!(counts(&pair, NEW, 50), [0, 50]);
        let mut dice = Dice(1);
        let last = pick(&pair, Way { tried: &[2], ..NEW }, &mut dice).expect("better than none");
        assert_eq!(last.serial, 1);
    }

    #[test]
    fn of_two_instances_the_less_loaded_one_gets_every_request() {
        let pair = instances(2);
        let _busy = pair[0].enter(u64::MAX);
        let mut dice = Dice(7);
        for _ in 0..100 {
            assert_eq!(pick(&pair, NEW, &mut dice).expect("one is open").serial, 2);
        }
    }

    #[test]
    fn all_instances_get_their_share() {
        let many = instances(5);
        let mut dice = Dice(1);
        let mut held = Vec::new();
        for _ in 0..100 {
            held.push(pick(&many, NEW, &mut dice).expect("one is open").enter(u64::MAX));
        }
        assert!(many.iter().all(|instance| instance.load() >= 15), "two choices keep loads close together");
    }

    #[test]
    fn what_was_tried_or_is_in_quarantine_gets_nothing() {
        let many = instances(4);
        many[2].quarantine(Duration::from_secs(60));
        let mut dice = Dice(3);
        for _ in 0..100 {
            assert_eq!(pick(&many, Way { tried: &[1, 4], ..NEW }, &mut dice).expect("one is open").serial, 2);
        }
        assert!(pick(&many, Way { tried: &[1, 2, 4], ..NEW }, &mut dice).is_none());
        assert!(pick(&[], NEW, &mut dice).is_none());
    }
}
