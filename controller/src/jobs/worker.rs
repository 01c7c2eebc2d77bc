//! Runs jobs: looks what there is, decides (`plan.rs`), writes that down, and only then does it. What cannot be done now is done
//! at the next look; whoever is killed between leaves nothing that is done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::{EngineError, Exec, InstanceState, Lines, OneOff, OneOffId};
use model::job::Kind;
use model::{AppId, Exit, JobRunId, LogSource, Timestamp};
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::plan::{Acts, Refusal, Seen, Start, Worker, plan, run_of, short};
use super::world::World;
use crate::admission::demand_of;
use crate::errors::chain;
use crate::live::Locked;
use crate::rollout::Task;
use crate::sizes::DEFAULT_SIZE;
use crate::store::JobsAhead;
use crate::watch::Watch;
use crate::{Controller, Error};

/// How often there is a look although nothing is known to have changed.
const INTERVAL: Duration = Duration::from_secs(30);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// News are waited for so long before they are looked at together.
const TOGETHER: Duration = Duration::from_millis(50);
/// So many containers are made side by side.
const MAKING: usize = 8;

/// What is known of processes of jobs only while the controller lives.
#[derive(Debug)]
pub(crate) struct Inside {
    news: Notify,
    making: Semaphore,
    known: Locked<Known>,
    /// What there is to decide about, as it was written down by the last look.
    world: Mutex<Option<World>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Those that are being made.
    starting: BTreeSet<OneOffId>,
    /// Those that could not be.
    refused: BTreeMap<OneOffId, Refusal>,
    /// Those that run in dynos of the formation, and what ends each.
    inside: BTreeMap<OneOffId, CancellationToken>,
    /// How those ended.
    ended: BTreeMap<OneOffId, (Exit, Timestamp)>,
}

impl Default for Inside {
    fn default() -> Self {
        Self { news: Notify::new(), making: Semaphore::new(MAKING), known: Locked::default(), world: Mutex::default() }
    }
}

impl Inside {
    /// Whether a process is being made.
    #[cfg(test)]
    pub(super) fn is_making(&self) -> bool {
        !self.known.lock().starting.is_empty()
    }

    /// Says that there is something to look at.
    pub(crate) fn wake(&self) {
        self.news.notify_one();
    }
}

/// Runs jobs for as long as the process lives.
pub(crate) async fn work(controller: Arc<Controller>) {
    let mut watch = Watch::default();
    loop {
        // What news there are does not matter: a look finds everything.
        watch.news(&*controller.engine).await;
        let wait = match controller.look_after_jobs().await {
            Ok(wake) => wake.map_or(INTERVAL, |wake| wake.since(controller.clock.now()).min(INTERVAL)),
            Err(error) => {
                tracing::warn!(error = chain(&error), "Jobs cannot be run yet");
                RETRY
            }
        };
        tokio::select! {
            () = watch.changed() => sleep(TOGETHER).await,
            () = controller.live.jobs.news.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

impl Controller {
    /// Does what there is to do for jobs; when there is something again, at the latest.
    pub(super) async fn look_after_jobs(self: &Arc<Self>) -> Result<Option<Timestamp>, Error> {
        let mut remembered = self.live.jobs.world.lock().await;
        loop {
            let (now, ahead) = (self.clock.now(), self.store.jobs_ahead().await?);
            if ahead.is_stale {
                self.declare_jobs().await?;
                continue;
            }
            // Only what is written down is remembered: whatever fails from here on, the next look reads it anew.
            let mut world = self.job_world(remembered.take(), (ahead, now)).await?;
            if world.is_idle() && ahead.next_due.is_none_or(|due| due > now) {
                *remembered = Some(world);
                return Ok(ahead.next_due);
            }
            let seen = match self.see_jobs(&world.apps_of_residents(now)).await {
                Ok(seen) => Some(seen),
                Err(error) => {
                    tracing::debug!(error = chain(&error), "what runs of jobs cannot be seen");
                    None
                }
            };
            let limits = (self.settings.jobs_at_once.get() as usize, now);
            let (changes, acts) = plan(&mut world, seen.as_ref(), limits, &mut || JobRunId::random(&*self.random));
            let gone = changes.gone.clone();
            let (is_quiet, has_jobs) = (changes.is_empty(), !changes.jobs.is_empty() || !gone.is_empty());
            if !is_quiet && !self.store.write_jobs(&self.own_stamp(), changes, world.version()).await? {
                continue;
            }
            let after = if is_quiet || has_jobs { self.store.jobs_ahead().await? } else { ahead };
            if is_quiet && after.version != world.version() {
                continue;
            }
            *remembered = if is_quiet { Some(world) } else { world.written(&gone) };
            let away = seen.is_none().then(|| now.after(RETRY));
            let wake = acts.wake;
            self.act_on_jobs(acts, seen).await;
            return Ok(after.next_due.into_iter().chain(wake).chain(away).min());
        }
    }

    /// What there is to decide about: what is remembered of it, if that is still so.
    async fn job_world(&self, remembered: Option<World>, (ahead, now): (JobsAhead, Timestamp)) -> Result<World, Error> {
        let mut world = match remembered {
            Some(world) if world.is_of(ahead.version) => world,
            known => World::new(self.store.job_world().await?, known),
        };
        if ahead.next_due.is_some_and(|due| due <= now) {
            let due = self.store.due_jobs(now, |id| world.jobs.contains_key(id)).await?;
            world.learn(due);
        }
        Ok(world)
    }

    /// What the engine, and this process, know of processes of jobs; and of the dynos of these apps.
    async fn see_jobs(&self, apps: &[AppId]) -> Result<Seen, Error> {
        // What is being made is noted first: whatever is not any more by then is found below.
        let mut seen = {
            let known = self.live.jobs.known.lock();
            let running = known.inside.keys().cloned().collect();
            let (starting, refused, ended) = (known.starting.clone(), known.refused.clone(), known.ended.clone());
            Seen { running, ended, starting, refused, workers: Vec::new() }
        };
        let oneoffs = self.engine.oneoffs().await?;
        seen.running.extend(oneoffs.into_iter().filter(|id| run_of(id).is_some()));
        let ended = self.engine.ended().await?.into_iter().filter(|ended| run_of(&ended.id).is_some());
        seen.ended.extend(ended.map(|ended| (ended.id, (ended.exit, ended.at))));
        if !apps.is_empty() {
            for status in self.engine.list_of(apps).await? {
                let up = status.instances.into_iter().filter(|instance| instance.state == InstanceState::Up);
                let (app, kind) = (status.app, status.process_type);
                let worker =
                    |instance: engine::Instance| Worker { app, process_type: kind.clone(), instance: instance.id };
                seen.workers.extend(up.map(worker));
            }
        }
        Ok(seen)
    }

    async fn act_on_jobs(self: &Arc<Self>, acts: Acts, seen: Option<Seen>) {
        let now = self.clock.now();
        for line in acts.lines {
            self.logs.write(line.app, now, &LogSource::platform("scheduler"), &line.text);
        }
        let refused = seen.map(|seen| seen.refused).unwrap_or_default();
        self.live.jobs.known.lock().refused.retain(|id, _| !refused.contains_key(id));
        for start in acts.starts {
            self.live.jobs.known.lock().starting.insert(start.id.clone());
            let controller = Arc::clone(self);
            tokio::spawn(async move { controller.begin_process(start).await });
        }
        for id in acts.stops.into_iter().chain(acts.strays) {
            let inside = self.live.jobs.known.lock().inside.get(&id).cloned();
            match inside {
                Some(end) => end.cancel(),
                None => later(self.engine.stop(&id).await, &id),
            }
        }
        for id in acts.forget {
            if self.live.jobs.known.lock().ended.remove(&id).is_none() {
                later(self.engine.forget(&id).await, &id);
            }
        }
    }

    /// Makes a process, and notes what came of it.
    async fn begin_process(self: Arc<Self>, start: Start) {
        let id = start.id.clone();
        // Closed only when the process ends.
        let _turn = self.live.jobs.making.acquire().await;
        let begun = match start.spec.kind {
            Kind::Transient => self.begin_container(start).await,
            Kind::Resident => self.begin_inside(start).await,
        };
        let mut known = self.live.jobs.known.lock();
        known.starting.remove(&id);
        if let Err(error) = begun {
            let why = chain(&error);
            let is_busy = matches!(
                error,
                Error::Engine(EngineError::Unreachable { .. } | EngineError::Exhausted(_) | EngineError::NotRunning(_))
                    | Error::Conflict(_)
                    | Error::StoreAway(_)
                    | Error::DiskFull(_)
            );
            known.refused.insert(id, if is_busy { Refusal::Busy(why) } else { Refusal::Failed(why) });
        }
        drop(known);
        self.live.jobs.wake();
    }

    async fn begin_container(&self, start: Start) -> Result<(), Error> {
        let app = self.store.app(start.run.app).await?.ok_or(Error::NotFound("app"))?;
        let version = start.run.release.unwrap_or_default();
        let release = self.store.release_by_version(app.id, version).await?.ok_or(Error::NotFound("release"))?;
        let (size, sizes) = (start.spec.size.as_deref().unwrap_or(DEFAULT_SIZE), self.sizes().await?);
        self.admit_one(&format!("Job {}", start.job), demand_of(&sizes, size, 1)).await?;
        let mut container = self.container(&app, &release, Task::Line(&start.spec.command), size).await?;
        container.env.extend(environment(&start));
        let dyno = start.run.dyno(&start.job, start.shard);
        let oneoff = OneOff {
            id: start.id,
            app: app.id,
            container,
            tty: None,
            time_limit: start.spec.timeout,
            stop_grace: self.settings.stop_grace,
            log: Some(dyno.parse()?),
            is_build: false,
        };
        self.engine.run(oneoff).await?;
        Ok(())
    }

    /// Starts a process in a dyno that is there, and follows it.
    async fn begin_inside(self: &Arc<Self>, start: Start) -> Result<(), Error> {
        let app = start.run.app;
        let instance = start.run.shards[start.shard].instance.clone().unwrap_or_default();
        let version = self
            .engine
            .list_of(&[app])
            .await?
            .into_iter()
            .find_map(|status| status.instances.iter().any(|known| known.id == instance).then_some(status.release));
        let gone = || Error::Engine(EngineError::NotRunning(instance.clone()));
        let release = self.store.release_by_version(app, version.ok_or_else(gone)?).await?.ok_or_else(gone)?;
        let args = self.image_of(&release).await?.inside_args(&start.spec.command);
        let env = environment(&start).into_iter().collect();
        let exec = Exec { args, env, tty: None, time_limit: start.spec.timeout };
        let running = self.engine.exec(&instance, exec).await?;
        let end = CancellationToken::new();
        self.live.jobs.known.lock().inside.insert(start.id.clone(), end.clone());
        let controller = Arc::clone(self);
        tokio::spawn(async move { controller.follow_inside(start, running, end).await });
        Ok(())
    }

    /// Writes what a process in a dyno says to the log, and notes how it ended. Once nobody listens to it any more, it is ended.
    async fn follow_inside(self: Arc<Self>, start: Start, mut running: engine::RunningOneOff, end: CancellationToken) {
        let source = LogSource::app(start.run.dyno(&start.job, start.shard));
        let write = |line: &str| self.logs.write(start.run.app, self.clock.now(), &source, line);
        drop(running.input);
        let mut lines = Lines::default();
        loop {
            tokio::select! {
                output = running.output.recv() => match output {
                    Some(bytes) => lines.push(&bytes).iter().for_each(|line| write(line)),
                    None => break,
                },
                () = end.cancelled() => break,
            }
        }
        lines.rest().iter().for_each(|line| write(line));
        drop(running.output);
        let exit = running.exit.await.unwrap_or(Exit::Lost);
        let platform = LogSource::platform(&source.process);
        self.logs.write(start.run.app, self.clock.now(), &platform, &format!("Process {exit}"));
        let mut known = self.live.jobs.known.lock();
        known.inside.remove(&start.id);
        known.ended.insert(start.id, (exit, self.clock.now()));
        drop(known);
        self.live.jobs.wake();
    }

    /// What an earlier controller started of jobs: the ids of what runs on.
    pub(crate) async fn recover_jobs(&self) -> Result<Vec<OneOffId>, Error> {
        let open: BTreeSet<String> = self.store.open_job_runs().await?.iter().map(|run| short(run.id)).collect();
        let oneoffs = self.engine.oneoffs().await?;
        Ok(oneoffs.into_iter().filter(|id| run_of(id).is_some_and(|run| open.contains(run))).collect())
    }
}

/// What a process is told of its run.
fn environment(start: &Start) -> Vec<(String, String)> {
    let Start { run, job, spec, shard, .. } = start;
    let parameter = spec.shard_parameters.get(*shard).cloned().unwrap_or_default();
    let values = [
        ("DYNO", run.dyno(job, *shard)),
        ("JOB_NAME", job.clone()),
        ("JOB_RUN", run.number.to_string()),
        ("JOB_RUN_ID", run.id.to_string()),
        ("JOB_DUE_AT", run.due_at.to_rfc3339()),
        ("JOB_ATTEMPT", run.shards[*shard].attempt().to_string()),
        ("JOB_SHARD", shard.to_string()),
        ("JOB_SHARDS", run.shards.len().to_string()),
        ("JOB_SHARD_PARAMETER", parameter),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

/// What could not be told to the engine is told at the next look.
fn later(result: Result<(), EngineError>, id: &OneOffId) {
    if let Err(error) = result {
        tracing::debug!(oneoff.id = %id, error = chain(&error), "a process of a job cannot be ended or forgotten yet");
    }
}

/// Whether a one-off is a process of a job.
pub(crate) fn is_of_job(id: &OneOffId) -> bool {
    run_of(id).is_some()
}
