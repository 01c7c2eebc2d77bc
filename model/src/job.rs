//! What an app wants to have run at certain times, as its owner words it.
//!
//! Every setting is a name and a text (`timeout` = `15m`), the same in `app.json`, in the API, on the command line and where it is kept:
//! [`JobSpec::set`] is the one place that reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ProcessType;
use crate::rollout::{duration, number, words};
use crate::schedule::{Schedule, Zone};

/// A job with all of its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// A command line.
    pub command: String,
    /// When it is due.
    pub schedule: Schedule,
    /// By whose clocks.
    pub timezone: Zone,
    /// It is not due for now.
    pub suspend: bool,
    /// What becomes of a run that is due while another one is not over.
    pub overlap: Overlap,
    /// What becomes of runs that were due while the platform was down.
    pub misfire: Misfire,
    /// With [`Misfire::All`] so many of them run, the newest ones.
    pub misfire_limit: u32,
    /// One attempt takes no longer.
    pub timeout: Duration,
    /// So often a shard that failed is run again.
    pub retries: u32,
    /// The pause before the first of those; each further one is twice as long.
    pub retry_pause: Duration,
    /// A run is so many processes.
    pub shards: u32,
    /// What each of them is told beside its number, in their order.
    pub shard_parameters: Vec<String>,
    /// So often a shard whose instance died is run again elsewhere.
    pub failover: u32,
    /// Where it runs.
    pub kind: Kind,
    /// The process type of the dynos in which a resident one runs.
    pub process: Option<ProcessType>,
    /// Name of the size of the dynos that a transient one starts.
    pub size: Option<String>,
    /// So many runs wait at most.
    pub queue: u32,
    /// So many run at once at most, where they may overlap.
    pub parallel: u32,
    /// One that has not begun so long after it was due is told of.
    pub late_after: Duration,
}

/// What becomes of a run that is due while another one is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// It runs beside it.
    Allow,
    /// It does not run.
    Forbid,
    /// The other one is stopped.
    Replace,
}

/// What becomes of runs that were due while nobody could start them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfire {
    /// One runs for all of them.
    Once,
    /// The newest ones run, up to a limit.
    All,
    /// None does.
    Skip,
}

/// Where a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In dynos that are started for it.
    Transient,
    /// In dynos of the formation that are there already.
    Resident,
}

/// Longest command, in bytes.
const LONGEST_COMMAND: usize = 8192;
/// Longest text for all shards together.
const LONGEST_PARAMETERS: usize = 4096;
/// Most shards of a run.
const MOST_SHARDS: u64 = 100;

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            command: String::new(),
            schedule: Schedule::default(),
            timezone: Zone::default(),
            suspend: false,
            overlap: Overlap::Allow,
            misfire: Misfire::Once,
            misfire_limit: 10,
            timeout: Duration::from_secs(24 * 60 * 60),
            retries: 0,
            retry_pause: Duration::from_secs(10),
            shards: 1,
            shard_parameters: Vec::new(),
            failover: 3,
            kind: Kind::Transient,
            process: None,
            size: None,
            queue: 100,
            parallel: 10,
            late_after: Duration::from_secs(300),
        }
    }
}

impl JobSpec {
    /// The names of all settings.
    pub const SETTINGS: [&'static str; 19] = [
        "command",
        "schedule",
        "timezone",
        "suspend",
        "overlap",
        "misfire",
        "misfire_limit",
        "timeout",
        "retries",
        "retry_pause",
        "shards",
        "shard_parameters",
        "failover",
        "kind",
        "process",
        "size",
        "queue",
        "parallel",
        "late_after",
    ];

    /// Sets what has this name; an error says what the text must be.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let text = text.trim();
        let second = Duration::from_secs(1);
        match name {
            "command" => self.command = command(text)?,
            "schedule" => self.schedule = text.parse()?,
            "timezone" => self.timezone = text.parse()?,
            "suspend" => self.suspend = flag(text)?,
            "overlap" => self.overlap = one_of(text, &Overlap::WORDS)?,
            "misfire" => self.misfire = one_of(text, &Misfire::WORDS)?,
            "misfire_limit" => self.misfire_limit = small(text, 1, 1000)?,
            "timeout" => self.timeout = duration(text, second)?,
            "retries" => self.retries = small(text, 0, 100)?,
            "retry_pause" => self.retry_pause = duration(text, Duration::ZERO)?,
            "shards" => self.shards = small(text, 1, MOST_SHARDS)?,
            "shard_parameters" => self.shard_parameters = parameters(text)?,
            "failover" => self.failover = small(text, 0, 100)?,
            "kind" => self.kind = one_of(text, &Kind::WORDS)?,
            "process" if text.is_empty() => self.process = None,
            "process" => {
                self.process = Some(text.parse().map_err(|_| "must be a process type like worker".to_owned())?);
            }
            "size" => self.size = Some(text.to_owned()).filter(|text| !text.is_empty()),
            "queue" => self.queue = small(text, 1, 10_000)?,
            "parallel" => self.parallel = small(text, 1, 1000)?,
            "late_after" => self.late_after = duration(text, second)?,
            _ => return Err(format!("one of {}", Self::SETTINGS.join(", "))),
        }
        Ok(())
    }

    /// What has this name, as [`JobSpec::set`] reads it.
    pub fn get(&self, name: &str) -> String {
        match name {
            "command" => self.command.clone(),
            "schedule" => self.schedule.to_string(),
            "timezone" => self.timezone.to_string(),
            "suspend" => self.suspend.to_string(),
            "overlap" => word(self.overlap, &Overlap::WORDS),
            "misfire" => word(self.misfire, &Misfire::WORDS),
            "misfire_limit" => self.misfire_limit.to_string(),
            "timeout" => words(self.timeout),
            "retries" => self.retries.to_string(),
            "retry_pause" => words(self.retry_pause),
            "shards" => self.shards.to_string(),
            "shard_parameters" => self.shard_parameters.join(","),
            "failover" => self.failover.to_string(),
            "kind" => word(self.kind, &Kind::WORDS),
            "process" => self.process.as_ref().map(ToString::to_string).unwrap_or_default(),
            "size" => self.size.clone().unwrap_or_default(),
            "queue" => self.queue.to_string(),
            "parallel" => self.parallel.to_string(),
            "late_after" => words(self.late_after),
            _ => String::new(),
        }
    }

    /// The job with these settings; what cannot be read stays as it is by default.
    pub fn from_texts(texts: &BTreeMap<String, String>) -> Self {
        let mut spec = Self::default();
        for (name, text) in texts {
            // Whoever wrote it down checked it; what an older or newer program means by it is not ours to know.
            let _ = spec.set(name, text);
        }
        spec
    }

    /// Refuses settings that cannot be together, and what lacks something.
    pub fn check(&self) -> Result<(), String> {
        if self.command.is_empty() {
            return Err("command is missing".to_owned());
        }
        if self.kind == Kind::Resident && self.process.is_none() {
            return Err("a resident job needs process, the process type of the dynos that it runs in".to_owned());
        }
        let (shards, given) = (self.shards as usize, self.shard_parameters.len());
        if given > shards {
            return Err(format!("shard_parameters are {given} for {shards} shards: there can be one for each"));
        }
        Ok(())
    }
}

impl Overlap {
    const WORDS: [(&'static str, Self); 3] =
        [("allow", Self::Allow), ("forbid", Self::Forbid), ("replace", Self::Replace)];
}

impl Misfire {
    const WORDS: [(&'static str, Self); 3] = [("once", Self::Once), ("all", Self::All), ("skip", Self::Skip)];
}

impl Kind {
    const WORDS: [(&'static str, Self); 2] = [("transient", Self::Transient), ("resident", Self::Resident)];
}

fn one_of<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(word, _)| *word == text);
    found.map(|(_, case)| *case).ok_or_else(|| {
        let all: Vec<_> = known.iter().map(|(word, _)| *word).collect();
        format!("must be {}, not {text:?}", all.join(" or "))
    })
}

fn word<T: Copy + PartialEq>(case: T, known: &[(&str, T)]) -> String {
    known.iter().find(|(_, other)| *other == case).map(|(word, _)| (*word).to_owned()).unwrap_or_default()
}

fn command(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LONGEST_COMMAND || text.contains(['\n', '\0']) {
        return Err(format!("must be a command on one line of at most {LONGEST_COMMAND} bytes"));
    }
    Ok(text.to_owned())
}

fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("must be true or false, not {text:?}"))
}

fn small(text: &str, least: u64, most: u64) -> Result<u32, String> {
    Ok(u32::try_from(number(text, least, most)?).unwrap_or(u32::MAX))
}

fn parameters(text: &str) -> Result<Vec<String>, String> {
    if text.len() > LONGEST_PARAMETERS || text.contains(['\n', '\0']) {
        return Err(format!("must be texts joined by commas, at most {LONGEST_PARAMETERS} bytes"));
    }
    if text.is_empty() { Ok(Vec::new()) } else { Ok(text.split(',').map(|part| part.trim().to_owned()).collect()) }
}

/// A name for a job that has none: what its command looks like, in as few letters as tell something.
pub fn name_of_command(command: &str) -> String {
    let mut name = String::new();
    for letter in command.chars().map(|letter| letter.to_ascii_lowercase()) {
        if letter.is_ascii_alphanumeric() {
            name.push(letter);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
        if name.len() >= 30 {
            break;
        }
    }
    let name = name.trim_end_matches('-').to_owned();
    if name.is_empty() { "job".to_owned() } else { name }
}

/// Whether a job may have this name: what a process type may be called, but shorter, since its dynos are named after it.
pub fn is_job_name(text: &str) -> bool {
    text.len() <= 40 && text.parse::<ProcessType>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_written_as_it_is_read() {
        let mut spec = JobSpec::default();
        for (name, text) in [
            ("command", "rake nightly | tee log"),
            ("schedule", "0 3 * * *"),
            ("timezone", "Europe/Berlin"),
            ("suspend", "true"),
            ("overlap", "replace"),
            ("misfire", "all"),
            ("misfire_limit", "5"),
            ("timeout", "1h30m"),
            ("retries", "2"),
            ("retry_pause", "0s"),
            ("shards", "3"),
            ("shard_parameters", "a,b,c"),
            ("failover", "0"),
            ("kind", "resident"),
            ("process", "worker"),
            ("size", "standard-2x"),
            ("queue", "5"),
            ("parallel", "7"),
            ("late_after", "10m"),
        ] {
            assert_ne!(spec.get(name), text, "{name} is no default");
            spec.set(name, text).unwrap_or_else(|rule| panic!("{name}: {rule}"));
            assert_eq!(spec.get(name), text);
        }
        let texts = JobSpec::SETTINGS.iter().map(|name| ((*name).to_owned(), spec.get(name))).collect();
        assert_eq!(JobSpec::from_texts(&texts), spec);
        assert_eq!(spec.check(), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_refused_and_says_what_can() {
        let mut spec = JobSpec::default();
        for (name, text, rule) in [
            ("command", " ", "one line"),
            ("timezone", "Berlin", "like Europe/Berlin"),
            ("overlap", "Allow", "allow or forbid or replace"),
            ("timeout", "2d", "a time like"),
            ("shards", "101", "from 1 to 100"),
            ("process", "Web!", "process type"),
            ("colour", "red", "one of command, schedule"),
        ] {
            let refused = spec.set(name, text).expect_err(name);
            assert!(refused.contains(rule), "{name}: {refused}");
        }
        assert!(spec.check().expect_err("no command").contains("command"));
        spec.command = "true".to_owned();
        spec.kind = Kind::Resident;
        assert!(spec.check().expect_err("nowhere to run").contains("process"));
        spec.kind = Kind::Transient;
        spec.shard_parameters = vec!["a".to_owned(), "b".to_owned()];
        assert!(spec.check().expect_err("too many").contains("one for each"));
    }

    #[test]
    fn a_job_without_a_name_is_called_like_its_command() {
        for (command, name) in [
            ("./manage.py clearsessions", "manage-py-clearsessions"),
            ("rake db:cleanup[all] --trace", "rake-db-cleanup-all-trace"),
            ("echo aaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbb", "echo-aaaaaaaaaaaaaaaaaaaaaaaa"),
            ("…", "job"),
        ] {
            assert_eq!(name_of_command(command), name);
            assert!(is_job_name(name));
        }
    }
}
