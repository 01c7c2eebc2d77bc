//! How many instances a process type has when nobody says so: the policy, as its owner words it.
//!
//! Every setting is a name and a text, the same in `app.json`, in the API, on the command line and where it is kept, as those of a
//! [`crate::RolloutPolicy`] are: [`ScalingPolicy::set`] is the one place that reads them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::rollout::{duration, number, words};

/// The policy of one process type as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalingPolicy {
    /// What decides how many instances there are; none: nobody but people.
    pub autoscale: Option<Metric>,
    /// What is to be kept to, in the metric's unit; none is what is usual for it.
    pub target: Option<u64>,
    /// Fewest instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// So long after a change there are not fewer.
    pub cool_down: Duration,
    /// Its last instance stops once it got no request for so long, and the next request starts it again; none: never.
    pub sleep_after: Option<Duration>,
}

/// What is measured of a process type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Milliseconds within which 95 % of its requests are answered.
    P95,
    /// Requests a second on each instance.
    Rps,
    /// Per cent of an instance's share of the processors.
    Cpu,
    /// Per cent of an instance's memory.
    Memory,
}

/// The word for what never happens.
const NEVER: &str = "never";
/// The word for a metric that is none.
const OFF: &str = "off";
/// The word for a target that is usual.
const AUTO: &str = "auto";
/// Most instances that a policy may ask for.
const MOST: u64 = 1000;

impl Default for ScalingPolicy {
    fn default() -> Self {
        let cool_down = Duration::from_secs(300);
        Self { autoscale: None, target: None, min: 1, max: 3, cool_down, sleep_after: None }
    }
}

impl ScalingPolicy {
    /// The names of all settings.
    pub const SETTINGS: [&'static str; 6] = ["metric", "target", "min", "max", "cool_down", "sleep_after"];

    /// Sets what has this name; an error says what the text must be.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let text = text.trim();
        match name {
            "metric" if text == OFF => self.autoscale = None,
            "metric" => self.autoscale = Some(text.parse()?),
            "target" if text == AUTO => self.target = None,
            "target" => {
                let target = number(text, 1, 1_000_000).map_err(|rule| format!("{rule}, or {AUTO}"))?;
                self.target = Some(target);
            }
            "min" => self.min = count(text)?,
            "max" => self.max = count(text)?,
            "cool_down" => self.cool_down = duration(text, Duration::from_secs(30))?,
            "sleep_after" if text == NEVER => self.sleep_after = None,
            "sleep_after" => {
                let time = duration(text, Duration::from_secs(1)).map_err(|rule| format!("{rule}, or {NEVER}"))?;
                self.sleep_after = Some(time);
            }
            _ => return Err(format!("one of {}", Self::SETTINGS.join(", "))),
        }
        Ok(())
    }

    /// What has this name, as [`ScalingPolicy::set`] reads it.
    pub fn get(&self, name: &str) -> String {
        match name {
            "metric" => self.autoscale.map_or_else(|| OFF.to_owned(), |metric| metric.to_string()),
            "target" => self.target.map_or_else(|| AUTO.to_owned(), |target| target.to_string()),
            "min" => self.min.to_string(),
            "max" => self.max.to_string(),
            "cool_down" => words(self.cool_down),
            "sleep_after" => self.sleep_after.map_or_else(|| NEVER.to_owned(), words),
            _ => String::new(),
        }
    }

    /// The policy with these settings; what cannot be read stays as it is by default.
    pub fn from_texts(texts: &BTreeMap<String, String>) -> Self {
        let mut policy = Self::default();
        for (name, text) in texts {
            // Whoever wrote it down checked it; what an older or newer program means by it is not ours to know.
            let _ = policy.set(name, text);
        }
        policy.max = policy.max.max(policy.min);
        policy
    }

    /// Refuses settings that cannot be together, or not of this process type.
    pub fn check(&self, process_type: &str) -> Result<(), String> {
        let is_web = process_type == "web";
        if self.min > self.max {
            return Err(format!("min is {} and max is {}: there must be a number between them", self.min, self.max));
        }
        if self.sleep_after.is_some() && !is_web {
            return Err(format!("{process_type} cannot sleep: only web gets requests that could wake it"));
        }
        match self.autoscale {
            Some(metric @ (Metric::P95 | Metric::Rps)) if !is_web => Err(format!(
                "{process_type} cannot be scaled by {metric}: only web gets requests. There are cpu and memory"
            )),
            Some(Metric::Cpu | Metric::Memory) if self.target() > 100 => {
                Err("target must be per cent, from 1 to 100".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// What is to be kept to, in the metric's unit.
    pub fn target(&self) -> u64 {
        let usual = match self.autoscale {
            None => 0,
            Some(Metric::P95) => 500,
            Some(Metric::Rps) => 20,
            Some(Metric::Cpu) => 70,
            Some(Metric::Memory) => 80,
        };
        self.target.unwrap_or(usual)
    }
}

fn count(text: &str) -> Result<u32, String> {
    number(text, 1, MOST).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "p95" => Ok(Self::P95),
            "rps" => Ok(Self::Rps),
            "cpu" => Ok(Self::Cpu),
            "memory" => Ok(Self::Memory),
            _ => Err(format!("must be p95, rps, cpu, memory or {OFF}, not {text:?}")),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P95 => "p95",
            Self::Rps => "rps",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_written_as_it_is_read() {
        let mut policy = ScalingPolicy::default();
        for (name, text) in [
            ("metric", "memory"),
            ("metric", "p95"),
            ("target", "250"),
            ("target", "auto"),
            ("min", "2"),
            ("max", "9"),
            ("cool_down", "1m30s"),
            ("sleep_after", "30m"),
            ("sleep_after", "never"),
        ] {
            policy.set(name, text).expect("a good one");
            assert_eq!(policy.get(name), text);
        }
        assert_eq!((policy.target(), policy.check("web")), (500, Ok(())));
        let texts = ScalingPolicy::SETTINGS.iter().map(|name| ((*name).to_owned(), policy.get(name))).collect();
        assert_eq!(ScalingPolicy::from_texts(&texts), policy);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let mut policy = ScalingPolicy::default();
        let refused = policy.set("sleep_after", "soon").expect_err("not a time");
        assert!(refused.ends_with("from 1s to 1d, not \"soon\", or never"), "{refused}");
        for (name, text) in [("metric", "luck"), ("min", "0"), ("max", "many"), ("cool_down", "1s"), ("other", "1")] {
            assert!(policy.set(name, text).is_err(), "{name}={text}");
        }
        let with = |settings: &[(&str, &str)], process_type: &str| {
            let mut policy = ScalingPolicy::default();
            for (name, text) in settings {
                policy.set(name, text).expect("a setting");
            }
            policy.check(process_type)
        };
        assert!(with(&[("min", "5")], "web").is_err_and(|rule| rule.contains("max is 3")));
        assert!(with(&[("metric", "rps")], "worker").is_err_and(|rule| rule.contains("cpu and memory")));
        assert!(with(&[("sleep_after", "1h")], "worker").is_err_and(|rule| rule.contains("only web")));
        assert!(with(&[("metric", "cpu"), ("target", "120")], "worker").is_err_and(|rule| rule.contains("per cent")));
        assert_eq!(with(&[("metric", "cpu"), ("target", "60")], "worker"), Ok(()));
    }
}
