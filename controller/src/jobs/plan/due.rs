//! Runs that are due, and those that were while nobody could start them.

use std::sync::Arc;
use std::time::Duration;

use model::job::{Misfire, Overlap};
use model::{JobId, JobSpec, Timestamp};

use super::{Plan, Row};
use crate::store::{Job, JobCause, JobRun, JobRunState, Shard};

/// A run that begins this much too late does so because nobody could start it in time.
const MISFIRED: Duration = Duration::from_secs(60);
/// So many of what was due are counted; it does not matter how many more there were.
const COUNTED: usize = 1000;

impl Plan<'_> {
    /// Makes the runs that are due.
    pub(super) fn become_due(&mut self) {
        let is_due = |job: &Job| !job.removed && job.next_due.is_some_and(|due| due <= self.now);
        let due: Vec<JobId> = self.jobs.values().filter(|(job, _)| is_due(job)).map(|(job, _)| job.id).collect();
        for id in due {
            let Some((job, spec)) = self.jobs.get_mut(&id) else { continue };
            let from = job.next_due.unwrap_or(self.now);
            job.next_due = if spec.suspend { None } else { spec.schedule.next(&spec.timezone, self.now) };
            let spec = Arc::clone(spec);
            let times = between(&spec, from, self.now);
            let (fresh, old): (Vec<_>, Vec<_>) = times.into_iter().partition(|due| self.now.since(*due) < MISFIRED);
            let keep = match spec.misfire {
                Misfire::Skip => 0,
                Misfire::Once => usize::from(fresh.is_empty()),
                Misfire::All => spec.misfire_limit as usize,
            };
            let (missed, made_up) = old.split_at(old.len().saturating_sub(keep));
            if let [first, ..] = missed {
                self.miss(id, *first, missed.len());
            }
            for due in made_up {
                self.make(id, (*due, JobCause::Misfire), &spec);
            }
            // What is due just now waits for its turn behind those.
            let cause = if made_up.is_empty() { JobCause::Schedule } else { JobCause::Misfire };
            for due in &fresh {
                self.make(id, (*due, cause), &spec);
            }
        }
    }

    /// Makes one run, or notes why there is none.
    fn make(&mut self, id: JobId, (due_at, cause): (Timestamp, JobCause), spec: &JobSpec) {
        let Some(mut run) = self.new_run(id, (due_at, cause), spec.shards) else { return };
        let number = run.number;
        let open = |run: &&mut Row<JobRun>| run.job == id && run.ended_at.is_none();
        let others: Vec<&mut Row<JobRun>> = self.runs.iter_mut().filter(open).collect();
        let waiting = others.iter().filter(|run| run.begun_at.is_none() && run.stop.is_none()).count();
        let refusal = match (spec.overlap, others.first()) {
            // What is made up for waits for its turn: that there is more than one of it is no fault of the job.
            (Overlap::Forbid, Some(other)) if cause != JobCause::Misfire => {
                Some(format!("run {} is not over", other.number))
            }
            (Overlap::Allow | Overlap::Forbid, _) if waiting >= spec.queue as usize => {
                Some(format!("{waiting} runs wait already"))
            }
            _ => None,
        };
        if let Some(why) = refusal {
            (run.state, run.ended_at, run.failure) = (JobRunState::Skipped, Some(self.now), Some(why.clone()));
            self.runs.push(Row::new(run.clone()));
            // One after the other that is skipped is told of once.
            let mark = "did not run";
            let is_told = |job: &Job| job.alert.as_ref().is_some_and(|(text, _)| text.contains(mark));
            if !self.jobs.get(&id).is_some_and(|(job, _)| is_told(job)) {
                self.alert(&run, "missed", &format!("run {number} {mark}: {why}"));
            }
            return;
        }
        if spec.overlap == Overlap::Replace {
            for other in others {
                other.stop.get_or_insert_with(|| format!("run {number} took its place"));
            }
        }
        self.runs.push(Row::new(run));
    }

    /// Notes that runs were due, and are none.
    fn miss(&mut self, id: JobId, first: Timestamp, count: usize) {
        let Some(mut run) = self.new_run(id, (first, JobCause::Misfire), 0) else { return };
        let (more, s) = (if count >= COUNTED { " and more" } else { "" }, if count == 1 { "" } else { "s" });
        let why = format!("{count}{more} run{s} from {first} on did not happen: the platform was away");
        (run.state, run.ended_at, run.failure) = (JobRunState::Skipped, Some(self.now), Some(why.clone()));
        self.runs.push(Row::new(run.clone()));
        self.alert(&run, "missed", &why);
    }

    fn new_run(&mut self, id: JobId, (due_at, cause): (Timestamp, JobCause), shards: u32) -> Option<JobRun> {
        let (job, _) = self.jobs.get_mut(&id)?;
        job.last_number += 1;
        let (app, number) = (job.app, job.last_number);
        let run = JobRun {
            id: (self.new_id)(),
            job: id,
            app,
            number,
            due_at,
            cause,
            user: None,
            state: JobRunState::Queued,
            stop: None,
            late: false,
            release: None,
            shards: vec![Shard::default(); shards as usize],
            failure: None,
            queued_at: self.now,
            begun_at: None,
            ended_at: None,
        };
        Some(run)
    }
}

/// The times of a schedule from one moment to another, both included; of many the newest.
fn between(spec: &JobSpec, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let mut times = Vec::new();
    let mut last = spec.schedule.last(&spec.timezone, until);
    while let Some(time) = last.filter(|time| *time >= from && times.len() < COUNTED) {
        times.push(time);
        last = spec.schedule.last(&spec.timezone, Timestamp::from_millis(time.as_millis() - 1));
    }
    if times.is_empty() {
        // It was due by what was written down, whatever the clocks say of it by now.
        times.push(from);
    }
    times.reverse();
    times
}
