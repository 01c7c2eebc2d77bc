//! Which apps reach which others, through routers: so that they are balanced, and lose nothing when the other one is deployed.

use std::collections::{BTreeMap, BTreeSet};

use engine::Link;
use model::{AppId, ConfigVarName, Hostname, NameError, Role};

use crate::store::{App, AppLink};
use crate::{Actor, Controller, Error};

impl Controller {
    /// The apps that an app reaches.
    pub async fn links(&self, app: &App) -> Result<Vec<AppLink>, Error> {
        Ok(self.store.links(Some(app.id)).await?)
    }

    /// Lets an app reach another one, which the actor must manage as well, and tells it where by a config var.
    pub async fn add_link(&self, app: &App, actor: &Actor, target: &str, name: Option<&str>) -> Result<AppLink, Error> {
        let target = self.find_app(actor, target, Role::Manage).await?;
        if target.id == app.id {
            return Err(Error::Invalid(format!("{} cannot be linked to itself", app.name)));
        }
        let name = name.map_or_else(|| target.name.as_str().replace('-', "_").to_uppercase(), str::to_uppercase);
        let variable = format!("{name}_URL");
        let parsed: ConfigVarName = variable.parse().map_err(|rule: NameError| Error::Invalid(rule.to_string()))?;
        if self.store.config(app.id).await?.iter().any(|(known, _)| *known == parsed) {
            let message = format!("{variable} is set already: unset it, or give the link another name");
            return Err(Error::Conflict(message));
        }
        self.check_held(app, actor).await?;
        self.store.insert_link(app.id, target.id, &name, &self.stamp(actor)).await?;
        let link = self.find_link(app, target.name.as_str()).await?;
        self.read_link_ports().await?;
        // It is within reach before the app is told of it.
        self.announce(target.id).await;
        self.enforce_or_try_again().await;
        self.note(app, actor, &format!("Link to {}", target.name));
        let url = self.link_url(&link);
        self.set_config(app, actor, &BTreeMap::from([(variable, Some(url))])).await?;
        Ok(link)
    }

    /// The link of an app to another one, by that one's name or id, or by its own name.
    pub async fn find_link(&self, app: &App, reference: &str) -> Result<AppLink, Error> {
        let is_meant = |link: &AppLink| {
            link.target_name.as_str() == reference
                || link.target.to_string() == reference
                || link.name.eq_ignore_ascii_case(reference)
        };
        self.links(app).await?.into_iter().find(is_meant).ok_or(Error::NotFound("link"))
    }

    /// Ends a link, and what goes over it.
    pub async fn remove_link(&self, app: &App, actor: &Actor, link: &AppLink) -> Result<(), Error> {
        self.check_held(app, actor).await?;
        self.store.delete_link(link, &self.stamp(actor)).await?;
        self.enforce_or_try_again().await;
        self.note(app, actor, &format!("Remove link to {}", link.target_name));
        let variable = format!("{}_URL", link.name);
        let url = self.link_url(link);
        // Somebody may have made something else of it.
        if self.store.config(app.id).await?.iter().any(|(name, value)| name.as_str() == variable && *value == url) {
            self.set_config(app, actor, &BTreeMap::from([(variable, None)])).await?;
        }
        Ok(())
    }

    /// Where a linked app is.
    pub fn link_url(&self, link: &AppLink) -> String {
        format!("http://{}:{}", self.settings.gateway, link.port)
    }

    /// The host name by which routers know an app for those that are linked to it, if any is or was.
    pub(crate) fn link_host(&self, app: AppId) -> Option<Hostname> {
        let port = self.live.link_ports.lock().get(&app).copied()?;
        router::inner_host(port).parse().ok()
    }

    /// Reads the ports by which apps are asked for.
    pub(crate) async fn read_link_ports(&self) -> Result<(), Error> {
        let ports = self.store.link_ports().await?;
        *self.live.link_ports.lock() = ports;
        Ok(())
    }

    /// Tells the engine which links there are, if it does not know.
    pub(crate) async fn enforce_links(&self) -> Result<(), Error> {
        let wanted: BTreeSet<Link> =
            self.store.links(None).await?.iter().map(|link| Link { client: link.app, port: link.port }).collect();
        if self.engine.links().await? != wanted {
            self.engine.set_links(wanted).await?;
        }
        Ok(())
    }

    async fn enforce_or_try_again(&self) {
        if let Err(error) = self.enforce_egress().await {
            tracing::warn!(error = crate::errors::chain(&error), "links of apps are not in force yet");
            self.live.egress_pending.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::Engine;
    use serde_json::{Value, json};

    use crate::testing::http::Server;

    #[tokio::test]
    async fn a_link_is_told_by_a_config_var_and_goes_with_it() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        for app in ["stock-api", "prices"] {
            assert_eq!(ada.send("POST", "/apps", &[], json!({ "name": app })).await.status, 201);
        }
        let made = ada.send("POST", "/apps/shop/links", &[], json!({ "app": "stock-api" })).await;
        let url = "http://10.210.0.1:20000";
        assert_eq!(
            (made.status, &made.body["name"], &made.body["url"]),
            (201, &json!("STOCK_API"), &json!(url)),
            "{}",
            made.text
        );
        assert_eq!(ada.get("/apps/shop/config-vars").await.body["STOCK_API_URL"], url);
        let other = ada.send("POST", "/apps/shop/links", &[], json!({ "app": "prices", "name": "cheap" })).await;
        assert_eq!((other.status, &other.body["url"]), (201, &json!("http://10.210.0.1:20001")));
        assert_eq!(server.test.engine.links().await.expect("reachable").len(), 2);
        let again = ada.send("POST", "/apps/shop/links", &[], json!({ "app": "prices", "name": "dear" })).await;
        assert_eq!(again.status, 422, "{}", again.text);
        let itself = ada.send("POST", "/apps/shop/links", &[], json!({ "app": "shop" })).await;
        assert_eq!(itself.status, 422);
        let bob = server.user_with_app("bob@example.com", "foreign").await;
        let foreign = bob.send("POST", "/apps/foreign/links", &[], json!({ "app": "stock-api" })).await;
        assert_eq!(foreign.status, 404, "nobody reaches what is not theirs");

        let gone = ada.send("DELETE", "/apps/shop/links/stock-api", &[], Value::Null).await;
        assert_eq!(gone.status, 200, "{}", gone.text);
        assert_eq!(ada.get("/apps/shop/links").await.body.as_array().map(Vec::len), Some(1));
        assert_eq!(ada.get("/apps/shop/config-vars").await.body, json!({ "CHEAP_URL": "http://10.210.0.1:20001" }));
        assert_eq!(server.test.engine.links().await.expect("reachable").len(), 1);
        let back = ada.send("POST", "/apps/prices/links", &[], json!({ "app": "stock-api" })).await;
        assert_eq!(back.body["url"], url, "its port is its own");
    }
}
