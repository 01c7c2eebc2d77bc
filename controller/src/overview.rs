//! Looking at apps and releases: what serves, and what a release changes.

use std::collections::HashMap;

use engine::{InstanceState, WorkloadStatus};
use model::{AppId, Digest};

use crate::config_vars::ConfigVars;
use crate::store::{App, AppSummary, Release, Status, User};
use crate::{Controller, Error};

/// An app and what of it runs.
#[derive(Debug, Clone)]
pub struct AppOverview {
    /// The app and its releases at a glance.
    pub summary: AppSummary,
    /// Whether it serves.
    pub state: AppState,
    /// Whether a push of it is being built right now.
    pub is_building: bool,
}

/// Whether an app serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppState {
    /// Nothing was deployed yet.
    Empty,
    /// Visitors get the maintenance page.
    Maintenance,
    /// At least one instance is up.
    Live,
    /// None is up, and one will be.
    Starting,
    /// None is up, since what was started ended.
    Crashed,
    /// It is scaled to nothing.
    Off,
    /// What runs containers does not answer.
    Unknown,
}

/// What one release has that another has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Whether they run different images.
    pub code: bool,
    /// The commit that the first was built from.
    pub old_commit: Option<Commit>,
    /// The commit that the second was built from.
    pub new_commit: Option<Commit>,
    /// Names of config vars, in their order.
    pub config: Vec<(String, ConfigChange)>,
}

/// A commit as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// In full.
    pub id: String,
    /// First line of its message, if that is known.
    pub subject: Option<String>,
}

/// What becomes of a config var.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigChange {
    /// Only the second has it.
    Added,
    /// They have different values.
    Changed,
    /// Only the first has it.
    Removed,
}

impl Controller {
    /// The apps of a user by name, each with what of it runs. Works while the engine is away.
    pub async fn overview(&self, user: &User) -> Result<Vec<AppOverview>, Error> {
        let summaries = self.store.summaries(user.id).await?;
        Ok(self.look_at(summaries).await)
    }

    /// One app and what of it runs. Works while the engine is away.
    pub async fn app_overview(&self, app: &App) -> Result<AppOverview, Error> {
        let summary = self.store.summary(app.id).await?;
        let mut seen = self.look_at(summary.into_iter().collect()).await;
        seen.pop().ok_or(Error::NotFound("app"))
    }

    async fn look_at(&self, summaries: Vec<AppSummary>) -> Vec<AppOverview> {
        let running = self.engine.list().await.ok();
        let mut own: HashMap<AppId, Vec<&WorkloadStatus>> = HashMap::new();
        for status in running.iter().flatten() {
            own.entry(status.app).or_default().push(status);
        }
        let building = self.live.building.lock();
        let of_app = |summary: AppSummary| {
            let workloads = own.get(&summary.app.id).map(Vec::as_slice).unwrap_or_default();
            let state = if running.is_some() { state(&summary, workloads) } else { AppState::Unknown };
            AppOverview { is_building: building.contains_key(&summary.app.id), summary, state }
        };
        summaries.into_iter().map(of_app).collect()
    }

    /// Whether a push of an app is being built and released right now.
    pub fn is_building(&self, app: &App) -> bool {
        self.live.building.lock().contains_key(&app.id)
    }

    /// What changes from one release of an app to another.
    pub async fn changes(&self, app: &App, old: &Release, new: &Release) -> Result<Changes, Error> {
        let before = self.store.release_config(old.id).await?;
        let after = self.store.release_config(new.id).await?;
        self.changes_between(app, (old, &before), (new, &after)).await
    }

    /// What going back to a release would change against the one that serves. Attachments stay as they are.
    pub async fn rollback_changes(&self, app: &App, current: &Release, target: &Release) -> Result<Changes, Error> {
        let before = self.store.release_config(current.id).await?;
        let after = self.store.config_after_rollback(app.id, target.id).await?;
        self.changes_between(app, (current, &before), (target, &after)).await
    }

    async fn changes_between(
        &self,
        app: &App,
        (old, before): (&Release, &ConfigVars),
        (new, after): (&Release, &ConfigVars),
    ) -> Result<Changes, Error> {
        let releases = self.store.releases(app.id).await?;
        Ok(Changes {
            code: old.image != new.image,
            old_commit: self.commit(&releases, old.image.as_ref()).await?,
            new_commit: self.commit(&releases, new.image.as_ref()).await?,
            config: compare(before, after),
        })
    }

    /// The commit that an image was built from.
    async fn commit(&self, releases: &[Release], image: Option<&Digest>) -> Result<Option<Commit>, Error> {
        let Some(image) = image else { return Ok(None) };
        let deployed = releases.iter().find(|release| release.image.as_ref() == Some(image) && release.build.is_some());
        let Some(build) = deployed.and_then(|release| release.build) else { return Ok(None) };
        let build = self.store.build(build).await?;
        let build = build.filter(|build| build.status == Status::Succeeded);
        Ok(build.map(|build| Commit { id: build.commit, subject: build.subject }))
    }
}

/// Whether an app serves, by its instances that visitors reach; by all of them if it has none of that kind.
fn state(summary: &AppSummary, workloads: &[&WorkloadStatus]) -> AppState {
    if summary.image.is_none() {
        return AppState::Empty;
    }
    if summary.app.maintenance {
        return AppState::Maintenance;
    }
    let current = || workloads.iter().filter(|workload| workload.release == summary.version);
    let has_web = current().any(|workload| workload.process_type.as_str() == "web");
    let instances = current()
        .filter(|workload| !has_web || workload.process_type.as_str() == "web")
        .flat_map(|workload| &workload.instances);
    let (mut starting, mut crashed) = (false, false);
    for instance in instances {
        match instance.state {
            InstanceState::Up => return AppState::Live,
            InstanceState::Starting => starting = true,
            InstanceState::Crashed { .. } => crashed = true,
            InstanceState::Stopping => {}
        }
    }
    match (crashed, starting) {
        (true, _) => AppState::Crashed,
        (_, true) => AppState::Starting,
        _ => AppState::Off,
    }
}

fn compare(before: &ConfigVars, after: &ConfigVars) -> Vec<(String, ConfigChange)> {
    let removed = before.iter().filter(|(name, _)| after.get(name).is_none());
    let mut changes: Vec<_> = removed.map(|(name, _)| (name.to_string(), ConfigChange::Removed)).collect();
    for (name, value) in after.iter() {
        match before.get(name) {
            None => changes.push((name.to_string(), ConfigChange::Added)),
            Some(old) if old != value => changes.push((name.to_string(), ConfigChange::Changed)),
            Some(_) => {}
        }
    }
    changes.sort();
    changes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::TestController;

    #[tokio::test]
    async fn what_a_release_changes_is_told_by_name_and_commit() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let user = test.user("ada@example.com").await;
        let app = test.app(&user, "shown").await;
        assert_eq!(controller.overview(&user).await.expect("readable")[0].state, AppState::Empty);
        let patch = |vars: &[(&str, Option<&str>)]| -> BTreeMap<String, Option<String>> {
            vars.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
        };
        let first = patch(&[("KEPT", Some("1")), ("EDITED", Some("1")), ("GONE", Some("1"))]);
        let old = controller.set_config(&app, &test.actor(&user), &first).await.expect("set").expect("a release");
        let second = patch(&[("EDITED", Some("2")), ("GONE", None), ("NEW", Some("secret"))]);
        controller.set_config(&app, &test.actor(&user), &second).await.expect("set");
        let new = test.deploy(&app, &["web"]).await;
        let changes = controller.changes(&app, &old, &new).await.expect("readable");
        let named = |name: &str, change| (name.to_owned(), change);
        let config = vec![
            named("EDITED", ConfigChange::Changed),
            named("GONE", ConfigChange::Removed),
            named("NEW", ConfigChange::Added),
        ];
        assert_eq!(changes.config, config);
        assert!(changes.code && changes.old_commit.is_none());
        let commit = changes.new_commit.expect("known");
        assert_eq!((&commit.id[..8], commit.subject.as_deref()), ("1a2b3c4d", Some("Count")));
        let shown = &controller.overview(&user).await.expect("readable")[0];
        assert_eq!((shown.state, shown.summary.version), (AppState::Off, new.version), "nothing was rolled out here");
        assert!(controller.overview(&test.user("eve@example.com").await).await.expect("readable").is_empty());
    }
}
