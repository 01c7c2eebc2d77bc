//! The loop that makes true what the store says.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use engine::{EngineError, WorkloadId, WorkloadStatus};
use futures::StreamExt;
use futures::stream::BoxStream;
use model::{AppId, Digest, Hostname, ProcessType, ReleaseId};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::failure::explain;
use super::names;
use super::plan::{Desired, Failure, Plan, Scale, Step, Target, plan, workload_id};
use crate::errors::chain;
use crate::live::Stages;
use crate::store::{App, Outcome, Release};
use crate::{Controller, Error};

/// Something may have changed that nobody told of.
const INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a failure of the store or the engine.
const RETRY: Duration = Duration::from_millis(250);
/// A router that does not acknowledge a table for this long is not waited for.
const ACKNOWLEDGE_LIMIT: Duration = Duration::from_secs(5);

/// The rollout of all apps. One exists in a controller process.
pub(crate) struct Rollout {
    controller: Arc<Controller>,
    /// The release phases of pending releases. A release that is not here has not begun its phase in this process.
    phases: HashMap<ReleaseId, Phase>,
    /// Process types by image, which never change.
    types: HashMap<Digest, Vec<ProcessType>>,
    /// When each pending release was first wanted, and when it turned healthy.
    started: HashMap<ReleaseId, Instant>,
}

enum Phase {
    Running(JoinHandle<Result<Option<String>, Error>>),
    Over,
}

/// One app as the store knows it.
struct Known {
    app: App,
    current: Option<Release>,
    candidate: Option<Release>,
    desired: Desired,
    domains: Vec<Hostname>,
}

impl Rollout {
    /// A rollout that has yet to look.
    pub(crate) fn new(controller: Arc<Controller>) -> Self {
        Self { controller, phases: HashMap::new(), types: HashMap::new(), started: HashMap::new() }
    }

    /// Publishes the names that follow from the store alone, so that routers can be told before any engine answers.
    pub(crate) async fn publish(&mut self) -> Result<(), Error> {
        let known = self.load().await?;
        self.names(&known, &[])?;
        Ok(())
    }

    /// Works for as long as the process lives.
    pub(crate) async fn run(mut self) {
        let controller = Arc::clone(&self.controller);
        let mut changes: Option<BoxStream<'static, ()>> = None;
        loop {
            if changes.is_none() {
                changes = controller.engine.changes().await.ok();
            }
            let pause = match self.tick().await {
                Ok(()) => INTERVAL,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the rollout waits and tries again");
                    RETRY
                }
            };
            let engine_changed = async {
                match &mut changes {
                    Some(stream) => stream.next().await.is_some(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = controller.changed.notified() => {}
                goes_on = engine_changed => if !goes_on { changes = None },
                () = sleep(pause) => {}
            }
        }
    }

    /// Looks at both sides once and takes every step that is due.
    pub(crate) async fn tick(&mut self) -> Result<(), Error> {
        let mut known = self.load().await?;
        self.advance_phases(&mut known).await?;
        let observed = self.controller.engine.list().await;
        let plans = self.names(&known, observed.as_deref().unwrap_or_default())?;
        let observed = observed?;
        let deletes = |plan: &Plan| plan.steps.iter().any(|step| matches!(step, Step::Delete(_)));
        if plans.iter().any(deletes) && !self.acknowledged().await {
            tracing::warn!("A router does not acknowledge the newest names; going on without it");
        }
        for (known, plan) in known.iter().zip(plans) {
            for step in plan.steps {
                self.take(known, step).await?;
            }
        }
        let is_known = |status: &&WorkloadStatus| known.iter().any(|known| known.app.id == status.app);
        for orphan in observed.iter().filter(|status| !is_known(status) && !status.deleting) {
            self.controller.engine.delete(&orphan.id).await?;
        }
        Ok(())
    }

    /// Waits until every router works by the newest names, for a while.
    async fn acknowledged(&self) -> bool {
        let names = &self.controller.live.names;
        names.served(names.version(), ACKNOWLEDGE_LIMIT).await
    }

    async fn load(&mut self) -> Result<Vec<Known>, Error> {
        let controller = Arc::clone(&self.controller);
        let mut pending: BTreeMap<AppId, Release> = BTreeMap::new();
        for release in controller.store.pending_releases().await? {
            pending.entry(release.app).or_insert(release);
        }
        let mut domains: BTreeMap<AppId, Vec<Hostname>> = BTreeMap::new();
        for domain in controller.store.all_domains().await? {
            domains.entry(domain.app).or_default().push(domain.hostname);
        }
        let mut all = Vec::new();
        for app in controller.store.apps().await? {
            let current =
                controller.store.release(app.current_release).await?.filter(|release| release.image.is_some());
            let candidate = pending.remove(&app.id);
            let formation = controller.store.formation(app.id).await?;
            let scales: BTreeMap<_, _> = formation
                .into_iter()
                .filter(|row| row.quantity > 0)
                .map(|row| (row.process_type, Scale { quantity: row.quantity, size: row.size }))
                .collect();
            let desired = Desired {
                app: app.id,
                current: self.target(current.as_ref(), &scales).await?,
                candidate: self.target(candidate.as_ref(), &scales).await?,
            };
            let domains = domains.remove(&app.id).unwrap_or_default();
            all.push(Known { app, current, candidate, desired, domains });
        }
        Ok(all)
    }

    /// What of the formation a release really has. The release phase is no instance.
    async fn target(
        &mut self,
        release: Option<&Release>,
        scales: &BTreeMap<ProcessType, Scale>,
    ) -> Result<Option<Target>, Error> {
        let Some(release) = release else { return Ok(None) };
        let Some(digest) = &release.image else { return Ok(None) };
        if !self.types.contains_key(digest) {
            let image = self.controller.image_of(release).await?;
            let types = image.processes.into_iter().map(|process| process.process_type);
            self.types.insert(digest.clone(), types.filter(|name| name.as_str() != "release").collect());
        }
        let types = self.types.get(digest).map(Vec::as_slice).unwrap_or_default();
        let processes = types.iter().filter_map(|name| Some((name.clone(), scales.get(name)?.clone()))).collect();
        Ok(Some(Target { release: release.id, version: release.version, processes }))
    }

    /// Runs the release phases that are due; a candidate is wanted only once its phase is over.
    async fn advance_phases(&mut self, known: &mut [Known]) -> Result<(), Error> {
        self.phases.retain(|id, _| known.iter().any(|known| known.candidate.as_ref().is_some_and(|it| it.id == *id)));
        for known in known {
            let Some(candidate) = &known.candidate else { continue };
            let finished = match self.phases.get_mut(&candidate.id) {
                Some(Phase::Over) => continue,
                Some(Phase::Running(task)) if task.is_finished() => Some(task.await),
                Some(Phase::Running(_)) => None,
                None => {
                    self.begin_phase(known.app.clone(), candidate.clone());
                    None
                }
            };
            match finished {
                None => known.desired.candidate = None,
                Some(Ok(Ok(None))) => {
                    self.phases.insert(candidate.id, Phase::Over);
                }
                Some(Ok(Ok(Some(reason)))) => self.fail(known, candidate.id, reason).await?,
                Some(Ok(Err(Error::Engine(EngineError::Unreachable { .. })))) => {
                    self.phases.remove(&candidate.id);
                    known.desired.candidate = None;
                }
                Some(Ok(Err(error))) => self.fail(known, candidate.id, chain(&error)).await?,
                Some(Err(panic)) => self.fail(known, candidate.id, panic.to_string()).await?,
            }
        }
        Ok(())
    }

    fn begin_phase(&mut self, app: App, release: Release) {
        let controller = Arc::clone(&self.controller);
        let id = release.id;
        let task = tokio::spawn(async move {
            let result = controller.release_phase(&app, &release).await;
            controller.changed.notify_one();
            result
        });
        self.phases.insert(id, Phase::Running(task));
        // A phase that has nothing to run ends before the task is looked at again; that wakes the loop.
    }

    /// Plans every app and tells routers whom visitors reach.
    fn names(&self, known: &[Known], observed: &[WorkloadStatus]) -> Result<Vec<Plan>, Error> {
        let mut by_app: HashMap<AppId, Vec<WorkloadStatus>> = HashMap::new();
        for status in observed {
            by_app.entry(status.app).or_default().push(status.clone());
        }
        let mut plans = Vec::new();
        let mut rows = BTreeMap::new();
        for known in known {
            let plan = plan(&known.desired, by_app.get(&known.app.id).map(Vec::as_slice).unwrap_or_default());
            let row = self.route(known, plan.serve.clone())?;
            rows.insert(known.app.id, row);
            plans.push(plan);
        }
        self.controller.live.names.publish(&rows);
        Ok(plans)
    }

    fn route(&self, known: &Known, serve: Option<WorkloadId>) -> Result<model::routes::AppRoute, Error> {
        let deployed = known.current.is_some();
        names::route(&self.controller.settings, &known.app, &known.domains, deployed, serve)
    }

    async fn take(&mut self, known: &Known, step: Step) -> Result<(), Error> {
        match step {
            Step::Apply { workload, release, process_type, scale } => {
                self.started.entry(release).or_insert_with(Instant::now);
                self.apply(known, release, workload, (&process_type, &scale)).await
            }
            Step::Delete(workload) => Ok(self.controller.engine.delete(&workload).await?),
            Step::Promote { release, boot } => self.promote(known, release, boot).await,
            Step::Fail(release, failure) => {
                let reason = self.explain(known, &failure).await;
                self.fail(known, release, reason).await
            }
        }
    }

    async fn apply(
        &self,
        known: &Known,
        release: ReleaseId,
        id: WorkloadId,
        what: (&ProcessType, &Scale),
    ) -> Result<(), Error> {
        let is_candidate = known.candidate.as_ref().is_some_and(|candidate| candidate.id == release);
        let row = if is_candidate { known.candidate.as_ref() } else { known.current.as_ref() };
        let Some(row) = row else { return Ok(()) };
        let workload = self.controller.workload(&known.app, row, id, what).await?;
        match self.controller.engine.apply(workload).await {
            Err(error) if is_candidate && !matches!(error, EngineError::Unreachable { .. }) => {
                self.fail(known, release, chain(&error)).await
            }
            result => Ok(result?),
        }
    }

    /// Makes a healthy candidate current: durable first, then routed to, then said.
    async fn promote(&mut self, known: &Known, release: ReleaseId, boot: Duration) -> Result<(), Error> {
        let healthy = Instant::now();
        let controller = &self.controller;
        controller.store.finish_release(release, Outcome::Succeeded, controller.clock.now()).await?;
        let serve = known.desired.candidate.as_ref().and_then(|target| {
            let (web, scale) = target.processes.iter().find(|(name, _)| name.as_str() == "web")?;
            Some(workload_id(known.app.id, target.version, web, &scale.size))
        });
        let mut route = self.route(known, serve)?;
        if route.mode == model::routes::RouteMode::Blank {
            route.mode = model::routes::RouteMode::NoWeb;
        }
        controller.live.names.set(&known.app.id, Some(route));
        self.acknowledged().await;
        let started = self.started.remove(&release).unwrap_or(healthy);
        // What the app takes to boot is not the platform's time.
        let start = (healthy - started).saturating_sub(boot);
        let stages: Stages = vec![("start", start), ("healthy", boot), ("routed", healthy.elapsed())];
        controller.live.settle(release, stages);
        controller.changed.notify_one();
        Ok(())
    }

    async fn fail(&self, known: &Known, release: ReleaseId, reason: String) -> Result<(), Error> {
        let controller = &self.controller;
        let source = model::LogSource::app("api");
        for line in reason.lines() {
            controller.logs.write(known.app.id, controller.clock.now(), &source, line);
        }
        controller.store.finish_release(release, Outcome::Failed(reason), controller.clock.now()).await?;
        controller.live.settle(release, Stages::new());
        controller.changed.notify_one();
        Ok(())
    }

    async fn explain(&self, known: &Known, failure: &Failure) -> String {
        let version = known.candidate.as_ref().map_or(0, |release| release.version);
        let before = known.current.as_ref().map(|release| release.version);
        let since = known.candidate.as_ref().map(|release| release.created_at);
        let log = self.controller.dyno_log(known.app.id, &failure.dyno, since).await;
        explain(failure, version, before, &log)
    }
}
