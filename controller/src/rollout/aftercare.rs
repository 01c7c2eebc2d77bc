//! What comes after a release is live: its requests are counted until nothing of the release before it runs any more, and what
//! would have failed it before takes the app back, once.

use engine::WorkloadStatus;
use model::{AppId, LogSource, RolloutPolicy};

use super::failure::Failure;
use super::plan::{Cause, hopeless};
use super::traffic::Traffic;
use super::worker::{Observed, Rollout, of};
use crate::errors::chain;
use crate::releases::RolledBack;
use crate::store::{App, Release, RolloutRow, RolloutState, Status};
use crate::{Controller, Error};

impl Rollout {
    /// Looks after the releases that are live, and lately so, of some apps or of all. What cannot be done for one holds up no other.
    pub(super) async fn look_after(&self, apps: Option<&[AppId]>, observed: &Observed) -> Result<Option<Error>, Error> {
        let mut trouble = None;
        for rollout in self.controller.store.rollouts_looked_after(apps).await? {
            let result = match rollout.state {
                RolloutState::Watching => {
                    self.controller.watch(&rollout, of(observed, rollout.app), apps.is_some()).await
                }
                RolloutState::Leaving => self.controller.take_back(&rollout).await,
                _ => Ok(()),
            };
            trouble = result.err().or(trouble);
        }
        Ok(trouble)
    }
}

impl Controller {
    /// `has_reason` if something of the app changed, and not only the time.
    async fn watch(&self, rollout: &RolloutRow, observed: &[WorkloadStatus], has_reason: bool) -> Result<(), Error> {
        let noted = rollout.traffic();
        let traffic = noted.until_now(rollout.version, observed, self.live.names.traffic());
        let live_at = rollout.live_at.unwrap_or(rollout.begun_at);
        let is_over = self.clock.now().since(live_at) >= rollout.policy.watch;
        let fault = fault(&rollout.policy, rollout.version, &traffic, observed).filter(|_| !is_over);
        if noted.closed && !is_over && fault.is_none() && !has_reason {
            return Ok(());
        }
        let Some(app) = self.store.app(rollout.app).await? else { return Ok(()) };
        let is_current = app.current_release == rollout.release;
        let old_ones = observed.iter().any(|status| status.release < rollout.version);
        let is_counted = noted.closed || !old_ones || !is_current;
        if is_counted && !noted.closed {
            let closed = traffic.close();
            self.store.count_rollout(rollout.release, &serde_json::to_string(&closed).unwrap_or_default()).await?;
        }
        if !is_current || (is_over && is_counted) {
            return Ok(self.store.settle_rollout(rollout.release, self.clock.now()).await?);
        }
        if let (Some(before), Some(cause)) = (rollout.replaces, fault) {
            // Whoever is deploying the next one knows better.
            let newest = self.store.newest_version(app.id).await?;
            let newest = self.store.release_by_version(app.id, newest).await?;
            if newest.is_some_and(|release| release.status == Status::Pending) {
                return Ok(());
            }
            let log = match &cause {
                Cause::Crashed(sick) => self.dyno_log(app.id, &sick.dyno, live_at).await,
                _ => Vec::new(),
            };
            let sizes = self.sizes().await?;
            let failure = Failure::new(rollout.version, &cause, log, &sizes).after_it_was_live(before);
            let text = serde_json::to_string(&failure).unwrap_or_default();
            self.store.leave_rollout(rollout.release, &text).await?;
            let rollout = RolloutRow { state: RolloutState::Leaving, failure: Some(text), ..rollout.clone() };
            self.take_back(&rollout).await?;
        }
        Ok(())
    }

    /// Goes back to the release before. May be done again: what is there already is not made twice.
    async fn take_back(&self, rollout: &RolloutRow) -> Result<(), Error> {
        let Some(app) = self.store.app(rollout.app).await? else { return Ok(()) };
        let before = match rollout.replaces {
            Some(before) => self.store.release_by_version(app.id, before).await?,
            None => None,
        };
        let failed = self.store.release(rollout.release).await?;
        let (Some(before), Some(failed)) = (before, failed) else { return Ok(()) };
        let reason = rollout.failure().map(|failure| failure.sentence).unwrap_or_default();
        match self.return_to(&app, (&failed, &before), &reason).await {
            Ok(back) => self.left(rollout, &app, &back).await,
            // It cannot be gone back to: what is live stays.
            Err(error @ (Error::Invalid(_) | Error::NotFound(_) | Error::Held(_) | Error::Forbidden(_))) => {
                let text = format!("{reason} The platform cannot go back to v{}: {}", before.version, chain(&error));
                self.logs.write(app.id, self.clock.now(), &LogSource::app("api"), &text);
                Ok(self.store.settle_rollout(rollout.release, self.clock.now()).await?)
            }
            Err(error) => Err(error),
        }
    }

    async fn left(&self, rollout: &RolloutRow, app: &App, back: &RolledBack) -> Result<(), Error> {
        let Release { version, .. } = back.release;
        self.store.return_rollout(rollout.release, version, self.clock.now()).await?;
        let failure = rollout.failure().unwrap_or_default();
        let then = format!("The app goes back by itself: v{version} is what was live before.");
        for line in [failure.sentence.as_str(), then.as_str()] {
            self.logs.write(app.id, self.clock.now(), &LogSource::app("api"), line);
        }
        self.changed.app(app.id);
        Ok(())
    }
}

/// What would have failed a release before it was live.
fn fault(policy: &RolloutPolicy, version: u64, traffic: &Traffic, observed: &[WorkloadStatus]) -> Option<Cause> {
    let mut own = observed.iter().filter(|status| status.release == version && !status.deleting);
    let crashed = own.find_map(|status| hopeless(status, policy.max_crashes));
    let worse = || traffic.worse(policy).map(|(old, new)| Cause::Errors { old, new });
    crashed.map(Cause::Crashed).or_else(worse)
}
