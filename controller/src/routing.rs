//! What people want of how routers treat the requests to their apps.

use model::{ConfigVarName, Credential, RoutePolicy};

use crate::config_vars::ConfigVars;
use crate::policy::{self, Changes, Texts};
use crate::rollouts::PolicySetting;
use crate::setup::Kept;
use crate::store::App;
use crate::{Actor, Controller, Error, accounts};

/// The setting whose text is secret, and is hashed before anybody keeps it.
const SECRET: &str = "basic_auth";
/// The setting that is a moment, which may be this one.
const PURGED: &str = "cache_purged";

/// Heroku's config vars for an app's own pages, and the setting that each is.
const PAGES: [(&str, &str); 2] = [("ERROR_PAGE_URL", "error_page"), ("MAINTENANCE_PAGE_URL", "maintenance_page")];

/// What an app's config vars say of its own pages. What is no address of a page is passed over.
pub(crate) fn pages(config: &ConfigVars) -> Texts {
    let page = |(name, setting): (&str, &str)| {
        let text = config.get(&name.parse::<ConfigVarName>().ok()?)?;
        RoutePolicy::default().set(setting, text).ok().map(|()| (setting.to_owned(), text.to_owned()))
    };
    PAGES.into_iter().filter_map(page).collect()
}

/// What is said of an app's policy by its config vars, by its app.json and by people; the last one counts.
pub(crate) struct Said<'a> {
    pub(crate) pages: &'a Texts,
    pub(crate) own: &'a Texts,
    pub(crate) set: &'a Texts,
}

impl Said<'_> {
    fn merged(&self) -> Texts {
        policy::merged(self.pages, &policy::merged(self.own, self.set))
    }

    fn source(&self, name: &str) -> &'static str {
        let source = policy::source(name, self.own, self.set);
        if source == "default" && self.pages.contains_key(name) { "config var" } else { source }
    }
}

impl Controller {
    /// How routers treat the requests to an app.
    pub async fn routing_policy(&self, app: &App) -> Result<Vec<PolicySetting>, Error> {
        let (pages, own, set) = self.routing_texts(app).await?;
        let said = Said { pages: &pages, own: &own, set: &set };
        let policy = RoutePolicy::from_texts(&said.merged());
        let setting =
            |name: &&'static str| PolicySetting { name, value: policy.shown(name), source: said.source(name) };
        Ok(RoutePolicy::SETTINGS.iter().map(setting).collect())
    }

    /// Sets some of how routers treat the requests to an app, from now on, or leaves it to its app.json again. Once this returns, they do.
    pub async fn set_routing_policy(&self, app: &App, actor: &Actor, changes: &Changes) -> Result<(), Error> {
        let changes = self.dated(self.hashed(changes).await?);
        let (pages, own, set) = self.routing_texts(app).await?;
        let said = Said { pages: &pages, own: &own, set: &policy::changed(&set, &changes) };
        let mut policy = RoutePolicy::from_texts(&said.merged());
        policy::change("routing", &RoutePolicy::SETTINGS, &changes, |name, text| policy.set(name, text))?;
        policy.check().map_err(Error::Invalid)?;
        self.store.set_routing_settings(app.id, &changes, &self.stamp(actor)).await?;
        let told = |(name, text): (&String, &Option<String>)| (name.clone(), text.as_ref().map(|_| policy.shown(name)));
        self.note(app, actor, &format!("Set routing: {}", policy::words(&changes.iter().map(told).collect())));
        self.live.on_demand.forget();
        self.announce(app.id).await;
        Ok(())
    }

    /// What routers are told of an app whose current release keeps this; none if nobody says anything.
    pub(crate) fn route_policy(pages: &Texts, kept: &Kept, set: &Texts) -> Option<Box<RoutePolicy>> {
        let policy = RoutePolicy::from_texts(&Said { pages, own: &kept.routing, set }.merged());
        (policy != RoutePolicy::default()).then(|| Box::new(policy))
    }

    /// What the config vars and the app.json of an app's current release say, and what is set.
    async fn routing_texts(&self, app: &App) -> Result<(Texts, Texts, Texts), Error> {
        let (pages, own) = match self.store.release(app.current_release).await? {
            Some(release) => {
                (pages(&self.store.release_config(release.id).await?), self.kept_of(&release).await?.routing)
            }
            None => <(Texts, Texts)>::default(),
        };
        Ok((pages, own, self.store.routing_settings(app.id).await?))
    }

    /// The same with the time in the place of `now`.
    fn dated(&self, mut changes: Changes) -> Changes {
        if let Some(Some(text)) = changes.get_mut(PURGED)
            && text.trim() == "now"
        {
            *text = self.clock.now().to_rfc3339_millis();
        }
        changes
    }

    /// The same with hashes in the place of passwords.
    async fn hashed(&self, changes: &Changes) -> Result<Changes, Error> {
        let mut changes = changes.clone();
        if let Some(Some(text)) = changes.get_mut(SECRET)
            && !matches!(text.trim(), "" | "off")
        {
            let mut all = Vec::new();
            let pairs = Credential::pairs(text).map_err(|rule| Error::Invalid(format!("{SECRET} {rule}")))?;
            for (user, password) in pairs {
                let is_hash = Credential::is_hash(&password);
                let hash = if is_hash { password } else { accounts::hash(self.random.as_ref(), password).await? };
                all.push(Credential { user, hash }.to_string());
            }
            *text = all.join(",");
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::RoutePolicy;
    use serde_json::{Value, json};

    use crate::testing::http::Server;
    use crate::testing::{image, make_deploy_of};

    fn find(answer: &Value, name: &str) -> String {
        let setting = answer.as_array().expect("a list").iter().find(|it| it["name"] == name).expect(name);
        format!("{} {}", setting["value"].as_str().expect("a text"), setting["source"].as_str().expect("a text"))
    }

    #[tokio::test]
    async fn routers_are_told_what_is_set_before_what_app_json_says() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let path = "/apps/shop/routing-policy";
        let controller = &server.test.controller;
        let app = controller.store.apps().await.expect("readable").remove(0);
        let told = || controller.live.names.row(&app.id).and_then(|row| row.policy);
        assert_eq!(find(&ada.get(path).await.body, "idle_timeout"), "55s default");
        assert_eq!(told(), None, "nobody says anything");

        let kept = r#"{"routing": {"idle_timeout": "2m", "affinity": "on"}}"#;
        let release = make_deploy_of(&controller.store, &app, &image(&["web"]), (&BTreeMap::new(), Some(kept))).await;
        server.test.finish(&release, crate::store::Outcome::Succeeded).await;
        let set = ada.send("PATCH", path, &[], json!({"idle_timeout": "90s", "max_concurrency": 5})).await;
        assert_eq!(set.status, 200, "{}", set.text);
        assert_eq!(find(&set.body, "idle_timeout"), "1m30s app");
        assert_eq!(find(&set.body, "affinity"), "on app.json");
        let policy = told().expect("something is said");
        assert_eq!((policy.get("idle_timeout"), policy.get("affinity")), ("1m30s".into(), "on".into()));
        assert_eq!(policy.max_concurrency, Some(5));
        ada.send("PATCH", path, &[], json!({"idle_timeout": null})).await;
        assert_eq!(told().expect("something").get("idle_timeout"), "2m");
    }

    #[tokio::test]
    async fn herokus_config_vars_name_an_apps_own_pages() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let controller = &server.test.controller;
        let app = controller.store.apps().await.expect("readable").remove(0);
        let release = make_deploy_of(&controller.store, &app, &image(&["web"]), (&BTreeMap::new(), None)).await;
        server.test.finish(&release, crate::store::Outcome::Succeeded).await;
        let vars = json!({"ERROR_PAGE_URL": "//cdn.example/error.html", "MAINTENANCE_PAGE_URL": "nowhere"});
        assert_eq!(ada.send("PATCH", "/apps/shop/config-vars", &[], vars).await.status, 200);
        let release = controller.store.releases(app.id).await.expect("readable").pop().expect("a release");
        server.test.finish(&release, crate::store::Outcome::Succeeded).await;
        let path = "/apps/shop/routing-policy";
        let settings = ada.get(path).await.body;
        assert_eq!(find(&settings, "error_page"), "//cdn.example/error.html config var");
        assert_eq!(find(&settings, "maintenance_page"), "off default", "no address of a page");
        // Whoever tells routers reads one app, or all of them.
        let standing = controller.store.standing(&[app.id]).await.expect("readable").remove(0);
        assert_eq!(standing.pages["error_page"], "//cdn.example/error.html");
        ada.send("PATCH", path, &[], json!({"maintenance_page": "<b>Off</b>"})).await;
        let policy = controller.live.names.row(&app.id).and_then(|row| row.policy).expect("something is said");
        assert_eq!(policy.get("error_page"), "//cdn.example/error.html");
        assert_eq!(policy.get("maintenance_page"), "<b>Off</b>");
        let set = ada.send("PATCH", path, &[], json!({"error_page": "off"})).await.body;
        assert_eq!(find(&set, "error_page"), "off app", "what is set counts before");
        assert_eq!(find(&set, "maintenance_page"), "HTML of 10 bytes app");
    }

    #[tokio::test]
    async fn a_purge_is_a_moment_that_routers_have_not_heard_of() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let controller = &server.test.controller;
        let app = controller.store.apps().await.expect("readable").remove(0);
        let purge = async || {
            let set = ada.send("PATCH", "/apps/shop/routing-policy", &[], json!({"cache_purged": "now"})).await;
            assert_eq!(set.status, 200, "{}", set.text);
            let policy = controller.live.names.row(&app.id).and_then(|row| row.policy).expect("something is said");
            policy.cache_purged.expect("a moment")
        };
        let first = purge().await;
        assert_eq!(first, controller.clock.now());
        server.test.clock.advance(std::time::Duration::from_millis(5));
        assert!(purge().await > first);
    }

    #[tokio::test]
    async fn passwords_are_hashed_and_nobody_is_told_them() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let set = ada.send("PATCH", "/apps/shop/routing-policy", &[], json!({"basic_auth": "eve:s3cret,bob:x"})).await;
        assert_eq!(find(&set.body, "basic_auth"), "eve,bob app");
        let controller = &server.test.controller;
        let app = controller.store.apps().await.expect("readable").remove(0);
        let kept = controller.store.routing_settings(app.id).await.expect("readable");
        assert!(kept["basic_auth"].starts_with("eve:$argon2id$") && !kept["basic_auth"].contains("s3cret"));
        assert_eq!(RoutePolicy::from_texts(&kept).basic_auth.len(), 2);
        let events = ada.get("/apps/shop/events").await.text;
        assert!(events.contains("eve,bob") && !events.contains("s3cret") && !events.contains("argon2"), "{events}");
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_with_what_can() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        for (wrong, word) in [
            (json!({"balance": "random"}), "two-choices, least-connections or round-robin"),
            (json!({"speed": "1"}), "no setting of routing"),
            (json!({"basic_auth": "eve"}), "ada:secret"),
            (json!({"canonical_host": "*.example.com"}), "one host"),
        ] {
            let refused = ada.send("PATCH", "/apps/shop/routing-policy", &[], wrong).await;
            assert_eq!(refused.status, 422);
            assert!(refused.text.contains(word), "{}", refused.text);
        }
    }
}
