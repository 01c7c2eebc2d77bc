//! Switches of apps. What a release has been told never changes, so a switch works from the next release on.

use std::collections::BTreeMap;

use model::Timestamp;

use crate::store::{App, FeatureRow, Release};
use crate::{Actor, Controller, Error};

/// Tells processes which release they belong to.
const DYNO_METADATA: &str = "runtime-dyno-metadata";

/// Something that can be switched on.
#[derive(Debug)]
pub struct Feature {
    /// Its id.
    pub id: &'static str,
    /// What it is called in commands.
    pub name: &'static str,
    /// What it is called in sentences.
    pub display_name: &'static str,
    /// What it does.
    pub description: &'static str,
}

/// Every feature there is.
pub const FEATURES: &[Feature] = &[Feature {
    id: "6e5bb6a6-5d0e-4ad4-b2d4-3a0b3ef0c4a8",
    name: DYNO_METADATA,
    display_name: "Dyno Metadata",
    description: "Environment variables tell processes about their release: HEROKU_APP_ID, HEROKU_RELEASE_VERSION and more",
}];

impl Controller {
    /// The feature of this name or id.
    pub fn find_feature(&self, reference: &str) -> Result<&'static Feature, Error> {
        let is_meant = |feature: &&Feature| feature.name == reference || feature.id == reference;
        FEATURES.iter().find(is_meant).ok_or(Error::NotFound("feature"))
    }

    /// Whether a feature is on in an app's next release, and since when somebody wants that.
    pub async fn feature_of(&self, app: &App, feature: &Feature) -> Result<(bool, Option<Timestamp>), Error> {
        let rows: Vec<FeatureRow> = self.store.features(app.id).await?;
        let row = rows.into_iter().find(|row| row.name == feature.name);
        Ok(row.map_or((false, None), |row| (row.enabled, Some(row.since))))
    }

    /// Switches a feature of an app on or off.
    pub async fn set_feature(
        &self,
        app: &App,
        actor: &Actor,
        (feature, enabled): (&Feature, bool),
    ) -> Result<(), Error> {
        if self.feature_of(app, feature).await?.0 == enabled {
            return Ok(());
        }
        self.store.set_feature(app, feature.name, enabled, &self.stamp(actor)).await?;
        let verb = if enabled { "Enable" } else { "Disable" };
        self.note(app, actor, &format!("{verb} feature {}: it takes effect with the next release", feature.name));
        Ok(())
    }

    /// What a release's processes are told of it. The app's name is not among it: that may change while they run.
    pub(crate) async fn metadata(&self, release: &Release) -> Result<BTreeMap<String, String>, Error> {
        if !self.store.has_feature(release.app, DYNO_METADATA, release.version).await? {
            return Ok(BTreeMap::new());
        }
        let mut told = vec![
            ("HEROKU_APP_ID", release.app.to_string()),
            ("HEROKU_RELEASE_CREATED_AT", release.created_at.to_rfc3339()),
            ("HEROKU_RELEASE_VERSION", format!("v{}", release.version)),
            ("HEROKU_SLUG_DESCRIPTION", release.description.clone()),
        ];
        if let Some(slug) = &release.slug {
            told.push(("HEROKU_BUILD_COMMIT", slug.commit.clone()));
            told.push(("HEROKU_SLUG_COMMIT", slug.commit.clone()));
        }
        Ok(told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::http::Server;

    #[tokio::test]
    async fn a_feature_works_from_the_next_release_on_and_no_release_changes() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        let switch = async |enabled: bool| {
            let path = "/apps/shop/features/runtime-dyno-metadata";
            ada.send("PATCH", path, &[], json!({"enabled": enabled})).await.body["enabled"].clone()
        };
        let set = async |value: &str| {
            ada.send("PATCH", "/apps/shop/config-vars", &[], json!({"A": value})).await;
        };
        let controller = &server.test.controller;
        let told = async |version: u64| {
            let app = controller.store.apps().await.expect("readable")[0].id;
            let releases = controller.store.releases(app).await.expect("readable");
            let release = releases.iter().find(|release| release.version == version).expect("there");
            controller.metadata(release).await.expect("told").get("HEROKU_RELEASE_VERSION").cloned()
        };
        assert_eq!(ada.get("/apps/shop/features").await.body[0]["enabled"], json!(false));
        assert_eq!(switch(true).await, json!(true));
        assert_eq!(told(1).await, None, "it runs already");
        set("1").await;
        assert_eq!(told(2).await.as_deref(), Some("v2"));
        assert_eq!(switch(false).await, json!(false));
        set("2").await;
        assert_eq!((told(2).await.as_deref(), told(3).await), (Some("v2"), None));
        let unknown = ada.send("PATCH", "/apps/shop/features/spaces", &[], json!({"enabled": true})).await;
        assert_eq!((unknown.status, &unknown.body["resource"]), (404, &json!("feature")));
        assert_eq!(ada.get("/account/features/x").await.status, 404);
    }
}
