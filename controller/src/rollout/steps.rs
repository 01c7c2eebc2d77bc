//! Taking the steps that the plan says.

use std::time::Duration;

use engine::{EngineError, WorkloadId};
use model::routes::Share;
use model::{LogSource, Pause, ProcessType, ReleaseId};
use tokio::time::Instant;

use super::failure::{Failure, is_quoted};
use super::known::Known;
use super::names::unconfirmed;
use super::plan::{Cause, Scale, Step, workload_id};
use super::worker::Rollout;
use crate::Error;
use crate::errors::chain;
use crate::formation::WEB;
use crate::live::Stages;
use crate::sizes::Sizes;
use crate::store::{Ending, Outcome, Release, RolloutRow};

impl Rollout {
    pub(super) async fn take(&mut self, known: &Known, step: Step) -> Result<(), Error> {
        match step {
            Step::Apply { workload, release, process_type, scale } => {
                self.apply(known, release, workload, (&process_type, &scale)).await
            }
            Step::Scale(workload, quantity) => Ok(self.controller.engine.scale(&workload, quantity).await?),
            Step::Idle(workload, idle) => match self.controller.engine.set_idle(&workload, idle).await {
                // What cannot sleep stays awake: that is no reason to ask again and again.
                Err(EngineError::Unsupported { .. }) => Ok(()),
                result => Ok(result?),
            },
            Step::Delete(workload) => Ok(self.controller.engine.delete(&workload).await?),
            Step::Promote { boot, .. } => self.promote(known, boot).await,
            Step::Reach(release) => {
                let step = known.rollout.as_ref().map_or(0, |rollout| rollout.step);
                self.controller.store.reach_step(release, step, self.controller.clock.now()).await?;
                self.say_step(known, step);
                Ok(())
            }
            Step::Advance(release, step) => {
                self.controller.store.leave_step(release, step.saturating_sub(1)).await?;
                self.controller.changed.app(known.app.id);
                Ok(())
            }
            Step::Withdraw(release, cause) => {
                let Some(candidate) = &known.candidate else { return Ok(()) };
                let failure = serde_json::to_string(&self.explain(known, candidate, &cause).await).unwrap_or_default();
                self.controller.store.withdraw_rollout(release, &failure).await?;
                self.controller.changed.app(known.app.id);
                Ok(())
            }
            Step::Fail(_, cause) => {
                let Some(candidate) = &known.candidate else { return Ok(()) };
                let failure = match cause {
                    Some(cause) => self.explain(known, candidate, &cause).await,
                    None => known.rollout.as_ref().and_then(RolloutRow::failure).unwrap_or_default(),
                };
                let before = known.current.as_ref().map(|release| release.version);
                let traffic = serde_json::to_string(&known.desired.progress.traffic).unwrap_or_default();
                self.controller.store.count_rollout(candidate.id, &traffic).await?;
                self.fail(candidate, failure.text(before), &failure).await
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
        let applied = match self.controller.make_disks(row, what.0).await {
            Ok(()) => self.controller.engine.apply(workload).await,
            Err(Error::Engine(error)) => Err(error),
            Err(other) => return Err(other),
        };
        match (applied, candidate) {
            // Another controller's program wished it since this one looked; the next look sees that.
            (Err(EngineError::Immutable(_)), _) => {
                self.owed.apps.insert(known.app.id);
                Ok(())
            }
            (Err(error), Some(candidate)) if !matches!(error, EngineError::Unreachable { .. }) => {
                let reason = chain(&error);
                self.fail(candidate, reason.clone(), &Failure::of("refused", reason)).await
            }
            (result, _) => Ok(result?),
        }
    }

    /// Makes a healthy candidate current: all requests go to it, and once routers say so, it is said to be live. The first thing is
    /// to note that, so that whoever goes on in the middle of it goes on with it.
    async fn promote(&mut self, known: &Known, boot: Duration) -> Result<(), Error> {
        let (Some(candidate), Some(target)) = (&known.candidate, &known.desired.candidate) else { return Ok(()) };
        let healthy = Instant::now();
        let controller = &self.controller;
        if !controller.store.route_rollout(candidate.id).await? {
            return Ok(());
        }
        let takes = |(process_type, scale): (&ProcessType, &Scale)| {
            let workload = workload_id(known.app.id, target.version, process_type, &scale.size);
            vec![Share { workload, weight: 1 }]
        };
        let web = target.processes.iter().find(|(name, _)| name.as_str() == WEB).map(takes).unwrap_or_default();
        let others = target.processes.iter().filter(|(name, _)| known.has_port(name));
        let others = others.map(|one| (one.0.clone(), takes(one))).collect();
        let confirmed = controller.serve(known.app.id, (web, others)).await?;
        let traffic = serde_json::to_string(&known.desired.progress.traffic).ok();
        let ending = Ending { unconfirmed: !confirmed, traffic, ..Ending::default() };
        controller.store.finish_release(candidate, (Outcome::Succeeded, &ending), &controller.own_stamp()).await?;
        controller.changed.app(known.app.id);
        if ending.unconfirmed {
            let text = unconfirmed(candidate.version);
            controller.logs.write(known.app.id, controller.clock.now(), &LogSource::app("api"), &text);
        }
        let started = self.started.remove(&candidate.id).unwrap_or(healthy);
        // What the app takes to boot is not the platform's time.
        let start = (healthy - started).saturating_sub(boot);
        let stages: Stages = vec![("start", start), ("healthy", boot), ("routed", healthy.elapsed())];
        controller.live.settle(candidate.id, stages);
        Ok(())
    }

    pub(super) async fn fail(&self, release: &Release, reason: String, failure: &Failure) -> Result<(), Error> {
        let controller = &self.controller;
        let source = LogSource::app("api");
        // The lines of the dyno that it quotes are in the log already.
        for line in reason.lines().filter(|line| !is_quoted(line)) {
            controller.logs.write(release.app, controller.clock.now(), &source, line);
        }
        let failure = serde_json::to_string(failure).ok();
        let ending = Ending { failure, ..Ending::default() };
        controller.store.finish_release(release, (Outcome::Failed(reason), &ending), &controller.own_stamp()).await?;
        controller.live.settle(release.id, Stages::new());
        controller.changed.app(release.app);
        Ok(())
    }

    /// Tells the log how far a canary is.
    fn say_step(&self, known: &Known, step: usize) {
        let (Some(rollout), Some(candidate)) = (&known.rollout, &known.candidate) else { return };
        let (Some(percent), version) = (rollout.policy.steps.get(step), candidate.version) else { return };
        let then = match rollout.policy.pause {
            Pause::For(_) => format!("it goes on in {}", rollout.policy.get("pause")),
            Pause::UntilContinued => "it goes on with `platform rollouts:continue`".to_owned(),
        };
        let text = format!("v{version} has {percent} % of the requests and the dynos; {then}");
        let controller = &self.controller;
        controller.logs.write(known.app.id, controller.clock.now(), &LogSource::app("api"), &text);
    }

    async fn explain(&self, known: &Known, candidate: &Release, cause: &Cause) -> Failure {
        let sick = match cause {
            Cause::Crashed(sick) => Some(sick),
            Cause::Stalled { missing, .. } => missing.as_ref(),
            Cause::Aborted | Cause::Errors { .. } => None,
        };
        let log = match sick {
            Some(sick) => self.controller.dyno_log(known.app.id, &sick.dyno, candidate.created_at).await,
            None => Vec::new(),
        };
        let sizes = self.controller.sizes().await.unwrap_or_else(|_| Sizes::built_in());
        Failure::new(candidate.version, cause, log, &sizes)
    }
}
