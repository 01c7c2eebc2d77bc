//! What happened to an app: its releases, and the builds that ended in none.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use controller::Controller;
use controller::releases::is_eligible;
use controller::store::{App, Build, Release, Slice, Status};
use model::Timestamp;
use serde::{Deserialize, Serialize};

use super::show as show_page;
use crate::error::PageError;
use crate::live::{self, Part};
use crate::session::AppVisit;
use crate::templates;
use crate::view::{Head, Inside, Moment, Pill, path};

/// Entries on one page.
const PAGE: usize = 40;

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Which {
    #[serde(default)]
    page: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(super) struct Activity {
    page: Inside,
    app: Head,
    entries: Vec<Entry>,
    number: usize,
    older: Option<usize>,
}

/// A release, or a build without one.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    /// `v7`; none for a build.
    version: Option<u64>,
    what: String,
    /// What it is besides: `Deploy 1a2b3c4d` of a commit that `what` names, and why it was made.
    detail: Option<String>,
    pill: Pill,
    who: String,
    when: Moment,
    /// Page of the release.
    link: Option<String>,
    /// Page of the build and its output.
    build: Option<String>,
    rollback: Option<String>,
    /// Why it failed: the first line.
    failure: Option<String>,
    #[serde(skip)]
    time: Timestamp,
}

/// `GET /console/apps/{app}/activity`
pub(crate) async fn show(
    State(controller): State<Arc<Controller>>,
    by: AppVisit,
    Query(which): Query<Which>,
) -> Result<Response, PageError> {
    show_page(&by.visit, "activity.html", &Activity::load(&controller, &by, which.page.unwrap_or(1)).await?)
}

/// `GET /console/apps/{app}/activity/live`
pub(crate) async fn live(State(controller): State<Arc<Controller>>, by: AppVisit) -> Response {
    live::follow(controller, by, |controller, by| async move {
        let page = Activity::load(&controller, &by, 1).await?;
        let part = |name| templates::block("activity.html", name, &page);
        Ok::<Vec<Part>, PageError>(vec![("head", part("head")?), ("live", part("live")?)])
    })
}

impl Activity {
    async fn load(controller: &Controller, by: &AppVisit, number: usize) -> Result<Self, PageError> {
        let number = number.max(1);
        // One more than is shown says whether there is an older page.
        let mut all = entries(controller, &by.app, number.saturating_mul(PAGE).saturating_add(1)).await?;
        let older = (all.len() > number.saturating_mul(PAGE)).then(|| number + 1);
        let entries = all.drain(..).skip((number - 1).saturating_mul(PAGE)).take(PAGE).collect();
        let app = Head::load(controller, by, "activity").await?;
        Ok(Self { page: Inside::new(&format!("Activity of {}", by.app.name), &by.visit), app, entries, number, older })
    }
}

/// The newest entries of an app.
pub(super) async fn entries(controller: &Controller, app: &App, limit: usize) -> Result<Vec<Entry>, PageError> {
    let newest = Slice { max: limit, descending: true, ..Slice::default() };
    let releases = controller.store.releases_slice(app.id, &newest).await?.items;
    let builds = controller.store.builds_slice(app.id, &newest).await?.items;
    let now = controller.clock.now();
    let deployed = controller.store.was_deployed(app.id).await?;
    let of_release = |release: &Release| {
        let build = builds.iter().find(|build| release.build == Some(build.id));
        let entry = Entry::of_release(app, release, deployed, now);
        entry.named(build.and_then(|build| build.subject.clone()))
    };
    let of_build = |build: &Build| Entry::of_build(app, build, now).named(build.subject.clone());
    let mut entries: Vec<Entry> = releases.iter().map(of_release).collect();
    entries.extend(builds.iter().filter(|build| build.release.is_none()).map(of_build));
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.time, entry.version)));
    entries.truncate(limit);
    Ok(entries)
}

impl Entry {
    fn of_release(app: &App, release: &Release, deployed: bool, now: Timestamp) -> Self {
        let (path, version) = (path(app), release.version);
        let can_go_back = !release.current && is_eligible(release, deployed);
        Self {
            version: Some(version),
            what: release.description.clone(),
            detail: release.reason.clone(),
            pill: Pill::of_release(release),
            who: release.user.email.to_string(),
            when: Moment::new(release.created_at, now),
            link: Some(format!("{path}/releases/v{version}")),
            build: release.build.map(|build| format!("{path}/builds/{build}")),
            rollback: can_go_back.then(|| format!("{path}/releases/v{version}/rollback")),
            failure: release.failure.as_deref().and_then(|text| text.lines().next()).map(str::to_owned),
            time: release.created_at,
        }
    }

    /// With the subject of its commit for a name.
    fn named(mut self, subject: Option<String>) -> Self {
        if let Some(subject) = subject {
            let what = std::mem::replace(&mut self.what, subject);
            self.detail = Some(self.detail.map_or_else(|| what.clone(), |reason| format!("{what}: {reason}")));
        }
        self
    }

    fn of_build(app: &App, build: &Build, now: Timestamp) -> Self {
        let pill = match build.status {
            Status::Pending => Pill::new("busy", "Building"),
            Status::Failed => Pill::new("bad", "Build failed"),
            Status::Succeeded => Pill::new("calm", "Built"),
        };
        Self {
            version: None,
            what: format!("Build {}", short(&build.commit)),
            detail: None,
            pill,
            who: build.user.email.to_string(),
            when: Moment::new(build.created_at, now),
            link: None,
            build: Some(format!("{}/builds/{}", path(app), build.id)),
            rollback: None,
            failure: None,
            time: build.created_at,
        }
    }
}

/// A commit as people name it.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

#[cfg(test)]
pub(super) fn sample_entries() -> Vec<Entry> {
    use crate::view::samples::{HOSTILE, moment};
    let entry = |version: Option<u64>| Entry {
        version,
        what: HOSTILE.to_owned(),
        detail: version.map(|_| HOSTILE.to_owned()),
        pill: Pill::new("good", "Live"),
        who: HOSTILE.to_owned(),
        when: moment(),
        link: version.map(|_| HOSTILE.to_owned()),
        build: Some(HOSTILE.to_owned()),
        rollback: version.map(|_| HOSTILE.to_owned()),
        failure: Some(HOSTILE.to_owned()),
        time: Timestamp::from_millis(0),
    };
    vec![entry(None), entry(Some(3))]
}

#[cfg(test)]
impl Activity {
    pub(super) fn samples() -> [Self; 2] {
        use crate::view::samples::{head, inside};
        let page = |entries, number, older| Self { page: inside(), app: head("activity"), entries, number, older };
        [page(sample_entries(), 2, Some(3)), page(vec![], 1, None)]
    }
}
