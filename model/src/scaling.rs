//! How many instances a process type has when nobody says so: the policy, as its owner words it.
//!
//! Every setting is a name and a text, the same in `app.json`, in the API, on the command line and where it is kept, as those of a
//! [`crate::RolloutPolicy`] are: [`ScalingPolicy::set`] is the one place that reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rollout::{duration, words};

/// The policy of one process type as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScalingPolicy {
    /// Its last instance stops once it got no request for so long, and the next request starts it again; none: never.
    pub sleep_after: Option<Duration>,
}

/// The word for what never happens.
const NEVER: &str = "never";

impl ScalingPolicy {
    /// The names of all settings.
    pub const SETTINGS: [&'static str; 1] = ["sleep_after"];

    /// Sets what has this name; an error says what the text must be.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let text = text.trim();
        match name {
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
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_written_as_it_is_read() {
        let mut policy = ScalingPolicy::default();
        for (name, text) in [("sleep_after", "30m"), ("sleep_after", "never")] {
            policy.set(name, text).expect("a good one");
            assert_eq!(policy.get(name), text);
        }
        assert_eq!(ScalingPolicy::from_texts(&BTreeMap::from([("other".into(), "1".into())])), policy);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let mut policy = ScalingPolicy::default();
        let refused = policy.set("sleep_after", "soon").expect_err("not a time");
        assert!(refused.ends_with("from 1s to 1d, not \"soon\", or never"), "{refused}");
        assert!(policy.set("sleep_after", "0").is_err() && policy.set("other", "1").is_err());
    }
}
