//! What people ask and want of rollouts. How they are done is in `rollout/`.

use std::collections::BTreeMap;

use model::RolloutPolicy;
use serde_json::json;

use crate::rollout::{Failure, Tally, Traffic};
use crate::store::{Action, App, NewEvent, Release, Resource, RolloutRow, RolloutState};
use crate::{Actor, Controller, Error, policy};

/// One setting of a policy, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySetting {
    /// `max_surge`
    pub name: &'static str,
    /// `25%`
    pub value: String,
    /// `app`: it was set for the app; `app.json`: the app's newest code says so; `default`.
    pub source: &'static str,
}

impl Controller {
    /// The rollout of the release of an app that `reference` means; see [`Controller::find_release`].
    pub async fn find_rollout(&self, app: &App, reference: &str) -> Result<RolloutRow, Error> {
        let release = self.find_release(app, reference).await?;
        self.store.rollout(release.id).await?.ok_or(Error::NotFound("rollout"))
    }

    /// What the requests came to that an app got during a rollout, until now.
    pub async fn rollout_traffic(&self, rollout: &RolloutRow) -> Result<Tally, Error> {
        let noted = rollout.traffic();
        if noted.closed || rollout.ended_at.is_some() {
            return Ok(noted.sum());
        }
        let observed = self.engine.list_of(&[rollout.app]).await?;
        Ok(noted.until_now(rollout.version, &observed, self.live.names.traffic()).sum())
    }

    /// The policy by which the next release of an app takes over.
    pub async fn rollout_policy(&self, app: &App) -> Result<Vec<PolicySetting>, Error> {
        let set = self.store.rollout_settings(app.id).await?;
        let own = self.kept_of_newest(app).await?;
        let policy = RolloutPolicy::from_texts(&policy::merged(&own, &set));
        let setting = |name: &&'static str| PolicySetting {
            name,
            value: policy.get(name),
            source: policy::source(name, &own, &set),
        };
        Ok(RolloutPolicy::SETTINGS.iter().map(setting).collect())
    }

    /// Sets some of an app's policy, from its next release on, or leaves them to its app.json again.
    pub async fn set_rollout_policy(
        &self,
        app: &App,
        actor: &Actor,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), Error> {
        let (own, set) = (self.kept_of_newest(app).await?, self.store.rollout_settings(app.id).await?);
        let mut policy = RolloutPolicy::from_texts(&policy::merged(&own, &set));
        policy::change("a rollout", &RolloutPolicy::SETTINGS, changes, |name, text| policy.set(name, text))?;
        policy.check().map_err(Error::Invalid)?;
        self.store.set_rollout_settings(app.id, changes, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Set rollout policy: {}", policy::words(changes)));
        Ok(())
    }

    /// The policy by which a release takes over.
    pub(crate) async fn policy_of(&self, release: &Release) -> Result<RolloutPolicy, Error> {
        let own = self.kept_of(release).await?.rollout;
        let set = self.store.rollout_settings(release.app).await?;
        Ok(RolloutPolicy::from_texts(&policy::merged(&own, &set)))
    }

    /// What the app.json of an app's newest release says that did not fail.
    async fn kept_of_newest(&self, app: &App) -> Result<BTreeMap<String, String>, Error> {
        match self.store.newest_deployed(app.id).await? {
            Some(release) => Ok(self.kept_of(&release).await?.rollout),
            None => Ok(BTreeMap::new()),
        }
    }

    /// Lets a canary that waits go on to its next step.
    pub async fn continue_rollout(&self, app: &App, actor: &Actor, reference: &str) -> Result<RolloutRow, Error> {
        let rollout = self.find_rollout(app, reference).await?;
        let version = rollout.version;
        if rollout.state != RolloutState::Running || rollout.reached_at.is_none() {
            return Err(Error::Conflict(format!("v{version} does not wait at a step: there is nothing to go on with")));
        }
        if !self.store.leave_step(rollout.release, rollout.step).await? {
            return Err(Error::Conflict(format!("v{version} goes on already")));
        }
        self.said_of_rollout((app, actor), &rollout, "continue").await
    }

    /// Ends a rollout that is under way: what was live before it takes every request again.
    pub async fn abort_rollout(&self, app: &App, actor: &Actor, reference: &str) -> Result<RolloutRow, Error> {
        let rollout = self.find_rollout(app, reference).await?;
        let version = rollout.version;
        if !self.store.abort_rollout(rollout.release).await? {
            let message = match rollout.state {
                RolloutState::Succeeded | RolloutState::Watching => {
                    format!("v{version} is live already: `platform rollback` goes back to the release before it")
                }
                _ => format!("v{version} is not being rolled out"),
            };
            return Err(Error::Conflict(message));
        }
        self.said_of_rollout((app, actor), &rollout, "abort").await
    }

    async fn said_of_rollout(
        &self,
        (app, actor): (&App, &Actor),
        rollout: &RolloutRow,
        what: &str,
    ) -> Result<RolloutRow, Error> {
        let data = json!({ "version": rollout.version, "rollout": what });
        let (resource, id) = (Resource::Release, rollout.release.to_string());
        let event = NewEvent { app: Some(app.id), resource, id, action: Action::Update, data };
        self.store.record(&self.stamp(actor), event).await?;
        let verb = if what == "abort" { "Abort" } else { "Continue" };
        self.note(app, actor, &format!("{verb} rollout of v{}", rollout.version));
        self.changed.app(app.id);
        self.store.rollout(rollout.release).await?.ok_or(Error::NotFound("rollout"))
    }
}

impl RolloutRow {
    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<Failure> {
        // What another version wrote is told as far as it can be read.
        self.failure.as_ref().and_then(|text| serde_json::from_str(text).ok())
    }

    /// What its requests came to, when that was last noted.
    pub fn traffic(&self) -> Traffic {
        self.traffic.as_ref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Per cent of the requests and the dynos that a canary has at the step that it is at.
    pub fn percent(&self) -> Option<u8> {
        let is_canary = self.policy.strategy == model::Strategy::Canary && self.state == RolloutState::Running;
        self.policy.steps.get(self.step).filter(|_| is_canary && self.reached_at.is_some()).copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::http::Server;
    use crate::testing::{image, make_deploy_of};

    #[tokio::test]
    async fn what_is_set_counts_before_app_json_and_that_before_the_default() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let path = "/apps/shop/rollout-policy";
        let policy = async || {
            let answer = ada.get(path).await.body;
            let texts = answer.as_array().expect("a list").iter().map(|it| {
                let text = |key: &str| it[key].as_str().expect("a text").to_owned();
                (text("name"), format!("{} {}", text("value"), text("source")))
            });
            texts.collect::<BTreeMap<_, _>>()
        };
        assert_eq!(policy().await["max_surge"], "25% default");
        let store = &server.test.controller.store;
        let app = store.apps().await.expect("readable").remove(0);
        let kept = r#"{"rollout": {"strategy": "canary", "pause": "manual"}}"#;
        let release = make_deploy_of(store, &app, &image(&["web"]), (&BTreeMap::new(), Some(kept))).await;
        assert_eq!(policy().await["strategy"], "canary app.json");
        let set = ada.send("PATCH", path, &[], json!({"strategy": "all-at-once", "max_surge": 2})).await;
        assert_eq!(set.status, 200);
        let now = policy().await;
        assert_eq!((now["strategy"].as_str(), now["max_surge"].as_str()), ("all-at-once app", "2 app"));
        assert_eq!(now["pause"], "manual app.json");
        let of_release = server.test.controller.policy_of(&release).await.expect("readable");
        assert_eq!((of_release.get("strategy"), of_release.get("pause")), ("all-at-once".into(), "manual".into()));
        ada.send("PATCH", path, &[], json!({"strategy": null})).await;
        assert_eq!(policy().await["strategy"], "canary app.json");

        for (wrong, word) in [
            (json!({"strategy": "blue"}), "rolling, canary or all-at-once"),
            (json!({"speed": "1"}), "no setting"),
            (json!({"max_surge": 0}), "cannot both be 0"),
        ] {
            let refused = ada.send("PATCH", path, &[], wrong).await;
            assert_eq!(refused.status, 422);
            assert!(refused.body["message"].as_str().expect("a message").contains(word), "{:?}", refused.body);
        }
    }
}
