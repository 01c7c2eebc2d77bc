//! What apps may reach outside: what is wanted is in the store, and the engine is told until it agrees.

use std::sync::Arc;
use std::time::Duration;

use model::{AppId, Egress};
use tokio::time::sleep;

use crate::errors::chain;
use crate::store::App;
use crate::{Actor, Controller, Error};

/// Between two looks whether the engine still agrees.
const LOOK: Duration = Duration::from_secs(30);
/// Before it is told again after it could not be.
const RETRY: Duration = Duration::from_millis(500);

/// Keeps what is in force as it is wanted, for as long as the process lives.
pub(crate) async fn work(controller: Arc<Controller>) {
    loop {
        match controller.enforce_egress().await {
            Ok(()) => tokio::select! {
                () = sleep(LOOK) => {}
                () = controller.live.egress_pending.notified() => {}
            },
            Err(error) => {
                tracing::debug!(error = chain(&error), "what apps may reach outside cannot be enforced yet");
                sleep(RETRY).await;
            }
        }
    }
}

impl Controller {
    /// What an app may reach outside, if it has a policy, and whether that is in force.
    pub async fn egress(&self, app: &App) -> Result<(Option<Egress>, bool), Error> {
        let policy = self.store.egress(app.id).await?;
        // An engine that is out of reach enforces what it was told last, whatever that is.
        let in_force = self.engine.egress().await.is_ok_and(|all| all.get(&app.id) == policy.as_ref());
        Ok((policy, in_force))
    }

    /// Sets what an app may reach outside from now on, or lets it reach everything that any app may.
    pub async fn set_egress(&self, app: &App, actor: &Actor, policy: Option<Egress>) -> Result<(), Error> {
        if let Some(policy) = &policy {
            policy.check().map_err(|error| Error::Invalid(error.to_string()))?;
        }
        self.store.set_egress(app.id, policy.as_ref(), &self.stamp(actor)).await?;
        let what =
            policy.map_or_else(|| "Clear egress policy".to_owned(), |policy| format!("Set egress policy: {policy}"));
        self.note(app, actor, &what);
        if let Err(error) = self.enforce_egress().await {
            // The answer says so, and it is tried again.
            tracing::warn!(app.name = %app.name, error = chain(&error), "what an app may reach outside is not in force yet");
            self.live.egress_pending.notify_one();
        }
        Ok(())
    }

    /// Tells the engine whatever it does not know.
    pub(crate) async fn enforce_egress(&self) -> Result<(), Error> {
        // What is told last was read last.
        let _one_at_a_time = self.live.egress.lock().await;
        let (wanted, known) = (self.store.egress_policies().await?, self.engine.egress().await?);
        for (app, policy) in wanted.iter().filter(|(app, policy)| known.get(app) != Some(policy)) {
            self.engine.set_egress(*app, Some(policy.clone())).await?;
        }
        let gone: Vec<AppId> = known.keys().filter(|app| !wanted.contains_key(app)).copied().collect();
        for app in gone {
            self.engine.set_egress(app, None).await?;
        }
        self.enforce_links().await
    }
}

#[cfg(test)]
mod tests {
    use engine::Engine;
    use serde_json::{Value, json};

    use crate::testing::http::Server;

    #[tokio::test]
    async fn a_policy_is_in_force_once_it_is_set_also_if_the_engine_was_away() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let open = json!({ "default": "allow", "in_force": true, "rules": [] });
        assert_eq!(ada.get("/apps/shop/egress").await.body, open);

        let wish =
            json!({ "default": "deny", "rules": [{ "to": "public", "ports": "443, 80" }, { "to": "10.1.2.3" }] });
        let set = ada.send("PUT", "/apps/shop/egress", &[], wish.clone()).await;
        let rules = json!([{ "to": "public", "ports": "80,443" }, { "to": "10.1.2.3", "ports": null }]);
        assert_eq!((set.status, &set.body), (200, &json!({ "default": "deny", "in_force": true, "rules": rules })));
        assert_eq!(server.test.engine.egress().await.expect("reachable").len(), 1);
        assert_eq!(ada.send("PUT", "/apps/shop/egress", &[], wish).await.status, 200);

        server.test.engine.set_reachable(false);
        let cleared = ada.send("DELETE", "/apps/shop/egress", &[], Value::Null).await;
        assert_eq!(
            (cleared.status, &cleared.body["default"], &cleared.body["in_force"]),
            (200, &json!("allow"), &json!(false))
        );
        server.test.engine.set_reachable(true);
        assert_eq!(ada.get("/apps/shop/egress").await.body["in_force"], false, "the engine says what is in force");
        server.test.controller.enforce_egress().await.expect("reachable");
        assert_eq!(ada.get("/apps/shop/egress").await.body, open);

        let told = ada.get("/apps/shop/events?resource=app").await.body;
        let told = told.as_array().expect("a list").iter().filter(|event| event["data"].get("egress").is_some());
        assert_eq!(told.count(), 2, "the same twice is one change");
    }

    #[tokio::test]
    async fn what_cannot_be_a_policy_is_refused_with_what_can() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        for (wish, part) in [
            (json!({}), "default is missing"),
            (json!({ "default": "maybe" }), "allow or deny"),
            (json!({ "default": "deny", "rules": [{ "to": "example.com" }] }), "203.0.113.0/24"),
            (json!({ "default": "deny", "rules": [{ "to": "public", "ports": "https" }] }), "8000-8999"),
        ] {
            let refused = ada.send("PUT", "/apps/shop/egress", &[], wish).await;
            assert_eq!(refused.status, 422, "{}", refused.text);
            assert!(refused.text.contains(part), "{}", refused.text);
        }
        assert_eq!(ada.get("/apps/shop/egress").await.body["default"], "allow");
    }
}
