//! What there is to decide about. It is read once and then remembered from one look to the next, as long as nobody else changes
//! anything of it: a look costs what has changed, not what is open.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use model::job::Kind;
use model::{AppId, JobId, JobSpec, Timestamp};

use crate::store::{Job, JobRun, JobWorld};

/// So many jobs are remembered; beyond that, only those that have runs.
const REMEMBERED: usize = 10_000;

/// The jobs that are due or have runs, some others, and the runs that are not over.
#[derive(Debug, Default)]
pub(super) struct World {
    /// Jobs, and what is said of each.
    pub(super) jobs: BTreeMap<JobId, (Row<Job>, Arc<JobSpec>)>,
    /// Runs; those that were over when they were written down are gone.
    pub(super) runs: Vec<Row<JobRun>>,
    /// How many changes there were when this was so.
    version: i64,
    /// More runs wait than are here: these are the first, and so many of them waited.
    cut: Option<usize>,
}

/// Something that is in the store, and whether it is there as it is here.
#[derive(Debug)]
pub(super) struct Row<T> {
    now: T,
    before: Before<T>,
}

#[derive(Debug)]
enum Before<T> {
    Same,
    New,
    /// It was held in order to be changed, and may be the same all the same.
    Other(Box<T>),
}

impl World {
    /// What the store has. What is said of jobs is not parsed again where `known` has the same.
    pub(super) fn new(fresh: JobWorld, known: Option<Self>) -> Self {
        let JobWorld { jobs, runs, version, is_cut } = fresh;
        let cut = is_cut.then(|| waiting(&runs));
        let runs = runs.into_iter().map(Row::written).collect();
        let mut world = Self { jobs: BTreeMap::new(), runs, version, cut };
        world.add(jobs, known.map(|known| known.jobs).unwrap_or_default());
        world
    }

    /// Takes jobs in that are not known yet.
    pub(super) fn learn(&mut self, jobs: Vec<Job>) {
        let unknown = jobs.into_iter().filter(|job| !self.jobs.contains_key(&job.id)).collect();
        self.add(unknown, BTreeMap::new());
    }

    fn add(&mut self, jobs: Vec<Job>, mut known: BTreeMap<JobId, (Row<Job>, Arc<JobSpec>)>) {
        let is_same = |old: &Job, job: &Job| old.declared == job.declared && old.set == job.set;
        for job in jobs {
            let old = known.remove(&job.id).filter(|(old, _)| is_same(old, &job)).map(|(_, spec)| spec);
            let spec = old.unwrap_or_else(|| Arc::new(job.spec()));
            self.jobs.insert(job.id, (Row::written(job), spec));
        }
    }

    /// Whether this is what the store had after so many changes, and enough of it.
    pub(super) fn is_of(&self, version: i64) -> bool {
        let has_enough = self.cut.is_none_or(|cut| self.runs.iter().filter(|run| is_waiting(run)).count() >= cut / 2);
        self.version == version && has_enough
    }

    /// How many changes there were when this was so.
    pub(super) fn version(&self) -> i64 {
        self.version
    }

    /// Whether there is nothing but jobs that are due at some time.
    pub(super) fn is_idle(&self) -> bool {
        self.runs.is_empty() && self.jobs.values().all(|(job, _)| !job.removed)
    }

    /// The apps of which a resident job is due or has a run.
    pub(super) fn apps_of_residents(&self, now: Timestamp) -> Vec<AppId> {
        let is_resident = |(_, spec): &&(Row<Job>, Arc<JobSpec>)| spec.kind == Kind::Resident;
        let has_run = |id: JobId| self.runs.iter().any(|run| run.job == id);
        let is_near = |job: &Job| job.next_due.is_some_and(|due| due <= now) || has_run(job.id);
        let jobs = self.jobs.values().filter(is_resident).filter(|(job, _)| is_near(job));
        let apps: BTreeSet<AppId> = jobs.map(|(job, _)| job.app).collect();
        apps.into_iter().collect()
    }

    /// Notes that everything is written down as it is here, by one change; none if not all of it should be remembered.
    pub(super) fn written(mut self, gone: &[JobId]) -> Option<Self> {
        // What is new waits behind what is not here.
        if self.cut.is_some() && self.runs.iter().any(|run| run.is_new() && is_waiting(run)) {
            return None;
        }
        self.version += 1;
        self.runs.retain(|run| run.ended_at.is_none());
        for id in gone {
            self.jobs.remove(id);
        }
        if self.jobs.len() > REMEMBERED {
            let open: BTreeSet<JobId> = self.runs.iter().map(|run| run.job).collect();
            self.jobs.retain(|id, _| open.contains(id));
        }
        self.runs.iter_mut().for_each(Row::settle);
        self.jobs.values_mut().for_each(|(job, _)| job.settle());
        Some(self)
    }
}

impl<T> Row<T> {
    /// Something that the store does not have yet.
    pub(super) fn new(now: T) -> Self {
        Self { now, before: Before::New }
    }

    fn written(now: T) -> Self {
        Self { now, before: Before::Same }
    }

    fn is_new(&self) -> bool {
        matches!(self.before, Before::New)
    }

    fn settle(&mut self) {
        self.before = Before::Same;
    }
}

impl<T: PartialEq> Row<T> {
    /// Whether the store has to be told of it.
    pub(super) fn is_changed(&self) -> bool {
        match &self.before {
            Before::Same => false,
            Before::New => true,
            Before::Other(before) => **before != self.now,
        }
    }
}

impl<T> Deref for Row<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.now
    }
}

impl<T: Clone> DerefMut for Row<T> {
    fn deref_mut(&mut self) -> &mut T {
        if matches!(self.before, Before::Same) {
            self.before = Before::Other(Box::new(self.now.clone()));
        }
        &mut self.now
    }
}

fn waiting(runs: &[JobRun]) -> usize {
    runs.iter().filter(|run| is_waiting(run)).count()
}

/// Whether nothing of a run has begun.
fn is_waiting(run: &JobRun) -> bool {
    run.begun_at.is_none()
}
