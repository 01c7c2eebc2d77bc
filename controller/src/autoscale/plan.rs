//! Whether a process type gets more instances or fewer: a pure function of its policy and of what was measured.
//!
//! Three things keep it from going to and fro. What is measured is looked at over a minute, and only what was measured since the last
//! change counts. Fewer instances there are only once for a whole cool-down no look wanted as many as there are. And after a load made more
//! of them, there are as few again only once the load is clearly lower, or a day has passed.

use std::collections::VecDeque;
use std::time::Duration;

use model::traffic::{Counts, LATENCY_ENDS_MS};
use model::{Metric, ScalingPolicy, Timestamp};

/// What is measured counts for so long.
const LOOK: Duration = Duration::from_secs(60);
/// After a change nothing is added for so long: what is new has yet to take its part.
const SETTLE: Duration = Duration::from_secs(30);
/// So much time must have been measured before anything is said of it.
const ENOUGH: Duration = Duration::from_secs(25);
/// Fewer requests say nothing about how slow the slowest are.
const FEWEST_REQUESTS: u64 = 20;
/// So far from its target a value is at it.
const TOLERANCE: f64 = 0.1;
/// A response time below this part of its target is one with instances to spare.
const SPARE: f64 = 0.5;
/// A load that made more instances is still there above this part of it.
const STILL: f64 = 0.8;
/// For so long that is remembered: to try every hour again would be to go to and fro.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// What was measured of a process type in a short time.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When that time ended.
    pub(crate) at: Timestamp,
    /// How long it was.
    pub(crate) time: Duration,
    /// How many instances there were.
    pub(crate) quantity: u32,
    /// What routers counted meanwhile; none if they did not say.
    pub(crate) requests: Option<Counts>,
    /// Per cent of its share of the processors that an instance used, on average; none if nobody said.
    pub(crate) cpu: Option<f64>,
    /// Per cent of its memory.
    pub(crate) memory: Option<f64>,
}

/// A load that was too much for so many instances.
#[derive(Debug, Clone, Copy)]
struct Raise {
    from: u32,
    load: f64,
    at: Timestamp,
}

/// What is known of a process type's past.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    samples: VecDeque<Sample>,
    /// When its number of instances was last changed, by whomever, as far as anybody saw.
    changed_at: Option<Timestamp>,
    raises: Vec<Raise>,
}

/// Another number of instances, and the numbers behind it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// What was measured, in the metric's unit; none if it is not for that.
    pub(crate) value: Option<f64>,
    /// One sentence with all of it.
    pub(crate) reason: String,
}

/// What a minute came to.
struct Seen {
    value: f64,
    /// What all instances together did.
    load: f64,
    requests: u64,
}

impl Window {
    /// Takes in what was measured.
    pub(crate) fn add(&mut self, sample: Sample, policy: &ScalingPolicy) {
        let now = sample.at;
        if self.samples.back().is_some_and(|last| last.quantity != sample.quantity) {
            self.changed_at = Some(now);
        }
        self.samples.push_back(sample);
        let kept = policy.cool_down + LOOK + LOOK;
        while self.samples.front().is_some_and(|sample| now.since(sample.at) > kept) {
            self.samples.pop_front();
        }
        self.raises.retain(|raise| now.since(raise.at) <= REMEMBERED);
    }

    /// Notes that a decision was carried out.
    pub(crate) fn carried_out(&mut self, policy: &ScalingPolicy, decision: &Decision, now: Timestamp) {
        if decision.to > decision.from
            && let Some(seen) = self.seen(policy, decision.from, now)
        {
            self.raises.push(Raise { from: decision.from, load: seen.load, at: now });
        }
        self.changed_at = Some(now);
    }

    /// What the minute before `now` came to with so many instances; none if too little is known of it.
    fn seen(&self, policy: &ScalingPolicy, quantity: u32, now: Timestamp) -> Option<Seen> {
        let begin = self.changed_at.filter(|changed| *changed <= now);
        let counts = |sample: &&Sample| {
            sample.quantity == quantity
                && sample.at <= now
                && now.since(sample.at) < LOOK
                && begin.is_none_or(|begin| sample.at > begin)
        };
        let samples: Vec<&Sample> = self.samples.iter().filter(counts).collect();
        let metric = policy.autoscale?;
        let instances = f64::from(quantity.max(1));
        match metric {
            Metric::P95 | Metric::Rps => {
                let said: Vec<_> = samples.iter().filter_map(|it| Some((it.time, it.requests?))).collect();
                let time: Duration = said.iter().map(|(time, _)| *time).sum();
                let mut sum = Counts::default();
                for (_, counts) in &said {
                    sum.add(counts);
                }
                let rate = number(sum.requests) / time.as_secs_f64().max(1.0);
                let value = if metric == Metric::Rps { rate / instances } else { percentile(&sum, 0.95) };
                (time >= ENOUGH).then_some(Seen { value, load: rate, requests: sum.requests })
            }
            Metric::Cpu | Metric::Memory => {
                let of = |sample: &&Sample| {
                    let value = if metric == Metric::Cpu { sample.cpu } else { sample.memory };
                    Some((sample.time, value?))
                };
                let said: Vec<(Duration, f64)> = samples.iter().filter_map(of).collect();
                let time: Duration = said.iter().map(|(time, _)| *time).sum();
                let sum: f64 = said.iter().map(|(time, value)| time.as_secs_f64() * value).sum();
                let value = sum / time.as_secs_f64().max(1.0);
                (time >= ENOUGH).then_some(Seen { value, load: value * instances, requests: 0 })
            }
        }
    }
}

/// What there should be instead, if anything, of a process type that has so many instances.
pub(crate) fn decide(policy: &ScalingPolicy, window: &Window, quantity: u32, now: Timestamp) -> Option<Decision> {
    let metric = policy.autoscale?;
    // Who stopped it altogether meant that.
    if quantity == 0 {
        return None;
    }
    let bounded = quantity.clamp(policy.min, policy.max);
    if bounded != quantity {
        let reason = format!("there are to be {} to {}", policy.min, policy.max);
        return Some(Decision { from: quantity, to: bounded, value: None, reason });
    }
    let rest = window.changed_at.map_or(Duration::MAX, |changed| now.since(changed));
    let seen = window.seen(policy, quantity, now)?;
    let wanted = wanted(policy, &seen, quantity);
    let decision = |to: u32, more: &str| {
        let value = Some(seen.value);
        let reason = format!("{}{more}", words(metric, &seen, policy.target(), quantity));
        Some(Decision { from: quantity, to, value, reason })
    };
    if wanted > quantity {
        return if rest >= SETTLE.min(policy.cool_down) { decision(wanted, "") } else { None };
    }
    if wanted == quantity || rest < policy.cool_down {
        return None;
    }
    // Every look of a whole cool-down must have wanted fewer, and there must have been one from its beginning on.
    let looks: Vec<Timestamp> =
        window.samples.iter().map(|sample| sample.at).filter(|at| now.since(*at) <= policy.cool_down).collect();
    let first = looks.first()?;
    if now.since(*first) + LOOK / 2 < policy.cool_down {
        return None;
    }
    let seen_then = looks.iter().filter_map(|at| window.seen(policy, quantity, *at));
    let highest = seen_then.map(|seen| self::wanted(policy, &seen, quantity)).max()?.max(wanted);
    let still = window.raises.iter().filter(|raise| seen.load > raise.load * STILL).map(|raise| raise.from + 1).max();
    let to = highest.max(still.unwrap_or(0));
    let time = policy.get("cool_down");
    if to < quantity { decision(to, &format!(", and no more was needed for {time}")) } else { None }
}

/// How many instances what was measured asks for.
fn wanted(policy: &ScalingPolicy, seen: &Seen, quantity: u32) -> u32 {
    let target = number(policy.target()).max(1.0);
    let ratio = seen.value / target;
    let proportional = || round_up(f64::from(quantity) * ratio);
    let wanted = match policy.autoscale {
        Some(Metric::P95) if ratio > 1.0 && seen.requests >= FEWEST_REQUESTS => {
            proportional().clamp(quantity + 1, quantity.saturating_mul(2))
        }
        Some(Metric::P95) if ratio < SPARE => quantity - 1,
        None | Some(Metric::P95) => quantity,
        Some(_) if (ratio - 1.0).abs() <= TOLERANCE => quantity,
        Some(_) => proportional(),
    };
    wanted.clamp(policy.min, policy.max)
}

/// What was measured, for people.
fn words(metric: Metric, seen: &Seen, target: u64, quantity: u32) -> String {
    let value = seen.value;
    let s = if quantity == 1 { "" } else { "s" };
    match metric {
        Metric::P95 => {
            let requests = seen.requests;
            format!(
                "95 % of {requests} requests in a minute were answered within {value:.0} ms; the target is {target} ms"
            )
        }
        Metric::Rps => {
            format!("{value:.1} requests/s on each of {quantity} dyno{s} in a minute; the target is {target}")
        }
        Metric::Cpu => format!("{value:.0} % of the CPU of {quantity} dyno{s} in a minute; the target is {target} %"),
        Metric::Memory => {
            format!("{value:.0} % of the memory of {quantity} dyno{s} in a minute; the target is {target} %")
        }
    }
}

/// The time in milliseconds within which this part of all requests had their answer; 0 if there was none.
pub(crate) fn percentile(counts: &Counts, part: f64) -> f64 {
    let all: u64 = counts.latency.iter().sum();
    let rank = number(all) * part;
    let mut below = 0.0;
    for (index, count) in counts.latency.iter().enumerate() {
        let inside = number(*count);
        if inside > 0.0 && below + inside >= rank {
            let begin = index.checked_sub(1).map_or(0, |index| LATENCY_ENDS_MS[index]);
            // The last part has no end.
            let end = LATENCY_ENDS_MS.get(index).copied().unwrap_or(begin);
            return number(begin) + number(end - begin) * ((rank - below) / inside);
        }
        below += inside;
    }
    0.0
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that is too large becomes the largest"
)]
fn round_up(value: f64) -> u32 {
    value.ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(10);

    fn policy(metric: &str, settings: &[(&str, &str)]) -> ScalingPolicy {
        let mut policy = ScalingPolicy::default();
        for (name, text) in
            [("metric", metric), ("min", "1"), ("max", "10"), ("cool_down", "3m")].iter().chain(settings)
        {
            policy.set(name, text).expect("a setting");
        }
        policy
    }

    /// An app whose instances answer 20 requests a second each before they get slow; each has a tenth of a processor's time for one.
    struct Simulation {
        policy: ScalingPolicy,
        window: Window,
        quantity: u32,
        second: i64,
        /// Seconds, quantities and reasons.
        history: Vec<(i64, u32, String)>,
        seed: u64,
    }

    impl Simulation {
        fn new(policy: ScalingPolicy) -> Self {
            Self { policy, window: Window::default(), quantity: 1, second: 0, history: Vec::new(), seed: 7 }
        }

        /// From 0 to 1, the same in every run.
        fn chance(&mut self) -> f64 {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(self.seed >> 33).expect("31 bits")) / f64::from(1_u32 << 31)
        }

        /// Goes on for so many minutes with a load in requests a second, which may depend on the second and is never quite even.
        fn run(&mut self, minutes: i64, load: impl Fn(i64) -> f64) -> &mut Self {
            for _ in 0..minutes * 6 {
                self.second += 10;
                let now = Timestamp::from_millis(self.second * 1000);
                let rate = load(self.second) * (0.85 + 0.3 * self.chance());
                let used = rate / (f64::from(self.quantity) * 20.0);
                let usual = if used < 0.95 { 30.0 / (1.0 - used) } else { 8000.0 };
                let mut requests = Counts { requests: round_up(rate * 10.0).into(), ..Counts::default() };
                for number in 0..requests.requests {
                    // Every tenth takes three times as long.
                    let slow = if number % 10 == 9 { 3.0 } else { 1.0 };
                    requests.add_latency(round_up(usual * slow).into());
                }
                let (cpu, memory) = (Some((used * 100.0).min(100.0)), Some(40.0));
                let sample =
                    Sample { at: now, time: TICK, quantity: self.quantity, requests: Some(requests), cpu, memory };
                self.window.add(sample, &self.policy);
                if let Some(decision) = decide(&self.policy, &self.window, self.quantity, now) {
                    self.window.carried_out(&self.policy, &decision, now);
                    self.quantity = decision.to;
                    self.history.push((self.second, decision.to, decision.reason));
                }
            }
            self
        }
    }

    #[test]
    fn an_even_load_settles_and_nothing_goes_to_and_fro() {
        for metric in ["p95", "rps", "cpu"] {
            for load in [0.0, 1.0, 18.0, 35.0, 70.0, 111.0, 150.0] {
                let target = match metric {
                    "p95" => "400",
                    "rps" => "12",
                    _ => "60",
                };
                let mut simulation = Simulation::new(policy(metric, &[("target", target)]));
                simulation.run(60, |_| load);
                let settled = simulation.history.len();
                simulation.run(6 * 60, |_| load);
                let later: Vec<_> = simulation.history[settled..].to_vec();
                assert_eq!(later, [], "{metric} at {load}/s");
                let used = load / (f64::from(simulation.quantity) * 20.0);
                assert!(used < 0.95, "{metric} at {load}/s: {} instances are too few", simulation.quantity);
                assert!(
                    simulation.quantity == 1 || used > 0.25,
                    "{metric} at {load}/s: {} are too many",
                    simulation.quantity
                );
            }
        }
    }

    #[test]
    fn a_load_that_grows_is_followed_at_once_and_one_that_ends_after_the_cool_down() {
        for metric in ["p95", "rps", "cpu"] {
            let target = if metric == "p95" { "400" } else { "15" };
            let mut simulation = Simulation::new(policy(metric, &[("target", target)]));
            let quiet = simulation.run(30, |_| 5.0).quantity;
            assert!(quiet <= 4, "{metric}: {quiet}");
            let at_peak = simulation.run(5, |_| 100.0).quantity;
            assert!(at_peak >= 6, "{metric}: {at_peak} in {:?}", simulation.history);
            let changes = simulation.history.len();
            simulation.run(2, |_| 5.0);
            assert_eq!(simulation.history.len(), changes, "{metric}: nothing goes before the cool-down is over");
            assert!(simulation.run(60, |_| 5.0).quantity <= quiet + 1, "{metric}: {:?}", simulation.history);
        }
    }

    #[test]
    fn a_day_is_followed_with_few_changes_and_within_its_bounds() {
        let day = |second: i64| {
            let hours = Duration::from_secs(u64::try_from(second).unwrap_or(0)).as_secs_f64() / 3600.0;
            60.0 - 50.0 * (hours / 24.0 * std::f64::consts::TAU).cos()
        };
        let mut simulation = Simulation::new(policy("rps", &[("target", "12"), ("min", "2"), ("max", "8")]));
        simulation.run(2 * 24 * 60, day);
        let quantities: Vec<u32> = simulation.history.iter().map(|(_, quantity, _)| *quantity).collect();
        assert!(quantities.iter().all(|quantity| (2..=8).contains(quantity)), "{quantities:?}");
        assert!(quantities.contains(&8) && quantities.contains(&2), "{quantities:?}");
        assert!(quantities.len() < 60, "{} changes in two days", quantities.len());
    }

    #[test]
    fn bounds_hold_at_once_and_zero_is_left_alone() {
        let policy = policy("p95", &[("min", "2"), ("max", "4")]);
        let to = |quantity| {
            let decision = decide(&policy, &Window::default(), quantity, Timestamp::from_millis(0));
            decision.map(|decision| (decision.to, decision.reason))
        };
        assert_eq!(to(1), Some((2, "there are to be 2 to 4".to_owned())));
        assert_eq!(to(9).map(|(to, _)| to), Some(4));
        assert_eq!((to(0), to(3)), (None, None));
        let off = ScalingPolicy { autoscale: None, ..policy.clone() };
        assert_eq!(decide(&off, &Window::default(), 1, Timestamp::from_millis(0)), None);
    }

    #[test]
    fn what_nobody_measured_decides_nothing() {
        let policy = policy("cpu", &[("target", "50"), ("cool_down", "30s")]);
        let mut window = Window::default();
        let mut look = |second: i64, cpu| {
            let at = Timestamp::from_millis(second * 1000);
            let sample = Sample { at, time: TICK, quantity: 2, requests: None, cpu, memory: None };
            window.add(sample, &policy);
            decide(&policy, &window, 2, at).map(|decision| decision.to)
        };
        assert!((1..30).all(|tick| look(tick * 10, None).is_none()));
        assert_eq!([look(300, Some(90.0)), look(310, Some(90.0))], [None, None], "two looks are not enough");
        assert_eq!(look(320, Some(90.0)), Some(4));
        assert_eq!(look(1000, Some(90.0)), None, "what was long ago says nothing");
    }

    #[test]
    fn a_few_slow_requests_are_chance() {
        let policy = policy("p95", &[("target", "100")]);
        let mut window = Window::default();
        let mut requests = Counts { requests: 3, ..Counts::default() };
        (0..3).for_each(|_| requests.add_latency(5000));
        for tick in 1..=6 {
            let at = Timestamp::from_millis(tick * 10_000);
            let sample = Sample { at, time: TICK, quantity: 1, requests: Some(requests), cpu: None, memory: None };
            window.add(sample, &policy);
            let decision = decide(&policy, &window, 1, at);
            assert_eq!(decision, None);
        }
    }

    #[test]
    fn percentiles_come_from_the_parts() {
        let mut counts = Counts::default();
        for milliseconds in (1..=100).map(|number| number * 10) {
            counts.add_latency(milliseconds);
        }
        let p95 = percentile(&counts, 0.95);
        assert!((900.0..=1000.0).contains(&p95), "{p95}");
        assert!((percentile(&Counts::default(), 0.95)).abs() < f64::EPSILON);
        (0..1000).for_each(|_| counts.add_latency(60_000));
        assert!((percentile(&counts, 0.95) - 10_000.0).abs() < 1.0, "the last part has no end");
    }
}
