//! Whose turn it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use model::job::{Kind, Overlap};
use model::{AppId, JobId, Timestamp};

use super::shards::longest_pause;
use super::{Plan, Start, process_id};
use crate::store::{JobRun, JobRunState, ShardState};

/// When it is whose turn: how much of its app runs, whether its run has yet to begin, since when that waits, its number, which shard,
/// and where the run is.
type Turn = (usize, bool, Timestamp, u64, usize, usize);

impl Plan<'_> {
    /// Starts what may start. Of those that wait for a container, that one is next whose app has the fewest, and of these the one
    /// that waits the longest.
    pub(super) fn start(&mut self, at_once: usize) {
        let Some(seen) = self.seen else { return };
        let (mut open, mut containers) = self.open();
        let mut waiting = self.waiting(&open, containers < at_once);
        let mut begun = self.begun();
        let mut busy = self.busy();
        let mut residents = waiting.iter().filter(|Reverse(turn)| self.is_resident(turn.5)).count();
        while let Some(Reverse((known, is_new, queued_at, number, index, at))) = waiting.pop() {
            let has = open.get(&self.runs[at].app).copied().unwrap_or_default();
            if has != known {
                waiting.push(Reverse((has, is_new, queued_at, number, index, at)));
                continue;
            }
            let (run, (job, spec)) = (&self.runs[at], &self.jobs[&self.runs[at].job]);
            residents -= usize::from(spec.kind == Kind::Resident);
            if containers >= at_once && spec.kind == Kind::Transient {
                // Whoever ends wakes those that wait.
                if residents == 0 {
                    break;
                }
                continue;
            }
            let shard = &run.shards[index];
            if let Some(not_before) = shard.not_before.filter(|moment| *moment > self.now) {
                // Nobody waits longer because the clock was set back.
                let latest = self.now.after(longest_pause(shard, spec));
                if not_before > latest {
                    self.runs[at].shards[index].not_before = Some(latest);
                }
                self.wake_at(not_before.min(latest));
                continue;
            }
            let siblings = begun.get(&run.job).copied().unwrap_or_default();
            let most = if spec.overlap == Overlap::Allow { spec.parallel as usize } else { 1 };
            if run.begun_at.is_none() && siblings >= most {
                continue;
            }
            let instance = match (spec.kind, &spec.process) {
                (Kind::Transient, _) => None,
                (Kind::Resident, process) => {
                    let is_one = |app, kind| app == run.app && Some(kind) == process.as_ref();
                    let workers = seen.workers.iter().filter(|worker| is_one(worker.app, &worker.process_type));
                    let mut free = workers.filter(|worker| !busy.contains(&(run.job, worker.instance.clone())));
                    let Some(worker) = free.next() else {
                        let process = process.as_ref().map(ToString::to_string).unwrap_or_default();
                        if run.begun_at.is_none() {
                            self.runs[at].failure = Some(format!("no dyno of the process type {process} is free"));
                        }
                        continue;
                    };
                    Some(worker.instance.clone())
                }
            };
            let (current, job, spec) = (job.current, job.name.clone(), Arc::clone(spec));
            containers += usize::from(instance.is_none());
            *open.entry(run.app).or_default() += 1;
            if run.begun_at.is_none() {
                *begun.entry(run.job).or_default() += 1;
            }
            busy.extend(instance.iter().map(|instance| (run.job, instance.clone())));
            let run = begin(&mut self.runs[at], index, (instance, current), self.now);
            let id = process_id(&run, index);
            self.acts.starts.push(Start { id, run, job, spec, shard: index });
        }
    }

    /// How much of each app runs, and how many containers that are.
    fn open(&self) -> (BTreeMap<AppId, usize>, usize) {
        let (mut open, mut containers) = (BTreeMap::new(), 0);
        for run in self.runs.iter().filter(|run| run.begun_at.is_some() && run.ended_at.is_none()) {
            let Some((_, spec)) = self.jobs.get(&run.job) else { continue };
            for _ in run.shards.iter().filter(|shard| shard.is_open()) {
                containers += usize::from(spec.kind == Kind::Transient);
                *open.entry(run.app).or_default() += 1;
            }
        }
        (open, containers)
    }

    /// What waits, in turn. Where no container has room those that want one are left out.
    fn waiting(&self, open: &BTreeMap<AppId, usize>, has_room: bool) -> BinaryHeap<Reverse<Turn>> {
        let mut waiting = Vec::new();
        for (at, run) in self.runs.iter().enumerate().filter(|(_, run)| run.ended_at.is_none() && run.stop.is_none()) {
            if !self.jobs.contains_key(&run.job) || !has_room && !self.is_resident(at) {
                continue;
            }
            let has = open.get(&run.app).copied().unwrap_or_default();
            let shards = run.shards.iter().enumerate().filter(|(_, shard)| shard.state == ShardState::Waiting);
            let turn = |(index, _)| Reverse((has, run.begun_at.is_none(), run.queued_at, run.number, index, at));
            waiting.extend(shards.map(turn));
        }
        BinaryHeap::from(waiting)
    }

    fn is_resident(&self, at: usize) -> bool {
        self.jobs.get(&self.runs[at].job).is_some_and(|(_, spec)| spec.kind == Kind::Resident)
    }

    /// How many runs of each job have begun and are not over.
    fn begun(&self) -> BTreeMap<JobId, usize> {
        let mut begun = BTreeMap::new();
        for run in self.runs.iter().filter(|run| run.begun_at.is_some() && run.ended_at.is_none()) {
            *begun.entry(run.job).or_default() += 1;
        }
        begun
    }

    /// The dynos in which something of a job runs.
    fn busy(&self) -> BTreeSet<(JobId, String)> {
        let shards = self.runs.iter().filter(|run| run.ended_at.is_none());
        let shards = shards.flat_map(|run| run.shards.iter().map(|shard| (run.job, shard)));
        shards.filter(|(_, shard)| shard.is_open()).filter_map(|(job, it)| Some((job, it.instance.clone()?))).collect()
    }
}

/// Notes that a shard begins; the run as it is then.
fn begin(run: &mut JobRun, index: usize, (instance, current): (Option<String>, u64), now: Timestamp) -> JobRun {
    run.state = JobRunState::Running;
    run.begun_at.get_or_insert(now);
    run.failure = None;
    run.release = run.release.or(Some(current));
    let shard = &mut run.shards[index];
    shard.state = ShardState::Starting;
    (shard.instance, shard.not_before) = (instance, None);
    (shard.begun_at, shard.ended_at, shard.exit) = (Some(now), None, None);
    run.clone()
}
