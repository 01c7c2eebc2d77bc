//! What became of the processes of runs.

use std::sync::Arc;
use std::time::Duration;

use engine::OneOffId;
use model::job::Kind;
use model::rollout::words;
use model::{Exit, JobSpec, Timestamp};

use super::{Plan, Refusal, Seen, Start, process_id};
use crate::store::{JobRun, Shard, ShardState};

/// So long nothing is tried again that there was no room for.
const BUSY_PAUSE: Duration = Duration::from_secs(10);

impl Plan<'_> {
    /// Takes down what became of every process.
    pub(super) fn settle(&mut self) {
        let Some(seen) = self.seen else { return };
        for run in self.runs.iter_mut().filter(|run| run.begun_at.is_some() && run.ended_at.is_none()) {
            let Some((job, spec)) = self.jobs.get(&run.job) else { continue };
            for index in 0..run.shards.len() {
                if !run.shards[index].is_open() {
                    continue;
                }
                let id = process_id(run, index);
                if goes_on(&run.shards[index], &id, seen) {
                    continue;
                }
                if settle(run, index, (&id, spec), seen, self.now) {
                    let (run, job, spec) = (JobRun::clone(run), job.name.clone(), Arc::clone(spec));
                    self.acts.starts.push(Start { id, run, job, spec, shard: index });
                }
            }
        }
    }
}

/// Whether nothing became of a process since it was looked at last.
fn goes_on(shard: &Shard, id: &OneOffId, seen: &Seen) -> bool {
    let is_known = seen.starting.contains(id) || shard.state == ShardState::Up && seen.running.contains(id);
    is_known && !seen.ended.contains_key(id) && !seen.refused.contains_key(id)
}

/// Takes down what became of a process; true if it has to be made once more.
fn settle(run: &mut JobRun, index: usize, (id, spec): (&OneOffId, &JobSpec), seen: &Seen, now: Timestamp) -> bool {
    let is_ending = run.stop.is_some();
    let shard = &mut run.shards[index];
    if let Some((exit, at)) = seen.ended.get(id) {
        ended(shard, (*exit, *at), (spec, seen), is_ending);
    } else if let Some(refusal) = seen.refused.get(id) {
        match refusal {
            Refusal::Busy(why) => {
                *shard = Shard { state: ShardState::Waiting, not_before: Some(now.after(BUSY_PAUSE)), ..shard.clone() };
                run.failure = Some(why.clone());
            }
            Refusal::Failed(why) => failed(shard, format!("could not be started: {why}"), (spec, now), is_ending),
        }
    } else if seen.running.contains(id) {
        shard.state = ShardState::Up;
    } else if is_ending {
        shard.state = ShardState::Done;
    } else if shard.state == ShardState::Starting && spec.kind == Kind::Transient {
        // It was written down and never begun: an earlier controller was killed between.
        return true;
    } else {
        ended(shard, (Exit::Lost, now), (spec, seen), is_ending);
    }
    false
}

fn ended(shard: &mut Shard, (exit, at): (Exit, Timestamp), (spec, seen): (&JobSpec, &Seen), is_ending: bool) {
    let took = at.since(shard.begun_at.unwrap_or(at));
    (shard.exit, shard.ended_at) = (Some(exit), Some(at));
    if exit.is_success() || is_ending {
        shard.state = ShardState::Done;
        return;
    }
    if took >= spec.timeout {
        failed(shard, format!("took longer than {} and was ended", words(spec.timeout)), (spec, at), is_ending);
        return;
    }
    let is_there = |instance: &String| seen.workers.iter().any(|worker| worker.instance == *instance);
    let left = shard.instance.as_ref().is_some_and(|instance| !is_there(instance));
    // What a process does to itself fails it; these are done to it.
    let died = left || matches!(exit, Exit::Lost | Exit::Signal(9 | 15));
    if died && shard.deaths < spec.failover {
        shard.deaths += 1;
        (shard.state, shard.instance, shard.not_before) = (ShardState::Waiting, None, None);
    } else {
        failed(shard, exit.to_string(), (spec, at), is_ending);
    }
}

/// How long it is at most until a shard that waits is tried again.
pub(super) fn longest_pause(shard: &Shard, spec: &JobSpec) -> Duration {
    if shard.tries == 0 { BUSY_PAUSE } else { retry_pause(shard.tries, spec).max(BUSY_PAUSE) }
}

/// How long after so many failures. A day at the latest, whatever the doubling comes to.
fn retry_pause(failures: u32, spec: &JobSpec) -> Duration {
    spec.retry_pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(Duration::from_secs(24 * 60 * 60))
}

fn failed(shard: &mut Shard, reason: String, (spec, at): (&JobSpec, Timestamp), is_ending: bool) {
    shard.instance = None;
    if shard.tries < spec.retries && !is_ending {
        shard.tries += 1;
        shard.not_before = Some(at.after(retry_pause(shard.tries, spec)));
        shard.state = ShardState::Waiting;
    } else {
        shard.state = ShardState::Done;
        shard.reason = Some(reason);
    }
}
