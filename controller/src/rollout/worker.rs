//! The loop that makes true what the store says.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use engine::{EngineError, WorkloadId, WorkloadStatus};
use futures::StreamExt;
use futures::stream::BoxStream;
use model::{AppId, Digest, Hostname, LogSource, ProcessType, ReleaseId};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{Instant, sleep};

use super::failure::explain;
use super::names::route;
use super::phase::PROCESS_TYPE;
use super::plan::{Desired, Failure, Scale, Step, Target, plan, serving, workload_id};
use crate::errors::chain;
use crate::live::Stages;
use crate::store::{App, Outcome, Release};
use crate::{Controller, Error};

/// Something may have changed that nobody told of.
const INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a failure of the store or the engine.
const RETRY: Duration = Duration::from_millis(250);

/// The rollout of all apps. One exists in a controller process.
pub(crate) struct Rollout {
    controller: Arc<Controller>,
    /// The release phases of pending releases. A release that is not here has not begun its phase in this process.
    phases: HashMap<ReleaseId, Phase>,
    /// Process types by image, which never change.
    types: HashMap<Digest, Vec<ProcessType>>,
    /// When each pending release was first wanted.
    started: HashMap<ReleaseId, Instant>,
}

enum Phase {
    Running(oneshot::Receiver<Result<Option<String>, Error>>),
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

    /// Tells routers what is known before anything is done.
    pub(crate) async fn begin(&mut self) -> Result<(), Error> {
        let observed = self.controller.engine.list().await.ok();
        self.publish(observed.as_deref()).await.map(drop)
    }

    /// Works for as long as the process lives.
    pub(crate) async fn run(mut self) {
        let controller = Arc::clone(&self.controller);
        let mut changes: Option<BoxStream<'static, ()>> = None;
        let mut trouble = String::new();
        loop {
            if changes.is_none() {
                changes = controller.engine.changes().await.ok();
            }
            let now = self.tick().await.err().map(|error| chain(&error)).unwrap_or_default();
            let pause = if now.is_empty() { INTERVAL } else { RETRY };
            if now != trouble && !now.is_empty() {
                tracing::warn!(error = now, "The rollout tries again until it can go on");
            }
            trouble = now;
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

    /// Looks at both sides once and takes every step that is due. What cannot be done for one app holds up no other.
    pub(super) async fn tick(&mut self) -> Result<(), Error> {
        let observed = self.controller.engine.list().await;
        let mut known = self.publish(observed.as_deref().ok()).await?;
        let observed = by_app(observed?);
        let mut trouble = self.advance_phases(&mut known).await.err();
        let of = |app: AppId| observed.get(&app).map(Vec::as_slice).unwrap_or_default();
        let plans: Vec<_> = known.iter().map(|known| plan(&known.desired, of(known.app.id))).collect();
        let deletes = plans.iter().flatten().any(|step| matches!(step, Step::Delete(_)));
        if deletes && !self.controller.acknowledged().await {
            tracing::warn!("A router does not acknowledge the newest names; going on without it");
        }
        for (known, steps) in known.iter().zip(plans) {
            for step in steps {
                trouble = self.take(known, step).await.err().or(trouble);
            }
        }
        let owners = self.controller.store.owners().await?;
        let is_known = |status: &&WorkloadStatus| owners.contains(&status.app);
        for orphan in observed.values().flatten().filter(|status| !is_known(status) && !status.deleting) {
            self.controller.engine.delete(&orphan.id).await?;
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Tells routers under which names visitors reach what. While the engine does not say what runs, visitors stay where
    /// they are; at first, that follows from the store alone.
    async fn publish(&mut self, observed: Option<&[WorkloadStatus]>) -> Result<Vec<Known>, Error> {
        let controller = Arc::clone(&self.controller);
        let mut serves = controller.live.serving.lock().await;
        let known = self.load().await?;
        let mut routes = BTreeMap::new();
        let mut next = BTreeMap::new();
        for known in &known {
            let id = known.app.id;
            let before = serves.get(&id).filter(|_| observed.is_none()).cloned();
            let serve = before.or_else(|| serving(&known.desired, observed.unwrap_or_default()));
            match route(&controller.settings, &known.app, known.domains.clone(), known.current.is_some(), serve.clone())
            {
                Ok(route) => {
                    routes.insert(id, route);
                }
                Err(error) => tracing::error!(app.name = %known.app.name, error = chain(&error), "An app has no route"),
            }
            next.extend(serve.map(|serve| (id, serve)));
        }
        *serves = next;
        controller.live.names.publish(&routes);
        Ok(known)
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
        let types = self.types(release).await?.iter().filter(|name| name.as_str() != PROCESS_TYPE);
        let processes = types.filter_map(|name| Some((name.clone(), scales.get(name)?.clone()))).collect();
        Ok(Some(Target { release: release.id, version: release.version, processes }))
    }

    /// The process types of a release's image.
    async fn types(&mut self, release: &Release) -> Result<&[ProcessType], Error> {
        let digest = release.image.as_ref().ok_or(Error::NotFound("image"))?;
        if !self.types.contains_key(digest) {
            let image = self.controller.image_of(release).await?;
            let types = image.processes.into_iter().map(|process| process.process_type).collect();
            self.types.insert(digest.clone(), types);
        }
        Ok(self.types.get(digest).map(Vec::as_slice).unwrap_or_default())
    }

    /// Runs the release phases that are due; a candidate is wanted only once its phase is over.
    async fn advance_phases(&mut self, known: &mut [Known]) -> Result<(), Error> {
        let is_candidate =
            |id: &ReleaseId| known.iter().any(|known| known.candidate.as_ref().is_some_and(|it| it.id == *id));
        self.phases.retain(|id, _| is_candidate(id));
        self.started.retain(|id, _| is_candidate(id));
        for known in known {
            let Some(candidate) = known.candidate.clone() else { continue };
            if !self.phase_is_over(&known.app, &candidate).await? {
                known.desired.candidate = None;
            }
        }
        Ok(())
    }

    async fn phase_is_over(&mut self, app: &App, candidate: &Release) -> Result<bool, Error> {
        let has_phase = self.types(candidate).await?.iter().any(|name| name.as_str() == PROCESS_TYPE);
        let result = match self.phases.remove(&candidate.id) {
            _ if !has_phase => return Ok(true),
            Some(Phase::Over) => Ok(None),
            Some(Phase::Running(mut running)) => match running.try_recv() {
                Ok(result) => result,
                Err(TryRecvError::Empty) => {
                    self.phases.insert(candidate.id, Phase::Running(running));
                    return Ok(false);
                }
                Err(TryRecvError::Closed) => Ok(Some("The platform lost the release command. Push again.".to_owned())),
            },
            None => {
                self.phases.insert(candidate.id, self.begin_phase(app.clone(), candidate.clone()));
                return Ok(false);
            }
        };
        match result {
            Ok(None) => {
                self.phases.insert(candidate.id, Phase::Over);
                return Ok(true);
            }
            Ok(Some(reason)) => self.fail(candidate, reason).await?,
            // It begins anew when the engine is back.
            Err(Error::Engine(EngineError::Unreachable { .. })) => {}
            Err(error) => self.fail(candidate, chain(&error)).await?,
        }
        Ok(false)
    }

    fn begin_phase(&self, app: App, release: Release) -> Phase {
        let controller = Arc::clone(&self.controller);
        let (sender, running) = oneshot::channel();
        tokio::spawn(async move {
            let result = controller.release_phase(&app, &release).await;
            // The result first, or the loop that is woken would not find it. Nobody wants that of an app that is gone.
            let _ = sender.send(result);
            controller.changed.notify_one();
        });
        Phase::Running(running)
    }

    async fn take(&mut self, known: &Known, step: Step) -> Result<(), Error> {
        match step {
            Step::Apply { workload, release, process_type, scale } => {
                self.apply(known, release, workload, (&process_type, &scale)).await
            }
            Step::Delete(workload) => Ok(self.controller.engine.delete(&workload).await?),
            Step::Promote { boot, .. } => self.promote(known, boot).await,
            Step::Fail(_, failure) => {
                let Some(candidate) = &known.candidate else { return Ok(()) };
                let reason = self.explain(known, candidate, &failure).await;
                self.fail(candidate, reason).await
            }
        }
    }

    async fn apply(
        &mut self,
        known: &Known,
        release: ReleaseId,
        id: WorkloadId,
        what: (&ProcessType, &Scale),
    ) -> Result<(), Error> {
        self.started.entry(release).or_insert_with(Instant::now);
        let candidate = known.candidate.as_ref().filter(|candidate| candidate.id == release);
        let Some(row) = candidate.or(known.current.as_ref()) else { return Ok(()) };
        let workload = self.controller.workload(&known.app, row, id, what).await?;
        match (self.controller.engine.apply(workload).await, candidate) {
            (Err(error), Some(candidate)) if !matches!(error, EngineError::Unreachable { .. }) => {
                self.fail(candidate, chain(&error)).await
            }
            (result, _) => Ok(result?),
        }
    }

    /// Makes a healthy candidate current: durable first, then routed to, then said.
    async fn promote(&mut self, known: &Known, boot: Duration) -> Result<(), Error> {
        let (Some(candidate), Some(target)) = (&known.candidate, &known.desired.candidate) else { return Ok(()) };
        let healthy = Instant::now();
        let controller = &self.controller;
        controller.store.finish_release(candidate.id, Outcome::Succeeded, controller.clock.now()).await?;
        let web = target.processes.iter().find(|(name, _)| name.as_str() == "web");
        let serve = web.map(|(web, scale)| workload_id(known.app.id, target.version, web, &scale.size));
        {
            let mut serving = controller.live.serving.lock().await;
            serving.remove(&known.app.id);
            serving.extend(serve.map(|serve| (known.app.id, serve)));
        }
        controller.announce(known.app.id).await;
        let started = self.started.remove(&candidate.id).unwrap_or(healthy);
        // What the app takes to boot is not the platform's time.
        let start = (healthy - started).saturating_sub(boot);
        let stages: Stages = vec![("start", start), ("healthy", boot), ("routed", healthy.elapsed())];
        controller.live.settle(candidate.id, stages);
        Ok(())
    }

    async fn fail(&self, release: &Release, reason: String) -> Result<(), Error> {
        let controller = &self.controller;
        let source = LogSource::app("api");
        for line in reason.lines() {
            controller.logs.write(release.app, controller.clock.now(), &source, line);
        }
        controller.store.finish_release(release.id, Outcome::Failed(reason), controller.clock.now()).await?;
        controller.live.settle(release.id, Stages::new());
        controller.changed.notify_one();
        Ok(())
    }

    async fn explain(&self, known: &Known, candidate: &Release, failure: &Failure) -> String {
        let before = known.current.as_ref().map(|release| release.version);
        let log = self.controller.dyno_log(known.app.id, &failure.dyno, candidate.created_at).await;
        explain(failure, candidate.version, before, &log)
    }
}

fn by_app(all: Vec<WorkloadStatus>) -> HashMap<AppId, Vec<WorkloadStatus>> {
    let mut by_app: HashMap<_, Vec<_>> = HashMap::new();
    for status in all {
        by_app.entry(status.app).or_default().push(status);
    }
    by_app
}
