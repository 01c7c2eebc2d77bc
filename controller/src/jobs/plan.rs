//! What to do about jobs and their runs: a pure function of what is written down, what is seen and the time.

mod due;
mod shards;
mod starts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::OneOffId;
use model::{AppId, Exit, JobId, JobRunId, JobSpec, ProcessType, Timestamp};
use serde_json::json;

use super::world::{Row, World};
use crate::store::{Action, Job, JobChanges, JobRun, JobRunState, NewEvent, Resource, ShardState};

/// What begins the engine's name of every process of a job.
const PREFIX: &str = "job-";

/// What the engine says of processes of jobs.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Those that run.
    pub(super) running: BTreeSet<OneOffId>,
    /// Those that are over, how and when.
    pub(super) ended: BTreeMap<OneOffId, (Exit, Timestamp)>,
    /// Those that are being made.
    pub(super) starting: BTreeSet<OneOffId>,
    /// Those that could not be made.
    pub(super) refused: BTreeMap<OneOffId, Refusal>,
    /// Dynos that resident jobs can run in.
    pub(super) workers: Vec<Worker>,
}

/// Why a process could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no room, or nobody to ask: it can be tried again.
    Busy(String),
    /// It cannot be.
    Failed(String),
}

/// A dyno of a formation that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) app: AppId,
    pub(super) process_type: ProcessType,
    /// What the engine calls it.
    pub(super) instance: String,
}

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) id: OneOffId,
    pub(super) run: JobRun,
    pub(super) job: String,
    pub(super) spec: Arc<JobSpec>,
    pub(super) shard: usize,
}

/// A line for an app's log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) app: AppId,
    pub(super) text: String,
}

/// What is to be done once what changed is written down.
#[derive(Debug, Default)]
pub(super) struct Acts {
    pub(super) starts: Vec<Start>,
    /// Processes to tell that they end.
    pub(super) stops: Vec<OneOffId>,
    /// Processes that belong to no run.
    pub(super) strays: Vec<OneOffId>,
    /// Processes whose end is taken down.
    pub(super) forget: Vec<OneOffId>,
    pub(super) lines: Vec<Line>,
    /// When there is something to decide even if nothing happens until then, beside the next time of a job.
    pub(super) wake: Option<Timestamp>,
}

/// What is being decided.
struct Plan<'a> {
    now: Timestamp,
    /// None while the engine is out of reach.
    seen: Option<&'a Seen>,
    jobs: &'a mut BTreeMap<JobId, (Row<Job>, Arc<JobSpec>)>,
    runs: &'a mut Vec<Row<JobRun>>,
    new_id: &'a mut dyn FnMut() -> JobRunId,
    acts: Acts,
    events: Vec<NewEvent>,
}

/// Decides: changes the world, and says what is to be written down of that and what is to be done then. `at_once` is how many
/// containers of jobs there may be on the platform.
pub(super) fn plan(
    world: &mut World,
    seen: Option<&Seen>,
    (at_once, now): (usize, Timestamp),
    new_id: &mut dyn FnMut() -> JobRunId,
) -> (JobChanges, Acts) {
    let (acts, events) = (Acts::default(), Vec::new());
    let mut plan = Plan { now, seen, jobs: &mut world.jobs, runs: &mut world.runs, new_id, acts, events };
    plan.settle();
    plan.become_due();
    plan.stop();
    plan.complete();
    plan.watch();
    plan.start(at_once);
    plan.sweep();
    let Plan { jobs, runs, acts, events, .. } = plan;
    let has_run = |id: JobId| runs.iter().any(|run| run.job == id && run.ended_at.is_none());
    let is_gone = |job: &Job| job.removed && !has_run(job.id);
    let gone: Vec<JobId> = jobs.values().filter(|(job, _)| is_gone(job)).map(|(job, _)| job.id).collect();
    let changed = |job: &&Row<Job>| job.is_changed() && !gone.contains(&job.id);
    let jobs = jobs.values().map(|(job, _)| job).filter(changed).map(|job| Job::clone(job)).collect();
    let runs = runs.iter().filter(|run| run.is_changed()).map(|run| JobRun::clone(run)).collect();
    (JobChanges { jobs, runs, gone, events }, acts)
}

impl Plan<'_> {
    /// Ends the processes of runs that are to end before their time.
    fn stop(&mut self) {
        for run in self.runs.iter_mut().filter(|run| run.ended_at.is_none() && run.stop.is_some()) {
            for index in 0..run.shards.len() {
                let id = process_id(run, index);
                let shard = &mut run.shards[index];
                match shard.state {
                    ShardState::Waiting => shard.state = ShardState::Done,
                    ShardState::Starting | ShardState::Up => self.acts.stops.push(id),
                    ShardState::Done => {}
                }
            }
        }
    }

    /// Ends the runs of which nothing is left to do.
    fn complete(&mut self) {
        let now = self.now;
        let is_done = |run: &JobRun| run.shards.iter().all(|shard| shard.state == ShardState::Done);
        for index in 0..self.runs.len() {
            let run = &mut self.runs[index];
            if run.ended_at.is_some() || !is_done(run) {
                continue;
            }
            let several = run.shards.len() > 1;
            let failed = run.shards.iter().enumerate().find_map(|(index, shard)| Some((index, shard.reason.clone()?)));
            run.ended_at = Some(now);
            if let Some(stop) = &run.stop {
                (run.state, run.failure) = (JobRunState::Stopped, Some(stop.clone()));
            } else if let Some((index, reason)) = failed {
                let reason = if several { format!("shard {index} {reason}") } else { format!("it {reason}") };
                (run.state, run.failure) = (JobRunState::Failed, Some(reason.clone()));
                let run = JobRun::clone(run);
                self.alert(&run, "failed", &format!("run {} failed: {reason}", run.number));
            } else {
                (run.state, run.failure) = (JobRunState::Succeeded, None);
                if let Some((job, _)) = self.jobs.get_mut(&run.job).filter(|(job, _)| job.alert.is_some()) {
                    job.alert = None;
                }
            }
        }
    }

    /// Tells of runs that should have begun and have not.
    fn watch(&mut self) {
        for index in 0..self.runs.len() {
            let run = &self.runs[index];
            if run.late || run.begun_at.is_some() || run.ended_at.is_some() {
                continue;
            }
            let Some((_, spec)) = self.jobs.get(&run.job) else { continue };
            // What is made up for cannot begin before it is.
            let expected = run.due_at.max(run.queued_at).after(spec.late_after);
            if self.now < expected {
                self.wake_at(expected);
                continue;
            }
            let why = match (&run.failure, self.seen) {
                (_, None) => "nothing can be started just now".to_owned(),
                (Some(why), _) => why.clone(),
                (None, _) => "others are before it".to_owned(),
            };
            let run = JobRun::clone(run);
            self.runs[index].late = true;
            let text = format!("run {} was due at {} and has not begun: {why}", run.number, run.due_at);
            self.alert(&run, "late", &text);
        }
    }

    /// Finds what no run knows, and what the engine need not remember.
    fn sweep(&mut self) {
        let Some(seen) = self.seen else { return };
        // Nothing of the others can be there.
        let has_begun = |run: &JobRun| run.begun_at.is_some() && run.ended_at.is_none();
        let known: BTreeSet<String> = self.runs.iter().filter(|run| has_begun(run)).map(|run| short(run.id)).collect();
        let is_stray = |id: &&OneOffId| run_of(id).is_some_and(|run| !known.contains(run));
        self.acts.strays = seen.running.iter().filter(is_stray).cloned().collect();
        self.acts.forget = seen.ended.keys().cloned().collect();
    }

    /// Tells people that something of a job is not as it should be: an event, a line in the log, a mark until a run succeeds.
    fn alert(&mut self, run: &JobRun, kind: &str, text: &str) {
        let now = self.now;
        let Some((job, _)) = self.jobs.get_mut(&run.job) else { return };
        job.alert = Some((text.to_owned(), now));
        let data = json!({ "alert": kind, "job": job.name, "message": text, "run": run.number,
            "due_at": run.due_at.to_rfc3339() });
        let (resource, action) = (Resource::JobRun, Action::Update);
        self.events.push(NewEvent { app: Some(run.app), resource, id: run.id.to_string(), action, data });
        self.acts.lines.push(Line { app: run.app, text: format!("Job {}: {text}", job.name) });
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.acts.wake = Some(self.acts.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// What the engine calls the next process, or the present one, of a shard of a run. The id of the app is where it is looked for when
/// that is gone (`sweep.rs`); with all of the run's id beside it the name would be too long.
pub(super) fn process_id(run: &JobRun, shard: usize) -> OneOffId {
    OneOffId(format!("{PREFIX}{}-{}-{shard}-{}", run.app, short(run.id), run.shards[shard].attempt()))
}

/// What names of processes have of the run that they are of; none if one is of none.
pub(super) fn run_of(id: &OneOffId) -> Option<&str> {
    id.0.strip_prefix(PREFIX)?.rsplit('-').nth(2)
}

/// What names of its processes have of a run.
pub(super) fn short(run: JobRunId) -> String {
    run.to_string().chars().filter(char::is_ascii_alphanumeric).take(16).collect()
}
