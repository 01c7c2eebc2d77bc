//! Looking at apps and releases: what serves, and what a release changes.

use std::collections::HashMap;

use engine::{InstanceState, WorkloadStatus};
use model::AppId;

use crate::store::{App, AppSummary, User};
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
    /// Nobody used it for long: the next request starts it.
    Asleep,
    /// None is up, and one will be.
    Starting,
    /// None is up, since what was started ended.
    Crashed,
    /// It is scaled to nothing.
    Off,
    /// What runs containers does not answer.
    Unknown,
}

impl Controller {
    /// Apps of a user with `part` in their names, by name, each with what of it runs: so many behind the first `skip`. Works
    /// while the engine is away.
    pub async fn overview(&self, user: &User, part: &str, span: (usize, usize)) -> Result<Vec<AppOverview>, Error> {
        let summaries = self.store.summaries(user.id, part, span).await?;
        Ok(self.look_at(summaries).await)
    }

    /// One app and what of it runs. Works while the engine is away.
    pub async fn app_overview(&self, app: &App) -> Result<AppOverview, Error> {
        let summary = self.store.summary(app.id).await?;
        let mut seen = self.look_at(summary.into_iter().collect()).await;
        seen.pop().ok_or(Error::NotFound("app"))
    }

    async fn look_at(&self, summaries: Vec<AppSummary>) -> Vec<AppOverview> {
        let apps: Vec<AppId> = summaries.iter().map(|summary| summary.app.id).collect();
        let running = self.engine.list_of(&apps).await.ok();
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
    let shown = || current().filter(|workload| !has_web || workload.process_type.as_str() == "web");
    if shown().any(|workload| workload.asleep.is_some()) {
        return AppState::Asleep;
    }
    let instances = shown().flat_map(|workload| &workload.instances);
    let (mut starting, mut crashed) = (false, false);
    for instance in instances {
        match instance.state {
            InstanceState::Up => return AppState::Live,
            InstanceState::Starting => starting = true,
            InstanceState::Crashed { .. } | InstanceState::GaveUp => crashed = true,
            InstanceState::Stopping => {}
        }
    }
    match (crashed, starting) {
        (true, _) => AppState::Crashed,
        (_, true) => AppState::Starting,
        _ => AppState::Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestController;

    #[tokio::test]
    async fn an_app_is_seen_with_what_serves_by_those_who_may() {
        let test = TestController::new().await;
        let controller = &test.controller;
        let user = test.user("ada@example.com").await;
        let app = test.app(&user, "shown").await;
        let seen = async |user, part: &str, span| controller.overview(user, part, span).await.expect("readable");
        let all = (0, 50);
        assert_eq!(seen(&user, "", all).await[0].state, AppState::Empty);
        let new = test.deploy(&app, &["web"]).await;
        let shown = &seen(&user, "", all).await[0];
        assert_eq!((shown.state, shown.summary.version), (AppState::Off, new.version), "nothing was rolled out here");
        let other = test.user("eve@example.com").await;
        assert!(seen(&other, "", all).await.is_empty());
        test.app(&user, "other").await;
        let named = async |part: &str, span| -> Vec<String> {
            seen(&user, part, span).await.iter().map(|seen| seen.summary.app.name.to_string()).collect()
        };
        assert_eq!(named("", all).await, ["other", "shown"]);
        assert_eq!(named("", (1, 1)).await, ["shown"]);
        assert_eq!(named("how", all).await, ["shown"]);
        for nowhere in ["%", "_hown", "zzz"] {
            assert!(named(nowhere, all).await.is_empty(), "{nowhere}");
            assert_eq!(controller.store.count_apps(user.id, nowhere).await.expect("counted"), 0);
        }
        assert_eq!(controller.store.count_apps(user.id, "o").await.expect("counted"), 2);
    }
}
