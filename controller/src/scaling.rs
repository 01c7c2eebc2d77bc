//! What people want of how process types scale by themselves.

use std::collections::BTreeMap;

use model::{ProcessType, ScalingPolicy};

use crate::formation::MAX_QUANTITY;
use crate::rollouts::PolicySetting;
use crate::store::{App, ScalingTexts};
use crate::{Actor, Controller, Error, policy};

impl Controller {
    /// How a process type of an app scales by itself.
    pub async fn scaling_policy(&self, app: &App, process_type: &ProcessType) -> Result<Vec<PolicySetting>, Error> {
        let (own, set) = self.scaling_texts(app, process_type).await?;
        let policy = policy_of(&own, &set);
        let setting = |name: &&'static str| PolicySetting {
            name,
            value: policy.get(name),
            source: policy::source(name, &own, &set),
        };
        Ok(ScalingPolicy::SETTINGS.iter().map(setting).collect())
    }

    /// Sets some of how a process type of an app scales by itself, from now on, or leaves it to its app.json again.
    pub async fn set_scaling_policy(
        &self,
        (app, actor): (&App, &Actor),
        process_type: &ProcessType,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), Error> {
        let (own, set) = self.scaling_texts(app, process_type).await?;
        let mut texts = set.clone();
        changes.iter().filter(|(_, text)| text.is_none()).for_each(|(name, _)| drop(texts.remove(name)));
        let mut policy = policy_of(&own, &texts);
        policy::change("scaling", &ScalingPolicy::SETTINGS, changes, |name, text| policy.set(name, text))?;
        policy.check(process_type.as_str()).map_err(Error::Invalid)?;
        let volumes = self.store.volumes(app.id).await?;
        if let Some(volume) = volumes.iter().find(|volume| volume.process_type == *process_type)
            && policy.autoscale.is_some()
        {
            let name = &volume.name;
            let message =
                format!("{process_type} cannot scale by itself: it has the volume {name}, which is for one dyno");
            return Err(Error::Invalid(message));
        }
        if policy.max > MAX_QUANTITY {
            return Err(Error::Invalid(format!("max is at most {MAX_QUANTITY} on this platform")));
        }
        let of = (app.id, process_type);
        self.store.set_scaling_settings(of, changes, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Set scaling policy of {process_type}: {}", policy::words(changes)));
        self.changed.app(app.id);
        Ok(())
    }

    /// What the app.json of an app's current release says of a process type, and what is set.
    async fn scaling_texts(
        &self,
        app: &App,
        process_type: &ProcessType,
    ) -> Result<(ScalingTexts, ScalingTexts), Error> {
        let kept = match self.store.release(app.current_release).await? {
            Some(release) => self.kept_of(&release).await?.scaling.remove(process_type),
            None => None,
        };
        let set = self.store.scaling_settings(app.id).await?.remove(process_type);
        Ok((kept.unwrap_or_default(), set.unwrap_or_default()))
    }
}

/// How a process type scales by itself, by what its app's app.json says and by what is set.
pub(crate) fn policy_of(own: &ScalingTexts, set: &ScalingTexts) -> ScalingPolicy {
    ScalingPolicy::from_texts(&policy::merged(own, set))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use crate::testing::http::Server;
    use crate::testing::{image, make_deploy_of};

    #[tokio::test]
    async fn what_is_set_counts_before_app_json_and_only_web_sleeps() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let store = &server.test.controller.store;
        let app = store.apps().await.expect("readable").remove(0);
        let kept = r#"{"scaling": {"web": {"sleep_after": "30m"}}}"#;
        let release = make_deploy_of(store, &app, &image(&["web", "worker"]), (&BTreeMap::default(), Some(kept))).await;
        server.test.finish(&release, crate::store::Outcome::Succeeded).await;
        let path = "/apps/shop/formation/web/scaling-policy";
        let sleep_after = async || {
            let answer = ada.get(path).await.body;
            let found = answer.as_array().expect("a list").iter().find(|it| it["name"] == "sleep_after");
            let found = found.expect("a setting").clone();
            format!("{} {}", found["value"].as_str().expect("a text"), found["source"].as_str().expect("a text"))
        };
        assert_eq!(sleep_after().await, "30m app.json");
        assert_eq!(ada.send("PATCH", path, &[], json!({"sleep_after": "90s"})).await.status, 200);
        assert_eq!(sleep_after().await, "1m30s app");
        assert_eq!(ada.send("PATCH", path, &[], json!({"sleep_after": "never"})).await.status, 200);
        assert_eq!(sleep_after().await, "never app");
        ada.send("PATCH", path, &[], json!({"sleep_after": null})).await;
        assert_eq!(sleep_after().await, "30m app.json");

        for (path, wrong, word) in [
            (path, json!({"sleep_after": "soon"}), "must be a time"),
            (path, json!({"speed": "1"}), "no setting"),
            (path, json!({"min": 4}), "max is 3"),
            (path, json!({"max": 101}), "at most 100"),
            ("/apps/shop/formation/worker/scaling-policy", json!({"sleep_after": "30m"}), "only web"),
            ("/apps/shop/formation/worker/scaling-policy", json!({"metric": "p95"}), "cpu and memory"),
        ] {
            let refused = ada.send("PATCH", path, &[], wrong).await;
            assert_eq!(refused.status, 422);
            assert!(refused.body["message"].as_str().expect("a message").contains(word), "{:?}", refused.body);
        }
        let nothing = ada.get("/apps/shop/formation/clock/scaling-policy").await;
        assert_eq!(nothing.status, 404);
    }
}
