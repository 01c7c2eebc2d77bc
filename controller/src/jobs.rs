//! Jobs: what apps want to have run at certain times. What people ask and want of them; how they run is in `jobs/worker.rs`.

mod declared;
mod plan;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod worker;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use model::job::{Overlap, is_job_name};
use model::{JobId, JobRunId, JobSpec, Timestamp};
use serde_json::json;

use crate::sizes::Sizes;
use crate::store::{Action, App, Job, JobCause, JobRun, JobRunState, NewEvent, Resource, Shard};
use crate::{Actor, Controller, Error, policy};
pub(crate) use worker::{Inside, is_of_job, work};

/// Most jobs of an app.
const MOST: usize = 200;

/// One setting of a job, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSetting {
    /// `timeout`
    pub name: &'static str,
    /// `15m`
    pub value: String,
    /// `app`: somebody set it; `app.json`; `default`.
    pub source: &'static str,
}

impl Job {
    /// All of its settings.
    pub fn settings(&self) -> Vec<JobSetting> {
        let spec = self.spec();
        let own = self.declared.clone().unwrap_or_default();
        let setting = |name: &&'static str| JobSetting {
            name,
            value: spec.get(name),
            source: policy::source(name, &own, &self.set),
        };
        JobSpec::SETTINGS.iter().map(setting).collect()
    }
}

impl JobRun {
    /// What a shard of it is called in the log, and in its own environment.
    pub fn dyno(&self, job: &str, shard: usize) -> String {
        // Numbers of runs are never so large that two of them meet.
        let number = if self.shards.len() == 1 { self.number } else { self.number * 1000 + shard as u64 };
        format!("job-{job}.{}", number % 4_000_000_000)
    }

    /// So long after it was due it began.
    pub fn lag(&self) -> Option<Duration> {
        self.begun_at.map(|begun| begun.since(self.due_at))
    }
}

impl Controller {
    /// The job of an app with this name or id.
    pub async fn find_job(&self, app: &App, reference: &str) -> Result<Job, Error> {
        self.store.job(app.id, reference).await?.ok_or(Error::NotFound("job"))
    }

    /// The run of a job with this number or id.
    pub async fn find_job_run(&self, job: &Job, reference: &str) -> Result<JobRun, Error> {
        self.store.job_run(job.id, reference).await?.ok_or(Error::NotFound("run"))
    }

    /// Makes a job.
    pub async fn add_job(
        &self,
        app: &App,
        actor: &Actor,
        (name, settings): (&str, BTreeMap<String, Option<String>>),
    ) -> Result<Job, Error> {
        if !is_job_name(name) {
            let rule = "1 to 40 lowercase letters, digits and dashes, beginning and ending with a letter or digit";
            return Err(Error::Invalid(format!("name must be {rule}")));
        }
        let (now, sizes) = (self.clock.now(), self.sizes().await?);
        let id = JobId::random(&*self.random);
        let change = |there: Vec<Job>| {
            let open = there.iter().filter(|job| !job.removed);
            if open.clone().any(|job| job.name == name) {
                return Err(Error::Invalid(format!("Job {name} is already taken")));
            }
            if open.count() >= MOST {
                return Err(Error::Invalid(format!("An app can have at most {MOST} jobs")));
            }
            let old = there.into_iter().find(|job| job.name == name);
            let mut job = old.unwrap_or_else(|| blank(id, app, name, now));
            (job.made, job.removed, job.set) = (true, false, BTreeMap::new());
            self.set(&mut job, &settings, &sizes)?;
            Ok((vec![job.clone()], vec![changed(&job, Action::Create)], job))
        };
        let job = self.store.change_jobs(app.id, &self.stamp(actor), change).await?;
        self.note(app, actor, &format!("Add job {name} ({})", job.spec().schedule));
        self.live.jobs.wake();
        Ok(job)
    }

    /// Changes settings of a job; none leaves one to app.json, or to what is usual.
    pub async fn update_job(
        &self,
        (app, job): (&App, &Job),
        actor: &Actor,
        settings: BTreeMap<String, Option<String>>,
    ) -> Result<Job, Error> {
        let sizes = self.sizes().await?;
        let change = |there: Vec<Job>| {
            let mut job = find(there, job.id)?;
            let before = job.set.clone();
            self.set(&mut job, &settings, &sizes)?;
            let events = if job.set == before { Vec::new() } else { vec![changed(&job, Action::Update)] };
            Ok::<_, Error>((vec![job.clone()], events, job))
        };
        let job = self.store.change_jobs(app.id, &self.stamp(actor), change).await?;
        self.note(app, actor, &format!("Update job {}: {}", job.name, policy::words(&settings)));
        self.live.jobs.wake();
        Ok(job)
    }

    /// Removes a job: what runs of it is stopped, what ran is forgotten.
    pub async fn remove_job(&self, (app, job): (&App, &Job), actor: &Actor) -> Result<Job, Error> {
        let change = |there: Vec<Job>| {
            let mut job = find(there, job.id)?;
            if job.declared.is_some() {
                return Err(Error::Conflict(format!(
                    "Job {} is one of app.json's: take it out there and deploy, or suspend it.",
                    job.name
                )));
            }
            (job.removed, job.next_due) = (true, None);
            Ok((vec![job.clone()], vec![changed(&job, Action::Destroy)], job))
        };
        let job = self.store.change_jobs(app.id, &self.stamp(actor), change).await?;
        self.note(app, actor, &format!("Remove job {}", job.name));
        self.live.jobs.wake();
        Ok(job)
    }

    /// Runs a job now, whatever its schedule says and although it is suspended.
    pub async fn run_job(&self, (app, job): (&App, &Job), actor: &Actor) -> Result<JobRun, Error> {
        let (now, spec) = (self.clock.now(), job.spec());
        let run = JobRun {
            id: JobRunId::random(&*self.random),
            job: job.id,
            app: app.id,
            number: 0,
            due_at: now,
            cause: JobCause::Manual,
            user: Some(actor.user.email.to_string()),
            state: JobRunState::Queued,
            stop: None,
            late: false,
            release: None,
            shards: vec![Shard::default(); spec.shards as usize],
            failure: None,
            queued_at: now,
            begun_at: None,
            ended_at: None,
        };
        let may = |open: u64, waiting: u64| match spec.overlap {
            Overlap::Forbid if open > 0 => Err(Error::Conflict(format!(
                "Job {0} runs already, and its runs may not overlap: wait for it, or stop it with `platform jobs:stop {0}`.",
                job.name
            ))),
            Overlap::Allow if waiting >= u64::from(spec.queue) => {
                Err(Error::Conflict(format!("{waiting} runs of job {} wait already.", job.name)))
            }
            _ => Ok(()),
        };
        let data = json!({ "job": job.name });
        let (resource, action) = (Resource::JobRun, Action::Create);
        let event = NewEvent { app: Some(app.id), resource, id: String::new(), action, data };
        let run = self.store.add_job_run(run, event, &self.stamp(actor), may).await?;
        self.note(app, actor, &format!("Run job {}", job.name));
        self.live.jobs.wake();
        Ok(run)
    }

    /// Tells a run to end.
    pub async fn stop_job_run(&self, app: &App, actor: &Actor, (job, run): (&Job, &JobRun)) -> Result<(), Error> {
        let reason = format!("{} stopped it", actor.user.email);
        let data = json!({ "job": job.name, "run": run.number, "stopped": true });
        let (resource, action) = (Resource::JobRun, Action::Update);
        let event = NewEvent { app: Some(app.id), resource, id: run.id.to_string(), action, data };
        if !self.store.stop_job_run(run.id, &reason, (event, &self.stamp(actor))).await? {
            return Err(Error::Invalid(format!("Run {} of job {} is over already.", run.number, job.name)));
        }
        self.note(app, actor, &format!("Stop run {} of job {}", run.number, job.name));
        self.live.jobs.wake();
        Ok(())
    }

    /// Sets what is asked for, if the job is possible then.
    fn set(&self, job: &mut Job, settings: &BTreeMap<String, Option<String>>, sizes: &Sizes) -> Result<(), Error> {
        let before = job.spec();
        policy::change("a job", &JobSpec::SETTINGS, settings, |name, text| JobSpec::default().set(name, text))?;
        for (name, text) in settings {
            match text {
                Some(text) => drop(job.set.insert(name.clone(), text.trim().to_owned())),
                None => drop(job.set.remove(name)),
            }
        }
        let spec = job.spec();
        spec.check().map_err(Error::Invalid)?;
        if let Some(size) = spec.size.as_deref().filter(|size| sizes.find(size).is_none()) {
            return Err(sizes.unknown(size));
        }
        job.updated_at = self.clock.now();
        reschedule(job, &before, self.clock.now());
        Ok(())
    }
}

/// Finds out when a job is due next, if what it depends on is not what it was.
fn reschedule(job: &mut Job, before: &JobSpec, now: Timestamp) {
    let spec = job.spec();
    let when = |spec: &JobSpec| (spec.schedule.clone(), spec.timezone.clone(), spec.suspend);
    if when(&spec) != when(before) || job.next_due.is_none() {
        job.next_due = if spec.suspend { None } else { spec.schedule.next(&spec.timezone, now) };
    }
}

fn blank(id: JobId, app: &App, name: &str, now: Timestamp) -> Job {
    Job {
        id,
        app: app.id,
        name: name.to_owned(),
        declared: None,
        set: BTreeMap::new(),
        made: false,
        removed: false,
        next_due: None,
        last_number: 0,
        alert: None,
        current: 0,
        created_at: now,
        updated_at: now,
    }
}

fn find(jobs: Vec<Job>, id: JobId) -> Result<Job, Error> {
    jobs.into_iter().find(|job| job.id == id && !job.removed).ok_or(Error::NotFound("job"))
}

fn changed(job: &Job, action: Action) -> NewEvent {
    let data = json!({ "name": job.name, "settings": job.set });
    NewEvent { app: Some(job.app), resource: Resource::Job, id: job.id.to_string(), action, data }
}
