//! How the releases of an app replace each other: the policy, as its owner words it.
//!
//! Every setting is a name and a text (`max_surge` = `25%`), the same in `app.json`, in the API, on the command line and where it is
//! kept: [`RolloutPolicy::set`] is the one place that reads them.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

/// A policy as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutPolicy {
    /// How instances of the new release take the place of those of the old one.
    pub strategy: Strategy,
    /// So many instances more than there should be while they are replaced.
    pub max_surge: Amount,
    /// So many fewer that take requests.
    pub max_unavailable: Amount,
    /// Per cent of the requests and the instances that a canary gets, one step after the other.
    pub steps: Vec<u8>,
    /// What a canary waits for at each step.
    pub pause: Pause,
    /// A rollout that comes no further for so long has failed.
    pub deadline: Duration,
    /// An instance that crashes more often than this has failed; none is once, and not even that if it took long to crash.
    pub max_crashes: Option<u32>,
    /// So long after it is live a release is watched: what would have failed it before takes the app back to the release before it.
    pub watch: Duration,
    /// A release that is this many times worse than the one before it, by the share of requests that end in an error, has failed.
    pub error_factor: u32,
    /// So many requests it must have had before that is said; 0: it is never said.
    pub error_requests: u64,
    /// How long the release command may take.
    pub release_timeout: Duration,
}

/// How instances of one release take the place of another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Some at a time.
    Rolling,
    /// A few first, with a part of the requests, then more.
    Canary,
    /// A full second set is started, then takes everything at once.
    AllAtOnce,
}

/// So many, or a share of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// Per cent.
    Percent(u32),
}

/// What a canary waits for at each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// A time.
    For(Duration),
    /// Somebody's word.
    UntilContinued,
}

/// Most instances that an amount may count.
const MOST: u32 = 1000;
/// Longest times.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            max_surge: Amount::Percent(25),
            max_unavailable: Amount::Count(0),
            steps: vec![5, 20, 50],
            pause: Pause::For(Duration::from_secs(300)),
            deadline: Duration::from_secs(600),
            max_crashes: None,
            watch: Duration::from_secs(300),
            error_factor: 5,
            error_requests: 100,
            release_timeout: Duration::from_secs(3600),
        }
    }
}

impl RolloutPolicy {
    /// The names of all settings.
    pub const SETTINGS: [&'static str; 11] = [
        "strategy",
        "max_surge",
        "max_unavailable",
        "steps",
        "pause",
        "deadline",
        "max_crashes",
        "watch",
        "error_factor",
        "error_requests",
        "release_timeout",
    ];

    /// Sets what has this name; an error says what the text must be.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let text = text.trim();
        match name {
            "strategy" => self.strategy = text.parse()?,
            "max_surge" => self.max_surge = text.parse()?,
            "max_unavailable" => self.max_unavailable = text.parse()?,
            "steps" => self.steps = steps(text)?,
            "pause" if text == "manual" => self.pause = Pause::UntilContinued,
            "pause" => {
                self.pause = Pause::For(duration(text, Duration::ZERO).map_err(|rule| format!("{rule}, or manual"))?);
            }
            "deadline" => self.deadline = duration(text, Duration::from_secs(1))?,
            "max_crashes" if text == "auto" => self.max_crashes = None,
            "max_crashes" => {
                let count = number(text, 0, 1000).map_err(|rule| format!("{rule}, or auto"))?;
                self.max_crashes = u32::try_from(count).ok();
            }
            "watch" => self.watch = duration(text, Duration::ZERO)?,
            "error_factor" => self.error_factor = u32::try_from(number(text, 1, 1000)?).unwrap_or(u32::MAX),
            "error_requests" => self.error_requests = number(text, 0, 1_000_000_000)?,
            "release_timeout" => self.release_timeout = duration(text, Duration::from_secs(1))?,
            _ => return Err(format!("one of {}", Self::SETTINGS.join(", "))),
        }
        Ok(())
    }

    /// What has this name, as [`RolloutPolicy::set`] reads it.
    pub fn get(&self, name: &str) -> String {
        match name {
            "strategy" => self.strategy.to_string(),
            "max_surge" => self.max_surge.to_string(),
            "max_unavailable" => self.max_unavailable.to_string(),
            "steps" => self.steps.iter().map(u8::to_string).collect::<Vec<_>>().join(","),
            "pause" => match self.pause {
                Pause::For(time) => words(time),
                Pause::UntilContinued => "manual".to_owned(),
            },
            "deadline" => words(self.deadline),
            "max_crashes" => self.max_crashes.map_or_else(|| "auto".to_owned(), |count| count.to_string()),
            "watch" => words(self.watch),
            "error_factor" => self.error_factor.to_string(),
            "error_requests" => self.error_requests.to_string(),
            "release_timeout" => words(self.release_timeout),
            _ => String::new(),
        }
    }

    /// All settings.
    pub fn to_texts(&self) -> BTreeMap<String, String> {
        Self::SETTINGS.iter().map(|name| ((*name).to_owned(), self.get(name))).collect()
    }

    /// The policy with these settings; what cannot be read stays as it is by default.
    pub fn from_texts(texts: &BTreeMap<String, String>) -> Self {
        let mut policy = Self::default();
        for (name, text) in texts {
            // Whoever wrote it down checked it; what an older or newer program means by it is not ours to know.
            let _ = policy.set(name, text);
        }
        policy
    }

    /// Refuses settings that cannot be together.
    pub fn check(&self) -> Result<(), String> {
        if self.max_surge.is_zero() && self.max_unavailable.is_zero() {
            return Err("max_surge and max_unavailable cannot both be 0: nothing could ever be replaced".to_owned());
        }
        Ok(())
    }

    /// How many instances more than `quantity` there may be.
    pub fn surge(&self, quantity: u32) -> u32 {
        self.max_surge.of(quantity, true)
    }

    /// How many of `quantity` instances may be missing.
    pub fn unavailable(&self, quantity: u32) -> u32 {
        let unavailable = self.max_unavailable.of(quantity, false);
        // A share that is less than one instance would stop a rollout that may start none beside it.
        if unavailable == 0 && self.max_surge.is_zero() { 1.min(quantity) } else { unavailable }
    }
}

impl Amount {
    /// How many of `quantity` that is, rounded up or down.
    fn of(self, quantity: u32, up: bool) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let hundredths = u64::from(quantity) * u64::from(percent);
                let count = if up { hundredths.div_ceil(100) } else { hundredths / 100 };
                u32::try_from(count).unwrap_or(u32::MAX)
            }
        }
    }

    fn is_zero(self) -> bool {
        matches!(self, Self::Count(0) | Self::Percent(0))
    }
}

impl std::str::FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let must = || format!("must be a number up to {MOST} or a share like 25%, not {text:?}");
        let (digits, limit, amount): (&str, u32, fn(u32) -> Self) = match text.strip_suffix('%') {
            Some(percent) => (percent, 100, Self::Percent),
            None => (text, MOST, Self::Count),
        };
        let number = digits.parse::<u32>().ok().filter(|number| *number <= limit);
        number.map(amount).ok_or_else(must)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl std::str::FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rolling" => Ok(Self::Rolling),
            "canary" => Ok(Self::Canary),
            "all-at-once" => Ok(Self::AllAtOnce),
            _ => Err(format!("must be rolling, canary or all-at-once, not {text:?}")),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rolling => "rolling",
            Self::Canary => "canary",
            Self::AllAtOnce => "all-at-once",
        })
    }
}

/// `5,20,50`: each more than the one before.
fn steps(text: &str) -> Result<Vec<u8>, String> {
    let must = || format!("must be per cents from 1 to 99, each more than the one before, like 5,20,50, not {text:?}");
    let steps: Vec<u8> = text
        .split(',')
        .map(|step| step.trim().trim_end_matches('%').parse())
        .collect::<Result<_, _>>()
        .map_err(|_| must())?;
    let grows = steps.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = steps.iter().all(|step| (1..=99).contains(step));
    if grows && inside && steps.len() <= 20 { Ok(steps) } else { Err(must()) }
}

pub(crate) fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("must be a whole number from {least} to {most}, not {text:?}"))
}

/// `90s`, `10m`, `1h30m` or `1d`; a number by itself is seconds. A day at most.
pub(crate) fn duration(text: &str, least: Duration) -> Result<Duration, String> {
    let must =
        || format!("must be a time like 90s, 10m or 1h30m, from {} to {}, not {text:?}", words(least), words(DAY));
    let (mut total, mut digits) = (0_u64, String::new());
    for letter in text.chars() {
        let unit = match letter {
            '0'..='9' => {
                digits.push(letter);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(must()),
        };
        let count: u64 = std::mem::take(&mut digits).parse().map_err(|_| must())?;
        total = total.saturating_add(count.saturating_mul(unit));
    }
    if !digits.is_empty() {
        if total != 0 {
            return Err(must());
        }
        total = digits.parse().map_err(|_| must())?;
    } else if text.is_empty() {
        return Err(must());
    }
    Some(Duration::from_secs(total)).filter(|time| (least..=DAY).contains(time)).ok_or_else(must)
}

/// A time as settings have it: `1h30m`.
pub fn words(time: Duration) -> String {
    let mut rest = time.as_secs();
    let mut text = String::new();
    for (unit, seconds) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if rest >= seconds {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{unit}", rest / seconds);
            rest %= seconds;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_written_as_it_is_read() {
        let mut policy = RolloutPolicy::default();
        for (name, text) in [
            ("strategy", "canary"),
            ("max_surge", "3"),
            ("max_unavailable", "50%"),
            ("steps", "1,10,99"),
            ("pause", "manual"),
            ("deadline", "1h30m"),
            ("max_crashes", "7"),
            ("watch", "0s"),
            ("error_factor", "2"),
            ("error_requests", "0"),
            ("release_timeout", "1d"),
        ] {
            policy.set(name, text).expect(name);
            assert_eq!(policy.get(name), text, "{name}");
        }
        assert_eq!(RolloutPolicy::from_texts(&policy.to_texts()), policy);
        let default = RolloutPolicy::default();
        assert_eq!(RolloutPolicy::from_texts(&default.to_texts()), default);
    }

    #[test]
    fn what_cannot_be_is_refused_by_rule() {
        let refused = |name: &str, text: &str| RolloutPolicy::default().set(name, text).expect_err(text);
        for (name, text) in [
            ("strategy", "blue"),
            ("max_surge", "101%"),
            ("max_surge", "-1"),
            ("max_unavailable", "many"),
            ("steps", "20,5"),
            ("steps", "0,5"),
            ("steps", "5,100"),
            ("steps", ""),
            ("pause", "soon"),
            ("deadline", "0s"),
            ("deadline", "2d"),
            ("deadline", "1h5"),
            ("deadline", ""),
            ("max_crashes", "x"),
            ("error_factor", "0"),
        ] {
            assert!(refused(name, text).starts_with("must be "), "{name} {text}: {}", refused(name, text));
        }
        assert!(refused("speed", "1").contains("max_surge"));
        let mut policy = RolloutPolicy::default();
        policy.set("max_surge", "0").expect("possible");
        assert!(policy.check().expect_err("nothing moves").contains("cannot both be 0"));
        policy.set("max_unavailable", "10%").expect("possible");
        policy.check().expect("possible");
    }

    #[test]
    fn something_can_always_be_replaced() {
        for (surge, unavailable) in [("0%", "10%"), ("25%", "0"), ("0", "1"), ("1%", "1%"), ("0", "0")] {
            let mut policy = RolloutPolicy::default();
            policy.set("max_surge", surge).expect(surge);
            policy.set("max_unavailable", unavailable).expect(unavailable);
            for quantity in 1..20 {
                let (more, fewer) = (policy.surge(quantity), policy.unavailable(quantity));
                assert!(more + fewer > 0, "{surge} {unavailable} {quantity}");
            }
        }
        let policy = RolloutPolicy::default();
        assert_eq!(
            [1, 4, 5].map(|quantity| (policy.surge(quantity), policy.unavailable(quantity))),
            [(1, 0), (1, 0), (2, 0)]
        );
    }
}
